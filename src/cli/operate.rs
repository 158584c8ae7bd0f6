//! The commands that look at a running router or change it: arguments in, a request out, its answer
//! shown.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ask::{AskError, Router};
use super::paint::Paint;
use super::show;
use super::show::ipvsadm::Listing;
use crate::control::protocol::failover::Wish;
use crate::control::protocol::{Answer, Request};
use crate::dataplane::State;
use crate::trace::FilterError;

/// The states that `flows --state` knows.
const STATES: [State; 11] = [
    State::None,
    State::Established,
    State::SynSent,
    State::SynRecv,
    State::FinWait,
    State::TimeWait,
    State::Close,
    State::CloseWait,
    State::LastAck,
    State::Udp,
    State::Icmp,
];

/// Which router, and for whom the answer is.
#[derive(Debug, Args)]
pub(super) struct Look {
    /// The router's control socket; default: the only one in /run/tapvs
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,

    /// One JSON object per line: for lists, one per entry
    #[arg(long)]
    pub(super) json: bool,
}

/// Which server of which service.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The service's name
    service: String,
    /// The server's name, or its ADDRESS:PORT
    server: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum Operate {
    /// Show how a running router is doing: uptime, flows, links, where every frame went
    Status(#[command(flatten)] Look),
    /// Show services and servers: weights, flows, totals since they were added, and rates
    ///
    /// Rates are the difference of two samples; the second is taken after --interval.
    Services {
        #[command(flatten)]
        look: Look,
        /// Seconds between the two samples; 0 for no rates
        #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=3600))]
        interval: u64,
        /// In the format of `ipvsadm -Ln`, for scripts that read it
        #[arg(long, conflicts_with = "json")]
        ipvsadm: bool,
        /// As `ipvsadm -Ln --stats`: connections, packets and bytes
        #[arg(long, requires = "ipvsadm", conflicts_with = "rate")]
        stats: bool,
        /// As `ipvsadm -Ln --rate`: the same per second, as IPVS estimates it; --interval does not count
        #[arg(long, requires = "ipvsadm")]
        rate: bool,
    },
    /// List flows, all or some
    Flows {
        #[command(flatten)]
        look: Look,
        /// Only of this client, or of clients in this prefix
        #[arg(long, value_name = "ADDRESS[/PREFIX]")]
        client: Option<String>,
        /// Only to this server
        #[arg(long, value_name = "NAME|ADDRESS[:PORT]")]
        server: Option<String>,
        /// Only of this service
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        /// Only in this state
        #[arg(long, ignore_case = true, value_parser = STATES.map(State::name))]
        state: Option<String>,
        /// The clients that services with persistence remember, rather than flows
        #[arg(long, conflicts_with = "state")]
        persistent: bool,
        /// No more than this; 0 for all
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: usize,
    },
    /// List the neighbours that the router knows or asks for
    Neighbours(#[command(flatten)] Look),
    /// Show how many frames were dropped, and why
    Drops(#[command(flatten)] Look),
    /// Have the router read its file again; a wrong one changes nothing
    Reload(#[command(flatten)] Look),
    /// Give a server no new flows; those it has go on, for `drain_timeout` where the file says so. Holds
    /// across reloads
    Drain {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        look: Look,
    },
    /// Give a server back the weight that the file gives it
    Undrain {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        look: Look,
    },
    /// Give a server another weight than the file does. Holds across reloads, until `undrain`
    Weight {
        #[command(flatten)]
        target: Target,
        /// 0 takes no new flows
        weight: u16,
        #[command(flatten)]
        look: Look,
    },
    /// Decide by hand which router of a pair is active
    ///
    /// `yield` gives the role to the other router and leaves it there, for as long as that one lives.
    /// `resume` undoes it. Does not survive a restart.
    Failover {
        /// What this router is to do
        action: Action,
        #[command(flatten)]
        look: Look,
    },
}

/// What becomes of the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Action {
    /// Give it to the other router
    Yield,
    /// Take part again
    Resume,
}

impl From<Action> for Wish {
    fn from(action: Action) -> Self {
        match action {
            Action::Yield => Self::Yield,
            Action::Resume => Self::Resume,
        }
    }
}

/// Why nothing, or not everything, was shown.
#[derive(Debug)]
pub(super) enum Failed {
    /// The router did not answer, or refused.
    Ask(AskError),
    /// Standard output took no more.
    Output(io::Error),
    /// A filter is wrong.
    Filter(FilterError),
    /// It cannot be done here.
    Usage(&'static str),
}

impl From<AskError> for Failed {
    fn from(error: AskError) -> Self {
        Self::Ask(error)
    }
}

impl From<FilterError> for Failed {
    fn from(error: FilterError) -> Self {
        Self::Filter(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Where answers are shown, and how.
pub(super) struct Output<'o> {
    pub(super) to: &'o mut dyn Write,
    pub(super) paint: Paint,
    pub(super) json: bool,
}

impl Output<'_> {
    /// Text for a person.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        self.to.write_all(text.as_bytes())
    }

    /// A line for a program.
    pub(super) fn json(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.to.write_all(&line)
    }
}

/// Does what the command says.
pub(super) fn operate(command: Operate) -> Result<(), Failed> {
    let mut stdout = io::stdout().lock();
    let look = command.look();
    let mut router = Router::connect(look.socket.as_deref())?;
    let mut output = Output { json: look.json, paint: Paint::for_stdout(), to: &mut stdout };
    show(command, &mut router, &mut output)
}

fn show(command: Operate, router: &mut Router, output: &mut Output<'_>) -> Result<(), Failed> {
    match command {
        Operate::Status(_) => show::status::show(router, output),
        Operate::Services { ipvsadm: true, stats, rate, .. } => {
            let listing = match (stats, rate) {
                (true, _) => Listing::Stats,
                (false, true) => Listing::Rate,
                (false, false) => Listing::Plain,
            };
            show::ipvsadm::show(router, listing, output)
        }
        Operate::Services { interval, .. } => show::services::show(router, interval, output),
        Operate::Flows { client, server, service, state, persistent, limit, .. } => {
            let request = |from| Request::Flows {
                from,
                client: client.clone(),
                server: server.clone(),
                service: service.clone(),
                state: state.clone(),
                persistent,
            };
            show::flows::show(router, request, limit, output)
        }
        Operate::Neighbours(_) => show::neighbours::show(router, output),
        Operate::Drops(_) => show::drops::show(router, output),
        Operate::Reload(_) => show::change::reload(router, output),
        Operate::Drain { target: Target { service, server }, .. } => {
            show::change::server(router, &Request::Drain { service, server }, output)
        }
        Operate::Undrain { target: Target { service, server }, .. } => {
            show::change::server(router, &Request::Undrain { service, server }, output)
        }
        Operate::Failover { action, .. } => show::failover::decide(router, action.into(), output),
        Operate::Weight { target: Target { service, server }, weight, .. } => {
            show::change::server(router, &Request::Weight { service, server, weight }, output)
        }
    }
}

impl Operate {
    const fn look(&self) -> &Look {
        match self {
            Self::Status(look)
            | Self::Neighbours(look)
            | Self::Drops(look)
            | Self::Reload(look) => look,
            Self::Services { look, .. }
            | Self::Flows { look, .. }
            | Self::Drain { look, .. }
            | Self::Undrain { look, .. }
            | Self::Weight { look, .. }
            | Self::Failover { look, .. } => look,
        }
    }
}

/// What the answer to `request` must be.
pub(super) fn expect<T>(
    router: &mut Router,
    request: &Request,
    wanted: impl FnOnce(Answer) -> Option<T>,
) -> Result<T, AskError> {
    wanted(router.ask(request)?).ok_or_else(|| router.unexpected())
}
