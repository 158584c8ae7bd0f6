//! By the address that the client calls: `lblc` and `lblcr` (`ip_vs_lblc.c`, `ip_vs_lblcr.c`). The
//! kernel keeps an entry per destination it has seen; here that is one per virtual IP of the service.

use std::net::Ipv4Addr;

use super::least::{self, Measure};
use super::rank::Ranks;
use super::{Aim, Candidate};
use crate::addr::ServerId;
use crate::table::{FlowLimits, Scheduler, Server, Service};
use crate::time::{Duration, Instant};

/// How long an address that nobody calls is remembered, and a set that does not change left alone.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How many removed servers one address is remembered for.
const REMOVED: usize = 64;

/// What one address is remembered for.
#[derive(Debug)]
struct Locality {
    address: Ipv4Addr,
    /// Its servers, the newest first; of `lblc` one at most.
    servers: Vec<Member>,
    used: Instant,
    changed: Instant,
}

/// One of an address's servers. Who is removed stays one of them, and is one again when it is added
/// again, as the kernel finds it among the destinations that it has put aside.
#[derive(Clone, Copy, Debug)]
enum Member {
    /// Where it stands in the file.
    Listed(ServerId, usize),
    /// It is not configured any more.
    Removed(Removed),
}

/// What there is to know of a server that was removed.
#[derive(Clone, Copy, Debug)]
struct Removed {
    address: Ipv4Addr,
    port: u16,
    weight: u32,
    /// While it has flows; later the id may become another's.
    id: Option<ServerId>,
}

/// Those of one service, in the order of their addresses.
#[derive(Debug, Default)]
pub(super) struct Localities(Vec<Locality>);

