//! Flows whose answers would look alike: each keeps its own.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netns_tests::cable::add_route;
use netns_tests::harness::{built_trial, rig_trial};
use netns_tests::tcp::{Client, noise};
use netns_tests::udp::parts;
use netns_tests::{
    CLIENT, Context as _, Failure, Outcome, Rig, Service, VIP, ensure, server_address,
};

use crate::site::{OTHER_VIP, file, reload, service, tcp_server, udp_server, vip, virtual_ip};

pub(crate) fn trials() -> Vec<Trial> {
    let shared = || vec![Service::tcp(80).server(0, 8080, 1), Service::tcp(81).server(0, 8080, 1)];
    let one = || vec![Service::tcp(80).server(0, 8080, 1)];
    let game = || vec![Service::udp(56_790).server(0, 56_790, 1)];
    vec![
        built_trial("o10_one_client_port_to_services_that_share_a_server", shared_server, clash),
        rig_trial("o12_one_client_port_is_enough_for_two_connections", shared, one_port),
        rig_trial("o12_a_straight_connection_shares_it_with_a_service", one, straight),
        rig_trial("o15_ports_stay_when_both_ends_speak_at_once", game, both_at_once),
    ]
}

/// Two ports of one virtual IP and one of another, all led to the same server's port.
fn shared_server() -> Outcome<Rig> {
    let server = ("10.0.0.11", 5353);
    let services = [
        service("udp", (&vip(), 53), server),
        service("udp", (&vip(), 54), server),
        service("udp", (OTHER_VIP, 53), server),
    ];
    Rig::configured(|folder| file(folder, &[], &[], &(virtual_ip(OTHER_VIP) + &services.concat())))
}

fn clash(rig: &mut Rig) -> Outcome {
    let _server = udp_server(rig, 0, 5353)?;
    let other: std::net::Ipv4Addr = OTHER_VIP.parse()?;
    let targets: [SocketAddr; 3] = [(VIP, 53).into(), (VIP, 54).into(), (other, 53).into()];
    let socket = rig.client.run(|| UdpSocket::bind((CLIENT, 4_321)))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut ports = BTreeSet::new();
    for round in 0..3 {
        for target in targets {
            let question = format!("{round} to {target}");
            socket.send_to(question.as_bytes(), target)?;
            let mut buffer = [0; 256];
            let (length, from) = socket.recv_from(&mut buffer).context(&question)?;
            let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let (_, seen_as, message) = parts(&answer)?;
            ensure!(from == target && message == question, "{question}: {from} said {answer}");
            ports.insert(seen_as.port());
        }
    }
    // One each, for all three rounds; the first keeps the client's own.
    ensure!(ports.len() == 3 && ports.contains(&4_321), "the server saw the ports {ports:?}");
    Ok(())
}

fn one_port(rig: &mut Rig) -> Outcome {
    let _server = tcp_server(rig, 0, 8080)?;
    rig.client.write_sysctl("net/ipv4/ip_local_port_range", "10000 10000")?;
    let mut first = Client::connect(&rig.client, (VIP, 80))?;
    let mut second = Client::connect(&rig.client, (VIP, 81))?;
    for client in [&first, &second] {
        let port = client.stream.local_addr()?.port();
        ensure!(port == 10_000, "the client's port is {port}");
    }
    ensure!(first.seen_as.port() == 10_000, "the first was seen as {}", first.seen_as);
    ensure!(second.seen_as.port() != 10_000, "both were seen as {}", second.seen_as);
    for round in 0..20 {
        first.echo(&noise(5_000, round))?;
        second.echo(&noise(5_000, round + 100))?;
    }
    second.close()?;
    first.echo(b"still there")?;
    first.close()
}

