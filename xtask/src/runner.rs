//! Runs steps one after another, all of them, and tells at the end how each went.

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What programs of this project exit with when privileges are missing.
const EXIT_PRIVILEGES: u8 = 77;

/// What they exit with when there was nothing to judge by; they say why.
const EXIT_NOT_JUDGED: i32 = 3;

/// A program with its arguments.
pub(crate) struct Command {
    program: &'static str,
    arguments: Vec<&'static str>,
    variables: Vec<(&'static str, &'static str)>,
}

impl Command {
    pub(crate) fn new(program: &'static str, arguments: &[&'static str]) -> Self {
        Self { program, arguments: arguments.to_vec(), variables: Vec::new() }
    }

    pub(crate) fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    /// Runs it in the repository's root; its output is the user's to read.
    fn outcome(&self) -> Outcome {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let status = std::process::Command::new(self.program)
            .args(&self.arguments)
            .envs(self.variables.iter().copied())
            .env("PATH", crate::programs::search_path())
            .current_dir(root)
            .status();
        match status {
            Ok(status) if status.success() => Outcome::Passed,
            Ok(status) if status.code() == Some(EXIT_PRIVILEGES.into()) => Outcome::Unprivileged,
            Ok(status) if status.code() == Some(EXIT_NOT_JUDGED) => Outcome::NotJudged,
            Ok(status) => Outcome::Failed(status.to_string()),
            Err(error) => Outcome::Failed(format!("`{}` did not start: {error}", self.program)),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.variables {
            write!(f, "{name}='{value}' ")?;
        }
        write!(f, "{} {}", self.program, self.arguments.join(" "))
    }
}

/// How a step went.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(String),
    /// The step said itself what it lacks.
    Unprivileged,
    /// Nothing was wrong, nothing could be found right: the step said why.
    NotJudged,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
            Self::Unprivileged => f.write_str("FAILED: privileges are missing, see above"),
            Self::NotJudged => f.write_str("NOT JUDGED, see above"),
        }
    }
}

struct Step {
    name: String,
    outcome: Outcome,
    took: Duration,
}

/// Runs steps and remembers how they went.
pub(crate) struct Runner {
    begun: Instant,
    steps: Vec<Step>,
}

impl Runner {
    pub(crate) fn new() -> Self {
        Self { begun: now(), steps: Vec::new() }
    }

    /// A step that is a program.
    pub(crate) fn run(&mut self, name: &str, command: &Command) {
        self.step(name, &command.to_string(), || command.outcome());
    }

    /// A step that is a function; an error is what went wrong.
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> Result<(), String>) {
        self.step(name, "", || check().map_or_else(Outcome::Failed, |()| Outcome::Passed));
    }

    /// A step that is not tried, because privileges are missing.
    pub(crate) fn unprivileged(&mut self, name: &str) {
        self.step(name, "", || Outcome::Unprivileged);
    }

    /// Whether a step has said that privileges are missing.
    pub(crate) fn lacks_privileges(&self) -> bool {
        self.steps.iter().any(|step| step.outcome == Outcome::Unprivileged)
    }

    fn step(&mut self, name: &str, what: &str, run: impl FnOnce() -> Outcome) {
        let start = now();
        let number = self.steps.len() + 1;
        say(&format!("\n[{number}, {}] {name}  {what}", clock(start - self.begun)));
        let outcome = run();
        let took = now() - start;
        say(&format!("[{number}, {}] {name}: {outcome}", clock(now() - self.begun)));
        self.steps.push(Step { name: name.into(), outcome, took });
    }

    /// Prints the summary; the exit code is the worst of the steps'.
    pub(crate) fn finish(self) -> ExitCode {
        let width = self.steps.iter().map(|step| step.name.len()).max().unwrap_or(0);
        say("");
        for Step { name, outcome, took } in &self.steps {
            say(&format!("{name:width$}  {:>7.1} s  {outcome}", took.as_secs_f64()));
        }
        let passed = self.steps.iter().filter(|step| step.outcome == Outcome::Passed).count();
        let not_judged =
            self.steps.iter().filter(|step| step.outcome == Outcome::NotJudged).count();
        let failed = self.steps.len() - passed - not_judged;
        say(&format!("{:width$}  {:>7.1} s", "all", (now() - self.begun).as_secs_f64()));
        let not_judged = match not_judged {
            0 => String::new(),
            count => format!(", {count} not judged"),
        };
        say(&format!("{passed} passed, {failed} failed{not_judged}"));
        ExitCode::from(exit_code(self.steps.iter().map(|step| &step.outcome)))
    }
}

/// 77 only when nothing but privileges stood in the way.
fn exit_code<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> u8 {
    outcomes.fold(0, |code, outcome| match outcome {
        Outcome::Passed | Outcome::NotJudged => code,
        Outcome::Failed(_) => 1,
        Outcome::Unprivileged if code == 0 => EXIT_PRIVILEGES,
        Outcome::Unprivileged => code,
    })
}

fn clock(elapsed: Duration) -> String {
    format!("{}:{:02}", elapsed.as_secs() / 60, elapsed.as_secs() % 60)
}

#[expect(clippy::disallowed_methods, reason = "tells a person how long a step took")]
fn now() -> Instant {
    Instant::now()
}

/// One line to the user. That nobody reads it is no reason to stop.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_outweighs_missing_privileges() {
        let failed = || Outcome::Failed("x".into());
        let code = |outcomes: &[Outcome]| exit_code(outcomes.iter());
        assert_eq!(code(&[Outcome::Passed, Outcome::Passed]), 0);
        assert_eq!(code(&[Outcome::Unprivileged, Outcome::Passed]), 77);
        assert_eq!(code(&[Outcome::Unprivileged, failed()]), 1);
        assert_eq!(code(&[Outcome::Passed, Outcome::NotJudged]), 0);
        assert_eq!(code(&[failed(), Outcome::Unprivileged]), 1);
    }

    #[test]
    fn a_programs_exit_code_is_told_apart() {
        let exit = |script| Command::new("sh", &["-c", script]).outcome();
        assert_eq!(exit("exit 0"), Outcome::Passed);
        assert_eq!(exit("exit 77"), Outcome::Unprivileged);
        assert_eq!(exit("exit 3"), Outcome::NotJudged);
        assert_eq!(exit("exit 4"), Outcome::Failed("exit status: 4".into()));
        let absent = Command::new("no-such-program-anywhere", &[]).outcome();
        assert!(
            matches!(&absent, Outcome::Failed(why) if why.contains("did not start")),
            "{absent}"
        );
        let seen = Command::new("sh", &["-c", "test \"$SEEN\" = yes"]).env("SEEN", "yes");
        assert_eq!(seen.outcome(), Outcome::Passed);
    }
}
