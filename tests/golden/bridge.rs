//! Networks of several links: the router as a switch.

use super::*;
use tapvs::dataplane::{Event, Verdict};
use tapvs::time::Duration;

/// [`case`] in the network of three links: the gateway and a client behind `OUT`, servers 11 and 12
/// behind `IN`, server 13 behind `FAR_IN`.
pub(super) fn switched(
    name: &'static str,
    link: LinkId,
    frame: impl Into<Bytes>,
    expect: &'static str,
) -> Case {
    case(name, link, frame, expect).configured(|config| *config = bridged())
}

/// A frame of any type.
pub(super) fn raw(to: MacAddr, from: MacAddr, kind: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &kind.to_be_bytes(), body].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// Between two stations, as an IPv4 packet between the servers' own addresses.
fn between(from: u8, to: u8) -> Ip {
    udp(&format!("10.0.0.{from}:7"), &format!("10.0.0.{to}:7"), b"hello").with(|ip| {
        (ip.from, ip.to) = (server_mac(from), server_mac(to));
    })
}

const BPDU: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0]);
const PAUSE: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 1]);
const LLDP: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
const GROUP: MacAddr = MacAddr([0x01, 0, 0x5e, 0, 0, 0xfb]);
const UNKNOWN: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);

pub(crate) fn cases() -> Vec<Case> {
    let from_near = |to: MacAddr, kind: u16| raw(to, NEAR, kind, &[0; 46]);
    let mut broadcast = between(11, 13).frame();
    broadcast[..6].copy_from_slice(&MacAddr::BROADCAST.0);
    vec![
        switched(
            "a known station gets its frames, untouched, and nobody else",
            IN,
            between(11, 13),
            "forward far in
             far in: server11 > server13 10.0.0.11 > 10.0.0.13 ttl 64 id 1 udp 7 > 7 data 5",
        ),
        switched("neighbours behind one link need no bridge", IN, between(11, 12), "drop same_link"),
        switched(
            "an unknown station's frames go everywhere",
            OUT,
            from_near(UNKNOWN, 0x9999),
            "flood
             in: near > 02:00:00:00:09:09 type 9999, 60 bytes
             far in: near > 02:00:00:00:09:09 type 9999, 60 bytes",
        ),
        switched(
            "broadcasts go everywhere",
            IN,
            broadcast,
            "flood
             out: server11 > all 10.0.0.11 > 10.0.0.13 ttl 64 id 1 udp 7 > 7 data 5
             far in: server11 > all 10.0.0.11 > 10.0.0.13 ttl 64 id 1 udp 7 > 7 data 5",
        ),
        switched(
            "multicast goes everywhere",
            OUT,
            from_near(GROUP, 0x0800),
            "flood
             in: near > 01:00:5e:00:00:fb ip cut at 46
             far in: near > 01:00:5e:00:00:fb ip cut at 46",
        ),
        switched(
            "IPv6 passes",
            OUT,
            from_near(server_mac(13), 0x86dd),
            "forward far in
             far in: near > server13 type 86dd, 60 bytes",
        ),
        switched(
            "BPDUs pass",
            OUT,
            raw(BPDU, NEAR, 38, &[0x42, 0x42, 3]),
            "flood
             in: near > 01:80:c2:00:00:00 type 0026, 60 bytes
             far in: near > 01:80:c2:00:00:00 type 0026, 60 bytes",
        ),
        switched("pause frames do not", OUT, from_near(PAUSE, 0x8808), "drop pause_frame"),
        switched("what ends at the next bridge ends here", OUT, from_near(LLDP, 0x88cc), "drop link_local_group"),
        switched("S11 tags do not pass: ARP may be behind them", OUT, from_near(server_mac(13), 0x8100), "drop vlan"),
        switched(
            "ARP in a SNAP header is no way round",
            IN,
            raw(MacAddr::BROADCAST, server_mac(11), 36, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 6]),
            "drop arp_malformed",
        ),
        switched("a group is no station", IN, between(11, 13).with(|ip| ip.from = GROUP), "drop bad_source_mac"),
        switched(
            "S12 the router's own MAC from outside",
            IN,
            between(11, 13).with(|ip| ip.from = ROUTER_OUT),
            "drop own_source_mac",
        ),
        switched(
            "N8 a client that sends too much is told by the virtual IP",
            OUT,
            udp(CLIENT, DNS, &[0; 1473]).with(|ip| ip.fragment = DF),
            "drop too_big
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id - tos c0 icmp 3/4 000005dc about [first 548 of 198.51.100.7 > 203.0.113.10 ttl 63 id 1 df udp 40000 > 53 data 1473]",
        ),
        switched(
            "S10 a frame longer than the MTU between stations",
            IN,
            between(11, 13).with(|ip| ip.body.resize(1481, 0)),
            "drop oversize",
        ),
        switched(
            "a question between stations passes, and its asker is not cached",
            OUT,
            who_has(server_ip(11), NEAR_IP, NEAR),
            "flood
             in: near > all arp request from near 203.0.113.50 to nobody 10.0.0.11, 60 bytes
             far in: near > all arp request from near 203.0.113.50 to nobody 10.0.0.11, 60 bytes",
        ),
        switched(
            "so does the answer, to whom it is for",
            IN,
            is_at(server_ip(11), server_mac(11), NEAR, NEAR_IP),
            "forward out
             out: server11 > near arp reply from server11 10.0.0.11 to near 203.0.113.50, 60 bytes",
        )
        .after(OUT, who_has(server_ip(11), NEAR_IP, NEAR)),
        switched(
            "DR a client's packet goes to the server's own link",
            OUT,
            syn(),
            "forward in
             in: router.out > server11 198.51.100.7 > 203.0.113.10 ttl 63 id 1 tcp 40000 > 80 S seq 1000 ack 0 win 8192 data 0",
        ),
        switched(
            "DR the server's answer passes as it is",
            IN,
            tcp(WEB, CLIENT, SYN | ACK, 500, 1001, b"").with(|ip| {
                (ip.from, ip.to) = (server_mac(11), GATEWAY);
            }),
            "forward out
             out: server11 > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 1 tcp 80 > 40000 SA seq 500 ack 1001 win 8192 data 0",
        )
        .after(OUT, syn()),
        switched(
            "DR a client that was misled is served by the router's choice all the same",
            OUT,
            syn().with(|ip| ip.to = server_mac(13)),
            "forward in
             in: router.out > server11 198.51.100.7 > 203.0.113.10 ttl 63 id 1 tcp 40000 > 80 S seq 1000 ack 0 win 8192 data 0",
        ),
        switched(
            "R1 the router's own address is answered by its own stack",
            IN,
            icmp("10.0.0.11", "10.0.0.2", (8, 0), [0, 1, 0, 1], b"ping").with(|ip| ip.to = ROUTER_OUT),
            "to host
             host: server11 > router.out 10.0.0.11 > 10.0.0.2 ttl 64 id 1 icmp 8/0 00010001 data 4",
        ),
    ]
}

