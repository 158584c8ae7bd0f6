//! HTTP/1.1 messages: bytes to requests, answers to bytes. One request a connection.
//!
//! Owns what may be asked and how much of it. Which pages there are is the control thread's to know,
//! how bytes travel is the host's.

mod request;
mod response;

use std::net::IpAddr;

pub use request::{LONGEST, Method, Parsed, Request, parse};
pub use response::{Response, Status};

/// A connection that waits for its answer. Stale once it has ended: `epoch` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    /// Its place among the connections.
    pub place: usize,
    /// Counts connections.
    pub epoch: u64,
    /// Who asks.
    pub peer: IpAddr,
}
