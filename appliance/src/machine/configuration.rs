//! Which configuration the router is given: found, judged, tried, gone back from.

use super::{Machine, Running};
use crate::source::{self, Files, Found};
use crate::{clock, router};

impl Machine {
    /// Finds the configuration and makes the router run it. `again`: also one that did not work.
    pub(super) fn configure(&mut self, again: bool) {
        let Found { place, files } =
            source::find(|kind| kind.modules().iter().for_each(|name| self.modules.load(name)));
        let files = match files {
            Ok(files) => files,
            Err(why) => {
                self.refuse(vec![format!("{place}: {why}")]);
                return self.run_something();
            }
        };
        if !again && self.refused.as_ref() == Some(&files) {
            return;
        }
        self.refused = None;
        if let Some(running) = &mut self.running
            && running.files == files
        {
            running.place = place;
            self.state.mistakes.clear();
            return;
        }
        if !self.try_files(place, files) {
            self.run_something();
        }
    }

    /// Installs and starts it, if it is right.
    fn try_files(&mut self, place: String, files: Files) -> bool {
        if let Err(error) = source::install(&files) {
            self.refuse(vec![format!("{place}: cannot be kept in memory: {error}")]);
            return false;
        }
        // The router judges it as well. Where none runs that could be disturbed, the first to ask is the
        // router itself, and `tapvs check` is only asked what is wrong when it does not start.
        let is_first = self.router.is_none() && self.ready_at.is_none() && self.refused.is_none();
        let judged = if is_first { Ok(None) } else { router::check().map(Some) };
        match judged {
            Ok(summary) => {
                self.journal.say(&format!("configuration: {place}"));
                self.state.mistakes.clear();
                self.running = Some(Running { place, files, summary });
                self.failed_starts = 0;
                self.apply();
                true
            }
            Err(said) => {
                self.refuse_files(&said, &place, files);
                false
            }
        }
    }

    fn refuse_files(&mut self, said: &str, place: &str, files: Files) {
        self.refuse(source::mistakes(said, place));
        self.refused = Some(files);
        if let Err(error) = source::restore() {
            self.journal.warn(&format!("the configuration before is lost: {error}"));
        }
    }

    /// The router did not start with a configuration that nobody has judged before: whether it is wrong,
    /// in which case something else runs.
    pub(super) fn was_wrong(&mut self) -> bool {
        let Some(running) = self.running.take_if(|running| running.summary.is_none()) else {
            return false;
        };
        match router::check() {
            Ok(summary) => {
                self.running = Some(Running { summary: Some(summary), ..running });
                false
            }
            Err(said) => {
                self.refuse_files(&said, &running.place, running.files);
                self.run_something();
                true
            }
        }
    }

    /// What runs, in its own words.
    pub(super) fn summarize(&mut self) {
        if let Some(running) = &mut self.running
            && running.summary.is_none()
        {
            running.summary = router::check().ok();
        }
    }

    fn refuse(&mut self, mistakes: Vec<String>) {
        for mistake in &mistakes {
            self.journal.warn(mistake);
        }
        self.state.mistakes = mistakes;
    }

    /// When nothing runs yet, the default does.
    fn run_something(&mut self) {
        if self.running.is_some() {
            return;
        }
        let mistakes = self.state.mistakes.clone();
        let Found { place, files } = source::built_in();
        match files {
            Ok(files) => drop(self.try_files(place, files)),
            Err(why) => self.journal.warn(&why),
        }
        self.state.mistakes.splice(0..0, mistakes);
    }

    /// The router takes the installed configuration over, if need be by a new start.
    fn apply(&mut self) {
        self.back_off.reset();
        let now = clock::now();
        let Some(router) = self.router.take() else {
            self.start_at = Some(now);
            return;
        };
        if router.ready && router::reload() {
            self.router = Some(router);
            self.last_good = self.running.clone();
            return;
        }
        self.journal.say("the router is started anew for it");
        for line in router.stop() {
            self.journal.router(&line);
        }
        self.start_at = Some(now);
    }

    /// From a configuration that is right but does not work here to the last one that did.
    pub(super) fn go_back(&mut self) {
        self.failed_starts = 0;
        let Some(bad) = self.running.take() else { return };
        let words = self.last_words.split_once("] ").map_or(&*self.last_words, |(_, text)| text);
        self.refuse(vec![format!("{}: the router does not start with it: {words}", bad.place)]);
        let mistakes = self.state.mistakes.clone();
        let good = self.last_good.clone().filter(|good| good.files != bad.files);
        self.refused = Some(bad.files.clone());
        let gone_back = match good {
            Some(good) => self.try_files(good.place, good.files),
            None => match source::built_in().files {
                Ok(files) if files != bad.files => self.try_files(source::built_in().place, files),
                _ => false,
            },
        };
        if !gone_back {
            self.running = Some(bad);
        }
        self.state.mistakes = mistakes;
    }
}
