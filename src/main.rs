//! The `tapvs` binary.
fn main() {}
