//! Taking over: everybody learns at once whose the virtual IPs are (A6, D5), and a bridge's neighbours
//! where its stations are; until then a backup keeps out of it all (S12).

use std::collections::BTreeMap;

use tapvs::addr::Role;
use tapvs::config::VirtualIp;
use tapvs::dataplane::{Event, Verdict};
use tapvs::time::{Duration, Instant};

use super::bridge::raw;
use super::roles::{INNER, OUTER, active, advert, become_role, bridged_pair, paired};
use super::*;

/// What leaves from now on, with when it did, in milliseconds.
fn timeline(router: &mut Router, millis: u64) -> Vec<(i64, LinkId, Vec<u8>)> {
    let start = router.now;
    let since = |router: &Router| (router.now - start).total_millis();
    let mut all = Vec::new();
    for _ in 0..=millis {
        let at = i64::try_from(since(router)).unwrap();
        let out = router.transmits();
        all.extend(out.into_iter().map(|(link, frame)| (at, link, frame)));
        all.extend(router.probes.drain(..).map(|(link, frame)| (at, link, frame)));
        router.now += Duration::from_millis(1);
        if router.dataplane.poll_timeout().is_some_and(|due| due <= router.now) {
            router.dataplane.handle_timeout(&router.table, router.now);
        }
    }
    router.check();
    all
}

fn announcements(all: &[(i64, LinkId, Vec<u8>)]) -> Vec<(i64, LinkId, String)> {
    let arp = all.iter().filter(|(_, _, frame)| frame[12..14] == [8, 6]);
    arp.map(|(at, link, frame)| (*at, *link, line(frame))).collect()
}

fn announced(mac: MacAddr, address: &str, to: &str) -> String {
    format!("{mac} > {to} arp request from {mac} {address} to nobody {address}, 60 bytes")
}

#[test]
fn a6_a_takeover_is_announced_at_once_and_for_two_seconds() {
    let mut router = Router::new(paired(config()));
    assert_eq!(
        router.dataplane.poll_transmit(&router.table, &mut Default::default(), router.now),
        None
    );
    become_role(&mut router, Role::Active);
    let all = timeline(&mut router, 5_000);
    let expect: Vec<_> = [0, 700, 1_400, 2_000]
        .into_iter()
        .flat_map(|at| {
            [
                (at, OUT, announced(OUTER, "203.0.113.10", "all")),
                (at, IN, announced(INNER, "10.0.0.1", "all")),
            ]
        })
        .collect();
    assert_eq!(announcements(&all), expect);
}

#[test]
fn d5_the_one_who_stays_active_announces_everything_again() {
    let mut router = active(paired(config()));
    router.dataplane.announce_again(&router.table, router.now);
    let again = announcements(&timeline(&mut router, 3_000));
    assert_eq!(again.len(), 8, "{again:#?}");
    assert_eq!(again.iter().filter(|(at, ..)| *at == 0).count(), 2, "in the same turn");
    // In the middle of it, it begins anew.
    router.dataplane.announce_again(&router.table, router.now);
    assert_eq!(announcements(&timeline(&mut router, 1_000)).len(), 4);
    router.dataplane.announce_again(&router.table, router.now);
    assert_eq!(announcements(&timeline(&mut router, 3_000)).len(), 8);
    become_role(&mut router, Role::Backup);
    router.dataplane.announce_again(&router.table, router.now);
    assert_eq!(announcements(&timeline(&mut router, 3_000)), [], "not its affair");
}

#[test]
fn who_stands_down_announces_no_further() {
    let mut router = Router::new(paired(config()));
    become_role(&mut router, Role::Active);
    assert_eq!(announcements(&timeline(&mut router, 10)).len(), 2);
    become_role(&mut router, Role::Backup);
    assert_eq!(announcements(&timeline(&mut router, 3_000)), []);
}

