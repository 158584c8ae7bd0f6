//! A watchdog, where the machine has one: it resets the machine when PID 1 no longer turns.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::time::Duration;

/// Half of the shortest time-out that is usual.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);

/// An open watchdog.
#[derive(Debug)]
pub(crate) struct Watchdog {
    device: File,
    /// As the driver calls itself.
    pub(crate) identity: String,
}

impl Watchdog {
    /// The first there is; opening it starts it.
    pub(crate) fn open() -> Option<Self> {
        let device = OpenOptions::new().write(true).open("/dev/watchdog").ok()?;
        let identity = std::fs::read_to_string("/sys/class/watchdog/watchdog0/identity");
        let identity = identity.map_or_else(|_| "unknown".into(), |text| text.trim().to_owned());
        Some(Self { device, identity })
    }

    /// Another while.
    pub(crate) fn feed(&mut self) {
        // Where that fails the machine is reset, which is what a watchdog is for.
        drop(self.device.write_all(b"\0"));
    }

    /// It is not needed any more (`V`, the magic close).
    pub(crate) fn stop(mut self) {
        drop(self.device.write_all(b"V"));
    }
}
