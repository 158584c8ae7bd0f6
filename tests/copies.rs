//! Two routers of a pair, of which one copies its flows to the other: whatever the first would have
//! done with the next packet, the second does, byte for byte.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

#[path = "copies/model.rs"]
mod model;
#[path = "copies/pair.rs"]
mod pair;

use pair::{Pair, exported, whole};
use support::*;
use tapvs::addr::{LinkId, Proto};
use tapvs::config::{Config, Forward, Masquerade, Method, Scheduler};
use tapvs::dataplane::{
    DropReason, FLOW_RECORD, FlowRecord, ImportError, Imported, State, Verdict,
};
use tapvs::time::Duration;

const CLIENT: &str = "198.51.100.7:40000";
const WEB: &str = "203.0.113.10:80";
const DNS: &str = "203.0.113.10:53";
const FILES: &str = "203.0.113.10:81";
const SERVER11: &str = "10.0.0.11:8080";
const SERVER12: &str = "10.0.0.12:8080";
const REMOTE: &str = "198.51.100.9:25";
const SEEN_AS: &str = "203.0.113.10:5000";

type Frames = Vec<(LinkId, Ip)>;

/// Everything that there is: NAT, direct routing, masquerading.
fn everything() -> Config {
    let mut config = config();
    let mut files = service(Proto::Tcp, 81, vec![server(11, 81, 1), server(12, 81, 1)]);
    files.method = Method::Direct;
    config.services.push(files);
    config.router.forward = Forward::ServersOut;
    config.masquerades = vec![Masquerade { from: "10.0.0.0/24".parse().unwrap(), to: VIP.into() }];
    config
}

/// A connection from `client` to `service` at `server` that both ends have agreed on.
fn handshake(client: &str, service: &str, server: &str) -> Frames {
    vec![
        (OUT, tcp(client, service, SYN, 1000, 0, b"")),
        (IN, tcp(server, client, SYN | ACK, 500, 1001, b"")),
        (OUT, tcp(client, service, ACK, 1001, 501, b"")),
    ]
}

/// A connection of `client` to the web service, at whichever server it gets.
fn connect(pair: &mut Pair, client: &str) {
    let out = pair.one.feed(OUT, &tcp(client, WEB, SYN, 1000, 0, b"").frame());
    let server = format!("{}:8080", Read::frame(out.only()).unwrap().destination);
    pair.feed(&handshake(client, WEB, &server)[1..]);
}

fn error(from: &str, to: &str, about: &Ip) -> Ip {
    icmp(from, to, (3, 3), [0; 4], &about.packet())
}

/// What a kind of flow is opened with, and what it goes on with.
struct Kind {
    name: &'static str,
    opens: Frames,
    goes_on: Frames,
}

