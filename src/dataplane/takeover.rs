//! Taking over: everybody on a network learns at once, and again for two seconds, that its virtual IPs
//! are here (RFC 9568 section 6.4.2), and switches behind a bridge's links where its stations are now.
//!
//! Walks the table instead of keeping a list, so that it needs no room for a thousand addresses.

use super::Dataplane;
use super::announce::{Audience, announcement, is_quiet};
use super::loop_guard::LoopGuard;
use super::stations::{Known, Stations};
use crate::addr::{LinkId, MacAddr};
use crate::frame::{Frame, lesson};
use crate::table::{Network, Table};
use crate::time::{Duration, Instant};

/// When everything is announced, counted from the takeover.
const ROUNDS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(700),
    Duration::from_millis(1_400),
    Duration::from_millis(2_000),
];
/// As many are sent at once, and then so much later again: a thousand within the 5 ms in which the
/// first announcement of each is due, and no turn that takes longer than a millisecond or so.
const BATCH: u16 = 512;
const PAUSE: Duration = Duration::from_millis(1);
/// The same for lessons, each of which may look at so many places of the station table.
const LESSONS: u16 = 64;
const SEARCH: usize = 128;

/// How far a takeover has come.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    announcing: Option<Announcing>,
    teaching: Option<Teaching>,
    /// When everybody was taught last, and when to teach again about who was found since.
    taught: Option<Instant>,
    teach_again: Option<Instant>,
}

/// One place for each network, then one for each virtual IP; at each, one link after the other.
#[derive(Clone, Copy, Debug)]
struct Announcing {
    began: Instant,
    round: usize,
    place: usize,
    link: usize,
    due: Instant,
    left: u16,
}

/// For each link of each bridged network, the stations that are not behind it.
#[derive(Clone, Copy, Debug)]
struct Teaching {
    network: usize,
    link: usize,
    place: usize,
    due: Instant,
    left: u16,
    /// Only about who was found after this.
    since: Option<Instant>,
}

impl Teaching {
    const fn new(due: Instant, since: Option<Instant>) -> Self {
        Self { network: 0, link: 0, place: 0, due, left: LESSONS, since }
    }
}

impl Takeover {
    pub(super) fn begin(&mut self, now: Instant) {
        let (round, place, link) = (0, 0, 0);
        self.announcing =
            Some(Announcing { began: now, round, place, link, due: now, left: BATCH });
        self.teaching = Some(Teaching::new(now, None));
        (self.taught, self.teach_again) = (Some(now), None);
    }

    /// Teaches at `due` about stations that have been found, or found elsewhere, by then.
    pub(super) fn teach_again(&mut self, due: Instant) {
        self.teach_again = Some(due);
        if self.teaching.is_none() {
            self.next_teaching();
        }
    }

    fn next_teaching(&mut self) {
        let again = self.teach_again.take();
        self.teaching = again.map(|due| Teaching::new(due, self.taught.replace(due)));
    }

    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }

    /// Another table: a round that is under way begins again, for places have moved.
    pub(super) fn restart_round(&mut self) {
        if let Some(announcing) = &mut self.announcing {
            (announcing.place, announcing.link) = (0, 0);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let announcing = self.announcing.map(|announcing| announcing.due);
        announcing.into_iter().chain(self.teaching.map(|teaching| teaching.due)).min()
    }

    /// The next announcement that is due, built in `out`.
    fn announce(
        &mut self,
        table: &Table,
        out: &mut Frame,
        now: Instant,
        guard: &LoopGuard,
        gateway: impl Fn(&Network) -> Option<Audience>,
    ) -> Option<LinkId> {
        loop {
            let at = self.announcing.as_mut().filter(|at| at.due <= now)?;
            if at.left == 0 {
                (at.due, at.left) = (now + PAUSE, BATCH);
                continue;
            }
            at.left -= 1;
            let networks = table.networks();
            let address = at.place.checked_sub(networks.len());
            let vip = address.and_then(|place| table.virtual_ips().get(place));
            let Some(network) =
                networks.get(at.place).or_else(|| vip.map(|vip| table.network(vip.network)))
            else {
                (at.round, at.place, at.link, at.left) = (at.round + 1, 0, 0, BATCH);
                match ROUNDS.get(at.round) {
                    Some(offset) => at.due = at.began + *offset,
                    None => self.announcing = None,
                }
                continue;
            };
            // A host that has the address too, and watches for conflicts, keeps it after one
            // broadcast in ten seconds, and gives it up after two (RFC 5227 section 2.4 b). The
            // switches are told all the same.
            let quiet = at.round > 0 && vip.is_some_and(is_quiet);
            let link = network.links.get(at.link).copied();
            let to = match link.filter(|link| !network.is_bridged() || guard.is_open(*link)) {
                _ if quiet => gateway(network).filter(|_| at.link == 0),
                Some(link) => Some(Audience { mac: MacAddr::BROADCAST, link }),
                None => None,
            };
            at.link += 1;
            if quiet || at.link >= network.links.len() {
                (at.place, at.link) = (at.place + 1, 0);
            }
            let Some(to) = to else { continue };
            match (vip, network.virtual_mac) {
                (Some(vip), _) => announcement(table, network, vip.address).build(to.mac, out),
                (None, Some(mac)) if at.round > 0 => lesson(mac, out),
                (None, _) => continue,
            }
            return Some(to.link);
        }
    }

    /// The next lesson that is due, built in `out`.
    fn teach(
        &mut self,
        table: &Table,
        out: &mut Frame,
        now: Instant,
        guard: &LoopGuard,
        stations: &Stations,
    ) -> Option<LinkId> {
        loop {
            let at = self.teaching.as_mut().filter(|at| at.due <= now)?;
            let Some(network) = table.networks().get(at.network) else {
                self.next_teaching();
                return None;
            };
            let link = network.links.get(at.link).copied().filter(|_| network.is_bridged());
            let Some(link) = link else {
                (at.network, at.link, at.place) = (at.network + 1, 0, 0);
                continue;
            };
            if at.place >= stations.len() || !guard.is_open(link) {
                (at.link, at.place) = (at.link + 1, 0);
                continue;
            }
            if at.left == 0 {
                (at.due, at.left) = (now + PAUSE, LESSONS);
                continue;
            }
            at.left -= 1;
            let ageing = network.bridge.mac_ageing;
            let known = Known { since: at.since, ageing, now };
            let (station, next) = stations.next_beyond((at.place, SEARCH), network.id, link, known);
            at.place = next;
            if let Some(station) = station {
                lesson(station, out);
                return Some(link);
            }
        }
    }
}

impl Dataplane {
    /// Begins to tell everybody, and forgets what was to be told before.
    pub(super) fn take_over(&mut self, now: Instant) {
        self.takeover.begin(now);
    }

    /// The next frame that a takeover has to send, built in `out`.
    pub(super) fn next_of_takeover(
        &mut self,
        table: &Table,
        out: &mut Frame,
        now: Instant,
    ) -> Option<LinkId> {
        self.takeover.next_deadline().filter(|due| *due <= now)?;
        let mut takeover = std::mem::take(&mut self.takeover);
        let gateway = |network: &Network| self.gateway(network);
        let link = takeover
            .announce(table, out, now, &self.guard, gateway)
            .or_else(|| takeover.teach(table, out, now, &self.guard, &self.stations));
        self.takeover = takeover;
        link
    }
}
