//! S1: a SYN flood from ever new sources, against servers that answer every SYN.

use tapvs::dataplane::Verdict;
use tapvs::frame::Frame;

use super::*;

const CAPACITY: usize = 10_000;
const FLOOD: u32 = 200_000;

/// Hands a frame in as [`Router::feed`] does, but without its checks, which look at every flow.
fn fast(router: &mut Router, frame: &mut Frame, link: LinkId, bytes: &[u8]) -> Verdict {
    frame.copy_from(bytes);
    let verdict = router.dataplane.handle_frame(&router.table, link, frame, router.now);
    router.now += tapvs::time::Duration::from_micros(10);
    if router.dataplane.poll_timeout().is_some_and(|due| due <= router.now) {
        router.dataplane.handle_timeout(&router.table, router.now);
        router.transmits();
    }
    verdict
}

/// What the server that `out` went to answers.
fn answer_to(out: &Frame) -> Vec<u8> {
    let bytes = out.bytes();
    let address =
        |at: usize| format!("{}.{}.{}.{}", bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let client = format!("{}:{}", address(26), port(34));
    let server = format!("{}:{}", address(30), port(36));
    tcp(&server, &client, SYN | ACK, 500, 1001, b"").frame()
}

/// A whole handshake from `client`; whether every segment of it was passed on.
fn connects(router: &mut Router, frame: &mut Frame, client: &str) -> bool {
    let mut passed = |router: &mut Router, link, bytes: &[u8]| {
        matches!(fast(router, frame, link, bytes), Verdict::Forward(_)).then(|| answer_to(frame))
    };
    let Some(answer) = passed(router, OUT, &tcp(client, WEB, SYN, 1000, 0, b"").frame()) else {
        return false;
    };
    passed(router, IN, &answer).is_some()
        && passed(router, OUT, &tcp(client, WEB, ACK, 1001, 501, b"").frame()).is_some()
}

#[test]
fn s1_a_syn_flood_evicts_nobody_assured_and_keeps_nobody_out() {
    let mut router = Router::sized(config(), CAPACITY);
    let mut frame = Frame::new();
    let regular = |n: u32| format!("198.51.100.7:{}", 1024 + n);
    for n in 0..1_000 {
        assert!(connects(&mut router, &mut frame, &regular(n)), "before the flood: {n}");
    }
    let mut refused = 0;
    for n in 0..FLOOD {
        let [_, a, b, c] = n.to_be_bytes();
        // A forger sees no answer; its acknowledgement is a guess.
        let source = format!("100.{a}.{b}.{c}:6000");
        fast(&mut router, &mut frame, OUT, &tcp(&source, WEB, SYN, 1000, 0, b"").frame());
        let answer = answer_to(&frame);
        fast(&mut router, &mut frame, IN, &answer);
        if n % 4 == 0 {
            let guess = tcp(&source, WEB, ACK, 1001, 0x7000_0000 ^ n, b"").frame();
            fast(&mut router, &mut frame, OUT, &guess);
        }
        if n % 100 == 0 {
            refused += u32::from(!connects(&mut router, &mut frame, &regular(1_000 + n / 100)));
        }
    }
    assert_eq!(refused, 0, "clients kept out by the flood");
    let flows = router.flows();
    assert_eq!(flows.len(), CAPACITY, "the table is full and no fuller");
    let assured: Vec<_> = flows.iter().filter(|flow| flow.assured).collect();
    assert_eq!(assured.len(), 1_000 + FLOOD as usize / 100, "all regular clients, and nobody else");
    let forged = assured.iter().any(|flow| flow.original.source.octets()[0] == 100);
    assert!(!forged, "a guess assures nothing");
    router.check();
}
