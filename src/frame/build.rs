//! IPv4 packets that the router itself sends: ICMP errors, TCP segments and datagrams.
//!
//! Each writes behind a blank Ethernet header; the caller routes the packet and sets the MACs.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::Frame;
use super::checksum;
use super::headers::{ETHER_TYPE_IPV4, ETHERNET, ICMP, IP, Ipv4, TCP, Tcp, UDP};

/// RFC 1812 section 4.3.2.3: as much of the packet as fits without the error exceeding 576 bytes.
const LONGEST_ERROR: usize = 576;
/// RFC 1812 section 4.3.2.5: errors have precedence 6, internetwork control.
const ERROR_TOS: u8 = 0xc0;
const DONT_FRAGMENT: u8 = 0x40;
const TTL: u8 = 64;
const IP_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// An ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Type 3 code 1.
    HostUnreachable,
    /// Type 3 code 2.
    ProtocolUnreachable,
    /// Type 3 code 3.
    PortUnreachable,
    /// Type 3 code 4, with the next hop's MTU in bytes (RFC 1191).
    FragmentationNeeded(u16),
    /// Type 11 code 0.
    TimeExceeded,
}

impl IcmpError {
    const fn parts(self) -> (u8, u8, u16) {
        match self {
            Self::HostUnreachable => (3, 1, 0),
            Self::ProtocolUnreachable => (3, 2, 0),
            Self::PortUnreachable => (3, 3, 0),
            Self::FragmentationNeeded(mtu) => (3, 4, mtu),
            Self::TimeExceeded => (11, 0, 0),
        }
    }
}

/// Writes `error` about `packet` (IP header on) from a source to the packet's sender.
pub fn icmp_error(
    error: IcmpError,
    (source, to): (Ipv4Addr, Ipv4Addr),
    identification: u16,
    packet: &[u8],
    out: &mut Frame,
) {
    let (kind, code, mtu) = error.parts();
    let quoted = packet.len().min(LONGEST_ERROR - IP_HEADER - ICMP_HEADER);
    let message_len = ICMP_HEADER + quoted;
    let ip = IpStart { source, to, protocol: ICMP, tos: ERROR_TOS, identification };
    let message = ip.write(message_len, out);
    message[..4].copy_from_slice(&[kind, code, 0, 0]);
    message[4..6].fill(0);
    message[6..8].copy_from_slice(&mtu.to_be_bytes());
    message[8..].copy_from_slice(&packet[..quoted]);
    let sum = checksum::of(message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// Writes the reset that a host without such a connection answers `segment` with (RFC 9293
/// section 3.10.7.1). The caller has checked that `segment` is not itself a reset.
pub fn tcp_reset(headers: &Ipv4, segment: &Tcp, out: &mut Frame) {
    let (source, to) = (headers.destination, headers.source);
    // An identification of 0 stands for none: the reset is an atomic datagram.
    let ip = IpStart { source, to, protocol: TCP, tos: 0, identification: 0 };
    let reset = ip.write(TCP_HEADER, out);
    let data = headers.total_len
        - headers.header_len
        - segment.header_len.min(headers.total_len - headers.header_len);
    let data = u32::try_from(data).unwrap_or(0) + u32::from(segment.syn) + u32::from(segment.fin);
    let (sequence, acknowledgement, flags) = if segment.ack {
        (segment.acknowledgement, 0, 0x04)
    } else {
        (0, segment.sequence.wrapping_add(data), 0x14)
    };
    reset[..2].copy_from_slice(&segment.destination.to_be_bytes());
    reset[2..4].copy_from_slice(&segment.source.to_be_bytes());
    reset[4..8].copy_from_slice(&sequence.to_be_bytes());
    reset[8..12].copy_from_slice(&acknowledgement.to_be_bytes());
    reset[12..20].copy_from_slice(&[0x50, flags, 0, 0, 0, 0, 0, 0]);
    let source = headers.destination.octets();
    let sum = checksum::of_segment(source, headers.source.octets(), TCP, reset);
    reset[16..18].copy_from_slice(&sum.to_be_bytes());
}

/// Writes a datagram (RFC 768). `payload` is at most 65,507 bytes.
pub fn datagram(source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8], out: &mut Frame) {
    let (from, to) = (*source.ip(), *destination.ip());
    let ip = IpStart { source: from, to, protocol: UDP, tos: 0, identification: 0 };
    let len = UDP_HEADER + payload.len();
    let message = ip.write(len, out);
    message[..2].copy_from_slice(&source.port().to_be_bytes());
    message[2..4].copy_from_slice(&destination.port().to_be_bytes());
    message[4..6].copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
    message[6..8].fill(0);
    message[UDP_HEADER..].copy_from_slice(payload);
    let sum = match checksum::of_segment(from.octets(), to.octets(), UDP, message) {
        0 => 0xffff,
        sum => sum,
    };
    message[6..8].copy_from_slice(&sum.to_be_bytes());
}

/// What a datagram in `packet`, an IPv4 packet whose header is in order, carries; `None` when it is
/// anything else, or damaged.
pub fn payload_of_datagram(packet: &[u8]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let source = packet.get(12..16)?.try_into().ok()?;
    let destination = packet.get(16..20)?.try_into().ok()?;
    let message = packet.get(header..).filter(|_| packet[9] == UDP)?;
    let len = usize::from(u16::from_be_bytes(message.get(4..6)?.try_into().ok()?));
    let message = message.get(..len)?;
    let payload = message.get(UDP_HEADER..)?;
    // RFC 768: 0 is no checksum.
    let is_summed = message[6..8] != [0, 0];
    let is_intact = !is_summed || checksum::is_segment_valid(source, destination, UDP, message);
    is_intact.then_some(payload)
}

/// What a segment of the router's own says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// Opens a connection.
    Syn,
    /// Repeats the answer to a SYN, so that it is acknowledged once more.
    SynAck,
    /// Ends a connection.
    Reset,
}

