//! Many long connections over a perfect network while the configuration changes under them.

use std::collections::{BTreeMap, BTreeSet};

use tapvs::addr::{Endpoint, LinkId, MacAddr, Proto, ServerId, ServiceId};
use tapvs::config::{Config, OnRemove, Persistence, Scheduler, Server, Service};
use tapvs::dataplane::{Load, State, Traffic, Tuple};
use tapvs::time::Duration;

use crate::caller::Call;
use crate::host::Host;
use crate::support::random::Random;
use crate::support::validity::{check_frame, check_step};
use crate::support::{IN, OUT, ROUTER_IN, ROUTER_OUT, Router, config, server, server_ip, service};

const SERVERS: [u8; 6] = [11, 12, 13, 14, 15, 16];
const CALLERS: u8 = 20;
/// As many as one server may be given.
const STREAMS: usize = 500;
/// Services that are always there; one that comes and goes; one where a removed server's connections
/// are reset.
const STEADY: [u16; 2] = [80, 81];
const FITFUL: u16 = 82;
const STRICT: u16 = 83;
/// Where every service's servers listen.
const BEHIND: u16 = 8080;

/// A service, and one of its servers or none in particular.
type Owner = (u16, Option<Endpoint>);
/// What a reload must not touch of a flow.
type Tracked = (Tuple, Tuple, State, Option<(ServiceId, ServerId)>);

pub(crate) struct Fleet {
    pub(crate) router: Router,
    /// Servers, then callers.
    hosts: Vec<Host>,
    plugs: Vec<(LinkId, MacAddr)>,
    random: Random,
}

