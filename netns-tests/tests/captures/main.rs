//! `tapvs capture`, read back by tshark.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::harness::{self, rig_trial, say};
use netns_tests::tcp::{Client, EchoServer};
use netns_tests::{
    CLIENT, Context as _, Failure, Outcome, Rig, Service, VIP, Watcher, ensure, server_address,
};
use rustix::process::Signal;
use serde_json::Value;

fn main() -> ExitCode {
    if !std::env::args().any(|argument| argument == "--list") {
        match tshark(&["--version"]) {
            Ok(version) => say(version.lines().next().unwrap_or_default()),
            Err(failure) => {
                say(format_args!("{failure}; `cargo xtask test` installs it"));
                return ExitCode::FAILURE;
            }
        }
    }
    let web = || vec![Service::tcp(80).server(0, 8080, 1)];
    harness::main(vec![
        trial("a_capture_has_both_sides_of_a_connection_with_the_reasons", web, both_sides),
        trial("a_capture_through_a_pipe_is_read_while_it_grows", web, pipe),
        trial("a_capture_that_is_killed_can_be_read", web, killed),
    ])
}

fn trial(
    name: &'static str,
    services: fn() -> Vec<Service>,
    run: fn(&mut Rig) -> Outcome,
) -> Trial {
    rig_trial(name, services, run)
}

fn tshark(arguments: &[&str]) -> Outcome<String> {
    let output = Command::new("tshark").args(arguments).output().context("tshark")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "tshark {arguments:?}: {}", text(&output.stderr));
    Ok(text(&output.stdout))
}

/// The packets of a file as tshark understands them.
fn packets(file: &Path) -> Outcome<Vec<Value>> {
    let file = file.to_str().unwrap_or_default();
    let text = tshark(&["-n", "-r", file, "-T", "json", "--no-duplicate-keys"])?;
    serde_json::from_str(&text).context(text)
}

/// A field, wherever it is: `frame.comment` is not always in the same place.
fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(object) => {
            object.get(name).or_else(|| object.values().find_map(|value| field(value, name)))
        }
        Value::Array(values) => values.iter().find_map(|value| field(value, name)),
        _ => None,
    }
}

fn text<'v>(packet: &'v Value, name: &str) -> &'v str {
    field(packet, name).and_then(Value::as_str).unwrap_or_default()
}

fn socket(rig: &Rig) -> PathBuf {
    rig.scratch.path().join("lvs1.sock")
}

/// A server, and the router knows its MAC.
fn warm(rig: &Rig) -> Outcome<EchoServer> {
    let server = EchoServer::start(&rig.servers[0], (server_address(0), 8080), "0")?;
    for _ in 0..3 {
        Client::connect(&rig.client, (VIP, 80))?.close()?;
    }
    Ok(server)
}

fn both_sides(rig: &mut Rig) -> Outcome {
    let _server = warm(rig)?;
    let file = rig.scratch.path().join("both.pcapng");
    let name = file.to_str().unwrap_or_default();
    let mut capture = Watcher::start(&socket(rig), &["capture", name, "proto=tcp"])?;
    let mut client = Client::connect(&rig.client, (VIP, 80))?;
    client.echo(&[7; 1_000])?;
    let port = client.stream.local_addr()?.port();
    client.close()?;
    ensure!(Client::connect(&rig.client, (VIP, 81)).is_err(), "a port without a service is open");
    let last = |rows: &[Value]| rows.iter().any(|row| text(row, "tcp.flags.reset") == "1");
    let written = netns_tests::eventually(Duration::from_secs(10), || {
        packets(&file).is_ok_and(|rows| last(&rows))
    });
    ensure!(written, "the reset is not in it");
    capture.signal(Signal::INT)?;
    ensure!(capture.wait()?.success(), "{:?}", capture.said());
    let rows = packets(&file)?;
    let said = capture.said().join("\n");
    ensure!(said.contains(" packets") && !said.contains("not captured"), "{said}");

    let syn: Vec<_> = rows
        .iter()
        .filter(|row| text(row, "tcp.flags.syn") == "1" && text(row, "tcp.flags.ack") == "0")
        .collect();
    let [came, left, refused] = &syn[..] else {
        return Err(Failure::new(format!("{} SYNs in {rows:#?}", syn.len())));
    };
    let expect = |row: &Value, expected: &[(&str, String)]| {
        expected.iter().try_for_each(|(name, value)| {
            let found = text(row, name);
            ensure!(found == value, "{name} is {found}, not {value}: {row:#}");
            Outcome::Ok(())
        })
    };
    expect(
        came,
        &[
            ("frame.interface_name", "tapvs0".into()),
            ("frame.packet_flags_direction", "0x00000001".into()),
            ("ip.src", CLIENT.to_string()),
            ("ip.dst", VIP.to_string()),
            ("tcp.srcport", port.to_string()),
            ("tcp.dstport", "80".into()),
        ],
    )?;
    expect(
        left,
        &[
            ("frame.interface_name", "tapvs1".into()),
            ("frame.packet_flags_direction", "0x00000002".into()),
            ("ip.src", CLIENT.to_string()),
            ("ip.dst", server_address(0).to_string()),
            ("tcp.dstport", "8080".into()),
        ],
    )?;
    for row in [came, left] {
        let comment = text(row, "frame.comment");
        let part = "verdict=forward service=tcp:203.0.113.10:80 server=10.0.0.11:8080 | new flow ";
        ensure!(comment.contains(part), "{comment}");
    }
    ensure!(text(refused, "frame.comment").contains("verdict=drop reason=unserved"), "{refused:#}");
    // Whole frames, their checksums right but for those that the sender's NIC would have filled in.
    let data = rows.iter().filter(|row| text(row, "tcp.len") == "1000").count();
    ensure!(data == 4, "an echo of 1,000 bytes comes and goes twice, not {data} times");
    let ages =
        rows.iter().filter_map(|row| text(row, "frame.time_epoch").split('.').next()?.parse().ok());
    let today = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let today = today.map_or(0, |today| today.as_secs());
    let mut ages = ages.map(|second: u64| today.abs_diff(second));
    ensure!(ages.all(|age| age < 120), "not the real time of day");
    let links = tshark(&["-n", "-r", name, "-T", "fields", "-e", "frame.interface_description"])?;
    ensure!(
        links.contains("tapvs network internet") && links.contains("network servers"),
        "{links}"
    );
    Ok(())
}

