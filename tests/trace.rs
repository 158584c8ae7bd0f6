//! What is traced: every packet, with what became of it, and of those that pass a filter all.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use support::mutate::{mutate, repair, seeds};
use support::random::Random;
use support::*;
use tapvs::addr::LinkId;
use tapvs::config::{Config, Forward};
use tapvs::control::Words;
use tapvs::control::protocol::Traced;
use tapvs::dataplane::{DropReason, Origin, Verdict};
use tapvs::frame::Frame;
use tapvs::table::{Ids, Standing, Table};
use tapvs::time::Duration;
use tapvs::trace::{Aim, Filter, Reader, Scene, Tracers, reel};

const CLIENT: &str = "198.51.100.7:40000";
const WEB: &str = "203.0.113.10:80";

/// With names that lines can be read by.
fn named(mut config: Config) -> Config {
    for (service, name) in config.services.iter_mut().zip(["web", "dns"]) {
        service.name = name.into();
        for (server, number) in service.servers.iter_mut().zip(1..) {
            server.name = format!("{name}{number}");
        }
    }
    let links = config.networks.iter_mut().flat_map(|network| &mut network.links);
    links.zip(0..).for_each(|(link, number)| link.tap = format!("tapvs{number}"));
    config
}

/// A router that is traced, as the loop does it.
struct Bench {
    router: Router,
    tracers: Tracers,
    readers: Vec<Reader>,
    words: Words,
}

impl Bench {
    fn new(config: Config, filters: &[&str]) -> Self {
        let router = Router::sized(named(config), 24);
        let words = Words::new(&Arc::new(Table::compile(
            &router.config,
            None,
            &mut Ids::default(),
            |_, _| Standing::GOOD,
        )));
        let mut bench = Self { router, tracers: Tracers::default(), readers: Vec::new(), words };
        for (key, filter) in (0..).zip(filters) {
            let filter: Filter = filter.parse().unwrap();
            let aim = Aim::new(&filter, &bench.router.table).unwrap();
            let (tracer, reader) = reel(key, Box::new(aim), 128);
            assert!(bench.tracers.start(tracer).is_none());
            bench.readers.push(reader);
        }
        bench.router.dataplane.watch_late_drops(true);
        bench
    }

    /// One frame in, and what it causes out.
    fn feed(&mut self, link: LinkId, bytes: &[u8]) -> Verdict {
        let Router { dataplane, table, now, .. } = &mut self.router;
        let mut frame = Frame::from_bytes(bytes);
        let scene = Scene { dataplane, table, now: *now };
        let wanted = self.tracers.arrived(scene, link, &frame);
        let verdict = dataplane.handle_frame(table, link, &mut frame, *now);
        if wanted {
            let scene = Scene { dataplane, table, now: *now };
            self.tracers.decided(scene, &frame, verdict);
        }
        self.transmit();
        verdict
    }

    fn transmit(&mut self) {
        let Router { dataplane, table, now, .. } = &mut self.router;
        let mut out = Frame::new();
        while let Some(link) = dataplane.poll_transmit(table, &mut out, *now) {
            self.tracers.sent(Scene { dataplane, table, now: *now }, link, &out, false);
        }
        while let Some(drop) = dataplane.poll_late_drop() {
            self.tracers.dropped(Scene { dataplane, table, now: *now }, &drop);
        }
    }

    /// Time passes, and nobody answers.
    fn wait(&mut self, by: Duration) {
        let end = self.router.now + by;
        loop {
            let due = self.router.dataplane.poll_timeout().filter(|due| *due <= end);
            let Some(due) = due else { break };
            let Router { dataplane, table, now, .. } = &mut self.router;
            *now = (*now).max(due);
            dataplane.handle_timeout(table, *now);
            self.transmit();
        }
        self.router.now = end;
    }

    /// What a tracer has seen since this was asked last.
    fn traced(&mut self, tracer: usize) -> Vec<Traced> {
        let reader = &self.readers[tracer];
        assert_eq!(reader.take_lost(), 0);
        let mut all = Vec::new();
        loop {
            self.tracers.flush();
            let Some(batch) = reader.next_batch() else { return all };
            let records = batch.records();
            all.extend(records.map(|(record, bytes)| self.words.traced(record, bytes, 0, false)));
            reader.done(batch);
        }
    }

    fn lines(&mut self, tracer: usize) -> Vec<String> {
        self.traced(tracer).iter().map(ToString::to_string).collect()
    }
}

