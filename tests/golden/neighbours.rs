//! Next hops that are not known yet, do not answer, or are too many (A8).

use super::*;
use tapvs::config::Scheduler;
use tapvs::dataplane::{Event, Reachability, Verdict};
use tapvs::time::Duration;

/// A router whose servers and gateway have not answered yet.
fn waiting() -> Router {
    let mut router = Router::cold(config(), 1_000);
    router.answers_arp = false;
    router.transmits();
    router
}

fn client(port: u16) -> Ip {
    udp(&format!("198.51.100.7:{port}"), DNS, b"who?")
}

fn texts(out: &[(LinkId, Vec<u8>)]) -> Vec<String> {
    out.iter().map(|(_, frame)| line(frame)).collect()
}

/// Frames that wait in `router` now.
pub(crate) fn is_holding(router: &Router) -> u64 {
    router.report().waiting
}

const ASKS: &str =
    "router.in > all arp request from router.in 10.0.0.2 to nobody 10.0.0.11, 60 bytes";

#[test]
fn a8_a_first_packet_waits_for_the_answer() {
    let mut router = waiting();
    let step = router.feed(OUT, &syn().frame());
    assert_eq!(step.text(), format!("held\nin: {ASKS}"), "the question leaves at once");
    assert_eq!(is_holding(&router), 1);
    let step = router.feed(IN, &is_at(server_ip(11), server_mac(11), ROUTER_IN, OWN_IN).frame());
    assert_eq!(
        step.text(),
        "consumed neighbour\nin: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 \
         tcp 40000 > 8080 S seq 1000 ack 0 win 8192 data 0"
    );
    assert_eq!(is_holding(&router), 0);
    assert_eq!(router.state(40000).unwrap().name(), "SYN_RECV");
}

/// Three frames wait for a neighbour, a fourth does not.
pub(crate) fn more_than_three_wait() -> Router {
    let mut router = waiting();
    // Every other datagram is for server 11.
    let to_11 = |n: u16| client(1000 + 2 * n);
    for n in 0..3 {
        assert_eq!(router.feed(OUT, &to_11(n).frame()).verdict, Verdict::Held, "{n}");
        router.feed(OUT, &client(1001 + 2 * n).frame());
    }
    let step = router.feed(OUT, &to_11(3).frame());
    assert_eq!(step.text(), "drop hold_full");
    assert_eq!(router.flows().len(), 6, "nothing stays of the fourth");
    router
}

#[test]
fn a8_three_frames_wait_in_order() {
    let mut router = more_than_three_wait();
    let step = router.feed(IN, &is_at(server_ip(11), server_mac(11), ROUTER_IN, OWN_IN).frame());
    let left: Vec<_> =
        step.out.iter().map(|(_, frame)| Read::frame(frame).unwrap().ports().unwrap().0).collect();
    assert_eq!(left, [1000, 1002, 1004]);
}

/// A server that does not answer: its clients are told, in their own words, and forgotten.
pub(crate) fn held_failed_and_told() -> Router {
    let mut router = waiting();
    router.feed(OUT, &gateway_asks(VIP).frame());
    let gateway = is_at(GATEWAY_IP, GATEWAY, ROUTER_OUT, OWN_OUT).frame();
    router.advance(Duration::from_millis(200));
    assert!(matches!(router.feed(OUT, &gateway).verdict, Verdict::Consumed(_)));
    assert_eq!(router.feed(OUT, &syn().frame()).verdict, Verdict::Held);
    assert_eq!(router.feed(OUT, &client(5).frame()).verdict, Verdict::Held);
    let out = texts(&router.advance(Duration::from_secs(4)));
    let asked = out.iter().filter(|text| *text == ASKS).count();
    assert!((2..=3).contains(&asked), "{out:#?}");
    let told: Vec<_> = out.iter().filter(|text| text.contains("icmp 3/1")).collect();
    let head =
        "router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id - tos c0 icmp 3/1 00000000";
    assert_eq!(
        told,
        [
            &format!(
                "{head} about [198.51.100.7 > 203.0.113.10 ttl 63 id 1 tcp 40000 > 80 S seq 1000 ack 0 win 8192 data 0]"
            ),
            &format!("{head} about [198.51.100.7 > 203.0.113.10 ttl 63 id 1 udp 5 > 53 data 4]"),
        ]
    );
    assert_eq!(router.flows(), []);
    let failed = |event: &&Event| matches!(event, Event::NeighbourFailed { address, .. } if *address == server_ip(11));
    assert_eq!(router.events.iter().filter(failed).count(), 1);
    router
}

#[test]
fn a8_host_unreachable_when_nobody_answers() {
    let mut router = held_failed_and_told();
    // Nobody waits for a neighbour that is known to be silent (three servers take turns).
    let told = (0..3).map(|_| router.feed(OUT, &syn().frame())).find(|step| {
        step.text().starts_with("drop neighbour_failed\nout:") && step.text().contains("icmp 3/1")
    });
    assert!(told.is_some());
    assert_eq!(router.flows(), []);
}

