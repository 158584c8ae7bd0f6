//! The `main` of every target: privileges first, then trials one after another, each with a limit.

use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tapvs::links::namespace::become_root;

use crate::{Outcome, Rig, Scratch, Service, binary};

const EXIT_PRIVILEGES: u8 = 77;
/// How many patient trials run at the same time.
const SIDE_BY_SIDE: usize = 5;
/// A trial that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(240);

/// Runs `trials` as the command line asks, with the router's binary at hand.
pub fn main(trials: Vec<Trial>) -> ExitCode {
    prepared(trials, Vec::new(), binary::provide)
}

/// As [`main`], with `patient` trials afterwards: these wait more than they work and measure nothing
/// that a few others beside them would spoil, so they run side by side.
pub fn main_beside(trials: Vec<Trial>, patient: Vec<Trial>) -> ExitCode {
    prepared(trials, patient, binary::provide)
}

/// As [`main`], with something else that has to be there before the first trial.
pub fn prepared_main(trials: Vec<Trial>, prepare: impl FnOnce() -> Outcome) -> ExitCode {
    prepared(trials, Vec::new(), prepare)
}

fn prepared(
    trials: Vec<Trial>,
    patient: Vec<Trial>,
    prepare: impl FnOnce() -> Outcome,
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    let mut beside = arguments.clone();
    if !arguments.list {
        if let Err(failure) = prepare() {
            say(failure);
            return ExitCode::FAILURE;
        }
        // Before the first thread: the kernel moves single-threaded processes only.
        if let Err(missing) = become_root() {
            say(format_args!("these tests need network namespaces and TAP devices:\n{missing}"));
            return ExitCode::from(EXIT_PRIVILEGES);
        }
        allow_many_files();
        Scratch::sweep();
    }
    // Trials measure time and load every core; and a child dies with the thread that started it.
    arguments.test_threads.get_or_insert(1);
    beside.test_threads.get_or_insert(SIDE_BY_SIDE);
    let alone = libtest_mimic::run(&arguments, trials);
    if patient.is_empty() || alone.has_failed() {
        return alone.exit_code();
    }
    libtest_mimic::run(&beside, patient).exit_code()
}

/// As many open sockets as the system allows; the usual 1,024 are few for clients and servers.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    // Without it, trials with many connections will say what they miss.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// A trial that sees to everything itself.
pub fn trial(name: &'static str, run: fn() -> Outcome) -> Trial {
    long_trial(name, LIMIT, run)
}

/// As [`trial`], with another limit.
pub fn long_trial(name: &'static str, limit: Duration, run: fn() -> Outcome) -> Trial {
    Trial::test(name, move || {
        let _watched = Watchdog::start_for(name, limit);
        run().map_err(Failed::from)
    })
}

/// A check of one room as a trial.
pub fn check(name: &'static str, check: fn() -> Result<(), String>) -> Trial {
    Trial::test(format!("links::{name}"), move || {
        let _watched = Watchdog::start(name);
        check().map_err(Failed::from)
    })
}

/// A trial on a fresh [`Rig`] with these services. Afterwards the router is stopped, and its last
/// report must account for every frame. A failure comes with the router's log.
pub fn rig_trial(
    name: &'static str,
    services: fn() -> Vec<Service>,
    run: fn(&mut Rig) -> Outcome,
) -> Trial {
    built_trial(name, move || Rig::new(&services()), run)
}

/// As [`rig_trial`], with a configuration file as it stands.
pub fn file_trial(name: &'static str, text: &'static str, run: fn(&mut Rig) -> Outcome) -> Trial {
    built_trial(name, move || Rig::configured(|_| text.to_owned()), run)
}

/// As [`rig_trial`], on whatever network `rig` builds.
pub fn built_trial(
    name: &'static str,
    rig: impl FnOnce() -> Outcome<Rig> + Send + 'static,
    run: impl FnOnce(&mut Rig) -> Outcome + Send + 'static,
) -> Trial {
    Trial::test(name, move || {
        let _watched = Watchdog::start(name);
        let mut rig = rig()?;
        run(&mut rig).and_then(|()| rig.router.stop().map(drop)).map_err(|failure| {
            // Its log says why, if it still says anything.
            drop(rig.router.report());
            let log = rig.router.log();
            Failed::from(format!("{failure}\n--- the router's log ---\n{}", log.join("\n")))
        })
    })
}

/// A line for whoever watches.
pub fn say(line: impl fmt::Display) {
    // That nobody reads it is no reason to stop.
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Ends the process, and with it every child and namespace, when a trial hangs.
struct Watchdog {
    _done: Sender<()>,
}

impl Watchdog {
    fn start(name: &'static str) -> Self {
        Self::start_for(name, LIMIT)
    }

    fn start_for(name: &'static str, limit: Duration) -> Self {
        let (done, wait) = mpsc::channel();
        thread::spawn(move || {
            if wait.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                say(format_args!("{name} has not ended after {} s", limit.as_secs()));
                std::process::exit(1);
            }
        });
        Self { _done: done }
    }
}