#[test]
fn a_connection_from_its_first_packet_to_its_last() {
    let mut bench = Bench::new(config(), &[""]);
    bench.feed(OUT, &tcp(CLIENT, WEB, SYN, 1000, 0, b"").frame());
    bench.feed(IN, &tcp("10.0.0.11:8080", CLIENT, SYN | ACK, 500, 1001, b"").frame());
    bench.feed(OUT, &tcp(CLIENT, WEB, ACK, 1001, 501, b"hello").frame());
    bench.feed(OUT, &tcp("198.51.100.7:1", WEB, ACK, 1, 1, b"").frame());
    let lines = bench.lines(0);
    let server = mac(server_mac(11));
    let gateway = mac(GATEWAY);
    let expected = [
        format!(
            "tapvs0 198.51.100.7:40000 > 203.0.113.10:80 tcp [S] seq 1000 win 0 data 0, 54 bytes | \
             verdict=forward service=web server=web1 | new flow 198.51.100.7:40000 > 203.0.113.10:80 > \
             10.0.0.11:8080 SYN_RECV to-server | out tapvs1 to {server} as 198.51.100.7:40000 > \
             10.0.0.11:8080 | generation 1"
        ),
        format!(
            "tapvs1 10.0.0.11:8080 > 198.51.100.7:40000 tcp [S.] seq 500 ack 1001 win 0 data 0, 54 bytes | \
             verdict=forward service=web server=web1 | known flow 198.51.100.7:40000 > 203.0.113.10:80 > \
             10.0.0.11:8080 SYN_RECV to-client | out tapvs0 to {gateway} as 203.0.113.10:80 > \
             198.51.100.7:40000 | generation 1"
        ),
        format!(
            "tapvs0 198.51.100.7:40000 > 203.0.113.10:80 tcp [.] seq 1001 ack 501 win 0 data 5, 59 bytes | \
             verdict=forward service=web server=web1 | known flow 198.51.100.7:40000 > 203.0.113.10:80 > \
             10.0.0.11:8080 ESTABLISHED to-server | out tapvs1 to {server} as 198.51.100.7:40000 > \
             10.0.0.11:8080 | generation 1"
        ),
        "tapvs0 198.51.100.7:1 > 203.0.113.10:80 tcp [.] seq 1 ack 1 win 0 data 0, 54 bytes | \
         verdict=drop reason=no_flow service=web | A packet that belongs to no flow and opens none: late, \
         or out of the blue. | generation 1"
            .to_owned(),
        format!(
            "own 203.0.113.10:80 > 198.51.100.7:1 tcp [R] seq 1 win 0 data 0, 54 bytes | verdict=sent \
             service=web | out tapvs0 to {gateway} | generation 1"
        ),
    ];
    let windowless = |line: &String| {
        let (before, after) = line.split_once(" win ").unwrap();
        format!("{before} win 0{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
    };
    assert_eq!(lines.iter().map(windowless).collect::<Vec<_>>(), expected);
}

#[test]
fn what_is_not_of_a_flow_has_its_words_too() {
    let mut bench = Bench::new(config(), &[""]);
    bench.feed(OUT, &who_has(VIP, GATEWAY_IP, GATEWAY).frame());
    bench.feed(OUT, &icmp("198.51.100.7", "203.0.113.10", (8, 0), [0, 7, 0, 1], b"ping").frame());
    bench.feed(OUT, &icmp("198.51.100.7", "203.0.113.2", (8, 0), [0, 7, 0, 1], b"ping").frame());
    bench.feed(OUT, &[0; 9]);
    bench.feed(OUT, &udp(CLIENT, "203.0.113.10:99", b"").frame());
    let lines = bench.lines(0);
    let begins = [
        "tapvs0 arp who-has 203.0.113.10 tell 203.0.113.1",
        "tapvs0 198.51.100.7 > 203.0.113.10 icmp echo request id 7 seq 1, 46 bytes | verdict=reply | out tapvs0",
        "tapvs0 198.51.100.7 > 203.0.113.2 icmp echo request id 7 seq 1, 46 bytes | verdict=to_host | generation 1",
        "tapvs0 runt, 9 bytes | verdict=drop reason=runt | Shorter than an Ethernet header. | generation 1",
        "tapvs0 198.51.100.7:40000 > 203.0.113.10:99 udp data 0, 42 bytes | verdict=drop reason=unserved | No service",
        "own 203.0.113.10 > 198.51.100.7 icmp port unreachable about 198.51.100.7:40000 > 203.0.113.10:99 udp",
    ];
    assert_eq!(lines.len(), begins.len(), "{lines:#?}");
    for (line, begin) in lines.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line}");
    }
    assert!(
        lines[0].contains(
            "| verdict=reply | out tapvs0 to 02:00:00:00:00:01 as arp reply 203.0.113.10 is-at"
        ),
        "{}",
        lines[0]
    );
}

