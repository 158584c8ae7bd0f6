//! The heaviest: `fo`, and `ovf` until it has enough (`ip_vs_fo.c`, `ip_vs_ovf.c`).

use super::rank::Ranks;
use super::{Candidate, Load};
use crate::table::{Server, Service};

/// The first of the heaviest servers that have `room`, given their weight and load.
pub(super) fn choose<'t>(
    service: &'t Service,
    ranks: &Ranks,
    mut candidate: impl FnMut(&Server) -> Candidate,
    room: impl Fn(u32, Load) -> bool,
) -> Option<&'t Server> {
    // What there is to know of a server besides makes it no better.
    let first = ranks.best(service)?;
    let known = candidate(first);
    if known.may_take() && !known.is_deaf {
        return Some(first);
    }
    let mut best: Option<(&Server, bool)> = None;
    for server in service.servers.iter().filter(|server| server.weight > 0) {
        // Lighter than one that answers, it is no better whatever is known of it.
        if best.is_some_and(|(best, is_deaf)| !is_deaf && best.weight >= server.weight) {
            continue;
        }
        let known = candidate(server);
        if !known.may_take() || !room(server.weight, known.load) {
            continue;
        }
        let better = best.is_none_or(|(best, was_deaf)| match (was_deaf, known.is_deaf) {
            (true, false) => true,
            (false, true) => false,
            (false, false) | (true, true) => server.weight > best.weight,
        });
        if better {
            best = Some((server, known.is_deaf));
        }
    }
    best.map(|(server, _)| server)
}
