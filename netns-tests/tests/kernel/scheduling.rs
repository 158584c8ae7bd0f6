//! How clients are given to real servers: each scheduler, persistence, groups, ranges of ports, all
//! ports, datagrams one by one, thresholds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::harness::rig_trial;
use netns_tests::tcp::{Client, EchoServer};
use netns_tests::udp::{self, UdpEchoServer};
use netns_tests::{CLIENT, Outcome, Rig, Service, VIP, config, ensure, eventually, server_address};

use crate::control::ask;
use crate::nat::echo_servers;

/// Each scheduler, and how many of the three servers 12 connections of one client see, one at a time
/// and all at once, with weights 1, 2 and 3.
const SCHEDULERS: [(&str, usize, usize); 14] = [
    ("rr", 3, 3),
    ("wrr", 3, 3),
    ("lc", 3, 3),
    ("wlc", 3, 3),
    ("sed", 1, 3),
    ("nq", 1, 3),
    ("sh", 1, 1),
    ("dh", 1, 1),
    ("mh", 1, 1),
    ("fo", 1, 1),
    ("ovf", 1, 3),
    ("lblc", 1, 3),
    ("lblcr", 1, 3),
    ("twos", 0, 3),
];

pub(crate) fn trials() -> Vec<Trial> {
    let web = || vec![Service::tcp(80).three(8080)];
    let persistent = || {
        let brief = "persistence = { timeout = \"6s\" }\n\
                     timeouts = { time_wait = \"1s\", close = \"1s\", close_wait = \"1s\" }";
        vec![Service::tcp(80).three(8080).with(brief)]
    };
    let group = || {
        let shop = "group = \"shop\"\npersistence = {}";
        vec![
            Service::tcp(80).with(shop).three(0),
            Service::tcp(443).member_of("shop"),
            Service::udp(443).member_of("shop"),
        ]
    };
    let ports = || {
        vec![
            Service::tcp(0).with("persistence = {}").server(0, 0, 1),
            Service::tcp(1).range("8000-8100").server(1, 0, 1),
            Service::tcp(8050).server(2, 8080, 1),
        ]
    };
    let dns = || {
        let one_by_one = "one_packet = true\nudp_timeout = \"500ms\"";
        vec![Service::udp(53).three(5353).with(one_by_one)]
    };
    vec![
        rig_trial("every_scheduler_serves_real_clients", web, every_scheduler),
        rig_trial("a_client_gets_its_server_again", persistent, persistence),
        rig_trial("a_group_shares_one_choice_across_ports_and_protocols", group, across_ports),
        rig_trial("a_range_and_all_ports_reach_the_port_that_was_called", ports, narrowest),
        rig_trial("datagrams_are_scheduled_one_by_one_and_answered", dns, one_packet),
        rig_trial("a_full_server_gets_no_more_connections", web, thresholds),
    ]
}

fn every_scheduler(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    for (name, one_by_one, at_once) in SCHEDULERS {
        let weighted = |scheduler| {
            let servers = Service::tcp(80).server(0, 8080, 1).server(1, 8080, 2);
            [servers.server(2, 8080, 3).scheduler(scheduler)]
        };
        // Nothing is left of the scheduler before, nor of its connections.
        take_over(rig, &[])?;
        take_over(rig, &weighted(name))?;
        let mut seen = BTreeSet::new();
        for _ in 0..12 {
            let client = Client::connect(&rig.client, (VIP, 80))?;
            seen.insert(client.server.clone());
            client.close()?;
        }
        let exact = one_by_one > 0 && !matches!(name, "lc" | "wlc");
        ensure!(!exact || seen.len() == one_by_one, "{name}, one at a time: {seen:?}");
        let mut clients = Vec::new();
        // With one more than its weight a server has enough for ovf, and then there is none.
        for _ in 0..if name == "ovf" { 9 } else { 24 } {
            clients.push(Client::connect(&rig.client, (VIP, 80))?);
        }
        let seen: BTreeSet<_> = clients.iter().map(|client| client.server.clone()).collect();
        ensure!(seen.len() == at_once, "{name}, all at once: {seen:?}");
        for mut client in clients {
            client.echo(name.as_bytes())?;
            client.close()?;
        }
    }
    Ok(())
}

/// As a reload, until the frames are looked at with it.
fn take_over(rig: &Rig, services: &[Service]) -> Outcome {
    rig.write_config(&config(rig.scratch.path(), services))?;
    ask(rig, &["reload"]).map(drop)
}

