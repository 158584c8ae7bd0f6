//! When, to the millisecond and finer.

use super::*;

fn v2(priority: u8) -> Rules {
    Rules { version: VrrpVersion::V2, interval: Duration::from_secs(1), ..rules(priority, true) }
}

/// A backup whose active router was heard last at 0 on both networks, with `interval`.
fn backup(rules: Rules, heard: u8, interval: Duration) -> Machine {
    let start = Instant::from_secs(-1_000);
    let mut machine = machine(rules, start);
    for position in 0..2 {
        machine.hear(position, said(heard, GREATER, interval), at(0));
    }
    events(&mut machine);
    machine
}

/// RFC 9568 section 6.1 and, by version 2, RFC 3768 section 6.1; in microseconds from the last advert
/// to the takeover. Those of priority 100 were measured of keepalived, too.
#[test]
fn silence_is_three_intervals_and_the_skew() {
    let cases = [
        (rules(100, true), 1_000, 3_609_375),
        (rules(100, true), 100, 360_937),
        (rules(100, true), 10, 36_093),
        (rules(254, true), 1_000, 3_007_812),
        (rules(199, true), 100, 322_265),
        (rules(1, true), 40_950, 122_850_000 + 40_790_039),
        (rules(254, true), 40_950, 122_850_000 + 319_921),
        (v2(100), 1_000, 3_609_375),
        (v2(100), 2_000, 6_609_375),
    ];
    for (rules, interval, expected) in cases {
        let mut machine = backup(rules, 255, Duration::from_millis(interval));
        let end = Instant::from_secs(1_000);
        let became = run_until(&mut machine, end).map(|at| at.total_micros());
        assert_eq!(became, Some(expected), "{rules:?}, {interval} ms");
        assert_eq!(machine.history().latest().reason, Reason::Silence);
        assert_eq!(sent(&mut machine), Some(Outgoing::Advert));
    }
}

/// A planned handover takes the skew: 22 ms at priority 199 and 100 ms.
#[test]
fn a_resignation_leaves_the_skew() {
    let cases = [
        (rules(100, true), 1_000, 609_375),
        (rules(254, true), 1_000, 7_812),
        (rules(199, true), 100, 22_265),
        (rules(100, true), 10, 6_093),
        (v2(100), 1_000, 609_375),
        (v2(100), 5_000, 609_375),
    ];
    for (rules, interval, expected) in cases {
        for position in 0..2 {
            let mut machine = backup(rules, 255, Duration::from_millis(interval));
            machine.hear(position, said(0, GREATER, Duration::from_millis(interval)), at(0));
            let became = run_until(&mut machine, at(10_000)).map(|at| at.total_micros());
            assert_eq!(became, Some(expected), "{rules:?}, {interval} ms, {position}");
            assert_eq!(machine.history().latest().reason, Reason::PeerResigned(GREATER));
        }
    }
}

#[test]
fn a_resignation_that_is_repeated_puts_nothing_off_and_another_router_does() {
    let mut machine = backup(rules(100, true), 200, INTERVAL);
    for millis in 0..60 {
        machine.hear(1, said(0, GREATER, INTERVAL), at(millis));
    }
    assert_eq!(machine.poll_timeout(), Some(Instant::from_micros(60_937)));
    machine.hear(0, said(150, SMALLER, INTERVAL), at(60));
    let silence = Instant::from_micros(60_000 + 360_937);
    assert_eq!(run_until(&mut machine, at(1_000)), Some(silence));
}

#[test]
fn whoever_is_heard_on_one_network_is_not_missed() {
    let mut machine = backup(rules(100, true), 200, INTERVAL);
    for millis in (100..2_000).step_by(100) {
        assert_eq!(run_until(&mut machine, at(millis)), None);
        machine.hear(1, said(200, GREATER, INTERVAL), at(millis));
    }
    assert_eq!(events(&mut machine), [Event::PathDegraded { network: FIRST }]);
    machine.hear(0, said(200, GREATER, INTERVAL), at(2_000));
    assert_eq!(events(&mut machine), [Event::PathRestored { network: FIRST }]);
    // The last word on either counts.
    assert_eq!(run_until(&mut machine, at(5_000)), Some(Instant::from_micros(2_360_937)));
}

