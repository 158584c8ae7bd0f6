//! What a service does besides choosing: ports and groups, persistence, thresholds, datagrams one by
//! one, timeouts of its own, reuse, counters.

use std::collections::BTreeSet;

use tapvs::config::{Balance, FlowLimits, Group, Member, Persistence, Scheduler};
use tapvs::dataplane::{State, Verdict};
use tapvs::time::Duration;

use super::support::router;
use super::*;
use tapvs::addr::Ports;

fn persistent(seconds: u64, prefix: u8) -> Option<Persistence> {
    Some(Persistence { timeout: Duration::from_secs(seconds), prefix })
}

/// The server that a first packet from `client` to `to` goes to.
fn server_of(router: &mut Router, client: &str, to: &str) -> String {
    let frame = tcp(client, to, SYN, 1, 0, b"").frame();
    let step = router.feed(OUT, &frame);
    match step.verdict {
        Verdict::Forward(_) => {
            let read = Read::frame(step.only()).unwrap();
            format!("{}:{}", read.destination, read.ports().unwrap().1)
        }
        other => router::verdict_name(other),
    }
}

/// Whom a frame is seen to come from.
fn source_of(frame: &[u8]) -> String {
    let read = Read::frame(frame).unwrap();
    format!("{}:{}", read.source, read.ports().unwrap().0)
}

/// One service of three servers that keep the packet's port.
fn keeping(change: impl FnOnce(&mut tapvs::config::Service)) -> Config {
    let mut config = config();
    config.services.truncate(1);
    let only = &mut config.services[0];
    for server in &mut only.servers {
        server.endpoint.port = 0;
    }
    change(only);
    config
}

#[test]
fn the_narrowest_service_wins_and_ports_are_kept() {
    let mut config = keeping(|service| {
        service.port = 0;
        service.balance.persistence = persistent(300, 32);
    });
    let one = |port: u16, last: Option<u16>, to: u8, own: u16| {
        let mut service = service(Proto::Tcp, port, vec![server(to, own, 1)]);
        (service.last_port, service.name) = (last, format!("{port}"));
        service
    };
    config.services.push(one(8_000, Some(8_100), 21, 0));
    config.services.push(one(8_050, Some(8_060), 22, 0));
    config.services.push(one(8_055, None, 23, 9_000));
    let mut router = Router::new(config);
    let mut port = 40_000;
    for (to, expected) in [
        (80, "10.0.0.11:80"),
        (7_999, "10.0.0.11:7999"),
        (8_000, "10.0.0.21:8000"),
        (8_049, "10.0.0.21:8049"),
        (8_050, "10.0.0.22:8050"),
        (8_055, "10.0.0.23:9000"),
        (8_060, "10.0.0.22:8060"),
        (8_100, "10.0.0.21:8100"),
        (8_101, "10.0.0.11:8101"),
        (65_535, "10.0.0.11:65535"),
    ] {
        port += 1;
        let client = format!("198.51.100.7:{port}");
        assert_eq!(server_of(&mut router, &client, &format!("203.0.113.10:{to}")), expected);
        // And back.
        let answer = tcp(expected, &client, SYN | ACK, 1, 2, b"").frame();
        let step = router.feed(IN, &answer);
        assert_eq!(source_of(step.only()), format!("203.0.113.10:{to}"));
    }
}

/// A group's ports and protocols are one client's one choice, and one count.
#[test]
fn a_group_is_one_service() {
    let grouped = keeping(|service| {
        service.scheduler = Scheduler::WeightedLeastConnection;
        service.balance.persistence = persistent(300, 32);
        let member = |name: &str, protocol, ports| Member {
            name: name.into(),
            protocol,
            address: VIP.into(),
            ports,
        };
        service.group = Some(Group {
            name: "site".into(),
            members: vec![
                member("tls", Proto::Tcp, Ports::of(443)),
                member("quic", Proto::Udp, Ports::of(443)),
                member("wide", Proto::Tcp, Ports { first: 9_000, last: 9_009 }),
            ],
        });
    });
    let mut router = Router::new(grouped);
    for host in 1..=9 {
        let client = |port: u16| format!("198.51.100.{host}:{port}");
        let first = server_of(&mut router, &client(1_000), "203.0.113.10:80");
        let address = first.trim_end_matches(":80");
        for (port, to) in [(1_001, 443), (1_002, 9_000), (1_003, 9_009)] {
            let again = server_of(&mut router, &client(port), &format!("203.0.113.10:{to}"));
            assert_eq!(again, format!("{address}:{to}"));
        }
        let datagram = udp(&client(1_004), "203.0.113.10:443", b"?").frame();
        let step = router.feed(OUT, &datagram);
        let read = Read::frame(step.only()).unwrap();
        assert_eq!(
            format!("{}:{}", read.destination, read.ports().unwrap().1),
            format!("{address}:443")
        );
    }
    let report = router.report();
    assert_eq!(report.services.len(), 1);
    let load = report.services[0].load;
    assert_eq!((load.active, load.inactive), (36, 9));
    for server in &report.services[0].servers {
        assert_eq!((server.load.active, server.load.inactive), (12, 3), "{}", server.name);
        assert_eq!(server.traffic.flows, 15);
    }
    assert_eq!(server_of(&mut router, "198.51.100.1:9", "203.0.113.10:444"), "drop unserved");
}

