//! Looks at a few entries at a time, however large the tables are: what the loop has time for
//! between two frames. [`super::report`] has the snapshots of everything.

use std::ops::Range;

use super::counters::Figure;
use super::{Claim, Dataplane, Direction, FlowInfo, Load, NeighbourInfo, Traffic, Tuple};
use crate::addr::{ServerId, ServiceId};
use crate::time::{Duration, Instant};

/// What a service or server carries, and has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Its flows.
    pub load: Load,
    /// Clients that are remembered.
    pub clients: u32,
    /// Since it was added.
    pub traffic: Traffic,
    /// Per second, as IPVS estimates it.
    pub per_second: Traffic,
}

impl Carried {
    const fn new(figure: Figure, per_second: Traffic) -> Self {
        let Figure { load, clients, traffic, .. } = figure;
        Self { load, clients, traffic, per_second }
    }
}

impl Dataplane {
    /// What a service has to do, whom it remembers, and what it has done.
    pub fn service_figures(&self, id: ServiceId) -> Carried {
        Carried::new(self.figures.service(id), self.estimates.service(id))
    }

    /// What a server has to do, for whom it is remembered, and what it has done.
    pub fn server_figures(&self, id: ServerId) -> Carried {
        Carried::new(self.figures.server(id), self.estimates.server(id))
    }

    /// Whether a server has as many flows as it may have.
    pub fn is_full(&self, id: ServerId) -> bool {
        self.thresholds.is_full(id)
    }

    /// How many clients are remembered, and how many were not for want of room.
    pub const fn client_count(&self) -> (usize, u64) {
        (self.clients.len(), self.clients.refused())
    }

    /// The flows in some places, each with how long it lives without another packet. A flow keeps
    /// its place, so walking over all [`Dataplane::flow_places`] misses none that lives meanwhile.
    pub fn flows_in(
        &self,
        places: Range<usize>,
        now: Instant,
    ) -> impl Iterator<Item = (FlowInfo, Duration)> {
        self.flows.in_places(places, now).map(|(flow, left)| (FlowInfo::of(flow), left))
    }

    /// The flow whose packets in one direction look like `tuple`, if it lives.
    pub fn flow_with(&self, tuple: Tuple, now: Instant) -> Option<(FlowInfo, Direction)> {
        self.flows.peek(tuple, now).map(|(flow, direction)| (FlowInfo::of(flow), direction))
    }

    /// How many places of the flow table have been in use.
    pub const fn flow_places(&self) -> usize {
        self.flows.places()
    }

    /// Where the flows lie in memory, for who can say what pages suit them.
    pub fn flow_memory(&self) -> impl Iterator<Item = Range<usize>> {
        self.flows.memory().into_iter()
    }

    /// How many flows fit.
    pub const fn max_flows(&self) -> usize {
        self.flows.capacity()
    }

    /// The neighbours in some places.
    pub fn neighbours_in(&self, places: Range<usize>) -> impl Iterator<Item = NeighbourInfo> {
        self.neighbours.in_places(places).map(NeighbourInfo::of)
    }

    /// Who else speaks for the router's addresses; a few dozen at the most.
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.watch.claims()
    }

    /// How many places for neighbours have been in use.
    pub const fn neighbour_places(&self) -> usize {
        self.neighbours.places()
    }

    /// Frames that wait for a neighbour or to be sent.
    pub fn waiting(&self) -> u64 {
        (self.outbox.held() + self.outbox.queued()) as u64
    }
}
