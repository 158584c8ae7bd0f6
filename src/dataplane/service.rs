//! New flows: which service, which server, which reply tuple, and whether there is room.

use super::flow::{Direction, Flow, State, Tuple};
use super::ip::Packet;
use super::masquerade::Socket;
use super::schedule::{Aim, Candidate};
use super::{Dataplane, DropReason, Event, Verdict};
use crate::addr::{NetworkId, OWN_PORTS, Proto, ServerId};
use crate::frame::{Frame, IcmpError, TCP, Transport, UDP};
use crate::table::{Local, Method, Server, Service, Table};
use crate::time::{Duration, Instant};

/// Ports tried where one's own is somebody else's.
const PORT_TRIES: u32 = 64;
/// The first port that is handed out instead of a client's own.
const FIRST_PORT: u16 = 1024;
/// Active FTP's data port: IPVS never schedules what comes from it (`ip_vs_core.c`).
const FTP_DATA: u16 = 20;
/// Expired flows looked at per turn.
const EXPIRIES: u32 = 512;
/// How often a full table is told about.
const TOLD_INTERVAL: Duration = Duration::from_secs(10);

impl Dataplane {
    /// A TCP or UDP packet to a virtual IP that belongs to no flow.
    pub(super) fn connect(
        &mut self,
        packet: &Packet<'_>,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let (table, headers, now) = (packet.table, &packet.headers, packet.now);
        let original = packet.tuple().ok_or(DropReason::ProtocolUnserved)?;
        let proto = if original.protocol == TCP { Proto::Tcp } else { Proto::Udp };
        if self.ftp.awaits()
            && let Transport::Tcp(segment) = headers.transport
            && (segment.syn, segment.ack, segment.rst) == (true, false, false)
            && let Some(verdict) = self.ftp_passive(packet, original, frame)
        {
            return verdict;
        }
        let service = table.service(proto, original.destination, original.destination_port);
        let Some(service) = service.filter(|_| original.source_port != FTP_DATA) else {
            self.refuse(table, frame, headers, now);
            return Err(DropReason::Unserved);
        };
        if let Transport::Tcp(segment) = headers.transport
            && (!segment.syn || segment.rst)
        {
            self.refuse(table, frame, headers, now);
            return Err(DropReason::NoFlow);
        }
        self.check_ttl(packet, original.destination, frame)?;
        let known = self.remembered(table, service, original, now);
        let Some(server) = known.or_else(|| self.choose(table, original, service, now)) else {
            let error = IcmpError::PortUnreachable;
            self.report_error(table, error, original.destination, frame, headers, now);
            return Err(DropReason::NoServer);
        };
        // A packet that goes nowhere must not take another flow's place.
        let hop = table.next_hop(server.address).ok_or(DropReason::NoRoute)?;
        let neighbour = self.neighbour(hop, now)?;
        if let Err(reason) = self.check_way(packet, neighbour, original.destination, frame) {
            if reason == DropReason::NeighbourFailed {
                self.note_unanswered((service.id, server.id), original.source, now);
            }
            return Err(reason);
        }
        let id = self.open(packet, original, (service, server), hop.network)?;
        let neighbour = self.neighbours.reference(neighbour);
        self.flows.get_mut(id).hops[Direction::Original as usize] = neighbour;
        let verdict = self.flow_packet(packet, id, Direction::Original, frame);
        if verdict.is_err() {
            // Nothing stays of a flow whose first packet went nowhere.
            self.remove_flow(id);
            return verdict;
        }
        for figure in self.figures.both(Some((service.id, server.id))) {
            figure.traffic.flows += 1;
        }
        // Nobody is to come back to a fallback.
        if service.fallback.as_ref().is_none_or(|fallback| fallback.id != server.id) {
            self.remember(service, server, id, now);
        }
        if self.flows.get(id).is_one_packet() {
            self.note_passing(server.id);
            // Nothing will be found by it, unless more of the datagram comes.
            if service.method == Method::Direct && !headers.is_fragment() {
                self.remove_flow(id);
            }
        }
        verdict
    }

    /// The server that a new flow with this tuple is given, persistence aside. The scheduler goes on as if
    /// it had come: for who asks what would be, and what that takes.
    pub fn schedule(&mut self, table: &Table, original: Tuple, now: Instant) -> Option<ServerId> {
        let proto = if original.protocol == TCP { Proto::Tcp } else { Proto::Udp };
        let service = table.service(proto, original.destination, original.destination_port)?;
        self.choose(table, original, service, now).map(|server| server.id)
    }

