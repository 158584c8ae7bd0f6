//! One IPv4 packet's way: its own sanity, then flow, virtual IP, own address, or nothing.

use std::net::Ipv4Addr;

use super::advert::{is_advert, is_sync};
use super::flow::{Direction, Event as TcpEvent, State, Tuple};
use super::outbox::Waiting;
use super::role::is_router;
use super::standing::REPEATED;
use super::{Arrival, Dataplane, DropReason, Verdict, is_host};
use crate::addr::NetworkId;
use crate::frame::{
    ETHERNET, Ethernet, Frame, Icmp, Ipv4, Offload, Transport, clamp_mss, echo_reply, translate,
};
use crate::table::{Local, Network, Table};
use crate::time::Instant;

/// So many packets of its client assure a direct flow.
const DIRECT_ASSURED: u32 = 3;

/// One packet, checked, with where it came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'t> {
    pub(super) table: &'t Table,
    pub(super) network: &'t Network,
    pub(super) headers: Ipv4,
    /// What is left to be done to it: of a fragment, nothing.
    pub(super) offload: Offload,
    pub(super) now: Instant,
}

impl Packet<'_> {
    /// How many packets it is on the wire.
    pub(super) fn segments(&self) -> u32 {
        self.offload.segments(ETHERNET + self.headers.total_len)
    }

    /// Length of the longest of them, in bytes: what an MTU is held against.
    pub(super) fn longest(&self) -> usize {
        self.offload.longest(ETHERNET + self.headers.total_len) - ETHERNET
    }

    /// Length of all of them.
    fn bytes(&self) -> u64 {
        let len = self.headers.total_len;
        (len + self.offload.repeated(ETHERNET + len)) as u64
    }

    /// What its flow would be found by; `None` for what carries no ports. An echo's identifier stands
    /// in for the port of the host that asks.
    pub(super) const fn tuple(&self) -> Option<Tuple> {
        let (source_port, destination_port) = match self.headers.transport {
            Transport::Tcp(tcp) => (tcp.source, tcp.destination),
            Transport::Udp(udp) => (udp.source, udp.destination),
            Transport::Icmp(Icmp { kind: Icmp::ECHO_REQUEST, identifier, .. }) => (identifier, 0),
            Transport::Icmp(Icmp { kind: Icmp::ECHO_REPLY, identifier, .. }) => (0, identifier),
            Transport::Icmp(_) | Transport::Other => return None,
        };
        Some(Tuple {
            source: self.headers.source,
            destination: self.headers.destination,
            source_port,
            destination_port,
            protocol: self.headers.protocol,
        })
    }

    /// Whether the packet can be one in `direction` of a flow: a question is no answer, even where
    /// its identifier is the 0 that stands for the other side's port.
    const fn may_go(&self, direction: Direction) -> bool {
        match self.headers.transport {
            Transport::Icmp(icmp) => {
                matches!(direction, Direction::Original) == (icmp.kind == Icmp::ECHO_REQUEST)
            }
            Transport::Tcp(_) | Transport::Udp(_) | Transport::Other => true,
        }
    }
}

impl Dataplane {
    pub(super) fn handle_ipv4(
        &mut self,
        arrival: &Arrival<'_>,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let Arrival { table, network, ref ethernet, mut offload, now, .. } = *arrival;
        if !offload.is_transport() {
            frame.complete_checksum();
            offload = Offload::NONE;
        }
        let headers = Ipv4::parse(frame.bytes())?;
        let packet = Packet { table, network, headers, offload, now };
        // Between the links of a bridge whoever sends too much is told, as by any narrow link.
        if packet.longest() > usize::from(network.mtu) && !network.is_bridged() {
            return Err(DropReason::Oversize);
        }
        if is_advert(arrival, frame.bytes()) {
            return self.advert_came(arrival, &headers, frame);
        }
        check_addresses(network, ethernet, &headers)?;
        if !is_router(network, ethernet.destination) {
            self.note_misled(arrival, headers.destination);
        }
        frame.truncate(ETHERNET + headers.total_len);
        if is_sync(&packet) {
            return Self::check_source(&packet).map(|()| Verdict::ToHa);
        }
        if !self.is_active() {
            return self.backup_packet(&packet, frame);
        }
        if headers.is_fragment() {
            return self.handle_fragment(&packet, frame);
        }
        self.whole_packet(&packet, frame)
    }

