//! PID 1 of the tapvs VM image, and the program on its consoles.
//!
//! As PID 1 it owns the machine: mounts, kernel modules, where the configuration comes from, NICs,
//! the router as a process, the watchdog, power. It knows nothing of packets and of what is in a
//! configuration: `tapvs check` judges that. There is no shell in it.

mod clock;
mod console;
mod disk;
mod files;
mod glob;
mod journal;
mod machine;
mod modules;
mod mounts;
mod nics;
mod power;
mod rescue;
mod router;
mod source;
mod state;
mod steps;
mod supervisor;
mod uevent;
mod undisturbed;
mod watchdog;

use std::io::Write as _;
use std::process::ExitCode;

const USAGE: &str = "\
The first process of the tapvs VM image. It is started by the kernel.

Usage: appliance console TTY    the status screen and operator commands on a terminal
";

fn main() -> ExitCode {
    // The kernel hands words of its command line on to PID 1: they are not for it.
    if std::process::id() == 1 {
        return machine::run();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["console", tty] => console::main(tty),
        ["rescue", tty] => rescue::main(tty),
        _ => {
            drop(std::io::stderr().write_all(USAGE.as_bytes()));
            ExitCode::from(64)
        }
    }
}
