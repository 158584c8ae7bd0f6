//! NICs and disks: there from the beginning, and those that come and go.

use std::time::Duration;

use super::{CLOSE, Machine};
use crate::router::pause;
use crate::uevent::{Event, Events};
use crate::undisturbed::undisturbed;
use crate::{clock, disk, modules, nics, source};

/// Devices come in swarms: the last of them is waited for.
const SETTLE: Duration = Duration::from_millis(200);
/// Disks may appear some time after their controller's driver.
const SLOWEST_DISK: Duration = Duration::from_secs(3);

impl Machine {
    pub(super) fn bring_nics_up(&mut self) {
        self.state.nics = nics::list();
        for nic in &self.state.nics {
            if let Err(error) = nics::set_up(&nic.name) {
                self.journal.warn(&format!("{} does not come up: {error}", nic.name));
            }
        }
    }

    /// Only where there may be one that has not come yet.
    pub(super) fn wait_for_disks(&mut self) {
        let end = clock::now() + SLOWEST_DISK;
        loop {
            let may_come = self.modules.is_busy() || disk::may_come();
            self.hear_devices();
            if source::is_there() || !may_come || clock::now() > end {
                return;
            }
            pause(CLOSE);
        }
    }

    /// Drivers for all devices, NICs up.
    pub(super) fn meet_devices(&mut self) {
        undisturbed(|| {
            self.load_for_all();
            // What a driver brings may want another one.
            while self.hear_devices() {}
        });
        self.modules.load_slow();
        if self.state.nics.is_empty() {
            self.bring_nics_up();
        }
    }

    fn load_for_all(&mut self) {
        for modalias in modules::wanted_by_devices() {
            self.load_for(&modalias);
        }
    }

    /// Drivers for one device, and its NIC up before it is known whether it has a link, which a worker of the
    /// kernel's finds out. Of a NIC that is up a bridge hears that at once. Otherwise within a second, since
    /// Linux tells of links no more often, and till then it passes nothing on.
    fn load_for(&mut self, modalias: &str) {
        if self.modules.load_for(modalias) && nics::list().len() > self.state.nics.len() {
            self.bring_nics_up();
        }
    }

    /// Whether there was any news.
    pub(super) fn hear_devices(&mut self) -> bool {
        let events = self.events.as_ref().map(Events::read).unwrap_or_default();
        let is_news = !events.is_empty();
        let mut more_nics = false;
        for Event { action, subsystem, modalias } in events {
            if let Some(modalias) = modalias
                && action == "add"
            {
                self.load_for(&modalias);
            }
            match (action.as_str(), subsystem.as_str()) {
                ("add" | "change", "block") => self.scan_at = Some(clock::now() + SETTLE),
                ("add" | "move", "net") => more_nics = true,
                ("add", "input") => self.buttons.look(),
                (_, "") => {
                    // Some news were lost.
                    self.load_for_all();
                    self.scan_at = Some(clock::now() + SETTLE);
                    more_nics = true;
                }
                _ => {}
            }
        }
        // TAPs and bridges are network devices too.
        let known = self.state.nics.len();
        if more_nics && nics::list().len() != known {
            self.bring_nics_up();
            self.back_off.reset();
            if self.refused.take().is_some() {
                self.scan_at = Some(clock::now() + SETTLE);
            }
        }
        is_news
    }
}
