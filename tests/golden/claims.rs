//! Servers that hold the virtual IP, and others that say so (A3, A4, A7).

use std::net::Ipv4Addr;

use super::bridge::switched;
use super::*;
use tapvs::dataplane::{Event, Verdict};
use tapvs::time::Duration;

const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn server_says(operation: u16, target: Ipv4Addr) -> ArpMessage {
    who_has(target, VIP, server_mac(11)).with(|arp| arp.operation = operation)
}

/// A server answers a client that asked for the virtual IP.
fn server_answers_near() -> ArpMessage {
    is_at(VIP, server_mac(11), NEAR, NEAR_IP)
}

pub(crate) fn cases() -> Vec<Case> {
    let routed = |name, link, frame: ArpMessage, expect| {
        case(name, link, frame, expect).configured(|config| *config = direct(config.clone()))
    };
    vec![
        switched(
            "A7 who-has for the virtual IP is answered, and goes no further",
            OUT,
            who_has(VIP, NEAR_IP, NEAR),
            "reply
             out: router.out > near arp reply from router.out 203.0.113.10 to near 203.0.113.50, 60 bytes",
        ),
        switched("A7 a server's reply for the virtual IP goes nowhere", IN, server_answers_near(), "drop arp_suppressed"),
        switched("A7 nor does its announcement", IN, server_says(1, VIP), "drop arp_suppressed"),
        switched("A7 nor an announcement as a reply", IN, server_says(2, VIP), "drop arp_suppressed"),
        switched(
            "A7 a server that asks in the virtual IP's name is told by the router",
            IN,
            server_says(1, GATEWAY_IP),
            "reply
             in: router.out > server11 arp reply from gateway 203.0.113.1 to server11 203.0.113.10, 60 bytes",
        ),
        switched(
            "A7 also when it asks the gateway alone",
            IN,
            server_says(1, GATEWAY_IP).with(|arp| arp.to = GATEWAY),
            "reply
             in: router.out > server11 arp reply from gateway 203.0.113.1 to server11 203.0.113.10, 60 bytes",
        ),
        switched(
            "A7 and when it asks for the router itself",
            IN,
            server_says(1, OWN_OUT),
            "reply
             in: router.out > server11 arp reply from router.out 203.0.113.2 to server11 203.0.113.10, 60 bytes",
        ),
        switched(
            "A4 a claim from the client side goes nowhere either",
            OUT,
            who_has(VIP, VIP, STRANGER),
            "drop arp_conflict",
        ),
        switched(
            "A3 a stranger's probe for the virtual IP is answered",
            OUT,
            who_has(VIP, NOBODY, STRANGER),
            "reply
             out: router.out > stranger arp reply from router.out 203.0.113.10 to stranger 0.0.0.0, 60 bytes",
        ),
        switched("A3 a server's is not, and goes no further", IN, who_has(VIP, NOBODY, server_mac(11)), "drop arp_server_probe"),
        switched(
            "A3 a server's probe for another address passes",
            IN,
            who_has(server_ip(77), NOBODY, server_mac(11)),
            "flood
             out: server11 > all arp request from server11 0.0.0.0 to nobody 10.0.0.77, 60 bytes
             far in: server11 > all arp request from server11 0.0.0.0 to nobody 10.0.0.77, 60 bytes",
        ),
        routed("A3 nor is it answered in a network of one link", IN, who_has(VIP, NOBODY, server_mac(11)), "drop arp_server_probe")
            .configured(one_network),
        routed("A7 a server's reply is not believed in a network of one link", IN, server_answers_near(), "drop arp_conflict")
            .configured(one_network),
        routed(
            "A7 a server that asks for the router in the virtual IP's name is answered anywhere",
            IN,
            server_says(1, OWN_IN),
            "reply
             in: router.in > server11 arp reply from router.in 10.0.0.2 to server11 203.0.113.10, 60 bytes",
        )
        .configured(one_network),
    ]
}

/// Clients, router and servers on the servers' link: the virtual IP is answered for there.
fn one_network(config: &mut Config) {
    *config = direct(config.clone());
    config.networks[1].addresses.push("203.0.113.3/24".parse().unwrap());
    config.networks[0].addresses = vec!["192.0.2.2/24".parse().unwrap()];
    config.networks[0].gateway = None;
    for vip in &mut config.virtual_ips {
        vip.network = 1;
    }
}

