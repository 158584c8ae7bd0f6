//! Two segments with a learning switch each, clients on one and servers on the other, two routers
//! between them; the clock, and what happens to frames on the way.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use tapvs::addr::{MacAddr, Role};
use tapvs::ha::Reason;
use tapvs::time::{Duration, Instant};

use crate::caller::{Call, Caller};
use crate::ftp::{FtpClient, FtpServer};
use crate::host::Host;
use crate::node::{ADVERTS, Node, Shape};
use crate::program::{Program, Server};
use crate::station::{Habits, Station};
use crate::support::random::Random;
use crate::support::{INNER_VIP, RST, Read, VIP, line, server_ip, server_mac};
use crate::watch::Watch;

pub(crate) const START: Instant = Instant::from_micros_const(1_000_000_000);
/// What a frame takes from one port to another.
pub(crate) const DELAY: Duration = Duration::from_micros(200);
const LATE: usize = 2_000;
/// Real servers 11 to 13.
const SERVERS: u8 = 3;
const CLIENTS: u8 = 2;
/// Streams that one server may be given.
const STREAMS: usize = 24;
/// The ports of a switch: the routers, then stations. For cuts all stations are one.
const STATION: usize = 2;

/// What wires do to frames, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) loss: usize,
    pub(crate) twice: usize,
    pub(crate) late: usize,
    pub(crate) damaged: usize,
    /// Segments of TCP are damaged where it shows only, behind their header: a bent one changes flows,
    /// as a forged one would.
    pub(crate) spares_headers: bool,
}

pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) shape: Shape,
    speaks_ftp: bool,
    pub(crate) random: Random,
    pub(crate) nodes: [Option<Node>; 2],
    pub(crate) stations: Vec<Station>,
    /// By segment: where each MAC was heard last.
    pub(crate) places: [BTreeMap<MacAddr, usize>; 2],
    /// On their way: when they arrive, in which order; where, and by which port.
    under_way: BTreeMap<(Instant, u64), (usize, usize, Vec<u8>)>,
    sent: u64,
    pub(crate) faults: Faults,
    /// By segment, from a port to a port: no frame passes.
    pub(crate) cut: [[[bool; 3]; 3]; 2],
    /// By router and segment: its link is down, and it knows.
    pub(crate) down: [[bool; 2]; 2],
    /// What is to happen later.
    pub(crate) plan: Vec<(Instant, Planned)>,
    pub(crate) watch: Watch,
    /// What happened, for comparison and for a failure's sake.
    pub(crate) story: String,
    /// Of everything that the routers sent, and when.
    pub(crate) output: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Planned {
    LinkUp(usize, usize),
}

impl Net {
    pub(crate) fn new(shape: Shape, seed: u64) -> Self {
        Self::of(shape, seed, false)
    }

    /// NAT, between clients and servers that speak FTP.
    pub(crate) fn ftp(seed: u64) -> Self {
        Self::of(Shape::Nat, seed, true)
    }

    fn of(shape: Shape, seed: u64, speaks_ftp: bool) -> Self {
        let mut random = Random::new(seed);
        let mut net = Self {
            now: START,
            shape,
            speaks_ftp,
            stations: stations(shape, speaks_ftp, &mut random),
            random,
            nodes: [None, None],
            places: [BTreeMap::new(), BTreeMap::new()],
            under_way: BTreeMap::new(),
            sent: 0,
            faults: Faults::default(),
            cut: [[[false; 3]; 3]; 2],
            down: [[false; 2]; 2],
            plan: Vec::new(),
            watch: Watch::new(shape),
            story: String::new(),
            output: 0xcbf2_9ce4_8422_2325,
        };
        net.note(format_args!("seed {seed}"));
        net.start(0);
        net.start(1);
        net
    }

    pub(crate) fn start(&mut self, number: usize) {
        let mut node =
            Node::new((self.shape, self.speaks_ftp), number, self.random.next(), self.now);
        for segment in 0..2 {
            if self.down[number][segment] {
                node.ha.handle_link(
                    node.router.table.networks()[self.network(segment)].id,
                    false,
                    self.now,
                );
            }
        }
        self.nodes[number] = Some(node);
    }

    /// The position of the network that a segment belongs to.
    pub(crate) const fn network(&self, segment: usize) -> usize {
        match self.shape {
            Shape::Nat => segment,
            Shape::Bridged => 0,
        }
    }

