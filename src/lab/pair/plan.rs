//! The two routers of the pair: who they are, and the file of each.

use std::net::IpAddr;

use crate::addr::Cidr;
use crate::lab::args::Kind;
use crate::lab::plan::{Method, Plan, Socket, cidr};
use crate::links::seed;

/// A router's NIC on the clients' side.
pub(super) const OUTSIDE_NIC: &str = "eth0";
/// A router's NIC on the servers' side.
pub(super) const INSIDE_NIC: &str = "eth1";

/// One of the two routers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Router {
    pub(super) name: &'static str,
    pub(super) outside: Cidr,
    pub(super) inside: Cidr,
    pub(super) priority: u8,
}

/// The lab network with two routers in it.
#[derive(Clone, Debug)]
pub(in crate::lab) struct PairPlan {
    /// Everything but the routers.
    pub(in crate::lab) plan: Plan,
    /// The first one is active while both are well.
    pub(super) routers: [Router; 2],
    /// What both prove to each other that they know; drawn anew for each lab.
    key: String,
}

impl PairPlan {
    pub(in crate::lab) fn new() -> Self {
        let router = |name, last, priority| Router {
            name,
            outside: cidr([198, 51, 100, last], 24),
            inside: cidr([10, 0, 0, last], 24),
            priority,
        };
        let key = [seed(), seed()].into_iter().flatten().map(|byte| format!("{byte:02x}"));
        Self {
            plan: Plan::new(Kind::Pair),
            routers: [router("lvs1", 3, 200), router("lvs2", 4, 100)],
            key: key.collect(),
        }
    }

    /// The servers' default gateway, which floats like the service's address.
    pub(super) fn gateway(&self) -> Option<IpAddr> {
        match self.plan.method {
            Method::Nat { gateway, .. } => Some(gateway),
            Method::Direct => None,
        }
    }

    /// Both files, one after the other.
    pub(in crate::lab) fn files(&self) -> String {
        let both = [0, 1].map(|position| self.toml(position, Socket::Default));
        both.join("\n# --------\n\n")
    }

    /// The file of the router at that position.
    pub(super) fn toml(&self, position: usize, control_socket: Socket<'_>) -> String {
        let Router { name, outside, inside, priority } = self.routers[position];
        let peer = self.routers[1 - position].inside.address();
        let socket = control_socket.line();
        let service = self.plan.service.address;
        let gateway = self.gateway().map(|gateway| gateway.to_string()).unwrap_or_default();
        let (key, services) = (&self.key, self.plan.services());
        format!(
            r#"# {name}, one of the two routers of `tapvs lab pair`.
[router]
name = "{name}"
{socket}
[[network]]
name = "clients"
links = [{{ tap = "tapvs0", attach = "{OUTSIDE_NIC}" }}]
addresses = ["{outside}"]

[[network]]
name = "servers"
links = [{{ tap = "tapvs1", attach = "{INSIDE_NIC}" }}]
addresses = ["{inside}"]

[[virtual_ip]]                         # what clients connect to
address = "{service}"
network = "clients"

[[virtual_ip]]                         # the servers' default gateway
address = "{gateway}"
network = "servers"

[failover]
priority = {priority}
advert_interval = "100ms"
preempt_delay = "1s"                   # a router that has come back first finds all servers

[[failover.network]]
network = "clients"
virtual_router_id = 51

[[failover.network]]
network = "servers"
virtual_router_id = 52

[failover.sync]
network = "servers"
peer = "{peer}"
key = "{key}"      # drawn at random

{services}"#
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_files_are_right_and_about_each_other() {
        let pair = PairPlan::new();
        let configs =
            [0, 1].map(|at| crate::config::parse(&pair.toml(at, Socket::Default)).unwrap());
        let [first, second] = configs.clone().map(|config| config.failover.unwrap());
        assert!(first.priority > second.priority);
        let [one, two] = [first, second].map(|failover| failover.sync.unwrap());
        assert_eq!(one.key, two.key);
        for (config, peer) in [(&configs[0], two.peer), (&configs[1], one.peer)] {
            let own = config.networks.iter().flat_map(|network| &network.addresses);
            assert!(own.into_iter().any(|own| own.address() == IpAddr::from(peer)));
        }
        assert_eq!(configs[0].virtual_ips, configs[1].virtual_ips);
        assert_eq!(configs[0].services, configs[1].services);
        let floats = |address| configs[0].virtual_ips.iter().any(|vip| vip.address == address);
        assert!(floats(pair.plan.service.address) && floats(pair.gateway().unwrap()));
    }

    #[test]
    fn no_two_labs_share_a_key() {
        assert_ne!(PairPlan::new().key, PairPlan::new().key);
        assert_eq!(PairPlan::new().key.len(), 64);
    }
}