fn one_link() -> Router {
    let mut config = config();
    one_network(&mut config);
    Router::new(config)
}

fn announced_to(out: &[(LinkId, Vec<u8>)]) -> Vec<String> {
    let announcement = |frame: &[u8]| frame[12..14] == [8, 6] && frame[28..32] == VIP.octets();
    let to = |frame: &[u8]| mac_name(MacAddr::from_slice(&frame[..6]));
    out.iter().filter(|(_, f)| announcement(f)).map(|(_, f)| to(f)).collect()
}

#[test]
fn a7_a_question_for_somebody_unknown_is_answered_once_known() {
    let mut router = Router::new(bridged());
    router.answers_arp = false;
    let asks = server_says(1, NEAR_IP).frame();
    let step = router.feed(IN, &asks);
    let question =
        "router.out > all arp request from router.out 203.0.113.2 to nobody 203.0.113.50, 60 bytes";
    assert_eq!(
        step.text(),
        format!("consumed question\nout: {question}\nin: {question}\nfar in: {question}")
    );
    // Asking again changes nothing.
    assert_eq!(router.feed(IN, &asks).text(), "consumed question");
    let step = router.feed(OUT, &is_at(NEAR_IP, NEAR, ROUTER_OUT, OWN_OUT).frame());
    assert_eq!(
        step.text(),
        "consumed neighbour\nin: router.out > server11 arp reply from near 203.0.113.50 to server11 203.0.113.10, 60 bytes"
    );
    assert_eq!(router.feed(IN, &asks).verdict, Verdict::Reply, "from what is known");
}

#[test]
fn a7_servers_never_enter_a_cache_with_the_virtual_ip() {
    let mut router = Router::new(bridged());
    let before: Vec<_> = router.dataplane.neighbours().collect();
    for n in 0..1_000_u32 {
        let arp = match n % 3 {
            0 => server_answers_near(),
            1 => server_says(1, VIP),
            _ => server_says(2, VIP),
        };
        let from = if n % 2 == 0 { IN } else { OUT };
        let step = router.feed(from, &arp.frame());
        assert!(step.out.is_empty(), "{}", step.text());
        let reply = router.feed(OUT, &who_has(VIP, NEAR_IP, NEAR).frame());
        assert_eq!(reply.only()[22..28], ROUTER_OUT.0);
    }
    let after: Vec<_> = router.dataplane.neighbours().collect();
    assert_eq!(before.len() + 1, after.len(), "the client that asked, and nobody else");
    assert!(after.iter().all(|neighbour| neighbour.address != VIP));
}

#[test]
fn a_server_that_leaks_is_named_and_the_misled_are_told() {
    let mut router = one_link();
    router.owner = |link, address| match address {
        NEAR_IP if link == IN => Some(NEAR),
        _ => owner(link, address),
    };
    router.feed(IN, &who_has(VIP, NEAR_IP, NEAR).frame());
    assert!(
        announced_to(&router.advance(Duration::from_secs(1))).is_empty(),
        "nothing is wrong yet"
    );
    router.feed(IN, &server_says(1, VIP).frame());
    let told = router.advance(Duration::from_secs(1));
    assert_eq!(announced_to(&told), ["near"], "who asked a moment ago, and not everybody");
    let event = router.events.iter().find(|e| matches!(e, Event::AddressConflict(_))).unwrap();
    assert_eq!(
        event.text(),
        "ARP leak: a server claims a virtual IP; prepare it with `tapvs realserver`"
    );
    let fields = [
        ("network", "servers"),
        ("address", "203.0.113.10"),
        ("mac", "02:00:00:00:02:0b"),
        ("count", "1"),
        ("seconds", "0"),
        ("suppressed", "false"),
        ("server", "server11 (10.0.0.11)"),
    ];
    assert_eq!(event.fields(&router.table), fields.map(|(key, value)| (key, value.to_owned())));
    // Again and again: not more than once in ten seconds each.
    let mut told = 0;
    for _ in 0..20 {
        router.feed(IN, &who_has(VIP, NEAR_IP, NEAR).frame());
        router.feed(IN, &server_says(1, VIP).frame());
        told += announced_to(&router.advance(Duration::from_secs(1))).len();
    }
    assert_eq!(told, 2);
    let report = router.report();
    let [claim] = &report.claims[..] else { panic!("{:?}", report.claims) };
    assert_eq!((claim.count, claim.suppressed, claim.first.secs()), (21, false, 21));
    assert_eq!(claim.server.as_deref(), Some("server11 (10.0.0.11)"));
}