/// A host that holds the address and watches for conflicts gives it up after a second broadcast within
/// ten seconds (RFC 5227 section 2.4 b); switches and the gateway are told all the same.
#[test]
fn servers_that_share_the_address_keep_it_and_everybody_hears_of_the_takeover() {
    let mut router = Router::new(paired(direct(config())));
    become_role(&mut router, Role::Active);
    let all = timeline(&mut router, 5_000);
    let of_vip: Vec<_> = announcements(&all)
        .into_iter()
        .filter(|(_, _, text)| text.contains("33 203.0.113.10 "))
        .collect();
    let expect: Vec<_> = [(0, "all"), (700, "gateway"), (1_400, "gateway"), (2_000, "gateway")]
        .map(|(at, to)| (at, OUT, announced(OUTER, "203.0.113.10", to)))
        .into();
    assert_eq!(of_vip, expect);
    let lessons: Vec<_> = all
        .iter()
        .filter(|(_, link, frame)| {
            (*link, &frame[6..14]) == (OUT, &[&OUTER.0[..], &[0x88, 0xb5]].concat()[..])
        })
        .map(|(at, ..)| *at)
        .collect();
    assert_eq!(lessons, [700, 1_400, 2_000], "for the switches");
}

#[test]
fn g4_a_thousand_virtual_ips_are_announced_within_5_ms_four_times() {
    let mut config = paired(config());
    config.virtual_ips.truncate(1);
    let more = (1..1_000_u32)
        .map(|n| VirtualIp::new(std::net::Ipv4Addr::from(0xc612_0000 + n).into(), n as usize % 2));
    config.virtual_ips.extend(more);
    let mut router = Router::new(config);
    become_role(&mut router, Role::Active);
    let mut times: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut per_turn: BTreeMap<i64, usize> = BTreeMap::new();
    for (at, link, text) in announcements(&timeline(&mut router, 3_000)) {
        let mac = if link == OUT { OUTER } else { INNER };
        assert!(text.starts_with(&mac.to_string()), "{text}");
        times.entry(text).or_default().push(at);
        *per_turn.entry(at).or_default() += 1;
    }
    assert_eq!(times.len(), 1_000);
    for (text, times) in &times {
        let offsets: Vec<_> =
            times.iter().zip([0, 700, 1_400, 2_000]).map(|(at, of)| at - of).collect();
        assert_eq!(offsets.len(), 4, "{text}: {times:?}");
        assert!(offsets.iter().all(|late| (0..5).contains(late)), "{text}: {times:?}");
    }
    assert!(per_turn.values().all(|count| *count <= 512), "no turn has too much: {per_turn:?}");
}

#[test]
fn a_reload_in_the_middle_leaves_no_virtual_ip_out() {
    let mut config = paired(config());
    let many = |from: u32| {
        (from..from + 700)
            .map(|n| VirtualIp::new(std::net::Ipv4Addr::from(0xc612_0000 + n).into(), 0))
    };
    config.virtual_ips.extend(many(0));
    let mut router = Router::new(config);
    become_role(&mut router, Role::Active);
    let mut all = timeline(&mut router, 0);
    router.change(|config| {
        config.virtual_ips.truncate(2);
        config.virtual_ips.extend(many(350));
    });
    all.extend(timeline(&mut router, 10));
    let mut texts: Vec<_> = announcements(&all).into_iter().map(|(_, _, text)| text).collect();
    texts.sort();
    texts.dedup();
    for vip in router.table.virtual_ips() {
        let text = announced(
            if vip.network.0 == 0 { OUTER } else { INNER },
            &vip.address.to_string(),
            "all",
        );
        assert!(texts.contains(&text), "{} was not announced", vip.address);
    }
}

/// A broadcast of station `mac`.
fn hello(mac: MacAddr) -> Vec<u8> {
    raw(MacAddr::BROADCAST, mac, 0x9999, &[0; 46])
}

fn station(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 7, 0, n])
}

/// As a backup hears a station behind `near`: there, and a moment later by the active router's bridge.
fn heard(router: &mut Router, mac: MacAddr, near: LinkId) {
    assert_eq!(router.feed(near, &hello(mac)).text(), "drop backup_bridge");
    router.now += Duration::from_micros(100);
    for far in [OUT, IN, FAR_IN].into_iter().filter(|link| *link != near) {
        assert_eq!(router.feed(far, &hello(mac)).text(), "drop backup_bridge");
    }
}

