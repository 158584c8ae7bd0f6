//! Ping, the errors that the router makes itself (R1, R2), and those that it passes on (N16, N17).
//!
//! In a translated quote the transport checksum stays as it was, as with IPVS: that is the `BAD SUM`.

use super::*;
use tapvs::time::Duration;

/// The client's SYN on the servers' network.
fn as_server_sees() -> Ip {
    tcp(CLIENT, SERVER11, SYN, 1000, 0, b"").ttl(63)
}

/// The server's answer on the internet.
fn as_client_sees() -> Ip {
    tcp(WEB, CLIENT, SYN | ACK, 500, 1001, b"").ttl(62)
}

pub(crate) fn masquerading(config: &mut Config) {
    config.router.forward = Forward::ServersOut;
    config.masquerades =
        vec![tapvs::config::Masquerade { from: "10.0.0.0/24".parse().unwrap(), to: VIP.into() }];
}

fn big(fragment: u16) -> Ip {
    tcp(CLIENT, WEB, ACK, 1001, 1, &[7; 1400]).with(|ip| ip.fragment = fragment)
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case(
            "ping the virtual IP",
            OUT,
            icmp("198.51.100.7", "203.0.113.10", (8, 0), [0, 7, 0, 1], b"ping-data"),
            "reply
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 1 icmp 0/0 00070001 data 9",
        ),
        case(
            "ping the virtual IP with TTL 1 (R1: local delivery)",
            OUT,
            icmp("198.51.100.7", "203.0.113.10", (8, 0), [0, 7, 0, 1], b"").ttl(1),
            "reply
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 1 icmp 0/0 00070001 data 0",
        ),
        case(
            "ping the servers' gateway",
            IN,
            icmp("10.0.0.12", "10.0.0.1", (8, 0), [0, 7, 0, 1], b"x"),
            "reply
             in: router.in > server12 10.0.0.1 > 10.0.0.12 ttl 64 id 1 icmp 0/0 00070001 data 1",
        ),
        case(
            "an own address goes to the host, padding removed",
            OUT,
            [icmp("198.51.100.7", "203.0.113.2", (8, 0), [0, 7, 0, 1], b"x").frame(), vec![9; 17]]
                .concat(),
            "to host
             host: gateway > router.out 198.51.100.7 > 203.0.113.2 ttl 64 id 1 icmp 8/0 00070001 data 1",
        ),
        case(
            "N16 an echo with a bad checksum",
            OUT,
            icmp("198.51.100.7", "203.0.113.10", (8, 0), [0, 7, 0, 1], b"ping").bad_sum(),
            "drop icmp_malformed",
        ),
        case(
            "an echo reply to the virtual IP",
            OUT,
            icmp("198.51.100.7", "203.0.113.10", (0, 0), [0, 7, 0, 1], b""),
            "drop icmp_unserved",
        ),
        case(
            "N17 an error about no known flow",
            OUT,
            icmp("198.51.100.7", "203.0.113.10", (3, 3), [0; 4], &query().packet()),
            "drop icmp_unknown_flow",
        ),
        case(
            "R1 TTL 1 from a client: time exceeded, from the address it talks to",
            OUT,
            syn().ttl(1),
            "drop ttl_exceeded
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id - tos c0 icmp 11/0 00000000 about [198.51.100.7 > 203.0.113.10 ttl 1 id 1 tcp 40000 > 80 S seq 1000 ack 0 win 8192 data 0]",
        ),
        case(
            "R1 TTL 0 from a client",
            OUT,
            query().ttl(0),
            "drop ttl_exceeded
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id - tos c0 icmp 11/0 00000000 about [198.51.100.7 > 203.0.113.10 ttl 0 id 1 udp 40000 > 53 data 4]",
        ),
        case(
            "R1 TTL 1 from a server: time exceeded, from the router",
            IN,
            tcp(SERVER11, CLIENT, SYN | ACK, 500, 1001, b"").ttl(1),
            "drop ttl_exceeded
             in: router.in > server11 10.0.0.2 > 10.0.0.11 ttl 64 id - tos c0 icmp 11/0 00000000 about [10.0.0.11 > 198.51.100.7 ttl 1 id 1 tcp 8080 > 40000 SA seq 500 ack 1001 win 8192 data 0]",
        )
        .after(OUT, syn()),
        case(
            "R2 the quote reaches up to 576 bytes",
            OUT,
            udp(CLIENT, "203.0.113.10:54", &[5; 1000]),
            "drop unserved
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id - tos c0 icmp 3/3 00000000 about [first 548 of 198.51.100.7 > 203.0.113.10 ttl 64 id 1 udp 40000 > 54 data 1000 BAD SUM]",
        ),
        case(
            "R2 the quote holds the IP options",
            OUT,
            udp(CLIENT, "203.0.113.10:54", b"").with(|ip| ip.options = vec![7, 7, 4, 0, 0, 0, 0, 1]),
            "drop unserved
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id - tos c0 icmp 3/3 00000000 about [198.51.100.7 > 203.0.113.10 ttl 64 id 1 options 0707040000000001 udp 40000 > 54 data 0]",
        ),
        case(
            "N8 too big with DF: fragmentation needed, with the MTU",
            OUT,
            big(DF),
            "drop too_big
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id - tos c0 icmp 3/4 00000514 about [first 548 of 198.51.100.7 > 203.0.113.10 ttl 63 id 1 df tcp 40000 > 80 A seq 1001 ack 1 win 8192 data 1400 BAD SUM]",
        )
        .after(OUT, syn())
        .configured(|config| config.networks[1].mtu = 1300),
        case(
            "N8 too big without DF: cut into fragments, in order",
            OUT,
            big(0),
            "split
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 fragment 2000 tcp 40000 > 8080 A seq 1001 ack 1 win 8192 data 1260
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 fragment 00a0 protocol 6 140 bytes",
        )
        .after(OUT, syn())
        .configured(|config| config.networks[1].mtu = 1300),
        case(
            "N17 an error from behind the router about a request: in the virtual IP's name, the quote put back",
            IN,
            icmp("10.0.0.9", "198.51.100.7", (3, 1), [0; 4], &as_server_sees().packet()),
            "forward out
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 63 id 1 icmp 3/1 00000000 about [198.51.100.7 > 203.0.113.10 ttl 63 id 1 tcp 40000 > 80 S seq 1000 ack 0 win 8192 data 0 BAD SUM]",
        )
        .after(OUT, syn()),
        case(
            "N17 an error from the internet about an answer: to the server, the quote put back",
            OUT,
            icmp("198.51.100.1", "203.0.113.10", (11, 0), [0; 4], &as_client_sees().packet()),
            "forward in
             in: router.in > server11 198.51.100.1 > 10.0.0.11 ttl 63 id 1 icmp 11/0 00000000 about [10.0.0.11 > 198.51.100.7 ttl 62 id 1 tcp 8080 > 40000 SA seq 500 ack 1001 win 8192 data 0 BAD SUM]",
        )
        .after(OUT, syn()),
        case(
            "N16 b options in the quote are skipped",
            OUT,
            icmp(
                "198.51.100.1",
                "203.0.113.10",
                (3, 4),
                [0, 0, 5, 0],
                &as_client_sees().with(|ip| ip.options = vec![1; 8]).packet(),
            ),
            "forward in
             in: router.in > server11 198.51.100.1 > 10.0.0.11 ttl 63 id 1 icmp 3/4 00000500 about [10.0.0.11 > 198.51.100.7 ttl 62 id 1 options 0101010101010101 tcp 8080 > 40000 SA seq 500 ack 1001 win 8192 data 0 BAD SUM]",
        )
        .after(OUT, syn()),
        case(
            "N16 a a quote with a bad header checksum",
            OUT,
            icmp("198.51.100.1", "203.0.113.10", (3, 3), [0; 4], &{
                let mut quote = as_client_sees().packet();
                quote[10] ^= 1;
                quote
            }),
            "drop icmp_unknown_flow",
        )
        .after(OUT, syn()),
        case(
            "N16 an error with a bad checksum",
            OUT,
            icmp("198.51.100.1", "203.0.113.10", (3, 3), [0; 4], &as_client_sees().packet()).bad_sum(),
            "drop icmp_malformed",
        )
        .after(OUT, syn()),
        case(
            "a server's ping leaves in the virtual IP's name",
            IN,
            icmp("10.0.0.11", "198.51.100.7", (8, 0), [0, 7, 0, 1], b"x"),
            "forward out
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 63 id 1 icmp 8/0 00070001 data 1",
        )
        .configured(masquerading),
        case(
            "N15 and its reply comes back to it",
            OUT,
            icmp("198.51.100.7", "203.0.113.10", (0, 0), [0, 7, 0, 1], b"x"),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 icmp 0/0 00070001 data 1",
        )
        .configured(masquerading)
        .after(IN, icmp("10.0.0.11", "198.51.100.7", (8, 0), [0, 7, 0, 1], b"x")),
        case(
            "N17 an error about a server's ping: the quoted identifier put back",
            OUT,
            icmp(
                "198.51.100.1",
                "203.0.113.10",
                (11, 0),
                [0; 4],
                &icmp("203.0.113.10", "198.51.100.7", (8, 0), [0, 7, 0, 1], b"x").ttl(1).packet(),
            ),
            "forward in
             in: router.in > server11 198.51.100.1 > 10.0.0.11 ttl 63 id 1 icmp 11/0 00000000 about [10.0.0.11 > 198.51.100.7 ttl 1 id 1 icmp 8/0 00070001 data 1]",
        )
        .configured(masquerading)
        .after(IN, icmp("10.0.0.11", "198.51.100.7", (8, 0), [0, 7, 0, 1], b"x")),
        case(
            "D3 a server's error about its own connection leaves in the virtual IP's name",
            IN,
            icmp("10.0.0.11", "198.51.100.7", (3, 3), [0; 4], &udp("198.51.100.7:9", "10.0.0.11:5000", b"").ttl(62).packet()),
            "forward out
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 63 id 1 icmp 3/3 00000000 about [198.51.100.7 > 203.0.113.10 ttl 62 id 1 udp 9 > 5000 data 0 BAD SUM]",
        )
        .configured(masquerading)
        .after(IN, udp("10.0.0.11:5000", "198.51.100.7:9", b""))
        .after(OUT, udp("198.51.100.7:9", "203.0.113.10:5000", b"")),
        case(
            "N17 an error about a server's own connection comes from who made it",
            OUT,
            icmp("198.51.100.1", "203.0.113.10", (3, 1), [0; 4], &udp("203.0.113.10:5000", "198.51.100.7:9", b"").ttl(62).packet()),
            "forward in
             in: router.in > server11 198.51.100.1 > 10.0.0.11 ttl 63 id 1 icmp 3/1 00000000 about [10.0.0.11 > 198.51.100.7 ttl 62 id 1 udp 5000 > 9 data 0 BAD SUM]",
        )
        .configured(masquerading)
        .after(IN, udp("10.0.0.11:5000", "198.51.100.7:9", b"")),
        case(
            "unserved protocol: protocol unreachable",
            OUT,
            Ip::new("198.51.100.7".parse().unwrap(), VIP, 47, vec![0; 12]),
            "drop protocol_unserved
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id - tos c0 icmp 3/2 00000000 about [198.51.100.7 > 203.0.113.10 ttl 64 id 1 protocol 47 12 bytes]",
        ),
        case(
            "R2 no error about a packet sent to everybody on the link",
            OUT,
            udp(CLIENT, "203.0.113.10:54", b"").with(|ip| ip.to = MacAddr::BROADCAST),
            "drop link_broadcast",
        ),
        case(
            "R2 no error about an error",
            OUT,
            icmp("198.51.100.7", "203.0.113.10", (3, 3), [0; 4], &query().packet()).ttl(0),
            "drop icmp_unknown_flow",
        ),
        case(
            "R2 no error about a later fragment",
            OUT,
            Ip::new("198.51.100.7".parse().unwrap(), VIP, 47, vec![0; 12])
                .with(|ip| ip.fragment = 3),
            "held",
        ),
    ]
}

