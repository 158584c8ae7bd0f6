//! A real server with a NIC and an address of its own, a client, and what is seen from outside.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use netns_tests::tcp::{Client, EchoServer};
use netns_tests::udp::{self, UdpEchoServer};
use netns_tests::{Context as _, Failure, Outcome, Scratch, ensure, silent_namespace, tapvs};
use tapvs::addr::MacAddr;
use tapvs::links::tap::Tap;
use tapvs::links::{LinkError, Namespace, Netlink};

use crate::program::{output, path_from, shell, text};
use crate::wire::{Arp, Wire};

pub(crate) const NIC: &str = "eth0";
pub(crate) const RIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
/// One inside the servers' network, one outside.
pub(crate) const VIPS: [Ipv4Addr; 2] =
    [Ipv4Addr::new(10, 0, 0, 10), Ipv4Addr::new(203, 0, 113, 10)];
pub(crate) const TCP_PORT: u16 = 80;
pub(crate) const UDP_PORT: u16 = 53;

/// An answer comes within this; what has not come by then does not come.
const QUIET: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(5);

/// Server, client and the wire between them.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) server: Namespace,
    pub(crate) client: Namespace,
    pub(crate) scratch: Scratch,
    /// Before all others in the `PATH` of programs on the server.
    pub(crate) programs: Option<PathBuf>,
    wire: Wire,
    server_mac: MacAddr,
    client_mac: MacAddr,
}

/// How `tapvs realserver` ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) words: String,
}

impl Site {
    /// With default settings; the client knows the virtual IPs' MAC, as if the router had said it.
    pub(crate) fn new() -> Outcome<Self> {
        let (server, client) = (silent_namespace()?, silent_namespace()?);
        let nic = |namespace: &Namespace, address: Ipv4Addr| {
            namespace.run(|| {
                let tap = Tap::open(NIC, 1_500)?;
                let netlink = Netlink::new()?;
                let address = format!("{address}/24").parse().expect("an address with a prefix");
                netlink.add_address(NIC, address)?;
                Ok::<_, LinkError>((tap, netlink.link(NIC)?.mac))
            })
        };
        let (server_tap, server_mac) = nic(&server, RIP)?;
        let (client_tap, client_mac) = nic(&client, CLIENT)?;
        let wire = Wire::new(server_tap, client_tap);
        for vip in VIPS {
            let route = format!("ip route replace {vip}/32 dev {NIC}");
            let entry =
                format!("ip neighbour replace {vip} lladdr {server_mac} dev {NIC} nud permanent");
            shell(&client, &format!("{route}; {entry}"), None)?;
        }
        let scratch = Scratch::new()?;
        Ok(Self { server, client, scratch, programs: None, wire, server_mac, client_mac })
    }

    /// Where the records are.
    pub(crate) fn state(&self) -> PathBuf {
        self.scratch.path().join("state")
    }

    /// Runs `tapvs realserver` on the server.
    pub(crate) fn realserver(&self, arguments: &[&str]) -> Outcome<Said> {
        let mut command = Command::new(tapvs());
        command.arg("realserver").args(arguments).env("PATH", path_from(self.programs.as_deref()));
        if arguments[0] != "print" {
            command.arg("--state-directory").arg(self.state());
        }
        let output = output(&self.server, &mut command)?;
        let (out, words) = (text(&output.stdout), text(&output.stderr));
        Ok(Said { code: output.status.code(), out, words })
    }

