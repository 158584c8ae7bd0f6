//! Neighbours: next hops' MACs, learned only by asking (RFC 826, RFC 1122 section 2.3.2).
//!
//! Owns the cache and its timers; the dataplane builds and reads the ARP messages.

use std::net::Ipv4Addr;
use std::ops::Range;

use super::flow::Index;
use super::hash::KeyedHash;
use super::wheel::Wheel;
use crate::addr::{LinkId, MacAddr, NetworkId};
use crate::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(100);
/// One question a second (RFC 1122 section 2.3.2.1), this many times.
const INTERVAL: Duration = Duration::from_secs(1);
const TRIES: u8 = 3;
/// How long an answer is believed before the neighbour is asked again.
const FRESH: Duration = Duration::from_secs(30);
/// How long a failed neighbour is not asked for again, unless it is pinned.
const PENALTY: Duration = Duration::from_secs(3);
/// Neighbours that nobody configured.
const CAPACITY: usize = 8_192;
/// How many places a full cache looks at for one to reuse.
const SWEEP: usize = 16;
/// How many frames wait for one neighbour.
pub(super) const HOLD: usize = 3;

/// A neighbour's place in the cache. Stale once it is another's: `epoch` tells. Packed, because a flow
/// has two.
#[repr(C, packed(2))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NeighbourRef {
    id: u32,
    /// Wraps when a place has had 65,536 owners, which takes a month of strangers at the pace at which
    /// they are met.
    epoch: u16,
}

impl NeighbourRef {
    pub(super) const NONE: Self = Self { id: u32::MAX, epoch: 0 };
}

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// Asked for, never answered yet.
    Incomplete,
    /// Answered lately.
    Reachable,
    /// Answered a while ago, asked again.
    Probing,
    /// Does not answer.
    Failed,
}

impl Reachability {
    /// The word for it in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Reachable => "reachable",
            Self::Probing => "probing",
            Self::Failed => "failed",
        }
    }
}

/// One cache entry.
#[derive(Clone, Debug)]
pub(super) struct Neighbour {
    pub(super) network: NetworkId,
    pub(super) address: Ipv4Addr,
    pub(super) mac: MacAddr,
    /// Where it was last heard of.
    pub(super) link: LinkId,
    pub(super) state: Reachability,
    /// Configured (a server, a gateway): resolved before it is needed and kept fresh.
    pub(super) pinned: bool,
    /// It did not answer last time, which was told.
    failed_before: bool,
    /// Waiting frames: places in the dataplane's store, oldest first.
    pub(super) held: [Option<u16>; HOLD],
    /// When it was last asked.
    asked: Option<Instant>,
    /// When its timer is due; the wheel may wake it earlier.
    due: Instant,
    /// When it was last asked out of turn.
    hurried: Option<Instant>,
    /// Everybody is asked for it next, although its MAC is known: it may be behind another link.
    is_sought: bool,
    tries: u8,
    pub(super) used: bool,
    /// Somebody else claims the address: one silence of the MAC that is known is enough.
    doubted: bool,
    epoch: u16,
    live: bool,
}

impl Neighbour {
    /// Whether it did not answer last time, which was told.
    pub(super) const fn failed_before(&self) -> bool {
        self.failed_before
    }

    /// How often it was asked since it last answered.
    pub(super) const fn tries(&self) -> u8 {
        self.tries
    }

    /// Whether frames can be sent to it now.
    pub(super) fn is_usable(&self) -> bool {
        matches!(self.state, Reachability::Reachable | Reachability::Probing)
    }
}

/// What a neighbour's timer asks the dataplane to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Ask for it; to this MAC when one is known, else everybody.
    Ask(u32, Option<MacAddr>),
    /// It does not answer: its waiting frames go nowhere.
    Failed(u32),
}

/// What an answer meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nobody asked.
    Unsolicited,
    /// The MAC is known now; `moved` from another one.
    Resolved { moved: bool },
}

#[derive(Debug)]
pub(super) struct Neighbours {
    entries: Vec<Neighbour>,
    index: Index,
    /// Configured neighbours whose MAC is known, by it.
    by_mac: Index,
    hash: KeyedHash,
    wheel: Wheel,
    sweep: usize,
    capacity: usize,
    /// How often a configured neighbour fell silent, or answered again.
    turns: u64,
}