fn kinds() -> Vec<Kind> {
    let server11_calls = tcp("10.0.0.11:7000", WEB, SYN, 7, 0, b"");
    let to_caller = "10.0.0.1:7000";
    let ping = |rest| icmp("10.0.0.11", "198.51.100.9", (8, 0), rest, b"ping");
    let pong = |rest| icmp("198.51.100.9", "203.0.113.10", (0, 0), rest, b"ping");
    vec![
        Kind {
            name: "NAT, TCP",
            opens: handshake(CLIENT, WEB, SERVER11),
            goes_on: vec![
                (OUT, tcp(CLIENT, WEB, PSH | ACK, 1001, 501, b"hello")),
                (IN, tcp(SERVER11, CLIENT, PSH | ACK, 501, 1006, b"you too")),
                (IN, error("10.0.0.11", "198.51.100.7", &tcp(CLIENT, SERVER11, ACK, 1, 1, b""))),
                (OUT, error("198.51.100.1", "203.0.113.10", &tcp(WEB, CLIENT, ACK, 1, 1, b""))),
                (OUT, tcp(CLIENT, WEB, ACK, 1006, 508, b"").ttl(1)),
                (IN, tcp(SERVER11, CLIENT, FIN | ACK, 508, 1006, b"")),
                (OUT, tcp(CLIENT, WEB, FIN | ACK, 1006, 509, b"")),
            ],
        },
        Kind {
            name: "NAT, UDP",
            opens: vec![
                (OUT, udp(CLIENT, DNS, b"who?")),
                (IN, udp("10.0.0.11:53", CLIENT, b"you")),
                (OUT, udp(CLIENT, DNS, b"who?")),
            ],
            goes_on: vec![
                (IN, udp("10.0.0.11:53", CLIENT, b"you again")),
                (OUT, udp(CLIENT, DNS, b"who else?")),
                (IN, error("10.0.0.11", "198.51.100.7", &udp(CLIENT, "10.0.0.11:53", b"who"))),
            ],
        },
        Kind {
            name: "direct",
            opens: vec![
                (OUT, tcp(CLIENT, FILES, SYN, 1000, 0, b"")),
                (OUT, tcp(CLIENT, FILES, ACK, 1001, 501, b"")),
                (OUT, tcp(CLIENT, FILES, PSH | ACK, 1001, 501, b"get")),
            ],
            goes_on: vec![
                (OUT, tcp(CLIENT, FILES, PSH | ACK, 1004, 501, b"more")),
                (OUT, error("198.51.100.1", "203.0.113.10", &tcp(FILES, CLIENT, ACK, 1, 1, b""))),
                (OUT, tcp(CLIENT, FILES, FIN | ACK, 1008, 501, b"")),
            ],
        },
        Kind {
            name: "masqueraded, TCP",
            opens: vec![
                (IN, tcp("10.0.0.12:5000", REMOTE, SYN, 1, 0, b"")),
                (OUT, tcp(REMOTE, SEEN_AS, SYN | ACK, 9, 2, b"")),
                (IN, tcp("10.0.0.12:5000", REMOTE, ACK, 2, 10, b"")),
            ],
            goes_on: vec![
                (IN, tcp("10.0.0.12:5000", REMOTE, PSH | ACK, 2, 10, b"mail")),
                (OUT, tcp(REMOTE, SEEN_AS, PSH | ACK, 10, 6, b"thanks")),
                (OUT, error("198.51.100.1", "203.0.113.10", &tcp(SEEN_AS, REMOTE, ACK, 1, 1, b""))),
                (OUT, tcp(REMOTE, SEEN_AS, RST, 16, 0, b"")),
            ],
        },
        Kind {
            name: "masqueraded, a ping",
            opens: vec![
                (IN, ping([0, 7, 0, 1])),
                (OUT, pong([0, 7, 0, 1])),
                (IN, ping([0, 7, 0, 2])),
            ],
            goes_on: vec![(OUT, pong([0, 7, 0, 2])), (IN, ping([0, 7, 0, 3]))],
        },
        Kind {
            name: "hairpin",
            opens: vec![
                // Server 11 has had somebody before, so that it gets server 12.
                (OUT, tcp("198.51.100.8:1", WEB, SYN, 1000, 0, b"")),
                (IN, server11_calls),
                (IN, tcp(SERVER12, to_caller, SYN | ACK, 9, 8, b"")),
                (IN, tcp("10.0.0.11:7000", WEB, ACK, 8, 10, b"")),
            ],
            goes_on: vec![
                (IN, tcp("10.0.0.11:7000", WEB, PSH | ACK, 8, 10, b"hello")),
                (IN, tcp(SERVER12, to_caller, PSH | ACK, 10, 13, b"you too")),
                (IN, error("10.0.0.12", "10.0.0.1", &tcp(to_caller, SERVER12, ACK, 1, 1, b""))),
            ],
        },
    ]
}

/// The very reason for all of this.
#[test]
fn every_kind_of_flow_goes_on_at_the_other_router() {
    for Kind { name, opens, goes_on } in kinds() {
        let mut pair = Pair::new(everything());
        pair.feed(&opens);
        pair.copy();
        assert_eq!(exported(&mut pair.other).len(), 1, "{name}");
        pair.assert_same();
        for (link, frame) in &goes_on {
            let one = pair.one.feed(*link, &frame.frame());
            let other = pair.other.feed(*link, &frame.frame());
            assert!(!one.out.is_empty(), "{name}: {}", one.text());
            assert_eq!(other.text(), one.text(), "{name}");
            assert_eq!(other.out, one.out, "{name}: {}", one.text());
        }
        assert!(pair.other.flows().iter().any(|flow| flow.copied && flow.packets[0] > 0), "{name}");
    }
}

/// Without [`Kind`]'s masquerade: a server's own connection that is merely let out.
#[test]
fn a_routed_flow_goes_on_at_the_other_router() {
    let mut config = everything();
    config.masquerades.clear();
    let mut pair = Pair::new(config);
    let server = "10.0.0.12:5000";
    pair.feed(&[
        (IN, tcp(server, REMOTE, SYN, 1, 0, b"")),
        (OUT, tcp(REMOTE, server, SYN | ACK, 9, 2, b"")),
        (IN, tcp(server, REMOTE, ACK, 2, 10, b"")),
    ]);
    pair.copy();
    let goes_on = [
        (OUT, tcp(REMOTE, server, PSH | ACK, 10, 2, b"hello")),
        (IN, tcp(server, REMOTE, PSH | ACK, 2, 15, b"you too")),
        (OUT, error("198.51.100.1", "10.0.0.12", &tcp(server, REMOTE, ACK, 1, 1, b""))),
    ];
    for (link, frame) in goes_on {
        let one = pair.one.feed(link, &frame.frame());
        assert!(matches!(one.verdict, Verdict::Forward(_)), "{}", one.text());
        assert_eq!(pair.other.feed(link, &frame.frame()).out, one.out);
    }
}

