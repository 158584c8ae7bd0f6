//! One network that adverts run on, as the state machine sees it.

use std::net::Ipv4Addr;

use super::Rules;
use crate::addr::NetworkId;
use crate::time::{Duration, Instant};

/// What is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ha) enum Outgoing {
    /// An advert with the present priority.
    Advert,
    /// One with priority 0.
    Resignation,
}

/// The last advert of another router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who sent it.
    pub from: Ipv4Addr,
    /// Its priority; 0: the sender gave up the role.
    pub priority: u8,
    /// When it came.
    pub at: Instant,
}

/// One network.
#[derive(Clone, Copy, Debug)]
pub(in crate::ha) struct Path {
    pub(in crate::ha) network: NetworkId,
    /// The router's own address.
    pub(in crate::ha) address: Ipv4Addr,
    pub(in crate::ha) is_up: bool,
    /// From one advert of the active router to the next: its word (RFC 9568 section 6.4.2).
    pub(in crate::ha) interval: Duration,
    /// When it is missed unless it is heard again.
    pub(super) down_at: Instant,
    /// It is missed.
    pub(in crate::ha) is_silent: bool,
    pub(in crate::ha) heard: Option<Heard>,
    pub(super) outgoing: Option<Outgoing>,
}

impl Path {
    pub(super) const fn new(network: NetworkId, address: Ipv4Addr, now: Instant) -> Self {
        Self {
            network,
            address,
            is_up: true,
            interval: Duration::ZERO,
            down_at: now,
            is_silent: false,
            heard: None,
            outgoing: None,
        }
    }

    /// Listens as one that has heard nobody yet.
    pub(super) fn restart(&mut self, rules: Rules, priority: u8, now: Instant) {
        self.interval = rules.interval;
        self.down_at = now + rules.active_down(rules.interval, priority);
        self.is_silent = false;
    }
}
