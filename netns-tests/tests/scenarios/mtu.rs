//! Networks of different MTUs, and TCP segments kept small enough for them.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::cable::{add_route, cable, make_router};
use netns_tests::harness::built_trial;
use netns_tests::mode;
use netns_tests::raw::{Packet, RawSocket};
use netns_tests::tcp::{Client, EchoServer};
use netns_tests::{
    CLIENT, Failure, Outcome, ROUTER_OUTSIDE, Rig, Service, VIP, ensure, server_address,
    silent_namespace, udp,
};
use rustix::net::sockopt::set_ip_tos;
use rustix::process::Signal;
use tapvs::links::Namespace;

use crate::site::{MASQUERADE, file, route, service, tcp_server, vip};

const FAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 99);
const SIZE: usize = 2 << 20;
/// DSCP AF21, no ECN.
const TOS: u8 = 0x48;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        built_trial("o20_2_mib_cross_9000_1500_and_2000_bytes_of_mtu", chain, discovered),
        built_trial("o20_the_router_fragments_what_may_be_fragmented", chain, fragmented),
        built_trial("o20_a_burst_is_fragmented_in_order", chain, burst),
        built_trial("o20_2_mib_cross_behind_a_masquerade", chain, masqueraded),
        built_trial("mss_clamp_shows_in_both_syns", clamping, clamped),
    ]
}

/// The client's network takes 9000 bytes, the servers' 1500; the server lies behind.
fn chain() -> Outcome<Rig> {
    let changes = [
        ("addresses = [\"203.0.113.2/24\"]", "addresses = [\"203.0.113.2/24\"]\nmtu = 9000"),
        ("forward = \"servers-out\"", "forward = \"all\""),
    ];
    let more = route("10.9.0.0/24", server_address(0))
        + &service("tcp", (&vip(), 1666), ("10.9.0.99", 12_345))
        + &MASQUERADE.replace("10.0.0.0/24", "10.9.0.0/24");
    Rig::configured(|folder| file(folder, &[], &changes, &more))
}

/// client — 9000 — tapvs — 1500 — first server as a router — 2000 — server.
fn far(rig: &Rig) -> Outcome<Namespace> {
    let far = silent_namespace()?;
    let near = &rig.servers[0];
    cable((near, "down", "10.9.0.1/24"), (&far, "up", "10.9.0.99/24"), 2_000)?;
    make_router(near)?;
    add_route(&far, "0.0.0.0/0", "10.9.0.1")?;
    // What is accepted has the class of what was asked.
    far.write_sysctl("net/ipv4/tcp_reflect_tos", "1")?;
    Ok(far)
}

fn discovered(rig: &mut Rig) -> Outcome {
    let far = far(rig)?;
    transfer(rig, &far)?;
    let report = rig.router.report()?;
    ensure!(report.drops("too_big") > 0, "nothing was too big, so nothing was proved:\n{report}");
    ensure!(splits(&report)? == 0, "what must not be fragmented was:\n{report}");
    Ok(())
}

fn fragmented(rig: &mut Rig) -> Outcome {
    let far = far(rig)?;
    for namespace in [&rig.client, &far] {
        namespace.write_sysctl("net/ipv4/ip_no_pmtu_disc", "1")?;
    }
    transfer(rig, &far)?;
    let report = rig.router.report()?;
    ensure!(report.drops("too_big") == 0, "what may be fragmented was refused:\n{report}");
    // The router is handed up to 64 KiB at once, and fragments that.
    let least = if mode::offload() { SIZE as u64 / 65_536 } else { 100 };
    ensure!(splits(&report)? > least, "next to nothing was fragmented:\n{report}");
    Ok(())
}

fn transfer(rig: &Rig, far: &Namespace) -> Outcome {
    let _server = EchoServer::start(far, (FAR, 12_345), "far")?;
    let at_server = RawSocket::tcp(far)?;
    let mut client = Client::connect(&rig.client, (VIP, 1666))?;
    ensure!(client.server == "far" && client.seen_as.ip() == IpAddr::from(CLIENT), "{client:?}");
    set_ip_tos(&client.stream, TOS)?;
    client.echo(b"with a class")?;
    let marked = |packet: &Packet| packet.bytes()[1] & 0xfc == TOS;
    let seen = at_server.receive(Duration::from_secs(2), marked);
    ensure!(seen.is_some(), "no segment of the client's kept its DSCP");
    client.both_ways(SIZE)?;
    // A connection of that class from its first segment on: the server answers in kind. Watched by a
    // socket that is not full of the transfer before.
    let at_client = RawSocket::tcp(&rig.client)?;
    let marked_from_the_start = rig.client.run(|| -> Outcome<Client> {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )?;
        set_ip_tos(&socket, TOS)?;
        rustix::net::connect(&socket, &std::net::SocketAddrV4::new(VIP, 1666))?;
        Client::greeted(socket.into())
    })?;
    drop(marked_from_the_start);
    let seen = at_client.receive(Duration::from_secs(2), marked);
    ensure!(seen.is_some_and(|packet| packet.source() == VIP), "no segment of the server's did");
    Ok(())
}