impl Fleet {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut config = config();
        config.services = [80, 81, FITFUL, STRICT].map(|port| long_service(port, &SERVERS)).into();
        let mut router = Router::cold(config, 4_000);
        router.answers_arp = false;
        let (mut hosts, mut plugs) = (Vec::new(), Vec::new());
        for n in SERVERS {
            let (mac, host) = Host::busy_server(n, STREAMS, &mut random);
            hosts.push(host);
            plugs.push((IN, mac));
        }
        for n in 50..50 + CALLERS {
            let (mac, host) = Host::caller(n, &mut random);
            hosts.push(host);
            plugs.push((OUT, mac));
        }
        Self { router, hosts, plugs, random }
    }

    /// Those that have not been reset.
    pub(crate) fn calls(&self) -> impl Iterator<Item = &Call> {
        self.hosts.iter().filter_map(Host::calls).flatten().filter(|call| !call.broke)
    }

    /// How many connections are at servers that are configured no more: they drain.
    pub(crate) fn draining(&self) -> usize {
        self.calls().filter(|call| !has(&self.router.config, owner(call))).count()
    }

    /// `count` more connections to the service at `port`, by whichever callers.
    pub(crate) fn open(&mut self, port: u16, count: usize) {
        for _ in 0..count {
            let caller = SERVERS.len() + self.random.below(usize::from(CALLERS));
            self.hosts[caller].call(port);
        }
        self.exchange();
    }

    /// Some of the connections say something, and all hear it back.
    pub(crate) fn talk(&mut self, percent: usize) {
        let random = &mut self.random;
        for call in self.hosts.iter_mut().filter_map(Host::calls_mut).flatten() {
            if random.percent(percent) {
                let most = if random.percent(5) { 6_000 } else { 200 };
                let len = 1 + random.below(most);
                call.say(&random.bytes(len));
            }
        }
        self.exchange();
    }

    /// Another configuration: services, servers, weights and schedulers come, go and change. What is
    /// the same keeps what it has counted, and no flow is touched but those that are to be reset; how
    /// many those are, and how many of them without a word.
    pub(crate) fn reload(&mut self) -> [usize; 2] {
        let (flows, figures) = (self.flows(), self.figures());
        let before = self.router.config.clone();
        let random = &mut self.random;
        self.router.change(|config| change(config, random));
        assert_eq!(self.flows(), flows, "a removed server's flows go on until they end");
        let after = self.figures();
        for (owner, figure) in figures {
            if has(&before, owner) && has(&self.router.config, owner) {
                assert_eq!(after.get(&owner), Some(&figure), "{owner:?}");
            }
        }
        self.reset()
    }

    /// Exactly those whose server was removed from the strict service are reset, at both ends.
    fn reset(&mut self) -> [usize; 2] {
        let config = &self.router.config;
        let calls = self.hosts.iter_mut().filter_map(Host::calls_mut).flatten();
        let mut doomed = 0;
        for call in calls.filter(|call| !call.broke && call.to == STRICT) {
            call.doomed = !has(config, owner(call));
            doomed += usize::from(call.doomed);
        }
        // They are silent: each is asked for the number that it expects. To an acknowledgement that
        // is too old smoltcp says nothing, where RFC 9293 wants an answer: the others are reset as
        // soon as they speak.
        self.pass(Duration::from_millis(10));
        let silent = self.calls().filter(|call| call.doomed).count();
        let calls = self.hosts.iter_mut().filter_map(Host::calls_mut).flatten();
        calls.filter(|call| call.doomed && !call.broke).for_each(|call| call.say(b"still there?"));
        self.pass(Duration::from_millis(10));
        assert_eq!(self.calls().filter(|call| call.doomed).count(), 0, "of {doomed} are left");
        self.exchange();
        [doomed, doomed - silent]
    }

    /// One more connection to a service that is there goes to a server that is to get some.
    pub(crate) fn newcomer(&mut self) {
        let services = &self.router.config.services;
        let service = self.random.pick(services).clone();
        let caller = SERVERS.len() + self.random.below(usize::from(CALLERS));
        self.hosts[caller].call(service.port);
        self.exchange();
        let chosen = self.hosts[caller].calls().unwrap().last().unwrap().server.unwrap();
        let chosen = Endpoint { address: server_ip(chosen).into(), port: BEHIND };
        let is_it = |server: &&Server| server.endpoint == chosen;
        let weight = service.servers.iter().find(is_it).map(|server| server.weight);
        assert!(weight.is_some_and(|weight| weight > 0), "{service:?} chose {chosen}: {weight:?}");
    }

    /// Each flow is still at the server that its client hears; what services carried is what their
    /// flows did, for no flow has ended.
    pub(crate) fn check(&self) {
        let mut flows = self.router.flows();
        // What is left for a while of those that were reset.
        flows.retain(|flow| flow.state != State::Close);
        let mut heard: Vec<_> = self.calls().map(|call| (call.to, call.server.unwrap())).collect();
        let mut tracked: Vec<_> = flows
            .iter()
            .map(|flow| (flow.original.destination_port, flow.reply.source.octets()[3]))
            .collect();
        heard.sort_unstable();
        tracked.sort_unstable();
        assert_eq!(heard, tracked);
        for report in &self.router.report().services {
            let port = report.endpoint.port;
            let mine = || flows.iter().filter(|flow| flow.original.destination_port == port);
            if !STEADY.contains(&port) {
                continue;
            }
            let total = |way: usize| mine().map(|flow| u64::from(flow.packets[way])).sum::<u64>();
            let bytes = |way: usize| mine().map(|flow| flow.bytes[way]).sum::<u64>();
            let expected = Traffic {
                flows: mine().count() as u64,
                packets_in: total(0),
                bytes_in: bytes(0),
                packets_out: total(1),
                bytes_out: bytes(1),
            };
            assert_eq!(report.traffic, expected, "port {port}");
            assert_eq!(report.load.active as usize, mine().count());
        }
    }

    /// With everybody silent every flow ends, and nothing is left of servers that were removed.
    pub(crate) fn rest(&mut self) {
        self.router.advance(Duration::from_secs(1_000));
        let report = self.router.report();
        assert_eq!((report.flows, report.waiting), (0, 0));
        assert!(report.services.iter().all(|service| service.load == Load::default()));
    }

    /// Time passes, and what falls due is done.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.router.now += time;
        let now = self.router.now;
        while self.router.dataplane.poll_timeout().is_some_and(|due| due <= now) {
            self.router.dataplane.handle_timeout(&self.router.table, now);
            let sent = self.router.transmits();
            self.deliver(sent);
        }
        self.settle((0..self.hosts.len()).collect());
    }

    /// Until every connection has heard what it wants to.
    fn exchange(&mut self) {
        self.settle((0..self.hosts.len()).collect());
        for _ in 0..40 {
            let mut all = self.hosts.iter().filter_map(Host::calls).flatten();
            assert!(!all.any(|call| call.broke && !call.doomed), "a connection broke");
            if self.calls().all(Call::is_content) {
                return;
            }
            // What could not wait for a neighbour is sent again.
            self.pass(Duration::from_millis(250));
        }
        let left: Vec<_> = self.calls().filter(|call| !call.is_content()).collect();
        panic!("{} connections wait for ever", left.len());
    }

    /// Hands frames on until nobody has any.
    fn settle(&mut self, mut stirred: BTreeSet<usize>) {
        let mut waves = 0;
        while !stirred.is_empty() {
            waves += 1;
            assert!(waves < 10_000, "it never comes to rest");
            let mut next = BTreeSet::new();
            for host in stirred {
                self.hosts[host].poll(self.router.now);
                let (link, _) = self.plugs[host];
                let router = if link == OUT { ROUTER_OUT } else { ROUTER_IN };
                for frame in std::mem::take(&mut self.hosts[host].nic.sent) {
                    let to = MacAddr::from_slice(&frame);
                    if to == router || to.is_multicast() {
                        let step = self.router.feed(link, &frame);
                        check_step(&frame, &step);
                        next.extend(self.deliver(step.out));
                    }
                }
            }
            stirred = next;
        }
    }

    /// Those who got some of what the router sent.
    fn deliver(&mut self, frames: Vec<(LinkId, Vec<u8>)>) -> BTreeSet<usize> {
        let mut stirred = BTreeSet::new();
        for (link, frame) in frames {
            check_frame(link, &frame).unwrap();
            let to = MacAddr::from_slice(&frame);
            for (n, (at, mac)) in self.plugs.iter().enumerate() {
                if *at == link && (to == *mac || to.is_multicast()) {
                    self.hosts[n].nic.received.push_back(frame.clone());
                    stirred.insert(n);
                }
            }
        }
        stirred
    }

    fn flows(&self) -> Vec<Tracked> {
        let flows = self.router.flows();
        flows.iter().map(|flow| (flow.original, flow.reply, flow.state, flow.owner)).collect()
    }

    fn figures(&self) -> BTreeMap<Owner, (Traffic, Load)> {
        let report = self.router.report();
        let mut figures = BTreeMap::new();
        for service in &report.services {
            let port = service.endpoint.port;
            figures.insert((port, None), (service.traffic, service.load));
            for server in &service.servers {
                figures.insert((port, Some(server.endpoint)), (server.traffic, server.load));
            }
        }
        figures
    }
}

