//! `tapvs top` in a terminal: what it shows of a router at work, and what it leaves behind.

use std::process::Command;

use libtest_mimic::Trial;
use netns_tests::harness::rig_trial;
use netns_tests::tcp::Client;
use netns_tests::terminal::Terminal;
use netns_tests::{Outcome, Rig, Router, Service, VIP, ensure, tapvs};
use rustix::process::Signal;

use crate::nat::echo_servers;

pub(crate) fn trials() -> Vec<Trial> {
    let web = || vec![Service::tcp(80).three(8080)];
    vec![
        rig_trial("top_shows_what_happens_and_follows_keys", web, shows),
        rig_trial("top_outlives_the_router_and_gives_the_terminal_back", web, ends),
    ]
}

fn start(rig: &Rig, size: (u16, u16)) -> Outcome<Terminal> {
    let mut command = Command::new(tapvs());
    command.args(["top", "--socket"]).arg(rig.scratch.path().join("lvs1.sock"));
    let terminal = Terminal::start(command, size)?;
    terminal.wait_until("no router on it", |text| text.contains("lvs1  up "))?;
    Ok(terminal)
}

/// The line of the server with this number, from 0.
fn line(text: &str, server: usize) -> Vec<&str> {
    let name = format!("10.0.0.1{}:8080", server + 1);
    let line = text.lines().find(|line| line.trim_start().starts_with(&name));
    line.map_or_else(Vec::new, |line| line.split_whitespace().collect())
}

fn shows(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let mut top = start(rig, (80, 24))?;
    let text = top.wait_until("no services", |text| !line(text, 2).is_empty())?;
    let lines: Vec<_> = text.lines().collect();
    ensure!(lines.len() == 24 && lines.iter().all(|line| line.chars().count() <= 80), "{text}");
    ensure!(
        lines[2].starts_with("SERVICE") && lines[2].contains("HEALTH   WEIGHT  ACTIVE"),
        "{text}"
    );
    ensure!(lines[3].starts_with("tcp:203.0.113.10:80"), "{text}");
    ensure!(text.contains("\ntapvs0 ") && text.contains("\ntapvs1 "), "no links: {text}");
    ensure!(lines[23].starts_with("q quit  sort by"), "no keys: {text}");

    let open =
        (0..6).map(|_| Client::connect(&rig.client, (VIP, 80))).collect::<Outcome<Vec<_>>>()?;
    let active = |text: &str, server| line(text, server).get(3).copied().map(str::to_owned);
    top.wait_until("not two flows each", |text| {
        (0..3).all(|server| active(text, server).as_deref() == Some("2"))
    })?;
    let other = Client::connect(&rig.client, (VIP, 80))?;
    top.wait_until("no third flow", |text| active(text, 0).as_deref() == Some("3"))?;
    ensure!(Client::connect(&rig.client, (VIP, 81)).is_err(), "a port without a service is open");
    top.wait_until("no drop", |text| {
        text.contains("\nunserved ") && text.contains("No service at")
    })?;

    // By name backwards: the last server first.
    top.keys("nr")?;
    top.wait_until("not sorted", |text| {
        let first = text.lines().nth(4).unwrap_or_default();
        text.contains("↑SERVICE") && first.trim_start().starts_with("10.0.0.13:8080")
    })?;
    let drained = Command::new(tapvs())
        .args(["drain", "tcp:203.0.113.10:80", "10.0.0.12:8080", "--socket"])
        .arg(rig.scratch.path().join("lvs1.sock"))
        .output()?;
    ensure!(drained.status.success(), "{drained:?}");
    top.wait_until("not drained", |text| line(text, 1).get(1..3) == Some(&["drained", "0"]))?;

    top.resize((120, 40))?;
    let text = top.wait_until("not larger", |text| text.contains("q quit  sort: n name"))?;
    ensure!(text.lines().count() == 40, "{text}");
    drop((open, other));
    top.keys("q")?;
    restored(&mut top, 0)
}

fn ends(rig: &mut Rig) -> Outcome {
    let mut top = start(rig, (80, 24))?;
    ensure!(top.screen().alternate_screen() && !top.is_cooked()?, "it does not take the screen");
    let mut second = start(rig, (80, 24))?;
    rig.router.stop()?;
    top.wait_until("not lost", |text| text.contains("connection lost, retrying: "))?;
    let file = rig.router.file().to_owned();
    rig.router = Router::start(&rig.middle, &file)?;
    rig.cable_client()?;
    top.wait_until("not back", |text| text.contains("lvs1  up ") && !text.contains("lost"))?;
    top.wait_until("no rates again", |text| {
        text.contains("frames/s ") && text.contains("longest turn")
    })?;
    second.signal(Signal::TERM)?;
    restored(&mut second, 0)?;
    // Ctrl-C is a key here.
    top.keys("\u{3}")?;
    restored(&mut top, 0)
}

fn restored(top: &mut Terminal, code: i32) -> Outcome {
    let status = top.wait()?;
    ensure!(status.code() == Some(code), "it left with {status}");
    ensure!(top.is_cooked()?, "the terminal is left raw");
    let given_back = netns_tests::eventually(std::time::Duration::from_secs(5), || {
        !top.screen().alternate_screen() && !top.screen().hide_cursor()
    });
    ensure!(given_back, "the screen is not given back, or has no cursor");
    Ok(())
}
