//! Clients that are remembered, told to the other router of a pair and taken over from it.

use std::net::Ipv4Addr;

use super::super::Dataplane;
use super::changes::Changed;
use super::record::{ClientName, Record, Remembered};
use super::{FlowRecord, GRACE, ImportError, Imported, PLACES};
use crate::addr::ServiceId;
use crate::table::{Server, Service, Table};
use crate::time::{Duration, Instant};

impl Dataplane {
    /// What is remembered of a client has changed.
    pub(in crate::dataplane) fn note_client(&mut self, id: u32) {
        if !self.copies.changes.is_on || !self.clients.is_assured(id) {
            return;
        }
        let client = self.clients.get_mut(id);
        if !std::mem::replace(&mut client.noted, true) {
            let changed = Changed::Client(client.service, client.address);
            self.push_change(changed);
        }
    }

    /// A client is about to be forgotten.
    pub(in crate::dataplane) fn note_client_gone(&mut self, id: u32) {
        let client = self.clients.get(id);
        let changed = Changed::Client(client.service, client.address);
        // What is told of one that waits for it already will be that it is gone.
        if self.copies.changes.is_on && !client.noted && self.clients.is_assured(id) {
            self.push_change(changed);
        }
    }

    /// What is true of a client now; `None` where its service remembers nobody any more.
    pub(super) fn record_of_client(
        &mut self,
        service: ServiceId,
        address: Ipv4Addr,
        now: Instant,
    ) -> Option<Record> {
        let key = self.clients.key_of(service)?;
        let Some(id) = self.clients.find(service, address) else {
            let prefix = self.clients.prefix_of(service)?;
            return Some(Record::Forgotten(ClientName { key, address, prefix }));
        };
        self.clients.get_mut(id).noted = false;
        self.remembered_as(id, now)
    }

    fn remembered_as(&self, id: u32, now: Instant) -> Option<Record> {
        let client = self.clients.get(id);
        let key = self.clients.key_of(client.service)?;
        let name = ClientName { key, address: client.address, prefix: client.prefix };
        let left = u32::try_from(self.clients.left(id, now).total_millis()).unwrap_or(u32::MAX);
        let (server, port) = self.clients.server_at(client.server)?;
        Some(Record::Remembered(Remembered { name, server, port, left }))
    }

    /// Hands the record of the client in a place to `out`, if there is one worth telling; whether `out`
    /// took it.
    pub(super) fn export_client(
        &mut self,
        place: usize,
        now: Instant,
        record: &mut FlowRecord,
        out: &mut impl FnMut(&FlowRecord) -> bool,
    ) -> bool {
        let Some((id, _)) = self.clients.at(place) else { return true };
        if !self.clients.is_assured(id) || self.clients.is_over(id, now) {
            return true;
        }
        let Some(told) = self.remembered_as(id, now) else { return true };
        told.write(record);
        if !out(record) {
            return false;
        }
        self.copies.counters.copied_out += 1;
        self.clients.get_mut(id).noted = false;
        true
    }

    pub(super) fn import_client(
        &mut self,
        table: &Table,
        told: &Remembered,
        now: Instant,
    ) -> Result<Imported, ImportError> {
        let Remembered { name, server, port, left } = *told;
        let Some((service, prefix)) = persistent(table, &name) else {
            return Ok(Imported::Unchanged);
        };
        let is_it = |known: &&Server| (known.address, known.port) == (server, port);
        let Some(server) = service.servers.iter().find(is_it).filter(|_| prefix == name.prefix)
        else {
            return Ok(Imported::Unchanged);
        };
        let known = self.clients.find(service.id, name.address);
        let known = known.filter(|id| !self.clients.is_over(*id, now));
        if known.is_some() && self.copies.changes.is_on {
            return Ok(Imported::Unchanged);
        }
        let expires = now + Duration::from_millis(u64::from(left)) + GRACE;
        let id = self.remember_client(service.id, name.address, server.id, expires);
        let id = id.ok_or(ImportError::TableFull)?;
        self.clients.assure(id);
        self.clients.join_lap(id, self.flows.lap());
        Ok(if known.is_some() { Imported::Updated } else { Imported::Added })
    }

    pub(super) fn import_forgotten(&mut self, table: &Table, name: &ClientName) -> Imported {
        let found = persistent(table, name)
            .and_then(|(service, _)| self.clients.find(service.id, name.address));
        match found {
            Some(id) if !self.copies.changes.is_on => {
                self.forget(id);
                Imported::Removed
            }
            Some(_) | None => Imported::Unchanged,
        }
    }

    /// A step of the walk that drops the clients that the peer had no more.
    pub(super) fn sweep_clients(&mut self) {
        let Some(from) = self.copies.sweeping_clients else { return };
        let places = self.clients.places();
        let to = from.saturating_add(PLACES).min(places);
        let lap = self.flows.lap();
        for place in from..to {
            if let Some((id, _)) = self.clients.at(place)
                && !self.clients.is_of_lap(id, lap)
            {
                self.forget(id);
                self.copies.counters.swept += 1;
            }
        }
        self.copies.sweeping_clients = (to < places).then_some(to);
    }
}

/// The service that remembers the client, and how many bits of an address make one.
fn persistent<'t>(table: &'t Table, name: &ClientName) -> Option<(&'t Service, u8)> {
    let service = table.service_of(name.key)?;
    Some((service, service.balance.persistence?.prefix))
}
