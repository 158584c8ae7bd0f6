//! The links that may still have frames. mio tells of a link once per edge, so a link stays here
//! until a read has found it empty.

use std::collections::VecDeque;

use crate::addr::LinkId;

/// A queue without duplicates: every link gets its turn before one gets a second.
#[derive(Debug)]
pub(super) struct Ready {
    queue: VecDeque<LinkId>,
    queued: Vec<bool>,
}

impl Ready {
    pub(super) fn new(links: usize) -> Self {
        Self { queue: VecDeque::with_capacity(links), queued: vec![false; links] }
    }

    /// Adds `link` at the end unless it waits already or does not exist.
    pub(super) fn insert(&mut self, link: LinkId) {
        if let Some(queued) = self.queued.get_mut(link.index())
            && !std::mem::replace(queued, true)
        {
            self.queue.push_back(link);
        }
    }

    /// Takes the link that has waited longest.
    pub(super) fn pop(&mut self) -> Option<LinkId> {
        let link = self.queue.pop_front()?;
        self.queued[link.index()] = false;
        Some(link)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_take_turns() {
        let mut ready = Ready::new(3);
        for link in [2, 0, 2, 7, 0] {
            ready.insert(LinkId(link));
        }
        assert_eq!(ready.len(), 2);
        assert_eq!(ready.pop(), Some(LinkId(2)));
        ready.insert(LinkId(2));
        ready.insert(LinkId(1));
        let rest: Vec<_> = std::iter::from_fn(|| ready.pop()).collect();
        assert_eq!(rest, [LinkId(0), LinkId(2), LinkId(1)]);
        assert!(ready.is_empty());
    }
}
