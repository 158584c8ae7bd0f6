//! The network around one forwarder: a client, the forwarder, a server, each in a namespace of its own.
//!
//! ```text
//! raw, tapvs       client ── TAP ─ forwarder ─ TAP ── server       the only way there is
//! kernel, proxies  client ── veth ─ namespace ─ veth ── server     the same
//! ```
//!
//! There is one server, the TAPs themselves are the NICs of client and server, and nothing is bridged: what is
//! measured is the forwarder. Everything is gone with the process, however it ends.

use std::fs;
use std::io::BufRead as _;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use netns_tests::cable::{add_route, cable, cidr, give_tap, make_router};
use netns_tests::{Context as _, Failure, Outcome, Router, Scratch, ensure, silent_namespace};
use tapvs::links::netlink::Statistics;
use tapvs::links::{LinkError, Namespace, Netlink};

use crate::contestant::{Io, Kind, Method, Mode};
use crate::proxy;
use crate::raw::READY;

/// The client's NIC.
pub(crate) const CLIENT_NIC: &str = "bench0";
/// The server's NIC.
pub(crate) const SERVER_NIC: &str = "bench1";
pub(crate) const CLIENT: &str = "10.1.0.100";
/// What clients connect to where addresses are translated.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
/// A server that is on the client's network: raw and direct.
pub(crate) const NEAR_SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
/// A server behind NAT.
pub(crate) const FAR_SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 11);
const MTU: u32 = 1_500;
/// How TCP finds out how much a path carries: the first that a namespace may have here. Not whatever the host has:
/// BBR paces a stream by what it has measured, and that hides what the forwarder could carry.
const CONGESTION: [&str; 2] = ["cubic", "reno"];

/// What servers listen on.
pub(crate) mod port {
    pub(crate) const SMALL: u16 = 7_001;
    pub(crate) const PING: u16 = 7_002;
    pub(crate) const BULK: u16 = 7_003;
    pub(crate) const HTTP: u16 = 7_004;

    pub(crate) const UDP: [u16; 2] = [SMALL, PING];
    pub(crate) const TCP: [u16; 2] = [BULK, HTTP];
}

/// A network with its forwarder running.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) kind: Kind,
    /// Ends before its namespaces go.
    forwarder: Forwarder,
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
    _middle: Namespace,
    _scratch: Scratch,
    /// What the client sends to.
    pub(crate) target: Ipv4Addr,
    /// What the server listens on.
    pub(crate) listen: Ipv4Addr,
}

#[derive(Debug)]
enum Forwarder {
    Kernel,
    Child(Process),
    Tapvs(Router),
}