impl Localities {
    /// The service is new, or has changed: what is remembered stays only where it is to be kept. A
    /// set-up step: it may allocate.
    pub(super) fn install(&mut self, before: Option<&Service>, service: &Service) {
        let before = before.filter(|before| before.scheduler == service.scheduler);
        if before.is_none() {
            self.0.clear();
        }
        let most = match service.scheduler {
            Scheduler::Locality => 1,
            Scheduler::LocalityReplicated => service.servers.len(),
            _ => return self.0.clear(),
        };
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
            let mut removed = 0;
            servers.retain_mut(|member| {
                let Some(known) = member.follow(before, service) else { return false };
                *member = known;
                removed += usize::from(matches!(known, Member::Removed(_)));
                matches!(known, Member::Listed(..)) || removed <= REMOVED
            });
            // Whoever joins is configured, and not there yet.
            servers.reserve(most);
        }
    }

    /// A removed server has lost its last flow.
    pub(super) fn retire(&mut self, id: ServerId) {
        for member in self.0.iter_mut().flat_map(|locality| &mut locality.servers) {
            if let Member::Removed(removed) = member
                && removed.id == Some(id)
            {
                removed.id = None;
            }
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
        if let Some((_, last)) = locality.servers.first().and_then(|member| member.of(service))
            && last.weight > 0
            && let known = candidate(last)
            // One that is full keeps what it has.
            && !known.is_out
            && !known.is_deaf
            && !is_overloaded(service, (last, known), ranks, candidate)
        {
            return Some(last);
        }
        let chosen = lightest(service, ranks, candidate)?;
        locality.servers.clear();
        locality.servers.push(Member::listed(service, chosen)?);
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
        let least = locality.least(service, ranks, candidate);
        if locality.servers.len() > 1 && aim.now > locality.changed + DAY {
            locality.shrink(service, aim.now, candidate);
        }
        if let Some((server, known)) = least
            && !is_overloaded(service, (server, known), ranks, candidate)
        {
            return Some(server);
        }
        let chosen = lightest(service, ranks, candidate)?;
        if !locality.servers.iter().any(|member| member.is(chosen.id)) {
            locality.servers.insert(0, Member::listed(service, chosen)?);
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

impl Locality {
    /// The least loaded of its servers, as wlc compares, the newest of several.
    fn least<'t>(
        &self,
        service: &'t Service,
        ranks: &Ranks,
        candidate: &mut impl FnMut(&Server) -> Candidate,
    ) -> Option<(&'t Server, Candidate)> {
        let listed = || self.servers.iter().filter_map(|member| member.of(service));
        // What there is to know of a server besides makes it no better.
        let best = ranks.best_of(service, listed().map(|(at, _)| at))?;
        let known = candidate(best);
        if known.is_plain() {
            return Some((best, known));
        }
        let servers = listed().map(|(_, server)| server);
        let best = least::among(Measure::ByWeight, servers, candidate)?;
        Some((best, candidate(best)))
    }

    /// Loses its most loaded server, whether that may take more or not, and is there or not.
    fn shrink(
        &mut self,
        service: &Service,
        now: Instant,
        candidate: &mut impl FnMut(&Server) -> Candidate,
    ) {
        let mut worst: Option<(usize, u64, u64)> = None;
        for (at, member) in self.servers.iter().enumerate() {
            let (weight, load) = match member {
                Member::Listed(..) => {
                    let Some((_, server)) = member.of(service) else { continue };
                    // Who is down is one who was removed.
                    (server.configured_weight, candidate(server).load)
                }
                Member::Removed(removed) => {
                    let load = removed.draining().map(|server| candidate(&server).load);
                    (removed.weight, load.unwrap_or_default())
                }
            };
            if weight == 0 {
                continue;
            }
            let (load, weight) = Measure::ByWeight.fraction(load, weight);
            if worst.is_none_or(|(_, most, of)| most * weight < load * of) {
                worst = Some((at, load, weight));
            }
        }
        if let Some((at, ..)) = worst {
            self.servers.remove(at);
            self.changed = now;
        }
    }
}

impl Member {
    fn listed(service: &Service, server: &Server) -> Option<Self> {
        let at = service.servers.iter().position(|known| known.id == server.id)?;
        Some(Self::Listed(server.id, at))
    }

    fn is(&self, server: ServerId) -> bool {
        matches!(self, Self::Listed(id, _) if *id == server)
    }

    /// The configured server that it is, and where that stands.
    fn of<'t>(&self, service: &'t Service) -> Option<(usize, &'t Server)> {
        let Self::Listed(id, at) = self else { return None };
        let server = service.servers.get(*at).filter(|server| server.id == *id)?;
        Some((*at, server))
    }

    /// The service was `before` until now; what becomes of the member, if that is known.
    fn follow(self, before: Option<&Service>, service: &Service) -> Option<Self> {
        let removed = match self {
            Self::Removed(removed) => removed,
            Self::Listed(id, _) => {
                let (_, server) = self.of(before?)?;
                let Server { address, port, configured_weight: weight, .. } = *server;
                Removed { address, port, weight, id: Some(id) }
            }
        };
        let is_it = |now: &Server| (now.address, now.port) == (removed.address, removed.port);
        let at = service.servers.iter().position(is_it);
        Some(at.map_or(Self::Removed(removed), |at| Self::Listed(service.servers[at].id, at)))
    }
}

impl Removed {
    /// As it was, as far as its load is known by that.
    const fn draining(self) -> Option<Server> {
        let Self { address, port, weight, id } = self;
        let Some(id) = id else { return None };
        Some(Server {
            id,
            name: String::new(),
            address,
            port,
            weight,
            configured_weight: weight,
            last_weight: weight,
            limits: FlowLimits { max: 0, min: 0 },
            is_up: true,
            is_drained: true,
        })
    }
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
    (server, known): (&Server, Candidate),
    ranks: &Ranks,
    candidate: &mut impl FnMut(&Server) -> Candidate,
) -> bool {
    known.load.active > server.weight
        && ranks.roomy(service).any(|other| {
            let known = candidate(other);
            !known.is_out && !known.is_deaf
        })
}
