//! Taking over what the peer tells: flows as if they had been this router's from the start.

use super::super::Dataplane;
use super::super::flow::{Direction, Flow, Tuple};
use super::super::ftp::Helper;
use super::super::masquerade::Socket;
use super::record::{Control, Data, Method, Record, Snapshot};
use super::{GRACE, ImportError, Imported, PLACES};
use crate::addr::{NetworkId, Proto, ServerId, ServiceId};
use crate::frame::TCP;
use crate::table::{Local, Server, Table};
use crate::time::{Duration, Instant};

/// Where a packet comes from that has no way back.
const NOWHERE: NetworkId = NetworkId(u16::MAX);

impl Dataplane {
    /// Takes over what a peer's record says, in the order of the peer's records. A router that notes
    /// its own changes, as the Active does, knows better about the flows it has: those stay.
    ///
    /// # Errors
    /// When the flow was not taken over, because of what the record says or for want of room.
    pub fn import_flow(
        &mut self,
        table: &Table,
        record: &[u8],
        now: Instant,
    ) -> Result<Imported, ImportError> {
        let imported = Record::read(record).and_then(|record| match record {
            Record::Present(flow) => self.import_present(table, &flow, now),
            Record::Gone(original) => Ok(self.import_gone(original)),
            Record::Remembered(client) => self.import_client(table, &client, now),
            Record::Forgotten(name) => Ok(self.import_forgotten(table, &name)),
            Record::Control(control) => self.import_control(&control, now),
            Record::Data(data) => self.import_data(&data),
        });
        match imported {
            Ok(_) => self.copies.counters.copied_in += 1,
            Err(reason) => self.copies.counters.refused[reason.index()] += 1,
        }
        imported
    }

    /// The peer begins to tell of all its flows.
    pub fn begin_full_import(&mut self) {
        self.copies.sweeping = None;
        self.copies.sweeping_clients = None;
        self.flows.start_lap();
    }

    /// The peer has told of all its flows: those from before that it did not name go, in parts, by
    /// [`Dataplane::handle_timeout`]. A router that notes its own changes keeps them.
    pub fn end_full_import(&mut self) {
        self.copies.sweeping = (!self.copies.changes.is_on).then_some(0);
        self.copies.sweeping_clients = self.copies.sweeping;
    }

    /// Whether flows still go that the peer has no more.
    pub const fn is_sweeping(&self) -> bool {
        self.copies.sweeping.is_some() || self.copies.sweeping_clients.is_some()
    }

    /// A step of the walks over the flow table that copies need.
    pub(in crate::dataplane) fn tend_copies(&mut self, table: &Table) {
        if let Some(from) = self.copies.sweeping {
            self.copies.sweeping = self.step(from, |dataplane, id| {
                if !dataplane.flows.is_of_lap(id) {
                    dataplane.remove_flow(id);
                    dataplane.copies.counters.swept += 1;
                }
            });
        }
        self.sweep_clients();
        if let Some(from) = self.copies.binding {
            self.copies.binding = self.step(from, |dataplane, id| dataplane.bind(table, id));
        }
    }

    /// Does something with the flows in some places; where to go on.
    fn step(&mut self, from: usize, mut each: impl FnMut(&mut Self, u32)) -> Option<usize> {
        let places = self.flows.places();
        let to = from.saturating_add(PLACES).min(places);
        for place in from..to {
            if let Some((id, _)) = self.flows.at(place) {
                each(self, id);
            }
        }
        (to < places).then_some(to)
    }

    /// Gives an unbound flow to its server, if that is configured by now.
    pub(in crate::dataplane) fn bind(&mut self, table: &Table, id: u32) {
        let flow = self.flows.get(id);
        if !flow.is_unbound() {
            return;
        }
        if flow.helper == Helper::Data {
            // It is whose control connection it is: nobody else's service is at its port.
            let control = self.ftp.control_of(id).and_then(|control| self.flows.resolve(control));
            if let Some(owner) = control.and_then(|control| self.flows.get(control).owner()) {
                self.bind_to(id, owner);
            }
            return;
        }
        let Tuple { protocol, destination, destination_port, .. } = flow.original;
        let proto = if protocol == TCP { Proto::Tcp } else { Proto::Udp };
        let Some(service) = table.service(proto, destination, destination_port) else { return };
        let (address, port) = (flow.reply.source, flow.reply.source_port);
        let is_it = |server: &&Server| {
            server.address == address && server.port_for(destination_port) == port
        };
        let Some(server) = service.all_servers().find(is_it) else { return };
        let is_helped = service.lifecycle.helper == Some(crate::table::Helper::Ftp);
        let is_plain = flow.helper == Helper::None && !flow.direct;
        let is_hairpin = flow.reply.destination != flow.original.source;
        self.bind_to(id, (service.id, server.id));
        if is_helped && is_plain && !is_hairpin {
            self.watch_ftp(id);
        }
        let client = self.flows.get(id).original.source;
        if let Some(client) = self.clients.find(service.id, client)
            && self.clients.get(client).server == server.id
        {
            self.control(client, id);
        }
    }

    fn bind_to(&mut self, id: u32, (service, server): (ServiceId, ServerId)) {
        let flow = self.flows.get_mut(id);
        flow.bind(service, server);
        let state = flow.state;
        self.copies.counters.unbound -= 1;
        self.flow_came(Some((service, server)), state);
    }

