//! What a client and its servers see of each other through a service.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::harness::rig_trial;
use netns_tests::raw::{RawSocket, udp_without_checksum};
use netns_tests::tcp::{Client, EchoServer, noise};
use netns_tests::udp::{self, UdpEchoServer};
use netns_tests::{
    CLIENT, Context as _, Failure, Outcome, ROUTER_OUTSIDE, Rig, Service, VIP, ensure,
    server_address,
};
use tapvs::links::Netlink;

pub(crate) fn trials() -> Vec<Trial> {
    let web = || vec![Service::tcp(80).three(8080)];
    let weighted = || {
        let servers = Service::tcp(80).server(0, 8080, 1).server(1, 8081, 2).server(2, 8082, 3);
        vec![servers.scheduler("wrr")]
    };
    let dns = || vec![Service::udp(53).three(5353)];
    vec![
        rig_trial("tcp_reaches_every_server_with_the_clients_address", web, tcp),
        rig_trial("wrr_follows_the_weights", weighted, wrr),
        rig_trial("32_mib_both_ways_at_once_arrive_unchanged", web, bulk),
        rig_trial("many_connections_at_once", web, many),
        rig_trial("udp_reaches_every_server_and_comes_back", dns, udp_echo),
        rig_trial("udp_without_a_checksum_keeps_none_and_loses_one_hop", dns, udp_unchecked),
        rig_trial("cold_neighbours_cost_no_syn", web, cold),
        rig_trial("servers_reach_out_but_nobody_gets_in_past_the_service", web, forward),
    ]
}

/// An echo server in each of the three namespaces, named by its number.
pub(crate) fn echo_servers(rig: &Rig, port: u16) -> Outcome<Vec<EchoServer>> {
    let numbered = rig.servers.iter().enumerate();
    numbered
        .map(|(number, namespace)| {
            EchoServer::start(namespace, (server_address(number), port), &number.to_string())
        })
        .collect()
}

fn tcp(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let mut visits = BTreeMap::new();
    for _ in 0..9 {
        let mut client = Client::connect(&rig.client, (VIP, 80))?;
        let own = client.stream.local_addr()?;
        ensure!(client.seen_as == own, "{own} was seen as {}", client.seen_as);
        ensure!(own.ip() == IpAddr::from(CLIENT), "the client is {own}");
        client.echo(b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")?;
        *visits.entry(client.server.clone()).or_insert(0) += 1;
        client.close()?;
    }
    let even = ["0", "1", "2"].map(|server| (server.to_owned(), 3)).into();
    ensure!(visits == even, "9 connections went {visits:?}");
    Ok(())
}

fn wrr(rig: &mut Rig) -> Outcome {
    let _servers = [(0, 8080), (1, 8081), (2, 8082)]
        .into_iter()
        .map(|(number, port)| {
            let address = (server_address(number), port);
            EchoServer::start(&rig.servers[number], address, &number.to_string())
        })
        .collect::<Outcome<Vec<_>>>()?;
    let mut visits = BTreeMap::new();
    for _ in 0..24 {
        let client = Client::connect(&rig.client, (VIP, 80))?;
        *visits.entry(client.server.clone()).or_insert(0) += 1;
        client.close()?;
    }
    let weighted = [("0", 4), ("1", 8), ("2", 12)].map(|(s, n)| (s.to_owned(), n)).into();
    ensure!(visits == weighted, "24 connections with weights 1:2:3 went {visits:?}");
    Ok(())
}

fn bulk(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    Client::connect(&rig.client, (VIP, 80))?.both_ways(32 << 20)
}

fn many(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let mut clients =
        (0..300).map(|_| Client::connect(&rig.client, (VIP, 80))).collect::<Outcome<Vec<_>>>()?;
    for round in 0..3_u8 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.echo(&noise(700, u64::from(round) + 10 * number as u64))?;
        }
    }
    clients.into_iter().try_for_each(Client::close)
}

