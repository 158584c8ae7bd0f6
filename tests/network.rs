//! Whole networks in memory, on virtual time: clients, the router, servers, with loss, duplicates,
//! reordering and damage from a seed.
//!
//! Clients and servers are smoltcp hosts with real TCP and UDP; the router is the dataplane. `World` is
//! NAT between two links, `Lan` direct routing with servers that hold the virtual IP as stock Linux
//! does, with the router as a bridge between switches or beside the only one.
//! What the conformance list calls D1 to D3 and D6 to D8 is checked at every step.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

#[path = "network/caller.rs"]
mod caller;
#[path = "network/fleet.rs"]
mod fleet;
#[path = "network/ftp.rs"]
mod ftp;
#[path = "network/host.rs"]
#[expect(dead_code, reason = "each test file uses its part")]
mod host;
#[path = "network/lan.rs"]
mod lan;
#[path = "network/program.rs"]
mod program;
#[path = "network/shadow.rs"]
mod shadow;
#[path = "network/station.rs"]
mod station;
#[path = "network/switch.rs"]
mod switch;
#[path = "network/trouble.rs"]
mod trouble;
#[path = "network/watcher.rs"]
mod watcher;
#[path = "network/world.rs"]
mod world;

use fleet::Fleet;
use lan::{Lan, SERVERS, STATIONS};
use support::bridged;
use tapvs::dataplane::DropReason;
use tapvs::time::Duration;
use world::{Faults, World};

const SEEDS: u64 = 120;
const FTP_SEEDS: u64 = 120;

/// Every seed: transfers end, byte for byte, whatever the network does to them.
#[test]
fn transfers_complete_over_a_bad_network() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, Faults::of(seed));
        world.run(Duration::from_secs(300));
        world.assert_complete();
        world.rest();
    }
}

/// Every seed: files come by passive and active FTP, whatever the network does to commands and answers.
#[test]
fn files_come_by_ftp_over_a_bad_network() {
    let (mut rewritten, mut connections, mut early, mut retries) = (0, 0, 0, 0_u64);
    for seed in 0..FTP_SEEDS {
        let mut world = World::ftp(seed, Faults::of(seed), 6);
        world.run(Duration::from_secs(900));
        retries += world.assert_ended() as u64;
        let counters = world.router.dataplane.ftp_counters();
        assert_eq!(counters.unreadable + counters.unasked + counters.full, 0, "seed {seed}");
        (rewritten, connections) =
            (rewritten + counters.rewritten, connections + counters.connections);
        early += world.router.dataplane.counters().dropped(DropReason::FtpEarly);
        world.rest();
        let load = world.router.dataplane.ftp_load().unwrap();
        assert_eq!((load.controls, load.data, load.awaited), (0, 0, 0), "seed {seed}");
    }
    assert!(rewritten >= 8 * FTP_SEEDS && connections >= 12 * FTP_SEEDS);
    assert!(early > 10, "{early} too early");
    assert!(retries < 4 * FTP_SEEDS, "{retries} sessions were cut off");
}

/// A perfect network: every frame that belongs to a transfer is forwarded, none is dropped.
#[test]
fn nothing_is_dropped_on_a_good_network() {
    let mut world = World::new(1, Faults::NONE);
    world.settle();
    world.run(Duration::from_secs(60));
    world.assert_complete();
    let drops: Vec<_> = DropReason::ALL
        .iter()
        .map(|reason| (*reason, world.router.dataplane.counters().dropped(*reason)))
        .filter(|(_, count)| *count > 0)
        // Hosts ask for one another, in everybody's hearing.
        .filter(|(reason, _)| !reason.name().starts_with("arp_"))
        .collect();
    // A client is asked for when the first answers come for it, of which three wait.
    assert!(matches!(drops[..], [] | [(DropReason::HoldFull, 1..=3)]), "{drops:?}");
    world.rest();
}

/// D7, G11: the same seed twice gives the same output.
#[test]
fn equal_seeds_give_equal_output() {
    let output = |seed| {
        let mut world = World::new(seed, Faults::of(seed));
        world.run(Duration::from_secs(300));
        world.output()
    };
    for seed in 0..10 {
        assert_eq!(output(seed), output(seed), "seed {seed}");
    }
    assert_ne!(output(1), output(2));
}

/// D9: the configuration changes under the transfers, again and again; no flow moves or ends.
#[test]
fn reloads_disturb_no_transfer() {
    for seed in 0..20 {
        let mut world = World::new(seed, Faults::of(seed));
        world.reloads_every = Some(Duration::from_millis(150));
        world.run(Duration::from_secs(300));
        world.assert_complete();
        assert!(world.router.table.generation() > 5, "it was reloaded");
        world.rest();
    }
}

