//! `tapvs trace` and the like as a process: started beside a router, its lines read as they come.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::process::Signal;

use crate::process::{PATIENCE, Process};
use crate::{Context as _, Failure, Outcome, ensure, eventually, tapvs};

/// A command that goes on until it is ended. Killed when dropped.
#[derive(Debug)]
pub struct Watcher {
    process: Process,
    out: Lines,
    err: Lines,
}

impl Watcher {
    /// Starts it and waits until it says that it has begun.
    pub fn start(socket: &Path, arguments: &[&str]) -> Outcome<Self> {
        let mut watcher = Self::spawn(socket, arguments)?;
        let begun = eventually(PATIENCE, || {
            watcher.err.all().iter().any(|line| line.contains("Ctrl-C ends it"))
                || !watcher.process.is_running()
        });
        let said = watcher.err.all();
        ensure!(begun && watcher.is_running(), "{arguments:?} has not begun: {said:?}");
        Ok(watcher)
    }

    /// Starts it, however that goes.
    pub fn spawn(socket: &Path, arguments: &[&str]) -> Outcome<Self> {
        let mut child = Command::new(tapvs())
            .args(arguments)
            .arg("--socket")
            .arg(socket)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start tapvs")?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        Ok(Self { process: Process(child), out: Lines::of(out), err: Lines::of(err) })
    }

    /// Everything it has printed.
    pub fn lines(&self) -> Vec<String> {
        self.out.all()
    }

    /// Everything it has said beside.
    pub fn said(&self) -> Vec<String> {
        self.err.all()
    }

    /// Waits for a printed line with all of `words`.
    pub fn wait_for(&self, words: &[&str]) -> Outcome<String> {
        let mut found = None;
        eventually(PATIENCE, || {
            let lines = self.lines();
            found = lines.into_iter().find(|line| words.iter().all(|word| line.contains(word)));
            found.is_some()
        });
        found.ok_or_else(|| {
            let lines = self.lines();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            let beside = self.said().join("\n");
            Failure::new(format!("no line with {words:?} among {}:\n{last}\n{beside}", lines.len()))
        })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Outcome {
        self.process.signal(signal)
    }

    /// Waits for its end, and until all it has written is read.
    pub fn wait(&mut self) -> Outcome<ExitStatus> {
        let status = self.process.wait();
        self.out.finish();
        self.err.finish();
        status
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }
}

#[derive(Debug)]
struct Lines {
    text: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let reader = pipe.map(|pipe| {
            let text = Arc::clone(&text);
            thread::spawn(move || {
                for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    text.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            })
        });
        Self { text, reader }
    }

    fn all(&self) -> Vec<String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            // A reader that panicked has left what it read.
            drop(reader.join());
        }
    }
}