/// As many datagrams as the router reads at once, most of them in six fragments.
fn burst(rig: &mut Rig) -> Outcome {
    let near = &rig.servers[0];
    let port = (server_address(0), 7_000);
    let at_server = near.run(|| UdpSocket::bind(port))?;
    at_server.set_read_timeout(Some(Duration::from_secs(1)))?;
    rig.client.write_sysctl("net/ipv4/ip_no_pmtu_disc", "1")?;
    add_route(&rig.client, "10.0.0.0/24", &ROUTER_OUTSIDE.to_string())?;
    let client = udp::client(&rig.client, CLIENT, port)?;
    let mut buffer = vec![0; 9_000];
    // The first one waits for the MACs.
    client.send(b"first")?;
    at_server.recv(&mut buffer)?;
    let before = rig.router.report()?;

    rig.router.signal(Signal::STOP)?;
    for number in 0..64 {
        buffer[0] = number;
        let length = if number % 8 == 7 { 100 } else { 8_000 };
        client.send(&buffer[..length])?;
    }
    rig.router.signal(Signal::CONT)?;
    let mut seen = vec![];
    while let Ok(length) = at_server.recv(&mut buffer) {
        seen.push((buffer[0], length));
    }
    // The server's socket may lose some, the router none.
    ensure!(seen.iter().any(|(_, length)| *length == 100), "no small one arrived: {seen:?}");
    ensure!(seen.is_sorted(), "they arrived in another order: {seen:?}");
    let report = rig.router.report()?;
    ensure!(splits(&report)? - splits(&before)? == 56, "not all were fragmented:\n{report}");
    ensure!(report.drops("outbox_full") == 0, "fragments crowded each other out:\n{report}");
    Ok(())
}

fn masqueraded(rig: &mut Rig) -> Outcome {
    let far = far(rig)?;
    let _outside = EchoServer::start(&rig.client, (CLIENT, 9000), "outside")?;
    let mut client = Client::connect(&far, (CLIENT, 9000))?;
    ensure!(client.seen_as.ip() == IpAddr::from(VIP), "it was seen as {}", client.seen_as);
    client.both_ways(SIZE)?;
    let report = rig.router.report()?;
    ensure!(report.drops("too_big") > 0, "nothing was too big, so nothing was proved:\n{report}");
    Ok(())
}

/// Frames that were cut, from the balance.
fn splits(report: &netns_tests::Report) -> Outcome<u64> {
    report.figure(&["balance:"], "split")
}

fn clamping() -> Outcome<Rig> {
    let narrow =
        ("addresses = [\"10.0.0.2/24\"]", "addresses = [\"10.0.0.2/24\"]\nmss_clamp = 1000");
    // The wire is looked at where whole trains of segments would pass.
    Rig::configured(|folder| {
        let text = file(folder, &[Service::tcp(80).server(0, 8080, 1)], &[narrow], "");
        mode::without_offload(&text)
    })
}

fn clamped(rig: &mut Rig) -> Outcome {
    let _server = tcp_server(rig, 0, 8080)?;
    let sides = [RawSocket::tcp(&rig.servers[0])?, RawSocket::tcp(&rig.client)?];
    let mut client = Client::connect(&rig.client, (VIP, 80))?;
    for side in &sides {
        let is_syn = |packet: &Packet| packet.payload()[13] & 0x02 != 0;
        let syn = side.receive(Duration::from_secs(2), is_syn);
        let syn = syn.ok_or_else(|| Failure::new("no SYN arrived"))?;
        ensure!(mss(syn.payload()) == Some(1_000), "an MSS of {:?}", mss(syn.payload()));
    }
    client.both_ways(SIZE)?;
    for side in &sides {
        while let Some(packet) = side.receive(Duration::from_millis(200), |_| true) {
            ensure!(packet.bytes().len() <= 1_040, "a packet of {} bytes", packet.bytes().len());
        }
    }
    Ok(())
}

/// The option of a SYN that says how much a segment may carry.
fn mss(segment: &[u8]) -> Option<u16> {
    let mut options = segment.get(20..usize::from(segment[12] >> 4) * 4)?;
    loop {
        match options {
            [1, rest @ ..] => options = rest,
            [2, 4, high, low, ..] => return Some(u16::from_be_bytes([*high, *low])),
            [_, length, ..] if *length >= 2 => options = options.get(usize::from(*length)..)?,
            _ => return None,
        }
    }
}
