//! ARP in which somebody else speaks for one of the router's addresses (conformance A3, A4, A7).
//!
//! With direct routing the real servers hold the virtual IP too. Nothing they say about it is ever
//! believed or, where the router stands between, passed on; what they ask they are told, so that they
//! find their clients.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use super::announce::Audience;
use super::arp::{answer, is_ours};
use super::limit::TokenBucket;
use super::role::{is_router, mac_of};
use super::watch::Claim;
use super::{Arrival, Consumed, Dataplane, DropReason, Event, Verdict, is_station};
use crate::addr::{MacAddr, NetworkId};
use crate::frame::{Arp, ETHER_TYPE_ARP, Frame, Operation};
use crate::table::{Defend, Local, Network, Table, VirtualIp};
use crate::time::{Duration, Instant};

/// Virtual IPs asked for in one go.
const PROBES: usize = 16;
/// Questions of servers that wait for an answer.
const QUESTIONS: usize = 64;
/// Questions that are looked into: a second, and at once.
const QUESTION_RATE: (u64, u64) = (1_000, 256);
/// A host asks again after a second; by then another question is waiting.
const PATIENCE: Duration = Duration::from_secs(3);

/// A server's question that the router has to ask first.
#[derive(Clone, Copy, Debug)]
struct Question {
    network: NetworkId,
    target: Ipv4Addr,
    asker: Ipv4Addr,
    host: Audience,
    at: Instant,
}

/// The questions that wait, oldest first.
#[derive(Debug)]
pub(super) struct Questions {
    waiting: VecDeque<Question>,
    rate: TokenBucket,
}

impl Questions {
    pub(super) fn new(now: Instant) -> Self {
        let rate = TokenBucket::new(QUESTION_RATE.0, QUESTION_RATE.1, now);
        Self { waiting: VecDeque::with_capacity(QUESTIONS), rate }
    }

    /// Who asks too often is not heard, and asks again.
    fn add(&mut self, question: Question) {
        if !self.rate.take(question.at) {
            return;
        }
        let same = |other: &Question| {
            (other.network, other.target, other.asker, other.host)
                == (question.network, question.target, question.asker, question.host)
        };
        if let Some(before) = self.waiting.iter().position(same) {
            self.waiting.remove(before);
        }
        if self.waiting.len() == QUESTIONS {
            self.waiting.pop_front();
        }
        self.waiting.push_back(question);
    }

    /// Somebody else is asked from now on.
    pub(super) fn forget_all(&mut self) {
        self.waiting.clear();
    }

    /// A question for `target` that is not too old to be answered.
    fn take(&mut self, network: NetworkId, target: Ipv4Addr, now: Instant) -> Option<Question> {
        while self.waiting.pop_front_if(|question| now >= question.at + PATIENCE).is_some() {}
        let wanted = |question: &Question| (question.network, question.target) == (network, target);
        let at = self.waiting.iter().position(wanted)?;
        self.waiting.remove(at)
    }
}

impl Dataplane {
    /// An ARP message whose sender says that it has an address of the router's.
    pub(super) fn claimed(
        &mut self,
        arrival: &Arrival<'_>,
        arp: &Arp,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let Arrival { table, network, now, .. } = *arrival;
        let vip = table.virtual_ip(arp.sender);
        let suppressed = self.note_claim(arrival, arp, vip);
        let asks = arp.operation == Operation::Request && !arp.is_announcement();
        if asks && vip.is_some_and(|vip| vip.is_shared) {
            if is_ours(table, network, arp.target) {
                let mac = mac_of(table, network, arp.target);
                answer(arp, mac, mac, frame);
                return Ok(Verdict::Reply);
            }
            if network.is_bridged() {
                return self.answer_for(arrival, arp, frame, now);
            }
        }
        Err(if suppressed { DropReason::ArpSuppressed } else { DropReason::ArpConflict })
    }

