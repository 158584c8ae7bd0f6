//! The archive that the kernel unpacks into its root file system: cpio in the "newc" format
//! (kernel documentation, `driver-api/early-userspace/buffer-format`).

/// Everything belongs to root and is as old as time.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

impl Archive {
    /// A folder; those above it come first.
    pub fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER | 0o755, (0, 0), &[]);
    }

    /// A file, with its permissions.
    pub fn file(&mut self, path: &str, permissions: u32, bytes: &[u8]) {
        self.entry(path, FILE | permissions, (0, 0), bytes);
    }

    /// A character device; writing it down takes no privileges.
    pub fn character_device(&mut self, path: &str, permissions: u32, number: (u32, u32)) {
        self.entry(path, CHARACTER_DEVICE | permissions, number, &[]);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entries = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), bytes: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        let links = if mode & FOLDER == FOLDER && mode & FILE != FILE { 2 } else { 1 };
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_headers_names_and_padded_contents() {
        let mut archive = Archive::default();
        archive.folder("dev");
        archive.character_device("dev/console", 0o600, (5, 1));
        archive.file("init", 0o755, b"hello");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("07070100000001000041ed"), "{text}");
        let device = "000021800000000000000000000000010000000000000000000000000000000000000005\
                      00000001";
        assert!(text.contains(device), "{text}");
        assert!(text.contains("init\0\0hello\0\0\0"), "{text:?}");
        assert!(text.contains("TRAILER!!!"));
    }
}