    /// A packet whose transport header is there: a whole one, or a first fragment.
    pub(super) fn whole_packet(
        &mut self,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let Packet { table, headers, now, .. } = *packet;
        if let Some(tuple) = packet.tuple()
            && let Some((flow, direction)) = self.live_flow(tuple, now)
            && packet.may_go(direction)
        {
            if direction == Direction::Original && self.starts_over(flow, packet) {
                self.remove_flow(flow);
            } else {
                return self.flow_packet(packet, flow, direction, frame);
            }
        }
        if let Some(about) = self.flow_of_error(frame, &headers, now) {
            return self.error_packet(packet, about, frame);
        }
        if let Err(reason) = Self::check_source(packet) {
            // Only a probe's answer comes from an address of the router's own.
            return self.probe_answer(packet, frame).ok_or(reason);
        }
        match table.local(headers.destination) {
            Some(Local::Own(own)) => for_host(packet, own),
            Some(Local::Virtual(_)) => self.virtual_ip_packet(packet, frame),
            None if is_broadcast(table, headers.destination) => Err(DropReason::Broadcast),
            None => self.route_packet(packet, frame),
        }
    }

    /// A packet that reached a backup: for the router itself, or for the active one.
    fn backup_packet(&mut self, packet: &Packet<'_>, frame: &Frame) -> Result<Verdict, DropReason> {
        let (table, destination) = (packet.table, packet.headers.destination);
        let Some(Local::Own(own)) = table.local(destination) else {
            let broadcast = is_broadcast(table, destination);
            return Err(if broadcast { DropReason::Broadcast } else { DropReason::BackupRole });
        };
        if let Err(reason) = Self::check_source(packet) {
            return self.probe_answer(packet, frame).ok_or(reason);
        }
        for_host(packet, own)
    }

    /// A packet of a known flow: translated, counted, sent on.
    pub(super) fn flow_packet(
        &mut self,
        packet: &Packet<'_>,
        id: u32,
        direction: Direction,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let Packet { table, network, headers, now, .. } = *packet;
        self.revalidate(table, id);
        let flow = self.flows.get(id);
        if flow.networks[direction as usize] != network.id {
            return Err(DropReason::WrongNetwork);
        }
        if flow.ending {
            self.end_segment(packet, id, direction, frame)?;
        }
        let flow = self.flows.get(id);
        let own = network.own_address().unwrap_or(headers.destination);
        // A client is told of errors by the address it talks to, a server by its router.
        let router = match (direction, flow.is_served()) {
            (Direction::Original, true) => flow.original.destination,
            (Direction::Original, false) | (Direction::Reply, _) => own,
        };
        self.check_ttl(packet, router, frame)?;
        let neighbour = self.flow_hop(table, id, direction, now)?;
        // Of a fragment less is asked.
        if !headers.is_fragment() {
            self.flows.get_mut(id).note_passed(direction);
        }
        self.check_way(packet, neighbour, router, frame)?;
        self.account(packet, id, direction);
        let helped;
        let packet = if !self.flows.get(id).helper.is_ftp() {
            packet
        } else {
            helped = self.ftp_segment(packet, id, direction, frame)?;
            &helped
        };
        let headers = packet.headers;
        let waiting = Waiting::Flow(self.flows.reference(id));
        let flow = self.flows.get(id);
        if flow.direct {
            return self.pass_on(packet, neighbour, frame, waiting);
        }
        translate(frame, &headers, &flow.rewrite(direction));
        let egress = table.network(self.neighbours.get(neighbour).network);
        let recorded = match direction {
            Direction::Original => router,
            Direction::Reply => egress.own_address().unwrap_or(router),
        };
        if let Transport::Tcp(segment) = headers.transport
            && segment.syn
        {
            let clamps = [network.mss_clamp, egress.mss_clamp].into_iter().flatten();
            if let Some(most) = clamps.min() {
                clamp_mss(frame, &headers, &segment, most);
            }
        }
        self.leave(packet, neighbour, recorded, frame, waiting)
    }

