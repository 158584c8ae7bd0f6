//! In turn: `rr` and `wrr` (`ip_vs_rr.c`, `ip_vs_wrr.c`).

use super::Candidate;
use crate::addr::ServerId;
use crate::table::{Scheduler, Server, Service};

/// Where a service's walk over its servers stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    /// Where the walk goes on: behind the last one chosen; 0 at the head.
    next: usize,
    /// wrr: servers of at least this weight are taken in this round.
    level: u32,
}

impl Cursor {
    /// Of a service whose servers came with it. They join an IPVS service one at a time, which leaves
    /// the level at 1.
    pub(super) const fn of_new() -> Self {
        Self { next: 0, level: 1 }
    }

    /// Of a service whose servers were there before its scheduler.
    pub(super) const fn of(service: &Service) -> Self {
        Self { next: 0, level: top_level(service) }
    }

    /// The servers have changed.
    pub(super) fn change(&mut self, old: &Service, new: &Service) {
        if new.scheduler == Scheduler::WeightedRoundRobin {
            let (step, top) = (new.weight_gcd, top_level(new));
            self.next = 0;
            if self.level > top || self.level == 0 {
                self.level = top;
            } else if step > 1 {
                self.level = self.level / step * step + 1;
            }
            return;
        }
        // After the last one chosen, or after its nearest predecessor that is still there.
        let before = old.servers.get(..self.next).unwrap_or_default();
        let position = |id: ServerId| new.servers.iter().position(|s| s.id == id);
        let last = before.iter().rev().find_map(|server| position(server.id));
        self.next = last.map_or(0, |last| last + 1);
    }

    pub(super) fn round_robin<'t>(
        &mut self,
        service: &'t Service,
        mut candidate: impl FnMut(&Server) -> Candidate,
    ) -> Option<&'t Server> {
        let servers = &service.servers;
        let next = self.next.min(servers.len());
        let (behind, ahead) = servers.split_at(next);
        let mut order = ahead.iter().chain(behind).enumerate();
        let may =
            |(_, server): &(usize, &Server)| server.weight > 0 && candidate(server).may_take();
        let (steps, server) = order.find(may)?;
        self.next = (next + steps) % servers.len() + 1;
        Some(server)
    }

    pub(super) fn weighted_round_robin<'t>(
        &mut self,
        service: &'t Service,
        mut candidate: impl FnMut(&Server) -> Candidate,
    ) -> Option<&'t Server> {
        let (step, top) = (service.weight_gcd, top_level(service));
        if service.weight_max == 0 {
            return None;
        }
        let mut may = |server: &Server| server.weight > 0 && candidate(server).may_take();
        let first = |from: usize, level: u32, may: &mut dyn FnMut(&Server) -> bool| {
            let mut ahead = service.servers.iter().enumerate().skip(from);
            ahead.find(|(_, server)| server.weight >= level && may(server))
        };
        if let Some((at, server)) = first(self.next, self.level, &mut may) {
            self.next = at + 1;
            return Some(server);
        }
        // Round after round the level sinks, and begins anew at the top, until it is low enough for
        // the heaviest of those that may.
        let able = service.servers.iter().filter(|server| may(server));
        let Some(heaviest) = able.map(|server| server.weight).max() else {
            // As the kernel leaves it when it has looked at all of them in vain.
            if self.next == 0 || self.level > step {
                *self = Self { next: 0, level: top };
            }
            return None;
        };
        let below = self.level.saturating_sub(step);
        let from = if below == 0 { top } else { below };
        let enough = heaviest - (step - 1);
        // Of those below the heaviest there is one after the next beginning at the latest.
        self.level = from.min(enough);
        let (at, server) = first(0, self.level, &mut may)?;
        self.next = at + 1;
        Some(server)
    }
}

/// Where a round of wrr begins.
const fn top_level(service: &Service) -> u32 {
    service.weight_max.saturating_sub(service.weight_gcd - 1)
}
