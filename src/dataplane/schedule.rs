//! Which server a new flow gets, exactly as Linux IPVS chooses (`ip_vs_rr.c`, `ip_vs_wrr.c`,
//! `ip_vs_lc.c`, `ip_vs_wlc.c`). "First" is first in the file; ties go to the first.

use super::State;
use crate::addr::ServerId;
use crate::table::{Scheduler, Server, Service};

/// A server's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Flows in an active state.
    pub active: u32,
    /// All other flows.
    pub inactive: u32,
}

impl Load {
    /// A flow's state changed.
    pub(super) const fn move_between(&mut self, before: State, after: State) {
        match (before.is_active(), after.is_active()) {
            (false, true) => {
                self.inactive = self.inactive.saturating_sub(1);
                self.active += 1;
            }
            (true, false) => {
                self.active = self.active.saturating_sub(1);
                self.inactive += 1;
            }
            (true, true) | (false, false) => {}
        }
    }

    /// A flow in `state` has come.
    pub(super) const fn enter(&mut self, state: State) {
        if state.is_active() {
            self.active += 1;
        } else {
            self.inactive += 1;
        }
    }

    /// A flow in `state` is gone.
    pub(super) const fn leave(&mut self, state: State) {
        if state.is_active() {
            self.active = self.active.saturating_sub(1);
        } else {
            self.inactive = self.inactive.saturating_sub(1);
        }
    }

    /// All flows.
    pub(super) const fn total(self) -> u32 {
        self.active + self.inactive
    }

    /// An active connection weighs as much as 256 inactive ones.
    const fn overhead(self) -> u64 {
        self.active as u64 * 256 + self.inactive as u64
    }
}

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
}

impl Default for Candidate {
    fn default() -> Self {
        Self { load: Load::default(), share: WHOLE, is_deaf: false, is_out: false }
    }
}

/// Where a service's walk over its servers stands.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    /// Where the walk goes on.
    next: usize,
    /// wrr: servers of at least this weight are taken in this round.
    level: u32,
}

/// All services' cursors, by service id.
#[derive(Debug, Default)]
pub(super) struct Cursors(Vec<Cursor>);

impl Cursors {
    /// Makes room for service ids below `limit`.
    pub(super) fn reserve(&mut self, limit: usize) {
        if self.0.len() < limit {
            self.0.resize(limit, Cursor::default());
        }
    }

    /// A service that was not there before.
    pub(super) fn start(&mut self, service: &Service) {
        // Servers join an IPVS service one at a time, which leaves the level at 1.
        self.0[service.id.index()] = Cursor { next: 0, level: 1 };
    }

    /// A service whose servers changed.
    pub(super) fn change(&mut self, old: &Service, new: &Service) {
        let cursor = &mut self.0[new.id.index()];
        match new.scheduler {
            Scheduler::WeightedRoundRobin => {
                let (step, top) = (new.weight_gcd, top_level(new));
                cursor.next = 0;
                if cursor.level > top || cursor.level == 0 {
                    cursor.level = top;
                } else if step > 1 {
                    cursor.level = cursor.level / step * step + 1;
                }
            }
            Scheduler::RoundRobin
            | Scheduler::LeastConnection
            | Scheduler::WeightedLeastConnection => {
                // After the last one chosen, or after its nearest predecessor that is still there.
                let before = old.servers.get(..cursor.next).unwrap_or_default();
                let position = |id: ServerId| new.servers.iter().position(|s| s.id == id);
                let last = before.iter().rev().find_map(|server| position(server.id));
                cursor.next = last.map_or(0, |last| last + 1);
            }
        }
    }

    /// The server for a new flow; `None` when no server may take one.
    pub(super) fn choose<'t>(
        &mut self,
        service: &'t Service,
        mut candidate: impl FnMut(&Server) -> Candidate,
    ) -> Option<&'t Server> {
        let cursor = &mut self.0[service.id.index()];
        match service.scheduler {
            Scheduler::RoundRobin => cursor.round_robin(service, |s| !candidate(s).is_out),
            Scheduler::WeightedRoundRobin => {
                cursor.weighted_round_robin(service, |s| !candidate(s).is_out)
            }
            Scheduler::LeastConnection => least(service, candidate, |_| 1),
            Scheduler::WeightedLeastConnection => least(service, candidate, |s| s.weight),
        }
    }
}

