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
    TableFull,
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
            | Self::TableFull => log::Level::Warn,
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
    /// The event in words, with networks by name.
    pub fn describe(&self, table: &Table) -> String {
        let on = |network: &NetworkId| &table.network(*network).name;
        match self {
            Self::AddressConflict(claim) => describe_claim(claim, table),
            Self::LoopFound { sent, came, shut } => {
                let [sent, came, shut] = [sent, came, shut].map(|link| table.link_name(*link));
                format!(
                    "loop: what left by {sent} came back by {came}; {shut} is shut until it is gone"
                )
            }
            Self::LoopOver { link } => {
                format!("the loop is gone: {} is open again", table.link_name(*link))
            }
            Self::NeighbourMoved { network, address, mac } => {
                format!("neighbour {address} on network {} moved to {mac}", on(network))
            }
            Self::NeighbourFailed { network, address } => format!(
                "neighbour {address} on network {} does not answer ARP; its flows wait or fail",
                on(network)
            ),
            Self::NeighbourBack { network, address } => {
                format!("neighbour {address} on network {} answers again", on(network))
            }
            Self::OwnMac { network } => format!(
                "a frame came in on network {} from this router's own MAC {}: a loop, or a second \
                 router of the same name; give one of them another name or mac",
                on(network),
                table.network(*network).mac
            ),
            Self::Probed { server, source_port, outcome } => {
                format!("probe of server {server} from port {source_port}: {outcome:?}")
            }
            Self::ServerSilent { service, server } => describe_silence(*service, *server, table),
            Self::FlowsEnded { server, ended } => {
                format!("{ended} flows of server {server} were ended")
            }
            Self::Lost(count) => format!("{count} events were not kept"),
            Self::TableFull => "flow table full: new flows are refused; raise max_flows".to_owned(),
            Self::ServerRetired(id) => format!("last flow of removed server {id} is gone"),
            Self::ServiceRetired(id) => format!("last flow of removed service {id} is gone"),
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
                let server = claim.server.map(|server| ("server", server.to_string()));
                let fields = [
                    network(&claim.network),
                    ("address", claim.address.to_string()),
                    ("mac", claim.mac.to_string()),
                    ("count", claim.count.to_string()),
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
            Self::TableFull => Vec::new(),
            Self::ServerRetired(id) => vec![("server_id", id.to_string())],
            Self::ServiceRetired(id) => vec![("service_id", id.to_string())],
        }
    }
}

/// Who answers nobody, by name.
fn describe_silence(service: ServiceId, server: ServerId, table: &Table) -> String {
    match table.server(server) {
        Some((service, server)) => format!(
            "server {} of service {} leaves connections unanswered; it gets no new ones for now",
            server.name, service.name
        ),
        None => format!("server {server} of service {service} leaves connections unanswered"),
    }
}

/// Who claims what, how often, since when.
fn describe_claim(claim: &Claim, table: &Table) -> String {
    let Claim { address, mac, count, .. } = claim;
    let network = &table.network(claim.network).name;
    let server = claim.server.map(|server| table.server_label(server));
    let often = match count {
        1 => String::new(),
        _ => format!(", {count} times in {} s", (claim.last - claim.since).secs()),
    };
    match (server, claim.suppressed) {
        (Some(server), true) => format!(
            "server {server} at {mac} claims {address} on network {network}{often}: suppressed, nobody is misled"
        ),
        (Some(server), false) => format!(
            "ARP leak: server {server} at {mac} claims {address} on network {network}{often}; prepare it with \
             `tapvs realserver`"
        ),
        (None, _) => format!(
            "address conflict: {mac} claims {address}, which is this router's, on network {network}{often}"
        ),
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
