//! Copies flow records between two routers over UDP: signed, in order, each once.
//!
//! Owns what is in a datagram, who is believed, and what is sent again. Knows no sockets, no flows and
//! no addresses: records are bytes, and the loop takes them from the dataplane and gives them to it.
//!
//! Two routers greet each other (`greeter`) and thereby make a session, which lasts until nothing was
//! heard for [`SILENCE`] or one of them starts anew. In it records go from an active router to one
//! that says it is backup: first every flow, then what changes, and slowly every flow again. Each
//! datagram is signed with both nonces of the session and has a number that is never used again.

mod bond;
pub mod drill;
mod greeter;
mod incoming;
mod outgoing;
mod pace;
mod replay;
mod report;
mod walk;
mod wire;

#[cfg(test)]
mod tests;

use bond::Bond;
use greeter::Greeter;
use incoming::{Incoming, Next, Stored};
use outgoing::Outgoing;
use report::Events;
use walk::Walk;
use wire::{Greeting, Kind, Part, Segment};

use super::signature::Key;
use crate::addr::Role;
use crate::time::{Duration, Instant};

pub use report::{Counters, Event, Loss, Refusal, Report};
pub use wire::{LARGEST_DATAGRAM, LONGEST_RECORD, SMALLEST_DATAGRAM};

/// A peer that was not heard for so long is lost.
pub const SILENCE: Duration = Duration::from_secs(1);
/// From one question to the next, and the longest pause between two datagrams of a session.
const KEEPALIVE: Duration = Duration::from_millis(100);
/// How long an acknowledgement waits for more to acknowledge.
const ACK_AFTER: Duration = Duration::from_millis(2);

/// The largest things that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of a UDP payload, brought within [`SMALLEST_DATAGRAM`] and [`LARGEST_DATAGRAM`].
    pub datagram: usize,
    /// Bytes of a record, at most [`LONGEST_RECORD`].
    pub record: usize,
}

/// What the session has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// So many records of the longest kind are taken for sure. At least one. Changes come first.
    pub records: usize,
    /// Where the walk over all flows goes on, once there are no changes left.
    pub walk: Option<Step>,
}

/// A part of the walk over all flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What [`Session::walked`] was told last; 0 at the beginning.
    pub cursor: u64,
    /// So many flows at most.
    pub records: usize,
}

/// This router's end: one session after another with the same peer.
#[derive(Debug)]
pub struct Session {
    key: Key,
    greeter: Greeter,
    greet_at: Instant,
    bond: Option<Bond>,
    outgoing: Outgoing,
    incoming: Incoming,
    datagram: usize,
    walk: Walk,
    /// The term of the peer whose mark could not be sent yet.
    mark: Option<u32>,
    role: Role,
    term: u32,
    complete: bool,
    peer_run: Option<u64>,
    events: Events,
    counters: Counters,
    /// The time when something came in last.
    now: Instant,
}

impl Session {
    /// The end of a router that is backup, and starts looking for its peer at once.
    ///
    /// `seed` has to be fresh and unknown to others: it makes the nonces. All memory is taken here,
    /// about half a megabyte.
    pub fn new(key: Key, seed: [u8; 16], sizes: Sizes, now: Instant) -> Self {
        let datagram = sizes.datagram.clamp(SMALLEST_DATAGRAM, LARGEST_DATAGRAM);
        let record = sizes.record.clamp(1, LONGEST_RECORD);
        Self {
            greeter: Greeter::new(&key, seed),
            key,
            greet_at: now,
            bond: None,
            outgoing: Outgoing::new(datagram, record, now),
            incoming: Incoming::new(),
            datagram,
            walk: Walk::new(now),
            mark: None,
            role: Role::Backup,
            term: 0,
            complete: false,
            peer_run: None,
            events: Events::default(),
            counters: Counters::default(),
            now,
        }
    }

