//! Asking a child process for something, which std can only do by killing it.
#![expect(unsafe_code, reason = "kill has no safe wrapper in std")]

use std::io;
use std::process::Child;

/// Sends SIGTERM to a child; one that has ended already is left in peace.
pub fn terminate(child: &mut Child) -> io::Result<()> {
    signal(child, libc::SIGTERM)
}

/// Sends SIGUSR1 to a child, which `tapvs run` answers with a report; one that has ended already is
/// left in peace.
pub fn ask_for_report(child: &mut Child) -> io::Result<()> {
    signal(child, libc::SIGUSR1)
}

fn signal(child: &mut Child, signal: libc::c_int) -> io::Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // SAFETY: kill takes no pointers. The pid is still this child's: it has not been reaped above,
    // and nobody else can do so while it is borrowed.
    if unsafe { libc::kill(pid, signal) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_ends_by_the_signal() {
        for (ask, signal) in [
            (terminate as fn(&mut Child) -> _, libc::SIGTERM),
            // Whoever knows nothing of reports ends.
            (ask_for_report, libc::SIGUSR1),
        ] {
            let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
            ask(&mut child).unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(signal));
            ask(&mut child).unwrap();
        }
    }
}
