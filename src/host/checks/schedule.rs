//! Which check has its turn next: in the order of the plan's phases, never faster than twice the
//! plan's own pace, however late it is.

use std::sync::Arc;

use crate::health::{Check, Group, Plan};
use crate::host::allowance::Allowance;
use crate::time::{Duration, Instant};

/// Checks begun at once, at the most, where turns fall together.
const BURST: u32 = 16;

/// Where each group of the plan stands.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    cursors: Vec<Cursor>,
    pace: Option<Allowance>,
    skipped: bool,
}

/// The next turn of a group: its check at `next`, in the round that began at `round`.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    round: Instant,
    next: usize,
}

impl Schedule {
    /// Goes on with another plan. Turns that were due stay due.
    pub(super) fn install(&mut self, old: &Plan, new: &Plan, now: Instant) {
        let resume = |group: &Group| {
            let before = old.groups().iter().position(|old| old.interval == group.interval);
            let at = before.and_then(|at| Some(self.cursors.get(at)?.due(&old.groups()[at])));
            Cursor::from(group, at.unwrap_or(now).min(now))
        };
        self.cursors = new.groups().iter().map(resume).collect();
        self.pace = new.pace().map(|pace| {
            let interval = Duration::from_micros((pace.total_micros() / 2).max(1));
            Allowance::new(interval, BURST, now)
        });
    }

    /// When the next check may begin; `None` without checks.
    pub(super) fn next_at(&self, plan: &Plan) -> Option<Instant> {
        let due = self.cursors.iter().zip(plan.groups()).map(|(cursor, group)| cursor.due(group));
        Some(due.min()?.max(self.pace.as_ref()?.next_at()))
    }

    /// The check whose turn it is, if it may begin now.
    pub(super) fn take(&mut self, plan: &Plan, now: Instant) -> Option<Arc<Check>> {
        let groups = self.cursors.iter_mut().zip(plan.groups());
        let late = |(cursor, group): &(&mut Cursor, &Group)| {
            // Who waits for a minute's check notices a second less.
            let late = (now - cursor.due(group)).total_micros();
            u128::from(late) * u128::from(u32::MAX)
                / u128::from(group.interval.total_micros().max(1))
        };
        let due = groups.filter(|(cursor, group)| cursor.due(group) <= now);
        let (cursor, group) = due.max_by_key(late)?;
        if !self.pace.as_mut()?.take(now) {
            return None;
        }
        self.skipped |= cursor.catch_up(group, now);
        cursor.advance(group)
    }

    /// Whether rounds had to be left out since this was last asked.
    pub(super) fn has_skipped(&mut self) -> bool {
        std::mem::take(&mut self.skipped)
    }
}

impl Cursor {
    /// At the first turn that is not before `at`.
    fn from(group: &Group, at: Instant) -> Self {
        let interval = group.interval.total_micros().max(1);
        let micros = u64::try_from(at.total_micros()).unwrap_or(0);
        let into = Duration::from_micros(micros % interval);
        let round = at - into;
        let next = group.checks.partition_point(|check| check.phase < into);
        if next < group.checks.len() {
            Self { round, next }
        } else {
            Self { round: round + group.interval, next: 0 }
        }
    }

    fn due(&self, group: &Group) -> Instant {
        self.round + group.checks.get(self.next).map_or(Duration::ZERO, |check| check.phase)
    }

    /// Leaves whole rounds out when it is more than one late; whether it did.
    fn catch_up(&mut self, group: &Group, now: Instant) -> bool {
        let interval = group.interval.total_micros().max(1);
        let rounds = (now - self.due(group)).total_micros() / interval;
        self.round += Duration::from_micros(rounds * interval);
        rounds > 0
    }