/// What comes after the handshake, and the state that it leads to.
fn ways_into_states() -> Vec<(State, Frames)> {
    let client = |flags, ack| (OUT, tcp(CLIENT, WEB, flags, 1001, ack, b""));
    let server = |flags, ack| (IN, tcp(SERVER11, CLIENT, flags, 501, ack, b""));
    vec![
        (State::Established, vec![]),
        (State::FinWait, vec![server(FIN | ACK, 1001)]),
        (State::CloseWait, vec![client(FIN | ACK, 501)]),
        (State::TimeWait, vec![client(FIN | ACK, 501), server(FIN | ACK, 1002)]),
        (State::Close, vec![client(RST, 0)]),
        (State::Close, vec![server(RST, 0)]),
        (State::SynRecv, vec![server(FIN | ACK, 1001), client(SYN, 0)]),
        (State::SynSent, vec![client(FIN | ACK, 501), server(SYN, 0)]),
    ]
}

/// Each state, then each segment that may come: both routers do the same and end up the same.
#[test]
fn every_state_goes_on_alike() {
    let flags = [SYN, SYN | ACK, ACK, PSH | ACK, FIN | ACK, RST, RST | ACK, 0];
    for (state, way) in ways_into_states() {
        for (at, flags) in (0..2 * flags.len()).map(|at| (at, flags[at / 2])) {
            let mut pair = Pair::new(everything());
            pair.feed(&handshake(CLIENT, WEB, SERVER11));
            pair.copy();
            pair.feed(&way);
            pair.copy();
            assert_eq!(pair.other.state(40_000), Some(state), "{way:?}");
            let data: &[u8] = if flags & PSH != 0 { b"data" } else { b"" };
            let (link, next) = match at % 2 {
                0 => (OUT, tcp(CLIENT, WEB, flags, 2000, 501, data)),
                _ => (IN, tcp(SERVER11, CLIENT, flags, 600, 1001, data)),
            };
            let starts_over = state == State::TimeWait || state == State::Close;
            let [one, other] = pair.both().map(|router| router.feed(link, &next.frame()));
            if flags & SYN != 0 && link == OUT && starts_over {
                // A new connection, scheduled anew; where to is the scheduler's own business.
                assert!(matches!(other.verdict, Verdict::Forward(IN)), "{}", other.text());
                assert_eq!(pair.other.state(40_000), Some(State::SynRecv));
                assert!(pair.other.flows().iter().all(|flow| !flow.copied && !flow.assured));
                continue;
            }
            assert_eq!(other.out, one.out, "{state:?}, then {}", next.packet()[33]);
            assert_eq!(pair.other.state(40_000), pair.one.state(40_000), "{state:?}, {flags:02x}");
        }
    }
}

/// Linux's numbers, also of states that a connection cannot be in here.
#[test]
fn every_states_number_is_understood() {
    let names = [
        "NONE",
        "ESTABLISHED",
        "SYN_SENT",
        "SYN_RECV",
        "FIN_WAIT",
        "TIME_WAIT",
        "CLOSE",
        "CLOSE_WAIT",
        "LAST_ACK",
    ];
    let mut pair = Pair::new(everything());
    pair.feed(&handshake(CLIENT, WEB, SERVER11));
    let mut record = exported(&mut pair.one)[0];
    for (number, name) in (0..).zip(names) {
        record[4] = number;
        pair.import(&record).unwrap();
        assert_eq!(pair.other.state(40_000).map(State::name), Some(name));
        pair.other.check();
    }
}

#[test]
fn floods_and_half_open_connections_are_not_copied() {
    let mut pair = Pair::new(everything());
    pair.copy();
    for port in 1..200 {
        pair.one.feed(OUT, &tcp(&format!("198.51.100.7:{port}"), WEB, SYN, 1, 0, b"").frame());
        pair.one.feed(OUT, &tcp(&format!("198.51.100.7:{port}"), WEB, ACK, 1, 9, b"").frame());
        pair.one.feed(OUT, &udp(&format!("198.51.100.7:{port}"), DNS, b"?").frame());
    }
    assert_eq!(pair.one.dataplane.changes_left(), 0);
    assert!(exported(&mut pair.one).is_empty());
}

