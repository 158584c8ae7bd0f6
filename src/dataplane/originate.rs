//! Answers that the router makes itself: ICMP errors and resets, limited in number.

use std::net::Ipv4Addr;

use super::flow::{Direction, FlowRef};
use super::{Dataplane, is_host};
use crate::frame::{
    Ethernet, Frame, IP, IcmpError, Ipv4, Segments, Transport, icmp_error, tcp_reset, translate,
};
use crate::table::Table;
use crate::table::Unserved;
use crate::time::Instant;

impl Dataplane {
    /// Tells the sender of `frame` about `error`, from `source`.
    pub(super) fn report_error(
        &mut self,
        table: &Table,
        error: IcmpError,
        source: Ipv4Addr,
        frame: &Frame,
        headers: &Ipv4,
        now: Instant,
    ) {
        if !may_report(frame, headers) || !self.may_answer(now) {
            return;
        }
        let Some(slot) = self.outbox.take() else {
            self.counters.suppressed += 1;
            return;
        };
        // Never 0, which stands for none.
        self.identification = self.identification.checked_add(1).unwrap_or(1);
        let ends = (source, headers.source);
        if frame.is_plain() {
            let packet = frame.bytes().get(IP..IP + headers.total_len).unwrap_or_default();
            icmp_error(error, ends, self.identification, packet, self.outbox.frame_mut(slot));
        } else if let Some(scratch) = self.outbox.take() {
            // What is quoted is the first of the packets that it stands for.
            let mut first = std::mem::replace(self.outbox.frame_mut(scratch), Frame::hollow());
            Segments::new(frame).next_into(&mut first);
            let packet = first.bytes().get(IP..).unwrap_or_default();
            icmp_error(error, ends, self.identification, packet, self.outbox.frame_mut(slot));
            *self.outbox.frame_mut(scratch) = first;
            self.outbox.release(scratch);
        } else {
            self.outbox.release(slot);
            self.counters.suppressed += 1;
            return;
        }
        self.counters.originated += 1;
        self.send_slot(table, slot, now);
    }

    /// Answers a packet to a virtual IP that no service or flow wants, as configured.
    pub(super) fn refuse(&mut self, table: &Table, frame: &Frame, headers: &Ipv4, now: Instant) {
        // What was damaged on its way was perhaps never meant for here.
        if !headers.is_transport_intact(frame) {
            return;
        }
        match (table.unserved(), headers.transport) {
            (Unserved::Reset, Transport::Tcp(segment)) => {
                if segment.rst || !self.may_answer(now) {
                    return;
                }
                let Some(slot) = self.outbox.take() else {
                    self.counters.suppressed += 1;
                    return;
                };
                tcp_reset(headers, &segment, self.outbox.frame_mut(slot));
                self.counters.originated += 1;
                self.send_slot(table, slot, now);
            }
            // No error about a reset either: it ends something, and nothing comes after it.
            (Unserved::Icmp, Transport::Tcp(segment)) if segment.rst => {}
            (Unserved::Reset | Unserved::Icmp, Transport::Tcp(_) | Transport::Udp(_)) => {
                let error = IcmpError::PortUnreachable;
                self.report_error(table, error, headers.destination, frame, headers, now);
            }
            (Unserved::Reset | Unserved::Icmp, Transport::Other) => {
                let error = IcmpError::ProtocolUnreachable;
                self.report_error(table, error, headers.destination, frame, headers, now);
            }
            (Unserved::Drop, _) | (_, Transport::Icmp(_)) => {}
        }
    }

    /// The next hop of a held packet of `flow` does not answer: tells the client, in whose words the
    /// packet is put back, and forgets a flow that nobody has answered yet.
    pub(super) fn give_up(&mut self, table: &Table, slot: u16, flow: FlowRef, now: Instant) {
        let mut frame = std::mem::replace(self.outbox.frame_mut(slot), Frame::hollow());
        if let (Some(id), Ok(headers)) = (self.flows.resolve(flow), Ipv4::parse(frame.bytes())) {
            let flow = self.flows.get(id);
            let (original, answered) = (flow.original, flow.packets[1] > 0 || flow.copied);
            // A client is told by the address it talks to, a server by its router.
            let own = table.network(flow.networks[0]).own_address();
            let router = own.filter(|_| !flow.is_served()).unwrap_or(original.destination);
            let direct = flow.direct;
            let towards_server = direct || headers.destination == flow.reply.source;
            if towards_server && !answered {
                if !direct {
                    // What undoes the translation of a request is that of an answer, turned around.
                    let undo = flow.rewrite(Direction::Reply).turned_around();
                    translate(&mut frame, &headers, &undo);
                }
                if let Ok(headers) = Ipv4::parse(frame.bytes()) {
                    let error = IcmpError::HostUnreachable;
                    self.report_error(table, error, router, &frame, &headers, now);
                }
                if let Some(owner) = self.flows.get(id).owner() {
                    self.note_unanswered(owner, original.source, now);
                }
                self.remove_flow(id);
            }
        }
        *self.outbox.frame_mut(slot) = frame;
        self.outbox.release(slot);
    }

    fn may_answer(&mut self, now: Instant) -> bool {
        let may = self.answers.take(now);
        if !may {
            self.counters.suppressed += 1;
        }
        may
    }
}

/// RFC 1122 section 3.2.2, RFC 1812 section 4.3.2.7: no error about an error, a later fragment, a
/// broadcast, or to nobody in particular.
fn may_report(frame: &Frame, headers: &Ipv4) -> bool {
    let about_error = matches!(headers.transport, Transport::Icmp(icmp) if icmp.is_error());
    let to_group = Ethernet::parse(frame.bytes()).is_none_or(|e| e.destination.is_multicast());
    !about_error
        && !to_group
        && !headers.later_fragment
        && is_host(headers.source)
        && is_host(headers.destination)
}
