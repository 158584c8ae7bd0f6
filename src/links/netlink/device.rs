//! Devices: looking at them, making, changing and removing them.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge, InfoData, InfoKind,
    InfoMacVtap, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVtapMode,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;
use crate::addr::MacAddr;
use crate::links::error::LinkError;

/// What the kernel says about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What made it: `tun`, `bridge`, `veth`; empty for a physical NIC and for loopback.
    pub kind: String,
    /// A free text that somebody attached to it; empty if nobody did.
    pub alias: String,
    /// Its own Ethernet address; zero where it has none.
    pub mac: MacAddr,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Length of the transmit queue, in frames.
    pub txqlen: u32,
    /// Administratively up.
    pub up: bool,
    /// Its lower layer is ready: a cable, an open TAP, a peer that is up.
    pub carrier: bool,
    /// Index of the bridge or bond it belongs to.
    pub master: Option<u32>,
    /// How many users want it promiscuous; a bridge is one.
    pub promiscuity: u32,
    /// It is a bridge that speaks, about a port of its.
    pub is_of_bridge: bool,
    /// What it has carried, seen from the kernel: a TAP's `tx` is what tapvs reads.
    pub statistics: Statistics,
}

/// The kernel's counters of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub struct Statistics {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_dropped: u64,
    pub rx_errors: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_dropped: u64,
    pub tx_errors: u64,
}

