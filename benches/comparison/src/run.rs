//! The benchmark itself: who can run, rounds over all of them, what is told and written.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser as _;
use netns_tests::{Outcome, Scratch};
use tapvs::links::become_root;

use crate::args::{Arguments, BenchmarkArgs, Hidden};
use crate::contestant::{CONTESTANTS, Contestant, Io, Kind, Mode};
use crate::load::{Prepared, Workload};
use crate::machine::{Machine, conntrack_max};
use crate::outcome::{Forwarder, Measured, Missing, Report, Row};
use crate::progress::{clock, note, say};
use crate::stage::{self, Stage};
use crate::target::{self, Validity, Verdict};
use crate::{proxy, raw, report};

const EXIT_USAGE: u8 = 64;
const EXIT_PRIVILEGES: u8 = 77;
/// Removing the namespaces of the workload before takes the kernel a moment.
const SETTLE: Duration = Duration::from_millis(300);

/// The program.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            drop(error.print());
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    if let Some(Hidden::Forward(forward)) = arguments.command {
        let Err(error) = raw::forward(&forward) else { return ExitCode::SUCCESS };
        note(format_args!("raw forwarder: {error}"));
        return ExitCode::FAILURE;
    }
    let done = match &arguments.benchmark.from {
        Some(file) => report::read(file).and_then(|old| tell(&old, &arguments.benchmark)),
        None => match prepare() {
            Err(code) => return code,
            Ok(()) => benchmark(&arguments.benchmark),
        },
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            note(failure);
            ExitCode::FAILURE
        }
    }
}

/// A fresh tapvs, and the privileges to run it.
fn prepare() -> Result<(), ExitCode> {
    note("building tapvs (release)");
    if let Err(failure) = netns_tests::provide_binary() {
        note(failure);
        return Err(ExitCode::FAILURE);
    }
    // Before the first thread: the kernel moves single-threaded processes only.
    if let Err(missing) = become_root() {
        note(format_args!("the benchmark needs network namespaces and TAP devices:\n{missing}"));
        return Err(ExitCode::from(EXIT_PRIVILEGES));
    }
    Scratch::sweep();
    Ok(())
}

fn benchmark(arguments: &BenchmarkArgs) -> Outcome<ExitCode> {
    let (contestants, missing) = contestants(arguments);
    let workloads: Vec<Workload> = Workload::ALL
        .into_iter()
        .filter(|workload| match &arguments.only[..] {
            [] => !arguments.quick || workload.is_quick(),
            only => only.contains(workload),
        })
        .collect();
    for missing in &missing {
        let remedy = missing.remedy.as_ref();
        let remedy = remedy.map_or_else(String::new, |remedy| format!("; install it: {remedy}"));
        note(format_args!("without {}: {}{remedy}", missing.what, missing.why));
    }
    if arguments.list {
        list(&contestants);
        return Ok(ExitCode::SUCCESS);
    }
    let default = if arguments.quick { (1, 0.3) } else { (5, 2.0) };
    let mut report = Report {
        started: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        command: command_line(),
        tapvs: env!("CARGO_PKG_VERSION").into(),
        machine: Machine::this(),
        congestion: stage::congestion()?.into(),
        rounds: arguments.rounds.unwrap_or(default.0),
        seconds: arguments.seconds.unwrap_or(default.1),
        forwarders: contestants.iter().map(|one| forwarder(one.kind)).collect(),
        missing,
        workloads: Vec::new(),
    };
    note(report.machine.described());
    let mut progress = Progress::new(&workloads, &contestants, report.rounds);
    for workload in workloads {
        let kinds = contestants.iter().map(|one| one.kind).filter(|kind| workload.suits(*kind));
        let length = Duration::from_secs_f64(report.seconds);
        let measured =
            run_workload(workload, kinds.collect(), (report.rounds, length), &mut progress);
        report.workloads.push(measured);
    }
    tell(&report, arguments)
}

/// Builds every forwarder's network, then measures one after another, round by round.
fn run_workload(
    workload: Workload,
    kinds: Vec<Kind>,
    (rounds, length): (u32, Duration),
    progress: &mut Progress,
) -> Measured {
    let mut rows = Vec::new();
    let mut stages = Vec::new();
    for kind in kinds {
        let mut row =
            Row { forwarder: kind.to_string(), samples: Vec::new(), failures: Vec::new() };
        let built = Stage::build(kind, workload.max_flows())
            .and_then(|stage| Ok((workload.prepare(&stage)?, stage)));
        if let Err(failure) = &built {
            progress.failed(workload, kind, failure);
            row.failures.push(failure.to_string());
        }
        stages.push(built.ok());
        rows.push(row);
    }
    let count = rows.len();
    for round in 0..rounds as usize {
        for turn in 0..count {
            // Everybody comes first once: who does may find the machine in another state.
            let number = (round + turn) % count;
            let (row, built) = (&mut rows[number], &mut stages[number]);
            let sample = built.as_mut().map(|(prepared, stage): &mut (Prepared, Stage)| {
                (workload.measure(stage, prepared, length), stage.kind)
            });
            row.samples.push(match sample {
                Some((Ok(sample), kind)) => {
                    progress.measured(workload, kind, round, sample.value);
                    Some(sample)
                }
                Some((Err(failure), kind)) => {
                    progress.failed(workload, kind, &failure);
                    row.failures.push(format!("round {}: {failure}", round + 1));
                    None
                }
                None => None,
            });
        }
    }
    drop(stages);
    std::thread::sleep(SETTLE);
    Measured { workload: workload.name().into(), rows }
}

