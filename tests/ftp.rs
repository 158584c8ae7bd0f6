//! `helper = "ftp"`, packet by packet: what a control connection says, what becomes of its text, and which
//! data connections come in.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use proptest::prelude::*;
use support::gso::Train;
use support::*;
use tapvs::addr::Proto;
use tapvs::config::{Config, Helper};
use tapvs::dataplane::{DropReason, Verdict};

const CLIENT: &str = "198.51.100.7:40000";
const FTP: &str = "203.0.113.10:21";
const SERVER: &str = "10.0.0.11:21";
/// The client asks for this many passive connections first.
const ASKED: usize = 40;
/// Where the client's text goes on behind that, and the first sequence number of the server's.
const FROM_CLIENT: u32 = 1_000;
const FROM_SERVER: u32 = 5_000;

fn config() -> Config {
    let mut config = support::config();
    let mut ftp = service(Proto::Tcp, 21, (11..=13).map(|n| server(n, 21, 1)).collect());
    ftp.lifecycle.helper = Some(Helper::Ftp);
    config.services.push(ftp);
    config
}

/// A router with an open control connection of `CLIENT` to the first server.
fn opened() -> Router {
    let mut router = Router::new(config());
    open(&mut router);
    router
}

/// Opens a control connection, and asks.
fn open(router: &mut Router) {
    let asks = b"PASV\r\n".repeat(ASKED);
    let first = FROM_CLIENT - u32::try_from(asks.len()).unwrap();
    greet(router, first);
    router.feed(OUT, &tcp(CLIENT, FTP, PSH | ACK, first, FROM_SERVER, &asks).frame()).only();
}

/// The handshake of a client whose text begins at `first`.
fn greet(router: &mut Router, first: u32) {
    router.feed(OUT, &tcp(CLIENT, FTP, SYN, first - 1, 0, b"").frame()).only();
    let answer = tcp(SERVER, CLIENT, SYN | ACK, FROM_SERVER - 1, first, b"");
    router.feed(IN, &answer.frame()).only();
    router.feed(OUT, &tcp(CLIENT, FTP, ACK, first, FROM_SERVER, b"").frame()).only();
}

/// A segment of the server's text, as the client gets it: its sequence number and bytes.
fn says(router: &mut Router, sequence: u32, text: &[u8]) -> (u32, Vec<u8>) {
    let segment = tcp(SERVER, CLIENT, PSH | ACK, sequence, FROM_CLIENT, text);
    let step = router.feed(IN, &segment.frame());
    read(step.only())
}

/// Sequence number and payload, of a frame whose checksums are right.
fn read(frame: &[u8]) -> (u32, Vec<u8>) {
    assert!(!line(frame).contains("BAD SUM"), "{}", line(frame));
    let at = 34;
    let sequence = u32::from_be_bytes(frame[at + 4..at + 8].try_into().unwrap());
    let header = usize::from(frame[at + 12] >> 4) * 4;
    (sequence, frame[at + header..].to_vec())
}

fn acknowledged(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[42..46].try_into().unwrap())
}

#[test]
fn a_passive_answer_names_the_virtual_ip() {
    let mut router = opened();
    let text = b"227 Entering Passive Mode (10,0,0,11,195,80).\r\n";
    let (sequence, seen) = says(&mut router, FROM_SERVER, text);
    assert_eq!(sequence, FROM_SERVER);
    assert_eq!(seen, b"227 Entering Passive Mode (203,0,113,10,195,80).\r\n");
    let grown = u32::try_from(seen.len() - text.len()).unwrap();
    assert_eq!(grown, 3);
    // The client acknowledges what it got, the server hears of what it sent.
    let end = FROM_SERVER + u32::try_from(text.len()).unwrap();
    let step = router.feed(OUT, &tcp(CLIENT, FTP, ACK, FROM_CLIENT, end + grown, b"").frame());
    assert_eq!(acknowledged(step.only()), end);
    // What follows is shifted; what is sent again reads as before.
    assert_eq!(says(&mut router, end, b"150 Here it comes.\r\n").0, end + grown);
    assert_eq!(says(&mut router, FROM_SERVER, text), (FROM_SERVER, seen));
    assert_eq!(router.dataplane.ftp_counters().rewritten, 1);
    assert_eq!(router.dataplane.ftp_counters().offers, 1);
}

