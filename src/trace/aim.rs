//! A filter with its names looked up in one table, and whether a packet passes it.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use super::filter::{Filter, Protocol, ServerIs};
use super::packet::Packet;
use super::record::{Exit, FlowSeen, Kind, Outcome};
use crate::addr::{Cidr, LinkId, ServerId, ServiceId};
use crate::dataplane::DropReason;
use crate::table::Table;

/// What to look for. Ids that were found once stay: flows of what was removed still have them, until
/// they are given to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aim {
    client: Option<Cidr>,
    server: Option<Server>,
    service: Option<Vec<ServiceId>>,
    verdict: Option<Kind>,
    reason: Option<DropReason>,
    proto: Option<Protocol>,
    port: Option<u16>,
    link: Option<LinkId>,
}

/// Servers by either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Server {
    ids: Vec<ServerId>,
    addresses: Vec<(Ipv4Addr, Option<u16>)>,
}

/// All that is known of a packet when it is decided whether somebody wants it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) packet: Packet,
    pub(super) flow: Option<FlowSeen>,
    pub(super) service: Option<ServiceId>,
    pub(super) ingress: Option<LinkId>,
    pub(super) outcome: Outcome,
    pub(super) exit: Exit,
}

impl Aim {
    /// `filter` with the names of `table`; an unknown one is the error: its kind and itself.
    pub fn new(filter: &Filter, table: &Table) -> Result<Self, (&'static str, String)> {
        let aim = Self::at(filter, table, &Self::default());
        let unknown = |what, name: &Option<String>| (what, name.clone().unwrap_or_default());
        if aim.service.as_ref().is_some_and(Vec::is_empty) {
            return Err(unknown("service", &filter.service));
        }
        if let (Some(ServerIs::Named(name)), Some(server)) = (&filter.server, &aim.server)
            && server.ids.is_empty()
        {
            return Err(("server", name.clone()));
        }
        if filter.link.is_some() && aim.link.is_none() {
            return Err(unknown("link", &filter.link));
        }
        Ok(aim)
    }

    /// The same for a table that came after.
    #[must_use]
    pub fn follow(&self, filter: &Filter, table: &Table) -> Self {
        Self::at(filter, table, self)
    }

    fn at(filter: &Filter, table: &Table, before: &Self) -> Self {
        let Filter { client, server, service, verdict, reason, proto, port, link } = filter;
        let links = (0..=u16::MAX).map(LinkId).take(table.link_count());
        Self {
            client: *client,
            server: server.as_ref().map(|server| Server::find(server, table, &before.server)),
            service: service.as_ref().map(|name| {
                let (mine, others): (Vec<_>, Vec<_>) =
                    table.services().iter().partition(|known| known.name == *name);
                // An id that is free again may be another's now.
                let is_others = |id: &ServiceId| others.iter().any(|other| other.id == *id);
                let known = before.service.iter().flatten().copied();
                let known = known.filter(|id| !is_others(id));
                unique(known.chain(mine.into_iter().map(|service| service.id)))
            }),
            verdict: *verdict,
            reason: *reason,
            proto: *proto,
            port: *port,
            link: link.as_ref().and_then(|name| {
                let mut links = links;
                links.find(|id| table.link_name(*id) == name)
            }),
        }
    }

    /// Before the verdict: `false` if the packet cannot be one, whatever becomes of it. `flow` and
    /// `service` as they are now.
    pub(super) fn may_admit(
        &self,
        packet: &Packet,
        flow: Option<&FlowSeen>,
        service: Option<ServiceId>,
    ) -> bool {
        if self.proto.is_some_and(|proto| packet.protocol != Some(proto)) {
            return false;
        }
        // It may get another flow than the one it finds, and one of a service gets a new one.
        let open = packet.opens || flow.is_none() && service.is_some();
        self.admits_client(packet, flow.filter(|_| !packet.opens))
            && (open || self.admits_port(packet, flow))
            && (open || self.admits_service(flow, service))
            && (open || self.admits_server(packet, flow))
    }

