//! Kernel tests of tapvs: real network stacks in namespaces.
