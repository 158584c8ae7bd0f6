//! The keys of a `[[service]]` that say how new flows are given to its servers.

use super::duration;
use super::front::Front;
use super::model::{Balance, Persistence, Scheduler, SchedulerFlags, Timeouts};
use super::section::{At, Place, Section, Value};
use super::timeouts;
use crate::time::Duration;

/// What was read.
pub(super) struct Read<'a> {
    pub(super) scheduler: Scheduler,
    pub(super) balance: Balance,
    /// Where `one_packet` is asked for.
    pub(super) one_packet: Option<Place<'a>>,
}

/// Reads them from the section of a service.
pub(super) fn read<'a>(section: &mut Section<'a>, front: &Front<'a>, router: Timeouts) -> Read<'a> {
    let scheduler = section.get("scheduler").and_then(|value| value.choice(&SCHEDULERS, &[]));
    let scheduler = scheduler.map_or(Scheduler::WeightedLeastConnection, |at| at.value);
    let flags = section.get("scheduler_flags").and_then(|value| flags(value, scheduler));
    let persistence = section.get("persistence");
    let is_persistent = persistence.is_some();
    if let Some(ports) = &front.ports
        && ports.value.is_all()
        && !is_persistent
    {
        ports.place.wrong(
            "0 stands for all ports, which takes persistence: add persistence = { timeout = \"300s\" }, \
             or name a port or a range",
        );
    }
    let persistence = persistence.and_then(persistent);
    let quiescent = section.get("expire_quiescent").and_then(Value::boolean);
    let quiescent = quiescent.and_then(|at| {
        at.check(|on| match *on && !is_persistent {
            true => {
                Err("says when persistence does not hold; add persistence, or leave it out".into())
            }
            false => Ok(()),
        })
    });
    let one_packet = section.get("one_packet").and_then(Value::boolean).filter(|at| at.value);
    let timeouts = timeouts::of_service(section, router);
    let balance = Balance {
        flags: flags.unwrap_or_default(),
        persistence,
        expire_quiescent: quiescent.is_some_and(|at| at.value),
        one_packet: one_packet.is_some(),
        timeouts,
    };
    Read { scheduler, balance, one_packet: one_packet.map(|at| at.place) }
}

fn flags(value: Value<'_>, scheduler: Scheduler) -> Option<SchedulerFlags> {
    let mut flags = SchedulerFlags::default();
    for value in value.list("a list of words such as [\"sh-port\"]")? {
        let Some(flag) = value.choice(&FLAGS, &[]) else { continue };
        let Some(At { value: (of, is_port), .. }) = flag.check(|(of, _)| match *of == scheduler {
            true => Ok(()),
            false => {
                Err(format!("is for scheduler = \"{of}\", not for \"{scheduler}\"; leave it out"))
            }
        }) else {
            continue;
        };
        debug_assert_eq!(of, scheduler);
        if is_port {
            flags.port = true;
        } else {
            flags.fallback = true;
        }
    }
    Some(flags)
}

fn persistent(value: Value<'_>) -> Option<Persistence> {
    let mut section = value.section()?;
    let timeout = section.get("timeout").and_then(|value| value.parse(TIMEOUT, timeout));
    let prefix = section.get("prefix").and_then(|value| value.integer(1..=32));
    section.finish();
    let default = Persistence::default();
    Some(Persistence {
        timeout: timeout.map_or(default.timeout, |at| at.value),
        prefix: prefix.map_or(default.prefix, |at| at.value),
    })
}

const TIMEOUT: &str = "1s to 168h as a whole number with a unit, such as \"300s\"";

fn timeout(text: &str) -> Option<Duration> {
    let allowed = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 60 * 60);
    duration::parse(text).filter(|timeout| allowed.contains(timeout))
}

const SCHEDULERS: [(&str, Scheduler); 14] = [
    ("rr", Scheduler::RoundRobin),
    ("wrr", Scheduler::WeightedRoundRobin),
    ("lc", Scheduler::LeastConnection),
    ("wlc", Scheduler::WeightedLeastConnection),
    ("sed", Scheduler::ShortestExpectedDelay),
    ("nq", Scheduler::NeverQueue),
    ("sh", Scheduler::SourceHash),
    ("dh", Scheduler::DestinationHash),
    ("mh", Scheduler::Maglev),
    ("fo", Scheduler::Failover),
    ("ovf", Scheduler::Overflow),
    ("lblc", Scheduler::Locality),
    ("lblcr", Scheduler::LocalityReplicated),
    ("twos", Scheduler::PowerOfTwo),
];

/// Whose flag it is, and whether it is about the client's port.
const FLAGS: [(&str, (Scheduler, bool)); 4] = [
    ("sh-port", (Scheduler::SourceHash, true)),
    ("sh-fallback", (Scheduler::SourceHash, false)),
    ("mh-port", (Scheduler::Maglev, true)),
    ("mh-fallback", (Scheduler::Maglev, false)),
];
