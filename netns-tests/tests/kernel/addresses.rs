//! The router's addresses: who answers for them, with which MAC, and what is said at closed doors.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netns_tests::harness::rig_trial;
use netns_tests::tcp::{Client, connect};
use netns_tests::{
    CLIENT, CLIENT_TAP, Failure, GATEWAY, Outcome, ROUTER_INSIDE, ROUTER_OUTSIDE, Rig, SERVER_NIC,
    SERVERS_TAP, Service, VIP, ensure, raw, udp,
};
use tapvs::addr::MacAddr;
use tapvs::links::{Namespace, Netlink};

use crate::nat::echo_servers;

const AT_ONCE: Duration = Duration::from_millis(500);

pub(crate) fn trials() -> Vec<Trial> {
    let web = || vec![Service::tcp(80).three(8080)];
    let empty = || vec![Service::tcp(80), Service::udp(53), Service::tcp(81).server(0, 8080, 0)];
    vec![
        rig_trial("all_its_addresses_answer_pings", web, pings),
        rig_trial("one_mac_for_all_its_addresses_and_never_the_taps", web, macs),
        rig_trial("arp_is_answered_on_the_right_network_only", web, wrong_network),
        rig_trial("ports_without_a_service_are_refused_at_once", web, unserved),
        rig_trial("services_without_a_server_are_refused_and_counted", empty, no_server),
    ]
}

fn pings(rig: &mut Rig) -> Outcome {
    for size in [0, 1, 56, 1_400, 1_472] {
        for address in [VIP, ROUTER_OUTSIDE] {
            raw::ping(&rig.client, address, size)?;
        }
        for address in [GATEWAY, ROUTER_INSIDE] {
            raw::ping(&rig.servers[0], address, size)?;
        }
    }
    // From the other side, through the router.
    raw::ping(&rig.servers[2], VIP, 56)?;
    Ok(())
}

fn macs(rig: &mut Rig) -> Outcome {
    let outside = (&rig.client, CLIENT_TAP, [VIP, ROUTER_OUTSIDE]);
    let inside = (&rig.servers[1], SERVER_NIC, [GATEWAY, ROUTER_INSIDE]);
    let mut known = Vec::new();
    for (namespace, device, addresses) in [outside, inside] {
        let mut macs = Vec::new();
        for address in addresses {
            raw::ping(namespace, address, 8)?;
            macs.push(neighbour(namespace, device, address)?);
        }
        ensure!(macs[0] == macs[1], "{addresses:?} are at {macs:?}");
        known.push(macs[0]);
    }
    ensure!(known[0] != known[1], "both networks know the router as {}", known[0]);
    let taps = [(&rig.client, CLIENT_TAP), (&rig.middle, SERVERS_TAP)];
    for (namespace, tap) in taps {
        let own = namespace.run(|| Netlink::new()?.link(tap))?.mac;
        ensure!(!known.contains(&own), "the router uses {own}, the MAC of {tap}");
    }
    for mac in known {
        ensure!(mac.is_unicast() && mac.0[0] & 2 == 2, "{mac} is not locally administered");
    }
    Ok(())
}

fn neighbour(namespace: &Namespace, device: &str, address: Ipv4Addr) -> Outcome<MacAddr> {
    let all = namespace.run(|| Netlink::new()?.neighbours(device))?;
    let mac = all.iter().find(|neighbour| neighbour.address == address).and_then(|n| n.mac);
    mac.ok_or_else(|| Failure::new(format!("{device} knows no MAC of {address}: {all:?}")))
}

fn wrong_network(rig: &mut Rig) -> Outcome {
    // The client thinks that the servers' addresses are on its own network.
    rig.client.run(|| {
        Netlink::new()?.add_address(CLIENT_TAP, "10.0.0.200/24".parse().expect("an address"))
    })?;
    let asked = raw::RawSocket::icmp(&rig.client)?;
    for address in [GATEWAY, ROUTER_INSIDE] {
        // The answer, if there is one, is the neighbour's entry.
        drop(asked.send(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0], address));
    }
    std::thread::sleep(Duration::from_millis(300));
    for address in [GATEWAY, ROUTER_INSIDE] {
        let found = neighbour(&rig.client, CLIENT_TAP, address);
        ensure!(found.is_err(), "{address} was answered for on the clients' network: {found:?}");
    }
    let report = rig.router.report()?;
    ensure!(report.drops("arp_other_target") > 0, "those drops were not counted:\n{report}");
    Ok(())
}

fn unserved(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    refused_tcp(rig, VIP, 81)?;
    refused_tcp(rig, VIP, 8080)?;
    refused_udp(rig, VIP, 53)?;
    // A service's port with the other protocol is no service.
    refused_udp(rig, VIP, 80)?;
    Client::connect(&rig.client, (VIP, 80))?.close()?;
    let drops = rig.router.report()?.drops("unserved");
    ensure!(drops >= 4, "4 or more drops were counted as {drops}");
    Ok(())
}

fn no_server(rig: &mut Rig) -> Outcome {
    refused_tcp(rig, VIP, 80)?;
    refused_tcp(rig, VIP, 81)?;
    refused_udp(rig, VIP, 53)?;
    let drops = rig.router.report()?.drops("no_server");
    ensure!(drops >= 3, "3 or more drops were counted as {drops}");
    Ok(())
}

fn refused_tcp(rig: &Rig, address: Ipv4Addr, port: u16) -> Outcome {
    let start = Instant::now();
    let refused = connect(&rig.client, (address, port), Duration::from_secs(3));
    let took = start.elapsed();
    let kind = refused.as_ref().err().map(std::io::Error::kind);
    ensure!(kind == Some(ErrorKind::ConnectionRefused), "tcp port {port}: {refused:?}");
    ensure!(took < AT_ONCE, "tcp port {port} was refused after {took:?}");
    Ok(())
}

fn refused_udp(rig: &Rig, address: Ipv4Addr, port: u16) -> Outcome {
    let socket = udp::client(&rig.client, CLIENT, (address, port))?;
    let start = Instant::now();
    socket.send(b"anybody there?")?;
    let refused = socket.recv(&mut [0; 16]);
    let took = start.elapsed();
    let kind = refused.as_ref().err().map(std::io::Error::kind);
    ensure!(kind == Some(ErrorKind::ConnectionRefused), "udp port {port}: {refused:?}");
    ensure!(took < AT_ONCE, "udp port {port} was refused after {took:?}");
    Ok(())
}
