//! The router's life, as PID 1 sees it: started, heard, started again; its first frame.

use std::time::Duration;

use super::{BEAT, CLOSE, Machine, millis};
use crate::router::{self, Router};
use crate::{clock, files};

/// A configuration that the router dies of so often, before it was ready, does not work.
const TRIES: u32 = 3;
/// How long, and how long closely, the first forwarded frame is waited for.
const WATCHED: Duration = Duration::from_secs(120);
const CLOSELY: Duration = Duration::from_secs(5);

impl Machine {
    pub(super) fn start_if_due(&mut self) {
        if self.router.is_some() || self.start_at.is_none_or(|at| at > clock::now()) {
            return;
        }
        self.start_at = None;
        match Router::start() {
            Ok(router) => self.router = Some(router),
            Err(error) => {
                let delay = self.back_off.after(Duration::ZERO);
                self.journal.warn(&format!("{}: {error}", files::TAPVS));
                self.start_at = Some(clock::now() + delay);
            }
        }
    }

    pub(super) fn hear_router(&mut self) {
        let Some(router) = &mut self.router else { return };
        let was_ready = router.ready;
        let lines = router.lines();
        let is_ready = router.ready;
        for line in lines {
            self.journal.router(&line);
            self.last_words = line;
        }
        if is_ready && !was_ready {
            if self.ready_at.is_none() {
                self.ready_at = Some(clock::now());
                self.steps.done("router", clock::now());
            }
            self.last_good = self.running.clone();
            self.failed_starts = 0;
            if self.is_complete {
                self.summarize();
            }
        }
    }

    pub(super) fn router_died(&mut self, how: &str) {
        let Some(router) = self.router.take() else { return };
        if !router.ready && self.was_wrong() {
            return;
        }
        let delay = self.back_off.after(clock::now().saturating_sub(router.since));
        self.state.restarts += 1;
        let delay_ms = delay.as_millis();
        self.journal.warn(&format!("the router ended ({how}); it is started in {delay_ms} ms"));
        self.start_at = Some(clock::now() + delay);
        if router.ready {
            return;
        }
        self.failed_starts += 1;
        if self.failed_starts >= TRIES {
            self.go_back();
        }
    }

    pub(super) fn watch_first_frame(&mut self) {
        let now = clock::now();
        let Some(ready_at) = self.ready_at else { return };
        if self.state.ready_ms.is_none() {
            self.state.ready_ms = Some(millis(ready_at));
            let since = millis(ready_at).saturating_sub(self.state.started_ms);
            let steps = &self.steps;
            self.journal
                .say(&format!("the router is ready, {since} ms after PID 1 began: {steps}"));
        }
        if self.state.forwarded_ms.is_some() || now > ready_at + WATCHED || now < self.look_at {
            return;
        }
        self.look_at = now + if now < ready_at + CLOSELY { CLOSE } else { BEAT };
        if router::has_forwarded() == Some(true) {
            let at = millis(clock::now());
            self.state.forwarded_ms = Some(at);
            let since = at.saturating_sub(self.state.started_ms);
            self.journal
                .say(&format!("the first frame was forwarded {since} ms after PID 1 began"));
        }
    }
}
