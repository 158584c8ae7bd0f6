//! What can be said of the pair at a moment.

use std::net::Ipv4Addr;

use super::counters::Counters;
use super::event::{Fault, Reason};
use super::history::Transition;
use super::machine::Heard;
use crate::addr::{NetworkId, Role};
use crate::time::Instant;

/// What can be said of the pair at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The role.
    pub role: Role,
    /// Since when.
    pub since: Instant,
    /// Why.
    pub reason: Reason,
    /// What it competes with: the configured priority, or 1 with a fault or when it yielded.
    pub priority: u8,
    /// An operator asked it to give up the role.
    pub is_yielded: bool,
    /// What keeps it from being of use.
    pub faults: Vec<Fault>,
    /// The other router: whose advert was heard last on the first network, or else on any.
    pub peer: Option<Ipv4Addr>,
    /// Each network, in the order of the configuration.
    pub networks: Vec<NetworkReport>,
    /// The last changes of the role, oldest first.
    pub history: Vec<Transition>,
    /// Adverts by what became of them.
    pub counters: Counters,
}

/// One network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkReport {
    /// Which one.
    pub network: NetworkId,
    /// 1 to 255.
    pub virtual_router_id: u8,
    /// How it is.
    pub state: PathState,
    /// The last advert that was listened to.
    pub heard: Option<Heard>,
}

/// How one network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// Nothing is wrong that can be seen; an active router expects to hear nobody.
    Ok,
    /// The active router should be heard and is not.
    Degraded,
    /// A link of the router's own is down.
    Down,
}

impl PathState {
    /// A word for tables and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}
