//! The VM image as its users have it: booted in QEMU, software emulation only, with NICs on TAPs in
//! namespaces made for it, and real clients and servers outside.

mod console;
mod flows;
mod network;
mod pair;
mod power;
mod qemu;
mod same;
mod sources;
mod traffic;

use std::process::ExitCode;

use netns_tests::harness;

fn main() -> ExitCode {
    let trials = [
        power::trials(),
        sources::trials(),
        traffic::trials(),
        console::trials(),
        pair::trials(),
        flows::trials(),
        same::trials(),
    ];
    harness::prepared_main(trials.into_iter().flatten().collect(), qemu::provide)
}
