//! Flows whose server was taken away: who is told, in which words, and who is left alone.

use super::*;
use tapvs::addr::Endpoint;
use tapvs::config::{OnDown, OnRemove, Scheduler};
use tapvs::dataplane::{Event, State};
use tapvs::time::Duration;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a round-robin service gives its first clients: a server each, by the client's port.
fn client(port: u16) -> String {
    format!("198.51.100.7:{port}")
}

fn says(router: &mut Router, port: u16, flags: u8, seq: u32, ack: u32) -> String {
    router.feed(OUT, &tcp(&client(port), WEB, flags, seq, ack, b"").frame()).text()
}

/// Opens a connection whose client expects 501 next and whose server expects 1001.
fn open(router: &mut Router, port: u16) {
    let syn = router.feed(OUT, &tcp(&client(port), WEB, SYN, 1000, 0, b"").frame());
    let seen = Read::frame(syn.only()).unwrap();
    let (client_port, server_port) = seen.ports().unwrap();
    if seen.destination != VIP {
        let (server, client) = (format!("{}:{server_port}", seen.destination), seen.source);
        let answer = tcp(&server, &format!("{client}:{client_port}"), SYN | ACK, 500, 1001, b"");
        assert!(router.feed(IN, &answer.frame()).text().starts_with("forward out"));
    }
    assert!(says(router, port, ACK, 1001, 501).starts_with("forward in"));
    assert_eq!(router.state(port), Some(State::Established));
}

fn resets(config: &mut Config) {
    for service in &mut config.services {
        service.lifecycle.on_remove = OnRemove::Reset;
    }
}

fn with(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = config();
    change(&mut config);
    config
}

fn remove_first(router: &mut Router) {
    router.change(|config| drop(config.services[0].servers.remove(0)));
}

fn lines(frames: Vec<(LinkId, Vec<u8>)>) -> Vec<String> {
    frames.iter().map(|(_, frame)| line(frame)).collect()
}

fn endpoint(n: u8, port: u16) -> Endpoint {
    Endpoint { address: server_ip(n).into(), port }
}

const ASKS: &str = "router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 0 df tcp 80 > 1 SA seq 500 ack 0 win 65535 data 0";
const ENDED: &str = "drop flow_ended
in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 64 id 0 df tcp 1 > 8080 R seq 1001 ack 0 win 0 data 0
out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 0 df tcp 80 > 1 R seq 501 ack 0 win 0 data 0";

const ASKS_HEX: &str = "020000000001020000000101080045000034000040004006d47ecb00710ac633640700509c40000001f4000000008012ffff71f100000101080a0000000000000000";
const TO_SERVER_HEX: &str = "02000000020b020000000102080045000028000040004006068bc63364070a00000b9c401f90010203040000000050040000bbc40000";
const TO_CLIENT_HEX: &str = "020000000001020000000101080045000028000040004006d48acb00710ac633640700509c40050607080000000050040000a0fc0000";

#[test]
fn a_removed_servers_client_is_asked_and_reset_and_nobody_else_notices() {
    let mut router = Router::new(with(resets));
    for port in 1..=3 {
        open(&mut router, port);
    }
    let gone = router.table.services()[0].servers[0].id;
    remove_first(&mut router);
    assert_eq!(lines(router.advance(millis(1))), [ASKS]);
    assert_eq!(router.state(1), Some(State::Established), "the client has not heard of it yet");
    assert_eq!(says(&mut router, 1, ACK, 1001, 501), ENDED);
    assert_eq!(router.state(1), Some(State::Close));
    assert_eq!(says(&mut router, 1, ACK, 1001, 501), ENDED, "what was on its way is told again");
    for port in [2, 3] {
        assert!(says(&mut router, port, ACK, 1001, 501).starts_with("forward in"), "{port}");
    }
    // Resets may get lost: this one is repeated after one second and three.
    let reset = ENDED.lines().last().unwrap().strip_prefix("out: ").unwrap();
    for (passes, expected) in [(990, 0), (20, 1), (1_970, 0), (30, 1), (6_900, 0)] {
        let told = lines(router.advance(millis(passes)));
        assert_eq!(told, vec![reset; expected], "after {passes} ms more");
    }
    assert_eq!(router.events, []);
    assert_eq!(router.advance(millis(200)), []);
    let ended = Event::FlowsEnded { server: at(SERVER11), ended: 1 };
    assert_eq!(router.events, [Event::ServerRetired(gone), ended]);
    assert_eq!(router.flows().len(), 2);
}

