//! Every scheduler against a plain model of what Linux IPVS does, step by step as its lists and marks
//! work, over arrivals, ends and operator's actions that nobody has thought of.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

#[path = "schedulers/model.rs"]
mod model;
#[path = "schedulers/scenarios.rs"]
mod scenarios;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use model::Model;
use proptest::prelude::*;
use support::*;
use tapvs::addr::{Endpoint, Proto};
use tapvs::config::{FlowLimits, Persistence, Scheduler, SchedulerFlags, Server};
use tapvs::dataplane::Verdict;
use tapvs::time::Duration;

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    /// So many clients call, from this one on.
    Arrive(u8, u8),
    /// A server's weight and limits are set.
    Edit(usize, u16, FlowLimits),
    /// One goes.
    Delete(usize),
    /// One comes, at the head.
    Add(u16, FlowLimits),
    /// One comes back that went, at the head.
    Restore(usize, u16, FlowLimits),
    /// All of this at once: some go, the weights of some others change, some come.
    Reload(Vec<(usize, Option<u16>)>, Vec<u16>),
    /// All flows end that nobody has answered.
    End,
}

const SCHEDULERS: [Scheduler; 13] = [
    Scheduler::RoundRobin,
    Scheduler::WeightedRoundRobin,
    Scheduler::LeastConnection,
    Scheduler::WeightedLeastConnection,
    Scheduler::ShortestExpectedDelay,
    Scheduler::NeverQueue,
    Scheduler::SourceHash,
    Scheduler::DestinationHash,
    Scheduler::Maglev,
    Scheduler::Failover,
    Scheduler::Overflow,
    Scheduler::Locality,
    Scheduler::LocalityReplicated,
];

fn weight() -> impl Strategy<Value = u16> {
    prop_oneof![2 => Just(0), 8 => 1u16..6, 2 => (1u16..5).prop_map(|n| n * 6), 1 => any::<u16>()]
}

fn limits() -> impl Strategy<Value = FlowLimits> {
    let some = (1u32..6, 0u32..6).prop_map(|(max, min)| FlowLimits { max, min: min.min(max) });
    prop_oneof![3 => Just(FlowLimits::default()), 1 => some]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..40, 1u8..12).prop_map(|(from, count)| Step::Arrive(from, count)),
        3 => (any::<prop::sample::Index>(), weight(), limits())
            .prop_map(|(at, weight, limits)| Step::Edit(at.index(100), weight, limits)),
        1 => any::<prop::sample::Index>().prop_map(|at| Step::Delete(at.index(100))),
        1 => (weight(), limits()).prop_map(|(weight, limits)| Step::Add(weight, limits)),
        2 => (any::<prop::sample::Index>(), weight(), limits())
            .prop_map(|(at, weight, limits)| Step::Restore(at.index(100), weight, limits)),
        2 => (
            prop::collection::vec((0usize..8, prop::option::weighted(0.8, weight())), 0..5),
            prop::collection::vec(weight(), 0..3),
        )
            .prop_map(|(changed, added)| Step::Reload(changed, added)),
        1 => Just(Step::End),
    ]
}

fn server_at(number: u8, weight: u16, limits: FlowLimits) -> Server {
    let endpoint = Endpoint { address: server_ip(number).into(), port: 80 };
    Server { limits, ..Server::new(format!("server{number}"), endpoint, weight) }
}

/// One service in both worlds.
struct Run {
    router: Router,
    model: Model,
    protocol: Proto,
    /// A client's port is never used twice.
    port: u16,
    /// The next server's number.
    number: u8,
    /// Those that went.
    removed: Vec<Server>,
}

