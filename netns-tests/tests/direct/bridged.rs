//! tapvs as the switch between the client and servers as they come.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::arp::Arp;
use netns_tests::cable::{plug, within};
use netns_tests::direct::{
    Direct, ROUTER_MAC, Servers, Topology::Bridged, forget, mac, neighbour, outer_address,
};
use netns_tests::harness::built_trial;
use netns_tests::raw::ping;
use netns_tests::tcp::{Client, EchoServer};
use netns_tests::wire::{self, Wire};
use netns_tests::{
    BRIDGE, CLIENT, CLIENT_TAP, Context as _, Failure, Outcome, Rig, SERVER_NIC, SERVERS_TAP,
    Service, VIP, ensure, silent_namespace,
};
use tapvs::addr::MacAddr;
use tapvs::links::{LinkError, Netlink};

use crate::everyday::{must_know_the_router, tcp_servers};
use crate::two_networks::narrowness;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

pub(crate) fn trials() -> Vec<Trial> {
    let rig = || Direct::stock(Bridged).build(&[Service::tcp(80).three(80)]);
    vec![
        built_trial("bridged_hosts_reach_each_other_untouched", rig, own_traffic),
        built_trial("bridged_broadcasts_and_groups_reach_the_other_side", rig, to_many),
        built_trial("bridged_servers_are_neither_asked_nor_heard_about_the_vip", rig, suppressed),
        built_trial("bridged_server_added_later_is_found", rig, added),
        built_trial("bridged_frames_that_a_switch_keeps_stay_and_bpdus_pass", rig, reserved),
        built_trial("bridged_narrow_servers_are_the_virtual_ips_to_report", narrow_rig, narrow),
    ]
}

/// By their own addresses, in both directions; nothing of a packet changes on the way.
fn own_traffic(rig: &mut Rig) -> Outcome {
    let _outside = EchoServer::start(&rig.client, (CLIENT, 9000), "outside")?;
    for (number, server) in rig.servers.iter().enumerate() {
        let address = outer_address(number);
        let _inside = EchoServer::start(server, (address, 8080), "inside")?;
        let watcher = Wire::open(server, SERVER_NIC)?;
        ping(&rig.client, address, 1_000)?;
        let asked = watcher.receive(Duration::from_secs(2), |frame| {
            wire::kind(frame) == 0x0800 && frame[23] == 1 && frame[34] == 8
        });
        let asked = asked.ok_or_else(|| Failure::new("the server saw no ping"))?;
        let macs = (wire::source(&asked), wire::destination(&asked));
        let own = (mac(&rig.client, CLIENT_TAP)?, mac(server, SERVER_NIC)?);
        ensure!(macs == own, "from and to {macs:?}, not {own:?}");
        ensure!(asked[22] == 64, "sent with TTL 64, it arrived with {}", asked[22]);
        ping(server, CLIENT, 1_000)?;
        Client::connect(&rig.client, (address, 8080))?.both_ways(2 << 20)?;
        let mut back = Client::connect(server, (CLIENT, 9000))?;
        ensure!(back.seen_as.ip() == address, "the server was seen as {}", back.seen_as);
        back.both_ways(2 << 20)?;
    }
    let report = rig.router.report()?;
    let figures = report.service("tcp", &format!("{VIP}:80"))?;
    ensure!(figures.flows == 0, "that was no service's: {figures:?}");
    Ok(())
}

/// To all of the network, to all of the wire, to a group.
fn to_many(rig: &mut Rig) -> Outcome {
    let broadcast = Ipv4Addr::new(203, 0, 113, 255);
    let sockets = rig.servers.iter().enumerate().map(|(number, server)| {
        server.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7_000))?;
            socket.join_multicast_v4(&GROUP, &outer_address(number))?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            Ok::<_, std::io::Error>(socket)
        })
    });
    let sockets = sockets.collect::<Result<Vec<_>, _>>()?;
    let sender = rig.client.run(|| UdpSocket::bind((CLIENT, 7_001)))?;
    sender.set_broadcast(true)?;
    let mut buffer = [0; 64];
    for to in [broadcast, GROUP] {
        let message = format!("to {to}");
        sender.send_to(message.as_bytes(), (to, 7_000))?;
        for (number, socket) in sockets.iter().enumerate() {
            let (length, from) =
                socket.recv_from(&mut buffer).context(format_args!("server {number}, {to}"))?;
            ensure!(buffer[..length] == *message.as_bytes(), "another message for {to}");
            ensure!(from.ip() == CLIENT, "{to}: from {from}");
        }
    }
    // Once each, and nothing comes back to whoever sent it.
    for socket in sockets.iter().chain([&sender]) {
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let more = socket.recv_from(&mut buffer).map_err(|error| error.kind());
        ensure!(more == Err(ErrorKind::WouldBlock), "one more: {more:?}");
    }
    Ok(())
}

