//! The flow table: one record per connection, found by either of its two tuples.
//!
//! Owns storage, look-up, deadlines and eviction. What a flow means to servers and counters is the
//! business of the rest of the dataplane.

mod approach;
mod classes;
mod index;
mod proof;
mod tcp;

use std::net::Ipv4Addr;
use std::ops::Range;

pub(super) use classes::{Class, Classes};
pub(super) use index::Index;
pub use tcp::State;
pub(super) use tcp::{Event, View};

use super::ftp::Helper;
use super::hash::KeyedHash;
use super::memory::addresses;
use super::neighbour::NeighbourRef;
use super::wheel::Wheel;
use crate::addr::{NetworkId, ServerId, ServiceId};
use crate::frame::checksum::Delta;
use crate::frame::{ICMP, Rewrite};
use crate::time::{Duration, Instant};

/// Expiry is a lazy sweep; a look-up tests the exact deadline anyway.
const TICK: Duration = Duration::from_secs(1);
/// How much longer a flow is counted that has less than some seconds to live.
const FINE_TICK: Duration = Duration::from_millis(1);
const FREE: u32 = u32::MAX;

/// One direction of a connection as its packets show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// A tuple as two numbers. What is looked up for every packet is handed on in registers: read back from
/// where its fields have just been written, it would be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    addresses: u64,
    /// Ports and protocol: five bytes.
    rest: u64,
}

impl Tuple {
    #[inline]
    fn key(self) -> Key {
        let Self { source, destination, source_port, destination_port, protocol } = self;
        let ports = u64::from(source_port) << 16 | u64::from(destination_port);
        Key {
            addresses: u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits()),
            rest: ports << 8 | u64::from(protocol),
        }
    }

    /// The tuple of packets in the other direction.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

/// Which way a packet of a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Original,
    /// From the server.
    Reply,
}

/// A flow's place in the table. Stale once the flow is gone: `epoch` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowRef {
    pub(super) id: u32,
    epoch: u32,
}

/// A service and its server; an `Option` of the two would take half as much again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    service: ServiceId,
    server: ServerId,
}

impl Owner {
    const NOBODY: Self = Self { service: ServiceId(u32::MAX), server: ServerId(u32::MAX) };
    /// A service's server that is not configured here.
    const UNKNOWN: Self = Self { service: ServiceId(u32::MAX), server: ServerId(u32::MAX - 1) };

    fn of(owner: Option<(ServiceId, ServerId)>) -> Self {
        owner.map_or(Self::NOBODY, |(service, server)| Self { service, server })
    }
}

/// One tracked connection.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    /// As the client's packets arrive.
    pub(super) original: Tuple,
    /// As the server's packets arrive; those of a direct flow do not.
    pub(super) reply: Tuple,
    /// Next hops towards the server and towards the client, valid for one table generation.
    pub(super) hops: [NeighbourRef; 2],
    pub(super) generation: u32,
    owner: Owner,
    /// Where the client's packets come in, and where the server's do.
    pub(super) networks: [NetworkId; 2],
    addresses: Delta,
    transport: Delta,
    reverse_addresses: Delta,
    reverse_transport: Delta,
    /// Milliseconds since the table was made; wraps, compared by difference.
    expires: u32,
    epoch: u32,
    /// The sequence number of the server's SYN; once the client was reset, that of the reset.
    pub(super) server_syn: u32,
    pub(super) packets: [u32; 2],
    pub(super) bytes: [u64; 2],
    pub(super) state: State,
    class: Class,
    pub(super) assured: bool,
    /// Who reset it while it was established.
    pub(super) reset_by: Option<Direction>,
    pub(super) server_syn_seen: bool,
    /// Directly routed: nothing is translated, and the server's packets go another way.
    pub(super) direct: bool,
    /// Its server was taken away: its ends are reset as soon as their sequence numbers show.
    pub(super) ending: bool,
    /// It waits to be told about to the other router of a pair.
    pub(super) noted: bool,
    /// It was learnt from the other router of a pair.
    pub(super) copied: bool,
    /// In which directions whole packets have passed all that is asked of a tuple, with this generation of the
    /// table: a bit each.
    passed: u8,
    /// Who else has a part in it.
    pub(super) helper: Helper,
    /// When the other router last named it among all its flows, in the bits of [`LAPS`]; and what else
    /// there is to know.
    marks: u8,
}

/// Laps are counted in these bits.
const LAPS: u8 = 0x3f;
/// A client that is remembered has it.
const REMEMBERED: u8 = 0x40;
/// It is for one datagram and its answer.
const ONE_PACKET: u8 = 0x80;

