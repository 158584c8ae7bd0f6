//! Disks: a partition table with one FAT partition, and FAT file systems, as bytes.

use std::io::{Cursor, Read as _, Seek as _, SeekFrom, Write as _};

use fatfs::{
    Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider,
};
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types;
use uuid::Uuid;

/// The label of the partition that the machine boots from.
pub const SYSTEM_LABEL: &str = "TAPVSSYSTEM";
/// The label of a disk that holds a configuration.
pub const CONFIG_LABEL: &str = "TAPVS";

const SECTOR: usize = 512;
/// Where partitions begin by custom.
const FIRST: usize = 1 << 20;
/// Room for the second partition table at the end.
const LAST: usize = 34 * SECTOR;
/// Free for those who edit: editors write beside the file first.
const ROOM: usize = 512 << 10;

// Any will do, the same ones always.
const DISK_ID: Uuid = Uuid::from_u128(0x7461_7076_732d_4d00_8000_6469_736b_0001);
const PARTITION_ID: Uuid = Uuid::from_u128(0x7461_7076_732d_4d00_8000_7061_7274_0001);
const VOLUME_ID: u32 = 0x7a9c_0001;

/// The age of every file: FAT's first day.
#[derive(Debug)]
struct FirstDay;

impl TimeProvider for FirstDay {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        let time = Time { hour: 0, min: 0, sec: 0, millis: 0 };
        DateTime { date: self.get_current_date(), time }
    }
}

static FIRST_DAY: FirstDay = FirstDay;

/// A disk that boots with UEFI: one system partition with these files, as large as they need.
pub fn bootable(files: &[(&str, &[u8])]) -> Result<Vec<u8>, String> {
    let needed: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    let partition = (needed + needed / 256 + ROOM).next_multiple_of(64 << 10);
    let partition = fat(partition, SYSTEM_LABEL, files)?;
    let mut disk = Cursor::new(vec![0; FIRST + partition.len() + LAST]);
    write_table(&mut disk, partition.len())
        .map_err(|error| format!("the partition table: {error}"))?;
    let mut bytes = disk.into_inner();
    bytes[FIRST..FIRST + partition.len()].copy_from_slice(&partition);
    Ok(bytes)
}

/// A small disk without partitions that holds a configuration.
pub fn config_disk(files: &[(&str, &[u8])]) -> Result<Vec<u8>, String> {
    fat(2 << 20, CONFIG_LABEL, files)
}

/// Writes files into the system partition of a disk that [`bootable`] made.
pub fn edit(disk: &mut [u8], files: &[(&str, &[u8])]) -> Result<(), String> {
    let end = disk.len().checked_sub(LAST).filter(|end| *end > FIRST);
    let end = end.ok_or_else(|| "the disk is too small".to_owned())?;
    let mut partition = Cursor::new(&mut disk[FIRST..end]);
    write_files(&mut partition, files)
}

/// The content of a file in the system partition of a disk that [`bootable`] made.
pub fn read(disk: &[u8], path: &str) -> Result<Vec<u8>, String> {
    let wrong = |error: std::io::Error| format!("{path}: {error}");
    let mut copy = disk.get(FIRST..).unwrap_or_default().to_vec();
    let options = FsOptions::new().time_provider(&FIRST_DAY);
    let system = FileSystem::new(Cursor::new(&mut copy), options).map_err(wrong)?;
    let mut bytes = Vec::new();
    system.root_dir().open_file(path).map_err(wrong)?.read_to_end(&mut bytes).map_err(wrong)?;
    drop(system);
    Ok(bytes)
}

