//! What a client and its servers see of each other, the same in every topology.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::direct::{
    Direct, ROUTER_MAC, Servers,
    Topology::{self, Bridged, OneNetwork, TwoNetworks},
    mac, neighbour,
};
use netns_tests::harness::built_trial;
use netns_tests::icmp::{Complaint, packet};
use netns_tests::raw::{Packet, RawSocket, ping, udp_without_checksum};
use netns_tests::tcp::{Client, EchoServer, connect, noise};
use netns_tests::udp::{self, UdpEchoServer, ask, parts};
use netns_tests::wire::{self, Wire};
use netns_tests::{CLIENT, Context as _, Outcome, Rig, Service, VIP, ensure};

type Run = fn(&mut Rig, Topology) -> Outcome;

pub(crate) fn trials() -> Vec<Trial> {
    let runs: [([&'static str; 3], Run); 7] = [
        (["tcp_on_one_network", "tcp_on_two_networks", "tcp_bridged"], tcp),
        (["bulk_on_one_network", "bulk_on_two_networks", "bulk_bridged"], bulk),
        (["udp_on_one_network", "udp_on_two_networks", "udp_bridged"], udp_echo),
        (
            ["fragments_on_one_network", "fragments_on_two_networks", "fragments_bridged"],
            large_datagrams,
        ),
        (["pings_on_one_network", "pings_on_two_networks", "pings_bridged"], pings),
        (
            ["icmp_errors_on_one_network", "icmp_errors_on_two_networks", "icmp_errors_bridged"],
            errors,
        ),
        (["unserved_on_one_network", "unserved_on_two_networks", "unserved_bridged"], unserved),
    ];
    let mut trials = Vec::new();
    for (names, run) in runs {
        for (name, topology) in names.into_iter().zip([OneNetwork, TwoNetworks, Bridged]) {
            // Behind the router, and only there, servers need no care.
            let servers = if topology == Bridged { Servers::Stock } else { Servers::Silent };
            let services = [Service::tcp(80).three(80), Service::udp(53).three(53)];
            let rig = move || Direct { topology, servers }.build(&services);
            trials.push(built_trial(name, rig, move |rig| run(rig, topology)));
        }
    }
    trials
}

/// A TCP server at the virtual IP in each server's namespace, named by its number.
pub(crate) fn tcp_servers(rig: &Rig, port: u16) -> Outcome<Vec<EchoServer>> {
    let numbered = rig.servers.iter().enumerate();
    numbered
        .map(|(number, server)| EchoServer::start(server, (VIP, port), &number.to_string()))
        .collect()
}

/// A UDP server at the virtual IP in each server's namespace, named by its number.
pub(crate) fn udp_servers(rig: &Rig, port: u16) -> Outcome<Vec<UdpEchoServer>> {
    let numbered = rig.servers.iter().enumerate();
    numbered
        .map(|(number, server)| UdpEchoServer::start(server, (VIP, port), &number.to_string()))
        .collect()
}

/// The client's address for the virtual IP must be the router's.
pub(crate) fn must_know_the_router(rig: &Rig, topology: Topology) -> Outcome {
    let known = neighbour(&rig.client, topology.client_nic(), VIP)?;
    ensure!(known == Some(ROUTER_MAC), "the client takes {known:?} for {VIP}");
    Ok(())
}

/// Shared out evenly, seen as itself, and answered by the server's own NIC.
fn tcp(rig: &mut Rig, topology: Topology) -> Outcome {
    let _servers = tcp_servers(rig, 80)?;
    let watcher = Wire::open(&rig.client, topology.client_nic())?;
    let mut visits = BTreeMap::new();
    for _ in 0..9 {
        let mut client = Client::connect(&rig.client, (VIP, 80))?;
        // A SYN that was lost to ARP is sent again after a second.
        ensure!(client.took < Duration::from_millis(500), "connecting took {:?}", client.took);
        let own = client.stream.local_addr()?;
        ensure!(client.seen_as == own, "{own} was seen as {}", client.seen_as);
        ensure!(own.ip() == IpAddr::from(CLIENT), "the client is {own}");
        client.echo(b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")?;
        *visits.entry(client.server.clone()).or_insert(0) += 1;
        client.close()?;
        must_know_the_router(rig, topology)?;
    }
    let even = ["0", "1", "2"].map(|server| (server.to_owned(), 3)).into();
    ensure!(visits == even, "9 connections went {visits:?}");

    let mut senders = BTreeMap::new();
    for frame in watcher.seen(|frame| wire::kind(frame) == 0x0800 && frame[23] == 6) {
        ensure!(frame[26..30] == VIP.octets(), "a segment from {:?}", &frame[26..30]);
        *senders.entry(wire::source(&frame).0).or_insert(0) += 1;
    }
    for server in &rig.servers {
        let own = mac(server, topology.answering_nic())?;
        let count = senders.remove(&own.0).unwrap_or(0);
        ensure!(count >= 9, "{count} segments of 3 connections came from {own}");
    }
    ensure!(senders.is_empty(), "segments came from others: {senders:02x?}");
    let report = rig.router.report()?;
    let figures = report.service("tcp", &format!("{VIP}:80"))?;
    ensure!(figures.flows == 9 && figures.packets_in >= 36, "{figures:?}");
    ensure!(figures.packets_out == 0, "answers went through the router's hands: {figures:?}");
    Ok(())
}

fn bulk(rig: &mut Rig, _: Topology) -> Outcome {
    let _servers = tcp_servers(rig, 80)?;
    for _ in 0..3 {
        Client::connect(&rig.client, (VIP, 80))?.both_ways(8 << 20)?;
    }
    Ok(())
}

fn udp_echo(rig: &mut Rig, topology: Topology) -> Outcome {
    let _servers = udp_servers(rig, 53)?;
    let mut visits = BTreeMap::new();
    for length in [0, 1, 2, 511, 512, 1_400] {
        let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
        let message = "x".repeat(length);
        let answers = [ask(&socket, message.as_bytes())?, ask(&socket, message.as_bytes())?];
        let (server, seen_as, echo) = parts(&answers[0])?;
        ensure!(answers[0] == answers[1], "one flow, two answers: {answers:?}");
        ensure!(seen_as == socket.local_addr()?, "it was seen as {seen_as}");
        ensure!(echo == message, "{length} bytes came back as {}", echo.len());
        *visits.entry(server.to_owned()).or_insert(0) += 1;
        must_know_the_router(rig, topology)?;
    }
    let even = ["0", "1", "2"].map(|server| (server.to_owned(), 2)).into();
    ensure!(visits == even, "6 flows went {visits:?}");
    Ok(())
}

/// All fragments of a datagram reach the server that has its flow, in whatever order they come.
fn large_datagrams(rig: &mut Rig, _: Topology) -> Outcome {
    let _servers = udp_servers(rig, 53)?;
    let raw = RawSocket::ip(&rig.client)?;
    for seed in 1..=6 {
        let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
        let message: Vec<u8> = noise(4_096, seed).iter().map(|byte| b'a' + byte % 26).collect();
        // Without room for it a datagram of this size is refused, not cut.
        let answer = ask(&socket, &message)?;
        let (first, seen_as, echo) = parts(&answer)?;
        ensure!(seen_as == socket.local_addr()?, "it was seen as {seen_as}");
        ensure!(echo.as_bytes() == message, "it came back changed");

        let (port, id) = (socket.local_addr()?.port(), 0x5000 + u16::try_from(seed)?);
        let datagram = udp_without_checksum(port, 53, &message);
        let pieces: Vec<&[u8]> = datagram.chunks(1_480).collect();
        for (number, piece) in pieces.iter().enumerate().rev() {
            let more = if number + 1 < pieces.len() { 0x2000 } else { 0 };
            let offset = u16::try_from(number * 1_480 / 8)?;
            raw.send(&packet((CLIENT, VIP), (17, id, more | offset), piece), VIP)?;
        }
        let mut buffer = vec![0; 65_536];
        let length = socket.recv(&mut buffer).context("no answer to fragments out of order")?;
        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let (second, _, echo) = parts(&answer)?;
        ensure!(first == second, "server {first} had the flow, {second} its fragments");
        ensure!(echo.as_bytes() == message, "it was put together wrongly");
    }
    let report = rig.router.report()?;
    ensure!(report.drops("fragment_orphan") == 0, "fragments were lost:\n{report}");
    Ok(())
}

/// The virtual IP answers, and it is the router that does.
fn pings(rig: &mut Rig, topology: Topology) -> Outcome {
    let watchers = rig.servers.iter().map(RawSocket::icmp).collect::<Outcome<Vec<_>>>()?;
    for size in [0, 56, 1_400] {
        ping(&rig.client, VIP, size)?;
        must_know_the_router(rig, topology)?;
    }
    for watcher in watchers {
        let seen = watcher.receive(Duration::from_millis(200), |_| true);
        ensure!(seen.is_none(), "a server saw {seen:?}");
    }
    Ok(())
}

/// The client's kernel refuses what a server sends to a socket that is closed by now: that server,
/// and nobody else, is told.
fn errors(rig: &mut Rig, _: Topology) -> Outcome {
    let servers = udp_servers(rig, 53)?;
    for _ in 0..3 {
        let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
        let port = socket.local_addr()?.port();
        let owner: usize = parts(&ask(&socket, b"who?")?)?.0.parse()?;
        let watchers = rig.servers.iter().map(RawSocket::icmp).collect::<Outcome<Vec<_>>>()?;
        drop(socket);
        late_answer(rig, owner, port)?;
        for (number, watcher) in watchers.iter().enumerate() {
            let wait = if number == owner { 5_000 } else { 200 };
            let is_error = |packet: &Packet| packet.payload()[0] == 3;
            let told = watcher.receive(Duration::from_millis(wait), is_error);
            ensure!(told.is_some() == (number == owner), "server {number} of {owner}: {told:?}");
            let Some(told) = told else { continue };
            let complaint = Complaint::read(&told)?;
            ensure!(told.destination() == VIP && complaint.from == CLIENT, "{complaint:?}");
            ensure!(complaint.kind == (3, 3), "{complaint:?}");
            let flow = (complaint.quoted_from, complaint.quoted_to);
            ensure!(flow == (VIP, CLIENT), "{complaint:?}");
            ensure!(complaint.quoted_words[..2] == [53, port], "{complaint:?}");
        }
    }
    drop(servers);
    Ok(())
}

/// A datagram from the service's own socket, unasked.
fn late_answer(rig: &Rig, server: usize, port: u16) -> Outcome {
    let datagram = udp_without_checksum(53, port, b"too late");
    let raw = RawSocket::ip(&rig.servers[server])?;
    raw.send(&packet((VIP, CLIENT), (17, 77, 0), &datagram), CLIENT)
}

/// A port without a service is refused by the router, whatever listens on the servers.
fn unserved(rig: &mut Rig, _: Topology) -> Outcome {
    let _servers = tcp_servers(rig, 81)?;
    let refused = connect(&rig.client, (VIP, 81), Duration::from_secs(3));
    let why = refused.map(drop).map_err(|error| error.kind());
    ensure!(why == Err(std::io::ErrorKind::ConnectionRefused), "port 81: {why:?}");
    let report = rig.router.report()?;
    ensure!(report.drops("unserved") == 1, "not one SYN was unserved:\n{report}");
    // And where there is a service without a process, by the server.
    let refused = connect(&rig.client, (VIP, 80), Duration::from_secs(3));
    let why = refused.map(drop).map_err(|error| error.kind());
    ensure!(why == Err(std::io::ErrorKind::ConnectionRefused), "port 80: {why:?}");
    let report = rig.router.report()?;
    ensure!(report.drops("unserved") == 1, "the router refused that one:\n{report}");
    Ok(())
}
