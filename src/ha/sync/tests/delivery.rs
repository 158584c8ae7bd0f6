//! Whatever the weather: every record once, in order, and fast enough.

use super::world::{A, B, Dice, FINE, Weather, World};
use crate::addr::Role;
use crate::ha::sync::{Event, LARGEST_DATAGRAM, Session};
use crate::time::Duration;

fn weather(dice: &mut Dice) -> Weather {
    let from = dice.below(2_000);
    let delay = (from, from + [0, 500, 5_000, 30_000][usize::try_from(dice.below(4)).unwrap()]);
    Weather { lost: dice.below(31), doubled: dice.below(31), delay }
}

#[test]
fn every_record_arrives_once_in_order() {
    for seed in 0..300 {
        let weather = weather(&mut Dice(seed));
        let mut world = World::new(seed, weather);
        if seed % 3 == 0 {
            world.routers[B].appetite = 1 + usize::try_from(world.dice.below(40)).unwrap();
        }
        world.routers[A].become_(Role::Active, world.now);
        world.run_until_done(Duration::from_secs(20), World::connected);
        let mut pushed = Vec::new();
        while pushed.len() < 2_000 {
            let amount = usize::try_from(world.dice.below(60)).unwrap();
            let now = world.now;
            let session = &mut world.routers[A].session;
            for _ in 0..session.wants(now).map_or(0, |want| want.records.min(amount)) {
                let number = pushed.len() as u64;
                assert!(session.push(&super::world::record(number, 1_000_000 + number), now));
                pushed.push((number, 1_000_000 + number));
            }
            let wait = world.dice.below(3_000);
            world.run(Duration::from_micros(wait));
        }
        let all = |world: &World| world.routers[B].got.len() >= pushed.len();
        world.run_until_done(Duration::from_secs(30), all);
        world.run(Duration::from_millis(500));
        let lost = |event: &Event| matches!(event, Event::PeerLost { .. });
        for router in &world.routers {
            assert!(!router.events.iter().any(lost), "{seed} {weather:?}: a session was lost");
        }
        assert_eq!(world.routers[B].got, pushed, "seed {seed}, {weather:?}");
        let [report, _] = world.reports();
        assert_eq!((report.queued, report.lag), (0, Duration::ZERO), "seed {seed}");
        assert_eq!(report.counters.records_sent, pushed.len() as u64);
    }
}

/// 1,000,000 flows, and 15,000 changes a second beside them.
#[test]
fn a_million_flows_are_copied_within_twenty_seconds() {
    const FLOWS: u64 = 1_000_000;
    let mut world = World::new(1, FINE);
    world.routers[A].flows = (0..FLOWS).map(|flow| (flow, 0)).collect();
    world.routers[A].become_(Role::Active, world.now);
    world.run_until_done(Duration::from_secs(1), World::connected);
    let (start, before) = (world.now, world.reports()[A].counters);
    let mut changes = 0;
    while !world.complete() {
        for _ in 0..30 {
            changes += 1;
            let flow = world.dice.below(FLOWS);
            world.routers[A].change(flow, changes);
        }
        world.run(Duration::from_millis(2));
        let lag = world.reports()[A].lag;
        assert!(lag < Duration::from_millis(50), "after {changes} changes it lags {lag}");
        assert!(world.now - start < Duration::from_secs(20), "{:#?}", world.reports());
    }
    let (took, after) = (world.now - start, world.reports()[A].counters);
    let datagrams = after.datagrams_sent - before.datagrams_sent;
    let most = 8 * took.total_millis() + 300 + took.total_millis();
    assert!(datagrams < most, "{datagrams} in {took}: more than 8,000 a second");
    assert_eq!(after.retransmitted, 0, "in fine weather nothing is sent twice");
    assert!(world.reports()[A].transferred);
    // As much again, and nothing but changes.
    world.run(Duration::from_secs(1));
    let (from, end) = (world.routers[B].got.len(), world.now + Duration::from_secs(1));
    while world.now < end {
        for _ in 0..60 {
            changes += 1;
            let flow = world.dice.below(FLOWS);
            world.routers[A].change(flow, changes);
        }
        world.run(Duration::from_millis(2));
    }
    let came = world.routers[B].got.len() - from;
    assert!(came >= 29_000, "{came} changes in a second");
    world.run(Duration::from_millis(100));
    assert!(world.routers[A].flows == world.routers[B].flows);
}

