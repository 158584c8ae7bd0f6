//! Files that hold a secret in one line: the status page's token, the key of a pair.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use log::warn;

/// Longer than any of them.
const LONGEST: u64 = 4 << 10;

/// The line without the space around it; empty when it is no text.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        let path = path.display().to_string();
        warn!(path = path.as_str(); "others than its owner may read this secret; chmod 600");
    }
    let mut bytes = Vec::new();
    file.by_ref().take(LONGEST).read_to_end(&mut bytes)?;
    Ok(str::from_utf8(&bytes).unwrap_or_default().trim().to_owned())
}
