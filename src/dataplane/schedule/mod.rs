//! Which server a new flow gets, exactly as Linux IPVS chooses. "First" is first in the file; ties go
//! to the first. What is static of it (weights, buckets) is the table's; what has happened is here.
//!
//! A server that takes no new flow for a reason that IPVS does not know (its clients get no answer, its
//! MAC is not known) is passed over like one that is overloaded.

mod hash;
mod heaviest;
mod least;
mod load;
mod locality;
mod rank;
mod round_robin;
mod twos;

use std::net::Ipv4Addr;

use super::draw::{Draw, Use};
use crate::addr::{ServerId, ServiceId};
use crate::table::{Scheduler, Server, Service};
use crate::time::Instant;

pub use load::Load;

use locality::Localities;
use rank::Ranks;
use round_robin::Cursor;
use twos::Urn;

/// All of a server's weight, as a [`Candidate::share`].
pub(super) const WHOLE: u32 = 256;

/// What counts about a server besides its weight when one is chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) load: Load,
    /// How much of its weight counts where connections are compared, of [`WHOLE`], at least 1.
    pub(super) share: u32,
    /// It does not answer ARP: nothing is stored of what is tried with it, so that it would always be
    /// the least loaded. Chosen only where all are like that.
    pub(super) is_deaf: bool,
    /// It answers no client: not chosen.
    pub(super) is_out: bool,
    /// It has as many flows as it may have: not chosen.
    pub(super) is_full: bool,
}

impl Default for Candidate {
    fn default() -> Self {
        let load = Load::default();
        Self { load, share: WHOLE, is_deaf: false, is_out: false, is_full: false }
    }
}

impl Candidate {
    /// Whether it may be given new flows, as far as that does not depend on its weight.
    const fn may_take(&self) -> bool {
        !self.is_out && !self.is_full
    }

    /// Whether nothing but its weight and its load counts.
    const fn is_plain(&self) -> bool {
        self.may_take() && !self.is_deaf && self.share == WHOLE
    }
}

/// What of a packet may decide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aim {
    /// Who calls.
    pub(super) client: Ipv4Addr,
    /// From where.
    pub(super) client_port: u16,
    /// The virtual IP.
    pub(super) destination: Ipv4Addr,
    pub(super) now: Instant,
    /// Another number once some server begins or ceases to be out or deaf.
    pub(super) outlook: u64,
}

/// What the schedulers remember of one service.
#[derive(Debug, Default)]
struct Memory {
    cursor: Cursor,
    localities: Localities,
    urn: Urn,
}

/// What they remember of all, by service id.
#[derive(Debug)]
pub(super) struct Schedulers {
    services: Vec<Memory>,
    ranks: Ranks,
    draw: Draw,
}

impl Schedulers {
    pub(super) fn new(seed: &[u8; 16]) -> Self {
        let draw = Draw::new(seed, Use::Servers);
        Self { services: Vec::new(), ranks: Ranks::default(), draw }
    }

    /// Makes room for service ids and server ids below the limits. A set-up step: it may allocate.
    pub(super) fn reserve(&mut self, (services, servers): (usize, usize)) {
        if self.services.len() < services {
            self.services.resize_with(services, Memory::default);
        }
        self.ranks.reserve((services, servers));
    }

    /// A service that is new, or has changed. A set-up step: it may allocate.
    pub(super) fn install(&mut self, before: Option<&Service>, service: &Service) {
        let Memory { cursor, localities, urn } = &mut self.services[service.id.index()];
        match before {
            None => *cursor = Cursor::of_new(),
            Some(before) if before.scheduler != service.scheduler => *cursor = Cursor::of(service),
            Some(before) if are_same(&before.servers, &service.servers) => {}
            Some(before) => cursor.change(before, service),
        }
        localities.install(before, service);
        urn.install(service);
        self.ranks.install(service);
    }

    /// The last flow of a server of `service` is gone, which is not configured any more: its id may become
    /// another's.
    pub(super) fn retire(&mut self, service: ServiceId, server: ServerId) {
        if let Some(memory) = self.services.get_mut(service.index()) {
            memory.localities.retire(server);
        }
    }

    /// What is to be known of a server's load, or whether it is full, has changed.
    pub(super) fn note(&mut self, server: ServerId, load: Load, is_full: bool) {
        self.ranks.note(server, load, is_full);
    }

    /// The server for a new flow; `None` when no server may take one.
    pub(super) fn choose<'t>(
        &mut self,
        service: &'t Service,
        aim: &Aim,
        mut candidate: impl FnMut(&Server) -> Candidate,
    ) -> Option<&'t Server> {
        let Memory { cursor, localities, urn } = &mut self.services[service.id.index()];
        let ranks = &mut self.ranks;
        match service.scheduler {
            Scheduler::RoundRobin => cursor.round_robin(service, candidate),
            Scheduler::WeightedRoundRobin => cursor.weighted_round_robin(service, candidate),
            Scheduler::LeastConnection
            | Scheduler::WeightedLeastConnection
            | Scheduler::ShortestExpectedDelay
            | Scheduler::NeverQueue => least::choose(service, ranks, &mut candidate),
            Scheduler::SourceHash => {
                let port = if service.balance.flags.port { aim.client_port } else { 0 };
                hash::choose(service, aim.client, port, candidate)
            }
            Scheduler::Maglev => {
                let port = if service.balance.flags.port { aim.client_port } else { 0 };
                hash::choose(service, aim.client, port, candidate)
            }
            Scheduler::DestinationHash => hash::choose(service, aim.destination, 0, candidate),
            Scheduler::Failover => heaviest::choose(service, ranks, candidate, |_, _| true),
            Scheduler::Overflow => {
                heaviest::choose(service, ranks, candidate, |weight, load| load.active <= weight)
            }
            Scheduler::Locality => localities.choose(service, aim, ranks, &mut candidate),
            Scheduler::LocalityReplicated => {
                localities.choose_of_set(service, aim, ranks, &mut candidate)
            }
            Scheduler::PowerOfTwo => {
                if ranks.has_changed(service) {
                    urn.spill();
                }
                urn.choose(service, aim.outlook, &mut self.draw, &mut candidate)
            }
        }
    }
}

/// Whether all is the same that IPVS would call a server.
fn are_same(before: &[Server], after: &[Server]) -> bool {
    let known = |server: &Server| (server.id, server.weight, server.limits);
    before.iter().map(known).eq(after.iter().map(known))
}

#[cfg(test)]
mod tests;