#[test]
fn a_peer_that_stalls_stops_the_flow_and_nothing_is_lost() {
    let mut world = World::new(3, FINE);
    world.routers[A].become_(Role::Active, world.now);
    world.run_until_done(Duration::from_secs(1), World::complete);
    world.routers[B].appetite = 0;
    let mut pushed = 0;
    for _ in 0..500 {
        let (now, session) = (world.now, &mut world.routers[A].session);
        while session.push(&super::world::record(pushed, 1), now) {
            pushed += 1;
        }
        world.run(Duration::from_millis(1));
    }
    assert_eq!(pushed, 128 * 20, "128 datagrams full");
    assert_eq!(world.routers[A].session.wants(world.now), None);
    let [report, _] = world.reports();
    assert!(report.lag > Duration::from_millis(400), "{report:?}");
    assert!(report.counters.retransmitted < 10, "they are there, only not taken out: {report:?}");
    assert!(world.connected());
    world.routers[B].appetite = 1_000;
    world.run(Duration::from_millis(400));
    let numbers: Vec<u64> = world.routers[B].got.iter().map(|(flow, _)| *flow).collect();
    assert_eq!(numbers, (0..pushed).collect::<Vec<u64>>());
    assert!(world.routers[A].session.wants(world.now).is_some());
}

/// A turn of the loop has no more to do than it asked for.
#[test]
fn what_is_done_at_a_time_is_bounded() {
    let mut world = World::new(4, FINE);
    world.routers[A].flows = (0..10_000).map(|flow| (flow, 0)).collect();
    world.routers[A].become_(Role::Active, world.now);
    world.run_until_done(Duration::from_secs(1), World::connected);
    let want = world.routers[A].session.wants(world.now).expect("room");
    assert!(want.records <= 128 * 20);
    assert!(want.walk.expect("a walk").records <= 256);
    // A paused loop finds an hour passed: it says no more than the burst allows.
    let later = world.now + Duration::from_secs(3_600);
    let mut out = Vec::new();
    let session = &mut world.routers[A].session;
    while session.push(&super::world::record(1, 1), later) {}
    let mut said = 0;
    while session.poll_transmit(&mut out, later) {
        said += 1;
    }
    assert!(said <= 70, "{said} datagrams at once");
}

#[test]
fn a_small_path_is_respected() {
    let now = crate::time::Instant::from_secs(1);
    let sizes = crate::ha::sync::Sizes { datagram: 548, record: 64 };
    let mut world = World::new(5, FINE);
    world.routers[A].session = Session::new(super::world::key(), [1; 16], sizes, now);
    world.routers[A].flows = (0..5_000).map(|flow| (flow, flow)).collect();
    world.tape = Some(Vec::new());
    world.routers[A].become_(Role::Active, world.now);
    world.run_until_done(Duration::from_secs(5), World::complete);
    assert!(world.routers[B].flows == world.routers[A].flows);
    let longest = world.tape.iter().flatten().map(|(_, payload)| payload.len()).max().unwrap();
    assert!((400..=548).contains(&longest), "{longest} bytes; {LARGEST_DATAGRAM} is for others");
}

#[test]
fn nothing_is_allocated_once_it_runs() {
    let mut world = World::new(6, FINE);
    world.routers[A].become_(Role::Active, world.now);
    world.run_until_done(Duration::from_secs(1), World::complete);
    let [a, b] = &mut world.routers;
    let (mut now, mut out) = (world.now, Vec::with_capacity(LARGEST_DATAGRAM));
    let mut came = 0;
    let work = || {
        for turn in 0..2_000_u64 {
            now += Duration::from_micros(500);
            let record = super::world::record(turn, turn);
            while a.session.wants(now).is_some_and(|want| want.records > 2_000) {
                a.session.push(&record, now);
            }
            for lost in 0..70 {
                if a.session.poll_transmit(&mut out, now) && (turn + lost) % 7 != 0 {
                    b.session.handle_datagram(&out, now);
                }
                while b.session.poll_record().is_some() {
                    came += 1;
                }
                if b.session.poll_transmit(&mut out, now) {
                    a.session.handle_datagram(&out, now);
                }
            }
            a.session.handle_timeout(now);
            b.session.handle_timeout(now);
        }
    };
    let allocated = allocation_counter::measure(work).count_total;
    assert!(came > 50_000, "{came} records");
    assert_eq!(allocated, 0);
}
