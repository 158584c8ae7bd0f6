//! Health checks with real servers: each kind with one that dies, hangs or says the wrong thing, and
//! comes back; what clients notice of it; nobody left; through the virtual IP.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netns_tests::cable::{add_route, within};
use netns_tests::direct::{Direct, Topology};
use netns_tests::harness::{built_trial, rig_trial};
use netns_tests::http::{self, HttpServer, Mood};
use netns_tests::tcp::{Client, EchoServer, connect};
use netns_tests::udp::{self, UdpEchoServer};
use netns_tests::{
    CLIENT, CLIENT_TAP, Context as _, GATEWAY, Outcome, Rig, SERVER_NIC, Service, VIP, ensure,
    eventually, server_address,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tapvs::links::{LinkError, Netlink};

use crate::control::{ask, ask_json};
use crate::nat::echo_servers;

/// Fast, and with room for a loaded machine.
const PACE: &str = "interval = \"200ms\", timeout = \"150ms\", fall = 3, rise = 2";

pub(crate) fn trials() -> Vec<Trial> {
    let tcp = || vec![checked(Service::tcp(80).three(8080), "tcp", "")];
    let http = || {
        let expected = "path = \"/up\", status = \"200-299\", body = \"well\"";
        vec![checked(Service::tcp(80).three(8080), "http", expected)]
    };
    let ping = || vec![checked(Service::tcp(80).three(8080), "ping", "")];
    let udp = || {
        let expected = "payload = \"ping\", answer = \"ping\"";
        vec![checked(Service::udp(53).three(5353), "udp", expected)]
    };
    let plain_udp = || vec![checked(Service::udp(53).three(5353), "udp", "")];
    let proved = || vec![checked(Service::tcp(80).three(8080), "tcp", "initial = \"down\"")];
    let fallback = || {
        let address = server_address(0);
        let fallback = format!("fallback = {{ address = \"{address}\", port = 9090 }}");
        vec![checked(Service::tcp(80).three(8080), "tcp", "").with(&fallback)]
    };
    let passive = || {
        let passive = "passive_health = { unanswered = 3, retry = \"2s\" }";
        vec![Service::tcp(80).three(8080).with(passive)]
    };
    // A service each, so that nothing is shared but the servers.
    let many = || {
        let service = |port| {
            let health = "health = { kind = \"tcp\", interval = \"1s\" }";
            Service::tcp(port).three(8080).with(health)
        };
        (1_000..2_000).map(service).collect()
    };
    vec![
        rig_trial("tcp_checks_see_a_process_die_and_come_back", tcp, process_dies),
        rig_trial("tcp_checks_see_a_machine_die_and_come_back", tcp, machine_dies),
        rig_trial("tcp_checks_leave_nothing_open_on_the_server", tcp, nothing_is_left),
        rig_trial("http_checks_see_every_mood", http, moods),
        rig_trial("ping_checks_see_a_machine_die_and_come_back", ping, stops_answering_pings),
        rig_trial("udp_checks_want_their_answer", udp, udp_answers),
        rig_trial("udp_checks_see_a_closed_port", plain_udp, udp_port_closes),
        rig_trial("with_nobody_left_clients_are_refused_at_once", tcp, nobody_left),
        rig_trial("with_nobody_left_the_fallback_serves", fallback, falls_back),
        rig_trial("a_server_that_must_be_proved_gets_nothing_before", proved, must_be_proved),
        rig_trial("clients_connections_tell_on_a_silent_server", passive, silent_to_clients),
        rig_trial("three_thousand_checks_a_second_are_on_time", many, on_time),
        through_the_virtual_ip("virtual_ip_checks_on_one_network", Topology::OneNetwork),
        through_the_virtual_ip("virtual_ip_checks_on_two_networks", Topology::TwoNetworks),
    ]
}

fn checked(service: Service, kind: &str, more: &str) -> Service {
    let comma = if more.is_empty() { "" } else { ", " };
    service.with(&format!("health = {{ kind = \"{kind}\", {PACE}{comma}{more} }}"))
}

/// Does something, and waits until the router says all of `words` in one line.
fn until(rig: &Rig, words: &[&str], act: impl FnOnce() -> Outcome) -> Outcome<String> {
    let before = rig.router.log().len();
    act()?;
    rig.router.wait_for(before, words)
}

fn name(server: usize, port: u16) -> String {
    format!(" server={}:{port} ", server_address(server))
}

/// Waits until all servers have been found well: the router was there before them.
fn all_well(rig: &Rig) -> Outcome {
    let is_well = |server: &serde_json::Value| {
        let health = &server["health"];
        health["up"] == true && health["last"].is_object() && health["last"]["failure"].is_null()
    };
    let are_well = || {
        let services = ask_json(rig, &["services", "--interval", "0"]).unwrap_or_default();
        let servers = services.iter().filter_map(|service| service["servers"].as_array()).flatten();
        let judged: Vec<bool> = servers.map(is_well).collect();
        !judged.is_empty() && judged.iter().all(|well| *well)
    };
    ensure!(eventually(Duration::from_secs(15), are_well), "not all servers were found well");
    Ok(())
}

/// Who answers `count` connections; each must be served, and soon.
fn visited(rig: &Rig, count: usize) -> Outcome<BTreeSet<String>> {
    let visit = |_| {
        let begun = Instant::now();
        let client = Client::connect(&rig.client, (VIP, 80))?;
        ensure!(begun.elapsed() < Duration::from_millis(900), "took {:?}", begun.elapsed());
        let server = client.server.clone();
        client.close()?;
        Ok(server)
    };
    (0..count).map(visit).collect()
}

fn only(rig: &Rig, servers: &[&str]) -> Outcome {
    let seen = visited(rig, 12)?;
    let wanted: BTreeSet<String> = servers.iter().map(|server| (*server).to_owned()).collect();
    ensure!(seen == wanted, "12 connections went to {seen:?}, not to {wanted:?}");
    Ok(())
}

fn process_dies(rig: &mut Rig) -> Outcome {
    let mut servers = echo_servers(rig, 8080)?;
    all_well(rig)?;
    only(rig, &["0", "1", "2"])?;
    let mut lasting = Client::connect(&rig.client, (VIP, 80))?;
    let dead = name(1, 8080);
    let victim = servers.remove(1);
    until(rig, &[&dead, "is down", "connect: refused", " was_up="], || {
        drop(victim);
        Ok(())
    })?;
    only(rig, &["0", "2"])?;

    let services = ask_json(rig, &["services", "--interval", "0"])?;
    let health: Vec<_> = (0..3).map(|n| services[0]["servers"][n]["health"].clone()).collect();
    let up: Vec<_> = health.iter().map(|health| health["up"].as_bool()).collect();
    ensure!(up == [Some(true), Some(false), Some(true)], "{health:?}");
    let reason = health[1]["reason"].as_str().unwrap_or_default();
    ensure!(reason.ends_with("connect: refused"), "{health:?}");
    ensure!(health[0]["last"]["took_us"].as_u64().is_some_and(|us| us < 150_000), "{health:?}");
    let status = ask(rig, &["status"])?;
    ensure!(status.contains("3 servers, 1 of them down"), "{status}");
    let shown = ask(rig, &["services", "--interval", "0"])?;
    ensure!(shown.contains("2 of 3 up") && shown.contains("connect: refused"), "{shown}");

    // A reload that adds a service keeps what is known of this one.
    rig.reload(&[
        checked(Service::tcp(80).three(8080), "tcp", ""),
        Service::tcp(81).server(0, 8080, 1),
    ])?;
    only(rig, &["0", "2"])?;
    // An operator's wish is another matter.
    ask(rig, &["drain", "tcp:203.0.113.10:80", "10.0.0.11:8080"])?;
    only(rig, &["2"])?;
    ask(rig, &["undrain", "tcp:203.0.113.10:80", "10.0.0.11:8080"])?;

    let address = (server_address(1), 8080);
    until(rig, &[&dead, "is up", " was_down="], || {
        servers.push(EchoServer::start(&rig.servers[1], address, "1")?);
        Ok(())
    })?;
    only(rig, &["0", "1", "2"])?;
    if lasting.server != "1" {
        lasting.echo(b"none of this was my affair")?;
    }
    Ok(())
}

fn machine_dies(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    all_well(rig)?;
    only(rig, &["0", "1", "2"])?;
    let dead = name(2, 8080);
    until(rig, &[&dead, "is down", "connect: no answer within 150 ms"], || take_down(rig, 2))?;
    only(rig, &["0", "1"])?;
    until(rig, &[&dead, "is up"], || bring_up(rig, 2))?;
    only(rig, &["0", "1", "2"])
}

fn take_down(rig: &Rig, server: usize) -> Outcome {
    Ok(rig.servers[server].run(|| Netlink::new()?.set_down(SERVER_NIC))?)
}

fn bring_up(rig: &Rig, server: usize) -> Outcome {
    rig.servers[server].run(|| Netlink::new()?.set_up(SERVER_NIC))?;
    add_route(&rig.servers[server], "0.0.0.0/0", &GATEWAY.to_string())
}

/// A check is taken back before it is a connection: the program never sees it, the kernel forgets it.
fn nothing_is_left(rig: &mut Rig) -> Outcome {
    let server = &rig.servers[0];
    let address = (server_address(0), 8080);
    let listener = server.run(|| std::net::TcpListener::bind(address))?;
    listener.set_nonblocking(true)?;
    let line = rig.router.wait_for(0, &[&name(1, 8080), "is down"])?;
    let fields = format!(" server={}:8080 reason=", server_address(1));
    ensure!(line.contains(" service=") && line.contains(&fields), "no fields: {line}");
    thread::sleep(Duration::from_millis(1_000));
    let accepted = listener.accept().map(|(_, peer)| peer);
    ensure!(
        matches!(&accepted, Err(error) if error.kind() == ErrorKind::WouldBlock),
        "the program saw {accepted:?}"
    );
    let sockets = server.run(|| std::fs::read_to_string("/proc/thread-self/net/tcp"))?;
    ensure!(sockets.lines().count() == 2, "more than the listener is there:\n{sockets}");
    let services = ask_json(rig, &["services", "--interval", "0"])?;
    let health = &services[0]["servers"][0]["health"];
    ensure!(health["up"] == true && health["last"]["failure"].is_null(), "{health}");
    Ok(())
}

fn moods(rig: &mut Rig) -> Outcome {
    let start = |number: usize| {
        let address = (server_address(number), 8080);
        HttpServer::start(&rig.servers[number], address, &format!("{number} is well"))
    };
    let servers = (0..3).map(start).collect::<Outcome<Vec<_>>>()?;
    all_well(rig)?;
    let said = || -> Outcome<BTreeSet<String>> {
        (0..9).map(|_| http::get(&rig.client, (VIP, 80))).collect()
    };
    ensure!(said()?.len() == 3, "9 requests went to {:?}", said()?);
    let ill = name(1, 8080);
    for (mood, reason) in [
        (Mood::Says(503, "well"), "http: status 503, expected 200-299"),
        (Mood::Says(200, "not so good"), r#"http: body lacks \"well\""#),
        (Mood::Hangs, "http: no whole answer within 150 ms"),
        (Mood::Drips, "http: no whole answer within 150 ms"),
        (Mood::Dies, "http: connection reset"),
    ] {
        until(rig, &[&ill, "is down", reason], || {
            servers[1].set(mood);
            Ok(())
        })?;
        let seen = said()?;
        ensure!(
            seen == ["0 is well".to_owned(), "2 is well".to_owned()].into(),
            "{mood:?}: {seen:?}"
        );
        until(rig, &[&ill, "is up"], || {
            servers[1].set(Mood::Well);
            Ok(())
        })?;
        ensure!(said()?.len() == 3, "after {mood:?} 9 requests went to {:?}", said()?);
    }
    Ok(())
}

fn stops_answering_pings(rig: &mut Rig) -> Outcome {
    // Nobody serves: a ping asks the machine alone.
    let dead = name(2, 8080);
    all_well(rig)?;
    until(rig, &[&dead, "is down", "ping: no answer within 150 ms"], || {
        Ok(rig.servers[2].write_sysctl("net/ipv4/icmp_echo_ignore_all", "1")?)
    })?;
    until(rig, &[&dead, "is up"], || {
        Ok(rig.servers[2].write_sysctl("net/ipv4/icmp_echo_ignore_all", "0")?)
    })?;
    all_well(rig)
}

fn udp_servers(rig: &Rig) -> Outcome<Vec<UdpEchoServer>> {
    let numbered = rig.servers.iter().enumerate();
    numbered
        .map(|(number, server)| {
            UdpEchoServer::start(server, (server_address(number), 5353), &number.to_string())
        })
        .collect()
}

/// Who answers nine clients; each must be answered.
fn asked(rig: &Rig) -> Outcome<BTreeSet<String>> {
    let visit = |_| {
        let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
        let answer = udp::ask(&socket, b"who?")?;
        Ok(udp::parts(&answer)?.0.to_owned())
    };
    (0..9).map(visit).collect()
}

fn udp_answers(rig: &mut Rig) -> Outcome {
    let _servers = udp_servers(rig)?;
    all_well(rig)?;
    ensure!(asked(rig)?.len() == 3, "9 clients were answered by {:?}", asked(rig)?);
    let dead = name(2, 5353);
    until(rig, &[&dead, "is down", "udp: no answer within 150 ms"], || take_down(rig, 2))?;
    let seen = asked(rig)?;
    ensure!(seen == ["0".to_owned(), "1".to_owned()].into(), "{seen:?}");
    until(rig, &[&dead, "is up"], || bring_up(rig, 2))?;
    ensure!(asked(rig)?.len() == 3, "9 clients were answered by {:?}", asked(rig)?);
    Ok(())
}

fn udp_port_closes(rig: &mut Rig) -> Outcome {
    let mut servers = udp_servers(rig)?;
    all_well(rig)?;
    ensure!(asked(rig)?.len() == 3, "9 clients were answered by {:?}", asked(rig)?);
    let dead = name(0, 5353);
    let victim = servers.remove(0);
    until(rig, &[&dead, "is down", "icmp: port unreachable"], || {
        drop(victim);
        Ok(())
    })?;
    let seen = asked(rig)?;
    ensure!(seen == ["1".to_owned(), "2".to_owned()].into(), "{seen:?}");
    until(rig, &[&dead, "is up"], || {
        let address = (server_address(0), 5353);
        servers.push(UdpEchoServer::start(&rig.servers[0], address, "0")?);
        Ok(())
    })?;
    ensure!(asked(rig)?.len() == 3, "9 clients were answered by {:?}", asked(rig)?);
    Ok(())
}

fn nobody_left(rig: &mut Rig) -> Outcome {
    rig.router.wait_for(0, &["all servers are down: new connections are refused", " servers=3"])?;
    let begun = Instant::now();
    let refused = connect(&rig.client, (VIP, 80), Duration::from_secs(5));
    let kind = refused.as_ref().map_err(std::io::Error::kind);
    ensure!(kind.is_err_and(|kind| kind == ErrorKind::ConnectionRefused), "{refused:?}");
    ensure!(begun.elapsed() < Duration::from_secs(1), "refused after {:?}", begun.elapsed());
    let report = rig.router.report()?;
    ensure!(report.drops("no_server") > 0, "not for want of a server:\n{report}");
    let address = (server_address(1), 8080);
    let mut servers = Vec::new();
    until(rig, &[&name(1, 8080), "is up"], || {
        servers.push(EchoServer::start(&rig.servers[1], address, "1")?);
        Ok(())
    })?;
    only(rig, &["1"])
}

fn falls_back(rig: &mut Rig) -> Outcome {
    let _sorry = EchoServer::start(&rig.servers[0], (server_address(0), 9090), "sorry")?;
    let fallback = format!(" fallback={}:9090", server_address(0));
    rig.router.wait_for(0, &["all servers are down", " servers=3", &fallback])?;
    // The first one may wait for ARP, behind the checks of servers that were not there yet.
    Client::connect(&rig.client, (VIP, 80))?.close()?;
    only(rig, &["sorry"])?;
    let mut servers = Vec::new();
    until(rig, &[&name(2, 8080), "is up"], || {
        servers.push(EchoServer::start(&rig.servers[2], (server_address(2), 8080), "2")?);
        Ok(())
    })?;
    only(rig, &["2"])
}

fn must_be_proved(rig: &mut Rig) -> Outcome {
    let refused = connect(&rig.client, (VIP, 80), Duration::from_secs(5));
    ensure!(refused.is_err(), "a server that was not proved got a connection");
    let servers = ask_json(rig, &["services", "--interval", "0"])?;
    ensure!(servers[0]["servers"][0]["health"]["up"] == false, "{servers:?}");
    let _servers = echo_servers(rig, 8080)?;
    for server in 0..3 {
        rig.router.wait_for(0, &[&name(server, 8080), "is up"])?;
    }
    only(rig, &["0", "1", "2"])
}

/// The server is there for the router, but its answers to clients go nowhere.
fn silent_to_clients(rig: &mut Rig) -> Outcome {
    let rig = &*rig;
    let _servers = echo_servers(rig, 8080)?;
    only(rig, &["0", "1", "2"])?;
    let clients: Vec<Ipv4Addr> = (101..=118).map(|last| Ipv4Addr::new(203, 0, 113, last)).collect();
    let added: Result<(), LinkError> = rig.client.run(|| {
        let netlink = Netlink::new()?;
        clients.iter().try_for_each(|own| netlink.add_address(CLIENT_TAP, within(*own, 24)))
    });
    added.context("the client's addresses")?;
    // More specific than the default route, to where nobody is.
    add_route(&rig.servers[1], "203.0.113.0/24", "10.0.0.99")?;
    let silent = name(1, 8080);
    until(rig, &[&silent, "is down", "3 clients in a row got no answer"], || {
        thread::scope(|scope| {
            for own in &clients {
                scope.spawn(move || drop(try_from(rig, *own)));
            }
        });
        Ok(())
    })?;
    let before = rig.router.log().len();
    only(rig, &["0", "2"])?;
    // Nobody checks it: it is tried again.
    rig.router.wait_for(before, &[&silent, "is up, to be tried again"])?;
    let health = |rig: &Rig| {
        let services = ask_json(rig, &["services", "--interval", "0"])?;
        Outcome::Ok(services[0]["servers"][1]["health"].clone())
    };
    let back = eventually(Duration::from_secs(5), || health(rig).is_ok_and(|h| h.is_null()));
    ensure!(back, "{:?}", health(rig)?);
    Ok(())
}

/// Tries for long enough that a SYN is repeated twice.
fn try_from(rig: &Rig, own: Ipv4Addr) -> Outcome {
    let socket = rig.client.run(|| {
        socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None)
    })?;
    bind(&socket, &SocketAddrV4::new(own, 0))?;
    // It is under way when this returns.
    let _ = rustix::net::connect(&socket, &SocketAddrV4::new(VIP, 80));
    thread::sleep(Duration::from_secs(4));
    Ok(())
}

fn on_time(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    // Until a server is heard of at first, none of its checks has an answer.
    all_well(rig)?;
    let before = rig.router.log().len();
    thread::sleep(Duration::from_secs(5));
    let services = ask_json(rig, &["services", "--interval", "0"])?;
    let servers: Vec<_> =
        services.iter().filter_map(|service| service["servers"].as_array()).flatten().collect();
    ensure!(servers.len() == 3_000, "{} servers", servers.len());
    let health = |server: &serde_json::Value| server["health"].clone();
    let is_late = |server: &&&serde_json::Value| {
        let health = health(server);
        health["up"] != true || health["last"]["ago_ms"].as_u64().is_none_or(|ago| ago > 1_500)
    };
    let late: Vec<_> = servers.iter().filter(is_late).collect();
    ensure!(late.is_empty(), "{} of 3,000, such as {}", late.len(), late[0]);
    let log = rig.router.log();
    let told = log[before..].iter().find(|line| line.contains("health checks are late"));
    ensure!(told.is_none(), "{told:?}");
    // And clients are served meanwhile.
    Client::connect(&rig.client, (VIP, 1_500))?.close()
}

fn through_the_virtual_ip(name: &'static str, topology: Topology) -> Trial {
    let rig = move || {
        let web = checked(Service::tcp(80).three(80), "virtual_ip", "");
        Direct::silent(topology).build(&[web])
    };
    built_trial(name, rig, move |rig| virtual_ip(rig, topology))
}

fn virtual_ip(rig: &mut Rig, topology: Topology) -> Outcome {
    let start =
        |number: usize| EchoServer::start(&rig.servers[number], (VIP, 80), &number.to_string());
    let mut servers = (0..3).map(start).collect::<Outcome<Vec<_>>>()?;
    all_well(rig)?;
    only(rig, &["0", "1", "2"])?;
    let name = |number: usize| format!(" server={}:80 ", topology.server(number));
    let victim = servers.remove(1);
    until(rig, &[&name(1), "is down", "connect: refused for the virtual IP"], || {
        drop(victim);
        Ok(())
    })?;
    only(rig, &["0", "2"])?;
    until(rig, &[&name(1), "is up"], || {
        servers.push(start(1)?);
        Ok(())
    })?;
    // Its program runs, but the address is gone: only a probe through it can tell.
    let address = |delete: bool| -> Outcome {
        let done: Result<(), LinkError> = rig.servers[2].run(|| {
            let netlink = Netlink::new()?;
            if delete {
                netlink.delete_address("lo", within(VIP, 32))
            } else {
                netlink.add_address("lo", within(VIP, 32))
            }
        });
        done.context("the virtual IP of server 2")
    };
    let silent = ["is down", "connect: no answer for the virtual IP within 150 ms"];
    until(rig, &[&name(2), silent[0], silent[1]], || address(true))?;
    only(rig, &["0", "1"])?;
    until(rig, &[&name(2), "is up"], || address(false))?;
    only(rig, &["0", "1", "2"])
}