/// Byte by byte: timestamp option, sums and all.
#[test]
fn the_words_on_the_wire() {
    let mut router = Router::new(with(resets));
    open(&mut router, 40000);
    remove_first(&mut router);
    let asks = router.advance(millis(1));
    assert_eq!(hex(&asks[0].1), ASKS_HEX);
    let step = router.feed(OUT, &tcp(CLIENT, WEB, ACK, 0x0102_0304, 0x0506_0708, b"").frame());
    let [(IN, to_server), (OUT, to_client)] = &step.out[..] else { panic!("{}", step.text()) };
    assert_eq!(hex(to_server), TO_SERVER_HEX);
    assert_eq!(hex(to_client), TO_CLIENT_HEX);
}

/// A client that answers nothing is asked three times and forgotten after ten seconds.
#[test]
fn a_silent_client_is_asked_again_and_forgotten() {
    let mut router = Router::new(with(resets));
    open(&mut router, 1);
    let gone = router.table.services()[0].servers[0].id;
    remove_first(&mut router);
    for (passes, asked) in [(1, 1), (990, 0), (20, 1), (1_970, 0), (30, 1), (6_900, 0)] {
        assert_eq!(router.advance(millis(passes)).len(), asked, "after {passes} ms more");
        assert_eq!(router.flows().len(), 1);
    }
    assert_eq!(router.advance(millis(200)), []);
    assert_eq!(router.flows(), []);
    let ended = Event::FlowsEnded { server: at(SERVER11), ended: 1 };
    assert_eq!(router.events, [Event::ServerRetired(gone), ended]);
    assert_eq!(router.dataplane.poll_timeout().filter(|due| *due <= router.now), None);
}

#[test]
fn what_the_server_says_resets_the_server_alone() {
    let mut router = Router::new(with(resets));
    open(&mut router, 1);
    remove_first(&mut router);
    router.advance(millis(1));
    let data = tcp(SERVER11, &client(1), ACK | PSH, 501, 1001, b"late");
    assert_eq!(
        router.feed(IN, &data.frame()).text(),
        "drop flow_ended\nin: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 64 id 0 df tcp 1 > 8080 R seq 1001 ack 0 win 0 data 0"
    );
    assert_eq!(
        says(&mut router, 1, ACK, 1001, 501),
        ENDED,
        "the client expects the same as before"
    );
}

#[test]
fn what_is_damaged_or_a_reset_itself_is_not_answered() {
    let mut router = Router::new(with(resets));
    open(&mut router, 1);
    remove_first(&mut router);
    router.advance(millis(1));
    let damaged = tcp(&client(1), WEB, ACK, 1001, 501, b"").bad_sum();
    assert_eq!(router.feed(OUT, &damaged.frame()).text(), "drop flow_ended");
    let bare = tcp(&client(1), WEB, PSH, 1001, 501, b"x");
    assert_eq!(router.feed(OUT, &bare.frame()).text(), "drop flow_ended");
    let passed_on = says(&mut router, 1, RST, 1001, 0);
    assert!(passed_on.starts_with("forward in\nin: router.in > server11"), "{passed_on}");
    assert_eq!(router.state(1), Some(State::Close));
}

/// Two services share a server and a client uses one port for both: each end is reset in its own words.
#[test]
fn translated_ports_are_those_of_each_side() {
    let mut router = Router::new(with(|config| {
        resets(config);
        config.services[0].servers.truncate(1);
        config.services.push(service(Proto::Tcp, 81, vec![server(11, 8080, 1)]));
        config.services[2].lifecycle.on_remove = OnRemove::Reset;
    }));
    open(&mut router, 1);
    let syn = router.feed(OUT, &tcp(&client(1), "203.0.113.10:81", SYN, 1000, 0, b"").frame());
    let (port, _) = Read::frame(syn.only()).unwrap().ports().unwrap();
    assert_ne!(port, 1);
    let to = format!("198.51.100.7:{port}");
    router.feed(IN, &tcp(SERVER11, &to, SYN | ACK, 700, 1001, b"").frame());
    let ack = |seq, ack| tcp(&client(1), "203.0.113.10:81", ACK, seq, ack, b"").frame();
    router.feed(OUT, &ack(1001, 701));
    router.change(|config| drop(config.services.remove(2)));
    assert_eq!(
        lines(router.advance(millis(1))),
        [
            "router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 0 df tcp 81 > 1 SA seq 700 ack 0 win 65535 data 0"
        ]
    );
    assert_eq!(
        router.feed(OUT, &ack(1001, 701)).text(),
        format!(
            "drop flow_ended\nin: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 64 id 0 df tcp {port} > 8080 R seq 1001 ack 0 win 0 data 0
out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 0 df tcp 81 > 1 R seq 701 ack 0 win 0 data 0"
        )
    );
    assert!(says(&mut router, 1, ACK, 1001, 501).starts_with("forward in"), "the other service's");
}

