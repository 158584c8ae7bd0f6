//! A lazy timing wheel over small integer ids: constant work per entry, nothing allocated after start.
//!
//! It wakes an entry at or after its deadline, rounded up to a tick. It may have several rings, of finer
//! and coarser ticks: an entry is filed in the finest that reaches so far. Deadlines beyond the last slot
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
    /// Where it is filed, rings counted through; `NONE` while it is not. It tells the tick, which is one
    /// of the next `SLOTS`.
    place: u32,
}

const IDLE: Node = Node { previous: NONE, next: NONE, place: NONE };

/// The slots of one tick's length.
#[derive(Debug)]
struct Ring {
    tick: Duration,
    heads: Box<[u32; SLOTS]>,
    occupied: [u64; WORDS],
    /// Which of those words are not 0.
    words: u64,
    /// Every tick before this one has been handled.
    current: u64,
}

/// Deadlines of the ids `0..capacity`, each at most once.
#[derive(Debug)]
pub(super) struct Wheel {
    /// The finest first.
    rings: Vec<Ring>,
    nodes: Vec<Node>,
}

impl Wheel {
    pub(super) fn new(tick: Duration, now: Instant) -> Self {
        Self { rings: vec![Ring::new(tick, now)], nodes: Vec::new() }
    }

    /// With a ring of `fine` ticks before that of `coarse` ones.
    pub(super) fn with_fine(fine: Duration, coarse: Duration, now: Instant) -> Self {
        let rings = vec![Ring::new(fine, now), Ring::new(coarse, now)];
        Self { rings, nodes: Vec::new() }
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
        let (at, tick) = self.wanted(deadline);
        let Some(ring) = self.rings.get_mut(at) else { return };
        let slot = slot(tick);
        let next = ring.put(slot, id);
        self.nodes[id as usize] = Node { previous: NONE, next, place: place(at, slot) };
        if let Some(next) = self.nodes.get_mut(next as usize) {
            next.previous = id;
        }
    }

    /// Schedules `id` unless it wakes before `deadline` anyway.
    pub(super) fn hasten(&mut self, id: u32, deadline: Instant) {
        let filed = self.nodes.get(id as usize).map_or(NONE, |node| node.place);
        if filed == NONE || self.wakes(self.wanted(deadline)) < self.wakes(self.filed(filed)) {
            self.schedule(id, deadline);
        }
    }

    /// It is `now`: who knows may file what is due soon in a finer ring.
    pub(super) fn catch_up(&mut self, now: Instant) {
        for ring in &mut self.rings {
            let end = ticks(now, ring.tick);
            // Later entries may use the slots passed.
            let free = ring.next_occupied().map_or(end, |tick| tick.min(end));
            ring.current = ring.current.max(free);
        }
    }

    /// How far the finest ring reaches.
    pub(super) fn fine_reach(&self) -> Duration {
        let reach = |ring: &Ring| Duration::from_micros(ring.tick.total_micros() * SLOTS as u64);
        self.rings.first().map_or(Duration::ZERO, reach)
    }

    /// Forgets `id`.
    pub(super) fn cancel(&mut self, id: u32) {
        let Some(node) = self.nodes.get_mut(id as usize) else { return };
        let Node { previous, next, place } = std::mem::replace(node, IDLE);
        if place == NONE {
            return;
        }
        if let Some(next) = self.nodes.get_mut(next as usize) {
            next.previous = previous;
        }
        if let Some(previous) = self.nodes.get_mut(previous as usize) {
            previous.next = next;
        } else if let Some(ring) = self.rings.get_mut(place as usize / SLOTS) {
            ring.set(place as usize % SLOTS, next);
        }
    }

    /// The next id that is due, taken off the wheel.
    pub(super) fn pop(&mut self, now: Instant) -> Option<u32> {
        let id = self.rings.iter_mut().find_map(|ring| ring.due(now))?;
        self.cancel(id);
        Some(id)
    }

    /// When [`Wheel::pop`] will next return something; `None` while the wheel is empty.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let next = |ring: &Ring| Some(instant(ring.next_occupied()?, ring.tick));
        self.rings.iter().filter_map(next).min()
    }

    /// The ring and the tick that an entry with this deadline belongs to.
    fn wanted(&self, deadline: Instant) -> (usize, u64) {
        let last = self.rings.len() - 1;
        let mut found = (0, 0);
        for (at, ring) in self.rings.iter().enumerate() {
            let tick = ticks(deadline, ring.tick).saturating_add(1);
            let end = ring.current + SLOTS as u64 - 1;
            found = (at, tick.clamp(ring.current, end));
            if tick <= end || at == last {
                break;
            }
        }
        found
    }

    /// The ring and the tick of the entries that are filed in `place`.
    fn filed(&self, place: u32) -> (usize, u64) {
        let (at, slot) = (place as usize / SLOTS, (place as usize % SLOTS) as u64);
        let current = self.rings[at].current;
        let ahead = slot + SLOTS as u64 - current % SLOTS as u64;
        (at, current + ahead % SLOTS as u64)
    }

    fn wakes(&self, (at, tick): (usize, u64)) -> Instant {
        instant(tick, self.rings[at].tick)
    }
}

