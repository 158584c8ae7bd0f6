//! A section of an ELF file by name: enough to read what a kernel module says about itself.

/// The bytes of the section, of a 64-bit little-endian ELF file.
pub(crate) fn section<'e>(file: &'e [u8], wanted: &str) -> Option<&'e [u8]> {
    let number = |at: usize, width: usize| -> Option<usize> {
        let bytes = file.get(at..at.checked_add(width)?)?;
        let value = bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).ok()
    };
    // Class 64, little-endian.
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size) = (number(0x28, 8)?, number(0x3a, 2)?);
    let (count, names) = (number(0x3c, 2)?, number(0x3e, 2)?);
    let header = |index: usize| {
        let at = table.checked_add(index.checked_mul(size)?)?;
        let (name, from, length) = (number(at, 4)?, number(at + 0x18, 8)?, number(at + 0x20, 8)?);
        Some((name, file.get(from..from.checked_add(length)?)))
    };
    let (_, names) = header(names)?;
    let names = names?;
    (0..count).find_map(|index| {
        let (name, bytes) = header(index)?;
        let name = names.get(name..)?.split(|byte| *byte == 0).next()?;
        if name == wanted.as_bytes() { bytes } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::section;

    #[test]
    fn a_section_of_this_very_program_is_found() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let interpreter = section(&own, ".interp").unwrap();
        assert!(interpreter.starts_with(b"/lib"), "{interpreter:?}");
        assert_eq!(section(&own, ".no-such-section"), None);
        assert_eq!(section(&own[..100], ".interp"), None);
        assert_eq!(section(b"", ".interp"), None);
    }
}
