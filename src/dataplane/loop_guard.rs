//! The loop guard: a bridge's probe that comes back by one of its own links has gone round in a
//! circle, and one of the two links is shut until it does so no more.
//!
//! Probes carry a keyed tag, so that nobody who has not seen one can have a link shut.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::{Arrival, Dataplane, Event};
use crate::addr::{LinkId, NetworkId};
use crate::frame::{LoopProbe, lesson};
use crate::table::{Network, Table};
use crate::time::{Duration, Instant};

/// How often every link of a bridge is probed.
const INTERVAL: Duration = Duration::from_secs(1);
/// A probe of this many rounds ago is still taken for one's own.
const ROUNDS: u32 = 4;
/// How long a link stays shut after the last probe that came round.
const SHUT: Duration = Duration::from_secs(5);

/// How often, and how many at once, the switches behind a link are taught.
const LESSON_INTERVAL: Duration = Duration::from_millis(10);
const LESSONS: usize = 32;
/// Places of the station table looked at for one lesson.
const SEARCH: usize = 1_024;

/// Behind the link that stays open a switch may still send what is for stations elsewhere to the
/// one that was shut: it is sent a frame from each of them.
#[derive(Clone, Copy, Debug)]
struct Course {
    network: NetworkId,
    open: LinkId,
    shut: LinkId,
    place: usize,
    due: Instant,
}

/// What has been probed, and which links are shut.
#[derive(Debug)]
pub(super) struct LoopGuard {
    /// Distinct from the tables' hashes by what it is fed.
    hasher: SipHasher13,
    round: u32,
    /// `None`: no network is bridged, or another router bridges it.
    due: Option<Instant>,
    is_bridged: bool,
    is_active: bool,
    /// By link id.
    shut: Vec<Option<Instant>>,
    course: Option<Course>,
}

impl LoopGuard {
    pub(super) fn new(seed: &[u8; 16], is_active: bool) -> Self {
        let hasher = SipHasher13::new_with_key(seed);
        let (round, due, shut, course) = (0, None, Vec::new(), None);
        Self { hasher, round, due, is_bridged: false, is_active, shut, course }
    }

    /// A set-up step.
    pub(super) fn install(&mut self, table: &Table, now: Instant) {
        self.shut.resize(table.link_count(), None);
        self.is_bridged = table.networks().iter().any(Network::is_bridged);
        self.due = (self.is_bridged && self.is_active).then(|| self.due.unwrap_or(now));
    }

    /// This router bridges from now on. The one that did may still be about to hear of it.
    pub(super) fn resume(&mut self, now: Instant) {
        self.is_active = true;
        self.due = self.is_bridged.then_some(now + INTERVAL);
    }

    /// Another router bridges, and joins the links outside: there is nothing to guard. To be called
    /// until no link is left that was shut and is not.
    pub(super) fn pause(&mut self) -> Option<LinkId> {
        (self.is_active, self.due, self.course) = (false, None, None);
        let at = self.shut.iter_mut().position(|shut| shut.take().is_some())?;
        u16::try_from(at).ok().map(LinkId)
    }

    /// Whether frames may pass by `link`.
    pub(super) fn is_open(&self, link: LinkId) -> bool {
        self.shut.get(link.index()).is_none_or(Option::is_none)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let lesson = self.course.map(|course| course.due);
        self.shut.iter().flatten().copied().chain(self.due).chain(lesson).min()
    }

    /// A link whose circle is no more.
    fn reopen(&mut self, now: Instant) -> Option<LinkId> {
        let over = |shut: &Option<Instant>| shut.is_some_and(|until| until <= now);
        let at = self.shut.iter().position(over)?;
        self.shut[at] = None;
        u16::try_from(at).ok().map(LinkId)
    }

