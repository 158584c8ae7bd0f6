//! Recordings of a Linux 6.1 IPVS, replayed: what it did, tapvs does.
//!
//! `tests/data` holds the recordings; each says in `about` what it is.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::Value;
use support::*;
use tapvs::addr::{Endpoint, LinkId, Proto};
use tapvs::config::{Config, Scheduler, Server, Service, VirtualIp};
use tapvs::dataplane::Verdict;

fn load(name: &str) -> Value {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn small(value: &Value) -> u16 {
    u16::try_from(value.as_u64().unwrap()).unwrap()
}

/// The recorded director: clients 172.16.0.0/12 and 10.1.0.0/24 by link `OUT`, servers by `IN`.
fn recorded(vip: Ipv4Addr, services: Vec<Service>) -> Config {
    let mut config = config();
    config.networks[0].addresses = vec!["10.1.0.1/24".parse().unwrap()];
    config.networks[0].gateway = Some("10.1.0.2".parse().unwrap());
    config.networks[1].addresses = vec!["10.0.0.254/24".parse().unwrap()];
    config.virtual_ips = vec![VirtualIp::new(vip.into(), 0)];
    config.services = services;
    config
}

/// The director with every neighbour known.
fn director(config: Config) -> Router {
    let mut router = Router::cold(config, 1_000);
    router.answers_arp = false;
    router.advance(tapvs::time::Duration::from_secs(1));
    let servers: Vec<_> = router.table.servers().map(|(_, server)| server.address).collect();
    for address in servers {
        let answer = is_at(
            address,
            server_mac(address.octets()[3]),
            ROUTER_IN,
            "10.0.0.254".parse().unwrap(),
        );
        router.feed(IN, &answer.frame());
    }
    let gateway =
        is_at("10.1.0.2".parse().unwrap(), GATEWAY, ROUTER_OUT, "10.1.0.1".parse().unwrap());
    router.feed(OUT, &gateway.frame());
    router.advance(tapvs::time::Duration::from_secs(5));
    router
}

/// Every sequence of three events, on a connection of its own.
#[test]
fn tcp_states() {
    let recording = load("ipvs-tcp-states.json");
    let events = list(&recording["events"]);
    let sequences = list(&recording["nat"]);
    assert_eq!(sequences.len(), 8 * 8 * 8);
    let mut router = Router::sized(config(), 2_000);
    for (number, sequence) in sequences.iter().enumerate() {
        let port = 10_000 + u16::try_from(number).unwrap();
        let client = format!("198.51.100.7:{port}");
        let mut states = String::new();
        for event in list(&sequence[0]) {
            let event = text(&events[usize::from(small(event))]);
            let (link, frame) = segment(&router, &client, event);
            router.feed(link, &frame);
            states.push(router.state(port).map_or('-', code));
        }
        assert_eq!(states, text(&sequence[1]), "{} of {events:?}", sequence[0]);
    }
}

/// Every sequence of four events from the client: what its server answers is not seen.
#[test]
fn tcp_states_of_direct_routing() {
    let recording = load("ipvs-tcp-states.json");
    let events = list(&recording["events"]);
    let sequences = list(&recording["direct"]);
    assert_eq!(sequences.len(), 4 * 4 * 4 * 4);
    let mut router = Router::sized(direct(config()), 2_000);
    for (number, sequence) in sequences.iter().enumerate() {
        let port = 10_000 + u16::try_from(number).unwrap();
        let client = format!("198.51.100.7:{port}");
        let mut states = String::new();
        for event in list(&sequence[0]) {
            let event = text(&events[usize::from(small(event))]);
            let (link, frame) = segment(&router, &client, event);
            router.feed(link, &frame);
            states.push(router.state(port).map_or('-', code));
        }
        assert_eq!(states, text(&sequence[1]), "{} of {events:?}", sequence[0]);
    }
}

/// The segment for `event`; from the client's server, or from one that it might have had.
fn segment(router: &Router, client: &str, event: &str) -> (LinkId, Vec<u8>) {
    let flags = match event.split_once(' ').unwrap().1 {
        "SYN" => SYN,
        "ACK" => ACK,
        "FIN" => FIN | ACK,
        "RST" => RST,
        "SYN+ACK" => SYN | ACK,
        other => panic!("unknown event {other}"),
    };
    if event.starts_with("client") {
        return (OUT, tcp(client, "203.0.113.10:80", flags, 1001, 501, b"").frame());
    }
    let port = at(client).port();
    let flow = router.dataplane.flows().find(|flow| flow.original.source_port == port);
    let server = flow.map_or_else(|| server_ip(11), |flow| flow.reply.source);
    (IN, tcp(&format!("{server}:8080"), client, flags, 500, 1002, b"").frame())
}

fn code(state: tapvs::dataplane::State) -> char {
    let recording = [
        ("NONE", '0'),
        ("ESTABLISHED", '1'),
        ("SYN_SENT", '2'),
        ("SYN_RECV", '3'),
        ("FIN_WAIT", '4'),
        ("TIME_WAIT", '5'),
        ("CLOSE", '6'),
        ("CLOSE_WAIT", '7'),
        ("LAST_ACK", '8'),
    ];
    recording.iter().find(|(name, _)| *name == state.name()).unwrap().1
}

fn scheduler(name: &str) -> Option<Scheduler> {
    match name {
        "rr" => Some(Scheduler::RoundRobin),
        "wrr" => Some(Scheduler::WeightedRoundRobin),
        "lc" => Some(Scheduler::LeastConnection),
        "wlc" => Some(Scheduler::WeightedLeastConnection),
        _ => None,
    }
}

fn recorded_server(address: &str, port: u16, weight: u16) -> Server {
    let endpoint = Endpoint { address: address.parse().unwrap(), port };
    Server { name: format!("{address}:{port}"), endpoint, weight }
}

/// The service that `case` describes, and its virtual IP.
fn recorded_service(case: &Value) -> Option<(Ipv4Addr, Service)> {
    let (vip, port): (Ipv4Addr, _) = (text(&case["vip"]).parse().unwrap(), small(&case["port"]));
    let protocol = if text(&case["protocol"]) == "tcp" { Proto::Tcp } else { Proto::Udp };
    let servers = list(&case["servers"]).iter().map(|server| {
        recorded_server(text(&server["address"]), small(&server["port"]), small(&server["weight"]))
    });
    let mut service = service(protocol, port, servers.collect());
    service.address = vip.into();
    service.scheduler = scheduler(text(&case["scheduler"]))?;
    Some((vip, service))
}

/// The server that a first packet from `client` goes to.
fn arrive(router: &mut Router, service: &Service, client: &str) -> Option<Ipv4Addr> {
    let to = format!("{}:{}", service.address, service.port);
    let packet = match service.protocol {
        Proto::Tcp => tcp(client, &to, SYN, 1, 0, b""),
        Proto::Udp => udp(client, &to, b""),
    };
    let step = router.feed(OUT, &packet.frame());
    match step.verdict {
        Verdict::Forward(IN) => Read::frame(step.only()).map(|packet| packet.destination),
        Verdict::Held => {
            let flows = router.flows();
            flows
                .iter()
                .find(|f| f.original.source_port == at(client).port())
                .map(|f| f.reply.source)
        }
        _ => None,
    }
}

/// Compares `played` and the rest with what the recording holds, so that nothing is skipped in silence.
fn assert_played(recording: &Value, played: &[&str], not_yet: &[&str]) {
    let mut all: Vec<_> =
        list(&recording["cases"]).iter().map(|case| text(&case["name"])).collect();
    let mut known = [played, not_yet].concat();
    all.sort_unstable();
    known.sort_unstable();
    assert_eq!(known, all, "cases that are played and that wait for their feature");
}

#[test]
fn choices() {
    let recording = load("ipvs-choices.json");
    let mut played = Vec::new();
    for case in list(&recording["cases"]) {
        let Some((vip, service)) = recorded_service(case) else { continue };
        let mut router = director(recorded(vip, vec![service.clone()]));
        let servers: Vec<Ipv4Addr> =
            list(&case["servers"]).iter().map(|s| text(&s["address"]).parse().unwrap()).collect();
        let mut chosen = Vec::new();
        for arrival in list(&case["arrivals"]) {
            let client = format!("{}:{}", text(&arrival[0]), small(&arrival[1]));
            let server = arrive(&mut router, &service, &client);
            chosen.push(server.and_then(|server| servers.iter().position(|s| *s == server)));
        }
        let expect: Vec<_> = list(&case["arrivals"])
            .iter()
            .map(|a| a[2].as_u64().map(|at| usize::from(u16::try_from(at).unwrap())))
            .collect();
        assert_eq!(chosen, expect, "{}", case["name"]);
        played.push(text(&case["name"]));
    }
    let not_yet = ["sed1", "nq1", "sh1", "shp", "dh1", "mh1", "fo1", "ovf1", "lblc1"];
    assert_played(&recording, &played, &not_yet);
}

/// Operator actions between arrivals, each as a reload of the configuration.
#[test]
fn choices_across_reloads() {
    let recording = load("ipvs-dynamic.json");
    // Thresholds and persistence are not there yet.
    let not_yet = ["sh-zero", "mh-zero", "mh-del", "thresh", "persist", "persist-quiesce"];
    let mut played = Vec::new();
    for case in list(&recording["cases"]) {
        let name = text(&case["name"]);
        if not_yet.contains(&name) {
            let limited = list(&case["servers"]).iter().any(|s| !s["max_flows"].is_null());
            let known = scheduler(text(&case["scheduler"])).is_some();
            assert!(!known || limited || !case["persistence"].is_null(), "{name} can be played");
            continue;
        }
        let (vip, service) = recorded_service(case).unwrap();
        let port = service.port;
        let mut router = director(recorded(vip, vec![service]));
        for (number, step) in list(&case["steps"]).iter().enumerate() {
            let address = |key: &str| step[key].as_str();
            router.change(|config| {
                let servers = &mut config.services[0].servers;
                let position = |servers: &[Server], address: &str| {
                    servers.iter().position(|s| s.endpoint.address.to_string() == address).unwrap()
                };
                if let Some(address) = address("delete") {
                    servers.remove(position(servers, address));
                } else if let Some(address) = address("edit") {
                    let at = position(servers, address);
                    servers[at].weight = small(&step["weight"]);
                } else if let Some(address) = address("add") {
                    servers.insert(0, recorded_server(address, port, small(&step["weight"])));
                }
            });
            let service = router.config.services[0].clone();
            for (at, flow) in step["flows"].as_array().into_iter().flatten().enumerate() {
                let client = format!("{}:{}", text(&flow[0]), small(&flow[1]));
                let server = arrive(&mut router, &service, &client);
                // A server that was added is still being resolved: answer for it.
                answer_all(&mut router);
                let expect = flow[2].as_str().map(|address| address.parse().unwrap());
                assert_eq!(server, expect, "{name}, step {number}, arrival {at}");
            }
        }
        played.push(name);
    }
    assert_played(&recording, &played, &not_yet);
}

fn answer_all(router: &mut Router) {
    router.answers_arp = true;
    let waiting = router.report().waiting;
    if waiting > 0 {
        router.advance(tapvs::time::Duration::from_millis(1_200));
    }
    router.answers_arp = false;
}

/// Frames as IPVS rewrote them, byte for byte but for what the recording says may differ.
#[test]
fn frames() {
    let recording = load("ipvs-frames.json");
    // Every case is played by now.
    let not_yet: [&str; 0] = [];
    let mut played = Vec::new();
    let mut wrong = BTreeMap::new();
    for case in list(&recording["cases"]) {
        let name = text(&case["name"]);
        let outcome = play(case);
        match (not_yet.contains(&name), outcome) {
            (false, Ok(())) => played.push(name),
            (false, Err(difference)) => {
                wrong.insert(name, difference);
            }
            (true, Ok(())) => {
                wrong.insert(name, "passes now: take it off the list".into());
            }
            (true, Err(_)) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_played(&recording, &played, &not_yet);
}

fn play(case: &Value) -> Result<(), String> {
    let vip = Ipv4Addr::new(10, 1, 0, 100);
    let services = [(Proto::Tcp, 80), (Proto::Udp, 53)].map(|(protocol, port)| {
        let mut service = service(protocol, port, vec![recorded_server("10.0.0.1", port, 1)]);
        service.address = std::net::IpAddr::V4(vip);
        service
    });
    let mut config = recorded(vip, services.to_vec());
    config.networks[1].mtu = 1300;
    let mut router = director(config);
    let (mut all_made, mut all_expected) = (Vec::new(), Vec::new());
    let mut in_pieces = false;
    for step in list(&case["steps"]) {
        let (link, to, from) = match text(&step["side"]) {
            "c" => (OUT, ROUTER_OUT, GATEWAY),
            _ => (IN, ROUTER_IN, server_mac(1)),
        };
        let packet = unhex(text(&step["in"]));
        let frame = [&to.0[..], &from.0, &[8, 0], &packet].concat();
        let out = router.feed(link, &frame).out;
        let made: Vec<_> = out
            .iter()
            .map(|(link, frame)| {
                let side = if *link == OUT { "c" } else { "s" };
                (side.to_string(), ip_line(&frame[14..]), comparable(&packet, &frame[14..]))
            })
            .collect();
        let expect: Vec<_> = list(&step["out"])
            .iter()
            .map(|out| {
                let packet_out = unhex(text(&out[1]));
                let same = comparable(&packet, &packet_out);
                (text(&out[0]).to_string(), ip_line(&packet_out), same)
            })
            .collect();
        in_pieces |= Read::packet(&packet).is_some_and(|packet| packet.is_fragment());
        // Fragments may leave as they come rather than when the last one is there.
        if !in_pieces {
            compare(&made, &expect)?;
        }
        all_made.extend(made);
        all_expected.extend(expect);
    }
    compare(&all_made, &all_expected)
}

/// Side, the packet to read, and what of it has to be the same.
type Out = (String, String, String);

fn compare(made: &[Out], expected: &[Out]) -> Result<(), String> {
    let same = |(a, b): (&Out, &Out)| a.0 == b.0 && a.2 == b.2;
    if made.len() == expected.len() && made.iter().zip(expected).all(same) {
        Ok(())
    } else {
        Err(format!("made {made:#?}, recorded {expected:#?}"))
    }
}

/// `packet` without what may differ on purpose: the checksum of a datagram that came in without
/// one, and the identification of packets that the router makes itself.
fn comparable(cause: &[u8], packet: &[u8]) -> String {
    let (Some(cause), Some(mut read)) = (Read::packet(cause), Read::packet(packet)) else {
        return hex(packet);
    };
    if cause.protocol == 17 && read.protocol == 17 && cause.body[6..8] == [0, 0] {
        // Kept at 0, or filled in rightly.
        if read.transport_ok() != Some(false) {
            read.body[6..8].fill(0);
        }
    }
    let forwarded = read.protocol == cause.protocol && read.header[4..6] == cause.header[4..6];
    let echoed = cause.protocol == 1 && (cause.body[0], read.body[0]) == (8, 0);
    if !forwarded || echoed {
        assert!(read.header_ok());
        read.header[4..6].fill(0);
        read.header[10..12].fill(0);
    }
    hex(&[read.header, read.body].concat())
}
