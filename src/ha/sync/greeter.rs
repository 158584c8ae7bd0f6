//! How two routers find each other: each proves that it knows the key, now.
//!
//! A question carries a fresh nonce; an answer repeats it beside a nonce of the answerer, whose
//! answer to that ends the exchange. Only an answer to the nonce on offer makes a session, and each
//! nonce makes one at most: what was recorded makes none. A question changes nothing here.

use super::wire::{Greeting, Kind, Nonce, Purpose, Way, first_u64};
use crate::ha::signature::Key;

/// Questions that wait for an answer; more than these are ignored.
const WAITING: usize = 8;

/// What makes sessions.
#[derive(Debug)]
pub(super) struct Greeter {
    seed: [u8; 16],
    run: u64,
    drawn: u64,
    offer: Nonce,
    waiting: [Nonce; WAITING],
    count: usize,
}

impl Greeter {
    pub(super) fn new(key: &Key, seed: [u8; 16]) -> Self {
        let run = first_u64(&key.sign(Purpose::Run as u8, &[&seed]));
        let mut greeter =
            Self { seed, run, drawn: 0, offer: [0; 16], waiting: [[0; 16]; WAITING], count: 0 };
        greeter.offer_anew(key);
        greeter
    }

    /// Which start of this router it is.
    pub(super) const fn run(&self) -> u64 {
        self.run
    }

    /// Asks whether somebody is there.
    pub(super) fn question(&self) -> Greeting {
        Greeting { kind: Kind::Question, run: self.run, nonce: self.offer, echo: [0; 16] }
    }

    /// The session that `answer` makes, if it is one to the nonce on offer.
    pub(super) fn accept(&mut self, key: &Key, answer: &Greeting) -> Option<Way> {
        if answer.echo != self.offer {
            return None;
        }
        let way = Way { from: self.offer, to: answer.nonce };
        self.offer_anew(key);
        Some(way)
    }

    /// Whether an answer to the nonce on offer it would be.
    pub(super) fn awaits(&self, answer: &Greeting) -> bool {
        answer.echo == self.offer
    }

    /// `nonce` was asked with.
    pub(super) fn asked(&mut self, nonce: Nonce) {
        if let Some(free) = self.waiting.get_mut(self.count) {
            *free = nonce;
            self.count += 1;
        }
    }

    /// Whether a question waits for its answer.
    pub(super) const fn owes(&self) -> bool {
        self.count > 0
    }

    /// The answer to the next question. Within the `session` there is, its own nonce says so: the peer
    /// has not learnt of it yet.
    pub(super) fn answer(&mut self, session: Option<Way>) -> Option<Greeting> {
        self.count = self.count.checked_sub(1)?;
        let echo = self.waiting[self.count];
        let way =
            session.filter(|way| way.to == echo).unwrap_or(Way { from: self.offer, to: echo });
        Some(self.confirm(way))
    }

    /// The answer that tells the peer of a session.
    pub(super) const fn confirm(&self, way: Way) -> Greeting {
        Greeting { kind: Kind::Answer, run: self.run, nonce: way.from, echo: way.to }
    }

    fn offer_anew(&mut self, key: &Key) {
        self.drawn += 1;
        let signature = key.sign(Purpose::Nonce as u8, &[&self.seed, &self.drawn.to_be_bytes()]);
        self.offer.copy_from_slice(&signature[..16]);
    }
}
