//! Fragments without reassembly: the first one's ports say whose they all are (RFC 4787 REQ-14).
//!
//! A bounded cache from datagram to flow. Pieces that come before the first one wait for it; pieces
//! that overlap condemn the datagram (RFC 5722 asks it for IPv6, and nobody sends them honestly).

use std::collections::VecDeque;
use std::hash::Hasher;
use std::net::Ipv4Addr;

use siphasher::sip::SipHasher13;

use super::flow::{Direction, FlowRef, Index};
use crate::addr::NetworkId;
use crate::time::{Duration, Instant};

/// Datagrams in flight; the oldest goes when another one comes.
const DATAGRAMS: usize = 512;
/// How long pieces may be apart. Linux keeps them for 30 s.
const LIFETIME: Duration = Duration::from_secs(30);
/// How long pieces wait for the first one.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pieces that wait for first ones, over all datagrams.
const WAITING_MOST: usize = 64;
/// Fragment offsets count in units of eight bytes, up to the longest IP packet.
const UNITS: usize = 8192;

/// What the pieces of one datagram have in common (RFC 791 section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) network: NetworkId,
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) identification: u16,
    pub(super) protocol: u8,
}

/// A piece's place in its datagram, in bytes of payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: usize,
    pub(super) len: usize,
    pub(super) last: bool,
}

/// Whose a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The first piece has not come.
    Unknown,
    /// It came, and its flow took it.
    Flow(FlowRef, Direction),
    /// It came and was routed as it was.
    Routed,
    /// Nothing of it passes any more.
    Condemned,
}

/// What to do with a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// Goes the way of its flow.
    Pass(FlowRef, Direction),
    /// Is routed as it is.
    Route,
    /// The first piece has to come first.
    Wait(u32),
    /// Overlaps another piece, or reaches beyond what an IP packet can hold.
    Refuse,
}

#[derive(Debug)]
struct Entry {
    key: Datagram,
    owner: Owner,
    since: Instant,
    /// Which units have come.
    seen: Box<[u64; UNITS / 64]>,
    /// How many units have come, and how many there are once the last piece has.
    come: usize,
    all: Option<usize>,
    /// Counts the datagrams that have had this place.
    epoch: u32,
}

/// A piece that waits for the first one of its datagram.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    datagram: u32,
    epoch: u32,
    /// Its place in the outbox.
    slot: u16,
    since: Instant,
}

/// The datagrams in flight.
#[derive(Debug)]
pub(super) struct Fragments {
    entries: Vec<Entry>,
    index: Index,
    hasher: SipHasher13,
    /// Where the next datagram goes: the oldest one's place.
    next: usize,
    /// Oldest first.
    waiting: VecDeque<Waiting>,
}

impl Fragments {
    pub(super) fn new(seed: &[u8; 16]) -> Self {
        Self {
            entries: std::iter::repeat_with(Entry::vacant).take(DATAGRAMS).collect(),
            index: Index::new(DATAGRAMS),
            hasher: SipHasher13::new_with_key(seed),
            next: 0,
            waiting: VecDeque::with_capacity(WAITING_MOST),
        }
    }

    /// Takes note of a piece after the first and says where it goes.
    pub(super) fn later(&mut self, key: Datagram, piece: Piece, now: Instant) -> Ruling {
        let id = self.find_or_add(key, now);
        if !self.fits(id, piece) {
            return Ruling::Refuse;
        }
        self.ruling(id)
    }

    /// Where the pieces of datagram `id` go.
    pub(super) fn ruling(&self, id: u32) -> Ruling {
        match self.entries[id as usize].owner {
            Owner::Flow(flow, direction) => Ruling::Pass(flow, direction),
            Owner::Routed => Ruling::Route,
            Owner::Unknown => Ruling::Wait(id),
            Owner::Condemned => Ruling::Refuse,
        }
    }

    /// Takes note of a first piece; whether it may pass.
    pub(super) fn first(&mut self, key: Datagram, piece: Piece, now: Instant) -> Option<u32> {
        let id = self.find_or_add(key, now);
        let entry = &mut self.entries[id as usize];
        if entry.all == Some(entry.come) {
            // All of that one has come: the identification is used again.
            entry.start(key, now);
        }
        let may = self.fits(id, piece) && self.entries[id as usize].owner != Owner::Condemned;
        may.then_some(id)
    }

    /// The first piece of datagram `id` went the way of a flow, or was routed without one: so are
    /// the others.
    pub(super) fn assign(&mut self, id: u32, flow: Option<(FlowRef, Direction)>) {
        self.entries[id as usize].owner =
            flow.map_or(Owner::Routed, |(flow, direction)| Owner::Flow(flow, direction));
    }