impl Neighbours {
    pub(super) fn new(pinned: usize, seed: &[u8; 16], now: Instant) -> Self {
        let capacity = CAPACITY + pinned;
        let mut wheel = Wheel::new(TICK, now);
        wheel.reserve(capacity);
        Self {
            entries: Vec::with_capacity(capacity),
            index: Index::new(capacity),
            by_mac: Index::new(capacity),
            hash: KeyedHash::new(seed),
            wheel,
            sweep: 0,
            capacity,
            turns: 0,
        }
    }

    pub(super) fn get(&self, id: u32) -> &Neighbour {
        &self.entries[id as usize]
    }

    pub(super) fn get_mut(&mut self, id: u32) -> &mut Neighbour {
        &mut self.entries[id as usize]
    }

    pub(super) fn reference(&self, id: u32) -> NeighbourRef {
        NeighbourRef { id, epoch: self.get(id).epoch }
    }

    /// The neighbour behind a reference, if it still is that neighbour.
    pub(super) fn resolve(&self, reference: NeighbourRef) -> Option<u32> {
        let neighbour = self.entries.get(reference.id as usize)?;
        (neighbour.live && neighbour.epoch == reference.epoch).then_some(reference.id)
    }

    /// The neighbour at `address`, if it is known.
    pub(super) fn find(&self, network: NetworkId, address: Ipv4Addr) -> Option<u32> {
        self.index.find(self.hash(network, address), |id| {
            let neighbour = self.get(id);
            neighbour.address == address && neighbour.network == network
        })
    }

    /// The configured neighbour that was last found at `mac`, whose `hash` is
    /// [`Neighbours::hash_mac`]'s, and that `is_it` accepts.
    pub(super) fn configured_at(
        &self,
        network: NetworkId,
        mac: MacAddr,
        hash: u64,
        is_it: impl Fn(Ipv4Addr) -> bool,
    ) -> Option<Ipv4Addr> {
        let fits = |id: u32| {
            let neighbour = self.get(id);
            neighbour.mac == mac && neighbour.network == network && is_it(neighbour.address)
        };
        let id = self.by_mac.find(hash, fits)?;
        Some(self.get(id).address)
    }

    /// Another number once [`Neighbours::is_silent`] may have another answer for a configured one.
    pub(super) const fn turns(&self) -> u64 {
        self.turns
    }

    /// The neighbour was given up, or answers after that.
    pub(super) fn mark_failed(&mut self, id: u32, failed: bool) {
        self.get_mut(id).failed_before = failed;
        self.turned(id);
    }

    /// Whether the neighbour was given up and has not answered since.
    pub(super) fn is_silent(&self, id: u32) -> bool {
        let neighbour = self.get(id);
        neighbour.failed_before && !neighbour.is_usable()
    }

    /// The neighbour at `address`, new if need be. `None` when the cache is full of others in use.
    pub(super) fn find_or_add(
        &mut self,
        network: NetworkId,
        address: Ipv4Addr,
        now: Instant,
    ) -> Option<u32> {
        self.find(network, address).or_else(|| self.add(network, address, false, now))
    }

    /// Makes `address` a neighbour that is resolved at once and kept fresh.
    pub(super) fn pin(&mut self, network: NetworkId, address: Ipv4Addr, now: Instant) {
        self.turns += 1;
        match self.find(network, address) {
            Some(id) => {
                if !std::mem::replace(&mut self.get_mut(id).pinned, true) {
                    self.file_mac(id);
                }
            }
            None => {
                self.add(network, address, true, now);
            }
        }
    }

