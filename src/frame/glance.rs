//! What a frame says of itself, believed without a check: for showing and choosing packets, never
//! for deciding about them. Reads what is there of a frame that was cut off.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::headers::{ETHER_TYPE_ARP, ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, ETHERNET, ICMP, TCP, UDP};
use super::{Arp, Ethernet, Icmp};

/// A frame at first sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// Shorter than an Ethernet header.
    Runt,
    /// ARP for IPv4 over Ethernet.
    Arp(Arp),
    /// IPv4.
    Ipv4(GlanceIpv4),
    /// IPv6.
    Ipv6 {
        /// Source.
        source: Ipv6Addr,
        /// Destination.
        destination: Ipv6Addr,
        /// What the next header is.
        next: u8,
    },
    /// Something else, or too short for what its EtherType says.
    Other(u16),
}

/// An IPv4 packet at first sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlanceIpv4 {
    /// Source.
    pub source: Ipv4Addr,
    /// Destination.
    pub destination: Ipv4Addr,
    /// Protocol number.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Packet length with header, in bytes, as it says.
    pub total_len: u16,
    /// Where a fragment's payload starts, in bytes.
    pub fragment_offset: u16,
    /// Whether more fragments follow.
    pub more_fragments: bool,
    /// What it carries.
    pub carries: Carries,
}

/// What an IPv4 packet carries, at first sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// TCP.
    Tcp {
        /// Source and destination port.
        ports: [u16; 2],
        /// Sequence number.
        sequence: u32,
        /// Acknowledgement number.
        acknowledgement: u32,
        /// The flags, FIN in the lowest bit.
        flags: u8,
        /// The window, not scaled.
        window: u16,
        /// Bytes of payload, as the headers say.
        payload: u16,
    },
    /// UDP, by its source and destination port.
    Udp {
        /// Source and destination port.
        ports: [u16; 2],
        /// Bytes of payload, as its header says.
        payload: u16,
    },
    /// ICMP.
    Icmp {
        /// Its first bytes.
        icmp: Icmp,
        /// An echo's sequence number; bytes of something else in other messages.
        sequence: u16,
        /// The packet that an error is about.
        quoted: Option<Quoted>,
    },
    /// A later fragment, another protocol, or too short to say.
    Other,
}

/// The packet that an ICMP error quotes, at first sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Source.
    pub source: Ipv4Addr,
    /// Destination.
    pub destination: Ipv4Addr,
    /// Protocol number.
    pub protocol: u8,
    /// Source and destination port, or an echo's identifier where the asking side's port is.
    pub ports: [u16; 2],
}

impl Glance {
    /// Looks at `frame`, from its Ethernet header on.
    pub fn at(frame: &[u8]) -> Self {
        let Some(ethernet) = Ethernet::parse(frame) else { return Self::Runt };
        let packet = frame.get(ETHERNET..).unwrap_or_default();
        let seen = match ethernet.ether_type {
            ETHER_TYPE_ARP => Arp::parse(frame).map(Self::Arp),
            ETHER_TYPE_IPV4 => GlanceIpv4::at(packet).map(Self::Ipv4),
            ETHER_TYPE_IPV6 => ipv6(packet),
            _ => None,
        };
        seen.unwrap_or(Self::Other(ethernet.ether_type))
    }
}

impl GlanceIpv4 {
    fn at(packet: &[u8]) -> Option<Self> {
        let header: &[u8; 20] = packet.first_chunk()?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        if header[0] >> 4 != 4 || header_len < 20 {
            return None;
        }
        let fragment = word(header, 6)?;
        let (total_len, protocol) = (word(header, 2)?, header[9]);
        let fragment_offset = (fragment & 0x1fff) << 3;
        let payload = packet.get(header_len..).unwrap_or_default();
        let length = total_len.saturating_sub(u16::try_from(header_len).ok()?);
        let carries = (fragment_offset == 0).then(|| Carries::at(protocol, payload, length));
        Some(Self {
            source: address(header, 12)?,
            destination: address(header, 16)?,
            protocol,
            ttl: header[8],
            total_len,
            fragment_offset,
            more_fragments: fragment & 0x2000 != 0,
            carries: carries.flatten().unwrap_or(Carries::Other),
        })
    }

    /// Source and destination port of TCP and UDP.
    pub const fn ports(&self) -> Option<[u16; 2]> {
        match self.carries {
            Carries::Tcp { ports, .. } | Carries::Udp { ports, .. } => Some(ports),
            Carries::Icmp { .. } | Carries::Other => None,
        }
    }
}

impl Carries {
    /// `length`: of the whole payload, however much of it is here.
    fn at(protocol: u8, payload: &[u8], length: u16) -> Option<Self> {
        let ports = || Some([word(payload, 0)?, word(payload, 2)?]);
        match protocol {
            TCP => {
                let header_len = u16::from(payload.get(12)? >> 4) * 4;
                Some(Self::Tcp {
                    ports: ports()?,
                    sequence: double(payload, 4)?,
                    acknowledgement: double(payload, 8)?,
                    flags: *payload.get(13)?,
                    window: word(payload, 14)?,
                    payload: length.saturating_sub(header_len),
                })
            }
            UDP => {
                Some(Self::Udp { ports: ports()?, payload: word(payload, 4)?.saturating_sub(8) })
            }
            ICMP => {
                let (kind, code) = (*payload.first()?, *payload.get(1)?);
                let icmp = Icmp { kind, code, identifier: word(payload, 4)? };
                let quoted = icmp.is_error().then(|| Quoted::at(payload.get(8..)?)).flatten();
                Some(Self::Icmp { icmp, sequence: word(payload, 6)?, quoted })
            }
            _ => None,
        }
    }
}

impl Quoted {
    fn at(packet: &[u8]) -> Option<Self> {
        let GlanceIpv4 { source, destination, protocol, carries, .. } = GlanceIpv4::at(packet)?;
        let ports = match carries {
            Carries::Icmp { icmp, .. } => match icmp.kind {
                Icmp::ECHO_REQUEST => Some([icmp.identifier, 0]),
                Icmp::ECHO_REPLY => Some([0, icmp.identifier]),
                _ => None,
            },
            Carries::Tcp { ports, .. } | Carries::Udp { ports, .. } => Some(ports),
            // An error quotes as little as eight bytes, which are a port each and something.
            Carries::Other if protocol == TCP => {
                let payload = packet.get(usize::from(packet.first()? & 0x0f) * 4..)?;
                Some([word(payload, 0)?, word(payload, 2)?])
            }
            Carries::Other => None,
        };
        Some(Self { source, destination, protocol, ports: ports? })
    }
}

fn ipv6(packet: &[u8]) -> Option<Glance> {
    let address = |at: usize| {
        let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(bytes))
    };
    Some(Glance::Ipv6 { source: address(8)?, destination: address(24)?, next: *packet.get(6)? })
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

fn double(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    double(bytes, at).map(Ipv4Addr::from_bits)
}
