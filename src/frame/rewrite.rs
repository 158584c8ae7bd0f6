//! In-place rewrites of a checked frame; every field write names the checksums it changes.

use std::net::Ipv4Addr;

use super::checksum::Delta;
use super::headers::{IP, Icmp, Ipv4, Transport};
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
    /// Change of the TCP or UDP checksum: addresses and ports.
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

/// Writes new addresses and ports into a TCP or UDP packet whose headers were checked.
pub fn translate(frame: &mut [u8], headers: &Ipv4, to: &Rewrite) {
    frame[SOURCE..SOURCE + 4].copy_from_slice(&to.source.octets());
    frame[SOURCE + 4..SOURCE + 8].copy_from_slice(&to.destination.octets());
    to.addresses.patch(frame, IP_CHECKSUM);
    let at = headers.transport_at();
    frame[at..at + 2].copy_from_slice(&to.source_port.to_be_bytes());
    frame[at + 2..at + 4].copy_from_slice(&to.destination_port.to_be_bytes());
    match headers.transport {
        Transport::Tcp(_) => to.transport.patch(frame, at + 16),
        Transport::Udp(_) => to.transport.patch_udp(frame, at + 6),
        Transport::Icmp(_) | Transport::Other => {}
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
