//! One VRRP advert as a whole IPv4 packet: read, judged by itself, and written.
//!
//! What can be said of an advert without knowing who reads it is said here; whether it is believed
//! is the facade's.

use std::net::Ipv4Addr;

use super::counters::Discard;
use crate::config::{AdvertChecksum, VrrpVersion};
use crate::frame::checksum;
use crate::time::Duration;

/// VRRP's IP protocol number.
pub const PROTOCOL: u8 = 112;
/// Where adverts go: ethernet 01:00:5e:00:00:12.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// An advert says of no more addresses than a byte can count.
pub const MOST_ADDRESSES: usize = 255;

const IP_HEADER: usize = 20;
/// Whoever is not on the link cannot send it (RFC 9568 section 5.1.1.3).
const TTL: u8 = 255;
/// Internetwork control (RFC 791).
const TOS: u8 = 0xc0;
const ADVERTISEMENT: u8 = 1;
/// Both versions' fields before the addresses.
const FIXED: usize = 8;
/// Behind the addresses of version 2; zero (RFC 3768 section 5.3.10).
const AUTHENTICATION: usize = 8;
/// Version 3 counts hundredths of a second in 12 bits.
const CENTISECONDS: u16 = 0x0fff;

/// An advert that is right in itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advert<'a> {
    /// Who sent it.
    pub source: Ipv4Addr,
    /// Whose virtual IPs it is about.
    pub virtual_router_id: u8,
    /// 255: owns the addresses; 0: gives up the role.
    pub priority: u8,
    /// How long until the next one.
    pub interval: Duration,
    /// What its checksum covers.
    pub form: AdvertChecksum,
    addresses: &'a [u8],
    message: &'a [u8],
    trailer: &'a [u8],
}

impl<'a> Advert<'a> {
    /// Reads `packet`, from the IPv4 header on; what follows the IP length is padding.
    ///
    /// # Errors
    /// The first reason against it, in the order of RFC 9568 section 7.1.
    pub fn parse(packet: &'a [u8], version: VrrpVersion) -> Result<Self, Discard> {
        let (source, payload) = ip_payload(packet)?;
        let (fixed, rest) = payload.split_first_chunk::<FIXED>().ok_or(Discard::Truncated)?;
        let [kind, virtual_router_id, priority, count, a, b, _, _] = *fixed;
        let expected = match version {
            VrrpVersion::V2 => 2,
            VrrpVersion::V3 => 3,
        };
        if kind >> 4 != expected {
            return Err(Discard::Version);
        }
        if kind & 0x0f != ADVERTISEMENT {
            return Err(Discard::Kind);
        }
        let listed = 4 * usize::from(count);
        let authentication = match version {
            VrrpVersion::V2 => AUTHENTICATION,
            VrrpVersion::V3 => 0,
        };
        let addresses = rest.get(..listed).ok_or(Discard::Truncated)?;
        let (message, trailer) =
            payload.split_at_checked(FIXED + listed + authentication).ok_or(Discard::Truncated)?;
        let form = form(version, source, message).ok_or(Discard::Checksum)?;
        let interval = match version {
            // Its place is that of the upper bits of the interval by version 3.
            VrrpVersion::V2 if a != 0 => return Err(Discard::Authentication),
            VrrpVersion::V2 => Duration::from_secs(b.into()),
            VrrpVersion::V3 => {
                Duration::from_millis(10 * u64::from(u16::from_be_bytes([a, b]) & CENTISECONDS))
            }
        };
        // Errata 8299 and 8301 of RFC 9568.
        if count == 0 {
            return Err(Discard::NoAddresses);
        }
        if interval == Duration::ZERO {
            return Err(Discard::NoInterval);
        }
        Ok(Self {
            source,
            virtual_router_id,
            priority,
            interval,
            form,
            addresses,
            message,
            trailer,
        })
    }

    /// The virtual IPs that it names, in its order.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses.as_chunks().0.iter().map(|bytes| Ipv4Addr::from(*bytes))
    }

    /// Whether it names the addresses of `other`, each once and in any order.
    pub fn names(&self, other: &[Ipv4Addr]) -> bool {
        let listed = other.get(..MOST_ADDRESSES).unwrap_or(other);
        self.addresses().count() == listed.len()
            && listed.iter().all(|address| self.addresses().any(|named| named == *address))
    }

    /// The VRRP message.
    pub const fn message(&self) -> &'a [u8] {
        self.message
    }

    /// What follows the message.
    pub const fn trailer(&self) -> &'a [u8] {
        self.trailer
    }
}

