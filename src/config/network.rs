//! `[[network]]`: broadcast domains, their TAP devices and the router's own addresses.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use super::addressing::{Addressing, is_unicast};
use super::duration;
use super::model::{Attach, AttachMode, Bridge, Link, Network, Nic};
use super::section::{At, Section, Value};
use super::{LABEL, label, take};
use crate::addr::{Cidr, MacAddr};
use crate::time::Duration;

/// A gateway and the position of its network: checked once the virtual IPs are known.
pub(super) type Gateway<'a> = (At<'a, Ipv4Addr>, usize);

/// Reads every `[[network]]`, the router's own addresses into `known`.
pub(super) fn read<'a>(
    root: &mut Section<'a>,
    known: &mut Addressing,
) -> (Vec<Network>, Vec<Gateway<'a>>) {
    let mut reader = Reader { known, taken: Taken::default(), gateways: Vec::new() };
    let mut networks = Vec::new();
    let mut own = Vec::new();
    for (position, section) in root.sections("network").into_iter().enumerate() {
        networks.push(reader.network(position, section, &mut own));
    }
    let Reader { known, gateways, .. } = reader;
    if networks.is_empty() {
        root.missing("network", "a [[network]] section, at least one");
        (known.lost_network, known.lost_route) = (true, true);
    }
    // An own address of one network may still be the broadcast address of another's prefix.
    for address in own {
        let _ = address.check(|address| known.is_host(*address));
    }
    (networks, gateways)
}

struct Reader<'a, 'k> {
    known: &'k mut Addressing,
    taken: Taken,
    gateways: Vec<Gateway<'a>>,
}

/// What only one may have.
#[derive(Default)]
struct Taken {
    names: HashSet<String>,
    interfaces: HashSet<String>,
}

