use std::collections::BTreeMap;

use super::*;
use crate::addr::{Ports, Proto, ServiceId};
use crate::table::{Balance, FlowLimits, Lifecycle, Method};

fn service(scheduler: Scheduler, weights: &[u32]) -> Service {
    let server = |(id, weight): (u32, &u32)| Server {
        id: ServerId(id),
        name: id.to_string(),
        address: Ipv4Addr::LOCALHOST,
        port: 80,
        weight: *weight,
        configured_weight: *weight,
        last_weight: *weight,
        limits: FlowLimits::default(),
        is_up: true,
        is_drained: false,
    };
    let gcd = |a: u32, b: &u32| {
        (1..=a.max(*b)).rfind(|d| a.is_multiple_of(*d) && b.is_multiple_of(*d)).unwrap_or(0)
    };
    Service {
        method: Method::Nat,
        id: ServiceId(0),
        name: String::new(),
        proto: Proto::Tcp,
        address: Ipv4Addr::LOCALHOST,
        ports: Ports::of(80),
        group: None,
        scheduler,
        balance: Balance::default(),
        health: None,
        servers: (0..).zip(weights).map(server).collect(),
        fallback: None,
        lifecycle: Lifecycle::default(),
        weight_gcd: weights.iter().filter(|w| **w > 0).fold(0, gcd).max(1),
        weight_max: weights.iter().copied().max().unwrap_or(0),
        buckets: None,
    }
}

fn aim() -> Aim {
    let (client, destination) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::LOCALHOST);
    Aim { client, client_port: 40_000, destination, now: Instant::from_secs(1_000) }
}

/// The schedulers, with `service` and its servers' `loads` known to them.
fn started(service: &Service, loads: &[Load]) -> Schedulers {
    let mut schedulers = Schedulers::new(&[7; 16]);
    schedulers.reserve((1, service.servers.len()));
    schedulers.install(None, service);
    let loads = loads.iter().copied().chain(std::iter::repeat(Load::default()));
    for (server, load) in service.servers.iter().zip(loads) {
        schedulers.note(server.id, load, false);
    }
    schedulers
}

fn picks(service: &Service, count: usize) -> Vec<u32> {
    let mut schedulers = started(service, &[]);
    let plain = |_: &Server| Candidate::default();
    (0..count).filter_map(|_| schedulers.choose(service, &aim(), plain)).map(|s| s.id.0).collect()
}

const WITHOUT_BUCKETS: [Scheduler; 11] = [
    Scheduler::RoundRobin,
    Scheduler::WeightedRoundRobin,
    Scheduler::LeastConnection,
    Scheduler::WeightedLeastConnection,
    Scheduler::ShortestExpectedDelay,
    Scheduler::NeverQueue,
    Scheduler::Failover,
    Scheduler::Overflow,
    Scheduler::Locality,
    Scheduler::LocalityReplicated,
    Scheduler::PowerOfTwo,
];

#[test]
fn wrr_first_walk_then_the_known_cycles() {
    for (weights, cycle) in [
        (&[4, 3, 2][..], &[0, 0, 1, 0, 1, 2, 0, 1, 2][..]),
        (&[6, 4, 2], &[0, 0, 1, 0, 1, 2]),
        (&[4, 2], &[0, 0, 1]),
        (&[3, 0, 1], &[0, 0, 0, 2]),
    ] {
        let first = weights.iter().filter(|w| **w > 0).count();
        let picked =
            picks(&service(Scheduler::WeightedRoundRobin, weights), first + 2 * cycle.len());
        let (_, steady) = picked.split_at(first);
        assert_eq!(steady, [cycle, cycle].concat(), "{weights:?}");
    }
}

#[test]
fn zero_weights_take_nothing() {
    for scheduler in WITHOUT_BUCKETS {
        assert_eq!(picks(&service(scheduler, &[0, 0]), 3), Vec::<u32>::new(), "{scheduler:?}");
        assert_eq!(picks(&service(scheduler, &[]), 3), Vec::<u32>::new(), "{scheduler:?}");
        assert_eq!(picks(&service(scheduler, &[0, 1]), 3), [1, 1, 1], "{scheduler:?}");
    }
}

/// Whoever answers no client is never chosen, whoever is full neither, and whoever does not answer ARP
/// only where nobody does.
#[test]
fn those_who_may_not_are_passed_over_by_all() {
    for scheduler in WITHOUT_BUCKETS {
        let service = service(scheduler, &[9, 9, 1]);
        for (how, bad) in [
            ("out", Candidate { is_out: true, ..Candidate::default() }),
            ("full", Candidate { is_full: true, ..Candidate::default() }),
            ("deaf", Candidate { is_deaf: true, ..Candidate::default() }),
        ] {
            // In turn means in turn, also to the deaf.
            let in_turn =
                matches!(scheduler, Scheduler::RoundRobin | Scheduler::WeightedRoundRobin);
            if in_turn && how == "deaf" {
                continue;
            }
            let mut schedulers = started(&service, &[]);
            let candidate = |server: &Server| match server.id.0 {
                0 | 1 => bad,
                _ => Candidate::default(),
            };
            for _ in 0..4 {
                let chosen = schedulers.choose(&service, &aim(), candidate).map(|s| s.id.0);
                assert_eq!(chosen, Some(2), "{scheduler:?} {how}");
            }
            let chosen = schedulers.choose(&service, &aim(), |_| bad).map(|s| s.id.0);
            // What lblc remembers it gives, full or not.
            let is_kept = scheduler == Scheduler::Locality && how == "full";
            assert_eq!(chosen.is_some(), how == "deaf" || is_kept, "{scheduler:?} {how}");
        }
    }
}

