//! The frame path allocates nothing: neither for flows that it knows, nor for new ones, nor for what
//! it drops, answers, holds or cuts.

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use allocation_counter::measure;
use std::net::Ipv4Addr;
use support::*;

use tapvs::addr::{LinkId, MacAddr, Role};
use tapvs::config::{FlowLimits, OnDown, OnRemove, PassiveHealth, Persistence, Scheduler};
use tapvs::dataplane::{Event, FlowChange, FlowRecord, Origin, Verdict};
use tapvs::frame::Frame;
use tapvs::time::Duration;
use tapvs::trace::{Aim, Scene, Tracers, reel};

/// Hands the frames in and takes out what they cause; how often that allocated.
fn allocations(router: &mut Router, frames: &[(LinkId, Vec<u8>)]) -> u64 {
    let (mut frame, mut out) = (Frame::new(), Frame::new());
    let work = || {
        for (link, bytes) in frames {
            frame.copy_from(bytes);
            let Router { dataplane, table, now, .. } = &mut *router;
            dataplane.handle_frame(table, *link, &mut frame, *now);
            while dataplane.poll_transmit(table, &mut out, *now).is_some() {}
            *now += Duration::from_micros(50);
            if dataplane.poll_timeout().is_some_and(|due| due <= *now) {
                dataplane.handle_timeout(table, *now);
            }
        }
    };
    measure(work).count_total
}

fn client(n: u32) -> String {
    let [_, a, b, c] = n.to_be_bytes();
    format!("100.{a}.{b}.{c}:6000")
}

#[test]
fn the_counter_counts() {
    let counted = measure(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(10))));
    assert_eq!(counted.count_total, 1);
}

#[test]
fn known_flows() {
    let mut router = Router::sized(config(), 10_000);
    let out = router.feed(OUT, &tcp(&client(1), "203.0.113.10:80", SYN, 1000, 0, b"").frame());
    let server = Read::frame(out.only()).unwrap().destination;
    let server = format!("{server}:8080");
    router.feed(IN, &tcp(&server, &client(1), SYN | ACK, 500, 1001, b"").frame());
    let packets: Vec<_> = (0..1_000)
        .flat_map(|_| {
            let data = [7; 1000];
            [
                (OUT, tcp(&client(1), "203.0.113.10:80", ACK, 1001, 501, &data).frame()),
                (IN, tcp(&server, &client(1), ACK, 501, 1001, &data).frame()),
            ]
        })
        .collect();
    assert_eq!(allocations(&mut router, &packets), 0);
}

#[test]
fn new_flows_and_evictions() {
    let mut router = Router::sized(config(), 1_000);
    let syns: Vec<_> = (0..5_000)
        .map(|n| (OUT, tcp(&client(n), "203.0.113.10:80", SYN, 1000, 0, b"").frame()))
        .collect();
    assert_eq!(allocations(&mut router, &syns), 0);
    assert_eq!(router.flows().len(), 1_000);
}

/// Both roles, the changes between them, and a storm of adverts.
#[test]
fn a_pair() {
    let mut config = bridged();
    let text = r#"
        [[network]]
        name = "lan"
        links = ["tap0"]
        addresses = ["203.0.113.2/24"]

        [failover]
        network = [{ network = "lan", virtual_router_id = 51 }]
        "#;
    config.failover = tapvs::config::parse(text).unwrap().failover;
    let more = (0..1_000)
        .map(|n| tapvs::config::VirtualIp::new(Ipv4Addr::from(0xc612_0000 + n).into(), 0));
    config.virtual_ips.extend(more);
    let mut router = Router::sized(config, 1_000);
    let group = MacAddr([0x01, 0, 0x5e, 0, 0, 0x12]);
    let advert =
        Ip::new("203.0.113.3".parse().unwrap(), "224.0.0.18".parse().unwrap(), 112, vec![0x31; 12])
            .with(|ip| ip.to = group);
    let frames: Vec<_> = (0..1_000)
        .flat_map(|n| {
            let syn = tcp(&client(n), "203.0.113.10:80", SYN, 1000, 0, b"").frame();
            let mut hello = syn.clone();
            hello[..12].copy_from_slice(&[[0xff; 6], [2, 0, 0, 9, 0, (n % 200) as u8]].concat());
            [(OUT, advert.frame()), (OUT, syn), (OUT, gateway_asks(VIP).frame()), (OUT, hello)]
        })
        .collect();
    let packet = advert.packet();
    for role in [Role::Backup, Role::Active, Role::Backup, Role::Active] {
        let network = router.table.networks()[0].id;
        let change = measure(|| {
            let Router { dataplane, table, now, .. } = &mut router;
            dataplane.handle_role(table, role, *now);
            dataplane.announce_again(table, *now);
            dataplane.send_packet(table, &packet, Origin::Ha(network), *now);
        });
        assert_eq!((change.count_total, role), (0, role));
        assert_eq!((allocations(&mut router, &frames), role), (0, role));
    }
}

