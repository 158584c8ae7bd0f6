//! Two routers that share the virtual IPs: who is active, and how the other one learns its flows.
//!
//! Owns the VRRP state machine, its packets, and the sessions that copy flows. Knows neither frames
//! nor services: records of flows are opaque bytes to it. Has no clock, no descriptors, no randomness
//! of its own: time, bytes and the seed are arguments, decisions are return values.

mod advert;
mod counters;
mod event;
mod history;
mod judge;
mod machine;
mod proof;
mod report;
mod settings;
pub mod signature;
pub mod sync;

use std::fmt;

pub use advert::{Advert, Draft, GROUP, MOST_ADDRESSES, PROTOCOL};
pub use counters::{Counters, Discard};
pub use event::{Event, Fault, Reason};
pub use history::{History, Transition};
pub use machine::Heard;
pub use proof::{PURPOSE, Run};
pub use report::{NetworkReport, PathState, Report};
pub use settings::{Member, Settings};

use crate::addr::{NetworkId, Role};
use crate::config::AdvertChecksum;
use crate::time::Instant;
use judge::Notes;
use machine::{Machine, Outgoing, Rules, Said};
use proof::TRAILER;

/// The router's half of the pair.
///
/// After every call the caller takes what [`Ha::poll_event`] and [`Ha::poll_transmit`] have, and calls
/// [`Ha::handle_timeout`] when [`Ha::poll_timeout`] says. Packets that wait are handed in before a
/// timeout that is due at the same time: whoever was busy has something to hear first.
pub struct Ha {
    settings: Settings,
    machine: Machine,
    /// One for each of the networks.
    notes: Vec<Notes>,
    counters: Counters,
    run: Run,
    confirmed: Option<u64>,
}

impl Ha {
    /// Starts as Backup with every link up; `seed` is random, and another one at every start.
    pub fn new(settings: Settings, seed: u64, now: Instant) -> Self {
        let networks = settings.networks.iter().map(|member| (member.network, member.address));
        Self {
            machine: Machine::new(Rules::new(&settings), networks, now),
            notes: vec![Notes::default(); settings.networks.len()],
            settings,
            counters: Counters::default(),
            run: Run { id: seed, sequence: 0 },
            confirmed: None,
        }
    }

    /// The configuration has changed. The role stays; a network keeps what is known of it when its id
    /// and its virtual router id do, and has its links up when it is new.
    pub fn configure(&mut self, settings: Settings, now: Instant) {
        let before = std::mem::replace(&mut self.settings, settings);
        let position_of = |member: &Member| {
            before.networks.iter().position(|other| {
                other.network == member.network
                    && other.virtual_router_id == member.virtual_router_id
            })
        };
        let members = &self.settings.networks;
        let networks =
            members.iter().map(|member| (member.network, member.address, position_of(member)));
        self.machine.configure(Rules::new(&self.settings), networks, now);
        let notes = members.iter().map(|member| {
            let known = position_of(member).and_then(|position| self.notes.get(position));
            let mut notes = known.cloned().unwrap_or_default();
            notes.renew();
            notes
        });
        self.notes = notes.collect();
    }

    /// A VRRP packet came in from `network`; `packet` starts at its IPv4 header.
    pub fn handle_packet(&mut self, network: NetworkId, packet: &[u8], now: Instant) {
        self.counters.received += 1;
        match self.admit(network, packet, now) {
            Ok((position, form, said)) => {
                self.counters.accept(form);
                self.machine.hear(position, said, now);
            }
            Err(reason) => self.counters.discards[reason.index()] += 1,
        }
    }

    fn admit(
        &mut self,
        network: NetworkId,
        packet: &[u8],
        now: Instant,
    ) -> Result<(usize, AdvertChecksum, Said), Discard> {
        let advert = Advert::parse(packet, self.settings.version)?;
        let members = &self.settings.networks;
        let listed = members.iter().zip(&mut self.notes).enumerate();
        let (position, (member, notes)) = listed
            .into_iter()
            .find(|(_, (member, _))| member.network == network)
            .ok_or(Discard::UnlistedNetwork)?;
        judge::belongs(&advert, member, members, notes, self.machine.events_mut())?;
        let silence = self.machine.active_down(position);
        judge::is_genuine(&advert, &self.settings, notes, self.confirmed, (silence, now))?;
        judge::compare(&advert, &self.settings, member, notes, self.machine.events_mut(), now);
        let Advert { source: from, priority, interval, form, .. } = advert;
        Ok((position, form, Said { from, priority, interval }))
    }

