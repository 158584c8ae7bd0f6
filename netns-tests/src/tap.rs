//! TAPs as other programs leave them.
#![expect(unsafe_code, reason = "TUN ioctls have no safe wrapper")]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd as _;

use nix::libc;

use crate::{Context as _, Outcome};

/// Leaves a persistent TAP in the calling thread's namespace whose frames may be as long as 64 KiB and have
/// no checksum, as one that had a virtual machine behind it.
pub fn leave_offloading(name: &str) -> Outcome {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: an ifreq is plain bytes; all zeroes is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags)?;
    let fd = file.as_raw_fd();
    // SAFETY: TUNSETIFF reads and fills one ifreq, which `request` is and which outlives the call.
    check(unsafe { libc::ioctl(fd, libc::TUNSETIFF, &raw mut request) })
        .context(format_args!("cannot make {name}"))?;
    let all = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    // SAFETY: both take a number.
    unsafe {
        check(libc::ioctl(fd, libc::TUNSETOFFLOAD, libc::c_ulong::from(all)))?;
        check(libc::ioctl(fd, libc::TUNSETPERSIST, 1))?;
    }
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
