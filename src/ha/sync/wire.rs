//! The datagrams, byte by byte: what is at which place, and what a signature covers.

use crate::addr::Role;
use crate::ha::signature::{Key, SIGNATURE};

/// The UDP payload that fits every Ethernet, and the most that is believed.
pub const LARGEST_DATAGRAM: usize = 1_400;
/// The least a datagram may be allowed: the UDP payload that every IPv4 host takes is larger.
pub const SMALLEST_DATAGRAM: usize = 512;
/// The longest record: its length is written as one byte.
pub const LONGEST_RECORD: usize = 255;

pub(super) const VERSION: u8 = 1;
/// Every greeting has this length: an answer is no longer than its question.
pub(super) const GREETING: usize = 76;
/// What stands before the records of a segment.
pub(super) const SEGMENT_HEADER: usize = 56;
/// What a segment needs besides its records.
pub(super) const SEGMENT_OVERHEAD: usize = SEGMENT_HEADER + SIGNATURE;
/// Bytes of the mark that everything has been sent: a record's length of zero, and a term.
pub(super) const MARK: usize = 5;

/// What a signature is made for. Adverts have numbers of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Greeting = 0x21,
    Segment = 0x22,
    Tag = 0x23,
    Nonce = 0x24,
    Run = 0x25,
}

/// A number used once.
pub(super) type Nonce = [u8; 16];

/// Both nonces of a session, the sender's first: a reflected datagram has them the wrong way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) from: Nonce,
    pub(super) to: Nonce,
}

impl Way {
    pub(super) fn back(self) -> Self {
        Self { from: self.to, to: self.from }
    }

    /// Names session and direction, so that what belongs to another one is refused without an HMAC.
    pub(super) fn tag(&self, key: &Key) -> u64 {
        first_u64(&key.sign(Purpose::Tag as u8, &[&self.from, &self.to]))
    }
}

/// What a datagram is, by its second byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Question = 1,
    Answer = 2,
    Segment = 3,
}

impl Kind {
    pub(super) fn read(byte: u8) -> Option<Self> {
        [Self::Question, Self::Answer, Self::Segment].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// `run`: which start of the sender this is. `echo`: the nonce of whom it answers, zero in a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) kind: Kind,
    pub(super) run: u64,
    pub(super) nonce: Nonce,
    pub(super) echo: Nonce,
}

impl Greeting {
    /// Reads one of `kind`; its signature has not been looked at.
    pub(super) fn read(kind: Kind, payload: &[u8]) -> Option<Self> {
        if payload.len() != GREETING || payload[2..4] != [0, 0] {
            return None;
        }
        let run = u64::from_be_bytes(bytes(payload, 4)?);
        let greeting = Self { kind, run, nonce: bytes(payload, 12)?, echo: bytes(payload, 28)? };
        ((kind == Kind::Question) == (greeting.echo == [0; 16])).then_some(greeting)
    }

    pub(super) fn write(&self, key: &Key, out: &mut Vec<u8>) {
        out.extend_from_slice(&[VERSION, self.kind as u8, 0, 0]);
        out.extend_from_slice(&self.run.to_be_bytes());
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.echo);
        let signature = key.sign(Purpose::Greeting as u8, &[out]);
        out.extend_from_slice(&signature);
    }

    pub(super) fn is_signed(key: &Key, payload: &[u8]) -> bool {
        let Some((text, signature)) = payload.split_last_chunk::<SIGNATURE>() else { return false };
        key.is_signed(Purpose::Greeting as u8, &[text], signature)
    }
}

/// What every datagram of a session says besides its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) role: Role,
    /// See [`Way::tag`].
    pub(super) tag: u64,
    /// Of this datagram: no two of a session have the same, repeated or not.
    pub(super) number: u64,
    /// Of the records in it, the same when they are repeated; 0: it has none.
    pub(super) sequence: u64,
    /// The first sequence whose records the sender of this has not taken out yet,
    pub(super) ack: u64,
    /// and which it has from there on: bit 0 is `ack`.
    pub(super) have: u128,
    /// How often the sender's role has changed.
    pub(super) term: u32,
}

impl Segment {
    /// Reads one and its records; neither signature nor records have been looked at.
    pub(super) fn read(payload: &[u8]) -> Option<(Self, &[u8])> {
        let text = payload.len().checked_sub(SIGNATURE)?;
        let records = payload.get(SEGMENT_HEADER..text)?;
        let role = match payload.get(2..4)? {
            [0, 0] => Role::Backup,
            [1, 0] => Role::Active,
            _ => return None,
        };
        let number = |at| bytes(payload, at).map(u64::from_be_bytes);
        let segment = Self {
            role,
            tag: number(4)?,
            number: number(12)?,
            sequence: number(20)?,
            ack: number(28)?,
            have: u128::from_be_bytes(bytes(payload, 36)?),
            term: u32::from_be_bytes(bytes(payload, 52)?),
        };
        ((segment.sequence == 0) == records.is_empty()).then_some((segment, records))
    }

    pub(super) fn write(&self, key: &Key, way: &Way, records: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&[
            VERSION,
            Kind::Segment as u8,
            u8::from(self.role == Role::Active),
            0,
        ]);
        for number in [self.tag, self.number, self.sequence, self.ack] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.have.to_be_bytes());
        out.extend_from_slice(&self.term.to_be_bytes());
        out.extend_from_slice(records);
        let signature = key.sign(Purpose::Segment as u8, &[&way.from, &way.to, out]);
        out.extend_from_slice(&signature);
    }

    pub(super) fn is_signed(key: &Key, way: &Way, payload: &[u8]) -> bool {
        let Some((text, signature)) = payload.split_last_chunk::<SIGNATURE>() else { return false };
        key.is_signed(Purpose::Segment as u8, &[&way.from, &way.to, text], signature)
    }
}

/// One thing among the records of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A record: this many bytes from the second one on.
    Record(usize),
    /// Everything was sent to the one whose role had changed this often.
    Mark(u32),
}

impl Part {
    /// What `records` begin with; `None` when they are at their end, or wrong.
    pub(super) fn first(records: &[u8]) -> Option<Self> {
        match records.first()? {
            0 => bytes(records, 1).map(|term| Self::Mark(u32::from_be_bytes(term))),
            len => {
                let len = usize::from(*len);
                (records.len() > len).then_some(Self::Record(len))
            }
        }
    }

    /// The bytes it takes.
    pub(super) const fn len(self) -> usize {
        match self {
            Self::Record(len) => 1 + len,
            Self::Mark(_) => MARK,
        }
    }

    /// How many records these are; `None` when something is wrong with them.
    pub(super) fn count(mut records: &[u8]) -> Option<u64> {
        let mut count = 0;
        while !records.is_empty() {
            let part = Self::first(records)?;
            count += u64::from(matches!(part, Self::Record(_)));
            records = records.get(part.len()..)?;
        }
        Some(count)
    }
}

/// The first eight bytes of a signature as a number.
pub(super) fn first_u64(signature: &[u8; SIGNATURE]) -> u64 {
    bytes(signature, 0).map_or(0, u64::from_be_bytes)
}

fn bytes<const N: usize>(payload: &[u8], at: usize) -> Option<[u8; N]> {
    payload.get(at..)?.first_chunk().copied()
}
