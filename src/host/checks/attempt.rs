//! One check while it is open, and the slot that holds it with a socket that is used again.

use std::io::Write as _;
use std::net::SocketAddrV4;
use std::sync::Arc;

use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::IpEndpoint;

use super::Probed;
use super::http::{Answer, Verdict};
use super::wire::{Heard, ICMP, TCP, UDP};
use crate::config::{HttpCheck, Inquiry, UdpCheck};
use crate::health::{Check, Failure};
use crate::time::Instant;

/// Bytes that wait to be looked at, and the longest request with room to spare.
const RECEIVED: usize = 8 << 10;
const REQUEST: usize = 2 << 10;

/// A check that waits for its answer.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) check: Arc<Check>,
    /// The port it comes from; of an echo request, its identifier.
    pub(super) port: u16,
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
    /// What came that ends it; `Some(None)`: nothing that tells anything.
    #[expect(clippy::option_option, reason = "an end without a result is not the same as no end")]
    over: Option<Option<Result<(), Failure>>>,
    /// The connection stands and the request is on its way.
    asked: bool,
}

/// Room for one check.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) attempt: Option<Attempt>,
    /// Made when it is first needed.
    socket: Option<SocketHandle>,
    answer: Answer,
    request: Vec<u8>,
}

impl Attempt {
    pub(super) const fn new(
        check: Arc<Check>,
        port: u16,
        begun: Instant,
        deadline: Instant,
    ) -> Self {
        Self { check, port, begun, deadline, over: None, asked: false }
    }

    /// Whether this is about it, which is noted.
    pub(super) fn hear(&mut self, heard: &Heard<'_>) -> bool {
        let source = SocketAddrV4::new(self.check.source, self.port);
        let target = self.check.target;
        let inquiry = &self.check.health.inquiry;
        let result = match (inquiry, *heard) {
            (Inquiry::Ping, Heard::Echo { from, to, sequence })
                if (from, to, sequence) == (*target.ip(), source, self.port) =>
            {
                Ok(())
            }
            (Inquiry::Udp(udp), Heard::Datagram { from, to, payload })
                if (from, to) == (target, source) =>
            {
                if is_expected(udp, payload) {
                    Ok(())
                } else {
                    Err(Failure::Datagram)
                }
            }
            (_, Heard::Unreachable { code, protocol, from, to })
                if from == source && self.is_about(protocol, to) =>
            {
                Err(Failure::Unreachable(code))
            }
            _ => return false,
        };
        self.over.get_or_insert(Some(result));
        true
    }

    /// Whether a packet of `protocol` to `to` is one of this check's that an error ends. Of a
    /// connection that stands it is no end (RFC 1122 section 4.2.3.9).
    fn is_about(&self, protocol: u8, to: SocketAddrV4) -> bool {
        let target = self.check.target;
        match self.check.health.inquiry {
            Inquiry::Tcp | Inquiry::Http(_) => protocol == TCP && to == target && !self.asked,
            Inquiry::Udp(_) => protocol == UDP && to == target,
            Inquiry::Ping => protocol == ICMP && to.ip() == target.ip(),
            Inquiry::VirtualIp => false,
        }
    }

    pub(super) fn probed(&mut self, probed: Probed) {
        self.over = Some(match probed {
            Probed::Open => Some(Ok(())),
            Probed::Refused => Some(Err(Failure::Refused)),
            Probed::Silent => Some(Err(Failure::NoHandshake)),
            Probed::NotSent => None,
        });
    }

    /// What it means that no answer came in time.
    fn silence(&self) -> Option<Result<(), Failure>> {
        match &self.check.health.inquiry {
            Inquiry::Http(_) if self.asked => Some(Err(Failure::NoAnswer)),
            Inquiry::Tcp | Inquiry::Http(_) => Some(Err(Failure::NoHandshake)),
            Inquiry::Ping => Some(Err(Failure::NoEcho)),
            Inquiry::Udp(UdpCheck { answer: Some(_), .. }) => Some(Err(Failure::NoDatagram)),
            // Nothing obliges a UDP server to answer; that its port is closed would have been told.
            Inquiry::Udp(UdpCheck { answer: None, .. }) => Some(Ok(())),
            // It was to be told, and got lost on the way.
            Inquiry::VirtualIp => None,
        }
    }
}

fn is_expected(udp: &UdpCheck, payload: &[u8]) -> bool {
    let wanted = udp.answer.as_ref();
    wanted.is_none_or(|wanted| memchr::memmem::find(payload, wanted).is_some())
}

impl Slot {
    /// Whether another check can begin: the last one's reset has left, too.
    pub(super) fn is_free(&self, sockets: &SocketSet<'static>) -> bool {
        self.attempt.is_none() && self.local(sockets).is_none()
    }

