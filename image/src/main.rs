//! Builds the tapvs VM image: Debian's cloud kernel, the modules it needs, tapvs and its PID 1.
//!
//! One command, no root, no change to the host: packages come through an apt state of its own, and
//! stay in a cache. What it took is in a manifest; equal manifests are equal bytes.

use std::path::PathBuf;
use std::process::ExitCode;

use tapvs_image::build::{Plan, build};
use tapvs_image::progress::say;

const USAGE: &str = "\
Usage: image/build [--output DIRECTORY] [--cache DIRECTORY] [--programs DIRECTORY] [--offline]

Makes in DIRECTORY (target/image):
  tapvs.raw, tapvs.qcow2   a disk that boots with UEFI
  vmlinuz, initramfs       the same for monitors that load a kernel themselves
  manifest.txt             version and SHA-256 of everything that went in and came out

Packages are kept in --cache (target/image-cache); with --offline, or when no package server can be
reached, those there are used. Cargo's own packages must be there too (`cargo fetch`).

With --programs, `tapvs` and `appliance` are taken from there instead of being compiled.
";

fn main() -> ExitCode {
    let mut plan = Plan::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut directory = |what: &mut PathBuf| match arguments.next() {
            Some(path) => {
                *what = path.into();
                true
            }
            None => false,
        };
        let understood = match argument.as_str() {
            "--output" => directory(&mut plan.output),
            "--cache" => directory(&mut plan.cache),
            "--programs" => {
                let mut folder = PathBuf::new();
                let given = directory(&mut folder);
                plan.programs = given.then_some(folder);
                given
            }
            "--offline" => {
                plan.offline = true;
                true
            }
            "--help" | "-h" => {
                say(USAGE);
                return ExitCode::SUCCESS;
            }
            _ => false,
        };
        if !understood {
            say(&format!("`{argument}` is not understood, or lacks its directory.\n\n{USAGE}"));
            return ExitCode::from(64);
        }
    }
    match build(&plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("image/build: {error}"));
            ExitCode::FAILURE
        }
    }
}
