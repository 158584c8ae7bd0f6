//! Cutting an IPv4 packet into fragments (RFC 791 section 3.2).

use super::Frame;
use super::checksum;
use super::headers::{ETHERNET, IP, Ipv4};

const HEADER: usize = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
/// Options with this bit go into every fragment.
const COPIED: u8 = 0x80;

/// An IPv4 packet being cut into fragments that fit an MTU, in order. The packet may be a fragment
/// itself. Its headers were checked, and don't-fragment is not set.
#[derive(Debug)]
pub struct Fragments<'f> {
    packet: &'f Frame,
    headers: Ipv4,
    mtu: usize,
    /// Options for the fragments after the first, padded to words.
    copied: [u8; 40],
    copied_len: usize,
    /// Payload bytes cut off so far.
    done: usize,
}

impl<'f> Fragments<'f> {
    /// Cuts `packet` to `mtu` bytes, IP header included; at least 68 (RFC 791).
    pub fn new(packet: &'f Frame, headers: &Ipv4, mtu: u16) -> Self {
        let (copied, copied_len) =
            copied_options(&packet.bytes()[IP + HEADER..headers.transport_at()]);
        let mtu = usize::from(mtu).max(68);
        Self { packet, headers: *headers, mtu, copied, copied_len, done: 0 }
    }

    /// How many fragments are still to come.
    pub fn left(&self) -> usize {
        let payload = self.headers.total_len - self.headers.header_len;
        let (mut done, mut count) = (self.done, 0);
        while done < payload {
            done += self.room(done).min(payload - done);
            count += 1;
        }
        count
    }

    /// Writes the next fragment, Ethernet header included; whether there was one.
    pub fn next_into(&mut self, out: &mut Frame) -> bool {
        let payload = self.headers.total_len - self.headers.header_len;
        if self.done >= payload {
            return false;
        }
        let header_len = self.header_len(self.done);
        let len = self.room(self.done).min(payload - self.done);
        let bytes = self.packet.bytes();
        out.set_len(ETHERNET + header_len + len);
        let to = out.bytes_mut();
        to[..IP + HEADER].copy_from_slice(&bytes[..IP + HEADER]);
        let options: &[u8] = if self.done == 0 {
            &bytes[IP + HEADER..self.headers.transport_at()]
        } else {
            &self.copied[..self.copied_len]
        };
        to[IP + HEADER..IP + header_len].copy_from_slice(options);
        let from = self.headers.transport_at() + self.done;
        to[IP + header_len..].copy_from_slice(&bytes[from..from + len]);

        let old = u16::from_be_bytes([bytes[IP + 6], bytes[IP + 7]]);
        let last = self.done + len == payload;
        let more = if last { old & MORE_FRAGMENTS } else { MORE_FRAGMENTS };
        let units = u16::try_from(self.done / 8).unwrap_or(u16::MAX);
        let offset = (old & 0x1fff).saturating_add(units) & 0x1fff;
        let total = u16::try_from(header_len + len).unwrap_or(u16::MAX);
        let words = u8::try_from(header_len / 4).unwrap_or(15);
        to[IP] = 0x40 | words;
        to[IP + 2..IP + 4].copy_from_slice(&total.to_be_bytes());
        to[IP + 6..IP + 8].copy_from_slice(&(more | offset).to_be_bytes());
        to[IP + 10..IP + 12].fill(0);
        let sum = checksum::of(&to[IP..IP + header_len]);
        to[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
        self.done += len;
        true
    }

    const fn header_len(&self, done: usize) -> usize {
        if done == 0 { self.headers.header_len } else { HEADER + self.copied_len }
    }

    /// Payload of the fragment that starts after `done` bytes, were the packet endless.
    const fn room(&self, done: usize) -> usize {
        (self.mtu - self.header_len(done)) / 8 * 8
    }
}

fn copied_options(mut options: &[u8]) -> ([u8; 40], usize) {
    let (mut copied, mut len) = ([0; 40], 0);
    while let [kind, rest @ ..] = options {
        // The lengths were checked with the headers.
        let length = match *kind {
            0 => break,
            1 => 1,
            _ => usize::from(rest.first().copied().unwrap_or(0)).clamp(2, options.len()),
        };
        if kind & COPIED != 0 {
            copied[len..len + length].copy_from_slice(&options[..length]);
            len += length;
        }
        options = &options[length..];
    }
    (copied, len.next_multiple_of(4))
}
