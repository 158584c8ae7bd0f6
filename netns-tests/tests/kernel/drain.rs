//! Servers that are taken away: their clients know it at once, and nobody else notices.

use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netns_tests::direct::{Direct, Servers, Topology};
use netns_tests::harness::{built_trial, rig_trial};
use netns_tests::tcp::{Client, EchoServer, connect, noise};
use netns_tests::udp::{self, UdpEchoServer, ask, parts};
use netns_tests::{
    CLIENT, Failure, Outcome, Rig, SERVER_NIC, Service, VIP, config, ensure, eventually,
    server_address,
};
use tapvs::links::Netlink;

use crate::control;
use crate::faults::one_each;
use crate::nat::echo_servers;

/// A client that is asked answers at once; a loaded machine may take its time.
const SOON: Duration = Duration::from_secs(2);
const RESET: &str = "on_remove = \"reset\"";
const DEADLINE: &str = "drain_timeout = \"2s\"";

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (way, [removed, deadline]) in [
        (Way::Nat, ["a_removed_servers_clients_are_reset", "a_drain_ends_at_its_deadline"]),
        (
            Way::Direct,
            ["a_removed_direct_servers_clients_are_reset", "a_direct_drain_ends_at_its_deadline"],
        ),
    ] {
        let build = move |keys| move || way.build(keys);
        trials.push(built_trial(removed, build(RESET), move |rig| is_removed(rig, way)));
        trials.push(built_trial(deadline, build(DEADLINE), move |rig| has_a_deadline(rig, way)));
    }
    trials.extend([
        rig_trial("an_operators_drain_ends_at_its_deadline", || web(DEADLINE), operator_drains),
        rig_trial("a_client_that_connects_gets_another_server", || web(RESET), connecting),
        rig_trial(
            "a_server_that_answers_nobody_gets_nothing_new",
            || web("passive_health = { unanswered = 1, retry = \"1m\" }"),
            falls_silent,
        ),
        rig_trial(
            "udp_clients_of_a_removed_server_go_to_another",
            || vec![Service::udp(53).three(5353).with(RESET)],
            datagrams,
        ),
    ]);
    trials
}

fn web(keys: &'static str) -> Vec<Service> {
    vec![Service::tcp(80).three(8080).with(keys)]
}

/// How the servers are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Nat,
    Direct,
}

impl Way {
    fn service(self, keys: &'static str) -> Service {
        Service::tcp(80).with(keys)
    }

    const fn port(self) -> u16 {
        match self {
            Self::Nat => 8080,
            Self::Direct => 80,
        }
    }

    fn build(self, keys: &'static str) -> Outcome<Rig> {
        let services = [self.service(keys).three(self.port())];
        match self {
            Self::Nat => Rig::new(&services),
            Self::Direct => Direct { topology: Topology::TwoNetworks, servers: Servers::Silent }
                .build(&services),
        }
    }

    fn servers(self, rig: &Rig) -> Outcome<Vec<EchoServer>> {
        let numbered = rig.servers.iter().enumerate();
        numbered
            .map(|(number, namespace)| {
                let address = if self == Self::Nat { server_address(number) } else { VIP };
                EchoServer::start(namespace, (address, self.port()), &number.to_string())
            })
            .collect()
    }

    /// Takes server 0 out.
    fn remove_first(self, rig: &Rig, keys: &'static str) -> Outcome {
        let service = self.service(keys).server(1, self.port(), 1).server(2, self.port(), 1);
        let folder = rig.scratch.path();
        let text = match self {
            Self::Nat => config(folder, &[service]),
            Self::Direct => Topology::TwoNetworks.config(folder, &[service]),
        };
        rig.write_config(&text)?;
        rig.router.reload()
    }
}

/// How a client's connection ended, and when.
struct End {
    kind: Option<ErrorKind>,
    at: Instant,
}

