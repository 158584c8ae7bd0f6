//! Snapshots: who carries what, what was dropped and why.

use std::net::Ipv4Addr;

use super::flow::Flow;
use super::neighbour::Neighbour;
use super::{
    CopyCounters, Counters, Dataplane, DropReason, FtpCounters, Load, Reachability, State, Traffic,
    Tuple,
};
use crate::addr::{Endpoint, MacAddr, NetworkId, Proto, ServerId, ServiceId};
use crate::table::Table;
use crate::time::{Duration, Instant};

/// What the dataplane has done so far. Owned, so that another thread can print it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Frame counters.
    pub counters: Counters,
    /// Frames that wait for a neighbour or to be sent.
    pub waiting: u64,
    /// Flows tracked.
    pub flows: usize,
    /// Flows that fit.
    pub max_flows: usize,
    /// The table in use.
    pub generation: u32,
    /// Services in file order.
    pub services: Vec<ServiceReport>,
    /// Who else speaks for the router's addresses.
    pub claims: Vec<ClaimReport>,
    /// What was copied between the routers of a pair.
    pub copies: CopyCounters,
    /// What the FTP helper has done.
    pub ftp: FtpCounters,
}

/// Somebody else who speaks for one of the router's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimReport {
    /// The address.
    pub address: Ipv4Addr,
    /// Where.
    pub network: String,
    /// Who says that it is theirs.
    pub mac: MacAddr,
    /// The name or address of the real server with this MAC, if it holds the address rightly.
    pub server: Option<String>,
    /// How long ago it was first heard.
    pub first: Duration,
    /// How long ago it was last heard.
    pub last: Duration,
    /// How often.
    pub count: u64,
    /// Whether the router kept it from those whom it would mislead.
    pub suppressed: bool,
}

/// One service's figures.
#[derive(Clone, Debug)]
pub struct ServiceReport {
    /// Its label.
    pub name: String,
    /// What it balances.
    pub proto: Proto,
    /// Where clients find it, at the first of its ports.
    pub endpoint: Endpoint,
    /// What it carried.
    pub traffic: Traffic,
    /// Its flows.
    pub load: Load,
    /// Its servers in file order, then the fallback.
    pub servers: Vec<ServerReport>,
}

/// One server's figures.
#[derive(Clone, Debug)]
pub struct ServerReport {
    /// Its label.
    pub name: String,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Its share.
    pub weight: u32,
    /// What it carried.
    pub traffic: Traffic,
    /// Its flows.
    pub load: Load,
    /// It has as many flows as it may have.
    pub is_full: bool,
}

/// One flow, for listings and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowInfo {
    /// As the client's packets arrive.
    pub original: Tuple,
    /// As the server's packets arrive; those of a direct flow arrive elsewhere.
    pub reply: Tuple,
    /// Its TCP state.
    pub state: State,
    /// Whether both ends have shown that they are there.
    pub assured: bool,
    /// Directly routed: the server's packets are not seen.
    pub direct: bool,
    /// For one datagram and its answer: the client's packets do not find it.
    pub one_packet: bool,
    /// Learnt from the other router of a pair, from when on its packets are counted here.
    pub copied: bool,
    /// Whose it is and who serves it; `None` for what is merely routed, or served by a server that is
    /// not configured here.
    pub owner: Option<(ServiceId, ServerId)>,
    /// Packets from and to the client.
    pub packets: [u32; 2],
    /// Bytes from and to the client.
    pub bytes: [u64; 2],
}

/// One neighbour, for listings and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourInfo {
    /// Where.
    pub network: NetworkId,
    /// Who.
    pub address: Ipv4Addr,
    /// Its MAC, zero while not known.
    pub mac: MacAddr,
    /// Whether it answers.
    pub state: Reachability,
    /// Whether the configuration names it.
    pub configured: bool,
}

impl FlowInfo {
    pub(super) const fn of(flow: &Flow) -> Self {
        Self {
            original: flow.original,
            reply: flow.reply,
            state: flow.state,
            assured: flow.assured,
            direct: flow.direct,
            one_packet: flow.is_one_packet(),
            copied: flow.copied,
            owner: flow.owner(),
            packets: flow.packets,
            bytes: flow.bytes,
        }
    }
}

impl NeighbourInfo {
    pub(super) const fn of(neighbour: &Neighbour) -> Self {
        Self {
            network: neighbour.network,
            address: neighbour.address,
            mac: neighbour.mac,
            state: neighbour.state,
            configured: neighbour.pinned,
        }
    }
}

impl Report {
    /// Whether every frame is accounted for (see [`Counters`]).
    pub fn balances(&self) -> bool {
        let c = &self.counters;
        // A refused write was counted as leaving before it turned into a drop.
        let drops = c.all_drops() - c.dropped(DropReason::WriteRefused);
        let out = c.forwarded + c.replied + c.split + c.transmitted;
        let kept = c.to_host + c.to_ha + c.consumed;
        c.received + c.originated + c.copies == out + kept + drops + self.waiting
    }
}

impl Dataplane {
    /// A snapshot for people.
    pub fn report(&self, table: &Table, now: Instant) -> Report {
        let claims = self.watch.claims().map(|claim| ClaimReport {
            address: claim.address,
            network: table.network(claim.network).name.clone(),
            mac: claim.mac,
            server: claim.server.map(|server| table.server_label(server)),
            first: now - claim.since,
            last: now - claim.last,
            count: claim.count,
            suppressed: claim.suppressed,
        });
        let claims = claims.collect();
        let services = table.services().iter().map(|service| {
            let figure = self.figures.service(service.id);
            let servers = service.all_servers().map(|server| {
                let figure = self.figures.server(server.id);
                ServerReport {
                    name: server.name.clone(),
                    endpoint: Endpoint { address: server.address.into(), port: server.port },
                    weight: server.weight,
                    traffic: figure.traffic,
                    load: figure.load,
                    is_full: self.thresholds.is_full(server.id),
                }
            });
            ServiceReport {
                name: service.name.clone(),
                proto: service.proto,
                endpoint: Endpoint { address: service.address.into(), port: service.ports.first },
                traffic: figure.traffic,
                load: figure.load,
                servers: servers.collect(),
            }
        });
        Report {
            counters: self.counters.clone(),
            waiting: (self.outbox.held() + self.outbox.queued()) as u64,
            flows: self.flows.len(),
            max_flows: self.flows.capacity(),
            generation: table.generation(),
            services: services.collect(),
            claims,
            copies: *self.copy_counters(),
            ftp: self.ftp_counters(),
        }
    }

    /// All flows, in no meaningful order.
    pub fn flows(&self) -> impl Iterator<Item = FlowInfo> {
        self.flows.iter().map(FlowInfo::of)
    }

    /// All neighbours, in no meaningful order.
    pub fn neighbours(&self) -> impl Iterator<Item = NeighbourInfo> {
        self.neighbours.iter().map(NeighbourInfo::of)
    }
}