impl Flow {
    /// A new flow in state NONE (TCP) or UDP, without a packet yet.
    pub(super) fn new(
        original: Tuple,
        reply: Tuple,
        state: State,
        owner: Option<(ServiceId, ServerId)>,
        networks: [NetworkId; 2],
        generation: u32,
    ) -> Self {
        let (addresses, transport) = deltas(original, reply.reversed());
        let (reverse_addresses, reverse_transport) = deltas(reply, original.reversed());
        Self {
            original,
            reply,
            hops: [NeighbourRef::NONE; 2],
            generation,
            owner: Owner::of(owner),
            networks,
            addresses,
            transport,
            reverse_addresses,
            reverse_transport,
            expires: 0,
            epoch: 0,
            server_syn: 0,
            packets: [0; 2],
            bytes: [0; 2],
            state,
            class: Class::Protected,
            assured: false,
            reset_by: None,
            server_syn_seen: false,
            direct: false,
            ending: false,
            noted: false,
            copied: false,
            passed: 0,
            helper: Helper::None,
            marks: 0,
        }
    }

    /// Whether its client's port is a mapping of the masquerade.
    pub(super) const fn is_masqueraded(&self) -> bool {
        matches!(self.helper, Helper::Masquerade)
    }

    /// It is for one datagram and its answer: the client's next one is scheduled anew. A set-up step,
    /// before it is stored.
    pub(super) const fn be_one_packet(&mut self) {
        self.marks |= ONE_PACKET;
    }

    /// Whether it is for one datagram and its answer.
    pub(super) const fn is_one_packet(&self) -> bool {
        self.marks & ONE_PACKET != 0
    }

    /// A client that is remembered has it: that one is not forgotten before the flow is gone.
    pub(super) const fn be_remembered(&mut self) {
        self.marks |= REMEMBERED;
    }

    /// Whether a client that is remembered has it.
    pub(super) const fn is_remembered(&self) -> bool {
        self.marks & REMEMBERED != 0
    }

    /// By which of its tuples it is found. The client of one datagram does not find it again, and what
    /// a directly routed flow's server says goes another way.
    const fn is_found_by(&self) -> [bool; 2] {
        [!self.is_one_packet(), !self.direct]
    }

    /// Whose flow it is; `None` for what is merely routed.
    pub(super) const fn owner(&self) -> Option<(ServiceId, ServerId)> {
        let Owner { service, server } = self.owner;
        if service.0 == Owner::NOBODY.service.0 { None } else { Some((service, server)) }
    }

    /// It turned out whose flow it is.
    pub(super) const fn bind(&mut self, service: ServiceId, server: ServerId) {
        self.owner = Owner { service, server };
    }

    /// It is a service's whose server is not configured here: it goes on, and nobody counts it.
    pub(super) const fn be_unbound(&mut self) {
        self.owner = Owner::UNKNOWN;
    }

    /// Whether it is such a flow.
    pub(super) const fn is_unbound(&self) -> bool {
        let Owner { service, server } = Owner::UNKNOWN;
        self.owner.service.0 == service.0 && self.owner.server.0 == server.0
    }

    /// A whole packet in this direction has passed all that is asked of a tuple.
    pub(super) const fn note_passed(&mut self, direction: Direction) {
        self.passed |= 1 << direction as u8;
    }

    /// Whether one has, since this generation of the table is the flow's.
    pub(super) const fn has_passed(&self, direction: Direction) -> bool {
        self.passed & 1 << direction as u8 != 0
    }

    /// From now on it is of this generation of the table, and nothing is known of it.
    pub(super) const fn begin_generation(&mut self, generation: u32) {
        (self.generation, self.hops, self.passed) = (generation, [NeighbourRef::NONE; 2], 0);
    }

    /// Whether it is a service's, configured here or not.
    pub(super) const fn is_served(&self) -> bool {
        self.owner().is_some() || self.is_unbound()
    }

    /// The view of TCP from which a packet in `direction` is seen.
    pub(super) const fn view(&self, direction: Direction) -> View {
        match direction {
            Direction::Original if self.direct => View::InputOnly,
            Direction::Original => View::Input,
            Direction::Reply => View::Output,
        }
    }

    /// What packets in `direction` are turned into.
    pub(super) const fn rewrite(&self, direction: Direction) -> Rewrite {
        let (to, addresses, transport) = match direction {
            Direction::Original => (self.reply.reversed(), self.addresses, self.transport),
            Direction::Reply => {
                (self.original.reversed(), self.reverse_addresses, self.reverse_transport)
            }
        };
        Rewrite {
            source: to.source,
            destination: to.destination,
            source_port: to.source_port,
            destination_port: to.destination_port,
            addresses,
            transport,
        }
    }

