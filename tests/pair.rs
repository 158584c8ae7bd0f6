//! Two whole routers on two switches with hosts that keep ARP caches, in memory and in virtual time:
//! cables are cut one way or both, frames get lost, routers pause, restart, and their clocks jump. Once
//! everything has been whole for long enough, exactly one is active, and everybody knows where.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use tapvs::addr::{LinkId, MacAddr, NetworkId, Role};
use tapvs::config;
use tapvs::dataplane::{Dataplane, Origin, Verdict};
use tapvs::frame::{Arp, ETHERNET, Ethernet, Frame, Operation};
use tapvs::ha::{Event, Ha, Member, Settings};
use tapvs::table::{Ids, Standing, Table};
use tapvs::time::{Duration, Instant};

const SEEDS: u64 = 1_000;
/// One for each network.
const SHARED: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 10), Ipv4Addr::new(10, 0, 0, 1)];
const VIRTUAL_MACS: [MacAddr; 2] =
    [MacAddr([0, 0, 0x5e, 0, 1, 51]), MacAddr([0, 0, 0x5e, 0, 1, 52])];
/// The ports of each switch: the routers, then a host.
const HOST: usize = 2;
const DELAY: Duration = Duration::from_micros(200);
/// What waits at a router that does not read.
const QUEUE: usize = 500;
const ADVERTS: Duration = Duration::from_millis(100);
/// Three intervals and the skew of the lower priority, rounded up: the master-down time.
const DOWN: Duration = Duration::from_millis(361);

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    fn pick(&mut self, places: usize) -> usize {
        usize::try_from(self.below(places as u64)).unwrap()
    }
}

struct Router {
    table: Table,
    dataplane: Dataplane,
    ha: Ha,
    /// Its clock is ahead of the world's by so much.
    ahead: Duration,
    paused_until: Instant,
    inbox: VecDeque<(usize, Vec<u8>)>,
    packet: Vec<u8>,
    frame: Frame,
}