/// A server that asks for a client says to all who know the virtual IP that it is its own.
#[test]
fn a_host_that_asked_long_ago_is_misled_like_any_other_and_told() {
    let mut router = one_link();
    router.feed(IN, &who_has(VIP, NEAR_IP, NEAR).frame());
    assert_eq!(announced_to(&router.advance(Duration::from_secs(3_600))), [""; 0]);
    router.feed(IN, &server_says(1, server_ip(77)).frame());
    assert_eq!(announced_to(&router.advance(Duration::from_millis(99))), [""; 0]);
    assert_eq!(announced_to(&router.advance(Duration::from_millis(1))), ["near"]);
}

/// Misled again when it may not be told: it would stay so, for the server confirms what it said.
#[test]
fn who_was_told_a_moment_ago_is_told_again_when_it_may_be() {
    let mut router = one_link();
    router.feed(IN, &who_has(VIP, NEAR_IP, NEAR).frame());
    router.feed(IN, &server_says(1, VIP).frame());
    assert_eq!(announced_to(&router.advance(Duration::from_millis(100))), ["near"]);
    for _ in 0..3 {
        router.advance(Duration::from_secs(3));
        router.feed(IN, &server_says(1, VIP).frame());
    }
    assert_eq!(announced_to(&router.advance(Duration::from_millis(999))), [""; 0]);
    assert_eq!(announced_to(&router.advance(Duration::from_millis(1))), ["near"]);
    assert_eq!(announced_to(&router.advance(Duration::from_secs(60))), [""; 0], "once");
}

/// A server that watches for conflicts would give its address up.
#[test]
fn servers_are_not_told_whose_their_address_is() {
    let mut router = one_link();
    router.feed(IN, &who_has(VIP, NEAR_IP, NEAR).frame());
    let asks = server_says(1, server_ip(12));
    router.feed(IN, &asks.with(|arp| arp.to = server_mac(12)).frame());
    assert_eq!(announced_to(&router.advance(Duration::from_secs(60))), ["near"]);
}

/// A reload in between changes nothing, but for an address that is gone.
#[test]
fn a_reload_keeps_who_is_to_be_told() {
    let mut router = one_link();
    router.feed(IN, &who_has(VIP, NEAR_IP, NEAR).frame());
    router.feed(IN, &server_says(1, VIP).frame());
    router.change(|config| {
        let new = tapvs::config::VirtualIp::new("203.0.113.5".parse().unwrap(), 1);
        config.virtual_ips.insert(0, new);
    });
    let told = announced_to(&router.advance(Duration::from_secs(1)));
    assert_eq!(told.iter().filter(|to| *to == "near").count(), 1, "{told:?}");
    router.feed(IN, &server_says(1, VIP).frame());
    router.change(|config| {
        config.services.clear();
        config.virtual_ips.retain(|vip| vip.address != VIP);
    });
    assert_eq!(announced_to(&router.advance(Duration::from_secs(60))), [""; 0]);
}

/// Whoever asks while others answer too is told once more, when they all have answered.
#[test]
fn who_asks_a_contested_address_is_told_once_more() {
    let mut router = one_link();
    router.feed(IN, &server_answers_near().with(|arp| arp.to = ROUTER_IN).frame());
    router.advance(Duration::from_secs(60));
    let step = router.feed(IN, &who_has(VIP, NEAR_IP, NEAR).frame());
    assert_eq!(step.verdict, Verdict::Reply);
    assert_eq!(announced_to(&router.advance(Duration::from_millis(99))), [""; 0]);
    assert_eq!(announced_to(&router.advance(Duration::from_millis(1))), ["near"]);
}