/// Reads until the connection ends, whatever comes.
fn read_on(mut client: Client) -> mpsc::Receiver<End> {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        let kind = loop {
            match client.stream.read(&mut buffer) {
                Ok(0) => break None,
                Ok(_) => {}
                Err(error) => break Some(error.kind()),
            }
        };
        // The trial is over where nobody listens.
        drop(sender.send(End { kind, at: Instant::now() }));
    });
    ended
}

/// Sends as fast as it is read back, both ways at once, until that ends.
fn keep_busy(client: Client) -> Outcome<mpsc::Receiver<End>> {
    let mut writer = client.stream.try_clone()?;
    thread::spawn(move || {
        let data = noise(1 << 16, 5);
        // The reading side sees why it ended.
        while writer.write_all(&data).is_ok() {}
    });
    Ok(read_on(client))
}

/// That the connection was reset, how long after `since`.
fn reset_after(ended: &mpsc::Receiver<End>, since: Instant, who: &str) -> Outcome<Duration> {
    let end = ended.recv_timeout(SOON + Duration::from_secs(3));
    let end = end.map_err(|_| Failure::new(format!("the {who} client has not been told")))?;
    // What comes first of reading and writing is told why.
    let kinds = [Some(ErrorKind::ConnectionReset), Some(ErrorKind::BrokenPipe)];
    let busy = who == "busy" && (kinds.contains(&end.kind) || end.kind.is_none());
    ensure!(
        busy || end.kind == Some(ErrorKind::ConnectionReset),
        "the {who} client's connection ended with {:?}",
        end.kind
    );
    Ok(end.at.saturating_duration_since(since))
}

/// Two clients of server 0, one of which speaks all the time, and one each of the others.
fn clients(rig: &Rig) -> Outcome<(mpsc::Receiver<End>, mpsc::Receiver<End>, Vec<Client>)> {
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let client = Client::connect(&rig.client, (VIP, 80))?;
        if client.server == "0" { first.push(client) } else { others.push(client) }
    }
    let (Some(busy), Some(mut idle), None) = (first.pop(), first.pop(), first.pop()) else {
        return Err(Failure::new("round robin gave server 0 not two of six connections"));
    };
    idle.echo(b"and then nothing")?;
    Ok((keep_busy(busy)?, read_on(idle), others))
}

fn unharmed(others: &mut [Client]) -> Outcome {
    others.iter_mut().try_for_each(|client| client.echo(b"nothing has happened"))
}

fn is_removed(rig: &mut Rig, way: Way) -> Outcome {
    let servers = way.servers(rig)?;
    let (busy, idle, mut others) = clients(rig)?;
    // Long enough for windows to open and queues to fill.
    thread::sleep(Duration::from_millis(700));
    let since = Instant::now();
    way.remove_first(rig, RESET)?;
    for (who, ended) in [("busy", &busy), ("idle", &idle)] {
        let took = reset_after(ended, since, who)?;
        ensure!(took < SOON, "the {who} client learned it after {took:?}");
    }
    unharmed(&mut others)?;
    let is_free = eventually(SOON, || servers[0].open() == 0);
    ensure!(is_free, "the server still has {} connections", servers[0].open());
    ensure!(servers[1].open() == 2 && servers[2].open() == 2, "the others' are all there");
    let report = rig.router.report()?;
    ensure!(report.drops("flow_ended") > 0, "nothing was counted:\n{report}");
    unharmed(&mut others)
}

fn has_a_deadline(rig: &mut Rig, way: Way) -> Outcome {
    let _servers = way.servers(rig)?;
    let (busy, idle, mut others) = clients(rig)?;
    let since = Instant::now();
    way.remove_first(rig, DEADLINE)?;
    for (who, ended) in [("busy", &busy), ("idle", &idle)] {
        let took = reset_after(ended, since, who)?;
        let expected = Duration::from_millis(1_900)..Duration::from_secs(2) + SOON;
        ensure!(expected.contains(&took), "the {who} client was reset after {took:?}");
    }
    unharmed(&mut others)
}

