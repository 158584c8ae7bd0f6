//! The plan of health checks: who asks each server, from where, and when.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use super::service::{Server, Service};
use super::{Network, Routes};
use crate::config::{Config, Health};
use crate::health::{Check, Plan};
use crate::time::Duration;

/// The plan of `services`, which are compiled from those of `config`. What is the same in `previous`
/// is shared with it; all of it, where nothing has changed.
pub(super) fn compile(
    config: &Config,
    services: &[Arc<Service>],
    networks: &[Network],
    routes: &Routes,
    previous: Option<&Arc<Plan>>,
    generation: u32,
) -> Arc<Plan> {
    let mut checks = Vec::new();
    for service in services {
        let Some(health) = &service.health else { continue };
        for server in &service.servers {
            let Some(source) = source(networks, routes, server.address) else { continue };
            let before = previous.and_then(|plan| plan.of(server.id));
            let check = Check {
                server: server.id,
                since: before.map_or(generation, |before| before.since),
                source,
                target: SocketAddrV4::new(
                    server.address,
                    health.port.unwrap_or_else(|| server.port_for(service.ports.first)),
                ),
                phase: phase(&config.router.name, service, server, health),
                health: Arc::clone(health),
            };
            checks.push(match before {
                Some(before) if **before == check => Arc::clone(before),
                Some(_) | None => Arc::new(check),
            });
        }
    }
    match previous {
        Some(plan) if same(plan.checks(), &checks) => Arc::clone(plan),
        Some(_) | None => Arc::new(Plan::new(checks)),
    }
}

fn same(before: &[Arc<Check>], now: &[Arc<Check>]) -> bool {
    before.len() == now.len() && before.iter().zip(now).all(|(a, b)| Arc::ptr_eq(a, b))
}

/// The router's own address that a server sees: in the prefix of the next hop, the longest one, else
/// the first of that network.
fn source(networks: &[Network], routes: &Routes, server: Ipv4Addr) -> Option<Ipv4Addr> {
    let hop = routes.next_hop(server)?;
    networks.get(hop.network.index())?.address_beside(hop.address)
}

/// Of what makes the server the same across restarts.
fn phase(router: &str, service: &Service, server: &Server, health: &Health) -> Duration {
    let key: [&[u8]; 6] = [
        router.as_bytes(),
        &[service.proto.number()],
        &service.address.octets(),
        &service.ports.first.to_be_bytes(),
        &server.address.octets(),
        &server.port.to_be_bytes(),
    ];
    Check::phase_of(&key, health.interval)
}
