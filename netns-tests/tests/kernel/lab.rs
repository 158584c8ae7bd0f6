//! `tapvs lab` tells its whole story, and leaves nothing behind however it ends.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::harness::trial;
use netns_tests::{Context as _, Failure, Outcome, Scratch, ensure, eventually, tapvs};
use rustix::process::{Pid, Signal, kill_process};

const INTERRUPTED: i32 = 130;
const NOTHING_LEFT: &str = "nothing left behind";
/// By this many lines the lab has child processes and is not yet near its end.
const RUNNING: usize = 8;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the_lab_tells_its_whole_story", || whole_story("nat", 3, &[])),
        trial("the_direct_lab_tells_its_whole_story", || {
            let claims = ["asked again 20 times: the router's", "rewrote 0 of their answers"];
            whole_story("direct", 4, &claims)
        }),
        trial("the_pairs_lab_tells_its_whole_story", pairs_story),
        trial("a_pairs_lab_that_is_ended_leaves_nothing_behind", || {
            // While it builds, while one router is dead, while the other one waits for its role.
            for (moment, signal, code) in [
                ("finds the servers up", Signal::INT, Some(INTERRUPTED)),
                ("lvs2        is active", Signal::KILL, None),
                ("lvs1        has all flows", Signal::INT, Some(INTERRUPTED)),
            ] {
                ended_after(moment, signal, code)?;
            }
            Ok(())
        }),
        trial("an_interrupted_lab_leaves_nothing_behind", || {
            ended_after_each_line(Signal::INT, |status, text| {
                // The story's last lines may be out before the signal is in.
                matches!(status.code(), Some(INTERRUPTED | 0)) && told_to_the_end(text)
            })
        }),
        trial("a_killed_lab_leaves_nothing_behind", || {
            ended_after_each_line(Signal::KILL, |status, text| {
                status.code().is_none() || (status.success() && told_to_the_end(text))
            })
        }),
    ]
}

/// The story of a pair: what is printed, and that the lab finds nothing wrong with it.
fn pairs_story() -> Outcome {
    let mut lab = Lab::start(&["pair", "--requests", "600"])?;
    let text = lab.whole_text()?;
    let after = |words: &str| text.split_once(words).map(|(_, rest)| rest);
    let killed = after("Killing lvs1").and_then(|_| after("lvs2        is active after"));
    let back = killed.and_then(|rest| rest.split_once("lvs1        is active after"));
    let Some((between, rest)) = back else {
        return Err(Failure::new(format!("lvs2 and lvs1 did not become active in turn:\n{text}")));
    };
    for (part, place) in [(between, "takeover"), (rest, "return")] {
        // Pause, number and failures of each: 50 idle connections, none of them broken.
        for row in ["a download, byte by byte", "idle connections, used again"] {
            let line = part.lines().find(|line| line.trim_start().starts_with(row));
            let failed = line.and_then(|line| line.split_whitespace().next_back());
            ensure!(failed == Some("0"), "{place}: {line:?}\n{text}");
        }
        ensure!(part.contains("no connection broken"), "{place}:\n{text}");
    }
    ensure!(rest.contains("64 MiB on one connection, every byte right"), "{text}");
    ensure!(rest.contains(NOTHING_LEFT), "{text}");
    lab.must_be_gone()
}

/// A pair's lab gets the signal once it has printed a line with these words.
fn ended_after(moment: &str, signal: Signal, code: Option<i32>) -> Outcome {
    let mut lab = Lab::start(&["pair", "--requests", "100"])?;
    let mut text = String::new();
    while !text.contains(moment) {
        let Some(line) = lab.line()? else {
            let (status, errors) = lab.end()?;
            return Err(Failure::new(format!("no `{moment}`, {status}:\n{text}{errors}")));
        };
        text.push_str(&line);
        text.push('\n');
    }
    let running = lab.processes()?;
    ensure!(running.len() > 3, "not even seen while it runs: {running:?}");
    lab.signal(signal)?;
    while let Some(line) = lab.line()? {
        text.push_str(&line);
        text.push('\n');
    }
    let (status, errors) = lab.end()?;
    ensure!(status.code() == code, "{signal:?} after `{moment}`: {status}\n{text}{errors}");
    lab.must_be_gone().context(format_args!("{signal:?} after `{moment}`"))
}

/// Each server is named at the beginning of so many lines.
fn whole_story(kind: &str, lines: usize, words: &[&str]) -> Outcome {
    let mut lab = Lab::start(&[kind, "--requests", "600"])?;
    let text = lab.whole_text()?;
    let always = [
        "that s3 is down",
        "the share of s3 by the others",
        "that s3 is up",
        "Starting s3 again",
        NOTHING_LEFT,
    ];
    for words in always.iter().chain(words) {
        ensure!(text.contains(words), "no `{words}` in\n{text}");
    }
    for server in ["s1", "s2", "s3"] {
        let rows = text.lines().filter(|line| line.trim_start().starts_with(server)).count();
        ensure!(rows == lines, "{server} begins {rows} lines, not {lines}:\n{text}");
    }
    lab.must_be_gone()
}