impl Ring {
    fn new(tick: Duration, now: Instant) -> Self {
        Self {
            tick,
            heads: Box::new([NONE; SLOTS]),
            occupied: [0; WORDS],
            words: 0,
            current: ticks(now, tick),
        }
    }

    /// Puts `id` first in `slot`; who was it before.
    fn put(&mut self, slot: usize, id: u32) -> u32 {
        let next = self.heads[slot];
        self.set(slot, id);
        next
    }

    /// The first in `slot` is `id`.
    fn set(&mut self, slot: usize, id: u32) {
        self.heads[slot] = id;
        let (word, bit) = (slot / 64, 1 << (slot % 64));
        if id == NONE {
            self.occupied[word] &= !bit;
        } else {
            self.occupied[word] |= bit;
        }
        if self.occupied[word] == 0 {
            self.words &= !(1 << word);
        } else {
            self.words |= 1 << word;
        }
    }

    /// Somebody whose tick has come.
    fn due(&mut self, now: Instant) -> Option<u32> {
        let end = ticks(now, self.tick);
        let tick = self.next_occupied().filter(|tick| *tick <= end);
        // Nothing lies between; later entries may use the slots passed.
        self.current = self.current.max(tick.unwrap_or(end));
        Some(self.heads[slot(tick?)])
    }

    fn next_occupied(&self) -> Option<u64> {
        if self.words == 0 {
            return None;
        }
        let start = slot(self.current);
        let first = start / 64;
        // A look at the first word's upper part, then whole words, then its lower part.
        let ahead = self.occupied[first] & (u64::MAX << (start % 64));
        let (word, bits) = if ahead == 0 {
            let rotated = self.words.rotate_right(u32::try_from(first + 1).unwrap_or(0));
            let word = (first + 1 + rotated.trailing_zeros() as usize) % WORDS;
            (word, self.occupied[word])
        } else {
            (first, ahead)
        };
        let found = word * 64 + bits.trailing_zeros() as usize;
        Some(self.current + ((found + SLOTS - start) % SLOTS) as u64)
    }
}

fn slot(tick: u64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "below 4,096")]
    let slot = (tick % SLOTS as u64) as usize;
    slot
}

fn place(ring: usize, slot: usize) -> u32 {
    u32::try_from(ring * SLOTS + slot).unwrap_or(NONE)
}

/// When `tick` begins.
fn instant(tick: u64, width: Duration) -> Instant {
    let tick = i64::try_from(tick).unwrap_or(i64::MAX);
    let width = i64::try_from(width.total_micros()).unwrap_or(i64::MAX);
    Instant::from_micros(tick.saturating_mul(width))
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

    #[test]
    fn what_is_due_soon_is_filed_finely() {
        let mut wheel = Wheel::with_fine(Duration::from_millis(1), Duration::from_secs(1), at(0));
        wheel.schedule(0, at(90_000));
        wheel.catch_up(at(50_000));
        wheel.schedule(1, at(50_010));
        wheel.schedule(2, at(54_000));
        wheel.catch_up(at(53_900));
        assert_eq!(wheel.next_deadline(), Some(at(50_011)), "still there");
        wheel.hasten(0, at(52_000));
        let popped = |wheel: &mut Wheel, millis| (wheel.pop(at(millis - 1)), wheel.pop(at(millis)));
        assert_eq!(popped(&mut wheel, 50_011), (None, Some(1)));
        assert_eq!(popped(&mut wheel, 52_001), (None, Some(0)));
        assert_eq!(popped(&mut wheel, 54_001), (None, Some(2)));
        assert_eq!(wheel.next_deadline(), None);
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_map(
            steps in prop::collection::vec((0u32..40, 0i64..300_000, 0i64..3_000, 0u8..8), 1..300),
            fine in any::<bool>(),
        ) {
            let mut wheel = if fine {
                Wheel::with_fine(Duration::from_millis(1), TICK, at(0))
            } else {
                Wheel::new(TICK, at(0))
            };
            let mut model = BTreeMap::new();
            let mut now = 0;
            for (id, ahead, passes, what) in steps {
                match what {
                    0 => {
                        wheel.cancel(id);
                        model.remove(&id);
                    }
                    1 => {
                        wheel.hasten(id, at(now + ahead));
                        let due = model.entry(id).or_insert(now + ahead);
                        *due = (*due).min(now + ahead);
                    }
                    _ => {
                        wheel.catch_up(at(now));
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
                prop_assert_eq!(wheel.next_deadline().is_some(), !model.is_empty());
            }
        }
    }
}
