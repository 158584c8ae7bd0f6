//! Who is in the lab and which address each has; the router's configuration is written from it.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::args::Kind;
use crate::addr::{Cidr, Endpoint, MacAddr};

/// The TAP that becomes the client's NIC.
pub(super) const CLIENT_TAP: &str = "tapvs0";
/// The TAP that is bridged with the servers.
pub(super) const SERVERS_TAP: &str = "tapvs1";
/// What the router is told to be with direct routing, so that the lab knows it when it sees it; for
/// documentation (RFC 7042), like the addresses.
pub(super) const ROUTER_MAC: MacAddr = MacAddr([0x02, 0x00, 0x5e, 0x00, 0x53, 0x01]);

/// One lab network. The outside uses documentation addresses (RFC 5737).
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) client: Cidr,
    pub(super) router: Cidr,
    /// What clients connect to.
    pub(super) service: Endpoint,
    pub(super) method: Method,
    pub(super) servers: Vec<RealServer>,
}

/// How the router reaches the servers, and what it takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    /// A network of their own.
    Nat {
        /// The router's address in it.
        router_inside: Cidr,
        /// Their default gateway, a virtual IP like the service's.
        gateway: IpAddr,
    },
    /// The client's network, which the router bridges; each server holds the virtual IP too.
    Direct,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Nat { .. } => Kind::Nat,
            Self::Direct => Kind::Direct,
        };
        kind.fmt(f)
    }
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

/// Where the router can be asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Socket<'p> {
    /// Where routers are asked.
    Default,
    /// Nowhere.
    None,
    /// Here.
    At(&'p Path),
}

impl Socket<'_> {
    /// The line of the file that says so.
    pub(super) fn line(self) -> String {
        match self {
            Self::Default => String::new(),
            Self::None => "control_socket = \"none\"\n".to_owned(),
            Self::At(path) => format!("control_socket = \"{}\"\n", path.display()),
        }
    }
}

impl Plan {
    /// Weights 1, 2 and 3, so that the shares have something to show.
    pub(super) fn new(kind: Kind) -> Self {
        let outside: fn(u8) -> Cidr = |last| cidr([198, 51, 100, last], 24);
        let inside: fn(u8) -> Cidr = |last| cidr([10, 0, 0, last], 24);
        let (method, home, port) = match kind {
            Kind::Nat | Kind::Pair => {
                let gateway = inside(1).address();
                (Method::Nat { router_inside: inside(2), gateway }, inside, 8080)
            }
            Kind::Direct => (Method::Direct, outside, 80),
        };
        let server = |name, last, weight| RealServer { name, address: home(last), port, weight };
        Self {
            client: outside(2),
            router: outside(1),
            service: Endpoint { address: outside(10).address(), port: 80 },
            method,
            servers: vec![server("s1", 11, 1), server("s2", 12, 2), server("s3", 13, 3)],
        }
    }

    /// The addresses on a server's NIC.
    pub(super) fn addresses(&self, server: &RealServer) -> Vec<Cidr> {
        match self.method {
            Method::Nat { .. } => vec![server.address],
            Method::Direct => vec![server.address, host(self.service.address)],
        }
    }

    /// Where a server's process listens: the packets that reach it are addressed so.
    pub(super) const fn listen(&self, server: &RealServer) -> Endpoint {
        match self.method {
            Method::Nat { .. } => server.endpoint(),
            Method::Direct => self.service,
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

    /// As [`Plan::due`], while `down` gets nothing.
    pub(super) fn due_without(
        &self,
        down: &RealServer,
        server: &RealServer,
        requests: usize,
    ) -> usize {
        if server.name == down.name {
            return 0;
        }
        let round = self.round() - usize::from(down.weight);
        requests * usize::from(server.weight) / round.max(1)
    }

    /// The file that the lab's router runs with.
    pub(super) fn toml(&self, control_socket: Socket<'_>) -> String {
        let method = self.method;
        let networks = match method {
            Method::Nat { router_inside, gateway } => self.two_networks(router_inside, gateway),
            Method::Direct => self.one_network(),
        };
        let socket = control_socket.line();
        let services = self.services();
        format!(
            r#"# The router of `tapvs lab {method}`.
[router]
name = "lab"
{socket}
{networks}
{services}"#
        )
    }

    /// The part of a router's file that is about the service.
    pub(super) fn services(&self) -> String {
        let Endpoint { address, port } = self.service;
        let method = self.method;
        // What a client of a directly routed server sees is what it answers from the virtual IP.
        let check = match method {
            Method::Nat { .. } => "http",
            Method::Direct => "virtual_ip",
        };
        let mut text = format!(
            r#"[[service]]
name = "web"
protocol = "tcp"
address = "{address}"
port = {port}
method = "{method}"
scheduler = "wrr"
health = {{ kind = "{check}", interval = "200ms", timeout = "200ms", fall = 2, rise = 2, initial = "down" }}
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

    fn two_networks(&self, router_inside: Cidr, gateway: IpAddr) -> String {
        let Self { router, service: Endpoint { address, .. }, .. } = self;
        format!(
            r#"[[network]]
name = "clients"
links = ["{CLIENT_TAP}"]                   # moved into the client's namespace: its NIC
addresses = ["{router}"]

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
"#
        )
    }

    fn one_network(&self) -> String {
        let Self { router, service: Endpoint { address, .. }, .. } = self;
        format!(
            r#"# Two links make the router the bridge between them.
[[network]]
name = "lan"
links = ["{CLIENT_TAP}", "{SERVERS_TAP}"]         # the client's NIC, and a port of the servers' bridge
addresses = ["{router}"]
mac = "{ROUTER_MAC}"              # so that the lab knows it; it need not be given

[[virtual_ip]]                         # what clients connect to; each server holds it too
address = "{address}"
network = "lan"
"#
        )
    }
}

/// The address alone.
fn host(address: IpAddr) -> Cidr {
    Cidr::new(address, 32).expect("the lab's addresses are IPv4")
}

pub(super) fn cidr(address: [u8; 4], prefix: u8) -> Cidr {
    Cidr::new(Ipv4Addr::from(address).into(), prefix).expect("the lab's prefixes fit IPv4")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_weights() {
        let plan = Plan::new(Kind::Nat);
        assert_eq!(plan.round(), 6);
        let due: Vec<_> = plan.servers.iter().map(|server| plan.due(server, 600)).collect();
        assert_eq!(due, [100, 200, 300]);
    }

    #[test]
    fn the_file_is_right_and_names_every_server() {
        for kind in [Kind::Nat, Kind::Direct] {
            let plan = Plan::new(kind);
            let config = crate::config::parse(&plan.toml(Socket::Default)).unwrap();
            let [service] = &config.services[..] else { panic!("one service: {config:?}") };
            assert_eq!(Endpoint { address: service.address, port: service.port }, plan.service);
            assert_eq!(service.servers.len(), plan.servers.len());
            for (written, planned) in service.servers.iter().zip(&plan.servers) {
                assert_eq!(written.name, planned.name);
                assert_eq!(
                    (written.endpoint, written.weight),
                    (planned.endpoint(), planned.weight)
                );
            }
            let floats =
                |address| config.virtual_ips.iter().any(|floating| floating.address == address);
            match plan.method {
                Method::Nat { gateway, .. } => assert!(floats(gateway)),
                Method::Direct => assert_eq!(config.networks[0].mac, Some(ROUTER_MAC)),
            }
            assert!(floats(plan.service.address));
        }
    }
}
