//! Fragments on their way: the first piece like any packet, the others after it.

use super::flow::{Direction, FlowRef};
use super::fragments::{Datagram, Piece, Ruling};
use super::ip::Packet;
use super::outbox::Waiting;
use super::{Dataplane, DropReason, Verdict};
use crate::frame::{Frame, Ipv4, Offload, set_addresses};
use crate::table::Forward;
use crate::time::Instant;

impl Dataplane {
    /// Any fragment.
    pub(super) fn handle_fragment(
        &mut self,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let headers = &packet.headers;
        let key = Datagram {
            network: packet.network.id,
            source: headers.source,
            destination: headers.destination,
            identification: headers.identification,
            protocol: headers.protocol,
        };
        let piece = Piece {
            offset: headers.fragment_offset,
            len: headers.total_len - headers.header_len,
            last: !headers.more_fragments,
        };
        if headers.later_fragment {
            return match self.fragments.later(key, piece, packet.now) {
                Ruling::Pass(flow, direction) => self.later_piece(packet, flow, direction, frame),
                Ruling::Route => self.route_piece(packet, frame),
                Ruling::Wait(id) => self.wait_for_first(packet, id, frame),
                Ruling::Refuse => Err(DropReason::FragmentRefused),
            };
        }
        let first = self.fragments.first(key, piece, packet.now);
        let id = first.ok_or(DropReason::FragmentRefused)?;
        let verdict = self.whole_packet(packet, frame);
        match verdict {
            Ok(_) => {
                let flow = packet.tuple().and_then(|tuple| self.flows.find(tuple));
                let flow = flow.map(|(id, direction)| (self.flows.reference(id), direction));
                self.fragments.assign(id, flow);
            }
            Err(_) => self.fragments.condemn(id),
        }
        self.release_pieces(packet, id);
        verdict
    }

    /// Pieces whose first one never came.
    pub(super) fn drop_stale_pieces(&mut self, now: Instant) {
        while let Some(slot) = self.fragments.next_stale(now) {
            self.outbox.unhold(slot);
            self.count_slot_drop(DropReason::FragmentOrphan, slot);
            self.outbox.release(slot);
        }
    }

    /// A piece without ports: only its addresses change.
    fn later_piece(
        &mut self,
        packet: &Packet<'_>,
        flow: FlowRef,
        direction: Direction,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let Packet { table, network, headers, now, .. } = *packet;
        let id = self.flows.resolve(flow).ok_or(DropReason::FragmentOrphan)?;
        self.revalidate(table, id);
        let own = network.own_address().unwrap_or(headers.destination);
        let flow = self.flows.get(id);
        let own = if flow.direct { flow.original.destination } else { own };
        self.check_ttl(packet, own, frame)?;
        let neighbour = self.flow_hop(table, id, direction, now)?;
        self.check_way(packet, neighbour, own, frame)?;
        let flow = self.flows.get(id);
        let (rewrite, direct) = (flow.rewrite(direction), flow.direct);
        for figure in self.figures.both(flow.owner()) {
            figure.traffic.count(direction, 1, headers.total_len as u64);
        }
        if direct {
            return self.pass_on(packet, neighbour, frame, Waiting::Own);
        }
        set_addresses(frame.bytes_mut(), rewrite.source, rewrite.destination);
        self.leave(packet, neighbour, own, frame, Waiting::Own)
    }

    /// A piece of a datagram that is routed without being remembered.
    fn route_piece(
        &mut self,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        match packet.table.forward() {
            Forward::All => self.route_packet(packet, frame),
            Forward::None | Forward::ServersOut => Err(DropReason::NotForwarded),
        }
    }

    fn wait_for_first(
        &mut self,
        packet: &Packet<'_>,
        id: u32,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let (table, headers) = (packet.table, &packet.headers);
        Self::check_source(packet)?;
        // Only what the first piece could find a way for.
        let wanted = table.local(headers.destination).is_some()
            || table.is_server_side(headers.source)
            || table.forward() == Forward::All;
        if !wanted {
            return Err(DropReason::NotForwarded);
        }
        if !self.fragments.may_wait() {
            return Err(DropReason::FragmentsFull);
        }
        let slot = self.outbox.hold(frame, Waiting::Own).ok_or(DropReason::FragmentsFull)?;
        self.fragments.wait(id, slot, packet.now);
        Ok(Verdict::Held)
    }

    /// The pieces that came before the first one follow it, or share its fate.
    fn release_pieces(&mut self, first: &Packet<'_>, id: u32) {
        while let Some(slot) = self.fragments.next_waiting(id) {
            self.outbox.unhold(slot);
            let mut frame = std::mem::replace(self.outbox.frame_mut(slot), Frame::hollow());
            let verdict = self.release_piece(first, id, &mut frame);
            *self.outbox.frame_mut(slot) = frame;
            match verdict {
                Ok(Verdict::Forward(link)) => self.outbox.send(slot, link),
                Ok(verdict) => {
                    self.counters.split += u64::from(verdict == Verdict::Split);
                    self.outbox.release(slot);
                }
                Err(reason) => {
                    self.count_slot_drop(reason, slot);
                    self.outbox.release(slot);
                }
            }
        }
    }

    fn release_piece(
        &mut self,
        first: &Packet<'_>,
        id: u32,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let (headers, offload) = (Ipv4::parse(frame.bytes())?, Offload::NONE);
        let packet = Packet { headers, offload, ..*first };
        match self.fragments.ruling(id) {
            Ruling::Pass(flow, direction) => self.later_piece(&packet, flow, direction, frame),
            Ruling::Route => self.route_piece(&packet, frame),
            Ruling::Wait(_) | Ruling::Refuse => Err(DropReason::FragmentOrphan),
        }
    }
}
