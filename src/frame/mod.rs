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
mod offload;
mod plain;
mod quote;
mod rewrite;
mod segment;
mod segments;

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
pub use offload::{BadOffload, Offload, VIRTIO_HEADER, VirtioHeader};
pub use plain::Plain;
pub use quote::{Quote, QuotedAs};
pub use rewrite::{
    Rewrite, clamp_mss, decrement_ttl, echo_reply, record_route, set_addresses, set_macs, translate,
};
pub use segment::{replace_text, shift_sequence};
pub use segments::Segments;

/// Room before the Ethernet bytes, for headers that a link or a later method puts in front. Its last
/// bytes are the frame's virtio-net header.
const HEADROOM: usize = 64;
/// Largest Ethernet frame a TAP can hand over: 64 KiB of IP, the Ethernet header and a VLAN tag.
const CAPACITY: usize = 65_536 + 14 + 4;

/// One Ethernet frame in a reused buffer, with the virtio-net header that says what is still to be
/// done to it. Allocated once; every later use only moves `len`.
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

    /// Replaces the content by `bytes`, to which nothing is left to be done; what exceeds the largest
    /// frame is cut off.
    pub fn copy_from(&mut self, bytes: &[u8]) {
        self.set_len(bytes.len());
        let len = self.len;
        self.bytes_mut().copy_from_slice(bytes.get(..len).unwrap_or_default());
    }

    /// Replaces the content by that of `other`, its virtio-net header included.
    pub fn copy_of(&mut self, other: &Self) {
        self.copy_from(other.bytes());
        self.set_header(other.header());
    }

    /// A frame of `len` bytes, at most the largest frame's, to which nothing is left to be done. What
    /// it holds is up to the caller.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(CAPACITY);
        self.set_header([0; VIRTIO_HEADER]);
    }

    /// Cuts off what is behind the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// All the room there is, to read a frame into, with its virtio-net header in front or without one;
    /// call [`Frame::take_input`] afterwards.
    pub fn input(&mut self, with_header: bool) -> &mut [u8] {
        &mut self.buffer[Self::start(with_header)..]
    }

    /// The first `length` bytes of [`Frame::input`] are the frame; `false` where they are none: not
    /// even a header, or so many that more of them may have been cut off.
    pub fn take_input(&mut self, with_header: bool, length: usize) -> bool {
        let start = Self::start(with_header);
        let end = start.saturating_add(length);
        if !with_header {
            self.set_header([0; VIRTIO_HEADER]);
        }
        let fits = end > HEADROOM && end < self.buffer.len();
        self.len = if fits { end - HEADROOM } else { 0 };
        fits
    }

    /// What is written to a device that takes virtio-net headers, or to one that does not: from the
    /// latter's frames nothing may be left to be done.
    pub fn output(&self, with_header: bool) -> &[u8] {
        &self.buffer[Self::start(with_header)..HEADROOM + self.len]
    }

    const fn start(with_header: bool) -> usize {
        if with_header { HEADROOM - VIRTIO_HEADER } else { HEADROOM }
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
