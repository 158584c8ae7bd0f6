//! In turn: `rr` and `wrr` (`ip_vs_rr.c`, `ip_vs_wrr.c`).

use std::collections::{HashMap, HashSet};

use super::Candidate;
use crate::addr::ServerId;
use crate::table::{Scheduler, Server, Service, gcd};

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

    /// The servers have changed. A set-up step: it may allocate.
    pub(super) fn change(&mut self, old: &Service, new: &Service) {
        if new.scheduler == Scheduler::WeightedRoundRobin {
            self.next = 0;
            for weights in changes(old, new) {
                self.adjust(weights);
            }
            return;
        }
        // After the last one chosen, or after its nearest predecessor that is still there.
        let before = old.servers.get(..self.next).unwrap_or_default();
        let position = |id: ServerId| new.servers.iter().position(|s| s.id == id);
        let last = before.iter().rev().find_map(|server| position(server.id));
        self.next = last.map_or(0, |last| last + 1);
    }

    /// wrr: one server has changed.
    const fn adjust(&mut self, weights: Weights) {
        let (step, top) = (weights.step(), weights.top());
        if self.level > top || self.level == 0 {
            self.level = top;
        } else if step > 1 {
            self.level = self.level / step * step + 1;
        }
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
    Weights { gcd: service.weight_gcd, max: service.weight_max }.top()
}

/// What wrr needs to know of all weights.
#[derive(Clone, Copy, Debug, Default)]
struct Weights {
    /// Of those above 0; 0 without any.
    gcd: u32,
    max: u32,
}

impl Weights {
    const fn and(self, weight: u32) -> Self {
        self.and_all(Self { gcd: weight, max: weight })
    }

    const fn and_all(self, other: Self) -> Self {
        let max = if self.max > other.max { self.max } else { other.max };
        Self { gcd: gcd(self.gcd, other.gcd), max }
    }

    /// By how much the level sinks.
    const fn step(self) -> u32 {
        if self.gcd == 0 { 1 } else { self.gcd }
    }

    /// Where a round begins.
    const fn top(self) -> u32 {
        self.max.saturating_sub(self.step() - 1)
    }
}

/// The weights after each change that leads from `old` to `new`, one server at a time: those that are
/// not there any more go, in the order of their file; those that are another's weight or limits are
/// edited, in the order of theirs; those that are new come, the last one first, as each gets before those
/// that are there.
fn changes(old: &Service, new: &Service) -> Vec<Weights> {
    let known: HashMap<_, _> = old.servers.iter().map(|server| (server.id, server)).collect();
    let stays: HashSet<_> = new.servers.iter().map(|server| server.id).collect();
    let (kept, added): (Vec<_>, Vec<_>) =
        new.servers.iter().partition(|server| known.contains_key(&server.id));
    let mut after = Vec::new();
    // At each step those on the left have changed, those on the right have not.
    let mut left = Weights::default();
    let right = from_each(old.servers.iter().map(|server| server.weight));
    for (server, right) in old.servers.iter().zip(&right[1..]) {
        if stays.contains(&server.id) {
            left = left.and(server.weight);
        } else {
            after.push(left.and_all(*right));
        }
    }
    let mut left = Weights::default();
    let before = |server: &&Server| known.get(&server.id).map_or(0, |before| before.weight);
    let right = from_each(kept.iter().map(before));
    for (server, right) in kept.iter().zip(&right[1..]) {
        left = left.and(server.weight);
        let is_same =
            |before: &&Server| (before.weight, before.limits) == (server.weight, server.limits);
        if !known.get(&server.id).is_some_and(is_same) {
            after.push(left.and_all(*right));
        }
    }
    for server in added.iter().rev() {
        left = left.and(server.weight);
        after.push(left);
    }
    after
}

/// For each position, and for the end, all weights from there on.
fn from_each(weights: impl DoubleEndedIterator<Item = u32>) -> Vec<Weights> {
    let mut all = vec![Weights::default()];
    for weight in weights.rev() {
        all.push(all.last().copied().unwrap_or_default().and(weight));
    }
    all.reverse();
    all
}
