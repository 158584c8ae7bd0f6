//! Directories for configurations, logs and files to transfer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "tapvs-netns-test-";

/// A directory below the system's temporary one; goes with its contents when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new, empty one.
    pub fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what killed runs have left behind.
    pub fn sweep() {
        let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
        for entry in entries.flatten() {
            if owner(&entry.file_name().to_string_lossy())
                .is_some_and(|owner| !Path::new("/proc").join(owner.to_string()).exists())
            {
                // Somebody else's, if it cannot be removed.
                drop(fs::remove_dir_all(entry.path()));
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next run sweeps up what could not be removed now.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// The process that made the directory of that name.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_names_its_process_and_goes_when_dropped() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_path_buf();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(owner(name), Some(std::process::id()));
        assert_eq!(owner("tapvs-netns-test-x-0"), None);
        assert_eq!(owner("something-else-1-0"), None);
        Scratch::sweep();
        assert!(path.is_dir(), "a living process keeps its directories");
        drop(scratch);
        assert!(!path.exists());
    }
}
