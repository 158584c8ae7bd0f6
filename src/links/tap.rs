//! One TAP device: made or attached by name, never blocking. Its frames are plain Ethernet frames, or
//! come and go with virtio-net headers and leave checksums and segments to be done.
#![expect(unsafe_code, reason = "TUN ioctls and taking over tun-tap's fd have no safe wrapper")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use tun_tap::{Iface, Mode};

use super::error::LinkError;
use super::namespace::write_sysctl;
use super::netlink::Netlink;
use super::privilege;
use super::vnet::{self, Offloads};
use crate::frame::Frame;

/// The kernel drops what does not fit the transmit queue; its default of 1,000 frames is short.
pub(super) const TXQLEN: u32 = 4_096;

/// An open TAP. The kernel removes the device with it, unless somebody made the device persistent.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
    offloads: Offloads,
}

impl Tap {
    /// Makes the device, or attaches to a persistent one, in the calling thread's namespace, and
    /// brings it up. Its frames are plain.
    pub fn open(name: &str, mtu: u16) -> Result<Self, LinkError> {
        // tun-tap opens this too, but its error would not say which step failed.
        privilege::check_tun()?;
        let netlink = Netlink::new()?;
        let tap = Self::plain(name)?;
        tap.configure(&netlink, mtu)?;
        Ok(tap)
    }

