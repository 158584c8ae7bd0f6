//! What happened: the last lines of PID 1 and the router, in memory and in one file of bounded size.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::Write as _;

use crate::{clock, files};

/// Lines for the status screen.
const KEPT: usize = 8;
/// The file starts anew at this size; the one before is kept.
const MOST_BYTES: u64 = 256 << 10;
/// Priorities of `/dev/kmsg`: the console shows what is urgent until it has a screen of its own.
const WARNING: u8 = 4;
const INFO: u8 = 6;

/// The log.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    last: VecDeque<String>,
}

impl Journal {
    /// A line of PID 1's own.
    pub(crate) fn say(&mut self, line: &str) {
        self.write("appliance", INFO, line);
    }

    /// The same, for something that somebody should do something about.
    pub(crate) fn warn(&mut self, line: &str) {
        self.write("appliance", WARNING, line);
    }

    /// A line that the router wrote.
    pub(crate) fn router(&mut self, line: &str) {
        self.write("tapvs", INFO, line);
    }

    /// The last lines, the newest at the end.
    pub(crate) fn last(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }

    fn write(&mut self, who: &str, priority: u8, line: &str) {
        let line = format!("{:9.3} {who}: {}", clock::now().as_secs_f64(), visible(line));
        // In kernel logs, as every PID 1 does it; nobody may be there to read them.
        if let Ok(mut kernel) = OpenOptions::new().write(true).open("/dev/kmsg") {
            drop(kernel.write_all(format!("<{priority}>{who}: {}", visible(&line)).as_bytes()));
        }
        // A full or missing file system must not stop PID 1.
        drop(append(&line));
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

fn append(line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(files::LOG)?;
    if file.metadata()?.len() > MOST_BYTES {
        fs::rename(files::LOG, files::OLD_LOG)?;
        file = OpenOptions::new().create(true).append(true).open(files::LOG)?;
    }
    writeln!(file, "{line}")
}

/// Nothing that a terminal would obey.
pub(crate) fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept_and_cannot_move_the_cursor() {
        let mut journal = Journal::default();
        for number in 0..20 {
            journal.last.push_back(number.to_string());
            if journal.last.len() > KEPT {
                journal.last.pop_front();
            }
        }
        assert_eq!(journal.last().len(), KEPT);
        assert_eq!(visible("a\x1b[2Jb\r"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