#[test]
fn a_client_is_remembered_for_as_long_as_it_says() {
    let mut config = config();
    config.services[0].balance.persistence = persistent(300, 24);
    config.router.timeouts.syn_recv = Duration::from_secs(10);
    let mut router = Router::new(config);
    let ask = |router: &mut Router, client: &str| server_of(router, client, "203.0.113.10:80");
    let first = ask(&mut router, "198.51.100.7:1");
    assert_eq!(ask(&mut router, "198.51.100.200:2"), first, "the same /24");
    assert_ne!(ask(&mut router, "198.51.101.7:3"), first);
    let of_service = |router: &Router| router.dataplane.client_count().0;
    assert_eq!(of_service(&router), 2);
    // Each new flow begins the time anew.
    router.advance(Duration::from_secs(299));
    assert_eq!(ask(&mut router, "198.51.100.8:4"), first);
    router.advance(Duration::from_secs(299));
    assert_eq!(ask(&mut router, "198.51.100.9:5"), first);
    assert_eq!(of_service(&router), 1, "the other one has been silent");
    router.advance(Duration::from_secs(301));
    assert_eq!(of_service(&router), 0);
    assert_ne!(ask(&mut router, "198.51.100.7:6"), first, "nobody knows it any more");
}

/// While it has a flow a client is not forgotten, however long ago that began.
#[test]
fn a_client_with_a_flow_is_not_forgotten() {
    let mut config = config();
    config.services[0].balance.persistence = persistent(60, 32);
    let mut router = Router::new(config);
    let first = server_of(&mut router, "198.51.100.7:1", "203.0.113.10:80");
    for (link, frame) in [
        (IN, tcp(&first, "198.51.100.7:1", SYN | ACK, 9, 2, b"").frame()),
        (OUT, tcp("198.51.100.7:1", "203.0.113.10:80", ACK, 2, 10, b"").frame()),
    ] {
        router.feed(link, &frame);
    }
    assert_eq!(router.state(1), Some(State::Established));
    router.advance(Duration::from_secs(800));
    assert_eq!(server_of(&mut router, "198.51.100.7:2", "203.0.113.10:80"), first);
    // The flow ends, and the client with it a while later.
    router.advance(Duration::from_secs(900 + 120));
    assert_eq!(router.dataplane.client_count().0, 0);
}

#[test]
fn what_takes_a_clients_server_away() {
    let with = |change: fn(&mut Balance)| {
        let mut config = config();
        config.services[0].balance.persistence = persistent(300, 32);
        change(&mut config.services[0].balance);
        let mut router = Router::new(config);
        let first = server_of(&mut router, "198.51.100.7:1", "203.0.113.10:80");
        assert_eq!(first, "10.0.0.11:8080");
        router
    };
    let again = |router: &mut Router| server_of(router, "198.51.100.7:2", "203.0.113.10:80");
    // Weight 0 does not, unless it is to.
    for (quiescent, is_kept) in [(false, true), (true, false)] {
        let mut router = with(|_| ());
        router.change(|config| {
            config.services[0].balance.expire_quiescent = quiescent;
            config.services[0].servers[0].weight = 0;
        });
        assert_eq!(again(&mut router) == "10.0.0.11:8080", is_kept);
    }
    // Nor does being full.
    let mut router = with(|_| ());
    router.change(|config| config.services[0].servers[0].limits = FlowLimits { max: 1, min: 0 });
    assert_eq!(again(&mut router), "10.0.0.11:8080");
    assert!(router.report().services[0].servers[0].is_full);
    assert_eq!(server_of(&mut router, "198.51.100.8:1", "203.0.113.10:80"), "10.0.0.12:8080");
    assert_eq!(server_of(&mut router, "198.51.100.9:1", "203.0.113.10:80"), "10.0.0.13:8080");
    assert_eq!(server_of(&mut router, "198.51.100.10:1", "203.0.113.10:80"), "10.0.0.12:8080");
    // Being down does, and the client stays with whom it gets then.
    let mut router = with(|_| ());
    router.down.insert(router.config.services[0].servers[0].endpoint);
    router.change(|_| ());
    assert_eq!(again(&mut router), "10.0.0.12:8080");
    router.down.clear();
    router.change(|_| ());
    assert_eq!(server_of(&mut router, "198.51.100.7:3", "203.0.113.10:80"), "10.0.0.12:8080");
    // As does being removed.
    router.change(|config| drop(config.services[0].servers.remove(1)));
    let next = server_of(&mut router, "198.51.100.7:4", "203.0.113.10:80");
    assert!(["10.0.0.11:8080", "10.0.0.13:8080"].contains(&&*next), "{next}");
    // Persistence that is no more remembers nobody.
    router.change(|config| config.services[0].balance.persistence = None);
    let servers: BTreeSet<_> = (5..8)
        .map(|n| server_of(&mut router, &format!("198.51.100.7:{n}"), "203.0.113.10:80"))
        .collect();
    assert_eq!(servers.len(), 2);
}

