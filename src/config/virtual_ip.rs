//! `[[virtual_ip]]`: the addresses that float, and the network where each is answered for.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::addressing::Addressing;
use super::duration;
use super::mistake::quote;
use super::model::{Defend, Network, VirtualIp};
use super::section::{Section, one_of};
use crate::time::Duration;

/// Reads every `[[virtual_ip]]`, their addresses into `known`.
pub(super) fn read(
    root: &mut Section<'_>,
    networks: &[Network],
    known: &mut Addressing,
) -> Vec<VirtualIp> {
    let mut positions = HashMap::new();
    for (position, network) in networks.iter().enumerate() {
        positions.insert(network.name.as_str(), position);
    }
    let virtual_ips = root.sections("virtual_ip").into_iter();
    virtual_ips.filter_map(|section| one(section, networks, &positions, known)).collect()
}

fn one(
    mut section: Section<'_>,
    networks: &[Network],
    positions: &HashMap<&str, usize>,
    known: &mut Addressing,
) -> Option<VirtualIp> {
    let address = section
        .require("address", "the address that floats, such as \"192.0.2.10\"")
        .and_then(|value| value.host_address("virtual IPs"));
    let network = section
        .require("network", "the name of the network where it is answered for")
        .and_then(|value| value.text("the name of a network"));
    let defend = section.get("defend").and_then(|value| value.choice(&DEFENCES, &[]));
    let pace = section.get("probe_interval").and_then(|value| value.parse(PACE, probe_interval));
    section.finish();
    let network = network.and_then(|name| {
        let position = positions.get(name.value).copied();
        if position.is_none() && !known.lost_network {
            const SHOWN: usize = 10;
            let names = networks.iter().map(|network| network.name.as_str()).take(SHOWN);
            let found = quote(name.value);
            name.place.wrong(format_args!("{found} is not a network; expected {}", one_of(names)));
        }
        position
    });
    let Some(address) = address else {
        known.lost_virtual_ip = true;
        return None;
    };
    let value = address.value;
    let address = address.check(|address| {
        known.is_host(*address)?;
        at_home(*address, network, networks, known)?;
        if known.own.contains(address) {
            return Err(format!(
                "{address} is the router's own address; a virtual IP is an address beside it"
            ));
        }
        Ok(())
    });
    // Known even when it is wrong otherwise: a service that names it is not one more mistake.
    let first = known.virtual_ips.insert(value);
    let address = address?;
    if !first {
        address.place.wrong(format_args!("{value} is given twice; keep one [[virtual_ip]] for it"));
        return None;
    }
    let mut vip = VirtualIp::new(value.into(), network?);
    vip.defend = defend.map(|defend| defend.value);
    vip.probe_interval = pace.map_or(vip.probe_interval, |pace| pace.value);
    Some(vip)
}

const DEFENCES: [(&str, Defend); 2] =
    [("unicast", Defend::Unicast), ("broadcast", Defend::Broadcast)];

const PACE: &str = "\"off\", or 1s to 1h as a whole number with a unit, such as \"10s\"";

/// `Some(None)`: never.
#[expect(clippy::option_option, reason = "no interval is a value, no parse is a mistake")]
fn probe_interval(text: &str) -> Option<Option<Duration>> {
    if text == "off" {
        return Some(None);
    }
    let allowed = Duration::from_secs(1)..=Duration::from_secs(60 * 60);
    duration::parse(text).filter(|pace| allowed.contains(pace)).map(Some)
}

/// Refuses an address inside another network's prefix: nobody there would get an answer.
fn at_home(
    address: Ipv4Addr,
    network: Option<usize>,
    networks: &[Network],
    known: &Addressing,
) -> Result<(), String> {
    match known.network_of(address) {
        Some((prefix, home)) if network.is_some_and(|network| network != home) => Err(format!(
            "{address} lies in {}; answer for it there, with network = {:?}",
            prefix.network(),
            networks[home].name
        )),
        _ => Ok(()),
    }
}
