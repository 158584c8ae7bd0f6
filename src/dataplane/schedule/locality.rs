//! By the address that the client calls: `lblc` and `lblcr` (`ip_vs_lblc.c`, `ip_vs_lblcr.c`). The
//! kernel keeps an entry per destination it has seen; here that is one per virtual IP of the service.

use std::net::Ipv4Addr;

use super::least::{self, Measure};
use super::rank::Ranks;
use super::{Aim, Candidate};
use crate::addr::ServerId;
use crate::table::{Scheduler, Server, Service};
use crate::time::{Duration, Instant};

/// How long an address that nobody calls is remembered, and a set that does not change left alone.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What one address is remembered for.
#[derive(Debug)]
struct Locality {
    address: Ipv4Addr,
    /// Its servers, the newest first; of `lblc` one at most.
    servers: Vec<ServerId>,
    used: Instant,
    changed: Instant,
}

/// Those of one service, in the order of their addresses.
#[derive(Debug, Default)]
pub(super) struct Localities(Vec<Locality>);

impl Localities {
    /// The service is new, or has changed: what is remembered stays only where it is to be kept. A
    /// set-up step: it may allocate.
    pub(super) fn install(&mut self, service: &Service, keep: bool) {
        if !keep {
            self.0.clear();
        }
        let most = match service.scheduler {
            Scheduler::Locality => 1,
            Scheduler::LocalityReplicated => service.servers.len(),
            _ => return self.0.clear(),
        };
        let is_there = |id: &ServerId| service.servers.iter().any(|server| server.id == *id);
        let mut addresses: Vec<_> = service.fronts().map(|(_, address, _)| address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        self.0.retain(|locality| addresses.contains(&locality.address));
        for (at, address) in addresses.into_iter().enumerate() {
            if self.0.get(at).is_none_or(|known| known.address != address) {
                let (used, changed) = (Instant::ZERO, Instant::ZERO);
                self.0.insert(at, Locality { address, servers: Vec::new(), used, changed });
            }
            let servers = &mut self.0[at].servers;
            servers.retain(is_there);
            servers.reserve(most.saturating_sub(servers.len()));
        }
    }

    /// `lblc`: the server that the address had last, unless that has too much to do.
    pub(super) fn choose<'t>(
        &mut self,
        service: &'t Service,
        aim: &Aim,
        ranks: &Ranks,
        candidate: &mut impl FnMut(&Server) -> Candidate,
    ) -> Option<&'t Server> {
        let Some(locality) = self.find(aim) else { return lightest(service, ranks, candidate) };
        locality.used = aim.now;
        let last = locality.servers.first().and_then(|id| find(service, *id));
        // One that is full keeps what it has.
        let usable = |known: Candidate| !known.is_out && !known.is_deaf;
        if let Some(last) = last
            && last.weight > 0
            && usable(candidate(last))
            && !is_overloaded(service, last, candidate)
        {
            return Some(last);
        }
        let chosen = lightest(service, ranks, candidate)?;
        locality.servers.clear();
        locality.servers.push(chosen.id);
        Some(chosen)
    }

    /// `lblcr`: the least loaded of the address's servers; another one joins them when that has too
    /// much to do.
    pub(super) fn choose_of_set<'t>(
        &mut self,
        service: &'t Service,
        aim: &Aim,
        ranks: &Ranks,
        candidate: &mut impl FnMut(&Server) -> Candidate,
    ) -> Option<&'t Server> {
        let Some(locality) = self.find(aim) else { return lightest(service, ranks, candidate) };
        locality.used = aim.now;
        let set = locality.servers.iter().filter_map(|id| find(service, *id));
        let least = least::among(Measure::ByWeight, set, candidate);
        if locality.servers.len() > 1 && aim.now > locality.changed + DAY {
            let set = locality.servers.iter().filter_map(|id| find(service, *id));
            if let Some(most) = most_loaded(set, candidate) {
                locality.servers.retain(|id| *id != most);
                locality.changed = aim.now;
            }
        }
        if let Some(least) = least
            && !is_overloaded(service, least, candidate)
        {
            return Some(least);
        }
        let chosen = lightest(service, ranks, candidate)?;
        if !locality.servers.contains(&chosen.id) {
            locality.servers.insert(0, chosen.id);
            locality.changed = aim.now;
        }
        Some(chosen)
    }

    /// What is remembered of the address that is called; nothing of one that nobody has called for a
    /// day.
    fn find(&mut self, aim: &Aim) -> Option<&mut Locality> {
        let at = self.0.binary_search_by_key(&aim.destination, |known| known.address).ok()?;
        let locality = self.0.get_mut(at)?;
        if aim.now > locality.used + DAY {
            locality.servers.clear();
        }
        Some(locality)
    }
}

fn find(service: &Service, id: ServerId) -> Option<&Server> {
    service.servers.iter().find(|server| server.id == id)
}

/// As wlc chooses.
fn lightest<'t>(
    service: &'t Service,
    ranks: &Ranks,
    candidate: &mut impl FnMut(&Server) -> Candidate,
) -> Option<&'t Server> {
    least::choose(service, ranks, candidate)
}

/// Whether it has more active flows than its weight says while another has less than half as many.
fn is_overloaded(
    service: &Service,
    server: &Server,
    candidate: &mut impl FnMut(&Server) -> Candidate,
) -> bool {
    candidate(server).load.active > server.weight
        && service.servers.iter().any(|other| {
            let known = candidate(other);
            !known.is_out && !known.is_deaf && known.load.active * 2 < other.weight
        })
}

/// The most loaded of a set, whether it may take more or not.
fn most_loaded<'t>(
    set: impl Iterator<Item = &'t Server>,
    candidate: &mut impl FnMut(&Server) -> Candidate,
) -> Option<ServerId> {
    let mut worst: Option<(ServerId, u64, u64)> = None;
    for server in set.filter(|server| server.weight > 0) {
        let (load, weight) = Measure::ByWeight.fraction(candidate(server).load, server.weight);
        if worst.is_none_or(|(_, most, of)| most * weight < load * of) {
            worst = Some((server.id, load, weight));
        }
    }
    worst.map(|(id, ..)| id)
}