    pub(crate) fn note(&mut self, what: impl std::fmt::Display) {
        let _ = writeln!(self.story, "{} {what}", (self.now - START).total_micros());
    }

    /// The only router that is active, if there is one.
    pub(crate) fn only_active(&self) -> Option<usize> {
        let is_active =
            |node: &Option<Node>| node.as_ref().is_some_and(|node| node.ha.role() == Role::Active);
        match [is_active(&self.nodes[0]), is_active(&self.nodes[1])] {
            [true, false] => Some(0),
            [false, true] => Some(1),
            _ => None,
        }
    }

    /// Tells a router that its link is down, or up, as netlink does.
    pub(crate) fn set_link(&mut self, number: usize, segment: usize, is_up: bool) {
        self.down[number][segment] = !is_up;
        self.note(format_args!(
            "router {number}, segment {segment}: {}",
            if is_up { "up" } else { "down" }
        ));
        if !is_up {
            self.places[segment].retain(|_, place| *place != number);
        }
        let is_whole = match self.shape {
            Shape::Nat => is_up,
            Shape::Bridged => self.down[number] == [false; 2],
        };
        let (now, network) = (self.now, self.network(segment));
        if let Some(node) = &mut self.nodes[number] {
            let id = node.router.table.networks()[network].id;
            node.ha.handle_link(id, is_whole, now + node.ahead);
        }
    }

