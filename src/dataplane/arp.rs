//! ARP: who is answered, who is believed (RFC 826, RFC 5227).

use std::net::Ipv4Addr;

use super::neighbour::{Answer, Due, Reachability};
use super::outbox::Waiting;
use super::role::{is_router, mac_of};
use super::{Arrival, Consumed, Dataplane, DropReason, Event, Verdict, is_host, is_station};
use crate::addr::{MacAddr, NetworkId};
use crate::frame::{Arp, Frame, Operation, set_macs};
use crate::table::{Local, Network, Table};
use crate::time::Instant;

impl Dataplane {
    pub(super) fn handle_arp(
        &mut self,
        arrival: &Arrival<'_>,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let Arrival { table, network, ethernet, now, .. } = *arrival;
        let arp = Arp::parse(frame.bytes()).ok_or(DropReason::ArpMalformed)?;
        check_sender(network, &arp)?;
        if self.is_claim(arrival, &arp) {
            return self.claimed(arrival, &arp, frame);
        }
        let active = self.is_active();
        if active && Some(arp.sender_mac) == network.virtual_mac {
            return Err(DropReason::OtherActive);
        }
        if self.is_servers_probe(arrival, &arp) {
            return Err(DropReason::ArpServerProbe);
        }
        // The virtual IPs are at whoever is active: the routers need not know where.
        let is_pairs =
            is_ours(table, network, arp.sender) || Some(arp.sender_mac) == network.virtual_mac;
        let sender = self.neighbours.find(network.id, arp.sender);
        let told = !is_pairs && sender.is_some_and(|id| self.learn(arrival, id, &arp));
        match arp.operation {
            Operation::Request if is_ours(table, network, arp.target) => {
                let mac = mac_of(table, network, arp.target);
                if !active && matches!(table.local(arp.target), Some(Local::Virtual(_))) {
                    return Err(DropReason::BackupRole);
                }
                if !is_pairs && sender.is_none() {
                    self.meet(table, network, &arp, now);
                }
                if !is_pairs {
                    self.note_asker(arrival, &arp);
                }
                answer(&arp, mac, mac, frame);
                Ok(Verdict::Reply)
            }
            // What a backup does not pass on has told it something all the same.
            Operation::Request | Operation::Reply if told && !active => {
                Ok(Verdict::Consumed(Consumed::Neighbour))
            }
            // Between others.
            Operation::Request | Operation::Reply
                if network.is_bridged() && !is_router(network, ethernet.destination) =>
            {
                self.bridge_onward(arrival)
            }
            Operation::Request | Operation::Reply if told => {
                Ok(Verdict::Consumed(Consumed::Neighbour))
            }
            Operation::Request if !arp.is_announcement() => Err(DropReason::ArpOtherTarget),
            Operation::Request | Operation::Reply => Err(DropReason::ArpUnsolicited),
        }
    }

    /// A stranger who asks for the router will be answered through it soon: it is asked back at once, so
    /// that a burst of first answers does not have to wait. A bucket keeps a storm of forged
    /// questions from filling the cache.
    fn meet(&mut self, table: &Table, network: &Network, arp: &Arp, now: Instant) {
        if !network.contains(arp.sender) || !self.acquaintances.take(now) {
            return;
        }
        if let Some(id) = self.neighbours.find_or_add(network.id, arp.sender, now)
            && self.neighbours.ask_now(id, now)
        {
            // Not only the one who asked: it may have lied about who it is.
            self.ask(table, id, None, now);
        }
    }

    /// Does what a neighbour's timer asks for.
    pub(super) fn neighbour_due(&mut self, table: &Table, due: Due, now: Instant) {
        match due {
            Due::Ask(id, to) => self.ask(table, id, to, now),
            Due::Failed(id) => self.neighbour_failed(table, id, now),
        }
    }

    /// Sends a who-has for neighbour `id`, to `to` or to everybody.
    pub(super) fn ask(&mut self, table: &Table, id: u32, to: Option<MacAddr>, now: Instant) {
        let neighbour = self.neighbours.get(id);
        let (network, target) = (table.network(neighbour.network), neighbour.address);
        let Some(slot) = self.outbox.take() else {
            self.neighbours.postpone(id, now);
            return;
        };
        let question = Arp {
            operation: Operation::Request,
            sender_mac: network.mac,
            sender: network.address_beside(target).unwrap_or(Ipv4Addr::UNSPECIFIED),
            target_mac: to.unwrap_or(MacAddr::ZERO),
            target,
        };
        question.build(to.unwrap_or(MacAddr::BROADCAST), self.outbox.frame_mut(slot));
        let link = match to {
            Some(mac) => self.egress(network, mac, self.neighbours.get(id).link),
            None if self.is_active() || !network.is_bridged() => {
                return self.send_to_all(network, slot);
            }
            // The active router passes it on to the other links; and where there is none, they have
            // their turn.
            None => {
                network.links[usize::from(self.neighbours.get(id).tries()) % network.links.len()]
            }
        };
        self.outbox.send(slot, link);
        self.counters.originated += 1;
    }

