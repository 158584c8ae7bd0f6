//! What the consoles are told.

use super::{Machine, Running};
use crate::nics;

impl Machine {
    pub(super) fn write_state(&mut self) {
        // Before there are consoles nobody reads it.
        if !self.is_complete {
            return;
        }
        let state = &mut self.state;
        state.nics = nics::list();
        if let Some(Running { place, summary, .. }) = &self.running {
            state.source.clone_from(place);
            state.summary = summary.clone().unwrap_or_default();
        }
        if state.router != "stopping" {
            state.router = match &self.router {
                Some(router) if router.ready => format!("running, pid {}", router.pid()),
                Some(_) => "starting".into(),
                None => "waiting to be started again".into(),
            };
        }
        state.watchdog = self.watchdog.as_ref().map(|watchdog| watchdog.identity.clone());
        state.log = self.journal.last();
        if self.written.as_ref() != Some(state) && state.write().is_ok() {
            self.written = Some(state.clone());
        }
    }
}
