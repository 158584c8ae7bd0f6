//! How fast tapvs is: against what the kernel allows, and against others.
//!
//! Owns the comparison benchmark ([`main`], `cargo run --release -p tapvs-bench`), the raw forwarders it measures
//! against, and the steps of the dataplane that the micro-benchmarks and instruction counts run ([`micro`]).
//! It judges nothing by itself: what a number must be stands in `target.rs`.

mod args;
mod contestant;
mod instructions;
mod load;
mod machine;
pub mod micro;
mod outcome;
mod progress;
mod proxy;
mod raw;
mod report;
mod run;
mod stage;
mod statistics;
mod target;

pub use instructions::main as instructions_main;
pub use run::main;
