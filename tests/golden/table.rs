//! The flow table: reuse, clashes, eviction order, expiry.

use super::*;
use tapvs::dataplane::{Event, State};
use tapvs::time::Duration;

fn segment(port: u16, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    tcp(&format!("198.51.100.7:{port}"), WEB, flags, seq, ack, b"").frame()
}

fn answer(router: &Router, port: u16, flags: u8) -> Vec<u8> {
    let flow = router.flows().into_iter().find(|flow| flow.original.source_port == port).unwrap();
    let server = format!("{}:{}", flow.reply.source, flow.reply.source_port);
    let client = format!("198.51.100.7:{}", flow.reply.destination_port);
    tcp(&server, &client, flags, 500, 1001, b"").frame()
}

/// Brings a flow from `port` into `state`.
fn bring(router: &mut Router, port: u16, state: State) {
    let steps: &[(bool, u8)] = match state {
        State::SynRecv => &[(true, SYN)],
        State::Established => &[(true, SYN), (false, SYN | ACK), (true, ACK)],
        State::FinWait => &[(true, SYN), (false, SYN | ACK), (true, ACK), (false, FIN | ACK)],
        State::CloseWait => &[(true, SYN), (false, SYN | ACK), (true, ACK), (true, FIN | ACK)],
        State::TimeWait => {
            &[(true, SYN), (false, SYN | ACK), (true, ACK), (false, FIN | ACK), (true, FIN | ACK)]
        }
        State::Close => &[(true, SYN), (false, RST | ACK)],
        _ => unreachable!("not used here"),
    };
    for (client, flags) in steps {
        let (link, frame) = if *client {
            let seq = if flags & SYN == 0 { 1001 } else { 1000 };
            (OUT, segment(port, *flags, seq, if flags & ACK == 0 { 0 } else { 501 }))
        } else {
            (IN, answer(router, port, *flags))
        };
        let step = router.feed(link, &frame);
        assert!(step.text().starts_with("forward"), "{port}: {}", step.text());
    }
    assert_eq!(router.state(port), Some(state), "{port}");
}

fn ports(router: &Router) -> Vec<u16> {
    router.flows().iter().map(|flow| flow.original.source_port).collect()
}

#[test]
fn a_handshake_assures_a_flow_only_when_it_is_genuine() {
    let assured = |router: &Router| router.flows()[0].assured;
    let mut router = Router::new(config());
    router.feed(OUT, &segment(1, SYN, 1000, 0));
    router.feed(OUT, &segment(1, ACK, 1001, 501));
    assert!(!assured(&router), "the server has said nothing");
    let frame = answer(&router, 1, SYN | ACK);
    router.feed(IN, &frame);
    assert!(!assured(&router), "the client has not acknowledged it");
    router.feed(OUT, &segment(1, ACK, 1001, 70_500));
    assert!(!assured(&router), "an acknowledgement out of thin air");
    router.feed(OUT, &segment(1, ACK, 1001, 501));
    assert!(assured(&router));
}

#[test]
fn udp_is_assured_once_answered_and_sent_to_twice() {
    let mut router = Router::new(config());
    router.feed(OUT, &query().frame());
    router.feed(OUT, &query().frame());
    assert!(!router.flows()[0].assured);
    router.feed(IN, &udp("10.0.0.11:53", CLIENT, b"").frame());
    assert!(router.flows()[0].assured);
}

/// A client that reuses its port in TIME_WAIT is served at once, by the next server.
#[test]
fn a_syn_replaces_a_flow_that_is_over() {
    for over in [State::TimeWait, State::Close] {
        let mut router = Router::new(config());
        bring(&mut router, 40000, over);
        let before = router.flows()[0].clone();
        let step = router.feed(OUT, &syn().frame());
        assert!(step.text().contains("router.in > server12"), "{}", step.text());
        let after = router.flows();
        assert_eq!(after.len(), 1);
        assert_eq!(after[0].state, State::SynRecv);
        assert_eq!(after[0].packets, [1, 0]);
        assert!(!after[0].assured);
        assert_ne!(after[0].owner, before.owner);
    }
    for on in [State::Established, State::FinWait, State::CloseWait] {
        let mut router = Router::new(config());
        bring(&mut router, 40000, on);
        let step = router.feed(OUT, &syn().frame());
        assert!(step.text().contains("router.in > server11"), "the same server: {}", step.text());
    }
}