/// As `| wireshark -k -i -` would read it.
fn pipe(rig: &mut Rig) -> Outcome {
    let _server = warm(rig)?;
    let mut capture = Command::new(netns_tests::tapvs())
        .args([
            "capture",
            "-",
            "service=tcp:203.0.113.10:80",
            "--count",
            "6",
            "--snaplen",
            "60",
            "--socket",
        ])
        .arg(socket(rig))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = capture.stdout.take().ok_or_else(|| Failure::new("no pipe"))?;
    let reader = Command::new("tshark")
        .args([
            "-n",
            "-r",
            "-",
            "-T",
            "fields",
            "-e",
            "frame.cap_len",
            "-e",
            "frame.len",
            "-e",
            "frame.comment",
        ])
        .stdin(output)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    // It begins when the router does; nobody says when, with its output in a pipe.
    let begun = netns_tests::eventually(Duration::from_secs(20), || {
        let client = Client::connect(&rig.client, (VIP, 80));
        drop(client.and_then(|mut client| client.echo(&[1; 500])));
        !matches!(capture.try_wait(), Ok(None))
    });
    ensure!(begun, "--count does not end it");
    ensure!(capture.wait()?.success(), "the capture failed");
    let output = reader.wait_with_output()?;
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let rows: Vec<Vec<&str>> = lines.lines().map(|line| line.split('\t').collect()).collect();
    ensure!(rows.len() == 12, "six packets that came and left: {lines}");
    let short = |row: &Vec<&str>| row[0] == "60" || row[0] == row[1];
    ensure!(rows.iter().all(short), "longer than asked for: {lines}");
    ensure!(rows.iter().all(|row| row[2].contains("verdict=")), "without a comment: {lines}");
    Ok(())
}

fn killed(rig: &mut Rig) -> Outcome {
    let _server = warm(rig)?;
    let file = rig.scratch.path().join("killed.pcapng");
    let name = file.to_str().unwrap_or_default();
    let mut capture = Watcher::start(&socket(rig), &["capture", name])?;
    for _ in 0..20 {
        Client::connect(&rig.client, (VIP, 80))?.echo(&[7; 5_000])?;
    }
    let written = netns_tests::eventually(Duration::from_secs(10), || {
        packets(&file).is_ok_and(|rows| rows.len() > 100)
    });
    ensure!(written, "nothing has been written");
    capture.signal(Signal::KILL)?;
    capture.wait()?;
    ensure!(packets(&file)?.len() > 100, "it cannot be read");
    // For a time, and no longer.
    let short = rig.scratch.path().join("short.pcapng");
    let arguments = ["capture", short.to_str().unwrap_or_default(), "--seconds", "1"];
    let mut capture = Watcher::start(&socket(rig), &arguments)?;
    ensure!(capture.wait()?.success(), "{:?}", capture.said());
    let mut nowhere = Watcher::spawn(&socket(rig), &["capture", "/nowhere/at/all.pcapng"])?;
    let code = nowhere.wait()?.code();
    ensure!(
        code == Some(1) && nowhere.said().join("").contains("/nowhere/at/all.pcapng"),
        "{nowhere:?}"
    );
    Ok(())
}
