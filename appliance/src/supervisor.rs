//! When a process that died is started again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(5);
/// One that lived this long did not die of what killed the one before.
const STABLE: Duration = Duration::from_secs(10);

/// Waits twice as long each time, up to a limit.
#[derive(Debug)]
pub(crate) struct BackOff {
    delay: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { delay: FIRST }
    }
}

impl BackOff {
    /// How long to wait after a life of that length.
    pub(crate) fn after(&mut self, life: Duration) -> Duration {
        if life >= STABLE {
            self.delay = FIRST;
        }
        let delay = self.delay;
        self.delay = (delay * 2).min(LAST);
        delay
    }

    /// Something has changed: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_waits_longer_up_to_a_limit() {
        let mut back_off = BackOff::default();
        let delays: Vec<_> =
            (0..8).map(|_| back_off.after(Duration::from_millis(5)).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(back_off.after(STABLE), FIRST, "a long life forgets");
        assert_eq!(back_off.after(Duration::ZERO), FIRST * 2);
        back_off.reset();
        assert_eq!(back_off.after(Duration::ZERO), FIRST);
    }
}
