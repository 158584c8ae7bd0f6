//! The programs that building needs, and the Debian packages that have them.

use std::os::unix::fs::PermissionsExt as _;

/// Program and package.
const PROGRAMS: [(&str, &str); 6] = [
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
    ("objcopy", "binutils"),
    ("qemu-img", "qemu-utils"),
    ("cargo", "cargo (or rustup)"),
    ("cc", "gcc"),
];

/// Names everything that is missing at once.
pub(crate) fn check() -> Result<(), String> {
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !is_there(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = |name: fn(&(&str, &str)) -> String| {
        missing.iter().map(|pair| name(pair)).collect::<Vec<_>>()
    };
    let programs = list(|(program, _)| format!("`{program}`")).join(", ");
    let packages = list(|(_, package)| (*package).to_owned()).join(" ");
    Err(format!("{programs} not found. This builds on Debian; install: apt-get install {packages}"))
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| {
        let meta = folder.join(program).metadata();
        meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::is_there;

    #[test]
    fn a_program_is_found_or_not() {
        assert!(is_there("sh"));
        assert!(!is_there("no-such-program-anywhere"));
    }
}
