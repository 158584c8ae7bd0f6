//! What the scenarios build around the rig: files with other words in them, and servers.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use netns_tests::tcp::EchoServer;
use netns_tests::udp::UdpEchoServer;
use netns_tests::{Outcome, Rig, Service, VIP, config, server_address};

/// The servers' own connections are seen to come from the virtual IP.
pub(crate) const MASQUERADE: &str = r#"
[[masquerade]]
from = "10.0.0.0/24"
to = "203.0.113.10"
"#;

/// The rig's file with other words in it, and more at its end.
pub(crate) fn file(
    folder: &Path,
    services: &[Service],
    changes: &[(&str, &str)],
    more: &str,
) -> String {
    let mut text = config(folder, services);
    for (old, new) in changes {
        assert!(text.contains(old), "no `{old}` in the file");
        text = text.replacen(old, new, 1);
    }
    text + more
}

/// Takes another file over while the router runs.
pub(crate) fn reload(
    rig: &Rig,
    services: &[Service],
    changes: &[(&str, &str)],
    more: &str,
) -> Outcome {
    rig.write_config(&file(rig.scratch.path(), services, changes, more))?;
    rig.router.reload()
}

/// A service with one server, written out.
pub(crate) fn service(protocol: &str, vip: (&str, u16), server: (&str, u16)) -> String {
    let ((vip, port), (server, server_port)) = (vip, server);
    let mut text = String::new();
    let _infallible = write!(
        text,
        r#"
[[service]]
protocol = "{protocol}"
address = "{vip}"
port = {port}
method = "nat"

[[service.server]]
address = "{server}"
port = {server_port}
"#
    );
    text
}

/// Another virtual IP, for [`virtual_ip`].
pub(crate) const OTHER_VIP: &str = "203.0.113.11";

/// One more address outside.
pub(crate) fn virtual_ip(address: &str) -> String {
    format!("\n[[virtual_ip]]\naddress = \"{address}\"\nnetwork = \"internet\"\n")
}

/// A way to what lies behind `via`.
pub(crate) fn route(to: &str, via: Ipv4Addr) -> String {
    format!("\n[[route]]\nto = \"{to}\"\nvia = \"{via}\"\n")
}

/// A UDP echo server in a server's namespace, named by the server's number.
pub(crate) fn udp_server(rig: &Rig, number: usize, port: u16) -> Outcome<UdpEchoServer> {
    let address = (server_address(number), port);
    UdpEchoServer::start(&rig.servers[number], address, &number.to_string())
}

/// A TCP echo server in a server's namespace, named by the server's number.
pub(crate) fn tcp_server(rig: &Rig, number: usize, port: u16) -> Outcome<EchoServer> {
    let address = (server_address(number), port);
    EchoServer::start(&rig.servers[number], address, &number.to_string())
}

/// The virtual IP as text.
pub(crate) fn vip() -> String {
    VIP.to_string()
}