/// Killed when dropped.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Stage {
    /// Builds it. Must be called by a thread that lives as long as the stage: children die with theirs.
    pub(crate) fn build(kind: Kind, max_flows: Option<u32>) -> Outcome<Self> {
        let scratch = Scratch::new().context("cannot make a temporary directory")?;
        let (client, middle) = (silent_namespace()?, silent_namespace()?);
        let server = silent_namespace()?;
        for namespace in [&client, &middle, &server] {
            set_congestion(namespace)?;
            // A stream must not begin with what another one has found out.
            namespace.write_sysctl("net/ipv4/tcp_no_metrics_save", "1")?;
        }
        for namespace in [&client, &middle] {
            // A new connection per request takes more ports than a stock system has.
            namespace.write_sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
        }
        let (target, listen) = match kind {
            Kind::Raw(..) => (NEAR_SERVER, NEAR_SERVER),
            Kind::Tapvs(Method::Direct, ..) => (VIP, VIP),
            Kind::Tapvs(Method::Nat, ..) | Kind::Kernel | Kind::Haproxy | Kind::Nginx => {
                (VIP, FAR_SERVER)
            }
        };
        let forwarder = match kind {
            Kind::Raw(mode, io) => {
                let child = start_raw(&middle, mode, io)?;
                give_taps(&middle, &client, &server, "10.1.0.11/16")?;
                Forwarder::Child(child)
            }
            Kind::Tapvs(method, mode, io) => {
                let file = scratch.path().join("tapvs.toml");
                let socket = scratch.path().join("tapvs.sock");
                let lines = mode_lines(mode, io, has_modes());
                let text = tapvs_config(method, &lines, max_flows, &socket.to_string_lossy());
                fs::write(&file, text)?;
                let router = Router::start(&middle, &file)?;
                let inside = match method {
                    Method::Nat => "10.2.0.11/24",
                    Method::Direct => "10.1.0.11/16",
                };
                give_taps(&middle, &client, &server, inside)?;
                match method {
                    Method::Nat => add_route(&server, "0.0.0.0/0", "10.2.0.1")?,
                    Method::Direct => hold_silently(&server)?,
                }
                Forwarder::Tapvs(router)
            }
            Kind::Kernel | Kind::Haproxy | Kind::Nginx => {
                cable((&client, CLIENT_NIC, "10.1.0.100/16"), (&middle, "m0", "10.1.0.2/16"), MTU)?;
                cable((&middle, "m1", "10.2.0.1/24"), (&server, SERVER_NIC, "10.2.0.11/24"), MTU)?;
                let vip = cidr(&format!("{VIP}/16"));
                middle.run(|| Netlink::new()?.add_address("m0", vip)).context("the VIP")?;
                add_route(&server, "0.0.0.0/0", "10.2.0.1")?;
                match kind {
                    Kind::Kernel => {
                        make_router(&middle)?;
                        proxy::load_nft(&middle, scratch.path())?;
                        Forwarder::Kernel
                    }
                    Kind::Nginx => {
                        Forwarder::Child(Process(proxy::nginx(&middle, scratch.path())?))
                    }
                    Kind::Raw(..) | Kind::Tapvs(..) | Kind::Haproxy => {
                        Forwarder::Child(Process(proxy::haproxy(&middle, scratch.path())?))
                    }
                }
            }
        };
        if kind.is_proxy() {
            proxy::wait_until_it_listens(&client, scratch.path())?;
        }
        Ok(Self {
            kind,
            forwarder,
            client,
            server,
            _middle: middle,
            _scratch: scratch,
            target,
            listen,
        })
    }

    /// The forwarder's process, where it has one.
    pub(crate) fn pid(&self) -> Option<u32> {
        match &self.forwarder {
            Forwarder::Kernel => None,
            Forwarder::Child(process) => Some(process.0.id()),
            Forwarder::Tapvs(router) => Some(router.id()),
        }
    }

    /// The router, if it is tapvs.
    pub(crate) fn router(&self) -> Option<&Router> {
        match &self.forwarder {
            Forwarder::Tapvs(router) => Some(router),
            Forwarder::Kernel | Forwarder::Child(_) => None,
        }
    }

    /// What the server's NIC has counted.
    pub(crate) fn server_nic(&self) -> Outcome<Statistics> {
        statistics(&self.server, SERVER_NIC)
    }
}

/// The congestion control of all streams, by name.
pub(crate) fn congestion() -> Outcome<&'static str> {
    set_congestion(&silent_namespace()?)
}

fn set_congestion(namespace: &Namespace) -> Outcome<&'static str> {
    let set = |name: &&str| namespace.write_sysctl("net/ipv4/tcp_congestion_control", name);
    let chosen = CONGESTION.into_iter().find(|name| set(name).is_ok());
    chosen.ok_or_else(|| {
        Failure::new(format!("no namespace may have one of {} here", CONGESTION.join(", ")))
    })
}

fn statistics(namespace: &Namespace, nic: &str) -> Outcome<Statistics> {
    let link = namespace.run(|| Netlink::new()?.link(nic));
    Ok(link.context(format_args!("the counters of {nic}"))?.statistics)
}

fn start_raw(middle: &Namespace, mode: Mode, io: Io) -> Outcome<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["forward", "--taps", CLIENT_NIC, SERVER_NIC]);
    if mode == Mode::Vnet {
        command.arg("--vnet");
    }
    if io == Io::Uring {
        command.arg("--batched");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = Process(middle.spawn(&mut command).context("the raw forwarder")?);
    let mut line = String::new();
    if let Some(said) = child.0.stdout.take() {
        std::io::BufReader::new(said).read_line(&mut line)?;
    }
    ensure!(line.trim_end() == READY, "the raw forwarder did not start");
    Ok(child)
}

/// The forwarder's TAPs become the NICs of client and server.
fn give_taps(middle: &Namespace, client: &Namespace, server: &Namespace, inside: &str) -> Outcome {
    give_tap(middle, CLIENT_NIC, (client, cidr(&format!("{CLIENT}/16"))))?;
    give_tap(middle, SERVER_NIC, (server, cidr(inside)))
}

/// As a real server for direct routing is set up by the book.
fn hold_silently(server: &Namespace) -> Outcome {
    server.write_sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
    server.write_sysctl("net/ipv4/conf/all/arp_announce", "2")?;
    let held: Result<(), LinkError> =
        server.run(|| Netlink::new()?.add_address("lo", cidr(&format!("{VIP}/32"))));
    held.context("cannot give the server the virtual IP")
}

