//! The router as a process: started in a namespace, its log read as it comes, stopped and asked.

use std::fmt;
use std::io::{BufRead as _, BufReader, PipeReader, pipe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tapvs::links::Namespace;

use crate::{Context as _, Failure, Outcome, ensure, eventually, tapvs};

/// For anything the router should do at once; a loaded machine may take its time.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a report ends with when no frame is missing.
const BALANCED: &str = "every frame is accounted for";

/// A running router. Killed when dropped.
#[derive(Debug)]
pub struct Router {
    child: Child,
    file: PathBuf,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

impl Router {
    /// Starts `tapvs run FILE` in `namespace` and waits until it says that it is ready.
    pub fn start(namespace: &Namespace, file: &Path) -> Outcome<Self> {
        let router = Self::spawn(namespace, file)?;
        router.wait_for(0, &["ready"])?;
        Ok(router)
    }

    /// Starts `tapvs run FILE` in `namespace`, however that goes.
    pub fn spawn(namespace: &Namespace, file: &Path) -> Outcome<Self> {
        let (read, write) = pipe()?;
        let mut command = Command::new(tapvs());
        command.arg("run").arg(file).env_remove("RUST_LOG");
        command.stdout(write.try_clone()?).stderr(write);
        let child = namespace.spawn(&mut command).context("cannot start tapvs")?;
        // It holds the writing end: with it gone, the router's end is the pipe's.
        drop(command);
        let log = Arc::new(Log::default());
        let reader = thread::spawn({
            let log = Arc::clone(&log);
            move || log.follow(read)
        });
        Ok(Self { child, file: file.into(), log, reader: Some(reader) })
    }

    /// Its configuration file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has said so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines.lock().unwrap_or_else(PoisonError::into_inner).text.clone()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Outcome {
        kill_process(Pid::from_child(&self.child), signal).context("cannot send a signal")
    }

    /// SIGHUP, until it says that the file is the new table.
    pub fn reload(&self) -> Outcome {
        let line = self.signal_and_wait(Signal::HUP, &["reload: "])?;
        ensure!(!line.contains("refused"), "the router said: {line}");
        Ok(())
    }

    /// A signal, until it says a line with all of `words`.
    pub fn signal_and_wait(&self, signal: Signal, words: &[&str]) -> Outcome<String> {
        let before = self.log().len();
        self.signal(signal)?;
        self.wait_for(before, words)
    }

    /// SIGUSR1, and the report that it writes.
    pub fn report(&self) -> Outcome<Report> {
        let before = self.log().len();
        self.signal(Signal::USR1)?;
        self.wait_for(before, &["balance:"])?;
        Ok(Report { lines: self.log().split_off(before) })
    }

    /// Waits for a line with all of `words` among those after the first `from`.
    pub fn wait_for(&self, from: usize, words: &[&str]) -> Outcome<String> {
        self.log.wait_for(from, words).map_err(|why| {
            Failure::new(format!("{why} with {words:?}; it said:\n{}", self.log().join("\n")))
        })
    }

    /// SIGTERM. It must leave in order, and its last report must account for every frame.
    pub fn stop(&mut self) -> Outcome<Report> {
        if self.reader.is_none() {
            return Ok(Report { lines: self.log() });
        }
        self.signal(Signal::TERM)?;
        let status = self.wait()?;
        ensure!(status.success(), "the router was asked to stop and left with {status}");
        let report = Report { lines: self.log() };
        let balance = report.line("balance:").context("the last report")?;
        ensure!(balance.contains(BALANCED), "the last report: {balance}");
        Ok(report)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Outcome<ExitStatus> {
        let mut status = Ok(None);
        eventually(PATIENCE, || {
            status = self.child.try_wait();
            !matches!(status, Ok(None))
        });
        let status = status?.ok_or_else(|| {
            Failure::new(format!("the router still runs after {} s", PATIENCE.as_secs()))
        })?;
        if let Some(reader) = self.reader.take() {
            reader.join().map_err(|_| Failure::new("reading the router's log failed"))?;
        }
        Ok(status)
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a process says, line by line.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    text: Vec<String>,
    ended: bool,
}

impl Log {
    fn follow(&self, from: PipeReader) {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.change(|lines| lines.text.push(line));
        }
        self.change(|lines| lines.ended = true);
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner));
        self.more.notify_all();
    }

    fn wait_for(&self, from: usize, words: &[&str]) -> Result<String, String> {
        let end = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let says = |line: &&String| words.iter().all(|word| line.contains(word));
            if let Some(line) = lines.text.iter().skip(from).find(says) {
                return Ok(line.clone());
            }
            if lines.ended {
                return Err("the router ended without a line".into());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("the router wrote no line in {} s", PATIENCE.as_secs()));
            }
            lines = self.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Lines of the log that hold a report.
#[derive(Debug)]
pub struct Report {
    lines: Vec<String>,
}

/// What a link has carried, as the router counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkFigures {
    /// Read from the TAP.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Written to the TAP.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
}