#[test]
fn copies_and_direct_flows_are_shown_as_they_left() {
    let mut bench = Bench::new(bridged(), &[""]);
    let broadcast = tcp("203.0.113.50:1", "203.0.113.255:1", SYN, 1, 0, b"").with(|ip| {
        (ip.from, ip.to) = (NEAR, tapvs::addr::MacAddr::BROADCAST);
    });
    assert_eq!(bench.feed(OUT, &broadcast.frame()), Verdict::Flood);
    bench.feed(OUT, &tcp(CLIENT, WEB, SYN, 1, 0, b"").frame());
    let lines = bench.lines(0);
    assert!(
        lines[0].contains("verdict=flood | out tapvs1 and tapvs2 to ff:ff:ff:ff:ff:ff"),
        "{lines:#?}"
    );
    let direct = lines[1].contains("| new flow 198.51.100.7:40000 > 203.0.113.10:80 > 10.0.0.1");
    assert!(direct && !lines[1].contains(" as "), "nothing is translated: {}", lines[1]);
}

/// What waits for a MAC that nobody has.
#[test]
fn a_packet_that_is_dropped_late_is_traced_late() {
    let mut config = config();
    config.router.forward = Forward::All;
    let mut bench = Bench::new(config, &["reason=neighbour_failed", "verdict=held"]);
    bench.feed(OUT, &udp(CLIENT, "10.0.0.200:9", b"").frame());
    let held = "tapvs0 198.51.100.7:40000 > 10.0.0.200:9 udp data 0, 42 bytes | verdict=held | generation 1";
    assert_eq!(bench.lines(1), [held]);
    assert_eq!(bench.lines(0), [""; 0]);
    bench.wait(Duration::from_secs(60));
    let late = "own 198.51.100.7:40000 > 10.0.0.200:9 udp data 0, 42 bytes | verdict=drop \
                reason=neighbour_failed | The next hop does not answer ARP. | generation 1";
    assert_eq!(bench.lines(0), [late]);
}

#[test]
fn filters_choose_both_directions_of_a_flow() {
    let counts = |filter: &str| {
        let mut bench = Bench::new(config(), &[filter]);
        bench.feed(OUT, &tcp(CLIENT, WEB, SYN, 1000, 0, b"").frame());
        bench.feed(IN, &tcp("10.0.0.11:8080", CLIENT, SYN | ACK, 500, 1001, b"").frame());
        bench.feed(OUT, &udp("198.51.100.8:5", "203.0.113.10:53", b"who?").frame());
        bench.feed(OUT, &who_has(VIP, GATEWAY_IP, GATEWAY).frame());
        bench.feed(OUT, &udp("198.51.100.8:5", "203.0.113.10:99", b"").frame());
        bench.traced(0).len()
    };
    for (filter, count) in [
        ("", 6),
        ("client=198.51.100.7", 2),
        ("client=198.51.100.0/24", 5),
        ("client=203.0.113.1", 1),
        ("server=web1", 2),
        ("server=10.0.0.11", 3),
        ("server=10.0.0.11:8080", 2),
        ("server=web2", 0),
        ("service=web", 2),
        ("service=dns", 1),
        ("service=web server=10.0.0.12", 0),
        ("verdict=forward", 3),
        ("verdict=drop", 1),
        ("verdict=sent", 1),
        ("reason=unserved", 1),
        ("reason=no_flow", 0),
        ("proto=tcp", 2),
        ("proto=udp", 2),
        ("proto=icmp", 1),
        ("proto=arp", 1),
        ("port=8080", 2),
        ("port=80", 2),
        ("port=99", 1),
        ("link=tapvs0", 6),
        ("link=tapvs1", 3),
        ("link=tapvs1 proto=udp verdict=forward", 1),
    ] {
        assert_eq!(counts(filter), count, "{filter}");
    }
}

#[test]
fn names_that_are_not_there_are_refused_and_those_that_go_stay_known() {
    let bench = Bench::new(config(), &[]);
    let aim = |filter: &str, table| Aim::new(&filter.parse().unwrap(), table);
    for (filter, what) in
        [("service=nowhere", "service"), ("server=nobody", "server"), ("link=eth0", "link")]
    {
        assert_eq!(aim(filter, &bench.router.table).unwrap_err().0, what);
    }
    let mut bench = Bench::new(config(), &["service=web"]);
    bench.feed(OUT, &tcp(CLIENT, WEB, SYN, 1000, 0, b"").frame());
    assert_eq!(bench.traced(0).len(), 1);
    let filter: Filter = "service=web".parse().unwrap();
    let before = Aim::new(&filter, &bench.router.table).unwrap();
    bench.router.change(|config| drop(config.services.remove(0)));
    let after = before.follow(&filter, &bench.router.table);
    bench.tracers.follow(0, Box::new(after)).unwrap();
    bench.feed(OUT, &tcp(CLIENT, WEB, ACK, 1001, 501, b"").frame());
    assert_eq!(bench.traced(0).len(), 1, "its flows go on");
    bench
        .router
        .change(|config| config.services.insert(0, named(support::config()).services.remove(0)));
    let table = &bench.router.table;
    bench.tracers.follow(0, Box::new(before.follow(&filter, table))).unwrap();
    bench.feed(OUT, &tcp("198.51.100.9:9", WEB, SYN, 1, 0, b"").frame());
    assert_eq!(bench.traced(0).len(), 1, "and it is found when it comes back");
}

