//! Two machines as a pair: one loses its power, the other one takes over.

use std::time::{Duration, Instant};

use crate::qemu::trial;
use libtest_mimic::Trial;
use netns_tests::harness::say;
use netns_tests::pair::Terms;
use netns_tests::tcp::{Client, connect};
use netns_tests::{Outcome, VIP, ensure, eventually};

use crate::network::Network;
use crate::qemu::{Boot, PATIENCE};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("pair::when_one_machine_loses_its_power_the_other_takes_over", power_cut)]
}

/// The pair's usual file, with the machine's NICs, and adverts that an emulated machine can keep up.
fn config(number: usize) -> String {
    let terms = Terms { failover: "advert_interval = \"500ms\"", ..Terms::USUAL };
    terms
        .config(number, "/run/tapvs")
        .replace(&format!("[\"out{number}\"]"), "[{ tap = \"tapvs0\", attach = \"eth0\" }]")
        .replace(&format!("[\"in{number}\"]"), "[{ tap = \"tapvs1\", attach = \"eth1\" }]")
}

fn power_cut() -> Outcome {
    let network = Network::new()?;
    let start = |number: usize| {
        let disk = network.disk(&format!("config{number}"), &config(number))?;
        network.machine(number, Boot::Direct(""), 160, vec![disk])
    };
    // Side by side: neither waits for the other.
    let (mut first, second) = (start(0)?, start(1)?);
    first.wait_for(&["role ACTIVE"])?;
    second.wait_for(&["role BACKUP"])?;
    let mut old = Client::connect(&network.client, (VIP, 80))?;
    old.echo(b"before")?;
    // For the copy of its flow to arrive.
    std::thread::sleep(Duration::from_secs(3));
    first.kill()?;
    let cut = Instant::now();
    let attempt = || connect(&network.client, (VIP, 80), Duration::from_millis(200)).is_ok();
    ensure!(eventually(PATIENCE, attempt), "nobody takes over; {}", second.screen());
    let gap = cut.elapsed();
    say(format_args!("new connections failed for {gap:?} with adverts every 500 ms"));
    ensure!(gap < Duration::from_secs(20), "the takeover took {gap:?}");
    old.echo(b"and after")?;
    second.wait_for(&["role ACTIVE"])?;
    Ok(())
}
