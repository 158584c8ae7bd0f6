//! tapvs and its PID 1, linked statically, with nothing of this machine in them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::progress::{run, say};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The two programs.
pub(crate) struct Programs {
    pub(crate) tapvs: Vec<u8>,
    pub(crate) appliance: Vec<u8>,
}

/// Builds them from the source tree at `root`, with what they need below `target`.
pub(crate) fn compile(root: &Path, target: &Path, offline: bool) -> Result<Programs, String> {
    let mut command = Command::new("cargo");
    command.args(["build", "--locked", "--release", "--target", TARGET]);
    command.args(["--package", "tapvs", "--bin", "tapvs", "--package", "appliance"]);
    command.arg("--bin").arg("appliance").arg("--target-dir").arg(target);
    command.args(offline.then_some("--offline"));
    command.current_dir(root).env("CARGO_ENCODED_RUSTFLAGS", flags(root)?.join("\u{1f}"));
    // Names and lines of functions are for those who debug; a panic still says where it was.
    command
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    // Whoever builds may see how far it is.
    let status = command.status().map_err(|error| format!("`cargo` did not start: {error}"))?;
    if !status.success() {
        return Err(format!("{command:?}: {status}"));
    }
    say("  tapvs and PID 1 are built");
    Programs::read(&target.join(TARGET).join("release"))
}

impl Programs {
    /// Those in a folder.
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        Ok(Self { tapvs: read("tapvs")?, appliance: read("appliance")? })
    }
}

/// Static, and no path of this machine: equal sources make equal programs wherever they lie.
fn flags(root: &Path) -> Result<Vec<String>, String> {
    let home = std::env::var_os("CARGO_HOME")
        .map(std::path::PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.push("-Clink-arg=-Wl,--build-id=none".to_owned());
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    remap(root, "/tapvs");
    if let Some(home) = home {
        remap(&home, "/cargo");
    }
    let sysroot = run(Command::new("rustc").args(["--print", "sysroot"]).current_dir(root))?;
    remap(Path::new(sysroot.trim()), "/rust");
    Ok(flags)
}

/// What compiled them, for the manifest.
pub(crate) fn compiler(root: &Path) -> Result<String, String> {
    let text = run(Command::new("rustc").arg("--version").current_dir(root))?;
    Ok(text.trim().to_owned())
}
