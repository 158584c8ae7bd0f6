//! Persistence: which server a client had, so that it gets the same one again (IPVS's templates).
//!
//! A client is an address, or as much of it as the service's prefix says. What is remembered of it lasts
//! for the service's timeout after its last new flow, and for as long as it has one. The table is bounded
//! and allocated once, when a service first asks for it.

use std::hash::Hasher;
use std::net::{Ipv4Addr, SocketAddrV4};

use siphasher::sip::SipHasher13;

use super::Dataplane;
use super::flow::{Class, Classes, Index, Tuple};
use super::wheel::Wheel;
use crate::addr::{Ports, Proto, ServerId, ServiceId};
use crate::table::{Persistence, Server, Service, Table};
use crate::time::{Duration, Instant};

const TICK: Duration = Duration::from_secs(1);
/// Clients remembered at most.
const MOST: usize = 1 << 20;
/// Clients looked at in one turn.
const EXPIRIES: u32 = 512;
/// How much longer a client is remembered that still has a flow when its time is up.
const AGAIN: Duration = Duration::from_secs(60);

/// What makes a service the same to both routers of a pair.
pub(super) type ServiceKey = (Proto, Ipv4Addr, Ports);

/// A client of one service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub(super) service: ServiceId,
    /// Host bits cleared.
    pub(super) address: Ipv4Addr,
    pub(super) prefix: u8,
    pub(super) server: ServerId,
    expires: Instant,
    /// Flows that it has.
    flows: u32,
    class: Class,
    /// It waits to be told about to the other router of a pair.
    pub(super) noted: bool,
    /// It came while its server was gone: it is to have another one, even if that comes back.
    is_stale: bool,
    lap: u8,
}

/// What a service says of its clients.
#[derive(Clone, Copy, Debug)]
struct Rule {
    key: ServiceKey,
    persistence: Persistence,
}

/// A client that is remembered, for listings and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// What its service balances.
    pub proto: Proto,
    /// Where it finds its service, at the first of the ports; 0 for all of them.
    pub virtual_ip: SocketAddrV4,
    /// Where its server listens; at port 0 for the one that the client's packet goes to.
    pub listens: SocketAddrV4,
    /// Whether some flow of it was assured.
    pub assured: bool,
    /// Its service.
    pub service: ServiceId,
    /// Its server.
    pub server: ServerId,
    /// Its address, host bits cleared.
    pub address: Ipv4Addr,
    /// So many bits of it count.
    pub prefix: u8,
    /// How many flows it has.
    pub flows: u32,
    /// How long it is remembered.
    pub left: Duration,
}

/// All clients that are remembered.
#[derive(Debug)]
pub(super) struct Clients {
    /// By service id; `None` for one that remembers nobody.
    rules: Vec<Option<Rule>>,
    clients: Vec<Client>,
    free: Vec<u32>,
    capacity: usize,
    index: Index,
    hasher: SipHasher13,
    wheel: Wheel,
    /// Those of whom no flow was ever assured go first.
    classes: Classes,
    max_flows: usize,
    /// Clients that were not remembered for want of room.
    refused: u64,
    /// Where servers listen, by id: the other router of a pair knows them by that.
    servers: Vec<(Ipv4Addr, u16)>,
}

impl Clients {
    pub(super) fn new(seed: &[u8; 16], max_flows: usize, now: Instant) -> Self {
        Self {
            rules: Vec::new(),
            clients: Vec::new(),
            free: Vec::new(),
            capacity: 0,
            index: Index::new(0),
            hasher: SipHasher13::new_with_key(seed),
            wheel: Wheel::new(TICK, now),
            classes: Classes::new(0),
            max_flows,
            refused: 0,
            servers: Vec::new(),
        }
    }

    /// Makes room for service ids and server ids below the limits. A set-up step: it may allocate.
    pub(super) fn reserve(&mut self, (services, servers): (usize, usize)) {
        self.rules.resize(services.max(self.rules.len()), None);
        let nowhere = (Ipv4Addr::UNSPECIFIED, 0);
        self.servers.resize(servers.max(self.servers.len()), nowhere);
    }