impl Run {
    fn new(
        scheduler: Scheduler,
        flags: SchedulerFlags,
        persistence: Option<Persistence>,
        protocol: Proto,
        servers: &[(u16, FlowLimits)],
    ) -> Self {
        let listed: Vec<_> = (20..)
            .zip(servers)
            .map(|(number, (weight, limits))| server_at(number, *weight, *limits))
            .collect();
        let mut config = config();
        let mut only = service(protocol, 80, listed.clone());
        only.scheduler = scheduler;
        only.balance.flags = flags;
        only.balance.persistence = persistence;
        config.services = vec![only];
        config.router.timeouts.udp = Duration::from_secs(30);
        config.router.timeouts.syn_recv = Duration::from_secs(30);
        let model = Model::new(scheduler, flags, persistence, &listed);
        let number = 20 + u8::try_from(servers.len()).unwrap();
        let removed = Vec::new();
        Self { router: Router::new(config), model, protocol, port: 2_000, number, removed }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Arrive(from, count) => {
                for client in *from..from + count {
                    self.arrive(Ipv4Addr::new(198, 51, 100, 1 + client % 50));
                }
            }
            Step::Edit(at, weight, limits) => {
                let count = self.servers();
                if count > 0 {
                    let at = at % count;
                    self.router.change(|config| {
                        let server = &mut config.services[0].servers[at];
                        (server.weight, server.limits) = (*weight, *limits);
                    });
                    self.model.edit(at, *weight, *limits);
                }
            }
            Step::Delete(at) => {
                let count = self.servers();
                if count > 0 {
                    let at = at % count;
                    let removed = &mut self.removed;
                    self.router.change(|config| {
                        removed.push(config.services[0].servers.remove(at));
                    });
                    self.model.delete(at);
                }
            }
            Step::Add(weight, limits) => {
                let server = server_at(self.number, *weight, *limits);
                self.number += 1;
                self.add(server);
            }
            Step::Restore(at, weight, limits) => {
                if !self.removed.is_empty() {
                    let mut server = self.removed.swap_remove(at % self.removed.len());
                    (server.weight, server.limits) = (*weight, *limits);
                    self.add(server);
                }
            }
            Step::Reload(changed, added) => self.reload(changed, added),
            Step::End => {
                self.router.advance(Duration::from_secs(40));
                self.model.end();
            }
        }
    }

    fn add(&mut self, server: Server) {
        self.model.add(&server);
        self.router.change(|config| config.services[0].servers.insert(0, server));
        // Until its MAC is known.
        self.router.advance(Duration::from_millis(100));
    }

    /// What one file changes at once, an operator would do one by one.
    fn reload(&mut self, changed: &[(usize, Option<u16>)], added: &[u16]) {
        let mut servers = self.router.config.services[0].servers.clone();
        let changed: BTreeMap<_, _> =
            changed.iter().copied().filter(|(at, _)| *at < servers.len()).collect();
        let leaving = changed.iter().filter(|(_, weight)| weight.is_none());
        for (gone, (at, _)) in leaving.enumerate() {
            self.removed.push(servers.remove(at - gone));
            self.model.delete(at - gone);
        }
        let mut gone = 0;
        for (at, weight) in changed {
            let Some(weight) = weight else {
                gone += 1;
                continue;
            };
            let server = &mut servers[at - gone];
            server.weight = weight;
            self.model.edit(at - gone, weight, server.limits);
        }
        for weight in added.iter().rev() {
            let server = server_at(self.number, *weight, FlowLimits::default());
            self.number += 1;
            self.model.add(&server);
            servers.insert(0, server);
        }
        self.router.change(|config| config.services[0].servers = servers);
        self.router.advance(Duration::from_millis(100));
    }

    fn servers(&self) -> usize {
        self.router.config.services[0].servers.len()
    }

    fn arrive(&mut self, client: Ipv4Addr) {
        let chosen = self.choice(client);
        let expected = self.model.arrive(client, self.port, VIP, self.protocol);
        assert_eq!(chosen, expected, "{client}:{} of {:#?}", self.port, self.model);
    }

    /// Where the router sends a first packet of the client's.
    fn choice(&mut self, client: Ipv4Addr) -> Option<Ipv4Addr> {
        self.port += 1;
        let from = format!("{client}:{}", self.port);
        let packet = match self.protocol {
            Proto::Tcp => tcp(&from, "203.0.113.10:80", SYN, 1, 0, b""),
            Proto::Udp => udp(&from, "203.0.113.10:80", b"?"),
        };
        let step = self.router.feed(OUT, &packet.frame());
        match step.verdict {
            Verdict::Forward(IN) => Read::frame(step.only()).map(|packet| packet.destination),
            Verdict::Drop(tapvs::dataplane::DropReason::NoServer) => None,
            other => panic!("{other:?}"),
        }
    }
}

fn flags() -> impl Strategy<Value = SchedulerFlags> {
    (any::<bool>(), any::<bool>()).prop_map(|(port, fallback)| SchedulerFlags { port, fallback })
}

fn persistence() -> impl Strategy<Value = Option<Persistence>> {
    let some = (28u8..=32)
        .prop_map(|prefix| Some(Persistence { timeout: Duration::from_secs(7_200), prefix }));
    prop_oneof![3 => Just(None), 1 => some]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_scheduler_chooses_as_ipvs(
        scheduler in prop::sample::select(&SCHEDULERS[..]),
        flags in flags(),
        persistence in persistence(),
        protocol in prop_oneof![Just(Proto::Tcp), Just(Proto::Udp)],
        servers in prop::collection::vec((weight(), limits()), 0..7),
        steps in prop::collection::vec(step(), 1..25),
    ) {
        let hashes = matches!(scheduler, Scheduler::SourceHash | Scheduler::Maglev);
        let flags = if hashes { flags } else { SchedulerFlags::default() };
        let mut run = Run::new(scheduler, flags, persistence, protocol, &servers);
        for step in &steps {
            run.step(step);
        }
    }
}

/// A flow that lives for ten milliseconds weighs on its server for that long, wherever in a second it
/// begins.
#[test]
fn what_is_over_in_ten_milliseconds_counts_no_longer() {
    let servers = [(1, FlowLimits::default()); 2];
    let flags = SchedulerFlags::default();
    let mut run = Run::new(Scheduler::LeastConnection, flags, None, Proto::Udp, &servers);
    run.router.change(|config| config.router.timeouts.udp = Duration::from_millis(10));
    let counts = |run: &Run| -> Vec<_> {
        let report = run.router.report();
        let servers = report.services[0].servers.iter();
        servers.map(|server| (server.load.active, server.load.inactive)).collect()
    };
    for pause in [0, 137, 481, 369, 2_995] {
        run.router.advance(Duration::from_millis(pause));
        for number in [20, 21] {
            let chosen = run.choice(Ipv4Addr::new(198, 51, 100, number));
            assert_eq!(chosen, Some(server_ip(number)), "after {pause} ms");
        }
        run.router.advance(Duration::from_millis(9));
        assert_eq!(counts(&run), [(0, 1); 2], "after {pause} ms");
        run.router.advance(Duration::from_millis(3));
        assert_eq!(counts(&run), [(0, 0); 2], "after {pause} ms");
    }
}
