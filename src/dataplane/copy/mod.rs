//! Flows copied to the other router of a pair, and taken over from it, so that connections survive
//! a change of roles.
//!
//! Owns what of a flow is told and when; how records travel is the business of whoever asks for them.
//! A flow is worth copying once it is assured: floods of half-open connections copy nothing. A record
//! is the whole truth about one tuple at the moment when it was written, so the last one holds.

mod changes;
mod clients;
mod import;
mod record;

use std::fmt;

use super::Dataplane;
use super::flow::{Direction, Tuple};
use super::ftp::Helper;
use crate::time::{Duration, Instant};
use changes::{Changed, Changes};
use record::{Control, Data, Record, Snapshot};

pub use record::{FLOW_RECORD, FlowRecord, LONGEST_FLOW_RECORD};

/// Places of the flow table looked at in one step of a walk.
const PLACES: usize = 512;
/// How much longer a copy lives than its flow: the peer tells of a flow that lives on only when its
/// time would have been up.
const GRACE: Duration = Duration::from_secs(10);

/// What [`Dataplane::next_change`] has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowChange {
    /// A flow has changed, or is gone: its record was written.
    Record,
    /// There were changes that nobody noted: whoever holds a copy needs all flows anew.
    Lost,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// The flow was not known.
    Added,
    /// The flow was known.
    Updated,
    /// It took the place of a flow that is not the peer's, or no more.
    Replaced,
    /// The flow is gone.
    Removed,
    /// There was nothing to do: a flow that was not known is gone, or this router knows better.
    Unchanged,
}

/// Why a record was not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportError {
    /// No peer writes what its bytes say.
    Malformed,
    /// It is of a version that this router does not know.
    UnknownVersion,
    /// There is no room for a flow, or for its masqueraded port.
    TableFull,
    /// Its packets look like those of a flow that is this router's to know about, or like the
    /// router's own.
    Conflict,
}

impl ImportError {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All of them, in the order of their counters.
    pub const ALL: [Self; 4] =
        [Self::Malformed, Self::UnknownVersion, Self::TableFull, Self::Conflict];

    /// The name its counter goes by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownVersion => "unknown_version",
            Self::TableFull => "table_full",
            Self::Conflict => "conflict",
        }
    }

    /// Its counter's place.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl std::error::Error for ImportError {}

/// What was copied so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyCounters {
    /// Records written: changes, and flows of a walk over all.
    pub copied_out: u64,
    /// Records taken over.
    pub copied_in: u64,
    /// Records refused, by [`ImportError::index`].
    pub refused: [u64; ImportError::COUNT],
    /// How often more had changed than could be noted.
    pub overflows: u64,
    /// Flows dropped because the peer had them no more when it told of all.
    pub swept: u64,
    /// Flows of servers that are not configured here, at the moment.
    pub unbound: u64,
}

/// What the dataplane keeps for all of that.
#[derive(Debug, Default)]
pub(super) struct Copies {
    changes: Changes,
    /// The flow that was told last, of which the helper's record is still to be told.
    helped: Option<Tuple>,
    pub(super) counters: CopyCounters,
    /// Where the walk is that looks for servers of unbound flows; `None`: there is no need.
    binding: Option<usize>,
    /// Where the walk is that drops what the peer had no more: flows, then clients.
    sweeping: Option<usize>,
    sweeping_clients: Option<usize>,
}

impl Copies {
    /// There may be servers now for flows that had none.
    pub(super) const fn table_changed(&mut self) {
        if self.counters.unbound > 0 {
            self.binding = Some(0);
        }
    }

    /// Long past while there is something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.binding.or(self.sweeping).or(self.sweeping_clients).map(|_| Instant::ZERO)
    }
}

impl Dataplane {
    /// Whether changes of flows are noted for [`Dataplane::next_change`]: by the Active of a pair.
    /// The first thing told is [`FlowChange::Lost`]. A set-up step: it may allocate.
    pub fn copy_changes(&mut self, on: bool) {
        match (self.copies.changes.is_on, on) {
            (false, true) => self.copies.changes.start(self.flows.capacity()),
            (true, false) => self.copies.changes.stop(),
            (true, true) | (false, false) => {}
        }
    }

    /// The next flow that has changed, as a record in `to`. After [`FlowChange::Lost`] the peer's copy
    /// is whole again once [`Dataplane::export_flows`] has gone over all flows from 0.
    pub fn next_change(&mut self, now: Instant, to: &mut FlowRecord) -> Option<FlowChange> {
        if self.copies.changes.take_lost() {
            return Some(FlowChange::Lost);
        }
        if let Some(record) = self.copies.helped.take().and_then(|flow| self.helped(flow, now)) {
            record.write(to);
            self.copies.counters.copied_out += 1;
            return Some(FlowChange::Record);
        }
        let record = loop {
            match self.copies.changes.pop()? {
                Changed::Flow(original) => break self.record_of(original, now),
                Changed::Client(service, address) => {
                    if let Some(record) = self.record_of_client(service, address, now) {
                        break record;
                    }
                }
            }
        };
        record.write(to);
        self.copies.counters.copied_out += 1;
        Some(FlowChange::Record)
    }

