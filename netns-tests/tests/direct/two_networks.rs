//! Requests leave by a second link; the servers answer through a NIC of their own on the client's.

use std::net::Ipv4Addr;
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::cable::add_route;
use netns_tests::direct::{Direct, Servers, Topology::TwoNetworks};
use netns_tests::harness::built_trial;
use netns_tests::icmp::{Complaint, packet};
use netns_tests::raw::{Packet, RawSocket, udp_without_checksum};
use netns_tests::tcp::{Client, EchoServer};
use netns_tests::udp::{self, ask, parts};
use netns_tests::{CLIENT, Failure, Outcome, ROUTER_OUTSIDE, Rig, Service, VIP, ensure};

use crate::everyday::{tcp_servers, udp_servers};

/// The scenario's own virtual IP: outside every network, reached by a route.
const FAR_VIP: Ipv4Addr = Ipv4Addr::new(207, 175, 44, 110);
const NARROW: u16 = 1_280;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        built_trial("o1_bytes_are_equal_and_the_answer_takes_another_way", o1_rig, o1),
        built_trial("a_narrow_way_to_the_servers_is_the_virtual_ips_to_report", narrow_rig, narrow),
    ]
}

fn o1_rig() -> Outcome<Rig> {
    let rig = Direct::silent(TwoNetworks).configured(|folder| {
        let text = TwoNetworks.config(folder, &[Service::tcp(8080).server(0, 8080, 1)]);
        text.replace(&format!("\"{VIP}\""), &format!("\"{FAR_VIP}\""))
    })?;
    Servers::Silent.hold(&rig.servers[0], FAR_VIP)?;
    add_route(&rig.client, &format!("{FAR_VIP}/32"), &ROUTER_OUTSIDE.to_string())?;
    Ok(rig)
}

fn o1(rig: &mut Rig) -> Outcome {
    let _server = EchoServer::start(&rig.servers[0], (FAR_VIP, 8080), "0")?;
    let mut client = Client::connect(&rig.client, (FAR_VIP, 8080))?;
    ensure!(client.took < Duration::from_secs(2), "connecting took {:?}", client.took);
    client.echo(&[tapvs::links::seed(), tapvs::links::seed()].concat())?;
    client.close()?;
    let report = rig.router.report()?;
    let figures = report.service("tcp", &format!("{FAR_VIP}:8080"))?;
    ensure!((figures.flows, figures.packets_out) == (1, 0), "{figures:?}\n{report}");
    Ok(())
}

fn narrow_rig() -> Outcome<Rig> {
    Direct::silent(TwoNetworks).configured(|folder| {
        let services = [Service::tcp(80).three(80), Service::udp(53).three(53)];
        let wide = "addresses = [\"10.0.0.2/24\"]";
        let text = TwoNetworks.config(folder, &services);
        text.replace(wide, &format!("{wide}\nmtu = {NARROW}"))
    })
}

fn narrow(rig: &mut Rig) -> Outcome {
    narrowness(rig)
}

/// Too large for the servers' link and not to be fragmented: said from the virtual IP, to the byte.
pub(crate) fn narrowness(rig: &Rig) -> Outcome {
    let _servers = (udp_servers(rig, 53)?, tcp_servers(rig, 80)?);
    let watcher = RawSocket::icmp(&rig.client)?;
    let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    let port = socket.local_addr()?.port();
    ask(&socket, &[b'x'; 1_252])?;
    socket.send(&[b'x'; 1_253])?;
    let is_error = |packet: &Packet| matches!(packet.payload()[0], 3 | 11);
    let complaint = watcher.receive(Duration::from_secs(5), is_error);
    let complaint = Complaint::read(&complaint.ok_or_else(|| Failure::new("no error came"))?)?;
    ensure!(complaint.kind == (3, 4) && complaint.mtu == NARROW, "{complaint:?}");
    ensure!(complaint.from == VIP, "{complaint:?}");
    ensure!(complaint.quoted_from == CLIENT && complaint.quoted_to == VIP, "{complaint:?}");
    ensure!(complaint.quoted_words[..3] == [port, 53, 1_261], "{complaint:?}");
    ensure!(complaint.length <= 576, "{complaint:?}");
    // Without the don't-fragment bit it is the router that cuts.
    let data = [b'y'; 1_300];
    let datagram = udp_without_checksum(port, 53, &data);
    RawSocket::ip(&rig.client)?.send(&packet((CLIENT, VIP), (17, 21, 0), &datagram), VIP)?;
    let mut buffer = vec![0; 65_536];
    // What the kernel has to say about earlier sends comes first.
    let received = (0..3).find_map(|_| socket.recv(&mut buffer).ok());
    let length = received.ok_or_else(|| Failure::new("no answer to what was cut"))?;
    let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
    ensure!(parts(&answer)?.2.as_bytes() == data, "another answer");
    Client::connect(&rig.client, (VIP, 80))?.both_ways(2 << 20)
}
