//! Programs run inside a namespace, and where they are.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use netns_tests::{Context as _, Outcome, ensure};
use tapvs::links::Namespace;

const SYSTEM_FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

/// Where a program is.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = format!("{}:{SYSTEM_FOLDERS}", std::env::var("PATH").unwrap_or_default());
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// `PATH` with a folder before all others.
pub(crate) fn path_from(folder: Option<&Path>) -> String {
    match folder {
        Some(folder) => format!("{}:{SYSTEM_FOLDERS}", folder.display()),
        None => SYSTEM_FOLDERS.to_owned(),
    }
}

/// Runs it and takes what it says.
pub(crate) fn output(namespace: &Namespace, command: &mut Command) -> Outcome<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = namespace.spawn(command).context(format_args!("{command:?}"))?;
    child.wait_with_output().context("waiting for a program")
}

/// Runs a line of shell that must succeed, with `folder` before all others in its `PATH`.
pub(crate) fn shell(namespace: &Namespace, line: &str, folder: Option<&Path>) -> Outcome<String> {
    let mut command = Command::new("sh");
    command.args(["-e", "-c", line]).env("PATH", path_from(folder)).env("LC_ALL", "C");
    let output = output(namespace, &mut command)?;
    let (out, words) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "`{line}`: {}: {words}", output.status);
    Ok(out)
}

/// The arptables that are installed, the one on the old kernel interface and the one on nftables.
pub(crate) fn arptables() -> Vec<PathBuf> {
    let variants = ["arptables-legacy", "arptables-nft"].into_iter().filter_map(find);
    let found: Vec<_> = variants.collect();
    if found.is_empty() { find("arptables").into_iter().collect() } else { found }
}

/// Makes `name` in `folder` lead to `program`.
pub(crate) fn name_it(folder: &Path, name: &str, program: &Path) -> Outcome {
    std::fs::create_dir_all(folder)?;
    symlink(program, folder.join(name)).context(folder.display())
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
