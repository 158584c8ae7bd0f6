//! Signed adverts: made by a router with the key, and each believed once.

use super::*;
use signature::Key;

fn signed(host: u8, priority: u8) -> Settings {
    Settings { key: Some(Key::new(&[7; 32])), ..settings(host, priority) }
}

fn replayed(ha: &Ha) -> u64 {
    ha.counters().discarded(Discard::Replay)
}

#[test]
fn a_router_with_the_key_is_believed_once() {
    let (_, adverts) = active(signed(3, 200), 9, at(0));
    let mut ha = Ha::new(signed(2, 100), 1, at(0));
    for (network, advert) in &adverts {
        ha.handle_packet(*network, advert, at(1));
    }
    assert_eq!((ha.counters().accepted(), replayed(&ha)), (2, 0));
    for (network, advert) in &adverts {
        ha.handle_packet(*network, advert, at(2));
    }
    assert_eq!((ha.counters().accepted(), replayed(&ha)), (2, 2));
    let heard = ha.report().networks[0].heard.unwrap();
    assert_eq!((heard.priority, heard.at), (200, at(1)));

    let mut other =
        Ha::new(Settings { key: Some(Key::new(&[8; 32])), ..settings(2, 100) }, 1, at(0));
    let (network, advert) = &adverts[0];
    other.handle_packet(*network, advert, at(1));
    assert_eq!(other.counters().discarded(Discard::Signature), 1, "another key");
    let mut changed = advert.clone();
    *changed.last_mut().unwrap() ^= 1;
    ha.handle_packet(*network, &changed, at(3));
    assert_eq!(ha.counters().discarded(Discard::Signature), 1, "another signature");
}

/// One that has no key yet hears the one that has it: a pair can be changed router by router.
#[test]
fn a_router_without_a_key_reads_past_the_signature() {
    let (_, adverts) = active(signed(3, 200), 9, at(0));
    let mut ha = Ha::new(settings(2, 100), 1, at(0));
    ha.handle_packet(OUTSIDE, &adverts[0].1, at(1));
    assert_eq!(ha.counters().accepted(), 1);
}

/// A recording of yesterday would make the router give up the role.
#[test]
fn a_recording_of_another_run_is_not_believed_while_a_session_tells_the_present_one() {
    let (_, recording) = active(signed(3, 200), 9, at(0));
    let (mut ha, _) = active(signed(2, 100), 1, at(1_000));
    let mut peer = Ha::new(signed(3, 200), 10, at(1_000));
    ha.handle_peer_run(Some(peer.run()), at(1_000));
    ha.handle_packet(OUTSIDE, &recording[0].1, at(1_010));
    assert_eq!((ha.role(), replayed(&ha)), (Role::Active, 1));
    while peer.role() == Role::Backup {
        let due = peer.poll_timeout().unwrap();
        peer.handle_timeout(due);
    }
    let adverts = sent(&mut peer);
    ha.handle_packet(OUTSIDE, &adverts[0].1, at(1_400));
    assert_eq!(ha.role(), Role::Backup, "the peer itself is believed");
    assert!(peer.run().sequence >= 2, "what a session tells grows");
}

#[test]
fn a_restarted_peer_is_believed_once_its_last_run_is_silent() {
    let (_, before) = active(signed(3, 200), 9, at(0));
    let (_, after) = active(signed(3, 200), 10, at(0));
    let mut ha = Ha::new(signed(2, 100), 1, at(0));
    ha.handle_packet(OUTSIDE, &before[0].1, at(0));
    ha.handle_packet(OUTSIDE, &after[0].1, at(300));
    assert_eq!(replayed(&ha), 1);
    ha.handle_packet(OUTSIDE, &after[0].1, at(361));
    assert_eq!((replayed(&ha), ha.counters().accepted()), (1, 2));
}
