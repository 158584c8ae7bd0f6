//! Walks through the kernel's schedulers by hand, one line each: what its C code does step by step with
//! these servers, worked out on paper.

use std::net::Ipv4Addr;

use super::*;

/// Servers are letters, with weights; they are listed in this order. Then:
///
/// - `AAB-`: the next connections, each of another client, go there; `-`: nowhere.
/// - `7:AB`: those of client 7. `192.0.2.1:A`: of that one.
/// - `A=3`: its weight is set. If it is not there, it comes, at the head.
/// - `A<5/2`: its `max_flows` and `min_flows`.
/// - `!A`: it goes. `end`: all connections end.
const SCENARIOS: [(Scheduler, Proto, &str, &str); 24] = [
    (Scheduler::RoundRobin, Proto::Udp, "A=1 B=1 C=1 D=1", "AB !B CDA !A CDC E=1 DEC D=0 ECE"),
    (Scheduler::RoundRobin, Proto::Udp, "A=2 B=1", "A A=0 B=0 -- B=1 BB A=7 ABA"),
    (Scheduler::RoundRobin, Proto::Udp, "A=1 B=1", "A !A !B - C=1 D=1 DCD"),
    (
        Scheduler::RoundRobin,
        Proto::Udp,
        "A=1 B=1",
        "A<3 ABABABB A<5/1 ABABB A<4/1 BB A<0 ABA A<7/3 BAB end ABA",
    ),
    // The level sinks by 2 from 5; the first walk takes each once.
    (
        Scheduler::WeightedRoundRobin,
        Proto::Udp,
        "A=6 B=4 C=2",
        "ABC AABABC AA A=0 BBCBBC A=6 ABCAABABC",
    ),
    // A level above the new top sinks to it, and no further.
    (Scheduler::WeightedRoundRobin, Proto::Udp, "A=9 B=1", "AB AAA A=2 AABAAB"),
    // 6 by 3 begins at 4; the level 6 of the steps of one sinks to it.
    (Scheduler::WeightedRoundRobin, Proto::Udp, "A=6 B=3 C=1", "ABC A C=0 AABAAB"),
    (Scheduler::WeightedRoundRobin, Proto::Udp, "A=0 B=0", "-- A=4 AAA B=2 ABAABAAB"),
    (Scheduler::WeightedRoundRobin, Proto::Udp, "A=2 B=1", "AB A<3 ABABB A<0 AB"),
    (Scheduler::LeastConnection, Proto::Tcp, "A=1 B=9 C=0", "ABAB C=1 CCABC !A BCB"),
    (Scheduler::WeightedLeastConnection, Proto::Tcp, "A=1 B=2", "ABBABBA A=0 BBB A=3 AAAAAAAABAAB"),
    // An inactive one weighs a 256th.
    (Scheduler::WeightedLeastConnection, Proto::Udp, "A=1 B=3", "ABBBABBBA !B AA B=3 BBBBBB"),
    (Scheduler::ShortestExpectedDelay, Proto::Tcp, "A=1 B=2", "BABBABBA"),
    (Scheduler::NeverQueue, Proto::Tcp, "A=0 B=1 C=2", "BCCCB A=1 AACCA"),
    (Scheduler::NeverQueue, Proto::Udp, "A=1 B=9", "AAA A=0 BB"),
    (Scheduler::Failover, Proto::Udp, "A=3 B=5 C=5", "BBB B=0 CC C<3 CAA end C C=0 A B=1 A A=0 B"),
    (Scheduler::Overflow, Proto::Tcp, "A=1 B=2", "BBBAA-- A=5 AAAA- B=6 BBBB end B"),
    (Scheduler::Overflow, Proto::Udp, "A=1 B=2", "BBBBB B=0 AAA"),
    (Scheduler::Locality, Proto::Tcp, "A=1 B=1 C=1", "AABBCCCCC D=4 DDDDDDD !D AA D=4 A"),
    (Scheduler::Locality, Proto::Tcp, "A=1 B=1", "A !A A=1 A B=5 B end !B A B=1 A"),
    (Scheduler::LocalityReplicated, Proto::Tcp, "A=1 B=1 C=1", "AABBCCCBAC"),
    // While A is away the address has B; both are its own when A comes back.
    (Scheduler::LocalityReplicated, Proto::Tcp, "A=1 B=1 C=1", "A !A BB C=0 A=1 A"),
    // Buckets 50, 148 and 171, filled in turn.
    (
        Scheduler::SourceHash,
        Proto::Udp,
        "A=1 B=1",
        "192.0.2.1:A 192.0.2.2:A 198.51.100.7:B A=0 192.0.2.1:- 198.51.100.7:B A=3 192.0.2.2:A 198.51.100.7:B \
         B=2 192.0.2.1:A 192.0.2.2:B 198.51.100.7:A",
    ),
    (Scheduler::DestinationHash, Proto::Udp, "A=1", "AA A=0 -- A=9 A !A - A=1 A"),
];

