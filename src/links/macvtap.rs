//! A TAP that is a macvtap on top of a NIC: the NIC's frames are the router's, under the NIC's own MAC
//! address, and the host sees none of them.
//!
//! Unlike a TAP's, the device does not go with its fd. It carries a mark, so that one left over from a
//! run that was killed is told from one that belongs to somebody else.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use super::attach::{Before, MARK, check_nic, find_nic, fit_mtu, mark};
use super::error::LinkError;
use super::netlink::Netlink;
use super::tap::{TXQLEN, Tap, silence};
use crate::addr::MacAddr;
use crate::config::{Attach, Nic};

/// A macvtap until this is dropped.
#[derive(Debug)]
pub(super) struct Macvtap {
    netlink: Netlink,
    name: String,
    nic: Before,
}

impl Macvtap {
    /// Makes the device and opens it, in the calling thread's namespace.
    pub(super) fn make(name: &str, attach: &Attach, mtu: u16) -> Result<(Self, Tap), LinkError> {
        let netlink = Netlink::new()?;
        let nic = find_nic(&netlink, &attach.nic)?;
        check_nic(&netlink, &nic, attach.force)?;
        netlink.create_macvtap(name, nic.index).map_err(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => error.with_detail("this kernel has no macvtap"),
            Some(libc::EBUSY) => error.with_detail("the NIC is in use by a macvlan or macvtap"),
            _ => error,
        })?;
        let before = Before { name: nic.name.clone(), up: nic.up, mtu: nic.mtu };
        // From here on dropping it undoes what has been done so far.
        let macvtap = Self { netlink, name: name.to_owned(), nic: before };
        let Self { netlink, .. } = &macvtap;
        netlink.set_alias(name, &mark(name, &nic.name, nic.up))?;
        silence(netlink, name, name)?;
        netlink.set_no_arp(name)?;
        fit_mtu(netlink, &nic, name, mtu.into())?;
        netlink.set_mtu(name, mtu.into())?;
        // The fd's queue is made with this length.
        netlink.set_txqlen(name, TXQLEN)?;
        netlink.set_up(&nic.name)?;
        netlink.set_up(name)?;
        let tap = open(name, netlink.link(name)?.index)?;
        Ok((macvtap, tap))
    }

    /// The NIC's interface name.
    pub(super) fn nic(&self) -> &str {
        &self.nic.name
    }
}

impl Drop for Macvtap {
    fn drop(&mut self) {
        let Self { netlink, name, nic } = self;
        let gone = match netlink.delete_link(name) {
            Err(error) if error.is_missing() => Ok(()),
            deleted => deleted,
        };
        if let Err(error) = gone.and_then(|()| nic.restore(netlink)) {
            log::warn!(link = name.as_str(), nic = nic.name.as_str(), error:%; "the NIC is not as it was found");
        }
    }
}

/// Removes the macvtap that a killed run left behind under this name, if there is one.
pub(super) fn remove_left_over(netlink: &Netlink, name: &str) -> Result<(), LinkError> {
    let link = match netlink.link(name) {
        Err(error) if error.is_missing() => return Ok(()),
        found => found?,
    };
    if link.kind != "macvtap" || !link.alias.starts_with(MARK) {
        return Ok(());
    }
    log::info!(link = name; "a macvtap left over from a run that was killed is removed");
    netlink.delete_link(name)
}

/// The MAC address of a NIC, in the calling thread's namespace.
pub fn nic_mac(nic: &Nic) -> Result<MacAddr, LinkError> {
    Ok(find_nic(&Netlink::new()?, nic)?.mac)
}

/// The kernel calls a macvtap's file after the number of the device.
fn open(name: &str, index: u32) -> Result<Tap, LinkError> {
    let path = PathBuf::from(format!("/dev/tap{index}"));
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path);
    let file = file.map_err(|error| {
        let detail = match error.kind() {
            ErrorKind::NotFound => "a macvtap needs the kernel's devtmpfs at /dev",
            _ => "",
        };
        LinkError::kernel("open the macvtap", path.display().to_string(), error).with_detail(detail)
    })?;
    Tap::adopt_macvtap(file, name)
}
