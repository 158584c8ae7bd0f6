//! The pair's namespaces and the cables between them:
//!
//! ```text
//!                switch             lvs1, lvs2                switch            s1, s2, s3
//! client         ┌─ client          tapvs0 ═ eth0             ┌─ lvs1-in        eth0
//! eth0 ───────── labbr1 ─ lvs1-out ─ eth0   eth1 ─ lvs1-in ── labbr0 ─ s1 ───── eth0
//!                └─ lvs2-out        tapvs1 ═ eth1             └─ lvs2-in        eth0
//! ```
//!
//! The routers join their TAPs with NICs that are there before them, so that there is no moment in
//! which one runs and hears nobody.

use std::io;

use super::plan::{INSIDE_NIC, OUTSIDE_NIC, PairPlan};
use crate::lab::topology::{BRIDGE, cable_servers};
use crate::links::{LinkError, Namespace, Netlink};

/// The bridge of the clients' side.
const CLIENTS_BRIDGE: &str = "labbr1";
/// The client's NIC, in its own namespace.
const CLIENT_NIC: &str = "eth0";
/// Its cable's other end.
const CLIENT_PORT: &str = "client";

/// One namespace per machine.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) client: Namespace,
    /// Both bridges.
    pub(super) switch: Namespace,
    pub(super) routers: [Namespace; 2],
    /// In the plan's order.
    pub(super) servers: Vec<Namespace>,
}

impl Topology {
    /// The machines, without a cable.
    pub(super) fn new(pair: &PairPlan) -> io::Result<Self> {
        let servers = pair.plan.servers.iter().map(|_| Namespace::new());
        Ok(Self {
            client: Namespace::new()?,
            switch: Namespace::new()?,
            routers: [Namespace::new()?, Namespace::new()?],
            servers: servers.collect::<io::Result<_>>()?,
        })
    }

    pub(super) fn cable(&self, pair: &PairPlan) -> Result<(), LinkError> {
        cable_servers(&pair.plan, &self.switch, &self.servers)?;
        self.switch.run(|| {
            let netlink = Netlink::new()?;
            netlink.create_bridge(CLIENTS_BRIDGE)?;
            netlink.set_silent(CLIENTS_BRIDGE)?;
            netlink.set_up(CLIENTS_BRIDGE)?;
            plug(&netlink, CLIENTS_BRIDGE, CLIENT_PORT, CLIENT_NIC, &self.client)?;
            for (router, there) in pair.routers.iter().zip(&self.routers) {
                let port = |side| format!("{}-{side}", router.name);
                plug(&netlink, CLIENTS_BRIDGE, &port("out"), OUTSIDE_NIC, there)?;
                plug(&netlink, BRIDGE, &port("in"), INSIDE_NIC, there)?;
            }
            Ok::<(), LinkError>(())
        })?;
        for router in &self.routers {
            router.run(|| {
                let netlink = Netlink::new()?;
                for nic in [OUTSIDE_NIC, INSIDE_NIC] {
                    netlink.set_silent(nic)?;
                    netlink.set_up(nic)?;
                }
                Ok::<(), LinkError>(())
            })?;
        }
        self.client.run(|| {
            let netlink = Netlink::new()?;
            netlink.set_up(CLIENT_NIC)?;
            netlink.add_address(CLIENT_NIC, pair.plan.client)
        })
    }

    /// How many cables there are.
    pub(super) fn cables(&self) -> usize {
        1 + 2 * self.routers.len() + self.servers.len()
    }

    /// All of them, to be rid of.
    pub(super) fn into_namespaces(self) -> Vec<Namespace> {
        let Self { client, switch, routers, servers } = self;
        [client, switch].into_iter().chain(routers).chain(servers).collect()
    }
}

/// A cable from a bridge here to a NIC that arises `there`.
fn plug(
    netlink: &Netlink,
    bridge: &str,
    port: &str,
    nic: &str,
    there: &Namespace,
) -> Result<(), LinkError> {
    netlink.create_veth(port, nic, Some(there.fd()))?;
    netlink.set_silent(port)?;
    netlink.set_master(port, bridge)?;
    netlink.set_up(port)
}
