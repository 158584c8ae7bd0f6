//! ARP: A1 to A4 and what the router itself asks and announces (A8).

use super::*;
use tapvs::dataplane::Event;
use tapvs::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    let refused = |name, change: fn(&mut ArpMessage)| {
        case(name, OUT, gateway_asks(VIP).with(change), "drop arp_malformed")
    };
    let unbelieved = |name, change: fn(&mut ArpMessage)| {
        case(name, OUT, gateway_asks(VIP).with(change), "drop arp_bad_sender")
    };
    vec![
        case(
            "A1 the virtual IP is answered for, unicast, padded to 60 bytes",
            OUT,
            gateway_asks(VIP),
            "reply
             out: router.out > gateway arp reply from router.out 203.0.113.10 to gateway 203.0.113.1, 60 bytes",
        ),
        case(
            "A1 an own address is answered for",
            OUT,
            gateway_asks(OWN_OUT),
            "reply
             out: router.out > gateway arp reply from router.out 203.0.113.2 to gateway 203.0.113.1, 60 bytes",
        ),
        case(
            "A1 the servers' gateway is answered for among the servers",
            IN,
            who_has(INNER_VIP, server_ip(11), server_mac(11)),
            "reply
             in: router.in > server11 arp reply from router.in 10.0.0.1 to server11 10.0.0.11, 60 bytes",
        ),
        case(
            "A1 a question to the router's own MAC is answered",
            OUT,
            gateway_asks(VIP).with(|arp| arp.to = ROUTER_OUT),
            "reply
             out: router.out > gateway arp reply from router.out 203.0.113.10 to gateway 203.0.113.1, 60 bytes",
        ),
        case(
            "A1 the virtual IP is not answered for among the servers",
            IN,
            who_has(VIP, server_ip(77), server_mac(77)),
            "drop arp_other_target",
        ),
        case(
            "A1 the servers' gateway is not answered for on the internet",
            OUT,
            who_has(INNER_VIP, NEAR_IP, NEAR),
            "drop arp_other_target",
        ),
        case(
            "A1 somebody else's address is not answered for",
            OUT,
            who_has("203.0.113.99".parse().unwrap(), NEAR_IP, NEAR),
            "drop arp_other_target",
        ),
        refused("A1 wrong hardware type", |arp| arp.fixed[1] = 6),
        refused("A1 wrong protocol type", |arp| arp.fixed[2] = 0x86),
        refused("A1 wrong hardware length", |arp| arp.fixed[4] = 8),
        refused("A1 wrong protocol length", |arp| arp.fixed[5] = 16),
        refused("A1 operation 0", |arp| arp.operation = 0),
        refused("A1 operation 3 (RARP)", |arp| arp.operation = 3),
        refused("A1 operation 257", |arp| arp.operation = 0x0101),
        case(
            "A1 27 bytes of ARP",
            OUT,
            gateway_asks(VIP).frame()[..41].to_vec(),
            "drop arp_malformed",
        ),
        unbelieved("A1 multicast sender MAC", |arp| arp.sender_mac = MacAddr([1, 0, 0x5e, 0, 0, 1])),
        unbelieved("A1 broadcast sender MAC", |arp| arp.sender_mac = MacAddr::BROADCAST),
        unbelieved("A1 zero sender MAC", |arp| arp.sender_mac = MacAddr::ZERO),
        unbelieved("A1 multicast sender address", |arp| arp.sender = "224.0.0.1".parse().unwrap()),
        unbelieved("A1 broadcast sender address", |arp| arp.sender = "203.0.113.255".parse().unwrap()),
        unbelieved("A3 a reply from 0.0.0.0 is no probe", |arp| {
            arp.operation = 2;
            arp.sender = "0.0.0.0".parse().unwrap();
        }),
        case(
            "A1 an ARP message of the router's own that comes back",
            OUT,
            gateway_asks(VIP).with(|arp| arp.sender_mac = ROUTER_OUT),
            "drop arp_own_echo",
        ),
        case(
            "A2 a known neighbour's question confirms it",
            OUT,
            gateway_asks(NEAR_IP),
            "consumed neighbour",
        ),
        case(
            "A2 a stranger's question teaches nothing",
            OUT,
            who_has("203.0.113.99".parse().unwrap(), "203.0.113.66".parse().unwrap(), STRANGER),
            "drop arp_other_target",
        ),
        case(
            "A3 a probe for the virtual IP is answered",
            OUT,
            who_has(VIP, "0.0.0.0".parse().unwrap(), STRANGER),
            "reply
             out: router.out > stranger arp reply from router.out 203.0.113.10 to stranger 0.0.0.0, 60 bytes",
        ),
        case(
            "A4 a claim to the virtual IP is defended with one announcement",
            OUT,
            who_has(VIP, VIP, STRANGER),
            "drop arp_conflict
             out: router.out > all arp request from router.out 203.0.113.10 to nobody 203.0.113.10, 60 bytes",
        ),
        case(
            "A4 a reply that claims the virtual IP is a conflict too",
            OUT,
            is_at(VIP, STRANGER, GATEWAY, GATEWAY_IP).with(|arp| arp.to = MacAddr::BROADCAST),
            "drop arp_conflict
             out: router.out > all arp request from router.out 203.0.113.10 to nobody 203.0.113.10, 60 bytes",
        ),
        case(
            "A4 a claim seen on another network is none",
            IN,
            who_has(VIP, VIP, server_mac(77)),
            "drop arp_unsolicited",
        ),
        case(
            "A8 an unsolicited reply creates nothing",
            OUT,
            is_at("203.0.113.66".parse().unwrap(), STRANGER, ROUTER_OUT, OWN_OUT),
            "drop arp_unsolicited",
        ),
        case(
            "A8 an unsolicited announcement creates nothing",
            OUT,
            who_has("203.0.113.66".parse().unwrap(), "203.0.113.66".parse().unwrap(), STRANGER),
            "drop arp_unsolicited",
        ),
    ]
}