    /// The server for a new flow; the fallback where no other one may take it.
    fn choose<'t>(
        &mut self,
        table: &Table,
        original: Tuple,
        service: &'t Service,
        now: Instant,
    ) -> Option<&'t Server> {
        let (figures, thresholds) = (&self.figures, &self.thresholds);
        let neighbours = &self.neighbours;
        let outlook = self.standings.outlook(neighbours, now);
        let mut candidate = |server: &Server| {
            let known = self.standings.candidate(table, service, server, neighbours, now);
            let is_full = thresholds.is_full(server.id);
            Candidate { load: figures.server(server.id).load, is_full, ..known }
        };
        let Tuple { source: client, source_port: client_port, destination, .. } = original;
        let aim = Aim { client, client_port, destination, now, outlook };
        let chosen = self.schedulers.choose(service, &aim, &mut candidate);
        chosen.or_else(|| {
            service.fallback.as_ref().filter(|server| server.is_up && !candidate(server).is_out)
        })
    }

    /// Stores a new flow, without a packet counted yet.
    fn open(
        &mut self,
        packet: &Packet<'_>,
        original: Tuple,
        (service, server): (&Service, &Server),
        server_network: NetworkId,
    ) -> Result<u32, DropReason> {
        let table = packet.table;
        let direct = service.method == Method::Direct;
        // A server that called would be answered by its neighbour directly, in the wrong words.
        let hairpin = !direct
            && server_network == packet.network.id
            && packet.network.joins(original.source, server.address);
        let caller = if hairpin {
            let address = table.hairpin_address(packet.network, server.address);
            address.ok_or(DropReason::NoRoute)?
        } else {
            original.source
        };
        let answer = Tuple {
            source: server.address,
            destination: caller,
            source_port: server.port_for(original.destination_port),
            destination_port: original.source_port,
            protocol: original.protocol,
        };
        let is_one_packet = service.balance.one_packet && original.protocol == UDP;
        let owner = Some((service.id, server.id));
        if is_one_packet && !direct {
            // One record is enough for all datagrams of a client that a server has to answer.
            if let Some((id, Direction::Reply)) = self.live_flow(answer, packet.now)
                && let flow = self.flows.get(id)
                && (flow.original, flow.owner()) == (original, owner)
                && flow.is_one_packet()
            {
                return Ok(id);
            }
        }
        // Answers that go another way are mistaken for nobody's.
        let own = hairpin && matches!(table.local(caller), Some(Local::Own(_)));
        let reply = if direct { Some(answer) } else { self.free_reply(answer, own) };
        let reply = reply.ok_or(DropReason::PortsExhausted)?;
        self.make_room(packet.now)?;
        let networks: [NetworkId; 2] = [packet.network.id, server_network];
        let state = State::initial(original.protocol);
        let mut flow = Flow::new(original, reply, state, owner, networks, table.generation());
        flow.direct = direct;
        if is_one_packet {
            flow.be_one_packet();
        }
        let timeout = self.timeout(table, owner, state);
        let id = self.flows.insert(flow, packet.now, timeout);
        if is_one_packet {
            for figure in self.figures.both(owner) {
                figure.datagrams += 1;
            }
        } else {
            self.flow_came(owner, state);
        }
        if service.lifecycle.helper == Some(crate::table::Helper::Ftp) && !hairpin {
            self.watch_ftp(id);
        }
        Ok(id)
    }

    /// Takes out flows whose time is over.
    pub(super) fn expire_flows(&mut self, now: Instant) {
        for _ in 0..EXPIRIES {
            match self.flows.next_woken(now) {
                Some((id, true)) => self.expire_flow(id, now),
                // The peer's copy was to live only so long.
                Some((id, false)) => self.note_change(id),
                None => break,
            }
        }
    }

    /// A flow's time is over.
    pub(super) fn expire_flow(&mut self, id: u32, now: Instant) {
        let flow = self.flows.get(id);
        // Those of a backup may have been answered elsewhere.
        if self.is_active()
            && let Some(owner) = flow.owner()
            && flow.state == State::SynRecv
            && flow.packets[1] == 0
            && !flow.copied
        {
            let client = flow.original.source;
            self.note_unanswered(owner, client, now);
        }
        self.remove_flow(id);
    }

    /// Takes a flow out and off its server's load.
    pub(super) fn remove_flow(&mut self, id: u32) {
        self.note_gone(id);
        let flow = self.flows.get(id);
        if flow.helper.is_ftp() {
            self.ftp.forget(id);
        }
        let flow = self.flows.get(id);
        let (owner, state, is_one_packet) = (flow.owner(), flow.state, flow.is_one_packet());
        if flow.is_remembered() {
            self.release_client(id);
        }
        let flow = self.flows.get(id);
        if flow.is_masqueraded() {
            self.masquerade.unmap(Socket::client_of(flow.original), Socket::seen_in(flow.reply));
        }
        self.flows.remove(id);
        if is_one_packet {
            for figure in self.figures.both(owner) {
                figure.datagrams = figure.datagrams.saturating_sub(1);
            }
        } else {
            self.flow_left(owner, state);
        }
        if let Some((service, server)) = owner {
            self.settle(service, server);
        }
    }

    /// `answer`, with another port on the client's side where a flow's packets look like that
    /// already: two virtual services may share a server, and a client port. `own`: it goes to an
    /// address of the router's own, which has connections of its own.
    pub(super) fn free_reply(&mut self, answer: Tuple, own: bool) -> Option<Tuple> {
        let at = |port| Tuple { destination_port: port, ..answer };
        let is_free = |dataplane: &Self, port: u16| {
            !(own && OWN_PORTS.contains(&port) || dataplane.flows.is_taken(at(port)))
        };
        self.free_port(answer.destination_port, is_free).map(at)
    }

    /// `own`, or another port that is free, drawn.
    pub(super) fn free_port(
        &mut self,
        own: u16,
        is_free: impl Fn(&Self, u16) -> bool,
    ) -> Option<u16> {
        if is_free(self, own) {
            return Some(own);
        }
        (0..PORT_TRIES).find_map(|_| {
            let port = FIRST_PORT + self.client_ports.below(u16::MAX - FIRST_PORT + 1);
            is_free(self, port).then_some(port)
        })
    }

    /// Makes sure that one more flow fits.
    pub(super) fn make_room(&mut self, now: Instant) -> Result<(), DropReason> {
        if self.flows.len() < self.flows.capacity() {
            return Ok(());
        }
        let Some(victim) = self.flows.victim() else {
            if self.table_full_told.is_none_or(|told| now >= told + TOLD_INTERVAL) {
                self.table_full_told = Some(now);
                self.events.push(Event::TableFull { flows: self.flows.len() });
            }
            return Err(DropReason::TableFull);
        };
        self.remove_flow(victim);
        Ok(())
    }
}
