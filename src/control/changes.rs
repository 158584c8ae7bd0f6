//! What differs between two configurations, and which of it a running router can take over.

use std::collections::HashMap;
use std::fmt;

use crate::config::{Config, Network, Route, Server, Service, Timeouts};

/// The difference between the running configuration and a new one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// What is taken over, a line each.
    pub(super) applied: Vec<String>,
    /// What cannot change while the router runs, a line each.
    pub(super) needs_restart: Vec<String>,
}

impl Changes {
    pub(super) fn between(old: &Config, new: &Config) -> Self {
        let mut changes = Self::default();
        changes.router(old, new);
        changes.networks(old, new);
        changes.virtual_ips(old, new);
        changes.routes(old, new);
        changes.services(old, new);
        changes
    }

    fn router(&mut self, old: &Config, new: &Config) {
        let (old, new) = (&old.router, &new.router);
        self.restart("[router] name", &old.name, &new.name);
        let sockets = (old.control_socket.display(), new.control_socket.display());
        self.restart("[router] control_socket", sockets.0, sockets.1);
        let flows =
            |max: Option<u32>| max.map_or_else(|| "by memory".to_owned(), |n| n.to_string());
        self.restart("[router] max_flows", flows(old.max_flows), flows(new.max_flows));
        self.field("[router] forward", old.forward, new.forward);
        self.field("[router] unserved", old.unserved, new.unserved);
        for ((name, was), (_, is)) in
            timeouts(&old.timeouts).into_iter().zip(timeouts(&new.timeouts))
        {
            self.field(&format!("[router] timeout {name}"), was, is);
        }
    }

    /// A network is its position: links and neighbours hang on it.
    fn networks(&mut self, old: &Config, new: &Config) {
        if old.networks.len() != new.networks.len() {
            let (was, is) = (old.networks.len(), new.networks.len());
            self.restart("the number of [[network]]", was, is);
            return;
        }
        for (old, new) in old.networks.iter().zip(&new.networks) {
            let network = format!("network {}", old.name);
            self.restart(&format!("{network}: name"), &old.name, &new.name);
            self.restart(&format!("{network}: links"), links(old), links(new));
            self.restart(&format!("{network}: addresses"), addresses(old), addresses(new));
            self.restart(&format!("{network}: mtu"), old.mtu, new.mtu);
            self.restart(&format!("{network}: mac"), optional(old.mac), optional(new.mac));
            let gateways = (optional(old.gateway), optional(new.gateway));
            self.field(&format!("{network}: gateway"), gateways.0, gateways.1);
        }
    }

    fn virtual_ips(&mut self, old: &Config, new: &Config) {
        let list = |config: &Config| -> Vec<String> {
            let network = |at: usize| config.networks.get(at).map_or("", |n| n.name.as_str());
            let vips = config.virtual_ips.iter();
            vips.map(|vip| format!("virtual IP {} on {}", vip.address, network(vip.network)))
                .collect()
        };
        self.set(&list(old), &list(new));
    }

    fn routes(&mut self, old: &Config, new: &Config) {
        let line = |route: &Route| format!("route to {} via {}", route.to, route.via);
        let list = |config: &Config| config.routes.iter().map(line).collect::<Vec<_>>();
        self.set(&list(old), &list(new));
    }

    fn services(&mut self, old: &Config, new: &Config) {
        let key = |service: &Service| (service.protocol, service.address, service.port);
        let old_by_key: HashMap<_, _> = old.services.iter().map(|s| (key(s), s)).collect();
        let new_by_key: HashMap<_, _> = new.services.iter().map(|s| (key(s), s)).collect();
        for service in old.services.iter().filter(|s| !new_by_key.contains_key(&key(s))) {
            self.applied.push(format!("{} removed", named(service)));
        }
        for service in &new.services {
            match old_by_key.get(&key(service)) {
                Some(before) => self.service(before, service),
                None => {
                    let servers = service.servers.len();
                    let line = format!("{} added with {servers} servers", named(service));
                    self.applied.push(line);
                }
            }
        }
    }

