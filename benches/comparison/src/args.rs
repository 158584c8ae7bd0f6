//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::load::Workload;

/// Compares tapvs with raw TAP forwarders, the kernel's own NAT and proxies, side by side in network namespaces
/// of this machine.
#[derive(Debug, Parser)]
#[command(name = "tapvs-bench", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Hidden>,
    #[command(flatten)]
    pub(crate) benchmark: BenchmarkArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Hidden {
    /// A raw forwarder; the benchmark starts it.
    #[command(hide = true)]
    Forward(ForwardArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ForwardArgs {
    /// The two TAP devices.
    #[arg(long, num_args = 2, required = true)]
    pub(crate) taps: Vec<String>,
    /// With the header of segmentation offload.
    #[arg(long)]
    pub(crate) vnet: bool,
    /// Through io_uring.
    #[arg(long)]
    pub(crate) batched: bool,
}

#[derive(Args, Debug)]
pub(crate) struct BenchmarkArgs {
    /// One short round of the most telling forwarders: shows that everything works, its numbers mean little
    #[arg(long)]
    pub(crate) quick: bool,
    /// How often everything is measured; the median counts [default: 5, with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: Option<u32>,
    /// How long each measurement takes [default: 2, with --quick 0.3]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) seconds: Option<f64>,
    /// Only these workloads
    #[arg(long, value_name = "WORKLOAD", value_delimiter = ',', value_enum)]
    pub(crate) only: Vec<Workload>,
    /// Only forwarders whose name has all words of one of these in it, and those they are compared with: `haproxy,"nat vnet_hdr io_uring"`
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    pub(crate) forwarders: Vec<String>,
    /// Where the report and the plots go
    #[arg(long, value_name = "FOLDER", default_value = "target/benchmark")]
    pub(crate) out: PathBuf,
    /// Write the table into README.md and the plots into docs/benchmark/ too
    #[arg(long)]
    pub(crate) readme: bool,
    /// Measure nothing: make table, plots and README section of a report that is there already
    #[arg(long, value_name = "REPORT.json")]
    pub(crate) from: Option<PathBuf>,
    /// List workloads and forwarders, and what is missing
    #[arg(long)]
    pub(crate) list: bool,
    /// Fail where a target is missed too, not only where something did not work
    #[arg(long)]
    pub(crate) judge: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.05 to 600".into()),
    }
}
