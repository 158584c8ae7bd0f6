//! rtnetlink, synchronously: the handful of calls that set links up and look at them.
//!
//! One request, then its answer; interfaces go by name. Decides nothing.

pub(super) mod device;
mod inet;

use std::cell::Cell;
use std::io;

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

pub use self::device::{Link, Statistics};
pub use self::inet::{Neighbour, NeighbourState};
use super::error::LinkError;

/// A dump that raced with a change is asked for again, this often at most.
const DUMP_ATTEMPTS: usize = 5;
/// In an error, the request's own header comes before the kernel's words.
const REQUEST_HEADER: usize = 16;
/// `NLMSGERR_ATTR_MSG`: the kernel's words.
const ATTRIBUTE_MESSAGE: u16 = 1;

/// A netlink socket. It belongs to the namespace that the calling thread was in when it was made,
/// and stays there wherever it is used.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: Cell<u32>,
}

impl Netlink {
    /// Opens a socket into the calling thread's namespace.
    pub fn new() -> Result<Self, LinkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Errors quote the request's header only, and then say why in words.
            socket.set_cap_ack(true)?;
            socket.set_ext_ack(true)?;
            Ok(socket)
        };
        let socket =
            open().map_err(|cause| LinkError::kernel("open", "a netlink socket", cause))?;
        Ok(Self { socket, sequence: Cell::new(0) })
    }

    /// Asks for a change, or for one object, and waits for the kernel's answer.
    fn request(
        &self,
        operation: &str,
        subject: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, LinkError> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags)
            .map(|answer| answer.messages)
            .map_err(|no| no.into_error(operation, subject))
    }

    /// Asks for all objects of a kind.
    fn dump(
        &self,
        operation: &str,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, LinkError> {
        let mut last = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            let answer = self
                .exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)
                .map_err(|no| no.into_error(operation, "this namespace"))?;
            last = answer.messages;
            if !answer.interrupted {
                break;
            }
        }
        Ok(last)
    }

    fn exchange(&self, message: RouteNetlinkMessage, flags: u16) -> Result<Answer, No> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answer = Answer::default();
        loop {
            let (datagram, _) = match self.socket.recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received?,
            };
            if answer.take(&datagram, sequence)? {
                return Ok(answer);
            }
        }
    }
}

#[derive(Default)]
struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    interrupted: bool,
}

impl Answer {
    /// Adds one datagram's messages; `true` when the answer is complete.
    fn take(&mut self, mut datagram: &[u8], sequence: u32) -> Result<bool, No> {
        while !datagram.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram)
                .map_err(|error| No::from(io::Error::other(error.to_string())))?;
            let (header, payload) = message.into_parts();
            let length = usize::try_from(header.length).unwrap_or(usize::MAX);
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
            if header.sequence_number != sequence {
                continue;
            }
            self.interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
            match payload {
                NetlinkPayload::InnerMessage(inner) => self.messages.push(inner),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
                NetlinkPayload::Error(error) => return Err(No::from(&error)),
                NetlinkPayload::Done(_) => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// A refusal: the errno and, from kernels that say more, their words.
struct No {
    cause: io::Error,
    words: String,
}

impl No {
    fn into_error(self, operation: &str, subject: &str) -> LinkError {
        LinkError::kernel(operation, subject, self.cause).with_detail(self.words)
    }
}

impl From<io::Error> for No {
    fn from(cause: io::Error) -> Self {
        Self { cause, words: String::new() }
    }
}

impl From<&ErrorMessage> for No {
    fn from(error: &ErrorMessage) -> Self {
        let attributes = error.header.get(REQUEST_HEADER..).unwrap_or_default();
        Self { cause: error.to_io(), words: kernel_words(attributes).unwrap_or_default() }
    }
}

/// The text attribute among `attributes`, each of which is length, type, value, padding.
fn kernel_words(mut attributes: &[u8]) -> Option<String> {
    while let Some(&[a, b, c, d]) = attributes.first_chunk() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([c, d]) == ATTRIBUTE_MESSAGE {
            let text = value.split(|&byte| byte == 0).next().unwrap_or_default();
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_found_among_other_attributes() {
        let mut bytes = Vec::new();
        for (kind, value) in [(2_u16, &b"\x01\x02\x03\x04"[..]), (1, b"mtu too big\0")] {
            bytes.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
        }
        assert_eq!(kernel_words(&bytes).as_deref(), Some("mtu too big"));
        assert_eq!(kernel_words(&bytes[..8]), None);
        assert_eq!(kernel_words(&[0; 4]), None);
        assert_eq!(kernel_words(&[1, 2]), None);
    }

    #[test]
    fn loopback_can_be_looked_at_without_privileges() {
        let netlink = Netlink::new().unwrap();
        let lo = netlink.link("lo").unwrap();
        assert_eq!((lo.name.as_str(), lo.index), ("lo", 1));
        let all = netlink.links().unwrap();
        assert_eq!(all.iter().filter(|link| link.name == "lo" && link.mac == lo.mac).count(), 1);
        if lo.up {
            assert!(netlink.addresses("lo").unwrap().contains(&"127.0.0.1/8".parse().unwrap()));
        }
        let error = netlink.link("nosuchlink0").unwrap_err();
        assert!(error.is_missing() && error.to_string().contains("nosuchlink0"), "{error}");
    }
}
