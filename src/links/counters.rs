//! What a link has carried and refused.

use std::io;

/// Counters of one link. "In" is towards tapvs: the kernel's `tx`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames read.
    pub frames_in: u64,
    /// Their bytes, Ethernet header included.
    pub bytes_in: u64,
    /// Frames written.
    pub frames_out: u64,
    /// Their bytes, Ethernet header included.
    pub bytes_out: u64,
    /// Reads that brought an error or nothing at all.
    pub read_errors: u64,
    /// Frames that the device did not take.
    pub refused: Refused,
    /// How many more frames were written than were given to be, because the device takes no segments.
    pub cut: u64,
    /// How often the device was removed.
    pub lost: u64,
}

/// Frames that a device did not take, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// It is down (EIO).
    pub down: u64,
    /// The kernel has no memory or no room for them (ENOMEM, ENOBUFS, EAGAIN).
    pub no_memory: u64,
    /// Not a frame, in the kernel's eyes (EINVAL).
    pub invalid: u64,
    /// It has been removed (EBADFD), or is about to be made again.
    pub gone: u64,
    /// Anything else.
    pub other: u64,
}

impl Counters {
    pub(super) fn count_in(&mut self, length: usize) {
        self.frames_in += 1;
        self.bytes_in += u64::try_from(length).unwrap_or(0);
    }

    pub(super) fn count_out(&mut self, length: usize) {
        self.frames_out += 1;
        self.bytes_out += u64::try_from(length).unwrap_or(0);
    }
}

impl Refused {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.down + self.no_memory + self.invalid + self.gone + self.other
    }

    /// Counts a failed write; `true` when it says that the device has been removed.
    pub(super) fn count(&mut self, error: &io::Error) -> bool {
        let reason = match error.raw_os_error() {
            Some(libc::EIO) => &mut self.down,
            Some(libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN) => &mut self.no_memory,
            Some(libc::EINVAL) => &mut self.invalid,
            Some(libc::EBADFD) => &mut self.gone,
            _ => &mut self.other,
        };
        *reason += 1;
        error.raw_os_error() == Some(libc::EBADFD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_counted_once_under_its_reason() {
        let mut refused = Refused::default();
        for (errno, gone) in [
            (libc::EIO, false),
            (libc::ENOMEM, false),
            (libc::ENOBUFS, false),
            (libc::EAGAIN, false),
            (libc::EINVAL, false),
            (libc::EBADFD, true),
            (libc::EFAULT, false),
        ] {
            assert_eq!(refused.count(&io::Error::from_raw_os_error(errno)), gone, "{errno}");
        }
        assert_eq!(refused, Refused { down: 1, no_memory: 3, invalid: 1, gone: 1, other: 1 });
        assert_eq!(refused.total(), 7);
    }
}
