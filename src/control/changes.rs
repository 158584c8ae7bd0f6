//! What differs between two configurations, and which of it a running router can take over.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::addr::Cidr;
use crate::config::{
    AttachMode, Balance, Bridge, Config, Failover, FailoverNetwork, FlowSync, Group, Health,
    Lifecycle, Link, Network, Router, SchedulerFlags, Server, Service, StatusPage, Timeouts,
    VirtualIp,
};
use crate::time::Duration;

/// The difference between the running configuration and a new one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// What is taken over, a line each.
    pub(super) applied: Vec<String>,
    /// What cannot change while the router runs, a line each.
    pub(super) needs_restart: Vec<String>,
}

impl Changes {
    // What is compared is taken apart by name, here and below: a new key cannot be forgotten.
    pub(super) fn between(old: &Config, new: &Config) -> Self {
        let mut changes = Self::default();
        let Config {
            router,
            networks,
            routes,
            virtual_ips,
            masquerades,
            services,
            status_page,
            failover,
        } = old;
        changes.router(router, &new.router);
        changes.networks(networks, &new.networks);
        changes.virtual_ips(virtual_ips, &new.virtual_ips, networks);
        changes
            .set(routes, &new.routes, |route| format!("route to {} via {}", route.to, route.via));
        changes.set(masquerades, &new.masquerades, |masquerade| {
            format!("masquerade of {} as {}", masquerade.from, masquerade.to)
        });
        changes.services(services, &new.services);
        changes.status_page(status_page.as_ref(), new.status_page.as_ref());
        changes.failover(failover.as_ref(), new.failover.as_ref(), networks);
        changes
    }

    fn router(&mut self, old: &Router, new: &Router) {
        let Router {
            name,
            control_socket,
            watch,
            max_flows,
            forward,
            unserved,
            timeouts,
            io,
            offload,
        } = old;
        self.restart("[router] name", name, &new.name);
        let socket = |path: &Option<PathBuf>| {
            path.as_ref().map_or_else(|| "none".to_owned(), |path| path.display().to_string())
        };
        self.restart(
            "[router] control_socket",
            socket(control_socket),
            socket(&new.control_socket),
        );
        self.field("[router] watch", *watch, new.watch);
        let flows =
            |max: Option<u32>| max.map_or_else(|| "by memory".to_owned(), |n| n.to_string());
        self.restart("[router] max_flows", flows(*max_flows), flows(new.max_flows));
        self.restart("[router] io", *io, new.io);
        self.restart("[router] offload", *offload, new.offload);
        self.field("[router] forward", *forward, new.forward);
        self.field("[router] unserved", *unserved, new.unserved);
        let pairs = named_timeouts(timeouts).into_iter().zip(named_timeouts(&new.timeouts));
        for ((name, was), (_, is)) in pairs {
            self.field(&format!("[router] timeout {name}"), was, is);
        }
    }

    fn status_page(&mut self, old: Option<&StatusPage>, new: Option<&StatusPage>) {
        let listen = |page: Option<&StatusPage>| optional(page.map(|page| page.listen.to_string()));
        let file = |page: Option<&StatusPage>| {
            optional(
                page.and_then(|page| page.token_file.as_ref())
                    .map(|file| file.display().to_string()),
            )
        };
        self.field("[status] listen", listen(old), listen(new));
        self.field("[status] token_file", file(old), file(new));
    }

    /// Who the other router is does not change while they talk.
    fn failover(&mut self, old: Option<&Failover>, new: Option<&Failover>, networks: &[Network]) {
        let (Some(old), Some(new)) = (old, new) else {
            let is =
                |failover: Option<&Failover>| if failover.is_some() { "given" } else { "none" };
            self.restart("[failover]", is(old), is(new));
            return;
        };
        let Failover {
            version,
            priority,
            advert_interval,
            preempt,
            preempt_delay,
            checksum,
            networks: members,
            sync,
        } = old;
        self.restart("[failover] version", *version, new.version);
        self.field("[failover] priority", *priority, new.priority);
        self.field("[failover] advert_interval", *advert_interval, new.advert_interval);
        self.field("[failover] preempt", *preempt, new.preempt);
        self.field("[failover] preempt_delay", *preempt_delay, new.preempt_delay);
        self.field("[failover] checksum", *checksum, new.checksum);
        let member = |member: &FailoverNetwork| {
            let network = networks.get(member.network).map_or("", |network| &network.name);
            format!("{network} {}", member.virtual_router_id)
        };
        self.restart("[[failover.network]]", list(members, member), list(&new.networks, member));
        for (old, new) in members.iter().zip(&new.networks) {
            let network = networks.get(old.network).map_or("", |network| &network.name);
            let key = format!("[[failover.network]] {network} track_gateway");
            self.field(&key, old.track_gateway, new.track_gateway);
            let key = format!("[[failover.network]] {network} peers");
            let peers = |member: &FailoverNetwork| list(&member.peers, ToString::to_string);
            self.field(&key, peers(old), peers(new));
        }
        self.flow_sync(sync.as_ref(), new.sync.as_ref());
    }

