//! Restarts, pauses, cuts and changes of roles: in the end the peer has every flow.

use super::world::{A, B, FINE, Weather, World};
use crate::addr::Role;
use crate::ha::sync::{Event, Loss};
use crate::time::Duration;

fn with_flows(seed: u64, flows: u64) -> World {
    let mut world = World::new(seed, FINE);
    world.routers[A].flows = (0..flows).map(|flow| (flow, 1)).collect();
    world.routers[A].become_(Role::Active, world.now);
    world.run_until_done(Duration::from_secs(2), World::complete);
    assert!(world.routers[A].flows == world.routers[B].flows);
    world
}

#[test]
fn a_backup_that_starts_anew_is_sent_everything() {
    let mut world = with_flows(1, 5_000);
    let run = world.routers[B].session.run_id();
    assert_eq!(world.routers[A].events, [Event::PeerAppeared { run }, Event::Transferred]);
    let now = world.now;
    world.routers[B].restart(now);
    assert!(!world.complete());
    world.run_until_done(Duration::from_millis(500), World::complete);
    assert!(world.routers[A].flows == world.routers[B].flows);
    let run = world.routers[B].session.run_id();
    let renewed =
        [Event::PeerLost { why: Loss::Renewed }, Event::PeerAppeared { run }, Event::Transferred];
    assert_eq!(world.routers[A].events[2..], renewed);
}

#[test]
fn an_active_that_starts_anew_gets_everything_from_who_took_over() {
    let mut world = with_flows(2, 5_000);
    let now = world.now;
    world.routers[A].restart(now);
    world.routers[B].become_(Role::Active, now);
    let complete = |world: &World| world.routers[A].session.is_complete();
    world.run_until_done(Duration::from_secs(1), complete);
    assert!(world.routers[A].flows == world.routers[B].flows);
    assert_eq!(world.routers[A].events.last(), Some(&Event::Complete));
}

#[test]
fn a_pause_of_ten_seconds_ends_the_session_and_another_one_follows() {
    for paused in [A, B] {
        let mut world = with_flows(3, 3_000);
        world.routers[paused].paused = world.now + Duration::from_secs(10);
        for change in 0..100 {
            world.run(Duration::from_millis(50));
            if paused == B {
                world.routers[A].change(change, 2);
            }
        }
        let other = 1 - paused;
        assert!(!world.routers[other].session.is_connected());
        let lost = Event::PeerLost { why: Loss::Silent };
        assert_eq!(world.routers[other].events.last(), Some(&lost));
        assert_eq!(world.routers[other].session.wants(world.now), None);
        world.run(Duration::from_secs(5) + Duration::from_millis(500));
        assert!(world.connected() && world.complete(), "{:#?}", world.reports());
        assert!(world.routers[A].flows == world.routers[B].flows);
    }
}

/// What had come is handed out at a takeover, also behind a gap that nobody will fill any more.
#[test]
fn a_takeover_keeps_what_had_come() {
    for takeover in [true, false] {
        let mut world = with_flows(4, 10);
        let (from, mut out, mut sent) = (world.routers[B].got.len(), Vec::new(), 0);
        let now = world.now + Duration::from_millis(10);
        let [a, b] = &mut world.routers;
        for number in 0..200 {
            assert!(a.session.push(&super::world::record(number, 7), now));
        }
        let later = now + Duration::from_millis(3);
        while a.session.poll_transmit(&mut out, later) {
            sent += 1;
            if sent != 3 {
                b.session.handle_datagram(&out, later);
            }
        }
        assert!(sent >= 10, "{sent}");
        let mut came = 0;
        while b.session.poll_record().is_some() {
            came += 1;
        }
        assert_eq!(came, 40, "two datagrams, then the gap");
        if takeover {
            b.become_(Role::Active, later);
        } else {
            b.session.handle_timeout(later + Duration::from_secs(2));
        }
        while b.session.poll_record().is_some() {
            came += 1;
        }
        assert_eq!(came, 180, "all but the lost one");
        assert_eq!(b.got.len(), from);
    }
}

#[test]
fn two_actives_do_not_mix_and_the_one_that_yields_gets_everything() {
    let mut world = with_flows(5, 1_000);
    let now = world.now;
    for change in 0..40 {
        world.routers[A].change(change, 5);
    }
    world.routers[B].become_(Role::Active, now);
    let got = world.routers[B].got.len();
    world.run(Duration::from_millis(300));
    for flow in 2_000..2_100 {
        world.routers[A].change(flow, 8);
        world.routers[B].change(flow, 9);
    }
    world.run(Duration::from_millis(300));
    assert_eq!(world.routers[B].got.len(), got, "an active router takes nothing");
    assert_eq!(world.reports().map(|report| report.peer_role), [Some(Role::Active); 2]);
    assert_eq!(world.routers[B].session.wants(world.now), None, "nor does it send to one");
    let now = world.now;
    world.routers[A].become_(Role::Backup, now);
    assert!(!world.routers[A].session.is_complete());
    let complete = |world: &World| world.routers[A].session.is_complete();
    world.run_until_done(Duration::from_secs(1), complete);
    for (flow, value) in &world.routers[B].flows {
        assert_eq!(world.routers[A].flows.get(flow), Some(value), "flow {flow}");
    }
    assert!(!world.complete(), "the active one is sent nothing");
}

