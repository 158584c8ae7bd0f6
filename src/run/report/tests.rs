//! What the log says of all counters.

use super::*;
use crate::addr::{Endpoint, MacAddr, Proto};
use crate::dataplane::{Counters, FtpCounters, ServerReport};
use crate::links::Refused;

/// As the log has it, without the quotes.
fn lines(entries: &[Entry]) -> Vec<String> {
    let line = |entry: &Entry| {
        let fields = entry.fields.iter().map(|(key, value)| format!(" {key}={value}"));
        entry.text.to_owned() + &fields.collect::<String>()
    };
    entries.iter().map(line).collect()
}

fn endpoint(text: &str) -> Endpoint {
    let socket: std::net::SocketAddr = text.parse().unwrap();
    Endpoint { address: socket.ip(), port: socket.port() }
}

#[test]
fn every_line_says_what_it_is_about_and_every_counter_has_a_name() {
    let server = ServerReport {
        name: "web1".to_owned(),
        endpoint: endpoint("10.0.0.11:8080"),
        weight: 7,
        traffic: Traffic {
            flows: 31,
            packets_in: 32,
            bytes_in: 33,
            packets_out: 34,
            bytes_out: 35,
        },
        load: Load { active: 36, inactive: 37 },
        is_full: false,
    };
    let service = ServiceReport {
        name: "web".to_owned(),
        proto: Proto::Tcp,
        endpoint: endpoint("203.0.113.10:80"),
        traffic: Traffic {
            flows: 41,
            packets_in: 42,
            bytes_in: 43,
            packets_out: 44,
            bytes_out: 45,
        },
        load: Load { active: 46, inactive: 47 },
        servers: vec![server],
    };
    let claim = ClaimReport {
        address: "203.0.113.10".parse().unwrap(),
        network: "servers".to_owned(),
        mac: MacAddr([2, 0, 0, 0, 0, 9]),
        server: Some("web1 (10.0.0.11)".to_owned()),
        first: Duration::from_secs(65),
        last: Duration::from_secs(3),
        count: 26,
        suppressed: true,
    };
    let mut counters = Counters { originated: 2, suppressed: 8, ..Counters::default() };
    counters.drops[DropReason::Unserved.index()] = 1;
    let link = links::Counters {
        frames_in: 11,
        bytes_in: 12,
        frames_out: 13,
        bytes_out: 14,
        read_errors: 15,
        refused: Refused { down: 16, no_memory: 17, invalid: 18, gone: 0, other: 20 },
        cut: 0,
        lost: 21,
    };
    let report = Report {
        uptime: Duration::from_secs(3_600),
        turns: Turns::default(),
        links: vec![("tapvs0".to_owned(), link)],
        dataplane: dataplane::Report {
            counters,
            waiting: 0,
            copies: dataplane::CopyCounters::default(),
            ftp: FtpCounters::default(),
            flows: 5,
            max_flows: 1_000,
            generation: 3,
            services: vec![service],
            claims: vec![claim],
        },
        host: host::Counters { received: 1, refused: 2, ignored: 3, sent: 4, limited: 5 },
    };
    assert_eq!(
        lines(&report.entries()),
        [
            "report: loop uptime=3600 turns=0 longest_us=0 above_1ms=0",
            "report: link link=tapvs0 frames_in=11 bytes_in=12 frames_out=13 bytes_out=14 read_errors=15 \
             cut=0 removed=21 refused=71 refused_down=16 refused_no_memory=17 refused_invalid=18 refused_other=20",
            "report: host received=1 sent=4 refused=2 ignored=3 limited=5",
            "report: table generation=3 flows=5 max_flows=1000",
            "report: service service=web protocol=tcp address=203.0.113.10:80 active=46 inactive=47 flows=41 \
             packets_in=42 bytes_in=43 packets_out=44 bytes_out=45",
            "report: server service=web server=web1 address=10.0.0.11:8080 weight=7 active=36 inactive=37 \
             flows=31 packets_in=32 bytes_in=33 packets_out=34 bytes_out=35",
            "report: an address of the router is claimed network=servers address=203.0.113.10 \
             mac=02:00:00:00:00:09 count=26 first_ago=65 last_ago=3 suppressed=true server=web1 (10.0.0.11)",
            "report: dropped reason=unserved count=1 meaning=No service at this port of a virtual IP.",
            "report: too many ICMP errors and resets count=8",
            "report: balance: there are frames too many in=11 originated=2 copied=0 out=13 to_host=0 to_ha=0 split=0 \
             consumed=0 dropped=1 held=0 surplus=1",
        ]
    );
}

#[test]
fn the_balance_says_whether_it_balances() {
    let mut balance = Balance {
        received: 10,
        originated: 2,
        copied: 4,
        sent: 9,
        to_host: 1,
        to_ha: 1,
        split: 1,
        consumed: 1,
        dropped: 2,
        held: 1,
    };
    let line = |balance: &Balance| lines(&[balance.entry()]).concat();
    assert_eq!(
        line(&balance),
        "report: balance: every frame is accounted for in=10 originated=2 copied=4 out=9 to_host=1 to_ha=1 split=1 \
         consumed=1 dropped=2 held=1"
    );
    balance.received = 13;
    assert!(line(&balance).starts_with("report: balance: frames are missing in=13"));
    assert!(line(&balance).ends_with(" held=1 missing=3"));
    balance.sent = 19;
    assert!(line(&balance).ends_with(" held=1 surplus=7"));
}