impl SegmentKind {
    const fn flags(self) -> u8 {
        match self {
            Self::Syn => 0x02,
            Self::SynAck => 0x12,
            Self::Reset => 0x04,
        }
    }

    /// A segment without a timestamp is ignored where timestamps were agreed on, unless it is a reset;
    /// where they were not, this one is. One that is too old is answered too (RFC 7323 sections 3.2
    /// and 5.3).
    const fn options(self) -> &'static [u8] {
        match self {
            Self::Syn | Self::Reset => &[],
            Self::SynAck => &[1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0],
        }
    }
}

/// A TCP segment of the router's own, without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it says that it comes from.
    pub source: SocketAddrV4,
    /// Where it goes.
    pub destination: SocketAddrV4,
    /// Its sequence number.
    pub sequence: u32,
    /// What it says.
    pub kind: SegmentKind,
}

impl Segment {
    /// Writes the segment, as an atomic datagram.
    pub fn build(&self, out: &mut Frame) {
        let (source, to) = (*self.source.ip(), *self.destination.ip());
        let ip = IpStart { source, to, protocol: TCP, tos: 0, identification: 0 };
        let options = self.kind.options();
        let segment = ip.write(TCP_HEADER + options.len(), out);
        segment[TCP_HEADER..].copy_from_slice(options);
        segment[..2].copy_from_slice(&self.source.port().to_be_bytes());
        segment[2..4].copy_from_slice(&self.destination.port().to_be_bytes());
        segment[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        segment[8..12].fill(0);
        let (flags, is_reset) = (self.kind.flags(), self.kind == SegmentKind::Reset);
        let window = if is_reset { 0 } else { 0xff };
        let words = if options.is_empty() { 0x50 } else { 0x80 };
        segment[12..20].copy_from_slice(&[words, flags, window, window, 0, 0, 0, 0]);
        let sum = checksum::of_segment(source.octets(), to.octets(), TCP, segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
    }
}

/// What an IPv4 header is made of.
struct IpStart {
    source: Ipv4Addr,
    to: Ipv4Addr,
    protocol: u8,
    tos: u8,
    /// 0: an atomic datagram, which needs none (RFC 6864).
    identification: u16,
}

impl IpStart {
    /// Writes a blank Ethernet header and the IPv4 header; the `len` bytes behind are returned.
    fn write(self, len: usize, out: &mut Frame) -> &mut [u8] {
        out.set_len(ETHERNET + IP_HEADER + len);
        let bytes = out.bytes_mut();
        bytes[..12].fill(0);
        bytes[12..14].copy_from_slice(&ETHER_TYPE_IPV4.to_be_bytes());
        let total = u16::try_from(IP_HEADER + len).unwrap_or(u16::MAX);
        let (header, payload) = bytes[IP..].split_at_mut(IP_HEADER);
        header[..2].copy_from_slice(&[0x45, self.tos]);
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[4..6].copy_from_slice(&self.identification.to_be_bytes());
        let flags = if self.identification == 0 { DONT_FRAGMENT } else { 0 };
        header[6..8].copy_from_slice(&[flags, 0]);
        header[8..12].copy_from_slice(&[TTL, self.protocol, 0, 0]);
        header[12..16].copy_from_slice(&self.source.octets());
        header[16..20].copy_from_slice(&self.to.octets());
        let sum = checksum::of(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_carries_what_was_put_in_unless_it_is_damaged() {
        let (source, to) = ("10.0.0.2:8848".parse().unwrap(), "10.0.0.3:8848".parse().unwrap());
        let mut frame = Frame::new();
        for payload in [&b""[..], b"x", b"what the other router should know"] {
            datagram(source, to, payload, &mut frame);
            let headers = Ipv4::parse(frame.bytes()).unwrap();
            assert!(headers.is_transport_intact(&frame));
            let packet = &frame.bytes()[ETHERNET..];
            assert_eq!(payload_of_datagram(packet), Some(payload));
            // Padding behind it is not its own.
            assert_eq!(payload_of_datagram(&[packet, &[0; 9]].concat()), Some(payload));
            for end in 0..packet.len() {
                assert_eq!(payload_of_datagram(&packet[..end]), None, "{end} bytes");
            }
            for at in IP_HEADER..packet.len() {
                let mut bad = packet.to_vec();
                bad[at] ^= 0x10;
                assert_eq!(payload_of_datagram(&bad), None, "byte {at} changed");
            }
            let mut unsummed = packet.to_vec();
            unsummed[IP_HEADER + 6..IP_HEADER + 8].fill(0);
            assert_eq!(payload_of_datagram(&unsummed), Some(payload), "no checksum");
        }
    }
}
