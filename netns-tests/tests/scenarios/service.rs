//! Services as clients see them: bytes, ports, fragments, changes while flows run.

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netns_tests::harness::rig_trial;
use netns_tests::icmp::packet;
use netns_tests::raw::{RawSocket, internet_checksum, ping};
use netns_tests::tcp::{Client, connect, noise};
use netns_tests::udp::{self, ask, parts};
use netns_tests::{
    CLIENT, Context as _, Failure, Outcome, Rig, Service, VIP, ensure, server_address,
};

use crate::site::{reload, tcp_server, udp_server};

pub(crate) fn trials() -> Vec<Trial> {
    let web = || vec![Service::tcp(80).server(0, 8080, 1)];
    let dns = || vec![Service::udp(53).server(0, 5353, 1)];
    let spread = || vec![Service::udp(53).three(5353)];
    vec![
        rig_trial("o2_bytes_are_equal_where_the_router_is_the_only_way", web, only_way),
        rig_trial("o4_a_reload_moves_new_flows_and_leaves_the_old", dns, changed_while_running),
        rig_trial("o5_ports_alone_tell_the_servers_apart", ports, port_only),
        rig_trial("o7_a_ping_to_the_virtual_ip_is_the_routers", dns, pings_stay),
        rig_trial("o9_4096_bytes_of_udp_arrive_in_fragments_both_ways", dns, large_datagrams),
        rig_trial("o9_fragments_in_reverse_order_are_one_datagram", dns, reversed_fragments),
        rig_trial("o13_a_repeated_syn_is_served_once_there_is_a_service", Vec::new, late_service),
        rig_trial("o14_racing_first_packets_are_one_flow", spread, racing_threads),
    ]
}

fn only_way(rig: &mut Rig) -> Outcome {
    let _server = tcp_server(rig, 0, 8080)?;
    let watcher = RawSocket::tcp(&rig.client)?;
    let mut client = Client::connect(&rig.client, (VIP, 80))?;
    client.echo(&noise(32, 5))?;
    client.close()?;
    let mut seen = 0;
    while let Some(packet) = watcher.receive(Duration::from_millis(200), |_| true) {
        ensure!(packet.source() == VIP, "the client was answered by {}", packet.source());
        ensure!(packet.payload_u16(0) == 80, "the client was answered from another port");
        seen += 1;
    }
    ensure!(seen >= 3, "a connection of {seen} segments");
    Ok(())
}

fn changed_while_running(rig: &mut Rig) -> Outcome {
    let _servers = (udp_server(rig, 0, 5353)?, udp_server(rig, 1, 5353)?);
    let old = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    ensure!(parts(&ask(&old, b"one")?)?.0 == "0", "another server answered first");
    // The first server drains: its flow stays, a new one goes to the second.
    let both = Service::udp(53).server(0, 5353, 0).server(1, 5353, 1);
    rig.reload(&[both])?;
    let new = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    ensure!(parts(&ask(&new, b"two")?)?.0 == "1", "a new flow went to the old server");
    ensure!(parts(&ask(&old, b"three")?)?.0 == "0", "an old flow went to the new server");
    rig.reload(&[])?;
    rig.reload(&[Service::udp(53).server(1, 5353, 1)])?;
    let newest = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    ensure!(parts(&ask(&newest, b"four")?)?.0 == "1", "a flow went to a server that is gone");
    Ok(())
}

fn ports() -> Vec<Service> {
    vec![
        Service::tcp(2000).server(0, 2000, 1),
        Service::tcp(80).server(0, 2000, 1),
        Service::tcp(81).server(0, 2001, 1),
    ]
}

fn port_only(rig: &mut Rig) -> Outcome {
    let namespace = &rig.servers[0];
    let address = server_address(0);
    let _one = netns_tests::tcp::EchoServer::start(namespace, (address, 2000), "banner-2000")?;
    let _two = netns_tests::tcp::EchoServer::start(namespace, (address, 2001), "banner-2001")?;
    for (port, banner) in [(2000, "banner-2000"), (80, "banner-2000"), (81, "banner-2001")] {
        let mut client = Client::connect(&rig.client, (VIP, port))?;
        ensure!(client.server == banner, "port {port} leads to {}", client.server);
        ensure!(client.stream.peer_addr()?.port() == port, "another port answered");
        client.echo(b"and back")?;
        client.close()?;
    }
    Ok(())
}

fn pings_stay(rig: &mut Rig) -> Outcome {
    let watchers = rig.servers.iter().map(RawSocket::icmp).collect::<Outcome<Vec<_>>>()?;
    for size in [0, 56, 1_000] {
        ping(&rig.client, VIP, size)?;
    }
    for watcher in watchers {
        let seen = watcher.receive(Duration::from_millis(200), |_| true);
        ensure!(seen.is_none(), "a server saw {seen:?}");
    }
    Ok(())
}

/// Three fragments each way; the answer carries a few words more.
fn large_datagrams(rig: &mut Rig) -> Outcome {
    let _server = udp_server(rig, 0, 5353)?;
    let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    // Without room for it a datagram of this size is refused, not cut.
    for seed in 1..=5 {
        let message: String =
            noise(4_096, seed).iter().map(|b| char::from(b'a' + b % 26)).collect();
        let answer = ask(&socket, message.as_bytes())?;
        let (_, seen_as, echo) = parts(&answer)?;
        ensure!(seen_as == socket.local_addr()?, "it was seen as {seen_as}");
        ensure!(echo == message, "{} bytes came back changed or cut: {}", 4_096, echo.len());
    }
    let report = rig.router.report()?;
    let inside = report.link(netns_tests::SERVERS_TAP)?;
    ensure!(inside.frames_out >= 15, "5 datagrams in {} frames", inside.frames_out);
    ensure!(report.drops("fragment_orphan") == 0, "fragments were lost:\n{report}");
    Ok(())
}