#[test]
fn preempting_takes_as_long_as_if_nobody_were_heard() {
    let mut machine = machine(rules(200, true), at(0));
    let mut became = None;
    for millis in (10..2_000).step_by(100) {
        became = became.or_else(|| run_until(&mut machine, at(millis)));
        if became.is_some() {
            break;
        }
        machine.hear(0, said(100, GREATER, INTERVAL), at(millis));
        machine.hear(1, said(100, GREATER, INTERVAL), at(millis));
    }
    assert_eq!(became, Some(Instant::from_micros(321_875)));
    assert_eq!(machine.history().latest().reason, Reason::Preempted(GREATER));
}

/// When it takes over from a living router of priority 100 that both networks hear.
fn preempted_at(machine: &mut Machine, mut each: impl FnMut(&mut Machine, i64)) -> Option<i64> {
    for millis in (0..20_000).step_by(100) {
        if let Some(became) = run_until(machine, at(millis)) {
            return Some(became.total_millis());
        }
        each(machine, millis);
        for position in 0..2 {
            machine.hear(position, said(100, GREATER, INTERVAL), at(millis));
        }
    }
    None
}

#[test]
fn preempting_waits_for_the_delay_and_for_the_flows() {
    let wait = Some(Duration::from_secs(5));
    let delayed = Rules { preempt_delay: Duration::from_secs(2), ..rules(200, true) };
    let synced = Rules { waits_for_sync: wait, ..rules(200, true) };
    let nothing = |_: &mut Machine, _| {};
    // Advert by advert the silence is counted from the last one before it was allowed.
    assert_eq!(preempted_at(&mut machine(delayed, at(0)), nothing), Some(1_900 + 321));
    assert_eq!(preempted_at(&mut machine(synced, at(0)), nothing), Some(4_900 + 321));
    let complete = preempted_at(&mut machine(synced, at(0)), |machine, millis| {
        if millis == 1_000 {
            machine.handle_sync(true);
        }
    });
    assert_eq!(complete, Some(900 + 321));
    // A session that is lost before it takes over makes it wait again.
    let lost = preempted_at(&mut machine(synced, at(0)), |machine, millis| match millis {
        1_000 => machine.handle_sync(true),
        1_200 => machine.handle_sync(false),
        _ => {}
    });
    assert_eq!(lost, Some(4_900 + 321));
    // A link that failed begins it all anew.
    let relinked = preempted_at(&mut machine(delayed, at(0)), |machine, millis| {
        if millis == 1_000 {
            machine.handle_link(SECOND, false, at(950));
            machine.handle_link(SECOND, true, at(960));
        }
    });
    assert_eq!(relinked, Some(2_900 + 321));
    assert_eq!(preempted_at(&mut machine(rules(200, false), at(0)), nothing), None);
    // Neither is for a router that dies.
    let mut machine = machine(Rules { waits_for_sync: wait, ..delayed }, at(0));
    assert_eq!(run_until(&mut machine, at(10_000)), Some(Instant::from_micros(321_875)));
}

/// Where the active router is not heard on the first network it would not give way.
#[test]
fn nobody_is_preempted_who_is_heard_on_the_second_network_only() {
    let mut machine = machine(rules(200, true), at(0));
    for millis in (0..5_000).step_by(100) {
        assert_eq!(run_until(&mut machine, at(millis)), None, "at {millis} ms");
        machine.hear(1, said(100, GREATER, INTERVAL), at(millis));
    }
}

