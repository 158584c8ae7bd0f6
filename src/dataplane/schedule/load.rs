//! How many connections a server has, as Linux IPVS counts them.

use crate::dataplane::State;

/// A server's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Flows in an active state.
    pub active: u32,
    /// All other flows.
    pub inactive: u32,
}

impl Load {
    /// A flow's state changed.
    pub(in crate::dataplane) const fn move_between(&mut self, before: State, after: State) {
        match (before.is_active(), after.is_active()) {
            (false, true) => {
                self.inactive = self.inactive.saturating_sub(1);
                self.active += 1;
            }
            (true, false) => {
                self.active = self.active.saturating_sub(1);
                self.inactive += 1;
            }
            (true, true) | (false, false) => {}
        }
    }

    /// A flow in `state` has come.
    pub(in crate::dataplane) const fn enter(&mut self, state: State) {
        if state.is_active() {
            self.active += 1;
        } else {
            self.inactive += 1;
        }
    }

    /// A flow in `state` is gone.
    pub(in crate::dataplane) const fn leave(&mut self, state: State) {
        if state.is_active() {
            self.active = self.active.saturating_sub(1);
        } else {
            self.inactive = self.inactive.saturating_sub(1);
        }
    }

    /// All flows.
    pub(in crate::dataplane) const fn total(self) -> u32 {
        self.active + self.inactive
    }

    /// An active connection weighs as much as 256 inactive ones.
    pub(super) const fn overhead(self) -> u64 {
        self.active as u64 * 256 + self.inactive as u64
    }
}
