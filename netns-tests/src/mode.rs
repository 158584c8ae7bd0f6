//! How the routers under test move frames: as the product does by default, unless the environment says
//! otherwise. Every trial holds in every mode.
//!
//! `TAPVS_TEST_IO` is a value of `io`. `TAPVS_TEST_OFFLOAD` is one of `offload`, or `mixed`: the
//! client's link without, all others with it.

use std::env::var;

use tapvs::config::Io;

/// Lines of `[router]`.
pub fn router() -> String {
    let io = var("TAPVS_TEST_IO").map_or_else(|_| String::new(), |io| format!("io = \"{io}\"\n"));
    let offload = match var("TAPVS_TEST_OFFLOAD").as_deref() {
        Ok("mixed") | Err(_) => String::new(),
        Ok(offload) => format!("offload = {offload}\n"),
    };
    io + &offload
}

/// The same file with plain frames, whatever the environment says: for who counts them on the wire.
pub fn without_offload(file: &str) -> String {
    let file = file.replace("offload = true\n", "").replace("offload = false\n", "");
    file.replacen("[router]\n", "[router]\noffload = false\n", 1)
}

/// The client's link, as an entry of `links`.
pub fn client_link(tap: &str) -> String {
    match var("TAPVS_TEST_OFFLOAD").as_deref() {
        Ok("mixed") => format!("{{ tap = \"{tap}\", offload = false }}"),
        _ => format!("\"{tap}\""),
    }
}

/// How links without a router move frames.
pub fn io() -> Io {
    match var("TAPVS_TEST_IO").as_deref() {
        Ok("syscall") => Io::Syscall,
        Ok("uring") => Io::Uring,
        _ => Io::Auto,
    }
}

/// Whether their frames leave something to be done.
pub fn offload() -> bool {
    var("TAPVS_TEST_OFFLOAD").as_deref() != Ok("false")
}