#[test]
fn a8_one_question_a_second_three_times_then_a_pause() {
    let mut router = waiting();
    let mut when = Vec::new();
    let start = router.now;
    for _ in 0..200 {
        for text in texts(&router.advance(Duration::from_millis(100))) {
            if text == ASKS {
                when.push((router.now - start).total_millis());
            }
        }
        // Somebody always wants to go there.
        let text = router.feed(OUT, &syn().frame()).text();
        if text.contains(ASKS) {
            when.push((router.now - start).total_millis());
        }
    }
    assert!(when.windows(2).all(|pair| pair[1] - pair[0] >= 1_000), "{when:?}");
    assert!((9..=15).contains(&when.len()), "in 20 s: {when:?}");
}

#[test]
fn a8_silence_is_noticed_and_a_return_too() {
    let mut router = Router::new(config());
    assert!(matches!(router.feed(OUT, &syn().frame()).verdict, Verdict::Forward(_)));
    router.answers_arp = false;
    let out = texts(&router.advance(Duration::from_secs(45)));
    let unicast =
        "router.in > server11 arp request from router.in 10.0.0.2 to server11 10.0.0.11, 60 bytes";
    assert_eq!(
        out.iter().filter(|text| *text == unicast).count(),
        3,
        "asked where it was: {out:#?}"
    );
    assert!(out.iter().filter(|text| *text == ASKS).count() >= 3, "then everywhere");
    let state = |router: &Router| {
        let mut all = router.dataplane.neighbours();
        all.find(|n| n.address == server_ip(11)).unwrap().state
    };
    assert!(matches!(state(&router), Reachability::Failed | Reachability::Incomplete));
    router.answers_arp = true;
    router.advance(Duration::from_secs(7));
    assert_eq!(state(&router), Reachability::Reachable);
    assert!(router.events.iter().any(|e| matches!(e, Event::NeighbourBack { .. })));
}

/// S4: a claim to a known neighbour's address makes the router ask, not believe.
#[test]
fn s4_a_forged_claim_moves_nothing() {
    let mut router = Router::new(config());
    for forged in [
        who_has(server_ip(11), server_ip(11), STRANGER),
        is_at(server_ip(11), STRANGER, ROUTER_IN, OWN_IN),
        who_has(INNER_VIP, server_ip(11), STRANGER),
    ] {
        router.feed(IN, &forged.frame());
        let text = router.feed(OUT, &client(9).frame()).text();
        assert!(!text.contains("stranger"), "{text}");
        let out = texts(&router.advance(Duration::from_secs(2)));
        assert!(out.iter().all(|text| !text.contains("> stranger")), "{out:?}");
        assert!(router.dataplane.neighbours().all(|n| n.mac != STRANGER));
    }
}

/// The question to the MAC that is known.
const ASKS_SERVER11: &str =
    "router.in > server11 arp request from router.in 10.0.0.2 to server11 10.0.0.11, 60 bytes";

/// S4: who claims another's address is believed only once that one is silent.
#[test]
fn a_neighbour_that_moved_is_found_again() {
    let mut router = Router::new(config());
    router.answers_arp = false;
    let step = router.feed(IN, &who_has(server_ip(11), server_ip(11), STRANGER).frame());
    assert_eq!(step.text(), "drop arp_unsolicited");
    assert_eq!(texts(&router.advance(Duration::from_millis(200))), [ASKS_SERVER11]);
    let answer = is_at(server_ip(11), STRANGER, ROUTER_IN, OWN_IN).frame();
    assert_eq!(router.feed(IN, &answer).text(), "drop arp_unsolicited", "too soon");
    assert!(router.feed(OUT, &syn().frame()).text().contains("router.in > server11"));
    assert_eq!(texts(&router.advance(Duration::from_secs(1))), [ASKS]);
    router.feed(IN, &answer);
    let moved = |event: &&Event| matches!(event, Event::NeighbourMoved { mac: STRANGER, .. });
    assert_eq!(router.events.iter().filter(moved).count(), 1);
    assert!(router.feed(OUT, &syn().frame()).text().contains("router.in > stranger"));
}

/// S4: answers that are always there already do not win against the one who is asked.
#[test]
fn a_storm_of_forged_answers_moves_nothing() {
    let mut router = Router::new(config());
    for _ in 0..200 {
        router.feed(IN, &is_at(server_ip(11), STRANGER, ROUTER_IN, OWN_IN).frame());
        router.advance(Duration::from_millis(500));
        let answer = is_at(server_ip(11), server_mac(11), ROUTER_IN, OWN_IN);
        router.feed(IN, &answer.frame());
    }
    assert!(router.feed(OUT, &syn().frame()).text().contains("router.in > server11"));
}

