//! Packets that are neither for the router nor for a service: routed where the policy allows it, and
//! the checks that every packet passes on its way through.

use std::net::Ipv4Addr;

use super::deliver::Way;
use super::flow::{Direction, Flow, State, Tuple};
use super::ftp::Helper;
use super::ip::Packet;
use super::masquerade::Socket;
use super::outbox::Waiting;
use super::{Dataplane, DropReason, Verdict};
use crate::addr::{OWN_PORTS, Proto};
use crate::frame::{Frame, Icmp, IcmpError, Transport, decrement_ttl, record_route};
use crate::table::{Forward, Local, NextHop};

impl Dataplane {
    /// A packet to an address that is not the router's, of no known flow.
    pub(super) fn route_packet(
        &mut self,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        if self.ftp.awaits()
            && let Some(verdict) = self.ftp_active(packet, frame)
        {
            return verdict;
        }
        let (table, headers) = (packet.table, &packet.headers);
        let servers_own =
            table.is_server_side(headers.source) && !table.is_server_side(headers.destination);
        let allowed = match table.forward() {
            Forward::None => false,
            Forward::ServersOut => servers_own,
            Forward::All => true,
        };
        if !allowed {
            return Err(DropReason::NotForwarded);
        }
        let hop = table.next_hop(headers.destination).ok_or(DropReason::NoRoute)?;
        let seen_as = table.masquerade(headers.source, headers.destination);
        let remembered = table.forward() == Forward::ServersOut || goes_past_service(packet);
        if seen_as.is_some() || remembered {
            self.track_outgoing(packet, hop, seen_as, frame)
        } else {
            self.pass(packet, hop, frame)
        }
    }

    /// A server's own connection: remembered, so that its answers find their way back and nothing
    /// else does. Or one to a server, so that its answers are not taken for a service's.
    fn track_outgoing(
        &mut self,
        packet: &Packet<'_>,
        hop: NextHop,
        seen_as: Option<Ipv4Addr>,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let Packet { table, network, headers, now, .. } = *packet;
        let original = packet.tuple().ok_or(DropReason::NotForwarded)?;
        match headers.transport {
            // A late answer would leave under the server's own address.
            Transport::Udp(udp) if table.is_server(Proto::Udp, headers.source, udp.source) => {
                return Err(DropReason::NoFlow);
            }
            Transport::Tcp(segment) if !segment.syn || segment.ack || segment.rst => {
                return Err(DropReason::NoFlow);
            }
            Transport::Icmp(icmp) if icmp.kind != Icmp::ECHO_REQUEST => {
                return Err(DropReason::NoFlow);
            }
            Transport::Tcp(_) | Transport::Udp(_) | Transport::Icmp(_) | Transport::Other => {}
        }
        let router = network.own_address().unwrap_or(headers.destination);
        self.check_ttl(packet, router, frame)?;
        let neighbour = self.neighbour(hop, now)?;
        self.check_way(packet, neighbour, router, frame)?;
        let reply = match seen_as {
            Some(address) => Tuple {
                destination: address,
                destination_port: self.external_port(packet, original, address)?,
                ..original.reversed()
            },
            // Its answers may look like those of a service's flow already.
            None => {
                self.free_reply(original.reversed(), false).ok_or(DropReason::PortsExhausted)?
            }
        };
        if let Err(reason) = self.make_room(now) {
            if seen_as.is_some() {
                self.masquerade.unmap(Socket::client_of(original), Socket::seen_in(reply));
            }
            return Err(reason);
        }
        let state = State::initial(original.protocol);
        let networks = [network.id, hop.network];
        let mut flow = Flow::new(original, reply, state, None, networks, table.generation());
        if seen_as.is_some() {
            flow.helper = Helper::Masquerade;
        }
        let id = self.flows.insert(flow, now, state.timeout(table.timeouts()));
        let verdict = self.flow_packet(packet, id, Direction::Original, frame);
        if verdict.is_err() {
            self.remove_flow(id);
        }
        verdict
    }

    /// The port of `address` that a masqueraded flow is seen to come from.
    fn external_port(
        &mut self,
        packet: &Packet<'_>,
        original: Tuple,
        address: Ipv4Addr,
    ) -> Result<u16, DropReason> {
        let (table, client) = (packet.table, Socket::client_of(original));
        // A service's port is never lent out: its clients' packets would go to a server's own
        // connection.
        let is_service = |port| match packet.headers.transport {
            Transport::Tcp(_) => table.is_service_port(Proto::Tcp, address, port),
            Transport::Udp(_) => table.is_service_port(Proto::Udp, address, port),
            Transport::Icmp(_) | Transport::Other => false,
        };
        // Nor are those of the router's own connections.
        let own = matches!(table.local(address), Some(Local::Own(_)));
        let is_reserved = |port| own && OWN_PORTS.contains(&port) || is_service(port);
        let port = self.masquerade.map(client, address, is_reserved);
        let port = port.ok_or(DropReason::PortsExhausted)?;
        let answer = Tuple { destination: address, destination_port: port, ..original.reversed() };
        if self.flows.is_taken(answer) {
            self.masquerade.unmap(client, Socket::seen_in(answer));
            return Err(DropReason::PortsExhausted);
        }
        Ok(port)
    }

