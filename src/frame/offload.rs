//! What a frame leaves to be done: a checksum to be completed, segments to be cut. Told by the
//! virtio-net header before it (virtio 1.2 section 5.1.6), which links pass on from one to the other.

use super::checksum;
use super::headers::{ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, ETHERNET, IP, TCP, UDP};
use super::plain::{Plain, TRANSPORT_AT};
use super::{Frame, HEADROOM};

/// Length of a virtio-net header, in bytes.
pub const VIRTIO_HEADER: usize = 10;

const NEEDS_CSUM: u8 = 1;
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const UDP_L4: u8 = 5;
const ECN: u8 = 0x80;
/// Where the checksum is in a TCP and in a UDP header.
const TCP_SUM: u16 = 16;
const UDP_SUM: u16 = 6;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// The kernel's mark for segments of different sizes, which no device may send.
const BY_FRAGMENTS: u16 = 0xffff;

/// A virtio-net header: its fields, little-endian on the wire. All of them 0: nothing is left to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioHeader {
    /// 1: the checksum is to be completed; 2: the checksum was found right.
    pub flags: u8,
    /// What is cut: 0 nothing, 1 TCP over IPv4, 4 TCP over IPv6, 5 UDP; with 0x80: the first segment
    /// has CWR.
    pub gso_type: u8,
    /// Length of all headers, the Ethernet header included, in bytes; from a device merely a hint.
    pub hdr_len: u16,
    /// Payload of each segment, in bytes.
    pub gso_size: u16,
    /// Where the sum begins.
    pub csum_start: u16,
    /// Where it is written, from there.
    pub csum_offset: u16,
}

impl VirtioHeader {
    /// As it is read and written.
    pub const fn to_bytes(self) -> [u8; VIRTIO_HEADER] {
        let [a, b] = self.hdr_len.to_le_bytes();
        let [c, d] = self.gso_size.to_le_bytes();
        let [e, f] = self.csum_start.to_le_bytes();
        let [g, h] = self.csum_offset.to_le_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h]
    }

    /// What [`VirtioHeader::to_bytes`] has made.
    pub const fn from_bytes(bytes: [u8; VIRTIO_HEADER]) -> Self {
        let [flags, gso_type, a, b, c, d, e, f, g, h] = bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([a, b]),
            gso_size: u16::from_le_bytes([c, d]),
            csum_start: u16::from_le_bytes([e, f]),
            csum_offset: u16::from_le_bytes([g, h]),
        }
    }
}

/// What is wrong with a virtio-net header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadOffload {
    /// Segments of a kind that nobody asked for.
    Unknown,
    /// Its fields do not fit each other or the frame.
    Malformed,
}

/// What is cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Whole,
    /// A TCP segment.
    Tcp,
    /// A UDP datagram.
    Udp,
}

/// What a frame leaves to be done, checked: see [`Frame::accept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    pub(super) kind: Kind,
    is_partial: bool,
    /// The partial checksum is that of a TCP or UDP packet over IPv4 which is no fragment.
    is_transport: bool,
    /// Payload of each segment.
    pub(super) size: u16,
    /// Where the transport header starts, where it ends, and where its checksum is.
    pub(super) start: u16,
    pub(super) end: u16,
    pub(super) sum_at: u16,
}

impl Offload {
    /// Nothing is left to be done.
    pub const NONE: Self = Self {
        kind: Kind::Whole,
        is_partial: false,
        is_transport: false,
        size: 0,
        start: 0,
        end: 0,
        sum_at: 0,
    };

    /// Whether the checksum covers the pseudo-header only, so far.
    pub const fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Whether what is left to be done is that of a whole TCP or UDP packet over IPv4, or nothing.
    pub const fn is_transport(&self) -> bool {
        self.is_transport || !self.is_partial
    }

    /// Whether it is to be cut into segments, be it only one.
    pub const fn is_segmented(&self) -> bool {
        !matches!(self.kind, Kind::Whole)
    }