/// Who takes part, and who cannot.
fn contestants(arguments: &BenchmarkArgs) -> (Vec<Contestant>, Vec<Missing>) {
    let wanted = |kind: Kind| {
        let name = kind.to_string().to_lowercase();
        arguments.forwarders.is_empty()
            || arguments.forwarders.iter().any(|words| has_all(&name, words))
    };
    let mut chosen = Vec::new();
    let mut missing = Vec::new();
    for contestant in CONTESTANTS {
        let kind = contestant.kind;
        let is_reference = CONTESTANTS
            .iter()
            .any(|other| other.kind.reference() == Some(kind) && wanted(other.kind));
        if arguments.quick && !contestant.quick || !(wanted(kind) || is_reference) {
            continue;
        }
        match obstacle(kind) {
            None => chosen.push(contestant),
            Some((why, remedy)) => {
                missing.push(Missing { what: kind.to_string(), why, remedy });
            }
        }
    }
    let limit = conntrack_max().unwrap_or(0);
    missing.push(Missing {
        what: format!("{} over a million flows", Kind::Kernel),
        why: format!(
            "its table belongs to the host (nf_conntrack_max is {limit}) and is left as it is"
        ),
        remedy: None,
    });
    (chosen, missing)
}

/// Whether each of the words is in the name, which is in lower case.
fn has_all(name: &str, words: &str) -> bool {
    words.to_lowercase().split_whitespace().all(|word| name.contains(word))
}

/// Why a forwarder cannot run, and what would help.
fn obstacle(kind: Kind) -> Option<(String, Option<String>)> {
    let Kind::Tapvs(method, mode, io) = kind else {
        return proxy::missing(kind).map(|(why, install)| (why, Some(install)));
    };
    if !stage::has_modes() && (mode, io) != (Mode::Plain, Io::Syscall) {
        return Some(("this tapvs has no keys `io` and `offload` yet".into(), None));
    }
    stage::tapvs_can(method, mode, io).err().map(|why| (why, None))
}

fn forwarder(kind: Kind) -> Forwarder {
    Forwarder {
        name: kind.to_string(),
        reference: kind.reference().map(|reference| reference.to_string()),
        version: proxy::version(kind),
    }
}

fn list(contestants: &[Contestant]) {
    say("workloads");
    for workload in Workload::ALL {
        say(format_args!("  {:<12} {}", workload.name(), workload.title()));
    }
    say("forwarders");
    for contestant in contestants {
        say(format_args!("  {}", contestant.kind));
    }
}

/// Prints and writes a report; the code says whether everything worked.
fn tell(report: &Report, arguments: &BenchmarkArgs) -> Outcome<ExitCode> {
    say(report::figures(report));
    say(report::verdicts(report));
    say(format_args!("The run is {}.", target::validity(report)));
    let mut written = report::write(report, &arguments.out)?;
    if arguments.readme {
        written.extend(report::write_readme(report, &project())?);
    }
    for file in written {
        note(format_args!("wrote {}", file.display()));
    }
    let failed =
        report.workloads.iter().flat_map(|one| &one.rows).any(|row| !row.failures.is_empty());
    let missed =
        target::judge(report).iter().any(|judged| matches!(judged.verdict, Verdict::Missed(..)));
    let invalid = matches!(target::validity(report), Validity::Invalid(_));
    let bad = failed || arguments.judge && (missed || invalid);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The repository.
fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// As one would type it.
fn command_line() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let dashes = if arguments.is_empty() { "" } else { " -- " };
    format!("cargo run --release -p tapvs-bench{dashes}{}", arguments.join(" "))
}

/// A line for each measurement.
struct Progress {
    begun: Instant,
    done: usize,
    all: usize,
    rounds: u32,
}

impl Progress {
    fn new(workloads: &[Workload], contestants: &[Contestant], rounds: u32) -> Self {
        let pairs = workloads
            .iter()
            .map(|workload| contestants.iter().filter(|one| workload.suits(one.kind)).count());
        let all = pairs.sum::<usize>() * rounds as usize;
        Self { begun: Instant::now(), done: 0, all, rounds }
    }

    fn measured(&mut self, workload: Workload, kind: Kind, round: usize, value: f64) {
        self.done += 1;
        let (time, value) = (clock(self.begun.elapsed()), report::value(workload.unit(), value));
        note(format_args!(
            "{time} {:>3}/{} {:<10} round {}/{} {kind}: {value}",
            self.done,
            self.all,
            workload.name(),
            round + 1,
            self.rounds
        ));
    }

    fn failed(&mut self, workload: Workload, kind: Kind, failure: &netns_tests::Failure) {
        self.done += 1;
        let time = clock(self.begun.elapsed());
        note(format_args!("{time} {} {kind}: FAILED: {failure}", workload.name()));
    }
}
