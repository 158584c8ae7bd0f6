//! Why the router could not start or had to stop.

use std::{error, fmt, io};

use crate::control::LoadError;
use crate::links::LinkError;
use crate::links::listener::ListenError;

/// Why the router could not start or had to stop.
#[derive(Debug)]
pub enum RunError {
    /// The file is no configuration.
    Load(LoadError),
    /// A link cannot be set up.
    Links(LinkError),
    /// Nobody can listen at the control socket.
    Socket(ListenError),
    /// The operating system refused something else.
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
}

impl RunError {
    /// Wraps an I/O error with what was tried.
    pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::System { what, error }
    }

    /// Whether a right is missing.
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Load(
                LoadError::Unreadable(_, error)
                | LoadError::Token(_, error)
                | LoadError::Key(_, error),
            )
            | Self::System { error, .. } => error.kind() == io::ErrorKind::PermissionDenied,
            Self::Load(LoadError::Wrong(..)) => false,
            Self::Links(error) | Self::Load(LoadError::Nic(error)) => error.is_permission(),
            Self::Socket(error) => error.is_permission(),
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(error) => error.fmt(f),
            Self::Links(error) => error.fmt(f),
            Self::Socket(error) => error.fmt(f),
            Self::System { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl error::Error for RunError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Load(error) => Some(error),
            Self::Links(error) => Some(error),
            Self::Socket(error) => Some(error),
            Self::System { error, .. } => Some(error),
        }
    }
}

impl From<LoadError> for RunError {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

impl From<LinkError> for RunError {
    fn from(error: LinkError) -> Self {
        Self::Links(error)
    }
}

impl From<ListenError> for RunError {
    fn from(error: ListenError) -> Self {
        Self::Socket(error)
    }
}
