//! The kernel's own file systems.

use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, mount};

/// Mounts what every program expects. Each that fails is named; the machine goes on without it.
pub(crate) fn all() -> Vec<String> {
    let strict = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let table: [(&str, &str, MountFlags, &std::ffi::CStr); 4] = [
        ("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=0755"),
        ("proc", "/proc", strict, c""),
        ("sysfs", "/sys", strict, c""),
        ("tmpfs", "/run", strict, c"mode=0755,size=16m"),
    ];
    table
        .into_iter()
        .filter_map(|(kind, at, flags, options)| {
            one(kind, at, flags, options)
                .err()
                .map(|error| format!("mount {kind} on {at}: {error}"))
        })
        .collect()
}

fn one(kind: &str, at: &str, flags: MountFlags, options: &std::ffi::CStr) -> io::Result<()> {
    fs::create_dir_all(Path::new(at))?;
    match mount(kind, at, kind, flags, options) {
        // The kernel may have mounted /dev itself.
        Err(rustix::io::Errno::BUSY) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
