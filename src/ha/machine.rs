//! The VRRP state machine (RFC 9568 section 6.4), once for the whole router over several networks.
//!
//! Knows priorities and times, but no packets: adverts come in judged, and it says what is to be sent.
//! What differs from one machine per network:
//!
//! - Adverts leave on all networks at once, and the role changes on all of them.
//! - Who of two active routers stays so is judged on the first network alone. On the others two
//!   routers might judge differently, and both might give way, or neither.
//! - The active router is missed only when it is on every network.
//!
//! A router with a failed link never is active. One with a fault, or that was asked to yield, gives up
//! the role, but has it again when nobody else takes it: it then competes with priority 1 and never
//! preempts. Service goes before wishes.

mod hear;
mod path;

use std::net::Ipv4Addr;

use super::event::{Event, Events, Fault, Reason};
use super::history::{History, Transition};
use super::settings::Settings;
use crate::addr::{NetworkId, Role};
use crate::config::VrrpVersion;
use crate::time::{Duration, Instant};

pub(super) use hear::Said;
pub use path::Heard;
pub(super) use path::{Outgoing, Path};

/// What a router with a fault competes with.
const RELUCTANT: u8 = 1;
/// Needs no leave to be active (RFC 9568 section 6.1).
const OWNER: u8 = 255;
/// How often in a row a router that is late asks for more time: one that always is late has to act
/// some time.
const MOST_GRACES: u8 = 3;
/// Whoever makes the router hear contention does not make it announce at will: it says one
/// [`Event::ContentionEnded`] a second, and a few at once.
const ANNOUNCEMENT_GAP: Duration = Duration::from_secs(1);
const ANNOUNCEMENTS_AT_ONCE: u32 = 5;

/// What of the settings is no more than numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    version: VrrpVersion,
    priority: u8,
    interval: Duration,
    preempt: bool,
    preempt_delay: Duration,
    waits_for_sync: Option<Duration>,
}

impl Rules {
    pub(super) const fn new(settings: &Settings) -> Self {
        Self {
            version: settings.version,
            priority: settings.priority,
            interval: settings.advert_interval,
            preempt: settings.preempt,
            preempt_delay: settings.preempt_delay,
            waits_for_sync: settings.waits_for_sync,
        }
    }

    /// RFC 9568 section 6.1; of version 2 RFC 3768 section 6.1.
    fn skew(self, interval: Duration, priority: u8) -> Duration {
        let base = match self.version {
            VrrpVersion::V2 => Duration::from_secs(1),
            VrrpVersion::V3 => interval,
        };
        let parts = 256 - u64::from(priority);
        Duration::from_micros(parts * base.total_micros() / 256)
    }

    /// How long adverts have to be missing: Active_Down_Interval.
    fn active_down(self, interval: Duration, priority: u8) -> Duration {
        interval * 3 + self.skew(interval, priority)
    }
}

/// Another active router was heard, or may have been there while this one was away.
#[derive(Clone, Copy, Debug)]
struct Contention {
    /// When it will have given way unless it is heard again; `None`: that was said.
    ends_at: Option<Instant>,
    /// It was heard where it is judged, and gives way as soon as it hears this one.
    is_judged: bool,
    /// When it is certain.
    forgotten_at: Instant,
}

#[derive(Debug)]
pub(super) struct Machine {
    rules: Rules,
    role: Role,
    paths: Vec<Path>,
    history: History,
    events: Events,
    /// What keeps the router from being of use, each once.
    faults: Vec<Fault>,
    is_yielded: bool,
    is_stopped: bool,
    /// Since when it has had no fault: preempting is counted from here.
    well_since: Instant,
    has_synced: bool,
    /// Active: when the next adverts are due, and until when those that others prompted would have
    /// taken, one gap after the other.
    advert_at: Instant,
    prompted_until: Instant,
    contention: Option<Contention>,
    /// When the announcements so far would have ended, one gap after the other.
    announced_until: Instant,
    /// Backup: what will make it active, apart from silence.
    owner_at: Option<Instant>,
    resigned: Option<(Instant, Ipv4Addr)>,
    preempts: Option<(Instant, Ipv4Addr)>,
    /// Backup: nothing is done before, as adverts may wait to be heard.
    not_before: Instant,
    graces: u8,
}

