use super::*;

const SILENCE: Duration = Duration::from_millis(400);

fn at(millis: i64) -> Instant {
    Instant::from_millis(millis)
}

fn run(id: u64, sequence: u64) -> Run {
    Run { id, sequence }
}

#[test]
fn a_signature_covers_sender_message_and_run() {
    let key = Key::new(&[7; 32]);
    let mut packet = [vec![0; 12], vec![10, 0, 0, 2, 224, 0, 0, 18], b"message".to_vec()].concat();
    let message = 20..packet.len();
    packet.resize(packet.len() + TRAILER, 0);
    run(5, 9).sign(&key, &mut packet);
    let read = |packet: &[u8], key: &Key| {
        let source = packet[12..16].try_into().unwrap();
        Run::read(key, source, &packet[message.clone()], &packet[message.end..])
    };
    assert_eq!(read(&packet, &key), Some(run(5, 9)));
    assert_eq!(read(&packet, &Key::new(&[8; 32])), None);
    for at in (12..16).chain(20..packet.len()) {
        let mut changed = packet.clone();
        changed[at] ^= 1;
        assert_eq!(read(&changed, &key), None, "byte {at}");
    }
    assert_eq!(Run::read(&key, [10, 0, 0, 2], b"message", &packet[message.end..][..47]), None);
    assert_eq!(Run::read(&key, [10, 0, 0, 2], b"message", &[]), None);
}

#[test]
fn a_sequence_number_is_believed_once_and_in_order() {
    let mut guard = Guard::default();
    assert!(guard.admit(run(1, 5), None, SILENCE, at(0)));
    assert!(!guard.admit(run(1, 5), None, SILENCE, at(1)));
    assert!(!guard.admit(run(1, 4), None, SILENCE, at(1)));
    assert!(guard.admit(run(1, 8), None, SILENCE, at(1)));
    assert!(!guard.admit(run(1, 6), None, SILENCE, at(10_000)), "nor after a long time");
}

#[test]
fn another_run_is_believed_once_the_one_before_is_silent_and_never_again_after_it() {
    let mut guard = Guard::default();
    assert!(guard.admit(run(1, 5), None, SILENCE, at(0)));
    assert!(!guard.admit(run(2, 1), None, SILENCE, at(399)));
    assert!(guard.admit(run(2, 1), None, SILENCE, at(400)));
    assert!(!guard.admit(run(1, 6), None, SILENCE, at(10_000)));
    assert!(guard.admit(run(2, 2), None, SILENCE, at(10_000)));
}

#[test]
fn a_confirmed_run_is_the_only_one() {
    let mut guard = Guard::default();
    assert!(guard.admit(run(1, 5), None, SILENCE, at(0)));
    guard.confirm(run(2, 7), at(1));
    assert!(!guard.admit(run(1, 6), Some(2), SILENCE, at(2)));
    assert!(!guard.admit(run(2, 7), Some(2), SILENCE, at(2)), "sent before it was confirmed");
    assert!(guard.admit(run(2, 8), Some(2), SILENCE, at(2)));
    assert!(!guard.admit(run(3, 1), Some(2), SILENCE, at(10_000)), "however silent");
    guard.confirm(run(2, 3), at(10_000));
    assert!(!guard.admit(run(2, 4), Some(2), SILENCE, at(10_000)), "an old word puts nothing back");
    // The session has ended.
    assert!(guard.admit(run(3, 1), None, SILENCE, at(10_000)));
    assert!(!guard.admit(run(1, 9), None, SILENCE, at(20_000)));
}