/// A client among the servers: the server knows it by the gateway's address.
#[test]
fn a_neighbour_of_the_servers_is_reset_too() {
    let mut router = Router::new(with(resets));
    let near = "10.0.0.50:9";
    let syn = router.feed(IN, &tcp(near, WEB, SYN, 1000, 0, b"").frame());
    let seen = Read::frame(syn.only()).unwrap();
    assert_eq!(seen.source, INNER_VIP, "{}", syn.text());
    router.feed(IN, &tcp(SERVER11, "10.0.0.1:9", SYN | ACK, 500, 1001, b"").frame());
    router.feed(IN, &tcp(near, WEB, ACK, 1001, 501, b"").frame());
    remove_first(&mut router);
    assert_eq!(
        lines(router.advance(millis(1))),
        [
            "router.in > server50 203.0.113.10 > 10.0.0.50 ttl 64 id 0 df tcp 80 > 9 SA seq 500 ack 0 win 65535 data 0"
        ]
    );
    assert_eq!(
        router.feed(IN, &tcp(near, WEB, ACK, 1001, 501, b"").frame()).text(),
        "drop flow_ended
in: router.in > server11 10.0.0.1 > 10.0.0.11 ttl 64 id 0 df tcp 9 > 8080 R seq 1001 ack 0 win 0 data 0
in: router.in > server50 203.0.113.10 > 10.0.0.50 ttl 64 id 0 df tcp 80 > 9 R seq 501 ack 0 win 0 data 0"
    );
}

/// The client's segments are all that the router sees, and enough. The virtual IP speaks to both.
#[test]
fn a_direct_flow_is_ended_from_the_clients_segments() {
    let mut router = Router::new(direct(with(resets)));
    open(&mut router, 1);
    remove_first(&mut router);
    let asks = ASKS.replace("seq 500", "seq 0");
    assert_eq!(lines(router.advance(millis(1))), [asks]);
    assert_eq!(
        says(&mut router, 1, ACK, 1001, 501),
        "drop flow_ended
in: router.in > server11 198.51.100.7 > 203.0.113.10 ttl 64 id 0 df tcp 1 > 80 R seq 1001 ack 0 win 0 data 0
out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 0 df tcp 80 > 1 R seq 501 ack 0 win 0 data 0"
    );
}

/// A server that is dead is not waited for: its client is.
#[test]
fn a_dead_server_is_not_told() {
    let mut router = Router::new(with(resets));
    open(&mut router, 1);
    router.owner =
        |link, address| if address == server_ip(11) { None } else { owner(link, address) };
    router.advance(Duration::from_secs(60));
    remove_first(&mut router);
    router.advance(millis(1));
    let text = says(&mut router, 1, ACK, 1001, 501);
    let [dropped, _, to_client] = ENDED.lines().collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!(text, format!("{dropped}\n{to_client}"));
}

/// Whoever is about to connect repeats the SYN: another server takes it, or it is refused as at a
/// closed port.
#[test]
fn a_client_that_just_connects_gets_another_server_or_is_refused() {
    let mut router = Router::new(with(resets));
    says(&mut router, 1, SYN, 1000, 0);
    remove_first(&mut router);
    assert_eq!(router.advance(millis(1)), [], "a client that waits for an answer is not asked");
    let again = says(&mut router, 1, SYN, 1000, 0);
    assert!(again.starts_with("forward in\nin: router.in > server12"), "{again}");
    assert_eq!(router.flows().len(), 1);

    let mut router = Router::new(with(resets));
    says(&mut router, 1, SYN, 1000, 0);
    router.change(|config| drop(config.services.remove(0)));
    router.advance(millis(1));
    assert_eq!(
        says(&mut router, 1, SYN, 1000, 0),
        "drop unserved\nout: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 0 df tcp 80 > 1 RA seq 0 ack 1001 win 0 data 0"
    );
}

