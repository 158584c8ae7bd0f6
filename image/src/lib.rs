//! What goes into the tapvs VM image, and how it is put together.

pub mod build;
pub mod cpio;
mod debian;
pub mod disk;
mod elf;
pub mod manifest;
mod modules;
mod needs;
mod programs;
pub mod progress;
mod uki;
