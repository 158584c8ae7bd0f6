//! Direct routing in memory: servers that hold the virtual IP and leak it, switches, the router
//! between the switches (or beside the only one), the clock, and what goes wrong.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use tapvs::addr::{LinkId, MacAddr};
use tapvs::config::Config;
use tapvs::dataplane::Verdict;
use tapvs::time::{Duration, Instant};

use crate::host::Host;
use crate::program::{Client, Program, STREAMS, Server};
use crate::station::{Habits, Station};
use crate::support::random::Random;
use crate::support::{
    GATEWAY, GATEWAY_IP, NEAR, NEAR_IP, Router, VIP, server_ip, server_mac, who_has,
};
use crate::switch::{Port, Switch};
use crate::trouble::Trouble;
use crate::watcher::Watcher;
use crate::world::{Faults, reweigh};

/// Real servers 11 to 13.
pub(crate) const SERVERS: usize = 3;
/// With the clients beside the router and the gateway.
pub(crate) const STATIONS: usize = SERVERS + 3;
/// A frame on the cable between two switches takes this long: circles turn, but not for ever.
const CABLE: Duration = Duration::from_millis(5);
/// How long the wires are bad.
const QUIET: Duration = Duration::from_secs(25);
const FAR: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(198, 51, 100, 8)];
const SECOND_NEAR: (MacAddr, Ipv4Addr) =
    (MacAddr([2, 0, 0, 0, 3, 51]), Ipv4Addr::new(203, 0, 113, 51));

/// A frame on its way. Copies of what a station sent once have one number.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) number: u64,
    pub(crate) bytes: Vec<u8>,
    damaged: bool,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Router(usize),
    Station(usize),
    /// By the cable.
    Switch(usize),
}

/// A link's wire between router and switch.
#[derive(Clone, Copy, Debug)]
struct Wire {
    to_router: bool,
    from_router: bool,
}

pub(crate) struct Lan {
    pub(crate) router: Router,
    pub(crate) stations: Vec<Station>,
    pub(crate) watcher: Watcher,
    switches: Vec<Switch>,
    links: Vec<Wire>,
    cable: bool,
    wires: BTreeMap<(Instant, u64), (Place, Sent)>,
    frames: u64,
    plan: VecDeque<(Instant, Trouble)>,
    faults: Faults,
    /// No frame is lost or late from then on.
    quiet: Instant,
    random: Random,
    output: u64,
    seed: u64,
}

impl Lan {
    /// Clients and gateway behind the first link of `config`, servers behind the others, if any.
    pub(crate) fn new(
        seed: u64,
        config: Config,
        faults: Faults,
        plan: Vec<(Duration, Trouble)>,
    ) -> Self {
        let mut random = Random::new(seed);
        let links = config.networks[0].links.len();
        let mut router = Router::cold(config, 1_000);
        router.answers_arp = false;
        let start = router.now;
        let plan = plan.into_iter().map(|(after, trouble)| (start + after, trouble));
        let mut lan = Self {
            stations: stations(links, &mut random),
            watcher: Watcher::new(start, start + QUIET, links > 1),
            switches: (0..links).map(|_| Switch::default()).collect(),
            links: vec![Wire { to_router: true, from_router: true }; links],
            cable: false,
            router,
            wires: BTreeMap::new(),
            frames: 0,
            plan: plan.collect(),
            faults,
            quiet: start + QUIET,
            random,
            output: 0xcbf2_9ce4_8422_2325,
            seed,
        };
        lan.router_sends();
        lan
    }

    /// Runs until everything has happened and is transferred, at most for `most`.
    pub(crate) fn run(&mut self, most: Duration) {
        let end = self.router.now + most;
        let mut turns = 0;
        for station in 0..self.stations.len() {
            self.poll_station(station);
        }
        while (self.left() > 0 || !self.plan.is_empty()) && self.router.now < end {
            turns += 1;
            assert!(turns < 3_000_000, "seed {}: it never comes to rest", self.seed);
            let now = self.router.now;
            let wire = self.wires.keys().next().map(|(at, _)| *at);
            let timer = self.router.dataplane.poll_timeout();
            let trouble = self.plan.front().map(|(at, _)| *at);
            let polls = self.stations.iter_mut().filter_map(|station| station.next_poll(now));
            let next = polls.chain(wire).chain(timer).chain(trouble).min().unwrap_or(end);
            self.router.now = next.max(now).min(end);
            self.turn();
        }
    }

    pub(crate) fn assert_complete(&self) {
        let hosts: Vec<_> = self.hosts().map(Host::describe).collect();
        assert_eq!(self.left(), 0, "seed {}, {:?}: {hosts:#?}", self.seed, self.faults);
    }

    /// Connections that were made again.
    pub(crate) fn retries(&self) -> usize {
        self.hosts().map(Host::retries).sum()
    }

    /// A hash of everything that the router sent, and when.
    pub(crate) const fn output(&self) -> u64 {
        self.output
    }

