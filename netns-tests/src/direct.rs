//! Networks with direct routing, in its three topologies. Everybody's addresses are the [`Rig`]'s; the
//! servers hold the virtual IP too and answer the client past the router.
//!
//! ```text
//! one network     client, router (tapvs0), servers (eth0)                     all on br0
//! two networks    client, router (tapvs0), servers (eth1) on br0;  router (tapvs1), servers (eth0) on br1
//! bridged         the client's NIC is tapvs0;                      router (tapvs1), servers (eth0) on br0
//! ```

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use tapvs::addr::MacAddr;
use tapvs::links::{LinkError, Namespace, Netlink};

use crate::cable::{give_tap, make_bridge, plug, plug_tap, within};
use crate::config::{Service, services};
use crate::mode;
use crate::{
    BRIDGE, CLIENT, CLIENT_TAP, Context as _, Hosts, Outcome, ROUTER_INSIDE, ROUTER_OUTSIDE, Rig,
    SERVER_NIC, SERVERS_TAP, VIP, server_address,
};

/// The servers' own bridge, where they have one.
pub const INNER_BRIDGE: &str = "br1";
/// A server's NIC among the clients, where it has one.
pub const OUTER_NIC: &str = "eth1";
/// The router's MAC address on the clients' network.
pub const ROUTER_MAC: MacAddr = MacAddr([0x02, 0, 0x5e, 0, 0x53, 0x01]);

/// How the router, the client and the servers are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// All share a segment.
    OneNetwork,
    /// Requests leave by a second link.
    TwoNetworks,
    /// The servers hang behind the router.
    Bridged,
}

/// What has been done to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Servers {
    /// Taught to be silent: the virtual IP on the loopback, `arp_ignore` and `arp_announce`.
    Silent,
    /// Nothing: the virtual IP on the NIC.
    Stock,
}

/// A network of one of the topologies, before it is built.
#[derive(Clone, Copy, Debug)]
pub struct Direct {
    /// How it is connected.
    pub topology: Topology,
    /// Who the servers are.
    pub servers: Servers,
}

impl Direct {
    /// With servers that keep silent.
    pub const fn silent(topology: Topology) -> Self {
        Self { topology, servers: Servers::Silent }
    }

    /// With servers as they come.
    pub const fn stock(topology: Topology) -> Self {
        Self { topology, servers: Servers::Stock }
    }

    /// Builds it and starts the router with these services.
    pub fn build(self, services: &[Service]) -> Outcome<Rig> {
        self.configured(|folder| self.topology.config(folder, services))
    }

    /// Builds it and starts the router with the file that `text` makes for a folder.
    pub fn configured(self, text: impl FnOnce(&Path) -> String) -> Outcome<Rig> {
        Rig::cabled(
            |hosts| {
                self.topology.cable_hosts(hosts)?;
                hosts.servers.iter().try_for_each(|server| self.servers.hold(server, VIP))
            },
            text,
            |hosts| self.topology.cable_router(hosts),
        )
    }
}

impl Topology {
    /// Where the router finds a server, by its number from 0.
    pub fn server(self, number: usize) -> Ipv4Addr {
        match self {
            Self::OneNetwork | Self::Bridged => outer_address(number),
            Self::TwoNetworks => server_address(number),
        }
    }