#[test]
fn a_bridge_and_its_direct_flows() {
    let mut router = Router::sized(bridged(), 1_000);
    let near = tcp("203.0.113.10:80", "203.0.113.50:9", ACK, 1, 1, b"").with(|ip| {
        (ip.from, ip.to) = (server_mac(11), NEAR);
    });
    let frames: Vec<_> = (0..1_000)
        .flat_map(|n: u32| {
            let [_, a, b, c] = n.to_be_bytes();
            let stranger = MacAddr([2, 9, 9, a, b, c]);
            [
                (OUT, tcp(&client(n), "203.0.113.10:80", SYN, 1000, 0, b"").frame()),
                (IN, near.frame()),
                // Stations come and go; servers and strangers speak for the virtual IP.
                (FAR_IN, who_has(NEAR_IP, server_ip(13), stranger).frame()),
                (IN, who_has(NEAR_IP, VIP, server_mac(11)).frame()),
                (IN, who_has(Ipv4Addr::from([203, 0, 113, c]), VIP, stranger).frame()),
                (OUT, who_has(VIP, VIP, stranger).frame()),
            ]
        })
        .chain(mutate::seeds())
        .collect();
    assert_eq!(allocations(&mut router, &frames), 0);
    let mut leaky = Router::sized(direct(config()), 1_000);
    assert_eq!(allocations(&mut leaky, &frames), 0);
}

#[test]
fn everything_else() {
    let mut config = config();
    config.networks[1].mtu = 1300;
    let mut router = Router::sized(config, 1_000);
    let big = |n| udp(&client(n), "203.0.113.10:53", &[1; 1400]).frame();
    let frames: Vec<_> = (0..500)
        .flat_map(|n| {
            [
                // Cut, answered, refused, dropped; and whatever else the seeds of the hostile tests are.
                (OUT, big(n)),
                (OUT, icmp("198.51.100.7", "203.0.113.10", (8, 0), [0, 1, 0, 1], b"ping").frame()),
                (OUT, udp(&client(n), "203.0.113.10:99", b"nobody").frame()),
                (OUT, who_has(VIP, NEAR_IP, NEAR).frame()),
                (OUT, is_at(VIP, STRANGER, ROUTER_OUT, OWN_OUT).frame()),
            ]
        })
        .chain(mutate::seeds())
        .collect();
    assert_eq!(allocations(&mut router, &frames), 0);
}