#[test]
fn a_station_that_moves_is_found_and_a_silent_one_forgotten() {
    let mut router = Router::new(bridged());
    assert_eq!(router.feed(IN, &between(11, 13).frame()).verdict, Verdict::Forward(FAR_IN));
    router.feed(OUT, &between(13, 11).frame());
    assert_eq!(router.feed(IN, &between(11, 13).frame()).verdict, Verdict::Forward(OUT));
    // Known neighbours are asked again and again; a stranger is not.
    let hello = raw(MacAddr::BROADCAST, STRANGER, 0x9999, &[0; 46]);
    let to_stranger = raw(STRANGER, NEAR, 0x9999, &[0; 46]);
    router.feed(FAR_IN, &hello);
    router.advance(Duration::from_secs(299));
    assert_eq!(router.feed(OUT, &to_stranger).verdict, Verdict::Forward(FAR_IN));
    router.advance(Duration::from_secs(2));
    assert_eq!(router.feed(OUT, &to_stranger).verdict, Verdict::Flood);
}

#[test]
fn the_router_asks_and_announces_on_every_link() {
    let mut router = Router::cold(bridged(), 100);
    router.answers_arp = false;
    let out = router.advance(Duration::from_millis(200));
    for (of, text) in [
        (
            "its address",
            "router.out > all arp request from router.out 203.0.113.2 to nobody 203.0.113.2, 60 bytes",
        ),
        (
            "the virtual IP",
            "router.out > all arp request from router.out 203.0.113.10 to nobody 203.0.113.10, 60 bytes",
        ),
        (
            "a server",
            "router.out > all arp request from router.out 10.0.0.2 to nobody 10.0.0.11, 60 bytes",
        ),
    ] {
        let links: Vec<_> =
            out.iter().filter(|(_, f)| line(f) == text).map(|(link, _)| *link).collect();
        assert_eq!(links, [OUT, IN, FAR_IN], "{of}");
    }
}

/// A probe of the router's comes back by another of its links.
pub(crate) fn a_loop() -> Router {
    let mut router = Router::new(bridged());
    router.advance(Duration::from_secs(1));
    let (link, probe) = router.probes.iter().rev().find(|(link, _)| *link == IN).cloned().unwrap();
    assert_eq!(link, IN);
    let step = router.feed(FAR_IN, &probe);
    assert_eq!(step.text(), "consumed loop probe");
    assert_eq!(router.feed(FAR_IN, &between(13, 11).frame()).text(), "drop link_shut");
    router
}

