//! Disks and partitions, and what they are called: labels of FAT and ISO 9660 file systems.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A file system that could hold a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Fat,
    Iso,
}

impl Kind {
    /// The kernel modules that read it.
    pub(crate) const fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Fat => &["nls_cp437", "nls_ascii", "vfat"],
            Self::Iso => &["isofs"],
        }
    }
}

/// A disk or partition with a labelled file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labelled {
    /// As the kernel calls it, such as `vdb1`.
    pub(crate) name: String,
    pub(crate) label: String,
    pub(crate) kind: Kind,
}

impl Labelled {
    pub(crate) fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

/// All of them now, by name.
pub(crate) fn labelled() -> Vec<Labelled> {
    let mut names = names("/sys/class/block");
    names.retain(|name| !["loop", "ram", "zram", "dm-"].iter().any(|kind| name.starts_with(kind)));
    names.sort();
    names.into_iter().filter_map(look).collect()
}

/// Whether a controller whose driver is loaded is still looking for its disks, as far as it tells.
pub(crate) fn may_come() -> bool {
    let text = |path: String| fs::read_to_string(path).unwrap_or_default();
    // These tell of each device: unknown, none, or what it is.
    let mut ata = names("/sys/class/ata_device").into_iter();
    let mut nvme = names("/sys/class/nvme").into_iter();
    ata.any(|device| text(format!("/sys/class/ata_device/{device}/class")).trim() == "unknown")
        || nvme.any(|controller| {
            let state = text(format!("/sys/class/nvme/{controller}/state"));
            let disk = format!("{controller}n");
            let parts = names(&format!("/sys/class/nvme/{controller}"));
            let is_known = parts.iter().any(|part| part.starts_with(&disk));
            !is_known && state.trim() != "dead"
        })
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn look(name: String) -> Option<Labelled> {
    // A drive without a medium does not open.
    let mut device = File::open(Path::new("/dev").join(&name)).ok()?;
    let (kind, label) = read_label(&mut device).ok()??;
    Some(Labelled { name, label, kind })
}

/// The label of whatever file system this is.
fn read_label(device: &mut (impl Read + Seek)) -> io::Result<Option<(Kind, String)>> {
    let mut boot = [0; 512];
    device.seek(SeekFrom::Start(0))?;
    device.read_exact(&mut boot)?;
    if let Some(fat) = Fat::parse(&boot) {
        let mut root = vec![0; fat.root_bytes];
        device.seek(SeekFrom::Start(fat.root_offset))?;
        device.read_exact(&mut root)?;
        let label = root_label(&root).unwrap_or(fat.label);
        return Ok(Some((Kind::Fat, label)));
    }
    // ECMA-119 8.4: the primary volume descriptor is the seventeenth sector, if it is anywhere.
    let mut descriptor = [0; 72];
    device.seek(SeekFrom::Start(16 * 2_048))?;
    if device.read_exact(&mut descriptor).is_ok() && descriptor.starts_with(b"\x01CD001\x01") {
        return Ok(Some((Kind::Iso, text(&descriptor[40..72]))));
    }
    Ok(None)
}

/// What the first sector says.
struct Fat {
    label: String,
    root_offset: u64,
    /// Of the root directory, as far as it is looked at.
    root_bytes: usize,
}

impl Fat {
    /// ECMA-107 and Microsoft's "FAT32 File System Specification".
    fn parse(boot: &[u8; 512]) -> Option<Self> {
        let u16_at = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let u32_at = |at: usize| {
            u64::from(u32::from_le_bytes([boot[at], boot[at + 1], boot[at + 2], boot[at + 3]]))
        };
        let sector = u16_at(11);
        let is_fat32 = &boot[82..87] == b"FAT32";
        let is_fat = is_fat32 || &boot[54..57] == b"FAT";
        if boot[510..] != [0x55, 0xaa] || !is_fat || !(512..=4_096).contains(&sector) {
            return None;
        }
        let (reserved, tables) = (u16_at(14), u64::from(boot[16]));
        let cluster = u64::from(boot[13]) * sector;
        let (table, label, root_cluster) = if is_fat32 {
            (u32_at(36), &boot[71..82], u32_at(44).checked_sub(2)?)
        } else {
            (u16_at(22), &boot[43..54], 0)
        };
        let root_offset = (reserved + tables * table) * sector + root_cluster * cluster;
        let root_bytes = if is_fat32 { cluster } else { u16_at(17) * 32 };
        let root_bytes = usize::try_from(root_bytes.min(64 << 10)).unwrap_or_default();
        Some(Self { label: text(label), root_offset, root_bytes })
    }
}

/// Where an operating system changes a label it is an entry of the root directory.
fn root_label(root: &[u8]) -> Option<String> {
    const VOLUME: u8 = 0x08;
    const LONG_NAME: u8 = 0x0f;
    const DELETED: u8 = 0xe5;
    let entries = root.chunks_exact(32).take_while(|entry| entry[0] != 0);
    let mut labels = entries.filter(|entry| {
        entry[0] != DELETED && entry[11] & VOLUME != 0 && entry[11] & LONG_NAME != LONG_NAME
    });
    labels.next().map(|entry| text(&entry[..11]))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches([' ', '\0']).to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// The beginning of a FAT16 file system: 1 reserved sector, 2 tables of 2 sectors, 32 entries.
    fn fat16(label: &[u8; 11], root: &[[u8; 12]]) -> Vec<u8> {
        let mut disk = vec![0; 64 << 10];
        disk[11..13].copy_from_slice(&512_u16.to_le_bytes());
        disk[13] = 4;
        disk[14] = 1;
        disk[16] = 2;
        disk[17] = 32;
        disk[22] = 2;
        disk[43..54].copy_from_slice(label);
        disk[54..62].copy_from_slice(b"FAT16   ");
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        for (number, entry) in root.iter().enumerate() {
            let at = 5 * 512 + number * 32;
            disk[at..at + 12].copy_from_slice(entry);
        }
        disk
    }

    fn label(disk: Vec<u8>) -> Option<(Kind, String)> {
        read_label(&mut Cursor::new(disk)).unwrap()
    }

    #[test]
    fn the_root_directory_outvotes_the_first_sector() {
        let fat = |text: &str| Some((Kind::Fat, text.to_owned()));
        assert_eq!(label(fat16(b"TAPVS      ", &[])), fat("TAPVS"));
        let renamed = [*b"README  TXT\x20", *b"TAPVS      \x08"];
        assert_eq!(label(fat16(b"NO NAME    ", &renamed)), fat("TAPVS"));
        let long = [*b"At.o.m.l.x.\x0f", *b"\xe5APVS      \x08"];
        assert_eq!(label(fat16(b"OTHER      ", &long)), fat("OTHER"), "long names, deleted ones");
    }

    #[test]
    fn a_compact_disc_has_a_label_too() {
        let mut disc = vec![0; 17 * 2_048];
        disc[16 * 2_048..][..7].copy_from_slice(b"\x01CD001\x01");
        disc[16 * 2_048 + 40..][..32].fill(b' ');
        disc[16 * 2_048 + 40..][..5].copy_from_slice(b"TAPVS");
        assert_eq!(label(disc), Some((Kind::Iso, "TAPVS".into())));
    }

    #[test]
    fn anything_else_has_none() {
        assert_eq!(label(vec![0; 64 << 10]), None);
        assert_eq!(label(vec![0; 512]), None);
        assert!(read_label(&mut Cursor::new(vec![0; 100])).is_err());
        let mut fat = fat16(b"TAPVS      ", &[]);
        fat.truncate(600);
        assert!(read_label(&mut Cursor::new(fat)).is_err(), "its root is beyond its end");
    }
}