    /// The service is new, or has changed. A set-up step: it may allocate.
    pub(super) fn install(&mut self, service: &Service) {
        let rule = |persistence| Rule { key: service.key(), persistence };
        let rule = service.balance.persistence.map(rule);
        if rule.is_some() && self.capacity == 0 {
            self.capacity = self.max_flows.clamp(1, MOST);
            self.clients.reserve_exact(self.capacity);
            self.free.reserve_exact(self.capacity);
            self.index = Index::new(self.capacity);
            self.wheel.reserve(self.capacity);
            self.classes = Classes::new(self.capacity);
        }
        self.rules[service.id.index()] = rule;
        for server in &service.servers {
            self.servers[server.id.index()] = (server.address, server.port);
        }
    }

    /// How many are remembered.
    pub(super) const fn len(&self) -> usize {
        self.clients.len() - self.free.len()
    }

    /// How many places have ever been in use. A client keeps its place.
    pub(super) const fn places(&self) -> usize {
        self.clients.len()
    }

    /// Clients that were not remembered for want of room.
    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn get(&self, id: u32) -> &Client {
        &self.clients[id as usize]
    }

    pub(super) fn get_mut(&mut self, id: u32) -> &mut Client {
        &mut self.clients[id as usize]
    }

    /// The client in a place, if there is one.
    pub(super) fn at(&self, place: usize) -> Option<(u32, &Client)> {
        let client = self.clients.get(place).filter(|client| client.class != Class::Free)?;
        Some((u32::try_from(place).ok()?, client))
    }

    /// The clients in some places.
    pub(super) fn in_places(
        &self,
        places: std::ops::Range<usize>,
    ) -> impl Iterator<Item = &Client> {
        let clients = self.clients.get(places).unwrap_or_default().iter();
        clients.filter(|client| client.class != Class::Free)
    }

    /// What makes `service` the same to both routers of a pair, if it remembers clients.
    pub(super) fn key_of(&self, service: ServiceId) -> Option<ServiceKey> {
        self.rule(service).map(|rule| rule.key)
    }

    /// How many bits of an address make a client of `service`.
    pub(super) fn prefix_of(&self, service: ServiceId) -> Option<u8> {
        self.rule(service).map(|rule| rule.persistence.prefix)
    }

    /// Where `server` listens.
    pub(super) fn server_at(&self, server: ServerId) -> Option<(Ipv4Addr, u16)> {
        self.servers.get(server.index()).copied()
    }

    /// Who `address` is to `service`. May be past its time.
    pub(super) fn find(&self, service: ServiceId, address: Ipv4Addr) -> Option<u32> {
        let prefix = self.rule(service)?.persistence.prefix;
        let address = masked(address, prefix);
        self.index.find(self.hash(service, address), |id| {
            let client = self.get(id);
            (client.service, client.address, client.prefix) == (service, address, prefix)
        })
    }

    /// Whether it is remembered only because nobody has looked yet.
    pub(super) fn is_over(&self, id: u32, now: Instant) -> bool {
        let client = self.get(id);
        now >= client.expires && (client.flows == 0 || self.is_orphan(client))
    }

    /// How long the client is remembered.
    pub(super) fn left(&self, id: u32, now: Instant) -> Duration {
        left(self.get(id), now)
    }

    /// Whether some flow of the client's was assured.
    pub(super) fn is_assured(&self, id: u32) -> bool {
        self.get(id).class == Class::Protected
    }

    /// Some flow of the client's is assured.
    pub(super) fn assure(&mut self, id: u32) {
        self.reclass(id, Class::Protected);
    }

    /// The client is of this lap.
    pub(super) fn join_lap(&mut self, id: u32, lap: u8) {
        self.get_mut(id).lap = lap;
    }

    /// Whether the client came in this lap, or joined it.
    pub(super) fn is_of_lap(&self, id: u32, lap: u8) -> bool {
        self.get(id).lap == lap
    }

    /// How long a client of `service` is remembered from now on.
    pub(super) fn timeout(&self, service: ServiceId) -> Option<Duration> {
        self.rule(service).map(|rule| rule.persistence.timeout)
    }

    /// Its time begins anew.
    pub(super) fn touch(&mut self, id: u32, expires: Instant) {
        self.get_mut(id).expires = expires;
        self.wheel.hasten(id, expires);
    }

    /// Whom a new client may replace when there is no room; `None`: nobody has to go, or may.
    pub(super) fn victim(&self) -> Option<u32> {
        if self.len() < self.capacity { None } else { self.classes.oldest() }
    }

