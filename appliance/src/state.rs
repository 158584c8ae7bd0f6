//! What PID 1 tells the consoles: one small file, written whole.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files;
use crate::nics::Nic;

/// The machine at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Where the running configuration comes from.
    pub(crate) source: String,
    /// What is wrong with a file that is not running.
    pub(crate) mistakes: Vec<String>,
    /// `tapvs check` of what runs.
    pub(crate) summary: String,
    /// What the router is doing, in a word or two.
    pub(crate) router: String,
    /// How often it had to be started again.
    pub(crate) restarts: u64,
    pub(crate) nics: Vec<Nic>,
    pub(crate) watchdog: Option<String>,
    /// Milliseconds since the kernel started when PID 1 did, when the router was first ready, and
    /// when it had first forwarded a frame.
    pub(crate) started_ms: u64,
    pub(crate) ready_ms: Option<u64>,
    pub(crate) forwarded_ms: Option<u64>,
    /// The end of the log.
    pub(crate) log: Vec<String>,
}

impl State {
    pub(crate) fn write(&self) -> io::Result<()> {
        let fresh = Path::new(files::STATE).with_extension("new");
        fs::write(&fresh, serde_json::to_vec(self)?)?;
        fs::rename(&fresh, files::STATE)
    }

    pub(crate) fn read() -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(files::STATE)?)?)
    }
}