/// Servers are taken away, fall silent and come back; clients are asked, reset, or not heard of again.
#[test]
fn flows_that_end() {
    let mut config = config();
    for service in &mut config.services {
        service.lifecycle.on_remove = OnRemove::Reset;
        service.lifecycle.on_down = OnDown::Reset;
        service.lifecycle.drain_timeout = Some(Duration::from_secs(5));
    }
    let web = &mut config.services[0];
    web.scheduler = Scheduler::WeightedLeastConnection;
    web.lifecycle.slow_start = Some(Duration::from_secs(30));
    web.lifecycle.passive_health =
        Some(PassiveHealth { unanswered: 2, retry: Duration::from_secs(1) });
    let mut router = Router::sized(config, 10_000);
    let mut ends = Vec::new();
    for n in 0..3_000 {
        let syn = tcp(&client(n), "203.0.113.10:80", SYN, 1000, 0, b"").frame();
        let out = router.feed(OUT, &syn);
        if n % 3 == 0 {
            // Half open: the client repeats its SYN, and server 13 never answers.
            ends.push((OUT, syn));
            continue;
        }
        let server = format!("{}:8080", Read::frame(out.only()).unwrap().destination);
        router.feed(IN, &tcp(&server, &client(n), SYN | ACK, 500, 1001, b"").frame());
        let ack = tcp(&client(n), "203.0.113.10:80", ACK, 1001, 501, b"").frame();
        router.feed(OUT, &ack);
        if n % 3 == 1 {
            ends.push((OUT, ack));
            ends.push((IN, tcp(&server, &client(n), ACK, 501, 1001, b"x").frame()));
        }
        router.feed(OUT, &udp(&client(n), "203.0.113.10:53", b"who?").frame());
        ends.push((OUT, udp(&client(n), "203.0.113.10:53", b"who?").frame()));
    }
    router.advance(Duration::from_secs(2));
    // One is removed, one has its deadline before it, one is down.
    let [_, second, third] =
        [0, 1, 2].map(|at: usize| router.config.services[0].servers[at].endpoint);
    (router.drained, router.down) = ([second].into(), [third].into());
    router.change(|config| {
        config.services[0].servers.remove(0);
        config.services[1].servers.remove(0);
    });
    let before = router.flows().len();
    assert_eq!(allocations(&mut router, &ends), 0, "while clients speak");
    let mut out = Frame::new();
    let counted = measure(|| {
        let end = router.now + Duration::from_secs(30);
        while let Some(due) = router.dataplane.poll_timeout().filter(|due| *due < end) {
            router.now = router.now.max(due);
            let Router { dataplane, table, now, .. } = &mut router;
            dataplane.handle_timeout(table, *now);
            while dataplane.poll_transmit(table, &mut out, *now).is_some() {}
        }
    });
    assert_eq!(counted.count_total, 0, "while they are asked and forgotten");
    router.check();
    let ended = |event: &&Event| matches!(event, Event::FlowsEnded { .. });
    assert!(router.events.iter().filter(ended).count() >= 3, "{:?}", router.events);
    assert!(router.flows().len() < before / 2, "{} of {before}", router.flows().len());
}

/// Flows are told of and taken over while frames pass, beyond what is kept of changes.
#[test]
fn copied_flows() {
    let mut router = Router::sized(config(), 1_000);
    let mut other = Router::sized(config(), 1_000);
    router.dataplane.copy_changes(true);
    let frames: Vec<_> = (0..3_000)
        .flat_map(|n| {
            let ask = udp(&client(n), "203.0.113.10:53", b"who?").frame();
            let answers = [11, 12].map(|server| {
                (IN, udp(&format!("10.0.0.{server}:53"), &client(n), b"you").frame())
            });
            [(OUT, ask.clone())].into_iter().chain(answers).chain([(OUT, ask)])
        })
        .collect();
    let mut frame = Frame::new();
    let mut record = FlowRecord::default();
    let mut pass = |told: bool| {
        let work = || {
            for (link, bytes) in &frames {
                frame.copy_from(bytes);
                let Router { dataplane, table, now, .. } = &mut router;
                dataplane.handle_frame(table, *link, &mut frame, *now);
                while told && let Some(change) = dataplane.next_change(*now, &mut record) {
                    if change == FlowChange::Record {
                        let _ = other.dataplane.import_flow(&other.table, &record, *now);
                    }
                }
            }
            let mut from = Some(0);
            while let Some(at) = from {
                from = router.dataplane.export_flows(at, router.now, |record| {
                    let _ = other.dataplane.import_flow(&other.table, record, router.now);
                    true
                });
            }
            // All of them go, so that there are more changes than fit.
            router.now += Duration::from_secs(1_000);
            while router.dataplane.poll_timeout().is_some_and(|due| due <= router.now) {
                router.dataplane.handle_timeout(&router.table, router.now);
                while router
                    .dataplane
                    .poll_transmit(&router.table, &mut frame, router.now)
                    .is_some()
                {}
            }
        };
        measure(work).count_total
    };
    assert_eq!([pass(true), pass(false), pass(false)], [0; 3]);
    assert!(router.report().copies.overflows > 0 && router.report().copies.copied_out >= 3_000);
    assert_eq!(other.flows().len(), 1_000);
}