    fn service(&mut self, old: &Service, new: &Service) {
        let service = named(new);
        self.field(&format!("{service}: name"), &old.name, &new.name);
        self.field(&format!("{service}: method"), old.method, new.method);
        self.field(&format!("{service}: scheduler"), old.scheduler, new.scheduler);
        let find = |servers: &[Server], server: &Server| {
            servers.iter().position(|other| other.endpoint == server.endpoint)
        };
        for server in old.servers.iter().filter(|s| find(&new.servers, s).is_none()) {
            self.applied.push(format!("{service}: {} removed", labelled(server)));
        }
        for server in &new.servers {
            let label = labelled(server);
            match find(&old.servers, server).map(|at| &old.servers[at]) {
                Some(before) => {
                    self.field(&format!("{service}: {label}: name"), &before.name, &server.name);
                    let weights = (before.weight, server.weight);
                    self.field(&format!("{service}: {label}: weight"), weights.0, weights.1);
                }
                None => {
                    let line = format!("{service}: {label} added with weight {}", server.weight);
                    self.applied.push(line);
                }
            }
        }
    }

    /// Entries that have no fields of their own: there or not.
    fn set(&mut self, old: &[String], new: &[String]) {
        let removed = old.iter().filter(|line| !new.contains(line));
        self.applied.extend(removed.map(|line| format!("{line} removed")));
        let added = new.iter().filter(|line| !old.contains(line));
        self.applied.extend(added.map(|line| format!("{line} added")));
    }

    fn field<T: fmt::Display>(&mut self, what: &str, was: T, is: T) {
        Self::note(&mut self.applied, what, &was, &is);
    }

    fn restart<T: fmt::Display>(&mut self, what: &str, was: T, is: T) {
        Self::note(&mut self.needs_restart, what, &was, &is);
    }

    fn note(list: &mut Vec<String>, what: &str, was: &dyn fmt::Display, is: &dyn fmt::Display) {
        let (was, is) = (was.to_string(), is.to_string());
        if was != is {
            list.push(format!("{what}: {is}, was {was}"));
        }
    }
}

