//! Who is given new flows as servers fail, come back and are slow to be trusted.

use super::*;
use tapvs::addr::Endpoint;
use tapvs::config::{OnDown, PassiveHealth, Scheduler};
use tapvs::dataplane::Event;
use tapvs::time::Duration;

/// Which server got the new flow of client 100.64.0.`n`; the text where none did.
fn visit(router: &mut Router, n: u8) -> String {
    let text = syn_of(router, n);
    match text.find("> server") {
        Some(at) if text.starts_with("forward in") || text.starts_with("held") => {
            text[at + 2..at + 10].to_string()
        }
        _ => text,
    }
}

fn syn_of(router: &mut Router, n: u8) -> String {
    router.feed(OUT, &tcp(&format!("100.64.0.{n}:9"), WEB, SYN, 1000, 0, b"").frame()).text()
}

fn visits(router: &mut Router, clients: std::ops::Range<u8>) -> Vec<String> {
    clients.map(|n| visit(router, n)).collect()
}

fn answer(router: &mut Router, server: u8, n: u8, flags: u8) {
    let frame =
        tcp(&format!("10.0.0.{server}:8080"), &format!("100.64.0.{n}:9"), flags, 5, 1001, b"");
    let text = router.feed(IN, &frame.frame()).text();
    assert!(text.starts_with("forward out"), "{text}");
}

fn with(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = config();
    change(&mut config);
    config
}

fn endpoint(n: u8) -> Endpoint {
    Endpoint { address: server_ip(n).into(), port: 8080 }
}

fn counted(picked: &[String], server: &str) -> usize {
    picked.iter().filter(|picked| *picked == server).count()
}

#[test]
fn the_fallback_serves_when_nobody_else_may_and_keeps_what_it_has() {
    let mut router = Router::new(with(|config| {
        config.services[0].servers.truncate(2);
        config.services[0].fallback = Some(server(99, 8080, 1));
    }));
    assert_eq!(visits(&mut router, 1..4), ["server11", "server12", "server11"]);
    router.down = [endpoint(11), endpoint(12)].into();
    router.change(|_| {});
    assert_eq!(visits(&mut router, 4..7), ["server99", "server99", "server99"]);
    assert_eq!(visit(&mut router, 1), "server11", "who is there already stays");
    let report = router.report();
    let fallback = &report.services[0].servers[2];
    assert_eq!(
        (fallback.name.as_str(), fallback.traffic.flows, fallback.load.active),
        ("server99", 3, 3)
    );
    answer(&mut router, 99, 4, SYN | ACK);

    router.down = [endpoint(11)].into();
    router.change(|_| {});
    assert_eq!(visits(&mut router, 7..9), ["server12", "server12"], "one is back");
    assert_eq!(visit(&mut router, 4), "server99", "its own flows stay with it");

    router.down = [endpoint(11), endpoint(12), endpoint(99)].into();
    router.change(|_| {});
    assert!(visit(&mut router, 9).starts_with("drop no_server\nout: "), "it can be down as well");
    router.down.clear();
    router.change(|config| {
        for server in &mut config.services[0].servers {
            server.weight = 0;
        }
    });
    assert_eq!(visit(&mut router, 10), "server99", "weights of 0 are a reason too");
}

/// A fallback is a server: with direct routing, as a server's own connections' end, and when it goes.
#[test]
fn a_fallback_is_a_server_like_others() {
    let mut router = Router::new(direct(with(|config| {
        config.services[0].servers.clear();
        config.services[0].fallback = Some(server(99, 80, 1));
    })));
    let step = syn_of(&mut router, 1);
    assert!(step.contains("in: router.in > server99 100.64.0.1 > 203.0.113.10"), "{step}");
    let id = router.table.services()[0].fallback.as_ref().unwrap().id;
    router.change(|config| {
        let fallback = config.services[0].fallback.take().unwrap();
        config.services[0].servers.push(fallback);
    });
    assert_eq!(router.table.services()[0].servers[0].id, id, "the same server in another place");
    router.change(|config| config.services[0].servers.clear());
    assert_eq!(router.events, []);
    router.advance(Duration::from_secs(200));
    assert_eq!(router.events, [Event::ServerRetired(id)]);
}

