//! The router as a process: started in a namespace, its log read as it comes, stopped and asked.

use std::fmt;
use std::io::{BufRead as _, BufReader, PipeReader, pipe};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::process::Signal;
use tapvs::links::Namespace;

use crate::process::{PATIENCE, Process};
use crate::{Context as _, Failure, Outcome, ensure, tapvs};

/// What a report ends with when no frame is missing.
const BALANCED: &str = "every frame is accounted for";

/// A running router. Killed when dropped.
#[derive(Debug)]
pub struct Router {
    process: Process,
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
        let process = Process(child);
        // It holds the writing end: with it gone, the router's end is the pipe's.
        drop(command);
        let log = Arc::new(Log::default());
        let reader = thread::spawn({
            let log = Arc::clone(&log);
            move || log.follow(read)
        });
        Ok(Self { process, file: file.into(), log, reader: Some(reader) })
    }

    /// Its configuration file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Everything it has said so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines.lock().unwrap_or_else(PoisonError::into_inner).text.clone()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Outcome {
        self.process.signal(signal)
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
        let status = self.process.wait().context("the router")?;
        if let Some(reader) = self.reader.take() {
            reader.join().map_err(|_| Failure::new("reading the router's log failed"))?;
        }
        Ok(status)
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
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

    /// A number among the fields of the last line with all of `words`.
    pub fn figure(&self, words: &[&str], key: &str) -> Outcome<u64> {
        let found = self.lines.iter().rev().find(|line| words.iter().all(|w| line.contains(w)));
        let line = found.ok_or_else(|| Failure::new(format!("no {words:?} in:\n{self}")))?;
        field(line, key).ok_or_else(|| Failure::new(format!("no {key}=N in `{line}`")))
    }

    /// How many frames were dropped for `reason`; those not mentioned are none.
    pub fn drops(&self, reason: &str) -> u64 {
        let is_it = format!("report: dropped reason={reason} ");
        let found = self.last_report().iter().find(|line| line.contains(&is_it));
        found.and_then(|line| field(line, "count")).unwrap_or(0)
    }

    /// What the router counted on a link.
    pub fn link(&self, name: &str) -> Outcome<LinkFigures> {
        let line = format!("report: link link={name} ");
        let figure = |key| self.figure(&[&line], key);
        Ok(LinkFigures {
            frames_in: figure("frames_in")?,
            bytes_in: figure("bytes_in")?,
            frames_out: figure("frames_out")?,
            bytes_out: figure("bytes_out")?,
        })
    }

    /// What the service at `address` has carried.
    pub fn service(&self, protocol: &str, address: &str) -> Outcome<Traffic> {
        let place = format!(" protocol={protocol} address={address} ");
        let figure = |key| self.figure(&["report: service ", &place], key);
        Ok(Traffic {
            flows: figure("flows")?,
            packets_in: figure("packets_in")?,
            packets_out: figure("packets_out")?,
        })
    }

    /// The lines of the last report only: a log may hold several.
    fn last_report(&self) -> &[String] {
        let is_end = |line: &String| line.contains("balance:");
        let Some(end) = self.lines.iter().rposition(is_end) else { return &[] };
        let start = self.lines[..end].iter().rposition(is_end).map_or(0, |before| before + 1);
        &self.lines[start..=end]
    }
}

/// The number in `key=N`.
fn field(line: &str, key: &str) -> Option<u64> {
    let value = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value?.parse().ok()
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
            "[INFO] report: link link=tapvs0 frames_in=1 bytes_in=60 frames_out=0 bytes_out=0 refused=0\n\
             [INFO] report: dropped reason=unserved count=3 meaning=\"No service.\"\n\
             [INFO] report: dropped reason=no_server count=9 meaning=\"No server.\"\n\
             [INFO] report: balance: every frame is accounted for in=1 dropped=1\n\
             [INFO] report: link link=tapvs0 frames_in=12 bytes_in=3456 frames_out=7 bytes_out=890 refused=0\n\
             [INFO] report: dropped reason=unserved_not count=8 meaning=\"Something else.\"\n\
             [INFO] report: dropped reason=unserved count=4 meaning=\"No service.\"\n\
             [INFO] report: balance: every frame is accounted for in=12 dropped=1\n\
             [INFO] bye",
        );
        assert_eq!(report.drops("unserved"), 4);
        assert_eq!(report.drops("no_server"), 0, "that was in the report before");
        assert_eq!(report.figure(&["balance:"], "in").ok(), Some(12));
        assert!(report.figure(&["balance:"], "out").is_err());
        let figures = LinkFigures { frames_in: 12, bytes_in: 3_456, frames_out: 7, bytes_out: 890 };
        assert_eq!(report.link("tapvs0").ok(), Some(figures));
        assert!(report.link("tapvs1").is_err());
    }

    #[test]
    fn a_service_is_found_by_its_address() {
        let report = report(
            "[INFO] report: service service=web protocol=tcp address=10.0.0.1:80 active=7 flows=30 \
             packets_in=400 bytes_in=5000 packets_out=60 bytes_out=7000",
        );
        let figures = Traffic { flows: 30, packets_in: 400, packets_out: 60 };
        assert_eq!(report.service("tcp", "10.0.0.1:80").ok(), Some(figures));
        assert!(report.service("tcp", "10.0.0.1:8").is_err());
        assert!(report.service("udp", "10.0.0.1:80").is_err());
    }
}
