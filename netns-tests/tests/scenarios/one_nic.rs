//! The simplest site there is: one NIC, one wire, clients and servers on it in two subnets.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::cable::{add_route, make_bridge, plug, plug_tap, within};
use netns_tests::harness::built_trial;
use netns_tests::raw::{Packet, RawSocket, ping};
use netns_tests::tcp::Client;
use netns_tests::udp::{self, ask, parts};
use netns_tests::{
    BRIDGE, CLIENT, CLIENT_TAP, Context as _, GATEWAY, Hosts, Outcome, Rig, SERVER_NIC, Service,
    VIP, config, ensure, server_address,
};

use crate::site::{tcp_server, udp_server};

pub(crate) fn trials() -> Vec<Trial> {
    vec![built_trial("one_nic_serves_two_subnets_on_one_wire", site, one_wire)]
}

/// All hosts and the router's one TAP on one bridge.
fn site() -> Outcome<Rig> {
    Rig::cabled(cable_hosts, text, |hosts| plug_tap(&hosts.middle, BRIDGE, CLIENT_TAP))
}

fn cable_hosts(Hosts { client, middle, servers }: &Hosts) -> Outcome {
    make_bridge(middle, BRIDGE)?;
    for (number, host) in servers.iter().chain([client]).enumerate() {
        let address = if number < 3 { server_address(number) } else { CLIENT };
        let nic = (host, SERVER_NIC, within(address, 24));
        plug((middle, BRIDGE, &format!("s{number}")), nic)?;
    }
    // Or the client would have no way back to a server that calls it under its own address.
    add_route(client, "10.0.0.0/24", "203.0.113.2")?;
    servers.iter().try_for_each(|server| add_route(server, "0.0.0.0/0", &GATEWAY.to_string()))
}

/// The rig's file with both networks made one.
fn text(folder: &Path) -> String {
    let services = [Service::tcp(80).three(8080), Service::udp(53).three(5353)];
    let text = config(folder, &services);
    let (before, rest) = text.split_once("[[network]]\nname = \"servers\"").expect("two networks");
    let (_, after) = rest.split_once("[[virtual_ip]]").expect("virtual IPs");
    let both = "addresses = [\"203.0.113.2/24\", \"10.0.0.2/24\"]";
    format!("{before}[[virtual_ip]]{after}")
        .replace("addresses = [\"203.0.113.2/24\"]", both)
        .replace("network = \"servers\"", "network = \"internet\"")
}

fn one_wire(rig: &mut Rig) -> Outcome {
    let _tcp = [tcp_server(rig, 0, 8080)?, tcp_server(rig, 1, 8080)?, tcp_server(rig, 2, 8080)?];
    let _udp = [udp_server(rig, 0, 5353)?, udp_server(rig, 1, 5353)?, udp_server(rig, 2, 5353)?];
    let hosts = rig.servers.iter().chain([&rig.client]);
    let watchers = hosts.map(RawSocket::icmp).collect::<Outcome<Vec<_>>>()?;
    for _ in 0..3 {
        let mut client = Client::connect(&rig.client, (VIP, 80))?;
        ensure!(client.seen_as.ip() == IpAddr::from(CLIENT), "seen as {}", client.seen_as);
        client.both_ways(1 << 20)?;
        let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
        ensure!(parts(&ask(&socket, b"hello")?)?.1 == socket.local_addr()?, "seen as another");
    }
    // The servers' own traffic turns round on the same wire, and so does what they send to the
    // virtual IP.
    for (number, server) in rig.servers.iter().enumerate() {
        ping(server, CLIENT, 56).context(format_args!("server {number} to the client"))?;
        ping(server, VIP, 56).context(format_args!("server {number} to the virtual IP"))?;
        let mut client = Client::connect(server, (VIP, 80))?;
        client.both_ways(200_000)?;
    }
    for watcher in watchers {
        let redirect =
            watcher.receive(Duration::from_millis(200), |packet: &Packet| packet.payload()[0] == 5);
        ensure!(redirect.is_none(), "a redirect: {redirect:?}");
    }
    Ok(())
}