    /// After the verdict.
    pub(super) fn admits(&self, facts: &Facts) -> bool {
        let Facts { packet, flow, service, ingress, outcome, exit } = facts;
        self.proto.is_none_or(|proto| packet.protocol == Some(proto))
            && self.verdict.is_none_or(|kind| outcome.kind() == kind)
            && self.reason.is_none_or(|reason| outcome.reason() == Some(reason))
            && self.link.is_none_or(|link| *ingress == Some(link) || *exit == Exit::Link(link))
            && self.admits_client(packet, flow.as_ref())
            && self.admits_port(packet, flow.as_ref())
            && self.admits_service(flow.as_ref(), *service)
            && self.admits_server(packet, flow.as_ref())
    }

    fn admits_client(&self, packet: &Packet, flow: Option<&FlowSeen>) -> bool {
        let Some(prefix) = self.client else { return true };
        let lies_in = |address: Ipv4Addr| prefix.contains(address.into());
        match (flow, packet.ends) {
            (Some(flow), _) => lies_in(flow.original.source),
            (None, Some(ends)) => ends.into_iter().any(lies_in),
            (None, None) => false,
        }
    }

    fn admits_port(&self, packet: &Packet, flow: Option<&FlowSeen>) -> bool {
        let Some(port) = self.port else { return true };
        let of_flow = flow.is_some_and(|FlowSeen { original, reply, .. }| {
            let tuples = [original, reply];
            tuples.iter().any(|t| t.source_port == port || t.destination_port == port)
        });
        of_flow || packet.ports.is_some_and(|ports| ports.contains(&port))
    }

    fn admits_service(&self, flow: Option<&FlowSeen>, service: Option<ServiceId>) -> bool {
        let Some(ids) = &self.service else { return true };
        let owner = flow.and_then(|flow| flow.owner).map(|(service, _)| service);
        owner.or(service).is_some_and(|id| ids.contains(&id))
    }

    fn admits_server(&self, packet: &Packet, flow: Option<&FlowSeen>) -> bool {
        let Some(Server { ids, addresses }) = &self.server else { return true };
        let is_at = |address, port| {
            let mut all = addresses.iter();
            all.any(|(at, of)| *at == address && of.is_none_or(|of| port == Some(of)))
        };
        match (flow, packet.ends) {
            (Some(FlowSeen { owner: Some((_, id)), .. }), _) if !ids.is_empty() => ids.contains(id),
            (Some(flow), _) => is_at(flow.reply.source, Some(flow.reply.source_port)),
            (None, Some(ends)) => {
                let ports = packet.ports.map_or([None; 2], |ports| ports.map(Some));
                ends.into_iter().zip(ports).any(|(address, port)| is_at(address, port))
            }
            (None, None) => false,
        }
    }
}

impl Server {
    fn find(filter: &ServerIs, table: &Table, before: &Option<Self>) -> Self {
        let (mut ids, mut addresses) =
            before.clone().map_or_else(Default::default, |before| (before.ids, before.addresses));
        match filter {
            ServerIs::Named(name) => {
                let others = table.servers().filter(|(_, server)| server.name != *name);
                let others: HashSet<ServerId> = others.map(|(_, server)| server.id).collect();
                ids.retain(|id| !others.contains(id));
                for (_, server) in table.servers().filter(|(_, server)| server.name == *name) {
                    ids.push(server.id);
                    addresses.push((server.address, None));
                }
            }
            ServerIs::At(IpAddr::V4(address), port) => addresses.push((*address, *port)),
            ServerIs::At(IpAddr::V6(_), _) => {}
        }
        Self { ids: unique(ids.into_iter()), addresses: unique(addresses.into_iter()) }
    }
}

fn unique<T: Ord>(all: impl Iterator<Item = T>) -> Vec<T> {
    let all: BTreeSet<T> = all.collect();
    all.into_iter().collect()
}