    fn advance(&mut self, group: &Group) -> Option<Arc<Check>> {
        let check = group.checks.get(self.next).map(Arc::clone);
        self.next += 1;
        if self.next >= group.checks.len() {
            (self.round, self.next) = (self.round + group.interval, 0);
        }
        check
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::host::checks::tests::{plan_of, tcp};

    /// Everything that begins, at every millisecond, until the end.
    fn run(schedule: &mut Schedule, plan: &Plan, from: i64, to: i64) -> Vec<(i64, u32)> {
        let mut begun = Vec::new();
        for ms in from..to {
            while let Some(check) = schedule.take(plan, Instant::from_millis(ms)) {
                begun.push((ms, check.server.0));
            }
        }
        begun
    }

    #[test]
    fn every_check_has_its_turn_once_an_interval_wherever_it_begins() {
        let plan = plan_of((0..1_000).map(|n| tcp(n, 1 + u64::from(n % 2))));
        for start in [0, 777] {
            let mut schedule = Schedule::default();
            schedule.install(&Plan::default(), &plan, Instant::from_millis(start));
            let mut turns: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
            for (at, server) in run(&mut schedule, &plan, start, start + 4_002) {
                turns.entry(server).or_default().push(at);
            }
            assert_eq!(turns.len(), 1_000);
            for (server, at) in turns {
                let (interval, count) = if server % 2 == 0 { (1_000, 4) } else { (2_000, 2) };
                assert!((count..=count + 1).contains(&at.len()), "{server}: {at:?}");
                // Where turns fall together some wait for the pace.
                let steady = at.windows(2).all(|two| (two[1] - two[0] - interval).abs() <= 20);
                assert!(steady, "{server}: {at:?}");
            }
            assert!(!schedule.has_skipped());
        }
    }

    #[test]
    fn another_plan_moves_nobody_else() {
        let old = plan_of((0..100).map(|n| tcp(n, 1)));
        let new = plan_of((50..150).map(|n| tcp(n, 1)));
        let mut schedule = Schedule::default();
        schedule.install(&Plan::default(), &old, Instant::ZERO);
        let before = run(&mut schedule, &old, 0, 1_500);
        schedule.install(&old, &new, Instant::from_millis(1_500));
        let after = run(&mut schedule, &new, 1_500, 2_500);
        let first = |turns: &[(i64, u32)], server| {
            turns.iter().find(|turn| turn.1 == server).map(|turn| turn.0 % 1_000)
        };
        for server in 50..100 {
            let moved = first(&before, server).unwrap() - first(&after, server).unwrap();
            assert!(moved.abs() <= 10, "{server}");
        }
        assert_eq!(after.len(), 100);
        assert!(after.iter().all(|(_, server)| *server >= 50));
    }

    #[test]
    fn what_was_due_stays_due_through_reloads() {
        let (old, new) = (plan_of((0..50).map(|n| tcp(n, 1))), plan_of((0..51).map(|n| tcp(n, 1))));
        let mut schedule = Schedule::default();
        schedule.install(&Plan::default(), &old, Instant::ZERO);
        let mut plans = [&old, &new].into_iter().cycle();
        let mut plan = plans.next().unwrap();
        let mut turns: BTreeMap<u32, u32> = BTreeMap::new();
        // A reload every 10 ms, and a loop that looks every 25.
        for step in 0..200 {
            let now = Instant::from_millis(step * 10);
            let next = plans.next().unwrap();
            schedule.install(plan, next, now);
            plan = next;
            if step % 5 == 0 {
                while let Some(check) = schedule.take(plan, now + Duration::from_millis(5)) {
                    *turns.entry(check.server.0).or_default() += 1;
                }
            }
        }
        for server in 0..50 {
            assert!((1..=3).contains(&turns[&server]), "{server}: {turns:?}");
        }
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let plan = plan_of((0..1_000).map(|n| tcp(n, 1)));
        let mut schedule = Schedule::default();
        schedule.install(&Plan::default(), &plan, Instant::ZERO);
        assert!(run(&mut schedule, &plan, 0, 1_002).len() >= 1_000);
        // Nothing for a minute.
        let after = run(&mut schedule, &plan, 61_000, 62_000);
        assert!(schedule.has_skipped() && !schedule.has_skipped());
        assert!(after.len() <= 2_000 + 16, "{} in a second", after.len());
        let at_once = after.iter().filter(|(at, _)| *at == 61_000).count();
        assert!(at_once <= 16 + 2, "{at_once} at once");
        let mut first: Vec<_> = after.iter().take(1_000).map(|(_, server)| *server).collect();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), 1_000, "everybody once before anybody twice");
    }

    #[test]
    fn without_checks_there_is_nothing_to_wait_for() {
        let mut schedule = Schedule::default();
        let empty = Plan::default();
        schedule.install(&empty, &empty, Instant::ZERO);
        assert_eq!(schedule.next_at(&empty), None);
        assert!(schedule.take(&empty, Instant::from_secs(9)).is_none());
    }
}
