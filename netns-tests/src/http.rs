//! HTTP servers that are well or not, as they are told; and a client that reads one answer.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use tapvs::links::Namespace;

use crate::tcp::connect;
use crate::{Context as _, Outcome};

/// How often whoever takes its time looks whether it should end.
const BEAT: Duration = Duration::from_millis(20);

/// What a server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// 200, and its name.
    Well,
    /// This status and body.
    Says(u16, &'static str),
    /// Takes the connection, and never says a word.
    Hangs,
    /// A header that has no end, a byte at a time.
    Drips,
    /// Half a header, and a reset.
    Dies,
}

/// A server; gone with its connections when dropped.
#[derive(Debug)]
pub struct HttpServer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    listener: TcpListener,
    name: String,
    mood: Mutex<Mood>,
    ending: AtomicBool,
}

impl HttpServer {
    /// Listens at `address` in `namespace`, and is well.
    pub fn start(namespace: &Namespace, address: (Ipv4Addr, u16), name: &str) -> Outcome<Self> {
        let listener = namespace
            .run(|| TcpListener::bind(address))
            .context(format_args!("cannot listen at {address:?}"))?;
        let (name, mood) = (name.to_owned(), Mutex::new(Mood::Well));
        let shared = Arc::new(Shared { listener, name, mood, ending: AtomicBool::new(false) });
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                while let Ok((stream, _)) = shared.listener.accept() {
                    let shared = Arc::clone(&shared);
                    // A client that breaks off is the client's affair.
                    thread::spawn(move || drop(shared.serve(stream)));
                }
            }
        });
        Ok(Self { shared })
    }

    /// From now on.
    pub fn set(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then ends. It fails when the listener is gone already.
        let _ = rustix::net::shutdown(&self.shared.listener, rustix::net::Shutdown::Both);
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        let mood = *self.mood.lock().unwrap_or_else(PoisonError::into_inner);
        match mood {
            Mood::Well => answer(&mut stream, 200, &self.name),
            Mood::Says(status, body) => answer(&mut stream, status, body),
            Mood::Hangs => {
                self.while_alive(|| Ok(()));
                Ok(())
            }
            Mood::Drips => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nX-Drip: ")?;
                self.while_alive(|| stream.write_all(b"."));
                Ok(())
            }
            Mood::Dies => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-")?;
                set_socket_linger(&stream, Some(Duration::ZERO))?;
                Ok(())
            }
        }
    }

    fn while_alive(&self, mut step: impl FnMut() -> io::Result<()>) {
        while !self.ending.load(Ordering::Relaxed) && step().is_ok() {
            thread::sleep(BEAT);
        }
    }
}

fn answer(stream: &mut TcpStream, status: u16, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} As Told\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// The body of the answer to one request.
pub fn get(namespace: &Namespace, to: (Ipv4Addr, u16)) -> Outcome<String> {
    let mut stream = connect(namespace, to, Duration::from_secs(5)).context("cannot connect")?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("no answer")?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(body.to_owned())
}