/// O10: two services share a server and a client uses one port for both.
#[test]
fn o10_a_reply_tuple_clash_gets_another_port() {
    let mut config = config();
    config.services[0].servers.truncate(1);
    config.services.push(service(Proto::Tcp, 81, vec![server(11, 8080, 1)]));
    let mut router = Router::new(config);
    let first = router.feed(OUT, &syn().frame());
    assert_eq!(Read::frame(first.only()).unwrap().ports(), Some((40000, 8080)));
    let second = router.feed(OUT, &tcp(CLIENT, "203.0.113.10:81", SYN, 1, 0, b"").frame());
    let read = Read::frame(second.only()).unwrap();
    let (port, to) = read.ports().unwrap();
    assert!(port != 40000 && port >= 1024 && to == 8080, "{}", second.text());
    assert_eq!(read.transport_ok(), Some(true));
    for (server_sees, service) in [(40000, 80), (port, 81)] {
        let client = format!("198.51.100.7:{server_sees}");
        let back = router.feed(IN, &tcp(SERVER11, &client, SYN | ACK, 5, 2, b"").frame());
        let read = Read::frame(back.only()).unwrap();
        assert_eq!(read.ports(), Some((service, 40000)), "{}", back.text());
        assert_eq!(read.transport_ok(), Some(true));
    }
    let ack = router.feed(OUT, &tcp(CLIENT, "203.0.113.10:81", ACK, 2, 6, b"").frame());
    assert_eq!(Read::frame(ack.only()).unwrap().ports(), Some((port, 8080)));
}

/// N2: every port of a client towards one server is in use: the next flow is dropped, not mixed up.
pub(crate) fn ports_run_out() -> Router {
    let mut config = config();
    config.services[1].servers.truncate(1);
    let mut other = service(Proto::Udp, 54, vec![server(11, 53, 1)]);
    other.name = "other".into();
    config.services.push(other);
    let mut router = Router::sized(config, 70_000);
    for port in 1024..=u16::MAX {
        let step = router.feed(OUT, &udp(&format!("198.51.100.7:{port}"), DNS, b"").frame());
        assert!(step.text().starts_with("forward"), "{}", step.text());
    }
    let step = router.feed(OUT, &udp(CLIENT, "203.0.113.10:54", b"").frame());
    assert_eq!(step.text(), "drop ports_exhausted");
    assert_eq!(router.dataplane.flow_count(), 64_512);
    router
}

#[test]
fn n2_no_port_is_used_twice() {
    ports_run_out();
}

#[test]
fn the_most_expendable_flow_makes_room() {
    let mut router = Router::sized(config(), 4);
    bring(&mut router, 1, State::SynRecv);
    bring(&mut router, 2, State::Established);
    bring(&mut router, 3, State::FinWait);
    bring(&mut router, 4, State::TimeWait);
    let mut survivors = Vec::new();
    for port in 11..=14 {
        assert!(router.feed(OUT, &segment(port, SYN, 1000, 0)).text().starts_with("forward"));
        survivors.push(ports(&router));
    }
    // TIME_WAIT, then FIN_WAIT, then the oldest half-open ones; never the established one.
    assert_eq!(survivors, [[1, 2, 3, 11], [1, 2, 11, 12], [2, 11, 12, 13], [2, 12, 13, 14]]);
    assert!(router.events.is_empty(), "{:?}", router.events);
}

#[test]
fn of_one_class_the_oldest_goes_first() {
    let mut router = Router::sized(config(), 4);
    for port in [3, 1, 4, 2] {
        bring(&mut router, port, if port % 2 == 0 { State::Close } else { State::TimeWait });
    }
    let mut survivors = Vec::new();
    for port in 11..=14 {
        router.feed(OUT, &segment(port, SYN, 1000, 0));
        survivors.push(ports(&router));
    }
    assert_eq!(survivors, [[1, 2, 4, 11], [2, 4, 11, 12], [2, 11, 12, 13], [11, 12, 13, 14]]);
}