#[test]
fn nothing_is_noted_unless_asked_to() {
    let mut router = Router::new(everything());
    let mut record = FlowRecord::default();
    for (link, frame) in handshake(CLIENT, WEB, SERVER11) {
        router.feed(link, &frame.frame());
    }
    assert_eq!(router.dataplane.next_change(router.now, &mut record), None);
    router.dataplane.copy_changes(true);
    router.feed(OUT, &tcp(CLIENT, WEB, FIN | ACK, 1001, 501, b"").frame());
    assert_eq!(router.dataplane.changes_left(), 1);
    router.dataplane.copy_changes(false);
    assert_eq!(router.dataplane.next_change(router.now, &mut record), None);
    router.feed(OUT, &tcp(CLIENT, WEB, RST, 1002, 501, b"").frame());
    assert_eq!(router.dataplane.changes_left(), 0);
    // Switched on again it tells of changes, whatever was left of the time before.
    let mut pair = Pair::of(router, Router::new(everything()));
    pair.copy();
    pair.assert_same();
    pair.feed(&[(OUT, tcp(CLIENT, WEB, SYN, 7000, 0, b""))]);
    pair.copy();
    assert!(exported(&mut pair.other).is_empty());
}

/// However often it changes, a flow waits once; what is told of it is how it is then.
#[test]
fn a_flow_waits_to_be_told_about_once() {
    let mut pair = Pair::new(everything());
    pair.copy();
    pair.feed(&handshake(CLIENT, WEB, SERVER11));
    pair.feed(&[
        (IN, tcp(SERVER11, CLIENT, FIN | ACK, 501, 1001, b"")),
        (OUT, tcp(CLIENT, WEB, FIN | ACK, 1001, 502, b"")),
    ]);
    assert_eq!(pair.one.dataplane.changes_left(), 1);
    pair.copy();
    assert_eq!(pair.other.state(40_000), Some(State::TimeWait));
    assert_eq!(pair.one.dataplane.changes_left(), 0);
    // Gone, and in its place another one: the peer learns of the second alone.
    pair.feed(&handshake(CLIENT, WEB, SERVER12));
    assert_eq!(pair.one.dataplane.changes_left(), 1 + 1);
    pair.copy();
    pair.assert_same();
    assert_eq!(pair.other.flows().len(), 1);
}

#[test]
fn what_goes_goes_at_both() {
    let mut pair = Pair::new(everything());
    pair.feed(&handshake(CLIENT, WEB, SERVER11));
    pair.feed(&kinds()[3].opens);
    pair.copy();
    assert_eq!(pair.other.flows().len(), 2);
    pair.feed(&[(OUT, tcp(CLIENT, WEB, RST, 1001, 0, b""))]);
    // A reset one lives for 10 s.
    pair.advance(Duration::from_secs(13));
    assert_eq!(pair.other.flows().len(), 1);
    pair.assert_same();
    pair.advance(Duration::from_secs(2_000));
    assert_eq!((pair.one.flows(), pair.other.flows()), (vec![], vec![]));
    assert_eq!(pair.other.report().services[0].load, Default::default());
}

/// A connection that outlives its timeout by far is known at the other router all the time.
#[test]
fn what_lives_on_is_told_again_in_time() {
    let mut pair = Pair::new(everything());
    pair.feed(&handshake(CLIENT, WEB, SERVER11));
    pair.copy();
    for turn in 0..400 {
        pair.advance(Duration::from_secs(10));
        assert_eq!(pair.other.flows().len(), 1, "after {} s", turn * 10);
        pair.feed(&[(OUT, tcp(CLIENT, WEB, ACK, 1001, 501, b"x"))]);
    }
    let counters = *pair.one.dataplane.copy_counters();
    assert!((4..10).contains(&counters.copied_out), "{counters:?}");
}

/// Copies live as long as the record says, whatever the state's timeout is here; the next packet
/// gives them that.
#[test]
fn lifetimes_are_the_peers_until_the_next_packet() {
    let mut pair = Pair::new(everything());
    pair.feed(&handshake(CLIENT, WEB, SERVER11));
    let mut record = exported(&mut pair.one)[0];
    record[32..36].copy_from_slice(&60_000_u32.to_be_bytes());
    pair.import(&record).unwrap();
    let [one, other] = ["198.51.100.7:40000", "198.51.100.7:40001"];
    let mut twin = record;
    twin[17] += 1;
    twin[31] += 1;
    pair.import(&twin).unwrap();
    pair.other.advance(Duration::from_secs(50));
    assert!(matches!(
        pair.other.feed(OUT, &tcp(one, WEB, ACK, 1001, 501, b"").frame()).verdict,
        Verdict::Forward(IN)
    ));
    pair.other.advance(Duration::from_secs(30));
    let late = pair.other.feed(OUT, &tcp(other, WEB, ACK, 1001, 501, b"").frame());
    assert_eq!(late.verdict, Verdict::Drop(DropReason::NoFlow));
    pair.other.advance(Duration::from_secs(800));
    let in_time = pair.other.feed(OUT, &tcp(one, WEB, ACK, 1001, 501, b"").frame());
    assert!(matches!(in_time.verdict, Verdict::Forward(IN)));
}

