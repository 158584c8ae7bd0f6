//! Frames that wait: those that the router sends itself, and those whose next hop is being asked for.
//!
//! One fixed store of frame buffers serves both; waiting frames are swapped in and out of it. A part of
//! it is kept for what must not be late whatever else waits: adverts, which also leave first.

use std::collections::VecDeque;

use super::flow::FlowRef;
use crate::addr::LinkId;
use crate::frame::Frame;

/// Frames in the store; half of them at most may wait for neighbours.
const SLOTS: u16 = 256;
const HELD_MOST: usize = SLOTS as usize / 2;
/// As many more for what is urgent: an advert for every link of a few networks.
const RESERVE: u16 = 32;

/// Why a frame waits for its neighbour, and what to do when that never answers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiting {
    /// The router sent it itself.
    Own,
    /// A flow's packet, already translated.
    Flow(FlowRef),
}

#[derive(Debug)]
pub(super) struct Outbox {
    frames: Vec<Frame>,
    waiting: Vec<Waiting>,
    free: Vec<u16>,
    /// Places from `SLOTS` on.
    reserve: Vec<u16>,
    urgent: VecDeque<(LinkId, u16)>,
    queue: VecDeque<(LinkId, u16)>,
    held: usize,
}

impl Outbox {
    pub(super) fn new() -> Self {
        let (slots, all) = (usize::from(SLOTS), usize::from(SLOTS + RESERVE));
        Self {
            frames: std::iter::repeat_with(Frame::new).take(all).collect(),
            waiting: vec![Waiting::Own; slots],
            free: (0..SLOTS).collect(),
            reserve: (SLOTS..SLOTS + RESERVE).collect(),
            urgent: VecDeque::with_capacity(all),
            queue: VecDeque::with_capacity(slots),
            held: 0,
        }
    }

    /// A place to build a frame in; give it to [`Outbox::send`] or [`Outbox::release`].
    pub(super) fn take(&mut self) -> Option<u16> {
        self.free.pop()
    }

    /// As [`Outbox::take`], for [`Outbox::send_first`]: there is a place when there is no other.
    pub(super) fn take_reserved(&mut self) -> Option<u16> {
        self.reserve.pop().or_else(|| self.take())
    }

    /// A second frame like the one in `slot`.
    pub(super) fn copy(&mut self, slot: u16) -> Option<u16> {
        let copy = self.take()?;
        let frame = std::mem::replace(self.frame_mut(slot), Frame::hollow());
        self.frame_mut(copy).copy_of(&frame);
        *self.frame_mut(slot) = frame;
        Some(copy)
    }

    /// How many more places there are.
    pub(super) const fn room(&self) -> usize {
        self.free.len()
    }

    pub(super) fn frame(&self, slot: u16) -> &Frame {
        &self.frames[usize::from(slot)]
    }

    pub(super) fn frame_mut(&mut self, slot: u16) -> &mut Frame {
        &mut self.frames[usize::from(slot)]
    }

    /// The frame in `slot` leaves by `link` with the next transmit.
    pub(super) fn send(&mut self, slot: u16, link: LinkId) {
        self.queue.push_back((link, slot));
    }

    /// The frame in `slot` leaves by `link` before all that are not urgent.
    pub(super) fn send_first(&mut self, slot: u16, link: LinkId) {
        self.urgent.push_back((link, slot));
    }

    /// Nothing in `slot` is needed any more.
    pub(super) fn release(&mut self, slot: u16) {
        let free = if slot < SLOTS { &mut self.free } else { &mut self.reserve };
        free.push(slot);
    }

    /// Takes back the first frame in the queue that is not urgent.
    pub(super) fn take_back(&mut self) -> Option<(LinkId, u16)> {
        self.queue.pop_front()
    }

    /// Keeps `frame` aside, leaving an empty one in its place.
    pub(super) fn hold(&mut self, frame: &mut Frame, waiting: Waiting) -> Option<u16> {
        let slot = self.may_hold().then(|| self.free.pop()).flatten()?;
        std::mem::swap(frame, self.frame_mut(slot));
        self.hold_slot(slot, waiting);
        Some(slot)
    }

    /// Counts the frame in `slot` as waiting for its neighbour.
    pub(super) fn hold_slot(&mut self, slot: u16, waiting: Waiting) {
        self.waiting[usize::from(slot)] = waiting;
        self.held += 1;
    }

    /// Whether one more frame may wait for a neighbour.
    pub(super) const fn may_hold(&self) -> bool {
        self.held < HELD_MOST
    }

    /// The frame in `slot` waits no longer.
    pub(super) fn unhold(&mut self, slot: u16) -> Waiting {
        self.held -= 1;
        self.waiting[usize::from(slot)]
    }

    /// The next urgent frame, swapped into `out`.
    pub(super) fn pop_first(&mut self, out: &mut Frame) -> Option<LinkId> {
        let (link, slot) = self.urgent.pop_front()?;
        std::mem::swap(out, self.frame_mut(slot));
        self.release(slot);
        Some(link)
    }

    /// The next frame to leave that is not urgent, swapped into `out`.
    pub(super) fn pop(&mut self, out: &mut Frame) -> Option<LinkId> {
        let (link, slot) = self.queue.pop_front()?;
        std::mem::swap(out, self.frame_mut(slot));
        self.release(slot);
        Some(link)
    }

    /// How many frames wait for neighbours.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// How many frames wait to be sent.
    pub(super) fn queued(&self) -> usize {
        self.urgent.len() + self.queue.len()
    }

    /// How many frames wait to be sent that are not urgent.
    pub(super) fn ordinary(&self) -> usize {
        self.queue.len()
    }
}