#[test]
fn every_flow_is_sent_again_from_time_to_time_but_slowly() {
    let mut world = with_flows(6, 40_000);
    let from = world.routers[B].got.len();
    world.run(Duration::from_secs(29));
    assert_eq!(world.routers[B].got.len(), from, "not before");
    world.run(Duration::from_secs(2));
    let came = world.routers[B].got.len() - from;
    assert!((10_000..39_000).contains(&came), "{came}: slowly");
    world.run(Duration::from_secs(3));
    assert_eq!(world.routers[B].got.len() - from, 40_000);
    assert_eq!(world.routers[B].events.len(), 2, "{:?}", world.routers[B].events);
}

#[test]
fn idle_sessions_stay_and_cost_little() {
    let mut world = with_flows(7, 0);
    let before = world.reports().map(|report| report.counters.datagrams_sent);
    world.run(Duration::from_secs(20));
    let after = world.reports().map(|report| report.counters.datagrams_sent);
    for at in [A, B] {
        let said = after[at] - before[at];
        assert!((195..=215).contains(&said), "{said} in 20 s");
    }
    assert!(world.connected());
    world.cut = [true; 2];
    world.run(Duration::from_millis(800));
    assert!(world.connected());
    world.run(Duration::from_millis(400));
    assert!(!world.routers[A].session.is_connected() && !world.routers[B].session.is_connected());
}

/// Whatever happened: when the channel is whole again, the backup soon has what the active has.
#[test]
fn in_the_end_the_peer_has_every_flow() {
    for seed in 0..200 {
        let mut world = World::new(seed, FINE);
        world.tape = Some(Vec::new());
        world.routers[A].become_(Role::Active, world.now);
        let mut value = 0;
        for _ in 0..60 {
            mishap(&mut world);
            for _ in 0..world.dice.below(200) {
                value += 1;
                let flow = world.dice.below(1_000);
                let active = world.routers.iter().position(|router| router.role == Role::Active);
                world.routers[active.unwrap_or(A)].change(flow, value);
            }
            let pause = world.dice.below(300);
            world.run(Duration::from_millis(pause));
        }
        world.weather = FINE;
        world.cut = [false; 2];
        let now = world.now;
        for (at, role) in [(A, Role::Active), (B, Role::Backup)] {
            let router = &mut world.routers[at];
            router.appetite = usize::MAX;
            router.paused = router.paused.min(now);
            if router.role != role {
                router.become_(role, now);
            }
        }
        world.run(Duration::from_secs(3));
        assert!(world.complete(), "seed {seed}: {:#?}", world.reports());
        for (flow, value) in &world.routers[A].flows {
            assert_eq!(world.routers[B].flows.get(flow), Some(value), "seed {seed}, flow {flow}");
        }
        for report in world.reports() {
            assert_eq!(report.counters.refused[0..2], [0, 0], "seed {seed}: {report:?}");
        }
    }
}

fn mishap(world: &mut World) {
    let (now, at) = (world.now, usize::from(world.dice.percent(50)));
    match world.dice.below(12) {
        0 => world.routers[at].restart(now),
        1 => {
            let pause = world.dice.below(10_000);
            world.routers[at].paused = now + Duration::from_millis(pause);
        }
        2 | 3 => world.cut[at] = !world.cut[at],
        4 | 5 => {
            let role = if world.dice.percent(50) { Role::Active } else { Role::Backup };
            world.routers[at].become_(role, now);
        }
        6 => {
            let appetite = [3, 50, usize::MAX][usize::from(world.dice.percent(50)) + at];
            world.routers[at].appetite = appetite;
        }
        7 | 8 => {
            let (lost, doubled) = (world.dice.below(40), world.dice.below(40));
            let spread = world.dice.below(50_000);
            world.weather = Weather { lost, doubled, delay: (100, 100 + spread) };
        }
        _ => {
            // Somebody sends again what was said once.
            let said = world.tape.as_ref().map_or(0, |tape| tape.len() as u64);
            for _ in 0..world.dice.below(30).min(said) {
                let which = usize::try_from(world.dice.below(said)).unwrap();
                let (to, payload) = world.tape.as_ref().unwrap()[which].clone();
                let to = if world.dice.percent(80) { to } else { 1 - to };
                world.send(to, &payload);
            }
        }
    }
}