    /// Whether the sender of `arp` says that an address is its own which is this router's: one of its
    /// own, or while it is active a virtual IP that is at another MAC than the one all routers share.
    pub(super) fn is_claim(&self, arrival: &Arrival<'_>, arp: &Arp) -> bool {
        let Arrival { table, network, .. } = *arrival;
        match table.local(arp.sender) {
            Some(Local::Own(on)) => on == network.id,
            Some(Local::Virtual(on)) => {
                let shared_mac = Some(arp.sender_mac) == network.virtual_mac;
                on == network.id && self.is_active() && !shared_mac
            }
            None => false,
        }
    }

    /// A frame between others, which a switch sent everywhere: it may mislead whom it is for.
    pub(super) fn overhear(
        &mut self,
        arrival: &Arrival<'_>,
        frame: &Frame,
    ) -> Result<(), DropReason> {
        if arrival.ethernet.ether_type != ETHER_TYPE_ARP {
            return Ok(());
        }
        match Arp::parse(frame.bytes()) {
            Some(arp) if self.is_claim(arrival, &arp) && is_station(arp.sender_mac) => {
                self.note_claim(arrival, &arp, arrival.table.virtual_ip(arp.sender));
                Err(DropReason::ArpConflict)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether this is a server's probe (RFC 5227 section 2.1.1) for a virtual IP that it holds: if
    /// it were answered, the server would give the address up.
    pub(super) fn is_servers_probe(&self, arrival: &Arrival<'_>, arp: &Arp) -> bool {
        arp.sender.is_unspecified()
            && arrival.table.virtual_ip(arp.target).is_some_and(|vip| vip.is_shared)
            && self.direct_server(arrival, arp.sender_mac).is_some()
    }

    /// A host asked for a virtual IP and is being answered.
    pub(super) fn note_asker(&mut self, arrival: &Arrival<'_>, arp: &Arp) {
        let Arrival { table, network, ingress, now, .. } = *arrival;
        let defended = table.virtual_ip(arp.target).is_some_and(VirtualIp::tells_hosts);
        if defended && !arp.sender.is_unspecified() {
            let host = Audience { mac: arp.sender_mac, link: ingress };
            self.defence.asked(network.id, arp.target, host, now);
        }
    }

    /// A packet to a virtual IP was sent to another MAC than the router's: its sender was misled.
    pub(super) fn note_misled(&mut self, arrival: &Arrival<'_>, address: Ipv4Addr) {
        let Arrival { table, network, ingress, ethernet, now, .. } = *arrival;
        if self.is_active() && table.virtual_ip(address).is_some() {
            let host = Audience { mac: ethernet.source, link: ingress };
            self.defence.tell(network.id, address, host, now);
        }
    }

    /// Answers the servers' questions for a neighbour that is known now.
    pub(super) fn answer_questions(&mut self, network: &Network, id: u32, now: Instant) {
        let (address, mac) = (self.neighbours.get(id).address, self.neighbours.get(id).mac);
        while let Some(question) = self.questions.take(network.id, address, now) {
            let Some(slot) = self.outbox.take() else { return };
            let arp = Arp {
                operation: Operation::Request,
                sender_mac: question.host.mac,
                sender: question.asker,
                target_mac: MacAddr::ZERO,
                target: address,
            };
            answer(&arp, mac, network.service_mac(), self.outbox.frame_mut(slot));
            self.outbox.send(slot, question.host.link);
            self.counters.originated += 1;
        }
    }

    /// Asks everybody for the virtual IPs whose turn it is, as nobody in particular: who answers
    /// holds one, and nobody learns anything from the question.
    pub(super) fn probe_virtual_ips(&mut self, table: &Table, now: Instant) {
        if !self.is_active() {
            return;
        }
        for _ in 0..PROBES {
            let Some(vip) = self.watch.next_probe(table, now) else { return };
            let network = table.network(vip.network);
            let Some(slot) = self.outbox.take() else { return };
            let probe = Arp {
                operation: Operation::Request,
                sender_mac: network.mac,
                sender: Ipv4Addr::UNSPECIFIED,
                target_mac: MacAddr::ZERO,
                target: vip.address,
            };
            probe.build(MacAddr::BROADCAST, self.outbox.frame_mut(slot));
            self.send_to_all(network, slot);
        }
    }

    /// Where the gateway of `network` is, if it is known.
    pub(super) fn gateway(&self, network: &Network) -> Option<Audience> {
        let id = self.neighbours.find(network.id, network.gateway?)?;
        let neighbour = self.neighbours.get(id);
        let link = self.egress(network, neighbour.mac, neighbour.link);
        neighbour.is_usable().then_some(Audience { mac: neighbour.mac, link })
    }

    /// Remembers the claim of an address, maybe `vip`, and sets those right whom it misleads; whether
    /// there are none, because the router stands between.
    fn note_claim(&mut self, arrival: &Arrival<'_>, arp: &Arp, vip: Option<&VirtualIp>) -> bool {
        let Arrival { network, ingress, now, .. } = *arrival;
        let (address, mac) = (arp.sender, arp.sender_mac);
        let shared = vip.is_some_and(|vip| vip.is_shared);
        let hash = self.neighbours.hash_mac(network.id, mac);
        let server = shared.then(|| self.direct_server_filed(arrival, mac, hash)).flatten();
        let suppressed = network.is_bridged()
            && server.is_some()
            && self.gateway(network).is_none_or(|gateway| gateway.link != ingress);
        let (since, last, count) = (now, now, 1);
        let claim =
            Claim { network: network.id, address, mac, server, since, last, count, suppressed };
        if let Some(claim) = self.watch.claim(claim, hash, now) {
            self.events.push(Event::AddressConflict(claim));
        }
        if suppressed {
            return true;
        }
        if vip.is_none_or(|vip| vip.defend == Defend::Broadcast) {
            self.announcer.defend(network.id, address, now);
        }
        if !vip.is_some_and(VirtualIp::tells_hosts) {
            return false;
        }
        if self.defence.claimed(network.id, address, mac, now)
            && let Some(gateway) = self.gateway(network)
        {
            self.defence.tell(network.id, address, gateway, now);
        }
        // A switch that did not know the host sent the claim everywhere. Servers have the address.
        let host = arrival.ethernet.destination;
        let between = host.is_unicast() && !is_router(network, host);
        if between && self.direct_server(arrival, host).is_none() {
            self.defence.tell(network.id, address, Audience { mac: host, link: ingress }, now);
        }
        false
    }

    /// Answers a server that asks, in the virtual IP's name, for somebody else: from what the router
    /// knows, or once it has asked.
    fn answer_for(
        &mut self,
        arrival: &Arrival<'_>,
        arp: &Arp,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let Arrival { table, network, ingress, .. } = *arrival;
        let known = self.neighbours.find(network.id, arp.target);
        // Made-up questions must not fill the cache.
        let id = match known {
            Some(id) => id,
            None if !self.acquaintances.take(now) => return Err(DropReason::ArpSuppressed),
            None => self
                .neighbours
                .find_or_add(network.id, arp.target, now)
                .ok_or(DropReason::NeighbourTableFull)?,
        };
        self.neighbours.mark_used(id, now);
        if self.neighbours.get(id).is_usable() {
            let mac = self.neighbours.get(id).mac;
            answer(arp, mac, network.service_mac(), frame);
            return Ok(Verdict::Reply);
        }
        if self.neighbours.ask_now(id, now) {
            self.ask(table, id, None, now);
        }
        let host = Audience { mac: arp.sender_mac, link: ingress };
        let (network, target, asker) = (network.id, arp.target, arp.sender);
        self.questions.add(Question { network, target, asker, host, at: now });
        Ok(Verdict::Consumed(Consumed::Question))
    }

    /// The real server of direct routing whose MAC this is.
    fn direct_server(&self, arrival: &Arrival<'_>, mac: MacAddr) -> Option<Ipv4Addr> {
        self.direct_server_filed(arrival, mac, self.neighbours.hash_mac(arrival.network.id, mac))
    }

    /// The same, where the MAC's hash is known.
    fn direct_server_filed(
        &self,
        arrival: &Arrival<'_>,
        mac: MacAddr,
        hash: u64,
    ) -> Option<Ipv4Addr> {
        let is_server = |address| arrival.table.is_direct_server(address);
        self.neighbours.configured_at(arrival.network.id, mac, hash, is_server)
    }
}
