//! Hostile input: whatever comes in is a verdict, never a panic; what leaves is whole and honest.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use support::mutate::{direct_seeds, mutate, repair, seeds};
use support::random::Random;
use support::validity::{check_direct_step, check_step};
use support::*;
use tapvs::config::{Forward, Masquerade, OnDown, OnRemove, PassiveHealth, Scheduler};
use tapvs::dataplane::{DropReason, Verdict};
use tapvs::time::Duration;

const FRAMES: u32 = 240_000;
const SEQUENCE: u32 = 400;

/// What the parser itself objects to.
const UNREADABLE: &[DropReason] = &[
    DropReason::Runt,
    DropReason::BadSourceMac,
    DropReason::OwnSourceMac,
    DropReason::OtherDestinationMac,
    DropReason::Llc,
    DropReason::Vlan,
    DropReason::PauseFrame,
    DropReason::UnknownEtherType,
    DropReason::Ipv6,
    DropReason::ArpMalformed,
    DropReason::IpMalformed,
    DropReason::IpChecksum,
    DropReason::IpSourceRoute,
    DropReason::TcpMalformed,
    DropReason::UdpMalformed,
    DropReason::IcmpMalformed,
    DropReason::Oversize,
];

/// A small router with everything switched on.
fn router() -> Router {
    let mut config = config();
    config.router.forward = Forward::ServersOut;
    config.masquerades = vec![Masquerade { from: "10.0.0.0/24".parse().unwrap(), to: VIP.into() }];
    config.networks[1].mss_clamp = Some(1200);
    // Small enough that flows are evicted all the time.
    Router::sized(config, 24)
}

#[test]
fn mutated_frames() {
    let seeds = seeds();
    let mut router = router();
    let (mut past, mut left) = (0_u32, 0_u32);
    for sequence in 0..FRAMES / SEQUENCE {
        let mut random = Random::new(u64::from(sequence));
        for _ in 0..SEQUENCE {
            let (link, mut frame) = random.pick(&seeds).clone();
            if random.percent(90) {
                mutate(&mut frame, &seeds, &mut random);
            }
            if random.percent(70) {
                repair(link, &mut frame);
            }
            let step = router.feed(link, &frame);
            check_step(&frame, &step);
            past += u32::from(!matches!(step.verdict, Verdict::Drop(r) if UNREADABLE.contains(&r)));
            left += u32::from(matches!(step.verdict, Verdict::Forward(_)));
            if random.percent(3) {
                let millis = *random.pick(&[1, 50, 900, 5_000, 130_000]);
                for (link, frame) in router.advance(Duration::from_millis(millis)) {
                    validity::check_frame(link, &frame).unwrap();
                }
            }
        }
        assert!(router.dataplane.neighbours().count() < 8_300);
        router.answers_arp = random.percent(70);
    }
    eprintln!("{past} of {FRAMES} mutated frames got past the parser, {left} were forwarded");
    assert!(past * 2 >= FRAMES, "only {past} of {FRAMES} got past the parser");
    assert!(left * 20 >= FRAMES, "only {left} of {FRAMES} were forwarded");
    at_rest(&mut router);
}

#[test]
fn random_bytes_of_every_length() {
    let mut router = router();
    let mut random = Random::new(1);
    let noise = random.bytes(1 << 16);
    for round in 0..6_000 {
        let most = if round % 2 == 0 { 128 } else { (1 << 16) + 1 };
        let len = random.below(most);
        let start = random.below(noise.len() - len + 1);
        let mut frame = noise[start..start + len].to_vec();
        // Half of them are at least for the router and of a type it knows.
        if round % 4 < 2 && frame.len() >= 14 {
            let kind = *random.pick(&[[8, 0], [8, 6]]);
            frame[..14].copy_from_slice(&[&ROUTER_OUT.0[..], &GATEWAY.0, &kind].concat());
        }
        let step = router.feed(OUT, &frame);
        check_step(&frame, &step);
    }
    for len in 0..=1_600 {
        for byte in [0, 0x45, 0xff] {
            let frame = vec![byte; len];
            check_step(&frame, &router.feed(IN, &frame));
        }
    }
    at_rest(&mut router);
}

/// Longer than any link can hand over: cut off, not a panic.
#[test]
fn more_than_64_kib() {
    let mut router = router();
    let frame = udp("198.51.100.7:9", "203.0.113.10:53", &[1; 65_000]).frame();
    for len in [65_535, 65_536, 65_550, 65_554, 65_555, 100_000] {
        let mut long = frame.clone();
        long.resize(len, 0);
        check_step(&long, &router.feed(OUT, &long));
    }
}

