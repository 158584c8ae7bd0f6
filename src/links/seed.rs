//! Randomness, once, for those who must not be predictable.
#![expect(unsafe_code, reason = "getrandom has no safe wrapper in std")]

use std::io;

/// Sixteen bytes nobody can guess.
///
/// # Panics
/// On a kernel without getrandom(2), which is older (before 3.17) than anything else here can use.
pub fn seed() -> [u8; 16] {
    let mut seed = [0; 16];
    loop {
        // SAFETY: pointer and length are those of `seed`, which outlives the call.
        let read = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
        // Up to 256 bytes come whole or not at all; only the wait for the pool can be interrupted.
        if usize::try_from(read) == Ok(seed.len()) {
            return seed;
        }
        let error = io::Error::last_os_error();
        assert!(error.kind() == io::ErrorKind::Interrupted, "no random seed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same() {
        assert_ne!(seed(), seed());
    }
}
