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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tapvs::links::{LinkError, Namespace, Netlink};

use crate::cable::{add_route, make_bridge, plug, plug_tap, within};
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
const ATTEMPT: Duration = Duration::from_millis(100);

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
}

impl Terms {
    /// Flows are copied, and the first router has the higher priority.
    pub const USUAL: Self =
        Self { failover: "", priorities: [200, 100], sync: true, more_sync: "", service: "" };

    /// The file of router `number`, 0 or 1.
    pub fn config(self, number: usize, folder: &str) -> String {
        let Self { failover, priorities, sync, more_sync, service } = self;
        let (own, peer) = if number == 0 { (2, 3) } else { (3, 2) };
        let (priority, mode) = (priorities[number], mode::router());
        let mut text = format!(
            r#"[router]
name = "lvs{number}"
control_socket = "{folder}/lvs{number}.sock"
max_flows = 100_000
{mode}
[[network]]
name = "internet"
links = ["out{number}"]
addresses = ["203.0.113.{own}/24"]

[[network]]
name = "servers"
links = ["in{number}"]
addresses = ["10.0.0.{own}/24"]

[[virtual_ip]]
address = "{VIP}"
network = "internet"

[[virtual_ip]]
address = "{GATEWAY}"
network = "servers"

[failover]
priority = {priority}
{failover}

[[failover.network]]
network = "internet"
virtual_router_id = 51

[[failover.network]]
network = "servers"
virtual_router_id = 52

[[service]]
name = "web"
protocol = "tcp"
address = "{VIP}"
port = 80
scheduler = "rr"
{service}
"#
        );
        for server in 0..SERVERS {
            let address = server_address(server);
            let _ = write!(
                text,
                "\n[[service.server]]\nname = \"s{server}\"\naddress = \"{address}\"\nport = {PORT}\n"
            );
        }
        if sync {
            let key = "0123456789abcdef".repeat(4);
            let _ = write!(
                text,
                "\n[failover.sync]\nnetwork = \"servers\"\npeer = \"10.0.0.{peer}\"\nkey = \"{key}\"\n\
                 {more_sync}\n"
            );
        }
        text
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
    /// The network, without a router; the servers answer.
    pub fn without_routers() -> Outcome<Self> {
        let (middle, client, observer) =
            (silent_namespace()?, silent_namespace()?, silent_namespace()?);
        make_bridge(&middle, OUTSIDE)?;
        make_bridge(&middle, INSIDE)?;
        plug((&middle, OUTSIDE, "client"), (&client, NIC, within(CLIENT, 24)))?;
        plug((&middle, OUTSIDE, "observer"), (&observer, NIC, within(OBSERVER, 24)))?;
        let (mut servers, mut echoes) = (Vec::new(), Vec::new());
        for (number, port) in ["s0", "s1", "s2"].into_iter().enumerate() {
            let server = silent_namespace()?;
            let address = server_address(number);
            plug((&middle, INSIDE, port), (&server, SERVER_NIC, within(address, 24)))?;
            add_route(&server, "0.0.0.0/0", &GATEWAY.to_string())?;
            echoes.push(EchoServer::start(&server, (address, PORT), port)?);
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
        let mut pair = Self::without_routers()?;
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
        let router = Router::start(home, &file)?;
        for (tap, bridge) in [(format!("out{number}"), OUTSIDE), (format!("in{number}"), INSIDE)] {
            let moved: Result<(), LinkError> =
                home.run(|| Netlink::new()?.move_to_namespace(&tap, self.middle.fd()));
            moved.context(format_args!("cannot move {tap}"))?;
            plug_tap(&self.middle, bridge, &tap)?;
        }
        self.routers[number] = Some(router);
        Ok(())
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

fn probe(client: &Namespace, ending: &AtomicBool) -> Gaps {
    let mut gaps = Gaps::default();
    let mut last = None;
    while !ending.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let opened: std::io::Result<TcpStream> = connect(client, SERVICE, ATTEMPT);
        let now = Instant::now();
        if opened.is_ok() {
            gaps.opened += 1;
            gaps.longest = gaps.longest.max(last.map_or(Duration::ZERO, |last| now - last));
            last = Some(now);
        } else {
            gaps.failed += 1;
        }
        thread::sleep(PACE.saturating_sub(begun.elapsed()));
    }
    // Without a success at the end there is no gap to measure.
    if last.is_none_or(|last| last.elapsed() > Duration::from_secs(1)) {
        gaps.longest = Duration::MAX;
    }
    gaps
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
