//! The less loaded of two that are drawn: `twos` (`ip_vs_twos.c`).

use super::Candidate;
use crate::dataplane::draw::Draw;
use crate::table::{Server, Service};

/// The server for a new flow. Each of the two is drawn by weight; a heavier share of the draw's lowest
/// number falls to the first server, as in the kernel.
pub(super) fn choose<'t>(
    service: &'t Service,
    draw: &mut Draw,
    mut candidate: impl FnMut(&Server) -> Candidate,
) -> Option<&'t Server> {
    let (mut answering, mut all) = (0, 0);
    for server in &service.servers {
        let known = candidate(server);
        if known.may_take() {
            let weight = u64::from(server.weight);
            all += weight;
            answering += if known.is_deaf { 0 } else { weight };
        }
    }
    let deaf_too = answering == 0;
    let total = if deaf_too { all } else { answering };
    if total == 0 {
        return None;
    }
    let mut drawn = [draw.up_to(total), draw.up_to(total)];
    let mut choices: [Option<(&Server, u64)>; 2] = [None, None];
    for server in service.servers.iter().filter(|server| server.weight > 0) {
        let known = candidate(server);
        if !known.may_take() || (known.is_deaf && !deaf_too) {
            continue;
        }
        let weight = u64::from(server.weight);
        for (drawn, choice) in drawn.iter_mut().zip(&mut choices) {
            if choice.is_none() && *drawn <= weight {
                *choice = Some((server, known.load.overhead()));
            }
            *drawn = drawn.saturating_sub(weight);
        }
        if choices.iter().all(Option::is_some) {
            break;
        }
    }
    let [first, second] = choices;
    let ((first, first_load), (second, second_load)) = (first?, second?);
    let is_better = u64::from(second.weight) * first_load > u64::from(first.weight) * second_load;
    Some(if is_better { second } else { first })
}
