//! A draft as a file of tapvs. Which words tapvs has for what a source means is decided here.

mod health;
mod role;
mod service;

use std::collections::HashMap;

use super::document::{Document, Item, quoted};
use super::draft::{Draft, Route};
use super::layout::{Layout, Network};
use super::remark::Place;
use super::{Options, START};

/// What a value is marked with that the source does not have.
pub(super) const CHANGE: &str = "CHANGE:";

pub(super) fn compose(draft: Draft, mut layout: Layout, options: &Options) -> Document {
    let head = vec![
        format!("Made by `tapvs import` from {}, read as {}.", options.file, options.kind),
        format!(
            "What is marked `{CHANGE}` is not in the source and was guessed. Then: tapvs check THIS-FILE"
        ),
    ];
    let mut document = Document { head, notes: draft.notes, items: Vec::new() };
    document.notes.append(std::mem::take(&mut layout.notes));
    let taps = Taps::new(&layout.networks);
    document.items.push(router(draft.name, &draft.timeouts));
    for (network, tap) in layout.networks.iter().zip(&taps.0) {
        document.items.push(network_item(network, tap));
    }
    document.items.extend(draft.routes.iter().map(route));
    let places: HashMap<_, _> =
        draft.virtual_ips.iter().map(|vip| (vip.address, vip.place)).collect();
    for (address, position) in &layout.virtual_ips {
        let place = places.get(address).copied().unwrap_or(START);
        let mut item = Item::new("[[virtual_ip]]", place);
        item.required("address", quoted(&address.to_string()));
        if layout.marks.values().any(|mark| mark == address) {
            item.say(format!("{CHANGE} stands for what netfilter marks"));
        }
        let network = layout.networks.get(*position).map_or("", |network| &network.name);
        item.required("network", quoted(network));
        document.items.push(item);
    }
    if let Some(failover) = draft.failover {
        document.items.extend(role::compose(failover, &layout));
    }
    document
        .items
        .extend(draft.services.into_iter().map(|service| service::compose(service, &layout)));
    document
}

/// The TAP devices' names, one for each network.
struct Taps(Vec<String>);

impl Taps {
    /// Not one of the NICs: a source may have a `tapvs0` too.
    fn new(networks: &[Network]) -> Self {
        let is_nic =
            |name: &str| networks.iter().any(|network| network.nic.as_deref() == Some(name));
        let names = (0_u32..).map(|number| format!("tapvs{number}")).filter(|name| !is_nic(name));
        Self(names.take(networks.len()).collect())
    }
}

fn router(name: Option<(String, Place)>, timeouts: &[(&'static str, u64)]) -> Item {
    let place = name.as_ref().map_or(START, |(_, place)| *place);
    let mut item = Item::new("[router]", place);
    match name {
        Some((name, place)) => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let changed: String =
                name.chars().take(64).map(|c| if allowed(c) { c } else { '-' }).collect();
            if changed != name {
                item.notes
                    .note(place, format_args!("the name {name:?} has signs that tapvs's has not"));
            }
            item.set("name", quoted(&changed));
        }
        None => {
            item.set("name", quoted("lvs1"));
            item.say(format!("{CHANGE} each router has its own"));
        }
    }
    if !timeouts.is_empty() {
        let values = timeouts.iter().map(|(key, seconds)| format!("{key} = \"{seconds}s\""));
        item.set("timeouts", format!("{{ {} }}", values.collect::<Vec<_>>().join(", ")));
    }
    item
}

fn network_item(network: &Network, tap: &str) -> Item {
    let mut item = Item::new("[[network]]", START);
    item.required("name", quoted(&network.name));
    match &network.nic {
        Some(nic) => {
            item.required(
                "links",
                format!("[{{ tap = {}, attach = {} }}]", quoted(tap), quoted(nic)),
            );
            item.say(
                "joins the TAP device and the NIC; the NIC must not carry addresses of the host",
            );
        }
        None => {
            item.required("links", format!("[{}]", quoted(tap)));
            item.say(format!(
                "{CHANGE} how this network is reached, such as [{{ tap = {}, attach = \"eth0\" }}]",
                quoted(tap)
            ));
        }
    }
    let text =
        |own: &super::layout::Own| quoted(&format!("{}/{}", own.prefix.address, own.prefix.length));
    let addresses: Vec<_> = network.addresses.iter().map(text).collect();
    item.required("addresses", format!("[{}]", addresses.join(", ")));
    if network.addresses.iter().any(|own| !own.known) {
        item.say(format!("{CHANGE} the router's own, which nobody else has"));
    }
    item
}

fn route(route: &Route) -> Item {
    let mut item = Item::new("[[route]]", route.place);
    item.required("to", quoted(&format!("{}/{}", route.to.network(), route.to.length)));
    item.required("via", quoted(&route.via.to_string()));
    item
}
