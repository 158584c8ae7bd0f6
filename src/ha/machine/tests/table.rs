//! Every state, every event, every circumstance: one row of a table says what comes of it.

use super::*;
use crate::addr::ServiceId;

/// What has made the router reluctant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    Faulty,
    Yielded,
}

/// A router's state and circumstances.
#[derive(Clone, Copy, Debug)]
struct Case {
    role: Role,
    priority: u8,
    preempt: bool,
    mood: Mood,
    has_links: bool,
    /// Of the network that an advert comes from.
    is_first: bool,
}

impl Case {
    fn effective(self) -> u8 {
        if self.mood == Mood::Well { self.priority } else { 1 }
    }

    fn preempts(self) -> bool {
        (self.preempt || self.priority == 255) && self.mood == Mood::Well && self.has_links
    }

    fn active_down(self) -> Duration {
        Duration::from_micros(300_000 + (256 - u64::from(self.effective())) * 100_000 / 256)
    }

    fn skew(self) -> Duration {
        Duration::from_micros((256 - u64::from(self.effective())) * 100_000 / 256)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happens {
    Resignation,
    Lower,
    EqualFromSmaller,
    EqualFromGreater,
    Higher,
    /// Nothing is due yet.
    Early,
    /// The last deadline of the state is there.
    Due,
    LinkDown,
    LinkUp,
    /// One that was not there.
    Fault,
    /// The one of [`Mood::Faulty`] goes.
    Cure,
    Yield,
    Resume,
    ShutDown,
}

const EVERYTHING: [Happens; 14] = [
    Happens::Resignation,
    Happens::Lower,
    Happens::EqualFromSmaller,
    Happens::EqualFromGreater,
    Happens::Higher,
    Happens::Early,
    Happens::Due,
    Happens::LinkDown,
    Happens::LinkUp,
    Happens::Fault,
    Happens::Cure,
    Happens::Yield,
    Happens::Resume,
    Happens::ShutDown,
];

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Nothing at all.
    Nothing,
    /// It waits as long as if it had just become a backup.
    WaitsAnew,
    /// It waits for the skew.
    WaitsForSkew,
    /// It waits as long as if it had not heard this advert, and preempts.
    Preempts,
    /// It is missing somebody, may not take over, and has nothing to say, being deaf itself.
    Misses,
    /// It waits for nothing that could make it active.
    WaitsInVain,
    /// It will be active at once.
    Claims,
    /// It becomes active, as nobody was heard.
    TakesOver,
    /// It sends an advert, and no more.
    Sends,
    /// It sends an advert at once, and notes that another one is active.
    Answers,
    /// It notes that another one is active, in vain.
    Notes,
    /// It becomes a backup, without a word.
    GivesWay,
    /// It becomes a backup, and tells everybody.
    Resigns,
}

type Row = (Role, &'static [Happens], fn(Case) -> bool, Then);

/// RFC 9568 sections 6.4.2 and 6.4.3, for several networks, links, faults and wishes.
const TABLE: &[Row] = {
    use Happens::*;
    use Role::{Active, Backup};
    &[
        (Backup, &[Resignation], |case| case.has_links, Then::WaitsForSkew),
        (Backup, &[Lower], |case| case.preempts() && case.is_first, Then::Preempts),
        (Backup, &[Lower], |case| case.has_links && !case.preempts(), Then::WaitsAnew),
        (
            Backup,
            &[Lower],
            |case| case.has_links && case.preempts() && !case.is_first,
            Then::WaitsAnew,
        ),
        (
            Backup,
            &[EqualFromSmaller, EqualFromGreater, Higher],
            |case| case.has_links,
            Then::WaitsAnew,
        ),
        (
            Backup,
            &[Resignation, Lower, EqualFromSmaller, EqualFromGreater, Higher],
            |case| !case.has_links,
            Then::Nothing,
        ),
        (Backup, &[Early], |_| true, Then::Nothing),
        (Backup, &[Due], |case| case.has_links, Then::TakesOver),
        (Backup, &[Due], |case| !case.has_links, Then::Misses),
        (Backup, &[LinkDown], |case| case.has_links, Then::WaitsInVain),
        (Backup, &[LinkDown], |case| !case.has_links, Then::Nothing),
        (Backup, &[LinkUp], |case| case.has_links, Then::Nothing),
        (Backup, &[LinkUp], |case| !case.has_links && case.effective() != 255, Then::WaitsAnew),
        (Backup, &[LinkUp], |case| !case.has_links && case.effective() == 255, Then::Claims),
        (Backup, &[Fault, Yield], |_| true, Then::Nothing),
        (Backup, &[Cure], |case| case.is_cured_by(Mood::Faulty), Then::Claims),
        (Backup, &[Cure], |case| !case.is_cured_by(Mood::Faulty), Then::Nothing),
        (Backup, &[Resume], |case| case.is_cured_by(Mood::Yielded), Then::Claims),
        (Backup, &[Resume], |case| !case.is_cured_by(Mood::Yielded), Then::Nothing),
        (Backup, &[ShutDown], |_| true, Then::WaitsInVain),
        (Active, &[Resignation, Lower, EqualFromSmaller], |_| true, Then::Answers),
        (Active, &[EqualFromGreater, Higher], |case| case.is_first, Then::GivesWay),
        (Active, &[EqualFromGreater, Higher], |case| !case.is_first, Then::Notes),
        (Active, &[Early], |_| true, Then::Nothing),
        (Active, &[Due], |_| true, Then::Sends),
        (Active, &[LinkDown, Yield, ShutDown], |_| true, Then::Resigns),
        (Active, &[Fault], |case| case.mood == Mood::Well, Then::Resigns),
        (Active, &[Fault], |case| case.mood != Mood::Well, Then::Nothing),
        (Active, &[LinkUp, Cure, Resume], |_| true, Then::Nothing),
    ]
};

impl Case {
    /// Whether it is the owner of the addresses again when `mood` goes.
    fn is_cured_by(self, mood: Mood) -> bool {
        self.mood == mood && self.priority == 255 && self.has_links
    }
}

fn every_case() -> Vec<Case> {
    let mut cases = Vec::new();
    for priority in [100, 255] {
        for mood in [Mood::Well, Mood::Faulty, Mood::Yielded] {
            for bits in 0..16 {
                let case = Case {
                    role: if bits & 1 == 0 { Role::Backup } else { Role::Active },
                    priority,
                    preempt: bits & 2 == 0,
                    mood,
                    has_links: bits & 4 == 0,
                    is_first: bits & 8 == 0,
                };
                // No active router has a link that is down.
                if case.role == Role::Backup || case.has_links {
                    cases.push(case);
                }
            }
        }
    }
    cases
}

const OLD_FAULT: Fault = Fault::Gateway(FIRST);
const NEW_FAULT: Fault = Fault::Service(ServiceId(1));
/// When the state was last changed, and when it happens.
const BEFORE: i64 = 1_000;
const NOW: i64 = 1_040;

/// The machine in that state: an active one has just sent, a backup has just heard the owner of the
/// addresses everywhere.
fn prepare(case: Case) -> Machine {
    let mut machine = machine(rules(case.priority, case.preempt), at(0));
    match case.mood {
        Mood::Well => {}
        Mood::Faulty => machine.handle_fault(OLD_FAULT, true, at(0)),
        Mood::Yielded => machine.yield_role(at(0)),
    }
    machine.handle_link(SECOND, case.has_links, at(0));
    match case.role {
        Role::Active => machine.become_active(Reason::Silence, at(BEFORE)),
        Role::Backup => {
            for position in 0..2 {
                machine.hear(position, said(255, GREATER, INTERVAL), at(BEFORE));
            }
        }
    }
    sent(&mut machine);
    events(&mut machine);
    machine
}

/// Makes it happen; `None` when it cannot, as no priority is lower or higher. Says when it did.
fn happen(machine: &mut Machine, case: Case, happens: Happens) -> Option<Instant> {
    let own = case.effective();
    let position = usize::from(!case.is_first);
    let mut now = at(NOW);
    let mut hear = |priority, from| {
        machine.hear(position, said(priority, from, INTERVAL), now);
    };
    match happens {
        Happens::Resignation => hear(0, GREATER),
        Happens::Lower => hear(own.checked_sub(1).filter(|lower| *lower > 0)?, GREATER),
        Happens::EqualFromSmaller => hear(own, SMALLER),
        Happens::EqualFromGreater => hear(own, GREATER),
        Happens::Higher => hear(own.checked_add(1)?, SMALLER),
        Happens::Early => machine.handle_timeout(now),
        Happens::Due => {
            now = machine.poll_timeout()?;
            machine.handle_timeout(now);
        }
        Happens::LinkDown => machine.handle_link(SECOND, false, now),
        Happens::LinkUp => machine.handle_link(SECOND, true, now),
        Happens::Fault => machine.handle_fault(NEW_FAULT, true, now),
        Happens::Cure => machine.handle_fault(OLD_FAULT, false, now),
        Happens::Yield => machine.yield_role(now),
        Happens::Resume => machine.resume(now),
        Happens::ShutDown => machine.shut_down(now),
    }
    Some(now)
}

/// Role, what is sent, what is told, and what makes a backup active.
type Outcome = (Role, Option<Outgoing>, Vec<Event>, Option<(Instant, Reason)>);

fn expected(case: Case, happens: Happens, then: Then, now: Instant) -> Outcome {
    let (same, silence) = (case.role, Reason::Silence);
    let before = at(BEFORE) + case.active_down();
    let undisturbed = (case.role == Role::Backup && case.has_links).then_some((before, silence));
    let role = |role, reason| vec![Event::Role { role, reason }];
    let contention = || {
        let network = if case.is_first { FIRST } else { SECOND };
        let own = case.effective();
        let (from, priority) = match happens {
            Happens::Resignation => return Vec::new(),
            Happens::Lower => (GREATER, own - 1),
            Happens::EqualFromSmaller => (SMALLER, own),
            Happens::EqualFromGreater => (GREATER, own),
            _ => (SMALLER, own + 1),
        };
        vec![Event::Contention { network, from, priority }]
    };
    match then {
        Then::Nothing => (same, None, Vec::new(), undisturbed),
        Then::WaitsAnew => (same, None, Vec::new(), Some((now + case.active_down(), silence))),
        Then::WaitsForSkew => {
            let peer = Reason::PeerResigned(GREATER);
            (same, None, Vec::new(), Some((now + case.skew(), peer)))
        }
        Then::Preempts => (same, None, Vec::new(), Some((before, Reason::Preempted(GREATER)))),
        // Who is deaf itself says nothing about the other router.
        Then::Misses | Then::WaitsInVain => (same, None, Vec::new(), None),
        Then::Claims => (same, None, Vec::new(), Some((now, Reason::Owner))),
        Then::TakesOver => {
            (Role::Active, Some(Outgoing::Advert), role(Role::Active, silence), None)
        }
        Then::Sends => (same, Some(Outgoing::Advert), Vec::new(), None),
        Then::Answers => (same, Some(Outgoing::Advert), contention(), None),
        Then::Notes => (same, None, contention(), None),
        Then::GivesWay => {
            let (by, priority) = match happens {
                Happens::Higher => (SMALLER, case.effective() + 1),
                _ => (GREATER, case.effective()),
            };
            let outranked = role(Role::Backup, Reason::Outranked { by, priority });
            (
                Role::Backup,
                Some(Outgoing::Advert),
                outranked,
                Some((now + case.active_down(), silence)),
            )
        }
        Then::Resigns => {
            let reluctant = Case { mood: Mood::Yielded, ..case };
            let anew = Some((now + reluctant.active_down(), silence));
            let (reason, wait) = match happens {
                Happens::LinkDown => (Reason::LinkDown(SECOND), None),
                Happens::Fault => (Reason::Fault(NEW_FAULT), anew),
                Happens::Yield => (Reason::Yielded, anew),
                _ => (Reason::ShutDown, None),
            };
            (Role::Backup, Some(Outgoing::Resignation), role(Role::Backup, reason), wait)
        }
    }
}

fn observed(machine: &mut Machine) -> Outcome {
    let takeover = match machine.role() {
        Role::Backup if !machine.is_stopped => machine.takeover(),
        _ => None,
    };
    (machine.role(), sent(machine), events(machine), takeover)
}

#[test]
fn every_transition_is_that_of_the_table() {
    let mut tried = vec![0; TABLE.len()];
    for case in every_case() {
        for happens in EVERYTHING {
            let mut machine = prepare(case);
            let Some(now) = happen(&mut machine, case, happens) else { continue };
            let rows: Vec<_> = (0..TABLE.len())
                .filter(|row| {
                    let (role, when, guard, _) = TABLE[*row];
                    role == case.role && when.contains(&happens) && guard(case)
                })
                .collect();
            let [row] = rows.as_slice() else { panic!("{happens:?} in {case:?}: rows {rows:?}") };
            tried[*row] += 1;
            let then = TABLE[*row].3;
            let expected = expected(case, happens, then, now);
            assert_eq!(observed(&mut machine), expected, "{happens:?} in {case:?}: {then:?}");
            if machine.role() == Role::Active {
                assert!(machine.poll_timeout().is_some(), "{happens:?} in {case:?}");
            }
        }
    }
    assert!(tried.iter().all(|times| *times > 0), "a row that says nothing: {tried:?}");
}
