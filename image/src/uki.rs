//! A unified kernel image: one file that the firmware starts, with kernel, initramfs and command line
//! as sections (the UAPI group's specification of that name).

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::progress::run;

/// Behind the stub's own sections.
const FIRST_ADDRESS: usize = 0x10_0000;
/// Of sections, as the stub's header has it.
const ALIGNMENT: usize = 0x1000;

/// Puts it together in `folder`, from systemd's stub.
pub(crate) fn make(
    folder: &Path,
    stub: &Path,
    command_line: &str,
    kernel: &[u8],
    initramfs: &[u8],
    os_release: &str,
) -> Result<Vec<u8>, String> {
    let sections: [(&str, &[u8]); 4] = [
        (".osrel", os_release.as_bytes()),
        (".cmdline", command_line.as_bytes()),
        (".initrd", initramfs),
        (".linux", kernel),
    ];
    let output = folder.join("tapvs.efi");
    let mut command = Command::new("objcopy");
    // Without gaps: the firmware needs that much memory in one piece.
    let mut address = FIRST_ADDRESS;
    for (name, bytes) in sections {
        let file = folder.join(format!("section{name}"));
        fs::write(&file, bytes).map_err(|error| format!("{}: {error}", file.display()))?;
        command.arg("--add-section").arg(format!("{name}={}", file.display()));
        command.arg("--change-section-vma").arg(format!("{name}={address:#x}"));
        address = (address + bytes.len()).next_multiple_of(ALIGNMENT);
    }
    run(command.arg(stub).arg(&output))?;
    let bytes = fs::read(&output).map_err(|error| format!("{}: {error}", output.display()))?;
    Ok(without_time(bytes))
}

/// Of the time and the checksum in a PE file, from its header on.
const TIME: usize = 0x08;
const CHECKSUM: usize = 0x58;

/// The PE header says when it was linked; this one was at the beginning of time. The checksum, which
/// covers the time, is none: firmware asks for it in no program that it starts.
fn without_time(mut bytes: Vec<u8>) -> Vec<u8> {
    let header =
        bytes.get(0x3c..0x40).map(|at| at.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b)));
    if let Some(header) = header
        && bytes.get(header..header + 4) == Some(b"PE\0\0")
    {
        for field in [TIME, CHECKSUM] {
            if let Some(field) = bytes.get_mut(header + field..header + field + 4) {
                field.fill(0);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::without_time;

    #[test]
    fn the_time_and_the_checksum_go_and_nothing_else() {
        let mut file = vec![0xaa; 0x100];
        file[0x3c..0x40].copy_from_slice(&0x80_u32.to_le_bytes());
        file[0x80..0x84].copy_from_slice(b"PE\0\0");
        let mut expected = file.clone();
        expected[0x88..0x8c].fill(0);
        expected[0xd8..0xdc].fill(0);
        assert_eq!(without_time(file), expected);
        assert_eq!(without_time(vec![1, 2]), [1, 2]);
    }
}