/// Four tracers, with and without somebody who reads: nothing is allocated for a frame.
#[test]
fn traced_frames() {
    let mut router = Router::sized(config(), 1_000);
    let mut tracers = Tracers::default();
    let mut readers = Vec::new();
    for (key, (filter, snap)) in (0..).zip([
        ("", 128),
        ("verdict=drop", 65_554),
        ("client=100.0.0.0/8 port=80", 96),
        ("", 65_554),
    ]) {
        let aim = Aim::new(&filter.parse().unwrap(), &router.table).unwrap();
        let (tracer, reader) = reel(key, Box::new(aim), snap);
        assert!(tracers.start(tracer).is_none());
        readers.push(reader);
    }
    router.dataplane.watch_late_drops(true);
    let frames: Vec<_> = (0..2_000)
        .map(|n| (OUT, tcp(&client(n), "203.0.113.10:80", SYN, 1000, 0, &[7; 1_000]).frame()))
        .chain(mutate::seeds())
        .collect();
    let (mut frame, mut out) = (Frame::new(), Frame::new());
    let (mut read, mut forwarded) = (0, 0);
    let work = || {
        for (at, (link, bytes)) in frames.iter().enumerate() {
            frame.copy_from(bytes);
            let Router { dataplane, table, now, .. } = &mut router;
            let wanted = tracers.arrived(Scene { dataplane, table, now: *now }, *link, &frame);
            let verdict = dataplane.handle_frame(table, *link, &mut frame, *now);
            forwarded += u64::from(matches!(verdict, Verdict::Forward(_)));
            if wanted {
                tracers.decided(Scene { dataplane, table, now: *now }, &frame, verdict);
            }
            while let Some(link) = dataplane.poll_transmit(table, &mut out, *now) {
                tracers.sent(Scene { dataplane, table, now: *now }, link, &out, false);
            }
            while let Some(drop) = dataplane.poll_late_drop() {
                tracers.dropped(Scene { dataplane, table, now: *now }, &drop);
            }
            if at % 64 == 0 {
                tracers.flush();
                // Two are read, two sleep.
                for reader in &readers[..2] {
                    while let Some(batch) = reader.next_batch() {
                        read += batch.records().len();
                        reader.done(batch);
                    }
                }
            }
            *now += Duration::from_micros(50);
        }
    };
    assert_eq!(measure(work).count_total, 0);
    assert!(forwarded >= 1_900 && read >= 1_900, "{forwarded} forwarded, {read} read");
    assert!(readers[3].take_lost() > 0, "the sleeper missed some");
}

/// Every scheduler, with clients that are remembered beyond what there is room for, and datagrams one by
/// one.
#[test]
fn every_scheduler_and_persistence() {
    for scheduler in [
        Scheduler::RoundRobin,
        Scheduler::WeightedRoundRobin,
        Scheduler::LeastConnection,
        Scheduler::WeightedLeastConnection,
        Scheduler::ShortestExpectedDelay,
        Scheduler::NeverQueue,
        Scheduler::SourceHash,
        Scheduler::DestinationHash,
        Scheduler::Maglev,
        Scheduler::Failover,
        Scheduler::Overflow,
        Scheduler::Locality,
        Scheduler::LocalityReplicated,
        Scheduler::PowerOfTwo,
    ] {
        let mut config = config();
        config.services[0].scheduler = scheduler;
        config.services[0].balance.flags.fallback = true;
        config.services[0].balance.persistence = Some(Persistence::default());
        config.services[0].servers[0].limits = FlowLimits { max: 50, min: 10 };
        config.services[1].scheduler = scheduler;
        config.services[1].balance.one_packet = true;
        let mut router = Router::sized(config, 1_000);
        router.dataplane.copy_changes(true);
        let frames: Vec<_> = (0..3_000)
            .flat_map(|n| {
                let from = client(n);
                [
                    (OUT, tcp(&from, "203.0.113.10:80", SYN, 1000, 0, b"").frame()),
                    (OUT, udp(&from, "203.0.113.10:53", b"who?").frame()),
                ]
            })
            .collect();
        assert_eq!(allocations(&mut router, &frames), 0, "{scheduler}");
        assert!(router.dataplane.client_count().0 <= 1_000);
        router.now += Duration::from_secs(2_000);
        assert_eq!(allocations(&mut router, &frames[..100]), 0, "{scheduler}");
    }
}

