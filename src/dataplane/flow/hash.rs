//! The hash that flows are filed by. Keyed with a secret: whoever does not know it cannot choose tuples
//! that collide.

use super::Tuple;

/// SipHash-1-3 of a tuple's 13 bytes, which are always as many: without the buffer that a hasher of
/// anything needs, it takes half as long.
#[derive(Clone, Copy)]
pub(super) struct TupleHasher {
    /// The state after the key.
    start: [u64; 4],
}

const LENGTH: u64 = 13;

impl TupleHasher {
    pub(super) fn new(key: &[u8; 16]) -> Self {
        let key = u128::from_le_bytes(*key);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        let (low, high) = (key as u64, (key >> 64) as u64);
        Self {
            start: [
                low ^ 0x736f_6d65_7073_6575,
                high ^ 0x646f_7261_6e64_6f6d,
                low ^ 0x6c79_6765_6e65_7261,
                high ^ 0x7465_6462_7974_6573,
            ],
        }
    }

    pub(super) fn hash(&self, tuple: Tuple) -> u64 {
        let Tuple { source, destination, source_port, destination_port, protocol } = tuple;
        let addresses = u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits());
        let ports = u64::from(source_port) << 16 | u64::from(destination_port);
        let mut state = self.start;
        for word in [addresses, LENGTH << 56 | ports << 8 | u64::from(protocol)] {
            state[3] ^= word;
            round(&mut state);
            state[0] ^= word;
        }
        state[2] ^= 0xff;
        for _ in 0..3 {
            round(&mut state);
        }
        state[0] ^ state[1] ^ state[2] ^ state[3]
    }
}

const fn round(state: &mut [u64; 4]) {
    let [a, b, c, d] = *state;
    let (a, c) = (a.wrapping_add(b), c.wrapping_add(d));
    let (b, d) = (b.rotate_left(13) ^ a, d.rotate_left(16) ^ c);
    let a = a.rotate_left(32);
    let (c, a) = (c.wrapping_add(b), a.wrapping_add(d));
    let (b, d) = (b.rotate_left(17) ^ c, d.rotate_left(21) ^ a);
    *state = [a, b, c.rotate_left(32), d];
}

/// Not the key.
impl std::fmt::Debug for TupleHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TupleHasher")
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    use super::*;

    proptest! {
        #[test]
        fn is_siphash_of_the_bytes(
            key in any::<[u8; 16]>(),
            (source, destination) in any::<(u32, u32)>(),
            (source_port, destination_port) in any::<(u16, u16)>(),
            protocol in any::<u8>(),
        ) {
            let (source, destination) =
                (Ipv4Addr::from_bits(source), Ipv4Addr::from_bits(destination));
            let tuple = Tuple { source, destination, source_port, destination_port, protocol };
            // Each of the two words from its low end on.
            let mut bytes = Vec::new();
            bytes.extend(destination.to_bits().to_le_bytes());
            bytes.extend(source.to_bits().to_le_bytes());
            bytes.push(protocol);
            bytes.extend(destination_port.to_le_bytes());
            bytes.extend(source_port.to_le_bytes());
            let expected = SipHasher13::new_with_key(&key).hash(&bytes);
            prop_assert_eq!(TupleHasher::new(&key).hash(tuple), expected);
        }
    }
}