/// Schedulers choose after a takeover as they would have without.
#[test]
fn copies_count_in_their_servers_load() {
    let mut config = everything();
    config.services[0].scheduler = Scheduler::WeightedLeastConnection;
    let mut pair = Pair::new(config);
    for port in 1..=7 {
        let client = format!("198.51.100.7:{port}");
        connect(&mut pair, &client);
    }
    pair.feed(&[(OUT, tcp("198.51.100.7:2", WEB, FIN | ACK, 1001, 501, b""))]);
    pair.copy();
    let loads = |router: &Router| -> Vec<_> {
        router.report().services[0].servers.iter().map(|server| server.load).collect()
    };
    assert_eq!(loads(&pair.other), loads(&pair.one));
    let next = tcp("198.51.100.7:99", WEB, SYN, 1000, 0, b"").frame();
    let [one, other] = pair.both().map(|router| router.feed(OUT, &next));
    assert_eq!(other.out, one.out);
}

/// A service or server that is not configured at the other router: its flows go on, uncounted, until
/// a reload brings it.
#[test]
fn an_unknown_server_is_bound_when_a_reload_brings_it() {
    let mut other = everything();
    other.services[0].servers.remove(0);
    other.services.remove(1);
    let mut pair = Pair::of(Router::new(everything()), Router::new(other));
    let [web, dns] = [0, 1].map(|at| kinds()[at].opens.clone());
    pair.feed(&web);
    pair.feed(&dns);
    pair.copy();
    assert_eq!(pair.other.dataplane.copy_counters().unbound, 2);
    assert!(pair.other.flows().iter().all(|flow| flow.owner.is_none() && flow.copied));
    assert_eq!(pair.other.report().services[0].load, Default::default());
    // The server itself is nobody's neighbour that is asked for at start: its first packet waits.
    let goes_on = [kinds()[0].goes_on[..5].to_vec(), kinds()[1].goes_on.clone()].concat();
    pair.other.feed(OUT, &goes_on[0].1.frame());
    pair.other.advance(Duration::from_secs(1));
    for (link, frame) in &goes_on {
        let [one, other] = pair.both().map(|router| router.feed(*link, &frame.frame()));
        assert_eq!(other.text(), one.text());
        assert_eq!(other.out, one.out);
    }
    pair.assert_same();
    pair.other.reload(everything());
    pair.other.advance(Duration::from_millis(10));
    assert_eq!(pair.other.dataplane.copy_counters().unbound, 0);
    let report = pair.other.report();
    assert_eq!((report.services[0].load.active, report.services[1].load.inactive), (1, 1));
    assert!(pair.other.flows().iter().all(|flow| flow.owner.is_some()));
    assert_eq!(pair.other.state(40_000), pair.one.state(40_000));
    pair.other.advance(Duration::from_secs(2_000));
    assert_eq!(pair.other.report().services[0].load, Default::default());
}

/// A flow that goes before its server comes leaves no count behind.
#[test]
fn an_unbound_flow_that_goes_is_uncounted() {
    let mut other = everything();
    other.services.clear();
    let mut pair = Pair::of(Router::new(everything()), Router::new(other));
    pair.feed(&handshake(CLIENT, WEB, SERVER11));
    pair.copy();
    assert_eq!(pair.other.dataplane.copy_counters().unbound, 1);
    pair.other.advance(Duration::from_secs(2_000));
    assert_eq!(pair.other.dataplane.copy_counters().unbound, 0);
    pair.other.reload(everything());
}