/// A FAT file system of that size.
fn fat(size: usize, label: &str, files: &[(&str, &[u8])]) -> Result<Vec<u8>, String> {
    let mut padded = [b' '; 11];
    padded[..label.len()].copy_from_slice(label.as_bytes());
    // FAT16 has at least 4,085 clusters; smaller disks are FAT12.
    let (kind, cluster) =
        if size > 4_200 * 2_048 { (FatType::Fat16, 2_048) } else { (FatType::Fat12, 2_048) };
    let options = FormatVolumeOptions::new()
        .fat_type(kind)
        .bytes_per_cluster(cluster)
        .volume_id(VOLUME_ID)
        .volume_label(padded);
    let mut bytes = vec![0; size];
    fatfs::format_volume(Cursor::new(&mut bytes), options)
        .map_err(|error| format!("a FAT file system of {size} bytes: {error}"))?;
    write_files(&mut Cursor::new(bytes.as_mut_slice()), files)?;
    Ok(bytes)
}

fn write_files(partition: &mut Cursor<&mut [u8]>, files: &[(&str, &[u8])]) -> Result<(), String> {
    partition.seek(SeekFrom::Start(0)).map_err(|error| error.to_string())?;
    let options = FsOptions::new().time_provider(&FIRST_DAY);
    let system = FileSystem::new(partition, options)
        .map_err(|error| format!("no FAT file system: {error}"))?;
    for (path, bytes) in files {
        let wrong = |error: std::io::Error| format!("{path}: {error}");
        let root = system.root_dir();
        let folders = path.match_indices('/').map(|(end, _)| &path[..end]);
        for folder in folders {
            root.create_dir(folder).map_err(wrong)?;
        }
        let mut file = root.create_file(path).map_err(wrong)?;
        file.truncate().map_err(wrong)?;
        file.write_all(bytes).map_err(wrong)?;
        file.flush().map_err(wrong)?;
    }
    system.unmount().map_err(|error| format!("the FAT file system: {error}"))
}

fn write_table(disk: &mut Cursor<Vec<u8>>, partition: usize) -> Result<(), String> {
    let wrong = |error: &dyn std::error::Error| error.to_string();
    let sectors = disk.get_ref().len() / SECTOR - 1;
    let mbr = ProtectiveMBR::with_lb_size(u32::try_from(sectors).unwrap_or(u32::MAX));
    mbr.overwrite_lba0(disk).map_err(|error| wrong(&error))?;
    let config = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .create_from_device(disk, Some(DISK_ID));
    let mut table = config.map_err(|error| wrong(&error))?;
    let first = (FIRST / SECTOR) as u64;
    let length = (partition / SECTOR) as u64;
    let id = table
        .add_partition_at("tapvs", 1, first, length, partition_types::EFI, 0)
        .map_err(|error| wrong(&error))?;
    let mut partitions = table.partitions().clone();
    if let Some(partition) = partitions.get_mut(&id) {
        partition.part_guid = PARTITION_ID;
    }
    table.update_partitions(partitions).map_err(|error| wrong(&error))?;
    table.write().map_err(|error| wrong(&error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_files_are_equal_bytes_and_come_back() {
        let kernel = vec![0x5a; 9 << 20];
        let files: [(&str, &[u8]); 2] = [("EFI/BOOT/BOOTX64.EFI", &kernel), ("tapvs.toml", b"old")];
        let mut disk = bootable(&files).unwrap();
        assert_eq!(disk, bootable(&files).unwrap());
        assert_eq!(&disk[512..520], b"EFI PART");
        assert_eq!(read(&disk, "EFI/BOOT/BOOTX64.EFI").unwrap(), kernel);
        edit(&mut disk, &[("tapvs.toml", b"a new and longer one"), ("token", b"secret")]).unwrap();
        assert_eq!(read(&disk, "tapvs.toml").unwrap(), b"a new and longer one");
        assert_eq!(read(&disk, "token").unwrap(), b"secret");
        assert!(read(&disk, "nothing").is_err());
    }

    #[test]
    fn a_configuration_disk_is_labelled_where_computers_look() {
        let disk = config_disk(&[("tapvs.toml", b"x")]).unwrap();
        assert_eq!(&disk[43..54], b"TAPVS      ");
        assert_eq!(&disk[54..59], b"FAT12");
        let root = disk.chunks_exact(32).any(|entry| &entry[..12] == b"TAPVS      \x08");
        assert!(root, "an entry of the root directory as well");
    }
}
