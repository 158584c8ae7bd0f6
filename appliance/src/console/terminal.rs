//! A terminal that belongs to this process: raw for the editor, cooked for commands.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::process::Stdio;

use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr,
    tcsetwinsize,
};

/// What a serial line does not know about what is at its end.
const USUAL: Winsize = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };

#[derive(Debug)]
pub(crate) struct Terminal {
    file: File,
    cooked: Termios,
    kind: &'static str,
}

impl Terminal {
    /// Opens a terminal below `/dev` as the controlling one of this process, in raw mode.
    pub(crate) fn open(tty: &str) -> io::Result<Self> {
        // Fails for the leader of a session, which then has one already.
        let _ = setsid();
        let file = File::options().read(true).write(true).open(Path::new("/dev").join(tty))?;
        ioctl_tiocsctty(&file)?;
        if tcgetwinsize(&file).is_ok_and(|size| size.ws_col == 0 || size.ws_row == 0) {
            tcsetwinsize(&file, USUAL)?;
        }
        let is_screen = tty.strip_prefix("tty").is_some_and(|rest| rest.parse::<u8>().is_ok());
        let cooked = tcgetattr(&file)?;
        Ok(Self { file, cooked, kind: if is_screen { "linux" } else { "vt220" } })
    }

    /// As `TERM` has it.
    pub(crate) const fn kind(&self) -> &'static str {
        self.kind
    }

    /// Columns and rows.
    pub(crate) fn size(&self) -> (usize, usize) {
        let size = tcgetwinsize(&self.file).unwrap_or(USUAL);
        (size.ws_col.into(), size.ws_row.into())
    }

    /// Every key comes as it is typed, and nothing is shown by itself.
    pub(crate) fn raw(&self) -> io::Result<()> {
        let mut raw = self.cooked.clone();
        raw.make_raw();
        tcsetattr(&self.file, OptionalActions::Drain, &raw)?;
        Ok(())
    }

    /// As programs expect it, but that Enter stays what it is: typed while a command runs, it is the
    /// editor's next key, and as a line feed it would pass for the second half of the one before.
    pub(crate) fn cooked(&self) -> io::Result<()> {
        let mut cooked = self.cooked.clone();
        cooked.input_modes.remove(InputModes::ICRNL);
        cooked.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&self.file, OptionalActions::Drain, &cooked)?;
        Ok(())
    }

    pub(crate) fn write(&self, text: &str) -> io::Result<()> {
        (&self.file).write_all(text.as_bytes())
    }

    /// For a child.
    pub(crate) fn duplicate(&self) -> io::Result<Stdio> {
        Ok(self.file.try_clone()?.into())
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Read for &Terminal {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }
}
