//! Which service a packet is for, and which server an answer may come from. The narrower range of
//! ports wins: a port, then a range, then all ports.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::service::Service;
use super::spread::BuildSpread;
use crate::addr::{Ports, Proto};
use crate::config::Method;

/// Where packets of clients go.
#[derive(Debug, Default)]
pub(super) struct Fronts {
    /// Positions of services, by [`key`].
    ports: HashMap<u64, u32, BuildSpread>,
    /// By the [`key`] of port 0; in the order of their ports, apart from each other.
    ranges: HashMap<u64, Vec<Span>, BuildSpread>,
}

/// Ports that lead to one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    ports: Ports,
    service: u32,
    /// Whether it is for all ports that are not another's.
    is_rest: bool,
}

impl Fronts {
    pub(super) fn compile(services: &[Arc<Service>]) -> Self {
        let mut fronts = Self::default();
        let mut ranges: BTreeMap<u64, Vec<Span>> = BTreeMap::new();
        for (at, service) in (0..).zip(services) {
            for (proto, address, ports) in service.fronts() {
                if ports.is_one() {
                    fronts.ports.insert(key(proto, address, ports.first), at);
                } else {
                    let span = Span { ports, service: at, is_rest: ports.is_all() };
                    ranges.entry(key(proto, address, 0)).or_default().push(span);
                }
            }
        }
        fronts.ranges = ranges.into_iter().map(|(key, spans)| (key, apart(&spans))).collect();
        fronts
    }

    /// The position of the service for packets to `port` of `address`.
    pub(super) fn find(&self, proto: Proto, address: Ipv4Addr, port: u16) -> Option<usize> {
        match self.ports.get(&key(proto, address, port)) {
            Some(service) => Some(*service as usize),
            None => self.span(proto, address, port).map(|span| span.service as usize),
        }
    }

    /// Whether some service names `port`, rather than taking what is left.
    pub(super) fn is_named(&self, proto: Proto, address: Ipv4Addr, port: u16) -> bool {
        self.ports.contains_key(&key(proto, address, port))
            || self.span(proto, address, port).is_some_and(|span| !span.is_rest)
    }

    fn span(&self, proto: Proto, address: Ipv4Addr, port: u16) -> Option<&Span> {
        if self.ranges.is_empty() {
            return None;
        }
        let spans = self.ranges.get(&key(proto, address, 0))?;
        let at = spans.partition_point(|span| span.ports.last < port);
        spans.get(at).filter(|span| span.ports.contains(port))
    }
}

const fn key(proto: Proto, address: Ipv4Addr, port: u16) -> u64 {
    (proto.number() as u64) << 48 | (address.to_bits() as u64) << 16 | port as u64
}

/// Every port to the narrowest of its ranges, the first of several.
fn apart(spans: &[Span]) -> Vec<Span> {
    // What begins and ends at each port; the end is one beyond.
    let mut edges: BTreeMap<u32, Vec<(bool, usize)>> = BTreeMap::new();
    for (at, Span { ports, .. }) in spans.iter().enumerate() {
        edges.entry(u32::from(ports.first)).or_default().push((true, at));
        edges.entry(u32::from(ports.last) + 1).or_default().push((false, at));
    }
    let mut open = BTreeSet::new();
    let mut found: Vec<Span> = Vec::new();
    let mut edges = edges.into_iter().peekable();
    while let Some((from, changes)) = edges.next() {
        for (begins, at) in changes {
            let entry = (spans[at].ports.width(), at);
            if begins {
                open.insert(entry);
            } else {
                open.remove(&entry);
            }
        }
        let (Some((_, at)), Some((to, _))) = (open.first(), edges.peek()) else { continue };
        let port = |port: u32| u16::try_from(port).unwrap_or(u16::MAX);
        let ports = Ports { first: port(from), last: port(to - 1) };
        found.push(Span { ports, ..spans[*at] });
    }
    found
}

/// Where packets of servers come from that a service has to translate.
#[derive(Debug, Default)]
pub(super) struct Answers {
    ports: HashSet<(Proto, Ipv4Addr, u16)>,
    /// Of servers that listen at the ports that clients use.
    ranges: HashMap<(Proto, Ipv4Addr), Vec<Ports>>,
}

impl Answers {
    pub(super) fn compile(services: &[Arc<Service>]) -> Self {
        let mut answers = Self::default();
        for service in services.iter().filter(|service| service.method == Method::Nat) {
            for (proto, _, ports) in service.fronts() {
                for server in service.all_servers() {
                    let address = server.address;
                    if server.port_for(ports.first) != 0 && (server.port != 0 || ports.is_one()) {
                        answers.ports.insert((proto, address, server.port_for(ports.first)));
                        continue;
                    }
                    let ranges = answers.ranges.entry((proto, address)).or_default();
                    if !ranges.contains(&ports) {
                        ranges.push(ports);
                    }
                }
            }
        }
        answers
    }

    /// Whether what comes from here is a server's answer: of a service for all ports nobody can say.
    pub(super) fn contains(&self, proto: Proto, address: Ipv4Addr, port: u16) -> bool {
        self.ports.contains(&(proto, address, port))
            || self.in_range(proto, address, |ports| !ports.is_all() && ports.contains(port))
    }

    /// Whether what comes from here may be a server's answer.
    pub(super) fn may_contain(&self, proto: Proto, address: Ipv4Addr, port: u16) -> bool {
        self.ports.contains(&(proto, address, port))
            || self.in_range(proto, address, |ports| ports.contains(port))
    }

    fn in_range(&self, proto: Proto, address: Ipv4Addr, is_it: impl Fn(Ports) -> bool) -> bool {
        if self.ranges.is_empty() {
            return false;
        }
        let ranges = self.ranges.get(&(proto, address));
        ranges.is_some_and(|ranges| ranges.iter().any(|ports| is_it(*ports)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_narrowest_range_wins(
            ranges in prop::collection::vec((1u16..60, 1u16..30), 0..12),
            all in any::<bool>(),
        ) {
            let ranges = ranges.iter().map(|(first, width)| Ports { first: *first, last: first + width });
            let ranges = ranges.chain(all.then_some(Ports::ALL));
            let spans: Vec<_> =
                (0..).zip(ranges).map(|(service, ports)| Span { ports, service, is_rest: false }).collect();
            let found = apart(&spans);
            for port in (0..100).chain([u16::MAX]) {
                let holds = spans.iter().filter(|span| span.ports.contains(port));
                let expected = holds.min_by_key(|span| span.ports.width()).map(|span| span.service);
                let mut at = found.iter().filter(|span| span.ports.contains(port));
                prop_assert_eq!(at.next().map(|span| span.service), expected, "{}", port);
                prop_assert!(at.next().is_none(), "{} twice", port);
            }
            prop_assert!(found.is_sorted_by_key(|span| span.ports.first));
        }
    }
}
