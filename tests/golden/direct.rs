//! Direct routing: the server's MAC, the TTL, and nothing else.

use super::*;
use tapvs::time::Duration;

/// [`case`] with every service routed directly.
fn routed(name: &'static str, link: LinkId, frame: impl Into<Bytes>, expect: &'static str) -> Case {
    case(name, link, frame, expect).configured(|config| *config = direct(config.clone()))
}

pub(crate) fn cases() -> Vec<Case> {
    let quote = |to: &str| tcp(WEB, to, ACK, 500, 1001, b"").packet()[..28].to_vec();
    vec![
        routed(
            "DR a SYN goes to the server as it is, but for MACs and TTL",
            OUT,
            syn(),
            "forward in
             in: router.in > server11 198.51.100.7 > 203.0.113.10 ttl 63 id 1 tcp 40000 > 80 S seq 1000 ack 0 win 8192 data 0",
        ),
        routed(
            "DR so do the next segments",
            OUT,
            tcp(CLIENT, WEB, ACK | PSH, 1001, 501, b"GET /"),
            "forward in
             in: router.in > server11 198.51.100.7 > 203.0.113.10 ttl 63 id 1 tcp 40000 > 80 PA seq 1001 ack 501 win 8192 data 5",
        )
        .after(OUT, syn()),
        routed(
            "DR a datagram",
            OUT,
            query(),
            "forward in
             in: router.in > server11 198.51.100.7 > 203.0.113.10 ttl 63 id 1 udp 40000 > 53 data 4",
        ),
        routed(
            "DR options and TOS are left alone, record route too",
            OUT,
            query().with(|ip| {
                ip.tos = 0x28;
                ip.options = vec![7, 7, 4, 0, 0, 0, 0, 0];
            }),
            "forward in
             in: router.in > server11 198.51.100.7 > 203.0.113.10 ttl 63 id 1 tos 28 options 0707040000000000 udp 40000 > 53 data 4",
        ),
        routed(
            "DR N21 a wrong checksum stays wrong",
            OUT,
            query().bad_sum(),
            "forward in
             in: router.in > server11 198.51.100.7 > 203.0.113.10 ttl 63 id 1 udp 40000 > 53 data 4 BAD SUM",
        ),
        routed(
            "DR R1 TTL 1: time exceeded, from the virtual IP",
            OUT,
            syn().ttl(1),
            "drop ttl_exceeded
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id - tos c0 icmp 11/0 00000000 about [198.51.100.7 > 203.0.113.10 ttl 1 id 1 tcp 40000 > 80 S seq 1000 ack 0 win 8192 data 0]",
        ),
        routed(
            "DR an ICMP error about an answer goes to the server that gave it, as it is",
            OUT,
            icmp("198.51.100.1", "203.0.113.10", (3, 4), [0, 0, 5, 0], &quote(CLIENT)),
            "forward in
             in: router.in > server11 198.51.100.1 > 203.0.113.10 ttl 63 id 1 icmp 3/4 00000500 about [first 28 of 203.0.113.10 > 198.51.100.7 ttl 64 id 1 protocol 6 20 bytes]",
        )
        .after(OUT, syn()),
        routed(
            "DR an ICMP error about an answer that nobody gave",
            OUT,
            icmp("198.51.100.1", "203.0.113.10", (3, 4), [0, 0, 5, 0], &quote("198.51.100.7:41000")),
            "drop icmp_unknown_flow",
        )
        .after(OUT, syn()),
        routed(
            "DR a server's answer that comes to the router after all is not passed on",
            IN,
            tcp(WEB, CLIENT, SYN | ACK, 500, 1001, b"").with(|ip| {
                ip.from = server_mac(11);
                ip.to = ROUTER_IN;
            }),
            "drop martian_source",
        )
        .after(OUT, syn()),
    ]
}

#[test]
fn fragments_follow_the_first_one() {
    let mut router = Router::new(direct(config()));
    let whole = udp(CLIENT, DNS, &[7; 2000]);
    let piece = |from: usize, to: usize, fragment: u16| {
        whole.clone().with(|ip| {
            ip.body = ip.body[from..to].to_vec();
            ip.fragment = fragment;
        })
    };
    let (first, second) = (piece(0, 1480, MF), piece(1480, 2008, 185));
    let late = router.feed(OUT, &second.frame());
    assert_eq!(late.text(), "held");
    let step = router.feed(OUT, &first.frame());
    assert_eq!(step.out.len(), 2, "{}", step.text());
    for ((link, frame), sent) in step.out.iter().zip([first, second]) {
        assert_eq!((*link, &frame[..6]), (IN, &server_mac(11).0[..]));
        let (is, was) = (Read::frame(frame).unwrap(), Read::frame(&sent.frame()).unwrap());
        assert_eq!(
            (is.source, is.destination, is.fragment()),
            (was.source, was.destination, was.fragment())
        );
        assert_eq!((is.ttl, &is.body), (63, &was.body));
        assert!(is.header_ok());
    }
}