    /// Whether it sends from this port.
    pub(super) fn uses(&self, port: u16, sockets: &SocketSet<'static>) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.port == port)
            || self.local(sockets).is_some_and(|local| local.port == port)
    }

    fn local(&self, sockets: &SocketSet<'static>) -> Option<IpEndpoint> {
        sockets.get::<Socket<'_>>(self.socket?).local_endpoint()
    }

    /// Opens a connection.
    pub(super) fn connect(
        &mut self,
        source: SocketAddrV4,
        target: SocketAddrV4,
        interface: &mut Interface,
        sockets: &mut SocketSet<'static>,
    ) {
        self.answer.clear();
        let handle = *self.socket.get_or_insert_with(|| sockets.add(new_socket()));
        let socket = sockets.get_mut::<Socket<'_>>(handle);
        let opened = socket.connect(interface.context(), target, source);
        debug_assert_eq!(opened, Ok(()), "{source} to {target}");
    }

    /// The attempt, if it is over, with its result; its connection is reset, so that neither side has
    /// to remember it (RFC 9293 section 3.6.1).
    pub(super) fn progress(
        &mut self,
        sockets: &mut SocketSet<'static>,
        now: Instant,
    ) -> Option<(Attempt, Option<Result<(), Failure>>)> {
        let attempt = self.attempt.as_mut()?;
        let connects = matches!(attempt.check.health.inquiry, Inquiry::Tcp | Inquiry::Http(_));
        let mut socket =
            self.socket.filter(|_| connects).map(|handle| sockets.get_mut::<Socket<'_>>(handle));
        if attempt.over.is_none()
            && let Some(socket) = socket.as_deref_mut()
        {
            let found = converse(attempt, &mut self.answer, &mut self.request, socket);
            attempt.over = found.map(Some);
        }
        if attempt.over.is_none() && attempt.deadline <= now {
            attempt.over = Some(attempt.silence());
        }
        let result = attempt.over?;
        if let Some(socket) = socket {
            socket.abort();
        }
        self.attempt.take().map(|attempt| (attempt, result))
    }
}

fn new_socket() -> Socket<'static> {
    let mut socket =
        Socket::new(SocketBuffer::new(vec![0; RECEIVED]), SocketBuffer::new(vec![0; REQUEST]));
    socket.set_ack_delay(None);
    socket
}

/// Goes on with a connection as far as it has come.
fn converse(
    attempt: &mut Attempt,
    answer: &mut Answer,
    request: &mut Vec<u8>,
    socket: &mut Socket<'static>,
) -> Verdict {
    let check = Arc::clone(&attempt.check);
    match (socket.state(), &check.health.inquiry) {
        (State::SynSent, _) => None,
        (State::Closed, _) if !attempt.asked => Some(Err(Failure::Refused)),
        (_, Inquiry::Http(http)) => {
            if !attempt.asked {
                attempt.asked = true;
                write_request(http, request);
                // There is room for all of it, and a connection that cannot be written to any more
                // says so below.
                let _ = socket.send_slice(request);
            }
            receive(http, answer, socket)
        }
        // Its handshake is all that was asked for.
        (_, _) => Some(Ok(())),
    }
}

fn receive(http: &HttpCheck, answer: &mut Answer, socket: &mut Socket<'static>) -> Verdict {
    while socket.can_recv() {
        let verdict = socket.recv(|bytes| (bytes.len(), answer.feed(bytes, http))).ok()?;
        if verdict.is_some() {
            return verdict;
        }
    }
    match socket.state() {
        State::Closed => Some(Err(Failure::Reset)),
        _ if !socket.may_recv() => Some(Err(answer.end())),
        _ => None,
    }
}

fn write_request(HttpCheck { path, host, .. }: &HttpCheck, to: &mut Vec<u8>) {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    to.clear();
    // A vector takes all that is written to it.
    let _ = write!(
        to,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tapvs/{VERSION}\r\nAccept: */*\r\n\
         Accept-Encoding: identity\r\nConnection: close\r\n\r\n"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StatusCodes;

    #[test]
    fn the_longest_request_fits() {
        let mut http = HttpCheck {
            path: "/up".to_owned(),
            host: "www".to_owned(),
            status: StatusCodes(vec![200..=200]),
            body: None,
        };
        let mut request = Vec::new();
        write_request(&http, &mut request);
        let text = String::from_utf8(request.clone()).unwrap();
        assert!(text.starts_with("GET /up HTTP/1.1\r\nHost: www\r\n"), "{text}");
        assert!(text.ends_with("Connection: close\r\n\r\n"), "{text}");
        (http.path, http.host) = (format!("/{}", "x".repeat(1_023)), "x".repeat(255));
        write_request(&http, &mut request);
        assert!(request.len() <= REQUEST, "{} bytes", request.len());
    }
}
