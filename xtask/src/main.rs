//! The project's own commands.
//!
//! `cargo xtask test` runs every test, `cargo xtask ci` everything a change has to pass. It knows
//! nothing of tapvs itself, so that it builds in a moment.

mod plan;
mod programs;
mod runner;

use std::process::ExitCode;

use runner::Runner;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

Commands:
  test          Run every test: first install the third-party programs they need, or name them
  instructions  Count the instructions of single steps, and fail where they became more than a tenth more
  modes         Run all kernel tests in each other way of moving frames: more than an hour
  ci            Format, lints, documentation, then `test` and `instructions`

Exit codes: 1 a step failed, 64 wrong usage, 77 privileges are missing (what is missing is said)
";

const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut runner = Runner::new();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["test"] => plan::test(&mut runner),
        ["instructions"] => plan::instructions(&mut runner),
        ["modes"] => plan::modes(&mut runner),
        ["ci"] => plan::ci(&mut runner),
        ["help" | "-h" | "--help"] => {
            runner::say(USAGE.trim_end());
            return ExitCode::SUCCESS;
        }
        [] => {
            runner::say(USAGE.trim_end());
            return ExitCode::from(EXIT_USAGE);
        }
        [wrong, ..] => {
            runner::say(&format!("`{wrong}` is not understood.\n\n{}", USAGE.trim_end()));
            return ExitCode::from(EXIT_USAGE);
        }
    }
    runner.finish()
}