    /// The flow that the peer's helper has to do with, if it is the same here and the peer knows better.
    fn helped_here(&mut self, original: Tuple) -> Option<u32> {
        let (id, direction) = self.flows.find(original)?;
        let flow = self.flows.get(id);
        let is_it = direction == Direction::Original && Method::of(flow) == Method::Nat;
        (is_it && !self.copies.changes.is_on).then_some(id)
    }

    fn import_control(&mut self, control: &Control, now: Instant) -> Result<Imported, ImportError> {
        let id = self.helped_here(control.original);
        let Some(id) = id.filter(|id| self.flows.get(*id).helper != Helper::Data) else {
            return Ok(Imported::Unchanged);
        };
        let fits = self.take_over_control(id, &control.told, now);
        if fits { Ok(Imported::Updated) } else { Err(ImportError::TableFull) }
    }

    fn import_data(&mut self, data: &Data) -> Result<Imported, ImportError> {
        let Some(control) = self.helped_here(data.control) else { return Ok(Imported::Unchanged) };
        let Some(id) = self.helped_here(data.original) else { return Ok(Imported::Unchanged) };
        let [flow, owner] = [id, control].map(|id| self.flows.get(id));
        let is_same = flow.reply.source == owner.reply.source;
        if flow.helper == Helper::Control || owner.helper != Helper::Control || !is_same {
            return Ok(Imported::Unchanged);
        }
        if !self.ftp.link(id, self.flows.reference(control)) {
            return Err(ImportError::TableFull);
        }
        let owner = owner.owner();
        self.flows.get_mut(id).helper = Helper::Data;
        if let Some(owner) = owner.filter(|_| self.flows.get(id).is_unbound()) {
            self.bind_to(id, owner);
        }
        Ok(Imported::Updated)
    }

    fn import_gone(&mut self, original: Tuple) -> Imported {
        let found = self.flows.find(original);
        match found.filter(|(_, direction)| *direction == Direction::Original) {
            Some((id, _)) if !self.copies.changes.is_on => {
                self.remove_flow(id);
                Imported::Removed
            }
            Some(_) | None => Imported::Unchanged,
        }
    }

    fn import_present(
        &mut self,
        table: &Table,
        copied: &Snapshot,
        now: Instant,
    ) -> Result<Imported, ImportError> {
        let Snapshot { original, reply, method, .. } = *copied;
        let is_own = |address| matches!(table.local(address), Some(Local::Own(_)));
        // Nothing that a peer forwards comes from here, or goes here.
        if [original.source, original.destination, reply.source, reply.destination]
            .into_iter()
            .any(is_own)
        {
            return Err(ImportError::Conflict);
        }
        let mut imported = Imported::Added;
        // The reply tuple of a direct flow is nobody's but its own.
        let tuples = if method == Method::Direct { &[original][..] } else { &[original, reply] };
        for tuple in tuples {
            let Some((id, direction)) = self.flows.find(*tuple) else { continue };
            let is_live = !self.flows.is_expired(id, now);
            let flow = self.flows.get(id);
            let is_same = direction == Direction::Original
                && (flow.original, flow.reply, Method::of(flow)) == (original, reply, method);
            if is_live && self.copies.changes.is_on {
                return if is_same { Ok(Imported::Unchanged) } else { Err(ImportError::Conflict) };
            }
            if is_live && is_same {
                self.update(id, copied, now);
                return Ok(Imported::Updated);
            }
            if is_live {
                imported = Imported::Replaced;
            }
            self.remove_flow(id);
        }
        self.add(table, copied, now)?;
        Ok(imported)
    }

    /// A flow that was known has gone on.
    fn update(&mut self, id: u32, copied: &Snapshot, now: Instant) {
        let flow = self.flows.get_mut(id);
        let (before, owner) = (flow.state, flow.owner());
        take_over(flow, copied);
        self.flows.join_lap(id);
        self.flows.reclass(id);
        self.flows.touch(id, now, time_left(copied));
        self.flow_moved(owner, before, copied.state);
    }

    fn add(&mut self, table: &Table, copied: &Snapshot, now: Instant) -> Result<(), ImportError> {
        let Snapshot { original, reply, method, state, .. } = *copied;
        self.make_room(now).map_err(|_| ImportError::TableFull)?;
        if method == Method::Masqueraded {
            let claimed =
                self.masquerade.claim(Socket::client_of(original), Socket::seen_in(reply));
            claimed.ok_or(ImportError::TableFull)?;
        }
        // Of no generation yet: its ways are looked up below.
        let generation = table.generation().wrapping_sub(1);
        let mut flow = Flow::new(original, reply, state, None, [NOWHERE; 2], generation);
        take_over(&mut flow, copied);
        flow.direct = method == Method::Direct;
        if method == Method::Masqueraded {
            flow.helper = Helper::Masquerade;
        }
        if method.is_served() {
            flow.be_unbound();
            self.copies.counters.unbound += 1;
        }
        let id = self.flows.insert(flow, now, time_left(copied));
        self.revalidate(table, id);
        Ok(())
    }
}

/// What a record says, and the flow did not know.
const fn take_over(flow: &mut Flow, copied: &Snapshot) {
    flow.state = copied.state;
    flow.assured = copied.assured;
    flow.server_syn = copied.server_syn;
    flow.server_syn_seen = copied.server_syn_seen;
    flow.reset_by = copied.reset_by;
    flow.copied = true;
}

fn time_left(copied: &Snapshot) -> Duration {
    Duration::from_millis(u64::from(copied.left)) + GRACE
}
