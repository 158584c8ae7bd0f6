//! How often a cause is logged, so that a flood on the network does not become one on the disk.

use crate::time::{Duration, Instant};

/// Lines per cause and window.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// Counts log lines per cause. The causes are few, so a list does.
#[derive(Debug)]
pub(super) struct Limits<C> {
    causes: Vec<Cause<C>>,
}

#[derive(Debug)]
struct Cause<C> {
    cause: C,
    since: Instant,
    lines: u32,
}

impl<C> Default for Limits<C> {
    fn default() -> Self {
        Self { causes: Vec::new() }
    }
}

impl<C: PartialEq> Limits<C> {
    /// Whether one more line of `cause` may be logged; and, with the first line of a new window,
    /// how many were left out in the one before.
    pub(super) fn allow(&mut self, cause: C, now: Instant) -> (bool, u32) {
        let Some(known) = self.causes.iter_mut().find(|known| known.cause == cause) else {
            self.causes.push(Cause { cause, since: now, lines: 1 });
            return (true, 0);
        };
        let mut left_out = 0;
        if now >= known.since + WINDOW {
            left_out = known.lines.saturating_sub(LINES);
            (known.since, known.lines) = (now, 0);
        }
        known.lines = known.lines.saturating_add(1);
        (known.lines <= LINES, left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_per_cause_and_window_and_the_rest_is_counted() {
        let mut limits = Limits::default();
        let now = Instant::from_secs(5);
        let allowed = (0..25).filter(|_| limits.allow("conflict", now).0).count();
        assert_eq!(allowed, 10);
        assert_eq!(limits.allow("other", now), (true, 0), "causes do not share");
        assert_eq!(limits.allow("conflict", Instant::from_millis(14_999)), (false, 0));
        assert_eq!(limits.allow("conflict", Instant::from_secs(15)), (true, 16));
        assert_eq!(limits.allow("conflict", Instant::from_secs(16)), (true, 0));
    }
}
