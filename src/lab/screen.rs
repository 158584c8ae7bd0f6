//! What the lab prints: steps with the time since the start, tables, and one line that is
//! overwritten while requests run. Colours and overwriting only on a terminal.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use crate::time::Instant;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// Standard output, as the lab uses it. A reader that has gone away is not the lab's failure.
#[derive(Debug)]
pub(super) struct Screen {
    start: Instant,
    terminal: bool,
    colours: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { start: super::now(), terminal, colours: terminal && wanted }
    }

    /// A heading, with room above it.
    pub(super) fn heading(&self, text: impl Display) {
        self.print(&format!("\n{}\n", self.paint(BOLD, text)));
    }

    /// Something that is done, with the time since the start.
    pub(super) fn step(&self, text: impl Display) {
        self.print(&format!("{}{text}\n", self.time()));
    }

    /// Something that is being done: replaced by what is printed next.
    pub(super) fn progress(&self, text: impl Display) {
        if self.terminal {
            self.print(&format!("{}{text}", self.time()));
        }
    }

    /// Lines that belong to the step before.
    pub(super) fn lines(&self, lines: impl IntoIterator<Item = impl Display>) {
        for line in lines {
            let line = format!("            {line}");
            self.print(&format!("{}\n", line.trim_end()));
        }
    }

    /// A table: head, rows.
    pub(super) fn table(&self, lines: &[String]) {
        if let [head, rows @ ..] = lines {
            self.lines([self.paint(BOLD, head)]);
            self.lines(rows);
        }
    }

    /// A line that a child logged.
    pub(super) fn log(&self, who: impl Display, line: &str) {
        self.print(&format!("{}\n", self.paint(DIM, format!("            {who}: {line}"))));
    }

    pub(super) fn good(&self, text: impl Display) {
        self.step(self.paint(GREEN, text));
    }

    pub(super) fn bad(&self, text: impl Display) {
        self.step(self.paint(RED, text));
    }

    fn time(&self) -> String {
        let millis = (super::now() - self.start).total_millis();
        let time = format!("{:>3}.{:02} s", millis / 1_000, millis % 1_000 / 10);
        format!("  {}  ", self.paint(DIM, time))
    }

    fn paint(&self, colour: &str, text: impl Display) -> String {
        if self.colours { format!("{colour}{text}{PLAIN}") } else { text.to_string() }
    }

    fn print(&self, text: &str) {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        let mut out = io::stdout().lock();
        let _ = write!(out, "{clear}{text}").and_then(|()| out.flush());
    }
}