/// What a service or a server has carried, as the router counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Given to it so far.
    pub flows: u64,
    /// From clients.
    pub packets_in: u64,
    /// To clients, by way of the router.
    pub packets_out: u64,
}

impl Report {
    /// The last line with `word`.
    pub fn line(&self, word: &str) -> Outcome<&str> {
        let found = self.lines.iter().rev().find(|line| line.contains(word));
        found
            .map(String::as_str)
            .ok_or_else(|| Failure::new(format!("nothing of `{word}` in:\n{self}")))
    }

    /// How many frames were dropped for `reason`; those not mentioned are none.
    pub fn drops(&self, reason: &str) -> u64 {
        let count = self.last_report().iter().find_map(|line| {
            let (_, row) = line.split_once("dropped ")?;
            row.strip_prefix(reason)?.strip_prefix(' ')?.split_whitespace().next()
        });
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// What the router counted on a link.
    pub fn link(&self, name: &str) -> Outcome<LinkFigures> {
        let line = self.line(&format!("link {name}: "))?;
        LinkFigures::parse(line).ok_or_else(|| Failure::new(format!("no figures in `{line}`")))
    }

    /// What a service or a server has carried: `label` is the beginning of its row.
    pub fn traffic(&self, label: &str) -> Outcome<Traffic> {
        let line = self.line(label)?;
        Traffic::parse(line).ok_or_else(|| Failure::new(format!("no figures in `{line}`")))
    }

    /// The lines of the last report only: a log may hold several.
    fn last_report(&self) -> &[String] {
        let is_end = |line: &String| line.contains("balance:");
        let Some(end) = self.lines.iter().rposition(is_end) else { return &[] };
        let start = self.lines[..end].iter().rposition(is_end).map_or(0, |before| before + 1);
        &self.lines[start..=end]
    }
}

impl LinkFigures {
    /// From `link NAME: in N frames N bytes, out N frames N bytes, ...`.
    fn parse(line: &str) -> Option<Self> {
        let (_, figures) = line.split_once(": in ")?;
        let (incoming, rest) = figures.split_once(", out ")?;
        let (frames_in, bytes_in) = frames_and_bytes(incoming)?;
        let (frames_out, bytes_out) = frames_and_bytes(rest.split(',').next()?)?;
        Some(Self { frames_in, bytes_in, frames_out, bytes_out })
    }
}

impl Traffic {
    /// From a row of the table, the columns counted from its end.
    fn parse(row: &str) -> Option<Self> {
        let mut columns = row.split_whitespace().rev().map(str::parse);
        let mut next = || columns.next()?.ok();
        let [_bytes_out, packets_out, _bytes_in, packets_in, flows] =
            [next()?, next()?, next()?, next()?, next()?];
        Some(Self { flows, packets_in, packets_out })
    }
}

/// From `N frames N bytes`.
fn frames_and_bytes(text: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [frames, "frames", bytes, "bytes"] = words[..] else { return None };
    Some((frames.parse().ok()?, bytes.parse().ok()?))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> Report {
        Report { lines: text.lines().map(str::to_owned).collect() }
    }

    #[test]
    fn figures_are_those_of_the_last_report() {
        let report = report(
            "[INFO] link tapvs0: in 1 frames 60 bytes, out 0 frames 0 bytes, 0 failed reads\n\
             [INFO] dropped unserved   3  No service.\n\
             [INFO] dropped no_server  9  No server.\n\
             [INFO] balance: 1 dropped: every frame is accounted for\n\
             [INFO] link tapvs0: in 12 frames 3456 bytes, out 7 frames 890 bytes, 0 failed reads\n\
             [INFO] dropped unserved_not 8  Something else.\n\
             [INFO] dropped unserved   4  No service.\n\
             [INFO] balance: 1 dropped: every frame is accounted for\n\
             [INFO] bye",
        );
        assert_eq!(report.drops("unserved"), 4);
        assert_eq!(report.drops("no_server"), 0, "that was in the report before");
        let figures = LinkFigures { frames_in: 12, bytes_in: 3_456, frames_out: 7, bytes_out: 890 };
        assert_eq!(report.link("tapvs0").ok(), Some(figures));
        assert!(report.link("tapvs1").is_err());
    }

    #[test]
    fn traffic_is_read_from_the_end_of_its_row() {
        let report = report("[INFO] tcp 10.0.0.1:80 web   7   1   2   30   400   5000   60   7000");
        let figures = Traffic { flows: 30, packets_in: 400, packets_out: 60 };
        assert_eq!(report.traffic("tcp 10.0.0.1:80").ok(), Some(figures));
        assert!(report.traffic("tcp 10.0.0.2:80").is_err());
    }
}
