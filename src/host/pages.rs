//! Connections to the status page: a request is taken in, answered by somebody else, and written out.
//!
//! As many connections as there are places; each has a deadline at every step, so that a slow client,
//! or one that never says a word, keeps its place for a few seconds and no longer.

use std::collections::VecDeque;
use std::net::IpAddr;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::IpListenEndpoint;

use crate::addr::Endpoint;
use crate::http::{self, ConnectionId, Parsed, Request, Response, Status};
use crate::time::{Duration, Instant};

/// Connections at a time.
const PLACES: usize = 16;
/// Bytes that wait in a socket, in and out.
const BUFFERS: [usize; 2] = [2 << 10, 16 << 10];
/// From the first packet to the last byte of the request.
const ASKING: Duration = Duration::from_secs(5);
/// Until the request is answered by the rest of the router.
const THINKING: Duration = Duration::from_secs(10);
/// From the first byte of the answer to the last.
const ANSWERING: Duration = Duration::from_secs(30);
/// From the last byte until the client has hung up, too.
const CLOSING: Duration = Duration::from_secs(3);

/// The connections.
#[derive(Debug, Default)]
pub(super) struct Pages {
    listen: Option<IpListenEndpoint>,
    places: Vec<Place>,
    requests: VecDeque<(ConnectionId, Request)>,
    epoch: u64,
}

#[derive(Debug)]
struct Place {
    handle: SocketHandle,
    phase: Phase,
    deadline: Option<Instant>,
    epoch: u64,
    /// The request as far as it has come, then the answer.
    bytes: Vec<u8>,
    written: usize,
    head_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody is there.
    Free,
    Receiving,
    /// The request has been handed out.
    Waiting,
    Sending,
    /// All is written, the peer has yet to close.
    Closing,
    /// Its reset leaves with the next packets.
    Aborted,
}

impl Pages {
    /// Listens there from now on; what was under way elsewhere ends.
    pub(super) fn listen(
        &mut self,
        endpoint: Option<Endpoint>,
        sockets: &mut SocketSet<'static>,
        now: Instant,
    ) {
        let listen = endpoint.map(|endpoint| IpListenEndpoint {
            addr: Some(endpoint.address.into()),
            port: endpoint.port,
        });
        if listen == self.listen {
            return;
        }
        self.listen = listen;
        if self.places.is_empty() && listen.is_some() {
            self.places = std::iter::repeat_with(|| Place::new(sockets)).take(PLACES).collect();
        }
        for place in &mut self.places {
            place.abort(sockets.get_mut(place.handle), now);
        }
    }

    /// Goes on with every connection as far as the sockets allow.
    pub(super) fn step(&mut self, sockets: &mut SocketSet<'static>, now: Instant) {
        for (number, place) in self.places.iter_mut().enumerate() {
            let socket = sockets.get_mut::<Socket<'_>>(place.handle);
            if let Some(request) = place.step(socket, self.listen, &mut self.epoch, now) {
                let peer = socket.remote_endpoint().map(|remote| IpAddr::from(remote.addr));
                let Some(peer) = peer else { continue };
                let id = ConnectionId { place: number, epoch: place.epoch, peer };
                self.requests.push_back((id, request));
            }
        }
    }

    /// The next request to be answered.
    pub(super) fn poll_request(&mut self) -> Option<(ConnectionId, Request)> {
        self.requests.pop_front()
    }

    /// Answers a connection, if it is still there.
    pub(super) fn respond(
        &mut self,
        id: ConnectionId,
        response: Response,
        sockets: &mut SocketSet<'static>,
        now: Instant,
    ) {
        let Some(place) = self.places.get_mut(id.place) else { return };
        if place.epoch == id.epoch && place.phase == Phase::Waiting {
            place.answer(response, now);
            place.step(sockets.get_mut(place.handle), self.listen, &mut self.epoch, now);
        }
    }

    /// When [`Pages::step`] has something to do although no packet came.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.places.iter().filter_map(|place| place.deadline).min()
    }
}

impl Place {
    fn new(sockets: &mut SocketSet<'static>) -> Self {
        let [input, output] = BUFFERS.map(|size| SocketBuffer::new(vec![0; size]));
        let mut socket = Socket::new(input, output);
        socket.set_nagle_enabled(false);
        // The last acknowledgment would be late: the place is given away at once.
        socket.set_ack_delay(None);
        Self {
            handle: sockets.add(socket),
            phase: Phase::Aborted,
            deadline: None,
            epoch: 0,
            bytes: Vec::new(),
            written: 0,
            head_only: false,
        }
    }

