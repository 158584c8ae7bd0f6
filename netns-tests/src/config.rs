//! Configurations as text, the way an operator writes them.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::mode;
use crate::rig::{
    CLIENT_TAP, GATEWAY, ROUTER_INSIDE, ROUTER_OUTSIDE, SERVERS_TAP, VIP, server_address,
};

/// One `[[service]]` at the virtual IP.
#[derive(Clone, Debug)]
pub struct Service {
    protocol: &'static str,
    port: String,
    scheduler: &'static str,
    /// One with the service of the same group before it.
    is_member: bool,
    /// Number of the server's namespace from 0, port, weight.
    servers: Vec<(usize, u16, u16)>,
    /// More lines of the service.
    more: String,
}

impl Service {
    /// Round robin over TCP, without servers.
    pub fn tcp(port: u16) -> Self {
        Self {
            protocol: "tcp",
            port: port.to_string(),
            scheduler: "rr",
            is_member: false,
            servers: Vec::new(),
            more: String::new(),
        }
    }

    /// Round robin over UDP, without servers.
    pub fn udp(port: u16) -> Self {
        Self { protocol: "udp", ..Self::tcp(port) }
    }

    /// At a range of ports, as the file says it.
    #[must_use]
    pub fn range(mut self, ports: &str) -> Self {
        self.port = format!("\"{ports}\"");
        self
    }

    /// One with a service of this group before it, which says everything else.
    #[must_use]
    pub fn member_of(mut self, group: &str) -> Self {
        self.is_member = true;
        self.with(&format!("group = \"{group}\""))
    }

    /// With another scheduler.
    #[must_use]
    pub fn scheduler(mut self, scheduler: &'static str) -> Self {
        self.scheduler = scheduler;
        self
    }

    /// With more lines of TOML.
    #[must_use]
    pub fn with(mut self, lines: &str) -> Self {
        self.more.push_str(lines);
        self.more.push('\n');
        self
    }

    /// With one more server: the namespace with that number, from 0. Port 0: where the client calls.
    #[must_use]
    pub fn server(mut self, number: usize, port: u16, weight: u16) -> Self {
        self.servers.push((number, port, weight));
        self
    }

    /// With the three servers of the rig, alike.
    #[must_use]
    pub fn three(self, port: u16) -> Self {
        (0..3).fold(self, |service, number| service.server(number, port, 1))
    }
}

/// A whole file. `folder` is for the control socket.
pub fn config(folder: &Path, services: &[Service]) -> String {
    let text = format!(
        r#"[router]
name = "lvs1"
control_socket = "{}/lvs1.sock"
max_flows = 200_000
forward = "servers-out"
unserved = "reset"
{}
[[network]]
name = "internet"
links = [{}]
addresses = ["{ROUTER_OUTSIDE}/24"]

[[network]]
name = "servers"
links = ["{SERVERS_TAP}"]
addresses = ["{ROUTER_INSIDE}/24"]

[[virtual_ip]]
address = "{VIP}"
network = "internet"

[[virtual_ip]]
address = "{GATEWAY}"
network = "servers"
"#,
        folder.display(),
        mode::router(),
        mode::client_link(CLIENT_TAP),
    );
    text + &self::services(services, "nat", server_address)
}

/// Every `[[service]]` with its servers, which are found where `address` says.
pub(crate) fn services(
    services: &[Service],
    method: &str,
    address: impl Fn(usize) -> Ipv4Addr,
) -> String {
    let mut text = String::new();
    for Service { protocol, port, scheduler, is_member, servers, more } in services {
        let how = if *is_member {
            String::new()
        } else {
            format!("method = \"{method}\"\nscheduler = \"{scheduler}\"\n")
        };
        let _infallible = write!(
            text,
            r#"
[[service]]
protocol = "{protocol}"
address = "{VIP}"
port = {port}
{how}{more}"#
        );
        for (number, port, weight) in servers {
            let address = address(*number);
            let port = match port {
                0 => String::new(),
                port => format!("port = {port}\n"),
            };
            let _infallible = write!(
                text,
                r#"
[[service.server]]
address = "{address}"
{port}weight = {weight}
"#
            );
        }
    }
    text
}
