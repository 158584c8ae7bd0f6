//! Records on their way to the peer: kept until it has taken them out, sent again when they got lost.

use super::pace::{Bucket, RoundTrip};
use super::wire::{MARK, SEGMENT_OVERHEAD};
use crate::time::{Duration, Instant};

/// Datagrams with records that are under way at a time, and that are put in order on arrival.
pub(super) const WINDOW: usize = 128;
/// How long records wait for others that fill their datagram.
const GATHERING: Duration = Duration::from_millis(2);
/// So many later ones were acknowledged: it is lost (RFC 9002 section 6.1.1).
const OVERTAKEN_BY: u64 = 3;
/// Datagrams with records a second, and at once.
const RATE: u64 = 8_000;
const BURST: u64 = 64;

/// The records of one datagram.
#[derive(Debug)]
struct Slot {
    bytes: Vec<u8>,
    records: u64,
    /// When the first of them came.
    opened: Instant,
    sent: Instant,
    /// Of the last datagram it left in.
    number: u64,
    repeated: bool,
}

/// A ring of datagrams, by sequence: acknowledged or under way, then waiting, then the one being filled.
#[derive(Debug)]
pub(super) struct Outgoing {
    slots: Vec<Slot>,
    /// Bytes of records that fit a datagram, and the longest record.
    space: usize,
    record: usize,
    /// The sequence of the first that the peer has not taken out.
    base: u64,
    /// How many from there on were filled, and how many of these have left once.
    sealed: usize,
    sent: usize,
    /// Which of them the peer has, and which are lost; bit 0 is `base`.
    have: u128,
    lost: u128,
    /// The highest number of a datagram that was acknowledged and left once only.
    newest: u64,
    queued: u64,
    retransmit_at: Option<Instant>,
    trip: RoundTrip,
    bucket: Bucket,
}

/// One datagram's records, to be sent now.
#[derive(Debug)]
pub(super) struct Due<'a> {
    pub(super) sequence: u64,
    pub(super) bytes: &'a [u8],
    /// 0 when they left before.
    pub(super) records: u64,
    pub(super) repeated: bool,
}

impl Outgoing {
    /// `datagram`: bytes of UDP payload; `record`: of the longest record.
    pub(super) fn new(datagram: usize, record: usize, now: Instant) -> Self {
        let space = datagram - SEGMENT_OVERHEAD;
        let slot = || Slot {
            bytes: Vec::with_capacity(space),
            records: 0,
            opened: now,
            sent: now,
            number: 0,
            repeated: false,
        };
        Self {
            slots: std::iter::repeat_with(slot).take(WINDOW).collect(),
            space,
            record,
            base: 1,
            sealed: 0,
            sent: 0,
            have: 0,
            lost: 0,
            newest: 0,
            queued: 0,
            retransmit_at: None,
            trip: RoundTrip::default(),
            bucket: Bucket::new(RATE, BURST, now),
        }
    }

    /// Forgets everything: another session begins. The limit on the rate stays.
    pub(super) fn clear(&mut self) {
        for slot in &mut self.slots {
            slot.bytes.clear();
            slot.records = 0;
        }
        (self.base, self.sealed, self.sent) = (1, 0, 0);
        (self.have, self.lost, self.newest, self.queued) = (0, 0, 0, 0);
        (self.retransmit_at, self.trip) = (None, RoundTrip::default());
    }

    /// How many records of the longest kind there is room for.
    pub(super) fn room(&self) -> usize {
        if self.sealed == WINDOW {
            return 0;
        }
        let fit = |taken: usize| self.space.saturating_sub(MARK + taken) / (1 + self.record);
        fit(self.slot(self.sealed).bytes.len()) + (WINDOW - 1 - self.sealed) * fit(0)
    }

    /// Takes a record of 1 to 255 bytes, if there is room.
    pub(super) fn push(&mut self, record: &[u8], now: Instant) -> bool {
        let Ok(len) = u8::try_from(record.len()) else { return false };
        if len == 0 || !self.reserve(1 + record.len() + MARK, now) {
            return false;
        }
        self.queued += 1;
        let slot = self.slot_mut(self.sealed);
        slot.bytes.push(len);
        slot.bytes.extend_from_slice(record);
        slot.records += 1;
        true
    }

    /// Takes the mark that everything was sent to the peer of this `term`, if there is room: after a
    /// record that was taken there always is.
    pub(super) fn push_mark(&mut self, term: u32, now: Instant) -> bool {
        if !self.reserve(MARK, now) {
            return false;
        }
        let slot = self.slot_mut(self.sealed);
        slot.bytes.push(0);
        slot.bytes.extend_from_slice(&term.to_be_bytes());
        true
    }

    /// Whether `len` bytes fit the slot being filled, or the next one, which it then is.
    fn reserve(&mut self, len: usize, now: Instant) -> bool {
        if self.sealed == WINDOW || len > self.space {
            return false;
        }
        if self.slot(self.sealed).bytes.len() + len > self.space {
            if self.sealed + 1 == WINDOW {
                return false;
            }
            self.sealed += 1;
        }
        let slot = self.slot_mut(self.sealed);
        if slot.bytes.is_empty() {
            slot.opened = now;
        }
        true
    }

