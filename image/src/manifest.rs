//! What went into an image, and what came out: equal manifests are equal bytes.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// The hash of some bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Lines of hash, size, name and version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    text: String,
}

impl Manifest {
    /// A heading.
    pub fn part(&mut self, name: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.text, "{gap}[{name}]");
    }

    /// A file of that content.
    pub fn file(&mut self, name: &str, bytes: &[u8], version: &str) {
        let (hash, length) = (sha256(bytes), bytes.len());
        let line = format!("{hash} {length:>10} {name} {version}");
        let _ = writeln!(self.text, "{}", line.trim_end());
    }

    /// A fact.
    pub fn fact(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.text, "{name} = {}", value.trim());
    }

    /// As it is written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_sha256sum() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
        let mut manifest = Manifest::default();
        manifest.part("inputs");
        manifest.file("kernel", b"", "6.1");
        assert_eq!(manifest.text(), format!("[inputs]\n{empty}          0 kernel 6.1\n"));
    }
}
