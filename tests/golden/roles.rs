//! Two routers that share the virtual IPs: what the active one says and does in their name, and that a
//! backup does nothing of it (RFC 9568 section 6.4; A5, A6, V1, V3, V8).

use tapvs::addr::Role;
use tapvs::config::{self, Failover};
use tapvs::dataplane::{Event, Origin, Verdict};
use tapvs::time::Duration;

use super::bridge::raw;
use super::*;

/// The virtual MACs of the internet and of the servers.
pub(super) const OUTER: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 51]);
pub(super) const INNER: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 52]);
/// The peer among the servers.
const PEER: MacAddr = MacAddr([2, 0, 0, 0, 2, 3]);
const ADVERTS: MacAddr = MacAddr([0x01, 0, 0x5e, 0, 0, 0x12]);
const NOBODY: std::net::Ipv4Addr = std::net::Ipv4Addr::UNSPECIFIED;

/// `[failover]` as a file would have it.
fn failover(members: &str) -> Failover {
    let text = format!(
        r#"
        [[network]]
        name = "internet"
        links = ["tap0"]
        addresses = ["203.0.113.2/24"]

        [[network]]
        name = "servers"
        links = ["tap1"]
        addresses = ["10.0.0.2/24"]

        [failover]
        {members}
        "#
    );
    config::parse(&text).unwrap().failover.unwrap()
}

