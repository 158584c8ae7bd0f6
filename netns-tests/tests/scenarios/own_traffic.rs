//! Connections that the servers open themselves: to the outside, and to their own virtual IP.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::harness::{built_trial, rig_trial};
use netns_tests::icmp::Complaint;
use netns_tests::raw::{Packet, RawSocket, ping};
use netns_tests::tcp::{Client, EchoServer};
use netns_tests::udp::{self, UdpEchoServer, ask, parts};
use netns_tests::{
    CLIENT, Context as _, Failure, Outcome, Rig, Service, VIP, ensure, server_address,
};

use crate::site::{MASQUERADE, file, tcp_server, udp_server};

pub(crate) fn trials() -> Vec<Trial> {
    let shadowed = || vec![Service::udp(53).server(1, 5353, 1)];
    let own = || vec![Service::tcp(80).three(8080), Service::udp(53).three(5353)];
    let alone = || vec![Service::tcp(80).server(0, 8080, 1), Service::udp(53).server(0, 5353, 1)];
    vec![
        built_trial(
            "o6_servers_are_seen_as_the_virtual_ip",
            move || masquerading(&own()),
            seen_as_vip,
        ),
        rig_trial("o8_a_servers_own_datagram_shadows_no_service", shadowed, shadow),
        built_trial(
            "o8_nor_does_it_behind_a_masquerade",
            move || masquerading(&shadowed()),
            shadow,
        ),
        rig_trial("n5_servers_call_their_own_virtual_ip", own, hairpin),
        built_trial("n5_also_where_they_are_masqueraded", move || masquerading(&own()), hairpin),
        rig_trial("n5_a_server_is_given_to_itself", alone, hairpin_alone),
        rig_trial("n18_a_server_that_calls_a_closed_port_is_told", shadowed, hairpinned_error),
    ]
}

fn masquerading(services: &[Service]) -> Outcome<Rig> {
    Rig::configured(|folder| file(folder, services, &[], MASQUERADE))
}

fn seen_as_vip(rig: &mut Rig) -> Outcome {
    let outside = RawSocket::icmp(&rig.client)?;
    let is_request = |packet: &Packet| packet.payload()[0] == 8;
    for namespace in &rig.servers {
        for attempt in ["first", "second"] {
            ping(namespace, CLIENT, 56).context(format_args!("the {attempt} ping"))?;
            let seen = outside.receive(Duration::from_secs(1), is_request);
            let seen = seen.map(|packet| packet.source());
            ensure!(seen == Some(VIP), "the {attempt} ping was seen from {seen:?}");
        }
    }
    ensure!(outside.receive(Duration::from_millis(200), is_request).is_none(), "a ping too many");

    let _tcp = EchoServer::start(&rig.client, (CLIENT, 9000), "outside")?;
    let _udp = UdpEchoServer::start(&rig.client, (CLIENT, 9001), "outside")?;
    let mut ports = BTreeSet::new();
    for (number, namespace) in rig.servers.iter().enumerate() {
        let mut client = Client::connect(namespace, (CLIENT, 9000))?;
        ensure!(client.seen_as.ip() == IpAddr::from(VIP), "TCP was seen as {}", client.seen_as);
        client.echo(b"out and back")?;
        client.both_ways(100_000)?;
        // The same port of all three.
        let socket = namespace.run(|| UdpSocket::bind((server_address(number), 5000)))?;
        socket.connect((CLIENT, 9001))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        for _ in 0..2 {
            let answer = ask(&socket, b"who am I?")?;
            let (_, seen_as, message) = parts(&answer)?;
            ensure!(seen_as.ip() == IpAddr::from(VIP), "UDP was seen as {seen_as}");
            ensure!(message == "who am I?", "another answer: {answer}");
            ports.insert(seen_as.port());
        }
    }
    ensure!(ports.len() == 3, "three sockets were seen from the ports {ports:?}");
    Ok(())
}

