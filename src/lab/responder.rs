//! The lab's real server: a tiny HTTP/1.1 responder that says its name. One request per connection,
//! unless the request says `Connection: keep-alive`.
//!
//! `GET /` answers the server's name, `GET /bytes/N` answers N bytes (byte `i` is `i mod 251`), and
//! `GET /bytes/N/at/R` answers R of them in a second, until the client sends anything more: then the
//! rest at once.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
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
/// For how long a connection that is kept may say nothing.
const IDLE: Duration = Duration::from_secs(600);
/// From one part of a slow answer to the next.
const STEP: Duration = Duration::from_millis(1_000 / STEPS);
/// How many parts that makes in a second.
const STEPS: u64 = 100;
/// How long a client that has its answer may take to close.
const LINGER: Duration = Duration::from_millis(500);
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
        let mut patience = PATIENCE;
        loop {
            let Some(length) = read_head(stream, &mut head, patience)? else { return Ok(()) };
            let is_kept = wants_more(&head[..length]);
            self.respond(stream, &request(&head[..length]), is_kept)?;
            if !is_kept {
                break;
            }
            patience = IDLE;
        }
        // Whoever closes first remembers the connection for a minute (TIME_WAIT), and would answer for
        // it even after this process has died: better the client. Unread bytes would reset it.
        let linger = Deadline::after(LINGER);
        while linger.read(stream, &mut head)? > 0 {}
        Ok(())
    }

    fn respond(&self, mut stream: &TcpStream, request: &Request, is_kept: bool) -> io::Result<()> {
        let (status, length, body) = match request {
            Request::Name => ("200 OK", 0, format!("{}\n", self.name)),
            Request::Bytes { length, .. } => ("200 OK", *length, String::new()),
            Request::Wrong(status) => (*status, 0, format!("{status}\n")),
        };
        let connection = if is_kept { "keep-alive" } else { "close" };
        let total = length + body.len() as u64;
        let answer = format!(
            "HTTP/1.1 {status}\r\nServer: tapvs-lab\r\nContent-Type: text/plain\r\n\
             Content-Length: {total}\r\nConnection: {connection}\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes())?;
        match request {
            Request::Bytes { rate: Some(rate), .. } => write_slowly(stream, length, *rate),
            _ => write_pattern(stream, 0, length),
        }
    }
}

/// What a client asked for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Name,
    /// How many, and how many of them in a second; at once without.
    Bytes {
        length: u64,
        rate: Option<u64>,
    },
    /// Not something this server does, and the status that says so.
    Wrong(&'static str),
}

/// Reads up to the blank line; the head's length, or `None` when the client left before.
fn read_head(
    stream: &TcpStream,
    head: &mut [u8; LARGEST_HEAD],
    patience: Duration,
) -> io::Result<Option<usize>> {
    let deadline = Deadline::after(patience);
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
    if target == "/" {
        return Request::Name;
    }
    bytes(target).unwrap_or(Request::Wrong("404 Not Found"))
}

/// `/bytes/N` and `/bytes/N/at/R`.
fn bytes(target: &str) -> Option<Request> {
    let (length, rate) = match target.strip_prefix("/bytes/")?.split_once("/at/") {
        None => (target.strip_prefix("/bytes/")?, None),
        Some((length, rate)) => (length, Some(rate.parse().ok().filter(|rate| *rate > 0)?)),
    };
    let length = length.parse().ok().filter(|length| *length <= LARGEST_BODY)?;
    Some(Request::Bytes { length, rate })
}

/// Whether the client will ask again on the same connection.
fn wants_more(head: &[u8]) -> bool {
    const KEPT: &[u8] = b"\r\nConnection: keep-alive\r\n";
    head.windows(KEPT.len()).any(|window| window.eq_ignore_ascii_case(KEPT))
}

/// The pattern's bytes from `from` up to `to`.
fn write_pattern(mut stream: &TcpStream, from: u64, to: u64) -> io::Result<()> {
    // A whole number of patterns, so that every chunk begins where the one before began.
    let start = usize::try_from(from % PATTERN as u64).unwrap_or_default();
    let chunk: Vec<u8> = (0..=250).cycle().skip(start).take(PATTERN * 256).collect();
    let mut left = to - from;
    while left > 0 {
        let part = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
        stream.write_all(&chunk[..part])?;
        left -= part as u64;
    }
    Ok(())
}

/// As many bytes in a second, until the client sends something: then all that are left.
fn write_slowly(stream: &TcpStream, length: u64, rate: u64) -> io::Result<()> {
    let part = (rate / STEPS).max(1);
    let mut sent = 0;
    while sent < length {
        let next = (sent + part).min(length);
        write_pattern(stream, sent, next)?;
        sent = next;
        match Deadline::after(STEP).read(stream, &mut [0; 64]) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            Err(error) => return Err(error),
            // Closed, or in a hurry.
            Ok(_) => break,
        }
    }
    write_pattern(stream, sent, length)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::Shutdown;

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
        stream.shutdown(Shutdown::Write).unwrap();
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
    fn a_connection_is_kept_when_the_client_wants_it() {
        let mut stream = TcpStream::connect(start()).unwrap();
        let mut answer = [0; 1024];
        for _ in 0..3 {
            stream.write_all(b"GET / HTTP/1.1\r\nConnection: keep-alive\r\n\r\n").unwrap();
            let mut length = 0;
            while !answer[..length].ends_with(b"\r\n\r\ns7\n") {
                length += Deadline::after(PATIENCE).read(&stream, &mut answer[length..]).unwrap();
            }
            let text = String::from_utf8_lossy(&answer[..length]);
            assert!(text.contains("\r\nConnection: keep-alive\r\n"), "{text}");
        }
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut last = Vec::new();
        stream.read_to_end(&mut last).unwrap();
        assert!(String::from_utf8_lossy(&last).contains("\r\nConnection: close\r\n"));
    }

    #[test]
    fn a_slow_answer_is_slow_until_the_client_hurries() {
        const LENGTH: usize = 100_000;
        let mut stream = TcpStream::connect(start()).unwrap();
        let request = format!("GET /bytes/{LENGTH}/at/10000 HTTP/1.1\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let begin = super::super::now();
        let mut part = [0; 2_000];
        stream.read_exact(&mut part).unwrap();
        // Less the head, that is 17 parts of 100 bytes, 10 ms apart.
        assert!(super::super::now() - begin >= crate::time::Duration::from_millis(150));
        stream.write_all(b"!").unwrap();
        let mut answer = part.to_vec();
        stream.read_to_end(&mut answer).unwrap();
        let body = body(&answer);
        assert_eq!(body.len(), LENGTH);
        assert!(body.iter().enumerate().all(|(at, &byte)| usize::from(byte) == at % PATTERN));
        // Else it had taken ten seconds.
        assert!(super::super::now() - begin < crate::time::Duration::from_secs(5));
    }

    #[test]
    fn refuses_what_it_does_not_do() {
        let address = start();
        for (request, status) in [
            ("POST / HTTP/1.1\r\n\r\n".to_owned(), "405"),
            ("GET /other HTTP/1.1\r\n\r\n".to_owned(), "404"),
            ("GET /bytes/67108865 HTTP/1.1\r\n\r\n".to_owned(), "404"),
            ("GET /bytes/-1 HTTP/1.1\r\n\r\n".to_owned(), "404"),
            ("GET /bytes/9/at/0 HTTP/1.1\r\n\r\n".to_owned(), "404"),
            ("GET /bytes/9/at/ HTTP/1.1\r\n\r\n".to_owned(), "404"),
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
