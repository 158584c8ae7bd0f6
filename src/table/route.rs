//! Routes: connected prefixes, `[[route]]` and the gateway, longest prefix first.

use std::net::Ipv4Addr;

use super::{ipv4, network_id};
use crate::addr::{Cidr, NetworkId};
use crate::config::Config;

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// The network it leaves by.
    pub network: NetworkId,
    /// Whose MAC it is sent to: the destination itself, or a router.
    pub address: Ipv4Addr,
}

#[derive(Debug)]
pub(super) struct Routes(Vec<Route>);

#[derive(Debug)]
struct Route {
    bits: u32,
    mask: u32,
    network: NetworkId,
    /// `None`: connected.
    via: Option<Ipv4Addr>,
}

impl Routes {
    pub(super) fn compile(config: &Config) -> Self {
        let mut routes = Vec::new();
        for (position, network) in config.networks.iter().enumerate() {
            let id = network_id(position);
            routes.extend(network.addresses.iter().filter_map(|own| Route::new(*own, id, None)));
            if let Some(gateway) = network.gateway.and_then(ipv4) {
                routes.extend(Route::new(Cidr::EVERY_IPV4, id, Some(gateway)));
            }
        }
        for route in &config.routes {
            let id = network_id(route.network);
            routes.extend(ipv4(route.via).and_then(|via| Route::new(route.to, id, Some(via))));
        }
        // Stable: of equal prefixes the one written first wins.
        routes.sort_by_key(|route| std::cmp::Reverse(route.mask));
        Self(routes)
    }

    pub(super) fn next_hop(&self, destination: Ipv4Addr) -> Option<NextHop> {
        let bits = destination.to_bits();
        let route = self.0.iter().find(|route| bits & route.mask == route.bits)?;
        Some(NextHop { network: route.network, address: route.via.unwrap_or(destination) })
    }

    pub(super) fn gateways(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.0.iter().filter_map(|route| route.via)
    }
}

impl Route {
    fn new(to: Cidr, network: NetworkId, via: Option<Ipv4Addr>) -> Option<Self> {
        let bits = ipv4(to.network().address())?.to_bits();
        let mask = u32::MAX.checked_shl(32 - u32::from(to.prefix())).unwrap_or(0);
        Some(Self { bits, mask, network, via })
    }
}
