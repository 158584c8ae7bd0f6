//! Who has which IPv4 address, collected from the whole file: the router, the virtual IPs, the
//! connected networks, and what can be reached through routes.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use super::section::{At, Value};
use crate::addr::Cidr;

/// What is known about addresses while the file is read.
#[derive(Debug, Default)]
pub(super) struct Addressing {
    /// The router's own addresses.
    pub(super) own: HashSet<Ipv4Addr>,
    /// The virtual IPs.
    pub(super) virtual_ips: HashSet<Ipv4Addr>,
    /// The prefixes of `own`, each with the position of its network.
    pub(super) connected: Vec<(Cidr, usize)>,
    /// Something that would have named a network could not be read.
    pub(super) lost_network: bool,
    /// Something that would have added a virtual IP could not be read.
    pub(super) lost_virtual_ip: bool,
    /// Something that would have added a prefix or a route could not be read.
    pub(super) lost_route: bool,
    /// Destinations with a way, as address ranges: sorted, apart from one another.
    reachable: Vec<(Ipv4Addr, Ipv4Addr)>,
}

impl Addressing {
    /// Nothing is known yet; `lost` when a part of the file cannot be read, which may hold anything.
    pub(super) fn new(lost: bool) -> Self {
        Self { lost_network: lost, lost_virtual_ip: lost, lost_route: lost, ..Self::default() }
    }

    /// The connected prefix that holds `address`, and its network's position.
    pub(super) fn network_of(&self, address: Ipv4Addr) -> Option<(Cidr, usize)> {
        self.connected.iter().copied().find(|(prefix, _)| prefix.contains(address.into()))
    }

    /// Refuses the addresses that a connected prefix keeps for itself.
    pub(super) fn is_host(&self, address: Ipv4Addr) -> Result<(), String> {
        for (prefix, _) in &self.connected {
            let network = prefix.network();
            if prefix.broadcast() == Some(address) {
                return Err(format!(
                    "{address} is the broadcast address of {network}; use a host address"
                ));
            }
            if prefix.broadcast().is_some() && network.address() == IpAddr::V4(address) {
                return Err(format!(
                    "{address} is the network address of {network}; use a host address"
                ));
            }
        }
        Ok(())
    }

    /// Refuses the addresses that this router answers for itself.
    pub(super) fn is_someone_else(&self, address: Ipv4Addr) -> Result<(), String> {
        if self.own.contains(&address) {
            return Err(format!("{address} is the router's own address; name another host"));
        }
        if self.virtual_ips.contains(&address) {
            return Err(format!("{address} is a virtual IP; name another host"));
        }
        Ok(())
    }

    /// A next hop: a host of a connected network that is not this router. Gives its network.
    pub(super) fn next_hop(&self, hop: Ipv4Addr) -> Result<usize, String> {
        self.is_host(hop)?;
        self.is_someone_else(hop)?;
        self.network_of(hop).map(|(_, network)| network).ok_or_else(|| {
            format!(
                "{hop} is on no connected network; use a host inside the prefix of an own address"
            )
        })
    }

    /// Ends the collecting: what the connected networks and `routes` lead to.
    pub(super) fn set_routes(&mut self, routes: impl Iterator<Item = Cidr>) {
        let connected = self.connected.iter().map(|(prefix, _)| *prefix);
        let mut ranges: Vec<_> = connected.chain(routes).filter_map(range).collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let inside = next.0 <= kept.1;
            if inside {
                kept.1 = kept.1.max(next.1);
            }
            inside
        });
        self.reachable = ranges;
    }

    /// Whether a connected network or a route leads to `address`.
    pub(super) fn is_reachable(&self, address: Ipv4Addr) -> bool {
        let after = self.reachable.partition_point(|(first, _)| *first <= address);
        after > 0 && self.reachable[after - 1].1 >= address
    }
}

fn range(prefix: Cidr) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let IpAddr::V4(first) = prefix.network().address() else { return None };
    let hosts = u32::MAX.checked_shr(u32::from(prefix.prefix())).unwrap_or(0);
    Some((first, Ipv4Addr::from_bits(first.to_bits() | hosts)))
}

impl<'a> Value<'a> {
    /// A unicast IPv4 address; `what` names, in the plural, what IPv6 is refused for.
    pub(super) fn host_address(self, what: &str) -> Option<At<'a, Ipv4Addr>> {
        let address = self.parse("an address such as \"192.0.2.1\"", |text| text.parse().ok())?;
        let value = match address.value {
            IpAddr::V4(value) => value,
            IpAddr::V6(_) => {
                address
                    .place
                    .wrong(format_args!("IPv6 {what} are not supported yet; use an IPv4 address"));
                return None;
            }
        };
        At { value, place: address.place }.check(|value| is_unicast(*value))
    }

    /// An IPv4 address with a prefix length; `what` names, in the plural, what IPv6 is refused for.
    pub(super) fn cidr(self, what: &str) -> Option<At<'a, Cidr>> {
        let form = "an address with a prefix length such as \"192.0.2.1/24\"";
        let cidr = self.parse(form, |text| text.parse::<Cidr>().ok())?;
        cidr.check(|cidr| match cidr.address() {
            IpAddr::V4(_) => Ok(()),
            IpAddr::V6(_) => Err(format!("IPv6 {what} are not supported yet; use IPv4")),
        })
    }
}

/// Refuses what no single host can have.
pub(super) fn is_unicast(address: Ipv4Addr) -> Result<(), String> {
    let kind = match address.octets() {
        [0, 0, 0, 0] => "the unspecified address",
        [0, ..] => "in the reserved 0.0.0.0/8",
        [127, ..] => "a loopback address",
        [224..=239, ..] => "a multicast address",
        [255, 255, 255, 255] => "the broadcast address",
        [240..=255, ..] => "in the reserved 240.0.0.0/4",
        _ => return Ok(()),
    };
    Err(format!("{address} is {kind}; use a unicast address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reachable_is_the_union_of_prefixes_and_routes() {
        let mut known = Addressing::default();
        known.connected.push(("10.0.0.2/24".parse().unwrap(), 0));
        let routes = ["10.0.0.0/16", "10.1.0.0/16", "192.0.2.7/32", "255.255.255.255/32"];
        known.set_routes(routes.iter().map(|text| text.parse().unwrap()));
        for (address, expected) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.0.9.9", true),
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("192.0.2.6", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("255.255.255.255", true),
        ] {
            assert_eq!(known.is_reachable(address.parse().unwrap()), expected, "{address}");
        }
        known.set_routes(["0.0.0.0/0".parse().unwrap()].into_iter());
        assert!(known.is_reachable(Ipv4Addr::BROADCAST) && known.is_reachable([0; 4].into()));
    }

    #[test]
    fn unicast_is_what_a_host_can_have() {
        for good in ["1.0.0.1", "10.0.0.1", "126.0.0.1", "128.0.0.1", "169.254.0.1", "223.1.1.1"] {
            assert_eq!(is_unicast(good.parse().unwrap()), Ok(()), "{good}");
        }
        for bad in ["0.0.0.0", "0.1.1.1", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"]
        {
            assert!(is_unicast(bad.parse().unwrap()).is_err(), "{bad}");
        }
    }
}