#[test]
fn a1_every_byte_of_an_answer() {
    let mut router = Router::new(config());
    let step = router.feed(OUT, &gateway_asks(VIP).frame());
    let mut expect = Vec::new();
    expect.extend([2, 0, 0, 0, 0, 1]); // to the gateway
    expect.extend([2, 0, 0, 0, 1, 1]); // from the router
    expect.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]); // ARP, Ethernet, IPv4, lengths, reply
    expect.extend([2, 0, 0, 0, 1, 1, 203, 0, 113, 10]);
    expect.extend([2, 0, 0, 0, 0, 1, 203, 0, 113, 1]);
    expect.resize(60, 0);
    assert_eq!(step.only(), expect);
}

#[test]
fn a3_a_probe_is_never_cached() {
    let mut router = Router::new(config());
    let before = router.dataplane.neighbours().count();
    router.feed(OUT, &who_has(VIP, "0.0.0.0".parse().unwrap(), STRANGER).frame());
    assert_eq!(router.dataplane.neighbours().count(), before);
    assert!(router.dataplane.neighbours().all(|n| !n.address.is_unspecified()));
}

#[test]
fn a4_one_defence_in_ten_seconds_one_event_each() {
    let mut router = Router::new(config());
    let claim = who_has(VIP, VIP, STRANGER).frame();
    let mut defences = Vec::new();
    for _ in 0..25 {
        defences.push(router.feed(OUT, &claim).out.len());
        router.advance(Duration::from_secs(1));
    }
    let when: Vec<_> = (0..25).filter(|second| defences[*second] > 0).collect();
    assert_eq!(when, [0, 10, 20]);
    let is_conflict = |event: &&Event| matches!(event, Event::AddressConflict { .. });
    assert_eq!(router.events.iter().filter(is_conflict).count(), 1);
    router.advance(Duration::from_secs(40));
    router.feed(OUT, &claim);
    let told: Vec<_> = router.events.iter().filter(is_conflict).collect();
    assert_eq!(told.len(), 2, "a reminder after a minute");
    let fields = told[1].fields(&router.table);
    for (key, value) in
        [("network", "internet"), ("address", "203.0.113.10"), ("count", "26"), ("seconds", "65")]
    {
        assert!(fields.contains(&(key, value.to_owned())), "no {key}={value} in {fields:?}");
    }
    // The forger stays unknown: nothing goes to it.
    assert!(router.dataplane.neighbours().all(|n| n.mac != STRANGER));
}

#[test]
fn a4_addresses_are_announced_three_times_at_the_start() {
    let mut router = Router::cold(config(), 10);
    let mut announced = Vec::new();
    for half in 0..20 {
        for (link, frame) in router.advance(Duration::from_millis(500)) {
            announced.push(((half + 1) / 4, format!("{}: {}", router::name(link), line(&frame))));
        }
    }
    let of = |who: &str, address| {
        format!("{who} > all arp request from {who} {address} to nobody {address}, 60 bytes")
    };
    for address in ["203.0.113.2", "203.0.113.10"] {
        let text = format!("out: {}", of("router.out", address));
        let times: Vec<_> =
            announced.iter().filter(|(_, t)| *t == text).map(|(at, _)| *at).collect();
        assert_eq!(times, [0, 1, 2], "{text} in {announced:?}");
    }
    for address in ["10.0.0.1", "10.0.0.2"] {
        let text = format!("in: {}", of("router.in", address));
        let times: Vec<_> =
            announced.iter().filter(|(_, t)| *t == text).map(|(at, _)| *at).collect();
        assert_eq!(times, [0, 1, 2], "{text} in {announced:?}");
    }
    assert_eq!(announced.len(), 12, "{announced:?}");
}
