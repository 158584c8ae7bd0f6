//! The time words. One type everywhere: smoltcp's, which can be made without reading a clock.

pub use smoltcp::time::{Duration, Instant};