    /// The first piece of datagram `id` went nowhere: neither do the others.
    pub(super) fn condemn(&mut self, id: u32) {
        self.entries[id as usize].owner = Owner::Condemned;
    }

    /// Whether one more piece may wait.
    pub(super) fn may_wait(&self) -> bool {
        self.waiting.len() < WAITING_MOST
    }

    /// The piece in `slot` of the outbox waits for the first one of datagram `id`.
    pub(super) fn wait(&mut self, id: u32, slot: u16, now: Instant) {
        let epoch = self.entries[id as usize].epoch;
        self.waiting.push_back(Waiting { datagram: id, epoch, slot, since: now });
    }

    /// A waiting piece of datagram `id`, oldest first.
    pub(super) fn next_waiting(&mut self, id: u32) -> Option<u16> {
        let epoch = self.entries[id as usize].epoch;
        let is_its = |piece: &Waiting| (piece.datagram, piece.epoch) == (id, epoch);
        let at = self.waiting.iter().position(is_its)?;
        self.waiting.remove(at).map(|piece| piece.slot)
    }

    /// A piece that has waited too long.
    pub(super) fn next_stale(&mut self, now: Instant) -> Option<u16> {
        self.waiting.pop_front_if(|piece| now >= piece.since + PATIENCE).map(|piece| piece.slot)
    }

    /// When [`Fragments::next_stale`] will have something.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|piece| piece.since + PATIENCE)
    }

    fn find_or_add(&mut self, key: Datagram, now: Instant) -> u32 {
        let hash = self.hash(&key);
        if let Some(id) = self.index.find(hash, |id| self.entries[id as usize].key == key) {
            let entry = &mut self.entries[id as usize];
            if now >= entry.since + LIFETIME {
                // The identification has come round: another datagram.
                entry.start(key, now);
            }
            return id;
        }
        let place = self.next;
        self.next = (self.next + 1) % DATAGRAMS;
        let id = u32::try_from(place).unwrap_or(0);
        let entry = &self.entries[place];
        if entry.epoch > 0 {
            self.index.remove(self.hash(&entry.key), id);
        }
        self.entries[place].start(key, now);
        self.index.insert(hash, id);
        id
    }

    /// Marks the units of `piece`; whether they were all new. A partial overlap condemns.
    fn fits(&mut self, id: u32, piece: Piece) -> bool {
        let entry = &mut self.entries[id as usize];
        let (from, to) = (piece.offset / 8, (piece.offset + piece.len).div_ceil(8));
        let whole = piece.last || piece.len.is_multiple_of(8);
        // RFC 3128: a piece at offset 8 would overwrite the TCP flags.
        let sneaky =
            piece.offset > 0 && piece.offset < 20 && entry.key.protocol == crate::frame::TCP;
        if to > UNITS || from >= to || !whole || sneaky || piece.offset + piece.len > 65_515 {
            entry.owner = Owner::Condemned;
            return false;
        }
        let mut seen = 0;
        for unit in from..to {
            seen += usize::from(entry.seen[unit / 64] >> (unit % 64) & 1 == 1);
            entry.seen[unit / 64] |= 1 << (unit % 64);
        }
        entry.come += to - from - seen;
        if piece.last {
            entry.all = Some(to);
        }
        // The very same piece again is the network's doing, and does no harm.
        if seen > 0 && seen < to - from {
            entry.owner = Owner::Condemned;
        }
        seen == 0
    }

    fn hash(&self, key: &Datagram) -> u64 {
        let mut hasher = self.hasher;
        let addresses = (key.source.to_bits(), key.destination.to_bits());
        hasher.write_u64(u64::from(addresses.0) << 32 | u64::from(addresses.1));
        let rest = u64::from(key.identification) << 24 | u64::from(key.protocol) << 16;
        hasher.write_u64(rest | u64::from(key.network.0));
        hasher.finish()
    }
}

impl Entry {
    fn vacant() -> Self {
        let nobody = Ipv4Addr::UNSPECIFIED;
        let key = Datagram {
            network: NetworkId(0),
            source: nobody,
            destination: nobody,
            identification: 0,
            protocol: 0,
        };
        let seen = Box::new([0; UNITS / 64]);
        let owner = Owner::Unknown;
        Self { key, owner, since: Instant::ZERO, seen, come: 0, all: None, epoch: 0 }
    }

    fn start(&mut self, key: Datagram, now: Instant) {
        self.key = key;
        self.owner = Owner::Unknown;
        self.since = now;
        self.seen.fill(0);
        (self.come, self.all) = (0, None);
        self.epoch = self.epoch.wrapping_add(1).max(1);
    }
}