impl Machine {
    pub(super) fn new(
        rules: Rules,
        networks: impl Iterator<Item = (NetworkId, Ipv4Addr)>,
        now: Instant,
    ) -> Self {
        let paths = networks.map(|(network, address)| Path::new(network, address, now)).collect();
        let mut machine = Self {
            rules,
            role: Role::Backup,
            paths,
            history: History::new(Transition {
                at: now,
                role: Role::Backup,
                reason: Reason::Started,
            }),
            events: Events::new(),
            faults: Vec::new(),
            is_yielded: false,
            is_stopped: false,
            well_since: now,
            has_synced: false,
            advert_at: now,
            prompted_until: now,
            contention: None,
            announced_until: now,
            owner_at: None,
            resigned: None,
            preempts: None,
            not_before: now,
            graces: 0,
        };
        machine.listen_anew(now);
        machine.feel_well(now);
        machine
    }

    /// Other rules, networks or virtual IPs: `networks` says which of those before each one is. The
    /// role stays.
    pub(super) fn configure(
        &mut self,
        rules: Rules,
        networks: impl Iterator<Item = (NetworkId, Ipv4Addr, Option<usize>)>,
        now: Instant,
    ) {
        let (had_links, was_reluctant) = (self.has_links(), self.is_reluctant());
        let was_owner = self.effective_priority() == OWNER;
        self.rules = rules;
        let paths: Vec<_> = networks
            .map(|(network, address, position)| {
                match position.and_then(|position| self.paths.get(position)) {
                    Some(path) => Path { network, address, ..*path },
                    None => {
                        let mut path = Path::new(network, address, now);
                        path.restart(rules, self.effective_priority(), now);
                        path
                    }
                }
            })
            .collect();
        self.paths = paths;
        self.faults.retain(|fault| match fault {
            Fault::Gateway(network) => self.paths.iter().any(|path| path.network == *network),
            Fault::Service(_) => true,
        });
        // Others learn at once of another interval or priority, or of other virtual IPs.
        self.advert_at = now;
        self.preempts = None;
        if self.has_links() && !had_links {
            self.listen_anew(now);
        }
        if self.has_links() && !had_links || was_reluctant && !self.is_reluctant() {
            self.feel_well(now);
        } else if !was_owner {
            self.claim_own(now);
        }
    }

    pub(super) const fn role(&self) -> Role {
        self.role
    }

    pub(super) const fn history(&self) -> &History {
        &self.history
    }

    pub(super) fn paths(&self) -> &[Path] {
        &self.paths
    }

    pub(super) fn faults(&self) -> &[Fault] {
        &self.faults
    }

    pub(super) const fn is_yielded(&self) -> bool {
        self.is_yielded
    }

    pub(super) const fn events_mut(&mut self) -> &mut Events {
        &mut self.events
    }

    pub(super) const fn events(&self) -> &Events {
        &self.events
    }

    pub(super) fn effective_priority(&self) -> u8 {
        if self.is_reluctant() { RELUCTANT } else { self.rules.priority }
    }

    /// How long the active router may be silent on a network before it is missed.
    pub(super) fn active_down(&self, position: usize) -> Duration {
        let interval = self.paths.get(position).map_or(self.rules.interval, |path| path.interval);
        self.rules.active_down(interval, self.effective_priority())
    }

