//! Which server a hash leads to, by the schedulers that hash: `sh`, `dh` and `mh`, each filled exactly
//! as Linux IPVS fills its table (`ip_vs_sh.c`, `ip_vs_dh.c`, `ip_vs_mh.c`).
//!
//! A server that its health check has found down counts as removed: its clients go to others. One of
//! weight 0 keeps its place, and its clients wait for it.

use std::hash::Hasher;
use std::net::Ipv4Addr;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::service::{Server, Service, gcd};
use crate::config::Scheduler;

/// Slots of `sh` and `dh`.
const FEW: usize = 1 << FEW_BITS;
const FEW_BITS: u32 = 8;
/// Slots of `mh`: a prime, so that every step over them visits all.
const MANY: usize = 4_093;
/// No more turns in a row than this many bits say, however heavy a server is.
const TURN_BITS: u32 = 6;
const NOBODY: u16 = u16::MAX;

/// A table from hash to server.
#[derive(Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Positions among the service's servers.
    slots: Box<[u16]>,
    /// What it was filled from.
    of: Vec<Entry>,
    is_maglev: bool,
}

/// What of a server decides about its slots; `None` for one that counts as removed.
type Entry = Option<(Ipv4Addr, u16, u32)>;

impl Buckets {
    /// The table of `servers`; `None` where the scheduler does not hash. Shared with `before` where
    /// nothing has changed.
    pub(super) fn compile(
        scheduler: Scheduler,
        servers: &[Server],
        before: Option<&Service>,
    ) -> Option<Arc<Self>> {
        let share: fn(&Server) -> u32 = match scheduler {
            Scheduler::SourceHash => |server| server.weight,
            Scheduler::DestinationHash => |_| 1,
            Scheduler::Maglev => |server| server.last_weight,
            _ => return None,
        };
        let entry = |server: &Server| (server.address, server.port, share(server));
        let of: Vec<Entry> = servers.iter().map(|s| s.is_up.then(|| entry(s))).collect();
        let same = before.filter(|before| before.scheduler == scheduler);
        let same = same.and_then(|before| before.buckets.as_ref());
        if let Some(same) = same.filter(|same| same.of == of) {
            return Some(Arc::clone(same));
        }
        let is_maglev = scheduler == Scheduler::Maglev;
        let slots = if is_maglev { fill_many(&of) } else { fill_few(&of) };
        Some(Arc::new(Self { slots: slots.into_boxed_slice(), of, is_maglev }))
    }

    /// The slot of `address` and `port`, `offset` slots on.
    fn slot(&self, address: Ipv4Addr, port: u16, offset: usize) -> usize {
        let key = address.to_bits().wrapping_add(u32::from(port));
        if self.is_maglev {
            // Below 4093.
            let offset = u32::try_from(offset).unwrap_or(0);
            return FIRST.hash(key.wrapping_add(offset)) as usize % MANY;
        }
        (offset + few_hash(key)) % FEW
    }

    /// The position of the server that `address` and `port` lead to.
    pub fn find(&self, address: Ipv4Addr, port: u16) -> Option<usize> {
        self.at(self.slot(address, port, 0))
    }

