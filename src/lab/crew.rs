//! The lab's child processes and everything that can happen while it waits for one of them: a line
//! of output, an end, a signal. All of it arrives in one queue, so that nothing is waited for blindly.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::deadline::Deadline;
use super::screen::Screen;
use crate::links::{Namespace, child};

/// How many of a child's last lines are kept for an error report.
const KEPT: usize = 40;
/// The longest line taken from a child; more is cut off.
const LONGEST_LINE: usize = 4_096;
/// How long a child that was asked to stop may take before it is killed; or to report.
const FAREWELL: Duration = Duration::from_secs(3);

/// Why the lab did not come to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// A signal asked for it.
    Interrupted,
    /// Something is not as it must be; the text says what.
    Failed(String),
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Which child a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Router,
    /// One of a pair, by position.
    PairRouter(usize),
    Client,
    /// By position in the plan.
    Server(usize),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router => f.pad("router"),
            Self::PairRouter(position) => write!(f, "router lvs{}", position + 1),
            Self::Client => f.pad("client"),
            Self::Server(position) => write!(f, "server s{}", position + 1),
        }
    }
}

/// One line that a child printed.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) who: Who,
    pub(super) from: Stream,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Output,
    Errors,
}

/// All children; dropping it ends and reaps every one.
#[derive(Debug)]
pub(super) struct Crew {
    members: Vec<Member>,
    /// Never reused, so that a late line is not taken for one of a successor.
    next_id: u32,
    events: Receiver<Event>,
    sender: Sender<Event>,
    verbose: bool,
}

#[derive(Debug)]
struct Member {
    id: u32,
    who: Who,
    child: Child,
    open_streams: u8,
    /// Set once it is gone.
    ended: Option<ExitStatus>,
    /// Asked to stop: its end is no surprise.
    leaving: bool,
    last_lines: VecDeque<String>,
}

#[derive(Debug)]
enum Event {
    Signal,
    Line { id: u32, from: Stream, text: String },
    Closed { id: u32 },
}