    /// When to take it off, in the order CLOSE and TIME_WAIT, other closing states, not assured.
    fn class_now(&self) -> Class {
        if self.state.is_reusable() {
            Class::Closed
        } else if self.state.is_closing() {
            Class::Closing
        } else if self.assured {
            Class::Protected
        } else {
            Class::Unassured
        }
    }
}

fn deltas(from: Tuple, to: Tuple) -> (Delta, Delta) {
    let addresses = Delta::double(from.source.to_bits(), to.source.to_bits())
        .and(Delta::double(from.destination.to_bits(), to.destination.to_bits()));
    let ports = Delta::word(from.source_port, to.source_port)
        .and(Delta::word(from.destination_port, to.destination_port));
    // ICMP has no pseudo-header.
    let transport = if from.protocol == ICMP { ports } else { addresses.and(ports) };
    (addresses, transport)
}

/// All flows. Sized once; never grows and never pauses to.
#[derive(Debug)]
pub(super) struct FlowTable {
    flows: Vec<Flow>,
    capacity: usize,
    len: usize,
    index: Index,
    hash: KeyedHash,
    wheel: Wheel,
    classes: Classes,
    start: Instant,
    /// What was looked for last, and what was found.
    last: Option<(Key, Option<(u32, Direction)>)>,
    /// The count of those who told of all their flows; wraps.
    lap: u8,
}

impl FlowTable {
    pub(super) fn new(max_flows: usize, seed: &[u8; 16], now: Instant) -> Self {
        // Entries are flow id and direction in 32 bits.
        let capacity = max_flows.clamp(1, 1 << 30);
        let mut wheel = Wheel::with_fine(FINE_TICK, TICK, now);
        wheel.reserve(capacity);
        Self {
            flows: Vec::with_capacity(capacity),
            capacity,
            len: 0,
            index: Index::new(capacity * 2),
            hash: KeyedHash::new(seed),
            wheel,
            classes: Classes::new(capacity),
            start: now,
            last: None,
            lap: 0,
        }
    }

    /// Where it lies in memory, so that somebody may choose the pages.
    pub(super) fn memory(&self) -> [Range<usize>; 4] {
        [addresses(&self.flows), self.index.memory(), self.wheel.memory(), self.classes.memory()]
    }

    /// How many flows there are.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// How many there can be.
    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn get(&self, id: u32) -> &Flow {
        &self.flows[id as usize]
    }

    pub(super) fn get_mut(&mut self, id: u32) -> &mut Flow {
        &mut self.flows[id as usize]
    }

    /// A reference that can outlive the flow.
    pub(super) fn reference(&self, id: u32) -> FlowRef {
        FlowRef { id, epoch: self.get(id).epoch }
    }

    /// The flow behind a reference, if it still is that flow.
    pub(super) fn resolve(&self, reference: FlowRef) -> Option<u32> {
        let flow = self.flows.get(reference.id as usize)?;
        (flow.epoch == reference.epoch && flow.class != Class::Free).then_some(reference.id)
    }

    /// The flow whose packets in one direction look like `tuple`. May be past its deadline.
    #[inline]
    pub(super) fn find(&mut self, tuple: Tuple) -> Option<(u32, Direction)> {
        self.find_key(tuple.key())
    }

    fn find_key(&mut self, key: Key) -> Option<(u32, Direction)> {
        if let Some((last, found)) = self.last
            && last == key
        {
            return found;
        }
        let found = self.look_up(key);
        self.last = Some((key, found));
        found
    }

    /// As [`FlowTable::find`], for who only looks; of flows that live.
    pub(super) fn peek(&self, tuple: Tuple, now: Instant) -> Option<(&Flow, Direction)> {
        let (id, direction) = self.look_up(tuple.key())?;
        (!self.is_expired(id, now)).then(|| (self.get(id), direction))
    }

    /// Whether packets in some direction of some flow look like `tuple`.
    pub(super) fn is_taken(&self, tuple: Tuple) -> bool {
        self.look_up(tuple.key()).is_some()
    }

