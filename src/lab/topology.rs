//! The lab's namespaces and the devices between them:
//!
//! ```text
//! client          router                                s1, s2, s3
//! tapvs0 ──────── tapvs ─ tapvs1 ─┬─ labbr0 ─┬─ s1 ──── eth0
//!                                 └ (bridge) ├─ s2 ──── eth0
//!                                            └─ s3 ──── eth0
//! ```
//!
//! The router makes both TAPs; everything else is made here. The cables are the same whatever the
//! method: with direct routing it is the router that joins the TAPs to one network. An open fd is all
//! that keeps a namespace, and a namespace all that keeps a device: nothing outlives the process.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;

use super::plan::{CLIENT_TAP, Method, Plan, SERVERS_TAP};
use crate::addr::{Cidr, MacAddr};
use crate::links::netlink::Neighbour;
use crate::links::{LinkError, Namespace, Netlink};

/// The bridge that the servers' veths and the router's TAP are ports of.
pub(super) const BRIDGE: &str = "labbr0";
/// A server's NIC, in its own namespace.
pub(super) const SERVER_NIC: &str = "eth0";

/// One namespace per machine of the lab.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) client: Namespace,
    pub(super) router: Namespace,
    /// In the plan's order.
    pub(super) servers: Vec<Namespace>,
}

impl Topology {
    /// The machines, without a cable.
    pub(super) fn new(plan: &Plan) -> io::Result<Self> {
        Ok(Self {
            client: Namespace::new()?,
            router: Namespace::new()?,
            servers: plan.servers.iter().map(|_| Namespace::new()).collect::<io::Result<_>>()?,
        })
    }

    /// The servers' cables, which meet where the router is.
    pub(super) fn cable_servers(&self, plan: &Plan) -> Result<(), LinkError> {
        cable_servers(plan, &self.router, &self.servers)
    }

    /// Connects the running router: one TAP to the servers' bridge, the other to the client.
    pub(super) fn cable_router(&self, plan: &Plan) -> Result<(), LinkError> {
        self.router.run(|| {
            let netlink = Netlink::new()?;
            netlink.set_master(SERVERS_TAP, BRIDGE)?;
            netlink.set_up(SERVERS_TAP)?;
            netlink.move_to_namespace(CLIENT_TAP, self.client.fd())
        })?;
        self.client.run(|| {
            let netlink = Netlink::new()?;
            netlink.set_up(CLIENT_TAP)?;
            netlink.add_address(CLIENT_TAP, plan.client)
        })
    }

    /// The MAC address of each server's NIC, in the plan's order.
    pub(super) fn server_macs(&self) -> Result<Vec<MacAddr>, LinkError> {
        let mac =
            |namespace: &Namespace| namespace.run(|| Ok(Netlink::new()?.link(SERVER_NIC)?.mac));
        self.servers.iter().map(mac).collect()
    }

    /// Makes the client forget whose `address` is.
    pub(super) fn make_client_forget(&self, address: IpAddr) -> Result<(), LinkError> {
        self.client.run(|| Netlink::new()?.flush_neighbour(CLIENT_TAP, address))
    }

    /// The client's neighbour entry for `address`, if it has one.
    pub(super) fn client_neighbour(&self, address: IpAddr) -> Result<Option<Neighbour>, LinkError> {
        let all = self.client.run(|| Netlink::new()?.neighbours(CLIENT_TAP))?;
        Ok(all.into_iter().find(|neighbour| neighbour.address == address))
    }

    /// All of them, to be rid of.
    pub(super) fn into_namespaces(self) -> Vec<Namespace> {
        [self.client, self.router].into_iter().chain(self.servers).collect()
    }
}

/// The servers' cables: a bridge in the namespace of the hub and a veth to each server. With NAT
/// their default route is the floating gateway address.
pub(super) fn cable_servers(
    plan: &Plan,
    hub: &Namespace,
    servers: &[Namespace],
) -> Result<(), LinkError> {
    hub.run(|| {
        let netlink = Netlink::new()?;
        netlink.create_bridge(BRIDGE)?;
        netlink.set_silent(BRIDGE)?;
        netlink.set_up(BRIDGE)?;
        for (server, namespace) in plan.servers.iter().zip(servers) {
            netlink.create_veth(server.name, SERVER_NIC, Some(namespace.fd()))?;
            netlink.set_silent(server.name)?;
            netlink.set_master(server.name, BRIDGE)?;
            netlink.set_up(server.name)?;
        }
        Ok::<(), LinkError>(())
    })?;
    for (server, namespace) in plan.servers.iter().zip(servers) {
        namespace.run(|| {
            let netlink = Netlink::new()?;
            netlink.set_up(SERVER_NIC)?;
            for address in plan.addresses(server) {
                netlink.add_address(SERVER_NIC, address)?;
            }
            match plan.method {
                Method::Nat { gateway, .. } => netlink.add_route(default_route(), gateway),
                Method::Direct => Ok(()),
            }
        })?;
    }
    Ok(())
}

/// Lets a client there open more connections in a minute than a stock system has ports for.
pub(super) fn widen_ports(client: &Namespace) -> io::Result<()> {
    client.write_sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
    client.write_sysctl("net/ipv4/tcp_tw_reuse", "1")
}

/// Processes that are inside one of the namespaces, as far as this user may see them.
pub(super) fn inhabitants(namespaces: &[Namespace]) -> Vec<u32> {
    // What a process inside would have under `/proc`: `net:[4026532000]`.
    let names: Vec<_> = namespaces
        .iter()
        .filter_map(|all| fs::read_link(format!("/proc/self/fd/{}", all.fd().as_raw_fd())).ok())
        .collect();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut inside: Vec<u32> = processes
        .filter_map(|process| process.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|name| names.contains(&name))
        })
        .collect();
    inside.sort_unstable();
    inside
}

fn default_route() -> Cidr {
    Cidr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0).expect("0 fits every address")
}
