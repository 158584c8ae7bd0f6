//! A hasher for maps whose keys are all configured: nobody else can add one, so what it does with
//! them need not be secret, and a frame's addresses are looked up in a few cycles.

use std::hash::{BuildHasherDefault, Hasher};

/// See the module's description.
pub(super) type BuildSpread = BuildHasherDefault<Spread>;

/// Odd, its bits in no order: 2⁶⁴ divided by the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Debug, Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, word: u32) {
        self.0 = (self.0 ^ u64::from(word)).wrapping_mul(FACTOR);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(FACTOR);
        // What lies high would never reach the low bits again.
        self.0 ^= self.0 >> 32;
    }

    fn finish(&self) -> u64 {
        // The product's low bits say little; the map takes its buckets by them.
        self.0 ^ self.0 >> 32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::hash::BuildHasher as _;
    use std::net::Ipv4Addr;

    use super::*;

    /// Addresses that somebody counts up, in any place, land in buckets about as evenly as dice.
    #[test]
    fn neighbouring_addresses_are_spread() {
        const BUCKETS: u64 = 4_096;
        for shift in [0, 8, 16, 20] {
            let mut buckets = BTreeMap::new();
            for n in 0..2_048_u32 {
                let address = Ipv4Addr::from_bits(0x0a00_0001_u32.wrapping_add(n << shift));
                let hash = BuildSpread::default().hash_one(address);
                *buckets.entry(hash % BUCKETS).or_insert(0) += 1;
            }
            let fullest = buckets.values().max().copied().unwrap_or(0);
            assert!(fullest <= 8, "{fullest} addresses {shift} bits apart in one bucket");
        }
    }
}
