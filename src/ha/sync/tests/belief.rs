//! Who is believed: what was recorded, changed, reflected or forged changes nothing.

use super::world::{A, B, FINE, SIZES, World};
use crate::addr::Role;
use crate::ha::signature::Key;
use crate::ha::sync::{Event, Refusal, Report, Session};
use crate::time::{Duration, Instant};

/// What a session knows and has, apart from what it counts of datagrams.
fn state(world: &World, at: usize) -> (Report, usize, usize, bool) {
    let router = &world.routers[at];
    let mut report = router.session.report(world.now);
    report.counters.datagrams_received = 0;
    report.counters.datagrams_sent = 0;
    report.counters.bytes_received = 0;
    report.counters.bytes_sent = 0;
    report.counters.refused = [0; Refusal::ALL.len()];
    (report, router.got.len(), router.events.len(), router.session.is_connected())
}

/// Two routers that have had a session over which 300 flows went, a role change and a renewal, and
/// everything that they said.
fn recorded(seed: u64) -> (World, Vec<(usize, Vec<u8>)>) {
    let mut world = World::new(seed, FINE);
    world.tape = Some(Vec::new());
    world.routers[A].flows = (0..300).map(|flow| (flow, flow)).collect();
    world.routers[A].become_(Role::Active, world.now);
    world.run_until_done(Duration::from_secs(1), World::complete);
    world.cut = [true; 2];
    world.run(Duration::from_secs(3));
    world.cut = [false; 2];
    world.run_until_done(Duration::from_secs(1), World::complete);
    for flow in 0..50 {
        world.routers[A].change(flow, flow + 1);
    }
    world.run(Duration::from_millis(300));
    assert!(world.routers[A].flows == world.routers[B].flows);
    let tape = world.tape.take().unwrap();
    assert!(tape.len() > 60, "{}", tape.len());
    (world, tape)
}

fn is_question(payload: &[u8]) -> bool {
    payload[1] == 1
}

/// Hands everything on the tape to both, also to who has sent it.
fn replay(world: &mut World, tape: &[(usize, Vec<u8>)]) {
    let mut out = Vec::new();
    for (_, payload) in tape {
        for at in [A, B] {
            let before = state(world, at);
            let now = world.now;
            let refused = world.routers[at].session.handle_datagram(payload, now);
            assert_eq!(world.routers[at].session.poll_record(), None, "{payload:?}");
            assert_eq!(world.routers[at].session.poll_event(), None);
            assert_eq!(state(world, at), before, "{refused:?}: {payload:?}");
            match refused {
                Some(_) => {}
                None if is_question(payload) => {
                    let said = world.routers[at].session.poll_transmit(&mut out, now);
                    assert!(said && out.len() <= payload.len(), "an answer no longer than asked");
                }
                // The answer that made this very session says nothing new.
                None => assert_eq!(payload[1], 2, "believed: {payload:?}"),
            }
        }
    }
}

#[test]
fn what_was_recorded_is_refused_by_the_same_session() {
    let (mut world, tape) = recorded(1);
    for pause in [0, 1, 100, 3_000, 60_000] {
        world.run(Duration::from_millis(pause));
        replay(&mut world, &tape);
    }
    let [a, b] = world.reports();
    for report in [a, b] {
        assert!(report.counters.refused(Refusal::Replayed) > 0, "{report:?}");
        assert!(report.counters.refused(Refusal::OtherSession) > 0, "{report:?}");
        assert!(report.counters.refused(Refusal::Reflected) > 0, "{report:?}");
        assert_eq!(report.counters.sessions, 2, "the session goes on");
    }
}

#[test]
fn what_was_recorded_is_refused_by_a_peer_that_started_anew() {
    let (mut world, tape) = recorded(2);
    // Before it has heard anything of this time,
    world.cut = [true; 2];
    for at in [A, B] {
        let now = world.now;
        world.routers[at].restart(now);
    }
    world.run(Duration::from_millis(50));
    replay(&mut world, &tape);
    assert!(!world.routers[A].session.is_connected() && !world.routers[B].session.is_connected());
    // while the two find each other,
    world.cut = [false; 2];
    world.tape = Some(Vec::new());
    for _ in 0..20 {
        world.run(Duration::from_micros(150));
        replay(&mut world, &tape);
    }
    world.run_until_done(Duration::from_secs(1), World::connected);
    // and when they have.
    replay(&mut world, &tape);
    world.run(Duration::from_secs(2));
    assert_eq!(world.routers[B].events.len(), 1, "{:?}", world.routers[B].events);
    assert_eq!(world.reports()[B].counters.sessions, 1);
    let tape = world.tape.take().unwrap();
    replay(&mut world, &tape);
}

/// Answers to replayed questions, delivered, do not end a session either.
#[test]
fn replayed_questions_and_their_answers_disturb_no_session() {
    let (mut world, tape) = recorded(3);
    for (to, payload) in tape.iter().filter(|(_, payload)| is_question(payload)).cycle().take(500) {
        world.send(*to, payload);
        world.send(1 - *to, payload);
        world.run(Duration::from_millis(5));
    }
    assert_eq!(world.reports().map(|report| report.counters.sessions), [2, 2]);
    assert!(world.connected());
}