#[test]
fn sack_blocks_are_shifted_back() {
    let mut router = opened();
    let text = b"227 Entering Passive Mode (10,0,0,11,195,80).\r\n";
    says(&mut router, FROM_SERVER, text);
    let end = FROM_SERVER + u32::try_from(text.len()).unwrap();
    let mut segment = tcp(CLIENT, FTP, ACK, FROM_CLIENT, end + 3, b"");
    let mut options = vec![1, 1, 5, 10];
    options.extend((end + 103).to_be_bytes());
    options.extend((end + 203).to_be_bytes());
    // Header length and checksum with the options in it.
    segment = segment.with(|ip| {
        ip.body.extend(&options);
        ip.body[12] = 8 << 4;
        ip.body[16..18].fill(0);
        let length = u16::try_from(ip.body.len()).unwrap().to_be_bytes();
        let pseudo = [&ip.source.octets()[..], &ip.destination.octets(), &[0, 6], &length].concat();
        let sum = (!sum(&[&pseudo, &ip.body])).to_be_bytes();
        ip.body[16..18].copy_from_slice(&sum);
    });
    let step = router.feed(OUT, &segment.frame());
    let frame = step.only();
    assert!(!line(frame).contains("BAD SUM"));
    assert_eq!(frame[58..62], (end + 100).to_be_bytes());
    assert_eq!(frame[62..66], (end + 200).to_be_bytes());
}

#[test]
fn a_passive_connection_goes_to_the_same_server_and_nobody_elses_does() {
    let mut router = opened();
    // Another client first: nothing has been said.
    let data = "203.0.113.10:50000";
    let early = router.feed(OUT, &tcp("198.51.100.7:40001", data, SYN, 1, 0, b"").frame());
    assert!(matches!(early.verdict, Verdict::Drop(_)), "{}", early.text());
    says(&mut router, FROM_SERVER, b"227 Entering Passive Mode (10,0,0,11,195,80).\r\n");
    let stranger = router.feed(OUT, &tcp("198.51.100.8:40001", data, SYN, 1, 0, b"").frame());
    assert!(matches!(stranger.verdict, Verdict::Drop(_)), "{}", stranger.text());
    let step = router.feed(OUT, &tcp("198.51.100.7:40001", data, SYN, 1, 0, b"").frame());
    assert!(
        line(step.only()).contains("> 10.0.0.11 ttl 63 id 1 tcp 40001 > 50000 S"),
        "{}",
        step.text()
    );
    let answer = tcp("10.0.0.11:50000", "198.51.100.7:40001", SYN | ACK, 9, 2, b"");
    let step = router.feed(IN, &answer.frame());
    assert!(
        line(step.only()).contains("203.0.113.10 > 198.51.100.7 ttl 63 id 1 tcp 50000 > 40001 SA")
    );
    // Once: the next one has to be announced.
    let again = router.feed(OUT, &tcp("198.51.100.7:40002", data, SYN, 1, 0, b"").frame());
    assert!(matches!(again.verdict, Verdict::Drop(_)), "{}", again.text());
    assert_eq!(router.dataplane.ftp_counters().connections, 1);
    // Both are the server's.
    let report = router.report();
    let ftp = &report.services[2];
    assert_eq!(ftp.servers[0].load.active + ftp.servers[0].load.inactive, 2);
}

#[test]
fn an_extended_passive_answer_needs_no_change() {
    let mut router = opened();
    let text = b"229 Entering Extended Passive Mode (|||50001|)\r\n";
    assert_eq!(says(&mut router, FROM_SERVER, text), (FROM_SERVER, text.to_vec()));
    let syn = tcp("198.51.100.7:40001", "203.0.113.10:50001", SYN, 1, 0, b"");
    assert!(line(router.feed(OUT, &syn.frame()).only()).contains("> 10.0.0.11 "));
    assert_eq!(router.dataplane.ftp_counters().rewritten, 0);
}

