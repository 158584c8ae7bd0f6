//! `tapvs lab`: a whole network in namespaces on this machine, all of it from this one binary.
//!
//! One client, one router or two, three real servers. A router is `tapvs run` as a process of its own:
//! the lab knows its configuration file and its log, nothing of what is inside. What the lab says is
//! what the client saw.

mod args;
mod client;
mod crew;
mod deadline;
mod file;
pub(crate) mod grid;
mod pair;
mod plan;
mod responder;
mod screen;
mod shares;
mod stage;
mod story;
mod tally;
mod topology;

use std::io::{self, BufRead as _, Write as _};
use std::process::ExitCode;
use std::sync::LazyLock;

pub use self::args::{Kind, LabArgs, LabClientArgs, LabServerArgs};
use self::client::Load;
use self::crew::{Crew, Stop};
use self::pair::PairPlan;
use self::plan::{Plan, Socket};
use self::responder::Responder;
use self::screen::Screen;
use self::stage::Stage;
use self::story::Story;
use crate::links::become_root;
use crate::links::clock::Clock;
use crate::time::Instant;

/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;
const NOT_PERMITTED: u8 = 77;

/// `tapvs lab`; `verbose` shows what the router logs. To be called before the process has a second
/// thread.
pub fn main(args: &LabArgs, verbose: bool) -> ExitCode {
    let pair = matches!(args.kind, Kind::Pair).then(PairPlan::new);
    let plan = pair.as_ref().map_or_else(|| Plan::new(args.kind), |pair| pair.plan.clone());
    if args.print_config {
        let file = || plan.toml(Socket::Default);
        let text = pair.as_ref().map_or_else(file, PairPlan::files);
        return finish("lab", io::stdout().write_all(text.as_bytes()));
    }
    let before = user_namespace();
    if let Err(missing) = become_root() {
        say("lab", format!("this needs network namespaces and TAP devices.\n{missing}"));
        return ExitCode::from(NOT_PERMITTED);
    }
    let screen = Screen::new();
    let mut crew = match Crew::new(verbose) {
        Ok(crew) => crew,
        Err(error) => return finish("lab", Err(error)),
    };
    let stage = Stage { args, plan: &plan, screen: &screen, own_users: before != user_namespace() };
    let told = match &pair {
        Some(pair) => pair::Story { stage, pair }.tell(&mut crew),
        None => Story(stage).tell(&mut crew),
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(Stop::Failed(why)) => finish("lab", Err(io::Error::other(why))),
    }
}

/// `tapvs lab-server`, which the lab runs once per real server. Says on standard output when it
/// listens; runs until it is killed.
pub fn server_main(args: &LabServerArgs) -> ExitCode {
    let serve = || {
        let responder = Responder::bind(&args.name, args.listen)?;
        writeln!(io::stdout(), "{} listening on {}", args.name, responder.address()?)?;
        Err(responder.serve())
    };
    finish("lab-server", serve().map_err(|error| at(args.listen, &error)))
}

/// `tapvs lab-client`, which the lab runs in the client's namespace. Ends with its standard input.
pub fn client_main(args: &LabClientArgs) -> ExitCode {
    let work = || {
        for line in io::stdin().lock().lines() {
            let load: Load = serde_json::from_str(&line?)?;
            let mut output = io::stdout().lock();
            client::send(args.target, load, |outcome| {
                serde_json::to_writer(&mut output, &outcome)?;
                writeln!(output)
            })?;
        }
        Ok(())
    };
    finish("lab-client", work().map_err(|error| at(args.target, &error)))
}

fn at(address: std::net::SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{address}: {error}"))
}

fn finish(command: &str, result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(command, error);
            ExitCode::FAILURE
        }
    }
}

fn say(command: &str, what: impl std::fmt::Display) {
    // When standard error is closed, nobody is left to tell.
    let _ = writeln!(io::stderr(), "tapvs {command}: {what}");
}

/// Which user namespace this process is in.
fn user_namespace() -> Option<std::path::PathBuf> {
    std::fs::read_link("/proc/self/ns/user").ok()
}

/// The time, on a clock that never goes back.
fn now() -> Instant {
    static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::new);
    CLOCK.now()
}
