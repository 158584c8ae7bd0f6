//! Health checks, carried out: opens what the plan's turns ask for, listens, counts rises and falls.
//!
//! Connections are smoltcp's; datagrams and echo requests are made here, and answers to them are
//! caught before smoltcp sees them; probes through a virtual IP are the dataplane's, which is asked
//! for them. At most [`MOST`] are open at once, and one call does a bounded amount of work.

mod attempt;
mod http;
mod ports;
mod schedule;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::sync::Arc;

use smoltcp::iface::{Interface, SocketSet};

use self::attempt::{Attempt, Slot};
use self::ports::Ports;
use self::schedule::Schedule;
use self::wire::{Heard, hear};
use super::device::Queue;
use crate::addr::ServerId;
use crate::config::Inquiry;
use crate::health::{Change, Check, Failure, Plan};
use crate::time::{Duration, Instant};

/// Checks open at once.
pub const MOST: usize = 64;
/// Checks begun in one call.
const STARTS: usize = 16;
/// How long after its time a probe is waited for: its end is told, not timed here.
const PROBE_SLACK: Duration = Duration::from_secs(1);
/// How often it is told that turns are left out.
const TOLD_INTERVAL: Duration = Duration::from_secs(60);

/// Something that the checks have found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A server is down, or up again.
    Changed(Change),
    /// Servers are asked less often than configured: too many checks wait for answers.
    Behind,
}

/// A probe through a virtual IP that the dataplane is to carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The server.
    pub server: ServerId,
    /// The port it comes from: what its outcome is known by.
    pub source_port: u16,
    /// How long it may take.
    pub timeout: Duration,
}

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// The server answers for the virtual IP.
    Open,
    /// It has the virtual IP, and nobody listens.
    Refused,
    /// Nothing came.
    Silent,
    /// It could not be sent; nothing is known.
    NotSent,
}

/// The last check of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    /// When it ended.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// What has been found out about a server.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Whose state this is: [`Check::since`]; 0 is nobody's.
    since: u32,
    is_up: bool,
    /// Results in a row that say otherwise.
    against: u32,
    last: Option<Last>,
}

/// The checks of a router.
#[derive(Debug)]
pub(super) struct Checks {
    plan: Arc<Plan>,
    schedule: Schedule,
    /// By server id.
    states: Vec<State>,
    slots: Vec<Slot>,
    ports: Ports,
    probes: VecDeque<Probe>,
    events: VecDeque<Event>,
    /// Something has come that is to be looked at.
    heard: bool,
    told_behind: Option<Instant>,
}

