//! Joins a TAP with a NIC of this host in a kernel bridge, and undoes it.
//!
//! The bridge is named after the TAP and carries a mark, so that one left over from a run that was
//! killed is told from one that belongs to somebody else.

use std::hash::Hasher;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use siphasher::sip::SipHasher13;

use super::error::LinkError;
use super::netlink::{Link, Netlink};
use super::tap::silence;
use crate::addr::Cidr;
use crate::config::{Attach, Nic};

/// An interface name's bytes, without the terminating zero.
const NAME: usize = 15;
const PREFIX: &str = "br-";
/// A dash and four hexadecimal digits, where a TAP's name is too long to be kept whole.
const SUFFIX: usize = 5;
/// What the alias of our bridges begins with, and how it ends when the NIC was down before.
pub(super) const MARK: &str = "tapvs: joins ";
const MARK_DOWN: &str = ", which was down";
/// Where br_netfilter is asked, if it is loaded.
const BRIDGE_SYSCTLS: &str = "/proc/sys/net/bridge";

/// A TAP and a NIC joined in a bridge until this is dropped.
#[derive(Debug)]
pub struct Attachment {
    netlink: Netlink,
    bridge: String,
    nic: Before,
}

/// The NIC as it was found.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) mtu: u32,
}

impl Before {
    /// Makes it so again, if it is still there.
    pub(super) fn restore(&self, netlink: &Netlink) -> Result<(), LinkError> {
        let now = match netlink.link(&self.name) {
            Err(error) if error.is_missing() => return Ok(()),
            found => found?,
        };
        if now.mtu != self.mtu {
            netlink.set_mtu(&self.name, self.mtu)?;
        }
        if self.up { Ok(()) } else { netlink.set_down(&self.name) }
    }
}

impl Attachment {
    /// Joins them, in the calling thread's namespace. The TAP must be open.
    pub fn join(tap: &str, attach: &Attach, mtu: u16) -> Result<Self, LinkError> {
        let netlink = Netlink::new()?;
        if attach.nic == Nic::Name(tap.to_owned()) {
            return Err(LinkError::refused(tap, "a TAP cannot be attached to itself"));
        }
        remove_left_over(&netlink, tap)?;
        let nic = find_nic(&netlink, &attach.nic)?;
        check_nic(&netlink, &nic, attach.force)?;
        let bridge = bridge_name(tap);
        netlink.create_bridge(&bridge)?;
        // From here on dropping it undoes what has been done so far.
        let before = Before { name: nic.name, up: nic.up, mtu: nic.mtu };
        let attachment = Self { netlink, bridge, nic: before };
        attachment.set_up(tap, mtu.into())?;
        Ok(attachment)
    }

    /// Puts a TAP that has been made anew into the bridge.
    pub fn rejoin(&self, tap: &str) -> Result<(), LinkError> {
        self.netlink.set_master(tap, &self.bridge)
    }

    /// The NIC's interface name.
    pub fn nic(&self) -> &str {
        &self.nic.name
    }

    /// The bridge's name.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    fn set_up(&self, tap: &str, mtu: u32) -> Result<(), LinkError> {
        let Self { netlink, bridge, nic } = self;
        netlink.set_alias(bridge, &mark(tap, &nic.name, nic.up))?;
        silence(netlink, tap, bridge)?;
        // Else the host would answer for its other addresses here: on Linux they belong to the
        // host, not to an interface.
        netlink.set_no_arp(bridge)?;
        fit_mtu(netlink, &netlink.link(&nic.name)?, tap, mtu)?;
        netlink.set_master(tap, bridge)?;
        netlink.set_master(&nic.name, bridge)?;
        netlink.set_mtu(bridge, mtu)?;
        netlink.set_up(&nic.name)?;
        netlink.set_up(bridge)?;
        warn_of_packet_filter(Path::new(BRIDGE_SYSCTLS), tap, bridge);
        Ok(())
    }

    fn undo(&self) -> Result<(), LinkError> {
        let Self { netlink, bridge, nic } = self;
        match netlink.delete_link(bridge) {
            Err(error) if !error.is_missing() => return Err(error),
            _ => {}
        }
        nic.restore(netlink)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            let (bridge, nic) = (self.bridge.as_str(), self.nic.name.as_str());
            log::warn!(bridge, nic, error:%; "the NIC is not as it was found");
        }
    }
}