    /// Which start of this router it is: fresh for each seed.
    pub fn run_id(&self) -> u64 {
        self.greeter.run()
    }

    /// Which start of the peer proved that it knows the key, last. Kept when the peer is lost.
    pub fn peer_run_id(&self) -> Option<u64> {
        self.peer_run
    }

    /// Whether the peer has proved that it knows the key, and was heard within [`SILENCE`].
    pub fn is_connected(&self) -> bool {
        self.bond.as_ref().is_some_and(|bond| bond.confirmed.is_some())
    }

    /// Whether everything that the active peer has is here.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// A UDP payload from the peer's address. Why it was not believed, if so; that is counted.
    /// Afterwards the loop takes out records.
    pub fn handle_datagram(&mut self, payload: &[u8], now: Instant) -> Option<Refusal> {
        self.now = now;
        match self.believe(payload, now) {
            Ok(()) => {
                self.counters.datagrams_received += 1;
                self.counters.bytes_received += payload.len() as u64;
                None
            }
            Err(refusal) => {
                self.counters.refused[refusal as usize] += 1;
                Some(refusal)
            }
        }
    }

    fn believe(&mut self, payload: &[u8], now: Instant) -> Result<(), Refusal> {
        if payload.first().is_some_and(|version| *version != wire::VERSION) {
            return Err(Refusal::Version);
        }
        if payload.len() > LARGEST_DATAGRAM {
            return Err(Refusal::Malformed);
        }
        let kind = payload.get(1).and_then(|kind| Kind::read(*kind)).ok_or(Refusal::Malformed)?;
        match kind {
            Kind::Question | Kind::Answer => self.handle_greeting(kind, payload, now),
            Kind::Segment => self.handle_segment(payload, now),
        }
    }

    fn handle_greeting(&mut self, kind: Kind, payload: &[u8], now: Instant) -> Result<(), Refusal> {
        let greeting = Greeting::read(kind, payload).ok_or(Refusal::Malformed)?;
        if greeting.run == self.greeter.run() {
            return Err(Refusal::Reflected);
        }
        let known = self
            .bond
            .as_ref()
            .is_some_and(|bond| bond.way.from == greeting.echo && bond.way.to == greeting.nonce);
        if kind == Kind::Answer && !known && !self.greeter.awaits(&greeting) {
            return Err(Refusal::Replayed);
        }
        if !Greeting::is_signed(&self.key, payload) {
            return Err(Refusal::Signature);
        }
        match kind {
            Kind::Question => self.greeter.asked(greeting.nonce),
            // The peer says again what is known; a session is made once.
            _ if known => {}
            _ => {
                if let Some(way) = self.greeter.accept(&self.key, &greeting) {
                    self.lose(Loss::Renewed, now);
                    self.incoming.begin();
                    self.bond = Some(Bond::new(&self.key, way, greeting.run, now));
                    self.greet_at = now;
                }
            }
        }
        Ok(())
    }

    fn handle_segment(&mut self, payload: &[u8], now: Instant) -> Result<(), Refusal> {
        let (segment, records) = Segment::read(payload).ok_or(Refusal::Malformed)?;
        let bond = self.bond.as_mut().ok_or(Refusal::OtherSession)?;
        if segment.tag == bond.ours {
            return Err(Refusal::Reflected);
        }
        if segment.tag != bond.theirs {
            return Err(Refusal::OtherSession);
        }
        if !bond.replays.is_fresh(segment.number) {
            return Err(Refusal::Replayed);
        }
        if !Segment::is_signed(&self.key, &bond.way.back(), payload) {
            return Err(Refusal::Signature);
        }
        let count = Part::count(records).ok_or(Refusal::Malformed)?;
        let other = bond.hear(&segment, now);
        if segment.sequence > 0 {
            // While both are active each knows its own flows best; they are acknowledged all the same.
            let (records, ignored) = match self.role {
                Role::Backup => (records, 0),
                Role::Active => (&[][..], count),
            };
            let stored = self.incoming.store(segment.sequence, records);
            if matches!(stored, Stored::Next | Stored::Ahead) {
                self.counters.records_ignored += ignored;
            }
            bond.owe(stored != Stored::Next, now);
        }
        if bond.confirmed.is_none() {
            bond.confirmed = Some(now);
            self.peer_run = Some(bond.run);
            self.counters.sessions += 1;
            self.events.push(Event::PeerAppeared { run: bond.run });
        }
        self.outgoing.handle_ack(segment.ack, segment.have, now);
        if other {
            // What it was sent as another it may have ignored.
            self.restart_walk();
        }
        Ok(())
    }

