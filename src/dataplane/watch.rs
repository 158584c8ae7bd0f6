//! The watch over the virtual IPs: who else speaks for them, who was misled, who is to be told.
//!
//! Everything here has a fixed size: what a forger can make grow takes the place of something old.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::Ipv4Addr;

use super::announce::{Audience, announcement};
use super::limit::TokenBucket;
use crate::addr::{LinkId, MacAddr, NetworkId};
use crate::frame::Frame;
use crate::table::{Table, VirtualIp};
use crate::time::{Duration, Instant};

/// Claimants that are remembered.
const CLAIMS: usize = 64;
/// Hosts that asked for a virtual IP lately.
const ASKERS: usize = 64;
/// Hosts that were told lately.
const TOLD: usize = 256;
/// How often a claim that goes on is told about (RFC 5227 RATE_LIMIT_INTERVAL).
const REMINDER: Duration = Duration::from_secs(60);
/// How long after the last claim an address still counts as claimed.
const LIVE: Duration = Duration::from_secs(600);
/// Who asked this long ago may have been misled by a claim that is heard now.
const MEMORY: Duration = Duration::from_secs(5);
/// All answers to a question have come by then.
const DELAY: Duration = Duration::from_millis(100);
/// One host is told this often at most.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// Claims told about in a second, and at once.
const NEWS_RATE: (u64, u64) = (1, 16);

/// Somebody else who speaks for one of the router's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Where.
    pub network: NetworkId,
    /// Which address.
    pub address: Ipv4Addr,
    /// Who says that it is theirs.
    pub mac: MacAddr,
    /// The real server with this MAC, if it is one that holds the address rightly.
    pub server: Option<Ipv4Addr>,
    /// When it was first heard.
    pub since: Instant,
    /// When it was last heard.
    pub last: Instant,
    /// How often it was heard.
    pub count: u64,
    /// Whether the router kept it from those whom it would mislead.
    pub suppressed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Asker {
    network: NetworkId,
    address: Ipv4Addr,
    host: Audience,
    at: Instant,
}

#[derive(Debug)]
pub(super) struct Watch {
    /// With when each was last told about.
    claims: Vec<(Claim, Instant)>,
    askers: VecDeque<Asker>,
    /// Who is to be told, and who has been, soonest first: `at` is when.
    due: VecDeque<Asker>,
    told: VecDeque<Asker>,
    probes: BinaryHeap<Reverse<(Instant, Ipv4Addr)>>,
    news: TokenBucket,
}

