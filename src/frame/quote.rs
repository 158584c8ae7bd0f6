//! The packet quoted in an ICMP error: finding whose it is, and putting its words back
//! (RFC 5508 section 4.2).

use std::net::Ipv4Addr;

use super::checksum::{self, Delta};
use super::headers::{ICMP, IP, Icmp, Ipv4, TCP, UDP};
use super::rewrite::set_address;

/// ICMP header in front of the quoted packet.
const ICMP_HEADER: usize = 8;
/// Shortest IPv4 header.
const IP_HEADER: usize = 20;

/// What an ICMP error says about the packet it quotes. Offsets are in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Where the quoted IPv4 header starts.
    at: usize,
    /// Where the quoted transport header starts.
    transport_at: usize,
    /// The quoted packet's source address.
    pub source: Ipv4Addr,
    /// The quoted packet's destination address.
    pub destination: Ipv4Addr,
    /// TCP, UDP or ICMP.
    pub protocol: u8,
    /// The quoted packet's source port; an echo request's identifier.
    pub source_port: u16,
    /// The quoted packet's destination port; an echo reply's identifier.
    pub destination_port: u16,
}

/// Addresses and ports that a quoted packet is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotedAs {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

impl Quote {
    /// The packet quoted by the ICMP error whose outer headers were checked. `None`: not the
    /// first fragment of TCP, UDP or ICMP echo, or its header checksum is wrong. Options are skipped
    /// (RFC 5508 REQ-3 b), the transport checksum is not looked at (REQ-3 c).
    pub fn parse(frame: &[u8], outer: &Ipv4) -> Option<Self> {
        let at = outer.transport_at() + ICMP_HEADER;
        let packet = frame.get(at..IP + outer.total_len)?;
        let (header, _) = packet.split_first_chunk::<IP_HEADER>()?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
        let protocol = header[9];
        if header[0] >> 4 != 4 || offset != 0 {
            return None;
        }
        let options_too = packet.get(..header_len).filter(|h| h.len() >= IP_HEADER)?;
        // The quoted TTL may have been counted down without its checksum; RFC 5508 REQ-3 a asks for
        // it to be right all the same.
        if !checksum::is_valid(options_too) {
            return None;
        }
        let start = packet.get(header_len..)?.first_chunk::<8>()?;
        let word = |at: usize| u16::from_be_bytes([start[at], start[at + 1]]);
        let (source_port, destination_port) = match (protocol, start[0]) {
            (TCP | UDP, _) => (word(0), word(2)),
            (ICMP, Icmp::ECHO_REQUEST) => (word(4), 0),
            (ICMP, Icmp::ECHO_REPLY) => (0, word(4)),
            _ => return None,
        };
        Some(Self {
            at,
            transport_at: at + header_len,
            source: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
            destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]),
            protocol,
            source_port,
            destination_port,
        })
    }

    /// Gives the quoted packet other addresses and ports. As IPVS, the quoted transport checksum
    /// stays: it may be cut off, and nobody may rely on it.
    pub fn translate(&self, frame: &mut [u8], outer: &Ipv4, to: QuotedAs) {
        let sum_at = outer.transport_at() + 2;
        let header_sum = u16::from_be_bytes([frame[self.at + 10], frame[self.at + 11]]);
        set_address(frame, self.at, self.at + 12, to.source);
        set_address(frame, self.at, self.at + 16, to.destination);
        let new_sum = u16::from_be_bytes([frame[self.at + 10], frame[self.at + 11]]);
        let at = self.transport_at;
        if self.protocol == ICMP {
            // One of the two stands for the identifier, the other is 0.
            let identifier = to.source_port | to.destination_port;
            frame[at + 4..at + 6].copy_from_slice(&identifier.to_be_bytes());
        } else {
            frame[at..at + 2].copy_from_slice(&to.source_port.to_be_bytes());
            frame[at + 2..at + 4].copy_from_slice(&to.destination_port.to_be_bytes());
        }
        // The ICMP checksum covers all of it. The quoted header starts on an even offset, and its
        // length is a multiple of four, so words stay words.
        Delta::double(self.source.to_bits(), to.source.to_bits())
            .and(Delta::double(self.destination.to_bits(), to.destination.to_bits()))
            .and(Delta::word(header_sum, new_sum))
            .and(Delta::word(self.source_port, to.source_port))
            .and(Delta::word(self.destination_port, to.destination_port))
            .patch(frame, sum_at);
    }
}