/// Nor who is not heard there any more by the time.
#[test]
fn nobody_is_preempted_who_falls_silent_on_the_first_network() {
    let slow = Duration::from_millis(1_000);
    let mut machine = machine(rules(200, true), at(0));
    for position in 0..2 {
        machine.hear(position, said(255, GREATER, slow), at(0));
    }
    // Preempts 3.2 s after the last advert of the owner, but the path is missed before.
    for position in 0..2 {
        machine.hear(position, said(100, GREATER, INTERVAL), at(10));
    }
    for millis in (110..6_000).step_by(100) {
        assert_eq!(run_until(&mut machine, at(millis)), None, "at {millis} ms");
        machine.hear(1, said(100, GREATER, INTERVAL), at(millis));
    }
}

#[test]
fn adverts_keep_their_pace() {
    let mut machine = active(rules(200, true), at(0));
    for turn in 1..50 {
        // A little late each time: what is lost is not added up.
        let due = at(100 * turn);
        assert_eq!(machine.poll_timeout(), Some(due));
        machine.handle_timeout(due - Duration::from_millis(1));
        assert_eq!(sent(&mut machine), None);
        machine.handle_timeout(due + Duration::from_millis(30));
        assert_eq!(sent(&mut machine), Some(Outgoing::Advert));
    }
    machine.handle_timeout(at(5_060));
    assert_eq!(sent(&mut machine), Some(Outgoing::Advert));
    assert_eq!(machine.poll_timeout(), Some(at(5_160)), "no burst makes up for what was late");
}

#[test]
fn a_flood_of_lower_adverts_is_answered_four_times_an_interval() {
    let mut machine = active(rules(200, true), at(0));
    let mut count = 0;
    for millis in 0..1_000 {
        let due = machine.poll_timeout().filter(|due| *due <= at(millis));
        if due.is_some() {
            machine.handle_timeout(at(millis));
        }
        for position in [0, 1, 0, 1] {
            machine.hear(position, said(1, GREATER, INTERVAL), at(millis));
        }
        count += i32::from(sent(&mut machine).is_some());
    }
    assert_eq!(count, 40);
    // And made to announce a few times only, once it is over.
    let ended = events(&mut machine);
    assert_eq!(ended.iter().filter(|event| **event == Event::ContentionEnded).count(), 0);
    assert_eq!(ended.len(), 1, "{ended:?}");
}

#[test]
fn the_first_lower_advert_is_answered_at_once() {
    let mut machine = active(rules(200, true), at(0));
    machine.handle_timeout(at(100));
    sent(&mut machine);
    machine.hear(0, said(100, GREATER, INTERVAL), at(101));
    assert_eq!(sent(&mut machine), Some(Outgoing::Advert));
    machine.hear(0, said(100, GREATER, INTERVAL), at(102));
    assert_eq!(sent(&mut machine), Some(Outgoing::Advert), "the last words of who gives way");
    machine.hear(0, said(100, GREATER, INTERVAL), at(103));
    assert_eq!(sent(&mut machine), None);
    assert_eq!(machine.poll_timeout(), Some(at(126)), "not forgotten");
}

/// D5: within one interval after the other one gave way.
#[test]
fn contention_ends_within_an_interval() {
    let mut machine = active(rules(200, true), at(0));
    machine.hear(0, said(100, GREATER, INTERVAL), at(10));
    let heard = Event::Contention { network: FIRST, from: GREATER, priority: 100 };
    assert_eq!(events(&mut machine), [heard]);
    assert_eq!(run_until(&mut machine, at(59)), None);
    assert_eq!(events(&mut machine), []);
    assert_eq!(run_until(&mut machine, at(60)), None);
    assert_eq!(events(&mut machine), [Event::ContentionEnded]);
    // Our answer was lost: the other one goes on, and it is the same contention.
    machine.hear(0, said(100, GREATER, INTERVAL), at(110));
    assert_eq!(run_until(&mut machine, at(160)), None);
    assert_eq!(events(&mut machine), [Event::ContentionEnded]);
    assert_eq!(run_until(&mut machine, at(5_000)), None);
    assert_eq!(events(&mut machine), [], "said once");
    machine.hear(0, said(100, GREATER, INTERVAL), at(5_000));
    assert_eq!(events(&mut machine), [heard], "another one");
}