    /// The next record from the active peer, in the order in which the peer's loop pushed them.
    ///
    /// The loop takes out all there are, or as many as its turn allows, after each batch of datagrams.
    /// What is left over makes the peer wait. After a takeover, or when the peer is lost, what had come
    /// before is still handed out.
    pub fn poll_record(&mut self) -> Option<&[u8]> {
        let (slot, range) = loop {
            let before = self.incoming.ack().0;
            let next = self.incoming.take();
            if let Some(bond) = self.bond.as_mut().filter(|_| self.incoming.ack().0 != before) {
                bond.owe(false, self.now);
            }
            match next? {
                Next::Record(slot, range) => break (slot, range),
                Next::Mark(term) => self.handle_mark(term),
            }
        };
        self.counters.records_received += 1;
        self.incoming.bytes(slot, range)
    }

    fn handle_mark(&mut self, term: u32) {
        // The end of a walk that began when this router was another, or active, says nothing.
        let ours = self.role == Role::Backup && self.bond.is_some() && term == self.term;
        if ours && !self.complete {
            self.complete = true;
            self.events.push(Event::Complete);
        }
    }

    /// This router speaks for the virtual IPs, or does not any more.
    pub fn handle_role(&mut self, role: Role, now: Instant) {
        if role == self.role {
            return;
        }
        self.now = now;
        self.role = role;
        self.term = self.term.wrapping_add(1);
        self.complete = false;
        if role == Role::Active {
            self.incoming.salvage();
        }
        if let Some(bond) = &mut self.bond {
            bond.owe(true, now);
        }
        self.restart_walk();
    }

    /// What the loop may push now; `None` while nobody needs it, or there is no room.
    pub fn wants(&self, now: Instant) -> Option<Want> {
        self.streams_to()?;
        let records = self.outgoing.room();
        if records == 0 || self.mark.is_some() {
            return None;
        }
        let walk = self.walk.step(now);
        let walk = walk.map(|(cursor, most)| Step { cursor, records: most.min(records) });
        Some(Want { records, walk })
    }

    /// Takes a record of 1 to [`LONGEST_RECORD`] bytes; `false` when there is no room, or nobody to
    /// send it to.
    pub fn push(&mut self, record: &[u8], now: Instant) -> bool {
        self.streams_to().is_some() && self.outgoing.push(record, now)
    }

    /// The walk has come to `next`, or to its end. Said after its records were pushed.
    pub fn walked(&mut self, next: Option<u64>, now: Instant) {
        let Some(term) = self.streams_to() else { return };
        let hurried = self.walk.stand(next, now);
        if next.is_none() && hurried {
            self.mark = Some(term);
            self.events.push(Event::Transferred);
            self.push_mark(now);
        }
    }

    fn push_mark(&mut self, now: Instant) {
        if self.mark.is_some_and(|term| self.outgoing.push_mark(term, now)) {
            self.mark = None;
        }
    }

    /// Changes were lost: the peer is sent every flow.
    pub fn restart_walk(&mut self) {
        self.walk = Walk::new(self.now);
        self.mark = None;
    }