/// The server has answered, and the client's acknowledgement is on its way.
#[test]
fn a_client_that_has_just_connected_is_reset() {
    let mut router = Router::new(with(resets));
    says(&mut router, 1, SYN, 1000, 0);
    router.feed(IN, &tcp(SERVER11, &client(1), SYN | ACK, 500, 1001, b"").frame());
    remove_first(&mut router);
    assert_eq!(router.advance(millis(1)), []);
    assert_eq!(says(&mut router, 1, ACK, 1001, 501), ENDED);
}

#[test]
fn what_is_closing_ends_by_itself() {
    let mut router = Router::new(with(resets));
    for port in 1..=3 {
        open(&mut router, port);
    }
    says(&mut router, 1, FIN | ACK, 1001, 501);
    assert_eq!(router.state(1), Some(State::CloseWait));
    remove_first(&mut router);
    assert_eq!(router.advance(Duration::from_secs(20)), []);
    let fin = tcp(SERVER11, &client(1), FIN | ACK, 501, 1002, b"").frame();
    assert!(router.feed(IN, &fin).text().starts_with("forward out"));
    assert_eq!(router.state(1), Some(State::TimeWait));
    assert_eq!(router.events, [], "nothing was ended");
}

#[test]
fn datagrams_go_to_another_server_or_are_refused() {
    let dns = |n: u8| udp(CLIENT, DNS, &[n]).frame();
    let mut router = Router::new(with(resets));
    let first = router.feed(OUT, &dns(1)).text();
    assert!(first.contains("server11"), "{first}");
    router.change(|config| drop(config.services[1].servers.remove(0)));
    let next = router.feed(OUT, &dns(2)).text();
    assert!(next.contains("server12"), "at once, whatever the walk has seen: {next}");
    router.advance(millis(1));
    assert_eq!(router.flows().len(), 1);
    router.change(|config| config.services[1].servers.clear());
    router.advance(millis(1));
    assert_eq!(router.flows(), []);
    let refused = router.feed(OUT, &dns(3)).text();
    assert!(refused.starts_with("drop no_server\nout: "), "{refused}");
    assert!(refused.contains("icmp 3/3"), "{refused}");
}

#[test]
fn a_drain_has_a_deadline_and_whoever_comes_back_before_is_spared() {
    let drains = |config: &mut Config| {
        config.services[0].lifecycle.drain_timeout = Some(Duration::from_secs(30));
    };
    let mut router = Router::new(with(drains));
    for port in 1..=3 {
        open(&mut router, port);
    }
    let whole = router.config.clone();
    remove_first(&mut router);
    assert_eq!(router.advance(Duration::from_secs(20)), []);
    router.reload(whole);
    assert_eq!(router.advance(Duration::from_secs(20)), [], "it came back");
    assert!(says(&mut router, 1, ACK, 1001, 501).starts_with("forward in"));

    router.change(|config| drop(config.services[0].servers.remove(1)));
    assert_eq!(router.advance(millis(29_990)), []);
    assert!(says(&mut router, 2, ACK, 1001, 501).starts_with("forward in"));
    assert_eq!(lines(router.advance(millis(20))), [ASKS.replace("> 1 SA", "> 2 SA")]);
    assert!(says(&mut router, 2, ACK, 1001, 501).starts_with("drop flow_ended\nin: "));
}

/// Given back while its clients are being asked: those that have not answered yet are spared.
#[test]
fn a_server_that_comes_back_spares_who_was_not_reset_yet() {
    let mut router = Router::new(with(resets));
    for port in 1..=4 {
        open(&mut router, port);
    }
    let whole = router.config.clone();
    remove_first(&mut router);
    assert_eq!(router.advance(millis(1)).len(), 2);
    assert_eq!(says(&mut router, 1, ACK, 1001, 501), ENDED);
    router.reload(whole);
    let spared = says(&mut router, 4, ACK, 1001, 501);
    assert!(spared.starts_with("forward in\nin: router.in > server11"), "{spared}");
    assert_eq!(router.advance(Duration::from_secs(30)), []);
    assert!(says(&mut router, 4, ACK, 1001, 501).starts_with("forward in"));
}

