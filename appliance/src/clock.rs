//! The one place that reads the clock.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Since the kernel started.
pub(crate) fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
