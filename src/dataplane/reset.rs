//! Ends the flows of servers that were taken away, so that their clients know it at once.
//!
//! A reset is believed only with the very sequence number that its receiver expects (RFC 5961 section
//! 3.2). The router keeps none: a client's acknowledgement number is the one, and so is a server's for
//! the server. A client that says nothing is sent a second SYN-ACK of its server: whatever state and
//! whatever age its TCP has, it answers that with an acknowledgement (RFC 9293 section 3.10.7.4,
//! RFC 5961 section 4), and stateful firewalls on the way let pass what looks like a repetition.

use std::net::SocketAddrV4;

use super::ending::{Cause, DEADLINES, Doomed, Stage};
use super::flow::{Direction, Flow, State, Tuple};
use super::ip::Packet;
use super::limit::TokenBucket;
use super::{Dataplane, DropReason, Event};
use crate::addr::ServerId;
use crate::frame::{Frame, Segment, SegmentKind, TCP, Tcp, Transport};
use crate::table::{Server, Table};
use crate::time::Instant;

/// Clients that are asked for their sequence number: a second, and at once.
const CHALLENGE_RATE: (u64, u64) = (50_000, 64);
/// Places of the outbox that are left to everything else.
const KEPT_FREE: usize = 128;

/// The pace of asking clients.
pub(super) const fn challenge_pace(now: Instant) -> TokenBucket {
    TokenBucket::new(CHALLENGE_RATE.0, CHALLENGE_RATE.1, now)
}

impl Dataplane {
    /// From now on the flows of `server` are ended, if it has any.
    pub(super) fn doom(&mut self, server: &Server, cause: Cause, now: Instant) {
        if self.has_flows(server.id) {
            self.endings.begin(doomed(server, cause), now);
        }
    }

    /// At `deadline` the flows that `server` has left are ended.
    pub(super) fn doom_at(&mut self, server: &Server, cause: Cause, deadline: Instant) {
        self.endings.begin_at(doomed(server, cause), deadline);
    }

    /// One step of the walk over the flow table, for servers whose flows are to be ended.
    /// A backup leaves all that for when it takes over: what it has are copies, and whoever forwards
    /// ends the flows.
    pub(super) fn end_flows(&mut self, table: &Table, now: Instant) {
        if !self.is_active() {
            return;
        }
        for _ in 0..DEADLINES {
            let Some(doomed) = self.endings.pass_deadline(now) else { break };
            if self.has_flows(doomed.server) {
                self.endings.begin(doomed, now);
            }
        }
        let places = self.flows.places();
        let Some(part) = self.endings.step(places, now) else { return };
        for place in part.clone() {
            if !self.end_flow_at(table, place, now) {
                return self.endings.pause(place, now);
            }
        }
        let (figures, events) = (&self.figures, &mut self.events);
        let left = |server| figures.server(server).load.total() > 0;
        self.endings.advance(part.end, places, now, left, |doomed, ended| {
            if ended > 0 {
                events.push(Event::FlowsEnded { server: doomed.address, ended });
            }
        });
    }

    /// Whether the client's packet is for another server: nothing holds a datagram, or a client that
    /// starts anew, to one whose flows are being ended.
    pub(super) fn is_free_to_go(&self, flow: &Flow, transport: Transport) -> bool {
        let may = match transport {
            Transport::Tcp(segment) => flow.ending && segment.syn && !segment.rst,
            Transport::Udp(_) => !self.endings.is_idle(),
            Transport::Icmp(_) | Transport::Other => false,
        };
        may && flow.owner().is_some_and(|(_, server)| self.endings.is_doomed(server))
    }

    /// A segment of a flow that is being ended goes no further, but tells what its two ends are to
    /// be reset with.
    pub(super) fn end_segment(
        &mut self,
        packet: &Packet<'_>,
        id: u32,
        direction: Direction,
        frame: &Frame,
    ) -> Result<(), DropReason> {
        let Packet { table, headers, now, .. } = *packet;
        let Transport::Tcp(segment) = headers.transport else { return Ok(()) };
        let flow = self.flows.get_mut(id);
        if !flow.owner().is_some_and(|(_, server)| self.endings.is_doomed(server)) {
            // The server is back in time.
            flow.ending = false;
            return Ok(());
        }
        // Whoever resets the connection needs no reset, and the other end learns of this one.
        if segment.rst {
            flow.ending = false;
            return Ok(());
        }
        if segment.ack && headers.is_transport_intact(frame) {
            self.reset_ends(table, id, direction, &segment, now);
        }
        Err(DropReason::FlowEnded)
    }

