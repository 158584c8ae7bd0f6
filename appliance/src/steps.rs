//! How long each step of a way has taken, for the log.

use std::time::Duration;

/// The way so far.
#[derive(Debug)]
pub(crate) struct Steps {
    last: Duration,
    taken: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// From here.
    pub(crate) const fn new(now: Duration) -> Self {
        Self { last: now, taken: Vec::new() }
    }

    /// The step called so has ended.
    pub(crate) fn done(&mut self, name: &'static str, now: Duration) {
        self.taken.push((name, now.saturating_sub(self.last)));
        self.last = now;
    }
}

impl std::fmt::Display for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, (name, time)) in self.taken.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{name} {} ms", time.as_millis())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_its_own_time() {
        let at = Duration::from_millis;
        let mut steps = Steps::new(at(100));
        steps.done("drivers", at(130));
        steps.done("disks", at(131));
        assert_eq!(steps.to_string(), "drivers 30 ms, disks 1 ms");
    }
}