/// A server sends from the service's port to a client's, and the client from there to the service.
fn shadow(rig: &mut Rig) -> Outcome {
    const CLIENT_PORT: u16 = 41_404;
    let _server = udp_server(rig, 1, 5353)?;
    let client = rig.client.run(|| UdpSocket::bind((CLIENT, CLIENT_PORT)))?;
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    let thief = rig.servers[0].run(|| UdpSocket::bind((server_address(0), 53)))?;
    thief.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut buffer = [0; 256];
    for _ in 0..3 {
        thief.send_to(b"mine", (CLIENT, CLIENT_PORT))?;
        let (_, from) = client.recv_from(&mut buffer).context("nothing from the server")?;
        ensure!(from != SocketAddr::from((VIP, 53)), "it was seen to come from the service");
        client.send_to(b"hello", (VIP, 53))?;
        let (length, from) = client.recv_from(&mut buffer).context("no answer of the service")?;
        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        ensure!(from == SocketAddr::from((VIP, 53)), "{from} answered instead of the service");
        ensure!(parts(&answer)?.0 == "1", "the client was led to another server: {answer}");
        let stolen = thief.recv(&mut buffer);
        ensure!(stolen.is_err(), "the shadowing server got the client's datagram");
    }
    Ok(())
}

fn hairpin(rig: &mut Rig) -> Outcome {
    let _tcp = [tcp_server(rig, 0, 8080)?, tcp_server(rig, 1, 8080)?, tcp_server(rig, 2, 8080)?];
    let _udp = [udp_server(rig, 0, 5353)?, udp_server(rig, 1, 5353)?, udp_server(rig, 2, 5353)?];
    for (number, namespace) in rig.servers.iter().enumerate() {
        let mut reached = BTreeSet::new();
        for _ in 0..3 {
            let mut client = Client::connect(namespace, (VIP, 80))?;
            reached.insert(client.server.clone());
            client.both_ways(200_000)?;
        }
        ensure!(reached.len() == 3, "server {number} reached {reached:?} by TCP");
        reached.clear();
        for _ in 0..3 {
            let socket = udp::client(namespace, server_address(number), (VIP, 53))?;
            reached.insert(parts(&ask(&socket, b"hello")?)?.0.to_owned());
            ask(&socket, b"hello again")?;
        }
        ensure!(reached.len() == 3, "server {number} reached {reached:?} by UDP");
    }
    Ok(())
}

/// Nobody listens at the second server: the first one is told so by the virtual IP.
fn hairpinned_error(rig: &mut Rig) -> Outcome {
    let watcher = RawSocket::icmp(&rig.servers[0])?;
    let socket = udp::client(&rig.servers[0], server_address(0), (VIP, 53))?;
    let port = socket.local_addr()?.port();
    socket.send(b"anybody?")?;
    let is_error = |packet: &Packet| packet.payload()[0] == 3;
    let packet = watcher.receive(Duration::from_secs(5), is_error);
    let complaint = Complaint::read(&packet.ok_or_else(|| Failure::new("no error came"))?)?;
    ensure!(complaint.kind == (3, 3) && complaint.from == VIP, "{complaint:?}");
    ensure!(complaint.quoted_from == server_address(0), "{complaint:?}");
    ensure!(complaint.quoted_to == VIP, "{complaint:?}");
    ensure!(complaint.quoted_words[..2] == [port, 53], "{complaint:?}");
    let refused = socket.recv(&mut [0; 16]).map_err(|error| error.kind());
    ensure!(refused == Err(std::io::ErrorKind::ConnectionRefused), "the socket said {refused:?}");
    Ok(())
}

fn hairpin_alone(rig: &mut Rig) -> Outcome {
    let _servers = (tcp_server(rig, 0, 8080)?, udp_server(rig, 0, 5353)?);
    let mut client = Client::connect(&rig.servers[0], (VIP, 80))?;
    client.both_ways(200_000)?;
    let socket = udp::client(&rig.servers[0], server_address(0), (VIP, 53))?;
    ensure!(parts(&ask(&socket, b"hello")?)?.0 == "0", "somebody else answered");
    Ok(())
}
