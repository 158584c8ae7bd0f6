//! The third-party programs that tests need: which they are, whether they are here, how they come.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::runner::say;

/// One program, and the test targets that cannot do without it.
struct Program {
    name: &'static str,
    targets: &'static [&'static str],
    packages: Packages,
    /// The system service that its package brings, which nobody asked for.
    service: Option<&'static str>,
}

/// The package that holds the program, for each package manager.
struct Packages {
    apt: &'static str,
    dnf: &'static str,
    apk: &'static str,
    pacman: &'static str,
}

impl Packages {
    /// Called the same everywhere.
    const fn all(name: &'static str) -> Self {
        Self { apt: name, dnf: name, apk: name, pacman: name }
    }
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "nginx",
        targets: &["strangers"],
        packages: Packages::all("nginx"),
        service: Some("nginx"),
    },
    Program {
        name: "curl",
        targets: &["strangers", "ftp"],
        packages: Packages::all("curl"),
        service: None,
    },
    Program {
        name: "vsftpd",
        targets: &["ftp"],
        packages: Packages::all("vsftpd"),
        service: Some("vsftpd"),
    },
    Program { name: "wrk", targets: &["strangers"], packages: Packages::all("wrk"), service: None },
    Program {
        name: "tshark",
        targets: &["captures"],
        packages: Packages {
            dnf: "wireshark-cli",
            pacman: "wireshark-cli",
            ..Packages::all("tshark")
        },
        service: None,
    },
    Program {
        name: "keepalived",
        targets: &["pair", "samples"],
        packages: Packages::all("keepalived"),
        service: Some("keepalived"),
    },
    Program {
        name: "nft",
        targets: &["oracle_nat", "realserver", "benchmark"],
        packages: Packages::all("nftables"),
        service: Some("nftables"),
    },
    Program {
        name: "haproxy",
        targets: &["benchmark"],
        packages: Packages::all("haproxy"),
        service: Some("haproxy"),
    },
    Program {
        name: "valgrind",
        targets: &["instructions"],
        packages: Packages::all("valgrind"),
        service: None,
    },
    Program {
        name: "arptables",
        targets: &["realserver"],
        packages: Packages { dnf: "iptables-nft", ..Packages::all("arptables") },
        service: None,
    },
    Program {
        name: "ip",
        targets: &["realserver"],
        packages: Packages { dnf: "iproute", ..Packages::all("iproute2") },
        service: None,
    },
    Program {
        name: "sysctl",
        targets: &["realserver"],
        packages: Packages { apt: "procps", apk: "procps", ..Packages::all("procps-ng") },
        service: None,
    },
];

/// What building and booting the VM image needs, on Debian.
const OF_THE_IMAGE: &[Program] = &[
    Program {
        name: "qemu-system-x86_64",
        targets: &["image"],
        packages: Packages::all("qemu-system-x86"),
        service: None,
    },
    Program {
        name: "qemu-img",
        targets: &["image"],
        packages: Packages::all("qemu-utils"),
        service: None,
    },
    Program {
        name: "objcopy",
        targets: &["image"],
        packages: Packages::all("binutils"),
        service: None,
    },
    // No program, but a file at a place of its own.
    Program {
        name: "/usr/share/OVMF/OVMF_CODE_4M.fd",
        targets: &["image"],
        packages: Packages::all("ovmf"),
        service: None,
    },
];

/// Where daemons are installed; not on every user's `PATH`.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// `PATH` with the system's folders at its end.
pub(crate) fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SYSTEM_FOLDERS.map(PathBuf::from));
    std::env::join_paths(folders).unwrap_or(path)
}

/// Sees to it that every program of the tests is here: installs what is missing where this user may,
/// else says what to install.
pub(crate) fn provide() -> Result<(), String> {
    provide_all(PROGRAMS)
}

/// The same for the VM image.
pub(crate) fn provide_for_image() -> Result<(), String> {
    provide_all(OF_THE_IMAGE)
}

fn provide_all(programs: &[Program]) -> Result<(), String> {
    let missing: Vec<&Program> = programs.iter().filter(|p| find(p.name).is_none()).collect();
    if missing.is_empty() {
        for program in programs {
            let place = find(program.name).unwrap_or_default();
            say(&format!("{} at {}", program.name, place.display()));
        }
        return Ok(());
    }
    let Some(manager) = Manager::of_this_system() else {
        let names = list(missing.iter().map(|p| p.name));
        return Err(format!("install {names}; no package manager is known here"));
    };
    let packages: Vec<&str> = missing.iter().map(|p| manager.package(&p.packages)).collect();
    let by_hand = format!("{} {}", manager.install().join(" "), packages.join(" "));
    if !is_root() {
        return Err(format!("not installed. Run as root: {by_hand}"));
    }
    say(&format!("installing: {by_hand}"));
    manager.run(&packages).map_err(|why| format!("`{by_hand}`: {why}"))?;
    for program in &missing {
        if let Some(service) = program.service {
            leave_disabled(service);
        }
        if find(program.name).is_none() {
            return Err(format!("`{by_hand}` succeeded, but there is no `{}`", program.name));
        }
    }
    Ok(())
}

