//! A new table: what is the same keeps its flows, counters and scheduler position; what is gone
//! drains.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::bridge::Limits;
use super::{Dataplane, Event};
use crate::addr::{NetworkId, ServerId, ServiceId};
use crate::table::{Local, Table};
use crate::time::Instant;

/// Ids that are not configured any more, until their last flow is gone.
#[derive(Debug, Default)]
pub(super) struct Retiring {
    services: BTreeSet<ServiceId>,
    servers: BTreeSet<ServerId>,
    gone: Vec<Event>,
}

impl Retiring {
    /// A flow of `service` and `server` is gone; `left`: how many each still has.
    pub(super) fn settle(&mut self, service: ServiceId, server: ServerId, left: [u32; 2]) {
        if left[0] == 0 && self.services.remove(&service) {
            self.gone.push(Event::ServiceRetired(service));
        }
        if left[1] == 0 && self.servers.remove(&server) {
            self.gone.push(Event::ServerRetired(server));
        }
    }

    /// The next id that may be used again.
    pub(super) fn pop(&mut self) -> Option<Event> {
        self.gone.pop()
    }
}

impl Dataplane {
    /// Takes `new` into use; the first one when there is no `old`.
    pub(super) fn install(&mut self, old: Option<&Table>, new: &Table, now: Instant) {
        let (services, _) = new.id_limits();
        self.cursors.reserve(services);
        self.figures.reserve(new.id_limits());
        self.install_services(old, new);
        self.guard.install(new, now);
        self.limits = Limits::for_links(new, now);
        self.watch.install(new, now);
        self.defence.install(new);
        self.pin_neighbours(new, now);
        self.install_addresses(old, new, now);
    }

    fn install_services(&mut self, old: Option<&Table>, new: &Table) {
        let before: std::collections::HashMap<_, _> =
            old.map_or(&[][..], Table::services).iter().map(|s| (s.id, s)).collect();
        for service in new.services() {
            match before.get(&service.id) {
                Some(before) if before.servers == service.servers => {}
                Some(before) => self.cursors.change(before, service),
                None => {
                    self.cursors.start(service);
                    self.figures.reset_service(service.id);
                }
            }
            let known = before.get(&service.id).map_or(&[][..], |before| &before.servers);
            let known: BTreeSet<ServerId> = known.iter().map(|server| server.id).collect();
            for server in service.servers.iter().filter(|server| !known.contains(&server.id)) {
                self.figures.reset_server(server.id);
            }
        }
        let Some(old) = old else { return };
        let services: BTreeSet<_> = new.services().iter().map(|service| service.id).collect();
        let servers: BTreeSet<_> = new.servers().map(|(_, server)| server.id).collect();
        for service in old.services().iter().filter(|service| !services.contains(&service.id)) {
            self.retiring.services.insert(service.id);
        }
        for (service, server) in old.servers().filter(|(_, s)| !servers.contains(&s.id)) {
            self.retiring.servers.insert(server.id);
            self.settle(service.id, server.id);
        }
        for service in old.services() {
            self.settle(service.id, ServerId(u32::MAX));
        }
    }

    /// Retires the ids at once where no flow is left.
    pub(super) fn settle(&mut self, service: ServiceId, server: ServerId) {
        let total = |load: super::Load| load.active + load.inactive;
        let left =
            [total(self.figures.service(service).load), total(self.figures.server(server).load)];
        self.retiring.settle(service, server, left);
    }

    /// Servers and gateways are resolved before they are needed, and kept fresh.
    fn pin_neighbours(&mut self, table: &Table, now: Instant) {
        self.neighbours.unpin_all();
        let servers = table.servers().map(|(_, server)| server.address);
        let gateways = table.networks().iter().filter_map(|network| network.gateway);
        let wanted = servers.chain(gateways).chain(table.route_gateways());
        let hops: BTreeSet<(NetworkId, Ipv4Addr)> = wanted
            .filter_map(|address| table.next_hop(address))
            .map(|hop| (hop.network, hop.address))
            .collect();
        self.neighbours.reserve(hops.len());
        for (network, address) in hops {
            self.neighbours.pin(network, address, now);
        }
    }

    fn install_addresses(&mut self, old: Option<&Table>, new: &Table, now: Instant) {
        let local = |table: &Table| -> BTreeSet<(Ipv4Addr, NetworkId)> {
            let own = table.networks().iter().flat_map(|network| {
                let id = network.id;
                network.addresses.iter().filter_map(move |own| match own.address() {
                    std::net::IpAddr::V4(address) => Some((address, id)),
                    std::net::IpAddr::V6(_) => None,
                })
            });
            own.chain(table.virtual_ips().iter().map(|vip| (vip.address, vip.network))).collect()
        };
        let (before, after) = (old.map(local).unwrap_or_default(), local(new));
        for (address, _) in before.difference(&after) {
            self.announcer.forget(*address);
        }
        for (address, network) in after.difference(&before) {
            debug_assert_eq!(new.local(*address).map(Local::network), Some(*network));
            self.announcer.announce(*network, *address, now);
        }
    }
}