fn persistence(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let rig = &*rig;
    let visit = || -> Outcome<String> {
        let client = Client::connect(&rig.client, (VIP, 80))?;
        let server = client.server.clone();
        client.close()?;
        Ok(server)
    };
    let first = visit()?;
    for _ in 0..6 {
        let again = visit()?;
        ensure!(again == first, "from {first} to {again}");
    }
    let listed = || ask(rig, &["flows", "--persistent"]);
    let text = listed()?;
    ensure!(text.contains(&format!("{CLIENT}:0")) && text.contains("PERSISTENT"), "{text}");
    // Its connections are gone by then.
    let is_forgotten = || listed().is_ok_and(|text| !text.contains("PERSISTENT"));
    ensure!(eventually(Duration::from_secs(20), is_forgotten), "{}", listed()?);
    let next = visit()?;
    ensure!(next != first, "nobody should have known it any more");
    Ok(())
}

fn across_ports(rig: &mut Rig) -> Outcome {
    let _plain = echo_servers(rig, 80)?;
    let _tls = echo_servers(rig, 443)?;
    let numbered = rig.servers.iter().enumerate();
    let _quic = numbered
        .map(|(number, namespace)| {
            UdpEchoServer::start(namespace, (server_address(number), 443), &number.to_string())
        })
        .collect::<Outcome<Vec<_>>>()?;
    let first = Client::connect(&rig.client, (VIP, 80))?;
    for port in [443, 80, 443] {
        let client = Client::connect(&rig.client, (VIP, port))?;
        ensure!(client.server == first.server, "{} at {port}", client.server);
        client.close()?;
    }
    let socket = udp::client(&rig.client, CLIENT, (VIP, 443))?;
    let answer = udp::ask(&socket, b"hello")?;
    ensure!(udp::parts(&answer)?.0 == first.server, "{answer} by UDP, {} by TCP", first.server);
    let text = ask(rig, &["services", "--interval", "0", "--json"])?;
    ensure!(text.lines().count() == 1 && text.contains("\"shop\""), "{text}");
    first.close()
}

fn narrowest(rig: &mut Rig) -> Outcome {
    let listen = |number: usize, port| {
        EchoServer::start(&rig.servers[number], (server_address(number), port), &port.to_string())
    };
    let _servers =
        [(0, 80), (0, 9_999), (0, 8_101), (1, 8_000), (1, 8_051), (1, 8_100), (2, 8_080)]
            .into_iter()
            .map(|(number, port)| listen(number, port))
            .collect::<Outcome<Vec<_>>>()?;
    for (port, server) in [
        (80, "80"),
        (9_999, "9999"),
        (8_101, "8101"),
        (8_000, "8000"),
        (8_051, "8051"),
        (8_100, "8100"),
        (8_050, "8080"),
    ] {
        let mut client = Client::connect(&rig.client, (VIP, port))?;
        ensure!(client.server == server, "port {port} was answered at {}", client.server);
        client.echo(b"as it was called")?;
        client.close()?;
    }
    Ok(())
}

fn one_packet(rig: &mut Rig) -> Outcome {
    let numbered = rig.servers.iter().enumerate();
    let _servers = numbered
        .map(|(number, namespace)| {
            UdpEchoServer::start(namespace, (server_address(number), 5353), &number.to_string())
        })
        .collect::<Outcome<Vec<_>>>()?;
    let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    let mut visits = BTreeMap::new();
    for _ in 0..12 {
        let answer = udp::ask(&socket, b"who?")?;
        *visits.entry(udp::parts(&answer)?.0.to_owned()).or_insert(0) += 1;
    }
    let even = ["0", "1", "2"].map(|server| (server.to_owned(), 4)).into();
    ensure!(visits == even, "12 datagrams of one socket went {visits:?}");
    let text = ask(rig, &["services", "--interval", "0", "--json"])?;
    ensure!(text.contains("\"connections\":12"), "each is a connection: {text}");
    ensure!(text.contains("\"inactive\":0"), "and none of them stays: {text}");
    Ok(())
}

fn thresholds(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let text = config(rig.scratch.path(), &[Service::tcp(80).three(8080)]);
    let limited = text.replacen("weight = 1\n", "weight = 1\nmax_flows = 2\n", 1);
    rig.write_config(&limited)?;
    ask(rig, &["reload"])?;
    let clients =
        (0..12).map(|_| Client::connect(&rig.client, (VIP, 80))).collect::<Outcome<Vec<_>>>()?;
    let mut visits = BTreeMap::new();
    for client in &clients {
        *visits.entry(client.server.clone()).or_insert(0) += 1;
    }
    let limited = [("0", 2), ("1", 5), ("2", 5)].map(|(s, n)| (s.to_owned(), n)).into();
    ensure!(visits == limited, "12 connections went {visits:?}");
    let text = ask(rig, &["services", "--interval", "0"])?;
    ensure!(text.contains("overloaded, max_flows 2"), "{text}");
    clients.into_iter().try_for_each(Client::close)
}
