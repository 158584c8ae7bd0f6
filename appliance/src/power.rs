//! The power button, and the end of the machine.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use rustix::fs::OFlags;
use rustix::system::{RebootCommand, reboot};

/// `struct input_event` on 64-bit Linux: a time of 16 bytes, type, code, value.
const EVENT: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
const PRESSED: i32 = 1;

/// How the machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Off,
    Reboot,
}

/// Every input device: the button is one of them.
#[derive(Debug, Default)]
pub(crate) struct Buttons {
    devices: Vec<(PathBuf, File)>,
}

impl Buttons {
    /// Opens those that are not open yet.
    pub(crate) fn look(&mut self) {
        for entry in fs::read_dir("/dev/input").into_iter().flatten().flatten() {
            let path = entry.path();
            let is_event = entry.file_name().to_string_lossy().starts_with("event");
            if !is_event || self.devices.iter().any(|(open, _)| *open == path) {
                continue;
            }
            let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
            if let Ok(file) = File::options().read(true).custom_flags(flags).open(&path) {
                self.devices.push((path, file));
            }
        }
    }

    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.devices.iter().map(|(_, file)| file.as_fd())
    }

    /// Whether the power button has been pressed since.
    pub(crate) fn pressed(&mut self) -> bool {
        let mut pressed = false;
        self.devices.retain_mut(|(_, file)| {
            let mut buffer = [0; 64 * EVENT];
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => return false,
                    Ok(length) => pressed |= power_key(&buffer[..length]),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                    // The device is gone.
                    Err(_) => return false,
                }
            }
        });
        pressed
    }
}

fn power_key(events: &[u8]) -> bool {
    events.chunks_exact(EVENT).any(|event| {
        let [.., t0, t1, c0, c1, v0, v1, v2, v3] = event else { return false };
        u16::from_le_bytes([*t0, *t1]) == EV_KEY
            && u16::from_le_bytes([*c0, *c1]) == KEY_POWER
            && i32::from_le_bytes([*v0, *v1, *v2, *v3]) == PRESSED
    })
}

/// From now on ctrl-alt-del is a SIGINT for PID 1.
pub(crate) fn take_ctrl_alt_del() {
    // Where that is refused the kernel goes on restarting the machine.
    let _ = reboot(RebootCommand::CadOff);
}

/// Does not come back where the kernel can do it.
pub(crate) fn end(how: End) -> std::io::Result<()> {
    rustix::fs::sync();
    reboot(match how {
        End::Off => RebootCommand::PowerOff,
        End::Reboot => RebootCommand::Restart,
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut bytes = vec![7; 16];
        bytes.extend(kind.to_le_bytes());
        bytes.extend(code.to_le_bytes());
        bytes.extend(value.to_le_bytes());
        bytes
    }

    #[test]
    fn only_the_power_key_going_down_counts() {
        assert!(power_key(&event(EV_KEY, KEY_POWER, PRESSED)));
        assert!(!power_key(&event(EV_KEY, KEY_POWER, 0)), "going up");
        assert!(!power_key(&event(EV_KEY, 30, PRESSED)), "another key");
        assert!(!power_key(&event(4, KEY_POWER, PRESSED)), "another kind");
        let both = [event(EV_KEY, 30, 1), event(EV_KEY, KEY_POWER, PRESSED)].concat();
        assert!(power_key(&both));
        assert!(!power_key(&both[..EVENT + 20]), "half an event");
    }
}
