//! Health checks as the rooms pass them on: what is to be asked, and what came of it.
//!
//! The table compiles a [`Plan`], the host carries it out, control judges by what the host tells.
//! Knows nothing of sockets, and not when anything happens.

mod failure;
mod plan;

use std::sync::Arc;

pub use failure::{Failure, Unreachable};
pub use plan::{Check, Group, Plan};

/// A server's checks have changed their mind about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which check.
    pub check: Arc<Check>,
    /// Why it is down now; `None`: it is up.
    pub down: Option<Failure>,
}
