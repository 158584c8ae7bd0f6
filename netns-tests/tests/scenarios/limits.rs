//! The flow table when it is full, and when it empties.

use std::net::UdpSocket;
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::harness::built_trial;
use netns_tests::icmp::packet;
use netns_tests::raw::{RawSocket, udp_without_checksum};
use netns_tests::udp::{self, ask};
use netns_tests::{
    CLIENT, Context as _, Failure, Outcome, Report, Rig, Service, VIP, ensure, eventually,
};

use crate::site::{file, udp_server};

const MOST: u64 = 1_000;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        built_trial("o16_a_full_table_keeps_what_is_assured", || rig("300s"), full),
        built_trial("o16_a_flood_drains_away", || rig("6s"), flood),
    ]
}

fn rig(udp_timeout: &str) -> Outcome<Rig> {
    let timeouts = format!("max_flows = 1000\ntimeouts = {{ udp = \"{udp_timeout}\" }}");
    let services = [Service::udp(53).three(5353)];
    Rig::configured(|folder| file(folder, &services, &[("max_flows = 200_000", &timeouts)], ""))
}

/// A thousand conversations, and nobody else gets in.
fn full(rig: &mut Rig) -> Outcome {
    let _servers =
        [udp_server(rig, 0, 5353)?, udp_server(rig, 1, 5353)?, udp_server(rig, 2, 5353)?];
    let mut sockets: Vec<UdpSocket> = Vec::new();
    for _ in 0..MOST {
        let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
        for message in [b"one", b"two"] {
            ask(&socket, message).context(format_args!("flow {}", sockets.len()))?;
        }
        sockets.push(socket);
    }
    let report = rig.router.report()?;
    ensure!(flows(&report)? == MOST, "{MOST} conversations:\n{report}");
    let late = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    late.set_read_timeout(Some(Duration::from_millis(300)))?;
    ensure!(ask(&late, b"me too").is_err(), "one flow more than there is room for");
    for (number, socket) in sockets.iter().enumerate() {
        ask(socket, b"still there?").context(format_args!("flow {number}"))?;
    }
    let report = rig.router.report()?;
    ensure!(flows(&report)? == MOST, "a full table:\n{report}");
    ensure!(report.drops("table_full") >= 1, "a refused flow is not counted:\n{report}");
    Ok(())
}

/// One datagram from each of 20,000 ports; then the table takes reloads and becomes empty.
fn flood(rig: &mut Rig) -> Outcome {
    let _servers =
        [udp_server(rig, 0, 5353)?, udp_server(rig, 1, 5353)?, udp_server(rig, 2, 5353)?];
    let own = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    ask(&own, b"one")?;
    ask(&own, b"two")?;
    let raw = RawSocket::ip(&rig.client)?;
    for port in 10_000..30_000_u16 {
        let datagram = udp_without_checksum(port, 53, b"x");
        raw.send(&packet((CLIENT, VIP), (17, port, 0), &datagram), VIP)?;
        if port % 1_000 == 0 {
            ask(&own, b"assured")
                .or_else(|_| ask(&own, b"the servers are busy"))
                .context(format_args!("after {} datagrams of a flood", port - 10_000))?;
            let report = rig.router.report()?;
            let most = flows(&report)?;
            ensure!(most <= MOST, "{most} flows:\n{report}");
            let full = port >= 12_000;
            ensure!(!full || most == MOST, "{most} flows, not {MOST}:\n{report}");
        }
    }
    let services = [Service::udp(53).server(0, 5353, 1)];
    let timeouts = ("max_flows = 200_000", "max_flows = 1000\ntimeouts = { udp = \"6s\" }");
    crate::site::reload(rig, &services, &[timeouts], "")?;
    let mut left = Err(Failure::new("no report"));
    let empty = eventually(Duration::from_secs(20), || {
        std::thread::sleep(Duration::from_millis(500));
        left = rig.router.report().and_then(|report| flows(&report));
        matches!(left, Ok(0))
    });
    ensure!(empty, "flows are left after their time: {left:?}");
    let fresh = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    ask(&fresh, b"one").context("after the flood")?;
    Ok(())
}

fn flows(report: &Report) -> Outcome<u64> {
    report.figure(&["report: table "], "flows")
}
