//! Anonymous network namespaces: an open fd is all that keeps one alive, so nothing is left behind
//! when the process dies, however it dies.
#![expect(unsafe_code, reason = "unshare, setns and prctl have no safe wrapper in std")]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;

use super::netlink::Netlink;
pub use super::privilege::{Privilege, become_root, check_tun};

/// A network namespace, kept alive by its fd.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
}

impl Namespace {
    /// A fresh namespace with its loopback up. The calling thread stays where it is.
    pub fn new() -> io::Result<Self> {
        on_a_thread(|| {
            // SAFETY: unshare takes no pointers; it moves only this helper thread.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            let netlink = Netlink::new().map_err(io::Error::other)?;
            netlink.set_up("lo").map_err(io::Error::other)?;
            Self::current()
        })?
    }

    /// The namespace the calling thread is in.
    pub fn current() -> io::Result<Self> {
        Ok(Self { fd: File::open("/proc/thread-self/ns/net")?.into() })
    }

    /// The fd that names it, to move devices into it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Runs `f` on a thread inside the namespace and waits for it. What it opens there (sockets,
    /// TAPs, netlink) stays bound to the namespace and may be returned.
    ///
    /// # Panics
    /// When `f` does, and when no thread can enter the namespace (no memory, no CAP_SYS_ADMIN).
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let inside = on_a_thread(|| enter(self.fd.as_fd()).map(|()| f()));
        match inside {
            Ok(Ok(value)) => value,
            Ok(Err(error)) | Err(error) => panic!("cannot enter a network namespace: {error}"),
        }
    }

    /// Starts `command` inside the namespace. The child is killed when the thread that called this
    /// ends, so that a killed parent leaves nothing behind.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let fd = self.fd.try_clone()?;
        let parent = std::process::id();
        let prepare = move || {
            enter(fd.as_fd())?;
            // SAFETY: PR_SET_PDEATHSIG takes the signal by value and touches no memory.
            check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
            // The parent may have died before the line above: then nobody will ever send it.
            if std::os::unix::process::parent_id() == parent {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::ESRCH))
            }
        };
        // SAFETY: between fork and exec `prepare` only makes system calls: no allocation, no lock.
        unsafe { command.pre_exec(prepare) };
        command.spawn()
    }

    /// Writes a sysctl of this namespace, named by its path below `/proc/sys`:
    /// `net/ipv4/ip_local_port_range`.
    pub fn write_sysctl(&self, path: &str, value: &str) -> io::Result<()> {
        self.run(|| write_sysctl(path, value))
    }
}

/// A number for the calling thread's namespace that no other one gets before the next boot.
pub fn cookie() -> io::Result<u64> {
    const SIZE: libc::socklen_t = 8;
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let mut cookie = 0_u64;
    let mut length = SIZE;
    // SAFETY: the fd is open; the pointers are to locals that outlive the call, and `length` says
    // how much room the first one has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    match check(result) {
        Ok(()) => Ok(cookie),
        // Before Linux 5.14 there is but the inode, which a later namespace may get again.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            Ok(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/proc/thread-self/ns/net")?))
        }
        Err(error) => Err(error),
    }
}

/// Reads a sysctl of the calling thread's namespace, named by its path below `/proc/sys`.
pub fn read_sysctl(path: &str) -> io::Result<String> {
    let file = Path::new("/proc/sys").join(path);
    std::fs::read_to_string(&file).map(|text| text.trim_end().to_owned()).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot read {}: {error}", file.display()))
    })
}

/// Writes a sysctl of the calling thread's namespace; the error names it.
pub fn write_sysctl(path: &str, value: &str) -> io::Result<()> {
    let file = Path::new("/proc/sys").join(path);
    let written = OpenOptions::new()
        .write(true)
        .open(&file)
        .and_then(|mut sysctl| sysctl.write_all(value.as_bytes()));
    written.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot write `{value}` to {}: {error}", file.display()),
        )
    })
}

/// Moves the calling thread, for good.
fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the fd is borrowed, so it is open; setns takes no pointers.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Runs `f` on a thread of its own: a namespace belongs to a thread.
fn on_a_thread<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("tapvs-netns".into()).spawn_scoped(scope, f)?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_namespace_is_the_one_proc_names() {
        use std::os::unix::fs::MetadataExt;
        let here = Namespace::current().unwrap();
        let file = File::from(here.fd().try_clone_to_owned().unwrap());
        let named = std::fs::metadata("/proc/thread-self/ns/net").unwrap();
        assert_eq!(file.metadata().unwrap().ino(), named.ino());
    }

    #[test]
    fn a_namespace_has_one_number() {
        assert_eq!(cookie().unwrap(), cookie().unwrap());
        assert_ne!(cookie().unwrap(), 0);
    }

    #[test]
    fn a_sysctl_error_names_path_and_value() {
        let error = write_sysctl("net/no/such/thing", "1").unwrap_err().to_string();
        assert!(error.contains("/proc/sys/net/no/such/thing") && error.contains("`1`"), "{error}");
    }
}