    /// When [`Ha::handle_timeout`] is due; `None`: after a shutdown, or while a link is down and
    /// nobody is heard.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.machine.handle_timeout(now);
    }

    /// Writes the next packet that is to be sent, from the IPv4 header on, into `out`, and says by which
    /// network; `None`: there is none. Allocates nothing once `out` has room for it.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<NetworkId> {
        let (position, outgoing) = self.machine.poll_transmit()?;
        let settings = &self.settings;
        let member = settings.networks.get(position)?;
        let priority = match outgoing {
            Outgoing::Advert => self.machine.effective_priority(),
            Outgoing::Resignation => 0,
        };
        let draft = Draft {
            version: settings.version,
            checksum: settings.checksum,
            source: member.address,
            virtual_router_id: member.virtual_router_id,
            priority,
            interval: settings.advert_interval,
            addresses: &member.virtual_ips,
        };
        draft.write(settings.key.as_ref().map_or(0, |_| TRAILER), out);
        if let Some(key) = &settings.key {
            self.run.sequence += 1;
            self.run.sign(key, out);
        }
        self.counters.sent += 1;
        self.counters.sent_resigning += u64::from(outgoing == Outgoing::Resignation);
        Some(member.network)
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.machine.events_mut().pop()
    }

    /// All links of `network` work, or one does not. While one of any listed network does not, the
    /// router is Backup: it gives up the role and does not take over.
    pub fn handle_link(&mut self, network: NetworkId, is_up: bool, now: Instant) {
        self.machine.handle_link(network, is_up, now);
    }

    /// The router's use is impaired, or no longer. On the first fault an active router gives up the
    /// role; until the last is gone it competes with priority 1 and does not preempt, so that it takes
    /// over only when nobody else does.
    pub fn handle_fault(&mut self, fault: Fault, is_faulty: bool, now: Instant) {
        self.machine.handle_fault(fault, is_faulty, now);
    }

    /// The peer's flows are all here, or not any more: it may take over from a living peer, or waits.
    /// Every change of the role makes them incomplete.
    pub fn handle_sync(&mut self, is_complete: bool) {
        self.machine.handle_sync(is_complete);
    }

    /// A sync session has proved freshly which run the peer is in, and how far: with
    /// [`Settings::key`] no other is believed. `None`: there is no session any more.
    pub fn handle_peer_run(&mut self, run: Option<Run>, now: Instant) {
        self.confirmed = run.map(|run| run.id);
        if let Some(run) = run {
            for notes in &mut self.notes {
                notes.confirm(run, now);
            }
        }
    }

    /// What a sync session tells the peer for [`Ha::handle_peer_run`].
    pub const fn run(&self) -> Run {
        self.run
    }

    /// An operator asks the router to give up the role. Until [`Ha::resume`] it is as with a fault: it
    /// has the role again only when nobody else takes it.
    pub fn yield_role(&mut self, now: Instant) {
        self.machine.yield_role(now);
    }

    /// Undoes [`Ha::yield_role`].
    pub fn resume(&mut self, now: Instant) {
        self.machine.resume(now);
    }

    /// The router is about to stop: it gives up the role for good. What is to be sent has still to be
    /// taken.
    pub fn shut_down(&mut self, now: Instant) {
        self.machine.shut_down(now);
    }

    /// The role.
    pub const fn role(&self) -> Role {
        self.machine.role()
    }

    /// What became of adverts.
    pub const fn counters(&self) -> Counters {
        Counters { events_lost: self.machine.events().lost(), ..self.counters }
    }

    /// What there is to say.
    pub fn report(&self) -> Report {
        let latest = self.machine.history().latest();
        let networks: Vec<_> = self
            .settings
            .networks
            .iter()
            .zip(self.machine.paths())
            .map(|(member, path)| NetworkReport {
                network: member.network,
                virtual_router_id: member.virtual_router_id,
                state: match path {
                    path if !path.is_up => PathState::Down,
                    path if path.is_silent => PathState::Degraded,
                    _ => PathState::Ok,
                },
                heard: path.heard,
            })
            .collect();
        Report {
            role: self.machine.role(),
            since: latest.at,
            reason: latest.reason,
            priority: self.machine.effective_priority(),
            is_yielded: self.machine.is_yielded(),
            faults: self.machine.faults().to_vec(),
            peer: networks.iter().find_map(|network| network.heard).map(|heard| heard.from),
            networks,
            history: self.machine.history().iter().collect(),
            counters: self.counters(),
        }
    }
}

impl fmt::Debug for Ha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ha").field("machine", &self.machine).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
