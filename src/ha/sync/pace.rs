//! How fast: the round trip, when to send something again, and the most datagrams a second.

use crate::time::{Duration, Instant};

const SHORTEST: Duration = Duration::from_millis(10);
/// Half of what a peer may be silent: two attempts before it counts as lost.
const LONGEST: Duration = Duration::from_millis(400);

/// When an unanswered datagram is sent again (RFC 6298, with shorter limits for a local network).
#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    /// Smoothed, and its variation, in microseconds; `None` before the first sample.
    measured: Option<(u64, u64)>,
    doublings: u32,
}

impl RoundTrip {
    /// A datagram that was sent once was answered after `took`.
    pub(super) fn sample(&mut self, took: Duration) {
        let took = took.total_micros();
        self.measured = Some(match self.measured {
            None => (took, took / 2),
            Some((smooth, variation)) => {
                ((7 * smooth + took) / 8, (3 * variation + smooth.abs_diff(took)) / 4)
            }
        });
    }

    /// Something was answered: no reason to wait longer any more.
    pub(super) const fn answered(&mut self) {
        self.doublings = 0;
    }

    /// Nothing was answered in time.
    pub(super) fn unanswered(&mut self) {
        self.doublings = (self.doublings + 1).min(8);
    }

    /// How long to wait for an answer.
    pub(super) fn patience(&self) -> Duration {
        let micros = self.measured.map_or(50_000, |(smooth, variation)| smooth + 4 * variation);
        let first = Duration::from_micros(micros).clamp(SHORTEST, LONGEST);
        Duration::from_micros(first.total_micros() << self.doublings).min(LONGEST)
    }

    /// The smoothed round trip.
    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.measured.map(|(smooth, _)| Duration::from_micros(smooth))
    }
}

/// A token bucket that takes the time as an argument and can say when there is a token again.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Tokens a second.
    rate: u64,
    /// In millionths of a token, so that microseconds need no division.
    burst: u64,
    tokens: u64,
    last: Instant,
}

impl Bucket {
    pub(super) const fn new(rate: u64, burst: u64, now: Instant) -> Self {
        Self { rate, burst: burst * 1_000_000, tokens: burst * 1_000_000, last: now }
    }

    /// Whether one more may leave now.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed = u64::try_from(now.total_micros() - self.last.total_micros()).unwrap_or(0);
        self.last = self.last.max(now);
        self.tokens = self.tokens.saturating_add(passed.saturating_mul(self.rate)).min(self.burst);
        let enough = self.tokens >= 1_000_000;
        if enough {
            self.tokens -= 1_000_000;
        }
        enough
    }

    /// When the next one may leave.
    pub(super) fn next(&self) -> Instant {
        let missing = 1_000_000_u64.saturating_sub(self.tokens);
        self.last + Duration::from_micros(missing.div_ceil(self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_the_round_trip_and_doubles() {
        let mut trip = RoundTrip::default();
        assert_eq!(trip.patience(), Duration::from_millis(50), "before anything was measured");
        for _ in 0..50 {
            trip.sample(Duration::from_micros(300));
        }
        assert_eq!(trip.patience(), SHORTEST);
        trip.unanswered();
        assert_eq!(trip.patience(), Duration::from_millis(20));
        (0..100).for_each(|_| trip.unanswered());
        assert_eq!(trip.patience(), LONGEST);
        trip.answered();
        for _ in 0..50 {
            trip.sample(Duration::from_millis(40));
        }
        let patience = trip.patience();
        assert!((40..60).contains(&patience.total_millis()), "{patience}");
    }

    #[test]
    fn the_bucket_says_when_there_is_a_token() {
        let at = Instant::from_micros;
        let mut bucket = Bucket::new(8_000, 4, at(0));
        assert_eq!((0..10).filter(|_| bucket.take(at(0))).count(), 4);
        assert_eq!(bucket.next(), at(125));
        assert!(!bucket.take(at(124)));
        assert_eq!(bucket.next(), at(125));
        assert!(bucket.take(at(125)));
        assert_eq!((0..100).filter(|_| bucket.take(at(10_000_000))).count(), 4, "only the burst");
    }
}
