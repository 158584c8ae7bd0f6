//! Two sessions and whatever somebody sends them: for tests and for the fuzzer.

use super::wire::{GREETING, Kind, Purpose, SEGMENT_HEADER};
use super::{LARGEST_DATAGRAM, Session, Sizes};
use crate::addr::Role;
use crate::ha::signature::Key;
use crate::time::{Duration, Instant};

/// Steps taken of a script, and datagrams kept under way.
const STEPS: usize = 256;
const UNDER_WAY: usize = 512;

/// Plays what `script` says between two routers with the same key: loses, repeats, reorders, changes
/// and forges datagrams, those with a good signature too, moves the time and the roles.
///
/// # Panics
/// When one of them panics, hands out an empty record, hands out without end, sends too much at a
/// time or one too large, or waits for a time that has passed.
pub fn play(script: &[u8]) {
    let mut drill = Drill::new();
    let mut rest = script;
    for _ in 0..STEPS {
        let [what, choice, amount, tail @ ..] = rest else { break };
        rest = tail;
        let (side, amount) = (usize::from(what >> 7), usize::from(*amount));
        match what & 0x0f {
            0..=4 => drill.exchange(),
            5 => drill.deliver(usize::from(*choice), false),
            6 => drill.deliver(usize::from(*choice), true),
            7 => drill.lose(usize::from(*choice)),
            8 => {
                drill.now += Duration::from_millis(1 << (choice % 12));
                drill.turn();
            }
            9 => {
                let role = if choice & 1 == 0 { Role::Active } else { Role::Backup };
                drill.ends[side].handle_role(role, drill.now);
            }
            10 => drill.push(side, amount),
            11 => {
                let next = (choice & 3 != 0).then_some(u64::from(*choice));
                drill.ends[side].walked(next, drill.now);
            }
            12 => drill.ends[side].restart_walk(),
            kind => {
                let (bytes, next) = rest.split_at(amount.min(rest.len()));
                rest = next;
                drill.forge(side, kind, usize::from(*choice), bytes);
            }
        }
        drill.check();
    }
}

struct Drill {
    key: Key,
    ends: [Session; 2],
    /// To whom, and what.
    under_way: Vec<(usize, Vec<u8>)>,
    now: Instant,
}

impl Drill {
    fn new() -> Self {
        let (key, now) = (Key::new(&[7; 32]), Instant::from_secs(1));
        let sizes = Sizes { datagram: LARGEST_DATAGRAM, record: 64 };
        let end = |seed| Session::new(key.clone(), [seed; 16], sizes, now);
        let ends = [end(1), end(2)];
        Self { key, ends, under_way: Vec::new(), now }
    }

    /// Lets both say what they have to say.
    fn turn(&mut self) {
        let mut out = Vec::new();
        for (at, end) in self.ends.iter_mut().enumerate() {
            end.handle_timeout(self.now);
            let mut said = 0;
            while end.poll_transmit(&mut out, self.now) {
                assert!(out.len() <= LARGEST_DATAGRAM, "{} bytes", out.len());
                said += 1;
                assert!(said <= 1_000, "no end of what it says");
                if self.under_way.len() < UNDER_WAY {
                    self.under_way.push((1 - at, out.clone()));
                }
            }
            let due = end.poll_timeout().expect("a session always waits for something");
            let busy = end.wants(self.now).is_some_and(|want| want.walk.is_some());
            assert!(due > self.now || busy, "it waits for {due}, and it is {}", self.now);
            while end.poll_event().is_some() {}
        }
    }

    /// Delivers everything, in order.
    fn exchange(&mut self) {
        self.turn();
        for (to, payload) in std::mem::take(&mut self.under_way) {
            self.ends[to].handle_datagram(&payload, self.now);
        }
        self.now += Duration::from_millis(1);
        self.check();
        self.turn();
    }

    fn deliver(&mut self, choice: usize, keep: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let at = choice % self.under_way.len();
        let (to, payload) = self.under_way[at].clone();
        if !keep {
            self.under_way.swap_remove(at);
        }
        self.ends[to].handle_datagram(&payload, self.now);
    }

    fn lose(&mut self, choice: usize) {
        if !self.under_way.is_empty() {
            self.under_way.swap_remove(choice % self.under_way.len());
        }
    }

    fn push(&mut self, side: usize, amount: usize) {
        let end = &mut self.ends[side];
        let Some(want) = end.wants(self.now) else { return };
        for count in 0..amount.min(want.records) {
            let record = [0xa5; 64];
            let len = 1 + count % record.len();
            assert!(end.push(&record[..len], self.now), "there was room for {}", want.records);
        }
    }

    /// Hands over `bytes` as they are, or laid over a datagram under way, or with a good signature.
    fn forge(&mut self, side: usize, kind: u8, choice: usize, bytes: &[u8]) {
        let found = self.under_way.iter().filter(|(to, _)| *to == side).nth(choice / 2 % 8);
        let mut payload = found.map_or_else(Vec::new, |(_, payload)| payload.clone());
        match kind {
            13 => payload = bytes.to_vec(),
            14 => {
                for (place, byte) in payload.iter_mut().zip(bytes) {
                    *place ^= byte;
                }
            }
            _ => self.sign(side, &mut payload, bytes),
        }
        self.ends[side].handle_datagram(&payload, self.now);
    }

    /// Changes what is under a signature, and signs it again as the peer would.
    fn sign(&self, side: usize, payload: &mut Vec<u8>, bytes: &[u8]) {
        let way = self.ends[1 - side].bond.as_ref().map(|bond| bond.way);
        let text = payload.len().saturating_sub(32);
        payload.truncate(text);
        // The tag stays, or nothing behind it is ever looked at.
        for (place, byte) in payload.iter_mut().skip(12).zip(bytes) {
            *place ^= byte;
        }
        if payload.len() >= SEGMENT_HEADER {
            payload.extend_from_slice(bytes.get(SEGMENT_HEADER..).unwrap_or_default());
        }
        let signature = match (payload.get(1).copied().and_then(Kind::read), way) {
            (Some(Kind::Segment), Some(way)) => {
                self.key.sign(Purpose::Segment as u8, &[&way.from, &way.to, payload])
            }
            _ => self.key.sign(Purpose::Greeting as u8, &[payload]),
        };
        payload.extend_from_slice(&signature);
    }

    fn check(&mut self) {
        for end in &mut self.ends {
            let mut records = 0;
            while let Some(record) = end.poll_record() {
                assert!(!record.is_empty(), "an empty record");
                records += 1;
                assert!(records <= 200_000, "no end of records");
            }
            end.report(self.now);
        }
        let Self { ends: [one, other], .. } = self;
        assert_ne!(one.run_id(), other.run_id());
    }
}

const _: () = assert!(GREETING < super::SMALLEST_DATAGRAM);
