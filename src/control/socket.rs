//! The control socket: who is connected and whose turn it is. What is asked is not its business.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::path::Path;

use log::warn;
use mio::event::Event;
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use super::client::{Client, Step};
use super::protocol::{Answer, Reason, Refusal, Request};
use crate::links::listener::Listener;
use crate::time::{Duration, Instant};

/// Clients at a time.
const CLIENTS: usize = 64;
/// Connections taken from the queue at once.
const ACCEPTS: usize = 256;
/// When the system has no descriptor for a connection, it is asked again after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A client's place. Stale once the client is gone: `epoch` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientId {
    place: usize,
    epoch: u64,
}

#[cfg(test)]
impl ClientId {
    pub(super) const fn of_test(place: usize) -> Self {
        Self { place, epoch: 0 }
    }
}

/// The listener and its clients. Tokens from `first` on are theirs, the listener's own first.
#[derive(Debug)]
pub(super) struct Socket {
    listener: Option<Listener>,
    registry: Registry,
    first: usize,
    places: Vec<Option<Place>>,
    /// Places whose client may have something to do, in turn.
    ready: VecDeque<usize>,
    epoch: u64,
    /// Somebody may wait to be let in; not before this.
    accept_at: Option<Instant>,
    accept_failed: bool,
}

#[derive(Debug)]
struct Place {
    client: Client<UnixStream>,
    epoch: u64,
    queued: bool,
}

impl Socket {
    /// Puts the listener into the poll, if there is one.
    pub(super) fn new(
        mut listener: Option<Listener>,
        registry: Registry,
        Token(first): Token,
    ) -> io::Result<Self> {
        if let Some(listener) = &mut listener {
            registry.register(listener, Token(first), Interest::READABLE)?;
        }
        Ok(Self {
            listener,
            registry,
            first,
            places: std::iter::repeat_with(|| None).take(CLIENTS).collect(),
            ready: VecDeque::with_capacity(CLIENTS),
            epoch: 0,
            accept_at: None,
            accept_failed: false,
        })
    }

    /// Takes note of an event.
    pub(super) fn note(&mut self, event: &Event, now: Instant) {
        match event.token().0.checked_sub(self.first) {
            Some(0) => self.accept_at = Some(now),
            Some(place) => {
                self.queue(place - 1);
                // Who listens to a stream says nothing more, so nothing else tells of its end.
                if event.is_write_closed()
                    && let Some(place) = self.places.get_mut(place - 1)
                {
                    place.take_if(|place| place.client.streams());
                }
            }
            None => {}
        }
    }

    /// Sends a client the next piece of a stream. It asks no more from the first one on.
    pub(super) fn stream(&mut self, id: ClientId, bytes: Vec<u8>, now: Instant) {
        let Some(place) = self.find(id) else { return };
        place.client.stream(bytes, now);
        if place.client.advance(now) == Step::Closed {
            self.places[id.place] = None;
        }
    }

    /// Whether a client has taken all there was; `None` when it has gone.
    pub(super) fn is_idle(&mut self, id: ClientId) -> Option<bool> {
        self.find(id).map(|place| place.client.is_idle())
    }

