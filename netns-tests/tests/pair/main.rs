//! Two routers that share the virtual IPs, on real kernel stacks: two of tapvs, and one beside
//! keepalived. Needs keepalived.
//!
//! | room | what holds there |
//! |---|---|
//! | `takeover` | kills, hand-overs, links that fail: how long clients notice, and which connections live on |
//! | `wire` | adverts and announcements as a third machine sees them |
//! | `faults` | what one router alone is missing: a gateway, a cable, servers |
//! | `direct` | direct routing, in one network and across a bridge |
//! | `load` | a minute of overload; thousands of new connections a second |
//! | `keepalived` | the other router is keepalived, by version 3 and 2, active and as backup |

mod crowd;
mod direct;
mod faults;
mod keepalived;
mod load;
mod takeover;
mod wire;

use std::process::{Command, ExitCode};

use netns_tests::harness::{self, say};

fn main() -> ExitCode {
    if !std::env::args().any(|argument| argument == "--list") {
        match Command::new(keepalived::PROGRAM).arg("--version").output() {
            Ok(found) => {
                let said = String::from_utf8_lossy(&found.stderr).into_owned();
                say(said.lines().next().unwrap_or_default());
            }
            Err(error) => {
                say(format_args!(
                    "{}: {error}; `cargo xtask test` installs it",
                    keepalived::PROGRAM
                ));
                return ExitCode::FAILURE;
            }
        }
    }
    let alone = [takeover::trials(), wire::trials(), load::trials()];
    let patient = [faults::trials(), direct::trials(), keepalived::trials()];
    let all = |rooms: [Vec<_>; 3]| rooms.into_iter().flatten().collect();
    harness::main_beside(all(alone), all(patient))
}
