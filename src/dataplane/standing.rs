//! What the choice of a server depends on besides weight and load: whether it answers, and since when
//! it is in service.
//!
//! A server that answers nobody is found out by its clients' connections (passive health): who
//! repeats a SYN got no answer to the first. A flood from forged addresses does not look like that,
//! because a living server answers every SYN of it.

use std::net::Ipv4Addr;

use super::neighbour::{NeighbourRef, Neighbours};
use super::schedule::{Candidate, WHOLE};
use super::{Dataplane, Event};
use crate::addr::{ServerId, ServiceId};
use crate::table::{PassiveHealth, Server, Service, Table};
use crate::time::{Duration, Instant};

/// As many clients are remembered, of those that a server has not answered.
const CLIENTS: usize = 16;
/// A SYN repeated after so long was not answered (RFC 6298 section 2.1: one second, of which clocks and
/// the way may take some off).
pub(super) const REPEATED: Duration = Duration::from_millis(900);

/// One server's.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// Its next hop, once it was looked for.
    neighbour: NeighbourRef,
    /// Since when it is in service; `None`: for long enough.
    since: Option<Instant>,
    /// It answers nobody: until then it is not chosen.
    silent_until: Option<Instant>,
    /// Whether its connections are watched.
    passive: Option<PassiveHealth>,
}

const UNKNOWN: Standing =
    Standing { neighbour: NeighbourRef::NONE, since: None, silent_until: None, passive: None };

/// Clients in a row that a server has not answered.
#[derive(Clone, Copy, Debug)]
struct Unanswered {
    clients: [Ipv4Addr; CLIENTS],
    count: u8,
}

/// All servers', by id.
#[derive(Debug, Default)]
pub(super) struct Standings {
    servers: Vec<Standing>,
    /// As long as `servers` where some service wants it, otherwise empty.
    unanswered: Vec<Unanswered>,
    /// When the first of those is tried again who answer nobody.
    back: Option<Instant>,
    /// How often somebody became one of them or was one no longer, or ways changed.
    turns: u64,
}

impl Standings {
    /// Makes room for server ids below the limit. Ways may lead elsewhere from now on. A set-up step:
    /// it may allocate.
    pub(super) fn install(&mut self, table: &Table) {
        let (_, limit) = table.id_limits();
        let limit = limit.max(self.servers.len());
        self.turns += 1;
        self.servers.resize(limit, UNKNOWN);
        let mut services = table.services().iter();
        if services.any(|service| service.lifecycle.passive_health.is_some()) {
            let none = Unanswered { clients: [Ipv4Addr::UNSPECIFIED; CLIENTS], count: 0 };
            self.unanswered.resize(limit, none);
        }
        for standing in &mut self.servers {
            standing.neighbour = NeighbourRef::NONE;
        }
    }

    /// The id is this server's from now on; `since` it came into service, if not from the start.
    pub(super) fn start(&mut self, server: &Server, since: Option<Instant>) {
        self.servers[server.id.index()] = Standing { since, ..UNKNOWN };
        self.turns += 1;
        self.answered(server.id);
    }

    /// The server has come back into service.
    pub(super) fn restart(&mut self, server: ServerId, now: Instant) {
        self.servers[server.index()].since = Some(now);
    }

    /// Whether the server's connections are watched; `None` also for one that is down or gone.
    pub(super) fn watch(&mut self, server: ServerId, passive: Option<PassiveHealth>) {
        self.servers[server.index()].passive = passive;
    }

    /// The server answers, or what is to be thought of it is settled otherwise.
    pub(super) fn answered(&mut self, server: ServerId) {
        if let Some(standing) = self.servers.get_mut(server.index())
            && standing.silent_until.take().is_some()
        {
            self.turns += 1;
        }
        if let Some(unanswered) = self.unanswered.get_mut(server.index()) {
            unanswered.count = 0;
        }
    }

    /// Whether the server's connections are watched.
    pub(super) fn is_watched(&self, server: ServerId) -> bool {
        self.servers.get(server.index()).is_some_and(|standing| standing.passive.is_some())
    }

    /// Another number once [`Standings::candidate`] may say of some configured server that it is out or
    /// deaf, or no longer.
    pub(super) fn outlook(&mut self, neighbours: &Neighbours, now: Instant) -> u64 {
        if self.back.is_some_and(|back| back <= now) {
            self.turns += 1;
            let silent = self.servers.iter().filter_map(|standing| standing.silent_until);
            self.back = silent.filter(|until| now < *until).min();
        }
        self.turns.wrapping_add(neighbours.turns())
    }

    /// What there is to know of `server` when one is chosen for a new flow; its load is added later.
    pub(super) fn candidate(
        &mut self,
        table: &Table,
        service: &Service,
        server: &Server,
        neighbours: &Neighbours,
        now: Instant,
    ) -> Candidate {
        let Some(standing) = self.servers.get_mut(server.id.index()) else {
            return Candidate::default();
        };
        let known = neighbours.resolve(standing.neighbour).or_else(|| {
            let hop = table.next_hop(server.address)?;
            let id = neighbours.find(hop.network, hop.address)?;
            standing.neighbour = neighbours.reference(id);
            Some(id)
        });
        Candidate {
            share: standing.share(service.lifecycle.slow_start, now),
            is_deaf: known.is_some_and(|id| neighbours.is_silent(id)),
            is_out: standing.silent_until.is_some_and(|until| now < until),
            ..Candidate::default()
        }
    }

    /// The server has left `client` unanswered; whether that is one too many.
    fn unanswered(&mut self, server: ServerId, client: Ipv4Addr, now: Instant) -> bool {
        let Some(standing) = self.servers.get_mut(server.index()) else { return false };
        let Some(passive) = standing.passive else { return false };
        let Some(unanswered) = self.unanswered.get_mut(server.index()) else { return false };
        let known = usize::from(unanswered.count);
        if standing.silent_until.is_some_and(|until| now < until)
            || unanswered.clients[..known].contains(&client)
        {
            return false;
        }
        let Some(place) = unanswered.clients.get_mut(known) else { return false };
        *place = client;
        unanswered.count += 1;
        let is_too_many = unanswered.count >= passive.unanswered;
        if is_too_many {
            unanswered.count = 0;
            let until = now + passive.retry;
            standing.silent_until = Some(until);
            self.back = Some(self.back.map_or(until, |back| back.min(until)));
            self.turns += 1;
            // It comes back as one that was down.
            standing.since = Some(until);
        }
        is_too_many
    }
}

impl Standing {
    /// How much of its weight counts, of [`WHOLE`].
    fn share(&self, slow_start: Option<Duration>, now: Instant) -> u32 {
        let (Some(ramp), Some(since)) = (slow_start, self.since) else { return WHOLE };
        let passed = u64::try_from(now.total_micros() - since.total_micros()).unwrap_or(0);
        let ramp = ramp.total_micros().max(1);
        if passed >= ramp {
            return WHOLE;
        }
        // Less than an hour of microseconds: the product fits.
        u32::try_from(passed * u64::from(WHOLE) / ramp).map_or(WHOLE, |share| share.max(1))
    }
}

impl Dataplane {
    /// A client of a watched server got no answer.
    pub(super) fn note_unanswered(
        &mut self,
        (service, server): (ServiceId, ServerId),
        client: Ipv4Addr,
        now: Instant,
    ) {
        if self.standings.unanswered(server, client, now) {
            self.events.push(Event::ServerSilent { service, server });
        }
    }
}
