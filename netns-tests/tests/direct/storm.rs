//! Forged ARP in every shape and in great number, from the client's side.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::arp::{Arp, KIND, REPLY, REQUEST};
use netns_tests::direct::{Direct, ROUTER_MAC, Topology::Bridged, mac, outer_address};
use netns_tests::harness::{built_trial, say};
use netns_tests::raw::ping;
use netns_tests::tcp::{Client, noise};
use netns_tests::wire::{self, Wire};
use netns_tests::{
    CLIENT, CLIENT_TAP, Context as _, Outcome, ROUTER_OUTSIDE, Rig, SERVER_NIC, SERVERS_TAP,
    Service, VIP, ensure,
};
use tapvs::addr::MacAddr;

use crate::everyday::{must_know_the_router, tcp_servers};

const FRAMES: u64 = 100_000;
const PINGS: usize = 100;
const PACE: Duration = Duration::from_millis(15);
/// A batch of 64 frames takes a fraction of a millisecond; the rest is the machine's: four threads
/// and two cores.
const DELAY: Duration = Duration::from_millis(5);

pub(crate) fn trials() -> Vec<Trial> {
    let rig = || Direct::stock(Bridged).build(&[Service::tcp(80).three(80)]);
    vec![
        built_trial("an_arp_storm_delays_nobody_on_another_link", rig, storm),
        built_trial("forged_arp_is_counted_and_never_believed", rig, forged),
    ]
}

/// Every way to say something wrong: who says it, how, to whom.
fn every_shape(forger: MacAddr, number: usize) -> Vec<u8> {
    let random = noise(64, 1 + number as u64);
    let group = MacAddr([0x01, 0, 0x5e, random[0] & 0x7f, random[1], random[2]]);
    let victims = [VIP, outer_address(number % 3), ROUTER_OUTSIDE, CLIENT, Ipv4Addr::UNSPECIFIED];
    let victim = victims[usize::from(random[3]) % victims.len()];
    let to = [MacAddr::BROADCAST, ROUTER_MAC, group][usize::from(random[4]) % 3];
    let operation = [REQUEST, REPLY][usize::from(random[5]) % 2];
    let good = Arp { target: VIP, ..Arp::announcement(operation, victim, forger) };
    let with = |at: usize, value: u8| {
        let mut message = good.bytes();
        message[at] = value;
        wire::frame(to, forger, KIND, &message)
    };
    match number % 12 {
        0 => good.frame(to),
        1 => Arp { target: victim, ..good }.frame(to),
        // Hardware, protocol, the two lengths, the operation.
        2 => with(1, random[6]),
        3 => with(2, random[6]),
        4 => with(4, random[6]),
        5 => with(5, random[6]),
        6 => with(7, random[6].max(3)),
        // Cut short, if ever so little.
        7 => [&to.0[..], &forger.0, &KIND.to_be_bytes(), &good.bytes()[..27]].concat(),
        8 => [&to.0[..], &forger.0, &KIND.to_be_bytes(), &good.bytes()[..number % 28]].concat(),
        9 => Arp { sender_mac: group, ..good }.frame(to),
        10 => Arp { sender_mac: [MacAddr::ZERO, MacAddr::BROADCAST][number / 12 % 2], ..good }
            .frame(to),
        _ => wire::frame(to, forger, KIND, &random),
    }
}

fn storm(rig: &mut Rig) -> Outcome {
    let wire = Wire::open(&rig.client, CLIENT_TAP)?;
    let calm = pings(rig)?;
    let before = rig.router.report()?.link(CLIENT_TAP)?.frames_in;
    let over = AtomicBool::new(false);
    let in_storm = thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                // What does not fit into the TAP's queue is lost; the router counts what arrives.
                drop(wire.send(&every_shape(wire.mac(), number)));
                if over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let in_storm = pings(rig);
        over.store(true, Ordering::Relaxed);
        in_storm
    })?;
    let report = rig.router.report()?;
    let arrived = report.link(CLIENT_TAP)?.frames_in - before;
    let [median, most] = [50, 99].map(|percent| percentile(&in_storm, percent));
    let [calm_median, calm_most] = [50, 99].map(|percent| percentile(&calm, percent));
    say(format_args!(
        "storm of {arrived} frames: half of the pings within {median:?}, 99 % within {most:?}; \
         in peace {calm_median:?} and {calm_most:?}"
    ));
    ensure!(arrived >= FRAMES, "a storm of {arrived} frames is none:\n{report}");
    ensure!(median < DELAY, "a ping took {median:?}, in peace {calm_median:?}");
    Ok(())
}

/// From a server to the router itself, no faster than a host answers; sorted.
fn pings(rig: &Rig) -> Outcome<Vec<Duration>> {
    let ping = || {
        thread::sleep(PACE);
        ping(&rig.servers[0], ROUTER_OUTSIDE, 56)
    };
    let mut took = (0..PINGS).map(|_| ping()).collect::<Outcome<Vec<_>>>()?;
    took.sort_unstable();
    Ok(took)
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}

/// While and after everything has been said about everybody, each still finds who it looks for.
fn forged(rig: &mut Rig) -> Outcome {
    const FORGED: usize = 2_400;
    let _servers = tcp_servers(rig, 80)?;
    let wire = Wire::open(&rig.client, CLIENT_TAP)?;
    let heard = Wire::open(&rig.servers[2], SERVER_NIC)?;
    Client::connect(&rig.client, (VIP, 80))?.close()?;
    for number in 0..FORGED {
        wire.send(&every_shape(wire.mac(), number))?;
        if number % 100 == 99 {
            let mut client = Client::connect(&rig.client, (VIP, 80))
                .context(format_args!("after {number} forged frames"))?;
            ensure!(client.took < Duration::from_millis(500), "it took {:?}", client.took);
            client.echo(b"still there?")?;
            client.close()?;
            must_know_the_router(rig, Bridged)?;
        }
    }
    // What the client's side says about the virtual IP goes no further than the router.
    let passed = heard.seen(|frame| {
        Arp::read(frame).is_some_and(|arp| arp.sender == VIP && arp.sender_mac != ROUTER_MAC)
    });
    let own: Vec<_> =
        rig.servers.iter().map(|server| mac(server, SERVER_NIC)).collect::<Outcome<_>>()?;
    let passed: Vec<_> =
        passed.into_iter().filter(|frame| !own.contains(&wire::source(frame))).collect();
    ensure!(passed.is_empty(), "a server heard {passed:02x?}");
    let report = rig.router.report()?;
    for reason in ["arp_malformed", "arp_conflict"] {
        ensure!(report.drops(reason) > 0, "nothing was counted as {reason}:\n{report}");
    }
    let sent = report.link(SERVERS_TAP)?.frames_out;
    ensure!(sent > 0, "nothing left by {SERVERS_TAP}");
    Ok(())
}
