//! A new table: what is the same keeps its flows, counters and scheduler position; what is gone
//! drains.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::bridge::Limits;
use super::ending::Cause;
use super::{Dataplane, Event};
use crate::addr::{NetworkId, Proto, ServerId, ServiceId};
use crate::table::{Local, OnDown, OnRemove, Server, Service, Table};
use crate::time::Instant;

/// What makes a server the same across tables.
type Key = (Proto, Ipv4Addr, u16, Ipv4Addr, u16);

/// Ids that are not configured any more, until their last flow is gone.
#[derive(Debug, Default)]
pub(super) struct Retiring {
    services: BTreeSet<ServiceId>,
    servers: BTreeMap<ServerId, Key>,
    by_key: BTreeSet<(Key, ServerId)>,
    gone: Vec<Event>,
}

impl Retiring {
    fn add(&mut self, id: ServerId, key: Key) {
        self.servers.insert(id, key);
        self.by_key.insert((key, id));
    }

    /// Room for what there will be to tell. A set-up step: it may allocate.
    fn reserve(&mut self) {
        self.gone.reserve(self.services.len() + self.servers.len());
    }

    /// Those who were the same server.
    fn same(&self, key: Key) -> impl Iterator<Item = ServerId> {
        let range = (key, ServerId(0))..=(key, ServerId(u32::MAX));
        self.by_key.range(range).map(|(_, id)| *id)
    }

    /// A flow of `service` and `server` is gone; `left`: how many each still has.
    pub(super) fn settle(&mut self, service: ServiceId, server: ServerId, left: [u32; 2]) {
        if left[0] == 0 && self.services.remove(&service) {
            self.gone.push(Event::ServiceRetired(service));
        }
        if left[1] == 0
            && let Some(key) = self.servers.remove(&server)
        {
            self.by_key.remove(&(key, server));
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
        let (services, servers) = new.id_limits();
        self.cursors.reserve(services);
        self.figures.reserve(new.id_limits());
        self.standings.install(new);
        self.endings.reserve(servers);
        self.install_services(old, new, now);
        self.endings.reserve(servers);
        self.guard.install(new, now);
        self.limits = Limits::for_links(new, now);
        self.watch.install(new, now);
        self.pin_neighbours(new, now);
        self.install_addresses(old, new, now);
    }

    fn install_services(&mut self, old: Option<&Table>, new: &Table, now: Instant) {
        let before: HashMap<_, _> =
            old.map_or(&[][..], Table::services).iter().map(|s| (s.id, s)).collect();
        for service in new.services() {
            match before.get(&service.id) {
                // Shared with the table before: nothing is new about it.
                Some(before) if Arc::ptr_eq(before, service) => continue,
                Some(before) if before.servers == service.servers => {}
                Some(before) => self.cursors.change(before, service),
                None => {
                    self.cursors.start(service);
                    self.figures.reset_service(service.id);
                }
            }
            let before = before.get(&service.id).map(|before| before.as_ref());
            self.install_servers(before, service, now);
        }
        let Some(old) = old else { return };
        let services: HashMap<_, _> = new.services().iter().map(|s| (s.id, s)).collect();
        let servers: BTreeSet<_> = new.servers().map(|(_, server)| server.id).collect();
        for service in old.services().iter().filter(|service| !services.contains_key(&service.id)) {
            self.retiring.services.insert(service.id);
        }
        for (service, server) in old.servers().filter(|(_, s)| !servers.contains(&s.id)) {
            self.retiring.add(server.id, key(service, server));
            let after = services.get(&service.id).map_or(service, |after| after.as_ref());
            self.remove_server(after, server, now);
            self.settle(service.id, server.id);
        }
        self.retiring.reserve();
        for service in old.services() {
            self.settle(service.id, ServerId(u32::MAX));
        }
    }

    /// The servers of a service that is new or has changed.
    fn install_servers(&mut self, before: Option<&Service>, service: &Service, now: Instant) {
        let known = before.into_iter().flat_map(Service::all_servers);
        let known: HashMap<_, _> = known.map(|server| (server.id, server)).collect();
        for server in service.all_servers() {
            match known.get(&server.id) {
                Some(before) => self.change_server(service, before, server, now),
                None => {
                    self.figures.reset_server(server.id);
                    self.endings.forget(server.id);
                    self.standings.start(server, before.map(|_| now));
                    // Whoever takes a server away and gives it back has changed their mind.
                    for id in self.retiring.same(key(service, server)) {
                        self.endings.spare(id, Cause::Removed);
                    }
                }
            }
            let passive = service.lifecycle.passive_health.filter(|_| server.is_up);
            self.standings.watch(server.id, passive);
        }
    }

    fn change_server(&mut self, service: &Service, before: &Server, after: &Server, now: Instant) {
        if before.is_up != after.is_up {
            self.standings.answered(after.id);
        }
        match (before.is_up, after.is_up, service.lifecycle.on_down) {
            (true, false, OnDown::Reset | OnDown::Reschedule) => self.doom(after, Cause::Down, now),
            (false, true, _) => self.endings.spare(after.id, Cause::Down),
            _ => {}
        }
        match (before.is_drained, after.is_drained, service.lifecycle.drain_timeout) {
            (false, true, Some(timeout)) => self.doom_at(after, Cause::Drained, now + timeout),
            (true, false, _) => self.endings.spare(after.id, Cause::Drained),
            _ => {}
        }
        if before.weight == 0 && after.weight > 0 {
            self.standings.restart(after.id, now);
        }
    }

    /// `service` is as it is now, or was until now.
    fn remove_server(&mut self, service: &Service, server: &Server, now: Instant) {
        self.standings.watch(server.id, None);
        let rules = &service.lifecycle;
        match (rules.on_remove, rules.drain_timeout) {
            (OnRemove::Reset, _) => self.doom(server, Cause::Removed, now),
            (OnRemove::Drain, Some(timeout)) if !self.endings.is_doomed(server.id) => {
                self.doom_at(server, Cause::Removed, now + timeout);
            }
            (OnRemove::Drain, _) => {}
        }
    }

    /// Retires the ids at once where no flow is left.
    pub(super) fn settle(&mut self, service: ServiceId, server: ServerId) {
        let left =
            [self.figures.service(service).load.total(), self.figures.server(server).load.total()];
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

const fn key(service: &Service, server: &Server) -> Key {
    (service.proto, service.address, service.port, server.address, server.port)
}
