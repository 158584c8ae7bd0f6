//! Probes through the virtual IP: does this very server answer for it, at this service's port?
//!
//! A half-open connection: a SYN for the virtual IP goes to the server's MAC from an address of the
//! router's, the answer says how things are, and a RST takes back what was half open. A server that
//! lacks the virtual IP, or whose program is gone, is told from one that is there.

use std::net::SocketAddrV4;

use super::draw::{Draw, Use};
use super::ip::Packet;
use super::{Consumed, Dataplane, DropReason, Event, Verdict};
use crate::addr::{Proto, ServerId};
use crate::frame::{Frame, Segment, SegmentKind, Transport};
use crate::table::{Method, Table};
use crate::time::{Duration, Instant};

/// Probes under way at the same time, at most.
const MOST: usize = 64;

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The server answers for the virtual IP: SYN-ACK.
    Open,
    /// The server has the virtual IP and nobody listens: RST.
    Refused,
    /// Nothing came: the server is down, lacks the virtual IP, or answers another way.
    Silent,
}

/// Why a probe was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeError {
    /// Not a server of a direct TCP service, or on a network where the router has no address.
    NotProbed,
    /// The source port probes this virtual IP and port already.
    PortInUse,
    /// Too many probes are under way.
    TooMany,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    server: ServerId,
    /// The router's end and the virtual IP's.
    from: SocketAddrV4,
    to: SocketAddrV4,
    sequence: u32,
    neighbour: super::neighbour::NeighbourRef,
    deadline: Instant,
}

/// The probes under way.
#[derive(Debug)]
pub(super) struct Probes {
    under_way: Vec<Probe>,
    sequences: Draw,
}

impl Probes {
    pub(super) fn new(seed: &[u8; 16]) -> Self {
        let sequences = Draw::new(seed, Use::ProbeSequences);
        Self { under_way: Vec::with_capacity(MOST), sequences }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.under_way.iter().map(|probe| probe.deadline).min()
    }
}

impl Dataplane {
    /// Probes `server` through its service's virtual IP. What comes of it within `timeout` is an
    /// [`Event::Probed`].
    ///
    /// # Errors
    /// When no probe can be sent; nothing will be told then.
    pub fn probe(
        &mut self,
        table: &Table,
        server: ServerId,
        source_port: u16,
        timeout: Duration,
        now: Instant,
    ) -> Result<(), ProbeError> {
        let direct = table
            .server(server)
            .filter(|(s, _)| s.method == Method::Direct && s.proto == Proto::Tcp);
        let (service, target) = direct.ok_or(ProbeError::NotProbed)?;
        let hop = table.next_hop(target.address).ok_or(ProbeError::NotProbed)?;
        let network = table.network(hop.network);
        let own = network.address_beside(target.address).ok_or(ProbeError::NotProbed)?;
        let from = SocketAddrV4::new(own, source_port);
        let to = SocketAddrV4::new(service.address, service.ports.first);
        if self.probes.under_way.len() == MOST {
            return Err(ProbeError::TooMany);
        }
        if self.probes.under_way.iter().any(|probe| (probe.from, probe.to) == (from, to)) {
            return Err(ProbeError::PortInUse);
        }
        let id = self.neighbour(hop, now).map_err(|_| ProbeError::TooMany)?;
        let neighbour = self.neighbours.reference(id);
        let sequence = self.probes.sequences.word();
        let deadline = now + timeout;
        let probe = Probe { server, from, to, sequence, neighbour, deadline };
        self.probes.under_way.push(probe);
        let kind = SegmentKind::Syn;
        let syn = Segment { source: from, destination: to, sequence, kind };
        self.send_segment(table, id, syn, now);
        Ok(())
    }

    /// An answer to a probe, from the virtual IP to the router. `None` when it is none.
    pub(super) fn probe_answer(&mut self, packet: &Packet<'_>, frame: &Frame) -> Option<Verdict> {
        let Packet { table, headers, now, .. } = packet;
        let Transport::Tcp(segment) = headers.transport else { return None };
        let from = SocketAddrV4::new(headers.source, segment.source);
        let to = SocketAddrV4::new(headers.destination, segment.destination);
        let is_answered = |probe: &Probe| {
            // Whoever has not seen the SYN cannot know what to acknowledge (RFC 9293 section 3.5).
            let acknowledged = probe.sequence.wrapping_add(1) == segment.acknowledgement;
            (probe.to, probe.from) == (from, to) && segment.ack && acknowledged
        };
        let outcome = match (segment.rst, segment.syn) {
            (true, _) => ProbeOutcome::Refused,
            (false, true) => ProbeOutcome::Open,
            (false, false) => return None,
        };
        let at = self.probes.under_way.iter().position(is_answered)?;
        if !headers.is_transport_intact(frame) {
            return None;
        }
        let probe = self.probes.under_way.swap_remove(at);
        if outcome == ProbeOutcome::Open
            && let Some(neighbour) = self.neighbours.resolve(probe.neighbour)
        {
            let sequence = segment.acknowledgement;
            let kind = SegmentKind::Reset;
            let reset = Segment { source: probe.from, destination: probe.to, sequence, kind };
            self.send_segment(table, neighbour, reset, *now);
        }
        self.tell_probe(&probe, outcome);
        Some(Verdict::Consumed(Consumed::ProbeAnswer))
    }

    /// Gives up probes whose time is over.
    pub(super) fn expire_probes(&mut self, now: Instant) {
        let is_over = |probe: &Probe| probe.deadline <= now;
        while let Some(at) = self.probes.under_way.iter().position(is_over) {
            let probe = self.probes.under_way.swap_remove(at);
            self.tell_probe(&probe, ProbeOutcome::Silent);
        }
    }

    fn tell_probe(&mut self, probe: &Probe, outcome: ProbeOutcome) {
        let source_port = probe.from.port();
        self.events.push(Event::Probed { server: probe.server, source_port, outcome });
    }

    /// Sends a segment to a neighbour, whoever it is addressed to.
    pub(super) fn send_segment(
        &mut self,
        table: &Table,
        neighbour: u32,
        segment: Segment,
        now: Instant,
    ) {
        self.counters.originated += 1;
        let Some(slot) = self.outbox.take() else {
            return self.count_no_place(DropReason::OutboxFull);
        };
        segment.build(self.outbox.frame_mut(slot));
        if let Err(reason) = self.send_slot_to(table, neighbour, slot, now) {
            self.count_slot_drop(reason, slot);
            self.outbox.release(slot);
        }
    }
}