#[test]
fn the_gateway_is_told_and_everybody_only_if_wanted() {
    for (defend, expected) in
        [(None, vec!["gateway"]), (Some(tapvs::config::Defend::Broadcast), vec!["all", "gateway"])]
    {
        let mut config = direct(config());
        config.virtual_ips[0].defend = defend;
        let mut router = Router::new(config);
        let leak = is_at(VIP, STRANGER, ROUTER_OUT, NOBODY);
        let mut out = router.feed(OUT, &leak.frame()).out;
        out.extend(router.advance(Duration::from_secs(1)));
        let mut told = announced_to(&out);
        told.sort();
        assert_eq!(told, expected);
    }
}

#[test]
fn shared_addresses_are_probed_for_from_nobody() {
    let mut router = Router::new(direct(config()));
    let probes = |out: &[(LinkId, Vec<u8>)]| -> Vec<String> {
        let probe = |f: &[u8]| f[12..14] == [8, 6] && f[28..32] == [0; 4];
        out.iter()
            .filter(|(_, f)| probe(f))
            .map(|(l, f)| format!("{}: {}", router::name(*l), line(f)))
            .collect()
    };
    let asks = "out: router.out > all arp request from router.out 0.0.0.0 to nobody 203.0.113.10, 60 bytes";
    assert_eq!(
        probes(&router.advance(Duration::from_secs(60))),
        [asks; 6],
        "the servers' gateway is not shared"
    );
    router.change(|config| config.virtual_ips[0].probe_interval = Some(Duration::from_secs(1)));
    router.advance(Duration::from_secs(10));
    assert_eq!(probes(&router.advance(Duration::from_secs(5))).len(), 5);
    router.change(|config| config.virtual_ips[0].probe_interval = None);
    assert_eq!(probes(&router.advance(Duration::from_secs(60))), [""; 0]);
    let mut nat = Router::new(config());
    assert_eq!(probes(&nat.advance(Duration::from_secs(60))), [""; 0]);
}

/// A host that watches for conflicts keeps its address after one broadcast, and drops it after two
/// within ten seconds (RFC 5227 section 2.4).
#[test]
fn a_shared_address_is_broadcast_once_at_the_start() {
    let mut router = Router::cold(direct(config()), 100);
    let told = announced_to(&router.advance(Duration::from_secs(20)));
    assert_eq!(told.iter().filter(|to| *to == "all").count(), 1, "{told:?}");
    assert_eq!(told.iter().filter(|to| *to == "gateway").count(), 2, "{told:?}");
}

/// Every claimant is a new one: the lists stay short and the log quiet.
#[test]
fn s4_a_storm_of_claims_is_bounded() {
    let mut router = one_link();
    for n in 0..100_000_u32 {
        let [_, a, b, c] = n.to_be_bytes();
        let mac = MacAddr([2, 1, 0, a, b, c]);
        let claim = who_has(VIP, VIP, mac).with(|arp| arp.operation = 1 + u16::from(n % 2 == 0));
        let step = router.feed(IN, &claim.frame());
        assert_eq!(step.text(), "drop arp_conflict");
    }
    assert!(router.report().claims.len() <= 64);
    assert!(router.events.len() <= 32, "{} events", router.events.len());
    assert!(router.dataplane.neighbours().all(|neighbour| neighbour.mac.0[1] != 1));
}

/// What a forger makes up drives out neither a server that leaks nor the hosts that it misleads.
#[test]
fn s4_a_storm_hides_no_leak() {
    let mut router = one_link();
    router.feed(IN, &who_has(VIP, NEAR_IP, NEAR).frame());
    router.feed(IN, &server_says(1, VIP).frame());
    router.advance(Duration::from_secs(1));
    for n in 0..20_000_u32 {
        let [_, a, b, c] = n.to_be_bytes();
        let mac = MacAddr([2, 1, 0, a, b, c]);
        router.feed(IN, &who_has(VIP, VIP, mac).frame());
        router.feed(IN, &who_has(VIP, Ipv4Addr::new(203, 0, 113, 200), mac).frame());
        router.now += Duration::from_micros(20);
    }
    let claims = router.report().claims;
    assert!(claims.iter().any(|claim| claim.server.is_some()), "{claims:?}");
    let told = announced_to(&router.advance(Duration::from_secs(11)));
    assert!(told.contains(&"near".to_owned()), "{told:?}");
    assert!(told.len() <= 512, "{} are told", told.len());
}
