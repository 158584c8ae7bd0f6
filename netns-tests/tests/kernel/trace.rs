//! `tapvs trace`: what it says about real packets, and that it costs nobody else anything.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netns_tests::harness::rig_trial;
use netns_tests::tcp::Client;
use netns_tests::{
    CLIENT, CLIENT_TAP, Context as _, Failure, Outcome, Rig, Service, VIP, Watcher, ensure,
    eventually, resident, tapvs, udp,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::nat::echo_servers;

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn trials() -> Vec<Trial> {
    let web = || vec![Service::tcp(80).three(8080)];
    let dns = || vec![Service::udp(53).three(5353)];
    vec![
        rig_trial("a_trace_says_where_a_connection_went_and_why_another_was_dropped", web, shows),
        rig_trial("a_trace_ends_with_its_client_and_there_are_few", web, ends),
        rig_trial("a_trace_that_nobody_reads_harms_nobody", dns, sleeps),
    ]
}

fn socket(rig: &Rig) -> PathBuf {
    rig.scratch.path().join("lvs1.sock")
}

fn trace(rig: &Rig, arguments: &[&str]) -> Outcome<Watcher> {
    Watcher::start(&socket(rig), &[&["trace"], arguments].concat())
}

fn shows(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    // The first packets of all may have to wait for a MAC.
    for _ in 0..3 {
        Client::connect(&rig.client, (VIP, 80))?.close()?;
    }
    let service = &format!("service=tcp:{VIP}:80");
    let client = &format!("client={CLIENT}");
    let web = trace(rig, &[service, client])?;
    let drops = trace(rig, &["verdict=drop", client])?;
    let rst = trace(rig, &["reason=unserved", "--count", "1", "--json"])?;
    let mut connection = Client::connect(&rig.client, (VIP, 80))?;
    connection.echo(b"hello")?;
    let port = connection.stream.local_addr()?.port();
    let from = format!("{CLIENT}:{port}");
    let syn = web.wait_for(&["tcp [S] "])?;
    let expected = [
        format!(" tapvs0 {from} > {VIP}:80 tcp [S] seq "),
        format!(
            " | verdict=forward service=tcp:{VIP}:80 server=10.0.0.11:8080 | new flow {from} > "
        ),
        format!(" > {VIP}:80 > 10.0.0.11:8080 SYN_RECV to-server | out tapvs1 to "),
        format!(" as {from} > 10.0.0.11:8080 | generation 1"),
    ];
    for part in &expected {
        ensure!(syn.contains(part), "no {part:?} in {syn}");
    }
    let answer = web.wait_for(&["tcp [S.] "])?;
    let part = format!("tapvs1 10.0.0.11:8080 > {from} tcp");
    ensure!(answer.contains(&part) && answer.contains("known flow"), "{answer}");
    web.wait_for(&["data 5", "ESTABLISHED to-server"])?;
    connection.close()?;
    web.wait_for(&["tcp [F.] ", "to-client"])?;

    ensure!(Client::connect(&rig.client, (VIP, 81)).is_err(), "a port without a service is open");
    let line = drops.wait_for(&["verdict=drop reason=unserved"])?;
    let part = format!(" > {VIP}:81 tcp [S]");
    ensure!(line.contains(&part) && line.contains("No service at this port"), "{line}");
    ensure!(
        !web.lines().iter().any(|line| line.contains(":81 ")),
        "another port's: {:?}",
        web.lines()
    );

    let mut rst = rst;
    ensure!(rst.wait()?.success(), "--count ends it: {:?}", rst.said());
    let [line] = &rst.lines()[..] else { return Err(Failure::new(format!("{:?}", rst.lines()))) };
    let value: Value = serde_json::from_str(line).context(line)?;
    ensure!(value["reason"] == "unserved" && value["link"] == "tapvs0", "{value}");
    // By the real time of day.
    let today = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let age = today
        .map_or(0, |now| now.as_secs())
        .abs_diff(value["time_us"].as_u64().unwrap_or(0) / 1_000_000);
    ensure!(age < 60, "{age} s old: {value}");

    for (wrong, why) in [
        ("service=nowhere", "unknown service nowhere; there are: tcp:203.0.113.10:80"),
        ("link=eth7", "unknown link eth7; there are: tapvs0, tapvs1"),
        ("sevice=web", "unknown key `sevice`"),
    ] {
        let mut refused = Watcher::spawn(&socket(rig), &["trace", wrong])?;
        let code = refused.wait()?.code();
        ensure!(code == Some(64) && refused.said().join("").contains(why), "{:?}", refused.said());
    }
    Ok(())
}

/// Four at a time; one that is killed makes room, as one that is stopped does.
fn ends(rig: &mut Rig) -> Outcome {
    let mut tracers = (0..4).map(|_| trace(rig, &["proto=tcp"])).collect::<Outcome<Vec<_>>>()?;
    let mut fifth = Watcher::spawn(&socket(rig), &["trace"])?;
    ensure!(fifth.wait()?.code() == Some(1), "a fifth one was let in");
    ensure!(fifth.said().join("").contains("4 packet traces are under way"), "{:?}", fifth.said());
    for signal in [Signal::KILL, Signal::INT, Signal::TERM] {
        let mut gone = tracers.remove(0);
        gone.signal(signal)?;
        let status = gone.wait()?;
        ensure!(signal == Signal::KILL || status.success(), "{signal:?}: {status}");
        let mut next = Err(Failure::new("not tried"));
        eventually(PATIENCE, || {
            next = trace(rig, &[]);
            next.is_ok()
        });
        tracers.push(next?);
    }
    let _servers = echo_servers(rig, 8080)?;
    Client::connect(&rig.client, (VIP, 80))?.close()?;
    tracers.iter().try_for_each(|tracer| tracer.wait_for(&["tcp [F.] "]).map(drop))?;
    // A reload does not end them, and one that names what is gone goes on.
    rig.reload(&[Service::tcp(80).server(1, 8080, 1)])?;
    Client::connect(&rig.client, (VIP, 80))?.close()?;
    tracers.iter().try_for_each(|tracer| tracer.wait_for(&["generation 2"]).map(drop))
}

/// Its reader is stopped while packets come as fast as they can.
fn sleeps(rig: &mut Rig) -> Outcome {
    let sleeper = trace(rig, &[])?;
    sleeper.signal(Signal::STOP)?;
    let before = resident(rig.router.id())?;
    let socket_to = |port| udp::client(&rig.client, CLIENT, (VIP, port));
    let (flood, other) = (socket_to(53)?, socket_to(54)?);
    let (mut sent, mut slowest) = (0_u64, Duration::ZERO);
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        for _ in 0..2_000 {
            // What the servers say about it is of no interest.
            sent += u64::from(flood.send(&[7; 200]).is_ok());
        }
        let asked = Instant::now();
        let status =
            Command::new(tapvs()).args(["status", "--socket"]).arg(socket(rig)).output()?;
        ensure!(status.status.success(), "the control socket does not answer");
        slowest = slowest.max(asked.elapsed());
    }
    // What the sender's own host had to drop has not come to anybody.
    let received = rig.router.report()?.link(CLIENT_TAP)?.frames_in;
    ensure!(sent.min(received) > 20_000, "only {received} packets of {sent}");
    ensure!(slowest < Duration::from_secs(2), "the control socket took {slowest:?}");
    let grown = resident(rig.router.id())?.saturating_sub(before);
    ensure!(grown < 64 << 20, "the router has grown by {grown} bytes");
    // Another tracer finds the one packet it looks for.
    let second = trace(rig, &["port=54"])?;
    drop(other.send(b"x"));
    second.wait_for(&[":54 udp data 1", "verdict=drop reason=unserved"])?;
    sleeper.signal(Signal::CONT)?;
    let told = eventually(PATIENCE, || {
        sleeper.said().iter().any(|line| line.contains("packets not shown: too fast"))
    });
    ensure!(told, "it does not say what is missing: {:?}", sleeper.said());
    let lost: u64 = sleeper
        .said()
        .iter()
        .filter_map(|line| line.split_once(" packets not shown")?.0.parse::<u64>().ok())
        .sum();
    let complete = eventually(PATIENCE, || {
        let shown = sleeper.lines().iter().filter(|line| line.contains(":53 udp data 200")).count();
        // A few were there before it, or are none of these.
        shown as u64 + lost + 100 >= received
    });
    ensure!(complete, "{lost} lost of {received}, {} shown", sleeper.lines().len());
    // Its way is clear again.
    // A send may fail with what the servers have said about the one before.
    let sent = eventually(PATIENCE, || flood.send(b"still there?").is_ok());
    ensure!(sent, "it cannot be sent");
    sleeper.wait_for(&[":53 udp data 12"]).map(drop)
}
