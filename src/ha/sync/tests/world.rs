//! What lies between two routers: a channel that loses, repeats, delays and reorders, and their loops.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use crate::addr::Role;
use crate::ha::signature::Key;
use crate::ha::sync::{Event, LARGEST_DATAGRAM, Session, Sizes};
use crate::time::{Duration, Instant};

pub(super) const A: usize = 0;
pub(super) const B: usize = 1;

pub(super) fn key() -> Key {
    Key::new(&[0x5a; 32])
}

pub(super) const SIZES: Sizes = Sizes { datagram: LARGEST_DATAGRAM, record: 64 };

/// SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What a channel does to datagrams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// In percent.
    pub(super) lost: u64,
    pub(super) doubled: u64,
    /// Each takes between these, in microseconds: more than 0 apart, they overtake each other.
    pub(super) delay: (u64, u64),
}

pub(super) const FINE: Weather = Weather { lost: 0, doubled: 0, delay: (200, 200) };

/// A router as far as flows go.
pub(super) struct Router {
    pub(super) session: Session,
    pub(super) role: Role,
    /// What is known of each flow.
    pub(super) flows: BTreeMap<u64, u64>,
    changed: VecDeque<u64>,
    /// Every record in the order in which it came.
    pub(super) got: Vec<(u64, u64)>,
    pub(super) events: Vec<Event>,
    /// Records it takes out in a turn.
    pub(super) appetite: usize,
    /// It does nothing before this time; datagrams wait, some.
    pub(super) paused: Instant,
    inbox: VecDeque<Vec<u8>>,
    seeds: u64,
}

const CHANGES: usize = 500;
const INBOX: usize = 300;

impl Router {
    fn new(name: u64, now: Instant) -> Self {
        let mut router = Self {
            session: Session::new(key(), [0; 16], SIZES, now),
            role: Role::Backup,
            flows: BTreeMap::new(),
            changed: VecDeque::new(),
            got: Vec::new(),
            events: Vec::new(),
            appetite: usize::MAX,
            paused: now,
            inbox: VecDeque::new(),
            seeds: name << 32,
        };
        router.restart(now);
        router
    }

    /// A new process: it knows nothing.
    pub(super) fn restart(&mut self, now: Instant) {
        self.seeds += 1;
        let mut seed = [0; 16];
        seed[..8].copy_from_slice(&self.seeds.to_be_bytes());
        self.session = Session::new(key(), seed, SIZES, now);
        self.role = Role::Backup;
        self.flows.clear();
        self.changed.clear();
        self.inbox.clear();
        self.events.clear();
    }

    pub(super) fn become_(&mut self, role: Role, now: Instant) {
        self.role = role;
        self.session.handle_role(role, now);
    }

    /// A flow has changed here.
    pub(super) fn change(&mut self, flow: u64, value: u64) {
        self.flows.insert(flow, value);
        if self.changed.len() < CHANGES {
            self.changed.push_back(flow);
        } else {
            self.session.restart_walk();
        }
    }

    /// A turn of its loop, except for sending.
    fn turn(&mut self, now: Instant) {
        while let Some(payload) = self.inbox.pop_front() {
            self.session.handle_datagram(&payload, now);
        }
        for _ in 0..self.appetite {
            let Some(record) = self.session.poll_record() else { break };
            let number = |at: usize| u64::from_be_bytes(*record[at..].first_chunk().unwrap());
            let (flow, value) = (number(0), number(8));
            self.got.push((flow, value));
            self.flows.insert(flow, value);
        }
        self.session.handle_timeout(now);
        while let Some(event) = self.session.poll_event() {
            self.events.push(event);
        }
        self.stream(now);
    }

    fn stream(&mut self, now: Instant) {
        let Some(want) = self.session.wants(now) else { return };
        let mut room = want.records;
        while let Some(flow) = self.changed.pop_front_if(|_| room > 0) {
            let record = record(flow, self.flows[&flow]);
            assert!(self.session.push(&record, now), "there was room for {room}");
            room -= 1;
        }
        let Some(step) = want.walk else { return };
        let mut next = Some(step.cursor);
        for _ in 0..step.records.min(room) {
            let Some((flow, value)) = self.flows.range(next.unwrap_or(0)..).next() else {
                next = None;
                break;
            };
            assert!(self.session.push(&record(*flow, *value), now), "there was room for {room}");
            next = Some(flow + 1);
        }
        self.session.walked(next, now);
    }
}

