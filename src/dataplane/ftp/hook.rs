//! Where the helper meets the flow path: a control connection's segment on its way, and a SYN that may open
//! a data connection.

use std::net::Ipv4Addr;
use std::ops::Range;

use super::stream::Overlap;
use super::text::{self, Said, Text};
use super::{FIRST_PORT, FtpCounters, Helper, Place};
use crate::addr::Proto;
use crate::dataplane::flow::{Direction, Flow, FlowRef, State, Tuple};
use crate::dataplane::ip::Packet;
use crate::dataplane::{Dataplane, DropReason, Verdict};
use crate::frame::{Frame, Ipv4, Tcp, Transport, replace_text, shift_sequence};
use crate::table::Table;
use crate::time::Instant;

/// Ports tried for a passive connection whose own belongs to somebody else.
const PORT_TRIES: u32 = 16;

impl Dataplane {
    /// What the FTP helper has done.
    pub const fn ftp_counters(&self) -> FtpCounters {
        self.ftp.counters
    }

    /// Begins to watch the flow of a service that has the helper.
    pub(in crate::dataplane) fn watch_ftp(&mut self, id: u32) {
        if self.ftp.begin(id) {
            self.flows.get_mut(id).helper = Helper::Control;
        }
    }

    /// A segment of a flow that the helper knows: reads its text, changes it where it has to name the
    /// virtual IP, and adjusts the numbers that follow. Gives the packet as it is then.
    pub(in crate::dataplane) fn ftp_segment<'t>(
        &mut self,
        packet: &Packet<'t>,
        id: u32,
        direction: Direction,
        frame: &mut Frame,
    ) -> Result<Packet<'t>, DropReason> {
        if self.flows.get(id).helper == Helper::Data {
            self.keep_control(packet, id);
            return Ok(*packet);
        }
        let Transport::Tcp(segment) = packet.headers.transport else { return Ok(*packet) };
        // Text is little: what another text would be summed with is summed here. A train of segments
        // keeps its one sum to the end.
        if frame.is_partial() && !frame.offload().is_segmented() {
            frame.complete_checksum();
        }
        let mut headers = packet.headers;
        if !headers.is_fragment() && !headers.payload_of(&segment).is_empty() {
            headers = self.ftp_text(packet, (id, direction), &segment, frame)?;
        }
        let Some(control) = self.ftp.controls.get(&id) else {
            return Ok(Packet { headers, ..*packet });
        };
        let (own, other) =
            (&control.streams[direction as usize], &control.streams[1 - direction as usize]);
        if !own.is_plain() || !other.is_plain() {
            headers = shift_sequence(
                frame,
                &headers,
                &segment,
                |number| own.forward(number),
                |number| other.backward(number),
            );
        }
        Ok(Packet { headers, ..*packet })
    }

    /// While data flows the control connection is silent, and lives on.
    fn keep_control(&mut self, packet: &Packet<'_>, id: u32) {
        let control = self.ftp.data.get(&id).and_then(|control| self.flows.resolve(*control));
        if let Some(control) = control {
            let flow = self.flows.get(control);
            let timeout = self.timeout(packet.table, flow.owner(), flow.state);
            self.flows.touch(control, packet.now, timeout);
        }
    }

    /// Reads a segment's text; gives the headers as they are when it was changed.
    fn ftp_text(
        &mut self,
        packet: &Packet<'_>,
        (id, direction): (u32, Direction),
        segment: &Tcp,
        frame: &mut Frame,
    ) -> Result<Ipv4, DropReason> {
        let headers = packet.headers;
        let range = headers.payload_of(segment);
        let len = u32::try_from(range.len()).unwrap_or(0);
        let Some(control) = self.ftp.controls.get(&id) else { return Ok(headers) };
        let is_train = frame.offload().is_segmented();
        match control.streams[direction as usize].overlap(segment.sequence, len) {
            // Cut alike it could not be with a text of another length: it comes again, by itself.
            Overlap::Whole(_) if is_train => return Err(DropReason::FtpTorn),
            // Sent again: it must read as it did the first time.
            Overlap::Whole(edit) => {
                let at = edit.start.wrapping_sub(segment.sequence) as usize;
                return Self::put_text(
                    packet,
                    segment,
                    frame,
                    at..at + edit.len as usize,
                    &edit.text,
                )
                .ok_or(DropReason::FtpTorn);
            }
            Overlap::Torn => return Err(DropReason::FtpTorn),
            Overlap::None => {}
        }
        let payload = frame.bytes().get(range).unwrap_or_default();
        let said = match direction {
            Direction::Original => text::of_client(payload),
            Direction::Reply => text::of_server(payload),
        };
        match said {
            Said::Nothing => Ok(headers),
            // Nobody has more than a segment to say with an offer in it.
            Said::Offer(_) if is_train => {
                self.ftp.counters.unreadable += 1;
                Ok(headers)
            }
            Said::Unreadable => {
                self.ftp.counters.unreadable += 1;
                Ok(headers)
            }
            Said::Offer(offer) => {
                // A text that may have been broken on its way says nothing.
                if !headers.is_transport_intact(frame) {
                    return Ok(headers);
                }
                Ok(self.ftp_offer(packet, (id, direction), segment, frame, &offer))
            }
        }
    }

    fn ftp_offer(
        &mut self,
        packet: &Packet<'_>,
        (id, direction): (u32, Direction),
        segment: &Tcp,
        frame: &mut Frame,
        offer: &text::Offer,
    ) -> Ipv4 {
        let (headers, now) = (packet.headers, packet.now);
        let control = self.flows.reference(id);
        let flow = self.flows.get(id);
        let (client, vip) = (flow.original.source, flow.original.destination);
        let (server, seen_as) = (flow.reply.source, flow.reply.destination);
        let speakers: &[Ipv4Addr] = match direction {
            Direction::Original => &[client],
            // A server may know what it is reached by.
            Direction::Reply => &[server, vip],
        };
        let lies = offer.address.is_some_and(|address| !speakers.contains(&address));
        // A client that is a neighbour of its server is reached by it without a router.
        if lies || offer.port < FIRST_PORT || seen_as != client {
            self.ftp.counters.refused += 1;
            return headers;
        }
        if direction == Direction::Original {
            let place = Place { from: server, to: client, port: offer.port };
            if self.ftp.is_taken(place, control, offer.port, now) {
                self.ftp.counters.refused += 1;
            } else {
                self.ftp.offer(place, control, offer.port, now);
            }
            return headers;
        }
        let Some(port) = self.passive_port(packet.table, control, (client, vip), offer.port, now)
        else {
            self.ftp.counters.refused += 1;
            return headers;
        };
        let place = Place { from: client, to: vip, port };
        if offer.address.is_none_or(|address| address == vip) && port == offer.port {
            self.ftp.offer(place, control, offer.port, now);
            return headers;
        }
        let text = Text::new(offer.form, vip, port);
        let grown = headers.total_len - offer.range.len() + text.bytes().len();
        let mtu = packet.table.network(self.flows.get(id).networks[0]).mtu;
        if grown > usize::from(mtu) || !self.ftp.offer(place, control, offer.port, now) {
            self.ftp.counters.refused += 1;
            return headers;
        }
        let start = segment.sequence.wrapping_add(u32::try_from(offer.range.start).unwrap_or(0));
        let len = u32::try_from(offer.range.len()).unwrap_or(0);
        let noted = self
            .ftp
            .controls
            .get_mut(&id)
            .is_some_and(|control| control.streams[direction as usize].note(start, len, text));
        if !noted {
            return headers;
        }
        self.ftp.counters.rewritten += 1;
        Self::put_text(packet, segment, frame, offer.range.clone(), &text).unwrap_or(headers)
    }

    /// The port of the virtual IP that stands for the server's: the same, unless somebody has it.
    fn passive_port(
        &mut self,
        table: &Table,
        control: FlowRef,
        (client, vip): (Ipv4Addr, Ipv4Addr),
        port: u16,
        now: Instant,
    ) -> Option<u16> {
        let is_free = |dataplane: &Self, candidate: u16| {
            let place = Place { from: client, to: vip, port: candidate };
            table.service(Proto::Tcp, vip, candidate).is_none()
                && !dataplane.ftp.is_taken(place, control, port, now)
        };
        if is_free(self, port) {
            return Some(port);
        }
        (0..PORT_TRIES).find_map(|_| {
            let candidate = FIRST_PORT + self.client_ports.below(u16::MAX - FIRST_PORT + 1);
            is_free(self, candidate).then_some(candidate)
        })
    }

    fn put_text(
        packet: &Packet<'_>,
        segment: &Tcp,
        frame: &mut Frame,
        at: Range<usize>,
        text: &Text,
    ) -> Option<Ipv4> {
        if !packet.headers.is_transport_intact(frame) {
            return None;
        }
        replace_text(frame, &packet.headers, segment, at, text.bytes())
    }

    /// A SYN to a virtual IP that a control connection has announced: passive FTP.
    pub(in crate::dataplane) fn ftp_passive(
        &mut self,
        packet: &Packet<'_>,
        original: Tuple,
        frame: &mut Frame,
    ) -> Option<Result<Verdict, DropReason>> {
        let now = packet.now;
        let place = Place {
            from: original.source,
            to: original.destination,
            port: original.destination_port,
        };
        let offer = self.ftp.offers.get(&place).copied().filter(|offer| now < offer.until)?;
        let control = self.flows.resolve(offer.control)?;
        let flow = self.flows.get(control);
        let networks = flow.networks;
        if flow.original.destination != original.destination || networks[0] != packet.network.id {
            return None;
        }
        let answer =
            Tuple { source: flow.reply.source, source_port: offer.port, ..original.reversed() };
        let Some(reply) = self.free_reply(answer, false) else {
            return Some(Err(DropReason::PortsExhausted));
        };
        Some(self.ftp_data(packet, (original, reply), place, Direction::Original, frame))
    }

    /// A server's SYN to a client that has asked for it: active FTP. Comes from the virtual IP.
    pub(in crate::dataplane) fn ftp_active(
        &mut self,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Option<Result<Verdict, DropReason>> {
        let Transport::Tcp(Tcp { syn: true, ack: false, rst: false, .. }) =
            packet.headers.transport
        else {
            return None;
        };
        let now = packet.now;
        let reply = packet.tuple()?;
        let place =
            Place { from: reply.source, to: reply.destination, port: reply.destination_port };
        let offer = self.ftp.offers.get(&place).copied().filter(|offer| now < offer.until)?;
        let control = self.flows.resolve(offer.control)?;
        let flow = self.flows.get(control);
        if flow.networks[1] != packet.network.id {
            return None;
        }
        let original = Tuple {
            source: reply.destination,
            source_port: reply.destination_port,
            destination: flow.original.destination,
            destination_port: reply.source_port,
            protocol: reply.protocol,
        };
        // A service's port is nobody else's, and two connections must not look the same.
        let is_service = packet
            .table
            .service(Proto::Tcp, original.destination, original.destination_port)
            .is_some();
        if is_service || self.flows.is_taken(original) {
            self.ftp.counters.refused += 1;
            return None;
        }
        Some(self.ftp_data(packet, (original, reply), place, Direction::Reply, frame))
    }

    /// Opens the data connection that is awaited at `place`, with its first packet.
    fn ftp_data(
        &mut self,
        packet: &Packet<'_>,
        (original, reply): (Tuple, Tuple),
        place: Place,
        direction: Direction,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let (table, now) = (packet.table, packet.now);
        let offer = self.ftp.offers.get(&place).copied().ok_or(DropReason::NoFlow)?;
        let control = self.flows.resolve(offer.control).ok_or(DropReason::NoFlow)?;
        let flow = self.flows.get(control);
        let (owner, networks) = (flow.owner(), flow.networks);
        self.make_room(now)?;
        // Its own control connection may have had to go.
        self.flows.resolve(offer.control).ok_or(DropReason::TableFull)?;
        let state = State::initial(original.protocol);
        let mut flow = Flow::new(original, reply, state, owner, networks, table.generation());
        flow.helper = Helper::Data;
        let timeout = self.timeout(table, owner, state);
        let id = self.flows.insert(flow, now, timeout);
        self.flow_came(owner, state);
        self.ftp.data.insert(id, offer.control);
        let verdict = self.flow_packet(packet, id, direction, frame);
        if verdict.is_err() {
            // It stays awaited: the SYN comes again.
            self.remove_flow(id);
        } else {
            self.ftp.take(place, now);
            self.ftp.counters.connections += 1;
            for figure in self.figures.both(owner) {
                figure.traffic.flows += 1;
            }
        }
        verdict
    }
}