impl<'a> Reader<'a, '_> {
    fn network(
        &mut self,
        position: usize,
        mut section: Section<'a>,
        own: &mut Vec<At<'a, Ipv4Addr>>,
    ) -> Network {
        let name = section
            .require("name", "a name for this network, such as \"internet\"")
            .and_then(|value| value.parse(LABEL, label))
            .and_then(|name| name.check(|name| take(&mut self.taken.names, name, UNIQUE)))
            .map(|name| name.value);
        self.known.lost_network |= name.is_none();
        let links = section.require("links", "its TAP device, such as [\"tapvs0\"]");
        let links_at = links.as_ref().map(|value| value.place.clone());
        let links = links.map_or_else(Vec::new, |value| self.links(value));
        let bridge = bridge(&mut section, links.len());
        let addresses = section
            .require("addresses", "the router's own address in it, such as [\"192.0.2.2/24\"]");
        let addresses = self.addresses(position, addresses, own);
        let gateway = section.get("gateway").map(|value| value.host_address("gateways"));
        self.known.lost_route |= matches!(gateway, Some(None));
        let gateway = gateway.flatten();
        let mtu = section.get("mtu").and_then(|value| value.integer(576..=9_000));
        let mss_clamp = section.get("mss_clamp").and_then(|value| value.integer(88..=8_960));
        let mac = section.get("mac");
        let macvtap = |link: &Link| {
            link.attach.as_ref().is_some_and(|attach| attach.mode == AttachMode::Macvtap)
        };
        if links.iter().any(macvtap) {
            if let Some(mac) = &mac {
                mac.place.wrong("is the NIC's own with macvtap; leave it out");
            }
            if let (true, Some(place)) = (links.len() > 1, links_at) {
                place.wrong(
                    "has a link with macvtap, which passes no other MAC; it must be the only one",
                );
            }
        }
        let mac = mac.and_then(|value| value.parse(MAC, unicast_mac));
        section.finish();
        let network = Network {
            name: name.unwrap_or_default(),
            links,
            addresses,
            gateway: gateway.as_ref().map(|gateway| gateway.value.into()),
            mtu: mtu.map_or(1_500, |mtu| mtu.value),
            mss_clamp: mss_clamp.map(|most| most.value),
            mac: mac.map(|mac| mac.value),
            bridge,
        };
        self.gateways.extend(gateway.map(|gateway| (gateway, position)));
        network
    }

    fn links(&mut self, value: Value<'_>) -> Vec<Link> {
        let what = "a list of TAP devices, such as [\"tapvs0\"]";
        let place = value.place.clone();
        let Some(values) = value.list(what) else { return Vec::new() };
        if values.is_empty() {
            place.wrong("is empty; add a TAP device, such as [\"tapvs0\"]");
        } else if values.len() > MOST_LINKS {
            let count = values.len();
            place.wrong(format_args!("has {count} links; a network has at most {MOST_LINKS}"));
        }
        values.into_iter().filter_map(|value| self.link(value)).collect()
    }

    fn link(&mut self, value: Value<'_>) -> Option<Link> {
        if !value.is_table() {
            let form = match value.as_text() {
                Some(_) => INTERFACE,
                None => "the name of a TAP device or a table such as { tap = \"tapvs0\" }",
            };
            let tap = value.parse(form, interface)?;
            return Some(Link { tap: self.interface(tap)?, offload: None, attach: None });
        }
        let mut section = value.section()?;
        let tap = section
            .require("tap", "the name of the TAP device, such as \"tapvs0\"")
            .and_then(|value| value.parse(INTERFACE, interface))
            .and_then(|tap| self.interface(tap));
        let offload = section.get("offload").and_then(Value::boolean).map(|at| at.value);
        let attach = section.get("attach").map(|value| self.attach(value));
        section.finish();
        Some(Link { tap: tap?, offload, attach: attach.unwrap_or_default() })
    }

    fn attach(&mut self, value: Value<'_>) -> Option<Attach> {
        if !value.is_table() {
            let form = match value.as_text() {
                Some(_) => NIC,
                None => "the name of a NIC or a table such as { nic = \"eth1\" }",
            };
            let nic = self.nic(value.parse(form, nic)?)?;
            return Some(Attach { nic, mode: AttachMode::Bridge, force: false });
        }
        let mut section = value.section()?;
        let nic = section
            .require("nic", "the name of the NIC, such as \"eth1\"")
            .and_then(|value| value.parse(NIC, nic))
            .and_then(|nic| self.nic(nic));
        let modes = [("bridge", AttachMode::Bridge), ("macvtap", AttachMode::Macvtap)];
        let mode = section.get("mode").and_then(|mode| mode.choice(&modes, &[]));
        let mode = mode.map_or_else(AttachMode::default, |mode| mode.value);
        let force = section.get("force").and_then(Value::boolean);
        section.finish();
        Some(Attach { nic: nic?, mode, force: force.is_some_and(|force| force.value) })
    }

    fn interface(&mut self, name: At<'_, String>) -> Option<String> {
        let rule = "a TAP device or NIC belongs to one network, once";
        let name = name.check(|name| take(&mut self.taken.interfaces, name, rule))?;
        Some(name.value)
    }

    fn nic(&mut self, nic: At<'_, Nic>) -> Option<Nic> {
        let rule = "a TAP device or NIC belongs to one network, once";
        let nic = nic.check(|nic| take(&mut self.taken.interfaces, &nic.to_string(), rule))?;
        Some(nic.value)
    }

    fn addresses(
        &mut self,
        position: usize,
        value: Option<Value<'a>>,
        own: &mut Vec<At<'a, Ipv4Addr>>,
    ) -> Vec<Cidr> {
        let what = "a list of addresses, such as [\"192.0.2.2/24\"]";
        let place = value.as_ref().map(|value| value.place.clone());
        let Some(values) = value.and_then(|value| value.list(what)) else {
            self.known.lost_route = true;
            return Vec::new();
        };
        if let (true, Some(place)) = (values.is_empty(), place) {
            place.wrong("is empty; add the router's own address, such as \"192.0.2.2/24\"");
            self.known.lost_route = true;
        }
        let mut addresses = Vec::new();
        for value in values {
            match self.address(position, value) {
                Some((cidr, address)) => {
                    addresses.push(cidr);
                    own.push(address);
                }
                None => self.known.lost_route = true,
            }
        }
        addresses
    }

    /// One own address; it joins what is known even when it clashes with another.
    fn address(&mut self, position: usize, value: Value<'a>) -> Option<(Cidr, At<'a, Ipv4Addr>)> {
        let cidr = value.cidr("addresses of the router")?;
        let std::net::IpAddr::V4(address) = cidr.value.address() else { return None };
        let At { value: cidr, place } = cidr.check(|cidr| {
            is_unicast(address)?;
            match cidr.prefix() {
                0 => Err(format!("{cidr} spans every address; use a prefix length from 1 to 32")),
                _ => Ok(()),
            }
        })?;
        if !self.known.own.insert(address) {
            place.wrong(format_args!("{address} is given twice; keep one of them"));
            return None;
        }
        let other = self.known.connected.iter().find(|(other, network)| {
            *network != position
                && (other.contains(address.into()) || cidr.contains(other.address()))
        });
        if let Some((other, network)) = other {
            place.wrong(format_args!(
                "{} overlaps {} of network[{network}]; a prefix lies in one network",
                cidr.network(),
                other.network()
            ));
        }
        self.known.connected.push((cidr, position));
        Some((cidr, At { value: address, place }))
    }
}

