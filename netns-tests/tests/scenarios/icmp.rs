//! ICMP errors of routers behind either side, and those that somebody made up.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::cable::{add_route, cable, make_router};
use netns_tests::harness::{built_trial, rig_trial};
use netns_tests::icmp::{Complaint, icmp, packet};
use netns_tests::raw::{Packet, RawSocket, ping, udp_without_checksum};
use netns_tests::tcp::{Client, EchoServer};
use netns_tests::udp::{self, UdpEchoServer, ask, parts};
use netns_tests::{
    CLIENT, Context as _, Failure, Outcome, Rig, SERVER_NIC, Service, VIP, ensure, server_address,
    silent_namespace,
};
use tapvs::links::{Namespace, Netlink};

use crate::site::{
    MASQUERADE, OTHER_VIP, file, route, service, tcp_server, udp_server, vip, virtual_ip,
};

/// A server two routers away; the way there is narrow.
const FAR_SERVER: &str = "10.9.1.99";
/// A host outside, two routers away; the way there is narrow.
const FAR_HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);
const NARROW: u16 = 1_280;

pub(crate) fn trials() -> Vec<Trial> {
    let both = || vec![Service::tcp(80).server(0, 8080, 1), Service::udp(53).server(0, 5353, 1)];
    vec![
        built_trial("o11_a_narrow_server_network_is_the_virtual_ips_to_report", near_server, near),
        built_trial("o11_a_narrow_way_to_a_server_is_found_out", far_server, narrow_inside),
        built_trial("o11_a_narrow_way_to_the_outside_is_found_out", far_host, narrow_outside),
        rig_trial("o11_a_closed_server_port_is_reported_by_the_virtual_ip", both, closed_port),
        rig_trial("s5_made_up_errors_change_nothing", both, made_up),
    ]
}

/// Port unreachable for one datagram is all that a closed port says.
fn closed_port(rig: &mut Rig) -> Outcome {
    let watcher = RawSocket::icmp(&rig.client)?;
    let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    socket.send(b"anybody?")?;
    let complaint = next_complaint(&watcher)?;
    ensure!(complaint.from == VIP && complaint.kind == (3, 3), "{complaint:?}");
    ensure!(complaint.quoted_from == CLIENT && complaint.quoted_to == VIP, "{complaint:?}");
    let ports = [socket.local_addr()?.port(), 53];
    ensure!(complaint.quoted_words[..2] == ports, "{complaint:?}");
    let refused = socket.recv(&mut [0; 16]).map_err(|error| error.kind());
    ensure!(refused == Err(std::io::ErrorKind::ConnectionRefused), "the socket said {refused:?}");
    // RFC 4787 REQ-12: the flow has not ended by it.
    let _server = udp_server(rig, 0, 5353)?;
    ensure!(parts(&ask(&socket, b"now?")?)?.1 == socket.local_addr()?, "another flow");
    Ok(())
}

fn next_complaint(watcher: &RawSocket) -> Outcome<Complaint> {
    let is_error = |packet: &Packet| matches!(packet.payload()[0], 3 | 11);
    let packet = watcher.receive(Duration::from_secs(5), is_error);
    Complaint::read(&packet.ok_or_else(|| Failure::new("no ICMP error came"))?)
}

/// The servers' own network takes 1280 bytes.
fn near_server() -> Outcome<Rig> {
    let services = [Service::udp(53).server(0, 5353, 1), Service::tcp(80).server(0, 8080, 1)];
    let narrow = ("addresses = [\"10.0.0.2/24\"]", "addresses = [\"10.0.0.2/24\"]\nmtu = 1280");
    Rig::configured(|folder| file(folder, &services, &[narrow], ""))
}