    /// The flow of `tuple`, if its deadline has not passed; one whose has is removed.
    pub(super) fn live_flow(&mut self, tuple: Tuple, now: Instant) -> Option<(u32, Direction)> {
        let found = self.flows.find(tuple)?;
        if self.flows.is_expired(found.0, now) {
            self.expire_flow(found.0, now);
            return None;
        }
        Some(found)
    }

    /// A new SYN on a flow that is over: scheduled anew, never dropped.
    fn starts_over(&self, id: u32, packet: &Packet<'_>) -> bool {
        let flow = self.flows.get(id);
        let transport = packet.headers.transport;
        // Of a direct flow the end is not seen: this is as far as a clean close gets.
        let over = flow.state.is_reusable() || flow.direct && flow.state == State::FinWait;
        let opens = matches!(transport, Transport::Tcp(tcp) if tcp.syn && !tcp.rst);
        (over && opens || self.is_free_to_go(flow, transport))
            && flow.networks[0] == packet.network.id
    }

    /// After a reload a flow's ways may lead elsewhere: they are looked up anew, once.
    pub(super) fn revalidate(&mut self, table: &Table, id: u32) {
        let flow = self.flows.get_mut(id);
        if flow.generation == table.generation() {
            return;
        }
        flow.begin_generation(table.generation());
        for direction in [Direction::Original, Direction::Reply] {
            // Where one side is sent to is where its own packets must come from.
            if let Some(hop) = table.next_hop(flow.rewrite(direction).destination) {
                flow.networks[1 - direction as usize] = hop.network;
            }
        }
        self.bind(table, id);
    }

    /// RFC 1812 section 5.3.7, RFC 3704 section 2.2: the source is not one of the router's own
    /// addresses, and an answer would leave by where the packet came in.
    pub(super) fn check_source(packet: &Packet<'_>) -> Result<(), DropReason> {
        let Packet { table, network, headers, .. } = packet;
        if table.local(headers.source).is_some() {
            return Err(DropReason::MartianSource);
        }
        let back = table.next_hop(headers.source);
        if back.is_none_or(|back| back.network != network.id) {
            return Err(DropReason::ReversePath);
        }
        Ok(())
    }

    /// The neighbour that the flow's packets go to; looked up once per table generation.
    pub(super) fn flow_hop(
        &mut self,
        table: &Table,
        id: u32,
        direction: Direction,
        now: Instant,
    ) -> Result<u32, DropReason> {
        let flow = self.flows.get(id);
        if let Some(neighbour) = self.neighbours.resolve(flow.hops[direction as usize]) {
            return Ok(neighbour);
        }
        let destination = flow.rewrite(direction).destination;
        let hop = table.next_hop(destination).ok_or(DropReason::NoRoute)?;
        let neighbour = self.neighbour(hop, now)?;
        self.flows.get_mut(id).hops[direction as usize] = self.neighbours.reference(neighbour);
        Ok(neighbour)
    }

    /// Counts the packet and moves the flow's state on.
    fn account(&mut self, packet: &Packet<'_>, id: u32, direction: Direction) {
        let Packet { table, headers, now, .. } = *packet;
        self.note_answer(packet, id, direction);
        self.count(id, direction, packet.segments(), packet.bytes());
        let flow = self.flows.get_mut(id);
        let before = (flow.state, flow.assured, flow.reset_by);
        if let Transport::Tcp(segment) = headers.transport {
            let data = headers.total_len > headers.header_len + segment.header_len;
            flow.note_reset(direction, &segment, data);
            flow.state = flow.state.next(flow.view(direction), TcpEvent::of(&segment));
            flow.note_handshake(direction, &segment);
        } else if flow.packets[0] >= 2 && flow.packets[1] >= 1 && !flow.is_one_packet() {
            flow.assured = true;
        }
        // Answers are not seen: a client that goes on sending has had some.
        flow.assured |= flow.direct && flow.packets[0] >= DIRECT_ASSURED && !flow.is_one_packet();
        let (state, assured, reset_by) = (flow.state, flow.assured, flow.reset_by);
        let owner = flow.owner();
        if (state, assured, reset_by) != before {
            self.flows.reclass(id);
            self.note_change(id);
            if assured && !before.1 {
                self.assure_client_of(id);
            }
        }
        self.live_on(table, id, now);
        self.flow_moved(owner, before.0, state);
    }

