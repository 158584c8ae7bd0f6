//! Answers of a router as people read them, or as JSON, a line each.

use std::fmt;
use std::io::{self, Write as _};

pub(super) mod change;
pub(super) mod drops;
pub(super) mod failover;
pub(super) mod flows;
pub(super) mod ipvsadm;
pub(super) mod neighbours;
pub(super) mod services;
pub(super) mod status;

/// A line for whoever watches; the answer itself stays clean.
pub(super) fn hint(line: impl fmt::Display) {
    // That nobody reads it is no reason to fail.
    drop(writeln!(io::stderr(), "{line}"));
}