/// What `tapvs run` is given; the lines that choose a mode are of [`mode_lines`].
fn tapvs_config(
    method: Method,
    (router, offload): &(String, String),
    max_flows: Option<u32>,
    socket: &str,
) -> String {
    let most = max_flows.map_or_else(String::new, |most| format!("max_flows = {most}\n"));
    let link = |name: &str| format!("{{ tap = \"{name}\"{offload} }}");
    let (outer, inner) = (link(CLIENT_NIC), link(SERVER_NIC));
    let networks = match method {
        Method::Nat => format!(
            r#"[[network]]
name = "clients"
links = [{outer}]
addresses = ["10.1.0.2/16"]

[[network]]
name = "servers"
links = [{inner}]
addresses = ["10.2.0.2/24"]

[[virtual_ip]]
address = "10.2.0.1"
network = "servers"
"#
        ),
        Method::Direct => format!(
            r#"[[network]]
name = "clients"
links = [{outer}, {inner}]
addresses = ["10.1.0.2/16"]
"#
        ),
    };
    let (method, server) = match method {
        Method::Nat => ("nat", FAR_SERVER),
        Method::Direct => ("direct", NEAR_SERVER),
    };
    let service = |protocol: &str, port: &u16| {
        format!(
            r#"
[[service]]
protocol = "{protocol}"
address = "{VIP}"
port = {port}
method = "{method}"
scheduler = "rr"

[[service.server]]
address = "{server}"
port = {port}
"#
        )
    };
    let services: String = port::UDP
        .iter()
        .map(|port| service("udp", port))
        .chain(port::TCP.iter().map(|port| service("tcp", port)))
        .collect();
    format!(
        r#"[router]
name = "bench"
control_socket = "{socket}"
{most}{router}
{networks}
[[virtual_ip]]
address = "{VIP}"
network = "clients"
{services}"#
    )
}

/// Lines for `[router]` and more of each link, that choose a mode.
fn mode_lines(mode: Mode, io: Io, has_modes: bool) -> (String, String) {
    if !has_modes {
        return (String::new(), String::new());
    }
    let io = match io {
        Io::Syscall => "syscall",
        Io::Uring => "uring",
    };
    (format!("io = \"{io}\"\n"), format!(", offload = {}", mode == Mode::Vnet))
}

/// Whether tapvs can run like this, by its own `check`; the error says why not.
pub(crate) fn tapvs_can(method: Method, mode: Mode, io: Io) -> Result<(), String> {
    let lines = mode_lines(mode, io, has_modes());
    is_valid(&tapvs_config(method, &lines, None, "/run/tapvs/bench.sock"))
}

fn is_valid(text: &str) -> Result<(), String> {
    let check = || -> Outcome<Result<(), String>> {
        let scratch = Scratch::new()?;
        let file = scratch.path().join("tapvs.toml");
        fs::write(&file, text)?;
        let output = Command::new(netns_tests::tapvs()).arg("check").arg(&file).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let refused = said.replace(&*file.to_string_lossy(), "FILE");
        Ok(if output.status.success() { Ok(()) } else { Err(refused) })
    };
    check().unwrap_or_else(|failure| Err(failure.to_string()))
}

/// Whether this tapvs knows `io` and `offload`; one that does not has plain TAPs, read and written one by one.
pub(crate) fn has_modes() -> bool {
    static HAS_MODES: OnceLock<bool> = OnceLock::new();
    *HAS_MODES.get_or_init(|| {
        let lines = mode_lines(Mode::Plain, Io::Syscall, true);
        is_valid(&tapvs_config(Method::Nat, &lines, None, "/run/tapvs/bench.sock")).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tapvs_is_given_is_a_valid_file() {
        // The keys of modes are as new as the modes: without them it must be valid in any version.
        let lines = mode_lines(Mode::Vnet, Io::Uring, false);
        for method in [Method::Nat, Method::Direct] {
            let text = tapvs_config(method, &lines, Some(1_200_000), "/run/x.sock");
            let config = tapvs::config::parse(&text)
                .unwrap_or_else(|mistakes| panic!("{}", mistakes.display("generated")));
            assert_eq!(config.services.len(), port::UDP.len() + port::TCP.len());
        }
    }

    #[test]
    fn a_mode_is_a_key_of_the_router_and_one_of_each_link() {
        let lines = mode_lines(Mode::Vnet, Io::Uring, true);
        let text = tapvs_config(Method::Nat, &lines, None, "/run/x.sock");
        assert!(text.contains("io = \"uring\"") && text.matches("offload = true").count() == 2);
        let plain = mode_lines(Mode::Plain, Io::Syscall, true);
        let text = tapvs_config(Method::Direct, &plain, None, "/run/x.sock");
        assert!(text.contains("io = \"syscall\"") && text.matches("offload = false").count() == 2);
        assert!(!text.contains("max_flows"));
    }
}
