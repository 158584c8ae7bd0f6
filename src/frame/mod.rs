//! Bytes to meaning and back: the frame buffer, parsing, in-place rewrites and builders.
//!
//! Holds no state and no policy. etherparse is used here and nowhere else.

mod arp;
mod build;
pub mod checksum;
mod fragment;
mod glance;
mod headers;
mod loop_probe;
mod quote;
mod rewrite;
mod segment;

use std::fmt;

pub use arp::{Arp, Operation};
pub use build::{
    IcmpError, Segment, SegmentKind, datagram, icmp_error, payload_of_datagram, tcp_reset,
};
pub use fragment::Fragments;
pub use glance::{Carries, Glance, GlanceIpv4, Quoted};
pub use headers::{
    ETHER_TYPE_ARP, ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, ETHERNET, Ethernet, ICMP, IP, Icmp, Ipv4,
    Malformed, TCP, Tcp, Transport, UDP, Udp,
};
pub use loop_probe::{ETHER_TYPE_LOOP_PROBE, LoopProbe, lesson};
pub use quote::{Quote, QuotedAs};
pub use rewrite::{
    Rewrite, clamp_mss, decrement_ttl, echo_reply, record_route, set_addresses, set_macs, translate,
};
pub use segment::{replace_text, shift_sequence};

/// Room before the Ethernet bytes, for headers that a link or a later method puts in front.
const HEADROOM: usize = 64;
/// Largest Ethernet frame a TAP can hand over: 64 KiB of IP, the Ethernet header and a VLAN tag.
const CAPACITY: usize = 65_536 + 14 + 4;

/// One Ethernet frame in a reused buffer. Allocated once; every later use only moves `len`.
pub struct Frame {
    buffer: Box<[u8]>,
    len: usize,
}

impl Frame {
    /// An empty frame with room for the largest one.
    pub fn new() -> Self {
        Self { buffer: vec![0; HEADROOM + CAPACITY].into_boxed_slice(), len: 0 }
    }

    /// A frame without a buffer, to stand in for one that is moved out for a moment.
    pub(crate) fn hollow() -> Self {
        Self { buffer: Box::default(), len: 0 }
    }

    /// A frame that holds `bytes`; what exceeds the largest frame is cut off.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut frame = Self::new();
        frame.copy_from(bytes);
        frame
    }

    /// Replaces the content by `bytes`; what exceeds the largest frame is cut off.
    pub fn copy_from(&mut self, bytes: &[u8]) {
        self.len = bytes.len().min(CAPACITY);
        let len = self.len;
        self.bytes_mut().copy_from_slice(bytes.get(..len).unwrap_or_default());
    }

    /// All the room there is, to read a frame into; call [`Frame::set_len`] afterwards.
    pub fn room_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[HEADROOM..]
    }

    /// Sets the length in bytes, at most the largest frame's.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(CAPACITY);
    }

    /// The Ethernet bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[HEADROOM..HEADROOM + self.len]
    }

    /// The Ethernet bytes, writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut self.buffer[HEADROOM..HEADROOM + len]
    }

    /// Length of the Ethernet bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.len)
    }
}