    /// The positions that are tried in turn for `address` and `port` when theirs does not do; they end
    /// where there is no server at all.
    pub fn others(&self, address: Ipv4Addr, port: u16) -> impl Iterator<Item = usize> {
        let first = self.slot(address, port, 0);
        let slots = self.slots.len();
        (0..slots).map_while(move |step| self.at(self.slot(address, port, (step + first) % slots)))
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    fn at(&self, slot: usize) -> Option<usize> {
        self.slots.get(slot).filter(|at| **at != NOBODY).map(|at| usize::from(*at))
    }
}

/// The top bits of a multiplicative hash (Linux `hash_32`).
const fn few_hash(key: u32) -> usize {
    (key.wrapping_mul(0x61c8_8647) >> (32 - FEW_BITS)) as usize
}

/// Every server as often in a row as its share says, at least once, over and over.
fn fill_few(of: &[Entry]) -> Vec<u16> {
    let once = || (0..).zip(of).filter_map(|(at, entry)| entry.map(|(.., share)| (at, share)));
    if once().next().is_none() {
        return vec![NOBODY; FEW];
    }
    let in_a_row = |(at, share): (u16, u32)| std::iter::repeat_n(at, share.max(1) as usize);
    std::iter::repeat_with(once).flatten().flat_map(in_a_row).take(FEW).collect()
}

/// In turn each server claims as many free slots of its own sequence as its share allows.
fn fill_many(of: &[Entry]) -> Vec<u16> {
    struct Claim {
        at: u16,
        slot: usize,
        skip: usize,
        turns: u32,
    }
    let shares = || of.iter().flatten().map(|(.., share)| *share);
    let common = shares().fold(0, gcd);
    let mut slots = vec![NOBODY; MANY];
    if common == 0 {
        return slots;
    }
    let heaviest = shares().max().unwrap_or(0) / common;
    let shift = (u32::BITS - heaviest.leading_zeros()).saturating_sub(TURN_BITS);
    let claim = |(at, entry): (u16, &Entry)| {
        let (address, port, share) = (*entry)?;
        let key = address.to_bits().wrapping_add(u32::from(port));
        let turns = ((share / common) >> shift).max(u32::from(share > 0));
        let skip = SECOND.hash(key) as usize % (MANY - 1) + 1;
        (turns > 0).then_some(Claim { at, slot: FIRST.hash(key) as usize % MANY, skip, turns })
    };
    let mut claims: Vec<_> = (0..).zip(of).filter_map(claim).collect();
    let mut left = MANY;
    loop {
        for claim in &mut claims {
            for _ in 0..claim.turns {
                while slots[claim.slot] != NOBODY {
                    claim.slot = (claim.slot + claim.skip) % MANY;
                }
                slots[claim.slot] = claim.at;
                left -= 1;
                if left == 0 {
                    return slots;
                }
            }
        }
    }
}

/// A keyed hash of 32 bits (Linux `hsiphash` on 64-bit machines: SipHash-1-3, cut).
struct Keyed(u64);

/// The kernel's two keys, the same for all: routers side by side choose alike.
const FIRST: Keyed = Keyed(2_654_435_761);
const SECOND: Keyed = Keyed(2_654_446_892);

impl Keyed {
    fn hash(&self, key: u32) -> u32 {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.0);
        hasher.write(&key.to_le_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "the kernel cuts it")]
        let hash = hasher.finish() as u32;
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked examples of hash_32.
    #[test]
    fn addresses_hash_as_in_linux() {
        for (address, port, bucket) in [
            ("192.0.2.1", 0, 50),
            ("192.0.2.2", 0, 148),
            ("198.51.100.7", 0, 171),
            ("192.0.2.1", 40_000, 214),
        ] {
            let key = address.parse::<Ipv4Addr>().unwrap().to_bits() + port;
            assert_eq!(few_hash(key), bucket, "{address} {port}");
        }
    }

    fn entries(shares: &[u32]) -> Vec<Entry> {
        let address = |n: u32| Ipv4Addr::from_bits(0x0a00_0001 + n);
        (0..).zip(shares).map(|(n, share)| Some((address(n), 80, *share))).collect()
    }

    fn counts(slots: &[u16], servers: usize) -> Vec<usize> {
        let count = |at| slots.iter().filter(|slot| usize::from(**slot) == at).count();
        (0..servers).map(count).collect()
    }

    #[test]
    fn few_slots_are_filled_in_turn() {
        let slots = fill_few(&entries(&[2, 0, 1]));
        assert_eq!(slots[..9], [0, 0, 1, 2, 0, 0, 1, 2, 0]);
        assert_eq!(fill_few(&[]), [NOBODY; FEW]);
        assert_eq!(fill_few(&[None, None]), [NOBODY; FEW]);
        let without = fill_few(&[None, entries(&[1])[0]]);
        assert_eq!(without, [1; FEW]);
        // No more of them than fit.
        assert_eq!(fill_few(&entries(&[65_535, 1])), [0; FEW]);
    }

    #[test]
    fn many_slots_are_shared_by_weight() {
        let slots = fill_many(&entries(&[1, 2, 1, 0]));
        assert_eq!(counts(&slots, 4), [1_024, 2_046, 1_023, 0]);
        assert_eq!(fill_many(&entries(&[0, 0])), [NOBODY; MANY]);
        assert_eq!(fill_many(&[]), [NOBODY; MANY]);
        // A weight far above the others' takes no more in a row than its highest bits say.
        let slots = fill_many(&entries(&[65_535, 1]));
        assert_eq!(counts(&slots, 2), [4_030, 63]);
    }

    /// Of a server that goes, the others' clients notice little.
    #[test]
    fn few_slots_change_hands_when_a_server_goes() {
        let all = entries(&[1; 10]);
        let mut fewer = all.clone();
        fewer[3] = None;
        let (before, after) = (fill_many(&all), fill_many(&fewer));
        let moved = before.iter().zip(&after).filter(|(b, a)| **b != 3 && b != a).count();
        assert!(moved < MANY / 20, "{moved}");
    }
}
