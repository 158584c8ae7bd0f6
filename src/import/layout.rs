//! Which networks the addresses of a source lie in: it names addresses, tapvs also needs to know what
//! surrounds them. What the source does not say is guessed as one /24 each, and marked as a guess.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::draft::{Draft, Interface, Method, Prefix, Service, Target};
use super::remark::Notes;

/// The networks, and where each virtual IP lies.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) networks: Vec<Network>,
    /// Virtual IPs with the position of their network, in the order of the source.
    pub(super) virtual_ips: Vec<(Ipv4Addr, usize)>,
    /// The addresses that stand for firewall marks.
    pub(super) marks: BTreeMap<u32, Ipv4Addr>,
    pub(super) notes: Notes,
}

#[derive(Debug)]
pub(super) struct Network {
    pub(super) name: String,
    /// The NIC that it was reached by.
    pub(super) nic: Option<String>,
    pub(super) addresses: Vec<Own>,
}

/// An address of the router, known or made up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) prefix: Prefix,
    pub(super) known: bool,
}

/// A network as smoltcp's interface and people can bear it.
const MOST_PREFIXES: usize = 8;

pub(super) fn lay_out(draft: &Draft) -> Layout {
    let mut plan = Plan::default();
    for interface in &draft.interfaces {
        plan.interface(interface);
    }
    let marks = marks(draft);
    let wanted = virtual_ips(draft, &marks);
    let mut places: Vec<(Ipv4Addr, Option<usize>)> = Vec::new();
    for (address, interface) in wanted {
        let home = plan.network_of(address);
        let named = interface.and_then(|name| plan.named(&name));
        places.push((address, home.or_else(|| plan.settle(address, named, "clients"))));
    }
    for service in &draft.services {
        for (address, method) in servers(service) {
            let is_routed = method != Method::Direct
                && draft.routes.iter().any(|route| route.to.contains(address));
            if plan.network_of(address).is_none() && !is_routed {
                plan.settle(address, None, "servers");
            }
        }
    }
    // A next hop that lies nowhere yet is one of a network that the source did not describe.
    for route in &draft.routes {
        if plan.network_of(route.via).is_none() {
            plan.settle(route.via, None, "clients");
        }
    }
    let used: BTreeSet<Ipv4Addr> = used(draft, &places);
    let virtual_ips = places
        .into_iter()
        .map(|(address, network)| (address, network.unwrap_or_else(|| plan.any())))
        .collect();
    let notes = std::mem::take(&mut plan.notes);
    Layout { networks: plan.finish(&used), virtual_ips, marks, notes }
}

/// One address of TEST-NET-1 for each mark.
fn marks(draft: &Draft) -> BTreeMap<u32, Ipv4Addr> {
    let marks = draft.services.iter().filter_map(|service| match service.target {
        Target::Mark(mark) if service.off.is_none() => Some(mark),
        _ => None,
    });
    let marks: BTreeSet<u32> = marks.collect();
    marks.into_iter().zip((1..=254).map(|host| Ipv4Addr::new(192, 0, 2, host))).collect()
}

/// Each once: those that the source moves between routers, then those that only services name.
fn virtual_ips(draft: &Draft, marks: &BTreeMap<u32, Ipv4Addr>) -> Vec<(Ipv4Addr, Option<String>)> {
    let moved = draft.virtual_ips.iter().map(|vip| (vip.address, vip.interface.clone()));
    let services = draft.services.iter().filter(|service| service.off.is_none());
    let served = services.filter_map(|service| match service.target {
        Target::Address(IpAddr::V4(address), _) => Some((address, None)),
        Target::Mark(mark) => marks.get(&mark).map(|address| (*address, None)),
        Target::Address(IpAddr::V6(_), _) | Target::Unknown(..) => None,
    });
    let mut seen = BTreeSet::new();
    moved.chain(served).filter(|(address, _)| is_host(*address) && seen.insert(*address)).collect()
}

fn servers(service: &Service) -> impl Iterator<Item = (Ipv4Addr, Method)> {
    let servers = service.servers.iter().chain(&service.fallback);
    let is_on = service.off.is_none();
    servers
        .filter(move |server| is_on && server.off.is_none())
        .filter_map(|server| Some((server.host.v4()?, server.method)))
        .filter(|(address, _)| is_host(*address))
}

fn used(draft: &Draft, virtual_ips: &[(Ipv4Addr, Option<usize>)]) -> BTreeSet<Ipv4Addr> {
    let servers = draft.services.iter().flat_map(servers).map(|(address, _)| address);
    let hops = draft.routes.iter().map(|route| route.via);
    let peer = draft.failover.iter().filter_map(|failover| failover.sync.as_ref()?.1);
    let own = draft.interfaces.iter().flat_map(|interface| &interface.own).map(|own| own.address);
    virtual_ips
        .iter()
        .map(|(address, _)| *address)
        .chain(servers)
        .chain(hops)
        .chain(peer)
        .chain(own)
        .collect()
}

fn is_host(address: Ipv4Addr) -> bool {
    !matches!(address.octets(), [0 | 127 | 224..=255, ..])
}

