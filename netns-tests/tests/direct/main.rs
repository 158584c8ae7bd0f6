//! Direct routing between real kernel stacks, in its three topologies. Needs Rust and nothing else.
//!
//! | room | what holds there |
//! |---|---|
//! | `everyday` | TCP, UDP, fragments, pings and ICMP errors, the same in every topology |
//! | `one_network` | the router can only watch: who claims the virtual IP is named, who was misled is told |
//! | `two_networks` | O1 of ipvs.sh; a narrow way to the servers |
//! | `bridged` | tapvs as the switch: the servers' own traffic, broadcasts, what a switch passes and what not |
//! | `loops` | two links on one kernel bridge |
//! | `claims` | whose the virtual IP is, asked 1,000 times while every server says that it is its own |
//! | `storm` | forged ARP: nothing learned, nobody on another link delayed |

mod bridged;
mod claims;
mod everyday;
mod loops;
mod one_network;
mod storm;
mod two_networks;

use std::process::ExitCode;

use netns_tests::harness;

fn main() -> ExitCode {
    let rooms = [
        everyday::trials(),
        one_network::trials(),
        two_networks::trials(),
        bridged::trials(),
        loops::trials(),
        claims::trials(),
        storm::trials(),
    ];
    harness::main(rooms.into_iter().flatten().collect())
}