/// Ports in use at one router are not handed out again by the other, until their last flow is gone.
#[test]
fn masqueraded_ports_move_along() {
    let mut pair = Pair::new(everything());
    pair.feed(&kinds()[3].opens);
    pair.copy();
    let [other_host, same_host] = ["10.0.0.13:5000", "10.0.0.12:5000"];
    let port = |router: &mut Router, from: &str, to: &str| {
        let out = router.feed(IN, &tcp(from, to, SYN, 1, 0, b"").frame());
        Read::frame(out.only()).unwrap().ports().unwrap().0
    };
    let second = port(&mut pair.other, other_host, REMOTE);
    assert_ne!(second, 5000, "it is somebody's");
    assert_eq!(
        port(&mut pair.other, same_host, "198.51.100.10:25"),
        5000,
        "the same host's (REQ-1)"
    );
    // Their last flow goes with what the peer says, and by itself.
    let mut gone = exported(&mut pair.one)[0];
    gone[1] = 2;
    gone[3..8].fill(0);
    gone[20..].fill(0);
    assert_eq!(pair.import(&gone), Ok(Imported::Removed));
    assert_ne!(port(&mut pair.other, "10.0.0.11:5000", REMOTE), 5000, "one flow is left");
    pair.other.advance(Duration::from_secs(2_000));
    assert_eq!(pair.other.flows(), []);
    assert_eq!(port(&mut pair.other, other_host, REMOTE), 5000);
}

/// The other router has handed the port out itself: what the peer says holds, and each mapping goes
/// with its own flows.
#[test]
fn two_opinions_about_a_port_do_not_mix() {
    let mut pair = Pair::new(everything());
    pair.feed(&kinds()[3].opens);
    let record = exported(&mut pair.one)[0];
    let open = |from: &str, remote: &str| tcp(from, remote, SYN, 1, 0, b"").frame();
    // The same port for another host, and another port for the same host.
    pair.other.feed(IN, &open("10.0.0.13:5000", "198.51.100.10:25"));
    pair.other.feed(IN, &open("10.0.0.12:5000", "198.51.100.10:25"));
    assert_eq!(pair.import(&record), Ok(Imported::Added));
    let answer = tcp(REMOTE, SEEN_AS, ACK, 10, 2, b"").frame();
    let [one, other] = pair.both().map(|router| router.feed(OUT, &answer));
    assert_eq!(other.out, one.out);
    pair.other.advance(Duration::from_secs(200));
    assert_eq!(pair.other.flows().len(), 1, "those half open are gone");
    let out = pair.other.feed(IN, &open("10.0.0.13:5000", REMOTE));
    assert_ne!(Read::frame(out.only()).unwrap().ports().unwrap().0, 5000);
    pair.other.advance(Duration::from_secs(2_000));
    let out = pair.other.feed(IN, &open("10.0.0.13:5000", REMOTE));
    assert_eq!(Read::frame(out.only()).unwrap().ports().unwrap().0, 5000);
}

/// A smaller table takes what fits, and drops nothing that is assured for it.
#[test]
fn a_full_table_refuses() {
    let mut pair = Pair::of(Router::new(everything()), Router::sized(everything(), 10));
    for port in 1..=10 {
        pair.other.feed(OUT, &tcp(&format!("198.51.100.8:{port}"), WEB, SYN, 1, 0, b"").frame());
    }
    for port in 101..=120 {
        let client = format!("198.51.100.7:{port}");
        connect(&mut pair, &client);
    }
    let results: Vec<_> =
        exported(&mut pair.one).iter().map(|record| pair.import(record)).collect();
    assert_eq!(results[..10], [Ok(Imported::Added); 10], "half-open ones give way");
    assert_eq!(results[10..], [Err(ImportError::TableFull); 10]);
    assert_eq!(exported(&mut pair.other).len(), 10);
    let counters = pair.other.report().copies;
    assert_eq!(counters.refused[ImportError::TableFull.index()], 10);
    assert_eq!(counters.copied_in, 10);
    // Room is made as flows end.
    pair.feed(&[(OUT, tcp("198.51.100.7:101", WEB, RST, 1001, 0, b""))]);
    let closed = exported(&mut pair.one).into_iter().find(|record| record[4] == 6).unwrap();
    assert_eq!(pair.import(&closed), Ok(Imported::Updated));
    let last = exported(&mut pair.one).into_iter().find(|record| record[17] == 120).unwrap();
    assert_eq!(pair.import(&last), Ok(Imported::Added));
}

