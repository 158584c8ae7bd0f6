//! A network around one machine:
//!
//! ```text
//! client ── outside ── vm0 [machine] vm1 ── inside ── three servers
//! ```

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use netns_tests::cable::{add_route, make_bridge, plug, plug_tap, within};
use netns_tests::tcp::EchoServer;
use netns_tests::{
    CLIENT, Context as _, GATEWAY, Outcome, SERVER_NIC, Scratch, VIP, ensure, eventually, raw,
    server_address, silent_namespace,
};
use std::time::Duration;
use tapvs::links::{Namespace, Netlink};
use tapvs_image::disk::config_disk;

use crate::qemu::{Boot, Machine, PATIENCE, Vm};

/// The bridge of the clients, and of the servers.
pub(crate) const OUTSIDE: &str = "outside";
pub(crate) const INSIDE: &str = "inside";
pub(crate) const NIC: &str = "eth0";
/// Of every server.
pub(crate) const PORT: u16 = 8_080;

/// The hosts, without a machine.
pub(crate) struct Network {
    pub(crate) middle: Namespace,
    pub(crate) client: Namespace,
    pub(crate) servers: Vec<Namespace>,
    pub(crate) scratch: Scratch,
    _echoes: Vec<EchoServer>,
}

impl Network {
    pub(crate) fn new() -> Outcome<Self> {
        let (middle, client) = (silent_namespace()?, silent_namespace()?);
        make_bridge(&middle, OUTSIDE)?;
        make_bridge(&middle, INSIDE)?;
        plug((&middle, OUTSIDE, "client"), (&client, NIC, within(CLIENT, 24)))?;
        let (mut servers, mut echoes) = (Vec::new(), Vec::new());
        for (number, port) in ["s0", "s1", "s2"].into_iter().enumerate() {
            let server = silent_namespace()?;
            let address = server_address(number);
            plug((&middle, INSIDE, port), (&server, SERVER_NIC, within(address, 24)))?;
            add_route(&server, "0.0.0.0/0", &GATEWAY.to_string())?;
            echoes.push(EchoServer::start(&server, (address, PORT), port)?);
            servers.push(server);
        }
        let scratch = Scratch::new().context("cannot make a temporary directory")?;
        Ok(Self { middle, client, servers, scratch, _echoes: echoes })
    }

    /// Starts a machine with two NICs, one in each network; `number` tells it from others.
    pub(crate) fn machine(
        &self,
        number: usize,
        boot: Boot,
        memory: u32,
        disks: Vec<PathBuf>,
    ) -> Outcome<Vm> {
        let bridges = [OUTSIDE, INSIDE];
        let nics: Vec<_> = (0..bridges.len())
            .map(|nic| (format!("vm{number}n{nic}"), format!("52:54:00:00:{number:02x}:{nic:02x}")))
            .collect();
        let machine = Machine { boot, memory, nics: nics.clone(), disks };
        let vm = Vm::start(&self.middle, &self.scratch, &machine)?;
        for ((tap, _), bridge) in nics.iter().zip(bridges) {
            let there =
                || self.middle.run(|| Netlink::new().and_then(|netlink| netlink.link(tap))).is_ok();
            ensure!(eventually(Duration::from_secs(20), there), "QEMU makes no {tap}");
            plug_tap(&self.middle, bridge, tap)?;
        }
        Ok(vm)
    }

    /// A disk labelled TAPVS with this configuration.
    pub(crate) fn disk(&self, name: &str, toml: &str) -> Outcome<PathBuf> {
        self.disk_with(name, &[("tapvs.toml", toml.as_bytes())])
    }

    pub(crate) fn disk_with(&self, name: &str, files: &[(&str, &[u8])]) -> Outcome<PathBuf> {
        let path = self.scratch.path().join(name);
        let bytes = config_disk(files).context("a disk")?;
        fs::write(&path, bytes)?;
        Ok(path)
    }

    /// Gives the client one more address.
    pub(crate) fn client_address(&self, address: Ipv4Addr) -> Outcome {
        let added = self.client.run(|| Netlink::new()?.add_address(NIC, within(address, 24)));
        added.context("cannot give the client an address")
    }

    /// Pings until there is an answer.
    pub(crate) fn answers(&self, address: Ipv4Addr) -> Outcome {
        let answered = eventually(PATIENCE, || raw::ping(&self.client, address, 56).is_ok());
        ensure!(answered, "{address} does not answer ping in {} s", PATIENCE.as_secs());
        Ok(())
    }

    /// Whether a ping is answered now.
    pub(crate) fn answers_now(&self, address: Ipv4Addr) -> bool {
        raw::ping(&self.client, address, 56).is_ok()
    }
}

/// NAT between both networks, the service at port 80 of the virtual IP.
pub(crate) fn nat(more: &str) -> String {
    nat_with("tap = \"tapvs0\", attach = \"eth0\"", "tap = \"tapvs1\", attach = \"eth1\"", more)
}

/// The same with other links.
pub(crate) fn nat_with(outside: &str, inside: &str, more: &str) -> String {
    let mut text = format!(
        r#"[router]
name = "lvs1"
max_flows = 100_000

[[network]]
name = "internet"
links = [{{ {outside} }}]
addresses = ["203.0.113.2/24"]

[[network]]
name = "servers"
links = [{{ {inside} }}]
addresses = ["10.0.0.2/24"]

[[virtual_ip]]
address = "{VIP}"
network = "internet"

[[virtual_ip]]
address = "{GATEWAY}"
network = "servers"

{more}

[[service]]
name = "web"
protocol = "tcp"
address = "{VIP}"
port = 80
scheduler = "rr"
health = {{ kind = "tcp" }}
"#
    );
    for server in 0..3 {
        let address = server_address(server);
        text.push_str(&format!("\n[[service.server]]\naddress = \"{address}\"\nport = {PORT}\n"));
    }
    text
}