/// Which links each station was taught about on.
fn lessons(all: &[(i64, LinkId, Vec<u8>)]) -> BTreeMap<MacAddr, Vec<LinkId>> {
    let mut taught: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (_, link, frame) in all.iter().filter(|(_, _, frame)| frame[12..14] == [0x88, 0xb5]) {
        let mac = MacAddr::from_slice(&frame[6..]);
        assert_eq!(frame[0] & 1, 1, "to everybody: {}", line(frame));
        assert_eq!(frame.len(), 60);
        if ![ROUTER_OUT, OUTER].contains(&mac) {
            taught.entry(mac).or_default().push(*link);
        }
    }
    taught
}

#[test]
fn a_backup_bridges_nothing() {
    judge_bridge(&mut Router::new(bridged_pair()), "drop backup_bridge");
    let mut router = active(bridged_pair());
    assert_eq!(router.feed(OUT, &hello(NEAR)).verdict, Verdict::Flood);
    become_role(&mut router, Role::Backup);
    judge_bridge(&mut router, "drop backup_bridge");
}

fn judge_bridge(router: &mut Router, expect: &str) {
    let between = || {
        udp("10.0.0.11:7", "10.0.0.13:7", b"x")
            .with(|ip| (ip.from, ip.to) = (server_mac(11), server_mac(13)))
    };
    let group = MacAddr([0x01, 0, 0x5e, 0, 0, 0xfb]);
    for (what, link, frame) in [
        ("broadcast", OUT, hello(station(1))),
        ("multicast", OUT, raw(group, station(1), 0x0800, &[0; 46])),
        ("to a station elsewhere", IN, between().frame()),
        ("to nobody known", IN, between().with(|ip| ip.to = station(9)).frame()),
        ("IPv6", OUT, raw(server_mac(13), NEAR, 0x86dd, &[0; 46])),
        ("a BPDU", OUT, raw(MacAddr([1, 0x80, 0xc2, 0, 0, 0]), NEAR, 38, &[0x42, 0x42, 3])),
        (
            "ARP between stations",
            OUT,
            who_has(server_ip(11), "203.0.113.99".parse().unwrap(), station(1)).frame(),
        ),
        (
            "an answer between them",
            IN,
            is_at(server_ip(12), server_mac(11), station(1), NEAR_IP).frame(),
        ),
        ("a lesson or a probe of another router", OUT, raw(group, station(1), 0x88b5, &[0; 46])),
        ("its own frame, come round by the active router", IN, hello(ROUTER_OUT)),
        ("its own question too", FAR_IN, who_has(server_ip(11), OWN_OUT, ROUTER_OUT).frame()),
    ] {
        assert_eq!(router.feed(link, &frame).text(), expect, "{what}");
    }
    assert_eq!(router.feed(OUT, &gateway_asks(VIP).frame()).text(), "drop backup_role");
    let misled = syn().with(|ip| ip.to = server_mac(13));
    assert_eq!(router.feed(OUT, &misled.frame()).text(), expect, "whatever it is sent to");
    assert_eq!(router.feed(OUT, &syn().frame()).text(), "drop backup_role");
    let own = gateway_asks(OWN_OUT).frame();
    assert_eq!(router.feed(OUT, &own).verdict, Verdict::Reply);
    assert_eq!(router.events, [], "no alarm");
}

/// The active router's bridge joins the links: a probe would come back.
#[test]
fn a_backup_probes_for_no_loops_and_sees_none() {
    let mut router = Router::new(bridged_pair());
    router.advance(Duration::from_secs(10));
    assert_eq!(router.probes, []);
    become_role(&mut router, Role::Active);
    router.advance(Duration::from_millis(990));
    let is_probe = |(_, frame): &&(LinkId, Vec<u8>)| frame[6..12] == ROUTER_OUT.0;
    assert_eq!(router.probes.iter().filter(is_probe).count(), 0, "the other one may still bridge");
    router.advance(Duration::from_millis(20));
    let (sent, probe) = router.probes.iter().find(is_probe).cloned().unwrap();
    // On its way when the role changed.
    become_role(&mut router, Role::Backup);
    let came = if sent == IN { FAR_IN } else { IN };
    assert_eq!(router.feed(came, &probe).text(), "consumed loop probe");
    assert_eq!(router.events, []);
    assert_eq!(router.feed(came, &hello(station(1))).text(), "drop backup_bridge", "still open");
}