    /// Runs until `end`.
    pub(crate) fn run(&mut self, end: Instant) {
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < 300_000, "it never comes to rest\n{}", self.story);
            let now = self.now;
            let arrival = self.under_way.keys().next().map(|(at, _)| *at);
            let nodes = self.nodes.iter().flatten().filter_map(Node::due);
            let stations = self.stations.iter_mut().filter_map(|station| station.next_poll(now));
            let planned = self.plan.iter().map(|(at, _)| *at);
            let next = nodes.chain(arrival).chain(stations).chain(planned).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = now.max(next);
            self.turn();
        }
        self.now = end;
    }

    fn turn(&mut self) {
        let now = self.now;
        while let Some(at) = self.plan.iter().position(|(at, _)| *at <= now) {
            let (_, Planned::LinkUp(number, segment)) = self.plan.swap_remove(at);
            self.set_link(number, segment, true);
        }
        let mut polled = vec![false; self.stations.len()];
        while let Some(entry) = self.under_way.first_entry().filter(|e| e.key().0 <= now) {
            let (segment, port, frame) = entry.remove();
            match port.checked_sub(STATION) {
                Some(station) => {
                    if self.stations[station].receive(&frame, now) {
                        self.watch.delivered(&frame, &self.stations, station, &self.story);
                        polled[station] = true;
                    }
                }
                None => {
                    if let Some(node) = &mut self.nodes[port] {
                        node.receive(segment, frame);
                    }
                }
            }
        }
        for number in 0..2 {
            self.turn_node(number);
        }
        for (station, has_frame) in polled.into_iter().enumerate() {
            let is_due = self.stations[station].next_poll(now).is_some_and(|due| due <= now);
            if is_due || has_frame {
                self.poll(station);
            }
        }
    }

    fn turn_node(&mut self, number: usize) {
        let now = self.now;
        let Some(node) = self.nodes[number].as_mut() else { return };
        if node.due().is_none_or(|due| due > now) {
            return;
        }
        let before = node.router.dataplane.role();
        let had_all = node.is_complete();
        let (out, reason) = node.turn(now);
        let role = node.ha.role();
        assert_eq!(role, node.router.dataplane.role());
        if role != before {
            self.note(format_args!("router {number} is {role}"));
            if role == Role::Active && !had_all {
                self.watch.flows_lost(now);
            }
            self.role_changed(number, role, reason);
        }
        self.watch.roles(self.active_count(), now);
        // What came in before the change of role is answered in the role before.
        let spoke = if before == Role::Active { before } else { role };
        for (link, frame) in out {
            self.node_sent((number, spoke), link.index(), frame);
        }
        self.watch.look(now, &self.story);
    }

    fn active_count(&self) -> usize {
        self.nodes.iter().flatten().filter(|node| node.ha.role() == Role::Active).count()
    }

    /// D5: who stays active after another gave way to it announces everything within an interval.
    fn role_changed(&mut self, number: usize, role: Role, reason: Option<Reason>) {
        let other = 1 - number;
        let is_whole = self.faults.loss == 0
            && self.faults.damaged == 0
            && self.cut == [[[false; 3]; 3]; 2]
            && self.down == [[false; 2]; 2];
        let Some(winner) = self.nodes[other].as_mut() else { return };
        let recently = winner.router.now;
        winner.contentions.retain(|at| recently < *at + Duration::from_secs(5));
        let is_free = winner.contentions.len() < 4 && winner.paused_until <= self.now;
        let gave_way = role == Role::Backup && matches!(reason, Some(Reason::Outranked { .. }));
        if is_whole && is_free && gave_way && winner.ha.role() == Role::Active {
            self.watch.expect_announcements(other, self.now + ADVERTS + DELAY * 4);
        }
    }

    pub(crate) fn node_sent(
        &mut self,
        (number, role): (usize, Role),
        segment: usize,
        frame: Vec<u8>,
    ) {
        self.watch.node_sent((number, role), segment, &frame, self.now);
        if Read::frame(&frame).is_some_and(|p| p.protocol == 6 && p.flags() & RST != 0) {
            self.note(format_args!("router {number} lets out {}", line(&frame)));
        }
        let micros = self.now.total_micros().to_be_bytes();
        let place = [u8::try_from(number * 2 + segment).unwrap()];
        for byte in micros.iter().chain(&frame).chain(&place) {
            self.output = (self.output ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.send(segment, number, frame);
    }

    fn poll(&mut self, station: usize) {
        let segment = self.stations[station].link;
        for frame in self.stations[station].poll(self.now) {
            self.watch.station_sent(&frame, self.now);
            self.send(segment, STATION + station, frame);
        }
    }

    /// A frame enters a switch.
    fn send(&mut self, segment: usize, from: usize, frame: Vec<u8>) {
        if from < STATION && self.down[from][segment] {
            return;
        }
        let port = from.min(STATION);
        let cut = self.cut[segment][port];
        if (0..=STATION).all(|to| to == port || cut[to]) {
            return; // The switch does not hear it either.
        }
        let source = MacAddr::from_slice(&frame[6..]);
        let to = MacAddr::from_slice(&frame);
        self.places[segment].insert(source, from);
        let place = self.places[segment].get(&to).copied().filter(|_| !to.is_multicast());
        let here = (0..self.stations.len()).filter(|n| self.stations[*n].link == segment);
        let ports: Vec<_> = (0..STATION).chain(here.map(|n| STATION + n)).collect();
        for port in ports {
            if port != from && place.is_none_or(|place| place == port) {
                self.carry(segment, (from, port), &frame);
            }
        }
    }

    fn carry(&mut self, segment: usize, (from, to): (usize, usize), frame: &[u8]) {
        let is_down = to < STATION && self.down[to][segment];
        if is_down || self.cut[segment][from.min(STATION)][to.min(STATION)] {
            return;
        }
        let faults = self.faults;
        let copies = 1 + usize::from(self.random.percent(faults.twice));
        for _ in 0..copies {
            if self.random.percent(faults.loss) {
                continue;
            }
            let mut delay = DELAY;
            if self.random.percent(faults.late) {
                delay += Duration::from_micros(self.random.below(LATE) as u64);
            }
            let mut frame = frame.to_vec();
            // Once on its way, because two errors may cancel out.
            if to < STATION && self.random.percent(faults.damaged) {
                self.damage(&mut frame);
            }
            self.sent += 1;
            self.under_way.insert((self.now + delay, self.sent), (segment, to, frame));
        }
    }

    /// One bit of what a checksum covers.
    fn damage(&mut self, frame: &mut [u8]) {
        if frame[12..14] != [8, 0] {
            return;
        }
        let is_tcp = frame[23] == 6;
        let from = if is_tcp && self.faults.spares_headers { 54 } else { 34 };
        if frame.len() > from {
            let at = from + self.random.below(frame.len() - from);
            frame[at] ^= 1 << self.random.below(8);
        }
    }

    /// One more connection of each client.
    pub(crate) fn open(&mut self) {
        for station in 0..self.stations.len() {
            for host in &mut self.stations[station].hosts {
                host.call(80);
            }
            self.poll(station);
        }
    }

    /// Everybody with a connection says something.
    pub(crate) fn talk(&mut self, percent: usize) {
        for station in 0..self.stations.len() {
            let random = &mut self.random;
            let hosts = self.stations[station].hosts.iter_mut();
            for call in hosts.filter_map(Host::calls_mut).flatten() {
                if !call.broke && random.percent(percent) {
                    let words = 1 + random.below(600);
                    call.say(&random.bytes(words));
                }
            }
            self.poll(station);
        }
    }

    /// Each client fetches so many files more by FTP.
    pub(crate) fn fetch(&mut self, files: usize) {
        for station in 0..self.stations.len() {
            for client in self.stations[station].hosts.iter_mut().filter_map(Host::ftp_mut) {
                client.left += files;
            }
            self.poll(station);
        }
    }

    /// What clients of FTP have done.
    pub(crate) fn ftp_clients(&self) -> impl Iterator<Item = &FtpClient> {
        self.stations.iter().flat_map(|station| &station.hosts).filter_map(Host::ftp)
    }

    pub(crate) fn calls(&self) -> impl Iterator<Item = &Call> {
        self.stations.iter().flat_map(|station| &station.hosts).filter_map(Host::calls).flatten()
    }

    /// One router is active, and switches and stations know where. Its number.
    pub(crate) fn settled(&self) -> Result<usize, String> {
        let Some(active) = self.only_active() else {
            let roles = self.nodes.iter().map(|node| node.as_ref().map(|node| node.ha.role()));
            return Err(format!("the roles are {:?}", roles.collect::<Vec<_>>()));
        };
        for segment in 0..2 {
            let virtual_mac = self.shape.virtual_mac(segment);
            let place = self.places[segment].get(&virtual_mac);
            // Where nobody asks for a virtual IP nobody need know, but no switch may be misled.
            let is_asked = self.shape.shared().iter().any(|(at, _)| *at == segment);
            if place.is_some_and(|place| *place != active) || place.is_none() && is_asked {
                return Err(format!("switch {segment} has it at {place:?}, not {active}"));
            }
        }
        for (segment, address) in self.shape.shared() {
            for station in self.stations.iter().filter(|station| station.link == segment) {
                let cached = station.cached(address, self.now);
                if cached.is_some_and(|mac| mac != self.shape.virtual_mac(segment)) {
                    return Err(format!("{} has {address} at {cached:?}", station.mac));
                }
            }
        }
        Ok(active)
    }
}

fn stations(shape: Shape, speaks_ftp: bool, random: &mut Random) -> Vec<Station> {
    let mut stations = Vec::new();
    for n in 50..50 + CLIENTS {
        let address = Ipv4Addr::new(203, 0, 113, n);
        let mac = MacAddr([2, 0, 0, 0, 3, n]);
        let program = |_: &mut _, _: &mut _| match speaks_ftp {
            true => Program::FtpClient(FtpClient::new(address.octets(), 0)),
            false => Program::Caller(Caller::default()),
        };
        let host = Host::bare(&[address], random, program);
        let habits = habits(random);
        stations.push(Station::new(
            (mac, 0),
            &[address],
            None,
            vec![(vec![address], host)],
            habits,
        ));
    }
    for n in 11..11 + SERVERS {
        // Taught to be silent about the virtual IP, where it has it.
        let (gateway, port, address) = match shape {
            Shape::Nat => (Some(INNER_VIP), 8_080, server_ip(n)),
            Shape::Bridged => (None, 80, VIP),
        };
        let host = Host::bare(&[address], random, |sockets, _| match speaks_ftp {
            true => Program::FtpServer(FtpServer::new(sockets, n, STREAMS)),
            false => Program::Server(Server::new(sockets, port, n, STREAMS)),
        });
        let (own, habits) = ([server_ip(n)], habits(random));
        let hosts = vec![(vec![address], host)];
        let mut station = Station::new((server_mac(n), 1), &own, gateway, hosts, habits);
        if shape == Shape::Nat {
            station.near = &[[10, 0, 0]];
        }
        stations.push(station);
    }
    stations
}

/// Entries age quickly, so that there is always somebody who asks.
fn habits(random: &mut Random) -> Habits {
    Habits {
        age: Duration::from_millis(500 + random.below(4_000) as u64),
        lock: Duration::from_secs(1),
        asks_on: random.percent(50),
    }
}
