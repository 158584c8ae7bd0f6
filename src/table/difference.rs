//! What a table changes for whoever worked with the one before. Found when it is compiled, so that the
//! frame path only has to follow it.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::{NextHop, Server, Service, Table};
use crate::addr::{NetworkId, ServerId, ServiceId};

/// From one table to the next.
#[derive(Debug, Default)]
pub struct Difference {
    /// The generation it begins with; `None`: from nothing.
    pub since: Option<u32>,
    /// Services that are there now and were not, or not like this.
    pub services: Vec<ServiceChange>,
    /// Services that are not there any more.
    pub removed_services: Vec<ServiceId>,
    /// Servers that are not there any more, each with the service as it is now, or was last.
    pub removed_servers: Vec<(Arc<Service>, Server)>,
    /// Next hops of servers and routes that are to be kept resolved from now on.
    pub hops: Vec<NextHop>,
    /// Those that need not any more.
    pub removed_hops: Vec<NextHop>,
    /// The router's addresses, own and virtual, that are new.
    pub addresses: Vec<(Ipv4Addr, NetworkId)>,
    /// Those that are given up.
    pub removed_addresses: Vec<(Ipv4Addr, NetworkId)>,
}

/// A service that is new, or has changed.
#[derive(Debug)]
pub struct ServiceChange {
    /// As it was; `None` for a new one.
    pub before: Option<Arc<Service>>,
    /// As it is.
    pub after: Arc<Service>,
    /// For each of its servers, the fallback last, where it stands in `before`'s.
    pub servers: Vec<Option<usize>>,
}

impl Difference {
    /// What leads from `old` to `new`.
    pub fn between(old: Option<&Table>, new: &Table) -> Self {
        let mut difference =
            Self { since: old.map(Table::generation), ..Self::between_services(old, new) };
        let split = |before: BTreeSet<_>, after: BTreeSet<_>| (&after - &before, &before - &after);
        let (added, removed) = split(old.map(kept_hops).unwrap_or_default(), kept_hops(new));
        difference.hops = added.into_iter().collect();
        difference.removed_hops = removed.into_iter().collect();
        #[expect(clippy::disallowed_methods, reason = "the set has an order of its own")]
        let local = |table: &Table| -> BTreeSet<_> {
            table.local.iter().map(|(address, local)| (*address, local.network())).collect()
        };
        let (before, after) = (old.map(local).unwrap_or_default(), local(new));
        difference.addresses = (&after - &before).into_iter().collect();
        difference.removed_addresses = (&before - &after).into_iter().collect();
        difference
    }

    fn between_services(old: Option<&Table>, new: &Table) -> Self {
        let mut difference = Self::default();
        let before = by_id(old.map_or(&[], Table::services));
        for after in new.services() {
            let before = before.get(&after.id).copied();
            if before.is_some_and(|before| Arc::ptr_eq(before, after)) {
                continue;
            }
            let known = before.map(|before| positions(before)).unwrap_or_default();
            let servers = after.all_servers().map(|server| known.get(&server.id).copied());
            difference.services.push(ServiceChange {
                before: before.cloned(),
                after: Arc::clone(after),
                servers: servers.collect(),
            });
        }
        let after = by_id(new.services());
        for before in old.map_or(&[][..], Table::services) {
            let after = after.get(&before.id).copied();
            if after.is_some_and(|after| Arc::ptr_eq(before, after)) {
                continue;
            }
            if after.is_none() {
                difference.removed_services.push(before.id);
            }
            let kept = after.map(|after| positions(after)).unwrap_or_default();
            let gone = before.all_servers().filter(|server| !kept.contains_key(&server.id));
            let rules = after.unwrap_or(before);
            difference
                .removed_servers
                .extend(gone.map(|server| (Arc::clone(rules), server.clone())));
        }
        difference
    }
}

fn by_id(services: &[Arc<Service>]) -> HashMap<ServiceId, &Arc<Service>> {
    services.iter().map(|service| (service.id, service)).collect()
}

fn positions(service: &Service) -> HashMap<ServerId, usize> {
    service.all_servers().enumerate().map(|(position, server)| (server.id, position)).collect()
}

