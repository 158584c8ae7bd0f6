//! Where the configuration comes from, and what becomes of a wrong one.

use std::fs;
use std::net::Ipv4Addr;

use crate::qemu::trial;
use libtest_mimic::Trial;
use netns_tests::tcp::Client;
use netns_tests::{Context as _, Outcome, VIP, ensure};
use tapvs_image::disk;

use crate::network::{Network, nat};
use crate::power::{DEFAULT, NEIGHBOUR};
use crate::qemu::{Boot, UEFI_MEMORY, image};

const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("sources::a_wrong_file_is_named_and_a_disk_plugged_in_corrects_it", wrong),
        trial("sources::a_wrong_file_on_a_disk_of_its_own_is_named_at_the_first_start", named),
        trial("sources::a_disk_plugged_into_an_older_kind_of_machine_is_read", older),
        trial("sources::a_right_file_that_does_not_work_here_is_gone_back_from", useless),
    ]
}

/// The system partition's file is wrong: the default runs. A disk brings a right one, then another a
/// wrong one again.
fn wrong() -> Outcome {
    let network = Network::new()?;
    network.client_address(NEIGHBOUR)?;
    let mut bytes = fs::read(image("tapvs.raw"))?;
    let text = nat("").replace("scheduler = \"rr\"", "scheduler = \"wlcc\"");
    let line = text.lines().position(|line| line.contains("wlcc")).unwrap_or_default() + 1;
    disk::edit(&mut bytes, &[("tapvs.toml", text.as_bytes())]).context("the system partition")?;
    let path = network.scratch.path().join("wrong.raw");
    fs::write(&path, bytes)?;

    let mut vm = network.machine(0, Boot::Uefi(path), UEFI_MEMORY, Vec::new())?;
    let place = format!("tapvs.toml:{line}:");
    vm.wait_for(&["WRONG CONFIGURATION", "system partition (vda1)", &place, "built-in default"])?;
    network.answers(DEFAULT)?;

    let right = network.disk("right", &nat(""))?;
    vm.plug("right", &right)?;
    let screen = vm.wait_for(&["configuration from disk TAPVS", "203.0.113.2/24"])?;
    ensure!(!screen.contains("WRONG"), "still wrong:\n{screen}");
    network.answers(ROUTER)?;
    Client::connect(&network.client, (VIP, 80))?.both_ways(100_000)?;
    ensure!(!network.answers_now(DEFAULT), "the default still answers");

    // The one before goes, and a wrong one comes: what ran goes on.
    vm.order("device_del", serde_json::json!({"id": "right-device"}))?;
    let nonsense = network.disk("nonsense", "[router]\nnmae = \"x\"\n")?;
    vm.plug("nonsense", &nonsense)?;
    vm.wait_for(&["WRONG CONFIGURATION", "tapvs.toml:2:1:", "nmae"])?;
    Client::connect(&network.client, (VIP, 80))?.both_ways(100_000)
}

/// Nothing ran before: the router itself is the first to find the mistake.
fn named() -> Outcome {
    let network = Network::new()?;
    network.client_address(NEIGHBOUR)?;
    let text = nat("").replace("scheduler = \"rr\"", "scheduler = \"wlcc\"");
    let line = text.lines().position(|line| line.contains("wlcc")).unwrap_or_default() + 1;
    let disk = network.disk("wrong", &text)?;
    let vm = network.machine(0, Boot::Direct(""), 160, vec![disk])?;
    let place = format!("tapvs.toml:{line}:");
    let words = ["WRONG CONFIGURATION", "disk TAPVS (vda)", &place, "built-in default"];
    let screen = vm.wait_for(&words)?;
    ensure!(!screen.contains("restarted"), "a wrong file is no crash:\n{screen}");
    network.answers(DEFAULT)
}

/// A `pc` machine is told of a new disk in another way than a `q35`, which the first trial has.
fn older() -> Outcome {
    let network = Network::new()?;
    network.client_address(NEIGHBOUR)?;
    let mut vm = network.machine(0, Boot::Direct(""), 160, Vec::new())?;
    vm.wait_for(&["built-in default"])?;
    network.answers(DEFAULT)?;
    let right = network.disk("right", &nat(""))?;
    vm.plug("right", &right)?;
    vm.wait_for(&["configuration from disk TAPVS", "203.0.113.2/24"])?;
    network.answers(ROUTER)
}

/// It names a NIC that is not there, which no check can know.
fn useless() -> Outcome {
    let network = Network::new()?;
    network.client_address(NEIGHBOUR)?;
    let disk = network.disk("useless", &nat("").replace("\"eth1\"", "\"eth7\""))?;
    let vm = network.machine(0, Boot::Direct(""), 160, vec![disk])?;
    vm.wait_for(&["WRONG CONFIGURATION", "eth7", "built-in default"])?;
    network.answers(DEFAULT)
}