    /// Makes room for `pinned` configured neighbours. A set-up step: it may allocate.
    pub(super) fn reserve(&mut self, pinned: usize) {
        // With headroom: making room takes longer than a frame should wait.
        let capacity = CAPACITY + pinned.next_power_of_two();
        if capacity <= self.capacity {
            return;
        }
        self.capacity = capacity;
        self.entries.reserve_exact(capacity - self.entries.len());
        self.wheel.reserve(capacity);
        self.index = Index::new(capacity);
        self.by_mac = Index::new(capacity);
        for (id, neighbour) in (0..).zip(&self.entries).filter(|(_, n)| n.live) {
            self.index.insert(self.hash(neighbour.network, neighbour.address), id);
        }
        for id in 0..u32::try_from(self.entries.len()).unwrap_or(0) {
            if self.get(id).live && self.get(id).pinned {
                self.file_mac(id);
            }
        }
    }

    /// The neighbour at `address` is not configured any more.
    pub(super) fn unpin(&mut self, network: NetworkId, address: Ipv4Addr) {
        if let Some(id) = self.find(network, address)
            && self.get(id).pinned
        {
            self.unfile_mac(id);
            self.turned(id);
            self.get_mut(id).pinned = false;
        }
    }

    /// Frames go to it: it is worth keeping fresh. A failed one is asked for again.
    pub(super) fn mark_used(&mut self, id: u32, now: Instant) {
        let neighbour = self.get_mut(id);
        neighbour.used = true;
        let penalty_over = neighbour.asked.is_none_or(|asked| now >= asked + PENALTY);
        if neighbour.state == Reachability::Failed && penalty_over {
            neighbour.state = Reachability::Incomplete;
            neighbour.tries = 0;
            self.wake(id, now);
        }
    }

    /// An incomplete neighbour that was never asked for: ask now rather than at the next tick.
    pub(super) fn ask_now(&mut self, id: u32, now: Instant) -> bool {
        let neighbour = self.get_mut(id);
        if neighbour.state != Reachability::Incomplete || neighbour.tries > 0 {
            return false;
        }
        neighbour.tries = 1;
        neighbour.asked = Some(now);
        self.wake(id, now + INTERVAL);
        true
    }

    /// The links of `network` carry frames again: configured neighbours that are not known there are
    /// asked at once, out of turn once a second at most, as what was asked before may have gone nowhere.
    pub(super) fn hurry(&mut self, network: NetworkId, now: Instant) {
        for id in 0..u32::try_from(self.entries.len()).unwrap_or(0) {
            let neighbour = self.get_mut(id);
            let is_sought = neighbour.live
                && neighbour.pinned
                && neighbour.network == network
                && !neighbour.is_usable();
            if !is_sought || neighbour.hurried.is_some_and(|at| now < at + INTERVAL) {
                continue;
            }
            neighbour.hurried = Some(now);
            neighbour.state = Reachability::Incomplete;
            // An answer to the question before is still one.
            neighbour.tries = neighbour.tries.min(1);
            self.wake(id, now);
        }
    }

    /// Where the configured neighbours of `network` are is not certain any more: everybody is asked,
    /// so that switches hear them answer. They stay in use meanwhile. When to do so again: some were
    /// asked out of turn less than a second ago.
    pub(super) fn seek(&mut self, network: NetworkId, now: Instant) -> Option<Instant> {
        let mut again = None;
        for id in 0..u32::try_from(self.entries.len()).unwrap_or(0) {
            let neighbour = self.get_mut(id);
            let is_there = neighbour.live
                && neighbour.pinned
                && neighbour.network == network
                && neighbour.is_usable();
            if !is_there {
                continue;
            }
            if let Some(at) = neighbour.hurried.filter(|at| now < *at + INTERVAL) {
                again = Some(at + INTERVAL);
                continue;
            }
            (neighbour.hurried, neighbour.is_sought) = (Some(now), true);
            neighbour.state = Reachability::Probing;
            neighbour.tries = 0;
            self.wake(id, now);
        }
        again
    }

