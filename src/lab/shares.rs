//! What came of a run of requests: as tables, and held against what must come of it.

use std::fmt;
use std::time::Duration;

use super::crew::Stop;
use super::grid::{Grid, Side, grouped};
use super::plan::{Plan, RealServer};
use super::tally::{Latencies, Tally};

/// Who answered how many requests, how fast.
pub(super) fn servers_table(plan: &Plan, tally: &Tally) -> Vec<String> {
    let mut grid = Grid::new([
        ("server", Side::Left),
        ("address", Side::Left),
        ("weight", Side::Right),
        ("requests", Side::Right),
        ("share", Side::Right),
        ("p50", Side::Right),
        ("p99", Side::Right),
    ]);
    let none = Latencies::default();
    for server in &plan.servers {
        let [requests, share, p50, p99] =
            measured(tally.of(server.name).unwrap_or(&none), tally.ended());
        let (name, address) = (server.name.to_owned(), server.endpoint().to_string());
        grid.row([name, address, server.weight.to_string(), requests, share, p50, p99]);
    }
    let [requests, share, p50, p99] = measured(&tally.answered(), tally.ended());
    let weight = plan.round().to_string();
    grid.row(["answered".to_owned(), String::new(), weight, requests, share, p50, p99]);
    grid.lines()
}

/// What clients saw instead of an answer.
pub(super) fn failures_table(tally: &Tally) -> Vec<String> {
    let mut grid = Grid::new([
        ("clients saw", Side::Left),
        ("requests", Side::Right),
        ("share", Side::Right),
        ("p50", Side::Right),
        ("p99", Side::Right),
    ]);
    for (failure, latencies) in tally.failures() {
        let [requests, share, p50, p99] = measured(latencies, tally.ended());
        grid.row([failure.to_string(), requests, share, p50, p99]);
    }
    grid.lines()
}

/// Stops the story when something is not as it must be; nothing happens when all is well.
pub(super) fn check(plan: &Plan, tally: &Tally, down: Option<&RealServer>) -> Result<(), Stop> {
    let complaints = complaints(plan, tally, down);
    if complaints.is_empty() { Ok(()) } else { Err(Stop::Failed(complaints.join("; "))) }
}

fn complaints(plan: &Plan, tally: &Tally, down: Option<&RealServer>) -> Vec<String> {
    let mut complaints = Vec::new();
    // A run may begin and end anywhere in the scheduler's round.
    let slack = plan.round();
    let total = tally.ended();
    for server in &plan.servers {
        let due = match down {
            None => plan.due(server, total),
            Some(down) => plan.due_without(down, server, total),
        };
        let count = tally.of(server.name).map_or(0, Latencies::count);
        if count.abs_diff(due) > slack {
            let name = server.name;
            complaints.push(format!("{name} answered {count} requests, {due} were its share"));
        }
    }
    for stranger in tally.servers() {
        let up = |server: &RealServer| {
            server.name == stranger && down.is_none_or(|down| down.name != stranger)
        };
        if !plan.servers.iter().any(up) {
            complaints.push(format!("`{stranger}` answered, which is no running server"));
        }
    }
    for (failure, latencies) in tally.failures() {
        complaints.push(format!("{failure}: {} requests", latencies.count()));
    }
    if let (false, Some(detail)) = (complaints.is_empty(), tally.detail()) {
        complaints.push(format!("the first of them was {detail}"));
    }
    complaints
}

/// Requests, share, p50, p99.
fn measured(latencies: &Latencies, total: usize) -> [String; 4] {
    let total = total.max(1);
    let share = (latencies.count() * 1_000 + total / 2) / total;
    [
        grouped(latencies.count()),
        format!("{}.{} %", share / 10, share % 10),
        Millis(latencies.percentile(50)).to_string(),
        Millis(latencies.percentile(99)).to_string(),
    ]
}

/// A time in milliseconds, `-` for none: one unit for all, so that a column can be compared.
pub(super) struct Millis(pub(super) Option<Duration>);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => write!(f, "{:.2} ms", time.as_secs_f64() * 1_000.0),
            None => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::Kind;
    use super::super::client::{Failure, Outcome};
    use super::*;

    fn tally(answered: [usize; 3], failures: &[(Failure, usize)]) -> Tally {
        let mut tally = Tally::default();
        for (server, count) in ["s1", "s2", "s3"].into_iter().zip(answered) {
            for _ in 0..count {
                tally.record(&Outcome::Answered { server: server.to_owned(), micros: 700 });
            }
        }
        for (failure, count) in failures {
            for _ in 0..*count {
                let detail = String::new();
                tally.record(&Outcome::Failed { failure: *failure, micros: 300, detail });
            }
        }
        tally
    }

    #[test]
    fn a_good_run_is_not_complained_about() {
        let plan = Plan::new(Kind::Nat);
        let good = tally([101, 198, 301], &[]);
        assert_eq!(complaints(&plan, &good, None), [""; 0]);
        let down = tally([201, 399, 0], &[]);
        assert_eq!(complaints(&plan, &down, Some(&plan.servers[2])), [""; 0]);
    }

    #[test]
    fn a_bad_run_is_complained_about() {
        let plan = Plan::new(Kind::Nat);
        let down = Some(&plan.servers[2]);
        for (tally, down, words) in [
            (tally([200, 200, 200], &[]), None, "s1 answered 200 requests, 100"),
            (tally([100, 200, 299], &[(Failure::Refused, 1)]), None, "connection refused: 1"),
            (tally([0, 0, 0], &[(Failure::TimedOut, 600)]), None, "s3 answered 0"),
            (tally([200, 399, 0], &[(Failure::Refused, 1)]), down, "connection refused: 1"),
            (tally([200, 399, 1], &[]), down, "`s3` answered, which is no running server"),
            (tally([100, 500, 0], &[]), down, "s1 answered 100 requests, 200"),
        ] {
            let all = complaints(&plan, &tally, down).join("; ");
            assert!(all.contains(words), "{words}: {all}");
        }
    }

    #[test]
    fn times_and_shares_have_their_units() {
        let [requests, share, p50, p99] = measured(&tally([1_234, 0, 0], &[]).answered(), 2_468);
        assert_eq!([&*requests, &*share, &*p50, &*p99], ["1,234", "50.0 %", "0.70 ms", "0.70 ms"]);
        let nothing = measured(&Latencies::default(), 0);
        assert_eq!(nothing, ["0", "0.0 %", "-", "-"]);
    }
}