/// Whether everything that a test target needs is here; the error names what is not.
pub(crate) fn present_for(target: &str) -> Result<(), String> {
    let missing = list(
        PROGRAMS
            .iter()
            .chain(OF_THE_IMAGE)
            .filter(|p| p.targets.contains(&target) && find(p.name).is_none())
            .map(|p| p.name),
    );
    if missing.is_empty() { Ok(()) } else { Err(format!("needs {missing}, not installed")) }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Some(PathBuf::from(program)).filter(|path| path.is_file());
    }
    std::env::split_paths(&search_path()).map(|folder| folder.join(program)).find(|path| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// The system's package manager.
#[derive(Clone, Copy)]
enum Manager {
    Apt,
    Dnf,
    Apk,
    Pacman,
}

impl Manager {
    fn of_this_system() -> Option<Self> {
        let known = [
            ("apt-get", Self::Apt),
            ("dnf", Self::Dnf),
            ("apk", Self::Apk),
            ("pacman", Self::Pacman),
        ];
        known.into_iter().find(|(name, _)| find(name).is_some()).map(|(_, manager)| manager)
    }

    fn package(self, packages: &Packages) -> &'static str {
        match self {
            Self::Apt => packages.apt,
            Self::Dnf => packages.dnf,
            Self::Apk => packages.apk,
            Self::Pacman => packages.pacman,
        }
    }

    /// The command that installs; package names follow.
    fn install(self) -> &'static [&'static str] {
        match self {
            Self::Apt => &[
                "apt-get",
                "install",
                "--yes",
                "--no-install-recommends",
                "--option=DPkg::Lock::Timeout=120",
            ],
            Self::Dnf => &["dnf", "install", "--assumeyes", "--setopt=install_weak_deps=False"],
            Self::Apk => &["apk", "add", "--no-cache"],
            Self::Pacman => &["pacman", "--sync", "--refresh", "--noconfirm", "--needed"],
        }
    }

    fn run(self, packages: &[&str]) -> Result<(), String> {
        let _services_stay_off = match self {
            Self::Apt => {
                if let Err(why) = succeed(&["apt-get", "update"], &[]) {
                    say(&format!("{why}; going on with the package lists there are"));
                }
                Some(NoServices::begin()?)
            }
            // These three start nothing that was not asked for.
            Self::Dnf | Self::Apk | Self::Pacman => None,
        };
        succeed(self.install(), packages)
    }
}

fn succeed(command: &[&str], more: &[&str]) -> Result<(), String> {
    let [program, arguments @ ..] = command else { return Err("an empty command".into()) };
    let status = Command::new(program)
        .args(arguments)
        .args(more)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .map_err(|error| format!("`{program}` did not start: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}")) }
}

/// While it lives, Debian's maintainer scripts start no service (`invoke-rc.d(8)`, `policy-rc.d`).
struct NoServices {
    /// `None`: the system has a policy of its own, which stands.
    ours: Option<&'static Path>,
}

impl NoServices {
    const PATH: &str = "/usr/sbin/policy-rc.d";
    /// 101: action forbidden by policy.
    const SCRIPT: &str = "#!/bin/sh\n# Temporary, by `cargo xtask test`: no service starts while \
                          it installs.\nexit 101\n";

    fn begin() -> Result<Self, String> {
        let path = Path::new(Self::PATH);
        // One of ours, left by a run that was killed, is taken over.
        if path.exists() && fs::read_to_string(path).ok().as_deref() != Some(Self::SCRIPT) {
            return Ok(Self { ours: None });
        }
        let write = fs::write(path, Self::SCRIPT)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)));
        write.map_err(|error| format!("{}: {error}", Self::PATH))?;
        Ok(Self { ours: Some(path) })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = self.ours
            && let Err(error) = fs::remove_file(path)
        {
            say(&format!("{}: {error}; remove it by hand", path.display()));
        }
    }
}

/// A package may enable its service for the next boot; tests want the program only.
fn leave_disabled(service: &str) {
    if !Path::new("/run/systemd/system").exists() {
        return;
    }
    if let Err(why) = succeed(&["systemctl", "disable", "--now", service], &[]) {
        say(&format!("the service `{service}` may start at the next boot: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_where_they_are() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("no-such-program-anywhere"), None);
        assert!(find("/proc/self/status").is_some(), "a file at a place of its own");
        assert_eq!(find("/no-such-file"), None);
        assert!(search_path().to_string_lossy().ends_with("/usr/local/sbin:/usr/sbin:/sbin"));
    }

    #[test]
    fn a_target_without_needs_has_them_all() {
        assert_eq!(present_for("kernel"), Ok(()));
    }

    #[test]
    fn every_manager_names_its_command_and_packages() {
        for manager in [Manager::Apt, Manager::Dnf, Manager::Apk, Manager::Pacman] {
            assert!(manager.install().len() > 1);
            for program in PROGRAMS.iter().chain(OF_THE_IMAGE) {
                assert!(!manager.package(&program.packages).is_empty(), "{}", program.name);
            }
        }
    }
}