impl Cursor {
    fn round_robin<'t>(
        &mut self,
        service: &'t Service,
        mut may: impl FnMut(&Server) -> bool,
    ) -> Option<&'t Server> {
        let servers = &service.servers;
        let (behind, ahead) = servers.split_at(self.next.min(servers.len()));
        let mut order = ahead.iter().chain(behind).enumerate();
        let (steps, server) = order.find(|(_, server)| server.weight > 0 && may(server))?;
        self.next = (self.next.min(servers.len()) + steps) % servers.len() + 1;
        Some(server)
    }

    fn weighted_round_robin<'t>(
        &mut self,
        service: &'t Service,
        mut may: impl FnMut(&Server) -> bool,
    ) -> Option<&'t Server> {
        let servers = &service.servers;
        let (step, top) = (service.weight_gcd, top_level(service));
        if service.weight_max == 0 {
            return None;
        }
        // The heaviest server is at or above every level, so the second round ends the search.
        for _ in 0..2 {
            let mut ahead = servers.iter().enumerate().skip(self.next);
            if let Some((at, server)) = ahead.find(|(_, s)| s.weight >= self.level && may(s)) {
                self.next = at + 1;
                return Some(server);
            }
            self.next = 0;
            self.level = self.level.saturating_sub(step);
            if self.level == 0 {
                self.level = top;
            }
            // The heaviest of those that may be chosen, that is.
            let able = servers.iter().filter(|server| server.weight > 0 && may(server));
            let heaviest = able.map(|server| server.weight).max()?;
            self.level = self.level.min(heaviest - (step - 1));
        }
        None
    }
}

const fn top_level(service: &Service) -> u32 {
    service.weight_max.saturating_sub(service.weight_gcd - 1)
}

