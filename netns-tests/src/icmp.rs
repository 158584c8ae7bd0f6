//! ICMP errors as they arrive, and packets that no kernel would make.

use std::net::Ipv4Addr;

use crate::raw::{Packet, internet_checksum};
use crate::{Outcome, ensure};

/// An IPv4 packet, for a raw socket that takes its header too.
pub fn packet(
    (source, destination): (Ipv4Addr, Ipv4Addr),
    (protocol, id, fragment): (u8, u16, u16),
    payload: &[u8],
) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let sum = internet_checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An ICMP message with its checksum: type and code, the second word, the rest.
pub fn icmp((kind, code): (u8, u8), word: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(word);
    message.extend(rest);
    let sum = internet_checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// An ICMP error as it arrived, with what it quotes.
#[derive(Debug)]
pub struct Complaint {
    /// Who complains.
    pub from: Ipv4Addr,
    /// Type and code.
    pub kind: (u8, u8),
    /// The next hop's MTU, where the kind has one.
    pub mtu: u16,
    /// Who sent what is complained about.
    pub quoted_from: Ipv4Addr,
    /// Whom that was for.
    pub quoted_to: Ipv4Addr,
    /// The first eight bytes behind the quoted IP header, as 16-bit words.
    pub quoted_words: [u16; 4],
    /// Of the whole packet, in bytes.
    pub length: usize,
}

impl Complaint {
    /// From an ICMP packet; all three checksums in it must be right.
    pub fn read(packet: &Packet) -> Outcome<Self> {
        let message = packet.payload();
        ensure!(message.len() >= 36, "an error of {} bytes quotes too little", message.len());
        ensure!(internet_checksum(&packet.bytes()[..20]) == 0, "the outer IP checksum is wrong");
        ensure!(internet_checksum(message) == 0, "the ICMP checksum is wrong");
        let quote = &message[8..];
        ensure!(quote[0] == 0x45, "the quote begins with {:#04x}", quote[0]);
        ensure!(internet_checksum(&quote[..20]) == 0, "the quoted IP checksum is wrong");
        let address =
            |at: usize| Ipv4Addr::new(quote[at], quote[at + 1], quote[at + 2], quote[at + 3]);
        let word = |at: usize| u16::from_be_bytes([quote[at], quote[at + 1]]);
        Ok(Self {
            from: packet.source(),
            kind: (message[0], message[1]),
            mtu: packet.payload_u16(6),
            quoted_from: address(12),
            quoted_to: address(16),
            quoted_words: [word(20), word(22), word(24), word(26)],
            length: packet.bytes().len(),
        })
    }
}