    /// The next datagram that is due, which now leaves as `number`.
    pub(super) fn send(&mut self, number: u64, now: Instant) -> Option<Due<'_>> {
        self.seal(now);
        let at = match self.lost {
            0 if self.sent == self.sealed => return None,
            0 => self.sent,
            lost => lost.trailing_zeros() as usize,
        };
        if !self.bucket.take(now) {
            return None;
        }
        let repeated = at < self.sent;
        self.sent = self.sent.max(at + 1);
        self.lost &= !(1 << at);
        let again = now + self.trip.patience();
        self.retransmit_at = Some(self.retransmit_at.map_or(again, |at| at.min(again)));
        let sequence = self.base + at as u64;
        let slot = self.slot_mut(at);
        (slot.sent, slot.number, slot.repeated) = (now, number, repeated);
        let records = if repeated { 0 } else { slot.records };
        Some(Due { sequence, bytes: &slot.bytes, records, repeated })
    }

    /// Records have waited long enough for others.
    fn seal(&mut self, now: Instant) {
        if self.gathered_at().is_some_and(|due| due <= now) {
            self.sealed += 1;
        }
    }

    fn gathered_at(&self) -> Option<Instant> {
        let filling = self.sealed < WINDOW && !self.slot(self.sealed).bytes.is_empty();
        filling.then(|| self.slot(self.sealed).opened + GATHERING)
    }

    /// The peer has taken out everything before `ack`, and has what `have` says from there on.
    pub(super) fn handle_ack(&mut self, ack: u64, have: u128, now: Instant) {
        let Some(ahead) = ack.checked_sub(self.base) else { return };
        let Some(taken) = usize::try_from(ahead).ok().filter(|taken| *taken <= self.sent) else {
            return; // of what has not been sent: nobody who knows the key says so
        };
        let before = first(taken);
        let after = have.checked_shl(u32::try_from(taken).unwrap_or(u32::MAX)).unwrap_or(0);
        let answered = (before | after) & first(self.sent) & !self.have;
        self.answered(answered, now);
        self.have |= answered;
        self.lost &= !self.have;
        for at in 0..taken {
            let slot = self.slot_mut(at);
            slot.bytes.clear();
            let records = std::mem::take(&mut slot.records);
            self.queued -= records;
        }
        self.base += taken as u64;
        self.sealed -= taken;
        self.sent -= taken;
        let shift = u32::try_from(taken).unwrap_or(u32::MAX);
        self.have = self.have.checked_shr(shift).unwrap_or(0);
        self.lost = self.lost.checked_shr(shift).unwrap_or(0);
        if answered != 0 {
            self.trip.answered();
            let newest = self.newest;
            self.lose(|slot| slot.number + OVERTAKEN_BY <= newest);
        }
        self.rearm();
    }

    fn answered(&mut self, mut which: u128, now: Instant) {
        while which != 0 {
            let at = which.trailing_zeros() as usize;
            which &= which - 1;
            let slot = self.slot(at);
            let (number, sent, repeated) = (slot.number, slot.sent, slot.repeated);
            // Whether the first or the second one was answered cannot be told (Karn).
            if !repeated {
                self.newest = self.newest.max(number);
                let took = now.total_micros().saturating_sub(sent.total_micros());
                self.trip.sample(Duration::from_micros(u64::try_from(took).unwrap_or(0)));
            }
        }
    }

    /// What was not acknowledged in time is lost.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.retransmit_at.is_none_or(|due| due > now) {
            return;
        }
        let patience = self.trip.patience();
        if self.lose(|slot| slot.sent + patience <= now) {
            self.trip.unanswered();
        }
        self.rearm();
    }

    /// Whether something is lost that was not yet.
    fn lose(&mut self, is_lost: impl Fn(&Slot) -> bool) -> bool {
        let mut waiting = self.waiting();
        let before = self.lost;
        while waiting != 0 {
            let at = waiting.trailing_zeros() as usize;
            waiting &= waiting - 1;
            if is_lost(self.slot(at)) {
                self.lost |= 1 << at;
            }
        }
        self.lost != before
    }

    fn rearm(&mut self) {
        let (mut waiting, mut oldest) = (self.waiting(), None::<Instant>);
        while waiting != 0 {
            let sent = self.slot(waiting.trailing_zeros() as usize).sent;
            waiting &= waiting - 1;
            oldest = Some(oldest.map_or(sent, |oldest| oldest.min(sent)));
        }
        self.retransmit_at = oldest.map(|sent| sent + self.trip.patience());
    }

    /// Those under way: left, not acknowledged, not known to be lost.
    fn waiting(&self) -> u128 {
        first(self.sent) & !self.have & !self.lost
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let unsent = self.lost != 0 || self.sent < self.sealed;
        let next = unsent.then(|| self.bucket.next());
        [next, self.retransmit_at, self.gathered_at()].into_iter().flatten().min()
    }

    /// Records that the peer has not taken out.
    pub(super) const fn queued(&self) -> u64 {
        self.queued
    }

    /// When the oldest of them came.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let mut slots = (0..WINDOW).map(|at| self.slot(at));
        slots.find(|slot| slot.records > 0).map(|slot| slot.opened)
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.trip.smoothed()
    }

    fn slot(&self, at: usize) -> &Slot {
        &self.slots[place(self.base + at as u64)]
    }

    fn slot_mut(&mut self, at: usize) -> &mut Slot {
        &mut self.slots[place(self.base + at as u64)]
    }
}

/// Where a sequence is kept.
pub(super) fn place(sequence: u64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "below 128")]
    let place = (sequence % WINDOW as u64) as usize;
    place
}

/// The lowest `count` bits.
fn first(count: usize) -> u128 {
    1_u128.checked_shl(u32::try_from(count).unwrap_or(u32::MAX)).map_or(u128::MAX, |bit| bit - 1)
}