/// RFC 1812 section 4.3.2.8: errors and resets are limited in number, and what is not said is counted.
#[test]
fn answers_are_limited() {
    let mut router = Router::new(config());
    let frame = udp(CLIENT, "203.0.113.10:54", b"").frame();
    let told = (0..1_000).filter(|_| !router.feed(OUT, &frame).out.is_empty()).count();
    assert_eq!(told, 200);
    assert_eq!(router.dataplane.counters().suppressed, 800);
    router.advance(Duration::from_millis(100));
    let told = (0..1_000).filter(|_| !router.feed(OUT, &frame).out.is_empty()).count();
    assert_eq!(told, 100);
}

/// The client's port is closed now: it says so about the server's answer.
fn closed() -> Vec<u8> {
    let answer = udp(DNS, CLIENT, b"here").ttl(62);
    icmp("198.51.100.7", "203.0.113.10", (3, 3), [0; 4], &answer.packet()).frame()
}

/// N7: an error about a flow neither ends nor refreshes it.
#[test]
fn n7_an_error_leaves_a_flows_timer_alone() {
    let mut router = Router::new(config());
    router.feed(OUT, &query().frame());
    router.feed(IN, &udp("10.0.0.11:53", CLIENT, b"here").frame());
    router.advance(Duration::from_secs(290));
    assert!(router.feed(OUT, &closed()).text().starts_with("forward in"));
    assert_eq!(router.flows().len(), 1, "not ended");
    router.advance(Duration::from_secs(9));
    assert_eq!(router.flows().len(), 1, "300 s are not over");
    router.advance(Duration::from_secs(3));
    assert_eq!(router.flows().len(), 0, "not refreshed at 290 s");
}