#[test]
fn an_operators_drain_has_the_same_deadline() {
    let mut router = Router::new(with(|config| {
        config.services[0].lifecycle.drain_timeout = Some(Duration::from_secs(30));
    }));
    open(&mut router, 1);
    let drain = |router: &mut Router, drained: bool| {
        router.drained = if drained { [endpoint(11, 8080)].into() } else { [].into() };
        router.change(|config| config.services[0].servers[0].weight = u16::from(!drained));
    };
    drain(&mut router, true);
    assert_eq!(router.advance(Duration::from_secs(20)), []);
    drain(&mut router, false);
    assert_eq!(router.advance(Duration::from_secs(20)), [], "undrained in time");
    drain(&mut router, true);
    router.change(|config| config.services[0].servers[1].weight = 3);
    assert_eq!(router.advance(millis(29_990)), []);
    assert_eq!(lines(router.advance(millis(20))), [ASKS]);
    assert_eq!(says(&mut router, 1, ACK, 1001, 501), ENDED);
    router.advance(Duration::from_secs(15));
    let ended = Event::FlowsEnded { server: at(SERVER11), ended: 1 };
    assert_eq!(router.events, [ended], "it is still configured");
    // A weight of 0 alone is no drain.
    open(&mut router, 2);
    router.change(|config| config.services[0].servers[1].weight = 0);
    assert_eq!(router.advance(Duration::from_secs(60)), []);
}

#[test]
fn a_dead_servers_flows_are_kept_or_reset_and_spared_when_it_lives() {
    for (on_down, asked) in [(OnDown::Keep, 0), (OnDown::Reset, 1)] {
        let mut router = Router::new(with(|config| config.services[0].lifecycle.on_down = on_down));
        open(&mut router, 1);
        router.down = [endpoint(11, 8080)].into();
        router.change(|_| {});
        assert_eq!(router.table.services()[0].servers[0].weight, 0);
        assert_eq!(router.table.services()[0].servers[0].configured_weight, 1);
        assert_eq!(router.advance(millis(1)).len(), asked, "{on_down}");
        router.down.clear();
        router.change(|_| {});
        assert_eq!(router.advance(Duration::from_secs(20)), []);
        assert!(says(&mut router, 1, ACK, 1001, 501).starts_with("forward in"), "{on_down}");
    }
}

#[test]
fn reload_after_reload_and_ids_used_again_mix_nothing_up() {
    let mut router = Router::new(with(resets));
    for port in 1..=6 {
        open(&mut router, port);
    }
    let gone = [0, 1].map(|at: usize| router.table.services()[0].servers[at].id);
    remove_first(&mut router);
    router.advance(millis(1));
    router.change(|config| config.networks[0].mss_clamp = Some(1_400));
    assert_eq!(says(&mut router, 1, ACK, 1001, 501), ENDED, "a reload later");
    remove_first(&mut router);
    assert_eq!(router.advance(millis(1)).len(), 2, "the second server's, beside the first's");
    router.advance(Duration::from_secs(12));
    assert_eq!(router.flows().len(), 2, "the third server's");
    router.change(|config| config.services[0].servers.push(server(14, 8080, 1)));
    assert!(gone.contains(&router.table.services()[0].servers[1].id), "used again");
    for port in 7..=10 {
        open(&mut router, port);
    }
    assert_eq!(router.advance(Duration::from_secs(20)), [], "nobody ends what is new");
    assert_eq!(router.flows().len(), 6);
}

