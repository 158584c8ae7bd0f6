//! A UDP echo server and its client.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tapvs::links::Namespace;

use crate::{Context as _, Failure, Outcome};

/// How often the server looks whether it should end.
const BEAT: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers each datagram with its name, the sender as it sees it, and the datagram.
#[derive(Debug)]
pub struct UdpEchoServer {
    end: Arc<AtomicBool>,
}

impl UdpEchoServer {
    /// Listens at `address` in `namespace`.
    pub fn start(namespace: &Namespace, address: (Ipv4Addr, u16), name: &str) -> Outcome<Self> {
        let socket = namespace
            .run(|| UdpSocket::bind(address))
            .context(format_args!("cannot bind {address:?}"))?;
        socket.set_read_timeout(Some(BEAT))?;
        let end = Arc::new(AtomicBool::new(false));
        thread::spawn({
            let (end, name) = (Arc::clone(&end), name.to_owned());
            move || {
                let mut buffer = vec![0; 65_536];
                while !end.load(Ordering::Relaxed) {
                    let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                    let mut answer = format!("{name} {from} ").into_bytes();
                    answer.extend_from_slice(&buffer[..length]);
                    // Lost answers are the client's to notice.
                    drop(socket.send_to(&answer, from));
                }
            }
        });
        Ok(Self { end })
    }
}

impl Drop for UdpEchoServer {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// A socket in `namespace` that talks to `to` alone.
pub fn client(namespace: &Namespace, from: Ipv4Addr, to: (Ipv4Addr, u16)) -> Outcome<UdpSocket> {
    let socket = namespace.run(|| {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect(to)?;
        Ok::<_, std::io::Error>(socket)
    })?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Sends `message` and returns the answer as text.
pub fn ask(socket: &UdpSocket, message: &[u8]) -> Outcome<String> {
    socket.send(message).context("cannot send")?;
    let mut buffer = vec![0; 65_536];
    let length = socket.recv(&mut buffer).context("no answer")?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// The parts of a UDP echo server's answer: its name, whom it saw, the message.
pub fn parts(answer: &str) -> Outcome<(&str, SocketAddr, &str)> {
    let mut words = answer.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some(name), Some(seen_as), Some(message)) => Ok((name, seen_as.parse()?, message)),
        _ => Err(Failure::new(format!("`{answer}` is no answer"))),
    }
}
