//! Announcements: telling a network whose the router's addresses are (RFC 5227 sections 2.3, 2.4).

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use crate::addr::{LinkId, MacAddr, NetworkId};
use crate::frame::{Arp, Frame, Operation};
use crate::table::Table;
use crate::time::{Duration, Instant};

/// How often a new address is announced (RFC 5227 asks for 2; one more survives a lost frame).
const TIMES: u8 = 3;
/// RFC 5227 ANNOUNCE_INTERVAL.
const INTERVAL: Duration = Duration::from_secs(2);
/// RFC 5227 DEFEND_INTERVAL.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// Addresses that are defended independently of one another.
const DEFENDED: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Round {
    due: Instant,
    network: NetworkId,
    address: Ipv4Addr,
    left: u8,
}

/// What is still to be announced, soonest first.
#[derive(Debug)]
pub(super) struct Announcer {
    rounds: VecDeque<Round>,
    /// When each address was last defended, a fixed number of them.
    defended: VecDeque<(NetworkId, Ipv4Addr, Instant)>,
}

impl Announcer {
    pub(super) fn new() -> Self {
        Self { rounds: VecDeque::new(), defended: VecDeque::with_capacity(DEFENDED) }
    }

    /// Announces `address` now and again. A set-up step: it may allocate.
    pub(super) fn announce(&mut self, network: NetworkId, address: Ipv4Addr, now: Instant) {
        self.rounds.retain(|round| round.address != address);
        // With room for all that may have to be defended at once.
        self.rounds.reserve(1 + DEFENDED);
        self.rounds.push_front(Round { due: now, network, address, left: TIMES });
    }

    /// The address is not the router's any more.
    pub(super) fn forget(&mut self, address: Ipv4Addr) {
        self.rounds.retain(|round| round.address != address);
    }

    /// Somebody else claims `address`. Whether that is worth defending now.
    pub(super) fn defend(&mut self, network: NetworkId, address: Ipv4Addr, now: Instant) -> bool {
        self.defended.retain(|(_, _, at)| now < *at + DEFEND_INTERVAL);
        let known = self.defended.iter().any(|(n, a, _)| (*n, *a) == (network, address));
        if known || self.defended.len() >= DEFENDED {
            return false;
        }
        self.defended.push_back((network, address, now));
        self.rounds.push_front(Round { due: now, network, address, left: 1 });
        true
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.rounds.front().map(|round| round.due)
    }

    /// The next announcement that is due, built in `out`.
    pub(super) fn next(&mut self, table: &Table, out: &mut Frame, now: Instant) -> Option<LinkId> {
        let round = self.rounds.pop_front_if(|round| round.due <= now)?;
        if round.left > 1 {
            // Every interval is the same, so the queue stays sorted.
            self.rounds.push_back(Round { due: now + INTERVAL, left: round.left - 1, ..round });
        }
        let network = table.network(round.network);
        let announcement = Arp {
            operation: Operation::Request,
            sender_mac: network.mac,
            sender: round.address,
            target_mac: MacAddr::ZERO,
            target: round.address,
        };
        announcement.build(MacAddr::BROADCAST, out);
        Some(network.link())
    }
}
