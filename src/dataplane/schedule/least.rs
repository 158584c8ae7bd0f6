//! The least loaded: `lc`, `wlc`, `sed` and `nq` (`ip_vs_lc.c`, `ip_vs_wlc.c`, `ip_vs_sed.c`,
//! `ip_vs_nq.c`).

use super::rank::Ranks;
use super::{Candidate, Load};
use crate::table::{Scheduler, Server, Service};

/// What a server is compared by: the lower the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// Connections.
    Connections,
    /// Connections by weight.
    ByWeight,
    /// Active connections, with the new one, by weight.
    Delay,
    /// The same, but none of an idle server.
    DelayUnlessIdle,
}

impl Measure {
    /// By what the scheduler compares; `None`: it does not.
    pub(super) const fn of(scheduler: Scheduler) -> Option<Self> {
        match scheduler {
            Scheduler::LeastConnection => Some(Self::Connections),
            Scheduler::WeightedLeastConnection
            | Scheduler::Locality
            | Scheduler::LocalityReplicated => Some(Self::ByWeight),
            Scheduler::ShortestExpectedDelay => Some(Self::Delay),
            Scheduler::NeverQueue => Some(Self::DelayUnlessIdle),
            _ => None,
        }
    }

    /// Numerator and denominator, the first below 2^40. The weight is above 0.
    pub(super) const fn fraction(self, load: Load, weight: u32) -> (u64, u64) {
        match self {
            Self::Connections => (load.overhead(), 1),
            Self::ByWeight => (load.overhead(), weight as u64),
            Self::DelayUnlessIdle if load.active == 0 => (0, 1),
            Self::Delay | Self::DelayUnlessIdle => (load.active as u64 + 1, weight as u64),
        }
    }
}

/// The server for a new flow.
pub(super) fn choose<'t>(
    service: &'t Service,
    ranks: &Ranks,
    candidate: &mut impl FnMut(&Server) -> Candidate,
) -> Option<&'t Server> {
    // What there is to know of a server besides makes it no better.
    let first = ranks.best(service)?;
    if candidate(first).is_plain() {
        return Some(first);
    }
    let measure = Measure::of(service.scheduler)?;
    among(measure, service.servers.iter(), candidate)
}

/// The least loaded of `servers`, by comparing what is known of each.
pub(super) fn among<'t>(
    measure: Measure,
    servers: impl Iterator<Item = &'t Server>,
    candidate: &mut impl FnMut(&Server) -> Candidate,
) -> Option<&'t Server> {
    let mut best: Option<(&Server, bool, u64, u64)> = None;
    for server in servers.filter(|server| server.weight > 0) {
        let known = candidate(server);
        if !known.may_take() {
            continue;
        }
        // Below 2^40 and 2^24: there are at most 2^30 flows.
        let (load, per) = measure.fraction(known.load, server.weight);
        let (per, is_deaf) = (per * u64::from(known.share), known.is_deaf);
        let better = best.is_none_or(|(_, was_deaf, least, of)| match (was_deaf, is_deaf) {
            (true, false) => true,
            (false, true) => false,
            (false, false) | (true, true) => least * per > load * of,
        });
        if better {
            best = Some((server, is_deaf, load, per));
        }
    }
    best.map(|(server, ..)| server)
}