/// A claim within a second of the last question, made only once, is looked into a second later.
#[test]
fn a_neighbour_that_moved_right_after_it_was_asked_is_found_again() {
    let mut router = Router::new(config());
    router.answers_arp = false;
    let claim = || who_has(server_ip(11), server_ip(11), STRANGER).frame();
    router.feed(IN, &claim());
    assert_eq!(texts(&router.advance(Duration::from_millis(200))), [ASKS_SERVER11]);
    // It is where it was, but then moves, in the same second.
    router.feed(IN, &is_at(server_ip(11), server_mac(11), ROUTER_IN, OWN_IN).frame());
    router.feed(IN, &claim());
    assert_eq!(texts(&router.advance(Duration::from_millis(500))), [""; 0]);
    assert_eq!(texts(&router.advance(Duration::from_millis(600))), [ASKS_SERVER11]);
    assert_eq!(texts(&router.advance(Duration::from_secs(1))), [ASKS]);
    router.feed(IN, &is_at(server_ip(11), STRANGER, ROUTER_IN, OWN_IN).frame());
    assert!(router.feed(OUT, &syn().frame()).text().contains("router.in > stranger"));
}

/// A server that does not answer ARP keeps no flows, and must not look idle for that.
#[test]
fn a_silent_server_is_not_the_least_loaded() {
    for scheduler in [Scheduler::LeastConnection, Scheduler::WeightedLeastConnection] {
        let mut config = config();
        config.services[0].scheduler = scheduler;
        // Nobody answers for 10.0.0.111.
        config.services[0].servers =
            vec![server(111, 8080, 9), server(11, 8080, 1), server(12, 8080, 1)];
        let mut router = Router::new(config);
        for port in 1_001..=1_030 {
            let client = format!("198.51.100.7:{port}");
            let text = router.feed(OUT, &tcp(&client, WEB, SYN, 1, 0, b"").frame()).text();
            assert!(text.starts_with("forward in"), "{port}: {text}");
            router.advance(Duration::from_millis(700));
        }
        assert_eq!(router.flows().len(), 30);
    }
}

/// More clients on the link than there is room for.
pub(crate) fn too_many_neighbours() -> Router {
    let mut config = config();
    config.networks[0].addresses = vec!["203.0.113.2/8".parse().unwrap()];
    let mut router = Router::sized(config, 10_000);
    for n in 0..9_000_u16 {
        let [high, low] = n.to_be_bytes();
        let client = format!("203.77.{high}.{low}:9");
        router.feed(OUT, &udp(&client, DNS, b"").frame());
        let server = if n % 2 == 0 { "10.0.0.11:53" } else { "10.0.0.12:53" };
        router.feed(IN, &udp(server, &client, b"").frame());
    }
    let most = router.dataplane.neighbours().count();
    assert!((8_192..8_300).contains(&most), "{most}");
    router
}

#[test]
fn neighbours_are_bounded_and_come_back() {
    let mut router = too_many_neighbours();
    assert!(router.dataplane.counters().dropped(DropReason::NeighbourTableFull) > 0);
    router.advance(Duration::from_secs(60));
    let left = router.dataplane.neighbours().count();
    assert_eq!(left, 4, "only the gateway and the servers are kept");
}

/// Neighbour timers keep their pace after a long silence.
#[test]
fn a_long_silence_does_not_rush_the_questions() {
    let mut config = config();
    config.services.clear();
    config.networks[0].gateway = None;
    let mut router = Router::new(config);
    router.answers_arp = false;
    router.advance(Duration::from_secs(86_400));
    let ping = udp("203.0.113.50:9", "203.0.113.10:9", b"").frame();
    let asked = router.feed(OUT, &ping).out.len();
    let early = router.advance(Duration::from_millis(900)).len();
    assert_eq!((asked, early), (1, 0), "one question a second");
    assert_eq!(is_holding(&router), 1, "the answer still waits");
    let later = router.advance(Duration::from_millis(1_300));
    assert_eq!(later.len(), 2, "{later:?}");
}

/// A link that comes up has its servers asked for at once, and out of turn once a second at most.
#[test]
fn whoever_is_not_known_behind_a_link_that_comes_up_is_asked_for_at_once() {
    let mut router = waiting();
    router.advance(Duration::from_secs(7));
    let asked = |router: &mut Router, millis| {
        let out = texts(&router.advance(Duration::from_millis(millis)));
        out.iter().filter(|text| *text == ASKS).count()
    };
    let Router { dataplane, table, now, .. } = &mut router;
    dataplane.handle_link_up(table, IN, *now);
    assert_eq!(asked(&mut router, 200), 1, "it had been given up, or was asked long ago");
    // It flaps.
    for _ in 0..3 {
        let Router { dataplane, table, now, .. } = &mut router;
        dataplane.handle_link_up(table, IN, *now);
        assert_eq!(asked(&mut router, 200), 0);
    }
    // An answer to the question before is still one; who is known is left in peace.
    let answer = is_at(server_ip(11), server_mac(11), ROUTER_IN, OWN_IN).frame();
    assert!(matches!(router.feed(IN, &answer).verdict, Verdict::Consumed(_)));
    router.advance(Duration::from_secs(2));
    let Router { dataplane, table, now, .. } = &mut router;
    dataplane.handle_link_up(table, IN, *now);
    assert_eq!(asked(&mut router, 200), 0);
}