    /// The term of the peer, when records go to it: from an active router to one that says it is not.
    fn streams_to(&self) -> Option<u32> {
        let bond = self.bond.as_ref().filter(|bond| bond.confirmed.is_some())?;
        match (self.role, bond.peer) {
            (Role::Active, Some((Role::Backup, term))) => Some(term),
            _ => None,
        }
    }

    /// Writes the next UDP payload for the peer to `out`, if there is one.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        out.clear();
        self.now = now;
        if let Some(greeting) = self.greeting(now) {
            greeting.write(&self.key, out);
        } else if !self.segment(out, now) {
            return false;
        }
        self.counters.datagrams_sent += 1;
        self.counters.bytes_sent += out.len() as u64;
        true
    }

    fn greeting(&mut self, now: Instant) -> Option<Greeting> {
        let way = self.bond.as_ref().map(|bond| bond.way);
        if self.greeter.owes() {
            return self.greeter.answer(way);
        }
        if self.is_connected() || now < self.greet_at {
            return None;
        }
        self.greet_at = now + KEEPALIVE;
        Some(way.map_or_else(|| self.greeter.question(), |way| self.greeter.confirm(way)))
    }

    fn segment(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        self.push_mark(now);
        let Some(bond) = &mut self.bond else { return false };
        let due = self.outgoing.send(bond.next_number(), now);
        if due.is_none() && now < bond.speak_at() {
            return false;
        }
        let (ack, have) = self.incoming.ack();
        let (role, term, tag) = (self.role, self.term, bond.ours);
        let sequence = due.as_ref().map_or(0, |due| due.sequence);
        let segment = Segment { role, tag, number: bond.say(now), sequence, ack, have, term };
        segment.write(&self.key, &bond.way, due.as_ref().map_or(&[], |due| due.bytes), out);
        debug_assert!(out.len() <= self.datagram, "{} bytes", out.len());
        if let Some(due) = due {
            self.counters.records_sent += due.records;
            self.counters.retransmitted += u64::from(due.repeated);
        }
        true
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.bond.as_ref().is_some_and(|bond| bond.lost_at() <= now) {
            self.lose(Loss::Silent, now);
        }
        self.outgoing.handle_timeout(now);
    }

    fn lose(&mut self, why: Loss, now: Instant) {
        if self.bond.take().is_some_and(|bond| bond.confirmed.is_some()) {
            self.events.push(Event::PeerLost { why });
        }
        self.outgoing.clear();
        self.incoming.salvage();
        self.complete = false;
        self.restart_walk();
        self.greet_at = now;
    }

    /// When something is due at the latest: to hand in the time, to transmit, or to push more.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let owed = self.greeter.owes().then_some(self.now);
        let greet = (!self.is_connected()).then_some(self.greet_at);
        let bond = self.bond.as_ref().map(|bond| bond.speak_at().min(bond.lost_at()));
        let outgoing = self.bond.as_ref().and_then(|_| self.outgoing.poll_timeout());
        let walks = self.mark.is_none() && self.streams_to().is_some() && self.outgoing.room() > 0;
        let walk = walks.then(|| self.walk.due());
        [owed, greet, bond, outgoing, walk].into_iter().flatten().min()
    }

    /// What has happened, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// How things stand.
    pub fn report(&self, now: Instant) -> Report {
        let connected_since = self.bond.as_ref().and_then(|bond| bond.confirmed);
        let lag = self.outgoing.oldest().map_or(0, |at| now.total_micros() - at.total_micros());
        Report {
            connected_since,
            peer_run: self.peer_run,
            peer_role: self.bond.as_ref().and_then(|bond| bond.peer).map(|(role, _)| role),
            complete: self.complete,
            transferred: connected_since.is_some() && self.walk.is_done() && self.mark.is_none(),
            lag: Duration::from_micros(u64::try_from(lag).unwrap_or(0)),
            queued: self.outgoing.queued(),
            round_trip: self.outgoing.round_trip(),
            counters: self.counters,
        }
    }
}
