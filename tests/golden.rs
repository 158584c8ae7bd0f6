//! Golden packets: one frame in, the verdict and every frame out, as a specification to read.
//!
//! The letters and numbers in the names are those of the conformance list. Text says what a frame
//! holds; a checksum that is wrong would say so (`BAD SUM`), TOS and options are named when set.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use support::*;
use tapvs::addr::{LinkId, MacAddr, Proto};
use tapvs::config::{Config, Forward, Unserved};
use tapvs::dataplane::DropReason;

/// One case: what happened before, the frame, and what the router does with it.
struct Case {
    name: &'static str,
    config: fn(&mut Config),
    before: Vec<(LinkId, Vec<u8>)>,
    link: LinkId,
    frame: Vec<u8>,
    expect: &'static str,
}

impl Case {
    fn after(mut self, link: LinkId, frame: impl Into<Bytes>) -> Self {
        self.before.push((link, frame.into().0));
        self
    }

    fn configured(mut self, config: fn(&mut Config)) -> Self {
        self.config = config;
        self
    }

    fn run(&self) -> (Router, String) {
        let mut config = config();
        (self.config)(&mut config);
        let mut router = Router::new(config);
        for (link, frame) in &self.before {
            let step = router.feed(*link, frame);
            let drop = matches!(step.verdict, tapvs::dataplane::Verdict::Drop(_));
            assert!(!drop, "{}: what should happen before: {}", self.name, step.text());
        }
        let text = router.feed(self.link, &self.frame).text();
        (router, text)
    }
}

/// A frame, however it was made.
struct Bytes(Vec<u8>);

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<Ip> for Bytes {
    fn from(ip: Ip) -> Self {
        Self(ip.frame())
    }
}

impl From<ArpMessage> for Bytes {
    fn from(arp: ArpMessage) -> Self {
        Self(arp.frame())
    }
}

fn case(name: &'static str, link: LinkId, frame: impl Into<Bytes>, expect: &'static str) -> Case {
    let (before, frame) = (Vec::new(), frame.into().0);
    Case { name, config: |_| {}, before, link, frame, expect }
}

const CLIENT: &str = "198.51.100.7:40000";
const WEB: &str = "203.0.113.10:80";
const DNS: &str = "203.0.113.10:53";
const SERVER11: &str = "10.0.0.11:8080";

fn syn() -> Ip {
    tcp(CLIENT, WEB, SYN, 1000, 0, b"")
}

fn query() -> Ip {
    udp(CLIENT, DNS, b"who?")
}

#[path = "golden/arp.rs"]
mod arp;
#[path = "golden/bridge.rs"]
mod bridge;
#[path = "golden/claims.rs"]
mod claims;
#[path = "golden/direct.rs"]
mod direct_cases;
#[path = "golden/drops.rs"]
mod drops;
#[path = "golden/endings.rs"]
mod endings;
#[path = "golden/flood.rs"]
mod flood;
#[path = "golden/fragments.rs"]
mod fragments;
#[path = "golden/icmp.rs"]
mod icmp_cases;
#[path = "golden/look.rs"]
mod look;
#[path = "golden/nat.rs"]
mod nat;
#[path = "golden/neighbours.rs"]
mod neighbours;
#[path = "golden/own_ports.rs"]
mod own_ports;
#[path = "golden/own_traffic.rs"]
mod own_traffic;
#[path = "golden/reload.rs"]
mod reload;
#[path = "golden/roles.rs"]
mod roles;
#[path = "golden/scheduling.rs"]
mod scheduling;
#[path = "golden/standing.rs"]
mod standing;
#[path = "golden/table.rs"]
mod table;
#[path = "golden/takeover.rs"]
mod takeover;
#[path = "golden/vip_probe.rs"]
mod vip_probe;

fn all_cases() -> Vec<Case> {
    let rooms = [
        arp::cases(),
        bridge::cases(),
        claims::cases(),
        direct_cases::cases(),
        nat::cases(),
        icmp_cases::cases(),
        drops::cases(),
        own_traffic::cases(),
    ];
    rooms.into_iter().flatten().collect()
}

#[test]
fn every_case_does_what_it_says() {
    let mut wrong = 0;
    for case in all_cases() {
        let (_, text) = case.run();
        let expect: Vec<&str> = case.expect.trim().lines().map(str::trim).collect();
        if text.lines().ne(expect.iter().copied()) {
            wrong += 1;
            eprintln!("--- {}\nexpected:\n{}\nbut:\n{text}\n", case.name, expect.join("\n"));
        }
    }
    assert_eq!(wrong, 0, "cases that went otherwise");
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = all_cases().iter().map(|case| case.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
}

/// Every reason to drop and every kind of verdict occurs, each from real frames.
#[test]
fn every_drop_reason_and_every_verdict_occurs() {
    let cases = all_cases().into_iter().map(|case| case.run().0);
    let scenarios = [
        bridge::a_loop,
        bridge::a_storm,
        drops::bad_offloads,
        drops::outbox_full,
        drops::refused,
        endings::a_client_reset,
        fragments::a_flood_of_orphans,
        neighbours::held_failed_and_told,
        neighbours::more_than_three_wait,
        neighbours::too_many_neighbours,
        roles::both_roles,
        table::assured_flows_are_never_evicted,
        table::ports_run_out,
    ];
    let mut seen = [0; DropReason::COUNT];
    let mut kinds = [0; 7];
    for router in cases.chain(scenarios.into_iter().map(|scenario| scenario())) {
        let counters = router.dataplane.counters();
        for (seen, count) in seen.iter_mut().zip(counters.drops) {
            *seen += count;
        }
        let held = neighbours::is_holding(&router);
        let c = counters;
        let counts = [c.forwarded, c.replied, c.to_host, c.to_ha, c.consumed, c.split, held];
        for (kind, count) in kinds.iter_mut().zip(counts) {
            *kind += count;
        }
    }
    let missing: Vec<_> =
        DropReason::ALL.iter().filter(|reason| seen[reason.index()] == 0).collect();
    assert!(missing.is_empty(), "no frame was dropped for {missing:?}");
    assert!(
        kinds.iter().all(|kind| *kind > 0),
        "forward, reply, to host, to ha, consumed, split, held: {kinds:?}"
    );
}