    /// Remembers that `address` has `server`. `None` where there is no room, or the service remembers
    /// nobody. The caller has looked whether it is known already.
    pub(super) fn insert(
        &mut self,
        service: ServiceId,
        address: Ipv4Addr,
        server: ServerId,
        lap: u8,
        expires: Instant,
    ) -> Option<u32> {
        let prefix = self.rule(service)?.persistence.prefix;
        if self.len() >= self.capacity {
            self.refused += 1;
            return None;
        }
        let address = masked(address, prefix);
        let client = Client {
            service,
            address,
            prefix,
            server,
            expires,
            flows: 0,
            class: Class::Free,
            noted: false,
            is_stale: false,
            lap,
        };
        let id = match self.free.pop() {
            Some(id) => {
                *self.get_mut(id) = client;
                id
            }
            None => {
                let id = u32::try_from(self.clients.len()).ok()?;
                self.clients.push(client);
                id
            }
        };
        self.index.insert(self.hash(service, address), id);
        self.wheel.schedule(id, expires);
        self.reclass(id, Class::Unassured);
        Some(id)
    }

    /// Forgets a client.
    pub(super) fn remove(&mut self, id: u32) {
        let Client { service, address, .. } = *self.get(id);
        self.index.remove(self.hash(service, address), id);
        self.wheel.cancel(id);
        self.reclass(id, Class::Free);
        self.free.push(id);
    }

    /// The next client whose time of once is over, and whether its time of now is: the caller removes
    /// it then. One that still has flows is given more.
    pub(super) fn next_over(&mut self, now: Instant) -> Option<(u32, bool)> {
        let id = self.wheel.pop(now)?;
        if self.is_over(id, now) {
            // It goes, and is taken off the wheel then.
            self.wheel.schedule(id, now);
            return Some((id, true));
        }
        let client = self.get_mut(id);
        if now >= client.expires {
            client.expires = now + AGAIN;
        }
        let expires = client.expires;
        self.wheel.schedule(id, expires);
        Some((id, false))
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.wheel.next_deadline()
    }

    /// Whether its service has come to mean others by a client, or remembers nobody any more.
    fn is_orphan(&self, client: &Client) -> bool {
        self.rule(client.service).is_none_or(|rule| rule.persistence.prefix != client.prefix)
    }

    fn rule(&self, service: ServiceId) -> Option<Rule> {
        self.rules.get(service.index()).copied().flatten()
    }

    fn reclass(&mut self, id: u32, class: Class) {
        let before = std::mem::replace(&mut self.get_mut(id).class, class);
        if before != class {
            self.classes.unlink(before, id);
            self.classes.push(class, id);
        }
    }

    fn hash(&self, service: ServiceId, address: Ipv4Addr) -> u64 {
        let mut hasher = self.hasher;
        hasher.write_u64(u64::from(service.0) << 32 | u64::from(address.to_bits()));
        hasher.finish()
    }
}

