//! A TAP, with or without the kernel's segmentation offload.
#![expect(unsafe_code, reason = "TUN ioctls have no safe wrapper")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;

use tapvs::links::Netlink;

/// As tapvs has it.
const TXQLEN: u32 = 4_096;
/// TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN of <linux/if_tun.h>.
const OFFLOADS: libc::c_ulong = 0x01 | 0x02 | 0x04 | 0x08;
/// TUN_F_USO4 and TUN_F_USO6, since Linux 6.2.
const UDP_OFFLOADS: libc::c_ulong = 0x20 | 0x40;
/// `struct virtio_net_hdr`.
const HEADER: libc::c_int = 10;

/// An open TAP; the device goes with it.
#[derive(Debug)]
pub(super) struct Tap {
    file: File,
}

impl Tap {
    /// Makes it in the namespace of the calling thread.
    pub(super) fn open(name: &str, vnet: bool) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")?;
        let tap = Self { file };
        tap.name(name, vnet)?;
        if vnet {
            tap.pointed(libc::TUNSETVNETHDRSZ, HEADER)?;
            tap.pointed(libc::TUNSETVNETLE, 1)?;
            let with_udp = tap.by_value(libc::TUNSETOFFLOAD, OFFLOADS | UDP_OFFLOADS);
            with_udp.or_else(|_| tap.by_value(libc::TUNSETOFFLOAD, OFFLOADS))?;
        } else {
            tap.by_value(libc::TUNSETOFFLOAD, 0)?;
        }
        let netlink = Netlink::new().map_err(io::Error::other)?;
        netlink.set_txqlen(name, TXQLEN).map_err(io::Error::other)?;
        Ok(tap)
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    /// What the kernel does not take is lost, as on any network.
    pub(super) fn write(&self, frame: &[u8]) {
        drop((&self.file).write(frame));
    }

    fn name(&self, name: &str, vnet: bool) -> io::Result<()> {
        // SAFETY: an ifreq is plain bytes; all zeroes is a valid one.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(io::Error::other(format!("`{name}` is too long for a device")));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        let vnet = if vnet { libc::IFF_VNET_HDR } else { 0 };
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | vnet;
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
        // SAFETY: TUNSETIFF reads and fills one ifreq, which `request` is and which outlives the call.
        let result =
            unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        check(result)
    }

    /// An ioctl that takes a pointer to an `int`.
    fn pointed(&self, request: libc::Ioctl, value: libc::c_int) -> io::Result<()> {
        // SAFETY: the pointer is to a local that outlives the call.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), request, &raw const value) })
    }

    /// An ioctl that takes its argument by value.
    fn by_value(&self, request: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
        // SAFETY: the argument is a number, not a pointer.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), request, value) })
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
