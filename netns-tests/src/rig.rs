//! A network around one router:
//!
//! ```text
//! client                     router's namespace                    three servers
//! tapvs0 ───────── tapvs ─── tapvs1 ─┬─ br0 ─┬─ s0 ──────── eth0   10.0.0.11/24
//! 203.0.113.100/24                   └       ├─ s1 ──────── eth0   10.0.0.12/24
//!                                            └─ s2 ──────── eth0   10.0.0.13/24
//! ```
//!
//! The router makes both TAPs; one becomes the client's NIC, the other a port of the servers'
//! bridge. The servers' default route is the floating gateway address.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use tapvs::links::Namespace;

use crate::cable::{add_route, give_tap, make_bridge, plug, plug_tap, within};
use crate::config::{Service, config};
use crate::{Context as _, Failure, Outcome, Router, Scratch};

/// The virtual IP of every service.
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The virtual IP that is the servers' gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The router's own address towards the client.
pub const ROUTER_OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The router's own address towards the servers.
pub const ROUTER_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The client.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 100);
/// The router's TAP that becomes the client's NIC.
pub const CLIENT_TAP: &str = "tapvs0";
/// The router's TAP among the servers.
pub const SERVERS_TAP: &str = "tapvs1";
/// The servers' bridge, in the router's namespace.
pub const BRIDGE: &str = "br0";
/// A server's NIC, in its own namespace.
pub const SERVER_NIC: &str = "eth0";

const SERVERS: usize = 3;

/// The address of a server, by its number from 0.
pub fn server_address(number: usize) -> Ipv4Addr {
    let last = 11 + u8::try_from(number).unwrap_or(u8::MAX - 11);
    Ipv4Addr::new(10, 0, 0, last)
}

/// The hosts of a network, before the router is there.
#[derive(Debug)]
pub struct Hosts {
    /// Where the client is.
    pub client: Namespace,
    /// Where the router, its TAPs and the bridges are.
    pub middle: Namespace,
    /// Where the servers are.
    pub servers: Vec<Namespace>,
}

/// The whole network, with the router running in it.
#[derive(Debug)]
pub struct Rig {
    /// Stops before its namespaces go.
    pub router: Router,
    /// Where the client is.
    pub client: Namespace,
    /// Where the router, its TAP towards the servers and the bridge are.
    pub middle: Namespace,
    /// Where the servers are.
    pub servers: Vec<Namespace>,
    /// For files.
    pub scratch: Scratch,
}

impl Rig {
    /// Builds the network and starts the router with these services.
    pub fn new(services: &[Service]) -> Outcome<Self> {
        Self::configured(|folder| config(folder, services))
    }

    /// Builds the network and starts the router with the file that `text` makes for a folder.
    pub fn configured(text: impl FnOnce(&Path) -> String) -> Outcome<Self> {
        Self::cabled(
            |hosts| cable_servers(&hosts.middle, &hosts.servers),
            text,
            |hosts| cable_router(&hosts.middle, &hosts.client),
        )
    }

    /// Builds another network: `before` makes what is there before the router starts, with the file
    /// that `text` makes for a folder; `after` has its TAPs to plug in.
    pub fn cabled(
        before: impl FnOnce(&Hosts) -> Outcome,
        text: impl FnOnce(&Path) -> String,
        after: impl FnOnce(&Hosts) -> Outcome,
    ) -> Outcome<Self> {
        let scratch = Scratch::new().context("cannot make a temporary directory")?;
        let hosts = Hosts {
            client: silent_namespace()?,
            middle: silent_namespace()?,
            servers: (0..SERVERS).map(|_| silent_namespace()).collect::<Outcome<_>>()?,
        };
        before(&hosts)?;
        let file = scratch.path().join("tapvs.toml");
        fs::write(&file, text(scratch.path()))?;
        let router = Router::start(&hosts.middle, &file)?;
        if let Err(error) = after(&hosts) {
            return Err(Failure::new(format!("{error}\n{}", router.log().join("\n"))));
        }
        let Hosts { client, middle, servers } = hosts;
        Ok(Self { router, client, middle, servers, scratch })
    }

    /// Overwrites the configuration and tells the router; returns when it has taken it over.
    pub fn reload(&self, services: &[Service]) -> Outcome {
        self.write_config(&config(self.scratch.path(), services))?;
        self.router.reload()
    }

    /// Makes a fresh TAP of the router the client's NIC, as at the start.
    pub fn cable_client(&self) -> Outcome {
        cable_client(&self.middle, &self.client)
    }

    /// Overwrites the configuration, and no more.
    pub fn write_config(&self, text: &str) -> Outcome {
        fs::write(self.router.file(), text).context(self.router.file().display())
    }
}

/// A namespace that says nothing of its own accord over IPv6.
pub fn silent_namespace() -> Outcome<Namespace> {
    let namespace = Namespace::new().context("cannot make a network namespace")?;
    for scope in ["all", "default"] {
        let sysctl = format!("net/ipv6/conf/{scope}/disable_ipv6");
        match namespace.write_sysctl(&sysctl, "1") {
            // A kernel without IPv6 is silent anyway.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(namespace)
}

/// Makes the servers' bridge and plugs them in.
pub fn cable_servers(middle: &Namespace, servers: &[Namespace]) -> Outcome {
    make_bridge(middle, BRIDGE)?;
    for (number, server) in servers.iter().enumerate() {
        let address = within(server_address(number), 24);
        plug((middle, BRIDGE, &format!("s{number}")), (server, SERVER_NIC, address))?;
        add_route(server, "0.0.0.0/0", &GATEWAY.to_string())?;
    }
    Ok(())
}

/// Plugs the router's TAPs in: one among the servers, one as the client's NIC.
pub fn cable_router(middle: &Namespace, client: &Namespace) -> Outcome {
    plug_tap(middle, BRIDGE, SERVERS_TAP)?;
    cable_client(middle, client)
}

fn cable_client(middle: &Namespace, client: &Namespace) -> Outcome {
    give_tap(middle, CLIENT_TAP, (client, within(CLIENT, 24)))
}

/// Asks again and again until it is true; `false` when it is not within `limit`.
pub fn eventually(limit: Duration, mut is_true: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if is_true() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
