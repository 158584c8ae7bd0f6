//! What the dataplane tells the rest of the router: rare, bounded, worth a log line.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::vip_probe::ProbeOutcome;
use super::watch::Claim;
use crate::addr::{LinkId, MacAddr, NetworkId, ServerId, ServiceId};
use crate::table::Table;

/// Unread events beyond this many are counted and dropped.
const MOST: usize = 256;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Another station claims one of the router's addresses.
    AddressConflict(Claim),
    /// A bridge's probe came round: two links are connected outside, and one was shut.
    LoopFound {
        /// The link by which the probe left.
        sent: LinkId,
        /// The link by which it came back.
        came: LinkId,
        /// The link that is shut now.
        shut: LinkId,
    },
    /// A link that was part of a loop is open again.
    LoopOver {
        /// The link.
        link: LinkId,
    },
    /// A neighbour answers from another MAC than before.
    NeighbourMoved {
        /// Where.
        network: NetworkId,
        /// Which neighbour.
        address: Ipv4Addr,
        /// Its new MAC.
        mac: MacAddr,
    },
    /// A configured neighbour does not answer ARP.
    NeighbourFailed {
        /// Where.
        network: NetworkId,
        /// Which neighbour.
        address: Ipv4Addr,
    },
    /// A configured neighbour that had failed answers.
    NeighbourBack {
        /// Where.
        network: NetworkId,
        /// Which neighbour.
        address: Ipv4Addr,
    },
    /// A frame came in from the router's own MAC: a loop, or a second router of the same name.
    OwnMac {
        /// Where.
        network: NetworkId,
    },
    /// What came of a probe through a virtual IP.
    Probed {
        /// The server that was probed.
        server: ServerId,
        /// The probe's source port.
        source_port: u16,
        /// How the server answered.
        outcome: ProbeOutcome,
    },
    /// A server has left so many clients in a row unanswered that it is given no new flows, until a
    /// table says that it is down or `retry` is over.
    ServerSilent {
        /// Of which service.
        service: ServiceId,
        /// Which server.
        server: ServerId,
    },
    /// The flows of a server that was taken away have ended.
    FlowsEnded {
        /// Where the server listens, or did.
        server: SocketAddrV4,
        /// How many were ended.
        ended: u32,
    },
    /// So many events were not kept, because nobody read them.
    Lost(u64),
    /// New flows are refused: the table holds only flows that must not go.
    TableFull {
        /// How many those are.
        flows: usize,
    },
    /// The last flow of a removed server is gone; its id may be used again.
    ServerRetired(ServerId),
    /// The last flow of a removed service is gone; its id may be used again.
    ServiceRetired(ServiceId),
}

impl Event {
    /// `Warn` when somebody should look.
    pub const fn level(&self) -> log::Level {
        match self {
            Self::AddressConflict(claim) if claim.suppressed => log::Level::Info,
            Self::AddressConflict(_)
            | Self::LoopFound { .. }
            | Self::NeighbourFailed { .. }
            | Self::OwnMac { .. }
            | Self::ServerSilent { .. }
            | Self::Lost(_)
            | Self::TableFull { .. } => log::Level::Warn,
            Self::LoopOver { .. }
            | Self::NeighbourMoved { .. }
            | Self::NeighbourBack { .. }
            | Self::FlowsEnded { .. } => log::Level::Info,
            Self::Probed { .. } | Self::ServerRetired(_) | Self::ServiceRetired(_) => {
                log::Level::Debug
            }
        }
    }
}

