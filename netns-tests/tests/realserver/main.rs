//! `tapvs realserver` on real kernels: a server with default settings and a client, joined by a wire
//! that sees every frame. The client holds the server's MAC for the virtual IP, which is what direct
//! routing delivers.

mod methods;
mod program;
mod refusals;
mod restore;
mod server;
mod wire;

use std::process::ExitCode;

use netns_tests::harness::{self, say};

fn main() -> ExitCode {
    if !std::env::args().any(|argument| argument == "--list") {
        for name in ["nft", "arptables", "ip", "sysctl"] {
            if program::find(name).is_none() {
                say(format_args!("no {name}; `cargo xtask test` installs it"));
                return ExitCode::FAILURE;
            }
        }
    }
    let rooms = [methods::trials(), restore::trials(), refusals::trials()];
    harness::main(rooms.into_iter().flatten().collect())
}