    /// Whether a new round of probes is due.
    fn next_round(&mut self, now: Instant) -> bool {
        let due = self.due.is_some_and(|due| due <= now);
        if due {
            self.due = Some(now + INTERVAL);
            self.round = self.round.wrapping_add(1);
        }
        due
    }

    fn probe(&self, network: &Network, link: LinkId) -> LoopProbe {
        self.probe_of(network, link.0, self.round)
    }

    /// The link that `probe` left by, if it is one of `network`'s own, and not an old one.
    fn sender(&self, network: &Network, probe: &LoopProbe) -> Option<LinkId> {
        let age = self.round.wrapping_sub(probe.round);
        let link = LinkId(probe.link);
        let own = self.probe_of(network, probe.link, probe.round) == *probe;
        (own && age < ROUNDS && network.links.contains(&link)).then_some(link)
    }

    fn probe_of(&self, network: &Network, link: u16, round: u32) -> LoopProbe {
        let mut hasher = self.hasher;
        hasher.write(b"loop probe");
        hasher.write(&network.mac.0);
        hasher.write_u16(link);
        hasher.write_u32(round);
        LoopProbe { link, round, tag: hasher.finish() }
    }
}

impl Dataplane {
    /// Sends the probes that are due, and opens links that have nothing to hide any more.
    pub(super) fn guard_loops(&mut self, table: &Table, now: Instant) {
        while let Some(link) = self.guard.reopen(now) {
            self.events.push(Event::LoopOver { link });
        }
        self.teach(table, now);
        if !self.guard.next_round(now) {
            return;
        }
        // By shut links too: how else would one know that the circle is still closed.
        for network in table.networks().iter().filter(|network| network.is_bridged()) {
            for link in &network.links {
                let Some(slot) = self.outbox.take() else { return };
                let probe = self.guard.probe(network, *link);
                probe.build(network.mac, self.outbox.frame_mut(slot));
                self.outbox.send(slot, *link);
                self.counters.originated += 1;
            }
        }
    }

    /// A few more of the lessons that a shut link made necessary.
    fn teach(&mut self, table: &Table, now: Instant) {
        let Some(mut course) = self.guard.course.filter(|course| course.due <= now) else { return };
        for _ in 0..LESSONS {
            let links = [course.open, course.shut];
            let (station, next) =
                self.stations.next_elsewhere(course.place, SEARCH, course.network, links);
            course.place = next;
            if let Some(station) = station
                && let Some(slot) = self.outbox.take()
            {
                lesson(station, self.outbox.frame_mut(slot));
                self.outbox.send(slot, course.open);
                self.counters.originated += 1;
            }
        }
        course.due = now + LESSON_INTERVAL;
        let more = course.place < self.stations.len() && !self.guard.is_open(course.shut);
        debug_assert!(table.network(course.network).is_bridged());
        self.guard.course = more.then_some(course);
    }

    /// Whether `frame` is a probe of the router's own, which came in by `ingress`. If so, of the two
    /// links that it has connected the later in the file is shut, unless another router connects them.
    pub(super) fn is_loop(&mut self, arrival: &Arrival<'_>, frame: &[u8]) -> bool {
        let Arrival { table, network, ingress, now, .. } = *arrival;
        let probe = LoopProbe::parse(frame);
        let Some(sender) = probe.and_then(|probe| self.guard.sender(network, &probe)) else {
            return false;
        };
        if !self.is_active() || self.is_contended(table, now) {
            return true;
        }
        let link = sender.max(ingress);
        let shut = &mut self.guard.shut[link.index()];
        if shut.is_none() {
            self.events.push(Event::LoopFound { sent: sender, came: ingress, shut: link });
        }
        *shut = Some(now + SHUT);
        // Again and again: what went round has misled the router about its stations too, until they
        // say something.
        let open = sender.min(ingress);
        if self.guard.course.is_none() && open != link {
            let course = Course { network: network.id, open, shut: link, place: 0, due: now };
            self.guard.course = Some(course);
        }
        true
    }
}