    /// How many records wait to be told, at least.
    pub fn changes_left(&self) -> usize {
        self.copies.changes.len() + usize::from(self.copies.helped.is_some())
    }

    /// Hands the records of some flows to `out`, from place `from` on, until `out` takes one no
    /// more. Returns where to go on; `None` once all places were looked at. A flow keeps its place, so
    /// a walk from 0 misses none; what changes meanwhile is told by [`Dataplane::next_change`].
    pub fn export_flows(
        &mut self,
        from: usize,
        now: Instant,
        mut out: impl FnMut(&FlowRecord) -> bool,
    ) -> Option<usize> {
        let flows = self.flows.places();
        let places = flows + self.clients.places();
        let to = from.saturating_add(PLACES).min(places);
        let mut record = FlowRecord::default();
        for place in from..to {
            // Clients stand behind the flows. Where those have grown since, some are told twice.
            if place >= flows {
                if !self.export_client(place - flows, now, &mut record, &mut out) {
                    return Some(place);
                }
                continue;
            }
            let Some((id, flow)) = self.flows.at(place) else { continue };
            if !flow.assured || self.flows.is_expired(id, now) {
                continue;
            }
            let left = self.flows.millis_left(id, now);
            let flow = Record::Present(Snapshot::of(flow, left));
            for told in [Some(flow), self.helper_of(id, now)].into_iter().flatten() {
                told.write(&mut record);
                if !out(&record) {
                    return Some(place);
                }
                self.copies.counters.copied_out += 1;
            }
            // Whatever became of a note of it, later changes count again.
            self.flows.get_mut(id).noted = false;
        }
        (to < places).then_some(to)
    }

    /// What was copied so far.
    pub const fn copy_counters(&self) -> &CopyCounters {
        &self.copies.counters
    }

    /// The flow has changed.
    pub(super) fn note_change(&mut self, id: u32) {
        if !self.copies.changes.is_on {
            return;
        }
        let flow = self.flows.get_mut(id);
        if flow.assured && !std::mem::replace(&mut flow.noted, true) {
            let original = flow.original;
            self.push_change(Changed::Flow(original));
        }
    }

    /// The flow is about to go.
    pub(super) fn note_gone(&mut self, id: u32) {
        let flow = self.flows.get(id);
        let (original, is_noted) = (flow.original, flow.noted || !flow.assured);
        self.copies.counters.unbound -= u64::from(flow.is_unbound());
        // What is told of a flow that waits for it already will be that it is gone.
        if self.copies.changes.is_on && !is_noted {
            self.push_change(Changed::Flow(original));
        }
    }

    fn push_change(&mut self, changed: Changed) {
        if self.copies.changes.push(changed) {
            self.copies.counters.overflows += 1;
        }
    }

    /// What is true of this tuple now.
    fn record_of(&mut self, original: Tuple, now: Instant) -> Record {
        let found = self.flows.find(original);
        let found = found.filter(|(_, direction)| *direction == Direction::Original);
        let Some((id, _)) = found else { return Record::Gone(original) };
        let left = self.flows.millis_left(id, now);
        let flow = self.flows.get_mut(id);
        flow.noted = false;
        if !flow.assured || left == 0 {
            return Record::Gone(original);
        }
        if flow.helper.is_ftp() {
            self.copies.helped = Some(original);
        }
        Record::Present(Snapshot::of(flow, left))
    }

    /// What the helper knows of the flow with this tuple.
    fn helped(&mut self, original: Tuple, now: Instant) -> Option<Record> {
        let (id, direction) = self.flows.find(original)?;
        (direction == Direction::Original).then(|| self.helper_of(id, now)).flatten()
    }

    fn helper_of(&self, id: u32, now: Instant) -> Option<Record> {
        let flow = self.flows.get(id);
        let original = flow.original;
        match flow.helper {
            Helper::None | Helper::Masquerade => None,
            Helper::Control => {
                let told = self.ftp.told(flow, id, now)?;
                Some(Record::Control(Control { original, told }))
            }
            Helper::Data => {
                let control = self.flows.resolve(self.ftp.control_of(id)?)?;
                let control = self.flows.get(control).original;
                Some(Record::Data(Data { original, control }))
            }
        }
    }
}
