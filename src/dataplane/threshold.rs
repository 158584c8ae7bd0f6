//! `max_flows` and `min_flows`: which servers have as many flows as they may have (`ip_vs_conn.c`,
//! `ip_vs_ctl.c`). A server is marked when a flow reaches the upper count and taken off the mark when
//! one leaves it below the lower one, and at no other time but when the upper count is raised.

use super::flow::State;
use super::{Dataplane, Load};
use crate::addr::{ServerId, ServiceId};
use crate::table::FlowLimits;

/// One server's.
#[derive(Clone, Copy, Debug, Default)]
struct Threshold {
    limits: FlowLimits,
    is_full: bool,
}

/// All servers', by id.
#[derive(Debug, Default)]
pub(super) struct Thresholds(Vec<Threshold>);

impl Thresholds {
    /// Makes room for server ids below `limit`. A set-up step: it may allocate.
    pub(super) fn reserve(&mut self, limit: usize) {
        self.0.resize(limit.max(self.0.len()), Threshold::default());
    }

    /// The id is another server's from now on.
    pub(super) fn reset(&mut self, server: ServerId, limits: FlowLimits) {
        self.0[server.index()] = Threshold { limits, is_full: false };
    }

    /// The server's limits may have changed.
    pub(super) fn change(&mut self, server: ServerId, limits: FlowLimits) {
        let threshold = &mut self.0[server.index()];
        if limits.max == 0 || limits.max > threshold.limits.max {
            threshold.is_full = false;
        }
        threshold.limits = limits;
    }

    /// Whether the server has as many flows as it may have.
    pub(super) fn is_full(&self, server: ServerId) -> bool {
        self.0.get(server.index()).is_some_and(|threshold| threshold.is_full)
    }

    /// A flow of the server's has come, which makes so many.
    pub(super) fn came(&mut self, server: ServerId, flows: u32) {
        let Some(threshold) = self.0.get_mut(server.index()) else { return };
        let max = threshold.limits.max;
        if max != 0 && flows >= max {
            threshold.is_full = true;
        }
    }

    /// A flow of the server's is gone, which leaves so many.
    pub(super) fn left(&mut self, server: ServerId, flows: u32) {
        let Some(threshold) = self.0.get_mut(server.index()) else { return };
        let FlowLimits { max, min } = threshold.limits;
        let is_below = match (max, min) {
            (0, 0) => true,
            (max, 0) => u64::from(flows) * 4 < u64::from(max) * 3,
            (_, min) => flows < min,
        };
        if is_below {
            threshold.is_full = false;
        }
    }
}

/// Whose a flow is.
type Owner = Option<(ServiceId, ServerId)>;

impl Dataplane {
    /// A flow in `state` has come.
    pub(super) fn flow_came(&mut self, owner: Owner, state: State) {
        for figure in self.figures.both(owner) {
            figure.load.enter(state);
        }
        self.note_bound(owner);
    }

    /// A flow in `state` is gone.
    pub(super) fn flow_left(&mut self, owner: Owner, state: State) {
        for figure in self.figures.both(owner) {
            figure.load.leave(state);
        }
        self.note_unbound(owner);
    }

    /// A flow has come to be in another state.
    pub(super) fn flow_moved(&mut self, owner: Owner, before: State, after: State) {
        if before.is_active() == after.is_active() {
            return;
        }
        for figure in self.figures.both(owner) {
            figure.load.move_between(before, after);
        }
        if let Some((_, server)) = owner {
            self.note_load(server);
        }
    }

    /// A flow, or a client that is remembered, was given to a server.
    pub(super) fn note_bound(&mut self, owner: Owner) {
        let Some((_, server)) = owner else { return };
        self.thresholds.came(server, self.load_of(server).total());
        self.note_load(server);
    }

    /// A flow, or a client that was remembered, has left a server.
    pub(super) fn note_unbound(&mut self, owner: Owner) {
        let Some((_, server)) = owner else { return };
        self.thresholds.left(server, self.load_of(server).total());
        self.note_load(server);
    }

    /// Its datagram is a connection that comes and goes at once.
    pub(super) fn note_passing(&mut self, server: ServerId) {
        let flows = self.load_of(server).total();
        self.thresholds.came(server, flows.saturating_add(1));
        self.thresholds.left(server, flows);
        self.note_load(server);
    }

    /// What the schedulers go by of a server has changed.
    pub(super) fn note_load(&mut self, server: ServerId) {
        self.schedulers.note(server, self.load_of(server), self.thresholds.is_full(server));
    }

    fn load_of(&self, server: ServerId) -> Load {
        self.figures.server(server).load
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: ServerId = ServerId(0);

    fn with(max: u32, min: u32) -> Thresholds {
        let mut thresholds = Thresholds::default();
        thresholds.reserve(1);
        thresholds.reset(SERVER, FlowLimits { max, min });
        thresholds
    }

    /// Full from `max` on, and until fewer than `below` are left.
    #[test]
    fn a_server_is_full_for_longer_than_it_takes() {
        for (max, min, below) in [(4, 0, 3), (5, 2, 2), (10, 0, 8), (1, 0, 1), (3, 3, 3), (4, 1, 1)]
        {
            let mut thresholds = with(max, min);
            for flows in 1..=max {
                assert!(!thresholds.is_full(SERVER), "{flows} of {max}");
                thresholds.came(SERVER, flows);
            }
            assert!(thresholds.is_full(SERVER), "{max}");
            for flows in (0..max).rev() {
                thresholds.left(SERVER, flows);
                assert_eq!(
                    thresholds.is_full(SERVER),
                    flows >= below,
                    "{flows} left of {max}, {min}"
                );
            }
        }
    }

    #[test]
    fn only_more_room_takes_the_mark_off() {
        for (max, is_full) in [(3, true), (4, true), (5, false), (0, false)] {
            let mut thresholds = with(4, 0);
            thresholds.came(SERVER, 4);
            thresholds.change(SERVER, FlowLimits { max, min: 0 });
            assert_eq!(thresholds.is_full(SERVER), is_full, "{max}");
        }
        // Less room is noticed with the next flow.
        let mut thresholds = with(9, 0);
        thresholds.came(SERVER, 5);
        thresholds.change(SERVER, FlowLimits { max: 3, min: 0 });
        assert!(!thresholds.is_full(SERVER));
        thresholds.came(SERVER, 6);
        assert!(thresholds.is_full(SERVER));
    }
}
