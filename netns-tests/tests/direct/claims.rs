//! Whose the virtual IP is, asked again and again while every server says that it is its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::arp::{Arp, REPLY, REQUEST};
use netns_tests::direct::{Direct, ROUTER_MAC, Topology::Bridged, forget, mac, neighbour};
use netns_tests::harness::built_trial;
use netns_tests::tcp::Client;
use netns_tests::wire::Wire;
use netns_tests::{
    CLIENT, CLIENT_TAP, Context as _, Outcome, Rig, SERVER_NIC, Service, VIP, ensure,
};
use tapvs::addr::MacAddr;

use crate::everyday::tcp_servers;

const TIMES: usize = 1_000;
/// Between two claims of one server.
const PACE: Duration = Duration::from_micros(20);

pub(crate) fn trials() -> Vec<Trial> {
    let rig = || Direct::stock(Bridged).build(&[Service::tcp(80).three(80)]);
    vec![built_trial("forgotten_1000_times_the_routers_mac_is_learned_1000_times", rig, forgotten)]
}

fn forgotten(rig: &mut Rig) -> Outcome {
    let _servers = tcp_servers(rig, 80)?;
    let client = mac(&rig.client, CLIENT_TAP)?;
    let (over, claims) = (AtomicBool::new(false), AtomicU64::new(0));
    let wires = rig.servers.iter().map(|server| Wire::open(server, SERVER_NIC));
    let wires = wires.collect::<Outcome<Vec<_>>>()?;
    let asked = thread::scope(|scope| {
        for wire in &wires {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for claim in every_way(wire.mac(), client) {
                        // A queue that is full has enough of them.
                        if wire.send(&claim).is_ok() {
                            claims.fetch_add(1, Ordering::Relaxed);
                        }
                        thread::sleep(PACE);
                    }
                }
            });
        }
        let asked = ask(rig);
        over.store(true, Ordering::Relaxed);
        asked
    });
    asked?;
    let claims = claims.load(Ordering::Relaxed);
    ensure!(claims > 1_000, "only {claims} claims were made meanwhile");
    // What the router chose is what the servers saw.
    let report = rig.router.report()?;
    let figures = report.service("tcp", &format!("{VIP}:80"))?;
    ensure!(figures.flows == TIMES as u64, "{figures:?}\n{report}");
    Ok(())
}

/// All that a stock host, or one that announces itself, ever says about an address of its own.
fn every_way(own: MacAddr, client: MacAddr) -> Vec<Vec<u8>> {
    let answer =
        Arp { operation: REPLY, sender_mac: own, sender: VIP, target_mac: client, target: CLIENT };
    vec![
        Arp::announcement(REQUEST, VIP, own).frame(MacAddr::BROADCAST),
        Arp::announcement(REPLY, VIP, own).frame(MacAddr::BROADCAST),
        Arp::announcement(REQUEST, VIP, own).frame(client),
        answer.frame(client),
        answer.frame(MacAddr::BROADCAST),
        Arp::who_has(CLIENT, (own, VIP)).frame(MacAddr::BROADCAST),
        Arp::who_has(CLIENT, (own, VIP)).frame(client),
    ]
}

fn ask(rig: &Rig) -> Outcome {
    let mut first = None;
    for time in 0..TIMES {
        forget(&rig.client, CLIENT_TAP, VIP)?;
        let mut client =
            Client::connect(&rig.client, (VIP, 80)).context(format_args!("connection {time}"))?;
        let known = neighbour(&rig.client, CLIENT_TAP, VIP)?;
        ensure!(known == Some(ROUTER_MAC), "time {time}: the client takes {known:?} for {VIP}");
        client.echo(b"who are you?").context(format_args!("connection {time}"))?;
        // One at a time, round robin: the router's choice is known.
        let server: usize = client.server.parse()?;
        let due = (*first.get_or_insert(server) + time) % rig.servers.len();
        ensure!(server == due, "time {time}: server {server} answered, the router chose {due}");
        client.close()?;
        let known = neighbour(&rig.client, CLIENT_TAP, VIP)?;
        ensure!(known == Some(ROUTER_MAC), "time {time}, later: it takes {known:?} for {VIP}");
    }
    Ok(())
}