fn near(rig: &mut Rig) -> Outcome {
    for namespace in &rig.servers {
        namespace.run(|| Netlink::new()?.set_mtu(SERVER_NIC, NARROW.into()))?;
    }
    let _servers = (udp_server(rig, 0, 5353)?, tcp_server(rig, 0, 8080)?);
    let watcher = RawSocket::icmp(&rig.client)?;
    let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    let port = socket.local_addr()?.port();
    // To the byte.
    ask(&socket, &[b'x'; 1_252])?;
    socket.send(&[b'x'; 1_253])?;
    let complaint = next_complaint(&watcher)?;
    ensure!(complaint.kind == (3, 4) && complaint.mtu == NARROW, "{complaint:?}");
    ensure!(complaint.from == VIP, "{complaint:?}");
    ensure!(complaint.quoted_from == CLIENT && complaint.quoted_to == VIP, "{complaint:?}");
    ensure!(complaint.quoted_words[..3] == [port, 53, 1_261], "{complaint:?}");
    ensure!(complaint.length <= 576, "{complaint:?}");
    // Without the don't-fragment bit it is the router that cuts.
    let data = [b'y'; 1_300];
    let raw = RawSocket::ip(&rig.client)?;
    let datagram = udp_without_checksum(port, 53, &data);
    raw.send(&packet((CLIENT, VIP), (17, 21, 0), &datagram), VIP)?;
    let answer = answer_after_refusals(&socket)?;
    ensure!(parts(&answer)?.2.as_bytes() == data, "another answer");
    let mut client = Client::connect(&rig.client, (VIP, 80))?;
    client.both_ways(2 << 20)
}

