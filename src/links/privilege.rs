//! What the process may do: root, root in a user namespace of its own, or exactly what is missing.
#![expect(unsafe_code, reason = "geteuid, getegid and unshare have no safe wrapper in std")]

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;

use super::netlink::Netlink;

const TUN: &str = "/dev/net/tun";
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const NET_ADMIN: &str = "CAP_NET_ADMIN";

/// What is missing, each with what would help. A program that meets it exits with 77.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privilege {
    missing: Vec<String>,
}

impl Privilege {
    /// Each missing thing as one sentence.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.missing.join("\n"))
    }
}

impl std::error::Error for Privilege {}

/// Makes the process able to create namespaces and TAP devices: nothing to do for a root with
/// CAP_NET_ADMIN and CAP_SYS_ADMIN; anybody else becomes root of a new user and network namespace.
///
/// To be called before the first thread exists: the kernel moves single-threaded processes only.
pub fn become_root() -> Result<(), Privilege> {
    let mut missing = Vec::new();
    if let Err(tun) = check_tun() {
        missing.extend(tun.missing);
    }
    // SAFETY: takes no arguments, cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    let lacking =
        lacking_capabilities(&fs::read_to_string("/proc/thread-self/status").unwrap_or_default());
    if !(root && lacking.is_empty())
        && let Err(error) = enter_user_namespace()
    {
        if root {
            missing.push(format!(
                "this root lacks {} and may not make a user namespace either ({error}): in a \
                 container, start it with --cap-add NET_ADMIN --cap-add SYS_ADMIN --device {TUN}",
                lacking.join(" and ")
            ));
        } else {
            let reasons = closed_doors(|path| fs::read_to_string(path).ok());
            missing.push(format!(
                "an ordinary user needs a user namespace, and the kernel refused one ({error}): \
                 {}, or run as root",
                if reasons.is_empty() {
                    "a container's seccomp or security policy may forbid it".to_owned()
                } else {
                    reasons.join("; ")
                }
            ));
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Privilege { missing }) }
}

/// Whether this process may change the network of its namespace.
pub fn check_net_admin() -> Result<(), Privilege> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    if lacking_capabilities(&status).contains(&NET_ADMIN) {
        let missing = format!("changing the network needs {NET_ADMIN}: run as root");
        return Err(Privilege { missing: vec![missing] });
    }
    Ok(())
}

/// Whether TAP devices can be asked for.
pub fn check_tun() -> Result<(), Privilege> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(TUN)
        .map(drop)
        .map_err(|error| Privilege { missing: vec![tun_unavailable(&error)] })
}

/// Why the TUN device cannot be opened, and what would help.
pub(super) fn tun_unavailable(error: &io::Error) -> String {
    let advice = match error.raw_os_error() {
        Some(libc::ENOENT) => format!(
            "`modprobe tun` makes it; where modules are built in, `mkdir -p /dev/net && mknod {TUN} \
             c 10 200 && chmod 0666 {TUN}`; in a container, start it with --device {TUN}"
        ),
        Some(libc::ENODEV | libc::ENXIO) => {
            "the kernel has no driver behind it: `modprobe tun`".to_owned()
        }
        Some(libc::EACCES) => {
            let mode = fs::metadata(TUN).map_or(0, |tun| tun.permissions().mode() & 0o7777);
            format!(
                "its mode is {mode:04o}; `sudo chmod 0666 {TUN}`, the usual mode, opens it to every \
                 user, who needs CAP_NET_ADMIN all the same or a user namespace of his own"
            )
        }
        Some(libc::EPERM) => {
            format!("a container must be started with --device {TUN}")
        }
        _ => "TAP devices need it".to_owned(),
    };
    format!("{TUN} cannot be opened ({error}): {advice}")
}

/// Which of the two needed capabilities the effective set in `/proc/.../status` lacks.
fn lacking_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    [(CAP_NET_ADMIN, NET_ADMIN), (CAP_SYS_ADMIN, "CAP_SYS_ADMIN")]
        .into_iter()
        .filter(|(bit, _)| effective >> bit & 1 == 0)
        .map(|(_, name)| name)
        .collect()
}

/// The sysctls that close user namespaces to an ordinary user, each with its value and remedy.
fn closed_doors(read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    [
        ("user/max_user_namespaces", "0", "100000"),
        ("user/max_net_namespaces", "0", "100000"),
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ]
    .into_iter()
    .filter(|(path, closed, _)| {
        read(&format!("/proc/sys/{path}")).is_some_and(|value| value.trim() == *closed)
    })
    .map(|(path, closed, open)| {
        let name = path.replace('/', ".");
        format!("{name} is {closed}: `sudo sysctl {name}={open}`")
    })
    .collect()
}

fn enter_user_namespace() -> io::Result<()> {
    // SAFETY: these take no arguments and cannot fail. Read first: inside they are "nobody".
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: takes no pointers; a process with more than one thread is refused with EINVAL.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let write = |file: &str, text: String| {
        fs::write(file, text)
            .map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))
    };
    // Without this an unprivileged process may not write its gid_map (user_namespaces(7)).
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    // A security module may hand out the namespace and still deny its capabilities: use one.
    Netlink::new().and_then(|netlink| netlink.set_up("lo")).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let full = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n";
        assert!(lacking_capabilities(full).is_empty());
        // Docker's default set: neither of the two.
        assert_eq!(
            lacking_capabilities("CapEff:\t00000000a80425fb\n"),
            ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
        );
        assert_eq!(lacking_capabilities("CapEff:\t00000000a80435fb\n"), ["CAP_SYS_ADMIN"]);
        assert_eq!(lacking_capabilities("").len(), 2);
    }

    #[test]
    fn a_closed_door_is_named_with_its_remedy() {
        let ubuntu = |path: &str| match path {
            "/proc/sys/user/max_user_namespaces" => Some("62000\n".to_owned()),
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns" => Some("1\n".to_owned()),
            _ => None,
        };
        assert_eq!(
            closed_doors(ubuntu),
            ["kernel.apparmor_restrict_unprivileged_userns is 1: \
              `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`"]
        );
        assert_eq!(closed_doors(|_| Some("0".to_owned())).len(), 3);
        assert!(closed_doors(|_| None).is_empty());
    }

    #[test]
    fn an_unusable_tun_device_comes_with_advice() {
        for (errno, advice) in [
            (libc::ENOENT, "modprobe tun"),
            (libc::ENODEV, "no driver"),
            (libc::EACCES, "chmod 0666"),
            (libc::EPERM, "--device"),
        ] {
            let text = tun_unavailable(&io::Error::from_raw_os_error(errno));
            assert!(text.starts_with(TUN) && text.contains(advice), "{text}");
        }
    }
}
