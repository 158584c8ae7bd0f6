//! From a tuple's hash to entries, in one fixed array: open addressing with linear probing and
//! deletion by moving back, so that nothing grows, nothing is left behind and no step is long.

use std::ops::Range;

use crate::dataplane::memory::addresses;

const EMPTY: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Cell {
    /// Low half of the hash: tells most strangers apart without a look at the record.
    tag: u32,
    entry: u32,
}

/// A multimap from hash to `u32` entries of fixed capacity.
#[derive(Debug)]
pub(in crate::dataplane) struct Index {
    cells: Vec<Cell>,
}

impl Index {
    /// Room for `entries` at a load of at most two thirds.
    pub(in crate::dataplane) fn new(entries: usize) -> Self {
        let len = entries + entries / 2 + 1;
        Self { cells: vec![Cell { tag: 0, entry: EMPTY }; len] }
    }

    /// Where it lies in memory.
    pub(super) fn memory(&self) -> Range<usize> {
        addresses(&self.cells)
    }

    /// The first entry under `hash` that `is_it` accepts.
    pub(in crate::dataplane) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let mut at = self.home(tag);
        loop {
            let cell = self.cells[at];
            if cell.entry == EMPTY {
                return None;
            }
            if cell.tag == tag && is_it(cell.entry) {
                return Some(cell.entry);
            }
            at = self.after(at);
        }
    }

    /// Reads the cell where a search under `hash` begins, so that it is at hand when one does.
    pub(super) fn touch(&self, hash: u64) -> u32 {
        self.cells[self.home(tag(hash))].entry
    }

    /// Adds `entry`. The owner adds no more entries than it asked room for.
    pub(in crate::dataplane) fn insert(&mut self, hash: u64, entry: u32) {
        let tag = tag(hash);
        let mut at = self.home(tag);
        while self.cells[at].entry != EMPTY {
            at = self.after(at);
        }
        self.cells[at] = Cell { tag, entry };
    }

    /// Removes `entry`, which was added under `hash`.
    pub(in crate::dataplane) fn remove(&mut self, hash: u64, entry: u32) {
        let mut hole = self.home(tag(hash));
        while self.cells[hole].entry != entry {
            if self.cells[hole].entry == EMPTY {
                debug_assert!(false, "an entry that was never added");
                return;
            }
            hole = self.after(hole);
        }
        let mut at = hole;
        loop {
            at = self.after(at);
            let cell = self.cells[at];
            if cell.entry == EMPTY {
                break;
            }
            // A cell may fill the hole when its home does not lie between the two.
            if self.steps_between(self.home(cell.tag), at) >= self.steps_between(hole, at) {
                self.cells[hole] = cell;
                hole = at;
            }
        }
        self.cells[hole].entry = EMPTY;
    }

    /// How many cells a search under `hash` looks at before it gives up.
    #[cfg(test)]
    pub(in crate::dataplane) fn steps(&self, hash: u64) -> usize {
        let home = self.home(tag(hash));
        let (behind, ahead) = self.cells.split_at(home);
        let cells = ahead.iter().chain(behind);
        cells.take_while(|cell| cell.entry != EMPTY).count()
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(in crate::dataplane) fn len(&self) -> usize {
        self.cells.iter().filter(|cell| cell.entry != EMPTY).count()
    }

    /// Any number of cells will do: the tag is taken as a fraction of them.
    fn home(&self, tag: u32) -> usize {
        ((self.cells.len() as u64 * u64::from(tag)) >> 32) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.cells.len() { 0 } else { at + 1 }
    }

    /// From cell `start` on to cell `end`, around the end of the array.
    fn steps_between(&self, start: usize, end: usize) -> usize {
        if end >= start { end - start } else { end + self.cells.len() - start }
    }
}

const fn tag(hash: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the tag")]
    let tag = hash as u32;
    tag
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_set(steps in prop::collection::vec((0u64..12, 0u32..64, any::<bool>()), 1..400)) {
            // Few hashes, so that runs collide and wrap around the end.
            let mut index = Index::new(64);
            let mut model = BTreeSet::new();
            for (hash, entry, add) in steps {
                let hash = hash * u64::from(u32::MAX / 11);
                if model.contains(&(hash, entry)) {
                    index.remove(hash, entry);
                    model.remove(&(hash, entry));
                } else if add && model.len() < 64 && !model.iter().any(|(_, e)| *e == entry) {
                    index.insert(hash, entry);
                    model.insert((hash, entry));
                }
                for (hash, entry) in &model {
                    prop_assert_eq!(index.find(*hash, |e| e == *entry), Some(*entry));
                }
                prop_assert_eq!(index.find(1 << 31, |_| true), None);
            }
            prop_assert_eq!(index.len(), model.len());
        }
    }
}