/// Adverts on both networks, flows copied among the servers.
pub(super) fn pair(config: &mut Config) {
    config.failover = Some(failover(
        r#"
        network = [
            { network = "internet", virtual_router_id = 51 },
            { network = "servers", virtual_router_id = 52 },
        ]
        sync = { network = "servers", peer = "10.0.0.3", key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff" }
        "#,
    ));
}

pub(super) fn paired(mut config: Config) -> Config {
    pair(&mut config);
    config
}

/// One bridged network, with direct routing, shared with another router.
pub(super) fn bridged_pair() -> Config {
    let mut config = bridged();
    let members = r#"network = [{ network = "internet", virtual_router_id = 51 }]"#;
    config.failover = Some(failover(members));
    config
}

/// A router that has been active for a while.
pub(super) fn active(config: Config) -> Router {
    let mut router = Router::new(config);
    become_role(&mut router, Role::Active);
    router.advance(Duration::from_secs(5));
    router.probes.clear();
    router
}

pub(super) fn become_role(router: &mut Router, role: Role) {
    router.dataplane.handle_role(&router.table, role, router.now);
}

/// An advert of the router with this address, as it comes.
pub(super) fn advert(from: &str, ip_change: impl FnOnce(&mut Ip)) -> Ip {
    let body = vec![0x31, 51, 200, 1, 0, 10, 0, 0, 203, 0, 113, 10];
    let advert = Ip::new(from.parse().unwrap(), "224.0.0.18".parse().unwrap(), 112, body);
    advert.ttl(255).with(|ip| (ip.to, ip.from) = (ADVERTS, OUTER)).with(ip_change)
}

fn copied() -> Ip {
    udp("10.0.0.3:8848", "10.0.0.2:8848", b"flows").with(|ip| ip.from = PEER)
}

/// The same, whatever the configuration.
fn judge(make: impl Fn() -> Router, cases: Vec<(&str, LinkId, Bytes, &str)>) {
    let mut wrong = String::new();
    for (name, link, Bytes(frame), expect) in cases {
        let text = make().feed(link, &frame).text();
        if text.lines().ne(expect.lines().map(str::trim)) {
            wrong += &format!("--- {name}\nexpected:\n{expect}\nbut:\n{text}\n");
        }
    }
    assert!(wrong.is_empty(), "cases that went otherwise:\n{wrong}");
}

#[test]
fn the_active_router_speaks_with_the_virtual_mac() {
    let to_virtual = |ip: Ip, mac| ip.with(|ip| ip.to = mac);
    judge(
        || active(paired(config())),
        vec![
            (
                "A5 the virtual IP is at the virtual MAC, which says so itself",
                OUT,
                gateway_asks(VIP).into(),
                "reply
                 out: 00:00:5e:00:01:33 > gateway arp reply from 00:00:5e:00:01:33 203.0.113.10 to gateway 203.0.113.1, 60 bytes",
            ),
            (
                "A5 so is the servers' gateway, at its own",
                IN,
                who_has(INNER_VIP, server_ip(11), server_mac(11)).into(),
                "reply
                 in: 00:00:5e:00:01:34 > server11 arp reply from 00:00:5e:00:01:34 10.0.0.1 to server11 10.0.0.11, 60 bytes",
            ),
            (
                "an own address is at the router's own MAC",
                OUT,
                gateway_asks(OWN_OUT).into(),
                "reply
                 out: router.out > gateway arp reply from router.out 203.0.113.2 to gateway 203.0.113.1, 60 bytes",
            ),
            (
                "a neighbour's question to the virtual MAC is answered",
                OUT,
                gateway_asks(VIP).with(|arp| arp.to = OUTER).into(),
                "reply
                 out: 00:00:5e:00:01:33 > gateway arp reply from 00:00:5e:00:01:33 203.0.113.10 to gateway 203.0.113.1, 60 bytes",
            ),
            (
                "what is sent to the virtual MAC is served, and leaves from the other one",
                OUT,
                to_virtual(syn(), OUTER).into(),
                "forward in
                 in: 00:00:5e:00:01:34 > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 tcp 40000 > 8080 S seq 1000 ack 0 win 8192 data 0",
            ),
            (
                "so is what is sent to the router's own",
                OUT,
                syn().into(),
                "forward in
                 in: 00:00:5e:00:01:34 > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 tcp 40000 > 8080 S seq 1000 ack 0 win 8192 data 0",
            ),
            (
                "the other network's virtual MAC is another station's here",
                OUT,
                to_virtual(syn(), INNER).into(),
                "drop other_destination_mac",
            ),
            (
                "the virtual IP's ping answer",
                OUT,
                to_virtual(icmp("198.51.100.7", "203.0.113.10", (8, 0), [0, 1, 0, 1], b"ping"), OUTER).into(),
                "reply
                 out: 00:00:5e:00:01:33 > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 1 icmp 0/0 00010001 data 4",
            ),
            (
                "the virtual IP's reset",
                OUT,
                tcp(CLIENT, "203.0.113.10:81", SYN, 1000, 0, b"").into(),
                "drop unserved
                 out: 00:00:5e:00:01:33 > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 0 df tcp 81 > 40000 RA seq 0 ack 1001 win 0 data 0",
            ),
            (
                "an ICMP error of the virtual IP's",
                OUT,
                udp(CLIENT, "203.0.113.10:99", b"x").into(),
                "drop unserved
                 out: 00:00:5e:00:01:33 > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id - tos c0 icmp 3/3 00000000 about [198.51.100.7 > 203.0.113.10 ttl 64 id 1 udp 40000 > 99 data 1]",
            ),
            (
                "a server is told by the router itself",
                IN,
                tcp("10.0.0.11:1", "10.0.0.1:80", SYN, 1, 0, b"").into(),
                "drop unserved
                 in: 00:00:5e:00:01:34 > server11 10.0.0.1 > 10.0.0.11 ttl 64 id 0 df tcp 80 > 1 RA seq 0 ack 2 win 0 data 0",
            ),
            (
                "A4 a claim by another MAC is defended by the virtual one",
                OUT,
                who_has(VIP, VIP, STRANGER).into(),
                "drop arp_conflict
                 out: 00:00:5e:00:01:33 > all arp request from 00:00:5e:00:01:33 203.0.113.10 to nobody 203.0.113.10, 60 bytes",
            ),
            (
                "another active router's announcement is no claim, and not defended against",
                OUT,
                who_has(VIP, VIP, OUTER).into(),
                "drop other_active",
            ),
            (
                "nor does anything else from the virtual MAC come from a neighbour",
                OUT,
                who_has(OWN_OUT, GATEWAY_IP, OUTER).into(),
                "drop other_active",
            ),
            (
                "another active router's packets",
                OUT,
                syn().with(|ip| (ip.from, ip.to) = (OUTER, ROUTER_OUT)).into(),
                "drop other_active",
            ),
            (
                "ARP that says whose frame it is: another router asks from the virtual MAC",
                OUT,
                gateway_asks(OWN_OUT).with(|arp| arp.from = OUTER).into(),
                "reply
                 out: router.out > gateway arp reply from router.out 203.0.113.2 to gateway 203.0.113.1, 60 bytes",
            ),
        ],
    );
}

#[test]
fn whatever_is_forwarded_leaves_from_the_virtual_mac() {
    judge(
        || active(paired(direct(config()))),
        vec![(
            "DR",
            OUT,
            syn().with(|ip| ip.to = OUTER).into(),
            "forward in
             in: 00:00:5e:00:01:34 > server11 198.51.100.7 > 203.0.113.10 ttl 63 id 1 tcp 40000 > 80 S seq 1000 ack 0 win 8192 data 0",
        )],
    );
    judge(
        || active(bridged_pair()),
        vec![(
            "DR behind a bridge",
            OUT,
            syn().with(|ip| ip.to = OUTER).into(),
            "forward in
             in: 00:00:5e:00:01:33 > server11 198.51.100.7 > 203.0.113.10 ttl 63 id 1 tcp 40000 > 80 S seq 1000 ack 0 win 8192 data 0",
        )],
    );
    let routing = || {
        let mut config = paired(config());
        config.router.forward = Forward::All;
        config.networks[0].mtu = 1280;
        active(config)
    };
    let mut cut = routing();
    let step = cut.feed(IN, &udp("10.0.0.11:9", "198.51.100.7:9", &[0; 1400]).frame());
    assert_eq!((step.verdict, step.out.len()), (Verdict::Split, 2));
    assert!(step.out.iter().all(|(_, frame)| frame[6..12] == OUTER.0), "{}", step.text());
    judge(
        routing,
        vec![
            (
                "routed",
                IN,
                udp("10.0.0.11:9", "198.51.100.7:9", b"x").with(|ip| ip.to = INNER).into(),
                "forward out
                 out: 00:00:5e:00:01:33 > gateway 10.0.0.11 > 198.51.100.7 ttl 63 id 1 udp 9 > 9 data 1",
            ),
            (
                "routed once its next hop is known",
                OUT,
                udp(CLIENT, "10.0.0.77:9", b"x").into(),
                "held
                 in: 00:00:5e:00:01:34 > server77 198.51.100.7 > 10.0.0.77 ttl 63 id 1 udp 40000 > 9 data 1",
            ),
            (
                "a sender is told by the router's own address, from its own MAC",
                IN,
                udp("10.0.0.11:9", "198.51.100.7:9", b"x").ttl(1).into(),
                "drop ttl_exceeded
                 in: router.in > server11 10.0.0.2 > 10.0.0.11 ttl 64 id - tos c0 icmp 11/0 00000000 about [10.0.0.11 > 198.51.100.7 ttl 1 id 1 udp 9 > 9 data 1]",
            ),
        ],
    );
    // Masqueraded as the router itself, it comes from itself.
    let mut config = paired(config());
    icmp_cases::masquerading(&mut config);
    config.masquerades[0].to = OWN_OUT.into();
    let mut router = active(config);
    let step = router.feed(IN, &udp("10.0.0.11:9", "198.51.100.7:9", b"x").frame());
    assert!(step.text().contains("out: router.out > gateway 203.0.113.2 > "), "{}", step.text());
}

#[test]
fn a5_a_backup_is_silent_about_the_virtual_ips_and_alive_itself() {
    let piece = |offset: u16| udp(CLIENT, DNS, &[0; 24]).with(|ip| ip.fragment = offset);
    let virtually = |ip: Ip| ip.with(|ip| ip.to = OUTER);
    judge(
        || Router::new(paired(config())),
        vec![
            ("A5 who has the virtual IP", OUT, gateway_asks(VIP).into(), "drop backup_role"),
            (
                "A5 who has the servers' gateway",
                IN,
                who_has(INNER_VIP, server_ip(77), server_mac(77)).into(),
                "drop backup_role",
            ),
            ("A3 a probe for it", OUT, who_has(VIP, NOBODY, STRANGER).into(), "drop backup_role"),
            ("A5 a packet to the virtual MAC", OUT, virtually(syn()).into(), "drop backup_role"),
            (
                "A5 a question to it, for an own address",
                OUT,
                gateway_asks(OWN_OUT).with(|arp| arp.to = OUTER).into(),
                "drop backup_role",
            ),
            ("TCP to the router's own MAC", OUT, syn().into(), "drop backup_role"),
            ("TCP to no service", OUT, tcp(CLIENT, "203.0.113.10:81", SYN, 1, 0, b"").into(), "drop backup_role"),
            ("UDP", OUT, query().into(), "drop backup_role"),
            ("UDP to no service", OUT, udp(CLIENT, "203.0.113.10:99", b"x").into(), "drop backup_role"),
            ("a first fragment", OUT, piece(MF).into(), "drop backup_role"),
            ("a later fragment", OUT, piece(3).into(), "drop backup_role"),
            (
                "ping",
                OUT,
                icmp("198.51.100.7", "203.0.113.10", (8, 0), [0, 1, 0, 1], b"ping").into(),
                "drop backup_role",
            ),
            (
                "an ICMP error",
                OUT,
                icmp("198.51.100.7", "203.0.113.10", (3, 3), [0; 4], &syn().packet()).into(),
                "drop backup_role",
            ),
            ("what would be routed", IN, udp("10.0.0.11:9", "198.51.100.7:9", b"x").into(), "drop backup_role"),
            ("its time to live is nobody's business", IN, udp("10.0.0.11:9", "198.51.100.7:9", b"x").ttl(1).into(), "drop backup_role"),
            ("a broadcast is one", IN, udp("10.0.0.11:9", "10.0.0.255:9", b"x").into(), "drop broadcast"),
            (
                "the active router's announcement",
                OUT,
                who_has(VIP, VIP, OUTER).into(),
                "drop backup_role",
            ),
            (
                "that of one with the MAC of its NIC",
                OUT,
                who_has(VIP, VIP, STRANGER).into(),
                "drop backup_role",
            ),
            (
                "its answer to somebody else",
                OUT,
                is_at(VIP, OUTER, NEAR, NEAR_IP).with(|arp| arp.to = MacAddr::BROADCAST).into(),
                "drop arp_unsolicited",
            ),
            (
                "who has an own address",
                OUT,
                gateway_asks(OWN_OUT).into(),
                "reply
                 out: router.out > gateway arp reply from router.out 203.0.113.2 to gateway 203.0.113.1, 60 bytes",
            ),
            (
                "the active router asks in a virtual IP's name",
                OUT,
                who_has(OWN_OUT, VIP, OUTER).into(),
                "reply
                 out: router.out > 00:00:5e:00:01:33 arp reply from router.out 203.0.113.2 to 00:00:5e:00:01:33 203.0.113.10, 60 bytes",
            ),
            (
                "a claim to an own address is one",
                OUT,
                who_has(OWN_OUT, OWN_OUT, STRANGER).into(),
                "drop arp_conflict
                 out: router.out > all arp request from router.out 203.0.113.2 to nobody 203.0.113.2, 60 bytes",
            ),
            (
                "a ping of an own address",
                OUT,
                icmp("198.51.100.7", "203.0.113.2", (8, 0), [0, 1, 0, 1], b"ping").into(),
                "to host
                 host: gateway > router.out 198.51.100.7 > 203.0.113.2 ttl 64 id 1 icmp 8/0 00010001 data 4",
            ),
            (
                "what the active router forwards to an own address",
                OUT,
                tcp(CLIENT, "203.0.113.2:80", SYN, 1, 0, b"").with(|ip| ip.from = OUTER).into(),
                "to host
                 host: 00:00:5e:00:01:33 > router.out 198.51.100.7 > 203.0.113.2 ttl 64 id 1 tcp 40000 > 80 S seq 1 ack 0 win 8192 data 0",
            ),
            ("neighbours are kept", OUT, gateway_asks(NEAR_IP).into(), "consumed neighbour"),
        ],
    );
}

/// Neither claims nor alarms: the active router does what it has to do.
#[test]
fn a_backup_complains_about_nothing_that_the_active_router_does() {
    let mut router = Router::new(paired(config()));
    for mac in [OUTER, STRANGER] {
        for frame in [
            who_has(VIP, VIP, mac).frame(),
            is_at(VIP, mac, GATEWAY, GATEWAY_IP).with(|arp| arp.to = MacAddr::BROADCAST).frame(),
            is_at(VIP, mac, GATEWAY, GATEWAY_IP).frame(),
            syn().with(|ip| (ip.from, ip.to) = (mac, ROUTER_OUT)).frame(),
            syn().with(|ip| (ip.from, ip.to) = (mac, NEAR)).frame(),
        ] {
            assert_eq!(router.feed(OUT, &frame).out, [], "{}", line(&frame));
        }
    }
    assert_eq!(router.advance(Duration::from_secs(90)), []);
    assert_eq!(router.events, []);
    assert_eq!(router.report().claims, []);
    assert!(router.dataplane.neighbours().all(|n| ![OUTER, STRANGER].contains(&n.mac)));
}

#[test]
fn a_backup_announces_its_own_addresses_alone() {
    let mut router = Router::cold(paired(config()), 10);
    let out = router.advance(Duration::from_secs(10));
    let texts: Vec<_> = out.iter().map(|(_, frame)| line(frame)).collect();
    assert_eq!(texts.len(), 6, "{texts:#?}");
    assert!(texts.iter().all(|text| text.contains("203.0.113.2,") || text.contains("10.0.0.2,")));
    assert!(texts.iter().all(|text| text.starts_with("router.")), "{texts:#?}");
}

#[test]
fn without_failover_a_router_is_active_and_with_it_a_backup_until_told() {
    assert_eq!(Router::cold(config(), 1).dataplane.role(), Role::Active);
    let mut router = Router::cold(paired(config()), 1);
    assert_eq!(router.dataplane.role(), Role::Backup);
    become_role(&mut router, Role::Active);
    assert_eq!(router.dataplane.role(), Role::Active);
}

#[test]
fn v3_adverts_are_handed_over_and_never_passed_on() {
    let theirs = || advert("203.0.113.3", |_| {});
    // As short frames are padded on their way.
    let mut padded = theirs().frame();
    padded.resize(60, 0xee);
    let handed = "to ha
        ha: 00:00:5e:00:01:33 > 01:00:5e:00:00:12 203.0.113.3 > 224.0.0.18 ttl 255 id 1 protocol 112 12 bytes";
    let cases = || {
        vec![
            ("an advert, padding removed", OUT, Bytes(padded.clone()), handed),
            (
                "its time to live is judged elsewhere",
                OUT,
                theirs().ttl(1).into(),
                "to ha
                 ha: 00:00:5e:00:01:33 > 01:00:5e:00:00:12 203.0.113.3 > 224.0.0.18 ttl 1 id 1 protocol 112 12 bytes",
            ),
            (
                "so is an own one that came round",
                OUT,
                advert("203.0.113.2", |_| {}).into(),
                "to ha
                 ha: 00:00:5e:00:01:33 > 01:00:5e:00:00:12 203.0.113.2 > 224.0.0.18 ttl 255 id 1 protocol 112 12 bytes",
            ),
            ("in pieces", OUT, theirs().with(|ip| ip.fragment = MF).into(), "drop fragment"),
            ("from nobody", OUT, advert("0.0.0.0", |_| {}).into(), "drop martian_source"),
            ("another protocol's", OUT, theirs().with(|ip| ip.protocol = 89).into(), "drop broadcast"),
            (
                "one that is damaged",
                OUT,
                Bytes({
                    let mut frame = theirs().frame();
                    frame[24] ^= 1;
                    frame
                }),
                "drop ip_checksum",
            ),
        ]
    };
    for make in [|| Router::new(paired(config())), || active(paired(config()))] {
        judge(make, cases());
    }
    for make in [|| Router::new(bridged_pair()), || active(bridged_pair())] {
        judge(make, cases());
        let v6 = [&[0x60, 0, 0, 0, 0, 0, 112, 255][..], &[0xfe; 16], &[0xff, 2], &[0; 13], &[0x12]];
        let v6 = raw(MacAddr([0x33, 0x33, 0, 0, 0, 0x12]), NEAR, 0x86dd, &v6.concat());
        assert_eq!(make().feed(OUT, &v6).text(), "drop ipv6");
    }
    let alone = |config: Config| Router::new(config).feed(OUT, &theirs().frame()).verdict;
    assert_eq!(alone(config()), Verdict::Drop(DropReason::Broadcast));
    assert_eq!(alone(bridged()), Verdict::Flood, "other routers' adverts");
}

#[test]
fn copied_flows_are_handed_over_from_the_peers_end_alone() {
    let handed = "to ha
        ha: 02:00:00:00:02:03 > router.in 10.0.0.3 > 10.0.0.2 ttl 64 id 1 udp 8848 > 8848 data 5";
    let elsewhere = |from: &str, to: &str| udp(from, to, b"flows");
    for make in [|| Router::new(paired(config())), || active(paired(config()))] {
        let verdict = |ip: Ip, link| make().feed(link, &ip.frame()).verdict;
        let text = make().feed(IN, &copied().frame()).text();
        assert_eq!(
            text,
            handed.replace("02:00:00:00:02:03", "server3").replace("\n        ", "\n")
        );
        assert_eq!(verdict(elsewhere("10.0.0.3:8849", "10.0.0.2:8848"), IN), Verdict::ToHost);
        assert_eq!(verdict(elsewhere("10.0.0.3:8848", "10.0.0.2:8849"), IN), Verdict::ToHost);
        assert_eq!(verdict(elsewhere("10.0.0.4:8848", "10.0.0.2:8848"), IN), Verdict::ToHost);
        let wrong_side = copied().with(|ip| ip.to = ROUTER_OUT);
        assert_eq!(verdict(wrong_side, OUT), Verdict::Drop(DropReason::ReversePath));
        let in_pieces = copied().with(|ip| (ip.fragment, ip.body) = (MF, vec![0x22; 16]));
        assert_eq!(verdict(in_pieces, IN), Verdict::Drop(DropReason::Fragment));
    }
}

#[test]
fn nobody_is_taken_for_a_loop_who_is_another_active_router() {
    let mut router = active(paired(config()));
    for _ in 0..100 {
        router.feed(OUT, &syn().with(|ip| (ip.from, ip.to) = (OUTER, ROUTER_OUT)).frame());
        router.feed(OUT, &who_has(VIP, VIP, OUTER).frame());
        router.feed(OUT, &is_at(VIP, OUTER, GATEWAY, GATEWAY_IP).frame());
    }
    assert_eq!(router.events, []);
    assert_eq!(router.dataplane.counters().dropped(DropReason::OtherActive), 200);
    assert_eq!(router.advance(Duration::from_secs(20)), []);
    // The router's own MAC is another matter.
    router.feed(OUT, &syn().with(|ip| ip.from = ROUTER_OUT).frame());
    assert!(matches!(router.events[..], [Event::OwnMac { .. }]), "{:?}", router.events);
}

/// Where another bridge's frames have said that servers are is not asked while it may still say so.
#[test]
fn servers_are_sought_behind_all_links_once_another_active_router_is_silent() {
    let mut router = active(bridged_pair());
    let links = router.table.networks()[0].links.len();
    let servers: std::collections::BTreeSet<_> =
        router.config.services[0].servers.iter().map(|server| server.endpoint.address).collect();
    let interval = router.config.failover.as_ref().unwrap().advert_interval;
    router.answers_arp = false;
    let everybody_asked = |router: &mut Router, intervals| {
        let out = router.advance(interval * intervals);
        let about_server = |frame: &[u8]| {
            let target = <[u8; 4]>::try_from(&frame[38..42]).unwrap();
            servers.contains(&std::net::IpAddr::from(target))
        };
        let is_question = |frame: &[u8]| frame[..6] == [0xff; 6] && frame[12..14] == [8, 6];
        out.iter().filter(|(_, frame)| is_question(frame) && about_server(frame)).count()
    };
    assert_eq!(everybody_asked(&mut router, 1), 0, "everything is well known");
    for _ in 0..3 {
        let heard = router.feed(OUT, &advert("203.0.113.3", |_| {}).frame());
        assert_eq!(heard.verdict, Verdict::ToHa);
        assert_eq!(everybody_asked(&mut router, 2), 0, "the other one may still pass on an answer");
    }
    assert_eq!(everybody_asked(&mut router, 2), servers.len() * links, "by every link");
    // Who stands down meanwhile asks nobody.
    router.feed(OUT, &advert("203.0.113.3", |_| {}).frame());
    become_role(&mut router, Role::Backup);
    assert_eq!(everybody_asked(&mut router, 4), 0);
}

#[test]
fn v1_an_advert_leaves_from_the_virtual_mac_by_every_link() {
    let packet = advert("203.0.113.2", |_| {}).packet();
    for (config, links) in
        [(paired(config()), &[OUT][..]), (bridged_pair(), &[OUT, IN, FAR_IN][..])]
    {
        let mut router = active(config);
        for role in [Role::Active, Role::Backup] {
            become_role(&mut router, role);
            let origin = Origin::Ha(router.table.networks()[0].id);
            router.dataplane.send_packet(&router.table, &packet, origin, router.now);
            let out = router.transmits();
            let text = "00:00:5e:00:01:33 > 01:00:5e:00:00:12 203.0.113.2 > 224.0.0.18 ttl 255 id 1 \
                        protocol 112 12 bytes";
            let expect: Vec<_> = links.iter().map(|link| (*link, text.to_owned())).collect();
            let sent: Vec<_> = out.iter().map(|(link, frame)| (*link, line(frame))).collect();
            assert_eq!(sent, expect, "the last advert of a router that resigns too");
        }
        router.check();
    }
}

/// More held frames, errors and packets of its own than there is room for.
pub(crate) fn an_advert_through_a_full_outbox() -> Router {
    let mut router = active(paired(config()));
    let packet = udp("10.0.0.2:9", "10.0.0.3:9", b"x").packet();
    for _ in 0..300 {
        let origin = Origin::Ha(router.table.networks()[1].id);
        router.dataplane.send_packet(&router.table, &packet, origin, router.now);
        let host = udp("203.0.113.2:9", "198.51.100.7:9", b"x").packet();
        router.dataplane.send_packet(&router.table, &host, Origin::Host, router.now);
    }
    assert!(router.dataplane.counters().dropped(DropReason::OutboxFull) > 0);
    let advert = advert("203.0.113.2", |_| {}).packet();
    for network in router.table.networks() {
        let origin = Origin::Ha(network.id);
        router.dataplane.send_packet(&router.table, &advert, origin, router.now);
    }
    let first: Vec<_> = router.transmits().into_iter().take(2).collect();
    for ((link, frame), (expected, mac)) in first.iter().zip([(OUT, OUTER), (IN, INNER)]) {
        assert_eq!((*link, &frame[6..12]), (expected, &mac.0[..]), "{}", line(frame));
        assert_eq!(frame[..6], ADVERTS.0);
    }
    router
}

#[test]
fn an_advert_is_first_and_never_without_room() {
    let mut router = an_advert_through_a_full_outbox();
    // What is not handed out in time has a bound too, and is counted.
    let advert = advert("203.0.113.2", |_| {}).packet();
    for _ in 0..1_000 {
        let origin = Origin::Ha(router.table.networks()[0].id);
        router.dataplane.send_packet(&router.table, &advert, origin, router.now);
    }
    let before = router.dataplane.counters().dropped(DropReason::OutboxFull);
    assert!(before >= 1_000 - 288, "{before}");
    assert!(router.transmits().len() <= 288);
    for junk in [vec![0; 19], vec![0x45; 70_000]] {
        let origin = Origin::Ha(router.table.networks()[0].id);
        router.dataplane.send_packet(&router.table, &junk, origin, router.now);
    }
    assert_eq!(router.transmits(), []);
    router.check();
}

#[test]
fn what_ha_sends_to_one_address_comes_from_the_router_itself() {
    let mut router = Router::new(paired(config()));
    let packet = udp("10.0.0.2:8848", "10.0.0.3:8848", b"flows").packet();
    let origin = Origin::Ha(router.table.networks()[1].id);
    router.dataplane.send_packet(&router.table, &packet, origin, router.now);
    let out: Vec<_> = router.transmits().iter().map(|(_, frame)| line(frame)).collect();
    let expect = "router.in > server3 10.0.0.2 > 10.0.0.3 ttl 64 id 1 udp 8848 > 8848 data 5";
    assert_eq!(out, [expect]);
}

#[test]
fn what_a_backup_routes_for_nobody_else_it_sends_for_itself() {
    let mut router = Router::new(paired(config()));
    let host = udp("203.0.113.2:9", "198.51.100.7:9", b"x").packet();
    router.dataplane.send_packet(&router.table, &host, Origin::Host, router.now);
    let out: Vec<_> = router.transmits().iter().map(|(_, frame)| line(frame)).collect();
    let sent = "router.out > gateway 203.0.113.2 > 198.51.100.7 ttl 64 id 1 udp 9 > 9 data 1";
    assert_eq!(out, [sent]);
    // Not in a virtual IP's name.
    let forged = udp("203.0.113.10:9", "198.51.100.7:9", b"x").packet();
    router.dataplane.send_packet(&router.table, &forged, Origin::Host, router.now);
    assert_eq!(router.transmits(), []);
    assert_eq!(router.dataplane.counters().dropped(DropReason::BackupRole), 1);
}

/// A backup asks servers through the virtual IP, and is answered.
#[test]
fn a_backup_goes_on_probing_servers() {
    let mut router = Router::new(paired(direct(config())));
    let server = router.table.services()[0].servers[0].id;
    let timeout = Duration::from_secs(1);
    let Router { dataplane, table, now, .. } = &mut router;
    dataplane.probe(table, server, 61_000, timeout, *now).unwrap();
    let (link, question) = router.transmits().pop().unwrap();
    assert_eq!(
        (link, &question[..12]),
        (IN, &[server_mac(11).0, ROUTER_IN.0].concat()[..]),
        "from the router's own MAC"
    );
    let sequence = u32::from_be_bytes(question[38..42].try_into().unwrap());
    let answer = tcp(WEB, "10.0.0.2:61000", SYN | ACK, 7, sequence.wrapping_add(1), b"");
    let answer = answer.with(|ip| (ip.from, ip.to) = (server_mac(11), ROUTER_IN));
    let step = router.feed(IN, &answer.frame());
    assert!(
        step.text().starts_with("consumed probe answer\nin: router.in > server11 "),
        "{step:?}"
    );
    assert!(matches!(router.events[..], [Event::Probed { .. }]), "{:?}", router.events);
}

#[test]
fn flows_stay_through_both_changes_of_role() {
    let mut router = active(paired(config()));
    router.feed(OUT, &syn().frame());
    router.feed(IN, &tcp(SERVER11, CLIENT, SYN | ACK, 500, 1001, b"").frame());
    let go_on = || tcp(CLIENT, WEB, ACK, 1001, 501, b"x").frame();
    let before = router.flows();
    become_role(&mut router, Role::Backup);
    assert_eq!(router.feed(OUT, &go_on()).text(), "drop backup_role");
    let answer = tcp(SERVER11, CLIENT, ACK, 501, 1001, b"").frame();
    assert_eq!(router.feed(IN, &answer).text(), "drop backup_role");
    assert_eq!(router.flows(), before);
    become_role(&mut router, Role::Active);
    router.transmits();
    assert_eq!(router.feed(OUT, &go_on()).verdict, Verdict::Forward(IN));
}

/// Everything that an active router had begun to say in the virtual IPs' name.
#[test]
fn who_stands_down_is_silent_at_once() {
    let mut router = active(paired(config()));
    router.answers_arp = false;
    router.advance(Duration::from_secs(100));
    // A packet that waits for its server's MAC, a reset not sent yet, a defence, announcements.
    router.dataplane.handle_frame(&router.table, OUT, &mut frame(&syn().frame()), router.now);
    let unserved = tcp(CLIENT, "203.0.113.10:81", SYN, 1, 0, b"").frame();
    router.dataplane.handle_frame(&router.table, OUT, &mut frame(&unserved), router.now);
    let claim = who_has(VIP, VIP, STRANGER).frame();
    router.dataplane.handle_frame(&router.table, OUT, &mut frame(&claim), router.now);
    router.dataplane.announce_again(&router.table, router.now);
    become_role(&mut router, Role::Backup);
    router.answers_arp = true;
    for (_, frame) in router.advance(Duration::from_secs(60)) {
        let text = line(&frame);
        assert!(text.starts_with("router."), "not in its own name: {text}");
        assert!(!text.contains("203.0.113.10") && !text.contains("10.0.0.1,"), "{text}");
    }
    assert_eq!(router.report().waiting, 0, "nothing is held for ever");
}

fn frame(bytes: &[u8]) -> tapvs::frame::Frame {
    tapvs::frame::Frame::from_bytes(bytes)
}

/// A server that is taken away while another router serves its clients.
#[test]
fn a_backup_resets_nobody() {
    let mut router = active(paired(config()));
    for service in &mut router.config.services {
        service.lifecycle.on_remove = config::OnRemove::Reset;
    }
    let config = router.config.clone();
    router.reload(config);
    router.feed(OUT, &syn().frame());
    router.feed(IN, &tcp(SERVER11, CLIENT, SYN | ACK, 500, 1001, b"").frame());
    router.feed(OUT, &tcp(CLIENT, WEB, ACK, 1001, 501, b"").frame());
    become_role(&mut router, Role::Backup);
    router.change(|config| {
        config.services[0].servers.remove(0);
    });
    assert_eq!(router.advance(Duration::from_secs(1)), []);
}

/// Packets of every kind, as a backup and as an active router: the drops that only a pair has.
pub(crate) fn both_roles() -> Router {
    let mut router = Router::new(bridged_pair());
    router.feed(OUT, &syn().frame());
    router.feed(OUT, &raw(MacAddr::BROADCAST, NEAR, 0x9999, &[0; 46]));
    become_role(&mut router, Role::Active);
    router.transmits();
    router.feed(OUT, &syn().with(|ip| ip.from = OUTER).frame());
    router.feed(OUT, &advert("203.0.113.3", |_| {}).frame());
    let c = router.dataplane.counters();
    assert_eq!((c.to_ha, c.dropped(DropReason::OtherActive)), (1, 1));
    assert_eq!((c.dropped(DropReason::BackupRole), c.dropped(DropReason::BackupBridge)), (1, 1));
    router
}

#[test]
fn the_sums_hold_in_both_roles() {
    both_roles();
}
