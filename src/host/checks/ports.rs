//! Ports that checks come from: those that nothing forwarded is ever given.

use crate::addr::OWN_PORTS;

/// Hands out one after the other, so that none comes again soon.
#[derive(Debug)]
pub(super) struct Ports {
    next: u16,
}

impl Ports {
    pub(super) fn new(seed: u64) -> Self {
        let count = u64::from(OWN_PORTS.end() - OWN_PORTS.start()) + 1;
        let offset = u16::try_from(seed % count).unwrap_or(0);
        Self { next: OWN_PORTS.start() + offset }
    }

    /// The next one that is not in use. There are many more than can be.
    pub(super) fn next(&mut self, in_use: impl Fn(u16) -> bool) -> u16 {
        loop {
            let port = self.next;
            self.next = if port == *OWN_PORTS.end() { *OWN_PORTS.start() } else { port + 1 };
            if !in_use(port) {
                return port;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_stay_inside_and_come_round_late() {
        let mut ports = Ports::new(u64::MAX);
        let first = ports.next(|_| false);
        let mut seen = 1;
        while ports.next(|port| port % 2 != first % 2) != first {
            seen += 1;
        }
        assert_eq!(seen, OWN_PORTS.len() / 2);
        assert!((0..9_999).all(|_| OWN_PORTS.contains(&ports.next(|_| false))));
    }
}