/// The same in a network of several links: what passes is untouched, what the router says is its own,
/// and nobody else ever speaks for the virtual IP.
#[test]
fn mutated_frames_across_a_bridge() {
    let seeds = direct_seeds();
    let mut router = Router::sized(bridged(), 24);
    let (mut passed, mut said) = (0_u32, 0_u32);
    for sequence in 0..FRAMES / SEQUENCE / 2 {
        let mut random = Random::new(u64::from(sequence));
        for _ in 0..SEQUENCE {
            let (_, mut frame) = random.pick(&seeds).clone();
            let link = *random.pick(&[OUT, IN, FAR_IN]);
            if random.percent(90) {
                mutate(&mut frame, &seeds, &mut random);
            }
            if random.percent(70) {
                repair(OUT, &mut frame);
            }
            let step = router.feed(link, &frame);
            check_direct_step(link, &frame, &step);
            let own = step.out.iter().filter(|(_, frame)| frame[6..12] == ROUTER_OUT.0).count();
            said += u32::try_from(own).unwrap();
            passed += u32::try_from(step.out.len() - own).unwrap();
            if random.percent(3) {
                let millis = *random.pick(&[1, 50, 900, 5_000, 130_000]);
                router.advance(Duration::from_millis(millis));
            }
        }
        router.answers_arp = random.percent(70);
    }
    eprintln!("{passed} frames were passed on, {said} were the router's own");
    assert!(passed * 20 >= FRAMES && said * 20 >= FRAMES, "a tenth of the frames each");
    router.answers_arp = true;
    router.advance(Duration::from_secs(2_000));
    assert_eq!((router.report().flows, router.report().waiting), (0, 0));
}

/// The same while servers are removed, drained, down and back again, and their flows are ended.
#[test]
fn mutated_frames_while_servers_come_and_go() {
    let mut seeds = seeds();
    for client in 1..40 {
        let client = format!("198.51.100.9:{client}");
        for (flags, seq, ack) in [(SYN, 1000, 0), (ACK, 1001, 501), (PSH | ACK, 1001, 501)] {
            seeds.push((OUT, tcp(&client, "203.0.113.10:80", flags, seq, ack, b"").frame()));
        }
        for n in 11..=13 {
            let answer = tcp(&format!("10.0.0.{n}:8080"), &client, SYN | ACK, 500, 1001, b"");
            seeds.push((IN, answer.frame()));
        }
        seeds.push((OUT, udp(&client, "203.0.113.10:53", b"who?").frame()));
    }
    let mut config = config();
    for (service, scheduler) in
        config.services.iter_mut().zip([Scheduler::WeightedRoundRobin, Scheduler::LeastConnection])
    {
        service.scheduler = scheduler;
        service.lifecycle.slow_start = Some(Duration::from_secs(5));
        service.lifecycle.on_down = OnDown::Reset;
    }
    let passive = PassiveHealth { unanswered: 2, retry: Duration::from_secs(3) };
    config.services[0].lifecycle.passive_health = Some(passive);
    let mut router = Router::sized(config.clone(), 64);
    let mut ended = 0_u32;
    for sequence in 0..FRAMES / SEQUENCE / 2 {
        let mut random = Random::new(u64::from(sequence));
        for _ in 0..SEQUENCE {
            let (link, mut frame) = random.pick(&seeds).clone();
            if random.percent(30) {
                mutate(&mut frame, &seeds, &mut random);
            }
            if random.percent(80) {
                repair(link, &mut frame);
            }
            let step = router.feed(link, &frame);
            check_step(&frame, &step);
            ended += u32::from(step.verdict == Verdict::Drop(DropReason::FlowEnded));
            if random.percent(4) {
                let millis = *random.pick(&[0, 1, 50, 900, 3_000, 130_000]);
                for (link, frame) in router.advance(Duration::from_millis(millis)) {
                    validity::check_frame(link, &frame).unwrap();
                }
            }
            if random.percent(2) {
                let mut next = config.clone();
                (router.down, router.drained) = Default::default();
                for service in &mut next.services {
                    let lifecycle = &mut service.lifecycle;
                    lifecycle.on_remove = *random.pick(&[OnRemove::Drain, OnRemove::Reset]);
                    lifecycle.drain_timeout = random.percent(50).then(|| Duration::from_secs(2));
                    service.servers.retain(|_| random.percent(70));
                    for server in &service.servers {
                        if random.percent(20) {
                            router.down.insert(server.endpoint);
                        } else if random.percent(20) {
                            router.drained.insert(server.endpoint);
                        }
                    }
                }
                next.services.retain(|_| random.percent(90));
                router.reload(next);
            }
        }
        router.answers_arp = random.percent(80);
    }
    eprintln!("{ended} segments of flows that were being ended");
    assert!(ended > 100, "{ended}");
    (router.down, router.drained) = Default::default();
    router.reload(config);
    at_rest(&mut router);
}

/// Nothing is left once everything has timed out.
fn at_rest(router: &mut Router) {
    router.answers_arp = true;
    router.advance(Duration::from_secs(2_000));
    let report = router.report();
    assert_eq!((report.flows, report.waiting), (0, 0));
    assert_eq!(router.dataplane.neighbours().count(), 4, "the gateway and three servers");
}
