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
use tapvs::config::{Config, FlowLimits, Persistence, Scheduler, Server, Service, VirtualIp};
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

fn scheduler(name: &str) -> Scheduler {
    match name {
        "rr" => Scheduler::RoundRobin,
        "wrr" => Scheduler::WeightedRoundRobin,
        "lc" => Scheduler::LeastConnection,
        "wlc" => Scheduler::WeightedLeastConnection,
        "sed" => Scheduler::ShortestExpectedDelay,
        "nq" => Scheduler::NeverQueue,
        "sh" => Scheduler::SourceHash,
        "dh" => Scheduler::DestinationHash,
        "mh" => Scheduler::Maglev,
        "fo" => Scheduler::Failover,
        "ovf" => Scheduler::Overflow,
        "lblc" => Scheduler::Locality,
        "lblcr" => Scheduler::LocalityReplicated,
        other => panic!("no recording can tell what {other} draws"),
    }
}

fn recorded_server(address: &str, port: u16, weight: u16) -> Server {
    let endpoint = Endpoint { address: address.parse().unwrap(), port };
    Server::new(format!("{address}:{port}"), endpoint, weight)
}

/// Thresholds, where the recording has some.
fn limits(server: &Value) -> FlowLimits {
    let limit = |key: &str| u32::try_from(server[key].as_u64().unwrap_or(0)).unwrap();
    FlowLimits { max: limit("max_flows"), min: limit("min_flows") }
}

/// The service that `case` describes, and its virtual IP.
fn recorded_service(case: &Value) -> (Ipv4Addr, Service) {
    let (vip, port): (Ipv4Addr, _) = (text(&case["vip"]).parse().unwrap(), small(&case["port"]));
    let protocol = if text(&case["protocol"]) == "tcp" { Proto::Tcp } else { Proto::Udp };
    let servers = list(&case["servers"]).iter().map(|server| {
        let (address, port) = (text(&server["address"]), small(&server["port"]));
        let known = recorded_server(address, port, small(&server["weight"]));
        Server { limits: limits(server), ..known }
    });
    let mut service = service(protocol, port, servers.collect());
    service.address = vip.into();
    service.scheduler = scheduler(text(&case["scheduler"]));
    for flag in list(&case["scheduler_flags"]) {
        match text(flag).split_once('-').unwrap().1 {
            "port" => service.balance.flags.port = true,
            "fallback" => service.balance.flags.fallback = true,
            other => panic!("unknown flag {other}"),
        }
    }
    if let Some(timeout) = case["persistence"]["timeout"].as_str() {
        let seconds = timeout.strip_suffix('s').unwrap().parse().unwrap();
        let timeout = tapvs::time::Duration::from_secs(seconds);
        let prefix = case["persistence"]["prefix"].as_u64().unwrap_or(32);
        let prefix = u8::try_from(prefix).unwrap();
        service.balance.persistence = Some(Persistence { timeout, prefix });
    }
    (vip, service)
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
            let from = at(client);
            let is_it = |flow: &tapvs::dataplane::FlowInfo| {
                (flow.original.source, flow.original.source_port) == (*from.ip(), from.port())
            };
            router.flows().into_iter().find(is_it).map(|flow| flow.reply.source)
        }
        _ => None,
    }
}

#[test]
fn choices() {
    for case in list(&load("ipvs-choices.json")["cases"]) {
        let (vip, service) = recorded_service(case);
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
    }
}

/// Operator actions between arrivals, each as a reload of the configuration.
#[test]
fn choices_across_reloads() {
    for case in list(&load("ipvs-dynamic.json")["cases"]) {
        let name = text(&case["name"]);
        let (vip, service) = recorded_service(case);
        let port = service.port;
        let mut router = director(recorded(vip, vec![service]));
        for (number, step) in list(&case["steps"]).iter().enumerate() {
            router.change(|config| act(&mut config.services[0].servers, step, port));
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
    }
}

/// What the operator does in a step of a recording.
fn act(servers: &mut Vec<Server>, step: &Value, port: u16) {
    let address = |key: &str| step[key].as_str();
    let position = |servers: &[Server], address: &str| {
        servers.iter().position(|s| s.endpoint.address.to_string() == address).unwrap()
    };
    let weight = || step["weight"].as_u64().map(|weight| u16::try_from(weight).unwrap());
    let has_limits = step.get("max_flows").is_some() || step.get("min_flows").is_some();
    if let Some(address) = address("delete") {
        servers.remove(position(servers, address));
    } else if let Some(address) = address("edit") {
        let at = position(servers, address);
        servers[at].weight = weight().unwrap_or(servers[at].weight);
        if has_limits {
            servers[at].limits = limits(step);
        }
    } else if let Some(address) = address("add") {
        let new = recorded_server(address, port, weight().unwrap_or(1));
        servers.insert(0, Server { limits: limits(step), ..new });
    } else {
        assert!(step.get("flows").is_some(), "an unknown step: {step}");
    }
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
    let mut wrong = BTreeMap::new();
    for case in list(&load("ipvs-frames.json")["cases"]) {
        if let Err(difference) = play(case) {
            wrong.insert(text(&case["name"]).to_owned(), difference);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
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
