//! The outside world: TAP devices, namespaces, netlink, the clock, signals.
//!
//! The only room that talks to the operating system, and the only one with `unsafe`. It decides
//! nothing: what a frame means and where it goes is not known here.

pub mod error;
pub mod namespace;
pub mod netlink;
mod privilege;

pub use error::LinkError;
pub use namespace::Namespace;
pub use netlink::Netlink;
pub use privilege::{Privilege, become_root, check_tun};