impl Netlink {
    /// The device of that name.
    pub fn link(&self, name: &str) -> Result<Link, LinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let answer = self.request("find", name, RouteNetlinkMessage::GetLink(message), 0)?;
        answer.into_iter().find_map(as_link).ok_or_else(|| {
            LinkError::kernel("find", name, std::io::Error::from_raw_os_error(libc::ENODEV))
        })
    }

    /// All devices of the namespace.
    pub fn links(&self) -> Result<Vec<Link>, LinkError> {
        let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
        Ok(self.dump("list the devices of", &all)?.into_iter().filter_map(as_link).collect())
    }

    /// Administratively up.
    pub fn set_up(&self, name: &str) -> Result<(), LinkError> {
        self.set_flag("bring up", name, LinkFlags::Up, true)
    }

    /// Administratively down.
    pub fn set_down(&self, name: &str) -> Result<(), LinkError> {
        self.set_flag("take down", name, LinkFlags::Up, false)
    }

    /// Sets the largest IP packet, in bytes.
    pub fn set_mtu(&self, name: &str, mtu: u32) -> Result<(), LinkError> {
        self.set(&format!("set the MTU to {mtu} of"), name, LinkAttribute::Mtu(mtu))
    }

    /// Sets the device's own Ethernet address.
    pub fn set_mac(&self, name: &str, mac: MacAddr) -> Result<(), LinkError> {
        let address = LinkAttribute::Address(mac.0.to_vec());
        self.set(&format!("set the MAC address to {mac} of"), name, address)
    }

    /// Sets the length of the transmit queue, in frames.
    pub fn set_txqlen(&self, name: &str, frames: u32) -> Result<(), LinkError> {
        let length = LinkAttribute::TxQueueLen(frames);
        self.set(&format!("set the transmit queue to {frames} of"), name, length)
    }

    /// Gives the device no IPv6 address of its own, and so nothing to announce, defend or solicit
    /// routers with. To be called before it is up. A kernel without IPv6 is silent anyway.
    pub fn set_silent(&self, name: &str) -> Result<(), LinkError> {
        let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let silent = LinkAttribute::AfSpecUnspec(vec![inet6]);
        match self.set("turn off IPv6 address generation of", name, silent) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
            result => result,
        }
    }

    /// Keeps the host from asking and answering ARP on the device.
    pub fn set_no_arp(&self, name: &str) -> Result<(), LinkError> {
        self.set_flag("turn off ARP on", name, LinkFlags::Noarp, true)
    }

    /// Attaches a free text to the device.
    pub fn set_alias(&self, name: &str, text: &str) -> Result<(), LinkError> {
        self.set("describe", name, LinkAttribute::IfAlias(text.to_owned()))
    }

    /// Makes the device a port of a bridge.
    pub fn set_master(&self, name: &str, bridge: &str) -> Result<(), LinkError> {
        let master = self.link(bridge)?.index;
        self.set(&format!("add to {bridge} the device"), name, LinkAttribute::Controller(master))
    }

    /// Takes the device out of its bridge.
    pub fn clear_master(&self, name: &str) -> Result<(), LinkError> {
        self.set("take out of its bridge the device", name, LinkAttribute::Controller(0))
    }

    /// Renames the device; kernels before 6.2 want it down.
    pub fn rename(&self, name: &str, to: &str) -> Result<(), LinkError> {
        self.set(&format!("rename to {to} the device"), name, LinkAttribute::IfName(to.to_owned()))
    }

    /// Moves the device into another namespace. It arrives there down and without addresses.
    pub fn move_to_namespace(
        &self,
        name: &str,
        namespace: BorrowedFd<'_>,
    ) -> Result<(), LinkError> {
        let there = LinkAttribute::NetNsFd(namespace.as_raw_fd());
        self.set("move to another namespace the device", name, there)
    }

    /// Makes a pair of connected devices, both down, the second one here or in `peer_namespace`.
    pub fn create_veth(
        &self,
        name: &str,
        peer: &str,
        peer_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<(), LinkError> {
        let mut other = LinkMessage::default();
        other.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        if let Some(namespace) = peer_namespace {
            other.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        }
        let data = InfoData::Veth(InfoVeth::Peer(other));
        self.create("make the veth pair", name, InfoKind::Veth, data)
    }

    /// Makes a bridge, down, that forwards at once: no spanning tree, no multicast snooping, no
    /// detour through the host's packet filter.
    pub fn create_bridge(&self, name: &str) -> Result<(), LinkError> {
        let data = InfoData::Bridge(vec![
            InfoBridge::StpState(BridgeStpState::Disabled),
            InfoBridge::ForwardDelay(0),
            InfoBridge::MulticastSnooping(false),
            InfoBridge::NfCallIpTables(false),
            InfoBridge::NfCallIp6Tables(false),
            InfoBridge::NfCallArpTables(false),
        ]);
        self.create("make the bridge", name, InfoKind::Bridge, data)
    }

    /// Makes a macvtap, down, that takes everything the NIC with this number receives, under the
    /// NIC's own MAC address.
    pub fn create_macvtap(&self, name: &str, nic: u32) -> Result<(), LinkError> {
        let data = InfoData::MacVtap(vec![InfoMacVtap::Mode(MacVtapMode::Passthrough)]);
        let more = vec![LinkAttribute::Link(nic)];
        self.create_with("make the macvtap", name, more, InfoKind::MacVtap, data)
    }

    /// Removes the device; one half of a veth pair takes the other with it.
    pub fn delete_link(&self, name: &str) -> Result<(), LinkError> {
        let mut message = LinkMessage::default();
        message.header.index = self.link(name)?.index;
        self.request("remove", name, RouteNetlinkMessage::DelLink(message), 0).map(drop)
    }

    fn create(
        &self,
        operation: &str,
        name: &str,
        kind: InfoKind,
        data: InfoData,
    ) -> Result<(), LinkError> {
        self.create_with(operation, name, Vec::new(), kind, data)
    }

    fn create_with(
        &self,
        operation: &str,
        name: &str,
        more: Vec<LinkAttribute>,
        kind: InfoKind,
        data: InfoData,
    ) -> Result<(), LinkError> {
        let mut message = LinkMessage::default();
        message.attributes = more;
        message.attributes.extend([
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]),
        ]);
        let message = RouteNetlinkMessage::NewLink(message);
        self.request(operation, name, message, NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    fn set(&self, operation: &str, name: &str, to: LinkAttribute) -> Result<(), LinkError> {
        let mut message = LinkMessage::default();
        message.header.index = self.link(name)?.index;
        message.attributes.push(to);
        self.request(operation, name, RouteNetlinkMessage::SetLink(message), 0).map(drop)
    }

    fn set_flag(
        &self,
        operation: &str,
        name: &str,
        flag: LinkFlags,
        on: bool,
    ) -> Result<(), LinkError> {
        let mut message = LinkMessage::default();
        message.header.index = self.link(name)?.index;
        message.header.change_mask = flag;
        message.header.flags = if on { flag } else { LinkFlags::empty() };
        self.request(operation, name, RouteNetlinkMessage::SetLink(message), 0).map(drop)
    }
}

pub(in crate::links) fn as_link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let flags = message.header.flags;
    let is_of_bridge = message.header.interface_family == AddressFamily::Bridge;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: String::new(),
        alias: String::new(),
        mac: MacAddr::ZERO,
        mtu: 0,
        txqlen: 0,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        master: None,
        promiscuity: 0,
        is_of_bridge,
        statistics: Statistics::default(),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Address(mac) => link.mac = MacAddr::from_slice(&mac),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::TxQueueLen(frames) => link.txqlen = frames,
            LinkAttribute::Controller(master) if master != 0 => link.master = Some(master),
            LinkAttribute::Promiscuity(users) => link.promiscuity = users,
            LinkAttribute::LinkInfo(info) => {
                for info in info {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = kind.to_string();
                    }
                }
            }
            LinkAttribute::Stats64(kernel) => {
                link.statistics = Statistics {
                    rx_packets: kernel.rx_packets,
                    rx_bytes: kernel.rx_bytes,
                    rx_dropped: kernel.rx_dropped,
                    rx_errors: kernel.rx_errors,
                    tx_packets: kernel.tx_packets,
                    tx_bytes: kernel.tx_bytes,
                    tx_dropped: kernel.tx_dropped,
                    tx_errors: kernel.tx_errors,
                };
            }
            _ => {}
        }
    }
    Some(link)
}
