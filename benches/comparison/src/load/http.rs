//! HTTP: one thread asks over 32 connections at once, another answers; both wait in mio.
//!
//! With new connections the server closes first, as servers do that are told `Connection: close`.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use netns_tests::{Context as _, Failure, Outcome, ensure};

use super::PATIENCE;
use super::window::{Window, Witness};
use crate::outcome::Sample;
use crate::stage::{Stage, port};

/// Connections at a time.
const CONNECTIONS: usize = 32;
const BODY: usize = 128;
/// How often a thread looks whether it should end.
const BEAT: Duration = Duration::from_millis(20);
const LISTENER: Token = Token(usize::MAX);

/// How many requests a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connections {
    /// One.
    New,
    /// All.
    Kept,
}

impl Connections {
    fn request(self) -> Vec<u8> {
        let connection = self.word();
        format!("GET / HTTP/1.1\r\nHost: bench\r\nConnection: {connection}\r\n\r\n").into_bytes()
    }

    fn answer(self) -> Vec<u8> {
        let (connection, body) = (self.word(), "x".repeat(BODY));
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\nConnection: {connection}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    const fn word(self) -> &'static str {
        match self {
            Self::New => "close",
            Self::Kept => "keep-alive",
        }
    }
}

/// What both threads share.
#[derive(Debug, Default)]
struct Shared {
    /// Answers that were right to the last byte.
    answered: AtomicU64,
    /// Connections that failed, and answers that were wrong.
    failed: AtomicU64,
    ending: AtomicBool,
}

/// Some requests are answered.
pub(super) fn prove(stage: &Stage) -> Outcome {
    with_load(stage, Connections::New, |shared| {
        let end = Instant::now() + PATIENCE;
        while shared.answered.load(Ordering::Relaxed) < 2 * CONNECTIONS as u64 {
            ensure!(Instant::now() < end, "no requests are answered");
            thread::sleep(BEAT);
        }
        Ok(())
    })
}

pub(super) fn measure(
    stage: &Stage,
    connections: Connections,
    length: Duration,
) -> Outcome<Sample> {
    let witness = Witness::begin(stage)?;
    let (window, retransmits) = with_load(stage, connections, |shared| {
        let window = Window::open(stage, length, || Ok(shared.answered.load(Ordering::Relaxed)))?;
        let failed = shared.failed.load(Ordering::Relaxed);
        ensure!(failed == 0, "{failed} requests failed");
        Ok((window, witness.end(stage)?))
    })?;
    Ok(Sample { retransmits: Some(retransmits), ..window.sample(1.0) })
}

/// Runs both threads, in their namespaces, for as long as `run` takes.
fn with_load<T: Send>(
    stage: &Stage,
    connections: Connections,
    run: impl FnOnce(&Shared) -> Outcome<T>,
) -> Outcome<T> {
    let shared = Shared::default();
    let listen = SocketAddr::from((stage.listen, port::HTTP));
    let listener = stage.server.run(|| TcpListener::bind(listen)).context("cannot listen")?;
    let target = SocketAddr::from((stage.target, port::HTTP));
    thread::scope(|scope| {
        let server = scope.spawn(|| serve(listener, connections, &shared));
        // It opens sockets: it has to be there.
        let client = scope.spawn(|| stage.client.run(|| ask(target, connections, &shared)));
        let result = run(&shared);
        shared.ending.store(true, Ordering::SeqCst);
        for thread in [server, client] {
            thread.join().map_err(|_| Failure::new("a load thread panicked"))?.context("load")?;
        }
        result
    })
}

fn serve(mut listener: TcpListener, connections: Connections, shared: &Shared) -> io::Result<()> {
    let (request, answer) = (connections.request(), connections.answer());
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(256);
    let mut clients: Vec<Option<Served>> = Vec::new();
    let mut free = Vec::new();
    while !shared.ending.load(Ordering::SeqCst) {
        wait(&mut poll, &mut events)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let place = free.pop().unwrap_or_else(|| {
                        clients.push(None);
                        clients.len() - 1
                    });
                    poll.registry().register(&mut stream, Token(place), Interest::READABLE)?;
                    clients[place] = Some(Served { stream, got: 0 });
                }
                continue;
            }
            let place = event.token().0;
            let Some(client) = clients.get_mut(place).and_then(Option::as_mut) else { continue };
            if !client.serve(&request, &answer, connections) {
                // Closing takes it out of the poll, too.
                clients[place] = None;
                free.push(place);
            }
        }
    }
    Ok(())
}

