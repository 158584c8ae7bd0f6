//! Numbers that show on the wire and must not be guessed, nor give away the key of the hash tables.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// What a secret is derived for; each use has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    ClientPorts = 1,
    ExternalPorts = 2,
    Identification = 3,
    ProbeSequences = 4,
    Servers = 5,
}

/// A keyed sequence of numbers.
#[derive(Debug)]
pub(super) struct Draw {
    hasher: SipHasher13,
    drawn: u64,
}

impl Draw {
    /// The sequence for `purpose` from the router's secret.
    pub(super) fn new(seed: &[u8; 16], purpose: Use) -> Self {
        let half = |part: u8| {
            let mut hasher = SipHasher13::new_with_key(seed);
            hasher.write(&[purpose as u8, part]);
            hasher.finish()
        };
        Self { hasher: SipHasher13::new_with_keys(half(0), half(1)), drawn: 0 }
    }

    /// The next number below `limit`.
    pub(super) fn below(&mut self, limit: u16) -> u16 {
        let number = self.next() % u64::from(limit.max(1));
        u16::try_from(number).unwrap_or(0)
    }

    /// The next two numbers from 0 to `most`, by one turn of the sequence.
    pub(super) fn two_up_to(&mut self, most: u64) -> [u64; 2] {
        let number = self.next();
        [number >> 32, number & u64::from(u32::MAX)].map(|half| {
            let product = u128::from(half) * (u128::from(most) + 1);
            u64::try_from(product >> 32).unwrap_or(0)
        })
    }

    /// The next 32 bits.
    pub(super) fn word(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).unwrap_or(0)
    }

    fn next(&mut self) -> u64 {
        self.drawn += 1;
        let mut hasher = self.hasher;
        hasher.write_u64(self.drawn);
        hasher.finish()
    }
}