    /// Routes a packet without remembering it.
    fn pass(
        &mut self,
        packet: &Packet<'_>,
        hop: NextHop,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let router = packet.network.own_address().unwrap_or(Ipv4Addr::UNSPECIFIED);
        self.check_ttl(packet, router, frame)?;
        let neighbour = self.neighbour(hop, packet.now)?;
        self.check_way(packet, neighbour, router, frame)?;
        self.leave(packet, neighbour, router, frame, Waiting::Own)
    }

    /// The TTL must survive the hop (RFC 1812 section 5.3.1); its sender is told by `router`.
    pub(super) fn check_ttl(
        &mut self,
        packet: &Packet<'_>,
        router: Ipv4Addr,
        frame: &Frame,
    ) -> Result<(), DropReason> {
        if packet.headers.ttl > 1 {
            return Ok(());
        }
        let error = IcmpError::TimeExceeded;
        self.report_error(packet.table, error, router, frame, &packet.headers, packet.now);
        Err(DropReason::TtlExceeded)
    }

    /// The packet must fit the next network, and the next hop must answer or be worth waiting for.
    pub(super) fn check_way(
        &mut self,
        packet: &Packet<'_>,
        neighbour: u32,
        router: Ipv4Addr,
        frame: &mut Frame,
    ) -> Result<(), DropReason> {
        let Packet { table, headers, now, .. } = *packet;
        let egress = table.network(self.neighbours.get(neighbour).network);
        let is_too_long = packet.longest() > usize::from(egress.mtu);
        if is_too_long && headers.dont_fragment {
            let error = IcmpError::FragmentationNeeded(egress.mtu);
            decrement_ttl(frame.bytes_mut());
            self.report_error(table, error, router, frame, &headers, now);
            return Err(DropReason::TooBig);
        }
        let reason = match self.way(table, neighbour, now) {
            // What has to be cut cannot wait: its pieces would be too many.
            Way::Wait if is_too_long => DropReason::HoldFull,
            Way::Open | Way::Wait => return Ok(()),
            Way::Closed(reason) => reason,
        };
        if reason == DropReason::NeighbourFailed {
            let error = IcmpError::HostUnreachable;
            self.report_error(table, error, router, frame, &headers, now);
        }
        Err(reason)
    }

    /// The last touches of a forwarded packet, and out; in pieces where it does not fit.
    pub(super) fn leave(
        &mut self,
        packet: &Packet<'_>,
        neighbour: u32,
        recorded: Ipv4Addr,
        frame: &mut Frame,
        waiting: Waiting,
    ) -> Result<Verdict, DropReason> {
        let headers = &packet.headers;
        if headers.header_len > 20 {
            record_route(frame.bytes_mut(), headers, recorded);
        }
        self.pass_on(packet, neighbour, frame, waiting)
    }

    /// As [`Self::leave`], with nothing of the IP packet touched but the TTL.
    pub(super) fn pass_on(
        &mut self,
        packet: &Packet<'_>,
        neighbour: u32,
        frame: &mut Frame,
        waiting: Waiting,
    ) -> Result<Verdict, DropReason> {
        let table = packet.table;
        decrement_ttl(frame.bytes_mut());
        let egress = table.network(self.neighbours.get(neighbour).network);
        if packet.longest() > usize::from(egress.mtu) {
            return self.split(packet, neighbour, frame);
        }
        self.deliver(table, neighbour, frame, waiting)
    }
}

/// Whether this opens a connection to a server's port that a service gives out: its answers would
/// look like those of the service.
fn goes_past_service(packet: &Packet<'_>) -> bool {
    let Packet { table, headers, .. } = packet;
    match headers.transport {
        Transport::Tcp(segment) => {
            segment.syn
                && !segment.ack
                && !segment.rst
                && table.may_be_server(Proto::Tcp, headers.destination, segment.destination)
        }
        Transport::Udp(udp) => {
            table.may_be_server(Proto::Udp, headers.destination, udp.destination)
                && !table.is_server(Proto::Udp, headers.source, udp.source)
        }
        Transport::Icmp(_) | Transport::Other => false,
    }
}
