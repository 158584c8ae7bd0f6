//! A network around two routers that share the virtual IPs:
//!
//! ```text
//! client, observer ── outside ─┬─ out0 ─ tapvs ─ in0 ─┬─ inside ── three servers
//!                              └─ out1 ─ tapvs ─ in1 ─┘
//! ```
//!
//! Each router runs in a namespace of its own; its TAPs are ports of two bridges in a third one, and go
//! when the router dies, as a machine's ports would.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tapvs::links::{LinkError, Namespace, Netlink};

use crate::cable::{add_route, make_bridge, plug, plug_tap, within};
use crate::config::{Service, services};
use crate::direct::{Servers, outer_address};
use crate::mode;
use crate::rig::{CLIENT, GATEWAY, SERVER_NIC, VIP, server_address, silent_namespace};
use crate::tcp::{Client, EchoServer, connect};
use crate::{Context as _, Failure, Outcome, Router, Scratch, ensure, eventually};

/// The bridge between clients and routers.
pub const OUTSIDE: &str = "outside";
/// The bridge between routers and servers.
pub const INSIDE: &str = "inside";
/// The client's NIC, and the observer's.
pub const NIC: &str = "eth0";
/// Where the service is.
pub const SERVICE: (Ipv4Addr, u16) = (VIP, 80);

const SERVERS: usize = 3;
const OBSERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 101);
const PORT: u16 = 8_080;
/// For a role to be taken on, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// From one attempt of the prober to the next, and how long each may take.
const PACE: Duration = Duration::from_millis(10);
/// How old a connection has to be to live on in any case.
const SETTLED: Duration = Duration::from_secs(1);
const ATTEMPT: Duration = Duration::from_millis(500);

/// What the two routers are to be, besides being a pair.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Lines of `[failover]` that both have.
    pub failover: &'static str,
    /// Priorities.
    pub priorities: [u8; 2],
    /// Whether flows are copied.
    pub sync: bool,
    /// More lines of `[failover.sync]`.
    pub more_sync: &'static str,
    /// More lines of the service.
    pub service: &'static str,
    /// More lines of the service at each router.
    pub service_of: [&'static str; 2],
    /// The gateway that each router tracks outside.
    pub gateways: Option<[Ipv4Addr; 2]>,
    /// More services, which both have; of a NAT pair.
    pub more_services: fn() -> Vec<Service>,
    /// How the routers are plugged in.
    pub plugs: Plugs,
    /// What is between clients and servers.
    pub shape: Shape,
}

/// How a router is joined to the bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugs {
    /// Its TAPs are ports themselves.
    Taps,
    /// Each TAP is attached to a NIC of the router's namespace, whose other end is the port: its cable
    /// can be pulled.
    Nics,
}

/// What the pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// NAT between two networks.
    Nat,
    /// Direct routing in one network, which the routers bridge: clients outside, servers inside.
    Bridged,
    /// Direct routing, with everybody outside.
    OneNetwork,
}

impl Shape {
    /// The address and port of server `number`.
    fn server(self, number: usize) -> (Ipv4Addr, u16) {
        match self {
            Self::Nat => (server_address(number), PORT),
            Self::Bridged | Self::OneNetwork => (outer_address(number), SERVICE.1),
        }
    }

    /// Where it listens.
    fn listens(self, number: usize) -> (Ipv4Addr, u16) {
        if self == Self::Nat { self.server(number) } else { SERVICE }
    }

    /// The bridge that the servers are plugged into.
    const fn servers_at(self) -> &'static str {
        if matches!(self, Self::OneNetwork) { OUTSIDE } else { INSIDE }
    }
}

impl Terms {
    /// Flows are copied, and the first router has the higher priority.
    pub const USUAL: Self = Self {
        failover: "",
        priorities: [200, 100],
        sync: true,
        more_sync: "",
        service: "",
        service_of: [""; 2],
        gateways: None,
        more_services: Vec::new,
        plugs: Plugs::Taps,
        shape: Shape::Nat,
    };

    /// The file of router `number`, 0 or 1.
    pub fn config(self, number: usize, folder: &str) -> String {
        let Self { failover, priorities, service, .. } = self;
        let (priority, mode) = (priorities[number], mode::router());
        let (networks, adverts) = self.networks(number);
        let method = if self.shape == Shape::Nat { "nat" } else { "direct" };
        let own_lines = self.service_of[number];
        let mut text = format!(
            r#"[router]
name = "lvs{number}"
control_socket = "{folder}/lvs{number}.sock"
max_flows = 200_000
{mode}

{networks}
[failover]
priority = {priority}
{failover}

{adverts}
[[service]]
name = "web"
protocol = "tcp"
address = "{VIP}"
port = 80
method = "{method}"
scheduler = "rr"
{service}
{own_lines}
"#
        );
        for server in 0..SERVERS {
            let (address, port) = self.shape.server(server);
            let _ = write!(
                text,
                "\n[[service.server]]\nname = \"s{server}\"\naddress = \"{address}\"\nport = {port}\n"
            );
        }
        text += &services(&(self.more_services)(), method, server_address);
        text + &self.copying(number)
    }

