//! Why a real server could not be prepared.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::links::{LinkError, Privilege};

/// What went wrong, in words for whoever sits at the real server.
#[derive(Debug)]
pub enum Error {
    /// The command line asks for something that makes no sense.
    Usage(String),
    /// The process may not do this.
    Privilege(Privilege),
    /// The machine lacks what the method needs; nothing was changed.
    Lacks(String),
    /// Something is there that the method cannot work beside; nothing was changed.
    InTheWay(String),
    /// There is no record of what `undo` was asked to take back.
    NotApplied(String),
    /// The kernel, or a program, said no.
    Failed(String),
    /// The file in which `apply` remembers what to undo.
    Record(PathBuf, io::Error),
}

impl Error {
    /// Whether it failed for want of permission.
    pub const fn is_permission(&self) -> bool {
        matches!(self, Self::Privilege(_))
    }

    /// Whether it was found out before anything was changed.
    pub const fn is_early(&self) -> bool {
        matches!(self, Self::Lacks(_) | Self::InTheWay(_))
    }

    /// Whether the command line is at fault.
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(words)
            | Self::Lacks(words)
            | Self::InTheWay(words)
            | Self::NotApplied(words)
            | Self::Failed(words) => f.write_str(words),
            Self::Privilege(missing) => missing.fmt(f),
            Self::Record(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for Error {}

impl From<LinkError> for Error {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Privilege(missing) => Self::Privilege(missing),
            error => Self::Failed(error.to_string()),
        }
    }
}

impl From<Privilege> for Error {
    fn from(missing: Privilege) -> Self {
        Self::Privilege(missing)
    }
}
