//! A new table: what is the same keeps its flows, counters and scheduler position; what is gone
//! drains.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::bridge::Limits;
use super::ending::Cause;
use super::{Dataplane, Event};
use crate::addr::{Ports, Proto, ServerId, ServiceId};
use crate::table::{Difference, OnDown, OnRemove, Server, Service, ServiceChange, Table};
use crate::time::Instant;

/// Steps of what need not be done at once, per turn.
const PART: usize = 256;

/// What makes a server the same across tables.
type Key = (Proto, Ipv4Addr, Ports, Ipv4Addr, u16);

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

    /// The id is configured again; whether it still had something of its own.
    fn take_back(&mut self, id: ServerId) -> bool {
        let key = self.servers.remove(&id);
        key.is_some_and(|key| self.by_key.remove(&(key, id)))
    }

    /// Those who were the same server.
    fn same(&self, key: Key) -> impl Iterator<Item = ServerId> {
        let range = (key, ServerId(0))..=(key, ServerId(u32::MAX));
        self.by_key.range(range).map(|(_, id)| *id)
    }

    /// A flow of `service` and `server` is gone; `left`: how many each still has. Whether the server's id
    /// may be used again.
    pub(super) fn settle(&mut self, service: ServiceId, server: ServerId, left: [u32; 2]) -> bool {
        if left[0] == 0 && self.services.remove(&service) {
            self.gone.push(Event::ServiceRetired(service));
        }
        if left[1] == 0
            && let Some(key) = self.servers.remove(&server)
        {
            self.by_key.remove(&(key, server));
            self.gone.push(Event::ServerRetired(server));
            return true;
        }
        false
    }

    /// The next id that may be used again.
    pub(super) fn pop(&mut self) -> Option<Event> {
        self.gone.pop()
    }
}

/// How far the parts of a table's [`Difference`] have come that need not be done at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    removed_servers: usize,
    removed_services: usize,
    removed_hops: usize,
    hops: usize,
    is_under_way: bool,
}

impl Progress {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.is_under_way.then_some(Instant::ZERO)
    }
}

impl Dataplane {
    /// Takes `new` into use; the first one when there is no `old`. Whatever decides about frames is
    /// done at once, the rest in parts: see [`Dataplane::go_on_installing`].
    pub(super) fn install(&mut self, old: Option<&Table>, new: &Table, now: Instant) {
        if let Some(old) = old.filter(|_| self.progress.is_under_way) {
            self.install_part(old.difference(), usize::MAX, now);
        }
        let found;
        let is_next = new.difference().since == old.map(Table::generation);
        let difference = if is_next {
            new.difference()
        } else {
            // One was passed over.
            found = Difference::between(old, new);
            &found
        };
        let (services, servers) = new.id_limits();
        self.schedulers.reserve(new.id_limits());
        self.thresholds.reserve(servers);
        self.lifetimes.reserve(services);
        self.clients.reserve(new.id_limits());
        self.figures.reserve(new.id_limits());
        self.estimates.reserve(new.id_limits(), now);
        self.ftp.install(new);
        self.standings.install(new);
        self.endings.reserve(servers);
        for change in &difference.services {
            self.install_service(change, now);
        }
        self.endings.reserve(servers);
        self.guard.install(new, now);
        self.limits = Limits::for_links(new, now);
        self.watch.install(new, now);
        self.defence.install(new);
        self.announcer.forget(&difference.removed_addresses);
        self.announcer.announce(&difference.addresses, now);
        if !self.is_active() {
            self.announcer.keep_own(new);
        }
        self.takeover.restart_round();
        self.neighbours.reserve(new.kept_hops());
        self.copies.table_changed();
        self.progress = Progress { is_under_way: true, ..Progress::default() };
        let at_once = if is_next && old.is_some() { PART } else { usize::MAX };
        self.install_part(difference, at_once, now);
    }

    /// Goes on with what is left of taking `table` into use; a bounded amount of work.
    pub(super) fn go_on_installing(&mut self, table: &Table, now: Instant) {
        if self.progress.is_under_way {
            self.install_part(table.difference(), PART, now);
        }
    }

    /// Whether all of the last table is in use, and nothing refers to the one before.
    pub const fn is_settled(&self) -> bool {
        !self.progress.is_under_way
    }

    /// Does so many of the steps that are left.
    fn install_part(&mut self, difference: &Difference, steps: usize, now: Instant) {
        let Difference { removed_servers, removed_services, removed_hops, hops, .. } = difference;
        let mut left = steps;
        let mut next = |at: &mut usize, of: usize| {
            let is_there = left > 0 && *at < of;
            if is_there {
                left -= 1;
                *at += 1;
            }
            is_there
        };
        let mut progress = self.progress;
        while next(&mut progress.removed_servers, removed_servers.len()) {
            let (service, server) = &removed_servers[progress.removed_servers - 1];
            self.retiring.add(server.id, key(service, server));
            self.remove_server(service, server, now);
            self.settle(service.id, server.id);
        }
        while next(&mut progress.removed_services, removed_services.len()) {
            let service = removed_services[progress.removed_services - 1];
            self.retiring.services.insert(service);
            self.settle(service, ServerId(u32::MAX));
        }
        while next(&mut progress.removed_hops, removed_hops.len()) {
            let hop = removed_hops[progress.removed_hops - 1];
            self.neighbours.unpin(hop.network, hop.address);
        }
        while next(&mut progress.hops, hops.len()) {
            let hop = hops[progress.hops - 1];
            self.neighbours.pin(hop.network, hop.address, now);
        }
        // What comes of it later, on the frame path, must find room.
        self.retiring.reserve();
        self.endings.reserve(0);
        progress.is_under_way = left == 0;
        self.progress = progress;
    }

    /// A service that is new or has changed.
    fn install_service(&mut self, change: &ServiceChange, now: Instant) {
        let ServiceChange { before, after: service, servers } = change;
        if before.is_none() {
            self.figures.reset_service(service.id);
            self.estimates.reset_service(service.id);
        }
        self.lifetimes.install(service);
        self.clients.install(service);
        self.schedulers.install(before.as_deref(), service);
        for (server, known) in service.all_servers().zip(servers) {
            let known = known.and_then(|at| before.as_ref()?.all_servers().nth(at));
            match known {
                Some(before) => {
                    self.thresholds.change(server.id, server.limits);
                    self.change_server(service, before, server, now);
                }
                None if self.retiring.take_back(server.id) => {
                    self.thresholds.change(server.id, server.limits);
                    self.endings.spare(server.id, Cause::Removed);
                    self.standings.start(server, Some(now));
                }
                None => {
                    self.figures.reset_server(server.id);
                    self.estimates.reset_server(server.id);
                    self.thresholds.reset(server.id, server.limits);
                    self.endings.forget(server.id);
                    self.standings.start(server, before.as_ref().map(|_| now));
                    // Whoever takes a server away and gives it back has changed their mind.
                    for id in self.retiring.same(key(service, server)) {
                        self.endings.spare(id, Cause::Removed);
                    }
                }
            }
            let passive = service.lifecycle.passive_health.filter(|_| server.is_up);
            self.standings.watch(server.id, passive);
            self.note_load(server.id);
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
        let left = [self.figures.service(service).held(), self.figures.server(server).held()];
        if self.retiring.settle(service, server, left) {
            self.schedulers.retire(service, server);
        }
    }
}

const fn key(service: &Service, server: &Server) -> Key {
    (service.proto, service.address, service.ports, server.address, server.port)
}