fn long_service(port: u16, servers: &[u8]) -> Service {
    let servers = servers.iter().map(|n| server(*n, BEHIND, 1)).collect();
    let mut service = service(Proto::Tcp, port, servers);
    if port == STRICT {
        service.lifecycle.on_remove = OnRemove::Reset;
    }
    service
}

/// Who serves `call`.
fn owner(call: &Call) -> Owner {
    (call.to, call.server.map(|n| Endpoint { address: server_ip(n).into(), port: BEHIND }))
}

fn has(config: &Config, (port, of): Owner) -> bool {
    let service = config.services.iter().find(|service| service.port == port);
    service.is_some_and(|service| {
        of.is_none_or(|of| service.servers.iter().any(|server| server.endpoint == of))
    })
}

/// A service may go, but for the steady ones; some without connections come; each has other servers.
fn change(config: &mut Config, random: &mut Random) {
    let fitful = random.percent(60).then_some(FITFUL);
    let extra = (90..94).filter(|_| random.percent(30)).collect::<Vec<_>>();
    let ports = STEADY.into_iter().chain([STRICT]).chain(fitful).chain(extra);
    let schedulers = [
        Scheduler::RoundRobin,
        Scheduler::WeightedRoundRobin,
        Scheduler::LeastConnection,
        Scheduler::WeightedLeastConnection,
        Scheduler::ShortestExpectedDelay,
        Scheduler::NeverQueue,
        Scheduler::SourceHash,
        Scheduler::Maglev,
        Scheduler::Failover,
        Scheduler::Locality,
        Scheduler::LocalityReplicated,
        Scheduler::PowerOfTwo,
    ];
    let mut services = Vec::new();
    for port in ports {
        let known = config.services.iter().find(|service| service.port == port);
        // One in three stays as it is.
        if let Some(known) = known.filter(|_| random.percent(33)) {
            services.push(known.clone());
            continue;
        }
        let kept: Vec<_> = SERVERS.into_iter().filter(|_| random.percent(70)).collect();
        let mut service = long_service(port, if kept.is_empty() { &SERVERS } else { &kept });
        service.scheduler = *random.pick(&schedulers);
        // Whoever calls is to get some server.
        service.balance.flags.fallback = true;
        service.balance.persistence = random.percent(30).then(Persistence::default);
        service.balance.expire_quiescent = true;
        for server in &mut service.servers {
            server.weight = u16::try_from(random.below(4)).unwrap();
        }
        service.servers[0].weight = 1;
        services.push(service);
    }
    config.services = services;
}