struct Served {
    stream: TcpStream,
    /// Bytes of the request so far.
    got: usize,
}

impl Served {
    /// Whether the connection goes on.
    fn serve(&mut self, request: &[u8], answer: &[u8], connections: Connections) -> bool {
        let mut buffer = [0; 1_024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => self.got += length,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
            // Whole requests come one at a time; an answer fits the send buffer.
            if self.got >= request.len() {
                self.got = 0;
                if self.stream.write_all(answer).is_err() || connections == Connections::New {
                    return false;
                }
            }
        }
    }
}

fn ask(target: SocketAddr, connections: Connections, shared: &Shared) -> io::Result<()> {
    let (request, answer) = (connections.request(), connections.answer());
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    let mut all = Vec::with_capacity(CONNECTIONS);
    for place in 0..CONNECTIONS {
        all.push(Asking::connect(target, place, poll.registry())?);
    }
    while !shared.ending.load(Ordering::SeqCst) {
        wait(&mut poll, &mut events)?;
        for event in &events {
            let place = event.token().0;
            loop {
                match all[place].go_on(&request, &answer, connections) {
                    Step::Wait => break,
                    Step::Answered => {
                        shared.answered.fetch_add(1, Ordering::Relaxed);
                        if connections == Connections::New {
                            all[place] = Asking::connect(target, place, poll.registry())?;
                            break;
                        }
                    }
                    // The server may have gone first.
                    Step::Failed if shared.ending.load(Ordering::SeqCst) => return Ok(()),
                    Step::Failed => {
                        shared.failed.fetch_add(1, Ordering::Relaxed);
                        all[place] = Asking::connect(target, place, poll.registry())?;
                        break;
                    }
                }
            }
        }
    }
    Ok(())
}

struct Asking {
    stream: TcpStream,
    sent: bool,
    got: Vec<u8>,
}

enum Step {
    Wait,
    Answered,
    Failed,
}

impl Asking {
    fn connect(target: SocketAddr, place: usize, registry: &Registry) -> io::Result<Self> {
        let mut stream = TcpStream::connect(target)?;
        registry.register(&mut stream, Token(place), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, sent: false, got: Vec::with_capacity(512) })
    }

    fn go_on(&mut self, request: &[u8], answer: &[u8], connections: Connections) -> Step {
        if !self.sent {
            match self.stream.write(request) {
                Ok(length) if length == request.len() => self.sent = true,
                Err(error) if is_not_yet(&error) => return Step::Wait,
                Ok(_) | Err(_) => return Step::Failed,
            }
        }
        let mut buffer = [0; 1_024];
        let ended = match self.stream.read(&mut buffer) {
            Ok(0) => true,
            Ok(length) => {
                self.got.extend_from_slice(&buffer[..length]);
                false
            }
            Err(error) if is_not_yet(&error) => return Step::Wait,
            Err(_) => return Step::Failed,
        };
        let whole = match connections {
            Connections::New if !ended => return self.go_on(request, answer, connections),
            Connections::New => self.got == answer,
            Connections::Kept if ended || !answer.starts_with(&self.got) => false,
            Connections::Kept if self.got.len() < answer.len() => return Step::Wait,
            Connections::Kept => true,
        };
        self.got.clear();
        self.sent = false;
        if whole { Step::Answered } else { Step::Failed }
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}

fn wait(poll: &mut Poll, events: &mut Events) -> io::Result<()> {
    match poll.poll(events, Some(BEAT)) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_long_it_is() {
        for connections in [Connections::New, Connections::Kept] {
            let answer = String::from_utf8(connections.answer()).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {BODY}")) && body.len() == BODY);
            assert!(connections.request().ends_with(b"\r\n\r\n"));
        }
    }

    #[test]
    fn requests_are_answered_over_new_and_kept_connections() {
        for connections in [Connections::New, Connections::Kept] {
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let target = listener.local_addr().unwrap();
            let shared = Shared::default();
            thread::scope(|scope| {
                scope.spawn(|| serve(listener, connections, &shared).unwrap());
                scope.spawn(|| ask(target, connections, &shared).unwrap());
                let end = Instant::now() + PATIENCE;
                while shared.answered.load(Ordering::Relaxed) < 200 && Instant::now() < end {
                    thread::sleep(Duration::from_millis(1));
                }
                shared.ending.store(true, Ordering::SeqCst);
            });
            assert!(shared.answered.load(Ordering::Relaxed) >= 200);
            assert_eq!(shared.failed.load(Ordering::Relaxed), 0);
        }
    }
}