fn told_to_the_end(text: &[String]) -> bool {
    text.last().is_some_and(|line| line.contains(NOTHING_LEFT))
}

/// One lab for each line that it prints, which gets the signal after that line: while it builds,
/// sends, stops a server, cleans up.
fn ended_after_each_line(signal: Signal, right: fn(ExitStatus, &[String]) -> bool) -> Outcome {
    for moment in 1.. {
        let mut lab = Lab::start(&["--requests", "100"])?;
        let mut text = Vec::new();
        while text.len() < moment
            && let Some(line) = lab.line()?
        {
            text.push(line);
        }
        let over = text.len() < moment;
        if !over {
            if moment == RUNNING {
                let running = lab.processes()?;
                ensure!(running.len() > 1, "not even seen while it runs: {running:?}");
            }
            lab.signal(signal)?;
        }
        while let Some(line) = lab.line()? {
            text.push(line);
        }
        let (status, errors) = lab.end()?;
        let text_lines = text.join("\n");
        ensure!(right(status, &text), "{signal:?} after line {moment}: {status}\n{text_lines}");
        lab.must_be_gone().context(format_args!("{signal:?} after line {moment}"))?;
        if over {
            ensure!(status.success(), "{status}\n{text_lines}{errors}");
            ensure!(moment > 2 * RUNNING, "it has only {moment} lines:\n{text_lines}");
            return Ok(());
        }
    }
    Ok(())
}

/// A running `tapvs lab`. Its processes inherit a directory for temporary files of its own, by
/// which they can be told from everybody else's.
struct Lab {
    child: Child,
    output: BufReader<ChildStdout>,
    errors: ChildStderr,
    scratch: Scratch,
}

impl Lab {
    fn start(arguments: &[&str]) -> Outcome<Self> {
        let scratch = Scratch::new()?;
        let mut child = Command::new(tapvs())
            .arg("lab")
            .args(arguments)
            .env("TMPDIR", scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Failure::new("a child without the pipes that were asked for"));
        };
        Ok(Self { child, output: BufReader::new(output), errors, scratch })
    }

    fn line(&mut self) -> Outcome<Option<String>> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line)?;
        Ok((read > 0).then(|| line.trim_end().to_owned()))
    }

    /// All that it prints, to its good end.
    fn whole_text(&mut self) -> Outcome<String> {
        let mut text = String::new();
        while let Some(line) = self.line()? {
            text.push_str(&line);
            text.push('\n');
        }
        let (status, errors) = self.end()?;
        ensure!(status.success(), "{status}\n{text}{errors}");
        Ok(text)
    }

    fn signal(&self, signal: Signal) -> Outcome {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // Until it is waited for, the pid is the child's, whether it still runs or not.
        Ok(kill_process(pid.ok_or_else(|| Failure::new("no such pid"))?, signal)?)
    }

    /// How it ended, and what it complained about.
    fn end(&mut self) -> Outcome<(ExitStatus, String)> {
        let errors = io::read_to_string(&mut self.errors)?;
        Ok((self.child.wait()?, errors))
    }

    /// No process, no file, no device.
    fn must_be_gone(&self) -> Outcome {
        // After SIGKILL it is the kernel that ends the children, a moment later.
        let gone = || self.processes().is_ok_and(|left| left.is_empty());
        ensure!(
            eventually(Duration::from_secs(5), gone),
            "it left the processes {:?}",
            self.processes()
        );
        let files: Vec<_> = fs::read_dir(self.scratch.path())?.collect();
        ensure!(files.is_empty(), "it left the files {files:?}");
        for device in ["tapvs0", "tapvs1", "labbr0", "labbr1"] {
            let here = Path::new("/sys/class/net").join(device).exists();
            ensure!(!here, "it left the device {device}");
        }
        Ok(())
    }

    /// Every process with this lab's environment.
    fn processes(&self) -> io::Result<Vec<String>> {
        let mark = format!("TMPDIR={}", self.scratch.path().display());
        let mut found = Vec::new();
        for process in fs::read_dir("/proc")? {
            let path = process?.path();
            let read = |name| fs::read(path.join(name)).unwrap_or_default();
            if read("environ").split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes()) {
                let command = read("cmdline");
                found.push(format!("{}: {}", path.display(), String::from_utf8_lossy(&command)));
            }
        }
        Ok(found)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
