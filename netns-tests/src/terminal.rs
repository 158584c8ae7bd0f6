//! A pseudo-terminal with a program in it, and what it would show.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::process::{PATIENCE, Process};
use crate::{Context as _, Failure, Outcome, eventually};

/// A program that believes that somebody sits there. Killed when dropped.
pub struct Terminal {
    process: Process,
    keyboard: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Starts `command` in a terminal of so many columns and rows.
    pub fn start(mut command: Command, (columns, rows): (u16, u16)) -> Outcome<Self> {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("openpt")?;
        grantpt(&terminal)?;
        unlockpt(&terminal)?;
        let name = ptsname(&terminal, Vec::new())?;
        let name = name.to_str().map_err(|error| Failure::new(error.to_string()))?;
        resize(&terminal, (columns, rows))?;
        let side = File::options().read(true).write(true).open(name).context(name)?;
        command.stdin(side.try_clone()?).stdout(side.try_clone()?).stderr(Stdio::from(side));
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        let process = Process(command.spawn().context("cannot start it")?);
        // With the command, the last of our own ends of its side goes.
        drop(command);
        let keyboard = File::from(terminal);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        thread::spawn({
            let (mut output, screen) = (keyboard.try_clone()?, Arc::clone(&screen));
            move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = output.read(&mut buffer) {
                    screen.lock().unwrap_or_else(PoisonError::into_inner).process(&buffer[..count]);
                }
            }
        });
        Ok(Self { process, keyboard, screen })
    }

    /// Types.
    pub fn keys(&mut self, keys: &str) -> Outcome {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }

    /// What is to be seen.
    pub fn screen(&self) -> vt100::Screen {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen().clone()
    }

    /// Waits until the screen is as wanted.
    pub fn wait_until(&self, what: &str, is_right: impl Fn(&str) -> bool) -> Outcome<String> {
        let mut text = String::new();
        let right = eventually(PATIENCE, || {
            text = self.screen().contents();
            is_right(&text)
        });
        if right { Ok(text) } else { Err(Failure::new(format!("{what}; the screen:\n{text}"))) }
    }

    /// Gives it another size, and tells the program.
    pub fn resize(&self, (columns, rows): (u16, u16)) -> Outcome {
        resize(&self.keyboard, (columns, rows))?;
        let mut screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        screen.screen_mut().set_size(rows, columns);
        drop(screen);
        self.signal(Signal::WINCH)
    }

    /// Whether lines are edited and echoed, as a shell wants it.
    pub fn is_cooked(&self) -> Outcome<bool> {
        let modes = tcgetattr(&self.keyboard)?.local_modes;
        Ok(modes.contains(LocalModes::ICANON | LocalModes::ECHO))
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) -> Outcome {
        self.process.signal(signal)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Outcome<ExitStatus> {
        self.process.wait()
    }
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Terminal({})", self.process.id())
    }
}

fn resize(terminal: &impl std::os::fd::AsFd, (ws_col, ws_row): (u16, u16)) -> Outcome {
    Ok(tcsetwinsize(terminal, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 })?)
}
