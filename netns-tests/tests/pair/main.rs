//! Two routers that share the virtual IPs, on real kernel stacks: two of tapvs, and one beside
//! keepalived. Needs keepalived.
//!
//! | room | what holds there |
//! |---|---|
//! | `takeover` | kills, hand-overs, links that fail: how long clients notice, and which connections live on |
//! | `wire` | adverts and announcements as a third machine sees them |
//! | `keepalived` | the other router is keepalived, by version 3 and 2, active and as backup |

mod keepalived;
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
    let rooms = [takeover::trials(), wire::trials(), keepalived::trials()];
    harness::main(rooms.into_iter().flatten().collect())
}
