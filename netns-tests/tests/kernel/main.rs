//! tapvs between real kernel stacks; needs Rust and nothing else.

mod addresses;
mod faults;
mod nat;
mod process;
mod reload;

use std::process::ExitCode;

fn main() -> ExitCode {
    let rooms =
        [nat::trials(), addresses::trials(), faults::trials(), reload::trials(), process::trials()];
    netns_tests::harness::main(rooms.into_iter().flatten().collect())
}