    fn flow_sync(&mut self, old: Option<&FlowSync>, new: Option<&FlowSync>) {
        let (Some(old), Some(new)) = (old, new) else {
            let is = |sync: Option<&FlowSync>| if sync.is_some() { "given" } else { "none" };
            self.restart("[failover.sync]", is(old), is(new));
            return;
        };
        let FlowSync { network, peer, port, key, sync_timeout, authenticate_adverts } = old;
        self.restart("[failover.sync] network", *network, new.network);
        self.restart("[failover.sync] peer", *peer, new.peer);
        self.restart("[failover.sync] port", *port, new.port);
        if *key != new.key {
            self.needs_restart.push("[failover.sync] key: another one".to_owned());
        }
        self.field("[failover.sync] sync_timeout", *sync_timeout, new.sync_timeout);
        let key = "[failover.sync] authenticate_adverts";
        self.restart(key, *authenticate_adverts, new.authenticate_adverts);
    }

    /// A network is its position: links and neighbours hang on it.
    fn networks(&mut self, old: &[Network], new: &[Network]) {
        if old.len() != new.len() {
            self.restart("the number of [[network]]", old.len(), new.len());
            return;
        }
        for (old, new) in old.iter().zip(new) {
            let Network { name, links, addresses, gateway, mtu, mss_clamp, mac, bridge } = old;
            let Bridge { mac_ageing, broadcast_limit } = *bridge;
            let key = |key| format!("network {name}: {key}");
            self.restart(&key("name"), name, &new.name);
            self.restart(&key("links"), list(links, link), list(&new.links, link));
            let text = Cidr::to_string;
            self.restart(&key("addresses"), list(addresses, text), list(&new.addresses, text));
            self.restart(&key("mtu"), *mtu, new.mtu);
            self.restart(&key("mac"), optional(*mac), optional(new.mac));
            self.field(&key("gateway"), optional(*gateway), optional(new.gateway));
            self.field(&key("mss_clamp"), optional(*mss_clamp), optional(new.mss_clamp));
            self.field(&key("mac_ageing"), mac_ageing, new.bridge.mac_ageing);
            self.field(&key("broadcast_limit"), broadcast_limit, new.bridge.broadcast_limit);
        }
    }

    fn virtual_ips(&mut self, old: &[VirtualIp], new: &[VirtualIp], networks: &[Network]) {
        let same = |a: &VirtualIp, b: &VirtualIp| (a.address, a.network) == (b.address, b.network);
        let label = |vip: &VirtualIp| {
            // Networks are compared before: the name is that of both.
            let network = networks.get(vip.network).map_or("", |network| &network.name);
            format!("virtual IP {} on {network}", vip.address)
        };
        for vip in old.iter().filter(|vip| !new.iter().any(|other| same(vip, other))) {
            self.applied.push(format!("{} removed", label(vip)));
        }
        for vip in new {
            let Some(before) = old.iter().find(|other| same(vip, other)) else {
                self.applied.push(format!("{} added", label(vip)));
                continue;
            };
            let VirtualIp { address: _, network: _, defend, probe_interval } = before;
            let key = |key: &str| format!("{}: {key}", label(vip));
            self.field(&key("defend"), optional(*defend), optional(vip.defend));
            let pace = |interval: Option<Duration>| {
                interval.map_or_else(|| "off".to_owned(), |interval| interval.to_string())
            };
            self.field(&key("probe_interval"), pace(*probe_interval), pace(vip.probe_interval));
        }
    }

    fn services(&mut self, old: &[Service], new: &[Service]) {
        let key = |service: &Service| (service.protocol, service.address, service.ports());
        let old_by_key: HashMap<_, _> = old.iter().map(|s| (key(s), s)).collect();
        let new_by_key: HashMap<_, _> = new.iter().map(|s| (key(s), s)).collect();
        for service in old.iter().filter(|s| !new_by_key.contains_key(&key(s))) {
            self.applied.push(format!("service {} removed", service.name));
        }
        for service in new {
            match old_by_key.get(&key(service)) {
                Some(before) => self.service(before, service),
                None => {
                    let (name, servers) = (&service.name, service.servers.len());
                    self.applied.push(format!("service {name} added with {servers} servers"));
                }
            }
        }
    }

