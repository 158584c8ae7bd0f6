//! Records from the peer, put in order and handed out one by one.

use std::ops::Range;

use super::outgoing::{WINDOW, place};
use super::wire::{LARGEST_DATAGRAM, Part, SEGMENT_OVERHEAD};

/// What became of the records of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// The next ones in order.
    Next,
    /// New, but some are missing before them.
    Ahead,
    /// They were here before.
    Known,
    /// No room for them yet: they have to come again.
    Refused,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The bytes of a record, for [`Incoming::bytes`].
    Record(usize, Range<usize>),
    /// The peer has sent everything to us as of this term.
    Mark(u32),
}

/// A ring of datagrams by sequence: what has come, in front of what is missing.
#[derive(Debug)]
pub(super) struct Incoming {
    slots: Vec<Vec<u8>>,
    /// The sequence whose records are handed out, how far, and which are here from there on.
    next: u64,
    at: usize,
    have: u128,
    /// What is missing before this sequence will not come any more: hand out what is there.
    salvage: u64,
    /// Another session begins when the ring is empty.
    renewing: bool,
}

impl Incoming {
    pub(super) fn new() -> Self {
        let slot = || Vec::with_capacity(LARGEST_DATAGRAM - SEGMENT_OVERHEAD);
        Self {
            slots: std::iter::repeat_with(slot).take(WINDOW).collect(),
            next: 1,
            at: 0,
            have: 0,
            salvage: 0,
            renewing: false,
        }
    }

    /// What the peer is told: the first sequence that has not been taken out, and what is here.
    pub(super) const fn ack(&self) -> (u64, u128) {
        if self.renewing { (1, 0) } else { (self.next, self.have) }
    }

    /// Keeps `records`, which are in order, as those of `sequence`.
    pub(super) fn store(&mut self, sequence: u64, records: &[u8]) -> Stored {
        self.renew();
        if self.renewing {
            return Stored::Refused;
        }
        let Some(ahead) = sequence.checked_sub(self.next) else { return Stored::Known };
        if ahead >= WINDOW as u64 {
            return Stored::Refused;
        }
        let bit = 1_u128 << ahead;
        if self.have & bit != 0 {
            return Stored::Known;
        }
        self.have |= bit;
        let slot = &mut self.slots[place(sequence)];
        slot.clear();
        slot.extend_from_slice(records);
        if ahead + 1 == u64::from(self.have.trailing_ones()) { Stored::Next } else { Stored::Ahead }
    }

    /// Takes out what comes next.
    pub(super) fn take(&mut self) -> Option<Next> {
        while self.have != 0 {
            if self.have & 1 == 0 {
                if self.next >= self.salvage {
                    return None;
                }
                self.step();
                continue;
            }
            let slot = place(self.next);
            let Some(part) = self.slots[slot].get(self.at..).and_then(Part::first) else {
                self.step();
                continue;
            };
            let start = self.at;
            self.at += part.len();
            return Some(match part {
                Part::Record(len) => Next::Record(slot, start + 1..start + 1 + len),
                Part::Mark(term) => Next::Mark(term),
            });
        }
        self.renew();
        None
    }

    /// The record that was taken out last.
    pub(super) fn bytes(&self, slot: usize, range: Range<usize>) -> Option<&[u8]> {
        self.slots.get(slot)?.get(range)
    }

    /// Nothing more will come of this session: what is here is handed out, gaps or not.
    pub(super) fn salvage(&mut self) {
        self.salvage = self.next + u64::from(u128::BITS - self.have.leading_zeros());
    }

    /// Another session begins: its records come after those of the one before.
    pub(super) fn begin(&mut self) {
        self.salvage();
        self.renewing = true;
        self.renew();
    }

    fn renew(&mut self) {
        if self.renewing && self.have == 0 {
            (self.next, self.at, self.salvage, self.renewing) = (1, 0, 0, false);
        }
    }

    fn step(&mut self) {
        self.next += 1;
        self.at = 0;
        self.have >>= 1;
    }
}
