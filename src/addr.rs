//! The address words every room shares. No logic beyond parsing, printing and containment.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The ports of the router's own addresses that its own connections come from; nothing that it
/// forwards is given one. Beyond what Linux hands out, as its masquerading once did.
pub const OWN_PORTS: RangeInclusive<u16> = 61_000..=65_535;

/// An Ethernet address, as on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// 00:00:00:00:00:00, "not known" in ARP.
    pub const ZERO: Self = Self([0; 6]);

    /// The address in the first six bytes of `bytes`; zero-filled where there are fewer.
    pub fn from_slice(bytes: &[u8]) -> Self {
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(bytes) {
            *to = *from;
        }
        Self(mac)
    }

    /// Group address (broadcast included): never a legal source.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// A legal source: neither a group address nor zero.
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && self != Self::ZERO
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether this router speaks for the virtual IPs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It does: without `[failover]` always.
    #[default]
    Active,
    /// Another one does, or nobody.
    Backup,
}

impl Role {
    /// Its name in answers and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Backup => "backup",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a text is not an address word; the message says what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddrError(String);

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AddrError {}

impl FromStr for MacAddr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let wrong = || {
            AddrError(format!(
                "`{text}` is not a MAC address; six hex bytes such as 02:00:5e:10:00:01"
            ))
        };
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().ok_or_else(wrong)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(mac)) }
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $int);

        impl $name {
            /// As a position in a plain array.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id!(
    /// One TAP device: its position over all networks, in configuration order.
    LinkId,
    u16
);
id!(
    /// One broadcast domain: its position in the configuration.
    NetworkId,
    u16
);
id!(
    /// A service; stable across reloads while protocol, VIP and port stay.
    ServiceId,
    u32
);
id!(
    /// A real server of one service; stable across reloads while address and port stay.
    ServerId,
    u32
);

/// A protocol that services balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
}

impl Proto {
    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// The ports of a service. Prints as the file says them: `80`, `8000-8100`, or `0` for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// The first one.
    pub first: u16,
    /// The last one, not below the first.
    pub last: u16,
}

impl Ports {
    /// All of them.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// This one; 0 stands for all.
    pub const fn of(port: u16) -> Self {
        if port == 0 { Self::ALL } else { Self { first: port, last: port } }
    }

    /// Whether there is just one.
    pub const fn is_one(self) -> bool {
        self.first == self.last
    }

    /// Whether it is every one there is.
    pub fn is_all(self) -> bool {
        self == Self::ALL
    }

    /// Whether `port` is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// How many others there are.
    pub const fn width(self) -> u16 {
        self.last.saturating_sub(self.first)
    }

    /// Whether some port is one of both.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ALL => f.pad("0"),
            Self { first, last } if first == last => first.fmt(f),
            Self { first, last } => f.pad(&format!("{first}-{last}")),
        }
    }
}

/// Address and port. Prints as `ADDRESS:PORT`, IPv6 in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The host.
    pub address: IpAddr,
    /// The TCP or UDP port, host byte order.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// An address with a prefix length. Keeps its host bits: `10.0.0.2/24` is an interface address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// 0.0.0.0/0: where an IPv4 default route leads.
    pub const EVERY_IPV4: Self = Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 0 };

    /// `None` when the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= most).then_some(Self { address, prefix })
    }

    /// The address, host bits included.
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// The prefix length in bits.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether `address` lies inside; another family never does.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()) & self.mask4() == 0,
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()) & self.mask6() == 0,
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// The network: the same prefix with the host bits cleared.
    pub fn network(self) -> Self {
        let address = match self.address {
            IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits() & self.mask4()).into(),
            IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits() & self.mask6()).into(),
        };
        Self { address, prefix: self.prefix }
    }

    /// The directed broadcast address; IPv4 prefixes up to /30 have one (RFC 3021 for /31).
    pub fn broadcast(self) -> Option<Ipv4Addr> {
        match self.address {
            IpAddr::V4(a) if self.prefix <= 30 => {
                Some(Ipv4Addr::from_bits(a.to_bits() | !self.mask4()))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }

    fn mask4(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0)
    }

    fn mask6(self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128))).unwrap_or(0)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.address, self.prefix))
    }
}

impl FromStr for Cidr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let wrong = || {
            AddrError(format!(
                "`{text}` is not an address with a prefix length, such as 10.0.0.2/24"
            ))
        };
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address = address.parse().map_err(|_| wrong())?;
        let prefix = prefix.parse().map_err(|_| wrong())?;
        Self::new(address, prefix).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidr_contains_and_bounds() {
        let net: Cidr = "10.0.0.2/24".parse().unwrap();
        assert!(net.contains("10.0.0.255".parse().unwrap()));
        assert!(!net.contains("10.0.1.0".parse().unwrap()));
        assert!(!net.contains("::1".parse().unwrap()));
        assert_eq!(net.network().to_string(), "10.0.0.0/24");
        assert_eq!(net.broadcast(), Some("10.0.0.255".parse().unwrap()));
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("203.0.113.1".parse().unwrap()));
        let six: Cidr = "2001:db8::1/64".parse().unwrap();
        assert!(six.contains("2001:db8::ffff".parse().unwrap()));
        assert_eq!(six.broadcast(), None);
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/129", ""] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn mac_text_round_trips() {
        let mac: MacAddr = "02:00:5e:10:00:01".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:01");
        assert!(
            mac.is_unicast() && !MacAddr::BROADCAST.is_unicast() && !MacAddr::ZERO.is_unicast()
        );
        for bad in
            ["", "02:00:5e:10:00", "02:00:5e:10:00:01:02", "02:00:5e:10:00:+1", "0g:00:5e:10:00:01"]
        {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }
}
