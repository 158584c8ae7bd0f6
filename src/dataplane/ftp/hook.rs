//! Where the helper meets the flow path: a control connection's segment on its way, and a SYN that may open
//! a data connection.

use std::net::Ipv4Addr;

use super::order::Part;
use super::text::{self, Speaker, Text};
use super::{
    Control, FIRST_PORT, FtpCounters, FtpLoad, Helper, Link, Offer, PATIENCE, Place, is_before,
};
use crate::addr::Proto;
use crate::dataplane::flow::{Direction, Flow, FlowRef, State, Tuple};
use crate::dataplane::ip::Packet;
use crate::dataplane::{Dataplane, DropReason, Verdict};
use crate::frame::{Frame, Ipv4, Tcp, Transport, replace_text, shift_sequence};
use crate::table::Table;
use crate::time::Instant;

impl Dataplane {
    /// What the FTP helper has done.
    pub const fn ftp_counters(&self) -> FtpCounters {
        self.ftp.counters
    }

    /// How many connections it has to do with; `None` where no service ever had it.
    pub fn ftp_load(&self) -> Option<FtpLoad> {
        self.ftp.load()
    }

    /// Begins to watch the flow of a service that has the helper.
    pub(in crate::dataplane) fn watch_ftp(&mut self, id: u32) {
        if self.ftp.begin(self.flows.reference(id)) {
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
        // keeps its one sum to the end, and is one text.
        if frame.is_partial() && !frame.offload().is_segmented() {
            frame.complete_checksum();
        }
        let mut headers = packet.headers;
        let is_intact = !headers.is_fragment() && headers.is_transport_intact(frame);
        if !headers.is_fragment() && !headers.payload_of(&segment).is_empty() {
            if is_intact && !segment.syn {
                self.read_text(packet, (id, direction), &segment, frame)?;
            }
            if direction == Direction::Reply {
                headers = self.patch_text(packet, id, &segment, is_intact, frame)?;
            }
        }
        let is_agreed = self.flows.get(id).assured;
        let Some(control) = self.ftp.controls.get_mut(id) else {
            return Ok(Packet { headers, ..*packet });
        };
        if is_intact {
            control.hear(direction, &segment, is_agreed);
        }
        let stream = &control.stream;
        if !stream.is_plain() {
            let is_servers = direction == Direction::Reply;
            headers = shift_sequence(
                frame,
                &headers,
                &segment,
                |number| if is_servers { stream.forward(number) } else { number },
                |number| if is_servers { number } else { stream.backward(number) },
            );
        }
        Ok(Packet { headers, offload: frame.offload(), ..*packet })
    }

    /// While data flows the control connection is silent, and lives on.
    fn keep_control(&mut self, packet: &Packet<'_>, id: u32) {
        let control = self.ftp.control_of(id).and_then(|control| self.flows.resolve(control));
        if self.flows.get(id).assured
            && let Some(control) = self.ftp.agreed(id)
        {
            // The connection's own record goes first.
            self.note_change(control.id);
        }
        if let Some(control) = control {
            let flow = self.flows.get(control);
            let timeout = self.timeout(packet.table, flow.owner(), flow.state);
            self.flows.touch(control, packet.now, timeout);
        }
    }

    /// Reads what a segment has that was not read before. What comes too early is not passed on: it may be
    /// an offer, and comes again.
    fn read_text(
        &mut self,
        packet: &Packet<'_>,
        (id, direction): (u32, Direction),
        segment: &Tcp,
        frame: &Frame,
    ) -> Result<(), DropReason> {
        let payload = frame.bytes().get(packet.headers.payload_of(segment)).unwrap_or_default();
        let len = u32::try_from(payload.len()).unwrap_or(0);
        let Some(control) = self.ftp.controls.get_mut(id) else { return Ok(()) };
        let order = &mut control.order[direction as usize];
        // What was changed was read, by another router if not here.
        if direction == Direction::Reply
            && let Some(end) = control.stream.end()
            && is_before(segment.sequence, end)
        {
            order.was_read(end);
        }
        let (from, is_line) = match order.part(segment.sequence, len) {
            Part::Known => return Ok(()),
            Part::Early => return Err(DropReason::FtpEarly),
            Part::New(from, is_line) => (from, is_line),
        };
        let speaker = match direction {
            Direction::Original => Speaker::Client,
            Direction::Reply => Speaker::Server,
        };
        let heard = text::read(speaker, payload.get(from..).unwrap_or_default(), is_line);
        let start = segment.sequence.wrapping_add(u32::try_from(from).unwrap_or(0));
        order.read(start, segment.sequence.wrapping_add(len), heard.is_whole);
        control.asked = control.asked.saturating_add(heard.asks);
        self.ftp.counters.unreadable += heard.unreadable;
        let mut changes = false;
        let mut grown = packet.headers.total_len;
        for offer in heard.offers.iter().flatten() {
            let at = from + offer.range.start;
            let start = segment.sequence.wrapping_add(u32::try_from(at).unwrap_or(0));
            changes |= match direction {
                Direction::Original => self.client_offers(packet, id, offer),
                Direction::Reply => self.server_offers(packet, id, offer, start, &mut grown),
            };
        }
        if changes {
            self.note_change(id);
        }
        Ok(())
    }

    /// A client awaits its server; whether that is new.
    fn client_offers(&mut self, packet: &Packet<'_>, id: u32, offer: &text::Offer) -> bool {
        let control = self.flows.reference(id);
        let flow = self.flows.get(id);
        let (client, server) = (flow.original.source, flow.reply.source);
        let place = Place { from: server, to: client, port: offer.port };
        // A client that is a neighbour of its server is reached by it without a router.
        let is_good = offer.address == Some(client)
            && offer.port >= FIRST_PORT
            && flow.reply.destination == client
            && !self.ftp.is_taken(place, control, offer.port, packet.now);
        if !is_good {
            self.ftp.counters.refused += 1;
            return false;
        }
        self.agree(control, place, offer.port, packet.now)
    }

    /// A server awaits its client: at which port of the virtual IP, the text must say, which begins at
    /// `start` in a packet that has `grown` to that length. Whether that is new.
    fn server_offers(
        &mut self,
        packet: &Packet<'_>,
        id: u32,
        offer: &text::Offer,
        start: u32,
        grown: &mut usize,
    ) -> bool {
        let Some(control) = self.ftp.controls.get_mut(id) else { return false };
        if control.asked == 0 {
            self.ftp.counters.unasked += 1;
            return false;
        }
        control.asked -= 1;
        let (table, now) = (packet.table, packet.now);
        let control = self.flows.reference(id);
        let flow = self.flows.get(id);
        let (client, vip) = (flow.original.source, flow.original.destination);
        // A server may know what it is reached by.
        let lies = offer.address.is_some_and(|at| at != flow.reply.source && at != vip);
        if lies || offer.port < FIRST_PORT || flow.reply.destination != client {
            self.ftp.counters.refused += 1;
            return false;
        }
        let mtu = usize::from(table.network(flow.networks[0]).mtu);
        let Some(port) = self.passive_port(table, control, (client, vip), offer.port, now) else {
            self.ftp.counters.refused += 1;
            return false;
        };
        let place = Place { from: client, to: vip, port };
        if offer.address.is_none_or(|address| address == vip) && port == offer.port {
            return self.agree(control, place, offer.port, now);
        }
        let text = Text::new(offer.form, vip, port);
        let longer = *grown + text.bytes().len() - offer.range.len();
        let fits = packet.offload.is_segmented() || longer <= mtu;
        let len = u8::try_from(offer.range.len()).unwrap_or(u8::MAX);
        if fits && !self.ftp.has_room(control, place, now) {
            self.ftp.counters.full += 1;
            return false;
        }
        let noted =
            fits && self.ftp.controls.get_mut(id).is_some_and(|c| c.stream.note(start, len, text));
        if !noted {
            self.ftp.counters.refused += 1;
            return false;
        }
        *grown = longer;
        self.ftp.counters.rewritten += 1;
        self.agree(control, place, offer.port, now)
    }

    fn agree(&mut self, control: FlowRef, place: Place, port: u16, now: Instant) -> bool {
        let offer = Offer { place, port, until: now + PATIENCE, has_come: false };
        let agreed = self.ftp.offer(control, offer, now);
        self.ftp.counters.offers += u64::from(agreed);
        agreed
    }

    /// Puts into a server's segment what was changed of its text, now or when it came before.
    fn patch_text(
        &self,
        packet: &Packet<'_>,
        id: u32,
        segment: &Tcp,
        is_intact: bool,
        frame: &mut Frame,
    ) -> Result<Ipv4, DropReason> {
        let mut headers = packet.headers;
        let Some(control) = self.ftp.controls.get(id) else { return Ok(headers) };
        let len = u32::try_from(headers.payload_of(segment).len()).unwrap_or(0);
        for patch in control.stream.patches(segment.sequence, len) {
            // What was broken on its way would be right then.
            if !is_intact {
                return Err(DropReason::FtpTorn);
            }
            let text = patch.text.as_ref().map_or(&[][..], Text::bytes);
            headers = replace_text(frame, &headers, segment, patch.from..patch.to, text)
                .ok_or(DropReason::FtpTorn)?;
        }
        let mtu = usize::from(packet.table.network(self.flows.get(id).networks[0]).mtu);
        let is_longer = headers.total_len > packet.headers.total_len.max(mtu);
        if is_longer && !frame.offload().is_segmented() {
            return Err(DropReason::FtpTorn);
        }
        Ok(headers)
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
        self.free_port(port, is_free)
    }

    /// A SYN to a virtual IP that a control connection has announced: passive FTP.
    pub(in crate::dataplane) fn ftp_passive(
        &mut self,
        packet: &Packet<'_>,
        original: Tuple,
        frame: &mut Frame,
    ) -> Option<Result<Verdict, DropReason>> {
        let place = Place {
            from: original.source,
            to: original.destination,
            port: original.destination_port,
        };
        let (control, offer) = self.ftp.find(place, packet.now)?;
        let control = self.flows.resolve(control)?;
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
        let reply = packet.tuple()?;
        let place =
            Place { from: reply.source, to: reply.destination, port: reply.destination_port };
        let (control, _) = self.ftp.find(place, packet.now)?;
        let control = self.flows.resolve(control)?;
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
        let Some(original) = self.free_original(packet.table, original, packet.now) else {
            self.ftp.counters.refused += 1;
            return None;
        };
        Some(self.ftp_data(packet, (original, reply), place, Direction::Reply, frame))
    }

    /// `original` at the server's own port of the virtual IP, or at another where that is a service's or
    /// another server's connection with the same client's port. One that is over makes room.
    fn free_original(&mut self, table: &Table, original: Tuple, now: Instant) -> Option<Tuple> {
        if let Some((id, _)) = self.live_flow(original, now) {
            let flow = self.flows.get(id);
            if flow.helper == Helper::Data && flow.state.is_reusable() {
                self.remove_flow(id);
            }
        }
        let at = |port| Tuple { destination_port: port, ..original };
        let is_free = |dataplane: &Self, port: u16| {
            table.service(Proto::Tcp, original.destination, port).is_none()
                && !dataplane.flows.is_taken(at(port))
        };
        self.free_port(original.destination_port, is_free).map(at)
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
        let (control, _) = self.ftp.find(place, now).ok_or(DropReason::NoFlow)?;
        let flow = self.flows.get(self.flows.resolve(control).ok_or(DropReason::NoFlow)?);
        let (owner, networks) = (flow.owner(), flow.networks);
        self.make_room(now)?;
        // Its own control connection may have had to go.
        self.flows.resolve(control).ok_or(DropReason::TableFull)?;
        let state = State::initial(original.protocol);
        let mut flow = Flow::new(original, reply, state, owner, networks, table.generation());
        flow.helper = Helper::Data;
        let timeout = self.timeout(table, owner, state);
        let id = self.flows.insert(flow, now, timeout);
        self.flow_came(owner, state);
        self.ftp.put_link(id, Link { control, place: Some(place) });
        let verdict = self.flow_packet(packet, id, direction, frame);
        if verdict.is_err() {
            // It stays awaited: the SYN comes again.
            self.remove_flow(id);
        } else {
            self.ftp.has_come(place);
            self.ftp.counters.connections += 1;
            for figure in self.figures.both(owner) {
                figure.traffic.flows += 1;
            }
        }
        verdict
    }
}

impl Control {
    /// What a segment says besides its text.
    fn hear(&mut self, direction: Direction, segment: &Tcp, is_agreed: bool) {
        // Once both ends have agreed a SYN is somebody else's.
        if segment.syn && !is_agreed {
            self.order[direction as usize].begin(segment.sequence);
        }
        if !segment.ack {
            return;
        }
        let number = match direction {
            Direction::Original => self.stream.backward(segment.acknowledgement),
            Direction::Reply => segment.acknowledgement,
        };
        self.order[1 - direction as usize].acknowledged(number);
        if direction == Direction::Original {
            self.stream.acknowledge(number);
        }
    }
}
