//! Two routers that share the virtual IPs: who is active, and how the other one learns its flows.
//!
//! Owns the VRRP state machine, its packets, and the sessions that copy flows. Knows neither frames
//! nor services: records of flows are opaque bytes to it. Has no clock, no descriptors, no randomness
//! of its own: time, bytes and the seed are arguments, decisions are return values.

pub mod signature;
pub mod sync;
