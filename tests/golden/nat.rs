//! NAT both ways: addresses, ports, TTL, checksums; what a service that cannot be had answers.

use super::*;

pub(crate) fn cases() -> Vec<Case> {
    let data = |from, to| tcp(from, to, PSH | ACK, 1001, 501, b"hello");
    vec![
        case(
            "NAT a SYN goes to the first server",
            OUT,
            syn(),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 tcp 40000 > 8080 S seq 1000 ack 0 win 8192 data 0",
        ),
        case(
            "NAT the server's answer comes from the virtual IP",
            IN,
            tcp(SERVER11, CLIENT, SYN | ACK, 500, 1001, b""),
            "forward out
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 63 id 1 tcp 80 > 40000 SA seq 500 ack 1001 win 8192 data 0",
        )
        .after(OUT, syn()),
        case(
            "NAT data from the client",
            OUT,
            data(CLIENT, WEB),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 tcp 40000 > 8080 PA seq 1001 ack 501 win 8192 data 5",
        )
        .after(OUT, syn()),
        case(
            "NAT a SYN that carries data (N10)",
            OUT,
            tcp(CLIENT, WEB, SYN, 1000, 0, b"early"),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 tcp 40000 > 8080 S seq 1000 ack 0 win 8192 data 5",
        ),
        case(
            "NAT a SYN+ACK from a client is scheduled, as IPVS does",
            OUT,
            tcp(CLIENT, WEB, SYN | ACK, 9, 9, b""),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 tcp 40000 > 8080 SA seq 9 ack 9 win 8192 data 0",
        ),
        case(
            "NAT Ethernet padding is not passed on",
            OUT,
            [syn().frame(), vec![0xee; 6]].concat(),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 tcp 40000 > 8080 S seq 1000 ack 0 win 8192 data 0",
        ),
        case(
            "NAT UDP to the server",
            OUT,
            query(),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 udp 40000 > 53 data 4",
        ),
        case(
            "NAT UDP from the server",
            IN,
            udp("10.0.0.11:53", CLIENT, b"me"),
            "forward out
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 63 id 1 udp 53 > 40000 data 2",
        )
        .after(OUT, query()),
        case(
            "N20 a UDP checksum of 0 stays 0, to the server",
            OUT,
            query().with(|ip| ip.body[6..8].fill(0)),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 udp 40000 > 53 data 4 no sum",
        ),
        case(
            "N20 a UDP checksum of 0 stays 0, to the client",
            IN,
            udp("10.0.0.11:53", CLIENT, b"me").with(|ip| ip.body[6..8].fill(0)),
            "forward out
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 63 id 1 udp 53 > 40000 data 2 no sum",
        )
        .after(OUT, query()),
        case(
            "N21 a bad TCP checksum stays bad",
            OUT,
            syn().bad_sum(),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 tcp 40000 > 8080 S seq 1000 ack 0 win 8192 data 0 BAD SUM",
        ),
        case(
            "N21 a bad UDP checksum stays bad",
            IN,
            udp("10.0.0.11:53", CLIENT, b"me").bad_sum(),
            "forward out
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 63 id 1 udp 53 > 40000 data 2 BAD SUM",
        )
        .after(OUT, query()),
        case(
            "NAT options that are no source route pass (timestamp)",
            OUT,
            syn().with(|ip| ip.options = vec![68, 8, 5, 0, 0, 0, 0, 0]),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 options 4408050000000000 tcp 40000 > 8080 S seq 1000 ack 0 win 8192 data 0",
        ),
        case(
            "NAT a record route option is filled in with the address the client sees",
            OUT,
            query().with(|ip| ip.options = vec![7, 7, 4, 0, 0, 0, 0, 1]),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 options 070708cb00710a01 udp 40000 > 53 data 4",
        ),
        case(
            "NAT TOS, identification and don't-fragment are kept",
            OUT,
            syn().with(|ip| {
                ip.tos = 0xb9;
                ip.id = 0xbeef;
                ip.fragment = DF;
            }),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 48879 tos b9 df tcp 40000 > 8080 S seq 1000 ack 0 win 8192 data 0",
        ),
        case(
            "NAT a client on the link is answered on the link",
            IN,
            udp("10.0.0.11:53", "203.0.113.50:7", b"me"),
            "held
             out: router.out > near 203.0.113.10 > 203.0.113.50 ttl 63 id 1 udp 53 > 7 data 2",
        )
        .after(OUT, udp("203.0.113.50:7", DNS, b"who?")),
        case(
            "R1 TTL 2 leaves as 1",
            OUT,
            syn().ttl(2),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 1 id 1 tcp 40000 > 8080 S seq 1000 ack 0 win 8192 data 0",
        ),
        case(
            "unserved = reset: SYN",
            OUT,
            tcp(CLIENT, "203.0.113.10:81", SYN, 1000, 0, b""),
            "drop unserved
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 0 df tcp 81 > 40000 RA seq 0 ack 1001 win 0 data 0",
        ),
        case(
            "unserved = reset: SYN with data, FIN counted",
            OUT,
            tcp(CLIENT, "203.0.113.10:81", SYN | FIN, 1000, 0, b"hello"),
            "drop unserved
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 0 df tcp 81 > 40000 RA seq 0 ack 1007 win 0 data 0",
        ),
        case(
            "unserved = reset: a segment with ACK is answered with its own number",
            OUT,
            tcp(CLIENT, "203.0.113.10:81", ACK, 1000, 777, b"hello"),
            "drop unserved
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 0 df tcp 81 > 40000 R seq 777 ack 0 win 0 data 0",
        ),
        case(
            "unserved = reset: a reset is not answered",
            OUT,
            tcp(CLIENT, "203.0.113.10:81", RST, 1000, 0, b""),
            "drop unserved",
        ),
        case(
            "unserved = reset: UDP gets port unreachable",
            OUT,
            udp(CLIENT, "203.0.113.10:54", b"who?"),
            "drop unserved
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id - tos c0 icmp 3/3 00000000 about [198.51.100.7 > 203.0.113.10 ttl 64 id 1 udp 40000 > 54 data 4]",
        ),
        case(
            "unserved = icmp: SYN",
            OUT,
            tcp(CLIENT, "203.0.113.10:81", SYN, 1000, 0, b""),
            "drop unserved
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id - tos c0 icmp 3/3 00000000 about [198.51.100.7 > 203.0.113.10 ttl 64 id 1 tcp 40000 > 81 S seq 1000 ack 0 win 8192 data 0]",
        )
        .configured(|config| config.router.unserved = Unserved::Icmp),
        case(
            "unserved = icmp: a reset is not answered",
            OUT,
            tcp(CLIENT, "203.0.113.10:81", RST, 1000, 0, b""),
            "drop unserved",
        )
        .configured(|config| config.router.unserved = Unserved::Icmp),
        case(
            "unserved = drop: SYN",
            OUT,
            tcp(CLIENT, "203.0.113.10:81", SYN, 1000, 0, b""),
            "drop unserved",
        )
        .configured(|config| config.router.unserved = Unserved::Drop),
        case(
            "unserved = drop: UDP",
            OUT,
            udp(CLIENT, "203.0.113.10:54", b"who?"),
            "drop unserved",
        )
        .configured(|config| config.router.unserved = Unserved::Drop),
        case(
            "N21 a segment with a bad checksum is not answered",
            OUT,
            tcp(CLIENT, "203.0.113.10:81", SYN, 1000, 0, b"").bad_sum(),
            "drop unserved",
        ),
        case(
            "N21 a datagram with a bad checksum is not answered",
            OUT,
            udp(CLIENT, "203.0.113.10:54", b"who?").bad_sum(),
            "drop unserved",
        ),
        case(
            "a segment without a flow is reset",
            OUT,
            tcp(CLIENT, WEB, ACK, 1000, 777, b""),
            "drop no_flow
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 0 df tcp 80 > 40000 R seq 777 ack 0 win 0 data 0",
        ),
        case(
            "a SYN with RST opens nothing",
            OUT,
            tcp(CLIENT, WEB, SYN | RST, 1000, 0, b""),
            "drop no_flow",
        ),
        case(
            "a client port of 20 is never scheduled (active FTP)",
            OUT,
            tcp("198.51.100.7:20", WEB, SYN, 1000, 0, b""),
            "drop unserved
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 0 df tcp 80 > 20 RA seq 0 ack 1001 win 0 data 0",
        ),
        case(
            "N11 a service without a server: port unreachable",
            OUT,
            syn(),
            "drop no_server
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id - tos c0 icmp 3/3 00000000 about [198.51.100.7 > 203.0.113.10 ttl 64 id 1 tcp 40000 > 80 S seq 1000 ack 0 win 8192 data 0]",
        )
        .configured(|config| config.services[0].servers.clear()),
        case(
            "N11 only servers of weight 0: port unreachable",
            OUT,
            query(),
            "drop no_server
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id - tos c0 icmp 3/3 00000000 about [198.51.100.7 > 203.0.113.10 ttl 64 id 1 udp 40000 > 53 data 4]",
        )
        .configured(|config| {
            for server in &mut config.services[1].servers {
                server.weight = 0;
            }
        }),
        case(
            "N11 a client port without a service, among the servers' own gateway address",
            IN,
            tcp(SERVER11, "10.0.0.1:22", SYN, 5, 0, b""),
            "drop unserved
             in: router.in > server11 10.0.0.1 > 10.0.0.11 ttl 64 id 0 df tcp 22 > 8080 RA seq 0 ack 6 win 0 data 0",
        ),
        case(
            "O12 a connection past the service, from a port that a flow has already, gets another",
            OUT,
            tcp(CLIENT, SERVER11, SYN, 1000, 0, b""),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 tcp 35280 > 8080 S seq 1000 ack 0 win 8192 data 0",
        )
        .configured(forward_all)
        .after(OUT, syn()),
        case(
            "O12 and a flow gets another than a connection past the service has",
            OUT,
            syn(),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 tcp 35280 > 8080 S seq 1000 ack 0 win 8192 data 0",
        )
        .configured(forward_all)
        .after(OUT, tcp(CLIENT, SERVER11, SYN, 1000, 0, b"")),
        case(
            "O12 the connection past the service is answered as itself",
            IN,
            tcp(SERVER11, CLIENT, SYN | ACK, 500, 1001, b""),
            "forward out
             out: router.out > gateway 10.0.0.11 > 198.51.100.7 ttl 63 id 1 tcp 8080 > 40000 SA seq 500 ack 1001 win 8192 data 0",
        )
        .configured(forward_all)
        .after(OUT, tcp(CLIENT, SERVER11, SYN, 1000, 0, b""))
        .after(OUT, syn()),
    ]
}