    /// As [`Site::realserver`], and it must exit with 0.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> Outcome<String> {
        let said = self.realserver(arguments)?;
        ensure!(said.code == Some(0), "{arguments:?}: {said:?}");
        Ok(said.out)
    }

    /// Everything on the server that a method may change: addresses, sysctls, rules.
    pub(crate) fn snapshot(&self) -> Outcome<String> {
        let mut all = self.server.run(|| {
            let mut all = String::new();
            let netlink = Netlink::new()?;
            for link in netlink.links()? {
                let mut addresses: Vec<_> =
                    netlink.addresses(&link.name)?.iter().map(ToString::to_string).collect();
                addresses.sort();
                let _ = writeln!(all, "{}: {}", link.name, addresses.join(" "));
            }
            sysctls(Path::new("/proc/sys/net/ipv4/conf"), &mut all)?;
            Ok::<_, Failure>(all)
        })?;
        let programs = self.programs.as_deref();
        all.push_str(&shell(&self.server, "arptables -L -n 2>&1", programs)?);
        let rules = shell(&self.server, "nft --stateless list ruleset", programs)?;
        // What arptables on nftables has made once it never takes away.
        all.push_str(&without_empty_filter(&rules));
        Ok(all)
    }

    /// How the server answers a question for `target`: broadcast from the client, broadcast without
    /// a sender, and unicast. Every answer names the server itself, or a virtual IP.
    pub(crate) fn who_has(&self, target: Ipv4Addr) -> Outcome<usize> {
        let nobody = Ipv4Addr::UNSPECIFIED;
        let questions = [
            (MacAddr::BROADCAST, CLIENT),
            (MacAddr::BROADCAST, nobody),
            (self.server_mac, CLIENT),
            (self.server_mac, nobody),
        ];
        self.wire.said();
        let mut answers = 0;
        for (to, asker) in questions {
            let sender = (self.client_mac, asker);
            self.wire.ask_server(&Arp { to, is_reply: false, sender, target })?;
            let end = Instant::now() + QUIET;
            let mut answered = false;
            while Instant::now() < end && !answered {
                std::thread::sleep(Duration::from_millis(5));
                answered = self.wire.said().iter().any(|a| a.is_reply && a.sender.1 == target);
            }
            answers += usize::from(answered);
        }
        Ok(answers)
    }

    /// A TCP connection and a datagram to `vip`, answered from there, while the server has to find
    /// the client by ARP. Returns all ARP that the server sent meanwhile.
    pub(crate) fn traffic(&self, vip: Ipv4Addr, udp_at: Ipv4Addr) -> Outcome<Vec<Arp>> {
        let _tcp = EchoServer::start(&self.server, (Ipv4Addr::UNSPECIFIED, TCP_PORT), "rs")?;
        let _udp = UdpEchoServer::start(&self.server, (udp_at, UDP_PORT), "rs")?;
        self.forget_client()?;
        self.wire.said();
        let mut client = Client::connect(&self.client, (vip, TCP_PORT)).context(vip)?;
        ensure!(client.seen_as.ip() == CLIENT, "{vip}: seen as {}", client.seen_as);
        client.echo(&vec![7; 100_000])?;
        client.close()?;
        self.forget_client()?;
        let socket = udp::client(&self.client, CLIENT, (vip, UDP_PORT))?;
        let answer = udp::ask(&socket, b"hello").context(vip)?;
        ensure!(answer.ends_with(" hello"), "{vip}: {answer}");
        Ok(self.wire.said())
    }

    /// Makes the server ask for the client again.
    fn forget_client(&self) -> Outcome {
        self.server.run(|| Netlink::new()?.flush_neighbour(NIC, CLIENT.into()))?;
        Ok(())
    }

    /// Whether the server answers for itself: without that, silence would prove nothing.
    pub(crate) fn is_alive(&self) -> Outcome {
        let answers = self.who_has(RIP)?;
        ensure!(answers == 4, "{answers} of 4 questions for the server itself were answered");
        let client = udp::client(&self.client, CLIENT, (RIP, UDP_PORT))?;
        client.set_read_timeout(Some(PATIENCE))?;
        let _udp = UdpEchoServer::start(&self.server, (RIP, UDP_PORT), "rs")?;
        udp::ask(&client, b"alive").context("the server itself").map(drop)
    }
}

/// Without a `table arp filter` that has no rules.
fn without_empty_filter(rules: &str) -> String {
    let mut rest = String::new();
    for table in rules.split_inclusive("\n}\n") {
        let is_frame = |line: &str| {
            let line = line.trim();
            line.is_empty() || line.ends_with(['{', '}', ';'])
        };
        if !(table.starts_with("table arp filter {") && table.lines().all(is_frame)) {
            rest.push_str(table);
        }
    }
    rest
}

/// Says which lines differ, if any do.
pub(crate) fn same(what: &str, before: &str, now: &str) -> Outcome {
    let lost: Vec<_> = before.lines().filter(|line| !now.lines().any(|l| l == *line)).collect();
    let new: Vec<_> = now.lines().filter(|line| !before.lines().any(|l| l == *line)).collect();
    ensure!(before == now, "{what}: lost {lost:#?}, new {new:#?}");
    Ok(())
}

fn sysctls(folder: &Path, all: &mut String) -> Outcome {
    let mut entries: Vec<_> = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sysctls(&path, all)?;
        } else if let Ok(value) = fs::read_to_string(&path) {
            let _ = writeln!(all, "{} {}", path.display(), value.trim_end());
        }
    }
    Ok(())
}
