//! Lines for whoever watches.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// One line, on standard error.
pub fn say(line: &str) {
    // That nobody reads it is no reason to stop.
    drop(writeln!(std::io::stderr(), "{}", line.trim_end()));
}

/// A size as people read it.
pub fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    format!("{mebibytes:.2} MiB")
}

/// Runs a program that has to succeed; its output is the error when it does not.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command.output().map_err(|error| format!("`{program}` did not start: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}\n{}", output.status, said.trim_end()))
}