/// What becomes of several links; a network with one has no use for these keys.
fn bridge(section: &mut Section<'_>, links: usize) -> Bridge {
    let mut bridge = Bridge::default();
    let ageing = section.get("mac_ageing");
    let limit = section.get("broadcast_limit");
    if links == 1 {
        for value in [&ageing, &limit].into_iter().flatten() {
            value.place.wrong("is for a network of several links; add links or leave it out");
        }
    }
    if let Some(ageing) = ageing.and_then(|value| value.parse(&ageing_form(), mac_ageing)) {
        bridge.mac_ageing = ageing.value;
    }
    if let Some(limit) = limit.and_then(|value| value.integer(1..=1_000_000)) {
        bridge.broadcast_limit = limit.value;
    }
    bridge
}

/// Not shorter than the router needs to hear of its own neighbours again.
fn mac_ageing(text: &str) -> Option<Duration> {
    let allowed = Duration::from_secs(60)..=Duration::from_secs(24 * 60 * 60);
    duration::parse(text).filter(|ageing| allowed.contains(ageing))
}

fn ageing_form() -> String {
    format!("60s to 24h, as {}", duration::FORM)
}

/// Every broadcast is copied to all of them.
const MOST_LINKS: usize = 64;

const UNIQUE: &str = "use a name that no other network has";

const INTERFACE: &str = "an interface name: 1 to 15 ASCII letters, digits or signs, without space, \"/\", \":\" or \"%\"";

/// What the kernel takes as an interface's name; `%` would make it a pattern.
fn interface(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_graphic() && !"/:%".contains(c);
    let named = (1..=15).contains(&text.len()) && text.chars().all(allowed);
    (named && !matches!(text, "." | ".." | "lo")).then(|| text.to_owned())
}

const NIC: &str =
    "a NIC: its interface name, its MAC address or its PCI address such as \"0000:00:03.0\"";

/// Interface names have no colon, the other two are nothing without.
fn nic(text: &str) -> Option<Nic> {
    if !text.contains(':') {
        return interface(text).map(Nic::Name);
    }
    unicast_mac(text).map(Nic::Mac).or_else(|| pci(text).map(Nic::Pci))
}

/// `DOMAIN:BUS:DEVICE.FUNCTION`, in hexadecimal.
fn pci(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let (domain, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let sized =
        (4..=8).contains(&domain.len()) && (bus.len(), device.len(), function.len()) == (2, 2, 1);
    (sized && [domain, bus, device, function].into_iter().all(hex)).then_some(text)
}

const MAC: &str = "a unicast MAC address such as \"02:00:5e:10:00:01\" (its first byte is even)";

fn unicast_mac(text: &str) -> Option<MacAddr> {
    text.parse().ok().filter(|mac: &MacAddr| mac.is_unicast())
}
