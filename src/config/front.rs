//! The keys of a `[[service]]` that say what it is found by: protocol, address and ports.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use super::addressing::Addressing;
use super::section::{At, Place, Section, Value};
use super::{LABEL, label};
use crate::addr::{Ports, Proto};

/// What was read of it; `None` where it is missing or wrong.
pub(super) struct Front<'a> {
    #[expect(clippy::option_option, reason = "not given is no mistake")]
    pub(super) name: Option<Option<At<'a, String>>>,
    pub(super) protocol: Option<At<'a, Proto>>,
    pub(super) address: Option<At<'a, Ipv4Addr>>,
    pub(super) ports: Option<At<'a, Ports>>,
}

/// What a service is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) protocol: Proto,
    pub(super) address: Ipv4Addr,
    pub(super) ports: Ports,
}

impl<'a> Front<'a> {
    /// Reads the keys.
    pub(super) fn read(section: &mut Section<'a>, known: &Addressing) -> Self {
        let name = section.get("name").map(|value| value.parse(LABEL, label));
        let protocol = section
            .require("protocol", "\"tcp\" or \"udp\"")
            .and_then(|value| value.choice(&PROTOCOLS, &[]));
        let address = section
            .require("address", "the virtual IP that clients use")
            .and_then(|value| value.host_address("services"));
        if let Some(address) = &address {
            let _ = address.clone().check(|address| is_virtual_ip(known, *address));
        }
        let ports = section.require("port", "the port that clients use").and_then(ports);
        Self { name, protocol, address, ports }
    }

    /// All of it, where nothing is missing.
    pub(super) fn identity(&self) -> Option<Identity> {
        Some(Identity {
            protocol: self.protocol.as_ref()?.value,
            address: self.address.as_ref()?.value,
            ports: self.ports.as_ref()?.value,
        })
    }
}

impl Identity {
    /// What it is called where nobody says.
    pub(super) fn label(self) -> String {
        let Self { protocol, address, ports } = self;
        format!("{protocol}:{address}:{ports}")
    }

    pub(super) fn address(self) -> IpAddr {
        self.address.into()
    }
}

/// What is taken by the services read so far.
#[derive(Debug, Default)]
pub(super) struct Taken {
    all: HashSet<Identity>,
    ranges: HashMap<(Proto, Ipv4Addr), Vec<Ports>>,
}

impl Taken {
    /// Whether no service before has the same, or as much of it that nobody could say which is meant.
    pub(super) fn take(&mut self, identity: Identity, place: &Place<'_>) -> bool {
        if !self.all.insert(identity) {
            place.wrong(format_args!(
                "there is a service for {} already; add the servers to that one",
                identity.label()
            ));
            return false;
        }
        let Identity { protocol, address, ports } = identity;
        if ports.is_one() || ports.is_all() {
            return true;
        }
        let ranges = self.ranges.entry((protocol, address)).or_default();
        let rival = ranges.iter().find(|r| r.width() == ports.width() && r.overlaps(ports));
        if let Some(rival) = rival {
            place.wrong(format_args!(
                "ports {ports} overlap {rival} of a service before, and neither range is the smaller \
                 one, which would win; make one of them smaller"
            ));
            return false;
        }
        ranges.push(ports);
        true
    }
}

fn is_virtual_ip(known: &Addressing, address: Ipv4Addr) -> Result<(), String> {
    if known.lost_virtual_ip || known.virtual_ips.contains(&address) {
        return Ok(());
    }
    Err(format!("{address} is not a virtual IP; add a [[virtual_ip]] with this address"))
}

fn ports(value: Value<'_>) -> Option<At<'_, Ports>> {
    if value.as_text().is_some() {
        return value.parse(PORTS, range);
    }
    let port = value.integer_or(0..=65_535, PORTS)?;
    Some(At { value: Ports::of(port.value), place: port.place })
}

/// Such as `8000-8100`.
fn range(text: &str) -> Option<Ports> {
    let number = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| plain && *port > 0)
    };
    let (first, last) = text.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first < last).then_some(Ports { first, last })
}

const PORTS: &str = "a port from 1 to 65535, a range such as \"8000-8100\", or 0 for all ports";

const PROTOCOLS: [(&str, Proto); 2] = [("tcp", Proto::Tcp), ("udp", Proto::Udp)];
