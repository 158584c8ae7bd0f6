//! Fragments: they follow their first one, in any order (N9, S7).

use super::*;
use tapvs::time::Duration;

/// A datagram of 40 bytes in three pieces: 16, 16 and 8 bytes of IP payload.
fn pieces(from: &str, to: &str) -> [Vec<u8>; 3] {
    let whole = udp(from, to, b"abcdefghijklmnopqrstuvwxyz012345");
    let piece = |at: usize, end: usize, more| {
        let fragment = u16::try_from(at / 8).unwrap() | if more { MF } else { 0 };
        whole.clone().with(|ip| {
            ip.body = whole.body[at..end].to_vec();
            ip.fragment = fragment;
        })
    };
    [piece(0, 16, true), piece(16, 32, true), piece(32, 40, false)].map(|ip| ip.frame())
}

/// What the pieces in `out` add up to, if they are all there: one whole packet.
fn joined(out: &[(LinkId, Vec<u8>)]) -> Ip {
    let mut parts: Vec<_> = out.iter().map(|(_, frame)| Read::frame(frame).unwrap()).collect();
    parts.sort_by_key(|part| part.fragment() & 0x1fff);
    let mut body = Vec::new();
    for part in &parts {
        assert!(part.header_ok());
        assert_eq!(usize::from(part.fragment() & 0x1fff) * 8, body.len());
        body.extend(&part.body);
    }
    let whole = Ip::new(parts[0].source, parts[0].destination, parts[0].protocol, body);
    let read = Read::packet(&whole.packet()).unwrap();
    assert_eq!(read.transport_ok(), Some(true), "{}", ip_line(&whole.packet()));
    whole
}

#[test]
fn n9_pieces_pass_in_any_order() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut router = Router::new(config());
        let mut out = Vec::new();
        for at in order {
            out.extend(router.feed(OUT, &pieces(CLIENT, DNS)[at]).out);
        }
        assert_eq!(out.len(), 3, "{order:?}");
        let whole = joined(&out);
        assert_eq!(whole.destination, server_ip(11), "{order:?}");
        assert_eq!(whole.body[..4], [0x9c, 0x40, 0, 53]);
        let mut back = Vec::new();
        for at in order {
            back.extend(router.feed(IN, &pieces("10.0.0.11:53", CLIENT)[at]).out);
        }
        let whole = joined(&back);
        assert_eq!((whole.source, back.len()), (VIP, 3), "{order:?}");
    }
}

#[test]
fn s7_an_overlap_condemns_the_datagram() {
    let mut router = Router::new(config());
    let [first, second, third] = pieces(CLIENT, DNS);
    assert!(router.feed(OUT, &first).text().starts_with("forward"));
    let overlapping = query().with(|ip| {
        ip.body = vec![0; 24];
        ip.fragment = 1 | MF;
    });
    assert_eq!(router.feed(OUT, &overlapping.frame()).text(), "drop fragment_refused");
    assert_eq!(router.feed(OUT, &second).text(), "drop fragment_refused");
    assert_eq!(router.feed(OUT, &third).text(), "drop fragment_refused");
}

#[test]
fn a_piece_that_comes_twice_does_no_harm() {
    let mut router = Router::new(config());
    let [first, second, third] = pieces(CLIENT, DNS);
    assert!(router.feed(OUT, &first).text().starts_with("forward"));
    assert_eq!(router.feed(OUT, &first).text(), "drop fragment_refused");
    assert!(router.feed(OUT, &second).text().starts_with("forward"));
    assert!(router.feed(OUT, &third).text().starts_with("forward"));
}

#[test]
fn pieces_share_the_first_ones_fate() {
    let mut router = Router::new(config());
    let [first, second, third] = pieces(CLIENT, "203.0.113.10:54");
    assert_eq!(router.feed(OUT, &third).text(), "held");
    let step = router.feed(OUT, &first);
    assert!(step.text().starts_with("drop unserved"), "{}", step.text());
    assert_eq!(router.dataplane.counters().dropped(DropReason::FragmentOrphan), 1);
    assert_eq!(router.feed(OUT, &second).text(), "drop fragment_refused");
    assert_eq!(router.flows(), []);
}

/// N9 (14a): pieces whose first one never comes are bounded in number and in time, and the rest of
/// the traffic does not notice.
pub(crate) fn a_flood_of_orphans() -> Router {
    let mut router = Router::new(config());
    for id in 0..2_000 {
        let orphan = query().with(|ip| {
            ip.id = id;
            ip.fragment = 4;
        });
        let text = router.feed(OUT, &orphan.frame()).text();
        assert_eq!(text, if id < 64 { "held" } else { "drop fragments_full" });
        if id % 10 == 0 {
            assert!(router.feed(OUT, &query().frame()).text().starts_with("forward"));
        }
    }
    router.advance(Duration::from_millis(1_100));
    assert_eq!(router.dataplane.counters().dropped(DropReason::FragmentOrphan), 64);
    assert_eq!(router.report().waiting, 0);
    router
}

#[test]
fn n9_a_flood_of_orphans_is_bounded() {
    let mut router = a_flood_of_orphans();
    let mut out = Vec::new();
    for piece in pieces(CLIENT, DNS) {
        out.extend(router.feed(OUT, &piece).out);
    }
    joined(&out);
}
