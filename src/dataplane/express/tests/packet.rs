//! Packets of flows, and what may be odd about them.

use std::net::Ipv4Addr;

use crate::addr::MacAddr;
use crate::frame::{IP, TCP, VirtioHeader, checksum};

/// What a packet of a flow is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) flags: u8,
    pub(super) payload: usize,
    pub(super) offload: Offload,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Offload {
    None,
    /// The kernel's remark that a checksum was right.
    Remark,
    Partial,
    /// Segments of so many bytes.
    Segments(u16),
}

/// What is odd about it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Oddity {
    Nothing,
    Ttl(u8),
    Checksum,
    Fragment(u8),
    /// The length of its header, in double words.
    Header(u8),
    TotalLen(u16),
    Padding(usize),
    Cut(usize),
    To(MacAddr),
    From(MacAddr),
    OtherLink,
    Source([u8; 4]),
    SamePorts,
}

/// A packet as `kind` says, with right lengths and checksums.
pub(super) fn packet(
    (source, source_port): (Ipv4Addr, u16),
    (destination, destination_port): (Ipv4Addr, u16),
    protocol: u8,
    kind: Kind,
) -> Vec<u8> {
    let header_len = if protocol == TCP { 20 } else { 8 };
    let mut segment = vec![0x5a; header_len + kind.payload];
    segment[..2].copy_from_slice(&source_port.to_be_bytes());
    segment[2..4].copy_from_slice(&destination_port.to_be_bytes());
    let sum_at = if protocol == TCP {
        // Whoever gets it has said 9 before.
        segment[4..12].copy_from_slice(&[0, 0, 0, 9, 0, 0, 0, 10]);
        segment[12..14].copy_from_slice(&[0x50, kind.flags]);
        16
    } else {
        let len = u16::try_from(segment.len()).unwrap();
        segment[4..6].copy_from_slice(&len.to_be_bytes());
        6
    };
    segment[sum_at..sum_at + 2].fill(0);
    let (from, to) = (source.octets(), destination.octets());
    let sum = checksum::of_segment(from, to, protocol, &segment);
    segment[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    let mut bytes = vec![0; IP];
    bytes[12] = 8;
    let total_len = u16::try_from(20 + segment.len()).unwrap().to_be_bytes();
    bytes.extend([0x45, 0, total_len[0], total_len[1], 0, 7, 0, 0, 64, protocol, 0, 0]);
    bytes.extend(from);
    bytes.extend(to);
    bytes.extend(segment);
    mend(&mut bytes);
    bytes
}

/// Puts the checksum of the IPv4 header right.
pub(super) fn mend(bytes: &mut [u8]) {
    bytes[IP + 10..IP + 12].fill(0);
    let sum = checksum::of(&bytes[IP..IP + 20]);
    bytes[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
}

pub(super) fn make_odd(bytes: &mut Vec<u8>, oddity: Oddity) {
    match oddity {
        Oddity::Ttl(ttl) => bytes[IP + 8] = ttl,
        Oddity::Checksum => {}
        Oddity::Fragment(high) => bytes[IP + 6] = high,
        Oddity::Header(len) => bytes[IP] = 0x40 | len,
        Oddity::TotalLen(len) => bytes[IP + 2..IP + 4].copy_from_slice(&len.to_be_bytes()),
        Oddity::Source(source) => bytes[IP + 12..IP + 16].copy_from_slice(&source),
        Oddity::SamePorts => bytes.copy_within(IP + 20..IP + 22, IP + 22),
        Oddity::Padding(len) => return bytes.resize(bytes.len() + len, 0xaa),
        Oddity::Cut(len) => return bytes.truncate(bytes.len().saturating_sub(len)),
        Oddity::To(mac) => bytes[..6].copy_from_slice(&mac.0),
        Oddity::From(mac) => bytes[6..12].copy_from_slice(&mac.0),
        Oddity::Nothing | Oddity::OtherLink => {}
    }
    mend(bytes);
    if matches!(oddity, Oddity::Checksum) {
        bytes[IP + 10] ^= 0x40;
    }
}

/// The virtio-net header that goes with it.
pub(super) fn header(offload: Offload, protocol: u8) -> VirtioHeader {
    let csum_offset = if protocol == TCP { 16 } else { 6 };
    let partial = VirtioHeader { flags: 1, csum_start: 34, csum_offset, ..VirtioHeader::default() };
    match offload {
        Offload::None => VirtioHeader::default(),
        Offload::Remark => VirtioHeader { flags: 2, hdr_len: 54, ..VirtioHeader::default() },
        Offload::Partial => partial,
        Offload::Segments(gso_size) => {
            let gso_type = if protocol == TCP { 1 } else { 5 };
            VirtioHeader { gso_type, gso_size, hdr_len: 99, ..partial }
        }
    }
}
