//! What the helper of FTP knows of a flow: a record of version 2, after the flow's own of version 1. A
//! router that knows version 1 only refuses these, counted as of an unknown version, and keeps the flow.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | version, 2 |
//! | 1 | 5: a control connection; 6: a data connection |
//! | 2 | IP protocol, TCP |
//! | 3 | how many changes of text follow, at most 8 |
//! | 4 | how many data connections are awaited, at most 8 |
//! | 5 | 1: there were changes before these; else 0 |
//! | 6-7 | zero |
//! | 8-19 | the flow's original tuple |
//! | 20-23 | the sequence number where the last of the changes before ended, or zero |
//! | 24-27 | how much further the client counts there, or zero; wraps |
//! | then | changes, 8 bytes each: sequence number; length; form, 0 of `227` and 1 of `229`; the port that is told instead |
//! | then | awaited connections, 8 bytes each: 1 if the client opens it, 2 if the server does; zero; \
//!     the port that it goes to; the port it is for; milliseconds left |
//!
//! Numbers are as the server counts. The address that is told is the virtual IP. A data connection's record
//! ends with the original tuple of its control connection, at 20-31.

use super::super::super::ftp::{
    Awaited, FIRST_PORT, Form, KEPT, OFFERS_EACH, PATIENCE, Stream, Text, Told,
};
use super::{Record, TCP, Tuple, read_tuple, read_u32, write_tuple};

pub(super) const VERSION: u8 = 2;
const CONTROL: u8 = 5;
const DATA: u8 = 6;
const HEADER: usize = 28;
const DATA_RECORD: usize = 32;
const ITEM: usize = 8;
pub(super) const LONGEST: usize = HEADER + (KEPT + OFFERS_EACH) * ITEM;
/// The longest text that six numbers make, and a port.
const LONGEST_SIX: u8 = 23;
const LONGEST_PORT: u8 = 5;

/// A control connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Control {
    pub(in super::super) original: Tuple,
    pub(in super::super) told: Told,
}

/// A data connection, and the control connection that asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Data {
    pub(in super::super) original: Tuple,
    pub(in super::super) control: Tuple,
}

impl Control {
    /// How long it is.
    pub(super) fn write(&self, to: &mut [u8; LONGEST]) -> usize {
        let Told { stream, awaited } = &self.told;
        begin(to, CONTROL, self.original);
        if let Some((end, shift)) = stream.floor() {
            to[5] = 1;
            to[20..24].copy_from_slice(&end.to_be_bytes());
            to[24..28].copy_from_slice(&shift.to_be_bytes());
        }
        let mut at = HEADER;
        for edit in stream.edits() {
            to[at..at + 4].copy_from_slice(&edit.start.to_be_bytes());
            to[at + 4] = edit.len;
            to[at + 5] = u8::from(edit.text.form == Form::ExtendedPassive);
            to[at + 6..at + 8].copy_from_slice(&edit.text.port.to_be_bytes());
            (at, to[3]) = (at + ITEM, to[3] + 1);
        }
        for offer in awaited.iter().flatten() {
            to[at] = if offer.is_passive { 1 } else { 2 };
            for (place, word) in [offer.seen, offer.port, offer.left].into_iter().enumerate() {
                to[at + 2 + place * 2..][..2].copy_from_slice(&word.to_be_bytes());
            }
            (at, to[4]) = (at + ITEM, to[4] + 1);
        }
        at
    }

    fn read(bytes: &[u8], original: Tuple) -> Option<Self> {
        let (changes, offers) = (usize::from(bytes[3]), usize::from(bytes[4]));
        let items = bytes.get(HEADER..)?;
        if changes > KEPT || offers > OFFERS_EACH || items.len() != (changes + offers) * ITEM {
            return None;
        }
        let floor = (read_u32(&bytes[20..24])?, read_u32(&bytes[24..28])?);
        let mut stream = match (bytes[5], floor) {
            (0, (0, 0)) => Stream::PLAIN,
            (1, floor) => Stream::from(floor),
            _ => return None,
        };
        let (changes, offers) = items.split_at(changes * ITEM);
        for item in changes.chunks_exact(ITEM) {
            let (form, longest) = match item[5] {
                0 => (Form::Passive, LONGEST_SIX),
                1 => (Form::ExtendedPassive, LONGEST_PORT),
                _ => return None,
            };
            let text = Text::new(form, original.destination, word(item, 6));
            let is_possible = (1..=longest).contains(&item[4]) && text.port >= FIRST_PORT;
            if !is_possible || !stream.note(read_u32(&item[..4])?, item[4], text) {
                return None;
            }
        }
        let mut awaited = [None; OFFERS_EACH];
        for (at, item) in offers.chunks_exact(ITEM).enumerate() {
            let is_passive = item[0] == 1;
            let [seen, port, left] = [2, 4, 6].map(|at| word(item, at));
            let offer = Awaited { is_passive, seen, port, left };
            let is_possible = matches!(item[..2], [1 | 2, 0])
                && (1..=PATIENCE.total_millis()).contains(&u64::from(left))
                && seen >= FIRST_PORT
                && port >= FIRST_PORT
                && (is_passive || seen == port);
            let is_same = |other: &Awaited| (other.is_passive, other.seen) == (is_passive, seen);
            if !is_possible || awaited.iter().flatten().any(is_same) {
                return None;
            }
            awaited[at] = Some(offer);
        }
        Some(Self { original, told: Told { stream, awaited } })
    }
}

impl Data {
    /// How long it is.
    pub(super) fn write(&self, to: &mut [u8; LONGEST]) -> usize {
        begin(to, DATA, self.original);
        write_tuple(&mut to[20..32], self.control);
        DATA_RECORD
    }

    fn read(bytes: &[u8], original: Tuple) -> Option<Self> {
        if bytes.len() != DATA_RECORD || bytes[3..6] != [0; 3] {
            return None;
        }
        let control = read_tuple(&bytes[20..32], TCP)?;
        let is_possible = control != original
            && (control.source, control.destination) == (original.source, original.destination);
        is_possible.then_some(Self { original, control })
    }
}

fn begin(to: &mut [u8; LONGEST], kind: u8, original: Tuple) {
    *to = [0; LONGEST];
    to[..3].copy_from_slice(&[VERSION, kind, TCP]);
    write_tuple(&mut to[8..20], original);
}

/// Reads a record of version 2.
pub(super) fn read(bytes: &[u8]) -> Option<Record> {
    let header = bytes.get(..HEADER)?;
    if header[2] != TCP || header[6..8] != [0; 2] {
        return None;
    }
    let original = read_tuple(&header[8..20], TCP)?;
    match header[1] {
        CONTROL => Control::read(bytes, original).map(Record::Control),
        DATA => Data::read(bytes, original).map(Record::Data),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests;