fn udp_echo(rig: &mut Rig) -> Outcome {
    let _servers = udp_servers(rig)?;
    let mut visits = BTreeMap::new();
    for length in [0, 1, 2, 511, 512, 1_472] {
        let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
        // Room for the server's words in the answer, which must not be fragmented.
        let message = "x".repeat(1_400.min(length));
        let mut answers = Vec::new();
        for _ in 0..2 {
            answers.push(udp::ask(&socket, message.as_bytes())?);
        }
        let words: Vec<&str> = answers[0].splitn(3, ' ').collect();
        let [server, seen_as, echo] = words[..] else {
            return Err(Failure::new(format!("`{}` is no answer", answers[0])));
        };
        ensure!(answers[0] == answers[1], "one flow, two answers: {answers:?}");
        let own = socket.local_addr()?;
        ensure!(seen_as.parse::<SocketAddr>()? == own, "{own} was seen as {seen_as}");
        ensure!(echo == message, "{} bytes came back as {}", message.len(), echo.len());
        *visits.entry(server.to_owned()).or_insert(0) += 1;
    }
    let even = ["0", "1", "2"].map(|server| (server.to_owned(), 2)).into();
    ensure!(visits == even, "6 flows went {visits:?}");
    Ok(())
}

fn udp_servers(rig: &Rig) -> Outcome<Vec<UdpEchoServer>> {
    let numbered = rig.servers.iter().enumerate();
    numbered
        .map(|(number, namespace)| {
            UdpEchoServer::start(namespace, (server_address(number), 5353), &number.to_string())
        })
        .collect()
}

fn udp_unchecked(rig: &mut Rig) -> Outcome {
    let _servers = udp_servers(rig)?;
    let watchers = rig.servers.iter().map(RawSocket::udp).collect::<Outcome<Vec<_>>>()?;
    // Takes the answer, and keeps the kernel from refusing it.
    let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    let port = socket.local_addr()?.port();
    let raw = RawSocket::udp(&rig.client)?.bind(CLIENT)?;
    raw.send(&udp_without_checksum(port, 53, b"unchecked"), VIP)?;
    let mut buffer = [0; 256];
    let length = socket.recv(&mut buffer).context("no answer to UDP without a checksum")?;
    ensure!(buffer[..length].ends_with(b"unchecked"), "another answer came");
    let arrived = watchers
        .iter()
        .find_map(|watcher| {
            watcher.receive(Duration::from_millis(300), |packet| packet.source() == CLIENT)
        })
        .ok_or_else(|| Failure::new("no server saw it arrive"))?;
    ensure!(arrived.payload_u16(0) == port && arrived.payload_u16(2) == 5353, "other ports");
    ensure!(arrived.payload_u16(6) == 0, "the checksum became {:#06x}", arrived.payload_u16(6));
    ensure!(arrived.ttl() == 63, "sent with TTL 64, it arrived with {}", arrived.ttl());
    // One with a checksum has one at the server too, and a right one: it is answered.
    udp::ask(&socket, b"checked")?;
    Ok(())
}

/// The router is up for some milliseconds only, and nobody knows anybody's MAC.
fn cold(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    for round in ["cold", "server cold", "warm"] {
        for _ in 0..3 {
            let client = Client::connect(&rig.client, (VIP, 80))?;
            // The kernel repeats a SYN after a second.
            let took = client.took;
            ensure!(took < Duration::from_millis(500), "{round}: connecting took {took:?}");
            client.close()?;
        }
        for (number, server) in rig.servers.iter().enumerate() {
            server.run(|| {
                let netlink = Netlink::new()?;
                netlink.flush_neighbour(netns_tests::SERVER_NIC, netns_tests::GATEWAY.into())
            })?;
            ensure!(number < 3, "three servers");
        }
    }
    Ok(())
}

fn forward(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let _outside = EchoServer::start(&rig.client, (CLIENT, 9000), "outside")?;
    rig.client.run(|| {
        Netlink::new()?.add_route("10.0.0.0/24".parse().expect("a prefix"), ROUTER_OUTSIDE.into())
    })?;
    let mut out = Client::connect(&rig.servers[1], (CLIENT, 9000))?;
    ensure!(
        out.seen_as.ip() == IpAddr::from(server_address(1)),
        "a server's own connection was seen as {}",
        out.seen_as
    );
    out.echo(b"out and back")?;
    out.close()?;
    let straight = netns_tests::tcp::connect(
        &rig.client,
        (server_address(0), 8080),
        Duration::from_millis(700),
    );
    ensure!(straight.is_err(), "the client reached a server past the service");
    let report = rig.router.report()?;
    ensure!(report.drops("not_forwarded") > 0, "that drop was not counted:\n{report}");
    Ok(())
}