/// A full server is passed over until enough of its flows are gone.
#[test]
fn thresholds_have_hysteresis() {
    let mut config = config();
    config.services.truncate(1);
    config.services[0].servers.truncate(2);
    config.services[0].servers[0].limits = FlowLimits { max: 3, min: 2 };
    config.router.timeouts.syn_recv = Duration::from_secs(10);
    let mut router = Router::new(config);
    let mut port = 0;
    let mut ask = |router: &mut Router| {
        port += 1;
        let client = format!("198.51.100.7:{port}");
        server_of(router, &client, "203.0.113.10:80") == "10.0.0.11:8080"
    };
    let mut taken = Vec::new();
    for second in 0..14 {
        taken.push((second, ask(&mut router)));
        router.advance(Duration::from_secs(1));
    }
    let first: Vec<_> = taken.iter().filter(|(_, first)| *first).map(|(at, _)| *at).collect();
    // In turn until it has three, and again when two of them are gone, ten seconds old.
    assert_eq!(first[..3], [0, 2, 4]);
    assert!(first[3] >= 12, "{first:?}");
}

/// Each datagram goes to the next server; every answer finds its way back, and a late one none.
#[test]
fn datagrams_one_by_one() {
    let mut config = config();
    config.services[1].balance.one_packet = true;
    let timeouts = config.router.timeouts;
    let udp_timeout = Duration::from_millis(500);
    config.services[1].balance.timeouts =
        Some(tapvs::config::Timeouts { udp: udp_timeout, ..timeouts });
    let mut router = Router::new(config);
    let ask = udp("198.51.100.7:5353", "203.0.113.10:53", b"who?").frame();
    let mut servers = Vec::new();
    for _ in 0..6 {
        let step = router.feed(OUT, &ask);
        servers.push(Read::frame(step.only()).unwrap().destination.octets()[3]);
    }
    assert_eq!(servers, [11, 12, 11, 12, 11, 12]);
    assert_eq!(router.flows().len(), 2, "one for each server that is to answer");
    let report = router.report();
    let service = &report.services[1];
    assert_eq!((service.traffic.flows, service.traffic.packets_in), (6, 6));
    assert_eq!((service.load.active, service.load.inactive), (0, 0));
    let answers =
        [11, 12].map(|n| udp(&format!("10.0.0.{n}:53"), "198.51.100.7:5353", b"you").frame());
    for answer in &answers {
        let step = router.feed(IN, answer);
        assert_eq!(source_of(step.only()), "203.0.113.10:53");
    }
    assert_eq!(router.report().services[1].traffic.packets_out, 2);
    router.advance(Duration::from_secs(3));
    assert_eq!(router.flows().len(), 0);
    assert!(matches!(router.feed(IN, &answers[0]).verdict, Verdict::Drop(_)));
    // A server that is taken away is gone as soon as nobody waits for it.
    router.feed(OUT, &ask);
    router.change(|config| config.services[1].servers.clear());
    router.advance(Duration::from_secs(3));
    let retired =
        router.events.iter().filter(|e| matches!(e, tapvs::dataplane::Event::ServerRetired(_)));
    assert_eq!(retired.count(), 2);
}

/// Directly routed, nothing stays of a datagram.
#[test]
fn direct_datagrams_leave_nothing() {
    let mut config = direct(config());
    config.services[1].balance.one_packet = true;
    let mut router = Router::new(config);
    for n in 0..4 {
        let ask = udp("198.51.100.7:5353", "203.0.113.10:53", b"who?").frame();
        let step = router.feed(OUT, &ask);
        assert_eq!(step.only()[..6], server_mac(11 + n % 2).0, "{n}");
        assert_eq!(router.flows().len(), 0);
    }
    assert_eq!(router.report().services[1].traffic.flows, 4);
}

