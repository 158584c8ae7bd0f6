//! What was measured, as it is kept in `report.json`.

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// One whole run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    /// Seconds since 1970.
    pub(crate) started: u64,
    pub(crate) command: String,
    pub(crate) tapvs: String,
    pub(crate) machine: Machine,
    /// The congestion control of all TCP streams; empty in a report that is older than this.
    #[serde(default)]
    pub(crate) congestion: String,
    pub(crate) rounds: u32,
    /// Of each measurement.
    pub(crate) seconds: f64,
    /// Names of the forwarders that ran, in the order of tables, each with the one it is held against.
    pub(crate) forwarders: Vec<Forwarder>,
    pub(crate) missing: Vec<Missing>,
    pub(crate) workloads: Vec<Measured>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Forwarder {
    pub(crate) name: String,
    pub(crate) reference: Option<String>,
    /// Of a program that is not tapvs.
    pub(crate) version: Option<String>,
}

/// Something that was not measured, why, and what would help.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Missing {
    pub(crate) what: String,
    pub(crate) why: String,
    pub(crate) remedy: Option<String>,
}

/// One workload, with a row for each forwarder that can carry it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Measured {
    /// The workload's name on the command line.
    pub(crate) workload: String,
    pub(crate) rows: Vec<Row>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Row {
    pub(crate) forwarder: String,
    /// By round; `None` where it failed.
    pub(crate) samples: Vec<Option<Sample>>,
    /// Why.
    pub(crate) failures: Vec<String>,
}

/// One measurement.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// In the workload's unit: frames, bits, requests per second, or microseconds.
    pub(crate) value: f64,
    /// How long was measured.
    pub(crate) seconds: f64,
    /// Frames, bytes, requests or pings in that time.
    pub(crate) amount: f64,
    /// Processor time of the forwarder's process in that time. `None` for the kernel.
    pub(crate) forwarder_cpu: Option<f64>,
    /// Processor time of everything on the machine.
    pub(crate) machine_cpu: f64,
    /// 99 of 100 pings were no slower, in microseconds.
    pub(crate) p99: Option<f64>,
    /// Share of a processor that the forwarder took while nothing came.
    pub(crate) idle_cpu: Option<f64>,
    /// TCP segments that the client sent again.
    pub(crate) retransmits: Option<u64>,
    /// Memory of the forwarder, in bytes, with all flows resident.
    pub(crate) memory: Option<u64>,
    /// Flows that were resident.
    pub(crate) flows: Option<u64>,
}
