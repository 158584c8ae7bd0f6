//! The arguments of `tapvs lab` and of the two commands it runs inside the network.

use std::fmt;
use std::net::SocketAddr;

use clap::{Args, ValueEnum};

/// Build a whole network in namespaces on this machine and send requests through it
///
/// One client, the router, three real servers, all from this binary. Sends requests through the
/// virtual IP, stops a server to show what clients see, starts it again and cleans up; nothing is
/// left behind, also after Ctrl-C. With `pair` it is two routers, and the active one that is killed
/// in the middle of a download. With --verbose the routers' log is shown.
#[derive(Clone, Debug, Args)]
pub struct LabArgs {
    /// How the router reaches the servers
    #[arg(value_enum, default_value_t = Kind::Nat)]
    pub kind: Kind,
    /// Requests of the first run; the later ones send a half and a tenth of it
    #[arg(long, value_name = "N", default_value_t = 2_000,
          value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub requests: u32,
    /// Requests under way at the same time, at most
    #[arg(long, value_name = "N", default_value_t = 32,
          value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub concurrency: u32,
    /// Keep the network up afterwards, until Ctrl-C, and say how to look inside
    #[arg(long)]
    pub hold: bool,
    /// Print the router's configuration file and stop; of a pair both, one after the other
    #[arg(long)]
    pub print_config: bool,
}

/// Which network the lab builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The router rewrites addresses both ways
    Nat,
    /// The router passes requests on; the servers, which hold the virtual IP too, answer past it
    Direct,
    /// Two routers rewrite addresses, one at a time; the other takes over
    Pair,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nat => "nat",
            Self::Direct => "direct",
            Self::Pair => "pair",
        })
    }
}

/// A real server of the lab: answers every request with its name.
#[derive(Clone, Debug, Args)]
pub struct LabServerArgs {
    /// What it answers with
    #[arg(long)]
    pub name: String,
    /// Where it listens
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
}

/// The client of the lab: reads loads from standard input, one JSON object per line, and prints
/// the outcome of every request the same way.
#[derive(Clone, Debug, Args)]
pub struct LabClientArgs {
    /// Where the requests go
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub target: SocketAddr,
}
