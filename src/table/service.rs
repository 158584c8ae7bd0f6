//! Services and servers as the frame path sees them, with the schedulers' static data.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::{Ids, ipv4};
use crate::addr::{Proto, ServerId, ServiceId};
use crate::config::{self, Config, Health, Lifecycle, Method, Scheduler};

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Stable while protocol, address and port are.
    pub id: ServiceId,
    /// Its label.
    pub name: String,
    /// What it balances.
    pub proto: Proto,
    /// The virtual IP.
    pub address: Ipv4Addr,
    /// The port clients use.
    pub port: u16,
    /// How its packets reach the server.
    pub method: Method,
    /// How a server is chosen.
    pub scheduler: Scheduler,
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
    /// Where it listens.
    pub port: u16,
    /// Its share as schedulers count it; 0 takes no new flows. 0 while it is down.
    pub weight: u32,
    /// Its share when it is up.
    pub configured_weight: u32,
    /// Whether its health allows new flows.
    pub is_up: bool,
    /// An operator wants it to take no new flows and to lose those it has.
    pub is_drained: bool,
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
    standing: &dyn Fn(&config::Service, &config::Server) -> Standing,
) -> Vec<Arc<Service>> {
    let key = |service: &Service| (service.proto, service.address, service.port);
    let known: HashMap<_, _> = previous.iter().map(|service| (key(service), service)).collect();
    let compiled = config.services.iter().filter_map(|service| {
        let address = ipv4(service.address)?;
        let before = known.get(&(service.protocol, address, service.port)).copied();
        let now = Service::compile(service, address, before.map(Arc::as_ref), ids, standing);
        Some(match before {
            Some(before) if **before == now => Arc::clone(before),
            Some(_) | None => Arc::new(now),
        })
    });
    compiled.collect()
}

impl Service {
    /// Whether fewer of its servers are up than its `min_healthy`.
    pub fn is_starved(&self) -> bool {
        let up = || self.servers.iter().filter(|server| server.is_up).count();
        self.lifecycle.min_healthy.is_some_and(|least| up() < usize::from(least))
    }

    /// Its servers in file order, then the fallback.
    pub fn all_servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().chain(&self.fallback)
    }

    fn compile(
        service: &config::Service,
        address: Ipv4Addr,
        before: Option<&Self>,
        ids: &mut Ids,
        standing: &dyn Fn(&config::Service, &config::Server) -> Standing,
    ) -> Self {
        let known = before.into_iter().flat_map(Self::all_servers);
        let known: HashMap<_, _> = known.map(|s| ((s.address, s.port), s.id)).collect();
        let mut compile = |server: &config::Server| {
            let address = ipv4(server.endpoint.address)?;
            let port = server.endpoint.port;
            let id = known.get(&(address, port)).copied();
            let Standing { is_up, is_drained } = standing(service, server);
            let configured_weight = u32::from(server.weight);
            Some(Server {
                id: id.unwrap_or_else(|| ids.server()),
                name: server.name.clone(),
                address,
                port,
                weight: if is_up { configured_weight } else { 0 },
                configured_weight,
                is_up,
                is_drained,
            })
        };
        let servers: Vec<Server> = service.servers.iter().filter_map(&mut compile).collect();
        let fallback = service.fallback.as_ref().and_then(compile);
        Self {
            id: before.map_or_else(|| ids.service(), |before| before.id),
            name: service.name.clone(),
            proto: service.protocol,
            address,
            port: service.port,
            method: service.method,
            scheduler: service.scheduler,
            health: service.health.clone(),
            weight_gcd: servers.iter().map(|s| s.weight).fold(0, gcd).max(1),
            weight_max: servers.iter().map(|s| s.weight).max().unwrap_or(0),
            servers,
            fallback,
            lifecycle: service.lifecycle,
        }
    }
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
