//! One frame's headers, checked once. What [`Headers::parse`] returned may be relied on: offsets lie
//! inside the frame, the IPv4 header checksum is right, lengths agree.

use std::net::Ipv4Addr;

use etherparse::{Ethernet2HeaderSlice, Ipv4HeaderSlice, TcpHeaderSlice, UdpHeaderSlice};

use super::{Frame, checksum};
use crate::addr::MacAddr;

/// Length of an Ethernet header; IP and ARP start here.
pub const ETHERNET: usize = 14;
/// Where the IPv4 header starts.
pub const IP: usize = ETHERNET;

/// EtherType of IPv4.
pub const ETHER_TYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHER_TYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const ETHER_TYPE_IPV6: u16 = 0x86dd;

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;

/// The Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination.
    pub destination: MacAddr,
    /// Source.
    pub source: MacAddr,
    /// Type, or length where below 1,536.
    pub ether_type: u16,
}

impl Ethernet {
    /// The Ethernet header of a frame; `None` for a runt.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let header = Ethernet2HeaderSlice::from_slice(bytes).ok()?;
        Some(Self {
            destination: MacAddr(header.destination()),
            source: MacAddr(header.source()),
            ether_type: header.ether_type().0,
        })
    }
}

/// An IPv4 packet's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Source.
    pub source: Ipv4Addr,
    /// Destination.
    pub destination: Ipv4Addr,
    /// Protocol number.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Header length with options, in bytes.
    pub header_len: usize,
    /// Packet length with header, in bytes.
    pub total_len: usize,
    /// Tells the fragments of one datagram from another's.
    pub identification: u16,
    /// Where a fragment's payload starts in the datagram's, in bytes.
    pub fragment_offset: usize,
    /// The don't-fragment bit.
    pub dont_fragment: bool,
    /// Whether it is a fragment, and not the first.
    pub later_fragment: bool,
    /// Whether more fragments follow.
    pub more_fragments: bool,
    /// Whether it carries a source route option (LSRR, SSRR), or options that cannot be read.
    pub source_routed: bool,
    /// What it carries.
    pub transport: Transport,
}

impl Ipv4 {
    /// Where the transport header starts in the frame.
    pub const fn transport_at(&self) -> usize {
        IP + self.header_len
    }

    /// Whether the TCP or UDP checksum of this whole packet is right, or there is none, or it is still to
    /// be completed: nothing has happened to it then. Reads all of the packet: for what the router
    /// answers itself, not for what it forwards.
    pub fn is_transport_intact(&self, frame: &Frame) -> bool {
        if frame.is_partial() {
            return true;
        }
        let segment =
            frame.bytes().get(self.transport_at()..IP + self.total_len).unwrap_or_default();
        let (protocol, segment) = match self.transport {
            Transport::Tcp(_) => (TCP, segment),
            Transport::Udp(_) => {
                let length =
                    segment.get(4..6).map_or(0, |l| usize::from(l[0]) << 8 | usize::from(l[1]));
                (UDP, segment.get(..length).unwrap_or_default())
            }
            Transport::Icmp(_) | Transport::Other => return true,
        };
        protocol == UDP && segment.get(6..8) == Some(&[0, 0])
            || checksum::is_segment_valid(
                self.source.octets(),
                self.destination.octets(),
                protocol,
                segment,
            )
    }

    /// Any fragment, the first included.
    pub const fn is_fragment(&self) -> bool {
        self.later_fragment || self.more_fragments
    }
}

/// What an IPv4 packet carries. A later fragment is `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP header.
    Tcp(Tcp),
    /// A UDP header.
    Udp(Udp),
    /// An ICMP header.
    Icmp(Icmp),
    /// Nothing that is looked into.
    Other,
}

/// A TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Header length with options, in bytes.
    pub header_len: usize,
    /// SYN.
    pub syn: bool,
    /// ACK.
    pub ack: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
}

/// A UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
}

/// The first bytes of an ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// A query's identifier; bytes of something else in other messages.
    pub identifier: u16,
}

impl Icmp {
    /// Type of an echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Type of an echo request.
    pub const ECHO_REQUEST: u8 = 8;

    /// Whether it reports an error about another packet (RFC 1122 section 3.2.2).
    pub const fn is_error(self) -> bool {
        matches!(self.kind, 3 | 4 | 5 | 11 | 12)
    }
}

