//! Kernel tests of tapvs: real network stacks in namespaces, the real binary between them.
//!
//! Owns what the test targets share: their `main` ([`harness`]), the network around a router
//! ([`Rig`]), the router as a process ([`Router`]), and small servers and clients. The comparison
//! benchmark builds its networks of the same parts. Nothing here
//! needs anything but Rust; everything is gone when the process is, however it ends.

pub mod arp;
mod binary;
pub mod cable;
pub mod checks;
mod config;
pub mod direct;
mod failure;
pub mod harness;
pub mod http;
pub mod icmp;
pub mod mode;
pub mod pair;
mod process;
pub mod raw;
mod rig;
mod router;
mod scratch;
pub mod tap;
pub mod tcp;
pub mod terminal;
pub mod udp;
mod watcher;
pub mod wire;

pub use binary::{provide as provide_binary, tapvs};
pub use config::{Service, config};
pub use failure::{Context, Failure, Outcome};
pub use process::resident;
pub use rig::{
    BRIDGE, CLIENT, CLIENT_TAP, GATEWAY, Hosts, ROUTER_INSIDE, ROUTER_OUTSIDE, Rig, SERVER_NIC,
    SERVERS_TAP, VIP, cable_router, cable_servers, eventually, server_address, silent_namespace,
};
pub use router::{LinkFigures, Report, Router, Traffic};
pub use scratch::Scratch;
pub use watcher::Watcher;