/// The hostile tests' frames, with time passing now and then; `each` is told every verdict.
fn storm(bench: &mut Bench, mut each: impl FnMut(&mut Bench, Option<Verdict>)) {
    let seeds = seeds();
    let mut random = Random::new(7);
    let answer = icmp("203.0.113.2", "198.51.100.7", (0, 0), [0; 4], b"").packet();
    for _ in 0..300 {
        let Router { dataplane, table, now, .. } = &mut bench.router;
        dataplane.send_packet(table, &answer, Origin::Host, *now);
    }
    bench.transmit();
    each(bench, None);
    for _ in 0..6_000 {
        let (link, mut frame) = random.pick(&seeds).clone();
        if random.percent(80) {
            mutate(&mut frame, &seeds, &mut random);
        }
        if random.percent(70) {
            repair(link, &mut frame);
        }
        let verdict = bench.feed(link, &frame);
        each(bench, Some(verdict));
        if random.percent(1) {
            bench.wait(Duration::from_millis(*random.pick(&[1, 900, 5_000, 130_000])));
            each(bench, None);
        }
    }
}

fn hostile() -> Config {
    let mut config = config();
    config.router.forward = Forward::ServersOut;
    config
}

/// Every packet has one line, whatever it is; every drop, early or late, has its reason in it; and a
/// filter finds as many of each as there are.
#[test]
fn every_reason_that_occurs_is_traced_and_can_be_asked_for() {
    let mut bench = Bench::new(hostile(), &[""]);
    let mut reasons: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let (mut frames, mut came) = (0_usize, 0_usize);
    storm(&mut bench, |bench, verdict| {
        for traced in bench.traced(0) {
            let line = traced.to_string();
            assert!(line.contains(&format!("verdict={}", traced.verdict)), "{line}");
            assert!(!line.contains("  ") && !traced.packet.is_empty(), "{line}");
            *kinds.entry(traced.verdict.to_string()).or_default() += 1;
            if traced.link.is_some() {
                came += 1;
                let Some(Verdict::Drop(reason)) = verdict else {
                    assert!(traced.reason.is_none(), "{line}");
                    continue;
                };
                assert_eq!(traced.reason.as_deref(), Some(reason.name()), "{line}");
            }
            if let Some(reason) = &traced.reason {
                let reason = DropReason::ALL.iter().find(|known| known.name() == *reason).unwrap();
                assert!(line.contains(reason.help()), "{line}");
                *reasons.entry(reason.name()).or_default() += 1;
            }
        }
        frames += usize::from(verdict.is_some());
    });
    assert_eq!(came, frames, "a line for each frame that came");
    eprintln!("{reasons:?}\n{kinds:?}");
    assert!(reasons.len() >= 30, "only {} reasons occurred", reasons.len());
    for reason in ["neighbour_failed", "outbox_full", "fragment_orphan"] {
        assert!(reasons.contains_key(reason), "nothing was dropped late for {reason}");
    }
    for kind in ["forward", "reply", "to_host", "held", "consumed", "drop", "sent"] {
        assert!(kinds.contains_key(kind), "nothing was {kind}");
    }
    let all: Vec<_> = reasons.into_iter().collect();
    for four in all.chunks(4) {
        let filters: Vec<_> = four.iter().map(|(reason, _)| format!("reason={reason}")).collect();
        let filters: Vec<_> = filters.iter().map(String::as_str).collect();
        let mut bench = Bench::new(hostile(), &filters);
        let mut found = vec![0; four.len()];
        storm(&mut bench, |bench, _| {
            for (at, found) in found.iter_mut().enumerate() {
                *found += bench.traced(at).len();
            }
        });
        let wanted: Vec<_> = four.iter().map(|(_, count)| *count).collect();
        assert_eq!(found, wanted, "{filters:?}");
    }
}

fn mac(mac: tapvs::addr::MacAddr) -> String {
    mac.to_string()
}