    /// As [`Tap::open`], with all offloads that the kernel has; plain where it refuses them.
    pub fn open_offloading(name: &str, mtu: u16) -> Result<Self, LinkError> {
        privilege::check_tun()?;
        let netlink = Netlink::new()?;
        let tap = match Self::offloading(name) {
            Ok(tap) => tap,
            // It may be free in a moment, and should have its offloads then.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                return Err(refused(name, error));
            }
            // A name that cannot be one: plain frames would not help, and the error is the better one.
            Err(error) => {
                let tap = Self::plain(name)?;
                log::warn!(link = name, error:%; "the kernel refuses offloads; frames are plain");
                tap
            }
        };
        tap.configure(&netlink, mtu)?;
        Ok(tap)
    }

    fn offloading(name: &str) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
        let file = options.open("/dev/net/tun")?;
        // SAFETY: an ifreq is plain bytes; all zeroes is a valid one.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // A zero ends the name.
        let room = request.ifr_name.len() - 1;
        if name.is_empty() || name.len() > room {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = flags.try_into().unwrap_or_default();
        // SAFETY: TUNSETIFF reads and fills one ifreq, which `request` is and which outlives the call.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let offloads = vnet::enable(&file)?;
        Ok(Self { file, name: name.to_owned(), offloads })
    }

    fn plain(name: &str) -> Result<Self, LinkError> {
        let interface =
            Iface::without_packet_info(name, Mode::Tap).map_err(|e| refused(name, e))?;
        if interface.name() != name {
            return Err(LinkError::refused(
                name,
                format!("the kernel would call it {}; a name of 1 to 15 bytes", interface.name()),
            ));
        }
        let failed = |operation| move |error| LinkError::kernel(operation, name, error);
        interface.set_non_blocking().map_err(failed("make non-blocking the TAP"))?;
        // SAFETY: into_raw_fd gives up ownership of an open fd, which the file takes over.
        let file = unsafe { File::from_raw_fd(interface.into_raw_fd()) };
        let tap = Self { file, name: name.to_owned(), offloads: Offloads::NONE };
        // The mask outlives whoever set it on a persistent TAP, and would let oversized frames with
        // partial checksums through to a reader without vnet_hdr.
        vnet::disable(&tap.file).map_err(failed("turn off the offloads of the TAP"))?;
        let flags = tap.flags().map_err(failed("read the flags of the TAP"))?;
        if flags & (libc::IFF_VNET_HDR | libc::IFF_NO_PI) != libc::IFF_NO_PI {
            return Err(LinkError::refused(
                name,
                format!("it does not carry plain Ethernet frames (flags {flags:#x})"),
            ));
        }
        Ok(tap)
    }

    /// An open macvtap, which knows no other way to be told what it carries. Its frames are plain.
    pub(super) fn adopt_macvtap(file: File, name: &str) -> Result<Self, LinkError> {
        let tap = Self { file, name: name.to_owned(), offloads: Offloads::NONE };
        let failed = |operation| move |error| LinkError::kernel(operation, name, error);
        tap.set_flags(libc::IFF_TAP | libc::IFF_NO_PI)
            .map_err(failed("set the flags of the macvtap"))?;
        vnet::disable(&tap.file).map_err(failed("turn off the offloads of the macvtap"))?;
        Ok(tap)
    }

    /// One without a device: `file` stands for it.
    #[cfg(test)]
    pub(super) fn of_test(name: &str, file: File, offloads: Offloads) -> Self {
        Self { file, name: name.to_owned(), offloads }
    }

    /// What its frames may leave to be done.
    pub const fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Writes a frame that leaves nothing to be done which the device does not take.
    pub fn write_frame(&self, frame: &Frame) -> io::Result<usize> {
        self.write(frame.output(self.offloads.any()))
    }

    /// Its name when it was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One frame from the device into `buffer`, its virtio-net header in front if there is one; what does
    /// not fit is lost.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    /// One frame to the device, its virtio-net header in front if it takes one. The receiver's work is
    /// done before this returns.
    pub fn write(&self, frame: &[u8]) -> io::Result<usize> {
        (&self.file).write(frame)
    }

    /// Whether the device behind the fd has been removed.
    pub fn is_gone(&self) -> bool {
        // ENOLINK: of a macvtap.
        let gone = [Some(libc::EBADFD), Some(libc::ENOLINK)];
        self.flags().is_err_and(|error| gone.contains(&error.raw_os_error()))
    }

    fn configure(&self, netlink: &Netlink, mtu: u16) -> Result<(), LinkError> {
        netlink.set_mtu(&self.name, mtu.into())?;
        if netlink.link(&self.name)?.txqlen < TXQLEN {
            netlink.set_txqlen(&self.name, TXQLEN)?;
        }
        silence(netlink, &self.name, &self.name)?;
        netlink.set_up(&self.name)
    }

    fn flags(&self) -> io::Result<libc::c_int> {
        // SAFETY: an ifreq is plain bytes; all zeroes is a valid one.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // SAFETY: TUNGETIFF fills one ifreq, which `request` is and which outlives the call.
        let result =
            unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: TUNGETIFF has just set this member of the union.
        Ok(unsafe { request.ifr_ifru.ifru_flags }.into())
    }

    fn set_flags(&self, flags: libc::c_int) -> io::Result<()> {
        // SAFETY: an ifreq is plain bytes; all zeroes is a valid one.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
        // SAFETY: TUNSETIFF reads one ifreq, which `request` is and which outlives the call.
        if unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Keeps the host's own IPv6 from speaking on the device `name`, the TAP `tap` or its bridge, which
/// must be down still.
pub(super) fn silence(netlink: &Netlink, tap: &str, name: &str) -> Result<(), LinkError> {
    netlink.set_silent(name)?;
    // A forwarding host joins the all-routers groups on every device and reports even the leaving
    // of them, from the unspecified address. Only a device without IPv6 keeps quiet then; one that
    // somebody gave an address is left alone.
    let sysctl = |key| format!("net/ipv6/conf/{name}/{key}");
    let forwarding = fs::read_to_string(format!("/proc/sys/{}", sysctl("forwarding")));
    let forwards = forwarding.is_ok_and(|value| value.trim() != "0");
    if forwards
        && !netlink.addresses(name)?.iter().any(|own| own.address().is_ipv6())
        && let Err(error) = write_sysctl(&sysctl("disable_ipv6"), "1")
    {
        log::warn!(link = tap, device = name, error:%; "the host's IPv6 may be heard");
    }
    Ok(())
}

fn refused(name: &str, error: io::Error) -> LinkError {
    let advice = match error.raw_os_error() {
        Some(libc::EBUSY) => "another program has it open",
        Some(libc::EPERM) => {
            "this takes CAP_NET_ADMIN, or a persistent TAP that is owned by the user"
        }
        Some(libc::EINVAL) => {
            "the name is taken by a device that is not a TAP, or by a multi-queue TAP"
        }
        _ => "",
    };
    LinkError::kernel("open the TAP", name, error).with_detail(advice)
}
