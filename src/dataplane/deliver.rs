//! The last step of every packet: next hop, MAC, and waiting for a MAC that is not known yet.

use super::ip::Packet;
use super::neighbour::Reachability;
use super::outbox::Waiting;
use super::{Dataplane, DropReason, Verdict};
use crate::addr::LinkId;
use crate::frame::{Fragments, Frame, Ipv4, Segments, set_macs};
use crate::table::{NextHop, Table};
use crate::time::Instant;

/// What may be done with a frame for a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Its MAC is known.
    Open,
    /// It is being asked for, and one more frame may wait.
    Wait,
    /// The frame cannot go there.
    Closed(DropReason),
}

impl Dataplane {
    /// The neighbour that packets by `hop` go to.
    pub(super) fn neighbour(&mut self, hop: NextHop, now: Instant) -> Result<u32, DropReason> {
        let found = self.neighbours.find_or_add(hop.network, hop.address, now);
        found.ok_or(DropReason::NeighbourTableFull)
    }

    /// Whether a frame can go to `neighbour`, without doing anything to the frame.
    pub(super) fn way(&mut self, table: &Table, neighbour: u32, now: Instant) -> Way {
        self.neighbours.mark_used(neighbour, now);
        match self.neighbours.get(neighbour).state {
            Reachability::Reachable | Reachability::Probing => Way::Open,
            Reachability::Failed => Way::Closed(DropReason::NeighbourFailed),
            Reachability::Incomplete => {
                if self.neighbours.ask_now(neighbour, now) {
                    self.ask(table, neighbour, None, now);
                }
                let entry = self.neighbours.get(neighbour);
                let place = entry.held.iter().any(Option::is_none);
                let room = place && self.outbox.may_hold() && self.outbox.room() > 0;
                if room { Way::Wait } else { Way::Closed(DropReason::HoldFull) }
            }
        }
    }

    /// Sends the finished `frame` to `neighbour`, whose way was found open or worth waiting for.
    pub(super) fn deliver(
        &mut self,
        table: &Table,
        neighbour: u32,
        frame: &mut Frame,
        waiting: Waiting,
    ) -> Result<Verdict, DropReason> {
        let entry = self.neighbours.get_mut(neighbour);
        let network = table.network(entry.network);
        if entry.is_usable() {
            let (mac, heard_on) = (entry.mac, entry.link);
            let from = self.forwards_from(network, frame.bytes())?;
            set_macs(frame.bytes_mut(), mac, from);
            return Ok(Verdict::Forward(self.egress(network, mac, heard_on)));
        }
        let place = entry.held.iter_mut().find(|place| place.is_none());
        let place = place.ok_or(DropReason::HoldFull)?;
        *place = Some(self.outbox.hold(frame, waiting).ok_or(DropReason::HoldFull)?);
        Ok(Verdict::Held)
    }

    /// Sends the finished `frame` in fragments that fit the next network (RFC 1812 section 5.2.6); first
    /// in segments, where it stands for several.
    pub(super) fn split(
        &mut self,
        packet: &Packet<'_>,
        neighbour: u32,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let entry = self.neighbours.get(neighbour);
        let (network, mac) = (packet.table.network(entry.network), entry.mac);
        // All or nothing: a datagram with a piece missing is of no use to anybody.
        if !entry.is_usable() {
            return Err(DropReason::HoldFull);
        }
        let link = self.egress(network, mac, entry.link);
        let from = self.forwards_from(network, frame.bytes())?;
        set_macs(frame.bytes_mut(), mac, from);
        if !packet.offload.is_segmented() {
            frame.complete_checksum();
            let fragments = Fragments::new(frame, &packet.headers, network.mtu);
            if fragments.left() > self.outbox.room() {
                return Err(DropReason::OutboxFull);
            }
            self.send_fragments(fragments, link);
            return Ok(Verdict::Split);
        }
        let scratch = self.outbox.take().ok_or(DropReason::OutboxFull)?;
        let mut segment = std::mem::replace(self.outbox.frame_mut(scratch), Frame::hollow());
        let sent = self.send_segments(packet, frame, &mut segment, (network.mtu, link));
        *self.outbox.frame_mut(scratch) = segment;
        self.outbox.release(scratch);
        sent.map(|()| Verdict::Split)
    }

    /// Each segment in fragments.
    fn send_segments(
        &mut self,
        packet: &Packet<'_>,
        frame: &Frame,
        segment: &mut Frame,
        (mtu, link): (u16, LinkId),
    ) -> Result<(), DropReason> {
        let mut segments = Segments::new(frame);
        let mut is_first = true;
        while segments.next_into(segment) {
            let headers = Ipv4::parse(segment.bytes())?;
            let fragments = Fragments::new(segment, &headers, mtu);
            // None is longer than the first.
            let most = fragments.left() * packet.segments() as usize;
            if std::mem::take(&mut is_first) && most > self.outbox.room() {
                return Err(DropReason::OutboxFull);
            }
            self.send_fragments(fragments, link);
        }
        Ok(())
    }

    /// There is room for them.
    fn send_fragments(&mut self, mut fragments: Fragments<'_>, link: LinkId) {
        while let Some(slot) = self.outbox.take() {
            if !fragments.next_into(self.outbox.frame_mut(slot)) {
                self.outbox.release(slot);
                break;
            }
            self.outbox.send(slot, link);
            self.counters.originated += 1;
        }
    }

    /// Routes and sends the router's own IPv4 packet in `slot`, which is given up.
    pub(super) fn send_slot(&mut self, table: &Table, slot: u16, now: Instant) {
        if let Err(reason) = self.try_send_slot(table, slot, now) {
            self.count_slot_drop(reason, slot);
            self.outbox.release(slot);
        }
    }

    fn try_send_slot(&mut self, table: &Table, slot: u16, now: Instant) -> Result<(), DropReason> {
        let bytes = self.outbox.frame_mut(slot).bytes();
        let headers = Ipv4::parse(bytes)?;
        let hop = table.next_hop(headers.destination).ok_or(DropReason::NoRoute)?;
        let network = table.network(hop.network);
        if headers.total_len > usize::from(network.mtu) {
            return Err(DropReason::TooBig);
        }
        let neighbour = self.neighbour(hop, now)?;
        self.send_slot_to(table, neighbour, slot, now)
    }

    /// Sends the router's own packet in `slot` to a neighbour; given up unless it fails.
    pub(super) fn send_slot_to(
        &mut self,
        table: &Table,
        neighbour: u32,
        slot: u16,
        now: Instant,
    ) -> Result<(), DropReason> {
        let network = table.network(self.neighbours.get(neighbour).network);
        let from = self.leaves_from(table, network, self.outbox.frame(slot).bytes())?;
        let way = self.way(table, neighbour, now);
        let entry = self.neighbours.get_mut(neighbour);
        match way {
            Way::Open => {
                let (mac, heard_on) = (entry.mac, entry.link);
                let link = self.egress(network, mac, heard_on);
                set_macs(self.outbox.frame_mut(slot).bytes_mut(), mac, from);
                self.outbox.send(slot, link);
            }
            Way::Wait => {
                let place = entry.held.iter_mut().find(|place| place.is_none());
                *place.ok_or(DropReason::HoldFull)? = Some(slot);
                self.outbox.hold_slot(slot, Waiting::Own);
            }
            Way::Closed(reason) => return Err(reason),
        }
        Ok(())
    }
}
