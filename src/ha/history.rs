//! What the role was, and why: the last changes of it.

use std::collections::VecDeque;

use super::event::Reason;
use crate::addr::Role;
use crate::time::Instant;

/// One change of role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: Instant,
    /// To which role.
    pub role: Role,
    /// Why.
    pub reason: Reason,
}

/// The last transitions, oldest first; never empty.
#[derive(Clone, Debug)]
pub struct History {
    transitions: VecDeque<Transition>,
    latest: Transition,
}

impl History {
    /// How many are remembered.
    pub const LENGTH: usize = 20;

    pub(super) fn new(first: Transition) -> Self {
        let mut transitions = VecDeque::with_capacity(Self::LENGTH);
        transitions.push_back(first);
        Self { transitions, latest: first }
    }

    pub(super) fn push(&mut self, transition: Transition) {
        if self.transitions.len() == Self::LENGTH {
            self.transitions.pop_front();
        }
        self.transitions.push_back(transition);
        self.latest = transition;
    }

    /// The one that led to the present role.
    pub const fn latest(&self) -> Transition {
        self.latest
    }

    /// Those remembered, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Transition> {
        self.transitions.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_twenty_are_remembered() {
        let transition = |millis: i64| Transition {
            at: Instant::from_millis(millis),
            role: if millis % 2 == 0 { Role::Backup } else { Role::Active },
            reason: Reason::Started,
        };
        let mut history = History::new(transition(0));
        assert_eq!(history.iter().len(), 1);
        for millis in 1..50 {
            history.push(transition(millis));
        }
        assert_eq!(history.latest(), transition(49));
        assert!(history.iter().eq((30..50).map(transition)));
    }
}
