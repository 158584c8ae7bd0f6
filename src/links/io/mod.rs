//! Moving frames between buffers and devices, many at a time: how is decided once, at the start.
//!
//! Knows descriptors and bytes; what a result means for a link is not known here.

mod syscall;
mod uring;

use std::io;
use std::os::fd::RawFd;

use self::syscall::Syscall;
use self::uring::Uring;
use crate::addr::LinkId;
use crate::config::Io as Wish;
use crate::frame::Frame;

/// Reads or writes that are done at once, at most.
pub(super) const MOST: usize = 64;

/// What came of some reads or writes, in order.
#[derive(Debug)]
pub(super) struct Results {
    codes: [i32; MOST],
    len: usize,
}

impl Results {
    pub(super) const fn new() -> Self {
        Self { codes: [0; MOST], len: 0 }
    }

    /// How many bytes the operation at `at` has moved.
    pub(super) fn get(&self, at: usize) -> io::Result<usize> {
        let code = self.codes[..self.len].get(at).copied().unwrap_or(-libc::ECANCELED);
        usize::try_from(code).map_err(|_| io::Error::from_raw_os_error(-code))
    }

    /// How many operations there were.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Puts another code in the place of one.
    #[cfg(test)]
    pub(super) fn set(&mut self, at: usize, code: i32) {
        self.codes[at] = code;
    }

    const fn clear(&mut self) {
        self.len = 0;
    }

    fn push(&mut self, code: i32) {
        if let Some(place) = self.codes.get_mut(self.len) {
            *place = code;
            self.len += 1;
        }
    }

    fn push_result(&mut self, result: io::Result<usize>) {
        self.push(match result {
            Ok(length) => i32::try_from(length).unwrap_or(i32::MAX),
            Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
        });
    }
}

/// A link's device as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) link: LinkId,
    pub(super) fd: RawFd,
    /// Its frames come and go with a virtio-net header.
    pub(super) with_header: bool,
}

/// Does reads and writes; each either at once or not at all. At most [`MOST`] at a time.
pub(super) trait Engine {
    /// How many frames to ask for where `expected` are: what has to be said beforehand.
    fn ask(&self, expected: usize) -> usize;

    /// Reads into `frames`, in order. The last result may be one of fewer.
    fn read(&mut self, device: Device, frames: &mut [Frame], results: &mut Results);

    /// Writes each to the device beside it, in order.
    fn write<'f>(
        &mut self,
        writes: impl Iterator<Item = (Device, &'f [u8])>,
        results: &mut Results,
    );

    /// The device of `link` is closed next: nothing may keep it.
    fn forget(&mut self, link: LinkId);
}

/// The way that was chosen.
#[derive(Debug)]
pub(super) enum Io {
    /// A system call for each.
    Syscall(Syscall),
    /// A system call for many.
    Uring(Box<Uring>),
}

impl Io {
    /// The best way of those that `wish` leaves, tried out.
    pub(super) fn choose(wish: Wish) -> io::Result<Self> {
        let uring = match wish {
            Wish::Syscall => return Ok(Self::Syscall(Syscall)),
            Wish::Uring | Wish::Auto => Uring::new(),
        };
        match uring {
            Ok(uring) => Ok(Self::Uring(Box::new(uring))),
            Err(error) if wish == Wish::Auto => {
                log::info!(error:%; "no io_uring here; every frame costs a system call");
                Ok(Self::Syscall(Syscall))
            }
            Err(error) => Err(error),
        }
    }

    /// As in the configuration.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Syscall(_) => "syscall",
            Self::Uring(_) => "uring",
        }
    }
}

impl Engine for Io {
    fn ask(&self, expected: usize) -> usize {
        match self {
            Self::Syscall(syscall) => syscall.ask(expected),
            Self::Uring(uring) => uring.ask(expected),
        }
    }

    fn read(&mut self, device: Device, frames: &mut [Frame], results: &mut Results) {
        match self {
            Self::Syscall(syscall) => syscall.read(device, frames, results),
            Self::Uring(uring) => uring.read(device, frames, results),
        }
    }

    fn write<'f>(
        &mut self,
        writes: impl Iterator<Item = (Device, &'f [u8])>,
        results: &mut Results,
    ) {
        match self {
            Self::Syscall(syscall) => syscall.write(writes, results),
            Self::Uring(uring) => uring.write(writes, results),
        }
    }

    fn forget(&mut self, link: LinkId) {
        match self {
            Self::Syscall(syscall) => syscall.forget(link),
            Self::Uring(uring) => uring.forget(link),
        }
    }
}

#[cfg(test)]
mod tests;
