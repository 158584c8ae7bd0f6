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

/// Counts notices that never arrived. Told at once, and then at most once per window.
#[derive(Debug, Default)]
pub(super) struct Losses {
    untold: u64,
    told_at: Option<Instant>,
}

impl Losses {
    pub(super) const fn add(&mut self, count: u64) {
        self.untold = self.untold.saturating_add(count);
    }

    /// When there is something to tell.
    pub(super) fn due_at(&self) -> Option<Instant> {
        (self.untold > 0).then(|| self.told_at.map_or(Instant::ZERO, |at| at + WINDOW))
    }

    /// How many to tell of now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<u64> {
        self.due_at().filter(|due| *due <= now)?;
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.untold))
    }

    /// How many nobody was told of.
    pub(super) const fn untold(&self) -> u64 {
        self.untold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_at_once_and_then_together() {
        let mut losses = Losses::default();
        assert_eq!(losses.due_at(), None, "nothing to wait for");
        losses.add(3);
        assert_eq!(losses.take_due(Instant::from_secs(5)), Some(3));
        losses.add(1);
        losses.add(2);
        assert_eq!(losses.take_due(Instant::from_millis(14_999)), None);
        assert_eq!(losses.due_at(), Some(Instant::from_secs(15)), "without another loss");
        assert_eq!(losses.take_due(Instant::from_secs(15)), Some(3));
        assert_eq!((losses.due_at(), losses.untold()), (None, 0));
    }

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
