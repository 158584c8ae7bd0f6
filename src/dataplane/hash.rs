//! The hash of what is looked up for every frame. Keyed with a secret: whoever does not know it cannot
//! choose tuples or stations that collide.

/// SipHash-1-3 of a few words: without the buffer that a hasher of anything needs, it takes half as long.
#[derive(Clone, Copy)]
pub(super) struct KeyedHash {
    /// The state after the key.
    start: [u64; 4],
}

impl KeyedHash {
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

    /// Of one word.
    pub(super) fn of_one(&self, word: u64) -> u64 {
        self.of([word], 0, 0)
    }

    /// Of a word, and five bytes more.
    pub(super) fn of_thirteen_bytes(&self, word: u64, rest: u64) -> u64 {
        self.of([word], rest, 5)
    }

    /// Of `words` and the `more` lowest bytes of `rest`, less than eight; the others are 0.
    fn of<const N: usize>(&self, words: [u64; N], rest: u64, more: u64) -> u64 {
        let length = N as u64 * 8 + more;
        let mut state = self.start;
        for word in words.into_iter().chain([length << 56 | rest]) {
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
impl std::fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyedHash")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    use super::*;

    proptest! {
        #[test]
        fn is_siphash_of_the_bytes(key in any::<[u8; 16]>(), bytes in any::<[u8; 13]>()) {
            let word = u64::from_le_bytes(*bytes.first_chunk().unwrap());
            let mut rest = [0; 8];
            rest[..5].copy_from_slice(&bytes[8..]);
            let (hash, siphash) = (KeyedHash::new(&key), SipHasher13::new_with_key(&key));
            prop_assert_eq!(hash.of_one(word), siphash.hash(&bytes[..8]));
            let rest = u64::from_le_bytes(rest);
            prop_assert_eq!(hash.of_thirteen_bytes(word, rest), siphash.hash(&bytes));
        }
    }
}