/// Two that are active both bridge: that is no fault of the cables, and over in a moment.
#[test]
fn contention_shuts_no_link_and_a_loop_does() {
    let mut router = active(bridged_pair());
    router.advance(Duration::from_secs(1));
    let latest = |router: &Router| {
        let is_probe =
            |(link, frame): &&(LinkId, Vec<u8>)| *link == IN && frame[6..12] == ROUTER_OUT.0;
        router.probes.iter().rev().find(is_probe).cloned().unwrap().1
    };
    router.feed(OUT, &advert("203.0.113.3", |_| {}).frame());
    let probe = latest(&router);
    assert_eq!(router.feed(FAR_IN, &probe).text(), "consumed loop probe");
    assert_eq!(router.feed(FAR_IN, &hello(ROUTER_OUT)).text(), "drop own_source_mac");
    assert_eq!(router.events, []);
    // Its own adverts prove nothing.
    router.advance(Duration::from_secs(2));
    router.feed(FAR_IN, &advert("203.0.113.2", |_| {}).frame());
    let probe = latest(&router);
    router.feed(FAR_IN, &probe);
    assert!(matches!(router.events[..], [Event::LoopFound { .. }]), "{:?}", router.events);
    assert_eq!(router.feed(FAR_IN, &hello(station(1))).text(), "drop link_shut");
    // A backup passes nothing on anyway, and hears all.
    become_role(&mut router, Role::Backup);
    router.check();
    assert!(
        matches!(router.events[1..], [Event::LoopOver { link: FAR_IN }]),
        "{:?}",
        router.events
    );
    assert_eq!(router.feed(FAR_IN, &hello(station(1))).text(), "drop backup_bridge");
}

#[test]
fn on_takeover_every_switch_learns_where_the_stations_are() {
    let mut router = Router::new(bridged_pair());
    for (n, near) in [(1, OUT), (2, OUT), (3, IN), (4, FAR_IN)] {
        heard(&mut router, station(n), near);
    }
    router.advance(Duration::from_secs(30));
    // Known servers and the gateway are among them.
    become_role(&mut router, Role::Active);
    let taught = lessons(&timeline(&mut router, 500));
    let expect = |mac: MacAddr, links: &[LinkId]| {
        let mut found = taught.get(&mac).cloned().unwrap_or_default();
        found.sort();
        assert_eq!(found, links, "{}", mac_name(mac));
    };
    expect(station(1), &[IN, FAR_IN]);
    expect(station(2), &[IN, FAR_IN]);
    expect(station(3), &[OUT, FAR_IN]);
    expect(station(4), &[OUT, IN]);
    expect(GATEWAY, &[IN, FAR_IN]);
    expect(server_mac(13), &[OUT, IN]);
    assert_eq!(
        router.feed(OUT, &raw(station(4), station(1), 0x9999, &[0; 46])).verdict,
        Verdict::Forward(FAR_IN)
    );
    // Once is enough, until another router has misled the switches.
    assert_eq!(lessons(&timeline(&mut router, 3_000)).len(), 0);
    router.dataplane.announce_again(&router.table, router.now);
    assert!(lessons(&timeline(&mut router, 500)).contains_key(&station(1)));
}

/// Who was not known at first, or elsewhere, is taught about when found; nobody else is again.
#[test]
fn who_is_found_after_a_takeover_is_taught_about_then() {
    let mut router = Router::new(bridged_pair());
    heard(&mut router, station(1), OUT);
    heard(&mut router, station(2), OUT);
    become_role(&mut router, Role::Active);
    let at_once = lessons(&timeline(&mut router, 100));
    let links = |lessons: &BTreeMap<MacAddr, Vec<LinkId>>, n| lessons.get(&station(n)).cloned();
    assert_eq!(links(&at_once, 1), Some(vec![IN, FAR_IN]));
    router.feed(IN, &hello(station(2)));
    router.feed(FAR_IN, &hello(station(3)));
    let later = lessons(&timeline(&mut router, 500));
    assert_eq!(links(&later, 1), None);
    assert_eq!(links(&later, 2), Some(vec![OUT, FAR_IN]));
    assert_eq!(links(&later, 3), Some(vec![OUT, IN]));
}