impl Crew {
    /// Nobody yet. From here on signals are events.
    pub(super) fn new(verbose: bool) -> io::Result<Self> {
        let (sender, events) = mpsc::channel();
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let signalled = sender.clone();
        thread::Builder::new().name("tapvs-signals".into()).spawn(move || {
            for _ in signals.forever() {
                if signalled.send(Event::Signal).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { members: Vec::new(), next_id: 0, events, sender, verbose })
    }

    /// Starts this very program with other arguments, inside `namespace`. Standard input is
    /// `input`: a pipe for `Stdio::piped()`, see [`Self::tell`].
    pub(super) fn start(
        &mut self,
        who: Who,
        namespace: &Namespace,
        arguments: &[String],
        input: Stdio,
    ) -> io::Result<()> {
        use std::os::unix::process::CommandExt as _;

        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(arguments)
            // What the lab waits for is logged at this level.
            .env("RUST_LOG", "info")
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C on the terminal is the lab's to handle, not everybody's at once.
            .process_group(0);
        let mut child = namespace.spawn(&mut command)?;
        let id = self.next_id;
        self.next_id += 1;
        let streams = (child.stdout.take(), child.stderr.take());
        self.members.push(Member {
            id,
            who,
            child,
            open_streams: 2,
            ended: None,
            leaving: false,
            last_lines: VecDeque::with_capacity(KEPT),
        });
        if let (Some(output), Some(errors)) = streams {
            self.listen(id, Stream::Output, output)?;
            self.listen(id, Stream::Errors, errors)?;
        }
        Ok(())
    }

    /// Writes a line to a child's standard input.
    pub(super) fn tell(&self, who: Who, line: &str) -> io::Result<()> {
        let Some(mut input) = self.member(who).and_then(|member| member.child.stdin.as_ref())
        else {
            return Err(io::Error::other(format!("{who} has no standard input")));
        };
        writeln!(input, "{line}")
    }

    /// Has the router log what it has counted, and waits for the line with `label`.
    pub(super) fn line_of_report(&mut self, label: &str, screen: &Screen) -> Result<String, Stop> {
        let router = self.members.iter_mut().find(|member| member.who == Who::Router);
        if let Some(router) = router {
            child::ask_for_report(&mut router.child)?;
        }
        let deadline = Deadline::after(FAREWELL);
        while let Some(line) = self.next(deadline, screen)? {
            if line.who == Who::Router && line.text.contains(label) {
                return Ok(line.text);
            }
        }
        let last = self.last_lines(Who::Router);
        Err(Stop::Failed(format!("the router's report has no line of `{label}`{last}")))
    }

    /// Waits for the next line of any child; `None` when the deadline passes without one.
    pub(super) fn next(
        &mut self,
        deadline: Deadline,
        screen: &Screen,
    ) -> Result<Option<Line>, Stop> {
        while let Ok(left) = deadline.remaining() {
            let event = match self.events.recv_timeout(left) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => break,
                Err(error @ RecvTimeoutError::Disconnected) => return Err(error.into()),
            };
            if let Some(line) = self.take(event, screen)? {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// Waits until a child has printed a line with all these words, and returns it.
    pub(super) fn wait_for_words(
        &mut self,
        who: Who,
        words: &[&str],
        patience: Duration,
        screen: &Screen,
    ) -> Result<String, Stop> {
        self.wait_for_lines(who, vec![words], patience, screen)
    }

    /// Waits until a child has printed, in whatever order, a line with all the words of each; returns
    /// the last one.
    pub(super) fn wait_for_lines(
        &mut self,
        who: Who,
        mut lines: Vec<&[&str]>,
        patience: Duration,
        screen: &Screen,
    ) -> Result<String, Stop> {
        let deadline = Deadline::after(patience);
        while let Some(line) = self.next(deadline, screen)? {
            let is_it = |words: &&[&str]| words.iter().all(|word| has_word(&line.text, word));
            if line.who == who
                && let Some(position) = lines.iter().position(is_it)
            {
                lines.swap_remove(position);
                if lines.is_empty() {
                    return Ok(line.text);
                }
            }
        }
        let seconds = patience.as_secs();
        let words = lines.first().map(|words| words.join(" … ")).unwrap_or_default();
        let last = self.last_lines(who);
        Err(Stop::Failed(format!("the {who} did not say `{words}` within {seconds} s{last}")))
    }

    /// Takes in what has happened so far, without waiting.
    pub(super) fn catch_up(&mut self, screen: &Screen) -> Result<(), Stop> {
        while let Ok(event) = self.events.try_recv() {
            self.take(event, screen)?;
        }
        Ok(())
    }

    /// Waits for a signal, or for a child that ends by itself.
    pub(super) fn wait_for_signal(&mut self, screen: &Screen) -> Stop {
        loop {
            let stop = match self.events.recv() {
                Ok(event) => self.take(event, screen).err(),
                Err(error) => Some(error.into()),
            };
            if let Some(stop) = stop {
                return stop;
            }
        }
    }

    /// Kills a child on the spot, as a crash would.
    pub(super) fn kill(&mut self, who: Who) -> io::Result<()> {
        let Some(position) = self.members.iter().position(|member| member.who == who) else {
            return Ok(());
        };
        let mut member = self.members.swap_remove(position);
        member.child.kill()?;
        member.child.wait().map(drop)
    }

    /// The child's process id, for an operator who wants to look at it.
    pub(super) fn pid(&self, who: Who) -> Option<u32> {
        self.member(who).map(|member| member.child.id())
    }

    pub(super) fn count(&self) -> usize {
        self.members.len()
    }

    /// Ends every child: asks the routers, which have something to tidy up, and kills the others.
    /// A signal cuts the routers' farewell short.
    pub(super) fn dismiss(&mut self, screen: &Screen) -> Result<(), Stop> {
        let all = self.members.iter().map(|member| member.who);
        let routers: Vec<_> =
            all.filter(|who| matches!(who, Who::Router | Who::PairRouter(_))).collect();
        let farewell = routers.into_iter().try_for_each(|router| self.part_from(router, screen));
        // Whoever is dropped is killed and reaped.
        self.members.clear();
        farewell
    }

    fn part_from(&mut self, who: Who, screen: &Screen) -> Result<(), Stop> {
        let deadline = Deadline::after(FAREWELL);
        let mut members = self.members.iter_mut();
        let Some(member) = members.find(|member| member.who == who && member.ended.is_none())
        else {
            return Ok(());
        };
        member.leaving = true;
        child::terminate(&mut member.child)?;
        loop {
            if let Some(status) = self.member(who).and_then(|member| member.ended) {
                if status.success() {
                    return Ok(());
                }
                let (said, last) = (said(status), self.last_lines(who));
                return Err(Stop::Failed(format!(
                    "the {who}, asked to stop, ended with {said}{last}"
                )));
            }
            let Ok(left) = deadline.remaining() else {
                let seconds = FAREWELL.as_secs();
                let last = self.last_lines(who);
                return Err(Stop::Failed(format!(
                    "the {who} did not stop within {seconds} s and was killed{last}"
                )));
            };
            if let Ok(event) = self.events.recv_timeout(left)
                && let Err(Stop::Interrupted) = self.take(event, screen)
            {
                return Err(Stop::Interrupted);
            }
        }
    }

    fn take(&mut self, event: Event, screen: &Screen) -> Result<Option<Line>, Stop> {
        match event {
            Event::Signal => Err(Stop::Interrupted),
            Event::Line { id, from, text } => {
                let verbose = self.verbose;
                let Some(member) = self.by_id(id) else { return Ok(None) };
                if from == Stream::Errors {
                    if verbose {
                        screen.log(member.who, &text);
                    }
                    member.remember(&text);
                }
                Ok(Some(Line { who: member.who, from, text }))
            }
            Event::Closed { id } => {
                let Some(member) = self.by_id(id) else { return Ok(None) };
                member.open_streams -= 1;
                if member.open_streams > 0 {
                    return Ok(None);
                }
                let (who, status) = (member.who, member.child.wait()?);
                member.ended = Some(status);
                if member.leaving {
                    return Ok(None);
                }
                Err(Stop::Failed(format!(
                    "the {who} ended by itself: {}{}",
                    said(status),
                    self.last_lines(who)
                )))
            }
        }
    }

    /// Turns what a child prints into events, on a thread that ends with the child.
    fn listen(&self, id: u32, from: Stream, stream: impl Read + Send + 'static) -> io::Result<()> {
        let sender = self.sender.clone();
        let listener = move || {
            let mut stream = BufReader::new(stream);
            while let Ok(Some(text)) = read_line(&mut stream) {
                if sender.send(Event::Line { id, from, text }).is_err() {
                    return;
                }
            }
            let _ = sender.send(Event::Closed { id });
        };
        thread::Builder::new().name("tapvs-listener".into()).spawn(listener).map(drop)
    }

    fn last_lines(&self, who: Who) -> String {
        let Some(member) = self.member(who) else { return String::new() };
        if member.last_lines.is_empty() {
            return "; it logged nothing".to_owned();
        }
        let mut text = "; its last lines:".to_owned();
        for line in &member.last_lines {
            text.push_str("\n    ");
            text.push_str(line);
        }
        text
    }

    fn member(&self, who: Who) -> Option<&Member> {
        self.members.iter().find(|member| member.who == who)
    }

    fn by_id(&mut self, id: u32) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == id)
    }
}

impl Member {
    fn remember(&mut self, line: &str) {
        if self.last_lines.len() == KEPT {
            self.last_lines.pop_front();
        }
        self.last_lines.push_back(line.to_owned());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Errors mean that it has ended and been reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next line without its end, at most [`LONGEST_LINE`] bytes of it; `None` at the end.
fn read_line(stream: &mut impl io::BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let most = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX);
    if stream.take(most).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() == LONGEST_LINE {
        stream.skip_until(b'\n')?;
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

/// "already" does not say "ready".
fn has_word(line: &str, word: &str) -> bool {
    line.split(|letter: char| !letter.is_alphanumeric()).any(|part| part == word)
}

fn said(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;

    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_whole_word() {
        assert!(has_word("[INFO] ready: 2 links", "ready") && has_word("ready", "ready"));
        assert!(!has_word("already there", "ready") && !has_word("", "ready"));
    }

    #[test]
    fn lines_are_cut_not_split() {
        let long = "x".repeat(3 * LONGEST_LINE);
        let text = format!("one\n{long}\n\nlast");
        let mut stream = BufReader::new(text.as_bytes());
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut stream).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, ["one", &long[..LONGEST_LINE], "", "last"]);
    }
}