    /// How many frames a frame of `len` bytes is on the wire.
    pub fn segments(&self, len: usize) -> u32 {
        if self.kind == Kind::Whole {
            return 1;
        }
        let payload = len.saturating_sub(usize::from(self.end));
        let count = payload.div_ceil(usize::from(self.size).max(1)).max(1);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Length of the longest frame that a frame of `len` bytes is on the wire, in bytes.
    pub fn longest(&self, len: usize) -> usize {
        if self.kind == Kind::Whole {
            return len;
        }
        len.min(usize::from(self.end) + usize::from(self.size))
    }

    /// Bytes that the headers of all segments but the first one add.
    pub fn repeated(&self, len: usize) -> usize {
        if self.kind == Kind::Whole {
            return 0;
        }
        (self.segments(len) as usize - 1) * usize::from(self.end).saturating_sub(ETHERNET)
    }

    /// What `header` says of the frame `bytes`.
    pub fn of(header: VirtioHeader, bytes: &[u8]) -> Result<Self, BadOffload> {
        let VirtioHeader { flags, gso_type, gso_size, csum_start, csum_offset, .. } = header;
        let is_partial = flags & NEEDS_CSUM != 0;
        let (kind, is_v4) = match gso_type & !ECN {
            0 => (Kind::Whole, None),
            TCP_V4 => (Kind::Tcp, Some(true)),
            TCP_V6 => (Kind::Tcp, Some(false)),
            UDP_L4 => (Kind::Udp, None),
            _ => return Err(BadOffload::Unknown),
        };
        if kind != Kind::Tcp && gso_type & ECN != 0 {
            return Err(BadOffload::Malformed);
        }
        if !is_partial {
            // Virtio 1.2 section 5.1.6.4.1: whatever is cut has a checksum to be completed.
            return if kind == Kind::Whole { Ok(Self::NONE) } else { Err(BadOffload::Malformed) };
        }
        let fit = || {
            let (start, offset) = (usize::from(csum_start), usize::from(csum_offset));
            bytes.get(start + offset..start + offset + 2)?;
            let carries = Carried::of(bytes)?;
            if let Some(transport) = carries.transport
                && (transport.at, transport.sum) != (start, csum_offset)
            {
                return None;
            }
            let end = match (kind, csum_offset) {
                (Kind::Tcp, TCP_SUM) | (Kind::Whole, TCP_SUM) => tcp_end(bytes, start),
                (Kind::Udp, UDP_SUM) | (Kind::Whole, UDP_SUM) => Some(start + UDP_HEADER),
                (Kind::Whole, _) => None,
                (Kind::Tcp | Kind::Udp, _) => return None,
            };
            let end = end.filter(|end| *end <= bytes.len()).and_then(|end| u16::try_from(end).ok());
            if kind != Kind::Whole {
                let is_whole = carries.is_v4 != Some(true)
                    || carries.transport.is_some_and(|transport| transport.kind == kind);
                let of_version =
                    carries.is_v4.is_some() && is_v4.is_none_or(|v4| carries.is_v4 == Some(v4));
                let sized = gso_size != 0 && gso_size != BY_FRAGMENTS;
                if !is_whole || !of_version || !sized || start < carries.payload_at {
                    return None;
                }
                end?;
            }
            Some(Self {
                kind,
                is_partial,
                is_transport: carries.transport.is_some(),
                size: gso_size,
                start: csum_start,
                end: end.unwrap_or(0),
                sum_at: csum_start.checked_add(csum_offset)?,
            })
        };
        fit().ok_or(BadOffload::Malformed)
    }
}

/// What a frame carries, as far as it matters here.
struct Carried {
    /// `None`: no IP.
    is_v4: Option<bool>,
    /// Earliest place of a transport header.
    payload_at: usize,
    /// The TCP or UDP packet over IPv4, unless it is a fragment.
    transport: Option<Carries>,
}

#[derive(Clone, Copy)]
struct Carries {
    kind: Kind,
    at: usize,
    sum: u16,
}

impl Carried {
    /// `None`: not even a header.
    fn of(bytes: &[u8]) -> Option<Self> {
        let ether_type = u16::from_be_bytes(*bytes.get(12..14)?.first_chunk()?);
        match ether_type {
            ETHER_TYPE_IPV4 => {
                let header = bytes.get(IP..IP + 20)?;
                let at = IP + usize::from(header[0] & 0x0f) * 4;
                let is_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
                let transport = match header[9] {
                    TCP => Some(Carries { kind: Kind::Tcp, at, sum: TCP_SUM }),
                    UDP => Some(Carries { kind: Kind::Udp, at, sum: UDP_SUM }),
                    _ => None,
                };
                let transport = transport.filter(|_| !is_fragment);
                Some(Self { is_v4: Some(true), payload_at: IP + 20, transport })
            }
            ETHER_TYPE_IPV6 => {
                Some(Self { is_v4: Some(false), payload_at: IP + 40, transport: None })
            }
            _ => Some(Self { is_v4: None, payload_at: ETHERNET, transport: None }),
        }
    }
}

fn tcp_end(bytes: &[u8], start: usize) -> Option<usize> {
    let header_len = usize::from(bytes.get(start + 12)? >> 4) * 4;
    (header_len >= TCP_HEADER).then_some(start + header_len)
}

impl Frame {
    /// The virtio-net header.
    pub fn header(&self) -> [u8; VIRTIO_HEADER] {
        *self.buffer[..HEADROOM].last_chunk().unwrap_or(&[0; VIRTIO_HEADER])
    }

