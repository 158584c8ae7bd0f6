//! Kernel tests of tapvs: real network stacks in namespaces.

pub mod checks;
