//! What has changed since the peer was told: the flows' first tuples, in the order of their changes.
//!
//! An entry says that something is to be told, not what: that is looked up when it is told. So a flow
//! waits here once at most, and whatever is told last of a tuple is true.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use super::super::flow::Tuple;
use crate::addr::ServiceId;

/// Flows that wait to be told about, at most.
const MOST: usize = 65_536;
const LEAST: usize = 64;

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// The flow with this first tuple.
    Flow(Tuple),
    /// What is remembered of a client, host bits cleared.
    Client(ServiceId, Ipv4Addr),
}

/// Flows and clients to be told about. Off at first: nothing is noted.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) is_on: bool,
    /// What happened before now was not noted, or not kept.
    lost: bool,
    queue: VecDeque<Changed>,
    most: usize,
}

impl Changes {
    /// From now on what changes is noted, of at most `max_flows` flows. A set-up step: it may allocate.
    pub(super) fn start(&mut self, max_flows: usize) {
        self.most = max_flows.clamp(LEAST, MOST);
        self.queue.clear();
        self.queue.reserve_exact(self.most);
        (self.is_on, self.lost) = (true, true);
    }

    /// Nothing is noted any more.
    pub(super) fn stop(&mut self) {
        self.queue.clear();
        (self.is_on, self.lost) = (false, false);
    }

    /// This is to be told about; whether that went beyond what is kept.
    pub(super) fn push(&mut self, changed: Changed) -> bool {
        let is_full = self.queue.len() >= self.most;
        if is_full {
            self.queue.clear();
            self.lost = true;
        } else {
            self.queue.push_back(changed);
        }
        is_full
    }

    /// Whether something was not noted since it was last asked.
    pub(super) const fn take_lost(&mut self) -> bool {
        std::mem::replace(&mut self.lost, false)
    }

    pub(super) fn pop(&mut self) -> Option<Changed> {
        self.queue.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}
