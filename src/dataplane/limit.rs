//! A token bucket that takes the time as an argument.

use crate::time::Instant;

/// Lets `burst` through at once and `rate` a second after that.
#[derive(Debug)]
pub(super) struct TokenBucket {
    rate: u64,
    burst: u64,
    /// In millionths of a token, so that microseconds need no division.
    tokens: u64,
    last: Instant,
}

impl TokenBucket {
    pub(super) const fn new(rate: u64, burst: u64, now: Instant) -> Self {
        Self { rate, burst: burst * 1_000_000, tokens: burst * 1_000_000, last: now }
    }

    /// Whether one more may pass now.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed = u64::try_from(now.total_micros() - self.last.total_micros()).unwrap_or(0);
        self.last = now;
        self.tokens = self.tokens.saturating_add(passed.saturating_mul(self.rate)).min(self.burst);
        let enough = self.tokens >= 1_000_000;
        if enough {
            self.tokens -= 1_000_000;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_rate() {
        let mut bucket = TokenBucket::new(10, 5, Instant::ZERO);
        let mut passed =
            |millis| (0..100).filter(|_| bucket.take(Instant::from_millis(millis))).count();
        assert_eq!(passed(0), 5);
        assert_eq!(passed(99), 0);
        assert_eq!(passed(100), 1);
        assert_eq!(passed(1_100), 5, "never more than the burst");
    }
}