    /// Counts packets of a flow, its server's and its service's.
    pub(super) fn count(&mut self, id: u32, direction: Direction, packets: u32, bytes: u64) {
        let flow = self.flows.get_mut(id);
        let counted = &mut flow.packets[direction as usize];
        *counted = counted.saturating_add(packets);
        flow.bytes[direction as usize] += bytes;
        let owner = flow.owner();
        for figure in self.figures.both(owner) {
            figure.traffic.count(direction, packets, bytes);
        }
    }

    /// From now on the flow lives for as long as its state says.
    pub(super) fn live_on(&mut self, table: &Table, id: u32, now: Instant) {
        let flow = self.flows.get(id);
        let timeout = self.timeout(table, flow.owner(), flow.state);
        self.flows.touch(id, now, timeout);
    }

    /// What a segment shows of whether the flow's server answers.
    fn note_answer(&mut self, packet: &Packet<'_>, id: u32, direction: Direction) {
        let Transport::Tcp(segment) = packet.headers.transport else { return };
        let flow = self.flows.get(id);
        let Some(owner) = flow.owner().filter(|_| segment.syn || segment.rst) else { return };
        if !self.standings.is_watched(owner.1) {
            return;
        }
        if direction == Direction::Reply {
            self.standings.answered(owner.1);
        } else if segment.syn && flow.packets[0] > 0 && flow.packets[1] == 0 && !flow.copied {
            let client = flow.original.source;
            let timeout = self.timeout(packet.table, Some(owner), flow.state);
            if self.flows.idle(id, packet.now, timeout) >= REPEATED {
                self.note_unanswered(owner, client, packet.now);
            }
        }
    }

    /// A packet to a virtual IP that is of no flow yet.
    fn virtual_ip_packet(
        &mut self,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let Packet { table, network, headers, now, .. } = *packet;
        match headers.transport {
            Transport::Icmp(_) if headers.is_fragment() => Err(DropReason::Fragment),
            Transport::Icmp(icmp) if icmp.kind == Icmp::ECHO_REQUEST => {
                echo_reply(frame.bytes_mut(), &headers, network.service_mac());
                Ok(Verdict::Reply)
            }
            Transport::Icmp(icmp) if icmp.is_error() => Err(DropReason::IcmpUnknownFlow),
            Transport::Icmp(_) => Err(DropReason::IcmpUnserved),
            Transport::Tcp(_) | Transport::Udp(_) => self.connect(packet, frame),
            Transport::Other => {
                self.refuse(table, frame, &headers, now);
                Err(DropReason::ProtocolUnserved)
            }
        }
    }
}

/// A packet to an own address, on network `own`. The host does not put fragments together, and nobody
/// has a reason to send it any.
fn for_host(packet: &Packet<'_>, own: NetworkId) -> Result<Verdict, DropReason> {
    if packet.headers.is_fragment() {
        Err(DropReason::Fragment)
    } else if packet.longest() > usize::from(packet.table.network(own).mtu) {
        Err(DropReason::Oversize)
    } else {
        Ok(Verdict::ToHost)
    }
}

/// RFC 1812 sections 5.3.4 and 5.3.7: what no router passes on.
fn check_addresses(
    network: &Network,
    ethernet: &Ethernet,
    headers: &Ipv4,
) -> Result<(), DropReason> {
    let Ipv4 { source, destination, .. } = *headers;
    if headers.source_routed {
        return Err(DropReason::IpSourceRoute);
    }
    if !is_host(source) || network.is_broadcast(source) {
        return Err(DropReason::MartianSource);
    }
    if destination.is_multicast() || destination.is_broadcast() {
        return Err(DropReason::Broadcast);
    }
    if !is_host(destination) {
        return Err(DropReason::MartianDestination);
    }
    if ethernet.destination.is_multicast() {
        return Err(DropReason::LinkBroadcast);
    }
    Ok(())
}

fn is_broadcast(table: &Table, address: Ipv4Addr) -> bool {
    table.networks().iter().any(|network| network.is_broadcast(address))
}