    fn service(&mut self, old: &Service, new: &Service) {
        // The first four are what makes it the same service.
        let Service {
            protocol: _,
            address: _,
            port: _,
            last_port: _,
            group,
            name,
            method,
            scheduler,
            balance,
            health,
            servers,
            fallback,
            lifecycle,
        } = old;
        let key = |key: &str| format!("service {}: {key}", new.name);
        self.field(&key("name"), name, &new.name);
        self.field(&key("method"), *method, new.method);
        self.field(&key("scheduler"), *scheduler, new.scheduler);
        self.field(&key("group"), group_text(group.as_ref()), group_text(new.group.as_ref()));
        self.balance(&key, balance, &new.balance);
        if *health != new.health {
            let said = |health: &Option<Arc<Health>>| {
                health.as_ref().map_or_else(|| "none".to_owned(), |health| health.to_string())
            };
            let line = format!("health: {}, was {}", said(&new.health), said(health));
            self.applied.push(key(&line));
        }
        let new_by_endpoint: HashMap<_, _> = new.servers.iter().map(|s| (s.endpoint, s)).collect();
        let old_by_endpoint: HashMap<_, _> = servers.iter().map(|s| (s.endpoint, s)).collect();
        for server in servers.iter().filter(|s| !new_by_endpoint.contains_key(&s.endpoint)) {
            self.applied.push(key(&format!("server {} removed", server.name)));
        }
        for server in &new.servers {
            let label = format!("server {}", server.name);
            let Some(before) = old_by_endpoint.get(&server.endpoint) else {
                self.applied.push(key(&format!("{label} added with weight {}", server.weight)));
                continue;
            };
            let Server { endpoint: _, name, weight, limits } = before;
            self.field(&key(&format!("{label}: name")), name, &server.name);
            self.field(&key(&format!("{label}: weight")), *weight, server.weight);
            self.field(&key(&format!("{label}: max_flows")), limits.max, server.limits.max);
            self.field(&key(&format!("{label}: min_flows")), limits.min, server.limits.min);
        }
        let fallback_text = |fallback: &Option<Server>| {
            optional(
                fallback.as_ref().map(|server| format!("{} at {}", server.name, server.endpoint)),
            )
        };
        self.field(&key("fallback"), fallback_text(fallback), fallback_text(&new.fallback));
        let Lifecycle {
            helper,
            on_remove,
            drain_timeout,
            on_down,
            slow_start,
            passive_health,
            min_healthy,
        } = *lifecycle;
        let after = &new.lifecycle;
        self.field(&key("helper"), optional(helper), optional(after.helper));
        self.field(&key("on_remove"), on_remove, after.on_remove);
        self.field(&key("drain_timeout"), optional(drain_timeout), optional(after.drain_timeout));
        self.field(&key("on_down"), on_down, after.on_down);
        self.field(&key("slow_start"), optional(slow_start), optional(after.slow_start));
        self.field(&key("min_healthy"), optional(min_healthy), optional(after.min_healthy));
        self.field(
            &key("passive_health"),
            optional(passive_health),
            optional(after.passive_health),
        );
    }

    fn balance(&mut self, key: &dyn Fn(&str) -> String, old: &Balance, new: &Balance) {
        let Balance { flags, persistence, expire_quiescent, one_packet, timeouts } = *old;
        self.field(&key("scheduler_flags"), flags_text(flags), flags_text(new.flags));
        self.field(&key("persistence"), optional(persistence), optional(new.persistence));
        self.field(&key("expire_quiescent"), expire_quiescent, new.expire_quiescent);
        self.field(&key("one_packet"), one_packet, new.one_packet);
        let as_router = |timeouts: &Option<Timeouts>| match timeouts {
            None => "as the router's".to_owned(),
            Some(all) => {
                let all = named_timeouts(all);
                let all: Vec<_> = all.iter().map(|(name, time)| format!("{name} {time}")).collect();
                all.join(", ")
            }
        };
        self.field(&key("timeouts"), as_router(&timeouts), as_router(&new.timeouts));
    }

