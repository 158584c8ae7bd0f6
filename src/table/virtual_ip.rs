//! The addresses that float: where each is answered for, and who else may hold it.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use super::spread::BuildSpread;
use super::{ipv4, network_id};
use crate::addr::NetworkId;
use crate::config::{Config, Defend, Method};
use crate::time::Duration;

/// A virtual IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualIp {
    /// The address.
    pub address: Ipv4Addr,
    /// Where it is answered for.
    pub network: NetworkId,
    /// Whether the servers of a `direct` service hold it too.
    pub is_shared: bool,
    /// Who is told when somebody else claims it.
    pub defend: Defend,
    /// How often it is asked who else claims it; `None`: never.
    pub probe_interval: Option<Duration>,
}

impl VirtualIp {
    /// Whether single hosts are told when somebody else claims it.
    pub fn tells_hosts(&self) -> bool {
        self.is_shared || self.defend == Defend::Unicast
    }
}

/// All of them, in file order and by address.
#[derive(Debug)]
pub(super) struct VirtualIps {
    all: Vec<VirtualIp>,
    positions: HashMap<Ipv4Addr, usize, BuildSpread>,
}

impl VirtualIps {
    pub(super) fn compile(config: &Config) -> Self {
        let direct = config.services.iter().filter(|service| service.method == Method::Direct);
        let shared: HashSet<_> = direct.map(|service| service.address).collect();
        let compiled = config.virtual_ips.iter().filter_map(|vip| {
            let is_shared = shared.contains(&vip.address);
            // A server that watches for conflicts would give a shared address up when it hears a
            // broadcast about it.
            let fitting = if is_shared { Defend::Unicast } else { Defend::Broadcast };
            Some(VirtualIp {
                address: ipv4(vip.address)?,
                network: network_id(vip.network),
                is_shared,
                defend: vip.defend.unwrap_or(fitting),
                probe_interval: vip.probe_interval.filter(|_| is_shared),
            })
        });
        let all: Vec<_> = compiled.collect();
        let positions = all.iter().enumerate().map(|(position, vip)| (vip.address, position));
        Self { positions: positions.collect(), all }
    }

    pub(super) fn all(&self) -> &[VirtualIp] {
        &self.all
    }

    pub(super) fn find(&self, address: Ipv4Addr) -> Option<&VirtualIp> {
        self.all.get(*self.positions.get(&address)?)
    }
}
