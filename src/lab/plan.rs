//! Who is in the lab and which address each has; the router's configuration is written from it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use crate::addr::{Cidr, Endpoint};

/// The TAP that becomes the client's NIC.
pub(super) const CLIENT_TAP: &str = "tapvs0";
/// The TAP that is bridged with the servers.
pub(super) const SERVERS_TAP: &str = "tapvs1";

/// One lab network. The outside uses documentation addresses (RFC 5737).
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) client: Cidr,
    pub(super) router_outside: Cidr,
    pub(super) router_inside: Cidr,
    /// What clients connect to.
    pub(super) service: Endpoint,
    /// The servers' default gateway, a virtual IP like the service's.
    pub(super) gateway: IpAddr,
    pub(super) servers: Vec<RealServer>,
}

/// One real server.
#[derive(Clone, Copy, Debug)]
pub(super) struct RealServer {
    pub(super) name: &'static str,
    pub(super) address: Cidr,
    pub(super) port: u16,
    pub(super) weight: u16,
}

impl RealServer {
    pub(super) const fn endpoint(&self) -> Endpoint {
        Endpoint { address: self.address.address(), port: self.port }
    }
}

impl Plan {
    /// NAT with weights 1, 2 and 3, so that the shares have something to show.
    pub(super) fn nat() -> Self {
        let server = |name, last, weight| RealServer {
            name,
            address: cidr([10, 0, 0, last], 24),
            port: 8080,
            weight,
        };
        Self {
            client: cidr([198, 51, 100, 2], 24),
            router_outside: cidr([198, 51, 100, 1], 24),
            router_inside: cidr([10, 0, 0, 2], 24),
            service: Endpoint { address: Ipv4Addr::new(198, 51, 100, 10).into(), port: 80 },
            gateway: Ipv4Addr::new(10, 0, 0, 1).into(),
            servers: vec![server("s1", 11, 1), server("s2", 12, 2), server("s3", 13, 3)],
        }
    }

    /// The sum of all weights: how many requests one round of the scheduler takes.
    pub(super) fn round(&self) -> usize {
        self.servers.iter().map(|server| usize::from(server.weight)).sum()
    }

    /// How many of `requests` a server is due.
    pub(super) fn due(&self, server: &RealServer, requests: usize) -> usize {
        requests * usize::from(server.weight) / self.round()
    }

    /// The file that the lab's router runs with.
    pub(super) fn toml(&self) -> String {
        let Self { router_outside, router_inside, service, gateway, .. } = self;
        let Endpoint { address, port } = service;
        let mut text = format!(
            r#"# The router of `tapvs lab nat`.
[router]
name = "lab"

[[network]]
name = "clients"
links = ["{CLIENT_TAP}"]                   # moved into the client's namespace: its NIC
addresses = ["{router_outside}"]

[[network]]
name = "servers"
links = ["{SERVERS_TAP}"]                   # bridged with one veth per server
addresses = ["{router_inside}"]

[[virtual_ip]]                         # what clients connect to
address = "{address}"
network = "clients"

[[virtual_ip]]                         # the servers' default gateway
address = "{gateway}"
network = "servers"

[[service]]
name = "web"
protocol = "tcp"
address = "{address}"
port = {port}
method = "nat"
scheduler = "wrr"
"#
        );
        for RealServer { name, address, port, weight } in &self.servers {
            let address = address.address();
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "\n[[service.server]]\nname = \"{name}\"\naddress = \"{address}\"\n\
                 port = {port}\nweight = {weight}\n"
            );
        }
        text
    }
}

fn cidr(address: [u8; 4], prefix: u8) -> Cidr {
    Cidr::new(Ipv4Addr::from(address).into(), prefix).expect("the lab's prefixes fit IPv4")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_weights() {
        let plan = Plan::nat();
        assert_eq!(plan.round(), 6);
        let due: Vec<_> = plan.servers.iter().map(|server| plan.due(server, 600)).collect();
        assert_eq!(due, [100, 200, 300]);
    }

    #[test]
    fn the_file_is_right_and_names_every_server() {
        let plan = Plan::nat();
        let config = crate::config::parse(&plan.toml()).unwrap();
        let [service] = &config.services[..] else { panic!("one service: {config:?}") };
        assert_eq!(Endpoint { address: service.address, port: service.port }, plan.service);
        assert_eq!(service.servers.len(), plan.servers.len());
        for (written, planned) in service.servers.iter().zip(&plan.servers) {
            assert_eq!(written.name, planned.name);
            assert_eq!((written.endpoint, written.weight), (planned.endpoint(), planned.weight));
        }
        assert!(config.virtual_ips.iter().any(|floating| floating.address == plan.gateway));
    }
}
