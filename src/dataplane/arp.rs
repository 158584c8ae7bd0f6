//! ARP: who is answered, who is believed (RFC 826, RFC 5227).

use std::net::Ipv4Addr;

use super::neighbour::{Answer, Due, Reachability};
use super::outbox::Waiting;
use super::{Consumed, Dataplane, DropReason, Event, Verdict, is_host, is_station};
use crate::addr::{MacAddr, NetworkId};
use crate::frame::{Arp, Frame, Operation};
use crate::table::{Network, Table};
use crate::time::Instant;

impl Dataplane {
    pub(super) fn handle_arp(
        &mut self,
        table: &Table,
        network: &Network,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let arp = Arp::parse(frame.bytes()).ok_or(DropReason::ArpMalformed)?;
        check_sender(network, &arp)?;
        if is_ours(table, network, arp.sender) {
            self.defend(network, arp.sender, arp.sender_mac, now);
            return Err(DropReason::ArpConflict);
        }
        let told = self.learn(network, &arp, now);
        match arp.operation {
            Operation::Request if is_ours(table, network, arp.target) => {
                self.meet(table, network, &arp, now);
                answer(network, &arp, frame);
                Ok(Verdict::Reply)
            }
            Operation::Request | Operation::Reply if told => {
                Ok(Verdict::Consumed(Consumed::Neighbour))
            }
            Operation::Request if !arp.is_announcement() => Err(DropReason::ArpOtherTarget),
            Operation::Request | Operation::Reply => Err(DropReason::ArpUnsolicited),
        }
    }

    /// Whoever asks for the router will be answered through it soon: it is asked back at once, so
    /// that a burst of first answers does not have to wait. A bucket keeps a storm of forged
    /// questions from filling the cache.
    fn meet(&mut self, table: &Table, network: &Network, arp: &Arp, now: Instant) {
        let stranger =
            network.contains(arp.sender) && self.neighbours.find(network.id, arp.sender).is_none();
        if !stranger || !self.acquaintances.take(now) {
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
            sender: asking_address(network, target),
            target_mac: to.unwrap_or(MacAddr::ZERO),
            target,
        };
        question.build(to.unwrap_or(MacAddr::BROADCAST), self.outbox.frame_mut(slot));
        self.outbox.send(slot, network.link());
        self.counters.originated += 1;
    }

    /// Believes what was asked for; whether that told anything.
    fn learn(&mut self, network: &Network, arp: &Arp, now: Instant) -> bool {
        let solicited = arp.operation == Operation::Reply && arp.target_mac == network.mac;
        let before = self.neighbours.find(network.id, arp.sender);
        let was_failed = before.is_some_and(|id| {
            let neighbour = self.neighbours.get(id);
            neighbour.pinned && neighbour.failed_before
        });
        let heard = self.neighbours.heard(network.id, arp.sender, arp.sender_mac, solicited, now);
        let Answer::Resolved { id, moved } = heard else { return false };
        if was_failed {
            self.neighbours.get_mut(id).failed_before = false;
            self.events.push(Event::NeighbourBack { network: network.id, address: arp.sender });
        }
        if moved {
            let (network, address, mac) = (network.id, arp.sender, arp.sender_mac);
            self.events.push(Event::NeighbourMoved { network, address, mac });
        }
        self.release_held(network, id);
        true
    }

    /// Frames that waited for neighbour `id` leave, oldest first.
    fn release_held(&mut self, network: &Network, id: u32) {
        let neighbour = self.neighbours.get_mut(id);
        let (held, mac) = (std::mem::take(&mut neighbour.held), neighbour.mac);
        for slot in held.into_iter().flatten() {
            self.outbox.unhold(slot);
            crate::frame::set_macs(self.outbox.frame_mut(slot).bytes_mut(), mac, network.mac);
            self.outbox.send(slot, network.link());
        }
    }

    fn neighbour_failed(&mut self, table: &Table, id: u32, now: Instant) {
        let neighbour = self.neighbours.get_mut(id);
        let held = std::mem::take(&mut neighbour.held);
        let (network, address) = (neighbour.network, neighbour.address);
        let news = neighbour.pinned && !neighbour.failed_before;
        neighbour.failed_before = true;
        debug_assert_eq!(neighbour.state, Reachability::Failed);
        if news {
            self.events.push(Event::NeighbourFailed { network, address });
        }
        for slot in held.into_iter().flatten() {
            let waiting = self.outbox.unhold(slot);
            self.count_drop(DropReason::NeighbourFailed);
            match waiting {
                Waiting::Own => self.outbox.release(slot),
                Waiting::Flow(flow) => self.give_up(table, slot, flow, now),
            }
        }
    }

    /// Says once more to everybody whose address it is, at most once in a while (RFC 5227
    /// section 2.4 c).
    fn defend(&mut self, network: &Network, address: Ipv4Addr, mac: MacAddr, now: Instant) {
        if self.announcer.defend(network.id, address, now) {
            self.events.push(Event::AddressConflict { network: network.id, address, mac });
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
fn is_ours(table: &Table, network: &Network, address: Ipv4Addr) -> bool {
    let answered_on: Option<NetworkId> = table.local(address).map(crate::table::Local::network);
    answered_on == Some(network.id)
}

fn answer(network: &Network, arp: &Arp, frame: &mut Frame) {
    let reply = Arp {
        operation: Operation::Reply,
        sender_mac: network.mac,
        sender: arp.target,
        target_mac: arp.sender_mac,
        target: arp.sender,
    };
    reply.build(arp.sender_mac, frame);
}

/// The router's own address in the target's prefix, else its first here.
fn asking_address(network: &Network, target: Ipv4Addr) -> Ipv4Addr {
    let beside = network.addresses.iter().find(|own| own.contains(target.into()));
    match beside.map(|own| own.address()) {
        Some(std::net::IpAddr::V4(own)) => own,
        Some(std::net::IpAddr::V6(_)) | None => {
            network.own_address().unwrap_or(Ipv4Addr::UNSPECIFIED)
        }
    }
}