/// The walk is done in small steps, and clients are asked at a bounded pace.
#[test]
fn many_flows_are_ended_in_small_steps() {
    const FLOWS: u32 = 6_000;
    let mut config = with(resets);
    config.services[0].servers.truncate(1);
    let mut router = Router::sized(config, 10_000);
    let address = |n: u32| format!("100.64.{}.{}:9", n / 250, n % 250 + 1);
    for n in 0..FLOWS {
        let client = address(n);
        router.feed(OUT, &tcp(&client, WEB, SYN, 1000, 0, b"").frame());
        router.feed(IN, &tcp(SERVER11, &client, SYN | ACK, 500, 1001, b"").frame());
        router.feed(OUT, &tcp(&client, WEB, ACK, 1001, 501, b"").frame());
    }
    router.change(|config| config.services[0].servers[0].endpoint.port = 8081);
    let (began, mut asked, mut turns) = (router.now, 0, 0);
    while asked < FLOWS as usize {
        router.now = router.dataplane.poll_timeout().unwrap().max(router.now);
        router.dataplane.handle_timeout(&router.table, router.now);
        let now = router.transmits().len();
        assert!(now <= 128, "{now} in one turn");
        asked += now;
        turns += 1;
        let passed = usize::try_from((router.now - began).total_millis()).unwrap();
        assert!(asked <= 64 + passed * 50, "{asked} within {passed} ms");
        assert!(turns < 1_000);
    }
    assert_eq!(asked, FLOWS as usize, "each once");
    assert!(router.now - began < millis(500), "{}", router.now - began);
    for n in 0..FLOWS {
        let step = router.feed(OUT, &tcp(&address(n), WEB, ACK, 1001, 501, b"").frame());
        assert_eq!(step.out.len(), 2, "{n}: {}", step.text());
    }
    router.advance(Duration::from_secs(12));
    assert_eq!(router.flows(), []);
    let ended = Event::FlowsEnded { server: at(SERVER11), ended: FLOWS };
    assert!(router.events.contains(&ended), "{:?}", router.events);
}

/// 200 reloads under 1,000 connections: a server's leaving breaks those of the service that says so,
/// and no other one.
#[test]
fn two_hundred_reloads_break_only_what_they_are_told_to() {
    const CLIENTS: u32 = 500;
    const PORTS: [u16; 2] = [80, 81];
    let mut router = Router::sized(
        with(|config| {
            config.services[1] = service(Proto::Tcp, PORTS[1], config.services[0].servers.clone());
            config.services[1].servers.iter_mut().for_each(|server| server.endpoint.port = 8081);
            config.services[1].lifecycle.on_remove = OnRemove::Reset;
        }),
        4_000,
    );
    let whole = router.config.clone();
    let client = |n: u32| format!("100.64.{}.{}:9", n / 250, n % 250 + 1);
    let says = |router: &mut Router, n: u32, at: usize, flags: u8| {
        let vip = format!("203.0.113.10:{}", PORTS[at]);
        let (seq, ack) = if flags == SYN { (1000, 0) } else { (1001, 501) };
        router.feed(OUT, &tcp(&client(n), &vip, flags, seq, ack, b"").frame())
    };
    // By client and service: the server.
    let mut alive = std::collections::BTreeMap::new();
    for n in 0..CLIENTS {
        for at in [0, 1] {
            let server = Read::frame(says(&mut router, n, at, SYN).only()).unwrap().destination;
            let address = format!("{server}:{}", 8080 + at);
            router.feed(IN, &tcp(&address, &client(n), SYN | ACK, 500, 1001, b"").frame());
            says(&mut router, n, at, ACK);
            alive.insert((n, at), server);
        }
    }
    assert_eq!(router.flows().len(), 1_000);
    let mut random = random::Random::new(7);
    let mut broken = 0;
    for round in 0..200 {
        let mut next = whole.clone();
        for service in &mut next.services {
            // Nobody of the second service goes before half of the way.
            service.servers.retain(|_| random.percent(if round < 100 { 100 } else { 97 }));
            if service.port == PORTS[0] {
                service.servers.retain(|_| random.percent(50));
            }
            for server in &mut service.servers {
                server.weight = u16::from(random.byte());
            }
            service.scheduler = *random.pick(&[Scheduler::RoundRobin, Scheduler::LeastConnection]);
        }
        router.reload(next);
        router.advance(millis(20));
        let there: Vec<_> =
            router.config.services[1].servers.iter().map(|s| s.endpoint.address).collect();
        alive.retain(|(n, at), server| {
            let step = says(&mut router, *n, *at, ACK);
            let goes_on = *at == 0 || there.contains(&std::net::IpAddr::V4(*server));
            let expected = if goes_on { "forward in" } else { "drop flow_ended" };
            assert!(step.text().starts_with(expected), "round {round}, {n}: {}", step.text());
            broken += u32::from(!goes_on);
            goes_on
        });
    }
    assert!(broken > 100, "{broken} of the second service's");
    assert_eq!(alive.keys().filter(|(_, at)| *at == 0).count(), 500, "none of the first's");
}

/// For the list of all reasons.
pub(crate) fn a_client_reset() -> Router {
    let mut router = Router::new(with(resets));
    open(&mut router, 1);
    remove_first(&mut router);
    router.advance(millis(1));
    says(&mut router, 1, ACK, 1001, 501);
    router
}
