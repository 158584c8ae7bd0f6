//! Probes through the virtual IP.

use super::*;
use tapvs::dataplane::{Event, ProbeError, ProbeOutcome, Verdict};
use tapvs::time::Duration;

const PORT: u16 = 50_000;
const OWN: &str = "10.0.0.2:50000";

fn probing() -> (Router, Ip) {
    let mut router = Router::new(direct(config()));
    let server = router.table.services()[0].servers[1].id;
    let timeout = Duration::from_secs(1);
    router.dataplane.probe(&router.table, server, PORT, timeout, router.now).unwrap();
    let out = router.transmits();
    router.check();
    assert_eq!(out.len(), 1);
    assert_eq!((out[0].0, &out[0].1[..6]), (IN, &server_mac(12).0[..]));
    let sent = Read::frame(&out[0].1).unwrap();
    assert_eq!((sent.source, sent.destination, sent.ports()), (OWN_IN, VIP, Some((PORT, 80))));
    assert_eq!((sent.flags(), sent.transport_ok()), (SYN, Some(true)));
    let isn = u32::from_be_bytes(sent.body[4..8].try_into().unwrap());
    let answer = tcp(WEB, OWN, SYN | ACK, 7, isn.wrapping_add(1), b"").with(|ip| {
        (ip.from, ip.to) = (server_mac(12), ROUTER_IN);
    });
    (router, answer)
}

fn outcomes(router: &Router) -> Vec<ProbeOutcome> {
    let outcome = |event: &Event| match event {
        Event::Probed { source_port: PORT, outcome, .. } => Some(*outcome),
        _ => None,
    };
    router.events.iter().filter_map(outcome).collect()
}

#[test]
fn a_syn_ack_is_open_and_taken_back() {
    let (mut router, answer) = probing();
    let step = router.feed(IN, &answer.frame());
    assert!(matches!(step.verdict, Verdict::Consumed(_)), "{}", step.text());
    let reset = Read::frame(step.only()).unwrap();
    assert_eq!(&step.only()[..6], &server_mac(12).0);
    assert_eq!((reset.source, reset.destination, reset.flags()), (OWN_IN, VIP, RST));
    assert_eq!(reset.body[4..8], answer.body[8..12], "where the server expects it");
    assert_eq!(outcomes(&router), [ProbeOutcome::Open]);
    // Once.
    assert_eq!(router.feed(IN, &answer.frame()).text(), "drop martian_source");
    router.advance(Duration::from_secs(5));
    assert_eq!(outcomes(&router).len(), 1);
    assert_eq!(router.flows().len(), 0);
}

#[test]
fn a_reset_is_refused() {
    let (mut router, answer) = probing();
    let acknowledged = u32::from_be_bytes(answer.body[8..12].try_into().unwrap());
    let reset = tcp(WEB, OWN, RST | ACK, 0, acknowledged, b"").with(|ip| {
        (ip.from, ip.to) = (server_mac(12), ROUTER_IN);
    });
    assert_eq!(router.feed(IN, &reset.clone().bad_sum().frame()).text(), "drop martian_source");
    let step = router.feed(IN, &reset.frame());
    assert!(step.out.is_empty() && matches!(step.verdict, Verdict::Consumed(_)), "{}", step.text());
    assert_eq!(outcomes(&router), [ProbeOutcome::Refused]);
}

#[test]
fn silence_is_silence() {
    let (mut router, answer) = probing();
    // Somebody who has not seen the question.
    for acknowledged in [0, 1, u32::MAX] {
        let forged = tcp(WEB, OWN, SYN | ACK, 7, acknowledged, b"").with(|ip| {
            (ip.from, ip.to) = (answer.from, answer.to);
        });
        assert_eq!(router.feed(IN, &forged.frame()).text(), "drop martian_source");
    }
    let elsewhere = tcp("203.0.113.10:81", OWN, SYN | ACK, 7, 1, b"").with(|ip| {
        (ip.from, ip.to) = (answer.from, answer.to);
    });
    assert_eq!(router.feed(IN, &elsewhere.frame()).text(), "drop martian_source");
    router.advance(Duration::from_millis(999));
    assert!(outcomes(&router).is_empty());
    router.advance(Duration::from_millis(1));
    assert_eq!(outcomes(&router), [ProbeOutcome::Silent]);
    assert_eq!(router.feed(IN, &answer.frame()).text(), "drop martian_source", "too late");
}

#[test]
fn what_cannot_be_probed_is_refused() {
    let mut router = Router::new(direct(config()));
    router.change(|config| config.services.push(service(Proto::Tcp, 81, vec![server(11, 81, 1)])));
    let id = |router: &Router, service: usize| router.table.services()[service].servers[0].id;
    let mut probe = |id, port| {
        let timeout = Duration::from_secs(1);
        router.dataplane.probe(&router.table, id, port, timeout, router.now)
    };
    let (tcp, udp, nat) = {
        let router = Router::new(direct(config()));
        (id(&router, 0), id(&router, 1), tapvs::addr::ServerId(5))
    };
    assert_eq!(probe(udp, PORT), Err(ProbeError::NotProbed), "UDP has no handshake");
    assert_eq!(probe(nat, PORT), Err(ProbeError::NotProbed), "a NAT server does not hold it");
    assert_eq!(probe(tapvs::addr::ServerId(99), PORT), Err(ProbeError::NotProbed));
    assert_eq!(probe(tcp, PORT), Ok(()));
    assert_eq!(probe(tcp, PORT), Err(ProbeError::PortInUse));
    for port in 1..64 {
        assert_eq!(probe(tcp, PORT + port), Ok(()), "{port}");
    }
    assert_eq!(probe(tcp, PORT + 64), Err(ProbeError::TooMany));
    router.transmits();
    router.check();
}
