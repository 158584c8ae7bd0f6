//! A whole network in memory, on virtual time: clients, the router, servers, with loss, duplicates,
//! reordering and damage from a seed.
//!
//! Clients and servers are smoltcp hosts with real ARP, TCP and UDP; the router is the dataplane.
//! What the conformance list calls D1 to D3 and D6 to D8 is checked at every step.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

#[path = "network/host.rs"]
mod host;
#[path = "network/shadow.rs"]
mod shadow;
#[path = "network/world.rs"]
mod world;

use tapvs::dataplane::DropReason;
use tapvs::time::Duration;
use world::{Faults, World};

const SEEDS: u64 = 120;

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