/// Services, servers, weights and schedulers change 200 times under 1,000 connections: none of them
/// breaks or moves but those that a removed server's service resets, nothing that is the same loses
/// its counters, and new ones follow the new rules.
#[test]
fn reloads_break_no_long_connection() {
    let mut fleet = Fleet::new(1);
    // Everybody is known before everybody calls.
    fleet.open(80, 100);
    fleet.open(80, 300);
    fleet.open(81, 400);
    fleet.open(82, 200);
    fleet.open(83, 50);
    assert_eq!(fleet.calls().count(), 1_050);
    let (mut drained, mut reset, mut at_once) = (0, 0, 0);
    for _ in 0..200 {
        let [gone, without_a_word] = fleet.reload();
        drained += fleet.draining();
        (reset, at_once) = (reset + gone, at_once + without_a_word);
        fleet.talk(8);
        fleet.open(83, gone);
        fleet.newcomer();
        fleet.pass(Duration::from_millis(50));
        fleet.check();
    }
    fleet.talk(100);
    fleet.check();
    // Hundreds are at servers that were removed, each time.
    assert!(drained > 200 * 100, "{drained} drained");
    assert!(reset > 500 && at_once * 4 > reset, "{reset} were reset, {at_once} at once");
    fleet.rest();
}

const BRIDGED_SEEDS: u64 = 64;
const ONE_LINK_SEEDS: u64 = 60;

/// Clients behind one link, servers that leak the virtual IP behind two others.
fn bridged_lan(seed: u64) -> Lan {
    let mut config = bridged();
    let [network] = &mut config.networks[..] else { unreachable!() };
    // What goes round in a circle is to end soon.
    network.bridge.broadcast_limit = 200;
    Lan::new(seed, config, Faults::of(seed), trouble::of(seed, SERVERS, STATIONS))
}

/// Every seed: transfers end, each flow at one server, and nobody but the router speaks for the
/// virtual IP, whatever servers say, wires do and people plug in where.
#[test]
fn a_bridge_keeps_flows_and_the_virtual_ip_together() {
    let (mut leaks, mut circles) = (0, 0);
    for seed in 0..BRIDGED_SEEDS {
        let mut lan = bridged_lan(seed);
        lan.run(Duration::from_secs(300));
        lan.assert_complete();
        lan.rest();
        let seen = &lan.watcher.seen;
        assert!(seen.passed_on > 100 && seen.routed > 100, "seed {seed}: {seen:?}");
        (leaks, circles) = (leaks + seen.leaks_heard, circles + seen.circles);
    }
    assert!(leaks > 1_000 && circles > 10, "{leaks} leaks, {circles} circles");
}

/// On a perfect network with nothing but servers that talk, no connection breaks.
#[test]
fn leaks_alone_break_nothing_across_a_bridge() {
    for seed in (0..BRIDGED_SEEDS).step_by(10) {
        let mut lan = bridged_lan(seed);
        lan.run(Duration::from_secs(300));
        lan.assert_complete();
        assert_eq!(lan.retries(), 0, "seed {seed}");
        lan.watcher.assert_named(&lan.router);
    }
}

#[test]
fn equal_seeds_give_equal_output_across_a_bridge() {
    let output = |seed| {
        let mut lan = bridged_lan(seed);
        lan.run(Duration::from_secs(300));
        lan.output()
    };
    for seed in 0..6 {
        assert_eq!(output(seed), output(seed), "seed {seed}");
    }
    assert_ne!(output(1), output(2));
}

/// Everybody on one link: the router cannot keep leaks from the clients, but sets them right.
fn one_link_lan(seed: u64) -> Lan {
    let mut config = bridged();
    config.networks[0].links.truncate(1);
    Lan::new(seed, config, Faults::of(seed), trouble::leaks(seed, SERVERS, STATIONS))
}

/// Every seed: who is misled is told as soon as the router hears of it and may say so, transfers end
/// in spite of it all, and the router can name every server that speaks for the virtual IP.
#[test]
fn who_is_misled_on_one_link_is_led_back() {
    let (mut misled, mut back) = (0, 0);
    for seed in 0..ONE_LINK_SEEDS {
        let mut lan = one_link_lan(seed);
        // Servers go on leaking, and each leak may cost connections.
        lan.run(Duration::from_secs(900));
        lan.assert_complete();
        lan.watcher.assert_named(&lan.router);
        lan.rest();
        let seen = &lan.watcher.seen;
        (misled, back) = (misled + seen.misled, back + seen.led_back);
    }
    assert!(misled > 500 && back * 2 > misled, "{misled} misled, {back} led back");
}

#[test]
fn equal_seeds_give_equal_output_on_one_link() {
    let output = |seed| {
        let mut lan = one_link_lan(seed);
        lan.run(Duration::from_secs(300));
        lan.output()
    };
    for seed in 0..4 {
        assert_eq!(output(seed), output(seed), "seed {seed}");
    }
    assert_ne!(output(1), output(2));
}
