//! `[[route]]` and gateways: what leads beyond the connected networks.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use super::addressing::Addressing;
use super::model::Route;
use super::network::Gateway;
use super::section::Section;
use crate::addr::Cidr;

/// Reads every `[[route]]` and judges the `gateways`; where they lead goes into `known`.
pub(super) fn read(
    root: &mut Section<'_>,
    gateways: &[Gateway<'_>],
    known: &mut Addressing,
) -> Vec<Route> {
    let mut taken = HashSet::new();
    for (gateway, network) in gateways {
        let _ = gateway.clone().check(|hop| is_gateway(*hop, *network, known));
        if !taken.insert(Cidr::EVERY_IPV4) {
            gateway.place.wrong("is a second default route; keep one gateway in the whole file");
        }
    }
    let mut routes = Vec::new();
    for section in root.sections("route") {
        match one(section, &mut taken, known) {
            Some(route) => routes.push(route),
            None => known.lost_route = true,
        }
    }
    known.set_routes(taken.into_iter());
    routes
}

fn one(mut section: Section<'_>, taken: &mut HashSet<Cidr>, known: &Addressing) -> Option<Route> {
    let to = section
        .require("to", "the destination, such as \"198.51.100.0/24\"")
        .and_then(|value| value.cidr("routes"))
        .and_then(|to| to.check(|to| is_destination(*to, known)));
    let via = section
        .require("via", "the next hop, a host of a connected network")
        .and_then(|value| value.host_address("next hops"));
    section.finish();
    let to = to.and_then(|to| {
        to.check(|to| match taken.insert(*to) {
            true => Ok(()),
            false if *to == Cidr::EVERY_IPV4 => {
                Err("is a second default route; keep one in the whole file".to_owned())
            }
            false => Err(format!("there is a route to {to} already; keep one of them")),
        })
    });
    let network = via.as_ref().and_then(|via| match known.next_hop(via.value) {
        Ok(network) => Some(network),
        // The prefix it lies in may be the one that could not be read.
        Err(_) if known.lost_route && known.network_of(via.value).is_none() => None,
        Err(message) => {
            via.place.wrong(message);
            None
        }
    });
    Some(Route { to: to?.value, via: via?.value.into(), network: network? })
}

fn is_destination(to: Cidr, known: &Addressing) -> Result<(), String> {
    let network = to.network();
    if network != to {
        return Err(format!("{to} has host bits; a route goes to {network}"));
    }
    if known.connected.iter().any(|(prefix, _)| prefix.network() == to) {
        return Err(format!("{to} is a connected network; a route goes beyond those"));
    }
    let IpAddr::V4(first) = to.address() else { return Ok(()) };
    if first.is_loopback() || first.octets()[0] >= 224 {
        return Err(format!("{to} is not unicast; a route goes to unicast addresses"));
    }
    Ok(())
}

fn is_gateway(hop: Ipv4Addr, network: usize, known: &Addressing) -> Result<(), String> {
    known.is_host(hop)?;
    known.is_someone_else(hop)?;
    match known.network_of(hop) {
        Some((_, home)) if home == network => Ok(()),
        None if known.lost_route => Ok(()),
        _ => Err(format!("{hop} is not in this network; use a host inside one of its prefixes")),
    }
}
