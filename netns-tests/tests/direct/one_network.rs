//! Where the router cannot keep a server from speaking it watches, names and defends.

use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::arp::{Arp, REPLY, REQUEST};
use netns_tests::direct::{
    Direct, ROUTER_MAC, Servers, Topology::OneNetwork, forget, mac, neighbour, outer_address,
};
use netns_tests::harness::built_trial;
use netns_tests::tcp::{Client, EchoServer};
use netns_tests::wire::Wire;
use netns_tests::{Outcome, Rig, SERVER_NIC, Service, VIP, ensure, eventually};
use tapvs::addr::MacAddr;

/// Longer than the router waits before it defends again.
const DEFENDED: Duration = Duration::from_secs(15);
const STRANGER: MacAddr = MacAddr([0x02, 0, 0, 0, 0x66, 0x66]);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        built_trial("watch_names_every_server_that_claims", || watched(Servers::Stock), named),
        built_trial(
            "watch_has_nothing_to_say_of_silent_servers",
            || watched(Servers::Silent),
            quiet,
        ),
        built_trial("watch_names_a_stranger_that_claims", || watched(Servers::Silent), stranger),
        built_trial("a_client_that_was_misled_is_led_back", || watched(Servers::Stock), defended),
    ]
}

fn watched(servers: Servers) -> Outcome<Rig> {
    Direct { topology: OneNetwork, servers }.configured(|folder| {
        let text = OneNetwork.config(folder, &[Service::tcp(80).three(80)]);
        let vip = format!("address = \"{VIP}\"\nnetwork = \"internet\"\n");
        text.replacen(&vip, &format!("{vip}probe_interval = \"1s\"\n"), 1)
    })
}

/// Nobody has asked them anything but the router.
fn named(rig: &mut Rig) -> Outcome {
    for (number, server) in rig.servers.iter().enumerate() {
        let own = mac(server, SERVER_NIC)?.to_string();
        let line = rig.router.wait_for(0, &["claims", &own])?;
        let address = outer_address(number).to_string();
        ensure!(line.contains(&address), "server {address} is not named: {line}");
        ensure!(line.contains(&VIP.to_string()), "of what it claims not a word: {line}");
    }
    Ok(())
}

fn quiet(rig: &mut Rig) -> Outcome {
    let _servers = crate::everyday::tcp_servers(rig, 80)?;
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        forget(&rig.client, SERVER_NIC, VIP)?;
        Client::connect(&rig.client, (VIP, 80))?.close()?;
        let known = neighbour(&rig.client, SERVER_NIC, VIP)?;
        ensure!(known == Some(ROUTER_MAC), "the client takes {known:?} for {VIP}");
    }
    let claims: Vec<_> =
        rig.router.log().into_iter().filter(|line| line.contains("claims")).collect();
    ensure!(claims.is_empty(), "{claims:?}");
    Ok(())
}

/// Said to everybody, by a host that is no server.
fn stranger(rig: &mut Rig) -> Outcome {
    let wire = Wire::open(&rig.servers[2], SERVER_NIC)?;
    wire.send(&Arp::announcement(REQUEST, VIP, STRANGER).frame(MacAddr::BROADCAST))?;
    let line = rig.router.wait_for(0, &["claims", &STRANGER.to_string(), &VIP.to_string()])?;
    for number in 0..3 {
        let address = outer_address(number).to_string();
        ensure!(!line.contains(&address), "a stranger is taken for {address}: {line}");
    }
    Ok(())
}

/// A server's claim changes the client's entry, as it would any host's; the router's word changes
/// it back.
fn defended(rig: &mut Rig) -> Outcome {
    let _server = EchoServer::start(&rig.servers[1], (VIP, 80), "1")?;
    let wire = Wire::open(&rig.servers[1], SERVER_NIC)?;
    let own = mac(&rig.servers[1], SERVER_NIC)?;
    let known = || neighbour(&rig.client, SERVER_NIC, VIP);
    // Whoever was first, the client has an entry now.
    drop(Client::connect(&rig.client, (VIP, 80)));
    ensure!(known()?.is_some(), "the client has no entry for {VIP}");
    for (round, operation) in [REQUEST, REPLY].into_iter().enumerate() {
        wire.send(&Arp::announcement(operation, VIP, own).frame(MacAddr::BROADCAST))?;
        let is = |mac| eventually(DEFENDED, || known().is_ok_and(|known| known == Some(mac)));
        ensure!(is(ROUTER_MAC), "round {round}: the client still takes {:?} for {VIP}", known()?);
    }
    // The servers do not drop their virtual IP over it.
    for server in &rig.servers {
        let all = server.run(|| tapvs::links::Netlink::new()?.addresses(SERVER_NIC))?;
        ensure!(all.iter().any(|cidr| cidr.address() == VIP), "a server has lost {VIP}: {all:?}");
    }
    Ok(())
}
