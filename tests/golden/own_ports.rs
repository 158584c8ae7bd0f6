//! The router's own connections, such as health checks, and what is forwarded under its own addresses
//! never meet: ports of `OWN_PORTS` are the router's own.

use super::*;
use tapvs::addr::OWN_PORTS;
use tapvs::config::Masquerade;

const OUTSIDE: &str = "198.51.100.9:53";

fn masquerading_as_itself() -> Router {
    let mut config = config();
    config.router.forward = Forward::ServersOut;
    config.masquerades =
        vec![Masquerade { from: "10.0.0.0/24".parse().unwrap(), to: OWN_OUT.into() }];
    Router::new(config)
}

/// What a server's own packet looks like outside.
fn seen_outside(router: &mut Router, packet: &Ip) -> Read {
    let step = router.feed(IN, &packet.frame());
    let seen = Read::frame(step.only()).unwrap_or_else(|| panic!("{}", step.text()));
    assert_eq!(seen.source, OWN_OUT, "{}", step.text());
    seen
}

#[test]
fn nobody_is_masqueraded_behind_one() {
    let mut router = masquerading_as_itself();
    for (port, keeps) in [(40_000, true), (60_999, true), (61_000, false), (65_535, false)] {
        let from = format!("10.0.0.11:{port}");
        for packet in [udp(&from, OUTSIDE, b"who?"), tcp(&from, OUTSIDE, SYN, 1, 0, b"")] {
            let (seen, _) = seen_outside(&mut router, &packet).ports().unwrap();
            assert_eq!(seen == port, keeps, "{port} became {seen}");
            assert!(!OWN_PORTS.contains(&seen), "{port} became {seen}");
        }
        // An echo's identifier is the port of whoever asks.
        let [high, low] = u16::to_be_bytes(port);
        let echo = icmp("10.0.0.11", "198.51.100.9", (8, 0), [high, low, 0, 1], b"");
        let body = seen_outside(&mut router, &echo).body;
        let seen = u16::from_be_bytes([body[4], body[5]]);
        assert!(seen == port && keeps || !OWN_PORTS.contains(&seen), "{port} became {seen}");
    }
    let answer = udp(OUTSIDE, "203.0.113.2:61000", b"me");
    assert_eq!(router.feed(OUT, &answer.frame()).text().lines().next(), Some("to host"));
}

#[test]
fn no_neighbour_is_turned_around_behind_one() {
    let mut config = config();
    // Without an address that moves with the gateway it is the router's own that calls.
    config.virtual_ips.retain(|vip| vip.address != INNER_VIP);
    let mut router = Router::new(config);
    for port in [40_000, 61_000, 65_535] {
        let call = tcp(&format!("10.0.0.11:{port}"), WEB, SYN, 7, 0, b"");
        let step = router.feed(IN, &call.frame());
        let seen = Read::frame(step.only()).unwrap();
        assert_eq!(seen.source, OWN_IN, "{}", step.text());
        let (seen, _) = seen.ports().unwrap();
        assert!(!OWN_PORTS.contains(&seen) && (seen == port || port != 40_000), "{port}: {seen}");
    }
}

#[test]
fn a_servers_answer_to_the_router_itself_is_the_routers() {
    let mut router = Router::new(config());
    let step = router.feed(OUT, &syn().frame());
    assert!(step.text().starts_with("forward in"), "{}", step.text());
    let answer = tcp(SERVER11, "10.0.0.2:61000", SYN | ACK, 7, 1, b"");
    let text = router.feed(IN, &answer.frame()).text();
    assert_eq!(text.lines().next(), Some("to host"), "although it is a service's server: {text}");
}
