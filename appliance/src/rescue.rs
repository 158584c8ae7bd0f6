//! The rescue shell, for those who asked for it on the kernel's command line.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use crate::console::terminal::Terminal;
use crate::files;

/// What asks for it.
const WORD: &str = "tapvs.rescue";

/// Whether the kernel's command line asks for it.
pub(crate) fn wanted(command_line: &str) -> bool {
    command_line.split_whitespace().any(|word| word == WORD)
}

/// A shell on a terminal, until it ends.
pub(crate) fn main(tty: &str) -> ExitCode {
    let terminal = match Terminal::open(tty) {
        Ok(terminal) => terminal,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "{tty}: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let hello = "\r\nRescue shell, asked for by `tapvs.rescue`. Its end brings the console.\r\n";
    drop(terminal.write(hello));
    let shell = Command::new(files::BUSYBOX)
        .arg("sh")
        .env_clear()
        .envs([("PATH", "/bin:/rescue"), ("HOME", "/"), ("TERM", terminal.kind())])
        .current_dir(Path::new("/"))
        .stdin(terminal.duplicate().unwrap_or_else(|_| Stdio::null()))
        .stdout(terminal.duplicate().unwrap_or_else(|_| Stdio::null()))
        .stderr(terminal.duplicate().unwrap_or_else(|_| Stdio::null()))
        .status();
    match shell {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            drop(terminal.write(&format!("{}: {error}\r\n", files::BUSYBOX)));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn only_the_very_word_opens_a_shell() {
        assert!(wanted("console=ttyS0 tapvs.rescue quiet\n"));
        assert!(!wanted("console=ttyS0 tapvs.rescue=0 xtapvs.rescue\n"));
        assert!(!wanted(""));
    }
}