/// Nothing moves an established flow out.
pub(crate) fn assured_flows_are_never_evicted() -> Router {
    let mut router = Router::sized(config(), 4);
    for port in 1..=4 {
        bring(&mut router, port, State::Established);
    }
    for port in 111..=140 {
        assert_eq!(router.feed(OUT, &segment(port, SYN, 1000, 0)).text(), "drop table_full");
    }
    assert_eq!(ports(&router), [1, 2, 3, 4]);
    let [Event::TableFull { flows }] = router.events[..] else { panic!("{:?}", router.events) };
    assert_eq!(flows, 4, "told once");
    router
}

#[test]
fn assured_flows_stay_and_the_table_recovers() {
    let mut router = assured_flows_are_never_evicted();
    let fin = segment(2, FIN | ACK, 1001, 501);
    router.feed(OUT, &fin);
    assert!(router.feed(OUT, &segment(50, SYN, 1000, 0)).text().starts_with("forward"));
    assert_eq!(ports(&router), [1, 3, 4, 50]);
}

/// A packet that goes nowhere takes nobody's place.
#[test]
fn a_dropped_packet_evicts_nobody() {
    let mut router = Router::sized(config(), 2);
    bring(&mut router, 1, State::SynRecv);
    bring(&mut router, 2, State::TimeWait);
    let dying = tcp("198.51.100.7:9", WEB, SYN, 1, 0, b"").ttl(1).frame();
    assert!(router.feed(OUT, &dying).text().starts_with("drop ttl_exceeded"));
    assert_eq!(ports(&router), [1, 2]);
}

#[test]
fn flows_expire_by_their_states() {
    for (state, seconds) in [
        (State::SynRecv, 60),
        (State::Established, 900),
        (State::FinWait, 120),
        (State::CloseWait, 60),
        (State::TimeWait, 120),
        (State::Close, 10),
    ] {
        let mut router = Router::new(config());
        bring(&mut router, 7, state);
        router.advance(Duration::from_millis(seconds * 1000 - 1));
        assert_eq!(ports(&router), [7], "{state:?} too early");
        router.advance(Duration::from_millis(2_001));
        assert_eq!(ports(&router), [0_u16; 0], "{state:?} too late");
    }
}

#[test]
fn a_packet_restarts_the_timer() {
    let mut router = Router::new(config());
    router.feed(OUT, &query().frame());
    for _ in 0..3 {
        router.advance(Duration::from_secs(290));
        router.feed(IN, &udp("10.0.0.11:53", CLIENT, b"").frame());
    }
    router.advance(Duration::from_secs(290));
    assert_eq!(router.flows().len(), 1);
    router.advance(Duration::from_secs(12));
    assert_eq!(router.flows().len(), 0);
}

/// A flow past its deadline that has not been swept yet is as good as gone.
#[test]
fn a_late_packet_finds_no_flow() {
    let mut router = Router::new(config());
    bring(&mut router, 7, State::Close);
    router.now += Duration::from_secs(11);
    let step = router.feed(OUT, &segment(7, ACK, 1001, 501));
    assert!(step.text().starts_with("drop no_flow"), "{}", step.text());
    assert_eq!(router.flows().len(), 0);
}

#[test]
fn rfc_timeouts_reach_beyond_the_wheel() {
    let mut config = config();
    config.router.timeouts = tapvs::config::Timeouts::RFC;
    let mut router = Router::new(config);
    bring(&mut router, 7, State::Established);
    router.advance(Duration::from_secs(7_439));
    assert_eq!(ports(&router), [7]);
    router.advance(Duration::from_secs(3));
    assert_eq!(router.flows().len(), 0);
}

/// S6: a reset only shortens the flow's life; data from the side that is said to have sent it shows
/// that it was forged.
#[test]
fn s6_data_undoes_a_forged_reset() {
    let mut router = Router::new(config());
    bring(&mut router, 7, State::Established);
    router.feed(OUT, &segment(7, RST, 1001, 0));
    assert_eq!(router.state(7), Some(State::Close));
    router.feed(OUT, &segment(7, ACK, 1001, 501));
    assert_eq!(router.state(7), Some(State::Close), "an acknowledgement proves nothing");
    let data = tcp("198.51.100.7:7", WEB, PSH | ACK, 1001, 501, b"still here").frame();
    assert!(router.feed(OUT, &data).text().starts_with("forward"));
    assert_eq!(router.state(7), Some(State::Established));
    router.advance(Duration::from_secs(800));
    assert_eq!(router.state(7), Some(State::Established));
}
