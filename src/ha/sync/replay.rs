//! Which of the last numbers have been seen: a datagram counts once (the method of RFC 6479).

const WORDS: usize = 16;
/// How far back a number may be and still be told from one that was seen.
const WINDOW: u64 = 64 * WORDS as u64;

/// The numbers seen, from the newest back.
#[derive(Debug, Default)]
pub(super) struct Replays {
    newest: u64,
    seen: [u64; WORDS],
}

impl Replays {
    /// The highest number seen; 0: none.
    pub(super) const fn newest(&self) -> u64 {
        self.newest
    }

    /// Whether `number` has not been seen for sure.
    pub(super) fn is_fresh(&self, number: u64) -> bool {
        if number > self.newest {
            return true;
        }
        // The newest word is only partly full: a whole word less is remembered.
        let (word, bit) = place(number);
        number > 0 && self.newest - number < WINDOW - 64 && self.seen[word] & bit == 0
    }

    /// Remembers a fresh `number`.
    pub(super) fn mark(&mut self, number: u64) {
        let (from, to) = (self.newest / 64, number / 64);
        for word in (from + 1..=to).take(WORDS) {
            self.seen[index(word)] = 0;
        }
        // A leap over more than the window empties every word, that of `number` too.
        let (word, bit) = place(number);
        self.seen[word] |= bit;
        self.newest = self.newest.max(number);
    }
}

fn place(number: u64) -> (usize, u64) {
    (index(number / 64), 1 << (number % 64))
}

fn index(word: u64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "below 16")]
    let index = (word % WORDS as u64) as usize;
    index
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_fresh_once(
            steps in prop::collection::vec((0i64..3, -1_500i64..1_500, 0i64..80), 1..600),
        ) {
            let (mut replays, mut seen, mut around) = (Replays::default(), HashSet::new(), 2_000i64);
            for (kind, far, near) in steps {
                let number = if kind == 0 { around + far } else { around + near };
                let number = u64::try_from(number.max(0)).unwrap();
                around = i64::try_from(number).unwrap().max(around);
                let recent = number > 0 && number + (WINDOW - 64) > replays.newest();
                prop_assert_eq!(replays.is_fresh(number), recent && !seen.contains(&number));
                if replays.is_fresh(number) {
                    replays.mark(number);
                    seen.insert(number);
                }
            }
        }
    }

    #[test]
    fn numbers_at_the_end_of_their_range_are_no_danger() {
        let mut replays = Replays::default();
        assert!(!replays.is_fresh(0));
        replays.mark(u64::MAX);
        assert!(!replays.is_fresh(u64::MAX));
        assert!(replays.is_fresh(u64::MAX - 1) && !replays.is_fresh(1));
    }
}
