//! What the tests share: a network to route in, packets made and read without the code under test,
//! and a harness around the dataplane that checks its bookkeeping after every step.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "each test file is a crate of its own")]

pub mod gso;
pub mod mutate;
pub mod network;
pub mod packet;
pub mod random;
pub mod router;
pub mod validity;

pub use network::*;
pub use packet::*;
pub use router::Router;