#[test]
fn a_loop_shuts_one_link_and_opens_it_again() {
    let mut router = a_loop();
    let found = |router: &Router| {
        let is = |event: &&Event| {
            matches!(event, Event::LoopFound { sent: IN, came: FAR_IN, shut: FAR_IN })
        };
        router.events.iter().filter(is).count()
    };
    assert_eq!(found(&router), 1);
    // Nothing leaves by it either: not for everybody, not for who was known there.
    let all = raw(MacAddr::BROADCAST, NEAR, 0x9999, &[0; 46]);
    assert_eq!(router.feed(OUT, &all).out.iter().map(|(link, _)| *link).collect::<Vec<_>>(), [IN]);
    let to_13 = udp("203.0.113.50:7", "10.0.0.13:7", b"x").with(|ip| ip.to = server_mac(13));
    assert_eq!(
        router.feed(OUT, &to_13.frame()).out.iter().map(|(link, _)| *link).collect::<Vec<_>>(),
        [IN]
    );
    // As long as probes come round it stays shut, and that is told once.
    for _ in 0..10 {
        router.probes.clear();
        router.advance(Duration::from_secs(1));
        let (_, probe) = router
            .probes
            .iter()
            .find(|(l, f)| *l == IN && f[6..12] == ROUTER_OUT.0)
            .cloned()
            .unwrap();
        router.feed(FAR_IN, &probe);
    }
    assert_eq!(router.feed(FAR_IN, &between(13, 11).frame()).text(), "drop link_shut");
    assert_eq!(found(&router), 1);
    router.advance(Duration::from_secs(5));
    assert!(router.events.iter().any(|event| matches!(event, Event::LoopOver { link: FAR_IN })));
    assert_eq!(router.feed(FAR_IN, &between(13, 11).frame()).verdict, Verdict::Forward(IN));
}

/// A switch that has learned of stations by the link that was shut would send it what is for them.
#[test]
fn after_a_loop_the_switches_are_taught_where_stations_are() {
    let mut router = a_loop();
    router.probes.clear();
    router.advance(Duration::from_millis(500));
    let taught: Vec<_> =
        router.probes.iter().map(|(l, f)| (*l, mac_name(MacAddr::from_slice(&f[6..12])))).collect();
    assert_eq!(
        taught,
        [(IN, "gateway".to_owned())],
        "who is behind neither link, by the one that is open"
    );
}

#[test]
fn s12_nobody_can_make_up_a_loop() {
    let mut router = Router::new(bridged());
    router.advance(Duration::from_secs(1));
    let (_, probe) = router.probes.last().cloned().unwrap();
    for at in 20..34 {
        let mut forged = probe.clone();
        forged[at] ^= 1;
        // From the router's MAC: an alarm, and no more. From another: a frame like any other.
        assert_eq!(router.feed(IN, &forged).text(), "drop own_source_mac");
        forged[6..12].copy_from_slice(&STRANGER.0);
        assert_eq!(router.feed(IN, &forged).verdict, Verdict::Flood);
    }
    // One that was recorded a while ago.
    router.advance(Duration::from_secs(5));
    assert_eq!(router.feed(IN, &probe).text(), "drop own_source_mac");
    // And that of another router is passed on, so that it finds its loop.
    let mut other = bridged();
    other.networks[0].mac = Some(UNKNOWN);
    let mut other = Router::new(other);
    let (_, probe) = other.probes.pop().unwrap();
    assert_eq!(router.feed(IN, &probe).verdict, Verdict::Flood);
}

/// More than a link may have copied.
pub(crate) fn a_storm() -> Router {
    let mut router = Router::new(bridged());
    let all = raw(MacAddr::BROADCAST, NEAR, 0x9999, &[0; 46]);
    let unknown = raw(UNKNOWN, NEAR, 0x9999, &[0; 46]);
    for (frame, reason) in [(&all, "drop broadcast_limit"), (&unknown, "drop unknown_limit")] {
        let verdicts = |router: &mut Router, count: usize| {
            (0..count).filter(|_| router.feed(OUT, frame).verdict == Verdict::Flood).count()
        };
        assert_eq!(verdicts(&mut router, 3_000), 1_000);
        assert_eq!(router.feed(OUT, frame).text(), reason);
        // The other links have their own limit.
        let mut elsewhere = frame.clone();
        elsewhere[6..12].copy_from_slice(&server_mac(11).0);
        assert_eq!(router.feed(IN, &elsewhere).verdict, Verdict::Flood);
        router.advance(Duration::from_millis(100));
        assert_eq!(verdicts(&mut router, 3_000), 100);
    }
    assert_eq!(router.feed(OUT, &syn().frame()).verdict, Verdict::Forward(IN), "work goes on");
    router
}

#[test]
fn a_storm_is_cut_to_the_limit() {
    let router = a_storm();
    let counters = router.dataplane.counters();
    assert!(counters.copies > 0 && router.report().balances());
}