/// Who has flows of their own: as Backup the peer's word holds, as Active one's own.
#[test]
fn the_peers_word_holds_unless_the_router_speaks_itself() {
    let mut pair = Pair::new(everything());
    pair.feed(&handshake(CLIENT, WEB, SERVER11));
    let record = exported(&mut pair.one)[0];
    // The same client at another server.
    for (link, frame) in handshake("198.51.100.8:1", WEB, SERVER11) {
        pair.other.feed(link, &frame.frame());
    }
    for (link, frame) in handshake(CLIENT, WEB, SERVER12) {
        pair.other.feed(link, &frame.frame());
    }
    pair.other.dataplane.copy_changes(true);
    let before = pair.other.flows();
    assert_eq!(pair.import(&record), Err(ImportError::Conflict));
    let own = exported(&mut pair.other).into_iter().find(|own| own[8..20] == record[8..20]);
    assert_eq!(pair.import(&own.unwrap()), Ok(Imported::Unchanged));
    let mut gone = record;
    (gone[1], gone[3], gone[4], gone[5]) = (2, 0, 0, 0);
    gone[20..].fill(0);
    assert_eq!(pair.import(&gone), Ok(Imported::Unchanged));
    assert_eq!(pair.other.flows(), before);
    let mut unknown = record;
    (unknown[17], unknown[31]) = (1, 1);
    assert_eq!(pair.import(&unknown), Ok(Imported::Added), "what it did not know is welcome");
    pair.other.dataplane.copy_changes(false);
    assert_eq!(pair.import(&record), Ok(Imported::Replaced));
    pair.other.check();
    let step = pair.other.feed(OUT, &tcp(CLIENT, WEB, ACK, 1001, 501, b"").frame());
    assert_eq!(Read::frame(step.only()).unwrap().destination, server_ip(11));
    assert_eq!(pair.import(&gone), Ok(Imported::Removed));
    assert_eq!(pair.import(&gone), Ok(Imported::Unchanged));
}

#[test]
fn no_record_takes_the_routers_own_addresses() {
    let mut pair = Pair::new(everything());
    pair.feed(&handshake(CLIENT, WEB, SERVER11));
    let record = exported(&mut pair.one)[0];
    for (at, own) in [(8, OWN_OUT), (12, OWN_OUT), (20, OWN_IN), (24, OWN_IN)] {
        let mut wrong = record;
        wrong[at..at + 4].copy_from_slice(&own.octets());
        assert_eq!(pair.import(&wrong), Err(ImportError::Conflict), "{own} at {at}");
    }
    assert_eq!(pair.other.flows(), []);
    assert_eq!(pair.other.report().copies.refused[ImportError::Conflict.index()], 4);
}

/// All flows anew: what the peer had no more goes, and nothing that came meanwhile.
#[test]
fn a_full_copy_sweeps_what_is_gone() {
    let mut pair = Pair::new(everything());
    for port in 3_001..=3_600 {
        connect(&mut pair, &format!("198.51.100.7:{port}"));
    }
    pair.copy();
    assert_eq!(pair.other.flows().len(), 600);
    for port in 3_001..=3_500 {
        let client = format!("198.51.100.7:{port}");
        pair.feed(&[(OUT, tcp(&client, WEB, RST, 1001, 0, b""))]);
    }
    pair.one.advance(Duration::from_secs(13));
    assert_eq!(pair.one.flows().len(), 100);
    // None of that was heard: what is heard of is all that there is.
    pair.other.dataplane.begin_full_import();
    let records = whole(&mut pair.one);
    assert_eq!(records.len(), 100);
    for record in &records {
        assert_eq!(pair.import(record), Ok(Imported::Updated));
    }
    assert_eq!(pair.other.flows().len(), 600, "nothing goes before all was told");
    pair.other.dataplane.end_full_import();
    assert!(pair.other.dataplane.is_sweeping());
    pair.other.feed(OUT, &tcp("198.51.100.8:1", WEB, SYN, 1, 0, b"").frame());
    pair.other.advance(Duration::from_millis(1));
    assert!(!pair.other.dataplane.is_sweeping());
    assert_eq!(pair.other.report().copies.swept, 500);
    assert_eq!(pair.other.flows().len(), 101);
    // A router that speaks itself keeps what it has.
    pair.other.dataplane.copy_changes(true);
    pair.other.dataplane.begin_full_import();
    pair.other.dataplane.end_full_import();
    pair.other.advance(Duration::from_millis(1));
    assert_eq!(pair.other.flows().len(), 101);
}

/// A walk looks at so many places at a time, whether there is a flow in them or not, and goes on
/// where there was no room.
#[test]
fn a_walk_over_all_flows_is_in_parts() {
    let mut pair = Pair::of(Router::sized(everything(), 5_000), Router::new(everything()));
    for n in 0..3_000_u32 {
        let client = format!("198.51.{}.{}:1", 100 + n / 200, n % 200 + 1);
        pair.one.feed(OUT, &tcp(&client, WEB, SYN, 1000, 0, b"").frame());
    }
    for port in 1..=3 {
        let client = format!("198.51.100.7:{}", 40_000 + port);
        connect(&mut pair, &client);
    }
    let (mut steps, mut from, mut taken) = (0, Some(0), Vec::new());
    while let Some(at) = from {
        let mut room = 1;
        from = pair.one.dataplane.export_flows(at, pair.one.now, |record| {
            if room > 0 {
                taken.push(record.to_vec());
            }
            room -= 1;
            room >= 0
        });
        steps += 1;
    }
    assert_eq!(taken.len(), 3);
    assert!(
        (8..=9).contains(&steps),
        "{steps} steps over 3,003 places, one record in each at most"
    );
    assert_eq!(pair.one.dataplane.export_flows(usize::MAX, pair.one.now, |_| true), None);
}