/// Removes the bridge that a killed run left behind for this TAP, if there is one, and takes its
/// NIC down again if it was.
pub fn remove_left_over(netlink: &Netlink, tap: &str) -> Result<(), LinkError> {
    let name = bridge_name(tap);
    let bridge = match netlink.link(&name) {
        Err(error) if error.is_missing() => return Ok(()),
        found => found?,
    };
    let ports: Vec<_> = netlink
        .links()?
        .into_iter()
        .filter(|link| link.master == Some(bridge.index) && link.name != tap)
        .collect();
    // A run may have been killed before it could leave its mark: an empty bridge, still down.
    let unmarked = bridge.alias.is_empty() && !bridge.up && ports.is_empty();
    if bridge.kind != "bridge" || !(bridge.alias.starts_with(MARK) || unmarked) {
        return Err(LinkError::refused(
            name,
            format!("it exists and is not tapvs's; {tap} needs a bridge of that name: rename one"),
        ));
    }
    let text = "a bridge left over from a run that was killed is removed";
    log::info!(link = tap, bridge = name.as_str(); "{text}");
    netlink.delete_link(&name)?;
    for port in ports {
        if bridge.alias == mark(tap, &port.name, false) {
            netlink.set_down(&port.name)?;
        }
    }
    Ok(())
}

/// What the network's MTU promises must pass the NIC; a larger one may stay.
pub(super) fn fit_mtu(netlink: &Netlink, nic: &Link, tap: &str, mtu: u32) -> Result<(), LinkError> {
    if nic.mtu < mtu {
        return netlink.set_mtu(&nic.name, mtu);
    }
    if nic.mtu > mtu {
        let text = "the NIC's MTU is larger than the network's: larger packets are dropped";
        let (nic, nic_mtu) = (nic.name.as_str(), nic.mtu);
        log::warn!(link = tap, nic, nic_mtu, mtu; "{text}");
    }
    Ok(())
}

/// The NIC that `attach` means.
pub(super) fn find_nic(netlink: &Netlink, nic: &Nic) -> Result<Link, LinkError> {
    let is_hardware = |link: &Link| link.kind.is_empty() && link.name != "lo";
    let found = match nic {
        Nic::Name(name) => return netlink.link(name).map_err(|error| advise(netlink, error)),
        // What tapvs itself makes of a NIC has its address too.
        Nic::Mac(mac) => netlink.links()?.into_iter().find(|link| {
            link.mac == *mac && !["bridge", "macvtap", "macvlan"].contains(&link.kind.as_str())
        }),
        Nic::Pci(address) => netlink
            .links()?
            .into_iter()
            .filter(is_hardware)
            .find(|link| is_plugged_in(&link.name, address)),
    };
    found.ok_or_else(|| {
        let cause = io::Error::from_raw_os_error(libc::ENODEV);
        advise(netlink, LinkError::kernel("find the NIC", nic.to_string(), cause))
    })
}

/// Names the NICs there are.
fn advise(netlink: &Netlink, error: LinkError) -> LinkError {
    if !error.is_missing() {
        return error;
    }
    let links = netlink.links().unwrap_or_default();
    let hardware = links.into_iter().filter(|link| link.kind.is_empty());
    let names: Vec<_> = hardware.map(|link| link.name).collect();
    error.with_detail(format!("attach names a NIC; there are: {}", names.join(", ")))
}

/// Whether a device is the one at this PCI address, or on the way to it: a virtio NIC is a device
/// behind its PCI device.
fn is_plugged_in(name: &str, address: &str) -> bool {
    let path = std::fs::canonicalize(format!("/sys/class/net/{name}/device"));
    path.is_ok_and(|path| path.iter().any(|part| part == address))
}

