//! In-place rewrites of a checked frame; every field write names the checksums it changes.

use std::net::Ipv4Addr;

use super::Frame;
use super::checksum::{self, Delta};
use super::headers::{IP, Icmp, Ipv4, Tcp, Transport};
use crate::addr::MacAddr;

const TTL: usize = IP + 8;
const IP_CHECKSUM: usize = IP + 10;
const SOURCE: usize = IP + 12;
/// TTL of packets that the router itself answers with.
const ANSWER_TTL: u8 = 64;

/// One direction's new addresses and ports, with what they change in the checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// New source address.
    pub source: Ipv4Addr,
    /// New destination address.
    pub destination: Ipv4Addr,
    /// New source port.
    pub source_port: u16,
    /// New destination port.
    pub destination_port: u16,
    /// Change of the IP header checksum, and of the pseudo-header.
    pub addresses: Delta,
    /// Change of the checksum of what the packet carries: addresses and ports, for ICMP the
    /// identifier alone.
    pub transport: Delta,
}

impl Rewrite {
    /// The same change for packets that go the other way: source and destination swapped.
    #[must_use]
    pub const fn turned_around(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }
}

/// Sets destination and source MAC.
///
/// # Panics
/// When `frame` is shorter than an Ethernet header.
pub fn set_macs(frame: &mut [u8], destination: MacAddr, source: MacAddr) {
    frame[..6].copy_from_slice(&destination.0);
    frame[6..12].copy_from_slice(&source.0);
}

/// Takes one from the TTL (RFC 1812 section 5.3.1). The caller has checked that it is above 1.
pub fn decrement_ttl(frame: &mut [u8]) {
    set_ttl(frame, frame[TTL].saturating_sub(1));
}

/// Writes new addresses and ports into a TCP, UDP or ICMP query packet whose headers were checked. Of a
/// checksum that is to be completed there is only the pseudo-header's part yet, in which ports are not.
pub fn translate(frame: &mut Frame, headers: &Ipv4, to: &Rewrite) {
    let is_partial = frame.is_partial();
    let frame = frame.bytes_mut();
    frame[SOURCE..SOURCE + 4].copy_from_slice(&to.source.octets());
    frame[SOURCE + 4..SOURCE + 8].copy_from_slice(&to.destination.octets());
    to.addresses.patch(frame, IP_CHECKSUM);
    let at = headers.transport_at();
    match headers.transport {
        Transport::Tcp(_) => {
            set_ports(frame, at, to);
            if is_partial {
                to.addresses.patch_partial(frame, at + 16);
            } else {
                to.transport.patch(frame, at + 16);
            }
        }
        Transport::Udp(_) => {
            set_ports(frame, at, to);
            if is_partial {
                to.addresses.patch_partial(frame, at + 6);
            } else {
                to.transport.patch_udp(frame, at + 6);
            }
        }
        Transport::Icmp(_) => {
            // One of the two stands for the identifier, the other is 0.
            let identifier = to.source_port | to.destination_port;
            frame[at + 4..at + 6].copy_from_slice(&identifier.to_be_bytes());
            to.transport.patch(frame, at + 2);
        }
        Transport::Other => {}
    }
}

fn set_ports(frame: &mut [u8], at: usize, to: &Rewrite) {
    frame[at..at + 2].copy_from_slice(&to.source_port.to_be_bytes());
    frame[at + 2..at + 4].copy_from_slice(&to.destination_port.to_be_bytes());
}

/// Lowers the maximum segment size that a SYN announces to `most` bytes, if it announces more.
pub fn clamp_mss(frame: &mut Frame, headers: &Ipv4, segment: &Tcp, most: u16) {
    let is_partial = frame.is_partial();
    let frame = frame.bytes_mut();
    let start = headers.transport_at();
    let end = start + segment.header_len;
    let mut at = start + 20;
    while at + 4 <= end {
        match (frame[at], usize::from(frame[at + 1])) {
            (0, _) => return,
            (1, _) => at += 1,
            (2, 4) => {
                let old = u16::from_be_bytes([frame[at + 2], frame[at + 3]]);
                if old > most {
                    frame[at + 2..at + 4].copy_from_slice(&most.to_be_bytes());
                    // At an odd offset the value straddles two words: its bytes change places.
                    let odd = (at - start) % 2 == 1;
                    let turn = |word: u16| if odd { word.swap_bytes() } else { word };
                    if !is_partial {
                        Delta::word(turn(old), turn(most)).patch(frame, start + 16);
                    }
                }
                return;
            }
            (_, length) if length >= 2 => at += length,
            _ => return,
        }
    }
}

/// Gives the IPv4 packet other addresses, without a look at what it carries.
pub fn set_addresses(frame: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr) {
    set_address(frame, IP, SOURCE, source);
    set_address(frame, IP, SOURCE + 4, destination);
}

/// Writes `address` at `at` and patches the checksum of the IPv4 header at `header`.
pub(super) fn set_address(frame: &mut [u8], header: usize, at: usize, address: Ipv4Addr) {
    let old = u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    frame[at..at + 4].copy_from_slice(&address.octets());
    Delta::double(old, address.to_bits()).patch(frame, header + 10);
}

/// Adds `router` to the record route option, if there is one with room (RFC 1812 section 5.3.13.5).
/// The caller has checked the options.
pub fn record_route(frame: &mut [u8], headers: &Ipv4, router: Ipv4Addr) {
    let mut at = IP + 20;
    while at < headers.transport_at() {
        match frame[at] {
            0 => return,
            1 => at += 1,
            7 => {
                let (length, pointer) = (usize::from(frame[at + 1]), usize::from(frame[at + 2]));
                // The pointer counts from 1, from the option's first byte on.
                if pointer >= 4 && pointer + 3 <= length {
                    let header = IP..headers.transport_at();
                    let slot = at + pointer - 1;
                    frame[slot..slot + 4].copy_from_slice(&router.octets());
                    frame[at + 2] += 4;
                    // Options may start on an odd byte; the header is short, so sum it anew.
                    frame[IP_CHECKSUM..IP_CHECKSUM + 2].fill(0);
                    let sum = checksum::of(&frame[header]).to_be_bytes();
                    frame[IP_CHECKSUM..IP_CHECKSUM + 2].copy_from_slice(&sum);
                }
                return;
            }
            _ => at += usize::from(frame[at + 1]),
        }
    }
}

/// Turns a checked echo request into its reply, back to where it came from.
pub fn echo_reply(frame: &mut [u8], headers: &Ipv4, router: MacAddr) {
    let requester = MacAddr::from_slice(&frame[6..12]);
    set_macs(frame, requester, router);
    // Swapping the addresses leaves the sum as it is.
    frame[SOURCE..SOURCE + 4].copy_from_slice(&headers.destination.octets());
    frame[SOURCE + 4..SOURCE + 8].copy_from_slice(&headers.source.octets());
    set_ttl(frame, ANSWER_TTL);
    let at = headers.transport_at();
    let code = frame[at + 1];
    frame[at] = Icmp::ECHO_REPLY;
    Delta::word(
        u16::from_be_bytes([Icmp::ECHO_REQUEST, code]),
        u16::from_be_bytes([Icmp::ECHO_REPLY, code]),
    )
    .patch(frame, at + 2);
}

fn set_ttl(frame: &mut [u8], ttl: u8) {
    let protocol = frame[TTL + 1];
    let old = u16::from_be_bytes([frame[TTL], protocol]);
    frame[TTL] = ttl;
    Delta::word(old, u16::from_be_bytes([ttl, protocol])).patch(frame, IP_CHECKSUM);
}
