//! The one place that reads a clock; everybody else is told what time it is.

use std::time::{Instant as Reading, SystemTime};

use crate::time::Instant;

/// Monotonic time since the clock was made. Copies agree with one another.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Reading,
}

impl Clock {
    /// Starts at zero.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    #[expect(clippy::new_without_default, reason = "a default that reads a clock would surprise")]
    pub fn new() -> Self {
        Self { start: Reading::now() }
    }

    /// Time since [`Clock::new`]; never goes back.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// Microseconds from 1970-01-01 UTC to the clock's zero, as the system's clock sees it now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn zero_since_1970(&self) -> i64 {
        let today = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(today.as_micros()).unwrap_or(i64::MAX) - self.now().total_micros()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    #[test]
    fn time_passes_and_copies_agree() {
        let clock = Clock::new();
        let copy = clock;
        let mut now = clock.now();
        assert!(now >= Instant::ZERO && now < Instant::ZERO + Duration::from_secs(60));
        let until = now + Duration::from_millis(2);
        while now < until {
            let next = copy.now();
            assert!(next >= now);
            now = next;
        }
    }
}
