//! The watch over the virtual IPs: who else speaks for them, and asking whether anybody does.
//!
//! Everything here has a fixed size: what a forger can make grow takes the place of something old.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::Ipv4Addr;

use super::flow::Index;
use super::limit::TokenBucket;
use crate::addr::{MacAddr, NetworkId};
use crate::table::{Table, VirtualIp};
use crate::time::{Duration, Instant};

/// Claimants that are remembered.
const CLAIMS: usize = 64;
/// How many places a newcomer looks at when there are more; it takes that of the least worth.
const SWEEP: usize = 8;
/// How many strangers take others' places: a second, and at once. A storm of made-up claimants must
/// not drive out those that matter.
const STRANGERS: (u64, u64) = (16, 64);
/// How often a claim that goes on is told about (RFC 5227 RATE_LIMIT_INTERVAL).
const REMINDER: Duration = Duration::from_secs(60);
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

#[derive(Debug)]
struct Known {
    claim: Claim,
    /// When it was last told about.
    told: Instant,
    /// What it is filed under.
    hash: u64,
}

#[derive(Debug)]
pub(super) struct Watch {
    claims: Vec<Known>,
    index: Index,
    sweep: usize,
    probes: BinaryHeap<Reverse<(Instant, Ipv4Addr)>>,
    strangers: TokenBucket,
    news: TokenBucket,
}

impl Watch {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            claims: Vec::with_capacity(CLAIMS),
            index: Index::new(CLAIMS),
            sweep: 0,
            probes: BinaryHeap::new(),
            strangers: TokenBucket::new(STRANGERS.0, STRANGERS.1, now),
            news: TokenBucket::new(NEWS_RATE.0, NEWS_RATE.1, now),
        }
    }

    /// Takes another table into use. A set-up step: it may allocate.
    pub(super) fn install(&mut self, table: &Table, now: Instant) {
        self.claims.retain(|known| table.local(known.claim.address).is_some());
        self.index = Index::new(CLAIMS);
        for (place, known) in (0..).zip(&self.claims) {
            self.index.insert(known.hash, place);
        }
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

    /// A claim was heard; `hash` is its MAC's, which nobody outside can foretell. Returned when it
    /// is worth telling somebody.
    pub(super) fn claim(&mut self, heard: Claim, hash: u64, now: Instant) -> Option<Claim> {
        // Nobody else can choose the address: it is one of the router's.
        let hash = hash ^ u64::from(heard.address.to_bits());
        let key = |claim: &Claim| (claim.network, claim.address, claim.mac);
        let is_it = |place: u32| key(&self.claims[place as usize].claim) == key(&heard);
        if let Some(place) = self.index.find(hash, is_it) {
            let Known { claim, told, .. } = &mut self.claims[place as usize];
            claim.count += 1;
            (claim.last, claim.server, claim.suppressed) = (now, heard.server, heard.suppressed);
            let news = !claim.suppressed && now >= *told + REMINDER && self.news.take(now);
            if news {
                *told = now;
            }
            return news.then_some(*claim);
        }
        let newcomer = Known { claim: heard, told: now, hash };
        let place = if self.claims.len() < CLAIMS {
            self.claims.push(newcomer);
            self.claims.len() - 1
        } else {
            if heard.server.is_none() && !self.strangers.take(now) {
                return None;
            }
            let place = self.least_worth();
            let old = std::mem::replace(&mut self.claims[place], newcomer);
            self.index.remove(old.hash, entry(place));
            place
        };
        self.index.insert(hash, entry(place));
        self.news.take(now).then_some(heard)
    }

    /// Everybody who has claimed an address lately.
    pub(super) fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.claims.iter().map(|known| &known.claim)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.probes.peek().map(|Reverse((at, _))| *at)
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

    /// A known server's claim is worth more than a stranger's, a late one than an early one.
    fn least_worth(&mut self) -> usize {
        let start = self.sweep;
        self.sweep = (self.sweep + SWEEP) % CLAIMS;
        let worth = |place: &usize| {
            let claim = &self.claims[*place].claim;
            (claim.server.is_some(), claim.last)
        };
        (start..start + SWEEP).min_by_key(worth).unwrap_or(start)
    }
}

fn entry(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