/// The sender and what the IPv4 header is followed by.
fn ip_payload(packet: &[u8]) -> Result<(Ipv4Addr, &[u8]), Discard> {
    let header: &[u8; IP_HEADER] = packet.first_chunk().ok_or(Discard::Malformed)?;
    let [start, _, high, low, _, _, flags, offset, ttl, protocol, _, _, addresses @ ..] = *header;
    let [a, b, c, d, to @ ..] = addresses;
    let header_len = usize::from(start & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([high, low]));
    let is_fragment = flags & 0x3f != 0 || offset != 0;
    let whole = packet.get(..total).and_then(|packet| packet.split_at_checked(header_len));
    let Some((header, payload)) = whole.filter(|_| header_len >= IP_HEADER) else {
        return Err(Discard::Malformed);
    };
    if start >> 4 != 4 || is_fragment || protocol != PROTOCOL || !checksum::is_valid(header) {
        return Err(Discard::Malformed);
    }
    if ttl != TTL {
        return Err(Discard::Ttl);
    }
    if Ipv4Addr::from(to) != GROUP {
        return Err(Discard::Destination);
    }
    Ok((Ipv4Addr::new(a, b, c, d), payload))
}

/// Which checksum it has, if any that is right. RFC 9568 section 5.2.8 has the message alone, most
/// routers a pseudo-header before it; version 2 never has.
fn form(version: VrrpVersion, source: Ipv4Addr, message: &[u8]) -> Option<AdvertChecksum> {
    let (from, to) = (source.octets(), GROUP.octets());
    if version == VrrpVersion::V3 && checksum::is_segment_valid(from, to, PROTOCOL, message) {
        return Some(AdvertChecksum::PseudoHeader);
    }
    checksum::is_valid(message).then_some(AdvertChecksum::Message)
}

/// An advert to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// Which version.
    pub version: VrrpVersion,
    /// What the checksum of version 3 covers.
    pub checksum: AdvertChecksum,
    /// The sender's own address.
    pub source: Ipv4Addr,
    /// Whose virtual IPs it is about.
    pub virtual_router_id: u8,
    /// 0: gives up the role.
    pub priority: u8,
    /// How long until the next one; in the version's steps and bounds.
    pub interval: Duration,
    /// The virtual IPs, of which the first 255 are named.
    pub addresses: &'a [Ipv4Addr],
}

impl Draft<'_> {
    /// Writes the packet, from the IPv4 header on, into `out`; with room for `trailer` bytes of zeros
    /// inside the IP length, behind the message.
    pub fn write(&self, trailer: usize, out: &mut Vec<u8>) {
        // An advert has to name one address (erratum 8299): without virtual IPs it is the router's own.
        let own = [self.source];
        let addresses = match self.addresses {
            [] => own.as_slice(),
            some => some.get(..MOST_ADDRESSES).unwrap_or(some),
        };
        let count = u8::try_from(addresses.len()).unwrap_or(u8::MAX);
        out.clear();
        out.resize(IP_HEADER, 0);
        let version = match self.version {
            VrrpVersion::V2 => 2,
            VrrpVersion::V3 => 3,
        };
        let start = version << 4 | ADVERTISEMENT;
        let [a, b] = self.interval_field();
        out.extend([start, self.virtual_router_id, self.priority, count, a, b, 0, 0]);
        out.extend(addresses.iter().flat_map(|address| address.octets()));
        if self.version == VrrpVersion::V2 {
            out.extend([0; AUTHENTICATION]);
        }
        let total = u16::try_from(out.len() + trailer).unwrap_or(u16::MAX);
        let (header, message) = out.split_at_mut(IP_HEADER);
        let has_pseudo_header =
            self.version == VrrpVersion::V3 && self.checksum == AdvertChecksum::PseudoHeader;
        let sum = if has_pseudo_header {
            checksum::of_segment(self.source.octets(), GROUP.octets(), PROTOCOL, message)
        } else {
            checksum::of(message)
        };
        message[6..8].copy_from_slice(&sum.to_be_bytes());
        // Its identification is 0: an atomic datagram needs none (RFC 6864).
        header[..2].copy_from_slice(&[0x45, TOS]);
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[6..10].copy_from_slice(&[0x40, 0, TTL, PROTOCOL]);
        header[12..16].copy_from_slice(&self.source.octets());
        header[16..20].copy_from_slice(&GROUP.octets());
        let sum = checksum::of(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        out.resize(out.len() + trailer, 0);
    }

    fn interval_field(&self) -> [u8; 2] {
        match self.version {
            VrrpVersion::V2 => [0, u8::try_from(self.interval.secs()).unwrap_or(u8::MAX).max(1)],
            VrrpVersion::V3 => u16::try_from(self.interval.total_millis() / 10)
                .unwrap_or(CENTISECONDS)
                .clamp(1, CENTISECONDS)
                .to_be_bytes(),
        }
    }
}

#[cfg(test)]
mod tests;
