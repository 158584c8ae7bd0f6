//! What the servers of a service are compared by, kept side by side in file order, so that the best of
//! a thousand is found in a moment: each number changes when its server's load does.

use super::Load;
use super::least::Measure;
use crate::addr::ServerId;
use crate::table::{Scheduler, Server, Service};

/// The rank of a server that takes no new flow.
const LAST: u64 = u64::MAX;

/// What a scheduler ranks servers by; the lower the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// A fraction.
    Least(Measure),
    /// Weight, the heaviest first.
    Heaviest,
    /// The same, of those with no more active flows than their weight says.
    HeaviestWithRoom,
    /// All are equal that may be chosen.
    Equal,
}

impl Order {
    /// By what the scheduler ranks; `None`: it does not.
    const fn of(scheduler: Scheduler) -> Option<Self> {
        match scheduler {
            Scheduler::Failover => Some(Self::Heaviest),
            Scheduler::Overflow => Some(Self::HeaviestWithRoom),
            Scheduler::PowerOfTwo => Some(Self::Equal),
            other => match Measure::of(other) {
                Some(measure) => Some(Self::Least(measure)),
                None => None,
            },
        }
    }
}

/// One service's.
#[derive(Debug, Default)]
struct Ranking {
    order: Option<Order>,
    ranks: Vec<u64>,
    weights: Vec<u32>,
    servers: Vec<ServerId>,
    /// A bit for each position: less than half as many active flows as its weight says. Kept for
    /// `lblc` and `lblcr`.
    roomy: Vec<u64>,
    /// Whether a rank has changed since [`Ranks::has_changed`] was asked.
    has_changed: bool,
}

/// All services' by id.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    services: Vec<Ranking>,
    /// Each server's service and position, by server id.
    places: Vec<Option<(u32, u32)>>,
}

impl Ranks {
    /// Makes room for ids below the limits. A set-up step: it may allocate.
    pub(super) fn reserve(&mut self, (services, servers): (usize, usize)) {
        if self.services.len() < services {
            self.services.resize_with(services, Ranking::default);
        }
        self.places.resize(servers.max(self.places.len()), None);
    }

    /// The service is new, or has changed: its servers' loads are to be noted anew. A set-up step.
    pub(super) fn install(&mut self, service: &Service) {
        let at = service.id.index();
        let own = u32::try_from(at).unwrap_or(u32::MAX);
        let ranking = &mut self.services[at];
        // Those that are gone still have flows to lose, and no place any more.
        for server in ranking.servers.drain(..) {
            let place = &mut self.places[server.index()];
            if place.is_some_and(|(service, _)| service == own) {
                *place = None;
            }
        }
        ranking.order = Order::of(service.scheduler);
        ranking.has_changed = true;
        ranking.ranks.clear();
        ranking.weights.clear();
        ranking.roomy.clear();
        if ranking.order.is_none() {
            return;
        }
        ranking.ranks.resize(service.servers.len(), LAST);
        if matches!(service.scheduler, Scheduler::Locality | Scheduler::LocalityReplicated) {
            ranking.roomy.resize(service.servers.len().div_ceil(64), 0);
        }
        ranking.weights.extend(service.servers.iter().map(|server| server.weight));
        for (position, server) in (0..).zip(&service.servers) {
            self.places[server.id.index()] = Some((own, position));
            ranking.servers.push(server.id);
        }
    }

    /// What a server carries has changed, or whether it is full.
    pub(super) fn note(&mut self, server: ServerId, load: Load, is_full: bool) {
        let Some(Some((service, position))) = self.places.get(server.index()).copied() else {
            return;
        };
        let ranking = &mut self.services[service as usize];
        let Some(order) = ranking.order else { return };
        let place = ranking.ranks.get_mut(position as usize);
        let weight = ranking.weights.get(position as usize).copied();
        if let (Some(place), Some(weight)) = (place, weight) {
            let rank = rank(order, load, weight, is_full);
            ranking.has_changed |= *place != rank;
            *place = rank;
            if let Some(word) = ranking.roomy.get_mut(position as usize / 64) {
                let bit = 1 << (position % 64);
                *word = if load.active * 2 < weight { *word | bit } else { *word & !bit };
            }
        }
    }

