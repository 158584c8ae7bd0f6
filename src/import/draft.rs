//! What was read, whoever wrote it: services, servers, addresses, roles. Numbers are as the source has
//! them; what tapvs makes of them is `document`'s.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use super::remark::{Notes, Place};

/// A whole configuration.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) name: Option<(String, Place)>,
    /// Keys of `[router]` `timeouts`, in seconds.
    pub(super) timeouts: Vec<(&'static str, u64)>,
    pub(super) interfaces: Vec<Interface>,
    pub(super) routes: Vec<Route>,
    pub(super) virtual_ips: Vec<VirtualIp>,
    /// The addresses of `virtual_ips`.
    known: HashSet<Ipv4Addr>,
    pub(super) failover: Option<Failover>,
    pub(super) services: Vec<Service>,
    /// About the file as a whole, and what belongs nowhere else.
    pub(super) notes: Notes,
}

impl Draft {
    /// The interface of that name, known from now on; `None` when there are too many.
    pub(super) fn interface(&mut self, name: &str, place: Place) -> Option<&mut Interface> {
        const MOST: usize = 256;
        let position = self.interfaces.iter().position(|known| known.name == name);
        if position.is_none() && self.interfaces.len() >= MOST {
            self.notes.lost(place, format_args!("the interface {name}: {MOST} are the most"));
            return None;
        }
        let position = position.unwrap_or_else(|| {
            self.interfaces.push(Interface {
                name: name.to_owned(),
                place,
                own: Vec::new(),
                prefixes: Vec::new(),
            });
            self.interfaces.len() - 1
        });
        self.interfaces.get_mut(position)
    }

    /// Adds an address that moves with the role; `false` if it is known already.
    pub(super) fn add_virtual_ip(&mut self, virtual_ip: VirtualIp) -> bool {
        let is_new = self.known.insert(virtual_ip.address);
        if is_new {
            self.virtual_ips.push(virtual_ip);
        }
        is_new
    }

    pub(super) fn reverse_servers(&mut self) {
        for service in &mut self.services {
            service.servers.reverse();
        }
    }
}

/// A NIC of the old director.
#[derive(Debug)]
pub(super) struct Interface {
    pub(super) name: String,
    /// Where it is named first.
    pub(super) place: Place,
    /// Addresses that the director has there in either role.
    pub(super) own: Vec<Prefix>,
    /// Prefixes that virtual addresses were given with.
    pub(super) prefixes: Vec<Prefix>,
}

/// An address and a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) address: Ipv4Addr,
    pub(super) length: u8,
}

impl Prefix {
    pub(super) fn new(address: Ipv4Addr, length: u8) -> Self {
        Self { address, length: length.min(32) }
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0)
    }

    pub(super) fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() & self.mask())
    }

    pub(super) fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !self.mask())
    }

    /// Whether an address is the network's or the broadcast address.
    pub(super) fn keeps(self, address: Ipv4Addr) -> bool {
        self.length < 31 && (address == self.network() || address == self.broadcast())
    }

    pub(super) fn contains(self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.address.to_bits()) & self.mask() == 0
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) && self.length <= other.length
            || other.contains(self.address) && other.length <= self.length
    }
}

#[derive(Debug)]
pub(super) struct Route {
    pub(super) to: Prefix,
    pub(super) via: Ipv4Addr,
    pub(super) place: Place,
}

#[derive(Debug)]
pub(super) struct VirtualIp {
    pub(super) address: Ipv4Addr,
    pub(super) interface: Option<String>,
    pub(super) place: Place,
}

/// One role for the whole router.
#[derive(Debug)]
pub(super) struct Failover {
    pub(super) place: Place,
    pub(super) version: u8,
    pub(super) priority: Option<u8>,
    /// In milliseconds.
    pub(super) advert_interval: u64,
    pub(super) preempt: bool,
    /// In milliseconds.
    pub(super) preempt_delay: u64,
    /// Interfaces with the id of their virtual router.
    pub(super) routers: Vec<(String, u8, Place)>,
    /// The other router, and by which interface flows were copied to it.
    pub(super) sync: Option<(Option<String>, Option<Ipv4Addr>, Place)>,
    pub(super) notes: Notes,
}

/// A virtual service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) place: Place,
    pub(super) name: Option<String>,
    /// As tapvs calls it, or as the source does if tapvs has no such protocol.
    pub(super) protocol: String,
    pub(super) target: Target,
    /// The firewall mark by which netfilter sends packets to it, where the target is known all the same.
    pub(super) mark: Option<u32>,
    pub(super) scheduler: String,
    pub(super) flags: Vec<String>,
    pub(super) persistence: Option<Persistence>,
    pub(super) one_packet: bool,
    pub(super) method: Method,
    pub(super) health: Option<Health>,
    pub(super) fallback: Option<Server>,
    pub(super) servers: Vec<Server>,
    pub(super) notes: Notes,
    /// Why it is written as a comment, if it is.
    pub(super) off: Option<String>,
}

/// What clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Port 0: all ports.
    Address(IpAddr, u16),
    /// Whatever netfilter marks with it.
    Mark(u32),
    /// A name that nobody could resolve, and a port.
    Unknown(String, u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Persistence {
    /// In seconds.
    pub(super) timeout: u64,
    pub(super) prefix: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Nat,
    Direct,
    Tunnel,
}

impl Method {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Direct => "direct",
            Self::Tunnel => "tunnel",
        }
    }
}

/// A real server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) place: Place,
    pub(super) name: Option<String>,
    pub(super) host: Host,
    /// `None`: the service's, or the packet's.
    pub(super) port: Option<u16>,
    pub(super) method: Method,
    pub(super) weight: u64,
    /// IPVS's upper and lower thresholds; 0 is none.
    pub(super) most: u64,
    pub(super) least: u64,
    pub(super) notes: Notes,
    /// Why it is written as a comment, if it is.
    pub(super) off: Option<String>,
}

impl Server {
    pub(super) fn new(place: Place, host: Host, port: Option<u16>, method: Method) -> Self {
        let (notes, off) = (Notes::default(), None);
        Self { place, name: None, host, port, method, weight: 1, most: 0, least: 0, notes, off }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Host {
    Address(IpAddr),
    Unknown(String),
}

impl Host {
    pub(super) fn v4(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Address(IpAddr::V4(address)) => Some(*address),
            Self::Address(IpAddr::V6(_)) | Self::Unknown(_) => None,
        }
    }
}

/// How servers are asked. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) question: Question,
    pub(super) port: Option<u16>,
    pub(super) interval: u64,
    pub(super) timeout: u64,
    pub(super) fall: u64,
    pub(super) rise: u64,
    pub(super) initially_down: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Tcp,
    Http { path: String, host: Option<String>, status: Option<String>, body: Option<String> },
    Ping,
    Udp { payload: Vec<u8>, answer: Option<Vec<u8>> },
}