#[test]
fn contention_is_forgotten_with_the_role() {
    let mut machine = active(rules(200, true), at(0));
    machine.hear(0, said(100, GREATER, INTERVAL), at(10));
    machine.hear(0, said(201, GREATER, INTERVAL), at(20));
    assert_eq!(machine.role(), Role::Backup);
    assert!(run_until(&mut machine, at(1_000)).is_some());
    assert_eq!(run_until(&mut machine, at(2_000)), None);
    assert!(!events(&mut machine).contains(&Event::ContentionEnded));
}

#[test]
fn contention_without_end_is_announced_once_a_second() {
    let mut machine = active(rules(200, true), at(0));
    let mut ended = 0;
    for millis in (0..20_000).step_by(100) {
        assert_eq!(run_until(&mut machine, at(millis)), None);
        machine.hear(0, said(100, GREATER, INTERVAL), at(millis));
        ended += events(&mut machine).iter().filter(|e| **e == Event::ContentionEnded).count();
    }
    assert!((20..=25).contains(&ended), "{ended}");
}

/// A backup that was away has adverts to read, and one to come.
#[test]
fn a_backup_is_not_fooled_by_its_own_pause() {
    for pause in [420, 1_000, 10_000] {
        let mut machine = backup(rules(100, true), 200, INTERVAL);
        machine.handle_timeout(at(pause));
        assert_eq!((machine.role(), sent(&mut machine)), (Role::Backup, None), "{pause}");
        assert_eq!(events(&mut machine), []);
        // An interval and the skew.
        let due = Instant::from_micros(pause * 1_000 + 160_937);
        assert_eq!(machine.poll_timeout(), Some(due));
        let mut heard = machine;
        heard.hear(0, said(200, GREATER, INTERVAL), at(pause + 99));
        assert_eq!(run_until(&mut heard, at(pause + 400)), None);
        let mut machine = backup(rules(100, true), 200, INTERVAL);
        machine.handle_timeout(at(pause));
        assert_eq!(run_until(&mut machine, at(pause + 400)), Some(due), "nobody is there");
    }
}

#[test]
fn a_backup_that_is_a_little_late_takes_over() {
    let mut machine = backup(rules(100, true), 200, INTERVAL);
    machine.handle_timeout(at(380));
    assert_eq!(machine.role(), Role::Active);
}

#[test]
fn a_backup_that_always_is_late_takes_over_in_the_end() {
    let mut machine = backup(rules(100, true), 200, INTERVAL);
    let mut turns = 0;
    while machine.role() == Role::Backup {
        let due = machine.poll_timeout().unwrap();
        machine.handle_timeout(due + Duration::from_secs(1));
        turns += 1;
    }
    assert_eq!(turns, 4);
}

/// Whoever took over meanwhile gives way without a word.
#[test]
fn an_active_router_that_was_away_speaks_up_and_announces_again() {
    let mut machine = active(rules(200, true), at(0));
    machine.handle_timeout(at(100));
    sent(&mut machine);
    machine.handle_timeout(at(400));
    assert_eq!((machine.role(), sent(&mut machine)), (Role::Active, Some(Outgoing::Advert)));
    assert_eq!(run_until(&mut machine, at(450)), None);
    assert_eq!(events(&mut machine), [Event::ContentionEnded]);
    let mut machine = active(rules(200, true), at(0));
    machine.handle_timeout(at(299));
    assert_eq!(run_until(&mut machine, at(1_000)), None);
    assert_eq!(events(&mut machine), [], "nobody can have taken over");
}

