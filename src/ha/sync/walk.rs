//! The walk over all flows: as fast as they go when the peer needs them, slowly to keep it fresh.

use crate::time::{Duration, Instant};

/// From the end of one walk to the next, which renews what stands still and heals what was missed.
const REST: Duration = Duration::from_secs(30);
/// Flows at a time, and the pause between two times when there is no hurry: 20,000 a second.
const SLICE: usize = 100;
const PAUSE: Duration = Duration::from_millis(5);
/// Flows at a time in a hurry.
const HURRIED_SLICE: usize = 256;

/// Where a walk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    cursor: u64,
    due: Instant,
    hurried: bool,
}

impl Walk {
    pub(super) const fn new(now: Instant) -> Self {
        Self { cursor: 0, due: now, hurried: true }
    }

    /// Where it goes on and how many flows at most, if it does now.
    pub(super) fn step(&self, now: Instant) -> Option<(u64, usize)> {
        let most = if self.hurried { HURRIED_SLICE } else { SLICE };
        (self.due <= now).then_some((self.cursor, most))
    }

    /// It stands at `next` now, or has come to its end; whether it was in a hurry for that.
    pub(super) fn stand(&mut self, next: Option<u64>, now: Instant) -> bool {
        let hurried = self.hurried;
        self.due = match next {
            None => now + REST,
            Some(_) if hurried => now,
            Some(_) => now + PAUSE,
        };
        self.cursor = next.unwrap_or(0);
        self.hurried &= next.is_some();
        hurried
    }

    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// Whether everything was sent once since it began.
    pub(super) const fn is_done(&self) -> bool {
        !self.hurried
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_hurry_once_then_slowly_again_and_again() {
        let at = Instant::from_millis;
        let mut walk = Walk::new(at(0));
        assert_eq!(walk.step(at(0)), Some((0, HURRIED_SLICE)));
        assert!(walk.stand(Some(256), at(0)));
        assert_eq!(walk.step(at(0)), Some((256, HURRIED_SLICE)));
        assert!(walk.stand(None, at(10)) && walk.is_done());
        assert_eq!(walk.step(at(30_009)), None);
        assert_eq!(walk.step(at(30_010)), Some((0, SLICE)));
        assert!(!walk.stand(Some(100), at(30_010)));
        assert_eq!((walk.step(at(30_014)), walk.step(at(30_015))), (None, Some((100, SLICE))));
        assert!(!walk.stand(None, at(30_015)));
        assert_eq!(walk.due(), at(60_015));
    }
}