/// FTP, beyond all that there is room for: greetings, questions, answers that are changed, data connections,
/// and all of it told to the other router.
#[test]
fn ftp() {
    const CONTROLS: u32 = 4_500;
    const FTP: &str = "203.0.113.10:21";
    let mut config = config();
    let mut service = service(tapvs::addr::Proto::Tcp, 21, vec![server(11, 21, 1)]);
    service.lifecycle.helper = Some(tapvs::config::Helper::Ftp);
    config.services.push(service);
    let mut router = Router::sized(config.clone(), 20_000);
    let mut other = Router::sized(config, 20_000);
    router.dataplane.copy_changes(true);
    let ftp = "10.0.0.11:21";
    let mut frames = Vec::new();
    for n in 0..CONTROLS {
        let client = client(n);
        let mut data = client.clone();
        data.replace_range(data.find(':').unwrap().., ":7000");
        let (mut asked, mut said) = (1_001, 501);
        frames.push((OUT, tcp(&client, FTP, SYN, 1_000, 0, b"").frame()));
        frames.push((IN, tcp(ftp, &client, SYN | ACK, 500, 1_001, b"").frame()));
        frames.push((OUT, tcp(&client, FTP, ACK, 1_001, 501, b"").frame()));
        // Some want more than they get.
        for port in 0..if n % 300 == 0 { 12 } else { 2 } {
            let answer = format!("227 x (10,0,0,11,200,{port})\r\n");
            frames.push((OUT, tcp(&client, FTP, ACK | PSH, asked, said, b"PASV\r\n").frame()));
            frames.push((IN, tcp(ftp, &client, ACK | PSH, said, asked, answer.as_bytes()).frame()));
            asked += 6;
            said += u32::try_from(answer.len()).unwrap();
        }
        let (at, from) = ("203.0.113.10:51200", "10.0.0.11:51200");
        frames.push((OUT, tcp(&data, at, SYN, 1, 0, b"").frame()));
        frames.push((IN, tcp(from, &data, SYN | ACK, 1, 2, b"").frame()));
        frames.push((OUT, tcp(&data, at, ACK, 2, 2, b"").frame()));
    }
    let mut frame = Frame::new();
    let mut record = FlowRecord::default();
    let mut refused = 0;
    let counted = measure(|| {
        for (link, bytes) in &frames {
            frame.copy_from(bytes);
            let Router { dataplane, table, now, .. } = &mut router;
            dataplane.handle_frame(table, *link, &mut frame, *now);
            while let Some(change) = dataplane.next_change(*now, &mut record) {
                if change == FlowChange::Record {
                    let imported = other.dataplane.import_flow(&other.table, &record, *now);
                    refused += u32::from(imported.is_err());
                }
            }
        }
        // They end, and others come.
        router.now += Duration::from_secs(100_000);
        while router.dataplane.poll_timeout().is_some_and(|due| due <= router.now) {
            router.dataplane.handle_timeout(&router.table, router.now);
            while router.dataplane.poll_transmit(&router.table, &mut frame, router.now).is_some() {}
        }
    });
    assert_eq!(counted.count_total, 0);
    let counters = router.dataplane.ftp_counters();
    assert_eq!(counters.connections, 4_096);
    assert!(counters.rewritten >= 2 * 4_096 && counters.full > 400, "{counters:?}");
    // Of those for which there was no room nothing is told.
    assert_eq!(refused, 0);
    let there = other.dataplane.ftp_load().unwrap();
    assert_eq!((there.controls, there.data), (4_096, 4_096));
    let here = router.dataplane.ftp_load().unwrap();
    assert_eq!((here.controls, here.data, here.awaited), (0, 0, 0));
}