    /// The next thing asked, well-formed or not. Each is to be answered, now or later.
    pub(super) fn next(&mut self, now: Instant) -> Option<(ClientId, Result<Request, Refusal>)> {
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept(now);
        }
        for _ in 0..self.ready.len() {
            let number = self.ready.pop_front()?;
            let Some(place) = self.places.get_mut(number).and_then(Option::as_mut) else {
                continue;
            };
            place.queued = false;
            match place.client.advance(now) {
                Step::Wait => {}
                Step::More => self.queue(number),
                Step::Closed => self.places[number] = None,
                Step::Request(line) => {
                    let id = ClientId { place: number, epoch: place.epoch };
                    return Some((id, Request::parse(&line)));
                }
            }
        }
        None
    }

    /// Answers a client; one that has gone meanwhile is not there to hear it.
    pub(super) fn answer(&mut self, id: ClientId, answer: &Answer, now: Instant) {
        if let Some(place) = self.find(id) {
            place.client.answer(answer, now);
            self.queue(id.place);
        }
    }

    /// When [`Socket::next`] has something to do although nothing happens: at once while somebody
    /// waits for a turn.
    pub(super) fn due_at(&self) -> Option<Instant> {
        if !self.ready.is_empty() {
            return Some(Instant::ZERO);
        }
        let clients = self.places.iter().flatten();
        clients.filter_map(|place| place.client.deadline()).chain(self.accept_at).min()
    }

    /// Closes those whose patience is tried too long.
    pub(super) fn close_silent(&mut self, now: Instant) {
        for place in &mut self.places {
            let deadline = place.as_ref().and_then(|place| place.client.deadline());
            if deadline.is_some_and(|deadline| deadline <= now) {
                *place = None;
            }
        }
    }

    fn find(&mut self, id: ClientId) -> Option<&mut Place> {
        let place = self.places.get_mut(id.place)?.as_mut()?;
        (place.epoch == id.epoch).then_some(place)
    }

    fn queue(&mut self, number: usize) {
        if let Some(Some(place)) = self.places.get_mut(number)
            && !std::mem::replace(&mut place.queued, true)
        {
            self.ready.push_back(number);
        }
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTS {
            let next = self.listener.as_ref().map_or(Ok(None), Listener::accept);
            match next {
                Ok(Some(stream)) => {
                    self.accept_failed = false;
                    self.admit(stream, now);
                }
                Ok(None) => {
                    self.accept_at = None;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.put_off(&error, now);
                    return;
                }
            }
        }
        // More wait, but those inside have their turn first.
    }

    /// Nobody can be let in now.
    fn put_off(&mut self, error: &io::Error, now: Instant) {
        if !std::mem::replace(&mut self.accept_failed, true) {
            warn!(path:% = self.path(), error:%; "the control socket takes no connection; trying on");
        }
        self.accept_at = Some(now + ACCEPT_AGAIN);
    }

    fn path(&self) -> std::path::Display<'_> {
        self.listener.as_ref().map_or_else(|| Path::new(""), Listener::path).display()
    }

    fn admit(&mut self, mut stream: UnixStream, now: Instant) {
        let Some(number) = self.places.iter().position(Option::is_none) else {
            let message = format!("{CLIENTS} clients are connected already; try again later");
            let refusal = Answer::Error(Refusal::new(Reason::Busy, message));
            // Its buffer is empty, so this fits, or it has gone already.
            drop(stream.write(&refusal.to_line()));
            return;
        };
        let token = Token(self.first + 1 + number);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.registry.register(&mut stream, token, interest) {
            warn!(path:% = self.path(), error:%; "the control socket cannot poll a connection");
            return;
        }
        self.epoch += 1;
        let (client, epoch) = (Client::new(stream, now), self.epoch);
        self.places[number] = Some(Place { client, epoch, queued: false });
        self.queue(number);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::os::unix::net::UnixStream as Peer;

    use mio::{Events, Poll};

    use super::*;
    use crate::links::recorder::logged;
    use crate::links::scratch::Scratch;

    struct Bench {
        poll: Poll,
        socket: Socket,
        scratch: Scratch,
        now: Instant,
    }

    impl Bench {
        fn new(name: &str) -> Self {
            let scratch = Scratch::new(name);
            let poll = Poll::new().unwrap();
            let listener = Listener::open(&scratch.path().join("s")).unwrap();
            let registry = poll.registry().try_clone().unwrap();
            let socket = Socket::new(Some(listener), registry, Token(100)).unwrap();
            Self { poll, socket, scratch, now: Instant::ZERO }
        }

        fn connect(&self) -> Peer {
            let peer = Peer::connect(self.scratch.path().join("s")).unwrap();
            peer.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            peer
        }

        /// Takes note of what has happened and answers every request with its own refusal.
        fn turn(&mut self) -> usize {
            let mut events = Events::with_capacity(256);
            self.poll.poll(&mut events, Some(std::time::Duration::ZERO)).unwrap();
            for event in &events {
                self.socket.note(event, self.now);
            }
            let mut answered = 0;
            while let Some((id, request)) = self.socket.next(self.now) {
                let answer = Answer::Error(match request {
                    Ok(request) => Refusal::new(Reason::Argument, format!("{request:?}")),
                    Err(refusal) => refusal,
                });
                self.socket.answer(id, &answer, self.now);
                answered += 1;
            }
            answered
        }

        fn clients(&self) -> usize {
            self.socket.places.iter().flatten().count()
        }
    }

    fn line(peer: &Peer) -> String {
        let mut line = String::new();
        BufReader::new(peer).read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn a_thousand_connections_are_refused_beyond_the_limit_and_the_rest_served() {
        let mut bench = Bench::new("socket-thousand");
        let mut peers = Vec::new();
        for _ in 0..1_000 {
            peers.push(bench.connect());
            if peers.len() % 50 == 0 {
                bench.turn();
            }
        }
        bench.turn();
        assert_eq!(bench.clients(), CLIENTS);
        let refused = line(&peers[CLIENTS]);
        assert!(refused.contains("\"reason\":\"busy\""), "{refused}");
        assert!(line(&peers[999]).contains("\"reason\":\"busy\""));
        for mut peer in peers.iter().take(CLIENTS) {
            peer.write_all(b"{\"command\":\"status\"}\n").unwrap();
        }
        assert_eq!(bench.turn(), CLIENTS);
        assert!(peers.iter().take(CLIENTS).all(|peer| line(peer).contains("Status")));
        drop(peers);
        bench.turn();
        assert_eq!(bench.clients(), 0, "places are free again");
        let mut late = bench.connect();
        late.write_all(b"{\"command\":\"drops\"}\n").unwrap();
        bench.turn();
        assert!(line(&late).contains("Drops"));
    }

    #[test]
    fn one_line_until_somebody_is_let_in_again() {
        let mut bench = Bench::new("socket-full");
        let path = bench.scratch.path().join("s");
        let error = io::Error::from_raw_os_error(libc::EMFILE);
        let expected = format!(
            "WARN the control socket takes no connection; trying on path={} error={:?}",
            path.display(),
            error.to_string()
        );
        let fail = |bench: &mut Bench| {
            logged(|| (0..3).for_each(|_| bench.socket.put_off(&error, bench.now)))
        };
        assert_eq!(fail(&mut bench), [expected.as_str()]);
        assert_eq!(bench.socket.due_at(), Some(Instant::ZERO + ACCEPT_AGAIN));
        let _peer = bench.connect();
        bench.turn();
        assert_eq!(bench.clients(), 1);
        assert_eq!(fail(&mut bench), [expected]);
    }

    #[test]
    fn nobody_waits_for_a_silent_or_garbling_one() {
        let mut bench = Bench::new("socket-silent");
        let (_silent, mut half, mut garbage) = (bench.connect(), bench.connect(), bench.connect());
        half.write_all(b"{\"command\":").unwrap();
        garbage.write_all(b"\x00\xff\xfe{}[]\nGET / HTTP/1.1\r\n\r\n").unwrap();
        let mut good = bench.connect();
        good.write_all(b"{\"command\":\"status\"}\n").unwrap();
        assert_eq!(bench.turn(), 3, "two lines of garbage, one request");
        assert!(line(&good).contains("Status"));
        let mut told = BufReader::new(&garbage).lines();
        for _ in 0..2 {
            let line = told.next().unwrap().unwrap();
            assert!(line.contains("\"reason\":\"request\""), "{line}");
        }
        half.write_all(b"\"drops\"}\n").unwrap();
        assert_eq!(bench.turn(), 1);
        assert!(line(&half).contains("Drops"), "a half line becomes a whole one");
    }

    #[test]
    fn the_silent_are_closed_after_a_while() {
        let mut bench = Bench::new("socket-patience");
        let mut silent = bench.connect();
        bench.turn();
        assert_eq!(bench.socket.due_at(), Some(Instant::from_secs(60)));
        bench.now = Instant::from_secs(59);
        bench.socket.close_silent(bench.now);
        assert_eq!(bench.clients(), 1);
        bench.now = Instant::from_secs(60);
        bench.socket.close_silent(bench.now);
        assert_eq!(bench.clients(), 0);
        assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(bench.socket.due_at(), None);
    }

    #[test]
    fn an_answer_for_a_client_that_left_is_not_given_to_the_next_one() {
        let mut bench = Bench::new("socket-epoch");
        let mut first = bench.connect();
        first.write_all(b"{\"command\":\"status\"}\n").unwrap();
        let mut events = Events::with_capacity(8);
        bench.poll.poll(&mut events, None).unwrap();
        events.iter().for_each(|event| bench.socket.note(event, bench.now));
        let (id, _) = bench.socket.next(bench.now).unwrap();
        drop(first);
        bench.socket.places[id.place] = None;
        let second = bench.connect();
        bench.turn();
        assert_eq!(bench.clients(), 1);
        bench.socket.answer(id, &Answer::Error(Refusal::new(Reason::Busy, "old")), bench.now);
        bench.turn();
        second.set_nonblocking(true).unwrap();
        let error = (&second).read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