#[test]
fn rr_goes_on_after_the_predecessor_of_a_deleted_server() {
    let old = service(Scheduler::RoundRobin, &[1, 1, 1]);
    let mut new = old.clone();
    new.servers.remove(1);
    let mut schedulers = started(&old, &[]);
    let next = |service: &Service, schedulers: &mut Schedulers| {
        schedulers.choose(service, &aim(), |_| Candidate::default()).unwrap().id.0
    };
    assert_eq!([next(&old, &mut schedulers), next(&old, &mut schedulers)], [0, 1]);
    schedulers.install(Some(&old), &new);
    assert_eq!([next(&new, &mut schedulers), next(&new, &mut schedulers)], [2, 0]);
}

/// Who is out is passed over, however heavy, and nobody waits for it.
#[test]
fn wrr_goes_on_in_proportion_without_those_who_are_out() {
    let service = service(Scheduler::WeightedRoundRobin, &[60_000, 3, 0, 1]);
    let mut schedulers = started(&service, &[]);
    let out = |server: &Server| Candidate { is_out: server.id.0 == 0, ..Candidate::default() };
    let mut picks = |count| -> Vec<u32> {
        (0..count).map(|_| schedulers.choose(&service, &aim(), out).unwrap().id.0).collect()
    };
    picks(2);
    assert_eq!(picks(8), [1, 1, 1, 3, 1, 1, 1, 3]);
    let none = |_: &Server| Candidate { is_out: true, ..Candidate::default() };
    assert!(schedulers.choose(&service, &aim(), none).is_none());
}

/// The largest numbers there can be are compared rightly.
#[test]
fn a_share_counts_like_a_smaller_weight() {
    let service = service(Scheduler::WeightedLeastConnection, &[65_535, 65_535]);
    let most = Load { active: 1 << 23, inactive: 0 };
    for (active, share, expected) in
        [(1 << 23, WHOLE - 1, 0), (1 << 23, WHOLE, 0), ((1 << 23) - 1, WHOLE, 1), (1 << 14, 1, 1)]
    {
        let second = Load { active, inactive: 0 };
        let mut schedulers = started(&service, &[most, second]);
        let candidate = |server: &Server| match server.id.0 {
            0 => Candidate { load: most, ..Candidate::default() },
            _ => Candidate { load: second, share, ..Candidate::default() },
        };
        let chosen = schedulers.choose(&service, &aim(), candidate).unwrap().id.0;
        assert_eq!(chosen, expected, "{active} {share}");
    }
}

/// What the kernel's two draws come to.
#[test]
fn two_are_drawn_by_weight_and_the_less_loaded_wins() {
    let service = service(Scheduler::PowerOfTwo, &[1, 2, 5]);
    let mut schedulers = started(&service, &[]);
    let mut counts = BTreeMap::new();
    const DRAWS: u32 = 20_000;
    for _ in 0..DRAWS {
        let chosen = schedulers.choose(&service, &aim(), |_| Candidate::default()).unwrap();
        *counts.entry(chosen.id.0).or_insert(0_u32) += 1;
    }
    // Of nine numbers from 0, two fall to the first, two to the second, five to the third; the second
    // draw never wins between equals.
    for (id, of_nine) in [(0, 2), (1, 2), (2, 5)] {
        let expected = DRAWS * of_nine / 9;
        assert!(counts[&id].abs_diff(expected) < DRAWS / 50, "{counts:?}");
    }
    // With much to do it loses every draw against another.
    let busy = Load { active: 1_000, inactive: 0 };
    let candidate = |server: &Server| match server.id.0 {
        2 => Candidate { load: busy, ..Candidate::default() },
        _ => Candidate::default(),
    };
    let chosen =
        (0..DRAWS).filter(|_| schedulers.choose(&service, &aim(), candidate).unwrap().id.0 == 2);
    let chosen = u32::try_from(chosen.count()).unwrap();
    assert!(chosen.abs_diff(DRAWS * 25 / 81) < DRAWS / 50, "{chosen}");
}

/// A set loses its most loaded server once it has not changed for a day, and an address that nobody
/// calls for a day is forgotten.
#[test]
fn a_set_shrinks_after_a_day() {
    let service = service(Scheduler::LocalityReplicated, &[1, 1]);
    let loads = [Load { active: 2, inactive: 0 }, Load::default()];
    let mut schedulers = started(&service, &[]);
    let at = |seconds, loads: [Load; 2], schedulers: &mut Schedulers| {
        let aim = Aim { now: Instant::from_secs(seconds), ..aim() };
        for (server, load) in service.servers.iter().zip(loads) {
            schedulers.note(server.id, load, false);
        }
        let known =
            |server: &Server| Candidate { load: loads[server.id.index()], ..Candidate::default() };
        schedulers.choose(&service, &aim, known).unwrap().id.0
    };
    const DAY: i64 = 86_400;
    assert_eq!(at(1_000, [Load::default(); 2], &mut schedulers), 0);
    assert_eq!(at(1_001, loads, &mut schedulers), 1, "the first has too much to do: one joins");
    let even = [Load { active: 1, inactive: 0 }; 2];
    assert_eq!(at(1_002, even, &mut schedulers), 1, "the newest is first");
    // Called at midday, so that it is not forgotten.
    at(1_001 + DAY / 2, even, &mut schedulers);
    let busy = [Load { active: 3, inactive: 0 }, Load { active: 1, inactive: 0 }];
    assert_eq!(at(1_002 + DAY, busy, &mut schedulers), 1, "the last choice of two");
    let idle = [Load::default(), Load { active: 1, inactive: 0 }];
    assert_eq!(at(1_003 + DAY, idle, &mut schedulers), 1, "the most loaded one has left");
    assert_eq!(at(1_004 + 2 * DAY + 1, idle, &mut schedulers), 0, "forgotten");
}