    /// The client's NIC.
    pub const fn client_nic(self) -> &'static str {
        match self {
            Self::OneNetwork | Self::TwoNetworks => SERVER_NIC,
            Self::Bridged => CLIENT_TAP,
        }
    }

    /// The NIC by which a server answers the client.
    pub const fn answering_nic(self) -> &'static str {
        match self {
            Self::OneNetwork | Self::Bridged => SERVER_NIC,
            Self::TwoNetworks => OUTER_NIC,
        }
    }

    /// A whole file.
    pub fn config(self, folder: &Path, balanced: &[Service]) -> String {
        let socket = folder.join("lvs1.sock");
        let links = match self {
            Self::OneNetwork | Self::TwoNetworks => mode::client_link(CLIENT_TAP),
            Self::Bridged => format!("{}, \"{SERVERS_TAP}\"", mode::client_link(CLIENT_TAP)),
        };
        let mut text = format!(
            r#"[router]
name = "lvs1"
control_socket = "{}"
max_flows = 200_000
{}
[[network]]
name = "internet"
links = [{links}]
addresses = ["{ROUTER_OUTSIDE}/24"]
gateway = "{CLIENT}"
mac = "{ROUTER_MAC}"
"#,
            socket.display(),
            mode::router()
        );
        if self == Self::TwoNetworks {
            let _infallible = write!(
                text,
                r#"
[[network]]
name = "servers"
links = ["{SERVERS_TAP}"]
addresses = ["{ROUTER_INSIDE}/24"]
"#
            );
        }
        let _infallible = write!(
            text,
            r#"
[[virtual_ip]]
address = "{VIP}"
network = "internet"
"#
        );
        text + &services(balanced, "direct", |number| self.server(number))
    }

    fn cable_hosts(self, hosts: &Hosts) -> Outcome {
        let Hosts { client, middle, servers } = hosts;
        make_bridge(middle, BRIDGE)?;
        if self != Self::Bridged {
            plug((middle, BRIDGE, "client"), (client, SERVER_NIC, within(CLIENT, 24)))?;
        }
        if self == Self::TwoNetworks {
            make_bridge(middle, INNER_BRIDGE)?;
        }
        for (number, server) in servers.iter().enumerate() {
            let outer = within(outer_address(number), 24);
            let nic = (server, self.answering_nic(), outer);
            plug((middle, BRIDGE, &format!("s{number}")), nic)?;
            if self == Self::TwoNetworks {
                let inner = (server, SERVER_NIC, within(server_address(number), 24));
                plug((middle, INNER_BRIDGE, &format!("i{number}")), inner)?;
            }
        }
        Ok(())
    }

    fn cable_router(self, hosts: &Hosts) -> Outcome {
        let Hosts { client, middle, .. } = hosts;
        match self {
            Self::OneNetwork => plug_tap(middle, BRIDGE, CLIENT_TAP),
            Self::TwoNetworks => {
                plug_tap(middle, BRIDGE, CLIENT_TAP)?;
                plug_tap(middle, INNER_BRIDGE, SERVERS_TAP)
            }
            Self::Bridged => {
                plug_tap(middle, BRIDGE, SERVERS_TAP)?;
                give_tap(middle, CLIENT_TAP, (client, within(CLIENT, 24)))
            }
        }
    }
}

impl Servers {
    /// Gives a server a virtual IP, its care taken first.
    pub fn hold(self, server: &Namespace, vip: Ipv4Addr) -> Outcome {
        let nic = match self {
            Self::Stock => SERVER_NIC,
            Self::Silent => {
                // In this order: it must never be heard to have the address.
                server.write_sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
                server.write_sysctl("net/ipv4/conf/all/arp_announce", "2")?;
                server.write_sysctl("net/ipv4/conf/all/rp_filter", "0")?;
                for nic in [SERVER_NIC, OUTER_NIC] {
                    match server.write_sysctl(&format!("net/ipv4/conf/{nic}/rp_filter"), "0") {
                        // Not every topology has the second one.
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            return Err(error.into());
                        }
                        Ok(()) | Err(_) => {}
                    }
                }
                "lo"
            }
        };
        let held: Result<(), LinkError> =
            server.run(|| Netlink::new()?.add_address(nic, within(vip, 32)));
        held.context(format_args!("cannot add {vip} to {nic}"))
    }
}

/// A server's address in the client's network, by its number from 0.
pub fn outer_address(number: usize) -> Ipv4Addr {
    let last = 11 + u8::try_from(number).unwrap_or(u8::MAX - 11);
    Ipv4Addr::new(203, 0, 113, last)
}

/// A NIC's own MAC address.
pub fn mac(namespace: &Namespace, nic: &str) -> Outcome<MacAddr> {
    let link: Result<_, LinkError> = namespace.run(|| Netlink::new()?.link(nic));
    Ok(link?.mac)
}

/// What a host takes for the MAC address of `address`.
pub fn neighbour(host: &Namespace, nic: &str, address: Ipv4Addr) -> Outcome<Option<MacAddr>> {
    let all: Result<Vec<_>, LinkError> = host.run(|| Netlink::new()?.neighbours(nic));
    let entry = all?.into_iter().find(|entry| entry.address == address);
    Ok(entry.and_then(|entry| entry.mac))
}

/// Makes a host forget it.
pub fn forget(host: &Namespace, nic: &str, address: Ipv4Addr) -> Outcome {
    let forgotten: Result<(), LinkError> =
        host.run(|| Netlink::new()?.flush_neighbour(nic, address.into()));
    Ok(forgotten?)
}