/// Whatever bytes come, nothing but a whole record changes anything.
#[test]
fn damaged_records_change_nothing() {
    let mut random = random::Random::new(7);
    let mut pair = Pair::new(everything());
    for kind in kinds() {
        pair.feed(&kind.opens);
    }
    pair.copy();
    let records = exported(&mut pair.one);
    assert!(records.len() >= 5, "{}", records.len());
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut record = random.pick(&records).to_vec();
        let before = pair.other.flows();
        if random.percent(20) {
            record.truncate(random.below(FLOW_RECORD));
        }
        if random.percent(10) {
            record.extend(random.bytes(3));
        }
        for _ in 0..random.below(3) {
            let at = random.below(record.len());
            if let Some(byte) = record.get_mut(at) {
                *byte = random.byte();
            }
        }
        if pair.import(&record).is_err() {
            refused += 1;
            assert_eq!(pair.other.flows(), before, "{record:02x?}");
        }
        pair.other.check();
    }
    let counters = pair.other.report().copies;
    assert_eq!(counters.refused.iter().sum::<u64>(), refused);
    assert!(refused > 5_000 && counters.copied_in > 5_000, "{counters:?}");
}

/// Who is remembered is known to the other router too, for as long, and gets the same server there.
#[test]
fn remembered_clients_are_copied() {
    let mut config = everything();
    config.services[0].balance.persistence =
        Some(tapvs::config::Persistence { timeout: Duration::from_secs(60), prefix: 24 });
    config.router.timeouts.established = Duration::from_secs(20);
    let mut pair = Pair::new(config);
    let clients: Vec<_> = (1..=6).map(|n| format!("198.51.{n}.7:40000")).collect();
    for client in &clients {
        connect(&mut pair, client);
    }
    // One that never answers is not worth telling of.
    pair.one.feed(OUT, &tcp("198.51.99.7:40000", WEB, SYN, 1000, 0, b"").frame());
    pair.copy();
    assert_eq!(pair.full_copies, 1);
    let known = |router: &Router| router.dataplane.client_count().0;
    assert_eq!((known(&pair.one), known(&pair.other)), (7, 6));
    // The other one takes over: whoever comes back gets its server.
    for (n, client) in clients.iter().enumerate() {
        let again = client.replace(".7:40000", ".200:1");
        let mut to = Vec::new();
        for router in pair.both() {
            let step = router.feed(OUT, &tcp(&again, WEB, SYN, 1, 0, b"").frame());
            to.push(Read::frame(step.only()).unwrap().destination);
        }
        assert_eq!(to[0], to[1], "client {n}");
    }
    // Those who have been silent are forgotten by both, one as late as the other but for a grace.
    pair.advance(Duration::from_secs(100));
    assert_eq!(known(&pair.one), 0);
    pair.advance(Duration::from_secs(60));
    assert_eq!(known(&pair.other), 0);
}

/// A client that is given another server is known with that one, and one that is forgotten goes.
#[test]
fn changes_of_remembered_clients_are_told() {
    let mut config = everything();
    let timeout = Duration::from_secs(600);
    config.services[0].balance.persistence =
        Some(tapvs::config::Persistence { timeout, prefix: 32 });
    let mut pair = Pair::new(config);
    pair.copy();
    connect(&mut pair, CLIENT);
    pair.copy();
    let servers = |pair: &mut Pair| {
        pair.both().map(|router| {
            let mut servers = Vec::new();
            let now = router.now;
            router.dataplane.clients_from(0, usize::MAX, now, |client| {
                servers.push((client.address, *client.listens.ip(), client.assured));
            });
            servers
        })
    };
    let [one, other] = servers(&mut pair);
    assert_eq!(one, [("198.51.100.7".parse().unwrap(), server_ip(11), true)]);
    assert_eq!(one, other);
    // Its server is down.
    for router in pair.both() {
        router.down.insert(router.config.services[0].servers[0].endpoint);
        router.change(|_| ());
    }
    connect(&mut pair, "198.51.100.7:40001");
    pair.copy();
    let [one, other] = servers(&mut pair);
    assert_eq!(one[0].1, server_ip(12));
    assert_eq!(one, other);
    assert_eq!(pair.full_copies, 1, "told one by one");
}
