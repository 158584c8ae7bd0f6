//! Services and servers as the frame path sees them, with the schedulers' static data.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::buckets::Buckets;
use super::{Ids, ipv4};
use crate::addr::{Ports, Proto, ServerId, ServiceId};
use crate::config::{
    self, Balance, Config, FlowLimits, Health, Lifecycle, Method, OnRemove, Scheduler,
};

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Stable while protocol, address and ports are; those of the first where it is a group.
    pub id: ServiceId,
    /// Its label.
    pub name: String,
    /// What it balances.
    pub proto: Proto,
    /// The virtual IP.
    pub address: Ipv4Addr,
    /// The ports clients use.
    pub ports: Ports,
    /// Where else it is found, and what of.
    pub group: Option<Group>,
    /// How its packets reach the server.
    pub method: Method,
    /// How a server is chosen.
    pub scheduler: Scheduler,
    /// What else decides about new flows.
    pub balance: Balance,
    /// How its servers are asked whether they are well.
    pub health: Option<Arc<Health>>,
    /// In file order.
    pub servers: Vec<Server>,
    /// Takes new flows when none of `servers` may.
    pub fallback: Option<Server>,
    /// What happens as servers come, go and fail.
    pub lifecycle: Lifecycle,
    /// Greatest common divisor of the positive weights; 1 without any.
    pub weight_gcd: u32,
    /// The highest weight.
    pub weight_max: u32,
    /// Which server a hash leads to, where the scheduler hashes.
    pub buckets: Option<Arc<Buckets>>,
}

/// Several services that are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What they call it.
    pub name: String,
    /// All but the first.
    pub members: Vec<Front>,
}

/// What a service is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// Its label.
    pub name: String,
    /// What is balanced.
    pub proto: Proto,
    /// The virtual IP.
    pub address: Ipv4Addr,
    /// The ports clients use.
    pub ports: Ports,
}

/// A real server of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Stable while address and port are.
    pub id: ServerId,
    /// Its label.
    pub name: String,
    /// Where it is.
    pub address: Ipv4Addr,
    /// Where it listens; 0: at the port that the client's packet goes to.
    pub port: u16,
    /// Its share as schedulers count it; 0 takes no new flows. 0 while it is down.
    pub weight: u32,
    /// Its share when it is up.
    pub configured_weight: u32,
    /// The last share above 0 that it had, as Maglev counts it.
    pub last_weight: u32,
    /// How many flows it may have.
    pub limits: FlowLimits,
    /// Whether its health allows new flows.
    pub is_up: bool,
    /// An operator wants it to take no new flows and to lose those it has.
    pub is_drained: bool,
}

impl Server {
    /// Where a flow to a service's `port` is sent to.
    pub const fn port_for(&self, port: u16) -> u16 {
        if self.port == 0 { port } else { self.port }
    }
}

/// What is known of a server besides its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether its health allows new flows.
    pub is_up: bool,
    /// An operator drains it.
    pub is_drained: bool,
}

impl Standing {
    /// Nothing is known against the server.
    pub const GOOD: Self = Self { is_up: true, is_drained: false };
}

pub(super) fn compile(
    config: &Config,
    previous: &[Arc<Service>],
    ids: &mut Ids,
    generation: u32,
    standing: &dyn Fn(&config::Service, &config::Server) -> Standing,
) -> Vec<Arc<Service>> {
    let known: HashMap<_, _> = previous.iter().map(|service| (service.key(), service)).collect();
    let compiled = config.services.iter().filter_map(|service| {
        let address = ipv4(service.address)?;
        let before = known.get(&(service.protocol, address, service.ports())).copied();
        let before_it = before.map(Arc::as_ref);
        let now = Service::compile(service, address, before_it, ids, generation, standing);
        Some(match before {
            Some(before) if **before == now => Arc::clone(before),
            Some(_) | None => Arc::new(now),
        })
    });
    compiled.collect()
}

impl Service {
    /// What makes it the same service.
    pub const fn key(&self) -> (Proto, Ipv4Addr, Ports) {
        (self.proto, self.address, self.ports)
    }

    /// Whether fewer of its servers are up than its `min_healthy`.
    pub fn is_starved(&self) -> bool {
        let up = || self.servers.iter().filter(|server| server.is_up).count();
        self.lifecycle.min_healthy.is_some_and(|least| up() < usize::from(least))
    }

    /// Its servers in file order, then the fallback.
    pub fn all_servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().chain(&self.fallback)
    }

    /// What it is found by: its own address, then those of its group.
    pub fn fronts(&self) -> impl Iterator<Item = (Proto, Ipv4Addr, Ports)> {
        let members = self.group.iter().flat_map(|group| &group.members);
        let members = members.map(|front| (front.proto, front.address, front.ports));
        std::iter::once(self.key()).chain(members)
    }

    fn compile(
        service: &config::Service,
        address: Ipv4Addr,
        before: Option<&Self>,
        ids: &mut Ids,
        generation: u32,
        standing: &dyn Fn(&config::Service, &config::Server) -> Standing,
    ) -> Self {
        let known = before.into_iter().flat_map(Self::all_servers);
        let mut known: HashMap<_, _> = known.map(|s| ((s.address, s.port), s)).collect();
        let key = (service.protocol, address, service.ports());
        let mut compile = |server: &config::Server| {
            let address = ipv4(server.endpoint.address)?;
            let port = server.endpoint.port;
            let before = known.remove(&(address, port));
            let Standing { is_up, is_drained } = standing(service, server);
            let configured_weight = u32::from(server.weight);
            let last_weight = match configured_weight {
                0 => before.map_or(0, |before| before.last_weight),
                weight => weight,
            };
            Some(Server {
                id: before.map_or_else(
                    || ids.add_server((key, address, port), generation),
                    |before| before.id,
                ),
                name: server.name.clone(),
                address,
                port,
                weight: if is_up { configured_weight } else { 0 },
                configured_weight,
                last_weight,
                limits: server.limits,
                is_up,
                is_drained,
            })
        };
        let servers: Vec<Server> = service.servers.iter().filter_map(&mut compile).collect();
        let fallback = service.fallback.as_ref().and_then(compile);
        #[expect(clippy::iter_over_hash_type, reason = "they go into a map")]
        for ((address, port), server) in known {
            // Whoever loses its connections begins anew.
            if service.lifecycle.on_remove == OnRemove::Drain {
                ids.remove_server((key, address, port), server.id);
            }
        }
        let buckets = Buckets::compile(service.scheduler, &servers, before);
        let group = service.group.as_ref().map(|group| Group {
            name: group.name.clone(),
            members: group.members.iter().filter_map(front).collect(),
        });
        Self {
            id: before.map_or_else(|| ids.service(), |before| before.id),
            name: service.name.clone(),
            proto: service.protocol,
            address,
            ports: service.ports(),
            group,
            method: service.method,
            scheduler: service.scheduler,
            balance: service.balance,
            health: service.health.clone(),
            weight_gcd: servers.iter().map(|s| s.weight).fold(0, gcd).max(1),
            weight_max: servers.iter().map(|s| s.weight).max().unwrap_or(0),
            servers,
            fallback,
            lifecycle: service.lifecycle,
            buckets,
        }
    }
}

fn front(member: &config::Member) -> Option<Front> {
    let config::Member { name, protocol, address, ports } = member;
    let address = ipv4(*address)?;
    Some(Front { name: name.clone(), proto: *protocol, address, ports: *ports })
}

/// The greatest common divisor; of 0 and another number, that.
pub(crate) const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