    /// Entries that have no fields of their own: there or not.
    fn set<T: PartialEq>(&mut self, old: &[T], new: &[T], line: impl Fn(&T) -> String) {
        let removed = old.iter().filter(|entry| !new.contains(entry));
        self.applied.extend(removed.map(|entry| format!("{} removed", line(entry))));
        let added = new.iter().filter(|entry| !old.contains(entry));
        self.applied.extend(added.map(|entry| format!("{} added", line(entry))));
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

fn group_text(group: Option<&Group>) -> String {
    let Some(Group { name, members }) = group else { return "none".to_owned() };
    let members = members.iter().map(|member| {
        let name = &member.name;
        format!("{name} at {} {}", member.protocol, member.listen())
    });
    std::iter::once(name.clone()).chain(members).collect::<Vec<_>>().join(", ")
}

fn flags_text(flags: SchedulerFlags) -> String {
    let SchedulerFlags { port, fallback } = flags;
    let words = [(port, "port"), (fallback, "fallback")];
    let words: Vec<_> = words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

const fn named_timeouts(all: &Timeouts) -> [(&'static str, Duration); 9] {
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

fn link(link: &Link) -> String {
    let offload = match link.offload {
        None => "",
        Some(true) => " with offload",
        Some(false) => " without offload",
    };
    match &link.attach {
        None => format!("{}{offload}", link.tap),
        Some(attach) => {
            let mode = match attach.mode {
                AttachMode::Bridge => "",
                AttachMode::Macvtap => " by macvtap",
            };
            let force = if attach.force { " (force)" } else { "" };
            format!("{}{offload} attached to {}{mode}{force}", link.tap, attach.nic)
        }
    }
}

fn list<T>(entries: &[T], text: impl Fn(&T) -> String) -> String {
    entries.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn optional<T: fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        Attach, Forward, Helper, Nic, OnDown, OnRemove, PassiveHealth, Scheduler, VirtualIp,
    };
    use crate::control::tests::{config, health};

    type Edit = fn(&mut Config);

    #[test]
    fn the_same_is_no_change() {
        assert_eq!(Changes::between(&config(), &config()), Changes::default());
    }

    #[test]
    fn what_a_running_router_takes_over() {
        let cases: [(Edit, &str); 21] = [
            (|c| c.router.forward = Forward::All, "[router] forward: all, was servers-out"),
            (|c| c.router.watch = true, "[router] watch: true, was false"),
            (
                |c| c.router.timeouts.udp = Duration::from_secs(30),
                "[router] timeout udp: 30.000s, was 300.000s",
            ),
            (|c| c.networks[0].gateway = None, "network internet: gateway: none, was 203.0.113.1"),
            (
                |c| c.networks[1].mss_clamp = Some(1400),
                "network servers: mss_clamp: 1400, was none",
            ),
            (|c| c.masquerades.clear(), "masquerade of 10.0.0.0/24 as 203.0.113.10 removed"),
            (|c| c.virtual_ips.clear(), "virtual IP 203.0.113.10 on internet removed"),
            (
                |c| {
                    let address = "203.0.113.11".parse().unwrap();
                    c.virtual_ips.push(VirtualIp::new(address, 1));
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
            (
                |c| c.services[0].health = Some(health()),
                "service web: health: tcp, every 2s, timeout 1s, fall 3, rise 2, initial up, was none",
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
            (
                |c| {
                    let mut sorry = c.services[0].servers[0].clone();
                    (sorry.name, sorry.endpoint.port) = ("sorry".into(), 9);
                    c.services[0].fallback = Some(sorry);
                },
                "service web: fallback: sorry at 10.0.0.11:9, was none",
            ),
            (
                |c| {
                    c.services[0].lifecycle = Lifecycle {
                        helper: Some(Helper::Ftp),
                        on_remove: OnRemove::Reset,
                        drain_timeout: Some(Duration::from_secs(60)),
                        on_down: OnDown::Reset,
                        slow_start: Some(Duration::from_secs(30)),
                        passive_health: Some(PassiveHealth::default()),
                        min_healthy: Some(1),
                    }
                },
                "service web: helper: ftp, was none\n\
                 service web: on_remove: reset, was drain\n\
                 service web: drain_timeout: 60.000s, was none\n\
                 service web: on_down: reset, was keep\n\
                 service web: slow_start: 30.000s, was none\n\
                 service web: min_healthy: 1, was none\n\
                 service web: passive_health: 5 unanswered, retry 30.000s, was none",
            ),
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
                |c| c.router.control_socket = Some("/run/x".into()),
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
                    c.networks[1].links[0].attach = Some(Attach {
                        nic: Nic::Name("eth1".into()),
                        mode: AttachMode::Bridge,
                        force: true,
                    });
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
