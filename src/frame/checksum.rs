//! Internet checksums: patched by difference on the frame path (RFC 1624), summed only for packets
//! that the router builds itself.

/// What a checksum must be changed by, as a folded ones' complement sum of `~old + new` words.
///
/// Sums are over big-endian words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Delta(u16);

impl Delta {
    /// No change.
    pub const NONE: Self = Self(0);

    /// The change that `sum` stands for: a folded sum of `~old + new`.
    pub(super) const fn of_sum(sum: u16) -> Self {
        Self(sum)
    }

    /// The change of one 16-bit word.
    pub fn word(old: u16, new: u16) -> Self {
        // RFC erratum 4782: an update by nothing must not turn a checksum of 0 into 0xffff.
        if old == new { Self::NONE } else { Self(fold(u32::from(!old) + u32::from(new))) }
    }

    /// The change of two words that lie together, such as an IPv4 address.
    pub fn double(old: u32, new: u32) -> Self {
        let [a, b, c, d] = old.to_be_bytes();
        let [e, f, g, h] = new.to_be_bytes();
        Self::word(u16::from_be_bytes([a, b]), u16::from_be_bytes([e, f]))
            .and(Self::word(u16::from_be_bytes([c, d]), u16::from_be_bytes([g, h])))
    }

    /// Both changes.
    pub fn and(self, other: Self) -> Self {
        Self(fold(u32::from(self.0) + u32::from(other.0)))
    }

    /// `checksum` after the change (RFC 1624 eqn. 3). A wrong checksum stays wrong.
    pub fn apply(self, checksum: u16) -> u16 {
        if self.0 == 0 { checksum } else { !fold(u32::from(!checksum) + u32::from(self.0)) }
    }

    /// Applies the change to the big-endian checksum at `at`.
    ///
    /// # Panics
    /// When `bytes` ends before `at + 2`.
    pub fn patch(self, bytes: &mut [u8], at: usize) {
        let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        bytes[at..at + 2].copy_from_slice(&self.apply(old).to_be_bytes());
    }

    /// Applies the change to the big-endian sum at `at`: one that is not complemented, because the rest
    /// of what it covers is added later. The change must be of what has been summed already.
    ///
    /// # Panics
    /// When `bytes` ends before `at + 2`.
    pub fn patch_partial(self, bytes: &mut [u8], at: usize) {
        let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let new = fold(u32::from(old) + u32::from(self.0));
        bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
    }

    /// As [`Delta::patch`] for UDP over IPv4: 0 means "no checksum" and stays, a computed 0 is
    /// written as 0xffff (RFC 768).
    pub fn patch_udp(self, bytes: &mut [u8], at: usize) {
        let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        if old == 0 {
            return;
        }
        let new = match self.apply(old) {
            0 => 0xffff,
            new => new,
        };
        bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
    }
}

/// Whether the words of `bytes`, its checksum included, sum to all ones.
pub fn is_valid(bytes: &[u8]) -> bool {
    sum(0, bytes) == 0xffff
}

/// The checksum of `bytes` whose checksum field is zero.
pub fn of(bytes: &[u8]) -> u16 {
    !sum(0, bytes)
}

/// The checksum of a TCP, UDP or other segment with an IPv4 pseudo-header; its field is zero.
pub fn of_segment(source: [u8; 4], destination: [u8; 4], protocol: u8, segment: &[u8]) -> u16 {
    !segment_sum(source, destination, protocol, segment)
}

/// Whether a segment's checksum is right.
pub fn is_segment_valid(source: [u8; 4], dest: [u8; 4], protocol: u8, segment: &[u8]) -> bool {
    segment_sum(source, dest, protocol, segment) == 0xffff
}

fn segment_sum(source: [u8; 4], destination: [u8; 4], protocol: u8, segment: &[u8]) -> u16 {
    let length = u16::try_from(segment.len()).unwrap_or(u16::MAX).to_be_bytes();
    let pseudo = [0, protocol, length[0], length[1]];
    let start = [source, destination, pseudo].iter().fold(0, |start, part| sum(start, part));
    sum(start, segment)
}

/// The folded sum of the big-endian words of `bytes`, and of `start`.
pub(super) fn sum(start: u16, bytes: &[u8]) -> u16 {
    // Words as the machine reads them, four bytes at a time: carries do not care (RFC 1071 section 2).
    let mut total = u64::from(start.to_be());
    let (doubles, rest) = bytes.as_chunks::<4>();
    for double in doubles {
        total += u64::from(u32::from_ne_bytes(*double));
    }
    let (words, rest) = rest.as_chunks::<2>();
    for word in words {
        total += u64::from(u16::from_ne_bytes(*word));
    }
    if let [last] = rest {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits above")]
    let folded = total as u16;
    u16::from_be(folded)
}

const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    #[expect(clippy::cast_possible_truncation, reason = "two words: one carry at most")]
    let folded = ((sum & 0xffff) + (sum >> 16)) as u16;
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksum of two words, the second of which is the one that changes.
    fn plain(constant: u16, word: u16) -> u16 {
        of(&[constant.to_be_bytes(), word.to_be_bytes()].concat())
    }

    #[test]
    fn every_word_change_equals_a_recomputation() {
        // RFC 1624's corner values among all of them; the constant keeps the sum from being zero.
        for constant in [1, 0x7fff, 0xfffe, 0xffff] {
            for old in [0, 1, 0x00ff, 0x5555, 0x7fff, 0x8000, 0xfffe, 0xffff] {
                let before = plain(constant, old);
                for new in 0..=u16::MAX {
                    let after = Delta::word(old, new).apply(before);
                    assert_eq!(after, plain(constant, new), "{constant:#x} {old:#x} {new:#x}");
                }
            }
        }
    }

    #[test]
    fn an_update_by_nothing_changes_nothing() {
        for checksum in 0..=u16::MAX {
            assert_eq!(Delta::word(0x1234, 0x1234).apply(checksum), checksum);
        }
    }

    #[test]
    fn a_wrong_checksum_stays_wrong() {
        let delta = Delta::double(0x0a00_0001, 0xcb00_710a);
        let right = of(&[0x0a, 0, 0, 1, 0, 80]);
        let moved = of(&[0xcb, 0, 0x71, 0x0a, 0, 80]);
        for wrong in (0..=u16::MAX).filter(|c| *c != right && *c != 0xffff) {
            assert_ne!(delta.apply(wrong), moved);
        }
    }

    #[test]
    fn udp_zero_means_none_and_is_never_computed() {
        let delta = Delta::word(1, 2);
        let mut none = [0, 0];
        delta.patch_udp(&mut none, 0);
        assert_eq!(none, [0, 0]);
        // The one checksum that the change would turn into 0.
        let before = (1..=u16::MAX).find(|c| delta.apply(*c) == 0).unwrap();
        let mut some = before.to_be_bytes();
        delta.patch_udp(&mut some, 0);
        assert_eq!(some, [0xff, 0xff]);
    }
}
