//! The `tapvs` binary under test: the release build, made fresh.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{Context as _, Failure, Outcome, ensure};

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// Where the binary is.
///
/// # Panics
/// Before [`provide`] has succeeded.
pub fn tapvs() -> &'static Path {
    BINARY.get().expect("the binary is provided before anything runs it")
}

/// Takes the binary that `TAPVS_BIN` names, or builds it: tests of a stale one prove nothing.
pub fn provide() -> Outcome {
    let binary = match std::env::var_os("TAPVS_BIN") {
        Some(named) => PathBuf::from(named),
        None => build()?,
    };
    let binary = binary
        .canonicalize()
        .context(format_args!("there is no tapvs binary at {}", binary.display()))?;
    BINARY.set(binary).map_err(|_| Failure::new("the binary was provided twice"))
}

fn build() -> Outcome<PathBuf> {
    // A test is TARGET/PROFILE/deps/NAME-HASH, a program TARGET/PROFILE/NAME.
    let own = std::env::current_exe()?;
    let folder = own.parent().filter(|folder| folder.ends_with("deps"));
    let profile = folder.unwrap_or(&own).parent();
    let target = profile.and_then(Path::parent).ok_or_else(|| {
        Failure::new(format!("{} is not in cargo's target directory", own.display()))
    })?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(&cargo)
        .args(["build", "--quiet", "--release", "--bin", "tapvs", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .status()
        .context("cannot start cargo to build tapvs; TAPVS_BIN may name a binary instead")?;
    ensure!(status.success(), "tapvs did not build: {status}");
    Ok(target.join("release/tapvs"))
}
