//! `[failover]` and `[failover.sync]`.

use std::net::Ipv4Addr;

use super::CHANGE;
use crate::import::document::{Item, milliseconds, quoted};
use crate::import::draft::Failover;
use crate::import::layout::{Layout, Network};
use crate::import::remark::Place;

/// `[failover]` and what belongs to it.
pub(super) fn compose(failover: Failover, layout: &Layout) -> Vec<Item> {
    let mut item = Item::new("[failover]", failover.place);
    item.notes = failover.notes;
    let version = if failover.version == 2 { 2 } else { 3 };
    item.set("version", version.to_string());
    if version == 2 {
        item.say("once both routers are tapvs: 3, with advert_interval = \"100ms\"");
    }
    item.set("priority", failover.priority.unwrap_or(100).to_string());
    if failover.priority.is_none() {
        item.say("the default of VRRP");
    }
    let step = if version == 2 { 1_000 } else { 10 };
    let interval = failover.advert_interval.div_ceil(step).max(1).saturating_mul(step);
    if interval != failover.advert_interval {
        item.notes.note(
            failover.place,
            format_args!(
                "an advert every {} ms: version {version} counts in steps of {step} ms",
                failover.advert_interval
            ),
        );
    }
    item.set("advert_interval", quoted(&milliseconds(interval)));
    item.set("preempt", failover.preempt.to_string());
    if failover.preempt_delay > 0 {
        item.set("preempt_delay", quoted(&milliseconds(failover.preempt_delay)));
    }
    let mut members: Vec<(usize, Option<u8>, Place)> = Vec::new();
    for (interface, id, place) in &failover.routers {
        let by_nic = |network: &Network| network.nic.as_deref() == Some(interface);
        if let Some(position) = layout.networks.iter().position(by_nic) {
            members.push((position, Some(*id), *place));
        }
    }
    for (_, position) in &layout.virtual_ips {
        if !members.iter().any(|(known, ..)| known == position) {
            members.push((*position, None, failover.place));
        }
    }
    let mut ids =
        (1..=255).rev().filter(|id| !failover.routers.iter().any(|(_, used, _)| used == id));
    let mut items = Vec::new();
    for (position, id, place) in members {
        let mut member = Item::new("[[failover.network]]", place);
        let name = layout.networks.get(position).map_or("", |network| &network.name);
        member.required("network", quoted(name));
        match id {
            Some(id) => member.required("virtual_router_id", id.to_string()),
            None => {
                let id = ids.next().unwrap_or(255);
                member.required("virtual_router_id", id.to_string());
                member.say(format!("{CHANGE} one that nobody else has there"));
            }
        }
        items.push(member);
    }
    if let Some((interface, peer, place)) = failover.sync {
        items.push(sync(interface.as_deref(), peer, place, layout));
    }
    items.insert(0, item);
    items
}

/// Written as a comment: the key that both routers share is not for a file to make up.
fn sync(interface: Option<&str>, peer: Option<Ipv4Addr>, place: Place, layout: &Layout) -> Item {
    let mut item = Item::new("[failover.sync]", place);
    let by_nic = |network: &&Network| interface.is_some() && network.nic.as_deref() == interface;
    let by_peer = |network: &&Network| {
        let mut own = network.addresses.iter();
        peer.is_some_and(|peer| own.any(|own| own.prefix.contains(peer)))
    };
    let mut networks = layout.networks.iter();
    let network = networks.clone().find(by_nic).or_else(|| networks.clone().find(by_peer));
    let network = network.or_else(|| networks.next());
    item.set("network", quoted(network.map_or("", |network| &network.name)));
    let peer = peer.map_or_else(|| "ADDRESS".to_owned(), |peer| peer.to_string());
    item.set("peer", quoted(&peer));
    item.say(format!("{CHANGE} the other router's own address in that network"));
    item.set("key", quoted("64 HEX DIGITS"));
    item.say(format!("{CHANGE} made by: openssl rand -hex 32"));
    item.turn_off(
        "connections are copied by tapvs's own protocol, to a tapvs, with a key: fill in peer and key",
    );
    item
}