/// The same with clients that are remembered.
const REMEMBERED: [&str; 4] = [
    "1:A 2:B 1:A A=0 1:A 3:B !A 2:B 1:B A=1 1:B 4:A",
    "1:A 2:B !A A=1 1:A 2:B",
    "1:A 2:B !A !B 1:- A=1 B=1 1:B 3:A",
    "1:A A<2 1:AA 2:B 3:B 1:A",
];

#[test]
fn what_the_kernels_code_comes_to() {
    for (scheduler, protocol, servers, script) in SCENARIOS {
        Play::new(scheduler, protocol, None, servers).act(script);
    }
    for script in REMEMBERED {
        let sticky = Some(Persistence { timeout: Duration::from_secs(300), prefix: 32 });
        Play::new(Scheduler::RoundRobin, Proto::Tcp, sticky, "A=1 B=1").act(script);
    }
}

/// `sh-fallback` from bucket 50 looks at 100, 101 and so on, from 171 at 86, 87.
#[test]
fn the_way_of_a_fallback() {
    let flags = SchedulerFlags { fallback: true, port: false };
    for (servers, script) in [
        ("A=1 B=1", "A=0 192.0.2.1:B 198.51.100.7:B B=0 192.0.2.1:-"),
        ("A=1 B=1 C=1", "192.0.2.1:C C=0 192.0.2.1:B B=0 192.0.2.1:A"),
    ] {
        let mut play = Play::new(Scheduler::SourceHash, Proto::Udp, None, servers);
        play.run.router.change(|config| config.services[0].balance.flags = flags);
        play.act(script);
    }
}

struct Play {
    run: Run,
    client: u8,
    /// To tell of a difference.
    script: String,
}

impl Play {
    fn new(
        scheduler: Scheduler,
        protocol: Proto,
        persistence: Option<Persistence>,
        servers: &str,
    ) -> Self {
        let mut run = Run::new(scheduler, SchedulerFlags::default(), persistence, protocol, &[]);
        let listed = servers.split(' ').map(|word| {
            let (name, weight) = word.split_once('=').unwrap();
            server_at(number(name), weight.parse().unwrap(), FlowLimits::default())
        });
        let listed: Vec<_> = listed.collect();
        let mut config = run.router.config.clone();
        config.services[0].servers = listed;
        run.router = Router::new(config);
        Self { run, client: 0, script: format!("{scheduler}: {servers}:") }
    }

    fn act(&mut self, script: &str) {
        for word in script.split_whitespace() {
            self.script.push_str(&format!(" {word}"));
            self.word(word);
        }
    }

    fn word(&mut self, word: &str) {
        if word == "end" {
            self.run.router.advance(Duration::from_secs(40));
        } else if let Some(name) = word.strip_prefix('!') {
            let at = self.place(name).unwrap();
            self.run.router.change(|config| drop(config.services[0].servers.remove(at)));
        } else if let Some((name, weight)) = word.split_once('=') {
            let weight = weight.parse().unwrap();
            match self.place(name) {
                Some(at) => {
                    self.run.router.change(|config| config.services[0].servers[at].weight = weight);
                }
                None => {
                    let server = server_at(number(name), weight, FlowLimits::default());
                    self.run.router.change(|config| config.services[0].servers.insert(0, server));
                    self.run.router.advance(Duration::from_millis(100));
                }
            }
        } else if let Some((name, limits)) = word.split_once('<') {
            let (max, min) = limits.split_once('/').unwrap_or((limits, "0"));
            let limits = FlowLimits { max: max.parse().unwrap(), min: min.parse().unwrap() };
            let at = self.place(name).unwrap();
            self.run.router.change(|config| config.services[0].servers[at].limits = limits);
        } else {
            self.arrive(word);
        }
    }

    fn arrive(&mut self, word: &str) {
        let (from, expected) = word.split_once(':').unwrap_or(("", word));
        for expected in expected.chars() {
            let client = match from.parse::<u8>() {
                Ok(client) => Ipv4Addr::new(198, 51, 100, client),
                Err(_) => from.parse().unwrap_or_else(|_| {
                    self.client += 1;
                    Ipv4Addr::new(198, 51, 100, self.client)
                }),
            };
            let chosen = self.run.choice(client);
            let chosen = chosen.map_or('-', |server| char::from(b'A' + server.octets()[3] - 20));
            assert_eq!(chosen, expected, "{}", self.script);
        }
    }

    fn place(&self, name: &str) -> Option<usize> {
        let address = server_ip(number(name));
        let servers = &self.run.router.config.services[0].servers;
        servers.iter().position(|server| server.endpoint.address == address)
    }
}

/// A is 10.0.0.20.
fn number(name: &str) -> u8 {
    let [letter] = name.as_bytes() else { panic!("{name}") };
    20 + letter - b'A'
}
