//! The router as a process: started, its log read as it comes, asked, stopped.

use std::fs;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

use crate::{clock, files};

/// Longer lines are cut.
const LONGEST_LINE: usize = 4 << 10;
/// Blocks of this size get pages of their own, which take no memory before they are written to. Otherwise
/// the C library clears the hundreds of buffers for whole frames when they are made, all 20 MB of them.
const OWN_PAGES: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "65536");
/// A router that does not answer a question so soon is busy.
const PATIENCE: Duration = Duration::from_millis(500);
/// It takes leave of its peer first.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A router that was started.
#[derive(Debug)]
pub(crate) struct Router {
    child: Child,
    stderr: Option<ChildStderr>,
    rest: Vec<u8>,
    pub(crate) since: Duration,
    pub(crate) ready: bool,
}

impl Router {
    pub(crate) fn start() -> io::Result<Self> {
        let mut child = Command::new(files::TAPVS)
            .arg("run")
            .arg(Path::new(files::CONFIG).join(files::CONFIG_FILE))
            .env_clear()
            .env(OWN_PAGES.0, OWN_PAGES.1)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take();
        if let Some(stderr) = &stderr {
            fcntl_setfl(stderr, fcntl_getfl(stderr)? | OFlags::NONBLOCK)?;
        }
        Ok(Self { child, stderr, rest: Vec::new(), since: clock::now(), ready: false })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its log comes from, until it ends.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.stderr.as_ref().map(AsFd::as_fd)
    }

    /// What it has logged since, line by line.
    pub(crate) fn lines(&mut self) -> Vec<String> {
        let Some(stderr) = &mut self.stderr else { return Vec::new() };
        let mut buffer = [0; 16 << 10];
        let ended = match stderr.read(&mut buffer) {
            Ok(0) => true,
            Ok(length) => {
                self.rest.extend_from_slice(&buffer[..length]);
                false
            }
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        };
        let lines = split(&mut self.rest, ended);
        if ended {
            self.stderr = None;
        }
        self.ready |= lines.iter().any(|line| is_ready(line));
        lines
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(status.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Asks it to end, and makes it end when it takes too long. What it says meanwhile comes back.
    pub(crate) fn stop(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        let end = clock::now() + LAST_WORDS;
        while clock::now() < end {
            lines.append(&mut self.lines());
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            pause(Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
        // It is dead: what is left in the pipe is all there will be.
        for _ in 0..64 {
            lines.append(&mut self.lines());
        }
        lines
    }
}

/// `[TIME INFO ] ready router=...`: traffic flows from now on.
fn is_ready(line: &str) -> bool {
    line.split_once("] ").is_some_and(|(_, text)| text.starts_with("ready "))
}

/// Takes the whole lines out of `rest`; at the end, what is left is one too.
fn split(rest: &mut Vec<u8>, ended: bool) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = rest.drain(..=end).collect();
        lines.push(String::from_utf8_lossy(&line[..end.min(LONGEST_LINE)]).into_owned());
    }
    if !rest.is_empty() && (ended || rest.len() > LONGEST_LINE) {
        lines.push(String::from_utf8_lossy(rest).into_owned());
        rest.clear();
    }
    lines
}

/// Waits without turning.
pub(crate) fn pause(time: Duration) {
    let time = rustix::event::Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or_default(),
        tv_nsec: time.subsec_nanos().into(),
    };
    let _ = rustix::event::poll(&mut [], Some(&time));
}

/// Judges the installed configuration: its summary, or what is wrong.
pub(crate) fn check() -> Result<String, String> {
    let file = Path::new(files::CONFIG).join(files::CONFIG_FILE);
    let output = Command::new(files::TAPVS).arg("check").arg(file).env_clear().output();
    let output = output.map_err(|error| format!("{}: {error}", files::TAPVS))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = text(&output.stderr);
    Err(if said.trim().is_empty() { format!("tapvs check: {}", output.status) } else { said })
}

/// Makes the running router take the installed configuration over; `false` when it does not, because
/// something in it wants a new start.
pub(crate) fn reload() -> bool {
    let status = Command::new(files::TAPVS)
        .arg("reload")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Whether the running router has forwarded a frame; `None` when it cannot be asked.
pub(crate) fn has_forwarded() -> Option<bool> {
    let answer = ask("{\"command\":\"status\"}\n").ok()?;
    let answer: serde_json::Value = serde_json::from_str(&answer).ok()?;
    forwarded(&answer)
}

/// What left that the router did not begin itself.
fn forwarded(answer: &serde_json::Value) -> Option<bool> {
    let frames = answer.get("status")?.get("frames")?;
    let count = |name| frames.get(name).and_then(serde_json::Value::as_u64);
    Some(count("sent")? > count("originated")? + count("copies")?)
}

fn ask(request: &str) -> io::Result<String> {
    for entry in fs::read_dir(files::SOCKETS)? {
        let Ok(mut stream) = UnixStream::connect(entry?.path()) else { continue };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        return Ok(answer);
    }
    Err(ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_into_lines() {
        let mut rest = b"one\ntwo\nthr".to_vec();
        assert_eq!(split(&mut rest, false), ["one", "two"]);
        rest.extend(b"ee");
        assert_eq!(split(&mut rest, false), [""; 0]);
        assert_eq!(split(&mut rest, true), ["three"]);
        let mut long = vec![b'x'; LONGEST_LINE + 1];
        assert_eq!(split(&mut long, false)[0].len(), LONGEST_LINE + 1, "it does not grow for ever");
        assert!(long.is_empty());
    }

    #[test]
    fn ready_is_a_line_of_its_own() {
        assert!(is_ready("[2026-11-25T11:55:41.862Z INFO ] ready router=lvs1 generation=1"));
        assert!(!is_ready("[2026-11-25T11:55:41.862Z WARN ] not ready router=lvs1"));
        assert!(!is_ready("ready"));
    }

    #[test]
    fn frames_of_its_own_are_not_forwarded_ones() {
        let answer = |sent: u32| serde_json::json!({"status": {"frames": {"sent": sent, "originated": 2, "copies": 1}}});
        assert_eq!(forwarded(&answer(3)), Some(false));
        assert_eq!(forwarded(&answer(4)), Some(true));
        assert_eq!(forwarded(&serde_json::json!({"error": {}})), None);
    }
}