    /// Believes what was asked for about neighbour `id`, the sender; whether that told anything.
    fn learn(&mut self, arrival: &Arrival<'_>, id: u32, arp: &Arp) -> bool {
        let Arrival { table, network, ingress, now, .. } = *arrival;
        let solicited = arp.operation == Operation::Reply && arp.target_mac == network.mac;
        let neighbour = self.neighbours.get(id);
        let was_failed = neighbour.pinned && neighbour.failed_before();
        let from = (arp.sender_mac, ingress);
        let heard = self.neighbours.heard(id, from, solicited, now);
        let Answer::Resolved { moved } = heard else { return false };
        if was_failed {
            self.neighbours.mark_failed(id, false);
            self.events.push(Event::NeighbourBack { network: network.id, address: arp.sender });
        }
        if moved {
            let (network, address, mac) = (network.id, arp.sender, arp.sender_mac);
            self.events.push(Event::NeighbourMoved { network, address, mac });
        }
        self.release_held(table, network, id);
        self.answer_questions(network, id, now);
        true
    }

    /// Frames that waited for neighbour `id` leave, oldest first.
    fn release_held(&mut self, table: &Table, network: &Network, id: u32) {
        let neighbour = self.neighbours.get_mut(id);
        let (held, mac) = (std::mem::take(&mut neighbour.held), neighbour.mac);
        let heard_on = neighbour.link;
        let link = self.egress(network, mac, heard_on);
        for slot in held.into_iter().flatten() {
            self.outbox.unhold(slot);
            match self.leaves_from(table, network, self.outbox.frame(slot).bytes()) {
                Ok(from) => {
                    set_macs(self.outbox.frame_mut(slot).bytes_mut(), mac, from);
                    self.outbox.send(slot, link);
                }
                Err(reason) => {
                    self.count_slot_drop(reason, slot);
                    self.outbox.release(slot);
                }
            }
        }
    }

    fn neighbour_failed(&mut self, table: &Table, id: u32, now: Instant) {
        let neighbour = self.neighbours.get_mut(id);
        let held = std::mem::take(&mut neighbour.held);
        let (network, address) = (neighbour.network, neighbour.address);
        let news = neighbour.pinned && !neighbour.failed_before();
        debug_assert_eq!(neighbour.state, Reachability::Failed);
        self.neighbours.mark_failed(id, true);
        if news {
            self.events.push(Event::NeighbourFailed { network, address });
        }
        for slot in held.into_iter().flatten() {
            let waiting = self.outbox.unhold(slot);
            self.count_slot_drop(DropReason::NeighbourFailed, slot);
            match waiting {
                Waiting::Own => self.outbox.release(slot),
                Waiting::Flow(flow) => self.give_up(table, slot, flow, now),
            }
        }
    }
}

/// RFC 826 leaves senders unchecked; RFC 1812 section 3.3.2 does not believe group addresses.
fn check_sender(network: &Network, arp: &Arp) -> Result<(), DropReason> {
    if arp.sender_mac == network.mac {
        return Err(DropReason::ArpOwnEcho);
    }
    // 0.0.0.0 is a probe (RFC 5227): answered, never learned.
    let probe = arp.operation == Operation::Request && arp.sender.is_unspecified();
    let plausible = is_host(arp.sender) && !network.is_broadcast(arp.sender);
    if is_station(arp.sender_mac) && (probe || plausible) {
        Ok(())
    } else {
        Err(DropReason::ArpBadSender)
    }
}

/// Whether `address` is answered for on this very network.
pub(super) fn is_ours(table: &Table, network: &Network, address: Ipv4Addr) -> bool {
    let answered_on: Option<NetworkId> = table.local(address).map(Local::network);
    answered_on == Some(network.id)
}

/// Turns `frame` into the answer to `question`: its target is at `mac`. It comes from a MAC of the
/// router's even where it is about another, so that no switch behind the link takes one for the other.
pub(super) fn answer(question: &Arp, mac: MacAddr, from: MacAddr, frame: &mut Frame) {
    let reply = Arp {
        operation: Operation::Reply,
        sender_mac: mac,
        sender: question.target,
        target_mac: question.sender_mac,
        target: question.sender,
    };
    reply.build(question.sender_mac, frame);
    set_macs(frame.bytes_mut(), question.sender_mac, from);
}