fn reversed_fragments(rig: &mut Rig) -> Outcome {
    let _server = udp_server(rig, 0, 5353)?;
    let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    let port = socket.local_addr()?.port();
    let raw = RawSocket::ip(&rig.client)?;
    let message: Vec<u8> = noise(4_096, 3).iter().map(|byte| b'a' + byte % 26).collect();
    for (id, checked) in [(0x5001, true), (0x5002, false)] {
        let datagram = datagram(port, 53, &message, checked);
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        let size = 1_480;
        for (number, piece) in datagram.chunks(size).enumerate() {
            let more = if (number + 1) * size < datagram.len() { 0x2000 } else { 0 };
            let offset = u16::try_from(number * size / 8)?;
            pieces.push(packet((CLIENT, VIP), (17, id, more | offset), piece));
        }
        ensure!(pieces.len() == 3, "{} pieces", pieces.len());
        for piece in pieces.iter().rev() {
            raw.send(piece, VIP)?;
        }
        let mut buffer = vec![0; 65_536];
        let length = socket.recv(&mut buffer).context(format_args!("checked: {checked}"))?;
        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let (_, _, echo) = parts(&answer)?;
        ensure!(echo.as_bytes() == message, "the datagram was put together wrongly");
    }
    Ok(())
}

/// A UDP datagram from the client to the virtual IP.
fn datagram(from: u16, to: u16, data: &[u8], checked: bool) -> Vec<u8> {
    let mut datagram = netns_tests::raw::udp_without_checksum(from, to, data);
    if checked {
        let length = [datagram[4], datagram[5]];
        let pseudo = [&CLIENT.octets()[..], &VIP.octets(), &[0, 17], &length].concat();
        let sum = internet_checksum(&[&pseudo[..], &datagram].concat());
        let sum = if sum == 0 { u16::MAX } else { sum };
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    datagram
}

/// A SYN that met no service leaves nothing behind that could stand in the way of the next one.
fn late_service(rig: &mut Rig) -> Outcome {
    let silent = [("unserved = \"reset\"", "unserved = \"drop\"")];
    reload(rig, &[], &silent, "")?;
    let _server = tcp_server(rig, 0, 8080)?;
    let watcher = RawSocket::tcp(&rig.servers[0])?;
    let client = &rig.client;
    let took = thread::scope(|scope| {
        let start = Instant::now();
        let connecting = scope.spawn(move || {
            connect(client, (VIP, 80), Duration::from_secs(10)).map(|_| start.elapsed())
        });
        thread::sleep(Duration::from_millis(300));
        let reloaded = reload(rig, &[Service::tcp(80).server(0, 8080, 1)], &silent, "");
        let took = connecting.join().map_err(|_| Failure::new("connecting panicked"))?;
        reloaded.and_then(|()| took.context("the repeated SYN was not served"))
    })?;
    // The kernel repeats a SYN after one second, and after two more.
    ensure!(took > Duration::from_millis(900), "served after {took:?}, before there was a service");
    ensure!(took < Duration::from_millis(2_800), "served after {took:?}, not by the next SYN");
    let is_syn = |packet: &netns_tests::raw::Packet| packet.payload()[13] & 0x02 != 0;
    ensure!(watcher.receive(Duration::from_millis(300), is_syn).is_some(), "no SYN arrived");
    let second = watcher.receive(Duration::from_millis(300), is_syn);
    ensure!(second.is_none(), "the server saw two SYNs");
    let report = rig.router.report()?;
    ensure!(report.drops("unserved") == 1, "not one SYN was unserved:\n{report}");
    Ok(())
}

/// Every answer comes back to the socket that asked, from one server.
fn racing_threads(rig: &mut Rig) -> Outcome {
    const THREADS: usize = 8;
    let _servers =
        [udp_server(rig, 0, 5353)?, udp_server(rig, 1, 5353)?, udp_server(rig, 2, 5353)?];
    // With every neighbour known: of those that wait for a MAC only three are kept.
    for _ in 0..3 {
        ask(&udp::client(&rig.client, CLIENT, (VIP, 53))?, b"warm")?;
    }
    let mut servers = BTreeSet::new();
    for round in 0..30 {
        let socket: UdpSocket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
        let start = Barrier::new(THREADS);
        let send = |number: usize| {
            start.wait();
            socket.send(number.to_string().as_bytes())
        };
        let sent = thread::scope(|scope| {
            let send = &send;
            let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || send(n))).collect();
            threads.into_iter().all(|thread| matches!(thread.join(), Ok(Ok(_))))
        });
        ensure!(sent, "a thread could not send");
        let mut answers = BTreeSet::new();
        let mut from = BTreeSet::new();
        for number in 0..THREADS {
            let mut buffer = [0; 256];
            let length = socket
                .recv(&mut buffer)
                .context(format_args!("round {round}: only {number} of {THREADS} answers"))?;
            let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let (name, seen_as, message) = parts(&answer)?;
            ensure!(seen_as.ip() == IpAddr::from(CLIENT), "it was seen as {seen_as}");
            from.insert(name.to_owned());
            answers.insert(message.to_owned());
        }
        ensure!(answers.len() == THREADS, "round {round}: answers twice: {answers:?}");
        ensure!(from.len() == 1, "round {round}: one flow, several servers: {from:?}");
        servers.extend(from);
    }
    ensure!(servers.len() == 3, "30 flows round robin reached {servers:?} only");
    Ok(())
}