    /// G13: with the network silent, every flow ends and nothing waits.
    pub(crate) fn rest(&mut self) {
        self.router.answers_arp = true;
        self.router.advance(Duration::from_secs(1_000));
        let report = self.router.report();
        assert_eq!((report.flows, report.waiting), (0, 0), "seed {}", self.seed);
    }

    fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.stations.iter().flat_map(|station| &station.hosts)
    }

    fn left(&self) -> usize {
        self.hosts().map(Host::left).sum()
    }

    /// Everything that is due now.
    fn turn(&mut self) {
        let now = self.router.now;
        while let Some((_, trouble)) = self.plan.pop_front_if(|(at, _)| *at <= now) {
            self.happens(trouble);
        }
        while let Some(entry) = self.wires.first_entry().filter(|entry| entry.key().0 <= now) {
            let (place, sent) = entry.remove();
            self.arrives(place, sent);
        }
        if self.router.dataplane.poll_timeout().is_some_and(|due| due <= now) {
            self.router.dataplane.handle_timeout(&self.router.table, now);
            self.router_sends();
            self.router.check();
            self.watcher.flows(&self.router);
        }
        self.watcher.misled(now);
        for station in 0..self.stations.len() {
            if self.stations[station].next_poll(now).is_some_and(|due| due <= now) {
                self.poll_station(station);
            }
        }
    }

    fn happens(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Move { server, link, says_so } => {
                self.switches.iter_mut().for_each(|switch| switch.forget(Port::Station(server)));
                self.stations[server].link = link;
                if says_so {
                    let (address, mac) = (self.stations[server].address(), server_mac_of(server));
                    self.station_sent(server, who_has(address, address, mac).frame());
                }
            }
            Trouble::Cut { link, to_router, from_router } => {
                self.links[link] = Wire { to_router: !to_router, from_router: !from_router };
                self.switches[link].forget(Port::Router);
            }
            Trouble::Mend(link) => {
                self.links[link] = Wire { to_router: true, from_router: true };
                self.circle_may_close();
            }
            Trouble::Cable(plugged) => {
                self.cable = plugged;
                self.switches.iter_mut().for_each(|switch| switch.forget(Port::Cable));
                self.circle_may_close();
            }
            Trouble::Reload => {
                let random = &mut self.random;
                self.router.change(|config| reweigh(config, random));
                self.router_sends();
                self.watcher.flows(&self.router);
            }
            Trouble::Leak { server, leak } => {
                let frame = leak.frame(&self.stations[server], &self.stations);
                self.station_sent(server, frame);
            }
        }
    }

    fn circle_may_close(&mut self) {
        if self.cable {
            self.watcher.circle_closed(self.router.now);
        }
    }

    fn arrives(&mut self, place: Place, sent: Sent) {
        let now = self.router.now;
        match place {
            Place::Router(link) if self.links[link].to_router => self.router_receives(link, &sent),
            Place::Router(_) => {}
            Place::Station(station) => {
                if self.stations[station].receive(&sent.bytes, now) {
                    self.watcher.delivered(&sent, station, now);
                }
                self.poll_station(station);
                self.watcher.cache(&self.stations[station], now);
            }
            Place::Switch(at) if self.cable => self.switch(at, Port::Cable, &sent),
            Place::Switch(_) => {}
        }
    }

    fn router_receives(&mut self, link: usize, sent: &Sent) {
        self.watcher.router_hears(&sent.bytes, self.router.now);
        let step = self.router.feed(link_id(link), &sent.bytes);
        let probes = std::mem::take(&mut self.router.probes);
        self.watcher.follow(link_id(link), &sent.bytes, &step, &self.router);
        for (at, (link, bytes)) in step.out.into_iter().chain(probes).enumerate() {
            // What a station sent stays what it sent, passed on or routed.
            let routed = at == 0 && matches!(step.verdict, Verdict::Forward(_));
            let passed = routed || bytes == sent.bytes;
            let number = if passed { sent.number } else { self.number() };
            self.router_sent(link, Sent { number, bytes, damaged: sent.damaged && passed });
        }
    }

    /// What the router has to say by itself.
    fn router_sends(&mut self) {
        let mut out = self.router.transmits();
        out.append(&mut self.router.probes);
        for (link, bytes) in out {
            let number = self.number();
            self.router_sent(link, Sent { number, bytes, damaged: false });
        }
    }

    fn router_sent(&mut self, link: LinkId, sent: Sent) {
        let now = self.router.now;
        self.watcher.router_sent(&sent.bytes, now);
        let micros = now.total_micros().to_be_bytes();
        for byte in micros.iter().chain(&sent.bytes).chain(&link.0.to_be_bytes()) {
            self.output = (self.output ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.links[link.index()].from_router {
            self.switch(link.index(), Port::Router, &sent);
        }
    }

    fn poll_station(&mut self, station: usize) {
        for frame in self.stations[station].poll(self.router.now) {
            self.station_sent(station, frame);
        }
    }

    fn station_sent(&mut self, station: usize, bytes: Vec<u8>) {
        let sent = Sent { number: self.number(), bytes, damaged: false };
        self.switch(self.stations[station].link, Port::Station(station), &sent);
    }

    fn switch(&mut self, at: usize, from: Port, sent: &Sent) {
        let here = (0..self.stations.len()).filter(|n| self.stations[*n].link == at);
        let mut ports: Vec<_> = here.map(Port::Station).collect();
        ports.push(Port::Router);
        if self.cable && at > 0 {
            ports.push(Port::Cable);
        }
        for port in self.switches[at].pass(from, &sent.bytes, &ports) {
            let place = match port {
                Port::Router => Place::Router(at),
                Port::Station(station) => Place::Station(station),
                // Between the switches of the servers' links.
                Port::Cable => Place::Switch(3 - at),
            };
            self.carry(place, sent.clone());
        }
    }

    fn carry(&mut self, place: Place, sent: Sent) {
        // The guard's own frames come through, so that there is a time by which it must have acted.
        let is_probe = sent.bytes[12..14] == [0x88, 0xb5];
        let faults =
            if is_probe || self.router.now >= self.quiet { Faults::NONE } else { self.faults };
        let copies = 1 + usize::from(self.random.percent(faults.twice));
        for copy in 0..copies {
            if self.random.percent(faults.loss) {
                continue;
            }
            let mut delay = Duration::from_micros(100 + self.random.below(50) as u64);
            if self.random.percent(faults.late) {
                delay += Duration::from_micros(self.random.below(2_000) as u64);
            }
            if let Place::Switch(_) = place {
                delay += CABLE;
            }
            let mut sent = sent.clone();
            if copy > 0 {
                sent.number = self.number();
            }
            if matches!(place, Place::Router(_)) && self.random.percent(faults.damaged) {
                damage(&mut sent, &mut self.random);
            }
            self.frames += 1;
            self.wires.insert((self.router.now + delay, self.frames), (place, sent));
        }
    }

    fn number(&mut self) -> u64 {
        self.frames += 1;
        self.frames
    }
}

/// Flips a bit where somebody will notice: behind the IP header, or anywhere in ARP but where it says
/// who speaks. Once only, because two errors may cancel out.
fn damage(sent: &mut Sent, random: &mut Random) {
    let bytes = &mut sent.bytes;
    let at = match bytes[12..14] {
        _ if sent.damaged => return,
        [8, 0] if bytes.len() > 60 => 34 + random.below(bytes.len() - 34),
        [8, 6] => *random.pick(&[14, 15, 16, 18, 19, 20, 39, 40, 41]),
        _ => return,
    };
    bytes[at] ^= 1 << random.below(8);
    sent.damaged = true;
}

fn stations(links: usize, random: &mut Random) -> Vec<Station> {
    let mut habits = || {
        let age = Duration::from_secs(8 + random.below(40) as u64);
        // Stock Linux believes the first answer for a second, others the last.
        let lock = Duration::from_secs(u64::from(random.percent(50)));
        Habits { age, lock, asks_on: random.percent(70) }
    };
    let habits: Vec<_> = (0..STATIONS).map(|_| habits()).collect();
    let gateway = Some(GATEWAY_IP);
    let mut stations = Vec::new();
    for (at, n) in (11..).enumerate().take(SERVERS) {
        let link = if links == 1 { 0 } else { 1 + at / 2 };
        let addresses = [server_ip(n), VIP];
        let host = Host::bare(&addresses, random, |sockets, _| {
            Program::Server(Server::new(sockets, 80, n, 4 * STREAMS))
        });
        let hosts = vec![(addresses.to_vec(), host)];
        stations.push(Station::new((server_mac(n), link), &addresses, gateway, hosts, habits[at]));
    }
    let client = |address, random: &mut Random| {
        let (transfers, queries) = (4 + random.below(6), 4 + random.below(8));
        let pace = Duration::from_millis(100 + random.below(300) as u64);
        let host = Host::bare(&[address], random, |sockets, random| {
            Program::Client(Client::new(sockets, transfers, queries, pace, random))
        });
        (vec![address], host)
    };
    for (at, (mac, address)) in [(NEAR, NEAR_IP), SECOND_NEAR].into_iter().enumerate() {
        let hosts = vec![client(address, random)];
        stations.push(Station::new((mac, 0), &[address], gateway, hosts, habits[SERVERS + at]));
    }
    let behind = FAR.map(|address| client(address, random)).into();
    stations.push(Station::new((GATEWAY, 0), &[GATEWAY_IP], None, behind, habits[SERVERS + 2]));
    stations
}

fn server_mac_of(station: usize) -> MacAddr {
    server_mac(u8::try_from(11 + station).unwrap())
}

fn link_id(link: usize) -> LinkId {
    LinkId(u16::try_from(link).unwrap())
}