pub(super) fn check_nic(netlink: &Netlink, nic: &Link, force: bool) -> Result<(), LinkError> {
    if let Some(master) = nic.master {
        let links = netlink.links()?;
        let master = links.iter().find(|link| link.index == master);
        let master = master.map_or("another device", |link| link.name.as_str());
        let reason = format!("it already belongs to {master}; take it out of there first");
        return Err(LinkError::refused(&nic.name, reason));
    }
    if force {
        return Ok(());
    }
    let cut_off = "attaching it would cut the host off; choose another NIC, or set force = true";
    let addresses = netlink.addresses(&nic.name)?;
    if let Some(address) = addresses.into_iter().find(|address| is_hosts(*address)) {
        let reason = format!("it carries the host's address {address}: {cut_off}");
        return Err(LinkError::refused(&nic.name, reason));
    }
    if netlink.default_route_links()?.contains(&nic.name) {
        let reason = format!("it carries the host's default route: {cut_off}");
        return Err(LinkError::refused(&nic.name, reason));
    }
    Ok(())
}

/// Whether somebody gave the address on purpose; a link-local IPv6 one comes by itself.
fn is_hosts(address: Cidr) -> bool {
    match address.address() {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    }
}

pub(super) fn mark(tap: &str, nic: &str, nic_was_up: bool) -> String {
    format!("{MARK}{tap} and {nic}{}", if nic_was_up { "" } else { MARK_DOWN })
}

/// `br-` and the TAP's name; a long one is cut and gets a digest, so that two stay two.
fn bridge_name(tap: &str) -> String {
    if PREFIX.len() + tap.len() <= NAME {
        return format!("{PREFIX}{tap}");
    }
    let mut digest = SipHasher13::new();
    digest.write(tap.as_bytes());
    let kept = tap.floor_char_boundary(NAME - PREFIX.len() - SUFFIX);
    format!("{PREFIX}{}-{:04x}", &tap[..kept], digest.finish() & 0xffff)
}

/// The sysctl outvotes the bridge's own setting, and others (container engines) rely on it.
fn warn_of_packet_filter(sysctls: &Path, tap: &str, bridge: &str) {
    for family in ["iptables", "ip6tables", "arptables"] {
        let name = format!("bridge-nf-call-{family}");
        if std::fs::read_to_string(sysctls.join(&name)).is_ok_and(|value| value.trim() == "1") {
            let sysctl = format!("net.bridge.{name}");
            let text = "what passes the bridge goes through the host's packet filter";
            log::warn!(link = tap, bridge, sysctl = sysctl.as_str(); "{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::recorder::logged;
    use crate::links::scratch::Scratch;

    #[test]
    fn a_packet_filter_in_the_way_is_named_by_its_sysctl() {
        let scratch = Scratch::new("bridge-sysctls");
        for (name, value) in [("iptables", "1\n"), ("ip6tables", "0\n"), ("arptables", "1\n")] {
            let path = scratch.path().join(format!("bridge-nf-call-{name}"));
            std::fs::write(path, value).unwrap();
        }
        let line = |name| {
            format!(
                "WARN what passes the bridge goes through the host's packet filter link=tapvs1 \
                 bridge=br-tapvs1 sysctl=net.bridge.bridge-nf-call-{name}"
            )
        };
        let lines = logged(|| warn_of_packet_filter(scratch.path(), "tapvs1", "br-tapvs1"));
        assert_eq!(lines, ["iptables", "arptables"].map(line));
    }

    #[test]
    fn a_bridges_name_fits_and_tells_taps_apart() {
        assert_eq!(bridge_name("tapvs0"), "br-tapvs0");
        assert_eq!(bridge_name("twelve-bytes"), "br-twelve-bytes");
        let (a, b) = (bridge_name("thirteen-byte"), bridge_name("thirteen-bytes!"));
        assert_ne!(a, b);
        for name in [a, b, bridge_name("äöüäöüä")] {
            assert!(name.len() <= NAME && name.starts_with("br-"), "{name}");
        }
        assert_eq!(bridge_name("thirteen-byte"), bridge_name("thirteen-byte"));
    }

    #[test]
    fn only_a_link_local_address_comes_by_itself() {
        for (text, hosts) in
            [("10.0.0.1/24", true), ("169.254.0.1/16", true), ("2001:db8::1/64", true)]
        {
            assert_eq!(is_hosts(text.parse().unwrap()), hosts, "{text}");
        }
        assert!(!is_hosts("fe80::1/64".parse().unwrap()));
    }
}