#[test]
fn the_owner_waits_for_nobody() {
    for preempt in [true, false] {
        let mut machine = machine(rules(255, preempt), at(5));
        assert_eq!(run_until(&mut machine, at(5)), Some(at(5)));
        assert_eq!(machine.history().latest().reason, Reason::Owner);
        machine.handle_fault(Fault::Gateway(FIRST), true, at(10));
        assert_eq!(machine.role(), Role::Backup);
        machine.hear(0, said(100, GREATER, INTERVAL), at(20));
        machine.handle_fault(Fault::Gateway(FIRST), false, at(30));
        assert_eq!(run_until(&mut machine, at(30)), Some(at(30)));
    }
}

#[test]
fn of_two_owners_one_is_active() {
    let mut machine = active(rules(255, true), at(0));
    machine.hear(0, said(255, GREATER, INTERVAL), at(10));
    assert_eq!(machine.role(), Role::Backup);
    for millis in (10..2_000).step_by(100) {
        assert_eq!(run_until(&mut machine, at(millis)), None);
        machine.hear(0, said(255, GREATER, INTERVAL), at(millis));
    }
}

/// Nobody else is there: service goes on.
#[test]
fn a_router_with_a_fault_is_the_last_resort() {
    let mut machine = active(rules(200, true), at(0));
    machine.handle_fault(Fault::Service(crate::addr::ServiceId(3)), true, at(0));
    assert_eq!(sent(&mut machine), Some(Outgoing::Resignation));
    assert_eq!(run_until(&mut machine, at(1_000)), Some(Instant::from_micros(399_609)));
    assert_eq!(machine.effective_priority(), 1);
    sent(&mut machine);
    // It keeps the role with another fault, and gives it up when asked to.
    machine.handle_fault(Fault::Gateway(FIRST), true, at(500));
    assert_eq!((machine.role(), sent(&mut machine)), (Role::Active, None));
    machine.yield_role(at(600));
    assert_eq!((machine.role(), sent(&mut machine)), (Role::Backup, Some(Outgoing::Resignation)));
}

#[test]
fn a_link_that_is_down_keeps_it_a_backup_for_good() {
    let mut machine = active(rules(200, true), at(0));
    machine.handle_link(SECOND, false, at(10));
    assert_eq!((machine.role(), sent(&mut machine)), (Role::Backup, Some(Outgoing::Resignation)));
    assert_eq!(run_until(&mut machine, at(100_000)), None);
    assert_eq!(machine.poll_timeout(), None);
    machine.hear(0, said(0, GREATER, INTERVAL), at(100_000));
    assert_eq!(run_until(&mut machine, at(101_000)), None);
    machine.handle_link(SECOND, true, at(102_000));
    let due = Instant::from_micros(102_000_000 + 321_875);
    assert_eq!(run_until(&mut machine, at(110_000)), Some(due), "it listens first");
}

#[test]
fn whoever_yielded_takes_over_when_the_other_one_dies() {
    let mut machine = active(rules(200, true), at(0));
    machine.yield_role(at(0));
    for millis in (20..5_000).step_by(100) {
        assert_eq!(run_until(&mut machine, at(millis)), None);
        machine.hear(0, said(100, GREATER, INTERVAL), at(millis));
    }
    assert_eq!(run_until(&mut machine, at(9_000)), Some(Instant::from_micros(4_920_000 + 399_609)));
    assert!(machine.is_yielded());
    // It is heard again, and is not preempted by the one that yielded.
    machine.hear(0, said(100, GREATER, INTERVAL), at(6_000));
    assert_eq!(machine.role(), Role::Backup);
    machine.resume(at(6_010));
    let mut became = None;
    for millis in (6_100..8_000).step_by(100) {
        became = became.or_else(|| run_until(&mut machine, at(millis)));
        machine.hear(0, said(100, GREATER, INTERVAL), at(millis.min(6_300)));
    }
    assert!(became.is_some(), "resume undoes it");
}

