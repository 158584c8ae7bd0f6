//! What is run, in which order. No knowledge of how.

use crate::programs;
use crate::runner::{Command, Runner};

/// Test targets of `netns-tests`; one after another, because each loads every core.
const KERNEL_TARGETS: [&str; 10] = [
    "kernel",
    "scenarios",
    "direct",
    "pair",
    "captures",
    "samples",
    "ftp",
    "oracle_nat",
    "realserver",
    "strangers",
];

/// How frames are moved, and whether they leave something to be done: all but the usual way.
const OTHER_MODES: [[&str; 2]; 4] =
    [["syscall", "false"], ["syscall", "true"], ["uring", "false"], ["uring", "mixed"]];

/// Trials that are run again in other modes each time: the mode, target and part of the trials' names, which
/// may be nothing. All trials hold in each mode, which `modes` takes more than an hour to show.
const MODES: [[&str; 4]; 14] = [
    ["syscall", "false", "kernel", ""],
    ["syscall", "true", "kernel", "arrive_unchanged"],
    ["uring", "false", "kernel", "arrive_unchanged"],
    ["uring", "mixed", "kernel", "arrive_unchanged"],
    ["uring", "mixed", "kernel", "reaches_every_server"],
    ["syscall", "true", "direct", "_on_two_networks"],
    ["uring", "mixed", "direct", "_bridged"],
    ["syscall", "false", "scenarios", ""],
    ["syscall", "false", "direct", ""],
    ["syscall", "false", "captures", ""],
    ["syscall", "false", "ftp", ""],
    ["syscall", "true", "scenarios", ""],
    ["uring", "false", "scenarios", ""],
    ["uring", "mixed", "scenarios", ""],
];

const KERNEL_LINTS: [&str; 26] = [
    "clippy",
    "--package",
    "netns-tests",
    "--test",
    "kernel",
    "--test",
    "scenarios",
    "--test",
    "direct",
    "--test",
    "pair",
    "--test",
    "captures",
    "--test",
    "samples",
    "--test",
    "ftp",
    "--test",
    "oracle_nat",
    "--test",
    "realserver",
    "--test",
    "strangers",
    "--",
    "--deny",
    "warnings",
];

/// Everything a change has to pass.
pub(crate) fn ci(runner: &mut Runner) {
    runner.run("format", &cargo(&["fmt", "--all", "--check"]));
    let lints = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    runner.run("lints", &cargo(&lints));
    // `--all-targets` leaves out those that are run by name.
    runner.run("lints of the kernel tests", &cargo(&KERNEL_LINTS));
    let boot = ["clippy", "--package", "tapvs-image", "--test", "boot", "--", "--deny", "warnings"];
    runner.run("lints of the image's tests", &cargo(&boot));
    let documentation = cargo(&["doc", "--workspace", "--no-deps"]);
    runner.run("documentation", &documentation.env("RUSTDOCFLAGS", "--deny warnings"));
    test(runner);
    instructions(runner);
    image(runner);
}

/// The VM image: built from nothing but packages and this source, and booted. `test` leaves it out: it
/// needs Debian's packages, and an emulated machine is slow.
fn image(runner: &mut Runner) {
    runner.check("what the VM image needs", programs::provide_for_image);
    match programs::present_for("image") {
        _ if runner.lacks_privileges() => runner.unprivileged("the VM image"),
        Ok(()) => {
            runner.run("the VM image", &Command::new("image/build", &[]));
            runner.run("the VM image, booted", &Command::new("image/test", &[]));
        }
        Err(missing) => runner.check("the VM image", || Err(missing)),
    }
}

/// No step of the dataplane takes more instructions than it did.
pub(crate) fn instructions(runner: &mut Runner) {
    let name = "instruction counts";
    let count = ["run", "--release", "--package", "tapvs-bench", "--bin", "instructions"];
    match programs::present_for("instructions") {
        Ok(()) => runner.run(name, &cargo(&[&count[..], &["--", "check"]].concat())),
        Err(missing) => runner.check(name, || Err(missing)),
    }
}

/// Every test.
pub(crate) fn test(runner: &mut Runner) {
    runner.check("third-party programs", programs::provide);
    runner.run("tests without privileges", &cargo(&["test"]));
    runner
        .run("the kernel tests' own tests", &cargo(&["test", "--package", "netns-tests", "--lib"]));
    runner.run("PID 1's own tests", &cargo(&["test", "--package", "appliance"]));
    runner.run("the image's own tests", &cargo(&["test", "--package", "tapvs-image", "--lib"]));
    runner.run("the benchmark's own tests", &cargo(&["test", "--package", "tapvs-bench"]));
    // The kernel tests would build it themselves, but out of sight.
    runner.run("release build", &cargo(&["build", "--release", "--bin", "tapvs"]));
    // As the README has it.
    runner.run("the lab", &cargo(&["run", "--release", "--", "lab"]));
    runner.run("the lab, direct", &cargo(&["run", "--release", "--", "lab", "direct"]));
    runner.run("the lab, a pair", &cargo(&["run", "--release", "--", "lab", "pair"]));
    for target in KERNEL_TARGETS {
        let test = cargo(&["test", "--package", "netns-tests", "--test", target]);
        let name = format!("kernel tests: {target}");
        match programs::present_for(target) {
            // What one target has said to be missing, all are missing.
            _ if runner.lacks_privileges() => runner.unprivileged(&name),
            Ok(()) => runner.run(&name, &test),
            Err(missing) => runner.check(&name, || Err(missing)),
        }
    }
    for [io, offload, target, part] in MODES {
        in_mode(runner, [io, offload], target, part);
    }
    // Its numbers mean little, that every load goes through every forwarder unharmed means all.
    let benchmark = ["run", "--release", "--package", "tapvs-bench", "--", "--quick"];
    match programs::present_for("benchmark") {
        _ if runner.lacks_privileges() => runner.unprivileged("the benchmark, quickly"),
        Ok(()) => runner.run("the benchmark, quickly", &cargo(&benchmark)),
        Err(missing) => runner.check("the benchmark, quickly", || Err(missing)),
    }
}

/// All kernel tests in each mode but the one that they run in anyway.
pub(crate) fn modes(runner: &mut Runner) {
    runner.check("third-party programs", programs::provide);
    runner.run("release build", &cargo(&["build", "--release", "--bin", "tapvs"]));
    for mode in OTHER_MODES {
        for target in KERNEL_TARGETS {
            in_mode(runner, mode, target, "");
        }
    }
}

/// The trials of a target whose names have `part` in them.
fn in_mode(
    runner: &mut Runner,
    [io, offload]: [&'static str; 2],
    target: &'static str,
    part: &'static str,
) {
    let all = ["test", "--package", "netns-tests", "--test", target, part];
    let arguments = if part.is_empty() { &all[..5] } else { &all };
    let test = cargo(arguments).env("TAPVS_TEST_IO", io).env("TAPVS_TEST_OFFLOAD", offload);
    let name = format!("kernel tests: {}, io {io}, offload {offload}", arguments[4..].join(" "));
    match programs::present_for(target) {
        _ if runner.lacks_privileges() => runner.unprivileged(&name),
        Ok(()) => runner.run(&name, &test),
        Err(missing) => runner.check(&name, || Err(missing)),
    }
}

fn cargo(arguments: &[&'static str]) -> Command {
    Command::new("cargo", arguments)
}
