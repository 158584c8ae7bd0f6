//! What is routed at all: the forward policy, and where a packet may come from.

use std::net::Ipv4Addr;
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::cable::add_route;
use netns_tests::harness::rig_trial;
use netns_tests::icmp::{icmp, packet};
use netns_tests::raw::{RawSocket, ping, udp_without_checksum};
use netns_tests::tcp::{Client, EchoServer, connect};
use netns_tests::udp::{self, ask};
use netns_tests::{CLIENT, Outcome, Rig, Service, VIP, ensure, server_address};

use crate::site::{reload, tcp_server, udp_server};

pub(crate) fn trials() -> Vec<Trial> {
    let web = || vec![Service::tcp(80).server(0, 8080, 1)];
    let dns = || vec![Service::udp(53).three(5353)];
    vec![
        rig_trial("forward_lets_nothing_the_servers_or_everything_through", web, forward),
        rig_trial("o18_a_source_from_the_wrong_side_is_dropped_and_counted", dns, reverse_path),
    ]
}

fn forward(rig: &mut Rig) -> Outcome {
    const BRIEF: Duration = Duration::from_millis(700);
    let services = [Service::tcp(80).server(0, 8080, 1)];
    let _inside = tcp_server(rig, 0, 8080)?;
    let _outside = EchoServer::start(&rig.client, (CLIENT, 9000), "outside")?;
    add_route(&rig.client, "10.0.0.0/24", "203.0.113.2")?;
    for (policy, out, into) in
        [("servers-out", true, false), ("none", false, false), ("all", true, true)]
    {
        let words = format!("forward = \"{policy}\"");
        reload(rig, &services, &[("forward = \"servers-out\"", &words)], "")?;
        let before = rig.router.report()?.drops("not_forwarded");
        let went_out = connect(&rig.servers[1], (CLIENT, 9000), BRIEF).is_ok();
        ensure!(went_out == out, "{policy}: a server got out: {went_out}");
        let came_in = connect(&rig.client, (server_address(0), 8080), BRIEF).is_ok();
        ensure!(came_in == into, "{policy}: the client got in: {came_in}");
        let pinged = ping_briefly(rig)?;
        ensure!(pinged == into, "{policy}: the client's ping got in: {pinged}");
        // The service is no matter of that policy.
        let mut client = Client::connect(&rig.client, (VIP, 80))?;
        client.echo(b"served")?;
        client.close()?;
        let refused = rig.router.report()?.drops("not_forwarded") - before;
        ensure!((refused == 0) == (out && into), "{policy}: {refused} not forwarded");
    }
    Ok(())
}

/// Whether a ping from the client reaches a server.
fn ping_briefly(rig: &Rig) -> Outcome<bool> {
    let seen = RawSocket::icmp(&rig.servers[2])?;
    let request = icmp((8, 0), [0x77, 0x77, 0, 1], b"ping");
    RawSocket::icmp(&rig.client)?.send(&request, server_address(2))?;
    let is_it = |packet: &netns_tests::raw::Packet| packet.payload()[..2] == [8, 0];
    Ok(seen.receive(Duration::from_millis(500), is_it).is_some())
}

fn reverse_path(rig: &mut Rig) -> Outcome {
    let _servers =
        [udp_server(rig, 0, 5353)?, udp_server(rig, 1, 5353)?, udp_server(rig, 2, 5353)?];
    let watchers = rig.servers.iter().map(RawSocket::udp).collect::<Outcome<Vec<_>>>()?;
    let nowhere = Ipv4Addr::new(198, 51, 100, 7);
    let inside = Ipv4Addr::new(10, 0, 0, 50);
    let echo = icmp((8, 0), [0x66, 0x66, 0, 1], b"martian");
    let query = udp_without_checksum(4_000, 53, b"martian");
    let (outer, inner) = (RawSocket::ip(&rig.client)?, RawSocket::ip(&rig.servers[2])?);
    // A server's address and one of nowhere from outside, a client's from among the servers.
    for (socket, source) in
        [(&outer, inside), (&outer, nowhere), (&inner, CLIENT), (&inner, nowhere)]
    {
        socket.send(&packet((source, VIP), (17, 1, 0), &query), VIP)?;
        socket.send(&packet((source, VIP), (1, 2, 0), &echo), VIP)?;
    }
    // The virtual IP's own, which is nobody else's to use.
    outer.send(&packet((VIP, VIP), (17, 3, 0), &query), VIP)?;
    for watcher in &watchers {
        let seen = watcher.receive(Duration::from_millis(300), |_| true);
        ensure!(seen.is_none(), "a server was sent {seen:?}");
    }
    let report = rig.router.report()?;
    let (path, source) = (report.drops("reverse_path"), report.drops("martian_source"));
    ensure!(path == 8 && source == 1, "{path} and {source} drops, not 8 and 1:\n{report}");
    ping(&rig.client, VIP, 56)?;
    ask(&udp::client(&rig.client, CLIENT, (VIP, 53))?, b"from where it should be")?;
    Ok(())
}
