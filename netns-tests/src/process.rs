//! A process that trials start: signalled, waited for, and killed when dropped.

use std::process::{Child, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{Context as _, Failure, Outcome, eventually};

/// For anything a program should do at once; a loaded machine may take its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Resident memory of a process, in bytes.
pub fn resident(pid: u32) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.ok_or_else(|| Failure::new("no VmRSS in /proc/PID/status"))? * 1_024)
}

/// A running program. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Outcome {
        kill_process(Pid::from_child(&self.0), signal).context("cannot send a signal")
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Outcome<ExitStatus> {
        let mut status = Ok(None);
        eventually(PATIENCE, || {
            status = self.0.try_wait();
            !matches!(status, Ok(None))
        });
        let runs = || Failure::new(format!("it still runs after {} s", PATIENCE.as_secs()));
        status?.ok_or_else(runs)
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
