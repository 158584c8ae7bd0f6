//! Direct routing: servers answer past the routers, in one network, or across the bridge that the active
//! router is between two halves of it.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::direct::{mac, neighbour};
use netns_tests::harness::{say, trial};
use netns_tests::pair::{NIC, Pair, Shape, Terms, all_work};
use netns_tests::wire::{Wire, source};
use netns_tests::{Outcome, SERVER_NIC, VIP, ensure, eventually};
use tapvs::addr::MacAddr;

use crate::takeover::on_pair;

const CONNECTIONS: usize = 20;
const VIRTUAL_MAC: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 51]);
/// Frames that everybody hears in a second while nothing happens: adverts, the loop guard's probes, ARP.
/// What goes round in a circle is more.
const CALM: usize = 200;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("direct_connections_outlive_a_router", || outlives(Shape::OneNetwork)),
        trial("direct_connections_outlive_a_bridge", || outlives(Shape::Bridged)),
    ]
}

/// Killed, back, and stopped in order: connections live on, and no frame goes in circles.
fn outlives(shape: Shape) -> Outcome {
    let terms = Terms { shape, ..Terms::USUAL };
    on_pair(terms, |pair| {
        let mut connections = pair.connections(CONNECTIONS)?;
        is_calm(pair)?;
        let wire = Wire::open(&pair.observer, NIC)?;
        let (gaps, ()) = pair.probed(Duration::from_millis(500), |pair| {
            pair.kill(0);
            pair.wait_until_active(1, 0).map(drop)
        })?;
        say(format_args!("{shape:?}, killed: {gaps:?}"));
        all_work(&mut connections)?;
        has_virtual_mac(pair)?;
        if shape == Shape::Bridged {
            switches_are_taught(pair, &wire)?;
        }
        is_calm(pair)?;
        // It comes back while the other one bridges, and takes over.
        let mut more = pair.connections(4)?;
        let (gaps, ()) = pair.probed(Duration::from_millis(500), |pair| {
            pair.start(0, terms)?;
            pair.wait_until_active(0, 0).map(drop)
        })?;
        say(format_args!("{shape:?}, back: {gaps:?}"));
        all_work(&mut connections)?;
        all_work(&mut more)?;
        is_calm(pair)?;
        let before = pair.router(1)?.log().len();
        pair.stop(0)?;
        pair.wait_until_active(1, before)?;
        all_work(&mut connections)?;
        all_work(&mut more)?;
        has_virtual_mac(pair)?;
        let log = pair.router(1)?.log();
        ensure!(!log.iter().any(|line| line.contains("loop:")), "a loop was found: {log:?}");
        Ok(())
    })
}

fn has_virtual_mac(pair: &Pair) -> Outcome {
    let known = neighbour(&pair.client, NIC, VIP)?;
    ensure!(known == Some(VIRTUAL_MAC), "the client has {known:?}");
    Ok(())
}

/// The new active router has spoken outside for each server, which is inside.
fn switches_are_taught(pair: &Pair, wire: &Wire) -> Outcome {
    let mut heard = BTreeSet::new();
    for server in &pair.servers {
        let mac = mac(server, SERVER_NIC)?;
        // Those that it knew are spoken for at once, the others when they have been found.
        let is_taught = || {
            heard.extend(wire.seen(|_| true).iter().map(|frame| source(frame)));
            heard.contains(&mac)
        };
        ensure!(eventually(Duration::from_secs(2), is_taught), "no frame from {mac} outside");
    }
    Ok(())
}

fn is_calm(pair: &Pair) -> Outcome {
    let wire = Wire::open(&pair.observer, NIC)?;
    thread::sleep(Duration::from_secs(1));
    let heard = wire.seen(|frame| frame[0] & 1 == 1).len();
    ensure!(heard < CALM, "{heard} frames to everybody in a second");
    Ok(())
}
