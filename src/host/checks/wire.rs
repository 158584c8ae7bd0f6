//! The packets of checks that need no connection, and what may come back for any check.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use crate::health::Unreachable;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

const HOP_LIMIT: u8 = 64;

/// An echo request (RFC 792).
pub(super) fn echo_request(source: Ipv4Addr, target: Ipv4Addr, ident: u16, seq_no: u16) -> Vec<u8> {
    let icmp = Icmpv4Repr::EchoRequest { ident, seq_no, data: b"tapvs health check" };
    packet(source, target, IpProtocol::Icmp, icmp.buffer_len(), |body, checksums| {
        icmp.emit(&mut Icmpv4Packet::new_unchecked(body), checksums);
    })
}

/// A datagram (RFC 768).
pub(super) fn datagram(source: SocketAddrV4, target: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let udp = UdpRepr { src_port: source.port(), dst_port: target.port() };
    let len = udp.header_len() + payload.len();
    let (from, to) = (*source.ip(), *target.ip());
    packet(from, to, IpProtocol::Udp, len, |body, checksums| {
        let mut body = UdpPacket::new_unchecked(body);
        let write = |to: &mut [u8]| to.copy_from_slice(payload);
        udp.emit(&mut body, &from.into(), &to.into(), payload.len(), write, checksums);
    })
}

fn packet(
    source: Ipv4Addr,
    target: Ipv4Addr,
    protocol: IpProtocol,
    len: usize,
    write: impl FnOnce(&mut [u8], &ChecksumCapabilities),
) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    let ip = Ipv4Repr {
        src_addr: source,
        dst_addr: target,
        next_header: protocol,
        payload_len: len,
        hop_limit: HOP_LIMIT,
    };
    let mut bytes = vec![0; ip.buffer_len() + len];
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[..]), &checksums);
    write(&mut bytes[ip.buffer_len()..], &checksums);
    bytes
}

/// Something that may be the answer to a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard<'p> {
    /// An echo reply; the identifier stands for the port it goes to.
    Echo { from: Ipv4Addr, to: SocketAddrV4, sequence: u16 },
    /// A datagram.
    Datagram { from: SocketAddrV4, to: SocketAddrV4, payload: &'p [u8] },
    /// An ICMP error about a packet from `from` to `to`; for an echo request the identifier stands
    /// for the port of `from`.
    Unreachable { code: Unreachable, protocol: u8, from: SocketAddrV4, to: SocketAddrV4 },
}

/// Reads an IP packet whose header was found whole; anything damaged is nothing.
pub(super) fn hear(packet: &[u8]) -> Option<Heard<'_>> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    if !ip.verify_checksum() {
        return None;
    }
    match ip.next_header() {
        IpProtocol::Icmp => icmp(from, to, ip.payload()),
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(ip.payload()).ok()?;
            // RFC 768: 0 is no checksum.
            if udp.checksum() != 0 && !udp.verify_checksum(&from.into(), &to.into()) {
                return None;
            }
            Some(Heard::Datagram {
                from: SocketAddrV4::new(from, udp.src_port()),
                to: SocketAddrV4::new(to, udp.dst_port()),
                payload: udp.payload(),
            })
        }
        _ => None,
    }
}

fn icmp(from: Ipv4Addr, to: Ipv4Addr, message: &[u8]) -> Option<Heard<'_>> {
    let icmp = Icmpv4Packet::new_checked(message).ok()?;
    if !icmp.verify_checksum() {
        return None;
    }
    match icmp.msg_type() {
        Icmpv4Message::EchoReply => {
            let to = SocketAddrV4::new(to, icmp.echo_ident());
            Some(Heard::Echo { from, to, sequence: icmp.echo_seq_no() })
        }
        Icmpv4Message::DstUnreachable => quoted(Unreachable(icmp.msg_code()), icmp.data()),
        _ => None,
    }
}

/// Of the packet that an error is about, its header and 8 more bytes are there (RFC 792).
fn quoted(code: Unreachable, quote: &[u8]) -> Option<Heard<'_>> {
    let ip = Ipv4Packet::new_unchecked(quote);
    let (header, body) = (usize::from(quote.first()? & 0x0f) * 4, quote.first()? >> 4 == 4);
    if !body || header < 20 || quote.len() < header + 8 {
        return None;
    }
    let word = |at: usize| u16::from_be_bytes([quote[header + at], quote[header + at + 1]]);
    let protocol = u8::from(ip.next_header());
    let (source, destination) = match protocol {
        ICMP => (word(4), 0),
        TCP | UDP => (word(0), word(2)),
        _ => return None,
    };
    let from = SocketAddrV4::new(ip.src_addr(), source);
    let to = SocketAddrV4::new(ip.dst_addr(), destination);
    Some(Heard::Unreachable { code, protocol, from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);

    /// An error about `about` from its receiver.
    fn unreachable(about: &[u8], code: u8) -> Vec<u8> {
        let quote = &about[..28];
        let mut message = vec![3, code, 0, 0, 0, 0, 0, 0];
        message.extend(quote);
        let mut bytes = packet(SERVER, ME, IpProtocol::Icmp, message.len(), |body, _| {
            body.copy_from_slice(&message);
        });
        Icmpv4Packet::new_unchecked(&mut bytes[20..]).fill_checksum();
        bytes
    }

    #[test]
    fn what_is_sent_could_be_heard() {
        let (from, to) = (SocketAddrV4::new(ME, 61_000), SocketAddrV4::new(SERVER, 53));
        for payload in [&b""[..], b"ping", &[0xff; 512]] {
            let bytes = datagram(from, to, payload);
            assert_eq!(hear(&bytes), Some(Heard::Datagram { from, to, payload }));
        }
        let request = echo_request(ME, SERVER, 61_001, 7);
        assert_eq!(hear(&request), None, "a question is no answer");
        let mut reply = request;
        Icmpv4Packet::new_unchecked(&mut reply[20..]).set_msg_type(Icmpv4Message::EchoReply);
        Icmpv4Packet::new_unchecked(&mut reply[20..]).fill_checksum();
        let to = SocketAddrV4::new(SERVER, 61_001);
        assert_eq!(hear(&reply), Some(Heard::Echo { from: ME, to, sequence: 7 }));
    }

    #[test]
    fn errors_name_the_packet_they_are_about() {
        let (from, to) = (SocketAddrV4::new(ME, 61_000), SocketAddrV4::new(SERVER, 53));
        let error = unreachable(&datagram(from, to, b"ping"), 3);
        let code = Unreachable::PORT;
        assert_eq!(hear(&error), Some(Heard::Unreachable { code, protocol: UDP, from, to }));
        let error = unreachable(&echo_request(ME, SERVER, 61_001, 7), 1);
        let (from, to) = (SocketAddrV4::new(ME, 61_001), SocketAddrV4::new(SERVER, 0));
        let code = Unreachable(1);
        assert_eq!(hear(&error), Some(Heard::Unreachable { code, protocol: ICMP, from, to }));
    }

    #[test]
    fn what_is_damaged_is_nothing() {
        let (from, to) = (SocketAddrV4::new(SERVER, 53), SocketAddrV4::new(ME, 61_000));
        let right = datagram(from, to, b"pong");
        let error = unreachable(&datagram(to, from, b"ping"), 3);
        for bytes in [right, error] {
            assert!(hear(&bytes).is_some());
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x10;
                assert_eq!(hear(&damaged), None, "byte {at}");
                assert!(hear(&bytes[..at]).is_none(), "cut at {at}");
            }
        }
    }
}