/// What is wrong with an IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Version, header length or total length do not fit.
    Header,
    /// The header checksum is wrong.
    HeaderChecksum,
    /// The TCP header is cut short or lies about its length.
    Tcp,
    /// The UDP header is cut short or lies about its length.
    Udp,
    /// The ICMP message is cut short or its checksum is wrong.
    Icmp,
}

impl Ipv4 {
    /// Checks the IPv4 packet behind the Ethernet header, lengths first.
    pub fn parse(frame: &[u8]) -> Result<Self, Malformed> {
        Self::parse_packet(frame.get(ETHERNET..).unwrap_or_default())
    }

    /// Checks an IPv4 packet without an Ethernet header. `transport_at` still counts one.
    pub fn parse_packet(packet: &[u8]) -> Result<Self, Malformed> {
        let header = Ipv4HeaderSlice::from_slice(packet).map_err(|_| Malformed::Header)?;
        let header_len = header.slice().len();
        let total_len = usize::from(header.total_len());
        // What follows the total length is Ethernet padding.
        let packet = packet.get(..total_len).ok_or(Malformed::Header)?;
        let payload = packet.get(header_len..).ok_or(Malformed::Header)?;
        if !checksum::is_valid(header.slice()) {
            return Err(Malformed::HeaderChecksum);
        }
        let later_fragment = header.fragments_offset().value() != 0;
        let more_fragments = header.more_fragments();
        let protocol = header.protocol().0;
        let transport = if later_fragment {
            Transport::Other
        } else {
            Transport::parse(protocol, payload, more_fragments)?
        };
        Ok(Self {
            source: header.source_addr(),
            destination: header.destination_addr(),
            protocol,
            ttl: header.ttl(),
            header_len,
            total_len,
            identification: header.identification(),
            fragment_offset: usize::from(header.fragments_offset().byte_offset()),
            dont_fragment: header.dont_fragment(),
            later_fragment,
            more_fragments,
            source_routed: header_len > 20 && has_bad_options(header.options()),
            transport,
        })
    }
}

impl Transport {
    /// `cut`: a first fragment, which need not hold the whole message.
    fn parse(protocol: u8, payload: &[u8], cut: bool) -> Result<Self, Malformed> {
        match protocol {
            TCP => {
                let header = TcpHeaderSlice::from_slice(payload).map_err(|_| Malformed::Tcp)?;
                Ok(Self::Tcp(Tcp {
                    source: header.source_port(),
                    destination: header.destination_port(),
                    sequence: header.sequence_number(),
                    acknowledgement: header.acknowledgment_number(),
                    header_len: header.slice().len(),
                    syn: header.syn(),
                    ack: header.ack(),
                    fin: header.fin(),
                    rst: header.rst(),
                }))
            }
            UDP => {
                let header = UdpHeaderSlice::from_slice(payload).map_err(|_| Malformed::Udp)?;
                let length = usize::from(header.length());
                if length < 8 || (length > payload.len() && !cut) {
                    return Err(Malformed::Udp);
                }
                Ok(Self::Udp(Udp {
                    source: header.source_port(),
                    destination: header.destination_port(),
                }))
            }
            ICMP => {
                let [kind, code, _, _, id0, id1, _, _, ..] = *payload else {
                    return Err(Malformed::Icmp);
                };
                // RFC 5508 REQ-3: a message with a wrong checksum goes no further.
                if !cut && !checksum::is_valid(payload) {
                    return Err(Malformed::Icmp);
                }
                let identifier = u16::from_be_bytes([id0, id1]);
                Ok(Self::Icmp(Icmp { kind, code, identifier }))
            }
            _ => Ok(Self::Other),
        }
    }
}

/// Loose (131) and strict (137) source route, and options whose lengths do not fit.
fn has_bad_options(mut options: &[u8]) -> bool {
    while let [kind, rest @ ..] = options {
        match *kind {
            0 => return false,
            1 => options = rest,
            131 | 137 => return true,
            7 if rest.first().is_some_and(|length| *length < 3) => return true,
            _ => {
                let length = rest.first().map_or(0, |length| usize::from(*length));
                match options.get(length..) {
                    Some(next) if length >= 2 => options = next,
                    Some(_) | None => return true,
                }
            }
        }
    }
    false
}
