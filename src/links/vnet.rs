//! virtio-net headers on a TAP, or on what takes the same requests: which offloads its frames come with.
#![expect(unsafe_code, reason = "TUN ioctls have no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::frame::VIRTIO_HEADER;

/// What the frames of a device may leave to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    any: bool,
    udp: bool,
}

impl Offloads {
    /// Plain frames, without a virtio-net header.
    pub const NONE: Self = Self { any: false, udp: false };
    /// Checksums and TCP segments.
    pub const TCP: Self = Self { any: true, udp: false };
    /// Checksums, TCP and UDP segments.
    pub const ALL: Self = Self { any: true, udp: true };

    /// Whether frames have a virtio-net header.
    pub const fn any(self) -> bool {
        self.any
    }

    /// In a word, for status and log.
    pub const fn name(self) -> &'static str {
        match (self.any, self.udp) {
            (false, _) => "off",
            (true, false) => "tcp",
            (true, true) => "tcp+udp",
        }
    }
}

/// Takes into use what the kernel has, on a device that was opened with IFF_VNET_HDR.
pub(super) fn enable(device: &File) -> io::Result<Offloads> {
    const TCP: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    const UDP: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    set_number(device, libc::TUNSETVNETHDRSZ, VIRTIO_HEADER.try_into().unwrap_or_default())?;
    // The same on every machine.
    set_number(device, libc::TUNSETVNETLE, 1)?;
    // Linux before 6.2 does not know the UDP bits and says so.
    match set_offload(device, TCP | UDP) {
        Ok(()) => Ok(Offloads::ALL),
        Err(_) => set_offload(device, TCP).map(|()| Offloads::TCP),
    }
}

/// Takes all offloads out of use.
pub(super) fn disable(device: &File) -> io::Result<()> {
    set_offload(device, 0)
}

fn set_offload(device: &File, mask: u32) -> io::Result<()> {
    // SAFETY: the fd is open; the argument is a number, not a pointer.
    let result =
        unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(mask)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set_number(device: &File, request: libc::Ioctl, number: libc::c_int) -> io::Result<()> {
    // SAFETY: the request reads one int, which `number` is and which outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), request, &raw const number) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
