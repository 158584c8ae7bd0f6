//! One read or write after the other.
#![expect(
    unsafe_code,
    reason = "a descriptor is lent, and read and write of it have no safe wrapper"
)]

use std::io;
use std::os::fd::RawFd;

use super::{Device, Engine, MOST, Results};
use crate::addr::LinkId;
use crate::frame::Frame;

/// Needs nothing.
#[derive(Debug)]
pub(in crate::links) struct Syscall;

impl Engine for Syscall {
    fn ask(&self, _expected: usize) -> usize {
        MOST
    }

    fn read(&mut self, device: Device, frames: &mut [Frame], results: &mut Results) {
        results.clear();
        for frame in frames.iter_mut().take(MOST) {
            let result = read(device.fd, frame.input(device.with_header));
            let is_over = result.is_err();
            results.push_result(result);
            if is_over {
                break;
            }
        }
    }

    fn write<'f>(
        &mut self,
        writes: impl Iterator<Item = (Device, &'f [u8])>,
        results: &mut Results,
    ) {
        results.clear();
        for (device, bytes) in writes.take(MOST) {
            results.push_result(write(device.fd, bytes));
        }
    }

    fn forget(&mut self, _link: LinkId) {}
}

fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes, into `buffer`.
    let length = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}

fn write(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads at most `bytes.len()` bytes, from `bytes`.
    let length = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}
