//! A lazy timing wheel over small integer ids: constant work per entry, nothing allocated after start.
//!
//! It wakes an entry at or after its deadline, rounded up to a tick. Deadlines beyond the last slot
//! park there: the owner keeps the true deadline and schedules the entry again when it wakes early.

use std::ops::Range;

use super::memory::addresses;
use crate::time::{Duration, Instant};

const SLOTS: usize = 4096;
const WORDS: usize = SLOTS / 64;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    previous: u32,
    next: u32,
    /// Where it is filed; `NONE` while it is not. It tells the tick, which is one of the next `SLOTS`.
    slot: u32,
}

const IDLE: Node = Node { previous: NONE, next: NONE, slot: NONE };

/// Deadlines of the ids `0..capacity`, each at most once.
#[derive(Debug)]
pub(super) struct Wheel {
    tick: Duration,
    heads: Box<[u32; SLOTS]>,
    occupied: [u64; WORDS],
    nodes: Vec<Node>,
    /// Every tick before this one has been handled.
    current: u64,
}

impl Wheel {
    pub(super) fn new(tick: Duration, now: Instant) -> Self {
        Self {
            tick,
            heads: Box::new([NONE; SLOTS]),
            occupied: [0; WORDS],
            nodes: Vec::new(),
            current: ticks(now, tick),
        }
    }

    /// Reserves room for ids below `capacity`, so that later calls allocate nothing.
    pub(super) fn reserve(&mut self, capacity: usize) {
        self.nodes.reserve_exact(capacity.saturating_sub(self.nodes.len()));
    }

    /// Where its entries lie in memory.
    pub(super) fn memory(&self) -> Range<usize> {
        addresses(&self.nodes)
    }

    /// Wakes `id` at `deadline`, instead of when it was scheduled for before.
    pub(super) fn schedule(&mut self, id: u32, deadline: Instant) {
        self.cancel(id);
        while self.nodes.len() <= id as usize {
            self.nodes.push(IDLE);
        }
        let wanted = ticks(deadline, self.tick).saturating_add(1);
        let tick = wanted.clamp(self.current, self.current + SLOTS as u64 - 1);
        let slot = slot(tick);
        let next = self.heads[slot as usize];
        self.nodes[id as usize] = Node { previous: NONE, next, slot };
        if let Some(next) = self.nodes.get_mut(next as usize) {
            next.previous = id;
        }
        self.heads[slot as usize] = id;
        self.occupied[slot as usize / 64] |= 1 << (slot % 64);
    }

    /// Schedules `id` unless it wakes before `deadline` anyway.
    pub(super) fn hasten(&mut self, id: u32, deadline: Instant) {
        let wanted = ticks(deadline, self.tick).saturating_add(1);
        let filed = self.nodes.get(id as usize).map(|node| node.slot);
        let is_sooner = |slot| wanted < self.tick_of(slot);
        if filed.is_none_or(|slot| slot == NONE || is_sooner(slot)) {
            self.schedule(id, deadline);
        }
    }

    /// Forgets `id`.
    pub(super) fn cancel(&mut self, id: u32) {
        let Some(node) = self.nodes.get_mut(id as usize) else { return };
        let Node { previous, next, slot } = std::mem::replace(node, IDLE);
        if slot == NONE {
            return;
        }
        if let Some(next) = self.nodes.get_mut(next as usize) {
            next.previous = previous;
        }
        if let Some(previous) = self.nodes.get_mut(previous as usize) {
            previous.next = next;
        } else {
            self.heads[slot as usize] = next;
            if next == NONE {
                self.occupied[slot as usize / 64] &= !(1 << (slot % 64));
            }
        }
    }

    /// The next id that is due, taken off the wheel.
    pub(super) fn pop(&mut self, now: Instant) -> Option<u32> {
        let end = ticks(now, self.tick);
        let tick = self.next_occupied()?;
        if tick > end {
            // Nothing lies between; later entries may use the slots passed.
            self.current = self.current.max(end);
            return None;
        }
        self.current = tick;
        let id = self.heads[slot(tick) as usize];
        self.cancel(id);
        Some(id)
    }

    /// When [`Wheel::pop`] will next return something; `None` while the wheel is empty.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let tick = i64::try_from(self.next_occupied()?).unwrap_or(i64::MAX);
        let width = i64::try_from(self.tick.total_micros()).unwrap_or(i64::MAX);
        Some(Instant::from_micros(tick.saturating_mul(width)))
    }

    /// The tick of the entries that are filed in `slot`.
    fn tick_of(&self, slot: u32) -> u64 {
        let ahead = u64::from(slot) + SLOTS as u64 - self.current % SLOTS as u64;
        self.current + ahead % SLOTS as u64
    }

    fn next_occupied(&self) -> Option<u64> {
        let start = slot(self.current) as usize;
        // One look at the first word's upper part, then whole words, then its lower part.
        for step in 0..=WORDS {
            let word = (start / 64 + step) % WORDS;
            let mask = match step {
                0 => u64::MAX << (start % 64),
                WORDS => !(u64::MAX << (start % 64)),
                _ => u64::MAX,
            };
            let bits = self.occupied[word] & mask;
            if bits != 0 {
                let found = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (found + SLOTS - start) % SLOTS;
                return Some(self.current + ahead as u64);
            }
        }
        None
    }
}

fn slot(tick: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "below 4,096")]
    let slot = (tick % SLOTS as u64) as u32;
    slot
}

/// Whole ticks in `at`; times before zero count as zero.
fn ticks(at: Instant, tick: Duration) -> u64 {
    u64::try_from(at.total_micros()).unwrap_or(0) / tick.total_micros().max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    fn at(millis: i64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn wakes_after_the_deadline_and_within_a_tick() {
        let mut wheel = Wheel::new(TICK, at(0));
        wheel.schedule(7, at(250));
        assert_eq!(wheel.next_deadline(), Some(at(300)));
        assert_eq!(wheel.pop(at(299)), None);
        assert_eq!(wheel.pop(at(300)), Some(7));
        assert_eq!(wheel.pop(at(10_000)), None);
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn far_deadlines_park_in_the_last_slot() {
        let mut wheel = Wheel::new(TICK, at(0));
        wheel.schedule(0, at(100 * 100_000));
        assert_eq!(wheel.next_deadline(), Some(at(100 * 4095)));
    }

    #[test]
    fn hasten_only_moves_forward() {
        let mut wheel = Wheel::new(TICK, at(0));
        wheel.schedule(0, at(1_000));
        wheel.hasten(0, at(5_000));
        assert_eq!(wheel.next_deadline(), Some(at(1_100)));
        wheel.hasten(0, at(200));
        assert_eq!(wheel.next_deadline(), Some(at(300)));
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_map(
            steps in prop::collection::vec((0u32..40, 0i64..300_000, 0i64..3_000, 0u8..8), 1..300),
        ) {
            let mut wheel = Wheel::new(TICK, at(0));
            let mut model = BTreeMap::new();
            let mut now = 0;
            for (id, ahead, passes, what) in steps {
                match what {
                    0 => {
                        wheel.cancel(id);
                        model.remove(&id);
                    }
                    _ => {
                        wheel.schedule(id, at(now + ahead));
                        model.insert(id, now + ahead);
                    }
                }
                now += passes;
                while let Some(id) = wheel.pop(at(now)) {
                    let due = model.remove(&id);
                    prop_assert!(due.is_some_and(|due| due <= now), "{id} early: {due:?} > {now}");
                }
                for (id, due) in &model {
                    prop_assert!(*due + 100 >= now, "{id} late: {due} at {now}");
                }
            }
        }
    }
}
