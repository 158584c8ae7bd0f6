//! A circle: two links of the router's bridge on one kernel bridge.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netns_tests::cable::plug_tap;
use netns_tests::direct::{Direct, Topology::Bridged, outer_address};
use netns_tests::harness::built_trial;
use netns_tests::raw::ping;
use netns_tests::tcp::{Client, noise};
use netns_tests::{BRIDGE, CLIENT, Outcome, Rig, SERVERS_TAP, Service, VIP, ensure};
use tapvs::links::{LinkError, Netlink};

use crate::everyday::{must_know_the_router, tcp_servers};

const SECOND_TAP: &str = "tapvs2";
/// A calm network's frames in a second: ARP, and the guard's own probes.
const CALM: u64 = 50;

pub(crate) fn trials() -> Vec<Trial> {
    vec![built_trial("a_circle_costs_one_link_until_it_is_gone", rig, circle)]
}

fn rig() -> Outcome<Rig> {
    Direct::stock(Bridged).configured(|folder| {
        let text = Bridged.config(folder, &[Service::tcp(80).three(80)]);
        text.replace(
            &format!("\"{SERVERS_TAP}\"]"),
            &format!("\"{SERVERS_TAP}\", \"{SECOND_TAP}\"]"),
        )
    })
}

fn circle(rig: &mut Rig) -> Outcome {
    let _servers = tcp_servers(rig, 80)?;
    let mut old = Client::connect(&rig.client, (VIP, 80))?;
    old.echo(b"before")?;
    for round in 1..=2 {
        let before = rig.router.log().len();
        plug_tap(&rig.middle, BRIDGE, SECOND_TAP)?;
        // Something that goes round and round until a link is shut.
        broadcast(rig)?;
        let line = rig.router.wait_for(before, &["loop", "is shut"])?;
        let later = format!(" link={SECOND_TAP}");
        ensure!(line.contains(&later), "not the later link is shut: {line}");
        works(rig, &mut old)?;
        let frames = frames_in_a_second(rig)?;
        ensure!(frames < CALM, "round {round}: {frames} frames in a second of peace");

        let unplugged: Result<(), LinkError> =
            rig.middle.run(|| Netlink::new()?.clear_master(SECOND_TAP));
        unplugged?;
        rig.router.wait_for(before, &["the loop is gone", &later])?;
        works(rig, &mut old)?;
    }
    old.close()
}

fn works(rig: &Rig, old: &mut Client) -> Outcome {
    old.echo(&noise(20_000, 9))?;
    // While frames went round, the bridge may have learnt a server behind the wrong port. It knows better
    // when the server has said something.
    for number in 0..3 {
        ping(&rig.client, outer_address(number), 56)?;
    }
    for _ in 0..3 {
        let mut client = Client::connect(&rig.client, (VIP, 80))?;
        client.both_ways(200_000)?;
        must_know_the_router(rig, Bridged)?;
    }
    // What is for all arrives once.
    let receiver = rig.servers[1].run(|| UdpSocket::bind(("0.0.0.0", 7_000)))?;
    receiver.set_read_timeout(Some(Duration::from_millis(500)))?;
    broadcast(rig)?;
    let mut copies = 0;
    while receiver.recv(&mut [0; 64]).is_ok() {
        copies += 1;
    }
    ensure!(copies == 1, "one broadcast arrived {copies} times");
    Ok(())
}

fn broadcast(rig: &Rig) -> Outcome {
    let sender = rig.client.run(|| UdpSocket::bind((CLIENT, 0)))?;
    sender.set_broadcast(true)?;
    sender.send_to(b"to all", ("203.0.113.255", 7_000))?;
    Ok(())
}

/// What the router reads from all its links.
fn frames_in_a_second(rig: &Rig) -> Outcome<u64> {
    let read = || -> Outcome<u64> {
        let report = rig.router.report()?;
        let links = [netns_tests::CLIENT_TAP, SERVERS_TAP, SECOND_TAP];
        links.into_iter().map(|link| Ok(report.link(link)?.frames_in)).sum()
    };
    let (start, before) = (Instant::now(), read()?);
    std::thread::sleep(Duration::from_secs(1));
    let frames = read()? - before;
    Ok(u64::try_from(u128::from(frames) * 1_000 / start.elapsed().as_millis().max(1))?)
}
