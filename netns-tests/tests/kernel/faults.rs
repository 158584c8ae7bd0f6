//! Servers that die, links that flap or vanish: what does not need them goes on.

use std::io::{ErrorKind, Read as _};
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::harness::rig_trial;
use netns_tests::tcp::{Client, connect};
use netns_tests::{
    CLIENT_TAP, Outcome, ROUTER_INSIDE, Rig, SERVER_NIC, SERVERS_TAP, Service, VIP, ensure,
    eventually, raw,
};
use tapvs::links::{Namespace, Netlink};

use crate::nat::echo_servers;

pub(crate) fn trials() -> Vec<Trial> {
    let web = || vec![Service::tcp(80).three(8080)];
    vec![
        rig_trial("a_dead_server_process_hurts_its_own_clients_only", web, process_dies),
        rig_trial("a_dead_server_machine_hurts_its_own_clients_only", web, machine_dies),
        rig_trial("the_clients_tap_flaps", web, client_tap_flaps),
        rig_trial("the_servers_tap_flaps", web, servers_tap_flaps),
        rig_trial("a_deleted_tap_is_made_again", web, tap_is_deleted),
    ]
}

/// One connection to each server, in the order of the servers.
pub(crate) fn one_each(rig: &Rig) -> Outcome<Vec<Client>> {
    let mut clients =
        (0..3).map(|_| Client::connect(&rig.client, (VIP, 80))).collect::<Outcome<Vec<_>>>()?;
    clients.sort_by(|a, b| a.server.cmp(&b.server));
    let servers: Vec<&str> = clients.iter().map(|client| client.server.as_str()).collect();
    ensure!(servers == ["0", "1", "2"], "three connections went to {servers:?}");
    Ok(clients)
}

fn process_dies(rig: &mut Rig) -> Outcome {
    let mut servers = echo_servers(rig, 8080)?;
    let mut clients = one_each(rig)?;
    drop(servers.remove(1));
    let end = clients[1].stream.read(&mut [0; 16]);
    ensure!(!matches!(end, Ok(1..)), "the dead server sent {end:?}");
    for survivor in [0, 2] {
        clients[survivor].echo(b"still there")?;
    }
    let mut refused = 0;
    for _ in 0..6 {
        match connect(&rig.client, (VIP, 80), Duration::from_secs(3)) {
            // The dead server's kernel says so itself.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused += 1,
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
    }
    ensure!(refused == 2, "{refused} of 6 connections over three servers were refused");
    clients[0].echo(b"and still")
}

fn machine_dies(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let mut clients = one_each(rig)?;
    rig.servers[2].run(|| Netlink::new()?.set_down(SERVER_NIC))?;
    for survivor in [0, 1] {
        clients[survivor].echo(b"still there")?;
    }
    let mut connected = 0;
    for _ in 0..6 {
        if connect(&rig.client, (VIP, 80), Duration::from_millis(300)).is_ok() {
            connected += 1;
        }
    }
    ensure!(connected == 4, "{connected} of 6 connections over three servers came through");
    for survivor in [0, 1] {
        clients[survivor].echo(b"and still")?;
    }
    rig.servers[2].run(|| {
        let netlink = Netlink::new()?;
        netlink.set_up(SERVER_NIC)?;
        netlink.add_route("0.0.0.0/0".parse().expect("a prefix"), netns_tests::GATEWAY.into())
    })?;
    let back = eventually(Duration::from_secs(20), || {
        Client::connect(&rig.client, (VIP, 80)).is_ok_and(|client| client.server == "2")
    });
    ensure!(back, "a server that came back got no connection in 20 s");
    Ok(())
}

fn client_tap_flaps(rig: &mut Rig) -> Outcome {
    flap(rig, |rig| &rig.client, CLIENT_TAP)
}

fn servers_tap_flaps(rig: &mut Rig) -> Outcome {
    flap(rig, |rig| &rig.middle, SERVERS_TAP)
}

fn flap(rig: &Rig, namespace: fn(&Rig) -> &Namespace, tap: &str) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let mut clients = one_each(rig)?;
    for _ in 0..3 {
        namespace(rig).run(|| {
            let netlink = Netlink::new()?;
            netlink.set_down(tap)?;
            std::thread::sleep(Duration::from_millis(50));
            netlink.set_up(tap)
        })?;
        for client in &mut clients {
            client.echo(b"after the flap")?;
        }
    }
    Client::connect(&rig.client, (VIP, 80))?.close()
}

fn tap_is_deleted(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let mut clients = one_each(rig)?;
    rig.client.run(|| Netlink::new()?.delete_link(CLIENT_TAP))?;
    for server in &rig.servers {
        raw::ping(server, ROUTER_INSIDE, 56)?;
    }
    // The router can only make it again where it is itself.
    let again = || rig.middle.run(|| Netlink::new()?.link(CLIENT_TAP)).is_ok_and(|link| link.up);
    ensure!(eventually(Duration::from_secs(10), again), "the router did not make its TAP again");
    rig.cable_client()?;
    for client in &mut clients {
        client.echo(b"on the new TAP")?;
    }
    Client::connect(&rig.client, (VIP, 80))?.close()
}