    /// Does what can be done; the request, once it is whole.
    fn step(
        &mut self,
        socket: &mut Socket<'static>,
        listen: Option<IpListenEndpoint>,
        epoch: &mut u64,
        now: Instant,
    ) -> Option<Request> {
        let is_over = match socket.state() {
            // What is closed on this side may still have a reset to send.
            State::Closed => socket.remote_endpoint().is_none(),
            State::TimeWait => true,
            _ => false,
        };
        if is_over {
            self.start_over(socket, listen);
        }
        if self.phase == Phase::Free && socket.is_active() {
            *epoch += 1;
            self.epoch = *epoch;
            self.enter(Phase::Receiving, now + ASKING);
        }
        let mut request = None;
        if self.phase == Phase::Receiving {
            request = self.receive(socket, now);
        }
        if matches!(self.phase, Phase::Waiting | Phase::Sending | Phase::Closing) {
            // Nobody reads what comes after the request.
            while socket.can_recv() && socket.recv(|bytes| (bytes.len(), ())).is_ok() {}
        }
        if self.phase == Phase::Sending {
            self.send(socket, now);
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.give_up(socket, now);
        }
        request
    }

    fn receive(&mut self, socket: &mut Socket<'static>, now: Instant) -> Option<Request> {
        if socket.state() == State::Listen {
            // A reset took back what had only begun.
            self.phase = Phase::Free;
            self.deadline = None;
            return None;
        }
        while socket.can_recv() && self.bytes.len() < http::LONGEST {
            let room = http::LONGEST - self.bytes.len();
            let bytes = &mut self.bytes;
            let taken = socket.recv(|chunk| {
                let count = chunk.len().min(room);
                bytes.extend_from_slice(&chunk[..count]);
                (count, ())
            });
            if taken.is_err() {
                break;
            }
        }
        match http::parse(&self.bytes) {
            Ok(Some(Parsed { request, head_only })) => {
                self.head_only = head_only;
                self.bytes.clear();
                self.enter(Phase::Waiting, now + THINKING);
                return Some(request);
            }
            Ok(None) if socket.state() == State::CloseWait => {
                // The rest will not come.
                socket.close();
                self.enter(Phase::Closing, now + CLOSING);
            }
            Ok(None) => {}
            Err(refusal) => self.answer(refusal, now),
        }
        None
    }

    fn answer(&mut self, response: Response, now: Instant) {
        self.bytes = response.into_bytes(self.head_only);
        self.written = 0;
        self.enter(Phase::Sending, now + ANSWERING);
    }

    fn send(&mut self, socket: &mut Socket<'static>, now: Instant) {
        while socket.can_send() && self.written < self.bytes.len() {
            let Ok(count) = socket.send_slice(&self.bytes[self.written..]) else { break };
            self.written += count;
        }
        if self.written == self.bytes.len() {
            socket.close();
            self.bytes = Vec::new();
            self.enter(Phase::Closing, now + CLOSING);
        }
    }

    fn give_up(&mut self, socket: &mut Socket<'static>, now: Instant) {
        match self.phase {
            Phase::Receiving if !self.bytes.is_empty() => {
                let late = format!("the request was not whole within {} s", ASKING.secs());
                self.answer(Response::refusal(Status::RequestTimeout, late), now);
                self.send(socket, now);
            }
            Phase::Waiting => {
                let late = "the router is too busy to answer";
                self.answer(Response::refusal(Status::ServiceUnavailable, late), now);
                self.send(socket, now);
            }
            _ => self.abort(socket, now),
        }
    }

    fn abort(&mut self, socket: &mut Socket<'static>, now: Instant) {
        socket.abort();
        self.enter(Phase::Aborted, now);
    }

    fn start_over(&mut self, socket: &mut Socket<'static>, listen: Option<IpListenEndpoint>) {
        if let Some(listen) = listen {
            // Only an open socket refuses to listen.
            let _ = socket.listen(listen);
        }
        *self = Self {
            handle: self.handle,
            phase: Phase::Free,
            deadline: None,
            epoch: self.epoch,
            bytes: Vec::new(),
            written: 0,
            head_only: false,
        };
    }

    const fn enter(&mut self, phase: Phase, deadline: Instant) {
        self.phase = phase;
        self.deadline = Some(deadline);
    }
}

#[cfg(test)]
mod tests;