    /// An ARP message, come in by `link`, says that neighbour `id` is at `mac`. `solicited`: it is a
    /// reply addressed to the router. Only what was asked for is believed; a MAC that changes makes
    /// the router ask first.
    pub(super) fn heard(
        &mut self,
        id: u32,
        (mac, link): (MacAddr, LinkId),
        solicited: bool,
        now: Instant,
    ) -> Answer {
        let neighbour = self.get_mut(id);
        let asked = neighbour.tries > 0;
        let (usable, same) = (neighbour.is_usable(), neighbour.mac == mac);
        // While the known MAC may still answer, nobody else is believed.
        if !(usable && same || solicited && asked && !usable) {
            if usable || neighbour.pinned {
                self.doubt(id, now);
            }
            return Answer::Unsolicited;
        }
        let moved = neighbour.mac != MacAddr::ZERO && !same;
        if !same && neighbour.pinned {
            self.unfile_mac(id);
            self.get_mut(id).mac = mac;
            self.file_mac(id);
        }
        if !usable {
            self.turned(id);
        }
        let neighbour = self.get_mut(id);
        (neighbour.mac, neighbour.link) = (mac, link);
        neighbour.state = Reachability::Reachable;
        neighbour.tries = 0;
        neighbour.doubted = false;
        self.wake(id, now + FRESH);
        Answer::Resolved { moved }
    }

