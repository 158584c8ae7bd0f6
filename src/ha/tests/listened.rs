//! Which adverts are listened to; each that is not is counted by its reason.

use super::*;
use crate::frame::checksum;

fn listener() -> Ha {
    Ha::new(settings(2, 100), 1, at(0))
}

/// Hands `packet` in; says the one reason that was counted, or `None` when it was listened to.
fn hand(ha: &mut Ha, network: NetworkId, packet: &[u8]) -> Option<Discard> {
    let before = ha.counters();
    ha.handle_packet(network, packet, at(1));
    let after = ha.counters();
    assert_eq!(after.received, before.received + 1);
    assert_eq!(after.received, after.accepted() + after.all_discards(), "each is counted once");
    let counted = |reason: &Discard| after.discarded(*reason) > before.discarded(*reason);
    Discard::ALL.iter().copied().find(counted)
}

/// Changes one byte of the message, and its checksum (of the message alone) to fit.
fn with(mut packet: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    packet[at] = value;
    packet[26..28].fill(0);
    let sum = checksum::of(&packet[20..]);
    packet[26..28].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The same for the IPv4 header.
fn with_header(mut packet: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    packet[at] = value;
    packet[10..12].fill(0);
    let sum = checksum::of(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[test]
fn each_reason_has_its_counter_and_its_opposite() {
    let peer = settings(3, 200);
    let good = advert(&peer, OUTSIDE);
    let second = Settings { version: VrrpVersion::V2, ..peer };
    let mut wrong_sum = good.clone();
    wrong_sum[27] ^= 1;
    let mut key_holder = listener();
    key_holder.configure(
        Settings { key: Some(signature::Key::new(&[1; 32])), ..settings(2, 100) },
        at(0),
    );
    let cases = [
        (Discard::Malformed, OUTSIDE, good[..10].to_vec()),
        (Discard::Ttl, OUTSIDE, with_header(good.clone(), 8, 254)),
        (Discard::Destination, OUTSIDE, with_header(good.clone(), 19, 17)),
        (Discard::Truncated, OUTSIDE, with(good.clone(), 23, 2)),
        (Discard::Version, OUTSIDE, advert(&second, OUTSIDE)),
        (Discard::Kind, OUTSIDE, with(good.clone(), 20, 0x32)),
        (Discard::Checksum, OUTSIDE, wrong_sum),
        (Discard::NoInterval, OUTSIDE, with(good.clone(), 25, 0)),
        (Discard::UnlistedNetwork, NetworkId(7), good.clone()),
        (Discard::WrongNetwork, INSIDE, good.clone()),
        (Discard::UnknownRouterId, OUTSIDE, with(good.clone(), 21, 99)),
        (Discard::Own, OUTSIDE, advert(&settings(2, 100), OUTSIDE)),
    ];
    for (reason, network, packet) in &cases {
        let mut ha = listener();
        assert_eq!(hand(&mut ha, *network, packet), Some(*reason));
        assert_eq!(ha.report().networks[0].heard, None, "{reason:?} is not listened to");
        assert_eq!(hand(&mut ha, OUTSIDE, &good), None);
        assert_eq!(ha.report().peer, Some(Ipv4Addr::new(203, 0, 113, 3)));
    }
    let mut none = with_header(with(good.clone(), 23, 0)[..28].to_vec(), 3, 28);
    none = with(none, 23, 0);
    assert_eq!(hand(&mut listener(), OUTSIDE, &none), Some(Discard::NoAddresses));
    assert_eq!(hand(&mut key_holder, OUTSIDE, &good), Some(Discard::Signature));

    let mut older = Ha::new(Settings { version: VrrpVersion::V2, ..settings(2, 100) }, 1, at(0));
    assert_eq!(hand(&mut older, OUTSIDE, &good), Some(Discard::Version));
    let good = advert(&second, OUTSIDE);
    assert_eq!(
        hand(&mut older, OUTSIDE, &with(good.clone(), 24, 1)),
        Some(Discard::Authentication)
    );
    assert_eq!(hand(&mut older, OUTSIDE, &good), None);
}

#[test]
fn both_checksums_are_accepted_and_counted_and_one_is_sent() {
    for checksum in [AdvertChecksum::PseudoHeader, AdvertChecksum::Message] {
        let mut ha = listener();
        let peer = Settings { checksum, ..settings(3, 200) };
        assert_eq!(hand(&mut ha, OUTSIDE, &advert(&peer, OUTSIDE)), None);
        let Counters { accepted_pseudo_header, accepted_message, .. } = ha.counters();
        let expected = if checksum == AdvertChecksum::Message { (0, 1) } else { (1, 0) };
        assert_eq!((accepted_pseudo_header, accepted_message), expected);
        let (_, adverts) = active(peer, 1, at(0));
        let forms = adverts
            .iter()
            .map(|(_, advert)| Advert::parse(advert, VrrpVersion::V3).map(|advert| advert.form));
        assert!(forms.eq([Ok(checksum), Ok(checksum)]));
    }
}

#[test]
fn an_own_advert_from_another_network_says_that_they_meet() {
    let mut one_id = settings(2, 100);
    one_id.networks[1].virtual_router_id = 51;
    for own in [settings(2, 100), one_id] {
        let mut ha = Ha::new(own.clone(), 1, at(0));
        for _ in 0..3 {
            assert_eq!(hand(&mut ha, INSIDE, &advert(&own, OUTSIDE)), Some(Discard::WrongNetwork));
        }
        let met = Event::NetworksMeet { network: INSIDE, sent: OUTSIDE };
        assert_eq!(events(&mut ha), [met], "said once");
        ha.configure(own.clone(), at(2));
        hand(&mut ha, INSIDE, &advert(&own, OUTSIDE));
        assert_eq!(events(&mut ha), [met], "and again after a reload");
    }
}

/// With one id for both networks, the virtual IPs tell them apart.
#[test]
fn the_peers_advert_for_another_network_is_recognised_by_its_addresses() {
    let (mut own, mut peer) = (settings(2, 100), settings(3, 200));
    own.networks[1].virtual_router_id = 51;
    peer.networks[1].virtual_router_id = 51;
    let mut ha = Ha::new(own, 1, at(0));
    let packet = advert(&peer, OUTSIDE);
    assert_eq!(hand(&mut ha, INSIDE, &packet), Some(Discard::WrongNetwork));
    assert_eq!(hand(&mut ha, OUTSIDE, &packet), None);
}

#[test]
fn what_the_peer_says_otherwise_is_told_once_and_obeyed() {
    let mut ha = listener();
    let mut peer = Settings { advert_interval: Duration::from_secs(1), ..settings(3, 200) };
    peer.networks[0].virtual_ips.push(Ipv4Addr::new(203, 0, 113, 11));
    let from = Ipv4Addr::new(203, 0, 113, 3);
    for _ in 0..3 {
        assert_eq!(hand(&mut ha, OUTSIDE, &advert(&peer, OUTSIDE)), None);
    }
    let interval = Duration::from_secs(1);
    let told = [
        Event::IntervalMismatch { network: OUTSIDE, from, interval },
        Event::AddressesMismatch { network: OUTSIDE, from },
    ];
    assert_eq!(events(&mut ha), told);
    assert_eq!(hand(&mut ha, OUTSIDE, &advert(&settings(3, 200), OUTSIDE)), None);
    assert_eq!(events(&mut ha), []);
    hand(&mut ha, OUTSIDE, &advert(&peer, OUTSIDE));
    assert_eq!(events(&mut ha), told, "it was right in between");
    // Its interval counts: 3.609375 s after the last advert.
    while ha.role() == Role::Backup {
        let due = ha.poll_timeout().unwrap();
        ha.handle_timeout(due);
    }
    assert_eq!(events(&mut ha).first(), Some(&Event::PathDegraded { network: INSIDE }));
    assert_eq!(ha.report().since, Instant::from_micros(1_000 + 3_609_375));
}

#[test]
fn a_packet_costs_no_memory() {
    let (mut ha, _) = active(settings(2, 100), 1, at(0));
    let lower = advert(&settings(3, 50), OUTSIDE);
    let bad = with_header(lower.clone(), 8, 1);
    let mut out = Vec::with_capacity(2_000);
    let mut turn = |millis| {
        ha.handle_packet(OUTSIDE, &lower, at(millis));
        ha.handle_packet(OUTSIDE, &bad, at(millis));
        ha.handle_timeout(at(millis));
        while ha.poll_transmit(&mut out).is_some() {}
        while ha.poll_event().is_some() {}
    };
    let used = allocation_counter::measure(|| (0..1_000).for_each(&mut turn));
    assert_eq!(used.count_total, 0);
    let sent = ha.counters().sent;
    assert!(sent > 40, "{sent}");
}

#[test]
fn with_peers_listed_nobody_else_is_heard() {
    let mut own = settings(2, 100);
    own.networks[0].peers = vec![Ipv4Addr::new(203, 0, 113, 3)];
    let mut ha = Ha::new(own, 1, at(0));
    let from = Ipv4Addr::new(203, 0, 113, 4);
    for _ in 0..3 {
        let stranger = advert(&settings(4, 255), OUTSIDE);
        assert_eq!(hand(&mut ha, OUTSIDE, &stranger), Some(Discard::UnlistedPeer));
    }
    assert_eq!(events(&mut ha), [Event::Stranger { network: OUTSIDE, from }], "once");
    assert_eq!(hand(&mut ha, OUTSIDE, &advert(&settings(3, 200), OUTSIDE)), None);
    assert_eq!(hand(&mut ha, INSIDE, &advert(&settings(4, 200), INSIDE)), None, "not listed there");
    // Whoever it is, an advert that is not for this router is counted as that.
    let other = advert(&settings(4, 200), INSIDE);
    assert_eq!(hand(&mut ha, OUTSIDE, &other), Some(Discard::WrongNetwork));
}

#[test]
fn an_owner_is_told_of_once() {
    let mut ha = listener();
    let owner = advert(&settings(3, 255), OUTSIDE);
    let from = Ipv4Addr::new(203, 0, 113, 3);
    let told = [Event::OwnerHeard { network: OUTSIDE, from }];
    hand(&mut ha, OUTSIDE, &owner);
    hand(&mut ha, OUTSIDE, &owner);
    assert_eq!(events(&mut ha), told);
    hand(&mut ha, OUTSIDE, &advert(&settings(3, 200), OUTSIDE));
    hand(&mut ha, OUTSIDE, &owner);
    assert_eq!(events(&mut ha), told, "it was another in between");
}

#[test]
fn a_storm_of_adverts_is_believed_and_told_of_until_it_is_over() {
    let mut ha = listener();
    let peer = advert(&settings(3, 200), OUTSIDE);
    let from = Ipv4Addr::new(203, 0, 113, 3);
    let mut told = Vec::new();
    let mut hear = |millis| {
        ha.handle_packet(OUTSIDE, &peer, at(millis));
        told.extend(events(&mut ha).into_iter().map(|event| (millis, event)));
    };
    // Four times as many as one interval has, when two contend.
    (0..4_000).step_by(25).for_each(&mut hear);
    // Every other millisecond, for three seconds; then it is over, and begins again.
    (4_000..7_000).step_by(2).for_each(&mut hear);
    (7_000..10_000).step_by(100).for_each(&mut hear);
    (10_000..11_500).step_by(2).for_each(&mut hear);
    let storm = Event::Storm { network: OUTSIDE, from, count: 161 };
    let events: Vec<_> = told.iter().map(|(_, event)| *event).collect();
    assert_eq!(events, [storm, storm], "{told:?}");
    assert_eq!(ha.counters().all_discards(), 0);
}