#[derive(Default)]
struct Plan {
    networks: Vec<Sketch>,
    notes: Notes,
}

struct Sketch {
    name: String,
    nic: Option<String>,
    prefixes: Vec<Own>,
}

impl Plan {
    fn interface(&mut self, interface: &Interface) {
        let at = self.network(&interface.name, Some(interface.name.clone()));
        for own in &interface.own {
            if !self.claim(at, *own, true) {
                self.notes.lost(
                    interface.place,
                    format_args!(
                        "the address {}/{} of {}: its prefix is another network's, or none that a network has",
                        own.address, own.length, interface.name
                    ),
                );
            }
        }
        for prefix in &interface.prefixes {
            self.claim(at, *prefix, false);
        }
    }

    fn network(&mut self, name: &str, nic: Option<String>) -> usize {
        self.networks.push(Sketch { name: name.to_owned(), nic, prefixes: Vec::new() });
        self.networks.len() - 1
    }

    /// The position of a network, created if it is absent.
    fn called(&mut self, name: &str) -> usize {
        let position = self.networks.iter().position(|network| network.name == name);
        position.unwrap_or_else(|| self.network(name, None))
    }

    fn named(&self, nic: &str) -> Option<usize> {
        self.networks.iter().position(|network| network.nic.as_deref() == Some(nic))
    }

    /// Some network, for what has to be in one.
    fn any(&mut self) -> usize {
        if self.networks.is_empty() { self.called("clients") } else { 0 }
    }

    fn network_of(&self, address: Ipv4Addr) -> Option<usize> {
        let has =
            |network: &Sketch| network.prefixes.iter().any(|own| own.prefix.contains(address));
        self.networks.iter().position(has)
    }

    /// Adds a prefix unless another network has a part of it, or this one all of it.
    fn claim(&mut self, at: usize, prefix: Prefix, known: bool) -> bool {
        if !(8..=30).contains(&prefix.length) || !is_host(prefix.address) {
            return false;
        }
        if self.networks[at].prefixes.len() >= MOST_PREFIXES {
            return self.networks[at]
                .prefixes
                .iter()
                .any(|own| own.prefix.contains(prefix.address));
        }
        let others = self.networks.iter().enumerate().filter(|(position, _)| *position != at);
        if others.flat_map(|(_, network)| &network.prefixes).any(|own| own.prefix.overlaps(prefix))
        {
            return false;
        }
        let prefixes = &mut self.networks[at].prefixes;
        if known {
            let mut others = prefixes.iter().map(|own| own.prefix);
            if prefixes.iter().any(|own| own.known && own.prefix.address == prefix.address) {
                return true;
            }
            if prefix.keeps(prefix.address)
                || others.any(|other| other.keeps(prefix.address) || prefix.keeps(other.address))
            {
                return false;
            }
            prefixes.push(Own { prefix, known });
            return true;
        }
        let inside = prefixes
            .iter()
            .any(|own| own.prefix.overlaps(prefix) && own.prefix.length <= prefix.length);
        if inside {
            return true;
        }
        // The guesses that lie in it are part of it.
        prefixes.retain(|own| own.known || !own.prefix.overlaps(prefix));
        prefixes.push(Own { prefix, known });
        true
    }

    /// Puts an address that lies nowhere yet into the network `at`, or that called `name`.
    fn settle(&mut self, address: Ipv4Addr, at: Option<usize>, name: &str) -> Option<usize> {
        let at = match at {
            Some(at) => at,
            None => self.called(name),
        };
        // Guessed as a /24, or what is left of it beside the others. An address may also lie outside of
        // every prefix, if somebody routes it here.
        let _ = (24..=30).any(|length| self.claim(at, Prefix::new(address, length), false));
        Some(at)
    }

    fn finish(mut self, used: &BTreeSet<Ipv4Addr>) -> Vec<Network> {
        if self.networks.iter().all(|network| network.prefixes.is_empty()) {
            self.any();
        }
        let mut taken = used.clone();
        let mut spare = (0..=255).map(|third| Prefix::new(Ipv4Addr::new(198, 18, third, 1), 24));
        let mut networks = Vec::new();
        for network in self.networks {
            let mut addresses: Vec<Own> = Vec::new();
            for own in network.prefixes {
                if own.known {
                    addresses.push(own);
                } else if let Some(address) = free(own.prefix, &taken) {
                    taken.insert(address);
                    let prefix = Prefix::new(address, own.prefix.length);
                    addresses.push(Own { prefix, known: false });
                }
            }
            // A network has an address of the router: from the block for benchmarks, which nobody uses.
            if addresses.is_empty() {
                addresses.extend(spare.next().map(|prefix| Own { prefix, known: false }));
            }
            networks.push(Network { name: network.name, nic: network.nic, addresses });
        }
        networks
    }
}

/// The highest host of a prefix that nobody has.
fn free(prefix: Prefix, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let hosts = prefix.network().to_bits() + 1..prefix.broadcast().to_bits();
    hosts.rev().map(Ipv4Addr::from_bits).find(|address| !taken.contains(address))
}
