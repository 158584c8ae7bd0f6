//! The wires between hosts and router, the clock, and what goes wrong on the way.

use std::collections::BTreeMap;

use tapvs::addr::{LinkId, MacAddr, Proto};
use tapvs::config::{Config, Helper};
use tapvs::time::{Duration, Instant};

use crate::ftp::CONTROL;
use crate::host::Host;
use crate::shadow::{Shadow, check_sides};
use crate::support::random::Random;
use crate::support::validity::{check_frame, check_step};
use crate::support::{IN, OUT, ROUTER_IN, ROUTER_OUT, Router, config, server, service};

/// What the wires do to frames, in percent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) loss: usize,
    pub(crate) twice: usize,
    pub(crate) late: usize,
    pub(crate) damaged: usize,
}

impl Faults {
    pub(crate) const NONE: Self = Self { loss: 0, twice: 0, late: 0, damaged: 0 };

    /// Some for every seed, none for a few.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0xfa17);
        if seed.is_multiple_of(10) {
            return Self::NONE;
        }
        Self {
            loss: random.below(8),
            twice: random.below(6),
            late: random.below(25),
            damaged: random.below(4),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Router(LinkId),
    Host(usize),
}

pub(crate) struct World {
    pub(crate) router: Router,
    /// Another configuration is taken into use this often.
    pub(crate) reloads_every: Option<Duration>,
    hosts: Vec<Host>,
    /// Where each host is connected, and its MAC.
    plugs: Vec<(LinkId, MacAddr)>,
    wires: BTreeMap<(Instant, u64), (Place, Vec<u8>)>,
    frames: u64,
    faults: Faults,
    random: Random,
    /// `None` where text changes on its way: that is the programs' to judge.
    shadow: Option<Shadow>,
    output: u64,
    seed: u64,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        Self::of(config(), seed, faults, |random| {
            let mut hosts: Vec<_> = (11..=13).map(|n| (IN, Host::server(n, random))).collect();
            for n in 50..52 {
                let (transfers, queries) = (1 + random.below(5), random.below(6));
                hosts.push((OUT, Host::client(n, transfers, queries, random)));
            }
            hosts
        })
    }

    /// FTP, by clients that fetch so many files each.
    pub(crate) fn ftp(seed: u64, faults: Faults, files: usize) -> Self {
        let mut config = config();
        let servers = (11..=13).map(|n| server(n, CONTROL, 1)).collect();
        let mut ftp = service(Proto::Tcp, CONTROL, servers);
        ftp.lifecycle.helper = Some(Helper::Ftp);
        config.services.push(ftp);
        let mut world = Self::of(config, seed, faults, |random| {
            let servers: Vec<_> = (11..=13).map(|n| (IN, Host::ftp_server(n, random))).collect();
            let clients = (50..52).map(|n| (OUT, Host::ftp_client(n, files, random)));
            servers.into_iter().chain(clients).collect()
        });
        world.shadow = None;
        world
    }

    fn of(
        config: Config,
        seed: u64,
        faults: Faults,
        people: impl FnOnce(&mut Random) -> Vec<(LinkId, (MacAddr, Host))>,
    ) -> Self {
        let mut random = Random::new(seed);
        let mut router = Router::cold(config, 1_000);
        router.answers_arp = false;
        let (mut hosts, mut plugs) = (Vec::new(), Vec::new());
        for (link, (mac, host)) in people(&mut random) {
            hosts.push(host);
            plugs.push((link, mac));
        }
        let mut world = Self {
            router,
            reloads_every: None,
            hosts,
            plugs,
            wires: BTreeMap::new(),
            frames: 0,
            faults,
            random,
            shadow: Some(Shadow::default()),
            output: 0xcbf2_9ce4_8422_2325,
            seed,
        };
        world.router_sends();
        world
    }

    /// Lets the router find its neighbours before anybody wants anything.
    pub(crate) fn settle(&mut self) {
        self.router.answers_arp = true;
        self.router.advance(Duration::from_secs(5));
        self.router.answers_arp = false;
    }

    /// Runs until everything is transferred, at most for `most`.
    pub(crate) fn run(&mut self, most: Duration) {
        let end = self.router.now + most;
        let mut reload = self.reloads_every.map(|every| self.router.now + every);
        let mut turns = 0;
        for host in 0..self.hosts.len() {
            self.poll_host(host);
        }
        while self.left() > 0 && self.router.now < end {
            turns += 1;
            assert!(turns < 2_000_000, "seed {}: it never comes to rest", self.seed);
            let now = self.router.now;
            let wire = self.wires.keys().next().map(|(at, _)| *at);
            let timer = self.router.dataplane.poll_timeout();
            let polls = self.hosts.iter_mut().filter_map(|host| host.next_poll(now));
            let next = polls.chain(wire).chain(timer).chain(reload).min().unwrap_or(end);
            self.router.now = next.max(now).min(end);
            let now = self.router.now;
            while let Some(entry) = self.wires.first_entry().filter(|entry| entry.key().0 <= now) {
                let (place, frame) = entry.remove();
                self.arrives(place, frame);
            }
            if self.router.dataplane.poll_timeout().is_some_and(|due| due <= now) {
                self.router.dataplane.handle_timeout(&self.router.table, now);
                self.router_sends();
            }
            for host in 0..self.hosts.len() {
                if self.hosts[host].next_poll(now).is_some_and(|due| due <= now) {
                    self.poll_host(host);
                }
            }
            if reload.is_some_and(|at| at <= now) {
                self.reload();
                reload = self.reloads_every.map(|every| now + every);
            }
        }
    }

