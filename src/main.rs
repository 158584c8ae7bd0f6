//! The `tapvs` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    tapvs::cli::main()
}