fn forward_all(config: &mut Config) {
    config.router.forward = Forward::All;
}

/// N20: for every checksum that a client can send, what leaves is what a sum from scratch gives;
/// a UDP checksum that comes out as 0 is sent as 0xffff.
#[test]
fn n20_every_checksum_equals_one_from_scratch() {
    let mut router = Router::new(config());
    let mut all_ones = 0;
    for word in 0..=u16::MAX {
        // The word of payload makes the checksum take every value.
        let out = router.feed(OUT, &udp(CLIENT, DNS, &word.to_be_bytes()).frame());
        let read = Read::frame(out.only()).unwrap();
        assert_eq!(read.transport_ok(), Some(true), "{}", out.text());
        assert!(read.header_ok());
        all_ones += u32::from(read.body[6..8] == [0xff, 0xff]);
        assert_ne!(read.body[6..8], [0, 0]);
        let back = router.feed(IN, &udp("10.0.0.11:53", CLIENT, &word.to_be_bytes()).frame());
        let read = Read::frame(back.only()).unwrap();
        assert_eq!(read.transport_ok(), Some(true), "{}", back.text());
    }
    assert!(all_ones >= 1, "the corner value never came up");
    for word in (0..=u16::MAX).step_by(7) {
        let out = router.feed(OUT, &tcp(CLIENT, WEB, SYN, 1, 0, &word.to_be_bytes()).frame());
        assert_eq!(Read::frame(out.only()).unwrap().transport_ok(), Some(true), "{}", out.text());
    }
}

/// N20: every IP header checksum too, over all identifications.
#[test]
fn n20_every_header_checksum() {
    let mut router = Router::new(config());
    for id in 0..=u16::MAX {
        let ttl = 2 + id.to_be_bytes()[1] % 250;
        let out = router.feed(OUT, &query().ttl(ttl).with(|ip| ip.id = id).frame());
        let read = Read::frame(out.only()).unwrap();
        assert!(read.header_ok() && read.ttl == ttl - 1, "{}", out.text());
    }
}