impl Router {
    fn new(number: usize, now: Instant, seed: u64) -> Self {
        let (own, priority) = (2 + number, [200, 100][number]);
        let text = format!(
            "[router]\nname = \"lvs{number}\"\n\
             [[network]]\nname = \"internet\"\nlinks = [\"a\"]\naddresses = [\"203.0.113.{own}/24\"]\n\
             [[network]]\nname = \"servers\"\nlinks = [\"b\"]\naddresses = [\"10.0.0.{own}/24\"]\n\
             [[virtual_ip]]\naddress = \"203.0.113.10\"\nnetwork = \"internet\"\n\
             [[virtual_ip]]\naddress = \"10.0.0.1\"\nnetwork = \"servers\"\n\
             [failover]\npriority = {priority}\n\
             [[failover.network]]\nnetwork = \"internet\"\nvirtual_router_id = 51\n\
             [[failover.network]]\nnetwork = \"servers\"\nvirtual_router_id = 52\n"
        );
        let config = config::parse(&text).unwrap();
        let table = Table::compile(&config, None, &mut Ids::default(), |_, _| Standing::GOOD);
        let failover = config.failover.as_ref().unwrap();
        let members = failover.networks.iter().zip(SHARED).map(|(member, shared)| Member {
            network: NetworkId(u16::try_from(member.network).unwrap()),
            address: table.networks()[member.network].own_address().unwrap(),
            virtual_router_id: member.virtual_router_id,
            virtual_ips: vec![shared],
        });
        let settings = Settings::new(failover, members.collect(), None);
        let mut key = [0; 16];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            dataplane: Dataplane::new(&table, key, 1_000, now),
            ha: Ha::new(settings, seed, now),
            table,
            ahead: Duration::ZERO,
            paused_until: now,
            inbox: VecDeque::new(),
            packet: Vec::new(),
            frame: Frame::new(),
        }
    }

    /// When it has something to do, by the world's clock.
    fn due(&self) -> Option<Instant> {
        let due = [self.ha.poll_timeout(), self.dataplane.poll_timeout()];
        let due = due.into_iter().flatten().min().map(|due| due - self.ahead);
        let inbox = (!self.inbox.is_empty()).then_some(self.paused_until);
        due.into_iter().chain(inbox).min().map(|due| due.max(self.paused_until))
    }

    /// One turn: what came in, what is due, and all that leaves, as the router's loop does it.
    fn turn(&mut self, now: Instant) -> Vec<(usize, Vec<u8>)> {
        let now = now + self.ahead;
        let Self { table, dataplane, ha, inbox, packet, frame, .. } = self;
        let mut out = Vec::new();
        while let Some((network, bytes)) = inbox.pop_front() {
            frame.copy_from(&bytes);
            let link = LinkId(u16::try_from(network).unwrap());
            match dataplane.handle_frame(table, link, frame, now) {
                Verdict::Reply => out.push((network, frame.bytes().to_vec())),
                Verdict::ToHa => {
                    ha.handle_packet(table.networks()[network].id, &frame.bytes()[ETHERNET..], now);
                }
                _ => {}
            }
        }
        if ha.poll_timeout().is_some_and(|due| due <= now) {
            ha.handle_timeout(now);
        }
        while let Some(event) = ha.poll_event() {
            match event {
                Event::Role { role, .. } => dataplane.handle_role(table, role, now),
                Event::ContentionEnded => dataplane.announce_again(table, now),
                _ => {}
            }
        }
        while let Some(network) = ha.poll_transmit(packet) {
            dataplane.send_packet(table, packet, Origin::Ha(network), now);
        }
        if dataplane.poll_timeout().is_some_and(|due| due <= now) {
            dataplane.handle_timeout(table, now);
        }
        while let Some(link) = dataplane.poll_transmit(table, frame, now) {
            out.push((link.index(), frame.bytes().to_vec()));
        }
        while dataplane.poll_event().is_some() {}
        out
    }
}

/// A host that asks whose the shared address is when it does not know, and believes announcements.
#[derive(Default)]
struct Host {
    cache: Option<MacAddr>,
}

impl Host {
    fn mac(network: usize) -> MacAddr {
        MacAddr([2, 0, 0, 0, 9, u8::try_from(network).unwrap()])
    }

    fn question(network: usize) -> Vec<u8> {
        let sender = [Ipv4Addr::new(203, 0, 113, 99), Ipv4Addr::new(10, 0, 0, 99)][network];
        let question = Arp {
            operation: Operation::Request,
            sender_mac: Self::mac(network),
            sender,
            target_mac: MacAddr::ZERO,
            target: SHARED[network],
        };
        let mut frame = Frame::new();
        question.build(MacAddr::BROADCAST, &mut frame);
        frame.bytes().to_vec()
    }

    fn hear(&mut self, network: usize, frame: &[u8]) {
        let Some(arp) = Arp::parse(frame).filter(|arp| arp.sender == SHARED[network]) else {
            return;
        };
        if self.cache.is_some() || arp.operation == Operation::Reply {
            self.cache = Some(arp.sender_mac);
        }
    }
}

