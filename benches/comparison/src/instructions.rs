//! Instruction counts: how many instructions a step takes, counted by valgrind, held against a baseline.
//!
//! The same binary takes the same number of instructions every time, however busy the machine is: what grows by a
//! tenth was made slower. Each step is counted as the difference of two runs, with the step taken many times and
//! not at all, so that getting ready does not count. Another compiler makes other instructions: then nothing is judged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use clap::{Parser, Subcommand};
use netns_tests::{Context as _, Failure, Outcome, ensure};
use serde::{Deserialize, Serialize};

use crate::micro::Step;
use crate::progress::{note, say};
use crate::report::aligned;

/// How often a step is taken.
const STEPS: u32 = 2_000;
/// What a step may take more than its baseline.
const TOLERANCE: f64 = 0.10;
const EXIT_USAGE: u8 = 64;
/// Nothing was found wrong, and nothing could be: the baseline is of another compiler. `cargo xtask` knows it.
const EXIT_NOT_JUDGED: u8 = 3;

/// Counts the instructions of single steps of the dataplane.
#[derive(Debug, Parser)]
#[command(name = "instructions")]
struct Arguments {
    #[command(subcommand)]
    command: Asked,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Asked {
    /// Count, and fail where a step takes 10 % more than in the baseline; exits with 3 where the baseline is of
    /// another compiler
    Check,
    /// Count, and make that the baseline
    Update,
    /// Take a step so many times; what valgrind runs.
    #[command(hide = true)]
    Run { number: usize, steps: u32 },
}

/// The file that is kept in the repository.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Baseline {
    /// `rustc --version` of the program that was counted.
    compiler: String,
    target: String,
    /// Instructions of one step.
    instructions: BTreeMap<String, f64>,
}

/// The program.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            drop(error.print());
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let done = match arguments.command {
        Asked::Check => check(),
        Asked::Update => update(),
        Asked::Run { number, steps } => {
            run(number, steps);
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|failure| {
        note(failure);
        ExitCode::FAILURE
    })
}

fn check() -> Outcome<ExitCode> {
    let file = file();
    let text = std::fs::read_to_string(&file)
        .context(format_args!("{}; `update` makes it", file.display()))?;
    let baseline: Baseline = serde_json::from_str(&text).context(file.display())?;
    let now = count()?;
    let comparison = compare(&baseline, &now);
    say(&comparison.table);
    for line in &comparison.remarks {
        say(line);
    }
    Ok(match comparison.verdict {
        Judgement::Good => ExitCode::SUCCESS,
        Judgement::Slower => ExitCode::FAILURE,
        Judgement::OtherCompiler => ExitCode::from(EXIT_NOT_JUDGED),
    })
}

fn update() -> Outcome<ExitCode> {
    let file = file();
    let now = count()?;
    std::fs::write(&file, serde_json::to_string_pretty(&now)? + "\n").context(file.display())?;
    for (step, instructions) in &now.instructions {
        say(format_args!("{instructions:>10.1}  {step}"));
    }
    note(format_args!("wrote {}, of {}", file.display(), now.compiler));
    Ok(ExitCode::SUCCESS)
}

fn run(number: usize, steps: u32) {
    if let Some(step) = Step::every().get(number) {
        let mut prepared = step.prepare(STEPS);
        if steps > 0 {
            prepared.run(steps);
        }
    }
}

/// Counts every step, as many at a time as there are processors.
fn count() -> Outcome<Baseline> {
    ensure!(
        env!("BENCH_PROFILE") == "release",
        "the counts are of the release profile: cargo run --release -p tapvs-bench --bin instructions"
    );
    let steps: Vec<(usize, Step)> =
        Step::every().into_iter().enumerate().filter(|(_, step)| step.is_known()).collect();
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut counted = Vec::new();
        while let Some((number, step)) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (with, without) = (valgrind(*number, STEPS)?, valgrind(*number, 0)?);
            let each = with.saturating_sub(without) as f64 / f64::from(STEPS);
            counted.push((step.name(), (each * 10.0).round() / 10.0));
        }
        Ok::<_, Failure>(counted)
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let counted: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..processors).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err(Failure::new("a worker panicked"))))
            .collect::<Outcome<Vec<_>>>()
    })?;
    Ok(Baseline {
        compiler: env!("BENCH_COMPILER").into(),
        target: env!("BENCH_TARGET").into(),
        instructions: counted.into_iter().flatten().collect(),
    })
}

/// All instructions of one run of this program.
fn valgrind(number: usize, steps: u32) -> Outcome<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        // As long, whatever the number: what an argument takes does not count.
        .args(["run", &format!("{number:02}"), &format!("{steps:05}")])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .context("cannot start valgrind; `apt-get install valgrind` installs it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind: {}\n{said}", output.status);
    collected(&said).ok_or_else(|| Failure::new(format!("valgrind collected nothing:\n{said}")))
}