    /// The best-ranked server of `service`, the first of several.
    pub(super) fn best<'t>(&self, service: &'t Service) -> Option<&'t Server> {
        let ranking = self.services.get(service.id.index())?;
        let mut best = (LAST, None);
        for (at, rank) in ranking.ranks.iter().enumerate() {
            if *rank < best.0 {
                best = (*rank, Some(at));
            }
        }
        service.servers.get(best.1?)
    }

    /// The best-ranked server in `positions`, the first of several.
    pub(super) fn best_of<'t>(
        &self,
        service: &'t Service,
        positions: impl Iterator<Item = usize>,
    ) -> Option<&'t Server> {
        let ranking = self.services.get(service.id.index())?;
        let mut best = (LAST, None);
        for at in positions {
            let rank = ranking.ranks.get(at).copied().unwrap_or(LAST);
            if rank < best.0 {
                best = (rank, Some(at));
            }
        }
        service.servers.get(best.1?)
    }

    /// Those with less than half as many active flows as their weight says, in file order.
    pub(super) fn roomy<'t>(&self, service: &'t Service) -> impl Iterator<Item = &'t Server> {
        let words = self.services.get(service.id.index()).map_or(&[][..], |ranking| &ranking.roomy);
        let bits = words.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as usize;
                left &= left.wrapping_sub(1);
                (bit < 64).then_some(at * 64 + bit)
            })
        });
        bits.filter_map(|at| service.servers.get(at))
    }

    /// Whether a rank of the service has changed since this was asked.
    pub(super) fn has_changed(&mut self, service: &Service) -> bool {
        let ranking = self.services.get_mut(service.id.index());
        ranking.is_none_or(|ranking| std::mem::take(&mut ranking.has_changed))
    }
}

fn rank(order: Order, load: Load, weight: u32, is_full: bool) -> u64 {
    if weight == 0 || is_full {
        return LAST;
    }
    match order {
        Order::Least(measure) => quotient(measure, load, weight),
        Order::HeaviestWithRoom if load.active > weight => LAST,
        Order::Heaviest | Order::HeaviestWithRoom => u64::from(u32::MAX - weight),
        Order::Equal => 0,
    }
}

/// Two different fractions with denominators below 2^16 are more than 2^-32 apart: the whole part of
/// each, times 2^32, tells them apart, and is the same for equal ones.
fn quotient(measure: Measure, load: Load, weight: u32) -> u64 {
    let (load, per) = measure.fraction(load, weight);
    // With sixteen million flows at most, below 2^32.
    (load.min(u64::from(u32::MAX)) << 32) / per
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load() -> impl Strategy<Value = Load> {
        let few = (0u32..40, 0u32..600);
        let many = (0u32..16_000_000, 0u32..16_000_000);
        prop_oneof![few, many].prop_map(|(active, inactive)| Load { active, inactive })
    }

    fn weight() -> impl Strategy<Value = u32> {
        prop_oneof![1u32..8, 1u32..=65_535]
    }

    proptest! {
        #[test]
        fn ranks_compare_like_fractions(a in (load(), weight()), b in (load(), weight())) {
            for measure in
                [Measure::Connections, Measure::ByWeight, Measure::Delay, Measure::DelayUnlessIdle]
            {
                let fraction = |(load, weight)| measure.fraction(load, weight);
                let ((a_load, a_per), (b_load, b_per)) = (fraction(a), fraction(b));
                let exact = (u128::from(a_load) * u128::from(b_per))
                    .cmp(&(u128::from(b_load) * u128::from(a_per)));
                let ranks = [a, b].map(|(load, weight)| quotient(measure, load, weight));
                // More than the largest table holds.
                prop_assume!(a_load < 1 << 32 && b_load < 1 << 32);
                prop_assert_eq!(ranks[0].cmp(&ranks[1]), exact, "{:?}", measure);
            }
        }
    }
}
