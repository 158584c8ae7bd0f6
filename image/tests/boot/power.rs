//! From power on to power off: the smallest machine, how long it takes, the buttons.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::qemu::trial;
use libtest_mimic::Trial;
use netns_tests::harness::say;
use netns_tests::{Outcome, ensure, http};
use serde_json::json;

use crate::network::Network;
use crate::qemu::{Boot, UEFI_MEMORY, Vm, image};

/// What the built-in default answers at.
pub(crate) const DEFAULT: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// The client in that network.
pub(crate) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 9);
const STATUS_PORT: u16 = 9_180;
/// The whole boot, of processor time: on a quiet machine that is the time it takes.
const BOOT: Duration = Duration::from_secs(15);
/// The firmware's share is long, and the emulator's speed decides it: 8 s on one computer, twice that on another.
const BOOT_BY_UEFI: Duration = Duration::from_secs(20);
/// The smallest memory that is promised, in MiB.
const SMALL: u32 = 96;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("power::without_a_disk_the_default_answers_and_the_button_stops_it", button),
        trial("power::by_uefi_with_the_disk_as_it_is_built", uefi),
        trial("power::ctrl_alt_del_stops_it_and_so_does_a_command", keys),
    ]
}

fn button() -> Outcome {
    let network = Network::new()?;
    network.client_address(NEIGHBOUR)?;
    let mut vm = network.machine(0, Boot::Direct(""), SMALL, Vec::new())?;
    boots_in_time(&vm, "direct", BOOT)?;
    serves_the_default(&network)?;
    let screen = vm.wait_for(&["built-in default"])?;
    ensure!(screen.contains("192.168.77.1/24"), "no address on the console:\n{screen}");
    vm.order("system_powerdown", json!({}))?;
    stops_cleanly(&mut vm)
}

fn uefi() -> Outcome {
    let network = Network::new()?;
    network.client_address(NEIGHBOUR)?;
    // QEMU would write to it otherwise.
    let disk = network.scratch.path().join("tapvs.qcow2");
    std::fs::copy(image("tapvs.qcow2"), &disk)?;
    let mut vm = network.machine(0, Boot::Uefi(disk), UEFI_MEMORY, Vec::new())?;
    boots_in_time(&vm, "UEFI", BOOT_BY_UEFI)?;
    vm.wait_for(&["system partition (vda1)"])?;
    serves_the_default(&network)?;
    vm.order("system_powerdown", json!({}))?;
    stops_cleanly(&mut vm)
}

fn keys() -> Outcome {
    let network = Network::new()?;
    let mut vm = network.machine(0, Boot::Direct(""), SMALL, Vec::new())?;
    vm.ready()?;
    let keys = ["ctrl", "alt", "delete"].map(|key| json!({"type": "qcode", "data": key}));
    vm.order("send-key", json!({"keys": keys}))?;
    stops_cleanly(&mut vm)?;
    let mut vm = network.machine(1, Boot::Direct(""), SMALL, Vec::new())?;
    vm.ready()?;
    vm.type_line("poweroff")?;
    stops_cleanly(&mut vm)
}

fn boots_in_time(vm: &Vm, how: &str, most: Duration) -> Outcome {
    let screen = vm.ready()?;
    let (used, age) = (vm.processor_time()?, vm.age());
    let line = screen.lines().find(|line| line.contains("ms after PID 1")).unwrap_or_default();
    say(format_args!(
        "{how}: {:.1} s of processor time, {:.1} s by the clock; {}",
        used.as_secs_f64(),
        age.as_secs_f64(),
        line.trim()
    ));
    ensure!(used <= most, "the boot took {used:?} of processor time, more than {most:?}");
    Ok(())
}

fn serves_the_default(network: &Network) -> Outcome {
    network.answers(DEFAULT)?;
    let page = http::get(&network.client, (DEFAULT, STATUS_PORT))?;
    ensure!(page.contains("/metrics"), "the status page says: {page}");
    Ok(())
}

/// The router says its last words, and then the machine is off.
fn stops_cleanly(vm: &mut Vm) -> Outcome {
    vm.wait_until_off()?;
    let all = vm.all();
    ensure!(all.contains("the router has stopped"), "it was off before the router was:\n{all}");
    Ok(())
}
