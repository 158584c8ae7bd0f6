//! Tells the program which compiler made it: instruction counts of another one cannot be compared.

use std::process::Command;

fn main() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let version = output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    let value = |name| std::env::var(name).unwrap_or_default();
    println!("cargo::rustc-env=BENCH_COMPILER={version}");
    println!("cargo::rustc-env=BENCH_TARGET={}", value("TARGET"));
    println!("cargo::rustc-env=BENCH_PROFILE={}", value("PROFILE"));
    println!("cargo::rerun-if-changed=build.rs");
}