/// Servers and gateways are resolved before they are needed.
fn kept_hops(table: &Table) -> BTreeSet<NextHop> {
    let servers = table.servers().map(|(_, server)| server.address);
    let gateways = table.networks().iter().filter_map(|network| network.gateway);
    let wanted = servers.chain(gateways).chain(table.route_gateways());
    wanted.filter_map(|address| table.next_hop(address)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::table::{Ids, Standing};

    const TEXT: &str = r#"
        [[network]]
        name = "internet"
        links = ["tapvs0"]
        addresses = ["203.0.113.2/24"]
        gateway = "203.0.113.1"

        [[network]]
        name = "servers"
        links = ["tapvs1"]
        addresses = ["10.0.0.2/24"]

        [[virtual_ip]]
        address = "203.0.113.10"
        network = "internet"

        [[service]]
        name = "web"
        protocol = "tcp"
        address = "203.0.113.10"
        port = 80
        server = [{ address = "10.0.0.11" }, { address = "10.0.0.12" }]

        [[service]]
        name = "dns"
        protocol = "udp"
        address = "203.0.113.10"
        port = 53
        server = [{ address = "10.0.0.12" }]
        "#;

    fn table(text: &str, old: Option<&Table>, ids: &mut Ids) -> Table {
        Table::compile(&config::parse(text).unwrap(), old, ids, |_, _| Standing::GOOD)
    }

    fn address(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_table_is_all_new() {
        let first = table(TEXT, None, &mut Ids::default());
        let difference = first.difference();
        assert_eq!(difference.since, None);
        assert_eq!(difference.services.len(), 2);
        assert!(difference.services.iter().all(|change| change.before.is_none()));
        let hops: Vec<_> = difference.hops.iter().map(|hop| hop.address.to_string()).collect();
        assert_eq!(hops, ["203.0.113.1", "10.0.0.11", "10.0.0.12"]);
        assert_eq!(difference.addresses.len(), 3, "{:?}", difference.addresses);
        assert!(difference.removed_hops.is_empty() && difference.removed_servers.is_empty());
    }

    #[test]
    fn what_is_the_same_is_not_mentioned() {
        let mut ids = Ids::default();
        let first = table(TEXT, None, &mut ids);
        let same = table(&TEXT.replace("203.0.113.2/24", "203.0.113.3/24"), Some(&first), &mut ids);
        let difference = same.difference();
        assert_eq!(difference.since, Some(1));
        assert!(difference.services.is_empty() && difference.removed_services.is_empty());
        assert!(difference.hops.is_empty() && difference.removed_hops.is_empty());
        let network = NetworkId(0);
        assert_eq!(difference.addresses, [(address("203.0.113.3"), network)]);
        assert_eq!(difference.removed_addresses, [(address("203.0.113.2"), network)]);
    }

    #[test]
    fn servers_are_matched_and_a_shared_hop_stays() {
        let mut ids = Ids::default();
        let first = table(TEXT, None, &mut ids);
        let web = first.services()[0].clone();
        let text = TEXT
            .replace(
                r#"[{ address = "10.0.0.11" }, { address = "10.0.0.12" }]"#,
                r#"[{ address = "10.0.0.13" }, { address = "10.0.0.12", weight = 7 }]"#,
            )
            .replace("port = 53", "port = 54");
        let second = table(&text, Some(&first), &mut ids);
        let Difference { services, removed_services, removed_servers, hops, removed_hops, .. } =
            second.difference();
        let [changed, new] = &services[..] else { panic!("{services:?}") };
        assert!(changed.before.as_ref().is_some_and(|before| Arc::ptr_eq(before, &web)));
        assert_eq!(changed.servers, [None, Some(1)]);
        assert!(new.before.is_none() && new.servers == [None]);
        assert_eq!(removed_services[..], [first.services()[1].id]);
        let removed: Vec<_> = removed_servers
            .iter()
            .map(|(service, server)| (service.ports.first, server.address.to_string()))
            .collect();
        assert_eq!(removed, [(80, "10.0.0.11".to_owned()), (53, "10.0.0.12".to_owned())]);
        assert!(Arc::ptr_eq(&removed_servers[0].0, &second.services()[0]), "the rules of now");
        assert_eq!(hops.iter().map(|hop| hop.address).collect::<Vec<_>>(), [address("10.0.0.13")]);
        let gone: Vec<_> = removed_hops.iter().map(|hop| hop.address).collect();
        assert_eq!(gone, [address("10.0.0.11")], "10.0.0.12 is still a server's");
    }
}