    /// What is to be sent next: where in the order of the networks, and what.
    pub(super) fn poll_transmit(&mut self) -> Option<(usize, Outgoing)> {
        self.paths
            .iter_mut()
            .enumerate()
            .find_map(|(position, path)| Some((position, path.outgoing.take()?)))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.is_stopped {
            return None;
        }
        match self.role {
            Role::Active => {
                let contention = self.contention.map(|contention| self.contention_due(contention));
                Some(contention.map_or(self.advert_at, |at| at.min(self.advert_at)))
            }
            Role::Backup => {
                let takeover = self.takeover().map(|(at, _)| at);
                let missed =
                    self.paths.iter().filter(|path| !path.is_silent).map(|path| path.down_at);
                takeover.into_iter().chain(missed).min().map(|at| at.max(self.not_before))
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.is_stopped {
            return;
        }
        match self.role {
            Role::Active => self.time_active(now),
            Role::Backup => self.time_backup(now),
        }
    }

    fn time_active(&mut self, now: Instant) {
        if now >= self.advert_at {
            let late = now - self.advert_at;
            // Two intervals late is three after the last advert: somebody may have taken over, and
            // gives way on hearing this router without a word.
            if late >= self.rules.interval * 2 {
                self.contend(true, now);
            }
            let is_on_time = late < self.rules.interval / 2;
            self.send(Outgoing::Advert);
            self.advert_at = if is_on_time { self.advert_at } else { now } + self.rules.interval;
        }
        if let Some(contention) = self.contention
            && now >= self.contention_due(contention)
        {
            if contention.ends_at.is_some() {
                self.announced_until = self.announced_until.max(now) + ANNOUNCEMENT_GAP;
                self.events.push(Event::ContentionEnded);
            }
            let is_over = now >= contention.forgotten_at;
            self.contention = (!is_over).then_some(Contention { ends_at: None, ..contention });
        }
    }

    fn time_backup(&mut self, now: Instant) {
        let Some(due) = self.poll_timeout().filter(|due| now >= *due) else { return };
        // Whoever was away or busy has not read what came in meanwhile. The next advert is an interval
        // away at most.
        let (interval, grace) = self.grace();
        if now - due > interval / 2 && self.graces < MOST_GRACES {
            self.graces += 1;
            self.not_before = now + grace;
            return;
        }
        self.graces = 0;
        if let Some((_, reason)) = self.takeover().filter(|(at, _)| now >= *at) {
            self.become_active(reason, now);
            return;
        }
        let has_links = self.has_links();
        for position in 0..self.paths.len() {
            let path = &mut self.paths[position];
            if !path.is_silent && now >= path.down_at {
                path.is_silent = true;
                // Who is deaf itself has nothing to say about the other router.
                if has_links {
                    self.events.push(Event::PathDegraded { network: path.network });
                }
                // Who is not heard on the first network would not give way to this router.
                if position == 0 {
                    self.preempts = None;
                }
            }
        }
    }

    /// The longest interval that was heard of, and the time in which a living router would be.
    fn grace(&self) -> (Duration, Duration) {
        let intervals = self.paths.iter().map(|path| path.interval);
        let interval = intervals.max().unwrap_or(self.rules.interval);
        (interval, interval + self.rules.skew(interval, self.effective_priority()))
    }

    /// When a Backup becomes active if nothing more is heard, and why.
    fn takeover(&self) -> Option<(Instant, Reason)> {
        if !self.has_links() {
            return None;
        }
        let owner = self.owner_at.map(|at| (at, Reason::Owner));
        let resigned = self.resigned.map(|(at, peer)| (at, Reason::PeerResigned(peer)));
        let preempts = self.preempts.map(|(at, peer)| (at, Reason::Preempted(peer)));
        let silence = self.paths.iter().map(|path| path.down_at).max();
        let silence = silence.map(|at| (at, Reason::Silence));
        [owner, resigned, preempts, silence].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn contention_due(&self, contention: Contention) -> Instant {
        let budget = self.announced_until - ANNOUNCEMENT_GAP * (ANNOUNCEMENTS_AT_ONCE - 1);
        contention.ends_at.map_or(contention.forgotten_at, |at| at.max(budget))
    }

    pub(super) fn handle_link(&mut self, network: NetworkId, is_up: bool, now: Instant) {
        let Some(path) = self.paths.iter_mut().find(|path| path.network == network) else { return };
        if std::mem::replace(&mut path.is_up, is_up) == is_up || self.is_stopped {
            return;
        }
        if self.has_links() {
            self.listen_anew(now);
            self.feel_well(now);
        } else if self.role == Role::Active {
            self.resign(Reason::LinkDown(network), now);
        }
    }

    pub(super) fn handle_fault(&mut self, fault: Fault, is_faulty: bool, now: Instant) {
        let was_reluctant = self.is_reluctant();
        match self.faults.iter().position(|known| *known == fault) {
            None if is_faulty => self.faults.push(fault),
            Some(position) if !is_faulty => {
                self.faults.swap_remove(position);
            }
            _ => return,
        }
        self.reconsider(was_reluctant, Reason::Fault(fault), now);
    }

    pub(super) fn yield_role(&mut self, now: Instant) {
        let was_reluctant = self.is_reluctant();
        self.is_yielded = true;
        // Who asks for it is obeyed even when a fault has made the router give up the role before.
        if self.role == Role::Active && was_reluctant {
            self.resign(Reason::Yielded, now);
        }
        self.reconsider(was_reluctant, Reason::Yielded, now);
    }

    pub(super) fn resume(&mut self, now: Instant) {
        let was_reluctant = self.is_reluctant();
        self.is_yielded = false;
        self.reconsider(was_reluctant, Reason::Yielded, now);
    }

    /// Gives up the role on becoming reluctant, for `reason`. Whoever is, and has it nevertheless, is
    /// the last resort and keeps it.
    fn reconsider(&mut self, was_reluctant: bool, reason: Reason, now: Instant) {
        if self.is_stopped {
            return;
        }
        match (was_reluctant, self.is_reluctant()) {
            (false, true) => {
                (self.owner_at, self.preempts) = (None, None);
                if self.role == Role::Active {
                    self.resign(reason, now);
                }
            }
            (true, false) => self.feel_well(now),
            _ => {}
        }
    }

    pub(super) const fn handle_sync(&mut self, is_complete: bool) {
        self.has_synced = is_complete;
        if !is_complete {
            self.preempts = None;
        }
    }

    pub(super) fn shut_down(&mut self, now: Instant) {
        if self.role == Role::Active {
            self.resign(Reason::ShutDown, now);
        }
        self.is_stopped = true;
    }

    fn is_reluctant(&self) -> bool {
        self.is_yielded || !self.faults.is_empty()
    }

    fn has_links(&self) -> bool {
        self.paths.iter().all(|path| path.is_up)
    }

    /// Whether it takes over from an active router of lower priority.
    fn may_preempt(&self, now: Instant) -> bool {
        let rules = &self.rules;
        if !self.has_links() || self.is_reluctant() {
            return false;
        }
        if rules.priority == OWNER {
            return true;
        }
        let is_synced = self.has_synced
            || rules
                .waits_for_sync
                .is_none_or(|most| now >= self.well_since.max(self.history.latest().at) + most);
        rules.preempt && now >= self.well_since + rules.preempt_delay && is_synced
    }

    fn feel_well(&mut self, now: Instant) {
        self.well_since = now;
        self.claim_own(now);
    }

    /// The owner of the addresses waits for nobody.
    fn claim_own(&mut self, now: Instant) {
        if self.role == Role::Backup && self.effective_priority() == OWNER && !self.is_stopped {
            self.owner_at = Some(now);
        }
    }

    fn listen_anew(&mut self, now: Instant) {
        (self.resigned, self.preempts) = (None, None);
        let priority = self.effective_priority();
        for path in &mut self.paths {
            path.restart(self.rules, priority, now);
        }
    }

    fn become_active(&mut self, reason: Reason, now: Instant) {
        self.change(Role::Active, reason, now);
        self.send(Outgoing::Advert);
        self.advert_at = now + self.rules.interval;
    }

    fn become_backup(&mut self, reason: Reason, now: Instant) {
        self.change(Role::Backup, reason, now);
        self.listen_anew(now);
    }

    fn resign(&mut self, reason: Reason, now: Instant) {
        self.become_backup(reason, now);
        self.send(Outgoing::Resignation);
    }

    fn change(&mut self, role: Role, reason: Reason, now: Instant) {
        self.role = role;
        self.history.push(Transition { at: now, role, reason });
        self.events.push(Event::Role { role, reason });
        (self.owner_at, self.resigned, self.preempts) = (None, None, None);
        self.contention = None;
        self.prompted_until = now;
        (self.not_before, self.graces) = (now, 0);
        // What the other one sends from now on makes the table complete, not what was there before.
        self.has_synced = false;
        for path in &mut self.paths {
            path.is_silent = false;
            path.outgoing = None;
        }
    }

    fn send(&mut self, outgoing: Outgoing) {
        for path in &mut self.paths {
            path.outgoing = Some(outgoing);
        }
    }

    /// Another active router was heard, or may have been there. It will have given way in half an
    /// interval when it is one that gives way on hearing this one, otherwise in three, unless it is
    /// heard again. What is heard beside that on another network puts nothing off.
    fn contend(&mut self, is_judged: bool, now: Instant) {
        let interval = self.rules.interval;
        let known = self.contention.filter(|known| known.is_judged && !is_judged);
        let known_end = known.and_then(|known| known.ends_at);
        let settles = if is_judged { interval / 2 } else { interval * 3 };
        self.contention = Some(Contention {
            ends_at: Some(known_end.unwrap_or(now + settles)),
            is_judged: is_judged || known_end.is_some(),
            forgotten_at: now + interval * 3,
        });
    }
}

#[cfg(test)]
mod tests;
