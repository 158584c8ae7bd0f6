//! `tapvs realserver`: its arguments, its tables and its exit codes.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{FAILURE, NO_PERMISSION, USAGE, fail, print};
use crate::addr::Proto;
use crate::lab::grid::{Grid, Side};
use crate::realserver::{
    self, Applied, Error, Fate, Folder, Method, Part, Report, Request, Undone,
};

/// Prepare a real server for direct routing, or check it
///
/// A real server of a direct service holds the virtual IP and must not answer ARP for it. Four methods
/// keep it silent. Run this on the real server; or `print` the commands, which need no tapvs there.
#[derive(Debug, Args)]
pub(super) struct RealServerArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the shell commands, those that prepare the server and those that take it back
    Print {
        /// How the server is kept silent
        #[arg(long, value_enum)]
        method: Method,
        #[command(flatten)]
        request: RequestArgs,
        /// One half only
        #[arg(long, value_enum)]
        part: Option<Part>,
    },
    /// Prepare this machine; what was there before is remembered
    Apply {
        /// How the server is kept silent
        #[arg(long, value_enum)]
        method: Method,
        #[command(flatten)]
        request: RequestArgs,
        #[command(flatten)]
        state: StateArgs,
    },
    /// Take back what `apply` did on this machine
    Undo {
        /// That of one method only
        #[arg(long, value_enum)]
        method: Option<Method>,
        /// For these virtual IPs only
        #[arg(long, value_name = "ADDRESS", num_args = 1..)]
        vip: Vec<Ipv4Addr>,
        #[command(flatten)]
        state: StateArgs,
    },
    /// Tell what is there, what is missing and what is in the way; exits with 1 unless all is right
    Check {
        /// Measure by this method; by default the one that is in place
        #[arg(long, value_enum)]
        method: Option<Method>,
        #[command(flatten)]
        request: RequestArgs,
        #[command(flatten)]
        state: StateArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct RequestArgs {
    /// The virtual IP of the service; may be given more than once
    #[arg(long, value_name = "ADDRESS", required = true, num_args = 1..)]
    vip: Vec<Ipv4Addr>,
    /// The service's protocol, tcp or udp; may be given more than once
    #[arg(long, default_value = "tcp", num_args = 1.., value_parser = protocol)]
    protocol: Vec<Proto>,
    /// The service's ports: what `redirect` needs and `check` looks for listeners at
    #[arg(long, value_name = "N", num_args = 1.., value_parser = clap::value_parser!(u16).range(1..))]
    port: Vec<u16>,
    /// The interface towards the router
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    interface: String,
    /// The server's own address; by default its first one on the interface
    #[arg(long, value_name = "RIP")]
    address: Option<Ipv4Addr>,
}

#[derive(Debug, Args)]
struct StateArgs {
    /// Where `apply` remembers what `undo` restores
    #[arg(long, value_name = "DIR", default_value = "/run/tapvs")]
    state_directory: PathBuf,
}

impl RequestArgs {
    fn request(self) -> Request {
        Request {
            vips: self.vip,
            protocols: self.protocol,
            ports: self.port,
            interface: self.interface,
            address: self.address,
        }
    }
}

fn protocol(text: &str) -> Result<Proto, String> {
    [Proto::Tcp, Proto::Udp]
        .into_iter()
        .find(|protocol| protocol.to_string() == text)
        .ok_or_else(|| "tcp or udp".into())
}

/// Does what the arguments ask and says so.
pub(super) fn main(args: RealServerArgs) -> ExitCode {
    run(args.command).unwrap_or_else(|error| fail(&error, exit_code(&error)))
}

fn run(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Print { method, request, part } => {
            Ok(print(&realserver::print(method, &request.request(), part)?))
        }
        Command::Apply { method, request, state } => {
            let folder = Folder::new(&state.state_directory)?;
            let applied = realserver::apply(method, &request.request(), &folder);
            applied.map(|applied| print(&applied_text(method, &applied))).inspect_err(|error| {
                if error.is_early() {
                    let _ = writeln!(io::stderr(), "tapvs realserver: nothing was changed");
                }
            })
        }
        Command::Undo { method, vip, state } => {
            let folder = Folder::new(&state.state_directory)?;
            let undone = realserver::undo(method, &vip, &folder)?;
            Ok(verdict(print(&undone_text(&undone)), undone.is_complete()))
        }
        Command::Check { method, request, state, json } => {
            let folder = Folder::new(&state.state_directory)?;
            let report = realserver::check(method, &request.request(), &folder)?;
            let text = if json { json_text(&report) } else { report_text(&report) };
            Ok(verdict(print(&text), report.is_right()))
        }
    }
}

fn exit_code(error: &Error) -> u8 {
    match error {
        error if error.is_usage() => USAGE,
        error if error.is_permission() => NO_PERMISSION,
        _ => FAILURE,
    }
}

fn verdict(printed: ExitCode, is_right: bool) -> ExitCode {
    if is_right { printed } else { FAILURE.into() }
}

fn applied_text(method: Method, applied: &Applied) -> String {
    let mut grid = Grid::new([("APPLY", Side::Left), ("STEP", Side::Left)]);
    for (step, now) in &applied.steps {
        let word = if *now { "done" } else { "was there" };
        grid.row([word.to_owned(), step.to_string()]);
    }
    let file = applied.file.display();
    text(&grid) + &format!("remembered in {file}; `tapvs realserver undo --method {method}`\n")
}

fn undone_text(undone: &Undone) -> String {
    let mut grid = Grid::new([("UNDO", Side::Left), ("STEP", Side::Left), ("", Side::Left)]);
    for (step, fate) in &undone.steps {
        let (word, detail) = match fate {
            Fate::Undone => ("undone", String::new()),
            Fate::Gone => ("was gone", String::new()),
            Fate::Left(how) => ("left", format!("{how}, not what `apply` wrote")),
            Fate::Failed(why) => ("failed", why.replace('\n', " ")),
        };
        grid.row([word.to_owned(), step.to_string(), detail]);
    }
    if undone.steps.is_empty() { "nothing had to be undone\n".into() } else { text(&grid) }
}

fn report_text(report: &Report) -> String {
    let method = report.method.map_or_else(|| "no method in place".into(), |m| m.to_string());
    let mut grid = Grid::new([("STATE", Side::Left), ("WHAT", Side::Left), ("", Side::Left)]);
    for finding in &report.findings {
        let detail = finding.detail.replace('\n', " ");
        grid.row([finding.state.to_string(), finding.what.clone(), detail]);
    }
    format!("{method}, {}\n{}", report.interface, text(&grid))
}

fn json_text(report: &Report) -> String {
    let mut value = serde_json::json!({ "right": report.is_right() });
    if let (Some(all), Ok(serde_json::Value::Object(more))) =
        (value.as_object_mut(), serde_json::to_value(report))
    {
        all.extend(more);
    }
    let mut text = String::new();
    let _ = writeln!(text, "{value:#}");
    text
}

fn text<const N: usize>(grid: &Grid<N>) -> String {
    grid.lines().into_iter().map(|line| line + "\n").collect()
}