/// N15: a ping's mapping lives for 60 seconds.
#[test]
fn n15_a_ping_may_be_answered_for_a_minute() {
    for (seconds, expected) in [(59, "forward in"), (62, "drop icmp_unserved")] {
        let mut config = config();
        masquerading(&mut config);
        let mut router = Router::new(config);
        let ping = icmp("10.0.0.11", "198.51.100.7", (8, 0), [0, 7, 0, 1], b"x");
        assert!(router.feed(IN, &ping.frame()).text().starts_with("forward out"));
        router.advance(Duration::from_secs(seconds));
        let pong = icmp("198.51.100.7", "203.0.113.10", (0, 0), [0, 7, 0, 1], b"x");
        let text = router.feed(OUT, &pong.frame()).text();
        assert!(text.starts_with(expected), "after {seconds} s: {text}");
    }
}

/// N16 d: what follows the quoted packet (RFC 4884: padding and extensions) is carried along.
#[test]
fn n16_extensions_behind_the_quote_are_carried_along() {
    let mut router = Router::new(config());
    router.feed(OUT, &query().frame());
    let mut quoted = udp(DNS, CLIENT, b"here").ttl(62).packet();
    quoted.resize(128, 0);
    let extension = [0x20, 0, 0x12, 0x34, 0, 8, 1, 1, 0xca, 0xfe, 0xba, 0xbe];
    quoted.extend(extension);
    // The second of the four bytes is the length of what is quoted, in words.
    let error = icmp("198.51.100.1", "203.0.113.10", (11, 0), [0, 32, 0, 0], &quoted);
    let step = router.feed(OUT, &error.frame());
    assert!(step.text().starts_with("forward in"), "{}", step.text());
    let out = Read::frame(step.only()).unwrap();
    assert_eq!(out.transport_ok(), Some(true));
    assert_eq!(out.body[4..8], [0, 32, 0, 0]);
    assert_eq!(out.body[8 + 128..], extension);
    assert_eq!(out.body[8 + 12..8 + 16], [10, 0, 0, 11], "and the quote itself is translated");
}