struct World {
    now: Instant,
    dice: Dice,
    routers: [Option<Router>; 2],
    hosts: [Host; 2],
    /// By network: where each MAC was heard last.
    places: [BTreeMap<MacAddr, usize>; 2],
    /// On their way: when they arrive, in which order, where, and from which port.
    under_way: BTreeMap<(Instant, u64), (usize, usize, Vec<u8>)>,
    sent: u64,
    /// By network, from a port to a port: no frame passes.
    cut: [[[bool; 3]; 3]; 2],
    /// Of a thousand frames, so many get lost.
    loss: u64,
    /// What happened, for comparison and for a failure's sake.
    story: String,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            now: Instant::ZERO,
            dice: Dice(seed),
            routers: [None, None],
            hosts: [Host::default(), Host::default()],
            places: [BTreeMap::new(), BTreeMap::new()],
            under_way: BTreeMap::new(),
            sent: 0,
            cut: [[[false; 3]; 3]; 2],
            loss: 0,
            story: String::new(),
        };
        world.start(0);
        world.start(1);
        world
    }

    fn start(&mut self, number: usize) {
        self.routers[number] = Some(Router::new(number, self.now, self.dice.next()));
    }

    fn note(&mut self, what: impl std::fmt::Display) {
        use std::fmt::Write as _;
        let _ = writeln!(self.story, "{} {what}", self.now.total_micros());
    }

    /// A frame enters a switch.
    fn send(&mut self, network: usize, from: usize, frame: Vec<u8>) {
        let Some(ethernet) = Ethernet::parse(&frame) else { panic!("a runt left port {from}") };
        self.places[network].insert(ethernet.source, from);
        let place = self.places[network].get(&ethernet.destination).copied();
        let to = place.filter(|_| !ethernet.destination.is_multicast());
        for port in (0..=HOST).filter(|port| *port != from && to.is_none_or(|to| to == *port)) {
            if self.cut[network][from][port] || self.dice.below(1_000) < self.loss {
                continue;
            }
            self.sent += 1;
            let arrival = (self.now + DELAY, self.sent);
            self.under_way.insert(arrival, (network, port, frame.clone()));
        }
    }

    /// Runs until `end`.
    fn run(&mut self, end: Instant) {
        loop {
            let arrival = self.under_way.keys().next().map(|(at, _)| *at);
            let routers = self.routers.iter().flatten().filter_map(Router::due);
            let Some(next) = routers.chain(arrival).min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.under_way.first_entry().filter(|e| e.key().0 <= self.now) {
                let (network, port, frame) = entry.remove();
                self.arrive(network, port, frame);
            }
            for number in 0..2 {
                let Some(router) = self.routers[number].as_mut() else { continue };
                if router.due().is_none_or(|due| due > self.now) {
                    continue;
                }
                let before = router.ha.role();
                let out = router.turn(self.now);
                let role = router.ha.role();
                assert_eq!(role, router.dataplane.role());
                if role != before {
                    self.note(format_args!("router {number} is {role}"));
                }
                for (network, frame) in out {
                    self.send(network, number, frame);
                }
            }
        }
        self.now = end;
    }

    fn arrive(&mut self, network: usize, port: usize, frame: Vec<u8>) {
        if port == HOST {
            return self.hosts[network].hear(network, &frame);
        }
        if let Some(router) = &mut self.routers[port]
            && router.inbox.len() < QUEUE
        {
            router.inbox.push_back((network, frame));
        }
    }

    /// Each host that knows nobody asks.
    fn ask(&mut self) {
        for network in 0..2 {
            if self.hosts[network].cache.is_none() {
                self.send(network, HOST, Host::question(network));
            }
        }
    }

    /// Something goes wrong, or is mended.
    fn mishap(&mut self) {
        let (number, network) = (self.dice.pick(2), self.dice.pick(2));
        let what = self.dice.below(9);
        self.note(format_args!("mishap {what} at router {number}, network {network}"));
        match what {
            0 => self.loss = [50, 300, 900][self.dice.pick(3)],
            1 => self.loss = 0,
            // One way only.
            2 => self.cut[network][number][1 - number] = true,
            3 => {
                for other in [1 - number, HOST] {
                    self.cut[network][number][other] = true;
                    self.cut[network][other][number] = true;
                }
            }
            4 => self.cut[network] = [[false; 3]; 3],
            5 => {
                let pause = Duration::from_millis(1 + self.dice.below(10_000));
                if let Some(router) = &mut self.routers[number] {
                    router.paused_until = self.now + pause;
                }
            }
            6 => {
                let jump = Duration::from_millis(self.dice.below(10_000));
                if let Some(router) = &mut self.routers[number] {
                    router.ahead += jump;
                }
            }
            7 => self.routers[number] = None,
            _ => {
                if self.routers[number].is_none() {
                    self.start(number);
                }
            }
        }
    }

    /// Everything is whole from now on.
    fn mend(&mut self) {
        self.note("whole");
        self.loss = 0;
        self.cut = [[[false; 3]; 3]; 2];
        for number in 0..2 {
            match &mut self.routers[number] {
                Some(router) => router.paused_until = self.now,
                None => self.start(number),
            }
        }
    }

    /// Exactly one router is active, and switches and hosts know where. Its number.
    fn settled(&self) -> Result<usize, String> {
        let roles = self.routers.iter().flatten().map(|router| router.ha.role());
        let roles: Vec<_> = roles.collect();
        let active = match roles[..] {
            [Role::Active, Role::Backup] => 0,
            [Role::Backup, Role::Active] => 1,
            _ => return Err(format!("the roles are {roles:?}")),
        };
        for (network, virtual_mac) in VIRTUAL_MACS.into_iter().enumerate() {
            let place = self.places[network].get(&virtual_mac);
            if place != Some(&active) {
                return Err(format!(
                    "switch {network} has the virtual MAC at {place:?}, not {active}"
                ));
            }
            let cache = self.hosts[network].cache;
            if cache.is_some_and(|mac| mac != virtual_mac) {
                return Err(format!("the host of network {network} has {cache:?}"));
            }
        }
        Ok(active)
    }
}

