//! The program on a console: a status screen, and the operator's commands. It starts `tapvs` and
//! nothing else; there is no way from here to a shell.

mod command;
mod editor;
mod screen;
pub(crate) mod terminal;

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use self::command::Order;
use self::editor::{Editor, Key};
use self::screen::Picture;
use self::terminal::Terminal;
use crate::journal::visible;
use crate::state::State;
use crate::{clock, files};

/// How often the services are asked for; what PID 1 says is looked at every second.
const REFRESH: Duration = Duration::from_secs(5);
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Serves one terminal for ever.
pub(crate) fn main(tty: &str) -> ExitCode {
    // Ctrl-C is for the command that runs, and for the editor. A handler, unlike an ignored signal,
    // does not go on to the commands.
    let handled = std::sync::Arc::default();
    if signal_hook::flag::register(signal_hook::consts::SIGINT, handled).is_err() {
        return ExitCode::FAILURE;
    }
    let Ok(terminal) = Terminal::open(tty) else { return ExitCode::FAILURE };
    let mut console = Console {
        terminal,
        editor: Editor::default(),
        drawn: String::new(),
        services: String::new(),
        role: None,
        asked: None,
        shows_screen: true,
    };
    let served = console.terminal.raw().and_then(|()| console.terminal.write("\x1b[2J"));
    match served.and_then(|()| console.serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

struct Console {
    terminal: Terminal,
    editor: Editor,
    /// What the screen shows, so that it is only drawn when it changes.
    drawn: String,
    services: String,
    role: Option<String>,
    asked: Option<Duration>,
    /// And not what a command has printed.
    shows_screen: bool,
}

impl Console {
    fn serve(&mut self) -> std::io::Result<()> {
        loop {
            if self.shows_screen {
                self.draw()?;
            }
            let mut fds = [PollFd::from_borrowed_fd(self.terminal.fd(), PollFlags::IN)];
            match poll(&mut fds, Some(&LOOK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            let mut bytes = [0; 256];
            let length = (&self.terminal).read(&mut bytes)?;
            if length == 0 {
                return Ok(());
            }
            for byte in &bytes[..length] {
                match self.editor.key(*byte) {
                    Key::Echo(text) => self.terminal.write(&text)?,
                    Key::Nothing => {}
                    Key::Line(line) => self.obey(&line)?,
                }
            }
        }
    }

    fn draw(&mut self) -> std::io::Result<()> {
        let state = State::read().unwrap_or_default();
        let now = clock::now();
        if self.asked.is_none_or(|at| now >= at + REFRESH) {
            self.asked = Some(now);
            self.services = answer(&["services", "--interval", "0"]).unwrap_or_default();
            self.role = answer(&["status", "--json"]).as_deref().and_then(role);
        }
        let (width, height) = self.terminal.size();
        let (services, role) = (&*self.services, self.role.as_deref());
        let picture = Picture { state: &state, services, role, width, height };
        let text = picture.draw();
        if text != self.drawn {
            // Home, the lines each cleared to its end, and nothing below them.
            let prompt = self.editor.prompt();
            self.terminal.write(&format!("\x1b[H{text}\x1b[J{prompt}"))?;
            self.drawn = text;
        }
        Ok(())
    }

    fn obey(&mut self, line: &str) -> std::io::Result<()> {
        self.terminal.write("\r\n")?;
        let order = command::parse(line);
        if order == Order::Screen {
            self.shows_screen = true;
            self.drawn.clear();
            self.asked = None;
            return self.terminal.write("\x1b[2J");
        }
        self.shows_screen = false;
        match order {
            Order::Screen => {}
            Order::Say(text) => self.terminal.write(&lines(&text))?,
            Order::Show(path) => self.show(&path)?,
            Order::Nics => {
                let state = State::read().unwrap_or_default();
                self.terminal.write(&lines(&screen::nics(&state.nics)))?;
            }
            Order::Tapvs(words) => self.run(&words)?,
            Order::Signal(signal, text) => {
                self.terminal.write(&lines(text))?;
                kill_process(Pid::INIT, signal)?;
                // Its outcome is on the screen.
                self.shows_screen = signal == Signal::HUP;
                self.drawn.clear();
            }
        }
        let prompt = self.editor.prompt();
        self.terminal.write(&prompt)
    }

    /// With the terminal as a program expects it; Ctrl-C ends it.
    fn run(&self, words: &[String]) -> std::io::Result<()> {
        self.terminal.cooked()?;
        let status = Command::new(files::TAPVS)
            .args(words)
            .env_clear()
            .env("TERM", self.terminal.kind())
            .current_dir(Path::new("/"))
            .stdin(self.terminal.duplicate()?)
            .stdout(self.terminal.duplicate()?)
            .stderr(self.terminal.duplicate()?)
            .status();
        self.terminal.raw()?;
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => match status.code() {
                Some(code) => self.terminal.write(&format!("(exit code {code})\r\n")),
                None => self.terminal.write("\r\n"),
            },
            Err(error) => self.terminal.write(&format!("{}: {error}\r\n", files::TAPVS)),
        }
    }

    fn show(&self, path: &str) -> std::io::Result<()> {
        match fs::read_to_string(path) {
            Ok(text) => self.terminal.write(&lines(&text)),
            Err(error) => self.terminal.write(&format!("{path}: {error}\r\n")),
        }
    }
}

/// What `tapvs` prints, if it succeeds.
fn answer(words: &[&str]) -> Option<String> {
    let output = Command::new(files::TAPVS)
        .args(words)
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let Output { status, stdout, .. } = output.ok()?;
    status.success().then(|| String::from_utf8_lossy(&stdout).into_owned())
}

fn role(status: &str) -> Option<String> {
    let status: serde_json::Value = serde_json::from_str(status).ok()?;
    let role = status.get("failover")?.get("role")?.as_str()?;
    Some(role.to_owned())
}

/// For a terminal in raw mode, which obeys nothing that is in the text.
fn lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\r\n", visible(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_is_that_of_a_pair() {
        assert_eq!(role("{\"failover\":{\"role\":\"backup\"}}").as_deref(), Some("backup"));
        assert_eq!(role("{\"name\":\"lvs1\"}"), None);
        assert_eq!(role("nonsense"), None);
    }
}
