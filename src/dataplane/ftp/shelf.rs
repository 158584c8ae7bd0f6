//! Things kept by flow id in a fixed number of places: all memory is taken when it is made.

use super::super::flow::Index;

/// A map from flow ids that never grows.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    places: Vec<Option<(u32, T)>>,
    free: Vec<u32>,
    index: Index,
}

impl<T> Shelf<T> {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            places: (0..capacity).map(|_| None).collect(),
            free: (0..capacity).rev().collect(),
            index: Index::new(capacity as usize),
        }
    }

    /// Whether it was made for nothing.
    pub(super) const fn is_hollow(&self) -> bool {
        self.places.is_empty()
    }

    /// Where the flow's thing lies.
    pub(super) fn place_of(&self, id: u32) -> Option<u32> {
        self.index.find(hash(id), |place| self.owner(place) == Some(id))
    }

    fn owner(&self, place: u32) -> Option<u32> {
        self.places.get(place as usize)?.as_ref().map(|(id, _)| *id)
    }

    pub(super) fn at(&self, place: u32) -> Option<&T> {
        self.places.get(place as usize)?.as_ref().map(|(_, thing)| thing)
    }

    pub(super) fn at_mut(&mut self, place: u32) -> Option<&mut T> {
        self.places.get_mut(place as usize)?.as_mut().map(|(_, thing)| thing)
    }

    pub(super) fn get(&self, id: u32) -> Option<&T> {
        self.at(self.place_of(id)?)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.at_mut(self.place_of(id)?)
    }

    /// Puts a flow's thing down, in place of one that it has; `false` if there is no room.
    pub(super) fn put(&mut self, id: u32, thing: T) -> bool {
        if let Some(known) = self.get_mut(id) {
            *known = thing;
            return true;
        }
        let Some(place) = self.free.pop() else { return false };
        self.places[place as usize] = Some((id, thing));
        self.index.insert(hash(id), place);
        true
    }

    pub(super) fn take(&mut self, id: u32) -> Option<T> {
        let place = self.place_of(id)?;
        self.index.remove(hash(id), place);
        self.free.push(place);
        self.places[place as usize].take().map(|(_, thing)| thing)
    }

    pub(super) const fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

impl<T> Default for Shelf<T> {
    /// Holds nothing.
    fn default() -> Self {
        Self::new(0)
    }
}

/// Flow ids are handed out from the first on: what is wanted is that neighbours lie apart.
const fn hash(id: u32) -> u64 {
    (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_map(steps in prop::collection::vec((0_u32..24, any::<u16>(), any::<bool>()), 0..300)) {
            let mut shelf = Shelf::new(16);
            let mut model = BTreeMap::new();
            for (id, thing, puts) in steps {
                if puts {
                    let fits = model.len() < 16 || model.contains_key(&id);
                    prop_assert_eq!(shelf.put(id, thing), fits);
                    if fits {
                        model.insert(id, thing);
                    }
                } else {
                    prop_assert_eq!(shelf.take(id), model.remove(&id));
                }
                prop_assert_eq!(shelf.len(), model.len());
                for id in 0..24 {
                    prop_assert_eq!(shelf.get(id), model.get(&id));
                }
            }
        }
    }

    #[test]
    fn a_hollow_one_takes_nothing() {
        let mut shelf = Shelf::default();
        assert!(shelf.is_hollow() && !shelf.put(1, ()));
        assert_eq!((shelf.take(1), shelf.len()), (None, 0));
        assert_eq!(shelf.get(1), None);
    }
}
