//! The project's own commands: `cargo xtask test`, `cargo xtask ci`.
fn main() {}
