//! TCP servers that say who they are and whom they see, then echo; and clients that check it.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tapvs::links::Namespace;

use crate::harness::say;
use crate::{Context as _, Failure, Outcome, ensure};

/// No answer within this is none.
const PATIENCE: Duration = Duration::from_secs(15);

/// An echo server; gone with all its connections when dropped.
#[derive(Debug)]
pub struct EchoServer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    listener: TcpListener,
    name: String,
    ending: AtomicBool,
    /// Those that are open, by number.
    streams: Mutex<BTreeMap<u64, TcpStream>>,
}

impl EchoServer {
    /// Listens at `address` in `namespace`. A client is sent one line with `name` and the client's
    /// address as the server sees it, then everything it sends.
    pub fn start(namespace: &Namespace, address: (Ipv4Addr, u16), name: &str) -> Outcome<Self> {
        let listener = namespace
            .run(|| TcpListener::bind(address))
            .context(format_args!("cannot listen at {address:?}"))?;
        let shared = Arc::new(Shared {
            listener,
            name: name.to_owned(),
            ending: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept()
        });
        Ok(Self { shared })
    }
}

impl EchoServer {
    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.shared.streams().len()
    }
}

impl Shared {
    fn accept(self: Arc<Self>) {
        for number in 0.. {
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    let shared = Arc::clone(&self);
                    thread::spawn(move || shared.serve(number, stream, peer));
                }
                Err(_) if self.ending.load(Ordering::Relaxed) => return,
                Err(error) => {
                    say(format_args!("echo server {}: {error}", self.name));
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    fn serve(&self, number: u64, stream: TcpStream, peer: SocketAddr) {
        if let Ok(kept) = stream.try_clone() {
            self.streams().insert(number, kept);
        }
        if self.ending.load(Ordering::Relaxed) {
            return;
        }
        // A client that breaks off is the client's affair.
        drop(echo(stream, &format!("{} {peer}\n", self.name)));
        self.streams().remove(&number);
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<u64, TcpStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then ends. It fails when the listener is gone already.
        let _ = rustix::net::shutdown(&self.shared.listener, rustix::net::Shutdown::Both);
        for stream in self.shared.streams().values() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

fn echo(mut stream: TcpStream, hello: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(hello.as_bytes())?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.shutdown(Shutdown::Write),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

/// A connection to an [`EchoServer`].
#[derive(Debug)]
pub struct Client {
    /// The connection itself.
    pub stream: TcpStream,
    /// Who answered.
    pub server: String,
    /// What the server takes the client for.
    pub seen_as: SocketAddr,
    /// How long the three-way handshake took.
    pub took: Duration,
}

impl Client {
    /// Connects from `namespace` and reads the server's greeting.
    pub fn connect(namespace: &Namespace, to: (Ipv4Addr, u16)) -> Outcome<Self> {
        let start = Instant::now();
        let stream = connect(namespace, to, PATIENCE).context("cannot connect")?;
        let took = start.elapsed();
        Ok(Self { took, ..Self::greeted(stream)? })
    }

    /// Reads the server's greeting from a connection that is there already.
    pub fn greeted(mut stream: TcpStream) -> Outcome<Self> {
        let mut line = Vec::new();
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte).context("no greeting from the server")?;
            line.push(byte[0]);
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let (server, seen_as) = line
            .trim_end()
            .split_once(' ')
            .ok_or_else(|| Failure::new(format!("`{line}` is no greeting")))?;
        let (server, seen_as) = (server.to_owned(), seen_as.parse()?);
        Ok(Self { stream, server, seen_as, took: Duration::ZERO })
    }

    /// Sends `size` bytes of noise, then the end, and reads the echo at the same time; they must be
    /// equal.
    pub fn both_ways(&mut self, size: usize) -> Outcome {
        let data = noise(size, 11);
        let mut writer = self.stream.try_clone()?;
        let back = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                writer.write_all(&data)?;
                writer.shutdown(Shutdown::Write)
            });
            let mut back = Vec::with_capacity(data.len());
            let read = self.stream.read_to_end(&mut back).context("reading the echo");
            sender.join().map_err(|_| Failure::new("the sender panicked"))?.context("sending")?;
            read.map(|_| back)
        })?;
        ensure!(back.len() == data.len(), "{} of {} bytes came back", back.len(), data.len());
        let differs = back.iter().zip(&data).position(|(a, b)| a != b);
        ensure!(differs.is_none(), "byte {differs:?} came back changed");
        Ok(())
    }

    /// Sends `message` and expects the same back.
    pub fn echo(&mut self, message: &[u8]) -> Outcome {
        self.stream.write_all(message).context("cannot send")?;
        let mut answer = vec![0; message.len()];
        self.stream.read_exact(&mut answer).context("no echo")?;
        ensure!(answer == message, "the echo differs from the {} bytes sent", message.len());
        Ok(())
    }

    /// Ends it in order: our FIN, then the server's.
    pub fn close(mut self) -> Outcome {
        self.stream.shutdown(Shutdown::Write)?;
        let rest = self.stream.read(&mut [0; 16]).context("no end of the stream")?;
        ensure!(rest == 0, "{rest} bytes came that nobody sent");
        Ok(())
    }
}

/// A plain connection from `namespace`, with time-outs set.
pub fn connect(
    namespace: &Namespace,
    (address, port): (Ipv4Addr, u16),
    limit: Duration,
) -> io::Result<TcpStream> {
    let to = SocketAddrV4::new(address, port).into();
    let stream = namespace.run(|| TcpStream::connect_timeout(&to, limit))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Bytes that look like noise and are the same every time (xorshift64).
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_repeats_itself_by_seed_only() {
        assert_eq!(noise(1_001, 7), noise(1_001, 7));
        assert_ne!(noise(1_000, 7), noise(1_000, 9));
        assert_eq!(noise(1_001, 7).len(), 1_001);
    }
}
