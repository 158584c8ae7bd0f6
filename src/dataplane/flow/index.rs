//! From a tuple's hash to entries, in one fixed array: open addressing with linear probing and
//! deletion by moving back, so that nothing grows, nothing is left behind and no step is long.

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
    mask: usize,
}

impl Index {
    /// Room for `entries` at a load of at most two thirds.
    pub(in crate::dataplane) fn new(entries: usize) -> Self {
        let len = (entries + entries / 2 + 1).next_power_of_two();
        Self { cells: vec![Cell { tag: 0, entry: EMPTY }; len], mask: len - 1 }
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
            at = (at + 1) & self.mask;
        }
    }

    /// Adds `entry`. The owner adds no more entries than it asked room for.
    pub(in crate::dataplane) fn insert(&mut self, hash: u64, entry: u32) {
        let tag = tag(hash);
        let mut at = self.home(tag);
        while self.cells[at].entry != EMPTY {
            at = (at + 1) & self.mask;
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
            hole = (hole + 1) & self.mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & self.mask;
            let cell = self.cells[at];
            if cell.entry == EMPTY {
                break;
            }
            // A cell may fill the hole when its home does not lie between the two.
            let from_home = at.wrapping_sub(self.home(cell.tag)) & self.mask;
            let from_hole = at.wrapping_sub(hole) & self.mask;
            if from_home >= from_hole {
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
        let cells = (0..self.cells.len()).map(|step| self.cells[(home + step) & self.mask]);
        cells.take_while(|cell| cell.entry != EMPTY).count()
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(in crate::dataplane) fn len(&self) -> usize {
        self.cells.iter().filter(|cell| cell.entry != EMPTY).count()
    }

    const fn home(&self, tag: u32) -> usize {
        tag as usize & self.mask
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
                let hash = hash.wrapping_mul(11);
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
                prop_assert_eq!(index.find(999, |_| true), None);
            }
            prop_assert_eq!(index.len(), model.len());
        }
    }
}
