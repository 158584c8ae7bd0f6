//! The defence of the virtual IPs: hosts that use one are told whose it is when somebody else claims it.
//!
//! Owns who uses them, who claimed them last, who is to be told when. Everything has a fixed size, and
//! a claim in a storm of claims costs the same however many hosts there are: all that it could set in
//! motion is in motion already.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::Hasher;
use std::net::Ipv4Addr;

use siphasher::sip::SipHasher13;

use super::announce::{Audience, announcement};
use super::flow::Index;
use super::limit::TokenBucket;
use crate::addr::{LinkId, MacAddr, NetworkId};
use crate::frame::Frame;
use crate::table::{Table, VirtualIp};
use crate::time::{Duration, Instant};

/// Hosts that are remembered.
const HOSTS: usize = 256;
/// How many places a newcomer to a full table looks at; it takes that of the one silent longest.
const SWEEP: usize = 8;
/// How many newcomers take others' places: a second, and at once. A storm of made-up hosts must not
/// drive out those that are there.
const NEWCOMERS: (u64, u64) = (100, 256);
/// How long after the last claim an address still counts as claimed.
const LIVE: Duration = Duration::from_secs(600);
/// All answers to a question have come by then.
const DELAY: Duration = Duration::from_millis(100);
/// One host is told this often at most.
const INTERVAL: Duration = Duration::from_secs(10);

/// A host that asked for an address, or was misled about it.
#[derive(Clone, Copy, Debug)]
struct Host {
    /// Its address's place among the contests.
    contest: usize,
    host: Audience,
    /// When it last asked.
    asked: Instant,
    told: Option<Instant>,
    /// Whether it is to be told; when, is in the queue.
    waits: bool,
    /// What it is filed under.
    hash: u64,
}

/// A virtual IP that others may claim.
#[derive(Clone, Copy, Debug)]
struct Contest {
    network: NetworkId,
    address: Ipv4Addr,
    /// The last two who claimed it, the later one first.
    claimants: [Option<(MacAddr, Instant)>; 2],
    /// How many of its hosts are not waiting to be told.
    idle: usize,
}

impl Contest {
    fn claimed_by(&mut self, mac: MacAddr, now: Instant) {
        let [last, before] = &mut self.claimants;
        if last.is_some_and(|(known, _)| known != mac) {
            *before = *last;
        }
        *last = Some((mac, now));
    }

    /// Whether anybody whom `is_it` accepts has claimed it lately.
    fn is_claimed(&self, now: Instant, is_it: impl Fn(MacAddr) -> bool) -> bool {
        let mut claimants = self.claimants.iter().flatten();
        claimants.any(|(mac, at)| is_it(*mac) && now < *at + LIVE)
    }
}

#[derive(Debug)]
pub(super) struct Defence {
    /// By address.
    contests: Vec<Contest>,
    hosts: Vec<Host>,
    index: Index,
    hasher: SipHasher13,
    sweep: usize,
    newcomers: TokenBucket,
    /// When who is to be told, once for each host that waits.
    queue: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl Defence {
    pub(super) fn new(seed: &[u8; 16], now: Instant) -> Self {
        Self {
            contests: Vec::new(),
            hosts: Vec::with_capacity(HOSTS),
            index: Index::new(HOSTS),
            hasher: SipHasher13::new_with_key(seed),
            sweep: 0,
            newcomers: TokenBucket::new(NEWCOMERS.0, NEWCOMERS.1, now),
            queue: BinaryHeap::with_capacity(HOSTS),
        }
    }

    /// Takes another table into use. A set-up step: it may allocate.
    pub(super) fn install(&mut self, table: &Table) {
        let told = table.virtual_ips().iter().filter(|vip| vip.tells_hosts());
        let contest = |vip: &VirtualIp| {
            let before = self.find(vip.network, vip.address).map(|at| self.contests[at].claimants);
            let claimants = before.unwrap_or_default();
            Contest { network: vip.network, address: vip.address, claimants, idle: 0 }
        };
        let mut contests: Vec<_> = told.map(contest).collect();
        contests.sort_unstable_by_key(|contest| contest.address);
        let before = std::mem::replace(&mut self.contests, contests);
        self.index = Index::new(HOSTS);
        let mut places = [None; HOSTS];
        for (place, mut host) in
            std::mem::replace(&mut self.hosts, Vec::with_capacity(HOSTS)).into_iter().enumerate()
        {
            let Contest { network, address, .. } = before[host.contest];
            let Some(contest) = self.find(network, address) else { continue };
            (host.contest, host.hash) = (contest, self.hash(contest, host.host.mac));
            self.contests[contest].idle += usize::from(!host.waits);
            places[place] = Some(self.hosts.len());
            self.index.insert(host.hash, entry(self.hosts.len()));
            self.hosts.push(host);
        }
        for Reverse((at, place)) in
            std::mem::replace(&mut self.queue, BinaryHeap::with_capacity(HOSTS))
        {
            self.queue.extend(places[place].map(|place| Reverse((at, place))));
        }
    }

    /// A host asked for `address` and was answered: if others answer too, it is told once more.
    pub(super) fn asked(
        &mut self,
        network: NetworkId,
        address: Ipv4Addr,
        host: Audience,
        now: Instant,
    ) {
        let Some(contest) = self.find(network, address) else { return };
        let Some(place) = self.remember(contest, host, now) else { return };
        if self.contests[contest].is_claimed(now, |mac| mac != host.mac) {
            self.schedule(place, now);
        }
    }

    /// `mac` claims `address`: everybody who uses it may be misled.
    pub(super) fn claimed(
        &mut self,
        network: NetworkId,
        address: Ipv4Addr,
        mac: MacAddr,
        now: Instant,
    ) {
        let Some(contest) = self.find(network, address) else { return };
        self.contests[contest].claimed_by(mac, now);
        if self.contests[contest].idle == 0 {
            return;
        }
        for place in 0..self.hosts.len() {
            if self.hosts[place].contest == contest {
                self.schedule(place, now);
            }
        }
    }

    /// `host` is told whose `address` is, unless there are too many.
    pub(super) fn tell(
        &mut self,
        network: NetworkId,
        address: Ipv4Addr,
        host: Audience,
        now: Instant,
    ) {
        let Some(contest) = self.find(network, address) else { return };
        if let Some(place) = self.remember(contest, host, now) {
            self.schedule(place, now);
        }
    }

    /// The virtual IPs are another router's now: nobody is told anything.
    pub(super) fn stand_down(&mut self) {
        self.queue.clear();
        for host in &mut self.hosts {
            if std::mem::take(&mut host.waits) {
                self.contests[host.contest].idle += 1;
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, _))| *at)
    }