fn operator_drains(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let (busy, idle, mut others) = clients(rig)?;
    let since = Instant::now();
    let service = format!("tcp:{VIP}:80");
    control::ask(rig, &["drain", &service, "10.0.0.11:8080"])?;
    for (who, ended) in [("busy", &busy), ("idle", &idle)] {
        let took = reset_after(ended, since, who)?;
        ensure!(took >= Duration::from_millis(1_900), "the {who} client was reset after {took:?}");
    }
    unharmed(&mut others)?;
    // Undrained in time, nothing happens.
    control::ask(rig, &["undrain", &service, "10.0.0.11:8080"])?;
    let mut lasting = one_each(rig)?;
    control::ask(rig, &["drain", &service, "10.0.0.11:8080"])?;
    thread::sleep(Duration::from_millis(1_000));
    control::ask(rig, &["undrain", &service, "10.0.0.11:8080"])?;
    thread::sleep(Duration::from_millis(2_000));
    unharmed(&mut lasting)
}

/// Its server's NIC is down, so that its SYN is not answered when the server is taken out.
fn connecting(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    for client in one_each(rig)? {
        client.close()?;
    }
    rig.servers[0].run(|| Netlink::new()?.set_down(SERVER_NIC))?;
    let client = thread::scope(|scope| {
        let rig = &*rig;
        let client = scope.spawn(move || -> Outcome<Client> {
            let stream = connect(&rig.client, (VIP, 80), Duration::from_secs(10))?;
            Client::greeted(stream)
        });
        thread::sleep(Duration::from_millis(300));
        Way::Nat.remove_first(rig, RESET)?;
        client.join().map_err(|_| Failure::new("the client panicked"))?
    })?;
    ensure!(client.server != "0", "the dead server answered");
    client.close()
}

fn falls_silent(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    for client in one_each(rig)? {
        client.close()?;
    }
    rig.servers[1].run(|| Netlink::new()?.set_down(SERVER_NIC))?;
    let before = rig.router.log().len();
    let mut waited = 0;
    for _ in 0..3 {
        // Who meets the dead one repeats the SYN after a second.
        let limit = Duration::from_millis(1_400);
        waited += u32::from(connect(&rig.client, (VIP, 80), limit).is_err());
    }
    ensure!(waited == 1, "{waited} of 3 connections met the dead server");
    rig.router.wait_for(before, &["is down", "a client got no answer"])?;
    for _ in 0..9 {
        let stream = connect(&rig.client, (VIP, 80), Duration::from_millis(500))?;
        let client = Client::greeted(stream)?;
        ensure!(client.server != "1", "the dead server answered");
        client.close()?;
    }
    Ok(())
}

fn datagrams(rig: &mut Rig) -> Outcome {
    let numbered = rig.servers.iter().enumerate();
    let _servers = numbered
        .map(|(number, namespace)| {
            let address = (server_address(number), 5353);
            UdpEchoServer::start(namespace, address, &number.to_string())
        })
        .collect::<Outcome<Vec<_>>>()?;
    let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    let first = ask(&socket, b"who?")?;
    ensure!(parts(&first)?.0 == "0", "{first}");
    let second = ask(&socket, b"who?")?;
    ensure!(parts(&second)?.0 == "0", "a flow stays: {second}");
    rig.reload(&[Service::udp(53).server(1, 5353, 1).server(2, 5353, 1).with(RESET)])?;
    let third = ask(&socket, b"who?")?;
    ensure!(["1", "2"].contains(&parts(&third)?.0), "{third}");
    rig.reload(&[Service::udp(53).with(RESET)])?;
    let refused = eventually(SOON, || {
        drop(socket.send(b"who?"));
        let answer = socket.recv(&mut [0; 64]);
        answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    ensure!(refused, "a service without a server does not refuse");
    Ok(())
}