    /// The next thing a neighbour's timer wants done.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Due> {
        loop {
            let id = self.wheel.pop(now)?;
            let neighbour = &mut self.entries[id as usize];
            if now < neighbour.due {
                self.wheel.schedule(id, neighbour.due);
                continue;
            }
            match neighbour.state {
                Reachability::Reachable if neighbour.used || neighbour.pinned => {
                    neighbour.used = false;
                    neighbour.state = Reachability::Probing;
                    return Some(self.ask(id, now));
                }
                Reachability::Reachable => self.forget(id),
                Reachability::Probing if neighbour.doubted && neighbour.tries > 0 => {
                    neighbour.state = Reachability::Incomplete;
                    neighbour.tries = 0;
                    self.turned(id);
                    return Some(self.ask(id, now));
                }
                Reachability::Incomplete | Reachability::Probing if neighbour.tries < TRIES => {
                    return Some(self.ask(id, now));
                }
                Reachability::Probing => {
                    // The known MAC is silent: somebody else may have taken the address.
                    neighbour.state = Reachability::Incomplete;
                    neighbour.tries = 0;
                    self.turned(id);
                    return Some(self.ask(id, now));
                }
                Reachability::Incomplete => {
                    neighbour.state = Reachability::Failed;
                    neighbour.tries = 0;
                    self.wake(id, now + PENALTY);
                    return Some(Due::Failed(id));
                }
                Reachability::Failed if neighbour.pinned => {
                    neighbour.state = Reachability::Incomplete;
                    return Some(self.ask(id, now));
                }
                Reachability::Failed => self.forget(id),
            }
        }
    }

    /// When [`Neighbours::next_due`] will next have something.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.wheel.next_deadline()
    }

    /// Postpones a question that could not be sent.
    pub(super) fn postpone(&mut self, id: u32, now: Instant) {
        let neighbour = self.get_mut(id);
        neighbour.tries = neighbour.tries.saturating_sub(1);
        self.wake(id, now + TICK);
    }

    /// How many places have ever been in use. A neighbour keeps its place.
    pub(super) const fn places(&self) -> usize {
        self.entries.len()
    }

    /// The neighbours in some places.
    pub(super) fn in_places(&self, places: Range<usize>) -> impl Iterator<Item = &Neighbour> {
        let entries = self.entries.get(places).unwrap_or_default().iter();
        entries.filter(|neighbour| neighbour.live)
    }

    /// All neighbours.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Neighbour> {
        self.entries.iter().filter(|neighbour| neighbour.live)
    }

    fn turned(&mut self, id: u32) {
        self.turns += u64::from(self.get(id).pinned);
    }

    fn ask(&mut self, id: u32, now: Instant) -> Due {
        let neighbour = &mut self.entries[id as usize];
        neighbour.tries += 1;
        neighbour.asked = Some(now);
        let is_sought = std::mem::take(&mut neighbour.is_sought);
        let asks_it = neighbour.state == Reachability::Probing && !is_sought;
        let to = asks_it.then_some(neighbour.mac);
        self.wake(id, now + INTERVAL);
        Due::Ask(id, to)
    }

    fn wake(&mut self, id: u32, at: Instant) {
        self.get_mut(id).due = at;
        self.wheel.schedule(id, at);
    }

    /// Somebody claims another MAC for it: the known one is asked, at most once a second, and
    /// everybody when it is silent. Until then it stays in use, so that a forger interrupts nothing.
    /// A claim right after a question is looked into later, not forgotten: who moved may never say
    /// so again.
    fn doubt(&mut self, id: u32, now: Instant) {
        let neighbour = &mut self.entries[id as usize];
        let asking = matches!(neighbour.state, Reachability::Probing | Reachability::Incomplete);
        if asking && (neighbour.doubted || neighbour.tries > 0) {
            neighbour.doubted = true;
            return;
        }
        neighbour.state = match neighbour.state {
            Reachability::Reachable | Reachability::Probing => Reachability::Probing,
            Reachability::Failed | Reachability::Incomplete => Reachability::Incomplete,
        };
        neighbour.doubted = true;
        neighbour.tries = 0;
        let earliest = neighbour.asked.map_or(now, |asked| (asked + INTERVAL).max(now));
        self.wake(id, earliest);
    }

    fn add(
        &mut self,
        network: NetworkId,
        address: Ipv4Addr,
        pinned: bool,
        now: Instant,
    ) -> Option<u32> {
        let mut neighbour = Neighbour {
            network,
            address,
            mac: MacAddr::ZERO,
            link: LinkId::default(),
            state: Reachability::Incomplete,
            pinned,
            failed_before: false,
            held: [None; HOLD],
            asked: None,
            due: now,
            hurried: None,
            is_sought: false,
            tries: 0,
            used: false,
            doubted: false,
            epoch: 0,
            live: true,
        };
        let id = match self.vacancy() {
            Some(id) => {
                neighbour.epoch = self.get(id).epoch.wrapping_add(1);
                *self.get_mut(id) = neighbour;
                id
            }
            None if self.entries.len() < self.capacity => {
                self.entries.push(neighbour);
                u32::try_from(self.entries.len() - 1).ok()?
            }
            None => return None,
        };
        self.index.insert(self.hash(network, address), id);
        self.wake(id, now);
        Some(id)
    }

    /// A free place, or that of somebody idle; looks at a bounded number of places.
    fn vacancy(&mut self) -> Option<u32> {
        for _ in 0..SWEEP.min(self.entries.len()) {
            self.sweep = (self.sweep + 1) % self.entries.len();
            let id = u32::try_from(self.sweep).ok()?;
            let neighbour = self.get_mut(id);
            if !neighbour.live {
                return Some(id);
            }
            let full = self.entries.len() >= self.capacity;
            let neighbour = self.get_mut(id);
            let busy = neighbour.pinned || neighbour.held[0].is_some();
            if full && !busy && !std::mem::take(&mut neighbour.used) {
                self.forget(id);
                return Some(id);
            }
        }
        None
    }

    fn forget(&mut self, id: u32) {
        let neighbour = self.get(id);
        self.index.remove(self.hash(neighbour.network, neighbour.address), id);
        self.wheel.cancel(id);
        self.get_mut(id).live = false;
    }

    fn file_mac(&mut self, id: u32) {
        let Neighbour { network, mac, .. } = *self.get(id);
        if mac != MacAddr::ZERO {
            self.by_mac.insert(self.hash_mac(network, mac), id);
        }
    }

    fn unfile_mac(&mut self, id: u32) {
        let Neighbour { network, mac, .. } = *self.get(id);
        if mac != MacAddr::ZERO {
            self.by_mac.remove(self.hash_mac(network, mac), id);
        }
    }

    /// What a MAC is filed under.
    pub(super) fn hash_mac(&self, network: NetworkId, mac: MacAddr) -> u64 {
        let [a, b, c, d, e, f] = mac.0;
        let [high, low] = network.0.to_be_bytes();
        self.hash.of_one(u64::from_be_bytes([high, low, a, b, c, d, e, f]))
    }

    fn hash(&self, network: NetworkId, address: Ipv4Addr) -> u64 {
        self.hash.of_one(u64::from(network.0) << 32 | u64::from(address.to_bits()))
    }
}

#[cfg(test)]
mod tests;
