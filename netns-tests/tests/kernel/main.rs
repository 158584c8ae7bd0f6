//! tapvs between real kernel stacks; needs Rust and nothing else.

mod addresses;
mod control;
mod drain;
mod faults;
mod flood;
mod health;
mod lab;
mod large_table;
mod nat;
mod offload;
mod process;
mod reload;
mod scheduling;
mod status_page;
mod top;
mod trace;

use std::process::ExitCode;

use libtest_mimic::Trial;
use netns_tests::checks;
use netns_tests::harness;

fn main() -> ExitCode {
    let rooms = [
        links(),
        nat::trials(),
        addresses::trials(),
        faults::trials(),
        flood::trials(),
        health::trials(),
        reload::trials(),
        scheduling::trials(),
        process::trials(),
        control::trials(),
        status_page::trials(),
        drain::trials(),
        trace::trials(),
        top::trials(),
        lab::trials(),
        offload::trials(),
        large_table::trials(),
    ];
    harness::main(rooms.into_iter().flatten().collect())
}

/// The links room alone, without a router.
fn links() -> Vec<Trial> {
    checks::links::ALL.iter().map(|(name, check)| harness::check(name, *check)).collect()
}