#[test]
fn a_changed_bit_anywhere_is_noticed() {
    let mut world = World::new(4, FINE);
    world.tape = Some(Vec::new());
    world.routers[A].flows = (0..30).map(|flow| (flow, flow)).collect();
    world.routers[A].become_(Role::Active, world.now);
    world.run_until_done(Duration::from_secs(1), World::connected);
    world.cut = [true; 2];
    world.tape = Some(Vec::new());
    world.run(Duration::from_millis(20));
    let tape = world.tape.take().unwrap();
    let (to, good) = tape.iter().find(|(_, payload)| payload.len() > 500).expect("records");
    assert_eq!(*to, B);
    let before = state(&world, B);
    for bit in 0..8 * good.len() {
        let mut payload = good.clone();
        payload[bit / 8] ^= 1 << (bit % 8);
        let refused = world.routers[B].session.handle_datagram(&payload, world.now);
        assert!(refused.is_some(), "bit {bit} changed");
        assert_eq!(state(&world, B), before, "bit {bit}");
    }
    for len in 0..good.len() {
        assert!(world.routers[B].session.handle_datagram(&good[..len], world.now).is_some());
    }
    assert_eq!(world.routers[B].session.poll_record(), None);
    assert_eq!(world.routers[B].session.handle_datagram(good, world.now), None);
    assert!(world.routers[B].session.poll_record().is_some(), "the good one after all of them");
}

#[test]
fn a_changed_bit_in_a_greeting_is_noticed() {
    let now = Instant::from_secs(1);
    let mut one = Session::new(super::world::key(), [1; 16], SIZES, now);
    let mut other = Session::new(super::world::key(), [2; 16], SIZES, now);
    let mut good = Vec::new();
    let mut out = Vec::new();
    assert!(one.poll_transmit(&mut good, now) && is_question(&good));
    let flip = |payload: &[u8], end: &mut Session| {
        for bit in 0..8 * payload.len() {
            let mut payload = payload.to_vec();
            payload[bit / 8] ^= 1 << (bit % 8);
            assert!(end.handle_datagram(&payload, now).is_some(), "bit {bit}");
        }
    };
    assert!(other.poll_transmit(&mut out, now) && is_question(&out), "its own");
    flip(&good, &mut other);
    assert!(!other.poll_transmit(&mut out, now), "no answer to what is not signed");
    assert_eq!(other.handle_datagram(&good, now), None);
    assert!(other.poll_transmit(&mut out, now) && out[1] == 2, "but to what is");
    assert_eq!(out.len(), good.len());
    flip(&out, &mut one);
    assert_eq!(one.handle_datagram(&out, now), None);
}

#[test]
fn another_key_is_another_world() {
    let now = Instant::from_secs(1);
    let mut world = World::new(5, FINE);
    world.routers[B].session = Session::new(Key::new(&[1; 32]), [9; 16], SIZES, now);
    world.run(Duration::from_secs(3));
    for report in world.reports() {
        assert_eq!(report.connected_since, None);
        let refused = report.counters.refused(Refusal::Signature);
        assert!((25..35).contains(&refused), "{report:?}");
        assert_eq!(report.counters.datagrams_received, 0);
        assert!((25..35).contains(&report.counters.datagrams_sent), "no answers: {report:?}");
    }
}

#[test]
fn junk_is_refused_by_its_reason() {
    let now = Instant::from_secs(1);
    let mut session = Session::new(super::world::key(), [1; 16], SIZES, now);
    let mut own = Vec::new();
    assert!(session.poll_transmit(&mut own, now));
    let mut refusal = |payload: &[u8]| session.handle_datagram(payload, now);
    assert_eq!(refusal(&[]), Some(Refusal::Malformed));
    assert_eq!(refusal(&[2; 76]), Some(Refusal::Version));
    assert_eq!(refusal(&[1]), Some(Refusal::Malformed));
    assert_eq!(refusal(&[1, 9, 0, 0]), Some(Refusal::Malformed));
    assert_eq!(refusal(&[1; 1_401]), Some(Refusal::Malformed), "too long");
    assert_eq!(refusal(&own), Some(Refusal::Reflected));
    let mut segment = [0; 88];
    segment[..2].copy_from_slice(&[1, 3]);
    assert_eq!(refusal(&segment), Some(Refusal::OtherSession));
    assert!(!session.poll_transmit(&mut own, now), "junk gets no answer");
    let counters = session.report(now).counters;
    assert_eq!(counters.refused(Refusal::Malformed), 4);
    assert_eq!(counters.refused.iter().sum::<u64>(), 7);
}

#[test]
fn both_learn_which_run_the_other_is() {
    let (mut world, _) = recorded(6);
    let run = |world: &World, at: usize| world.routers[at].session.run_id();
    let (first, other) = (run(&world, A), run(&world, B));
    assert_ne!(first, other);
    assert_eq!(world.routers[A].session.peer_run_id(), Some(other));
    assert_eq!(world.routers[B].session.peer_run_id(), Some(first));
    let now = world.now;
    world.routers[A].restart(now);
    assert_eq!(world.routers[A].session.peer_run_id(), None);
    world.run(Duration::from_millis(500));
    assert_ne!(run(&world, A), first);
    assert_eq!(world.routers[B].session.peer_run_id(), Some(run(&world, A)));
    let appeared = Event::PeerAppeared { run: run(&world, A) };
    assert_eq!(world.routers[B].events.last(), Some(&appeared));
}
