//! What the pair tells the rest of the router: rare, bounded, worth a log line.

use std::collections::VecDeque;
use std::fmt;
use std::net::Ipv4Addr;

use crate::addr::{NetworkId, Role, ServiceId};
use crate::time::Duration;

/// Unread events beyond this many are counted and dropped.
const MOST: usize = 64;

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The router changed its role. Active: announce every virtual IP.
    Role {
        /// To which.
        role: Role,
        /// Why.
        reason: Reason,
    },
    /// Another router was active too, and is not any more: announce every virtual IP again, for hosts
    /// and switches may have learned of it there.
    ContentionEnded,
    /// Another router is active too, and this one stays so.
    Contention {
        /// Where it was heard.
        network: NetworkId,
        /// Who it is.
        from: Ipv4Addr,
        /// Its priority.
        priority: u8,
    },
    /// No advert came in time on this network, and the router stays a backup: the active one is heard
    /// on another, or a link of its own is down.
    PathDegraded {
        /// Where it is missing.
        network: NetworkId,
    },
    /// It is heard there again.
    PathRestored {
        /// Where it was missing.
        network: NetworkId,
    },
    /// An advert of the router's own for one network came in from another: they meet in a switch.
    NetworksMeet {
        /// Where it came in.
        network: NetworkId,
        /// Where it was sent.
        sent: NetworkId,
    },
    /// The active router's adverts are differently far apart. Its word counts.
    IntervalMismatch {
        /// Where it was heard.
        network: NetworkId,
        /// Who it is.
        from: Ipv4Addr,
        /// How far apart they are.
        interval: Duration,
    },
    /// The active router names other virtual IPs.
    AddressesMismatch {
        /// Where it was heard.
        network: NetworkId,
        /// Who it is.
        from: Ipv4Addr,
    },
    /// Somebody who is not listed sends adverts; they are not listened to.
    Stranger {
        /// Where it was heard.
        network: NetworkId,
        /// Who it says it is.
        from: Ipv4Addr,
    },
    /// A router with priority 255 is active: it waits for nobody.
    OwnerHeard {
        /// Where it was heard.
        network: NetworkId,
        /// Who it is.
        from: Ipv4Addr,
    },
    /// Many more adverts are believed than two routers send.
    Storm {
        /// Where they come in.
        network: NetworkId,
        /// Who sent the last one.
        from: Ipv4Addr,
        /// How many came within a second.
        count: u32,
    },
}

/// Why the role changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The router started.
    Started,
    /// It owns the addresses (priority 255).
    Owner,
    /// No advert came in time on any network.
    Silence,
    /// The active router gave up the role.
    PeerResigned(Ipv4Addr),
    /// The active router had a lower priority.
    Preempted(Ipv4Addr),
    /// Another active router has a higher priority, or the same and a higher address.
    Outranked {
        /// Who it is.
        by: Ipv4Addr,
        /// Its priority.
        priority: u8,
    },
    /// A link of this network failed.
    LinkDown(NetworkId),
    /// Something that the router needs to be of use failed.
    Fault(Fault),
    /// An operator asked for it.
    Yielded,
    /// The router is being stopped.
    ShutDown,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("started"),
            Self::Owner => f.write_str("priority 255"),
            Self::Silence => f.write_str("no advert on any network"),
            Self::PeerResigned(peer) => write!(f, "{peer} gave up the role"),
            Self::Preempted(peer) => write!(f, "{peer} has a lower priority"),
            Self::Outranked { by, priority } => {
                write!(f, "{by} is active with priority {priority}")
            }
            Self::LinkDown(network) => write!(f, "a link of network {network} is down"),
            Self::Fault(fault) => fault.fmt(f),
            Self::Yielded => f.write_str("an operator asked for it"),
            Self::ShutDown => f.write_str("shutting down"),
        }
    }
}

/// Something that the router needs to be of use, while its links work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The gateway of this network does not answer.
    Gateway(NetworkId),
    /// This service has too few healthy servers.
    Service(ServiceId),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(network) => {
                write!(f, "the gateway of network {network} does not answer")
            }
            Self::Service(service) => {
                write!(f, "service {service} has too few healthy servers")
            }
        }
    }
}

/// Events that wait to be read.
#[derive(Debug)]
pub(super) struct Events {
    queue: VecDeque<Event>,
    lost: u64,
}

impl Events {
    pub(super) fn new() -> Self {
        Self { queue: VecDeque::with_capacity(MOST), lost: 0 }
    }

    /// Adds one; when there are too many, it is lost, unless it tells of a role: then the oldest is.
    pub(super) fn push(&mut self, event: Event) {
        if self.queue.len() >= MOST {
            self.lost += 1;
            if !matches!(event, Event::Role { .. }) {
                return;
            }
            self.queue.pop_front();
        }
        self.queue.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_told_even_when_nobody_reads() {
        let mut events = Events::new();
        for _ in 0..MOST + 3 {
            events.push(Event::ContentionEnded);
        }
        assert_eq!((events.queue.len(), events.lost()), (MOST, 3));
        let role = Event::Role { role: Role::Backup, reason: Reason::ShutDown };
        events.push(role);
        assert_eq!((events.queue.len(), events.lost()), (MOST, 4));
        let last = std::iter::from_fn(|| events.pop()).last();
        assert_eq!(last, Some(role));
    }
}