pub(super) fn record(flow: u64, value: u64) -> [u8; 64] {
    let mut record = [0; 64];
    record[..8].copy_from_slice(&flow.to_be_bytes());
    record[8..16].copy_from_slice(&value.to_be_bytes());
    record
}

/// When it arrives, which one it is, at whom, and what.
type UnderWay = (Instant, u64, usize, Vec<u8>);

/// Two routers and what is under way between them.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) routers: [Router; 2],
    pub(super) weather: Weather,
    /// Nothing arrives there.
    pub(super) cut: [bool; 2],
    pub(super) dice: Dice,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    sent: u64,
    /// Every datagram ever sent and to whom, if wanted.
    pub(super) tape: Option<Vec<(usize, Vec<u8>)>>,
}

impl World {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        let now = Instant::from_secs(100);
        Self {
            now,
            routers: [Router::new(2 * seed + 1, now), Router::new(2 * seed + 2, now)],
            weather,
            cut: [false; 2],
            dice: Dice(seed),
            under_way: BinaryHeap::new(),
            sent: 0,
            tape: None,
        }
    }

    /// Puts a datagram on its way.
    pub(super) fn send(&mut self, to: usize, payload: &[u8]) {
        let copies = 1 + usize::from(self.dice.percent(self.weather.doubled));
        for _ in 0..copies {
            if self.cut[to] || self.dice.percent(self.weather.lost) {
                continue;
            }
            let (from, until) = self.weather.delay;
            let delay = Duration::from_micros(from + self.dice.below(until - from + 1));
            self.sent += 1;
            let entry = (self.now + delay, self.sent, to, payload.to_vec());
            self.under_way.push(Reverse(entry));
        }
    }

    /// Lets `time` pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.run_until(end, |_| false) {}
    }

    /// Takes one step; whether there is still time before `end` and `done` does not hold.
    pub(super) fn run_until(&mut self, end: Instant, done: impl Fn(&Self) -> bool) -> bool {
        let mut next = self.under_way.peek().map(|Reverse((at, ..))| *at);
        for router in &self.routers {
            let due = router.session.poll_timeout().expect("there is always something to wait for");
            // What was not taken out is looked at again soon.
            let due = if router.appetite < usize::MAX {
                due.min(self.now + Duration::from_millis(1))
            } else {
                due
            };
            // A loop does other things too: a turn takes time.
            let due = due.max(router.paused).max(self.now + Duration::from_micros(20));
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        self.now = next.unwrap_or(end).max(self.now);
        if self.now > end {
            self.now = end;
            return false;
        }
        while let Some(entry) = self.under_way.peek() {
            if entry.0.0 > self.now {
                break;
            }
            let Some(Reverse((_, _, to, payload))) = self.under_way.pop() else { break };
            let inbox = &mut self.routers[to].inbox;
            if inbox.len() < INBOX {
                inbox.push_back(payload);
            }
        }
        let mut out = Vec::with_capacity(LARGEST_DATAGRAM);
        for at in [A, B] {
            if self.routers[at].paused > self.now {
                continue;
            }
            self.routers[at].turn(self.now);
            while self.routers[at].session.poll_transmit(&mut out, self.now) {
                if let Some(tape) = &mut self.tape {
                    tape.push((1 - at, out.clone()));
                }
                self.send(1 - at, &out);
            }
        }
        !done(self)
    }

    /// Runs until `done` holds.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub(super) fn run_until_done(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let end = self.now + limit;
        while self.run_until(end, &done) {}
        assert!(done(self), "not within {limit}: {:#?}", self.reports());
    }

    pub(super) fn reports(&self) -> [crate::ha::sync::Report; 2] {
        [A, B].map(|at| self.routers[at].session.report(self.now))
    }

    pub(super) fn connected(&self) -> bool {
        self.routers.iter().all(|router| router.session.is_connected())
    }

    pub(super) fn complete(&self) -> bool {
        self.routers[B].session.is_complete()
    }
}