    /// The networks with their virtual IPs, and those that adverts run on.
    fn networks(self, number: usize) -> (String, String) {
        let own = number + 2;
        let link = |name: &str| match self.plugs {
            Plugs::Taps => format!("\"{name}{number}\""),
            Plugs::Nics => format!(
                "{{ tap = \"{name}{number}\", attach = {{ nic = \"{name}-nic\", mode = \"bridge\" }} }}"
            ),
        };
        let gateway = self.gateways.map(|gateways| format!("gateway = \"{}\"\n", gateways[number]));
        let track = if self.gateways.is_some() { "track_gateway = true\n" } else { "" };
        let links = match self.shape {
            Shape::Nat | Shape::OneNetwork => link("out"),
            Shape::Bridged => format!("{}, {}", link("out"), link("in")),
        };
        let mut networks = format!(
            "[[network]]\nname = \"internet\"\nlinks = [{links}]\naddresses = [\"203.0.113.{own}/24\"]\n{}\n\
             [[virtual_ip]]\naddress = \"{VIP}\"\nnetwork = \"internet\"\n",
            gateway.unwrap_or_default()
        );
        let advert = |network: &str, id: u8, more: &str| {
            format!(
                "[[failover.network]]\nnetwork = \"{network}\"\nvirtual_router_id = {id}\n{more}\n"
            )
        };
        let mut adverts = advert("internet", 51, track);
        if self.shape == Shape::Nat {
            let _ = write!(
                networks,
                "\n[[network]]\nname = \"servers\"\nlinks = [{}]\naddresses = [\"10.0.0.{own}/24\"]\n\n\
                 [[virtual_ip]]\naddress = \"{GATEWAY}\"\nnetwork = \"servers\"\n",
                link("in")
            );
            adverts += &advert("servers", 52, "");
        }
        (networks, adverts)
    }

    fn copying(self, number: usize) -> String {
        if !self.sync {
            return String::new();
        }
        let (network, prefix) = match self.shape {
            Shape::Nat => ("servers", "10.0.0"),
            Shape::Bridged | Shape::OneNetwork => ("internet", "203.0.113"),
        };
        let (peer, key, more) = (3 - number, "0123456789abcdef".repeat(4), self.more_sync);
        format!(
            "\n[failover.sync]\nnetwork = \"{network}\"\npeer = \"{prefix}.{peer}\"\nkey = \"{key}\"\n{more}\n"
        )
    }
}

/// The network, with as many of its routers as have been started.
#[derive(Debug)]
pub struct Pair {
    /// Where each router runs, if it does.
    pub routers: [Option<Router>; 2],
    /// Where it runs.
    pub homes: [Namespace; 2],
    /// Where the bridges are.
    pub middle: Namespace,
    /// Where the client is.
    pub client: Arc<Namespace>,
    /// Where somebody looks at the wire outside.
    pub observer: Namespace,
    /// Where the servers are.
    pub servers: Vec<Namespace>,
    /// Where the files are.
    pub scratch: Scratch,
    _echoes: Vec<EchoServer>,
}

impl Pair {
    /// The network of a pair that does NAT, without a router; the servers answer.
    pub fn without_routers() -> Outcome<Self> {
        Self::empty(Shape::Nat)
    }

    /// The network, without a router; the servers answer.
    pub fn empty(shape: Shape) -> Outcome<Self> {
        let (middle, client, observer) =
            (silent_namespace()?, silent_namespace()?, silent_namespace()?);
        make_bridge(&middle, OUTSIDE)?;
        make_bridge(&middle, INSIDE)?;
        plug((&middle, OUTSIDE, "client"), (&client, NIC, within(CLIENT, 24)))?;
        plug((&middle, OUTSIDE, "observer"), (&observer, NIC, within(OBSERVER, 24)))?;
        let (mut servers, mut echoes) = (Vec::new(), Vec::new());
        for (number, port) in ["s0", "s1", "s2"].into_iter().enumerate() {
            let server = silent_namespace()?;
            let (address, _) = shape.server(number);
            let nic = (&server, SERVER_NIC, within(address, 24));
            plug((&middle, shape.servers_at(), port), nic)?;
            if shape == Shape::Nat {
                add_route(&server, "0.0.0.0/0", &GATEWAY.to_string())?;
            } else {
                Servers::Silent.hold(&server, VIP)?;
            }
            echoes.push(EchoServer::start(&server, shape.listens(number), port)?);
            servers.push(server);
        }
        Ok(Self {
            routers: [None, None],
            homes: [silent_namespace()?, silent_namespace()?],
            middle,
            client: Arc::new(client),
            observer,
            servers,
            scratch: Scratch::new().context("cannot make a temporary directory")?,
            _echoes: echoes,
        })
    }

