//! Where the configuration comes from: a disk labelled TAPVS, else the system partition, else what
//! is built in.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::disk::{Kind, Labelled, labelled};
use crate::files;

/// The label of a disk or partition that holds a configuration, and nothing else of ours.
const LABEL: &str = "TAPVS";
/// The label of the partition that the machine boots from.
const SYSTEM_LABEL: &str = "TAPVSSYSTEM";
/// A configuration with 1,000 services has less than 400 kB.
const MOST_BYTES: u64 = 4 << 20;
const MOST_FILES: usize = 32;

/// The files of a configuration, by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A place, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// For people, such as `disk TAPVS (vdb)`.
    pub(crate) place: String,
    pub(crate) files: Result<Files, String>,
}

/// Looks everywhere, in order: the first place counts, right or wrong. A file that is wrong is not a
/// reason to run another one that somebody forgot on another disk.
///
/// `prepare` sees to it that the kernel knows the file system.
pub(crate) fn find(mut prepare: impl FnMut(Kind)) -> Found {
    let disks = labelled();
    match choose(&disks) {
        Some((place, disk)) => {
            prepare(disk.kind);
            Found { place, files: read(disk) }
        }
        None => built_in(),
    }
}

/// Whether there is a disk to look at.
pub(crate) fn is_there() -> bool {
    choose(&labelled()).is_some()
}

/// What every machine can run.
pub(crate) fn built_in() -> Found {
    let text = fs::read(files::DEFAULT).map_err(|error| format!("{}: {error}", files::DEFAULT));
    let files = text.map(|text| [(files::CONFIG_FILE.to_owned(), text)].into());
    Found { place: "built-in default".into(), files }
}

fn choose(disks: &[Labelled]) -> Option<(String, &Labelled)> {
    let called = |label: &str| disks.iter().find(|disk| disk.label.eq_ignore_ascii_case(label));
    if let Some(disk) = called(LABEL) {
        return Some((format!("disk TAPVS ({})", disk.name), disk));
    }
    called(SYSTEM_LABEL).map(|disk| (format!("system partition ({})", disk.name), disk))
}

/// Mounted read-only, for as long as reading takes.
fn read(disk: &Labelled) -> Result<Files, String> {
    let wrong = |error: io::Error| format!("{}: {error}", disk.name);
    fs::create_dir_all(files::MEDIA).map_err(wrong)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let kind = match disk.kind {
        Kind::Fat => "vfat",
        Kind::Iso => "iso9660",
    };
    mount(disk.device(), files::MEDIA, kind, flags, None)
        .map_err(|error| format!("{} cannot be mounted as {kind}: {error}", disk.name))?;
    let files = read_folder(Path::new(files::MEDIA)).map_err(wrong);
    unmount(files::MEDIA, UnmountFlags::DETACH)
        .map_err(|error| format!("{} stays mounted: {error}", disk.name))?;
    let files = files?;
    if files.contains_key(files::CONFIG_FILE) {
        Ok(files)
    } else {
        Err(format!("has no {}; put one there", files::CONFIG_FILE))
    }
}

/// Its small files: the configuration, and tokens and keys that it names.
fn read_folder(folder: &Path) -> io::Result<Files> {
    let mut found = Files::new();
    let mut room = MOST_BYTES;
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    // The configuration first: nothing may take its room.
    entries.sort_by_key(|entry| {
        let name = entry.file_name().to_string_lossy().to_lowercase();
        (name != files::CONFIG_FILE, name)
    });
    for entry in entries {
        // Some computers write names in capitals, or leave notes of their own in hidden files.
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if !entry.metadata()?.is_file() || name.starts_with('.') || found.len() == MOST_FILES {
            continue;
        }
        let mut bytes = Vec::new();
        fs::File::open(entry.path())?.take(room + 1).read_to_end(&mut bytes)?;
        let Some(left) = room.checked_sub(bytes.len() as u64) else {
            if name == files::CONFIG_FILE {
                return Err(io::Error::other(format!("{name} is larger than {MOST_BYTES} bytes")));
            }
            continue;
        };
        room = left;
        found.insert(name, bytes);
    }
    Ok(found)
}

/// Puts files where the router reads them; those before are kept aside.
pub(crate) fn install(files: &Files) -> io::Result<()> {
    let (now, before) = (Path::new(files::CONFIG), Path::new(files::CONFIG_BEFORE));
    let fresh = now.with_extension("new");
    remove(&fresh)?;
    fs::create_dir_all(&fresh)?;
    for (name, bytes) in files {
        let path = fresh.join(name);
        fs::write(&path, bytes)?;
        // A token or key is nobody else's business.
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    remove(before)?;
    if now.exists() {
        fs::rename(now, before)?;
    }
    fs::rename(&fresh, now)
}

/// Takes [`install`] back.
pub(crate) fn restore() -> io::Result<()> {
    let (now, before) = (Path::new(files::CONFIG), Path::new(files::CONFIG_BEFORE));
    remove(now)?;
    if before.exists() { fs::rename(before, now) } else { Ok(()) }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What `tapvs check` says about a wrong file, with the place for the path.
pub(crate) fn mistakes(output: &str, place: &str) -> Vec<String> {
    let path = format!("{}/", files::CONFIG);
    let lines = output.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| format!("{place}: {}", line.strip_prefix(&path).unwrap_or(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, label: &str) -> Labelled {
        Labelled { name: name.into(), label: label.into(), kind: Kind::Fat }
    }

    #[test]
    fn a_disk_for_it_comes_before_the_system_partition() {
        let place = |disks: &[Labelled]| choose(disks).map(|(place, _)| place);
        let (system, own) = (disk("vda1", "TAPVSSYSTEM"), disk("vdb", "tapvs"));
        let other = disk("sdc1", "DATA");
        assert_eq!(place(&[]), None);
        assert_eq!(place(std::slice::from_ref(&other)), None);
        let both = [system.clone(), own, other.clone()];
        assert_eq!(place(&both).as_deref(), Some("disk TAPVS (vdb)"));
        assert_eq!(place(&[other, system]).as_deref(), Some("system partition (vda1)"));
    }

    #[test]
    fn a_mistake_names_the_disk_and_not_a_path_that_nobody_knows() {
        let output = "/etc/tapvs/tapvs.toml:3:1: router.nmae: unknown key\n\nother\n";
        assert_eq!(
            mistakes(output, "disk TAPVS (vdb)"),
            [
                "disk TAPVS (vdb): tapvs.toml:3:1: router.nmae: unknown key",
                "disk TAPVS (vdb): other"
            ]
        );
    }

    #[test]
    fn small_files_are_read_whatever_their_case() {
        let folder = std::env::temp_dir().join(format!("tapvs-source-{}", std::process::id()));
        fs::create_dir_all(folder.join("efi")).unwrap();
        fs::write(folder.join("TAPVS.TOML"), "x").unwrap();
        fs::write(folder.join("a-token"), "secret").unwrap();
        fs::write(folder.join(".hidden"), "").unwrap();
        let large = fs::File::create(folder.join("aaa-large")).unwrap();
        large.set_len(MOST_BYTES + 1).unwrap();
        let files = read_folder(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["a-token", "tapvs.toml"]);
        assert_eq!(files["tapvs.toml"], b"x");
    }
}
