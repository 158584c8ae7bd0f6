//! Preparing a real server for direct routing: it holds the virtual IP and must not answer ARP for
//! it (the ARP problem).
//!
//! Four methods, each a list of typed steps ([`Step`]). The same list is printed as shell commands,
//! carried out on this machine, undone and checked, so these cannot differ. The router needs
//! nothing of this room, and this room nothing of the router.

mod apply;
mod check;
mod error;
mod kernel;
mod listeners;
mod method;
mod needs;
mod plan;
mod program;
mod record;
mod script;
mod step;
mod undo;

pub use self::apply::{Applied, apply};
pub use self::check::{Finding, Report, State, check};
pub use self::error::Error;
pub use self::method::Method;
pub use self::plan::{Request, Service};
pub use self::record::Folder;
pub use self::script::{Part, print};
pub use self::step::{Key, Step};
pub use self::undo::{Fate, Undone, undo};

use self::kernel::Reverted;
use self::step::Change;

/// Where steps are looked for, carried out and reverted: the kernel, or a test's idea of one.
trait Machine {
    /// What there is of a step.
    fn find(&self, step: &Step) -> Result<Found, Error>;
    /// Carries out a step that is missing.
    fn carry_out(&self, step: &Step) -> Result<(), Error>;
    /// Takes back a step that was carried out.
    fn revert(&self, change: &Change) -> Result<Reverted, Error>;
}

/// What there is of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    There,
    /// Not there; for a sysctl, its value.
    Missing(String),
    /// Something else is in its place, which `apply` must not overwrite.
    Different(String),
}
