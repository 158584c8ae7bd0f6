//! The command line: arguments in, text and an exit code out. No logic of the router's own.

mod ask;
mod capture;
mod check;
mod import;
mod logfmt;
mod operate;
mod paint;
mod realserver;
mod show;
mod stream;
mod top;
mod trace;
mod units;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};

use self::ask::AskError;
use self::capture::CaptureArgs;
use self::operate::{Failed, Operate};
use self::top::TopArgs;
use self::trace::TraceArgs;
use crate::control::LoadError;
use crate::lab::{self, LabArgs, LabClientArgs, LabServerArgs};
use crate::run::{self, RunError};

/// Bad usage or configuration; sysexits.h calls it EX_USAGE.
const USAGE: u8 = 64;
/// `import` has written its result, but something was not carried over; EX_DATAERR.
const PARTIAL: u8 = 65;
/// No router at the socket; EX_UNAVAILABLE.
const NO_ROUTER: u8 = 69;
/// No permission; EX_NOPERM.
const NO_PERMISSION: u8 = 77;
/// Anything else.
const FAILURE: u8 = 1;

/// A Linux Virtual Server router in user space, over TAP devices.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Log more: once for debug, twice for trace. RUST_LOG, if set, decides instead
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,

    /// Log warnings and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the router that FILE configures, until SIGTERM or SIGINT
    ///
    /// SIGHUP reloads FILE: a wrong one is refused and changes nothing. SIGUSR1 logs all counters.
    Run {
        /// The configuration, in TOML
        file: PathBuf,
    },
    /// Validate FILE and print what it means
    Check {
        /// The configuration, in TOML
        file: PathBuf,
    },
    #[command(flatten)]
    Operate(Operate),
    /// Watch services, servers, links and drops live, in a terminal
    Top(TopArgs),
    /// Show packets as they come: where each went, and why
    Trace(TraceArgs),
    /// Write packets into a file for Wireshark, each with its verdict as comment
    ///
    /// A packet that came and left is there twice. `tapvs capture - | wireshark -k -i -` shows them live.
    Capture(CaptureArgs),
    Import(import::ImportArgs),
    Lab(LabArgs),
    #[command(name = "realserver")]
    RealServer(realserver::RealServerArgs),
    /// Print shell completions
    #[command(hide = true)]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write one per command into a directory
    #[command(hide = true)]
    Man {
        /// Where to write them
        directory: Option<PathBuf>,
    },
    #[command(hide = true)]
    LabServer(LabServerArgs),
    #[command(hide = true)]
    LabClient(LabClientArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return explain(&error),
    };
    start_log(arguments.verbose, arguments.quiet);
    match arguments.command {
        Command::Run { file } => match run::run(&file) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, run_exit_code(&error)),
        },
        Command::Check { file } => match check::check(&file) {
            Ok(summary) => print(&summary),
            Err(error) => fail(&error, load_exit_code(&error)),
        },
        Command::Operate(command) => finish(operate::operate(command)),
        Command::Top(args) => finish(top::top(&args)),
        Command::Trace(args) => finish(trace::trace(&args)),
        Command::Capture(args) => finish(capture::capture(&args)),
        Command::Completions { shell } => print(&completions(shell)),
        Command::Man { directory } => man(directory.as_deref()),
        Command::Import(args) => import::main(&args),
        Command::Lab(args) => lab::main(&args, arguments.verbose > 0),
        Command::RealServer(args) => realserver::main(args),
        Command::LabServer(args) => lab::server_main(&args),
        Command::LabClient(args) => lab::client_main(&args),
    }
}

/// The end of a command that asks a router.
fn finish(done: Result<(), Failed>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has seen enough: `tapvs flows | head`.
        Err(Failed::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(Failed::Output(error)) => fail(&error, FAILURE),
        Err(Failed::Ask(error)) => fail(&error, ask_exit_code(&error)),
        Err(Failed::Filter(error)) => fail(&error, USAGE),
        Err(Failed::Usage(what)) => fail(&io::Error::other(what), USAGE),
    }
}

fn run_exit_code(error: &RunError) -> u8 {
    match error {
        RunError::Load(error) => load_exit_code(error),
        error if error.is_permission() => NO_PERMISSION,
        _ => FAILURE,
    }
}

fn ask_exit_code(error: &AskError) -> u8 {
    if error.is_permission() {
        NO_PERMISSION
    } else if error.is_absence() {
        NO_ROUTER
    } else if error.is_usage() {
        USAGE
    } else {
        FAILURE
    }
}

/// A file that is not there is a wrong argument; one that may not be read is a question of rights.
fn load_exit_code(error: &LoadError) -> u8 {
    match error {
        LoadError::Unreadable(_, error) | LoadError::Token(_, error) | LoadError::Key(_, error)
            if error.kind() == io::ErrorKind::PermissionDenied =>
        {
            NO_PERMISSION
        }
        LoadError::Nic(error) if error.is_permission() => NO_PERMISSION,
        LoadError::Nic(_) => FAILURE,
        LoadError::Unreadable(..)
        | LoadError::Wrong(..)
        | LoadError::Token(..)
        | LoadError::Key(..) => USAGE,
    }
}

/// clap's own text: help and version are no errors, all else is bad usage.
fn explain(error: &clap::Error) -> ExitCode {
    let fine = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // Nobody may be listening; that changes nothing about the code.
    let _ = error.print();
    if fine { ExitCode::SUCCESS } else { USAGE.into() }
}

fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "tapvs", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn man(directory: Option<&Path>) -> ExitCode {
    let command = Arguments::command();
    match directory {
        Some(directory) => match clap_mangen::generate_to(command, directory) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let place = directory.display();
                fail(&io::Error::new(error.kind(), format!("{place}: {error}")), FAILURE)
            }
        },
        None => {
            let mut page = Vec::new();
            // Writing into memory does not fail.
            let _ = clap_mangen::Man::new(command).render(&mut page);
            print(&String::from_utf8_lossy(&page))
        }
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        // The reader has seen enough: `tapvs check FILE | head`.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => FAILURE.into(),
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "{error}");
    code.into()
}

/// One line per event on standard error: time, level, text, fields. Colours for terminals only.
fn start_log(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    // smoltcp's own debug lines speak of single packets: only whoever asks for everything sees them.
    let default = if verbose == 1 { "debug,smoltcp=info" } else { level };
    let environment = env_logger::Env::default().default_filter_or(default);
    let mut builder = env_logger::Builder::from_env(environment);
    builder.format_target(false).format_timestamp_millis();
    builder.format_key_values(|to, fields| logfmt::write(to, fields));
    if !io::stderr().is_terminal() {
        builder.write_style(env_logger::WriteStyle::Never);
    }
    // A test may have set a logger before; that one then gets the lines.
    let _ = builder.try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