    /// Writes the virtio-net header.
    pub fn set_header(&mut self, header: [u8; VIRTIO_HEADER]) {
        self.buffer[HEADROOM - VIRTIO_HEADER..HEADROOM].copy_from_slice(&header);
    }

    /// Whether nothing is left to be done.
    pub fn is_plain(&self) -> bool {
        let [flags, gso_type, ..] = self.header();
        flags & NEEDS_CSUM == 0 && gso_type == 0
    }

    /// Whether the transport checksum covers the pseudo-header only, so far.
    pub fn is_partial(&self) -> bool {
        self.header()[0] & NEEDS_CSUM != 0
    }

    /// Checks what is left to be done to a frame that came in, and puts its header right: the length of
    /// the headers is true from here on.
    pub fn accept(&mut self) -> Result<Offload, BadOffload> {
        let header = self.header();
        if header == [0; VIRTIO_HEADER] {
            return Ok(Offload::NONE);
        }
        if self.is_plain() {
            // Hints about nothing; and nobody looks at whether the checksum was found right.
            self.set_header([0; VIRTIO_HEADER]);
            return Ok(Offload::NONE);
        }
        let header = VirtioHeader::from_bytes(header);
        let offload = Offload::of(header, self.bytes())?;
        let header = VirtioHeader { flags: NEEDS_CSUM, hdr_len: offload.end, ..header };
        self.set_header(header.to_bytes());
        Ok(offload)
    }

    /// As [`Frame::accept`], of a frame that was parsed already.
    #[inline]
    pub fn accept_plain(&mut self, packet: &Plain) -> Result<Offload, BadOffload> {
        let header = VirtioHeader::from_bytes(self.header());
        let sum = if packet.protocol == UDP { UDP_SUM } else { TCP_SUM };
        let is_its_sum = (header.csum_start, header.csum_offset) == (TRANSPORT_AT, sum);
        if !is_its_sum || header.flags & NEEDS_CSUM == 0 || header.gso_type != 0 {
            return self.accept();
        }
        let header = VirtioHeader { flags: NEEDS_CSUM, hdr_len: packet.headers_end, ..header };
        self.set_header(header.to_bytes());
        Ok(Offload {
            kind: Kind::Whole,
            is_partial: true,
            is_transport: true,
            size: header.gso_size,
            start: TRANSPORT_AT,
            end: packet.headers_end,
            sum_at: TRANSPORT_AT + sum,
        })
    }

    /// What is left to be done to a frame that was accepted.
    pub fn offload(&self) -> Offload {
        let header = VirtioHeader::from_bytes(self.header());
        Offload::of(header, self.bytes()).unwrap_or(Offload::NONE)
    }

    /// Completes the checksum as if the frame were to be sent as it is. Nothing is left to be done then.
    pub fn complete_checksum(&mut self) {
        if let Some((at, sum)) = self.completed_checksum() {
            self.bytes_mut()[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        self.set_header([0; VIRTIO_HEADER]);
    }

    /// Where a checksum that is to be completed goes, and what it will be.
    pub fn completed_checksum(&self) -> Option<(usize, u16)> {
        let header = VirtioHeader::from_bytes(self.header());
        if header.flags & NEEDS_CSUM == 0 {
            return None;
        }
        let start = usize::from(header.csum_start);
        let at = start + usize::from(header.csum_offset);
        let covered = self.bytes().get(start..).filter(|_| at + 2 <= self.len())?;
        Some((at, complete(covered, header.csum_offset)))
    }
}

/// The checksum of `covered`, the field of which holds the sum of the pseudo-header.
pub(super) fn complete(covered: &[u8], offset: u16) -> u16 {
    match checksum::of(covered) {
        // RFC 768: 0 is no checksum.
        0 if offset == UDP_SUM => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests;