/// The port is a service's on the virtual IP: another one stands for it.
#[test]
fn a_port_that_belongs_to_a_service_is_changed() {
    let mut config = config();
    config.services.push(service(Proto::Tcp, 50_001, vec![server(12, 50_001, 1)]));
    let mut router = Router::new(config);
    open(&mut router);
    let (_, seen) = says(&mut router, FROM_SERVER, b"229 x (|||50001|)\r\n");
    let seen = String::from_utf8(seen).unwrap();
    let port: u16 = seen.split("|||").nth(1).unwrap().split('|').next().unwrap().parse().unwrap();
    assert!(port >= 1024 && port != 50_001, "{seen}");
    let syn = tcp("198.51.100.7:40001", &format!("203.0.113.10:{port}"), SYN, 1, 0, b"");
    let step = router.feed(OUT, &syn.frame());
    assert!(
        line(step.only()).contains("> 10.0.0.11 ttl 63 id 1 tcp 40001 > 50001 S"),
        "{}",
        step.text()
    );
}

#[test]
fn an_active_connection_comes_from_the_virtual_ip() {
    for text in [&b"PORT 198,51,100,7,200,0\r\n"[..], b"EPRT |1|198.51.100.7|51200|\r\n"] {
        let mut router = opened();
        let asked = tcp(CLIENT, FTP, PSH | ACK, FROM_CLIENT, FROM_SERVER, text);
        assert_eq!(read(router.feed(OUT, &asked.frame()).only()).1, text);
        // Another server may not.
        let other = tcp("10.0.0.12:20", "198.51.100.7:51200", SYN, 1, 0, b"");
        assert!(matches!(router.feed(IN, &other.frame()).verdict, Verdict::Drop(_)));
        let syn = tcp("10.0.0.11:20", "198.51.100.7:51200", SYN, 1, 0, b"");
        let step = router.feed(IN, &syn.frame());
        assert!(
            line(step.only()).contains("203.0.113.10 > 198.51.100.7 ttl 63 id 1 tcp 20 > 51200 S"),
            "{}",
            step.text()
        );
        let answer = tcp("198.51.100.7:51200", "203.0.113.10:20", SYN | ACK, 7, 2, b"");
        let step = router.feed(OUT, &answer.frame());
        assert!(
            line(step.only()).contains("198.51.100.7 > 10.0.0.11 ttl 63 id 1 tcp 51200 > 20 SA")
        );
        let report = router.report();
        assert_eq!(report.services[2].servers[0].load.active, 2, "control and data");
    }
}

/// A client takes a port again that another session of its had: both servers call it from port 20. The
/// second call comes from another port of the virtual IP, and from the same where the first is over.
#[test]
fn two_servers_call_one_port_of_a_client() {
    for is_over in [false, true] {
        let mut router = opened();
        let ours = "198.51.100.7:51200";
        let port = |number, from: &str, vip: &str| {
            let text = b"PORT 198,51,100,7,200,0\r\n";
            tcp(from, vip, PSH | ACK, number, FROM_SERVER, text).frame()
        };
        router.feed(OUT, &port(FROM_CLIENT, CLIENT, FTP)).only();
        let (first, second) = ("10.0.0.11:20", "10.0.0.12:20");
        let vip = "203.0.113.10:20";
        router.feed(IN, &tcp(first, ours, SYN, 1, 0, b"").frame()).only();
        router.feed(OUT, &tcp(ours, vip, SYN | ACK, 7, 2, b"").frame()).only();
        if is_over {
            router.feed(IN, &tcp(first, ours, FIN | ACK, 2, 8, b"").frame()).only();
            router.feed(OUT, &tcp(ours, vip, FIN | ACK, 8, 3, b"").frame()).only();
            router.feed(IN, &tcp(first, ours, ACK, 3, 9, b"").frame()).only();
        }
        let other = "198.51.100.7:40001";
        let session = tcp(other, FTP, SYN, 1, 0, b"").frame();
        let step = router.feed(OUT, &session);
        assert!(line(step.only()).contains("> 10.0.0.12 "), "{}", step.text());
        let answer = tcp("10.0.0.12:21", other, SYN | ACK, FROM_SERVER - 1, 2, b"");
        router.feed(IN, &answer.frame()).only();
        router.feed(OUT, &port(2, other, FTP)).only();
        let step = router.feed(IN, &tcp(second, ours, SYN, 1, 0, b"").frame());
        let syn = step.only();
        let from = u16::from_be_bytes([syn[34], syn[35]]);
        assert!(line(syn).contains("203.0.113.10 > 198.51.100.7 "), "{}", step.text());
        assert_eq!(from == 20, is_over, "{}", step.text());
        assert!(from == 20 || from >= 1024, "{from}");
        let answer = tcp(ours, &format!("203.0.113.10:{from}"), SYN | ACK, 7, 2, b"");
        let step = router.feed(OUT, &answer.frame());
        assert!(line(step.only()).contains("> 10.0.0.12 ttl 63 id 1 tcp 51200 > 20 SA"));
        let counters = router.dataplane.ftp_counters();
        assert_eq!((counters.connections, counters.refused), (2, 0));
        assert_eq!(router.flows().len(), if is_over { 3 } else { 4 });
    }
}

