//! Which flow goes first when the table is full: one queue per class, oldest in front. Places that
//! no flow uses are chained by the same links.

use std::ops::Range;

use crate::dataplane::memory::addresses;

const NONE: u32 = u32::MAX;
const QUEUES: usize = 3;

/// How expendable a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum Class {
    /// Not a flow.
    Free,
    /// CLOSE and TIME_WAIT: evicted first.
    Closed,
    /// Other closing states.
    Closing,
    /// Nobody has shown that both ends are there.
    Unassured,
    /// Never evicted.
    Protected,
}

impl Class {
    const fn queue(self) -> Option<usize> {
        match self {
            Self::Closed => Some(0),
            Self::Closing => Some(1),
            Self::Unassured => Some(2),
            Self::Free | Self::Protected => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    previous: u32,
    next: u32,
}

/// The queues, linked through one array so that every step is constant.
#[derive(Debug)]
pub(in crate::dataplane) struct Classes {
    heads: [u32; QUEUES],
    tails: [u32; QUEUES],
    /// The place that was left last.
    free: u32,
    nodes: Vec<Node>,
}

impl Classes {
    pub(in crate::dataplane) fn new(capacity: usize) -> Self {
        Self {
            heads: [NONE; QUEUES],
            tails: [NONE; QUEUES],
            free: NONE,
            nodes: Vec::with_capacity(capacity),
        }
    }

    /// Where it lies in memory.
    pub(super) fn memory(&self) -> Range<usize> {
        addresses(&self.nodes)
    }

    /// Files `id` as the youngest of `class`.
    pub(in crate::dataplane) fn push(&mut self, class: Class, id: u32) {
        let Some(queue) = class.queue() else { return };
        self.reach(id);
        let tail = self.tails[queue];
        self.nodes[id as usize] = Node { previous: tail, next: NONE };
        match self.nodes.get_mut(tail as usize) {
            Some(tail) => tail.next = id,
            None => self.heads[queue] = id,
        }
        self.tails[queue] = id;
    }

    /// Takes `id` out of `class`.
    pub(in crate::dataplane) fn unlink(&mut self, class: Class, id: u32) {
        let Some(queue) = class.queue() else { return };
        let Node { previous, next } = self.nodes[id as usize];
        match self.nodes.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => self.heads[queue] = next,
        }
        match self.nodes.get_mut(next as usize) {
            Some(next) => next.previous = previous,
            None => self.tails[queue] = previous,
        }
    }

    /// The oldest of the most expendable class that has any.
    pub(in crate::dataplane) fn oldest(&self) -> Option<u32> {
        self.heads.iter().copied().find(|head| *head != NONE)
    }

    /// No flow uses place `id` any more.
    pub(super) fn release(&mut self, id: u32) {
        self.reach(id);
        self.nodes[id as usize].next = self.free;
        self.free = id;
    }

    /// A place that was released.
    pub(super) fn reuse(&mut self) -> Option<u32> {
        let id = self.free;
        self.free = self.nodes.get(id as usize)?.next;
        Some(id)
    }

    fn reach(&mut self, id: u32) {
        while self.nodes.len() <= id as usize {
            self.nodes.push(Node { previous: NONE, next: NONE });
        }
    }
}