impl Checks {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            plan: Arc::default(),
            schedule: Schedule::default(),
            states: Vec::new(),
            slots: Vec::with_capacity(MOST),
            ports: Ports::new(seed),
            probes: VecDeque::with_capacity(MOST),
            events: VecDeque::new(),
            heard: false,
            told_behind: None,
        }
    }

    /// Takes over another plan. Whom both ask keeps what is known of it; what is open goes on.
    pub(super) fn install(&mut self, plan: &Arc<Plan>, now: Instant) {
        if Arc::ptr_eq(plan, &self.plan) {
            return;
        }
        self.schedule.install(&self.plan, plan, now);
        if self.states.len() < plan.id_limit() {
            self.states.resize(plan.id_limit(), State::default());
        }
        self.plan = Arc::clone(plan);
    }

    /// Takes `packet` if it is the answer to a check; it was found to be whole and for the host.
    pub(super) fn handle_packet(&mut self, packet: &[u8]) -> bool {
        if self.slots.iter().all(|slot| slot.attempt.is_none()) {
            return false;
        }
        let heard = match packet.get(9) {
            Some(&(wire::ICMP | wire::UDP)) => hear(packet),
            _ => None,
        };
        let Some(heard) = heard else { return false };
        let mut attempts = self.slots.iter_mut().filter_map(|slot| slot.attempt.as_mut());
        let taken = attempts.any(|attempt| attempt.hear(&heard));
        self.heard |= taken;
        // Of an error smoltcp makes nothing in any case.
        taken || matches!(heard, Heard::Unreachable { .. })
    }

    /// Takes the outcome of the probe from `source_port`.
    pub(super) fn handle_probed(&mut self, source_port: u16, probed: Probed) {
        let mut attempts = self.slots.iter_mut().filter_map(|slot| slot.attempt.as_mut());
        let probe = |attempt: &&mut Attempt| {
            attempt.port == source_port && attempt.check.health.inquiry == Inquiry::VirtualIp
        };
        if let Some(attempt) = attempts.find(probe) {
            attempt.probed(probed);
            self.heard = true;
        }
    }

    /// Ends what is over, and begins what is due: to be called before smoltcp sends.
    pub(super) fn handle_timeout(
        &mut self,
        interface: &mut Interface,
        sockets: &mut SocketSet<'static>,
        outgoing: &mut Queue,
        now: Instant,
    ) {
        self.heard = false;
        for at in 0..self.slots.len() {
            if let Some((attempt, result)) = self.slots[at].progress(sockets, now) {
                self.judge(&attempt, result, now);
            }
        }
        for _ in 0..STARTS {
            if outgoing.is_full() || self.free_slot(sockets).is_none() {
                break;
            }
            let Some(check) = self.schedule.take(&self.plan, now) else { break };
            self.begin(&check, interface, sockets, outgoing, now);
        }
        self.tell_behind(now);
    }

    /// When [`Checks::handle_timeout`] wants to be called next.
    pub(super) fn poll_timeout(&self, sockets: &SocketSet<'static>) -> Option<Instant> {
        if self.heard {
            return Some(Instant::ZERO);
        }
        let attempts = self.slots.iter().filter_map(|slot| slot.attempt.as_ref());
        let ends = attempts.map(|attempt| attempt.deadline).min();
        let begins = self.free_slot(sockets).and_then(|_| self.schedule.next_at(&self.plan));
        ends.into_iter().chain(begins).min()
    }

    /// The next probe that is to be carried out.
    pub(super) fn poll_probe(&mut self) -> Option<Probe> {
        self.probes.pop_front()
    }

    /// The next thing found.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// A server has let its clients down: it is down until its checks say that it has risen. `false`
    /// when nobody checks it.
    pub(super) fn suspect(&mut self, server: ServerId) -> bool {
        let Some(check) = self.plan.of(server).map(Arc::clone) else { return false };
        let state = self.state(&check);
        state.is_up = false;
        state.against = 0;
        true
    }

    /// The last check of a server.
    pub(super) fn last(&self, server: ServerId) -> Option<Last> {
        let check = self.plan.of(server)?;
        let state = self.states.get(server.index())?;
        state.last.filter(|_| state.since == check.since)
    }

    fn begin(
        &mut self,
        check: &Arc<Check>,
        interface: &mut Interface,
        sockets: &mut SocketSet<'static>,
        outgoing: &mut Queue,
        now: Instant,
    ) {
        let Some(at) = self.free_slot(sockets) else { return };
        if at == self.slots.len() {
            self.slots.push(Slot::default());
        }
        let in_use = |port| self.slots.iter().any(|slot| slot.uses(port, sockets));
        let port = self.ports.next(in_use);
        let source = SocketAddrV4::new(check.source, port);
        let mut deadline = now + check.health.timeout;
        match &check.health.inquiry {
            Inquiry::Tcp | Inquiry::Http(_) => {
                self.slots[at].connect(source, check.target, interface, sockets);
            }
            Inquiry::Ping => {
                let packet = wire::echo_request(check.source, *check.target.ip(), port, port);
                outgoing.push(&packet);
            }
            Inquiry::Udp(udp) => {
                outgoing.push(&wire::datagram(source, check.target, &udp.payload));
            }
            Inquiry::VirtualIp => {
                let (server, timeout) = (check.server, check.health.timeout);
                self.probes.push_back(Probe { server, source_port: port, timeout });
                deadline += PROBE_SLACK;
            }
        }
        self.slots[at].attempt = Some(Attempt::new(Arc::clone(check), port, now, deadline));
    }

    /// A slot that is or can be made free.
    fn free_slot(&self, sockets: &SocketSet<'static>) -> Option<usize> {
        let free = self.slots.iter().position(|slot| slot.is_free(sockets));
        free.or_else(|| (self.slots.len() < MOST).then_some(self.slots.len()))
    }

    /// Counts a result; nothing is learned from none.
    fn judge(&mut self, attempt: &Attempt, result: Option<Result<(), Failure>>, now: Instant) {
        let check = &attempt.check;
        let Some(result) = result else { return };
        // It may be asked otherwise by now, or not at all.
        if self.plan.of(check.server).is_none_or(|asked| asked.since != check.since) {
            return;
        }
        let state = self.state(check);
        let failure = result.err();
        state.last = Some(Last { at: now, took: now - attempt.begun, failure });
        if failure.is_none() == state.is_up {
            state.against = 0;
            return;
        }
        state.against += 1;
        let enough = if state.is_up { check.health.fall } else { check.health.rise };
        if state.against >= enough {
            (state.is_up, state.against) = (!state.is_up, 0);
            let change = Change { check: Arc::clone(check), down: failure };
            self.events.push_back(Event::Changed(change));
        }
    }

    /// What is known of a server; begins anew when it is another than the one that had its id.
    fn state(&mut self, check: &Check) -> &mut State {
        let state = &mut self.states[check.server.index()];
        if state.since != check.since {
            let is_up = check.health.initially_up;
            *state = State { since: check.since, is_up, against: 0, last: None };
        }
        state
    }

    fn tell_behind(&mut self, now: Instant) {
        let told = self.told_behind.is_some_and(|told| now < told + TOLD_INTERVAL);
        if self.schedule.has_skipped() && !told {
            self.told_behind = Some(now);
            self.events.push_back(Event::Behind);
        }
    }
}