/// The number in `==PID== Collected : NUMBER`.
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(':').next()?.trim().parse().ok()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    Good,
    Slower,
    OtherCompiler,
}

#[derive(Debug)]
struct Comparison {
    table: String,
    remarks: Vec<String>,
    verdict: Judgement,
}

fn compare(baseline: &Baseline, now: &Baseline) -> Comparison {
    let is_comparable = (&baseline.compiler, &baseline.target) == (&now.compiler, &now.target);
    let mut table =
        vec![["step", "instructions", "baseline", "change", ""].map(str::to_owned).to_vec()];
    let (mut slower, mut faster, mut remarks) = (Vec::new(), false, Vec::new());
    for (step, count) in &now.instructions {
        let mut row = vec![step.clone(), format!("{count:.1}")];
        match baseline.instructions.get(step) {
            None => {
                row.extend(["-", "-", "new"].map(str::to_owned));
                remarks.push(format!("`{step}` has no baseline yet: `update` gives it one"));
            }
            Some(before) => {
                let change = count / before - 1.0;
                let word = if !is_comparable {
                    ""
                } else if change > TOLERANCE {
                    slower.push(format!(
                        "`{step}` takes {:.1} % more instructions than its baseline",
                        change * 100.0
                    ));
                    "SLOWER"
                } else if change < -TOLERANCE {
                    faster = true;
                    "faster"
                } else {
                    ""
                };
                row.extend([
                    format!("{before:.1}"),
                    format!("{:+.1} %", change * 100.0),
                    word.to_owned(),
                ]);
            }
        }
        table.push(row);
    }
    for gone in baseline.instructions.keys().filter(|step| !now.instructions.contains_key(*step)) {
        remarks.push(format!("`{gone}` is in the baseline only: `update` removes it"));
    }
    if faster {
        remarks.push("some steps are faster: `update` keeps it so".into());
    }
    let verdict = if !is_comparable {
        remarks.push(format!(
            "NOT JUDGED: the baseline is of another compiler, {} for {}; this program is of {} for {}. `update` with \
             the compiler that CI has makes a new one",
            baseline.compiler, baseline.target, now.compiler, now.target
        ));
        Judgement::OtherCompiler
    } else if slower.is_empty() {
        Judgement::Good
    } else {
        remarks.append(&mut slower);
        remarks.push(
            "where more instructions are meant: cargo run --release -p tapvs-bench --bin instructions -- update"
                .into(),
        );
        Judgement::Slower
    };
    Comparison { table: aligned(&table), remarks, verdict }
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(compiler: &str, counts: &[(&str, f64)]) -> Baseline {
        let instructions = counts.iter().map(|(step, count)| ((*step).to_owned(), *count));
        Baseline {
            compiler: compiler.into(),
            target: "x".into(),
            instructions: instructions.collect(),
        }
    }

    #[test]
    fn a_tenth_more_is_too_much() {
        let before = counts("1", &[("parse", 100.0), ("hit", 300.0)]);
        let same = compare(&before, &counts("1", &[("parse", 109.9), ("hit", 300.0)]));
        assert_eq!((same.verdict, same.remarks.len()), (Judgement::Good, 0));
        let slower = compare(&before, &counts("1", &[("parse", 110.2), ("hit", 200.0)]));
        assert_eq!(slower.verdict, Judgement::Slower);
        assert!(slower.table.contains("SLOWER") && slower.table.contains("faster"));
        assert!(slower.remarks.iter().any(|line| line.starts_with("`parse` takes 10.2 % more")));
    }

    #[test]
    fn another_compiler_is_said_and_not_judged() {
        let before = counts("rustc 1.0", &[("parse", 100.0)]);
        let other = compare(&before, &counts("rustc 2.0", &[("parse", 500.0)]));
        assert_eq!(other.verdict, Judgement::OtherCompiler);
        assert!(!other.table.contains("SLOWER"));
        let said = other.remarks.join("\n");
        assert!(said.contains("another compiler, rustc 1.0") && said.contains("rustc 2.0"));
    }

    #[test]
    fn steps_that_come_and_go_are_told_of() {
        let before = counts("1", &[("old", 1.0)]);
        let now = compare(&before, &counts("1", &[("new", 1.0)]));
        assert_eq!((now.verdict, now.remarks.len()), (Judgement::Good, 2));
    }

    #[test]
    fn valgrind_is_understood() {
        let said = "==7== Events    : Ir\n==7== Collected : 1234567\n==7==\n";
        assert_eq!(collected(said), Some(1_234_567));
        assert_eq!(collected("==7== nothing"), None);
    }

    #[test]
    fn the_baseline_of_the_project_can_be_read() {
        let text = std::fs::read_to_string(file()).unwrap();
        let baseline: Baseline = serde_json::from_str(&text).unwrap();
        assert!(baseline.instructions.values().all(|count| *count > 0.0));
    }
}
