//! The lab's real server: a tiny HTTP/1.1 responder that says its name. One request per connection.
//!
//! `GET /` answers the server's name, `GET /bytes/N` answers N bytes (byte `i` is `i mod 251`).

use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::deadline::Deadline;

/// How many connections are served at once; more wait in the listen queue.
const WORKERS: usize = 64;
const STACK: usize = 256 * 1024;
const LARGEST_HEAD: usize = 8 * 1024;
const LARGEST_BODY: u64 = 64 * 1024 * 1024;
/// A client must have sent its request by then.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a closing connection may still send before it is reset.
const LINGER: Duration = Duration::from_secs(1);
/// What `/bytes/N` repeats; prime, so that a shifted or repeated segment shows.
const PATTERN: usize = 251;

/// A listening server that answers with its name.
#[derive(Debug)]
pub(super) struct Responder {
    name: String,
    listener: TcpListener,
}

impl Responder {
    pub(super) fn bind(name: &str, address: SocketAddr) -> io::Result<Self> {
        Ok(Self { name: name.to_owned(), listener: TcpListener::bind(address)? })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until accepting fails, and says why it did. Threads that block in `accept` bound the
    /// number of connections by their own number.
    pub(super) fn serve(self) -> io::Error {
        let this = Arc::new(self);
        let (failures, failed) = mpsc::channel();
        for _ in 0..WORKERS {
            let (this, failures) = (Arc::clone(&this), failures.clone());
            let worker = move || drop(failures.send(this.accept_all()));
            if let Err(error) = thread::Builder::new().stack_size(STACK).spawn(worker) {
                return error;
            }
        }
        drop(failures);
        failed.recv().unwrap_or_else(|_| io::Error::other("every worker has panicked"))
    }

    fn accept_all(&self) -> io::Error {
        loop {
            match self.listener.accept() {
                // What goes wrong on one connection is that client's business alone.
                Ok((stream, _)) => drop(self.answer(&stream)),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error,
            }
        }
    }

    fn answer(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut head = [0; LARGEST_HEAD];
        let Some(length) = read_head(stream, &mut head)? else { return Ok(()) };
        self.respond(stream, &request(&head[..length]))?;
        stream.shutdown(Shutdown::Write)?;
        // Closing with unread bytes would reset the connection and could cut the answer short.
        let linger = Deadline::after(LINGER);
        while linger.read(stream, &mut head)? > 0 {}
        Ok(())
    }

    fn respond(&self, mut stream: &TcpStream, request: &Request) -> io::Result<()> {
        let (status, length, body) = match request {
            Request::Name => ("200 OK", 0, format!("{}\n", self.name)),
            Request::Bytes(length) => ("200 OK", *length, String::new()),
            Request::Wrong(status) => (*status, 0, format!("{status}\n")),
        };
        let total = length + body.len() as u64;
        let answer = format!(
            "HTTP/1.1 {status}\r\nServer: tapvs-lab\r\nContent-Type: text/plain\r\n\
             Content-Length: {total}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes())?;
        write_pattern(stream, length)
    }
}

/// What a client asked for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Name,
    Bytes(u64),
    /// Not something this server does, and the status that says so.
    Wrong(&'static str),
}

/// Reads up to the blank line; the head's length, or `None` when the client left before.
fn read_head(stream: &TcpStream, head: &mut [u8; LARGEST_HEAD]) -> io::Result<Option<usize>> {
    let deadline = Deadline::after(PATIENCE);
    let mut length = 0;
    while length < head.len() {
        match deadline.read(stream, &mut head[length..])? {
            0 => return Ok(None),
            read => length += read,
        }
        if head[..length].windows(4).any(|window| window == b"\r\n\r\n") {
            break;
        }
    }
    Ok(Some(length))
}

fn request(head: &[u8]) -> Request {
    if !head.windows(4).any(|window| window == b"\r\n\r\n") {
        return Request::Wrong("431 Request Header Fields Too Large");
    }
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ').map(|word| std::str::from_utf8(word).ok());
    let (Some(Some(method)), Some(Some(target)), Some(Some(version)), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Request::Wrong("400 Bad Request");
    };
    if !version.starts_with("HTTP/1.") {
        return Request::Wrong("400 Bad Request");
    }
    if method != "GET" {
        return Request::Wrong("405 Method Not Allowed");
    }
    match target.strip_prefix("/bytes/").map(str::parse) {
        None if target == "/" => Request::Name,
        Some(Ok(length)) if length <= LARGEST_BODY => Request::Bytes(length),
        None | Some(Ok(_) | Err(_)) => Request::Wrong("404 Not Found"),
    }
}

fn write_pattern(mut stream: &TcpStream, length: u64) -> io::Result<()> {
    // A whole number of patterns, so that every chunk begins at the pattern's start.
    let chunk: Vec<u8> = (0..=250).cycle().take(PATTERN * 256).collect();
    let mut left = length;
    while left > 0 {
        let part = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
        stream.write_all(&chunk[..part])?;
        left -= part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn start() -> SocketAddr {
        let responder = Responder::bind("s7", "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = responder.address().unwrap();
        thread::spawn(move || responder.serve());
        address
    }

    fn ask(address: SocketAddr, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    fn body(answer: &[u8]) -> &[u8] {
        let blank = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        &answer[blank + 4..]
    }

    #[test]
    fn answers_with_its_name_and_closes() {
        let address = start();
        for _ in 0..WORKERS + 1 {
            let answer = ask(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
            assert_eq!(body(&answer), b"s7\n");
        }
    }

    #[test]
    fn sends_as_many_bytes_as_asked_for() {
        let address = start();
        for length in [0, 1, PATTERN * 256, 1_000_000] {
            let request = format!("GET /bytes/{length} HTTP/1.1\r\n\r\n");
            let answer = ask(address, request.as_bytes());
            assert_eq!(body(&answer).len(), length);
            assert!(
                body(&answer).iter().enumerate().all(|(at, &b)| usize::from(b) == at % PATTERN)
            );
        }
    }

    #[test]
    fn refuses_what_it_does_not_do() {
        let address = start();
        for (request, status) in [
            ("POST / HTTP/1.1\r\n\r\n".to_owned(), "405"),
            ("GET /other HTTP/1.1\r\n\r\n".to_owned(), "404"),
            ("GET /bytes/67108865 HTTP/1.1\r\n\r\n".to_owned(), "404"),
            ("GET /bytes/-1 HTTP/1.1\r\n\r\n".to_owned(), "404"),
            ("GET /\r\n\r\n".to_owned(), "400"),
            ("\r\n\r\n".to_owned(), "400"),
            (format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * LARGEST_HEAD)), "431"),
        ] {
            let answer = ask(address, request.as_bytes());
            let line = String::from_utf8_lossy(&answer[..12.min(answer.len())]).into_owned();
            assert_eq!(line, format!("HTTP/1.1 {status}"), "{request:.40}");
        }
    }

    #[test]
    fn a_client_that_leaves_early_harms_nobody() {
        let address = start();
        for _ in 0..2 * WORKERS {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET /bytes/67108864 HTTP/1.1\r\n").unwrap();
        }
        assert_eq!(body(&ask(address, b"GET / HTTP/1.1\r\n\r\n")), b"s7\n");
    }
}