/// With `forward = "all"` a client may also reach a server past its service, in either order.
fn straight(rig: &mut Rig) -> Outcome {
    let services = [Service::tcp(80).server(0, 8080, 1)];
    reload(rig, &services, &[("forward = \"servers-out\"", "forward = \"all\"")], "")?;
    add_route(&rig.client, "10.0.0.0/24", "203.0.113.2")?;
    let _server = tcp_server(rig, 0, 8080)?;
    let (past, by) = ((server_address(0), 8080), (VIP, 80));
    for (port, order) in [(10_000, [past, by]), (10_002, [by, past])] {
        let range = format!("{port} {port}");
        rig.client.write_sysctl("net/ipv4/ip_local_port_range", &range)?;
        let mut first = Client::connect(&rig.client, order[0])?;
        first.echo(b"before the other")?;
        let mut second = Client::connect(&rig.client, order[1])?;
        for client in [&first, &second] {
            let own = client.stream.local_addr()?.port();
            ensure!(own == port, "the client's port is {own}");
        }
        ensure!(first.seen_as.port() == port, "the first was seen as {}", first.seen_as);
        ensure!(second.seen_as.port() != port, "both were seen as {}", second.seen_as);
        for round in 0..20 {
            first.echo(&noise(5_000, round))?;
            second.echo(&noise(5_000, round + 100))?;
        }
        first.close()?;
        second.close()?;
    }
    Ok(())
}

/// The server's datagrams reach the client by the flow that the client opened, from the service's
/// port; before it, they go nowhere.
fn both_at_once(rig: &mut Rig) -> Outcome {
    const PORT: u16 = 56_789;
    const TIME: Duration = Duration::from_secs(3);
    add_route(&rig.client, "10.0.0.0/24", "203.0.113.2")?;
    let client = rig.client.run(|| UdpSocket::bind((CLIENT, PORT)))?;
    let server = rig.servers[0].run(|| UdpSocket::bind((server_address(0), 56_790)))?;
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    }
    let end = AtomicBool::new(false);
    let send = |socket: &UdpSocket, to: SocketAddr| {
        let start = Instant::now();
        while start.elapsed() < TIME {
            socket.send_to(b"you there?", to)?;
            thread::sleep(Duration::from_micros(200));
        }
        Ok::<(), std::io::Error>(())
    };
    let listen = |socket: &UdpSocket| {
        let mut seen = Seen::new();
        let mut buffer = [0; 64];
        while !end.load(Ordering::Relaxed) {
            if let Ok((_, from)) = socket.recv_from(&mut buffer) {
                *seen.entry(from).or_default() += 1;
            }
        }
        seen
    };
    let (at_client, at_server) = thread::scope(|scope| {
        let (client, server, send, listen) = (&client, &server, &send, &listen);
        let listeners = [scope.spawn(move || listen(client)), scope.spawn(move || listen(server))];
        let senders = [
            scope.spawn(move || send(client, (VIP, 56_790).into())),
            scope.spawn(move || send(server, (CLIENT, PORT).into())),
        ];
        let sent = senders.map(|sender| sender.join());
        thread::sleep(Duration::from_millis(300));
        end.store(true, Ordering::Relaxed);
        let [at_client, at_server] = listeners.map(|l| l.join().unwrap_or_default());
        for result in sent {
            result.map_err(|_| Failure::new("a sender panicked"))??;
        }
        Ok::<_, Failure>((at_client, at_server))
    })?;
    let from = |seen: &Seen| seen.keys().copied().collect::<Vec<_>>();
    let (vip, asker) = (SocketAddr::from((VIP, 56_790)), SocketAddr::from((CLIENT, PORT)));
    ensure!(from(&at_client) == [vip], "the client heard from {at_client:?}");
    ensure!(from(&at_server) == [asker], "the server heard from {at_server:?}");
    ensure!(at_client[&vip] > 1_000 && at_server[&asker] > 1_000, "{at_client:?}, {at_server:?}");
    Ok(())
}

/// How much came from where.
type Seen = std::collections::BTreeMap<SocketAddr, u32>;
