//! How long a turn of the loop takes: whatever comes while one is under way has to wait for it.

use crate::control::protocol;
use crate::time::{Duration, Instant};

/// A turn that is worth counting apart.
const LONG: Duration = Duration::from_millis(1);

/// All turns so far, in real time: what else the machine had to do is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turns {
    count: u64,
    longest: Duration,
    long: u64,
}

impl Turns {
    pub(super) fn count(&mut self, begin: Instant, end: Instant) {
        let took = end - begin;
        self.count += 1;
        self.longest = self.longest.max(took);
        self.long += u64::from(took > LONG);
    }

    /// For the control socket and the log.
    pub(super) const fn told(&self) -> protocol::Turns {
        protocol::Turns {
            count: self.count,
            longest_us: self.longest.total_micros(),
            above_1ms: self.long,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_kept_and_long_ones_are_counted() {
        let mut turns = Turns::default();
        let at = Instant::from_micros_const;
        for (begin, end) in [(0, 10), (20, 1_020), (2_000, 3_001), (4_000, 4_005)] {
            turns.count(at(begin), at(end));
        }
        let told = protocol::Turns { count: 4, longest_us: 1_001, above_1ms: 1 };
        assert_eq!(turns.told(), told);
    }
}