    /// Stores `flow` until `timeout` from now. The caller has checked that both tuples are free (of a
    /// direct flow, the original) and that there is room.
    pub(super) fn insert(&mut self, mut flow: Flow, now: Instant, timeout: Duration) -> u32 {
        let (original, reply) = (flow.original, flow.reply);
        flow.marks = flow.marks & !LAPS | self.lap & LAPS;
        let id = match self.classes.reuse() {
            Some(id) => {
                flow.epoch = self.get(id).epoch.wrapping_add(1);
                *self.get_mut(id) = flow;
                id
            }
            None => {
                self.flows.push(flow);
                u32::try_from(self.flows.len() - 1).unwrap_or(FREE)
            }
        };
        let [by_original, by_reply] = self.get(id).is_found_by();
        if by_original {
            self.index.insert(self.hash(original), entry(id, Direction::Original));
        }
        if by_reply {
            self.index.insert(self.hash(reply), entry(id, Direction::Reply));
        }
        self.len += 1;
        self.last = None;
        self.get_mut(id).class = Class::Free;
        self.reclass(id);
        self.touch(id, now, timeout);
        self.settle(now, timeout);
        self.wheel.schedule(id, now + timeout);
        id
    }

    /// Takes a flow out.
    pub(super) fn remove(&mut self, id: u32) {
        let flow = self.get(id);
        let (original, reply, class) = (flow.original, flow.reply, flow.class);
        let [by_original, by_reply] = flow.is_found_by();
        if by_original {
            self.index.remove(self.hash(original), entry(id, Direction::Original));
        }
        if by_reply {
            self.index.remove(self.hash(reply), entry(id, Direction::Reply));
        }
        self.wheel.cancel(id);
        self.classes.unlink(class, id);
        self.get_mut(id).class = Class::Free;
        self.classes.release(id);
        self.len -= 1;
        self.last = None;
    }

    /// The flow lives for `timeout` from now. Only a deadline that comes earlier costs more.
    pub(super) fn touch(&mut self, id: u32, now: Instant, timeout: Duration) {
        let expires = self.millis(now + timeout);
        let flow = self.get_mut(id);
        let shorter = is_before(expires, flow.expires);
        flow.expires = expires;
        if shorter {
            self.settle(now, timeout);
            self.wheel.hasten(id, now + timeout);
        }
    }

    /// Something is to be filed that lives for `timeout`.
    fn settle(&mut self, now: Instant, timeout: Duration) {
        if timeout < self.wheel.fine_reach() {
            self.wheel.catch_up(now);
        }
    }

    /// Files the flow anew after its state or assurance changed.
    pub(super) fn reclass(&mut self, id: u32) {
        let flow = self.get(id);
        let (before, after) = (flow.class, flow.class_now());
        if before != after {
            self.classes.unlink(before, id);
            self.classes.push(after, id);
            self.get_mut(id).class = after;
        }
    }

    /// Whether the flow's deadline has passed.
    pub(super) fn is_expired(&self, id: u32, now: Instant) -> bool {
        !is_before(self.millis(now), self.get(id).expires)
    }

    /// The next flow whose deadline of once has passed, and whether it is past the one it has now: the
    /// caller removes it then.
    pub(super) fn next_woken(&mut self, now: Instant) -> Option<(u32, bool)> {
        let id = self.wheel.pop(now)?;
        let is_over = self.is_expired(id, now);
        if !is_over {
            let left = self.millis_left(id, now);
            self.wheel.schedule(id, now + Duration::from_millis(u64::from(left)));
        }
        Some((id, is_over))
    }

    /// How long the flow lives without another packet, in milliseconds.
    pub(super) fn millis_left(&self, id: u32, now: Instant) -> u32 {
        let (expires, now) = (self.get(id).expires, self.millis(now));
        if is_before(now, expires) { expires.wrapping_sub(now) } else { 0 }
    }

    /// From now on flows are of another lap: those that come, and those that join it.
    pub(super) const fn start_lap(&mut self) {
        self.lap = self.lap.wrapping_add(1);
    }

    /// The flow is of this lap.
    pub(super) fn join_lap(&mut self, id: u32) {
        let lap = self.lap & LAPS;
        let flow = self.get_mut(id);
        flow.marks = flow.marks & !LAPS | lap;
    }

    /// Whether the flow came in this lap, or joined it.
    pub(super) fn is_of_lap(&self, id: u32) -> bool {
        self.get(id).marks & LAPS == self.lap & LAPS
    }

    /// The lap that flows are of now.
    pub(super) const fn lap(&self) -> u8 {
        self.lap
    }