    /// The network with both routers: the first is active, and the other one has been told of all
    /// flows where they are copied.
    pub fn new(terms: Terms) -> Outcome<Self> {
        let mut pair = Self::empty(terms.shape)?;
        pair.start(0, terms)?;
        pair.wait_until_active(0, 0)?;
        pair.start(1, terms)?;
        pair.wait_until_ready(1, terms)?;
        Ok(pair)
    }

    /// Starts router `number` and plugs it in.
    pub fn start(&mut self, number: usize, terms: Terms) -> Outcome {
        let folder = self.scratch.path().display().to_string();
        let file = self.scratch.path().join(format!("lvs{number}.toml"));
        fs::write(&file, terms.config(number, &folder))?;
        let home = &self.homes[number];
        let both = [("out", OUTSIDE), ("in", INSIDE)];
        let used = if terms.shape == Shape::OneNetwork { &both[..1] } else { &both };
        if terms.plugs == Plugs::Nics {
            for (name, bridge) in used {
                self.lay_cable(number, name, bridge)?;
            }
        }
        let router = Router::start(home, &file)?;
        for (name, bridge) in used.iter().filter(|_| terms.plugs == Plugs::Taps) {
            let tap = format!("{name}{number}");
            let moved: Result<(), LinkError> =
                home.run(|| Netlink::new()?.move_to_namespace(&tap, self.middle.fd()));
            moved.context(format_args!("cannot move {tap}"))?;
            plug_tap(&self.middle, bridge, &tap)?;
        }
        self.routers[number] = Some(router);
        Ok(())
    }

    /// A NIC for a TAP to be attached to, unless it is there from before; the port is `NAME-NUMBER`.
    fn lay_cable(&self, number: usize, name: &str, bridge: &str) -> Outcome {
        let (home, nic, port) =
            (&self.homes[number], format!("{name}-nic"), format!("{name}-{number}"));
        let is_there = home.run(|| Netlink::new().is_ok_and(|netlink| netlink.link(&nic).is_ok()));
        if is_there {
            return Ok(());
        }
        let laid: Result<(), LinkError> = self
            .middle
            .run(|| {
                let netlink = Netlink::new()?;
                netlink.create_veth(&port, &nic, Some(home.fd()))?;
                netlink.set_master(&port, bridge)?;
                netlink.set_up(&port)
            })
            .and_then(|()| home.run(|| Netlink::new()?.set_up(&nic)));
        laid.context(format_args!("cannot make {nic}"))
    }

    /// Pulls the cable of a port of the bridges, or plugs it in again.
    pub fn set_port(&self, port: &str, is_up: bool) -> Outcome {
        let done: Result<(), LinkError> = self.middle.run(|| {
            let netlink = Netlink::new()?;
            if is_up { netlink.set_up(port) } else { netlink.set_down(port) }
        });
        done.context(format_args!("cannot change {port}"))
    }

    /// Router `number`, which runs.
    pub fn router(&self, number: usize) -> Outcome<&Router> {
        self.routers[number].as_ref().ok_or_else(|| gone(number))
    }

    /// Kills router `number` on the spot.
    pub fn kill(&mut self, number: usize) {
        self.routers[number] = None;
    }

    /// Asks router `number` to stop, and waits until it has.
    pub fn stop(&mut self, number: usize) -> Outcome {
        let mut router = self.routers[number].take().ok_or_else(|| gone(number))?;
        router.stop().map(drop)
    }

    /// Waits until router `number` says that it is active, after the first `from` lines of its log.
    pub fn wait_until_active(&self, number: usize, from: usize) -> Outcome<String> {
        self.router(number)?.wait_for(from, &["role=active"])
    }

