//! Lines for whoever watches. That nobody reads them is no reason to stop.

use std::fmt;
use std::io::Write as _;

/// One line on standard output.
pub(crate) fn say(line: impl fmt::Display) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// One line on standard error.
pub(crate) fn note(line: impl fmt::Display) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Minutes and seconds.
pub(crate) fn clock(elapsed: std::time::Duration) -> String {
    format!("{}:{:02}", elapsed.as_secs() / 60, elapsed.as_secs() % 60)
}