/// The next datagram; what the kernel has to say about earlier sends comes first.
fn answer_after_refusals(socket: &UdpSocket) -> Outcome<String> {
    let mut buffer = vec![0; 65_536];
    let received = (0..3).find_map(|_| socket.recv(&mut buffer).ok());
    let length = received.ok_or_else(|| Failure::new("no answer to what was cut"))?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn far_server() -> Outcome<Rig> {
    let services = [
        service("udp", (&vip(), 53), (FAR_SERVER, 5353)),
        service("tcp", (OTHER_VIP, 80), (FAR_SERVER, 8080)),
    ];
    let more =
        route("10.9.0.0/16", server_address(0)) + &virtual_ip(OTHER_VIP) + &services.concat();
    Rig::configured(|folder| file(folder, &[], &[], &more))
}

/// client — tapvs — first server as a router — 1280 bytes — a router — server.
fn narrow_inside(rig: &mut Rig) -> Outcome {
    let (hop, far) = (silent_namespace()?, silent_namespace()?);
    let near = &rig.servers[0];
    cable((near, "down", "10.9.0.1/24"), (&hop, "up", "10.9.0.2/24"), NARROW.into())?;
    cable((&hop, "down", "10.9.1.1/24"), (&far, "up", "10.9.1.99/24"), 1_500)?;
    make_router(near)?;
    make_router(&hop)?;
    add_route(near, "10.9.1.0/24", "10.9.0.2")?;
    add_route(&hop, "0.0.0.0/0", "10.9.0.1")?;
    add_route(&far, "0.0.0.0/0", "10.9.1.1")?;
    let address: Ipv4Addr = FAR_SERVER.parse()?;
    let _udp = UdpEchoServer::start(&far, (address, 5353), "far")?;
    let _tcp = EchoServer::start(&far, (address, 8080), "far")?;

    let watcher = RawSocket::icmp(&rig.client)?;
    // Before the far host knows of it, and so announces an MSS that fits: a full segment does not.
    let other: Ipv4Addr = OTHER_VIP.parse()?;
    let mut client = Client::connect(&rig.client, (other, 80))?;
    client.both_ways(2 << 20)?;
    let complaint = next_complaint(&watcher)?;
    ensure!(complaint.kind == (3, 4) && complaint.mtu == NARROW, "{complaint:?}");
    ensure!(complaint.from == other && complaint.quoted_to == other, "{complaint:?}");
    ensure!(complaint.quoted_words[1] == 80, "{complaint:?}");

    // A burst of segments has brought more than one.
    let watcher = RawSocket::icmp(&rig.client)?;
    let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    let port = socket.local_addr()?.port();
    ask(&socket, &[b'x'; 1_000])?;
    socket.send(&[b'x'; 1_300])?;
    let complaint = next_complaint(&watcher)?;
    ensure!(complaint.kind == (3, 4) && complaint.mtu == NARROW, "{complaint:?}");
    ensure!(complaint.from == VIP, "a router inside shows itself: {complaint:?}");
    ensure!(complaint.quoted_from == CLIENT && complaint.quoted_to == VIP, "{complaint:?}");
    ensure!(complaint.quoted_words[..3] == [port, 53, 1_308], "{complaint:?}");
    ensure!(complaint.length <= 576, "{complaint:?}");
    // The client's kernel has believed it: its first send says so, from then on it fragments.
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let answer = (0..5).find_map(|_| ask(&socket, &[b'y'; 1_300]).ok());
    let answer = answer.ok_or_else(|| Failure::new("no datagram got through in fragments"))?;
    ensure!(parts(&answer)?.2.len() == 1_300, "another answer");

    let report = rig.router.report()?;
    ensure!(report.drops("icmp_unknown_flow") == 0, "errors were not understood:\n{report}");
    Ok(())
}

fn far_host() -> Outcome<Rig> {
    let more = route("198.51.100.0/24", CLIENT) + MASQUERADE;
    // Whoever has no service to serve is no server, and does not get out.
    let services = [Service::tcp(80).three(8080)];
    Rig::configured(|folder| file(folder, &services, &[], &more))
}

/// server — tapvs, masquerading — client as a router — 1280 bytes — a router — host.
fn narrow_outside(rig: &mut Rig) -> Outcome {
    let (hop, far) = (silent_namespace()?, silent_namespace()?);
    let near = &rig.client;
    cable((near, "down", "192.0.2.1/24"), (&hop, "up", "192.0.2.2/24"), NARROW.into())?;
    cable((&hop, "down", "198.51.100.1/24"), (&far, "up", "198.51.100.99/24"), 1_500)?;
    make_router(near)?;
    make_router(&hop)?;
    add_route(near, "198.51.100.0/24", "192.0.2.2")?;
    add_route(&hop, "0.0.0.0/0", "192.0.2.1")?;
    add_route(&far, "0.0.0.0/0", "198.51.100.1")?;
    let _udp = UdpEchoServer::start(&far, (FAR_HOST, 5353), "far")?;
    let _tcp = EchoServer::start(&far, (FAR_HOST, 8080), "far")?;

    let server = &rig.servers[1];
    let watcher = RawSocket::icmp(server)?;
    ping(server, FAR_HOST, 1_000)?;
    let (id, sequence) = (0x4242, 7);
    narrow_ping(server, id, sequence)?;
    let complaint = next_complaint(&watcher)?;
    ensure!(complaint.kind == (3, 4) && complaint.mtu == NARROW, "{complaint:?}");
    ensure!(complaint.from == CLIENT, "the router outside is {}", complaint.from);
    ensure!(complaint.quoted_from == server_address(1), "{complaint:?}");
    ensure!(complaint.quoted_to == FAR_HOST, "{complaint:?}");
    ensure!(complaint.quoted_words[2..] == [id, sequence], "{complaint:?}");
    ensure!(complaint.length <= 576, "{complaint:?}");

    let other = &rig.servers[2];
    let watcher = RawSocket::icmp(other)?;
    let socket = udp::client(other, server_address(2), (FAR_HOST, 5353))?;
    let port = socket.local_addr()?.port();
    socket.send(&[b'x'; 1_300])?;
    let complaint = next_complaint(&watcher)?;
    ensure!(complaint.kind == (3, 4) && complaint.mtu == NARROW, "{complaint:?}");
    ensure!(complaint.quoted_from == server_address(2), "{complaint:?}");
    ensure!(complaint.quoted_words[..3] == [port, 5353, 1_308], "{complaint:?}");
    // A server that has not heard of it yet finds out by TCP.
    let last = RawSocket::icmp(&rig.servers[0])?;
    let mut client = Client::connect(&rig.servers[0], (FAR_HOST, 8080))?;
    ensure!(client.seen_as.ip() == IpAddr::from(VIP), "seen as {}", client.seen_as);
    client.both_ways(2 << 20)?;
    let complaint = next_complaint(&last)?;
    ensure!(complaint.kind == (3, 4) && complaint.mtu == NARROW, "{complaint:?}");
    ensure!(complaint.quoted_from == server_address(0), "{complaint:?}");

    // What dies on the way is reported to the right one too.
    let expired = udp::client(other, server_address(2), (FAR_HOST, 5353))?;
    expired.set_ttl(2)?;
    expired.send(b"not far")?;
    let complaint = next_complaint(&watcher)?;
    ensure!(complaint.kind == (11, 0), "{complaint:?}");
    ensure!(complaint.quoted_from == server_address(2), "{complaint:?}");
    ensure!(complaint.quoted_words[0] == expired.local_addr()?.port(), "{complaint:?}");
    Ok(())
}

/// A ping of 1300 bytes that must not be fragmented, as the kernel sends it by default.
fn narrow_ping(from: &Namespace, id: u16, sequence: u16) -> Outcome {
    let [a, b] = id.to_be_bytes();
    let [c, d] = sequence.to_be_bytes();
    let request = icmp((8, 0), [a, b, c, d], &[0x55; 1_300]);
    RawSocket::icmp(from)?.send(&request, FAR_HOST)
}

/// Errors about packets that nobody sent, or that come from where they cannot: each is dropped by
/// name, the connection and the flow stay.
fn made_up(rig: &mut Rig) -> Outcome {
    let _servers = (tcp_server(rig, 0, 8080)?, udp_server(rig, 0, 5353)?);
    let mut client = Client::connect(&rig.client, (VIP, 80))?;
    client.echo(b"before")?;
    let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    ask(&socket, b"before")?;
    let at_server = RawSocket::icmp(&rig.servers[0])?;
    let at_client = RawSocket::icmp(&rig.client)?;
    let port = socket.local_addr()?.port();
    let forger = RawSocket::ip(&rig.client)?;
    let forge = |kind, quoted: &[u8], is_intact: bool| {
        let mut message = icmp(kind, [0, 0, 2, 64], quoted);
        if !is_intact {
            message[2] ^= 0x40;
        }
        forger.send(&packet((CLIENT, VIP), (1, 9, 0), &message), VIP)
    };
    let quote = |from, to, ports: (u16, u16)| {
        packet((from, to), (17, 1, 0x4000), &udp_without_checksum(ports.0, ports.1, b""))
    };
    for kind in [(3, 1), (3, 3), (3, 4), (4, 0), (11, 0)] {
        // Of no flow.
        forge(kind, &quote(VIP, CLIENT, (53, port ^ 1)), true)?;
        // Of the flow, but the wrong way round: the client's own packet, which went to the server.
        forge(kind, &quote(CLIENT, VIP, (port, 53)), true)?;
        // As it looks between router and server, where this one cannot have seen it.
        forge(kind, &quote(CLIENT, server_address(0), (port, 5353)), true)?;
        // Of the flow, by somebody who would have to be on the other side.
        let inside = icmp(kind, [0, 0, 2, 64], &quote(VIP, CLIENT, (53, port)));
        forger.send(&packet((server_address(2), VIP), (1, 9, 0), &inside), VIP)?;
        // Broken.
        forge(kind, &quote(VIP, CLIENT, (53, port)), false)?;
    }
    let errors = |packet: &Packet| packet.payload()[0] != 8;
    let seen = at_server.receive(Duration::from_millis(500), errors);
    ensure!(seen.is_none(), "the server was told {seen:?}");
    let seen = at_client.receive(Duration::from_millis(100), errors);
    ensure!(seen.is_none(), "the client was told {seen:?}");
    client.echo(b"after")?;
    ask(&socket, b"after")?;
    let report = rig.router.report()?;
    // An error whose quote was not sent by whom it is for is about no flow either.
    for (reason, count) in [("icmp_unknown_flow", 15), ("reverse_path", 5), ("icmp_malformed", 5)] {
        let drops = report.drops(reason);
        ensure!(drops == count, "{drops} drops for {reason}, not {count}:\n{report}");
    }
    // A true one about the client's own socket, by contrast, arrives at the server.
    let closed: UdpSocket = socket;
    forge((3, 3), &quote(VIP, CLIENT, (53, port)), true)?;
    let complaint = at_server.receive(Duration::from_secs(2), errors);
    let complaint = Complaint::read(&complaint.ok_or_else(|| Failure::new("no error came"))?)?;
    ensure!(complaint.quoted_from == server_address(0), "{complaint:?}");
    ensure!(complaint.quoted_words[..2] == [5353, port], "{complaint:?}");
    ask(&closed, b"no error ends a flow").context("after a port unreachable")?;
    client.close()
}