#[test]
fn too_large_for_the_servers_link() {
    let mut router = Router::new(direct(config()));
    router.change(|config| config.networks[1].mtu = 1280);
    let large = |fragment| udp(CLIENT, DNS, &[7; 1400]).with(|ip| ip.fragment = fragment);
    let step = router.feed(OUT, &large(DF).frame());
    let text = step.text();
    assert!(
        text.starts_with("drop too_big\nout: router.out > gateway 203.0.113.10 > 198.51.100.7"),
        "{text}"
    );
    let error = Read::frame(step.only()).unwrap();
    assert_eq!((&error.body[..2], &error.body[6..8]), (&[3, 4][..], &1280_u16.to_be_bytes()[..]));
    let step = router.feed(OUT, &large(0).frame());
    assert_eq!((step.verdict, step.out.len()), (tapvs::dataplane::Verdict::Split, 2));
}

#[test]
fn a_flow_is_assured_by_three_packets_of_its_client() {
    let mut router = Router::new(direct(config()));
    for (sent, assured) in [
        (syn(), false),
        (tcp(CLIENT, WEB, ACK, 1001, 501, b""), false),
        (tcp(CLIENT, WEB, ACK, 1001, 501, b"x"), true),
    ] {
        router.feed(OUT, &sent.frame());
        assert_eq!(router.flows()[0].assured, assured);
    }
    for (n, assured) in [(1, false), (2, false), (3, true)] {
        router.feed(OUT, &query().frame());
        let flow = router.flows().into_iter().find(|flow| flow.original.protocol == 17).unwrap();
        assert_eq!(flow.assured, assured, "{n} datagrams");
    }
}

/// A port that a client uses again after a clean close, of which the router sees only one half.
#[test]
fn a_syn_after_a_close_is_scheduled_anew() {
    let mut router = Router::new(direct(config()));
    let server = |router: &mut Router, frame: Ip| router.feed(OUT, &frame.frame()).only()[5];
    assert_eq!(server(&mut router, syn()), 11);
    assert_eq!(server(&mut router, tcp(CLIENT, WEB, ACK, 1001, 501, b"")), 11);
    assert_eq!(server(&mut router, tcp(CLIENT, WEB, FIN | ACK, 1001, 501, b"")), 11);
    assert_eq!(router.state(40000).unwrap().name(), "FIN_WAIT");
    assert_eq!(server(&mut router, tcp(CLIENT, WEB, ACK, 1002, 502, b"")), 11);
    assert_eq!(server(&mut router, syn()), 12, "the next server's turn");
    assert_eq!(router.flows().len(), 1);
}

/// Half as many index entries are in use, and all of them go with the flow.
#[test]
fn flows_leave_nothing_behind() {
    let mut router = Router::new(direct(config()));
    for port in 1_001..=1_500 {
        router.feed(OUT, &tcp(&format!("198.51.100.7:{port}"), WEB, SYN, 1, 0, b"").frame());
    }
    assert_eq!(router.flows().len(), 500);
    router.advance(Duration::from_secs(61));
    assert_eq!(router.flows().len(), 0);
    let report = router.report();
    assert_eq!((report.services[0].load.active, report.services[0].traffic.flows), (0, 500));
}

/// A flow keeps the method it was opened with.
#[test]
fn a_change_of_method_is_for_new_flows() {
    let mut router = Router::new(direct(config()));
    router.feed(OUT, &syn().frame());
    router.change(|config| config.services[0].method = tapvs::config::Method::Nat);
    let old = router.feed(OUT, &tcp(CLIENT, WEB, ACK, 1001, 501, b"").frame());
    assert_eq!(Read::frame(old.only()).unwrap().destination, VIP);
    let new = router.feed(OUT, &tcp("198.51.100.7:41000", WEB, SYN, 1, 0, b"").frame());
    assert_eq!(Read::frame(new.only()).unwrap().destination.octets()[..3], [10, 0, 0]);
}

/// A server that does not answer ARP: the client is told by the virtual IP, and nothing stays.
#[test]
fn a_silent_server_is_told_about() {
    let mut router = Router::cold(direct(config()), 100);
    router.owner = |link, address| owner(link, address).filter(|_| link == OUT);
    router.advance(Duration::from_millis(100));
    assert_eq!(router.feed(OUT, &syn().frame()).text(), "held");
    let out = router.advance(Duration::from_secs(5));
    let told: Vec<_> =
        out.iter().map(|(_, frame)| line(frame)).filter(|text| text.contains("icmp")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("203.0.113.10 > 198.51.100.7"), "{told:?}");
    assert_eq!(router.flows().len(), 0);
}