/// Text that lies passes as it is, opens nothing and is counted.
#[test]
fn lies_pass_unchanged_and_open_nothing() {
    for (text, unreadable) in [
        (&b"227 x (10,0,0,12,195,80)\r\n"[..], 0),
        (b"227 x (198,51,100,7,195,80)\r\n", 0),
        (b"227 x (10,0,0,11,0,80)\r\n", 0),
        (b"229 x (|||80|)\r\n", 0),
        (b"227 x (10,0,0,11,195,8", 1),
        (b"227 x (10,0,0,11,195,80)\n226 y\r\n", 1),
        (b"227 x (10,0,0,11,195,80)\r226 y\r\n", 1),
        (b"227 x (10,0,0,11,195,999)\r\n", 1),
        (b"227 x (10,0,0,11,195,80,1)\r\n", 1),
        (b"229 x (|||99999|)\r\n", 1),
        (b"229 x (|2|::1|50000|)\r\n", 1),
    ] {
        let mut router = opened();
        assert_eq!(says(&mut router, FROM_SERVER, text), (FROM_SERVER, text.to_vec()));
        let counters = router.dataplane.ftp_counters();
        assert_eq!(
            (counters.offers, counters.unreadable, counters.refused),
            (0, unreadable, 1 - unreadable)
        );
        let syn = tcp("198.51.100.7:40001", "203.0.113.10:50000", SYN, 1, 0, b"");
        assert!(matches!(router.feed(OUT, &syn.frame()).verdict, Verdict::Drop(_)));
    }
    for text in [
        // Somebody else's; a port where services live; none at all; numbers that are none.
        &b"PORT 10,0,0,12,200,0\r\n"[..],
        b"PORT 203,0,113,10,200,0\r\n",
        b"PORT 198,51,100,7,0,22\r\n",
        b"PORT 198,51,100,7,3,255\r\n",
        b"PORT 198,51,100,7\r\n",
        b"PORT 198,51,100,7,256,1\r\n",
        b"PORT 198,51,100,7,-4,1\r\n",
        b"PORT 198,51,100,7,200,0\n",
        b"PORT 198,51,100,7,200,0\rNOOP\r\n",
        b"PORT 198,51,100,7,200,0\0\r\n",
        b"PORT 198,51,100,7,200,",
        b"EPRT |2|2001:db8::7|51200|\r\n",
        b"EPRT |1|198.51.100.8|51200|\r\n",
        b"EPRT |1|198.51.100.7|512000|\r\n",
        b"EPRT ,1|198.51.100.7|51200,\r\n",
        b"EPRT |1|198.51.100.7|51200|\xff\r\n",
    ] {
        let mut router = opened();
        let asked = tcp(CLIENT, FTP, PSH | ACK, FROM_CLIENT, FROM_SERVER, text);
        assert_eq!(read(router.feed(OUT, &asked.frame()).only()).1, text);
        let counters = router.dataplane.ftp_counters();
        assert_eq!((counters.offers, counters.unreadable + counters.refused), (0, 1));
    }
    // A broken checksum stays broken, and its text is not believed.
    let mut router = opened();
    let broken =
        tcp(SERVER, CLIENT, PSH | ACK, FROM_SERVER, FROM_CLIENT, b"227 x (10,0,0,11,195,80)\r\n");
    let step = router.feed(IN, &broken.bad_sum().frame());
    assert!(line(step.only()).contains("BAD SUM"));
    assert_eq!(router.dataplane.ftp_counters().offers, 0);
}

#[test]
fn without_the_helper_nothing_is_read() {
    let mut config = config();
    config.services[2].lifecycle.helper = None;
    let mut router = Router::new(config);
    router.feed(OUT, &tcp(CLIENT, FTP, SYN, FROM_CLIENT - 1, 0, b"").frame());
    let text = b"227 Entering Passive Mode (10,0,0,11,195,80).\r\n";
    assert_eq!(says(&mut router, FROM_SERVER, text), (FROM_SERVER, text.to_vec()));
    assert_eq!(router.dataplane.ftp_counters(), Default::default());
}

