//! One session with one run of the peer: who both are, what was said and heard last.

use super::replay::Replays;
use super::wire::{Segment, Way};
use super::{ACK_AFTER, KEEPALIVE, SILENCE};
use crate::addr::Role;
use crate::ha::signature::Key;
use crate::time::{Duration, Instant};

/// So many datagrams are acknowledged without waiting for more.
const ACK_EVERY: u32 = 16;

/// A session from the exchange of nonces on.
#[derive(Debug)]
pub(super) struct Bond {
    /// From here to the peer.
    pub(super) way: Way,
    /// What datagrams from here and from there are marked with.
    pub(super) ours: u64,
    pub(super) theirs: u64,
    pub(super) run: u64,
    /// When the peer first said something in it; until then it may not know of it.
    pub(super) confirmed: Option<Instant>,
    /// What the peer said of itself last: its role, and how often that has changed.
    pub(super) peer: Option<(Role, u32)>,
    pub(super) replays: Replays,
    number: u64,
    heard: Instant,
    said: Instant,
    ack_at: Option<Instant>,
    unacknowledged: u32,
}

impl Bond {
    pub(super) fn new(key: &Key, way: Way, run: u64, now: Instant) -> Self {
        Self {
            way,
            ours: way.tag(key),
            theirs: way.back().tag(key),
            run,
            confirmed: None,
            peer: None,
            replays: Replays::default(),
            number: 0,
            heard: now,
            said: now,
            ack_at: Some(now),
            unacknowledged: 0,
        }
    }

    /// A believed datagram of this session has come. Whether the peer is now another than before: it
    /// was not heard yet, or its role has changed.
    pub(super) fn hear(&mut self, segment: &Segment, now: Instant) -> bool {
        let latest = segment.number > self.replays.newest();
        self.replays.mark(segment.number);
        self.heard = now;
        let peer = Some((segment.role, segment.term));
        let changed = latest && self.peer != peer;
        if changed {
            self.peer = peer;
        }
        changed
    }

    /// The number of the datagram that leaves now and carries an acknowledgement.
    pub(super) fn say(&mut self, now: Instant) -> u64 {
        self.number += 1;
        self.said = now;
        (self.ack_at, self.unacknowledged) = (None, 0);
        self.number
    }

    /// What the next number will be.
    pub(super) const fn next_number(&self) -> u64 {
        self.number + 1
    }

    /// The peer waits to hear what came.
    pub(super) fn owe(&mut self, hurried: bool, now: Instant) {
        self.unacknowledged += 1;
        let wait =
            if hurried || self.unacknowledged >= ACK_EVERY { Duration::ZERO } else { ACK_AFTER };
        let due = now + wait;
        self.ack_at = Some(self.ack_at.map_or(due, |at| at.min(due)));
    }

    /// When something has to be said at the latest.
    pub(super) fn speak_at(&self) -> Instant {
        let alive = self.said + KEEPALIVE;
        self.ack_at.map_or(alive, |at| at.min(alive))
    }

    /// When the peer counts as lost.
    pub(super) fn lost_at(&self) -> Instant {
        self.heard + SILENCE
    }
}
