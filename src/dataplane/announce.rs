//! Announcements: telling a network whose the router's addresses are (RFC 5227 sections 2.3, 2.4).

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use super::role::mac_of;
use crate::addr::{LinkId, MacAddr, NetworkId};
use crate::frame::{Arp, Frame, Operation};
use crate::table::{Defend, Local, Network, Table, VirtualIp};
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
    /// The next of the network's links to be told.
    link: usize,
    left: u8,
    /// Everybody is told, not the gateway alone.
    broadcast: bool,
}

/// Who is told by an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Audience {
    pub(super) mac: MacAddr,
    pub(super) link: LinkId,
}

/// What is still to be announced, soonest first.
#[derive(Debug, Default)]
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
    pub(super) fn announce(&mut self, addresses: &[(Ipv4Addr, NetworkId)], now: Instant) {
        self.forget(addresses);
        // With room for all that may have to be defended at once.
        self.rounds.reserve(addresses.len() + DEFENDED);
        for (address, network) in addresses.iter().copied() {
            let (due, link, left) = (now, 0, TIMES);
            self.rounds.push_front(Round { due, network, address, link, left, broadcast: true });
        }
    }

    /// The virtual IPs are another router's now.
    pub(super) fn keep_own(&mut self, table: &Table) {
        let is_own = |address| matches!(table.local(address), Some(Local::Own(_)));
        self.rounds.retain(|round| is_own(round.address));
    }

    /// These addresses, sorted, are not the router's any more.
    pub(super) fn forget(&mut self, addresses: &[(Ipv4Addr, NetworkId)]) {
        let is_one = |address| addresses.binary_search_by_key(&address, |(one, _)| *one).is_ok();
        if !addresses.is_empty() {
            self.rounds.retain(|round| !is_one(round.address));
        }
    }

    /// Somebody else claims `address`: tells everybody, unless that was done a moment ago.
    pub(super) fn defend(&mut self, network: NetworkId, address: Ipv4Addr, now: Instant) {
        self.defended.retain(|(_, _, at)| now < *at + DEFEND_INTERVAL);
        let known = self.defended.iter().any(|(n, a, _)| (*n, *a) == (network, address));
        if known || self.defended.len() >= DEFENDED {
            return;
        }
        self.defended.push_back((network, address, now));
        let (due, link, left) = (now, 0, 1);
        self.rounds.push_front(Round { due, network, address, link, left, broadcast: true });
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.rounds.front().map(|round| round.due)
    }

    /// The next announcement that is due, built in `out`. `is_open`: whether they may leave a network
    /// by a link; `gateway`: the gateway of a network, if it is known.
    pub(super) fn next(
        &mut self,
        table: &Table,
        out: &mut Frame,
        now: Instant,
        is_open: impl Fn(&Network, LinkId) -> bool,
        gateway: impl Fn(&Network) -> Option<Audience>,
    ) -> Option<LinkId> {
        loop {
            let round = self.rounds.pop_front_if(|round| round.due <= now)?;
            let network = table.network(round.network);
            let to = if round.broadcast {
                let link = network.links.get(round.link).copied();
                let open = |link: &LinkId| is_open(network, *link);
                link.filter(open).map(|link| Audience { mac: MacAddr::BROADCAST, link })
            } else {
                gateway(network)
            };
            self.go_on(table, network, round, now);
            if let Some(to) = to {
                announcement(table, network, round.address).build(to.mac, out);
                return Some(to.link);
            }
        }
    }

    /// The next link of this round, or the next round.
    fn go_on(&mut self, table: &Table, network: &Network, round: Round, now: Instant) {
        if round.broadcast && round.link + 1 < network.links.len() {
            self.rounds.push_front(Round { link: round.link + 1, ..round });
        } else if round.left > 1 {
            // Who holds the address too and watches for conflicts keeps it after one broadcast in
            // ten seconds, and gives it up after two (RFC 5227 section 2.4 b).
            let vip = table.virtual_ip(round.address);
            let quiet = vip.is_some_and(|vip| vip.network == round.network && is_quiet(vip));
            let (due, left) = (now + INTERVAL, round.left - 1);
            // Every interval is the same, so the queue stays sorted.
            self.rounds.push_back(Round { due, link: 0, left, broadcast: !quiet, ..round });
        }
    }
}

/// Whether the hosts that share it would give it up if they heard of it too often.
pub(super) fn is_quiet(vip: &VirtualIp) -> bool {
    vip.is_shared && vip.defend == Defend::Unicast
}

/// "This address is mine", to whomever it is sent.
pub(super) fn announcement(table: &Table, network: &Network, address: Ipv4Addr) -> Arp {
    Arp {
        operation: Operation::Request,
        sender_mac: mac_of(table, network, address),
        sender: address,
        target_mac: MacAddr::ZERO,
        target: address,
    }
}
