//! The lab's client: many requests over concurrent workers, a new connection for each, and what
//! came of every one. Speaks of requests and failures, never of what the numbers mean.

use std::fmt;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::deadline::Deadline;

const STACK: usize = 256 * 1024;
const LARGEST_ANSWER: usize = 64 * 1024;
/// How long one request may take, connecting included: a SYN is sent three times in it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Load {
    pub(super) requests: u32,
    pub(super) concurrency: u32,
}

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// A whole answer, and who gave it.
    Answered { server: String, micros: u64 },
    /// No answer; `detail` says what the kind alone does not.
    Failed { failure: Failure, micros: u64, detail: String },
}

/// Why a request had no answer, as a client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Failure {
    Refused,
    TimedOut,
    Reset,
    Unreachable,
    CutShort,
    BadAnswer,
    Other,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Refused => "connection refused",
            Self::TimedOut => "timed out",
            Self::Reset => "connection reset",
            Self::Unreachable => "unreachable",
            Self::CutShort => "answer cut short",
            Self::BadAnswer => "bad answer",
            Self::Other => "other error",
        })
    }
}

/// Sends the load to `target` and hands over each outcome as it happens; stops when the hand fails.
pub(super) fn send(
    target: SocketAddr,
    load: Load,
    mut hand: impl FnMut(Outcome) -> io::Result<()>,
) -> io::Result<()> {
    let taken = AtomicU32::new(0);
    let (outcomes, received) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..load.concurrency.min(load.requests) {
            let (taken, outcomes) = (&taken, outcomes.clone());
            thread::Builder::new().stack_size(STACK).spawn_scoped(scope, move || {
                while taken.fetch_add(1, Ordering::Relaxed) < load.requests {
                    if outcomes.send(request(target)).is_err() {
                        return;
                    }
                }
            })?;
        }
        drop(outcomes);
        received.into_iter().try_for_each(&mut hand)
    })
}

fn request(target: SocketAddr) -> Outcome {
    let start = super::now();
    let result = fetch(target, PATIENCE);
    let micros = (super::now() - start).total_micros();
    match result {
        Ok(server) => Outcome::Answered { server, micros },
        Err((failure, detail)) => Outcome::Failed { failure, micros, detail },
    }
}

/// One `GET /`: the name of the server that answered. Closes as soon as the answer is whole.
pub(super) fn fetch(target: SocketAddr, patience: Duration) -> Result<String, (Failure, String)> {
    let deadline = Deadline::after(patience);
    let stream = ask(target, deadline).map_err(|error| sort(&error))?;
    read_name(&stream, deadline)
}

/// Reads one whole answer: the name of the server that gave it.
pub(super) fn read_name(
    stream: &TcpStream,
    deadline: Deadline,
) -> Result<String, (Failure, String)> {
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = deadline.read(stream, &mut part).map_err(|error| sort(&error))?;
        answer.extend_from_slice(&part[..read]);
        let more = read > 0 && answer.len() < LARGEST_ANSWER;
        match parse(&answer) {
            Err((Failure::CutShort, _)) if more => {}
            parsed => return parsed,
        }
    }
}

fn ask(target: SocketAddr, deadline: Deadline) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&target, deadline.remaining()?)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(deadline.remaining()?))?;
    let request = format!("GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

/// What a client makes of an error.
pub(super) fn sort(error: &io::Error) -> (Failure, String) {
    use io::ErrorKind as Kind;

    let failure = match error.kind() {
        Kind::ConnectionRefused => Failure::Refused,
        Kind::TimedOut | Kind::WouldBlock => Failure::TimedOut,
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => Failure::Reset,
        Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => {
            Failure::Unreachable
        }
        _ => return (Failure::Other, error.to_string()),
    };
    (failure, String::new())
}

/// The server's name out of a whole answer.
fn parse(answer: &[u8]) -> Result<String, (Failure, String)> {
    let cut = || (Failure::CutShort, String::new());
    let bad = |what: &str| (Failure::BadAnswer, what.to_owned());

    let blank = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(cut)?;
    let head = std::str::from_utf8(&answer[..blank]).map_err(|_| bad("not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status != "HTTP/1.1 200 OK" {
        return Err(bad(status));
    }
    let length: usize = lines
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .and_then(|length| length.parse().ok())
        .ok_or_else(|| bad("no Content-Length"))?;
    let body = &answer[blank + 4..];
    if body.len() < length {
        return Err(cut());
    }
    let name = std::str::from_utf8(body).map_err(|_| bad("not text"))?.trim_end();
    if body.len() > length || name.is_empty() || name.contains(char::is_control) {
        return Err(bad("not a server's name"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::responder::Responder;
    use super::*;

    fn outcomes(target: SocketAddr, requests: u32, concurrency: u32) -> Vec<Outcome> {
        let mut all = Vec::new();
        send(target, Load { requests, concurrency }, |outcome| {
            all.push(outcome);
            Ok(())
        })
        .unwrap();
        all
    }

    #[test]
    fn every_request_is_answered_by_name() {
        let responder = Responder::bind("s7", "127.0.0.1:0".parse().unwrap()).unwrap();
        let target = responder.address().unwrap();
        thread::spawn(move || responder.serve());
        let all = outcomes(target, 50, 8);
        assert_eq!(all.len(), 50);
        for outcome in all {
            assert!(matches!(&outcome, Outcome::Answered { server, .. } if server == "s7"));
        }
    }

    #[test]
    fn failures_are_told_apart() {
        let kinds = |target| {
            let sorted = outcomes(target, 3, 2).into_iter().map(|outcome| match outcome {
                Outcome::Failed { failure, .. } => failure,
                Outcome::Answered { server, .. } => panic!("{server} answered"),
            });
            sorted.collect::<Vec<_>>()
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            for answer in
                ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ns", "", "HTTP/1.1 500 No\r\n\r\n"]
            {
                let (mut stream, _) = listener.accept().unwrap();
                // The whole request is read first: closing before would reset.
                let mut request = [0; 1024];
                let deadline = Deadline::after(PATIENCE);
                while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                    deadline.read(&stream, &mut request).unwrap();
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut seen = kinds(target);
        seen.sort_unstable();
        assert_eq!(seen, [Failure::CutShort, Failure::CutShort, Failure::BadAnswer]);
        server.join().unwrap();
        assert_eq!(kinds(target), [Failure::Refused; 3]);
    }

    #[test]
    fn a_wrong_answer_is_not_a_server() {
        let parsed = |text: &str| parse(text.as_bytes());
        assert_eq!(parsed("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ns1\n"), Ok("s1".to_owned()));
        for (text, failure) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", Failure::CutShort),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ns1\nmore", Failure::BadAnswer),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\n", Failure::BadAnswer),
            ("HTTP/1.1 200 OK\r\n\r\ns1\n", Failure::BadAnswer),
        ] {
            assert_eq!(parsed(text).map_err(|(failure, _)| failure), Err(failure), "{text:?}");
        }
    }

    #[test]
    fn outcomes_survive_the_pipe() {
        for outcome in [
            Outcome::Answered { server: "s1".to_owned(), micros: 5 },
            Outcome::Failed { failure: Failure::TimedOut, micros: 6, detail: "x".to_owned() },
        ] {
            let line = serde_json::to_string(&outcome).unwrap();
            assert_eq!(serde_json::from_str::<Outcome>(&line).unwrap(), outcome);
        }
    }
}