    pub(crate) fn assert_complete(&self) {
        let hosts: Vec<_> = self.hosts.iter().map(Host::describe).collect();
        assert_eq!(self.left(), 0, "seed {}, {:?}: {hosts:#?}", self.seed, self.faults);
        let retries: usize = self.hosts.iter().map(Host::retries).sum();
        let lossy = self.faults.loss + self.faults.damaged > 0;
        assert!(retries <= if lossy { 8 } else { 0 }, "seed {}: {hosts:#?}", self.seed);
    }

    /// Everybody has everything; how many connections were cut off.
    pub(crate) fn assert_ended(&self) -> usize {
        let hosts: Vec<_> = self.hosts.iter().map(Host::describe).collect();
        assert_eq!(self.left(), 0, "seed {}, {:?}: {hosts:#?}", self.seed, self.faults);
        let retries = self.hosts.iter().map(Host::retries).sum();
        assert!(self.faults.loss + self.faults.damaged > 0 || retries == 0, "{hosts:#?}");
        retries
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

    fn left(&self) -> usize {
        self.hosts.iter().map(Host::left).sum()
    }

    fn reload(&mut self) {
        let random = &mut self.random;
        self.router.change(|config| reweigh(config, random));
        self.router_sends();
    }

    fn arrives(&mut self, place: Place, frame: Vec<u8>) {
        match place {
            Place::Host(host) => {
                self.hosts[host].nic.received.push_back(frame);
                self.poll_host(host);
            }
            Place::Router(link) => {
                let step = self.router.feed(link, &frame);
                if let Some(shadow) = &mut self.shadow {
                    check_step(&frame, &step);
                    shadow.follow(link, &frame, &step, &self.router);
                }
                for (link, frame) in step.out {
                    self.router_sent(link, frame);
                }
            }
        }
    }

    fn poll_host(&mut self, host: usize) {
        let now = self.router.now;
        self.hosts[host].poll(now);
        let (link, _) = self.plugs[host];
        for frame in std::mem::take(&mut self.hosts[host].nic.sent) {
            self.send(link, Some(host), frame);
        }
    }

    fn router_sends(&mut self) {
        for (link, frame) in self.router.transmits() {
            self.router_sent(link, frame);
        }
    }

    fn router_sent(&mut self, link: LinkId, frame: Vec<u8>) {
        check_frame(link, &frame).unwrap();
        check_sides(link, &frame);
        let micros = self.router.now.total_micros().to_be_bytes();
        for byte in micros.iter().chain(&frame).chain(&[u8::from(link == OUT)]) {
            self.output = (self.output ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.send(link, None, frame);
    }

    /// Puts a frame on a wire; `sender`: a host, or the router.
    fn send(&mut self, link: LinkId, sender: Option<usize>, frame: Vec<u8>) {
        let to = MacAddr::from_slice(&frame);
        let mut places = Vec::new();
        let router = if link == IN { ROUTER_IN } else { ROUTER_OUT };
        if sender.is_some() && (to == router || to.is_multicast()) {
            places.push(Place::Router(link));
        }
        for (n, (at, mac)) in self.plugs.iter().enumerate() {
            if *at == link && Some(n) != sender && (to == *mac || to.is_multicast()) {
                places.push(Place::Host(n));
            }
        }
        for place in places {
            self.carry(place, &frame);
        }
    }

    fn carry(&mut self, place: Place, frame: &[u8]) {
        let copies = 1 + usize::from(self.random.percent(self.faults.twice));
        for _ in 0..copies {
            if self.random.percent(self.faults.loss) {
                continue;
            }
            let mut delay = 100 + self.random.below(50);
            if self.random.percent(self.faults.late) {
                delay += self.random.below(2_000);
            }
            let mut frame = frame.to_vec();
            // Behind the IP header, where only the transport's checksum notices; once, because two
            // errors may cancel out.
            let to_router = matches!(place, Place::Router(_));
            if to_router
                && frame[12..14] == [8, 0]
                && frame.len() > 40
                && self.random.percent(self.faults.damaged)
            {
                let at = 34 + self.random.below(frame.len() - 34);
                frame[at] ^= 1 << self.random.below(8);
            }
            self.frames += 1;
            let at = self.router.now + Duration::from_micros(delay as u64);
            self.wires.insert((at, self.frames), (place, frame));
        }
    }
}

/// Weights change, a fourth server comes and goes; what carries flows stays.
pub(crate) fn reweigh(config: &mut Config, random: &mut Random) {
    let weights: Vec<_> = (0..3).map(|_| u16::try_from(random.below(3)).unwrap()).collect();
    let extra = random.percent(50);
    for service in &mut config.services {
        let port = service.servers[0].endpoint.port;
        service.servers = (11..)
            .zip(&weights)
            // Server 12 is taken out altogether at times.
            .filter(|(n, weight)| *n != 12 || **weight > 0)
            .map(|(n, weight)| server(n, port, if n == 11 { 1 } else { *weight }))
            .collect();
        if extra {
            service.servers.push(server(14, port, 0));
        }
    }
}
