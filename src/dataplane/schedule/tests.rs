use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::addr::{Ports, Proto, ServiceId};
use crate::table::{Balance, FlowLimits, Lifecycle, Method};

fn service(scheduler: Scheduler, weights: &[u32]) -> Service {
    let server = |(id, weight): (u32, &u32)| Server {
        id: ServerId(id),
        name: id.to_string(),
        address: Ipv4Addr::from_bits(0x0a00_0001 + id),
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
    Aim { client, client_port: 40_000, destination, now: Instant::from_secs(1_000), outlook: 0 }
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
            let other = Aim { outlook: 1, ..aim() };
            let chosen = schedulers.choose(&service, &other, |_| bad).map(|s| s.id.0);
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

/// What may happen to a service of `twos`.
#[derive(Clone, Debug)]
enum Event {
    Choose,
    Load(usize, Load),
    Full(usize, bool),
    /// Whether it is out, and deaf.
    Answers(usize, bool, bool),
    Weigh(usize, u32),
}

fn event() -> impl Strategy<Value = Event> {
    let load = (0u32..20, 0u32..600).prop_map(|(active, inactive)| Load { active, inactive });
    let weight = prop_oneof![2 => Just(0), 6 => 1u32..6, 1 => 1u32..=65_535];
    prop_oneof![
        6 => Just(Event::Choose),
        4 => (0usize..8, load).prop_map(|(at, load)| Event::Load(at, load)),
        2 => (0usize..8, any::<bool>()).prop_map(|(at, is_full)| Event::Full(at, is_full)),
        2 => (0usize..8, any::<bool>(), any::<bool>())
            .prop_map(|(at, out, deaf)| Event::Answers(at, out, deaf)),
        1 => (0usize..8, weight).prop_map(|(at, weight)| Event::Weigh(at, weight)),
    ]
}

/// As the kernel walks its list, with the numbers that it drew.
fn two_drawn(servers: &[(u32, Candidate)], draw: impl FnOnce(u64) -> [u64; 2]) -> Option<usize> {
    let usable = |deaf_too: bool| {
        let able = servers.iter().enumerate().filter(move |(_, (weight, known))| {
            *weight > 0 && !known.is_out && !known.is_full && (deaf_too || !known.is_deaf)
        });
        able.collect::<Vec<_>>()
    };
    let answering = usable(false);
    let list = if answering.is_empty() { usable(true) } else { answering };
    if list.is_empty() {
        return None;
    }
    let total = list.iter().map(|(_, (weight, _))| u64::from(*weight)).sum();
    let [first, second] = draw(total).map(|number| {
        let mut left = i64::try_from(number).unwrap();
        let (at, (weight, known)) = list
            .iter()
            .find(|(_, (weight, _))| {
                left -= i64::from(*weight);
                left <= 0
            })
            .unwrap();
        let Load { active, inactive } = known.load;
        (*at, u64::from(*weight), 256 * u64::from(active) + u64::from(inactive))
    });
    Some(if second.1 * first.2 > first.1 * second.2 { second.0 } else { first.0 })
}

proptest! {
    #[test]
    fn two_are_drawn_as_in_a_walk_over_the_list(
        weights in prop::collection::vec(prop_oneof![1 => Just(0), 4 => 1u32..6], 0..8),
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut service = service(Scheduler::PowerOfTwo, &weights);
        let mut schedulers = started(&service, &[]);
        let mut numbers = Draw::new(&[7; 16], Use::Servers);
        let mut known = vec![Candidate::default(); weights.len()];
        let mut outlook = 0;
        for event in events {
            match event {
                Event::Choose => {
                    let aim = Aim { outlook, ..aim() };
                    let chosen = schedulers.choose(&service, &aim, |s| known[s.id.index()]);
                    let servers: Vec<_> =
                        service.servers.iter().map(|s| s.weight).zip(known.clone()).collect();
                    let expected = two_drawn(&servers, |total| numbers.two_up_to(total));
                    prop_assert_eq!(chosen.map(|server| server.id.index()), expected);
                }
                Event::Load(at, load) if at < known.len() => known[at].load = load,
                Event::Full(at, is_full) if at < known.len() => known[at].is_full = is_full,
                Event::Answers(at, is_out, is_deaf) if at < known.len() => {
                    (known[at].is_out, known[at].is_deaf) = (is_out, is_deaf);
                    outlook += 1;
                }
                Event::Weigh(at, weight) if at < known.len() => {
                    let before = service.clone();
                    service.servers[at].weight = weight;
                    schedulers.install(Some(&before), &service);
                    for (server, known) in service.servers.iter().zip(&known) {
                        schedulers.note(server.id, known.load, known.is_full);
                    }
                }
                _ => {}
            }
            for (server, known) in service.servers.iter().zip(&known) {
                schedulers.note(server.id, known.load, known.is_full);
            }
        }
    }
}

/// A server as `choose` may find it.
#[derive(Clone, Copy, Debug)]
struct Standing {
    weight: u32,
    known: Candidate,
}

fn standing() -> impl Strategy<Value = Standing> {
    let load = (0u32..9, 0u32..900).prop_map(|(active, inactive)| Load { active, inactive });
    let share = prop_oneof![4 => Just(WHOLE), 1 => 1..WHOLE];
    let weight = prop_oneof![1 => Just(0), 6 => 1u32..6];
    let rarely = || prop::bool::weighted(0.1);
    (weight, load, share, rarely(), rarely(), rarely()).prop_map(
        |(weight, load, share, is_deaf, is_out, is_full)| Standing {
            weight,
            known: Candidate { load, share, is_deaf, is_out, is_full },
        },
    )
}

/// What the scheduler takes, looking at each server: the first with the least of a fraction.
fn least_of(
    servers: &[Standing],
    fraction: impl Fn(u32, Load) -> Option<(u64, u64)>,
) -> Option<u32> {
    let able = servers.iter().zip(0..).filter_map(|(Standing { weight, known }, id)| {
        let (load, per) = fraction(*weight, known.load).filter(|_| *weight > 0)?;
        known.may_take().then_some((known.is_deaf, load, per * u64::from(known.share), id))
    });
    let able: Vec<_> = able.collect();
    let answering = able.iter().any(|(is_deaf, ..)| !is_deaf);
    let mut best: Option<(u64, u64, u32)> = None;
    for (is_deaf, load, per, id) in able {
        if is_deaf && answering {
            continue;
        }
        if best.is_none_or(|(least, of, _)| load * of < least * per) {
            best = Some((load, per, id));
        }
    }
    best.map(|(.., id)| id)
}

proptest! {
    #[test]
    fn ranks_lead_where_a_look_at_each_server_leads(
        servers in prop::collection::vec(standing(), 0..80),
    ) {
        let weights: Vec<_> = servers.iter().map(|standing| standing.weight).collect();
        // From lc to ovf.
        for scheduler in WITHOUT_BUCKETS[2..8].iter().copied() {
            let service = service(scheduler, &weights);
            let mut schedulers = started(&service, &[]);
            for (server, standing) in service.servers.iter().zip(&servers) {
                schedulers.note(server.id, standing.known.load, standing.known.is_full);
            }
            let known = |server: &Server| servers[server.id.index()].known;
            let chosen = schedulers.choose(&service, &aim(), known).map(|server| server.id.0);
            let overhead = |load: Load| 256 * u64::from(load.active) + u64::from(load.inactive);
            let delay = |weight, load: Load| (u64::from(load.active) + 1, u64::from(weight));
            let unshared: Vec<_> = servers
                .iter()
                .map(|s| Standing { known: Candidate { share: WHOLE, ..s.known }, ..*s })
                .collect();
            let heaviest = |weight| (u64::from(100 - weight), 1);
            let expected = match scheduler {
                Scheduler::LeastConnection => least_of(&servers, |_, load| Some((overhead(load), 1))),
                Scheduler::WeightedLeastConnection => {
                    least_of(&servers, |weight, load| Some((overhead(load), weight.into())))
                }
                Scheduler::ShortestExpectedDelay => {
                    least_of(&servers, |weight, load| Some(delay(weight, load)))
                }
                Scheduler::NeverQueue => least_of(&servers, |weight, load| {
                    Some(if load.active == 0 { (0, 1) } else { delay(weight, load) })
                }),
                Scheduler::Failover => least_of(&unshared, |weight, _| Some(heaviest(weight))),
                _ => least_of(&unshared, |weight, load| {
                    (load.active <= weight).then_some(heaviest(weight))
                }),
            };
            prop_assert_eq!(chosen, expected, "{:?}", scheduler);
        }
    }
}

/// `lblc` and `lblcr` remember a server that was removed, for when it is added again.
#[test]
fn who_comes_back_is_remembered() {
    for scheduler in [Scheduler::Locality, Scheduler::LocalityReplicated] {
        let old = service(scheduler, &[1, 1]);
        let mut without = old.clone();
        without.servers.remove(0);
        // Its flows are gone, and it is another one by id; the other is less loaded.
        let mut back = old.clone();
        back.servers[0].id = ServerId(2);
        let loads = [1, 0, 1].map(|active| Load { active, inactive: 0 });
        let known =
            |server: &Server| Candidate { load: loads[server.id.index()], ..Candidate::default() };
        let mut schedulers = started(&old, &[]);
        schedulers.reserve((1, 3));
        let next = |schedulers: &mut Schedulers, service: &Service| {
            schedulers.choose(service, &aim(), known).unwrap().id.0
        };
        let install = |schedulers: &mut Schedulers, before: &Service, after: &Service| {
            schedulers.install(Some(before), after);
            for server in &after.servers {
                schedulers.note(server.id, loads[server.id.index()], false);
            }
        };
        assert_eq!(next(&mut schedulers, &old), 0, "{scheduler:?}");
        install(&mut schedulers, &old, &without);
        schedulers.retire(old.id, ServerId(0));
        install(&mut schedulers, &without, &back);
        assert_eq!(next(&mut schedulers, &back), 2, "{scheduler:?}");
        // Called meanwhile, the address has another one.
        install(&mut schedulers, &back, &without);
        assert_eq!(next(&mut schedulers, &without), 1, "{scheduler:?}");
        install(&mut schedulers, &without, &back);
        assert_eq!(next(&mut schedulers, &back), 1, "{scheduler:?}");
    }
}
