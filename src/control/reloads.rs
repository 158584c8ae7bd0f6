//! When the file is read again: at once when asked for, but together with others soon after, and
//! when it has been left alone for a moment after it changed.

use super::desk::Asker;
use crate::time::{Duration, Instant};

/// Between two readings.
const GAP: Duration = Duration::from_millis(200);
/// A file that changed is read when nothing has happened to it for so long …
const QUIET: Duration = Duration::from_millis(200);
/// … or when it has not been left alone for so long.
const LATEST: Duration = Duration::from_secs(2);

/// What is due, and who wants to know.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    last: Option<Instant>,
    asked: bool,
    /// First and last change since the last reading.
    changed: Option<(Instant, Instant)>,
    askers: Vec<Asker>,
}

impl Reloads {
    /// Somebody asks; an asker wants to hear what comes of it.
    pub(super) fn ask(&mut self, asker: Option<Asker>) {
        self.asked = true;
        self.askers.extend(asker);
    }

    /// The file changed.
    pub(super) fn note_change(&mut self, now: Instant) {
        let first = self.changed.map_or(now, |(first, _)| first);
        self.changed = Some((first, now));
    }

    /// When the file is to be read.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let earliest = self.last.map_or(Instant::ZERO, |last| last + GAP);
        let changed = self.changed.map(|(first, last)| (last + QUIET).min(first + LATEST));
        let asked = self.asked.then_some(Instant::ZERO);
        asked.into_iter().chain(changed).min().map(|due| due.max(earliest))
    }

    /// Those who asked, if the file is to be read now: one reading for all.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Vec<Asker>> {
        self.due_at().filter(|due| *due <= now)?;
        self.last = Some(now);
        self.asked = false;
        self.changed = None;
        Some(std::mem::take(&mut self.askers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn a_storm_is_a_few_readings() {
        let mut reloads = Reloads::default();
        let mut readings = Vec::new();
        for ms in 0..1_500 {
            // A hundred in a second.
            if ms < 1_000 && ms % 10 == 0 {
                reloads.ask(None);
            }
            if reloads.take_due(at(ms)).is_some() {
                readings.push(ms);
            }
        }
        assert_eq!(
            readings,
            [0, 200, 400, 600, 800, 1_000],
            "the first at once, and the last wish"
        );
        assert_eq!(reloads.due_at(), None);
    }

    #[test]
    fn a_file_is_read_when_it_is_left_alone_but_not_never() {
        let mut reloads = Reloads::default();
        reloads.note_change(at(1_000));
        reloads.note_change(at(1_150));
        assert_eq!(reloads.due_at(), Some(at(1_350)));
        assert!(reloads.take_due(at(1_349)).is_none());
        assert!(reloads.take_due(at(1_350)).is_some());
        for ms in (5_000..8_000).step_by(100) {
            reloads.note_change(at(ms));
        }
        assert_eq!(reloads.due_at(), Some(at(7_000)));
    }

    #[test]
    fn asking_does_not_wait_for_the_file_to_rest() {
        let mut reloads = Reloads::default();
        reloads.note_change(at(1_000));
        reloads.ask(None);
        assert!(reloads.take_due(at(1_000)).is_some());
        assert_eq!(reloads.due_at(), None, "the change is read with it");
    }
}