#[test]
fn a_dead_servers_datagrams_go_to_another_one() {
    let mut router = Router::new(with(|config| {
        config.services[1].lifecycle.on_down = OnDown::Reschedule;
        config.services[1].fallback = Some(server(99, 53, 1));
    }));
    let ask = |router: &mut Router, n: u8| {
        let text = router.feed(OUT, &udp(&format!("100.64.0.{n}:9"), DNS, b"?").frame()).text();
        text[text.find("> server").unwrap() + 2..][..8].to_string()
    };
    assert_eq!([1, 2, 3].map(|n| ask(&mut router, n)), ["server11", "server12", "server11"]);
    let dns = |n: u8| Endpoint { address: server_ip(n).into(), port: 53 };
    router.down = [dns(11)].into();
    router.change(|_| {});
    assert_eq!(ask(&mut router, 1), "server12", "before any walk");
    router.advance(Duration::from_millis(1));
    assert_eq!(router.flows().len(), 2, "the third client's is gone");
    assert_eq!([2, 3].map(|n| ask(&mut router, n)), ["server12", "server12"]);
    router.down.insert(dns(12));
    router.change(|_| {});
    assert_eq!([1, 2, 3].map(|n| ask(&mut router, n)), ["server99", "server99", "server99"]);
    router.down.clear();
    router.change(|_| {});
    router.advance(Duration::from_millis(1));
    assert_eq!(ask(&mut router, 1), "server99");
    let back = ask(&mut router, 4);
    assert!(["server11", "server12"].contains(&back.as_str()), "{back}");
}

fn slow(scheduler: Scheduler, weight: u16) -> Config {
    with(|config| {
        config.services[0].scheduler = scheduler;
        config.services[0].servers = vec![server(11, 8080, 1), server(12, 8080, weight)];
        config.services[0].lifecycle.slow_start = Some(Duration::from_secs(20));
    })
}

/// Ten flows each, then one server fails and loses them all: it gets as many back as its time in
/// service is worth, and no more.
#[test]
fn a_server_that_comes_back_starts_slowly() {
    for (scheduler, weight) in
        [(Scheduler::LeastConnection, 7), (Scheduler::WeightedLeastConnection, 1)]
    {
        let mut router = Router::sized(slow(scheduler, weight), 1_000);
        let start = visits(&mut router, 0..20);
        assert_eq!(counted(&start, "server12"), 10, "not at the start of the router");
        router.down = [endpoint(12)].into();
        router.change(|config| config.services[0].lifecycle.on_down = OnDown::Reset);
        for n in 0..20 {
            answer(&mut router, if n % 2 == 0 { 11 } else { 12 }, n, RST);
        }
        router.advance(Duration::from_secs(12));
        let alone = visits(&mut router, 30..46);
        assert_eq!(counted(&alone, "server11"), 16);
        router.down.clear();
        router.change(|_| {});
        assert_eq!(counted(&visits(&mut router, 50..60), "server12"), 1, "a try");
        router.advance(Duration::from_secs(5));
        let quarter = counted(&visits(&mut router, 60..70), "server12");
        assert!((4..=7).contains(&quarter), "{quarter} more, for about a quarter of 30");
        router.advance(Duration::from_secs(16));
        let whole = counted(&visits(&mut router, 70..110), "server12");
        assert!((27..=31).contains(&whole), "{whole} more make it even");
    }
}

#[test]
fn a_server_that_a_reload_adds_starts_slowly_and_where_it_is_off_at_once() {
    for (slow_start, expected) in [(true, 1), (false, 10)] {
        let mut router = Router::sized(slow(Scheduler::WeightedLeastConnection, 1), 1_000);
        visits(&mut router, 0..20);
        router.change(|config| {
            if !slow_start {
                config.services[0].lifecycle.slow_start = None;
            }
            config.services[0].servers.push(server(13, 8080, 1));
        });
        let picked = visits(&mut router, 20..30);
        assert_eq!(counted(&picked, "server13"), expected, "{picked:?}");
    }
}

fn watched(scheduler: Scheduler) -> Router {
    Router::sized(
        with(|config| {
            config.services[0].scheduler = scheduler;
            config.services[0].lifecycle.passive_health =
                Some(PassiveHealth { unanswered: 3, retry: Duration::from_secs(30) });
        }),
        1_000,
    )
}

fn silent(router: &Router, server: usize) -> Event {
    let service = &router.table.services()[0];
    Event::ServerSilent { service: service.id, server: service.servers[server].id }
}

/// Every client is answered but those of server 11; each repeats its SYN after a second.
fn clients_of_a_dead_server(router: &mut Router, clients: std::ops::Range<u8>) {
    let mut waiting = Vec::new();
    for n in clients {
        match visit(router, n).as_str() {
            "server11" => waiting.push(n),
            other => answer(router, other[6..].parse().unwrap(), n, SYN | ACK),
        }
    }
    router.advance(Duration::from_millis(1_000));
    for n in waiting {
        visit(router, n);
    }
}

