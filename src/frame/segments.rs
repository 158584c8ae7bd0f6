//! Cutting a frame that stands for many into those many, in software: what the kernel does for a
//! device that cannot.

use super::Frame;
use super::checksum::Delta;
use super::headers::{ETHER_TYPE_IPV4, ETHERNET, IP};
use super::offload::{Kind, Offload, complete};

const CWR: u8 = 0x80;
/// What only the last segment says.
const FIN_PSH: u8 = 0x09;

/// The frames that one stands for, in order, with nothing left to be done. A frame that is not to be cut
/// is one, its checksum completed.
#[derive(Debug)]
pub struct Segments<'f> {
    frame: &'f Frame,
    offload: Offload,
    /// Payload bytes cut off so far, and into how many segments.
    done: usize,
    count: u16,
}

impl<'f> Segments<'f> {
    /// Cuts `frame`, which was accepted.
    pub fn new(frame: &'f Frame) -> Self {
        Self { frame, offload: frame.offload(), done: 0, count: 0 }
    }

    /// Writes the next segment, Ethernet header included; whether there was one.
    pub fn next_into(&mut self, out: &mut Frame) -> bool {
        if self.offload.kind == Kind::Whole {
            if self.count > 0 {
                return false;
            }
            self.count = 1;
            out.copy_of(self.frame);
            out.complete_checksum();
            return true;
        }
        let (bytes, headers) = (self.frame.bytes(), usize::from(self.offload.end));
        let payload = bytes.len() - headers;
        if self.count > 0 && self.done >= payload {
            return false;
        }
        let len = usize::from(self.offload.size).min(payload - self.done);
        out.set_len(headers + len);
        let to = out.bytes_mut();
        to[..headers].copy_from_slice(&bytes[..headers]);
        to[headers..].copy_from_slice(&bytes[headers + self.done..][..len]);
        self.finish(to, self.done + len == payload);
        self.done += len;
        self.count = self.count.wrapping_add(1);
        true
    }

    /// Makes a segment's headers its own.
    fn finish(&self, to: &mut [u8], is_last: bool) {
        let (start, sum_at) = (usize::from(self.offload.start), usize::from(self.offload.sum_at));
        let whole = self.frame.len();
        if to[12..14] == ETHER_TYPE_IPV4.to_be_bytes() {
            let old = [word(to, IP + 2), word(to, IP + 4)];
            let new = [length(to.len() - IP), old[1].wrapping_add(self.count)];
            put(to, IP + 2, new[0]);
            put(to, IP + 4, new[1]);
            Delta::word(old[0], new[0]).and(Delta::word(old[1], new[1])).patch(to, IP + 10);
        } else {
            put(to, ETHERNET + 4, length(to.len() - ETHERNET - 40));
        }
        if self.offload.kind == Kind::Tcp {
            let sequence = [word(to, start + 4), word(to, start + 6)];
            let sequence = u32::from(sequence[0]) << 16 | u32::from(sequence[1]);
            let done = u32::try_from(self.done).unwrap_or(0);
            to[start + 4..start + 8].copy_from_slice(&sequence.wrapping_add(done).to_be_bytes());
            if self.count > 0 {
                to[start + 13] &= !CWR;
            }
            if !is_last {
                to[start + 13] &= !FIN_PSH;
            }
        } else {
            put(to, start + 4, length(to.len() - start));
        }
        // The pseudo-header has the length of what it stands before.
        Delta::word(length(whole - start), length(to.len() - start)).patch_partial(to, sum_at);
        let sum = complete(&to[start..], self.offload.sum_at - self.offload.start);
        put(to, sum_at, sum);
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