/// A router takes over because it hears nothing of this one, which hears its lessons before its adverts.
#[test]
fn a_lesson_moves_no_station() {
    let mut router = Router::new(bridged_pair());
    become_role(&mut router, Role::Active);
    router.feed(IN, &hello(station(1)));
    router.feed(OUT, &raw(MacAddr::BROADCAST, station(1), 0x88b5, &[0; 46]));
    let to = raw(station(1), NEAR, 0x9999, &[0; 46]);
    assert_eq!(router.feed(OUT, &to).verdict, Verdict::Forward(IN));
}

#[test]
fn who_may_be_on_either_side_is_not_taught_about() {
    let mut router = Router::new(bridged_pair());
    heard(&mut router, station(1), OUT);
    // Its next frame is heard by the active router's bridge alone, or it has moved.
    router.advance(Duration::from_secs(2));
    router.feed(IN, &hello(station(1)));
    heard(&mut router, station(2), OUT);
    router.advance(Duration::from_secs(2));
    // This one has moved: it is heard there first, again and again.
    for _ in 0..2 {
        heard(&mut router, station(2), IN);
        router.advance(Duration::from_secs(2));
    }
    // A lesson of the active router's is not from the station.
    router.feed(FAR_IN, &raw(MacAddr::BROADCAST, station(2), 0x88b5, &[0; 46]));
    become_role(&mut router, Role::Active);
    let taught = lessons(&timeline(&mut router, 500));
    assert_eq!(taught.get(&station(1)), None);
    assert_eq!(taught.get(&station(2)).map(Vec::len), Some(2));
    assert!(!taught[&station(2)].contains(&IN));
    let to = |mac| raw(mac, NEAR, 0x9999, &[0; 46]);
    assert_eq!(router.feed(OUT, &to(station(1))).verdict, Verdict::Flood, "until it speaks");
    router.feed(IN, &hello(station(1)));
    assert_eq!(router.feed(OUT, &to(station(1))).verdict, Verdict::Forward(IN));
}

#[test]
fn lessons_are_paced() {
    let mut router = Router::new(bridged_pair());
    for n in 0..2_000_u16 {
        let [high, low] = n.to_be_bytes();
        router.feed(OUT, &hello(MacAddr([2, 0, 0, 8, high, low])));
    }
    become_role(&mut router, Role::Active);
    let all = timeline(&mut router, 500);
    let mut per_turn: BTreeMap<i64, usize> = BTreeMap::new();
    for (at, _, frame) in &all {
        *per_turn.entry(*at).or_default() += usize::from(frame[12..14] == [0x88, 0xb5]);
    }
    assert!(per_turn.values().all(|count| *count <= 70), "{per_turn:?}");
    let taught = lessons(&all);
    for n in 0..2_000_u16 {
        let [high, low] = n.to_be_bytes();
        let mut links = taught[&MacAddr([2, 0, 0, 8, high, low])].clone();
        links.sort();
        assert_eq!(links, [IN, FAR_IN], "station {n}");
    }
}

/// What a backup says by one link is heard behind all; and where no router is active, the other links
/// have their turn.
#[test]
fn a_backup_asks_by_one_link_at_a_time() {
    let mut router = Router::cold(bridged_pair(), 10);
    router.answers_arp = false;
    let start: Instant = router.now;
    let mut asked: BTreeMap<i64, Vec<LinkId>> = BTreeMap::new();
    for _ in 0..40 {
        for (link, frame) in router.advance(Duration::from_millis(100)) {
            if line(&frame).contains("to nobody 10.0.0.11,") {
                let second = (router.now - start).secs();
                asked.entry(i64::try_from(second).unwrap()).or_default().push(link);
            }
        }
    }
    assert!(asked.values().all(|links| links.len() == 1), "{asked:?}");
    let mut links: Vec<_> = asked.into_values().flatten().collect();
    links.sort();
    links.dedup();
    assert_eq!(links, [OUT, IN, FAR_IN]);
}

#[test]
fn an_active_router_learns_no_station_from_the_virtual_mac() {
    let mut router = active(bridged_pair());
    router.feed(IN, &gateway_asks(OWN_OUT).with(|arp| arp.from = OUTER).frame());
    let to_it = raw(OUTER, NEAR, 0x9999, &[0; 46]);
    assert_eq!(router.feed(OUT, &to_it).text(), "drop unknown_ether_type", "for the router itself");
}
