//! Frames that are dropped when nobody waits for a verdict about them any more: they had been held,
//! or are the router's own. Counted like all others; kept for a moment only for whoever watches.

use std::collections::VecDeque;

use super::{Dataplane, DropReason};

/// Unread ones beyond this many are not kept.
const MOST: usize = 64;
/// Bytes kept of each: all headers.
const BYTES: usize = 128;

/// A frame that was dropped late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateDrop {
    /// Why.
    pub reason: DropReason,
    /// Its length in bytes; 0 for one that could not even be made.
    pub length: usize,
    bytes: [u8; BYTES],
}

impl LateDrop {
    fn new(reason: DropReason, frame: &[u8]) -> Self {
        let mut bytes = [0; BYTES];
        for (to, from) in bytes.iter_mut().zip(frame) {
            *to = *from;
        }
        Self { reason, length: frame.len(), bytes }
    }

    /// Its first bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&self.bytes)
    }
}

/// Those that nobody has read yet. Off unless somebody watches.
#[derive(Debug, Default)]
pub(super) struct LateDrops {
    watched: bool,
    queue: VecDeque<LateDrop>,
}

impl LateDrops {
    fn push(&mut self, reason: DropReason, frame: &[u8]) {
        if self.watched && self.queue.len() < MOST {
            self.queue.push_back(LateDrop::new(reason, frame));
        }
    }
}

impl Dataplane {
    /// Whether late drops are kept for [`Dataplane::poll_late_drop`].
    pub fn watch_late_drops(&mut self, watched: bool) {
        if watched && self.late.queue.capacity() < MOST {
            self.late.queue.reserve_exact(MOST);
        }
        self.late.watched = watched;
        if !watched {
            self.late.queue.clear();
        }
    }

    /// The next frame that was dropped after all, or that was never sent.
    pub fn poll_late_drop(&mut self) -> Option<LateDrop> {
        self.late.queue.pop_front()
    }

    /// Counts the frame in `slot` of the outbox, which the caller releases.
    pub(super) fn count_slot_drop(&mut self, reason: DropReason, slot: u16) {
        if self.late.watched {
            let frame = self.outbox.frame_mut(slot);
            frame.complete_checksum();
            self.late.push(reason, frame.bytes());
        }
        self.count_drop(reason);
    }

    /// Counts a frame for which there is no place.
    pub(super) fn count_no_place(&mut self, reason: DropReason) {
        self.late.push(reason, &[]);
        self.count_drop(reason);
    }
}