    /// Waits until router `number` could take over: it has all flows, or hears the other one.
    pub fn wait_until_ready(&self, number: usize, terms: Terms) -> Outcome {
        if terms.sync {
            return self.router(number)?.wait_for(0, &["all flows of the active"]).map(drop);
        }
        let heard = || self.status(number).is_ok_and(|status| status.contains("\"peer\":{"));
        ensure!(eventually(PATIENCE, heard), "router {number} does not hear the other one");
        Ok(())
    }

    /// What `tapvs status --json` says of router `number`.
    pub fn status(&self, number: usize) -> Outcome<String> {
        self.ask(number, &["status", "--json"])
    }

    /// The role that router `number` says it has.
    pub fn role(&self, number: usize) -> Outcome<String> {
        let status: serde_json::Value = serde_json::from_str(&self.status(number)?)?;
        let role = status["failover"]["role"].as_str();
        role.map(str::to_owned).ok_or_else(|| Failure::new(format!("no role in {status}")))
    }

    /// What a command says to router `number`.
    pub fn ask(&self, number: usize, arguments: &[&str]) -> Outcome<String> {
        let socket = self.scratch.path().join(format!("lvs{number}.sock"));
        let asked = std::process::Command::new(crate::tapvs())
            .args(arguments)
            .arg("--socket")
            .arg(socket)
            .output()
            .context("cannot start tapvs")?;
        let said = String::from_utf8_lossy(&asked.stdout).into_owned();
        let errors = String::from_utf8_lossy(&asked.stderr);
        ensure!(asked.status.success(), "{arguments:?}: {errors}");
        Ok(said)
    }

    /// Opens so many connections that stay, and lets the other router hear of them.
    pub fn connections(&self, count: usize) -> Outcome<Vec<Client>> {
        let opened = (0..count).map(|_| Client::connect(&self.client, SERVICE)).collect();
        thread::sleep(SETTLED);
        opened
    }

    /// Opens a new connection from a new port every 10 ms while `event` happens, and for `after` more;
    /// returns the longest time between two successes, with what `event` returned.
    pub fn probed<T>(
        &mut self,
        after: Duration,
        event: impl FnOnce(&mut Self) -> Outcome<T>,
    ) -> Outcome<(Gaps, T)> {
        let client = Arc::clone(&self.client);
        let ending = AtomicBool::new(false);
        thread::scope(|scope| {
            let prober = scope.spawn(|| probe(&client, &ending));
            // It has to have succeeded before.
            thread::sleep(Duration::from_millis(200));
            let done = event(self);
            thread::sleep(after);
            ending.store(true, Ordering::Relaxed);
            let gaps = prober.join().map_err(|_| Failure::new("the prober panicked"))?;
            Ok((gaps, done?))
        })
    }

    /// All logs, for a failure.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for (number, router) in self.routers.iter().enumerate() {
            let Some(router) = router else { continue };
            let _ = write!(text, "--- router {number} ---\n{}\n", router.log().join("\n"));
        }
        text
    }
}

/// What a prober has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gaps {
    /// Connections opened.
    pub opened: usize,
    /// Connections that were not.
    pub failed: usize,
    /// The longest time from one success to the next.
    pub longest: Duration,
}

/// Every attempt has a thread of its own, so that one that is lost holds up no other.
fn probe(client: &Namespace, ending: &AtomicBool) -> Gaps {
    let attempts = AtomicUsize::new(0);
    let successes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let begun = Instant::now();
        for number in 0_u32.. {
            if ending.load(Ordering::Relaxed) {
                return;
            }
            scope.spawn(|| {
                attempts.fetch_add(1, Ordering::Relaxed);
                let opened: std::io::Result<TcpStream> = connect(client, SERVICE, ATTEMPT);
                if opened.is_ok() {
                    successes.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                }
            });
            thread::sleep((PACE * (number + 1)).saturating_sub(begun.elapsed()));
        }
    });
    let mut times = successes.into_inner().unwrap_or_else(PoisonError::into_inner);
    times.sort();
    let opened = times.len();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
    // Without a success at the end there is no gap to measure.
    let is_measured = times.last().is_some_and(|last| last.elapsed() < Duration::from_secs(1));
    let longest = longest.filter(|_| is_measured).unwrap_or(Duration::MAX);
    Gaps { opened, failed: attempts.into_inner() - opened, longest }
}

/// Each of these connections still works, and with the server that it was opened to.
pub fn all_work(connections: &mut [Client]) -> Outcome {
    for (number, connection) in connections.iter_mut().enumerate() {
        connection.echo(b"still there?").context(format_args!("connection {number}"))?;
    }
    Ok(())
}

fn gone(number: usize) -> Failure {
    Failure::new(format!("router {number} does not run"))
}
