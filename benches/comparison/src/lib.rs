//! How fast tapvs is: against what the kernel allows, and against others.
//!
//! Owns the comparison benchmark ([`main`], `cargo run --release -p tapvs-bench`), and the raw forwarders it
//! measures against.
//! It judges nothing by itself: what a number must be stands in `target.rs`.

mod args;
mod contestant;
mod load;
mod machine;
mod outcome;
mod progress;
mod proxy;
mod raw;
mod report;
mod run;
mod stage;
mod statistics;
mod target;

pub use run::main;