/// A service's own timeouts, down to milliseconds; others keep the router's.
#[test]
fn timeouts_of_a_service() {
    let mut config = config();
    let router_wide = config.router.timeouts;
    config.services[1].balance.timeouts =
        Some(tapvs::config::Timeouts { udp: Duration::from_millis(10), ..router_wide });
    config.services[0].balance.timeouts =
        Some(tapvs::config::Timeouts { syn_recv: Duration::from_secs(3), ..router_wide });
    let mut router = Router::new(config);
    let ask = udp("198.51.100.7:5353", "203.0.113.10:53", b"who?").frame();
    let mut servers = Vec::new();
    for millis in [0, 9, 9, 11, 11] {
        router.advance(Duration::from_millis(millis));
        let step = router.feed(OUT, &ask);
        servers.push(Read::frame(step.only()).unwrap().destination.octets()[3]);
    }
    assert_eq!(servers, [11, 11, 11, 12, 11], "a flow lives for 10 ms");
    server_of(&mut router, "198.51.100.7:1", "203.0.113.10:80");
    router.advance(Duration::from_secs(5));
    assert_eq!(router.flows().len(), 0);
}

/// A SYN for what is over starts over at once; for what is not, it does not.
#[test]
fn reuse_is_scheduled_anew() {
    for (is_direct, flags, state, is_new) in [
        (false, &[(OUT, SYN), (IN, SYN | ACK), (OUT, ACK)][..], State::Established, false),
        (
            false,
            &[(OUT, SYN), (IN, SYN | ACK), (OUT, ACK), (OUT, FIN | ACK), (IN, FIN | ACK)],
            State::TimeWait,
            true,
        ),
        (false, &[(OUT, SYN), (IN, SYN | ACK), (OUT, ACK), (IN, RST)], State::Close, true),
        (false, &[(OUT, SYN), (IN, SYN | ACK), (OUT, ACK), (IN, FIN | ACK)], State::FinWait, false),
        (true, &[(OUT, SYN), (OUT, ACK), (OUT, FIN | ACK)], State::FinWait, true),
        (true, &[(OUT, SYN), (OUT, ACK), (OUT, RST)], State::Close, true),
        (true, &[(OUT, SYN), (OUT, ACK)], State::Established, false),
    ] {
        let config = if is_direct { direct(config()) } else { config() };
        let mut router = Router::new(config);
        for (link, flags) in flags {
            let frame = if *link == OUT {
                tcp("198.51.100.7:1", "203.0.113.10:80", *flags, 1, 1, b"").frame()
            } else {
                tcp("10.0.0.11:8080", "198.51.100.7:1", *flags, 1, 1, b"").frame()
            };
            router.feed(*link, &frame);
        }
        assert_eq!(router.state(1), Some(state));
        let syn = tcp("198.51.100.7:1", "203.0.113.10:80", SYN, 90_000, 0, b"").frame();
        let step = router.feed(OUT, &syn);
        assert!(matches!(step.verdict, Verdict::Forward(_)), "never dropped: {}", step.text());
        let to = MacAddr::from_slice(&step.only()[..6]);
        assert_eq!(to == server_mac(12), is_new, "{state:?} {is_direct}");
    }
}

/// A server that was taken away and is given back has its connections and its counters again, as in IPVS.
#[test]
fn a_server_that_comes_back_is_the_one_it_was() {
    let mut config = config();
    config.services.truncate(1);
    config.services[0].scheduler = Scheduler::LeastConnection;
    let mut router = Router::new(config);
    for n in 0..9 {
        server_of(&mut router, &format!("198.51.100.7:{}", 1_000 + n), "203.0.113.10:80");
    }
    let whole = router.config.clone();
    router.change(|config| drop(config.services[0].servers.remove(1)));
    for n in 0..4 {
        let server =
            server_of(&mut router, &format!("198.51.100.8:{}", 1_000 + n), "203.0.113.10:80");
        assert_ne!(server, "10.0.0.12:8080");
    }
    router.reload(whole);
    let report = router.report();
    let second = &report.services[0].servers[1];
    assert_eq!((second.load.active, second.traffic.flows), (3, 3));
    let next: Vec<_> = (0..3)
        .map(|n| server_of(&mut router, &format!("198.51.100.9:{n}"), "203.0.113.10:80"))
        .collect();
    assert_eq!(next, ["10.0.0.12:8080", "10.0.0.12:8080", "10.0.0.11:8080"]);
    // When nothing is left of it, it begins anew.
    router.change(|config| drop(config.services[0].servers.remove(1)));
    router.advance(Duration::from_secs(100));
    router.change(|config| config.services[0].servers.insert(1, server(12, 8080, 1)));
    assert_eq!(router.report().services[0].servers[1].traffic.flows, 0);
}
