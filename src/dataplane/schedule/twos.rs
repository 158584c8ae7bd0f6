//! The less loaded of two that are drawn: `twos` (`ip_vs_twos.c`).

use super::Candidate;
use crate::dataplane::draw::Draw;
use crate::table::{Scheduler, Server, Service};

/// What a service's servers are drawn from: by position, the weights so far of those who may be drawn.
/// It is counted anew only when somebody begins or ceases to be one of them.
#[derive(Debug, Default)]
pub(super) struct Urn {
    sums: Vec<u64>,
    /// The outlook it was filled in; `None`: it is to be filled anew.
    filled: Option<u64>,
}

impl Urn {
    /// The service is new, or has changed. A set-up step: it may allocate.
    pub(super) fn install(&mut self, service: &Service) {
        self.filled = None;
        self.sums.clear();
        if service.scheduler == Scheduler::PowerOfTwo {
            self.sums.resize(service.servers.len(), 0);
        }
    }

    /// Somebody is full, or no longer.
    pub(super) const fn spill(&mut self) {
        self.filled = None;
    }

    /// The server for a new flow.
    pub(super) fn choose<'t>(
        &mut self,
        service: &'t Service,
        outlook: u64,
        draw: &mut Draw,
        candidate: &mut impl FnMut(&Server) -> Candidate,
    ) -> Option<&'t Server> {
        if self.filled != Some(outlook) {
            self.fill(service, candidate);
            self.filled = Some(outlook);
        }
        let total = self.sums.last().copied().filter(|total| *total > 0)?;
        self.choose_of(service, draw.two_up_to(total), candidate)
    }

    /// The less loaded of the two that these numbers fall to, from 0 to the sum of the weights.
    pub(super) fn choose_of<'t>(
        &self,
        service: &'t Service,
        drawn: [u64; 2],
        candidate: &mut impl FnMut(&Server) -> Candidate,
    ) -> Option<&'t Server> {
        let [first, second] = drawn.map(|drawn| self.find(service, drawn));
        let (first, second) = (first?, second?);
        let [first_load, second_load] =
            [first, second].map(|server| candidate(server).load.overhead());
        let is_better =
            u64::from(second.weight) * first_load > u64::from(first.weight) * second_load;
        Some(if is_better { second } else { first })
    }

    /// Whom a number falls to: each has as many as its weight says, the first one besides the lowest, as
    /// in the kernel.
    fn find<'t>(&self, service: &'t Service, drawn: u64) -> Option<&'t Server> {
        let drawn = drawn.max(1);
        service.servers.get(self.sums.partition_point(|sum| *sum < drawn))
    }

    /// Those who do not answer ARP are drawn only where all are like that.
    pub(super) fn fill(
        &mut self,
        service: &Service,
        candidate: &mut impl FnMut(&Server) -> Candidate,
    ) {
        let mut fill = |may: fn(Candidate) -> bool| {
            let mut total = 0;
            for (sum, server) in self.sums.iter_mut().zip(&service.servers) {
                if server.weight > 0 && may(candidate(server)) {
                    total += u64::from(server.weight);
                }
                *sum = total;
            }
            total
        };
        if fill(|known| known.may_take() && !known.is_deaf) == 0 {
            fill(|known| known.may_take());
        }
    }
}