const fn timeouts(all: &Timeouts) -> [(&'static str, crate::time::Duration); 9] {
    // Taken apart, so that a new one cannot be forgotten here.
    let Timeouts {
        syn_sent,
        syn_recv,
        established,
        fin_wait,
        time_wait,
        close,
        close_wait,
        last_ack,
        udp,
    } = *all;
    [
        ("syn_sent", syn_sent),
        ("syn_recv", syn_recv),
        ("established", established),
        ("fin_wait", fin_wait),
        ("time_wait", time_wait),
        ("close", close),
        ("close_wait", close_wait),
        ("last_ack", last_ack),
        ("udp", udp),
    ]
}

fn links(network: &Network) -> String {
    let link = |link: &crate::config::Link| match &link.attach {
        None => link.tap.clone(),
        Some(attach) => {
            let force = if attach.force { " (force)" } else { "" };
            format!("{} attached to {}{force}", link.tap, attach.nic)
        }
    };
    network.links.iter().map(link).collect::<Vec<_>>().join(", ")
}

fn addresses(network: &Network) -> String {
    network.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn optional<T: fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

fn named(service: &Service) -> String {
    format!("service {}", service.name)
}

fn labelled(server: &Server) -> String {
    format!("server {}", server.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Attach, Forward, Scheduler, VirtualIp};
    use crate::control::tests::config;
    use crate::time::Duration;

    type Edit = fn(&mut Config);

    #[test]
    fn the_same_is_no_change() {
        assert_eq!(Changes::between(&config(), &config()), Changes::default());
    }

    #[test]
    fn what_a_running_router_takes_over() {
        let cases: [(Edit, &str); 15] = [
            (|c| c.router.forward = Forward::All, "[router] forward: all, was servers-out"),
            (
                |c| c.router.timeouts.udp = Duration::from_secs(30),
                "[router] timeout udp: 30.000s, was 300.000s",
            ),
            (|c| c.networks[0].gateway = None, "network internet: gateway: none, was 203.0.113.1"),
            (|c| c.virtual_ips.clear(), "virtual IP 203.0.113.10 on internet removed"),
            (
                |c| {
                    let address = "203.0.113.11".parse().unwrap();
                    c.virtual_ips.push(VirtualIp { address, network: 1 });
                },
                "virtual IP 203.0.113.11 on servers added",
            ),
            (
                |c| c.routes[0].via = "10.0.0.8".parse().unwrap(),
                "route to 198.51.100.0/24 via 10.0.0.9 removed\n\
                 route to 198.51.100.0/24 via 10.0.0.8 added",
            ),
            (|c| c.services.clear(), "service web removed"),
            (|c| c.services[0].port = 81, "service web removed\nservice web added with 2 servers"),
            (
                |c| c.services[0].scheduler = Scheduler::RoundRobin,
                "service web: scheduler: rr, was wlc",
            ),
            (|c| c.services[0].name = "www".into(), "service www: name: www, was web"),
            (|c| c.services[0].servers[1].weight = 3, "service web: server web2: weight: 3, was 1"),
            (|c| drop(c.services[0].servers.remove(0)), "service web: server web1 removed"),
            (
                |c| {
                    let mut third = c.services[0].servers[0].clone();
                    third.name = "web3".into();
                    third.endpoint.port = 9;
                    c.services[0].servers.push(third);
                },
                "service web: server web3 added with weight 1",
            ),
            (
                |c| c.services[0].servers[0].endpoint.port = 9,
                "service web: server web1 removed\nservice web: server web1 added with weight 1",
            ),
            (|c| c.services[0].servers.swap(0, 1), ""),
        ];
        for (edit, expected) in cases {
            let mut new = config();
            edit(&mut new);
            let changes = Changes::between(&config(), &new);
            assert_eq!(changes.applied.join("\n"), expected);
            assert!(changes.needs_restart.is_empty(), "{changes:?}");
        }
    }

    #[test]
    fn what_needs_a_restart() {
        let cases: [(Edit, &str); 9] = [
            (|c| c.router.name = "lvs2".into(), "[router] name: lvs2, was lvs1"),
            (
                |c| c.router.control_socket = "/run/x".into(),
                "[router] control_socket: /run/x, was /run/tapvs/lvs1.sock",
            ),
            (|c| c.router.max_flows = Some(9), "[router] max_flows: 9, was by memory"),
            (|c| drop(c.networks.pop()), "the number of [[network]]: 1, was 2"),
            (
                |c| c.networks[0].links[0].tap = "tap7".into(),
                "network internet: links: tap7, was tapvs0",
            ),
            (
                |c| {
                    c.networks[1].links[0].attach =
                        Some(Attach { nic: "eth1".into(), force: true });
                },
                "network servers: links: tapvs1 attached to eth1 (force), was tapvs1",
            ),
            (
                |c| c.networks[0].addresses[0] = "203.0.113.3/24".parse().unwrap(),
                "network internet: addresses: 203.0.113.3/24, was 203.0.113.2/24",
            ),
            (|c| c.networks[0].mtu = 9000, "network internet: mtu: 9000, was 1500"),
            (
                |c| c.networks[0].mac = Some("02:00:00:00:00:01".parse().unwrap()),
                "network internet: mac: 02:00:00:00:00:01, was none",
            ),
        ];
        for (edit, expected) in cases {
            let mut new = config();
            edit(&mut new);
            assert_eq!(Changes::between(&config(), &new).needs_restart.join("\n"), expected);
        }
    }
}
