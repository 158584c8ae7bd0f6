//! When something good happened, and for how long it did not.

use std::time::Duration;

use crate::time::Instant;

/// Points in time at which something went well.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline(Vec<Instant>);

impl Timeline {
    pub(super) fn note(&mut self, at: Instant) {
        self.0.push(at);
    }

    /// The longest time between two of them that follow one another, of which the second one comes
    /// after `since`; `None` when there is none before or none after it.
    ///
    /// What was under way already may still go well a moment after `since`: so it is not simply the
    /// last one before and the first one after, but never less than that.
    pub(super) fn longest_pause(&self, since: Instant) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let after = sorted.partition_point(|at| *at <= since);
        let from = sorted.get(after.checked_sub(1)?..)?;
        from.windows(2).map(|pair| (pair[1] - pair[0]).into()).max()
    }

    /// How many come after `since`.
    pub(super) fn count_after(&self, since: Instant) -> usize {
        self.0.iter().filter(|at| **at > since).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Instant {
        Instant::from_millis(millis)
    }

    fn timeline(all: &[i64]) -> Timeline {
        Timeline(all.iter().copied().map(at).collect())
    }

    #[test]
    fn the_pause_around_a_moment_is_found() {
        let pause = |all: &[i64], since| timeline(all).longest_pause(at(since));
        let millis = |millis| Some(Duration::from_millis(millis));
        assert_eq!(pause(&[10, 20, 370, 380], 25), millis(350));
        // In any order; one that was nearly done when it happened does not hide the pause.
        assert_eq!(pause(&[380, 30, 20, 370, 10], 25), millis(340));
        // What was before does not count.
        assert_eq!(pause(&[10, 900, 910, 960], 905), millis(50));
        assert_eq!(pause(&[10, 20], 25), None);
        assert_eq!(pause(&[30, 40], 25), None);
        assert_eq!(pause(&[], 25), None);
    }

    #[test]
    fn those_after_a_moment_are_counted() {
        let all = timeline(&[10, 30, 20]);
        assert_eq!([0, 15, 30].map(|since| all.count_after(at(since))), [3, 2, 0]);
    }
}
