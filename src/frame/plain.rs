//! Packets as nearly all are: TCP in the midst of a connection, or UDP, over IPv4 without options and not
//! in fragments. Parsed at fixed places, and turned into what leaves in one go.

use std::net::Ipv4Addr;

use super::checksum::{self, Delta};
use super::headers::{ETHERNET, IP, TCP, UDP};
use super::{Frame, Rewrite};
use crate::addr::MacAddr;

/// Length of an IPv4 header without options, in bytes.
const IP_HEADER: usize = 20;
/// Where the transport header starts in the frame.
pub(super) const TRANSPORT_AT: u16 = 34;
const TRANSPORT: usize = TRANSPORT_AT as usize;
const _: () = assert!(TRANSPORT == IP + IP_HEADER);
const UDP_SUM: usize = TRANSPORT + 6;
const TCP_SUM: usize = TRANSPORT + 16;
const IP_SUM: usize = IP + 10;
const TTL: usize = IP + 8;
/// One off a TTL, the upper half of its word: what that changes is always the same.
const ONE_HOP: Delta = Delta::of_sum(!0x0100);

/// The headers of such a packet, checked as [`super::Ipv4::parse`] checks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Source.
    pub source: Ipv4Addr,
    /// Destination.
    pub destination: Ipv4Addr,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Protocol number: that of TCP or of UDP.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Packet length with header, in bytes.
    pub total_len: usize,
    /// Where the transport header ends in the frame.
    pub headers_end: u16,
}

impl Plain {
    /// `None` for whatever is not such a packet, or not in order. A TCP segment is one where of SYN,
    /// ACK, FIN and RST it has ACK alone.
    #[inline]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let header: &[u8; TRANSPORT + 8] = frame.first_chunk()?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let address =
            |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        let is_plain = header[12..=IP] == [8, 0, 0x45] && word(IP + 6) & 0x3fff == 0;
        let total_len = usize::from(word(IP + 2));
        // What follows the total length is Ethernet padding.
        if !is_plain || frame.len() < ETHERNET + total_len {
            return None;
        }
        let payload = total_len.checked_sub(IP_HEADER)?;
        let protocol = header[IP + 9];
        let (is_whole, header_len) = match protocol {
            UDP => ((8..=payload).contains(&usize::from(word(TRANSPORT + 4))), 8),
            TCP => {
                let [offset, flags] = *frame.get(TRANSPORT + 12..)?.first_chunk()?;
                let header_len = u16::from(offset >> 4) * 4;
                let fits = (20..=payload).contains(&usize::from(header_len));
                (fits && flags & 0x17 == 0x10, header_len)
            }
            _ => return None,
        };
        if !is_whole || !checksum::is_valid(&header[IP..TRANSPORT]) {
            return None;
        }
        Some(Self {
            source: address(IP + 12),
            destination: address(IP + 16),
            source_port: word(TRANSPORT),
            destination_port: word(TRANSPORT + 2),
            protocol,
            ttl: header[TTL],
            total_len,
            headers_end: TRANSPORT_AT + header_len,
        })
    }

    /// Takes one from the TTL, which is above 1, and writes new addresses and ports, where there are any,
    /// and the MACs of the next hop and of the router. `frame` is the one that was parsed.
    pub fn forward(&self, frame: &mut Frame, to: Option<&Rewrite>, next: MacAddr, router: MacAddr) {
        let is_partial = frame.is_partial();
        let bytes = frame.bytes_mut();
        let Some(header) = bytes.first_chunk_mut::<{ TRANSPORT + 8 }>() else { return };
        header[..6].copy_from_slice(&next.0);
        header[6..12].copy_from_slice(&router.0);
        header[TTL] = self.ttl.saturating_sub(1);
        let Some(to) = to else { return ONE_HOP.patch(header, IP_SUM) };
        to.addresses.and(ONE_HOP).patch(header, IP_SUM);
        header[IP + 12..IP + 16].copy_from_slice(&to.source.octets());
        header[IP + 16..TRANSPORT].copy_from_slice(&to.destination.octets());
        header[TRANSPORT..TRANSPORT + 2].copy_from_slice(&to.source_port.to_be_bytes());
        header[TRANSPORT + 2..TRANSPORT + 4].copy_from_slice(&to.destination_port.to_be_bytes());
        // Of a checksum that is to be completed there is only the pseudo-header's part yet.
        match (self.protocol == UDP, is_partial) {
            (true, true) => to.addresses.patch_partial(header, UDP_SUM),
            (true, false) => to.transport.patch_udp(header, UDP_SUM),
            (false, true) => to.addresses.patch_partial(bytes, TCP_SUM),
            (false, false) => to.transport.patch(bytes, TCP_SUM),
        }
    }
}

#[cfg(test)]
mod tests;
