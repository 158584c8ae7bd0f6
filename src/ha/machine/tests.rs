//! The machine against a table of what it should do, and to the millisecond.

mod table;
mod timing;

use super::*;
use crate::config::AdvertChecksum;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const SMALLER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);
/// Greater as a number, but not byte by byte as signed ones.
const GREATER: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);
const FIRST: NetworkId = NetworkId(0);
const SECOND: NetworkId = NetworkId(1);
const INTERVAL: Duration = Duration::from_millis(100);

fn at(millis: i64) -> Instant {
    Instant::from_millis(millis)
}

fn rules(priority: u8, preempt: bool) -> Rules {
    Rules {
        version: VrrpVersion::V3,
        priority,
        interval: INTERVAL,
        preempt,
        preempt_delay: Duration::ZERO,
        waits_for_sync: None,
    }
}

fn machine(rules: Rules, now: Instant) -> Machine {
    Machine::new(rules, [(FIRST, OWN), (SECOND, OWN)].into_iter(), now)
}

fn said(priority: u8, from: Ipv4Addr, interval: Duration) -> Said {
    Said { from, priority, interval }
}

/// What is to be sent on every network; panics when the networks differ.
fn sent(machine: &mut Machine) -> Option<Outgoing> {
    let all: Vec<_> = std::iter::from_fn(|| machine.poll_transmit()).collect();
    match all.as_slice() {
        [] => None,
        [(0, first), (1, second)] if first == second => Some(*first),
        other => panic!("the networks differ: {other:?}"),
    }
}

fn events(machine: &mut Machine) -> Vec<Event> {
    std::iter::from_fn(|| machine.events.pop()).collect()
}

/// Calls `handle_timeout` exactly when it is due, up to `until`; says when the role changed.
fn run_until(machine: &mut Machine, until: Instant) -> Option<Instant> {
    let role = machine.role();
    while let Some(due) = machine.poll_timeout().filter(|due| *due <= until) {
        machine.handle_timeout(due);
        if machine.role() != role {
            return Some(due);
        }
        assert!(
            machine.poll_timeout().is_none_or(|next| next > due),
            "it asks for what it has had"
        );
    }
    None
}

/// One that is active since `now`, and has been asked for everything.
fn active(rules: Rules, now: Instant) -> Machine {
    let mut machine = machine(rules, now);
    machine.become_active(Reason::Silence, now);
    sent(&mut machine);
    events(&mut machine);
    machine
}

#[test]
fn settings_become_rules() {
    let settings = Settings {
        version: VrrpVersion::V3,
        priority: 7,
        advert_interval: INTERVAL,
        preempt: true,
        preempt_delay: Duration::ZERO,
        checksum: AdvertChecksum::Message,
        networks: Vec::new(),
        key: None,
        waits_for_sync: None,
    };
    assert_eq!(Rules::new(&settings), rules(7, true));
}