/// The client's questions about the virtual IP end at the router; what the servers say about it on
/// their own never arrives at the client.
fn suppressed(rig: &mut Rig) -> Outcome {
    let _servers = tcp_servers(rig, 80)?;
    let at_client = Wire::open(&rig.client, CLIENT_TAP)?;
    let wires = rig.servers.iter().map(|server| Wire::open(server, SERVER_NIC));
    let at_servers = wires.collect::<Outcome<Vec<_>>>()?;
    for _ in 0..6 {
        forget(&rig.client, CLIENT_TAP, VIP)?;
        // Then the servers have to ask who the client is, and stock ones do it as the virtual IP.
        for server in &rig.servers {
            forget(server, SERVER_NIC, CLIENT)?;
        }
        let mut client = Client::connect(&rig.client, (VIP, 80))?;
        ensure!(client.took < Duration::from_millis(500), "connecting took {:?}", client.took);
        client.echo(b"hello")?;
        client.close()?;
        must_know_the_router(rig, Bridged)?;
    }
    let about = |frame: &[u8]| Arp::read(frame).is_some_and(|arp| arp.target == VIP);
    for (number, wire) in at_servers.iter().enumerate() {
        let client = mac(&rig.client, CLIENT_TAP)?;
        let asked = wire.seen(|frame| about(frame) && wire::source(frame) == client);
        ensure!(asked.is_empty(), "server {number} was asked by the client: {asked:02x?}");
    }
    let claims = at_client.seen(|frame| {
        Arp::read(frame).is_some_and(|arp| arp.sender == VIP && arp.sender_mac != ROUTER_MAC)
    });
    ensure!(claims.is_empty(), "the client heard {claims:02x?}");
    let client = mac(&rig.client, CLIENT_TAP)?;
    let known = rig.servers.iter().map(|server| neighbour(server, SERVER_NIC, CLIENT));
    let known: Vec<_> = known.collect::<Outcome<Vec<_>>>()?.into_iter().flatten().collect();
    // At least the one that answered last.
    let right = !known.is_empty() && known.iter().all(|mac| *mac == client);
    ensure!(right, "the servers take {known:?} for the client {client}");
    Ok(())
}

/// A host that nobody knew of when the router started.
fn added(rig: &mut Rig) -> Outcome {
    let _servers = tcp_servers(rig, 80)?;
    let late = silent_namespace()?;
    let nic = (&late, SERVER_NIC, within(outer_address(3), 24));
    plug((&rig.middle, BRIDGE, "s3"), nic)?;
    Servers::Stock.hold(&late, VIP)?;
    let _late = EchoServer::start(&late, (VIP, 80), "3")?;
    ping(&rig.client, outer_address(3), 56)?;
    let four = Service::tcp(80).three(80).server(3, 80, 1);
    rig.write_config(&Bridged.config(rig.scratch.path(), &[four]))?;
    rig.router.reload()?;
    let mut seen = BTreeSet::new();
    for _ in 0..8 {
        let client = Client::connect(&rig.client, (VIP, 80))?;
        seen.insert(client.server.clone());
        client.close()?;
        must_know_the_router(rig, Bridged)?;
    }
    ensure!(seen.len() == 4, "8 connections reached {seen:?}");
    Ok(())
}

/// IEEE 802.1Q table 8-1: a pause frame is about one cable; a BPDU is for the bridges beyond, since
/// tapvs takes no part in the spanning tree.
fn reserved(rig: &mut Rig) -> Outcome {
    const BRIDGES: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0]);
    const CABLE: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 1]);
    // At the TAPs' own ends: a kernel bridge would keep the pause frames too.
    let sides = [Wire::open(&rig.client, CLIENT_TAP)?, Wire::open(&rig.middle, SERVERS_TAP)?];
    // A configuration BPDU: LLC 42 42 03, protocol 0, version 0, type 0.
    let mut bpdu = vec![0x42, 0x42, 0x03];
    bpdu.resize(38, 0);
    for (sender, receiver) in [(0, 1), (1, 0)] {
        let station = MacAddr([0x02, 0, 0, 0, 0x33, u8::try_from(sender)?]);
        let pause = wire::frame(CABLE, station, 0x8808, &[0, 1, 0xff, 0xff]);
        let hello = wire::frame(BRIDGES, station, 38, &bpdu);
        sides[sender].send(&pause)?;
        sides[sender].send(&hello)?;
        let is_hello = |frame: &[u8]| frame == hello;
        let passed = sides[receiver].receive(Duration::from_secs(2), is_hello);
        ensure!(passed.is_some(), "no BPDU from side {sender} arrived");
        // It would have come before.
        let kept = sides[receiver].seen(|frame| wire::kind(frame) == 0x8808);
        ensure!(kept.is_empty(), "a pause frame from side {sender} passed: {kept:02x?}");
    }
    Ok(())
}

fn narrow_rig() -> Outcome<Rig> {
    let rig = Direct::stock(Bridged).configured(|folder| {
        let services = [Service::tcp(80).three(80), Service::udp(53).three(53)];
        let gateway = format!("gateway = \"{CLIENT}\"\n");
        let text = Bridged.config(folder, &services);
        text.replace(&gateway, &format!("{gateway}mtu = 1280\n"))
    })?;
    // The client has not heard of it.
    let wide: Result<(), LinkError> = rig.client.run(|| Netlink::new()?.set_mtu(CLIENT_TAP, 1_500));
    wide?;
    Ok(rig)
}

fn narrow(rig: &mut Rig) -> Outcome {
    // What the servers answer must fit too, and they know it.
    for server in &rig.servers {
        let narrow: Result<(), LinkError> =
            server.run(|| Netlink::new()?.set_mtu(SERVER_NIC, 1_280));
        narrow?;
    }
    narrowness(rig)
}