#[test]
fn who_answers_nobody_is_not_chosen_until_a_retry() {
    for scheduler in [
        Scheduler::RoundRobin,
        Scheduler::WeightedRoundRobin,
        Scheduler::LeastConnection,
        Scheduler::WeightedLeastConnection,
    ] {
        let mut router = watched(scheduler);
        clients_of_a_dead_server(&mut router, 1..7);
        assert_eq!(router.events, [], "two clients of three");
        clients_of_a_dead_server(&mut router, 7..10);
        assert_eq!(router.events, [silent(&router, 0)], "{scheduler}");
        let picked = visits(&mut router, 20..32);
        assert_eq!(counted(&picked, "server11"), 0, "{scheduler}");
        assert_eq!(counted(&picked, "server12") + counted(&picked, "server13"), 12, "{scheduler}");
        // Another table that says nothing of it changes nothing.
        router.change(|config| config.services[0].name = "www".into());
        assert_eq!(counted(&visits(&mut router, 32..40), "server11"), 0, "{scheduler}");
        router.advance(Duration::from_secs(30));
        assert!(counted(&visits(&mut router, 40..52), "server11") > 0, "{scheduler}: the retry");
    }
}

#[test]
fn a_table_that_says_so_settles_it() {
    let mut router = watched(Scheduler::RoundRobin);
    clients_of_a_dead_server(&mut router, 1..10);
    assert_eq!(router.events, [silent(&router, 0)]);
    router.down = [endpoint(11)].into();
    router.change(|_| {});
    assert_eq!(counted(&visits(&mut router, 20..26), "server11"), 0);
    router.down.clear();
    router.change(|_| {});
    assert_eq!(counted(&visits(&mut router, 30..36), "server11"), 2, "up, whatever was before");
}

#[test]
fn one_client_or_an_answer_between_is_no_silence() {
    let mut router = watched(Scheduler::RoundRobin);
    router.change(|config| config.services[0].servers.truncate(1));
    for _ in 0..9 {
        visit(&mut router, 1);
        router.advance(Duration::from_millis(2_000));
    }
    assert_eq!(router.events.len(), 2, "the two servers that were removed: {:?}", router.events);
    router.events.clear();
    for (between, flags) in [(3, SYN | ACK), (6, RST | ACK)] {
        visit(&mut router, between - 1);
        visit(&mut router, between);
        router.advance(Duration::from_millis(1_000));
        visit(&mut router, between - 1);
        answer(&mut router, 11, between, flags);
    }
    assert_eq!(router.events, [], "each answer starts the count over");
    for n in 10..13 {
        visit(&mut router, n);
    }
    router.advance(Duration::from_millis(500));
    for n in 10..13 {
        visit(&mut router, n);
    }
    assert_eq!(router.events, [], "sent twice within half a second is not repeated");
    router.advance(Duration::from_secs(61));
    assert_eq!(router.events, [silent(&router, 0)], "timed out before they were open");
}

/// Nobody behind these addresses acknowledges or repeats anything; the server answers them all.
#[test]
fn a_flood_from_forged_addresses_takes_no_living_server_down() {
    let mut router = watched(Scheduler::RoundRobin);
    for n in 0..600_u16 {
        let [high, low] = n.to_be_bytes();
        let client = format!("100.65.{high}.{low}:9");
        let step = router.feed(OUT, &tcp(&client, WEB, SYN, 1000, 0, b"").frame());
        let server = format!("{}:8080", Read::frame(step.only()).unwrap().destination);
        router.feed(IN, &tcp(&server, &client, SYN | ACK, 5, 1001, b"").frame());
    }
    router.advance(Duration::from_secs(200));
    assert_eq!(router.flows(), [], "all have timed out half open");
    assert_eq!(router.events, []);
}

/// A server that does not even answer ARP is one that answers nobody.
#[test]
fn a_server_without_a_mac_is_silent_too() {
    let mut router = watched(Scheduler::RoundRobin);
    router.owner =
        |link, address| if address == server_ip(11) { None } else { owner(link, address) };
    router.advance(Duration::from_secs(60));
    router.events.clear();
    let picked = visits(&mut router, 1..10);
    assert_eq!(picked.iter().filter(|text| *text == "held").count(), 3, "{picked:?}");
    router.advance(Duration::from_secs(5));
    assert!(router.events.contains(&silent(&router, 0)), "{:?}", router.events);
    let picked = visits(&mut router, 10..19);
    assert_eq!(counted(&picked, "server12") + counted(&picked, "server13"), 9);
}