#[test]
fn nothing_is_left_to_do_after_a_shutdown() {
    let mut machine = active(rules(200, true), at(0));
    machine.shut_down(at(10));
    assert_eq!(sent(&mut machine), Some(Outgoing::Resignation));
    assert_eq!(machine.poll_timeout(), None);
    machine.handle_timeout(at(10_000));
    machine.hear(0, said(1, SMALLER, INTERVAL), at(10_000));
    machine.resume(at(10_000));
    machine.handle_link(FIRST, false, at(10_000));
    machine.handle_link(FIRST, true, at(10_000));
    assert_eq!((machine.role(), sent(&mut machine)), (Role::Backup, None));
    assert_eq!(machine.poll_timeout(), None);
}

#[test]
fn a_reload_changes_the_rules_and_not_the_role() {
    let networks = || [(FIRST, OWN, Some(0)), (SECOND, OWN, Some(1))].into_iter();
    let mut machine = active(rules(200, true), at(0));
    let faster = Rules { interval: Duration::from_millis(50), ..rules(100, true) };
    machine.configure(faster, networks(), at(30));
    assert_eq!((machine.role(), machine.poll_timeout()), (Role::Active, Some(at(30))));
    machine.handle_timeout(at(30));
    assert_eq!(sent(&mut machine), Some(Outgoing::Advert));
    assert_eq!(machine.poll_timeout(), Some(at(80)));

    let mut machine = backup(rules(100, true), 200, INTERVAL);
    let due = machine.poll_timeout();
    machine.configure(rules(50, true), networks(), at(30));
    assert_eq!((machine.role(), machine.poll_timeout()), (Role::Backup, due));
    machine.configure(rules(255, true), networks(), at(40));
    assert_eq!(run_until(&mut machine, at(40)), Some(at(40)), "it owns the addresses now");
    assert_eq!(events(&mut machine).len(), 1);

    // The network whose link is down is not listed any more.
    let mut machine = active(rules(200, true), at(0));
    machine.handle_link(SECOND, false, at(10));
    machine.handle_fault(Fault::Gateway(SECOND), true, at(10));
    machine.configure(rules(200, true), [(FIRST, OWN, Some(0))].into_iter(), at(1_000));
    assert!(machine.faults().is_empty());
    assert_eq!(run_until(&mut machine, at(2_000)), Some(Instant::from_micros(1_321_875)));
}

/// Whoever gives way is heard on every network, and the last word on another one puts off nothing.
#[test]
fn contention_on_two_networks_ends_as_soon_as_on_one() {
    let mut machine = active(rules(200, true), at(0));
    machine.hear(0, said(100, GREATER, INTERVAL), at(10));
    machine.hear(1, said(100, GREATER, INTERVAL), at(11));
    assert_eq!(run_until(&mut machine, at(59)), None);
    assert_eq!(events(&mut machine).len(), 1, "the contention alone");
    assert_eq!(run_until(&mut machine, at(60)), None);
    assert_eq!(events(&mut machine), [Event::ContentionEnded]);
    // On the other one alone it may go on: it is over when nothing has come for three intervals.
    machine.hear(1, said(100, GREATER, INTERVAL), at(200));
    machine.hear(1, said(100, GREATER, INTERVAL), at(300));
    assert_eq!(run_until(&mut machine, at(599)), None);
    assert_eq!(events(&mut machine), []);
    assert_eq!(run_until(&mut machine, at(600)), None);
    assert_eq!(events(&mut machine), [Event::ContentionEnded]);
}

/// D5: the router that stays may not have heard the other one before it gave way.
#[test]
fn whoever_gives_way_says_so() {
    let mut machine = active(rules(100, true), at(0));
    machine.hear(0, said(200, GREATER, INTERVAL), at(10));
    assert_eq!(machine.role(), Role::Backup);
    assert_eq!(sent(&mut machine), Some(Outgoing::Advert));
    machine.hear(0, said(200, GREATER, INTERVAL), at(20));
    assert_eq!(sent(&mut machine), None, "once");
}