fn masked(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

fn left(client: &Client, now: Instant) -> Duration {
    if now >= client.expires { Duration::ZERO } else { client.expires - now }
}

impl Dataplane {
    /// The server that the client is to have again; `None`: whichever is chosen. Neither a weight of 0
    /// nor `max_flows` takes it away; that it is down, gone, or does not answer does.
    pub(super) fn remembered<'t>(
        &mut self,
        table: &'t Table,
        service: &'t Service,
        original: Tuple,
        now: Instant,
    ) -> Option<&'t Server> {
        service.balance.persistence?;
        let id = self.clients.find(service.id, original.source)?;
        if self.clients.is_over(id, now) {
            self.forget(id);
            return None;
        }
        let client = self.clients.get_mut(id);
        let known = table.server(client.server).filter(|(of, server)| {
            let is_quiescent = server.weight == 0 && service.balance.expire_quiescent;
            of.id == service.id && server.is_up && !is_quiescent
        });
        client.is_stale |= known.is_none();
        let (_, server) = known.filter(|_| !client.is_stale)?;
        if service.fallback.as_ref().is_some_and(|it| it.id == server.id) {
            return None;
        }
        let known = self.standings.candidate(table, service, server, &self.neighbours, now);
        let is_well = !known.is_out && !known.is_deaf && !self.endings.is_doomed(server.id);
        is_well.then_some(server)
    }

    /// The flow `id` of `service` has `server`: its client is to have it again.
    pub(super) fn remember(&mut self, service: &Service, server: &Server, flow: u32, now: Instant) {
        let Some(timeout) = self.clients.timeout(service.id) else { return };
        let address = self.flows.get(flow).original.source;
        if let Some(client) = self.remember_client(service.id, address, server.id, now + timeout) {
            self.control(client, flow);
        }
    }

    /// `address` is to have `server` again until `expires`; its place.
    pub(super) fn remember_client(
        &mut self,
        service: ServiceId,
        address: Ipv4Addr,
        server: ServerId,
        expires: Instant,
    ) -> Option<u32> {
        let known = self.clients.find(service, address);
        if let Some(id) = known {
            let client = self.clients.get_mut(id);
            client.is_stale = false;
            let before = std::mem::replace(&mut client.server, server);
            self.clients.touch(id, expires);
            if before == server {
                return Some(id);
            }
            self.client_left(service, before);
            self.client_came(service, server);
            self.note_client(id);
            return Some(id);
        }
        if let Some(victim) = self.clients.victim() {
            self.forget(victim);
        }
        let lap = self.flows.lap();
        let id = self.clients.insert(service, address, server, lap, expires)?;
        self.client_came(service, server);
        Some(id)
    }

    /// As long as `flow` is there, its client is not forgotten.
    pub(super) fn control(&mut self, client: u32, flow: u32) {
        let flow = self.flows.get_mut(flow);
        if flow.is_one_packet() || flow.is_remembered() {
            return;
        }
        flow.be_remembered();
        let is_assured = flow.assured;
        self.clients.get_mut(client).flows += 1;
        if is_assured {
            self.assure_client(client);
        }
    }

    /// A flow that a client has is assured now.
    pub(super) fn assure_client_of(&mut self, flow: u32) {
        let flow = self.flows.get(flow);
        if let Some((service, _)) = flow.owner().filter(|_| flow.is_remembered())
            && let Some(client) = self.clients.find(service, flow.original.source)
        {
            self.assure_client(client);
        }
    }

    fn assure_client(&mut self, client: u32) {
        if !self.clients.is_assured(client) {
            self.clients.assure(client);
            self.note_client(client);
        }
    }

    /// The client that has `flow` has one less.
    pub(super) fn release_client(&mut self, flow: u32) {
        let flow = self.flows.get(flow);
        if let Some((service, _)) = flow.owner()
            && let Some(client) = self.clients.find(service, flow.original.source)
        {
            let client = self.clients.get_mut(client);
            client.flows = client.flows.saturating_sub(1);
        }
    }

    /// Forgets clients whose time is over.
    pub(super) fn expire_clients(&mut self, now: Instant) {
        for _ in 0..EXPIRIES {
            match self.clients.next_over(now) {
                Some((id, true)) => self.forget(id),
                // The peer's copy was to live only so long.
                Some((id, false)) => self.note_client(id),
                None => break,
            }
        }
    }

    /// Forgets a client.
    pub(super) fn forget(&mut self, id: u32) {
        self.note_client_gone(id);
        let Client { service, server, .. } = *self.clients.get(id);
        self.clients.remove(id);
        self.client_left(service, server);
    }

    fn client_came(&mut self, service: ServiceId, server: ServerId) {
        let owner = Some((service, server));
        for figure in self.figures.both(owner) {
            figure.clients += 1;
        }
        self.note_bound(owner);
    }

    fn client_left(&mut self, service: ServiceId, server: ServerId) {
        let owner = Some((service, server));
        for figure in self.figures.both(owner) {
            figure.clients = figure.clients.saturating_sub(1);
        }
        self.note_unbound(owner);
        self.settle(service, server);
    }

    /// The clients that are remembered in some places from `from` on, and where to go on; `None` once
    /// all were looked at.
    pub fn clients_from(
        &self,
        from: usize,
        places: usize,
        now: Instant,
        mut out: impl FnMut(ClientInfo),
    ) -> Option<usize> {
        let to = from.saturating_add(places).min(self.clients.places());
        for client in self.clients.in_places(from.min(to)..to) {
            let Client { service, server, address, prefix, flows, class, .. } = *client;
            let (Some((proto, virtual_ip, ports)), Some((listens, port))) =
                (self.clients.key_of(service), self.clients.server_at(server))
            else {
                continue;
            };
            out(ClientInfo {
                proto,
                virtual_ip: SocketAddrV4::new(virtual_ip, ports.first),
                listens: SocketAddrV4::new(listens, port),
                assured: class == Class::Protected,
                service,
                server,
                address,
                prefix,
                flows,
                left: left(client, now),
            });
        }
        (to < self.clients.places()).then_some(to)
    }
}
