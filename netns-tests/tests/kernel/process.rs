//! The router as a program: exit codes, signals, reports, and what it leaves behind.

use std::fs;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::harness::{rig_trial, trial};
use netns_tests::tcp::{Client, noise};
use netns_tests::{
    CLIENT_TAP, LinkFigures, Outcome, Rig, Router, SERVERS_TAP, Scratch, Service, VIP, config,
    ensure, eventually, tapvs,
};
use rustix::process::Signal;
use tapvs::links::{Namespace, Netlink};

use crate::nat::echo_servers;

const EXIT_CONFIGURATION: i32 = 64;

pub(crate) fn trials() -> Vec<Trial> {
    let web = || vec![Service::tcp(80).three(8080)];
    vec![
        trial("a_wrong_configuration_is_refused_with_every_mistake", wrong_configuration),
        trial("sigterm_and_sigint_leave_nothing_behind", stops),
        rig_trial("a_report_is_written_whenever_asked", web, reports),
        rig_trial("its_counters_are_the_kernels", web, counters),
    ]
}

fn wrong_configuration() -> Outcome {
    let scratch = Scratch::new()?;
    let file = scratch.path().join("wrong.toml");
    let text = config(scratch.path(), &[Service::tcp(80).three(8080)])
        .replace("scheduler = \"rr\"", "scheduler = \"best\"")
        .replace("weight = 1", "wait = 1");
    fs::write(&file, &text)?;
    let line_of =
        |word: &str| text.lines().position(|line| line.contains(word)).map_or(0, |index| index + 1);
    for command in ["run", "check"] {
        let output = Command::new(tapvs()).arg(command).arg(&file).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        ensure!(code == Some(EXIT_CONFIGURATION), "{command}: exit code {code:?}: {said}");
        for word in ["best", "wait"] {
            let place = format!("{}:{}:", file.display(), line_of(word));
            let found = said.lines().any(|line| {
                let column = line.strip_prefix(&place).and_then(|rest| rest.split(':').next());
                line.contains(word) && column.is_some_and(|column| column.parse::<u32>().is_ok())
            });
            ensure!(found, "{command}: no line with {place}COLUMN and `{word}`: {said}");
        }
    }
    let absent = Command::new(tapvs()).args(["run", "/no/such/file.toml"]).output()?;
    let code = absent.status.code();
    ensure!(code == Some(EXIT_CONFIGURATION), "a file that is not there: exit code {code:?}");
    fs::write(&file, config(scratch.path(), &[Service::tcp(80).three(8080)]))?;
    let right = Command::new(tapvs()).arg("check").arg(&file).output()?;
    ensure!(right.status.success(), "a right file: {right:?}");
    Ok(())
}

fn stops() -> Outcome {
    for signal in [Signal::TERM, Signal::INT] {
        let scratch = Scratch::new()?;
        let namespace = Namespace::new()?;
        let file = scratch.path().join("tapvs.toml");
        fs::write(&file, config(scratch.path(), &[Service::tcp(80).three(8080)]))?;
        let mut router = Router::start(&namespace, &file)?;
        let devices = || namespace.run(|| Netlink::new()?.links());
        let has = |tap: &str| devices().is_ok_and(|all| all.iter().any(|link| link.name == tap));
        ensure!(has(CLIENT_TAP) && has(SERVERS_TAP), "its TAPs are not there: {:?}", devices());
        router.signal(signal)?;
        let status = router.wait()?;
        let log = router.log().join("\n");
        ensure!(status.code() == Some(0), "after {signal:?} it left with {status}:\n{log}");
        ensure!(log.contains("balance:"), "after {signal:?} it wrote no report:\n{log}");
        let gone = eventually(Duration::from_secs(5), || !has(CLIENT_TAP) && !has(SERVERS_TAP));
        ensure!(gone, "after {signal:?} it left {:?}", devices());
        let left: Vec<_> = fs::read_dir(scratch.path())?.flatten().map(|e| e.file_name()).collect();
        ensure!(left == ["tapvs.toml"], "after {signal:?} it left the files {left:?}");
    }
    Ok(())
}

fn reports(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let before = rig.router.report()?;
    before.line("every frame is accounted for")?;
    for _ in 0..6 {
        Client::connect(&rig.client, (VIP, 80))?.close()?;
    }
    let after = rig.router.report()?;
    after.line("every frame is accounted for")?;
    for server in ["10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.13:8080"] {
        after.figure(&["report: server ", &format!(" server={server} ")], "flows")?;
    }
    let (before, after) = (before.link(CLIENT_TAP)?, after.link(CLIENT_TAP)?);
    // Six times SYN, ACK, two FINs at least.
    ensure!(after.frames_in >= before.frames_in + 18, "{before:?}, then {after:?}");
    Ok(())
}

fn counters(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    for seed in 0..6 {
        let mut client = Client::connect(&rig.client, (VIP, 80))?;
        client.echo(&noise(100_000, seed))?;
        client.close()?;
    }
    let mut last = Vec::new();
    // At rest, that is: a neighbour may ask a question at any moment.
    let equal = eventually(Duration::from_secs(10), || {
        let compared = [(&rig.client, CLIENT_TAP), (&rig.middle, SERVERS_TAP)].map(|(at, tap)| {
            let before = kernel(at, tap).ok();
            let ours = rig.router.report().and_then(|report| report.link(tap)).ok();
            (tap, before, ours)
        });
        last = compared.to_vec();
        compared.iter().all(|(_, kernel, ours)| ours.is_some() && kernel == ours)
    });
    ensure!(equal, "kernel and router never agreed: {last:?}");
    let (_, _, figures) = last[0];
    ensure!(figures.is_some_and(|f| f.bytes_in > 600_000), "too little traffic: {last:?}");
    Ok(())
}

/// A TAP's counters from the router's side: what the kernel transmits, the router reads.
fn kernel(namespace: &Namespace, tap: &str) -> Outcome<LinkFigures> {
    let statistics = namespace.run(|| Netlink::new()?.link(tap))?.statistics;
    Ok(LinkFigures {
        frames_in: statistics.tx_packets,
        bytes_in: statistics.tx_bytes,
        frames_out: statistics.rx_packets,
        bytes_out: statistics.rx_bytes,
    })
}