/// Mishaps for some seconds, then none: what was told.
fn live(seed: u64) -> (World, Result<usize, String>) {
    let mut world = World::new(seed);
    let mishaps = 4 + world.dice.below(12);
    for _ in 0..mishaps {
        let pause = Duration::from_millis(world.dice.below(800));
        world.run(world.now + pause);
        world.ask();
        world.mishap();
    }
    world.mend();
    // The time in which it has to be settled, and what a frame and a turn take.
    world.run(world.now + DOWN + ADVERTS * 2 + DELAY * 4);
    let mut settled = world.settled();
    // And so it stays: who has the higher priority, without another change.
    let roles = world.story.matches("is ").count();
    for _ in 0..10 {
        world.ask();
        world.run(world.now + Duration::from_millis(137));
        settled = settled.and_then(|before| match world.settled()? {
            after if after == before => Ok(after),
            after => Err(format!("{before} was active, then {after}")),
        });
    }
    if world.story.matches("is ").count() != roles {
        settled = settled.and_then(|_| Err("a role changed although nothing happened".to_owned()));
    }
    for network in 0..2 {
        if world.hosts[network].cache.is_none() {
            settled =
                settled.and_then(|_| Err(format!("nobody answered the host of network {network}")));
        }
    }
    (world, settled)
}

#[test]
fn a_pair_that_is_whole_has_one_active_router_that_everybody_knows() {
    let mut failures = Vec::new();
    let mut changes = 0;
    for seed in 0..SEEDS {
        let (world, settled) = live(seed);
        changes += world.story.matches("is active").count();
        match settled {
            // It has the higher priority, and preempts.
            Ok(0) => {}
            Ok(other) => failures.push(format!("seed {seed}: router {other}\n{}", world.story)),
            Err(why) => failures.push(format!("seed {seed}: {why}\n{}", world.story)),
        }
    }
    assert!(changes as u64 > 2 * SEEDS, "only {changes} takeovers: nothing was tried");
    let count = failures.len();
    failures.truncate(3);
    assert!(count == 0, "{count} of {SEEDS}:\n{}", failures.join("\n"));
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in [1, 77, 501] {
        let (one, other) = (live(seed).0, live(seed).0);
        assert_eq!(one.story, other.story);
        assert_eq!((one.sent, one.places), (other.sent, other.places));
    }
}