impl Event {
    /// What has happened; what it is about is in [`Event::fields`].
    pub const fn text(&self) -> &'static str {
        match self {
            Self::AddressConflict(claim) => text_of_claim(claim),
            Self::LoopFound { .. } => "loop: a frame came back; the link is shut until none does",
            Self::LoopOver { .. } => "the loop is gone: the link is open again",
            Self::NeighbourMoved { .. } => "neighbour has another MAC",
            Self::NeighbourFailed { .. } => "neighbour does not answer ARP; its flows wait or fail",
            Self::NeighbourBack { .. } => "neighbour answers again",
            Self::OwnMac { .. } => {
                "a frame came in from this router's own MAC: a loop, or a second router of the \
                 same name; give one of them another name or mac"
            }
            Self::Probed { outcome, .. } => match outcome {
                ProbeOutcome::Open => "probe: open",
                ProbeOutcome::Refused => "probe: refused",
                ProbeOutcome::Silent => "probe: no answer",
            },
            Self::ServerSilent { .. } => {
                "server leaves connections unanswered; it gets no new ones for now"
            }
            Self::FlowsEnded { .. } => "flows of a server were ended",
            Self::Lost(_) => "events were not kept",
            Self::TableFull { .. } => "flow table full: new flows are refused; raise max_flows",
            Self::ServerRetired(_) => "last flow of a removed server is gone",
            Self::ServiceRetired(_) => "last flow of a removed service is gone",
        }
    }
}

impl Event {
    /// What the event is about, field by field.
    pub fn fields(&self, table: &Table) -> Vec<(&'static str, String)> {
        let network = |id: &NetworkId| ("network", table.network(*id).name.clone());
        let link = |key, id: &LinkId| (key, table.link_name(*id).to_owned());
        match self {
            Self::AddressConflict(claim) => {
                let server = claim.server.map(|server| ("server", table.server_label(server)));
                let lasted = (claim.last - claim.since).secs();
                let fields = [
                    network(&claim.network),
                    ("address", claim.address.to_string()),
                    ("mac", claim.mac.to_string()),
                    ("count", claim.count.to_string()),
                    ("seconds", lasted.to_string()),
                    ("suppressed", claim.suppressed.to_string()),
                ];
                fields.into_iter().chain(server).collect()
            }
            Self::LoopFound { sent, came, shut } => {
                vec![link("sent", sent), link("came", came), link("link", shut)]
            }
            Self::LoopOver { link: open } => vec![link("link", open)],
            Self::NeighbourMoved { network: at, address, mac } => {
                vec![network(at), ("address", address.to_string()), ("mac", mac.to_string())]
            }
            Self::NeighbourFailed { network: at, address }
            | Self::NeighbourBack { network: at, address } => {
                vec![network(at), ("address", address.to_string())]
            }
            Self::OwnMac { network: at } => {
                vec![network(at), ("mac", table.network(*at).mac.to_string())]
            }
            Self::Probed { server, source_port, .. } => {
                vec![("server_id", server.to_string()), ("port", source_port.to_string())]
            }
            Self::ServerSilent { server, .. } => match table.server(*server) {
                Some((service, server)) => {
                    vec![("service", service.name.clone()), ("server", server.name.clone())]
                }
                None => vec![("server_id", server.to_string())],
            },
            Self::FlowsEnded { server, ended } => {
                vec![("server", server.to_string()), ("flows", ended.to_string())]
            }
            Self::Lost(count) => vec![("events", count.to_string())],
            Self::TableFull { flows } => vec![("flows", flows.to_string())],
            Self::ServerRetired(id) => vec![("server_id", id.to_string())],
            Self::ServiceRetired(id) => vec![("service_id", id.to_string())],
        }
    }
}

/// Who claims what is theirs as well, and what is to be done about it.
const fn text_of_claim(claim: &Claim) -> &'static str {
    match (claim.server, claim.suppressed) {
        (Some(_), true) => "a server claims a virtual IP: suppressed, nobody is misled",
        (Some(_), false) => {
            "ARP leak: a server claims a virtual IP; prepare it with `tapvs realserver`"
        }
        (None, _) => "address conflict: somebody claims an address of the router",
    }
}

/// Events not read yet.
#[derive(Debug)]
pub(super) struct Events {
    queue: VecDeque<Event>,
    lost: u64,
}

impl Events {
    pub(super) fn new() -> Self {
        Self { queue: VecDeque::with_capacity(MOST), lost: 0 }
    }

    pub(super) fn push(&mut self, event: Event) {
        // An id that is lost is never used again, which wastes eight bytes.
        if self.queue.len() < MOST {
            self.queue.push_back(event);
        } else {
            self.lost += 1;
        }
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            return Some(Event::Lost(lost));
        }
        self.queue.pop_front()
    }
}
