//! How long flows live without a packet: as the router says, or as their service does.

use super::Dataplane;
use super::flow::State;
use crate::addr::{ServerId, ServiceId};
use crate::table::{Service, Table, Timeouts};
use crate::time::Duration;

/// What services say, by id; it holds for the flows that a removed one has left.
#[derive(Debug, Default)]
pub(super) struct Lifetimes(Vec<Option<Timeouts>>);

impl Lifetimes {
    /// Makes room for service ids below `limit`. A set-up step: it may allocate.
    pub(super) fn reserve(&mut self, limit: usize) {
        self.0.resize(limit.max(self.0.len()), None);
    }

    /// The service is new, or has changed.
    pub(super) fn install(&mut self, service: &Service) {
        self.0[service.id.index()] = service.balance.timeouts;
    }
}

impl Dataplane {
    /// How long a flow in `state` lives without a packet.
    pub(super) fn timeout(
        &self,
        table: &Table,
        owner: Option<(ServiceId, ServerId)>,
        state: State,
    ) -> Duration {
        let of_service =
            owner.and_then(|(service, _)| self.lifetimes.0.get(service.index())?.as_ref());
        state.timeout(of_service.unwrap_or_else(|| table.timeouts()))
    }
}
