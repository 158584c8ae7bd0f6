//! A process on each of the kernel's consoles.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Machine;
use crate::{clock, files, rescue};

/// A console that ended is there again after this.
const CONSOLE_PAUSE: Duration = Duration::from_secs(1);

/// One of them.
#[derive(Debug)]
pub(super) struct Console {
    pub(super) tty: String,
    pub(super) child: Option<Child>,
    pub(super) start_at: Duration,
    /// Its next life is a rescue shell.
    rescue: bool,
}

impl Machine {
    pub(super) fn open_consoles(&mut self) {
        let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let rescue = rescue::wanted(&fs::read_to_string("/proc/cmdline").unwrap_or_default());
        if !rescue {
            // Nobody can start it, and it takes memory.
            drop(fs::remove_file(files::BUSYBOX));
        }
        let ttys = consoles(&active);
        // The last one is where the kernel's own /dev/console goes.
        let last = ttys.last().cloned();
        for tty in ttys {
            let rescue = rescue && Some(&tty) == last.as_ref();
            self.consoles.push(Console { tty, child: None, start_at: Duration::ZERO, rescue });
        }
    }

    pub(super) fn run_consoles(&mut self) {
        let now = clock::now();
        for console in &mut self.consoles {
            if console.child.is_some() || console.start_at > now {
                continue;
            }
            let verb = if std::mem::take(&mut console.rescue) { "rescue" } else { "console" };
            let child = Command::new(files::SELF)
                .args([verb, &console.tty])
                .env_clear()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            match child {
                Ok(child) => console.child = Some(child),
                Err(error) => {
                    self.journal.warn(&format!("console {}: {error}", console.tty));
                    console.start_at = now + CONSOLE_PAUSE;
                }
            }
        }
    }

    pub(super) fn reap_consoles(&mut self) {
        let now = clock::now();
        for console in &mut self.consoles {
            if let Some(child) = &mut console.child
                && !matches!(child.try_wait(), Ok(None))
            {
                console.child = None;
                console.start_at = now + CONSOLE_PAUSE;
            }
        }
    }
}

/// The terminals behind the kernel's consoles: `tty0` is whichever screen is shown, `tty1` the first.
fn consoles(active: &str) -> Vec<String> {
    let names = active.split_whitespace();
    names.map(|name| if name == "tty0" { "tty1" } else { name }.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::consoles;

    #[test]
    fn every_console_of_the_kernel_is_one() {
        assert_eq!(consoles("tty0 ttyS0\n"), ["tty1", "ttyS0"]);
        assert_eq!(consoles("hvc0\n"), ["hvc0"]);
        assert_eq!(consoles(""), [""; 0]);
    }
}