/// The least of `overhead / weight`, compared by cross-multiplication.
fn least(
    service: &Service,
    mut candidate: impl FnMut(&Server) -> Candidate,
    weight: impl Fn(&Server) -> u32,
) -> Option<&Server> {
    let mut best: Option<(&Server, bool, u64, u64)> = None;
    for server in service.servers.iter().filter(|server| server.weight > 0) {
        let Candidate { load, share, is_deaf, is_out } = candidate(server);
        if is_out {
            continue;
        }
        // Below 2^40 and 2^24: there are at most 2^30 flows.
        let (overhead, weight) = (load.overhead(), u64::from(weight(server)) * u64::from(share));
        let better = best.is_none_or(|(_, was_deaf, least, of)| match (was_deaf, is_deaf) {
            (true, false) => true,
            (false, true) => false,
            (false, false) | (true, true) => least * weight > overhead * of,
        });
        if better {
            best = Some((server, is_deaf, overhead, weight));
        }
    }
    best.map(|(server, ..)| server)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::addr::{Proto, ServiceId};
    use crate::table::{Lifecycle, Method};

    fn service(scheduler: Scheduler, weights: &[u32]) -> Service {
        let server = |(id, weight): (u32, &u32)| Server {
            id: ServerId(id),
            name: id.to_string(),
            address: Ipv4Addr::LOCALHOST,
            port: 80,
            weight: *weight,
            configured_weight: *weight,
            is_up: true,
            is_drained: false,
        };
        let gcd = |a: u32, b: &u32| {
            (1..=a.max(*b)).rfind(|d| a.is_multiple_of(*d) && b.is_multiple_of(*d)).unwrap_or(0)
        };
        Service {
            method: Method::Nat,
            id: ServiceId(0),
            name: String::new(),
            proto: Proto::Tcp,
            address: Ipv4Addr::LOCALHOST,
            port: 80,
            scheduler,
            health: None,
            servers: (0..).zip(weights).map(server).collect(),
            fallback: None,
            lifecycle: Lifecycle::default(),
            weight_gcd: weights.iter().filter(|w| **w > 0).fold(0, gcd).max(1),
            weight_max: weights.iter().copied().max().unwrap_or(0),
        }
    }

    fn picks(service: &Service, count: usize) -> Vec<u32> {
        let mut cursors = Cursors::default();
        cursors.reserve(1);
        cursors.start(service);
        (0..count)
            .filter_map(|_| cursors.choose(service, |_| Candidate::default()))
            .map(|s| s.id.0)
            .collect()
    }

    #[test]
    fn wrr_first_walk_then_the_known_cycles() {
        for (weights, cycle) in [
            (&[4, 3, 2][..], &[0, 0, 1, 0, 1, 2, 0, 1, 2][..]),
            (&[6, 4, 2], &[0, 0, 1, 0, 1, 2]),
            (&[4, 2], &[0, 0, 1]),
            (&[3, 0, 1], &[0, 0, 0, 2]),
        ] {
            let first = weights.iter().filter(|w| **w > 0).count();
            let picked =
                picks(&service(Scheduler::WeightedRoundRobin, weights), first + 2 * cycle.len());
            let (_, steady) = picked.split_at(first);
            assert_eq!(steady, [cycle, cycle].concat(), "{weights:?}");
        }
    }

    #[test]
    fn zero_weights_take_nothing() {
        for scheduler in [
            Scheduler::RoundRobin,
            Scheduler::WeightedRoundRobin,
            Scheduler::LeastConnection,
            Scheduler::WeightedLeastConnection,
        ] {
            assert_eq!(picks(&service(scheduler, &[0, 0]), 3), Vec::<u32>::new(), "{scheduler:?}");
            assert_eq!(picks(&service(scheduler, &[]), 3), Vec::<u32>::new(), "{scheduler:?}");
            assert!(picks(&service(scheduler, &[0, 1]), 3).iter().all(|id| *id == 1));
        }
    }

    #[test]
    fn rr_goes_on_after_the_predecessor_of_a_deleted_server() {
        let old = service(Scheduler::RoundRobin, &[1, 1, 1]);
        let mut new = old.clone();
        new.servers.remove(1);
        let mut cursors = Cursors::default();
        cursors.reserve(1);
        cursors.start(&old);
        for expected in [0, 1] {
            assert_eq!(cursors.choose(&old, |_| Candidate::default()).unwrap().id.0, expected);
        }
        cursors.change(&old, &new);
        assert_eq!(cursors.choose(&new, |_| Candidate::default()).unwrap().id.0, 2);
        assert_eq!(cursors.choose(&new, |_| Candidate::default()).unwrap().id.0, 0);
    }

    /// Who is out is passed over, however heavy, and nobody waits for it.
    #[test]
    fn wrr_goes_on_in_proportion_without_those_who_are_out() {
        let service = service(Scheduler::WeightedRoundRobin, &[60_000, 3, 0, 1]);
        let mut cursors = Cursors::default();
        cursors.reserve(1);
        cursors.start(&service);
        let out = |server: &Server| Candidate { is_out: server.id.0 == 0, ..Candidate::default() };
        let mut picks = |count| -> Vec<u32> {
            (0..count).map(|_| cursors.choose(&service, out).unwrap().id.0).collect()
        };
        picks(2);
        assert_eq!(picks(8), [1, 1, 1, 3, 1, 1, 1, 3]);
        let none = |_: &Server| Candidate { is_out: true, ..Candidate::default() };
        assert!(cursors.choose(&service, none).is_none());
    }

    /// The largest numbers there can be are compared rightly.
    #[test]
    fn a_share_counts_like_a_smaller_weight() {
        let service = service(Scheduler::WeightedLeastConnection, &[65_535, 65_535]);
        let most = Load { active: 1 << 30, inactive: 0 };
        for (active, share, expected) in [
            (1 << 30, WHOLE - 1, 0),
            (1 << 30, WHOLE, 0),
            ((1 << 30) - 1, WHOLE, 1),
            (1 << 21, 1, 1),
        ] {
            let mut cursors = Cursors::default();
            cursors.reserve(1);
            cursors.start(&service);
            let candidate = |server: &Server| match server.id.0 {
                0 => Candidate { load: most, ..Candidate::default() },
                _ => {
                    Candidate { load: Load { active, inactive: 0 }, share, ..Candidate::default() }
                }
            };
            assert_eq!(
                cursors.choose(&service, candidate).unwrap().id.0,
                expected,
                "{active} {share}"
            );
        }
    }
}