    /// The next announcement to a single host that is due, built in `out`.
    pub(super) fn next(&mut self, table: &Table, out: &mut Frame, now: Instant) -> Option<LinkId> {
        loop {
            self.next_deadline().filter(|at| *at <= now)?;
            let Reverse((_, place)) = self.queue.pop()?;
            let host = &mut self.hosts[place];
            (host.waits, host.told) = (false, Some(now));
            let contest = &mut self.contests[host.contest];
            contest.idle += 1;
            // Who holds the address rightly and watches for conflicts would give it up (RFC 5227).
            if contest.is_claimed(now, |mac| mac == host.host.mac) {
                continue;
            }
            let network = table.network(contest.network);
            announcement(table, network, contest.address).build(host.host.mac, out);
            return Some(host.host.link);
        }
    }

    /// At once, or when it may be told again.
    fn schedule(&mut self, place: usize, now: Instant) {
        let host = &mut self.hosts[place];
        if !std::mem::replace(&mut host.waits, true) {
            let again = host.told.map_or(now, |told| told + INTERVAL);
            self.contests[host.contest].idle -= 1;
            self.queue.push(Reverse((again.max(now + DELAY), place)));
        }
    }

    /// The place of `host`, new if need be. `None` when the table is full of others that wait to be
    /// told, or were a moment ago.
    fn remember(&mut self, contest: usize, host: Audience, now: Instant) -> Option<usize> {
        let hash = self.hash(contest, host.mac);
        let is_it = |entry: u32| {
            let known = &self.hosts[entry as usize];
            known.contest == contest && known.host.mac == host.mac
        };
        if let Some(entry) = self.index.find(hash, is_it) {
            let known = &mut self.hosts[entry as usize];
            (known.host, known.asked) = (host, now);
            return Some(entry as usize);
        }
        let newcomer = Host { contest, host, asked: now, told: None, waits: false, hash };
        let place = if self.hosts.len() < HOSTS {
            self.hosts.push(newcomer);
            self.hosts.len() - 1
        } else {
            let place = self.newcomers.take(now).then(|| self.vacancy(now)).flatten()?;
            let old = std::mem::replace(&mut self.hosts[place], newcomer);
            self.index.remove(old.hash, entry(place));
            self.contests[old.contest].idle -= 1;
            place
        };
        self.index.insert(hash, entry(place));
        self.contests[contest].idle += 1;
        Some(place)
    }

    fn vacancy(&mut self, now: Instant) -> Option<usize> {
        let start = self.sweep;
        self.sweep = (self.sweep + SWEEP) % HOSTS;
        let is_free =
            |host: &Host| !host.waits && host.told.is_none_or(|told| now >= told + INTERVAL);
        let places = (start..start + SWEEP).map(|place| place % HOSTS);
        let free = places.filter(|place| is_free(&self.hosts[*place]));
        free.min_by_key(|place| self.hosts[*place].asked)
    }

    fn find(&self, network: NetworkId, address: Ipv4Addr) -> Option<usize> {
        let at = self.contests.binary_search_by_key(&address, |contest| contest.address).ok()?;
        (self.contests[at].network == network).then_some(at)
    }

    fn hash(&self, contest: usize, mac: MacAddr) -> u64 {
        let mut hasher = self.hasher;
        let [a, b, c, d, e, f] = mac.0;
        hasher.write_u64(u64::from_be_bytes([0, 0, a, b, c, d, e, f]) ^ (contest as u64) << 48);
        hasher.finish()
    }
}

fn entry(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