    /// When to look for expired flows next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.wheel.next_deadline()
    }

    /// Whom a new flow may replace in a full table: the oldest of the most expendable class.
    pub(super) fn victim(&self) -> Option<u32> {
        self.classes.oldest()
    }

    /// All flows, in no meaningful order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.flows.iter().filter(|flow| flow.class != Class::Free)
    }

    /// How many places have ever been in use. A flow keeps its place.
    pub(super) const fn places(&self) -> usize {
        self.flows.len()
    }

    /// The flow in a place, if there is one.
    pub(super) fn at(&self, place: usize) -> Option<(u32, &Flow)> {
        let flow = self.flows.get(place).filter(|flow| flow.class != Class::Free)?;
        Some((u32::try_from(place).ok()?, flow))
    }

    /// How long ago the flow's last packet was, where it has given the flow `timeout` to live.
    pub(super) fn idle(&self, id: u32, now: Instant, timeout: Duration) -> Duration {
        let last = self.get(id).expires.wrapping_sub(self.millis(self.start + timeout));
        let passed = self.millis(now).wrapping_sub(last);
        // Another timeout than this one gave it its deadline.
        let passed = if passed >= 1 << 31 { 0 } else { passed };
        Duration::from_millis(u64::from(passed))
    }

    /// The flows in some places, each with how long it lives without another packet.
    pub(super) fn in_places(
        &self,
        places: Range<usize>,
        now: Instant,
    ) -> impl Iterator<Item = (&Flow, Duration)> {
        let now = self.millis(now);
        let flows = self.flows.get(places).unwrap_or_default().iter();
        flows.filter(|flow| flow.class != Class::Free).map(move |flow| {
            let left =
                if is_before(now, flow.expires) { flow.expires.wrapping_sub(now) } else { 0 };
            (flow, Duration::from_millis(u64::from(left)))
        })
    }

    fn look_up(&self, key: Key) -> Option<(u32, Direction)> {
        let is_it = |entry| {
            let (id, direction) = flow_of(entry);
            let flow = self.get(id);
            key == if direction == Direction::Original { flow.original } else { flow.reply }.key()
        };
        self.index.find(self.hash_of(key), is_it).map(flow_of)
    }

    fn hash(&self, tuple: Tuple) -> u64 {
        self.hash_of(tuple.key())
    }

    fn hash_of(&self, key: Key) -> u64 {
        self.hash.of_thirteen_bytes(key.addresses, key.rest)
    }

    fn millis(&self, at: Instant) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "wraps after 49 days by design")]
        let millis = (at - self.start).total_millis() as u32;
        millis
    }
}

const fn is_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) >= 1 << 31
}

const fn entry(id: u32, direction: Direction) -> u32 {
    match direction {
        Direction::Original => id << 1,
        Direction::Reply => id << 1 | 1,
    }
}

const fn flow_of(entry: u32) -> (u32, Direction) {
    let direction = if entry & 1 == 0 { Direction::Original } else { Direction::Reply };
    (entry >> 1, direction)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOWS: u32 = 100_000;

    /// A million of them are what the memory is planned for.
    #[test]
    fn a_record_does_not_grow() {
        assert_eq!(size_of::<Flow>(), 112);
    }

    /// How long the 99th of a hundred searches is, in cells, with these clients in the table.
    fn p99(client: impl Fn(u32) -> (u32, u16)) -> usize {
        let mut table = FlowTable::new(FLOWS as usize, b"a secret of this", Instant::ZERO);
        let tuple = |n| {
            let (source, source_port) = client(n);
            Tuple {
                source: Ipv4Addr::from_bits(source),
                destination: Ipv4Addr::new(203, 0, 113, 10),
                source_port,
                destination_port: 80,
                protocol: 6,
            }
        };
        for n in 0..FLOWS {
            let original = tuple(n);
            let mut reply = original.reversed();
            reply.source = Ipv4Addr::new(10, 0, 0, 11);
            let flow = Flow::new(original, reply, State::SynRecv, None, Default::default(), 1);
            table.insert(flow, Instant::ZERO, Duration::from_secs(60));
        }
        let mut steps: Vec<_> =
            (0..FLOWS).map(|n| table.index.steps(table.hash(tuple(n)))).collect();
        steps.sort_unstable();
        steps[FLOWS as usize * 99 / 100]
    }

    /// S3: tuples that collide in everything an attacker can compute without the key.
    #[test]
    fn chosen_tuples_collide_no_more_than_others() {
        let scattered = p99(|n| {
            let n = n.wrapping_mul(0x9e37_79b9);
            (n, u16::try_from(n >> 16).unwrap())
        });
        // Address plus port, address xor port and the low bits of both are the same for all.
        let equal_sums = p99(|n| (0x0b00_0000 + (n << 8), u16::MAX));
        let equal_low_bits = p99(|n| ((n >> 4) << 16, u16::try_from((n & 0xf) << 12).unwrap()));
        assert!(equal_sums <= 2 * scattered, "{equal_sums} against {scattered}");
        assert!(equal_low_bits <= 2 * scattered, "{equal_low_bits} against {scattered}");
    }
}
