//! How often the host may answer strangers: a token bucket kept as one instant.

use crate::time::{Duration, Instant};

/// A token bucket. `spent_until` moves ahead by one interval per token; it may lie at most a burst
/// behind the present, and a token is there while it would not pass the present.
#[derive(Debug)]
pub(super) struct Allowance {
    interval: Duration,
    burst: Duration,
    spent_until: Instant,
}

impl Allowance {
    /// A full bucket of `burst` tokens, refilled by one per `interval`.
    pub(super) fn new(interval: Duration, burst: u32, now: Instant) -> Self {
        let burst = interval * burst;
        Self { interval, burst, spent_until: now - burst }
    }

    /// When the next token is there.
    pub(super) fn next_at(&self) -> Instant {
        // Of a full bucket it has been for long.
        self.spent_until + self.interval
    }

    /// Takes a token if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let after = self.spent_until.max(now - self.burst) + self.interval;
        if after > now {
            return false;
        }
        self.spent_until = after;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_per_interval_and_never_more_than_a_burst() {
        let mut allowance = Allowance::new(Duration::from_millis(1), 100, Instant::ZERO);
        let mut taken_at = |ms| {
            let now = Instant::from_millis(ms);
            (0..1000).filter(|_| allowance.take(now)).count()
        };
        assert_eq!(taken_at(0), 100);
        assert_eq!(taken_at(0), 0);
        assert_eq!(taken_at(7), 7);
        assert_eq!(taken_at(60_000), 100);
    }
}