    fn reset_ends(
        &mut self,
        table: &Table,
        id: u32,
        direction: Direction,
        segment: &Tcp,
        now: Instant,
    ) {
        let server_expects = match direction {
            Direction::Original => segment.sequence,
            Direction::Reply => segment.acknowledgement,
        };
        // The server first: with direct routing it would go on sending past what the client expects.
        if let Ok(neighbour) = self.flow_hop(table, id, Direction::Original, now)
            && self.neighbours.get(neighbour).is_usable()
        {
            let flow = self.flows.get(id);
            let seen = if flow.direct { flow.original } else { flow.reply.reversed() };
            self.send_segment(
                table,
                neighbour,
                along(seen, server_expects, SegmentKind::Reset),
                now,
            );
        }
        if direction == Direction::Original
            && let Ok(neighbour) = self.flow_hop(table, id, Direction::Reply, now)
        {
            let flow = self.flows.get_mut(id);
            flow.server_syn = segment.acknowledgement;
            let reset = along(flow.original.reversed(), flow.server_syn, SegmentKind::Reset);
            self.send_segment(table, neighbour, reset, now);
            self.close(table, id, now);
        }
    }

    /// The flow is over. It stays for a while, for segments that were on their way.
    fn close(&mut self, table: &Table, id: u32, now: Instant) {
        let flow = self.flows.get_mut(id);
        let before = std::mem::replace(&mut flow.state, State::Close);
        let owner = flow.owner();
        self.note_change(id);
        if before == State::Close {
            return;
        }
        self.flows.reclass(id);
        let timeout = self.timeout(table, owner, State::Close);
        self.flows.touch(id, now, timeout);
        self.flow_moved(owner, before, State::Close);
    }

    /// Whether the walk may go on beyond this place.
    fn end_flow_at(&mut self, table: &Table, place: usize, now: Instant) -> bool {
        let Some((id, flow)) = self.flows.at(place) else { return true };
        let Some((_, server)) = flow.owner() else { return true };
        let stage = self.endings.stage(server);
        let is_tcp = flow.original.protocol == TCP;
        match stage {
            Stage::Spared => true,
            Stage::Last if is_tcp && !flow.ending => true,
            Stage::Asking if is_tcp => self.end_tcp(table, id, server, now),
            Stage::Asking | Stage::Last => {
                if !flow.ending {
                    self.endings.count(server);
                }
                self.remove_flow(id);
                true
            }
        }
    }

    /// Marks the flow, whose client's next segment is answered with a reset, and asks for one. A
    /// client that has answered is reset once more, since a reset may get lost.
    fn end_tcp(&mut self, table: &Table, id: u32, server: ServerId, now: Instant) -> bool {
        let flow = self.flows.get(id);
        let says = match flow.state {
            // The client waits for an answer, and repeats its SYN.
            State::None | State::SynSent | State::SynRecv => None,
            State::Established => Some(SegmentKind::SynAck),
            State::Close if flow.ending => Some(SegmentKind::Reset),
            // What is closing already is left to.
            _ => return true,
        };
        // A backup has the flow, but no say in it: the client is reset by whoever hears of it next.
        let says = says.filter(|_| self.is_active());
        if says.is_some() && (self.outbox.room() <= KEPT_FREE || !self.challenges.take(now)) {
            return false;
        }
        let flow = self.flows.get_mut(id);
        if !std::mem::replace(&mut flow.ending, true) {
            self.endings.count(server);
        }
        if let Some(kind) = says {
            self.tell_client(table, id, kind, now);
        }
        true
    }

    fn tell_client(&mut self, table: &Table, id: u32, kind: SegmentKind, now: Instant) {
        self.revalidate(table, id);
        let Ok(neighbour) = self.flow_hop(table, id, Direction::Reply, now) else { return };
        let flow = self.flows.get(id);
        let segment = along(flow.original.reversed(), flow.server_syn, kind);
        self.send_segment(table, neighbour, segment, now);
    }

    fn has_flows(&self, server: ServerId) -> bool {
        self.figures.server(server).load.total() > 0
    }
}

const fn doomed(server: &Server, cause: Cause) -> Doomed {
    let address = SocketAddrV4::new(server.address, server.port);
    Doomed { server: server.id, address, cause }
}

/// A segment that goes the way of `tuple`.
const fn along(tuple: Tuple, sequence: u32, kind: SegmentKind) -> Segment {
    Segment {
        source: SocketAddrV4::new(tuple.source, tuple.source_port),
        destination: SocketAddrV4::new(tuple.destination, tuple.destination_port),
        sequence,
        kind,
    }
}
