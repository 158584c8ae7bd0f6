//! Addresses, routes and neighbours.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState as KernelState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;
use crate::addr::{Cidr, MacAddr};
use crate::links::error::LinkError;

/// The routing table that ordinary routes live in.
const MAIN_TABLE: u8 = 254;

/// One entry of the kernel's neighbour table (ARP, NDP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Whose.
    pub address: IpAddr,
    /// What it resolved to, if it did.
    pub mac: Option<MacAddr>,
    /// How sure the kernel is.
    pub state: NeighbourState,
}

/// The kernel's neighbour states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub enum NeighbourState {
    Incomplete,
    Reachable,
    Stale,
    Delay,
    Probe,
    Failed,
    NoArp,
    Permanent,
    Other,
}

/// As `ip neighbour` has it, behind address and device.
impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mac) = self.mac {
            write!(f, "lladdr {mac} ")?;
        }
        f.write_str(&format!("{:?}", self.state).to_uppercase())
    }
}

impl Netlink {
    /// Gives the device an address; an IPv6 one is usable at once, without duplicate detection.
    pub fn add_address(&self, name: &str, address: Cidr) -> Result<(), LinkError> {
        let mut message = AddressMessage::default();
        message.header.index = self.link(name)?.index;
        message.header.prefix_len = address.prefix();
        message.header.family = family(address.address());
        message.attributes.push(AddressAttribute::Local(address.address()));
        message.attributes.push(AddressAttribute::Address(address.address()));
        if let Some(broadcast) = address.broadcast() {
            message.attributes.push(AddressAttribute::Broadcast(broadcast));
        }
        if address.address().is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let message = RouteNetlinkMessage::NewAddress(message);
        let operation = format!("add the address {address} to");
        self.request(&operation, name, message, NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Takes an address from the device; it has to be named with its own prefix length.
    pub fn delete_address(&self, name: &str, address: Cidr) -> Result<(), LinkError> {
        let mut message = AddressMessage::default();
        message.header.index = self.link(name)?.index;
        message.header.prefix_len = address.prefix();
        message.header.family = family(address.address());
        message.attributes.push(AddressAttribute::Local(address.address()));
        message.attributes.push(AddressAttribute::Address(address.address()));
        let message = RouteNetlinkMessage::DelAddress(message);
        let operation = format!("take the address {address} from");
        self.request(&operation, name, message, 0).map(drop)
    }

    /// The device's addresses, both families.
    pub fn addresses(&self, name: &str) -> Result<Vec<Cidr>, LinkError> {
        let index = self.link(name)?.index;
        let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answer = self.dump("list the addresses of", &all)?;
        Ok(answer.into_iter().filter_map(|message| as_address(message, index)).collect())
    }

    /// Adds a route through a next hop, which must be reachable already.
    pub fn add_route(&self, to: Cidr, via: IpAddr) -> Result<(), LinkError> {
        let to = to.network();
        let mut message = RouteMessage::default();
        message.header.address_family = family(to.address());
        message.header.destination_prefix_length = to.prefix();
        message.header.table = MAIN_TABLE;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        if to.prefix() > 0 {
            message.attributes.push(RouteAttribute::Destination(route_address(to.address())));
        }
        message.attributes.push(RouteAttribute::Gateway(route_address(via)));
        let message = RouteNetlinkMessage::NewRoute(message);
        let subject = format!("{to} via {via}");
        self.request("add the route", &subject, message, NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Names of the devices that a default route of this namespace leaves by, in any table.
    pub fn default_route_links(&self) -> Result<Vec<String>, LinkError> {
        let mut indices = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut all = RouteMessage::default();
            all.header.address_family = family;
            let answer = self.dump("list the routes of", &RouteNetlinkMessage::GetRoute(all))?;
            answer.iter().for_each(|message| default_route(message, &mut indices));
        }
        let links = self.links()?.into_iter().filter(|link| indices.contains(&link.index));
        Ok(links.map(|link| link.name).collect())
    }

    /// What the kernel knows about the neighbours on the device.
    pub fn neighbours(&self, name: &str) -> Result<Vec<Neighbour>, LinkError> {
        let index = self.link(name)?.index;
        let all = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let answer = self.dump("list the neighbours of", &all)?;
        Ok(answer.into_iter().filter_map(|message| as_neighbour(message, index)).collect())
    }

    /// Makes the kernel forget a neighbour, if it knows it.
    pub fn flush_neighbour(&self, name: &str, address: IpAddr) -> Result<(), LinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = self.link(name)?.index;
        message.attributes.push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        }));
        let operation = format!("forget the neighbour {address} on");
        match self.request(&operation, name, RouteNetlinkMessage::DelNeighbour(message), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result.map(drop),
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn as_address(message: RouteNetlinkMessage, index: u32) -> Option<Cidr> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    if message.header.index != index {
        return None;
    }
    let (mut local, mut address) = (None, None);
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(ip),
            AddressAttribute::Address(ip) => address = Some(ip),
            _ => {}
        }
    }
    // On a point-to-point device the other one is the peer's.
    Cidr::new(local.or(address)?, message.header.prefix_len)
}

fn default_route(message: &RouteNetlinkMessage, indices: &mut Vec<u32>) {
    let RouteNetlinkMessage::NewRoute(route) = message else { return };
    if route.header.destination_prefix_length != 0 || route.header.kind != RouteType::Unicast {
        return;
    }
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => indices.push(*index),
            RouteAttribute::MultiPath(hops) => {
                indices.extend(hops.iter().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
}

fn as_neighbour(message: RouteNetlinkMessage, index: u32) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    if message.header.ifindex != index {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                address = Some(Ipv4Addr::into(ip));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                address = Some(Ipv6Addr::into(ip));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Some(MacAddr::from_slice(&bytes)),
            _ => {}
        }
    }
    let state = match message.header.state {
        KernelState::Incomplete => NeighbourState::Incomplete,
        KernelState::Reachable => NeighbourState::Reachable,
        KernelState::Stale => NeighbourState::Stale,
        KernelState::Delay => NeighbourState::Delay,
        KernelState::Probe => NeighbourState::Probe,
        KernelState::Failed => NeighbourState::Failed,
        KernelState::Noarp => NeighbourState::NoArp,
        KernelState::Permanent => NeighbourState::Permanent,
        _ => NeighbourState::Other,
    };
    Some(Neighbour { address: address?, mac, state })
}