impl Watch {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            claims: Vec::with_capacity(CLAIMS),
            askers: VecDeque::with_capacity(ASKERS),
            due: VecDeque::with_capacity(TOLD),
            told: VecDeque::with_capacity(TOLD),
            probes: BinaryHeap::new(),
            news: TokenBucket::new(NEWS_RATE.0, NEWS_RATE.1, now),
        }
    }

    /// Takes another table into use. A set-up step: it may allocate.
    pub(super) fn install(&mut self, table: &Table, now: Instant) {
        self.claims.retain(|(claim, _)| table.local(claim.address).is_some());
        let probed = |vip: &&VirtualIp| {
            vip.probe_interval.is_some() && !table.network(vip.network).is_bridged()
        };
        let known: HashMap<_, _> =
            self.probes.drain().map(|Reverse((at, vip))| (vip, at)).collect();
        for vip in table.virtual_ips().iter().filter(probed) {
            let before = known.get(&vip.address).copied();
            // The first one once the neighbours are known, so that a server is known by its MAC.
            let first = now + Duration::from_secs(1);
            self.probes.push(Reverse((before.unwrap_or(first), vip.address)));
        }
    }

    /// A claim was heard. Returned when it is worth telling somebody.
    pub(super) fn claim(&mut self, heard: Claim, now: Instant) -> Option<Claim> {
        let same = |(claim, _): &(Claim, Instant)| {
            (claim.network, claim.address, claim.mac) == (heard.network, heard.address, heard.mac)
        };
        if let Some((claim, told)) = self.claims.iter_mut().find(|claim| same(claim)) {
            claim.count += 1;
            (claim.last, claim.server, claim.suppressed) = (now, heard.server, heard.suppressed);
            let news = !claim.suppressed && now >= *told + REMINDER && self.news.take(now);
            if news {
                *told = now;
            }
            return news.then_some(*claim);
        }
        if self.claims.len() == CLAIMS {
            // A known server's claim is worth more than a stranger's, a late one than an early one.
            let worth = |at: &usize| {
                let claim = &self.claims[*at].0;
                (claim.server.is_some(), claim.last)
            };
            let least = (0..CLAIMS).min_by_key(worth).unwrap_or(0);
            self.claims.swap_remove(least);
        }
        self.claims.push((heard, now));
        self.news.take(now).then_some(heard)
    }

    /// Everybody who has claimed an address lately.
    pub(super) fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.claims.iter().map(|(claim, _)| claim)
    }

    /// A host asked for `address` and was answered: if others answer too, it is told once more.
    pub(super) fn asked(
        &mut self,
        network: NetworkId,
        address: Ipv4Addr,
        host: Audience,
        now: Instant,
    ) {
        let is_live = |claim: &Claim| {
            (claim.network, claim.address) == (network, address)
                && !claim.suppressed
                && claim.mac != host.mac
                && now < claim.last + LIVE
        };
        if self.claims().any(is_live) {
            self.tell(network, address, host, now);
        }
        if self.askers.len() == ASKERS {
            self.askers.pop_front();
        }
        self.askers.push_back(Asker { network, address, host, at: now });
    }

    /// A claim to `address` was heard: everybody who asked for it a moment ago may be misled.
    pub(super) fn tell_askers(
        &mut self,
        network: NetworkId,
        address: Ipv4Addr,
        claimant: MacAddr,
        now: Instant,
    ) {
        for at in 0..self.askers.len() {
            let asker = self.askers[at];
            let misled = (asker.network, asker.address) == (network, address)
                && asker.host.mac != claimant
                && now < asker.at + MEMORY;
            if misled {
                self.tell(network, address, asker.host, now);
            }
        }
    }

    /// `host` is told whose `address` is, unless it was a moment ago or there are too many.
    pub(super) fn tell(
        &mut self,
        network: NetworkId,
        address: Ipv4Addr,
        host: Audience,
        now: Instant,
    ) {
        while self.told.pop_front_if(|told| now >= told.at + DEFEND_INTERVAL).is_some() {}
        let same = |told: &Asker| {
            (told.network, told.address, told.host.mac) == (network, address, host.mac)
        };
        let full = self.told.len() == TOLD || self.due.len() == TOLD;
        if full || self.told.iter().any(same) {
            return;
        }
        self.told.push_back(Asker { network, address, host, at: now });
        self.due.push_back(Asker { network, address, host, at: now + DELAY });
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let telling = self.due.front().map(|asker| asker.at);
        let probing = self.probes.peek().map(|Reverse((at, _))| *at);
        telling.into_iter().chain(probing).min()
    }

    /// The next announcement to a single host that is due, built in `out`.
    pub(super) fn next(&mut self, table: &Table, out: &mut Frame, now: Instant) -> Option<LinkId> {
        loop {
            let asker = self.due.pop_front_if(|asker| asker.at <= now)?;
            if table.local(asker.address).is_none() {
                continue;
            }
            let network = table.network(asker.network);
            announcement(network, asker.address).build(asker.host.mac, out);
            return Some(asker.host.link);
        }
    }

    /// The next virtual IP that it is time to ask for.
    pub(super) fn next_probe<'t>(
        &mut self,
        table: &'t Table,
        now: Instant,
    ) -> Option<&'t VirtualIp> {
        let Reverse((at, address)) = *self.probes.peek()?;
        if at > now {
            return None;
        }
        self.probes.pop();
        let vip = table.virtual_ip(address)?;
        self.probes.push(Reverse((now + vip.probe_interval?, address)));
        Some(vip)
    }
}