#[test]
fn what_nobody_takes_up_is_forgotten() {
    let mut router = opened();
    let mut sequence = FROM_SERVER;
    for port in 0..20_u16 {
        let text = format!("229 x (|||{}|)\r\n", 50_000 + port);
        says(&mut router, sequence, text.as_bytes());
        sequence += u32::try_from(text.len()).unwrap();
    }
    let counters = router.dataplane.ftp_counters();
    assert_eq!((counters.offers, counters.full), (8, 12));
    router.advance(tapvs::time::Duration::from_secs(61));
    let syn = tcp("198.51.100.7:40001", "203.0.113.10:50000", SYN, 1, 0, b"");
    assert!(matches!(router.feed(OUT, &syn.frame()).verdict, Verdict::Drop(_)));
    says(&mut router, sequence, b"229 x (|||60000|)\r\n");
    assert_eq!(router.dataplane.ftp_counters().offers, 9);
}

/// An idle control connection lives as long as its data connection is busy.
#[test]
fn data_keeps_its_control_connection() {
    let mut router = opened();
    says(&mut router, FROM_SERVER, b"229 x (|||50000|)\r\n");
    let (client, vip, server) = ("198.51.100.7:40001", "203.0.113.10:50000", "10.0.0.11:50000");
    router.feed(OUT, &tcp(client, vip, SYN, 1, 0, b"").frame());
    router.feed(IN, &tcp(server, client, SYN | ACK, 1, 2, b"").frame());
    router.feed(OUT, &tcp(client, vip, ACK, 2, 2, b"").frame());
    for _ in 0..5 {
        router.advance(tapvs::time::Duration::from_secs(500));
        router.feed(OUT, &tcp(client, vip, ACK, 2, 2, b"").frame()).only();
    }
    let (_, text) = says(&mut router, FROM_SERVER + 19, b"226 Done.\r\n");
    assert_eq!(text, b"226 Done.\r\n");
    assert_eq!(router.flows().len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A server's text in segments that come again and out of order: the client puts together the same
    /// bytes whatever way they took, and every acknowledgement means the byte it was meant for.
    #[test]
    fn a_text_that_is_sent_again_stays_one_text(
        ports in prop::collection::vec(1024_u16..=65_535, 1..8),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let mut router = opened();
        let mut lines: Vec<(u32, Vec<u8>)> = Vec::new();
        let mut sequence = FROM_SERVER;
        for port in ports {
            let text = format!("227 Entering Passive Mode (10,0,0,11,{},{}).\r\n", port >> 8, port & 0xff);
            for text in [text.into_bytes(), b"150 ok\r\n".to_vec()] {
                let len = u32::try_from(text.len()).unwrap();
                lines.push((sequence, text));
                sequence += len;
            }
        }
        // First each once, as a server sends them; then any of them again.
        let mut received: std::collections::BTreeMap<u32, Vec<u8>> = Default::default();
        let mut ends = Vec::new();
        for (sequence, text) in &lines {
            let (at, seen) = says(&mut router, *sequence, text);
            ends.push((at + u32::try_from(seen.len()).unwrap(), sequence + u32::try_from(text.len()).unwrap()));
            received.insert(at, seen);
        }
        for index in order {
            let (sequence, text) = &lines[index.index(lines.len())];
            let (at, seen) = says(&mut router, *sequence, text);
            prop_assert_eq!(received.get(&at), Some(&seen));
        }
        let mut next = FROM_SERVER;
        for (at, bytes) in &received {
            prop_assert_eq!(*at, next);
            next += u32::try_from(bytes.len()).unwrap();
        }
        for (seen, sent) in ends {
            let step = router.feed(OUT, &tcp(CLIENT, FTP, ACK, FROM_CLIENT, seen, b"").frame());
            prop_assert_eq!(acknowledged(step.only()), sent);
        }
    }
}

/// Who can make a server repeat him, and cut its text where he likes, opens nothing: a line begins behind
/// another's end only.
#[test]
fn an_offer_in_the_middle_of_a_line_is_none() {
    let mut router = opened();
    let echo = b"500 'AAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(says(&mut router, FROM_SERVER, echo).1, echo);
    let at = FROM_SERVER + u32::try_from(echo.len()).unwrap();
    let text = b"227 x (10,0,0,11,195,80)\r\n";
    assert_eq!(says(&mut router, at, text), (at, text.to_vec()));
    assert_eq!(router.dataplane.ftp_counters().offers, 0);
    // The next line is one.
    let at = at + u32::try_from(text.len()).unwrap();
    assert_ne!(says(&mut router, at, text).1, text);
    assert_eq!(router.dataplane.ftp_counters().offers, 1);
}

#[test]
fn what_nobody_asked_for_is_not_answered() {
    let mut router = Router::new(config());
    greet(&mut router, FROM_CLIENT);
    let text = b"227 x (10,0,0,11,195,80)\r\n";
    assert_eq!(says(&mut router, FROM_SERVER, text), (FROM_SERVER, text.to_vec()));
    let counters = router.dataplane.ftp_counters();
    assert_eq!((counters.offers, counters.unasked), (0, 1));
    // One question, one answer. Who types it letter by letter may have asked for anything.
    for pieces in [&[&b"PASV\r\n"[..]][..], &[b"P", b"ASV\r\n"]] {
        let mut router = Router::new(config());
        greet(&mut router, FROM_CLIENT);
        let mut at = FROM_CLIENT;
        for piece in pieces {
            router.feed(OUT, &tcp(CLIENT, FTP, PSH | ACK, at, FROM_SERVER, piece).frame()).only();
            at += u32::try_from(piece.len()).unwrap();
        }
        assert_ne!(says(&mut router, FROM_SERVER, text).1, text);
    }
}

/// Telnet's signs before a command (RFC 959 section 4.1.3, of ABOR) make it another one.
#[test]
fn signs_of_telnet_are_not_read_over() {
    let mut router = opened();
    let text = b"\xff\xf4\xff\xf2PORT 198,51,100,7,200,0\r\n";
    let asked = tcp(CLIENT, FTP, PSH | ACK, FROM_CLIENT, FROM_SERVER, text);
    assert_eq!(read(router.feed(OUT, &asked.frame()).only()).1, text);
    assert_eq!(router.dataplane.ftp_counters().offers, 0);
}

/// Several commands in a segment are several commands.
#[test]
fn commands_and_answers_at_once_are_read() {
    let mut router = opened();
    let text = b"NOOP\r\nPORT 198,51,100,7,200,0\r\nRETR x\r\n";
    let asked = tcp(CLIENT, FTP, PSH | ACK, FROM_CLIENT, FROM_SERVER, text);
    assert_eq!(read(router.feed(OUT, &asked.frame()).only()).1, text);
    let syn = tcp("10.0.0.11:20", "198.51.100.7:51200", SYN, 1, 0, b"");
    router.feed(IN, &syn.frame()).only();
    let text = b"200 ok\r\n227 a (10,0,0,11,195,80)\r\n227 b (10,0,0,11,195,81)\r\n150 x\r\n";
    let (_, seen) = says(&mut router, FROM_SERVER, text);
    assert_eq!(
        String::from_utf8(seen).unwrap(),
        "200 ok\r\n227 a (203,0,113,10,195,80)\r\n227 b (203,0,113,10,195,81)\r\n150 x\r\n"
    );
    assert_eq!(router.dataplane.ftp_counters().rewritten, 2);
}

#[test]
fn text_that_comes_too_early_comes_again() {
    let mut router = opened();
    let (first, second) = (b"150 x\r\n", b"227 a (10,0,0,11,195,80)\r\n");
    let at = FROM_SERVER + u32::try_from(first.len()).unwrap();
    let early = tcp(SERVER, CLIENT, PSH | ACK, at, FROM_CLIENT, second).frame();
    assert!(matches!(router.feed(IN, &early).verdict, Verdict::Drop(DropReason::FtpEarly)));
    says(&mut router, FROM_SERVER, first);
    assert_eq!(read(router.feed(IN, &early).only()).1, b"227 a (203,0,113,10,195,80)\r\n");
    // What the client has of a way that was not seen is not waited for.
    let gone = at + 500;
    router.feed(OUT, &tcp(CLIENT, FTP, ACK, FROM_CLIENT, gone + 3, b"").frame()).only();
    says(&mut router, gone, b"226 y\r\n");
}

/// A train of segments is one text, with one sum, cut later.
#[test]
fn a_train_is_read_and_changed() {
    let text = [&b"150 x\r\n".repeat(10)[..], b"227 a (10,0,0,11,195,80)\r\n"].concat();
    let expected = [&b"150 x\r\n".repeat(10)[..], b"227 a (203,0,113,10,195,80)\r\n"].concat();
    for size in [10, 40, 95] {
        let mut router = opened();
        let mut train = Train::tcp(SERVER, CLIENT, text.clone(), size);
        (train.seq, train.ack) = (FROM_SERVER, FROM_CLIENT);
        let mut seen = vec![0; expected.len()];
        let (_, out) = router.feed_offload(IN, &train.all());
        for frame in out.iter().flat_map(|(_, frame)| frame.cut()) {
            let (sequence, bytes) = read(&frame);
            let at = (sequence - FROM_SERVER) as usize;
            seen[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        assert_eq!(String::from_utf8_lossy(&seen), String::from_utf8_lossy(&expected), "{size}");
        assert_eq!(router.dataplane.ftp_counters().rewritten, 1);
        // Again, in other pieces.
        let again = tcp(SERVER, CLIENT, PSH | ACK, FROM_SERVER, FROM_CLIENT, &text);
        assert_eq!(read(router.feed(IN, &again.frame()).only()), (FROM_SERVER, expected.clone()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A server's text goes once in order, in pieces of any size, and then any part of it again: every
    /// byte that the client gets is that of the same place in one text, whatever straddles what.
    #[test]
    fn any_part_of_a_text_may_be_sent_again(
        ports in prop::collection::vec(prop_oneof![3 => 1024_u16..=65_535, 1 => 2_000_u16..2_002], 1..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        again in prop::collection::vec((any::<prop::sample::Index>(), 1_usize..400), 0..40),
        acknowledges: bool,
    ) {
        let mut router = opened();
        let mut sent = Vec::new();
        let mut ends = vec![0];
        for port in &ports {
            for text in [format!("227 P ({},{},{}).\r\n", "10,0,0,11", port >> 8, port & 0xff), "150 ok\r\n".to_owned()] {
                sent.extend(text.bytes());
                ends.push(sent.len());
            }
        }
        // Offers come whole; what is between them may be cut, and lines may come together.
        ends.retain(|end| *end == 0 || *end == sent.len() || cuts.iter().any(|cut| cut.index(sent.len()) % 7 == end % 7));
        let mut seen: std::collections::BTreeMap<u32, u8> = Default::default();
        let mut pass = |router: &mut Router, from: usize, to: usize| -> Result<(), TestCaseError> {
            let sequence = FROM_SERVER + u32::try_from(from).unwrap();
            let (at, bytes) = says(router, sequence, &sent[from..to]);
            for (at, byte) in (at..).zip(bytes) {
                let known = seen.insert(at, byte);
                prop_assert!(known.is_none_or(|known| known == byte), "at {at}");
            }
            if acknowledges {
                let next = FROM_SERVER + u32::try_from(seen.len()).unwrap();
                router.feed(OUT, &tcp(CLIENT, FTP, ACK, FROM_CLIENT, next, b"").frame()).only();
            }
            Ok(())
        };
        for pair in ends.windows(2) {
            pass(&mut router, pair[0], pair[1])?;
        }
        for (from, len) in again {
            let from = from.index(sent.len());
            pass(&mut router, from, (from + len).min(sent.len()))?;
        }
        let text: Vec<u8> = seen.values().copied().collect();
        prop_assert_eq!(*seen.keys().next_back().unwrap() as usize, FROM_SERVER as usize + text.len() - 1, "a gap");
        let text = String::from_utf8(text).unwrap();
        let named = text.matches("203,0,113,10,").count();
        let refused = router.dataplane.ftp_counters();
        prop_assert_eq!(named as u64, refused.rewritten);
        prop_assert_eq!(text.matches("150 ok").count(), ports.len());
        if acknowledges && ends.len() > 2 * ports.len() {
            // So many are awaited at once; one that is awaited already may be named again.
            let mut awaited = Vec::new();
            let is_named = |port: &&u16| {
                let has_room = awaited.len() < 8 && !awaited.contains(*port);
                awaited.extend(has_room.then_some(**port));
                awaited.contains(*port)
            };
            prop_assert_eq!(named, ports.iter().filter(is_named).count());
        }
    }
}
