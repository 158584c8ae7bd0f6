//! A large table is taken over while traffic flows, and no frame is lost.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::harness::{rig_trial, say};
use netns_tests::udp::{self, UdpEchoServer};
use netns_tests::{
    CLIENT, CLIENT_TAP, Failure, Outcome, Rig, SERVERS_TAP, Service, VIP, ensure, eventually,
    server_address,
};
use tapvs::links::Namespace;
use tapvs::links::netlink::Netlink;

const SERVICES: u16 = 1_000;
const SERVERS: u16 = 10;
const RELOADS: u16 = 12;
const PACE: Duration = Duration::from_micros(250);
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn trials() -> Vec<Trial> {
    let first = || services(0);
    vec![rig_trial("a_large_table_is_reloaded_without_losing_a_frame", first, reloads)]
}

/// One service with traffic, and all the others; every tenth changes with each round.
fn services(round: u16) -> Vec<Service> {
    let other = |port: u16| {
        let weight = if port.is_multiple_of(10) { 1 + round % 5 } else { 1 };
        let service = Service::tcp(1_000 + port);
        (0..SERVERS).fold(service, |service, server| {
            service.server(usize::from(server % 3), 8_000 + server, weight)
        })
    };
    let dns = Service::udp(53).three(5353);
    std::iter::once(dns).chain((1..SERVICES).map(other)).collect()
}

fn reloads(rig: &mut Rig) -> Outcome {
    let servers = rig.servers.iter().enumerate();
    let _servers: Vec<_> = servers
        .map(|(number, namespace)| {
            let address = (server_address(number), 5353);
            UdpEchoServer::start(namespace, address, &number.to_string())
        })
        .collect::<Outcome<_>>()?;
    let rig = &*rig;
    let lasting = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    udp::ask(&lasting, b"are you there")?;
    let dropped = || {
        Ok::<_, Failure>([
            tx_dropped(&rig.client, CLIENT_TAP)?,
            tx_dropped(&rig.middle, SERVERS_TAP)?,
        ])
    };
    let before = dropped()?;
    let (end, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let (sent, opened) = thread::scope(|scope| {
        let receiver = scope.spawn(|| count_answers(&lasting, &end, &answered));
        let sender = scope.spawn(|| send_until(&lasting, &end));
        let opener = scope.spawn(|| open_until(rig, &end));
        let reloaded = (1..=RELOADS).try_for_each(|round| {
            rig.reload(&services(round))?;
            thread::sleep(Duration::from_millis(50));
            Outcome::Ok(())
        });
        end.store(true, Ordering::Relaxed);
        let panicked = |_| Failure::new("a client panicked");
        let sent = sender.join().map_err(panicked)??;
        let opened = opener.join().map_err(panicked)??;
        receiver.join().map_err(panicked)??;
        reloaded.map(|()| (sent, opened))
    })?;
    let all = eventually(PATIENCE, || {
        // What is still under way arrives, or never does.
        if lasting.recv(&mut [0; 512]).is_ok() {
            answered.fetch_add(1, Ordering::Relaxed);
        }
        answered.load(Ordering::Relaxed) >= sent
    });
    let answered = answered.into_inner();
    ensure!(all && answered == sent, "{answered} answers to {sent} datagrams");
    ensure!(sent > 500 && opened > 50, "too little traffic: {sent} datagrams, {opened} flows");
    let after = dropped()?;
    ensure!(
        before == after,
        "the kernel dropped frames for the router: {before:?}, then {after:?}"
    );
    say(format_args!(
        "{RELOADS} reloads of {SERVICES} services with {SERVERS} servers each: {sent} datagrams and {opened} new flows, all answered"
    ));
    Ok(())
}

fn tx_dropped(namespace: &Namespace, tap: &str) -> Outcome<u64> {
    let link = namespace.run(|| Netlink::new()?.link(tap))?;
    Ok(link.statistics.tx_dropped)
}

/// Sends at a steady pace; how many.
fn send_until(socket: &UdpSocket, end: &AtomicBool) -> Outcome<u64> {
    let mut sent = 0;
    while !end.load(Ordering::Relaxed) {
        socket.send(b"steady")?;
        sent += 1;
        thread::sleep(PACE);
    }
    Ok(sent)
}

fn count_answers(socket: &UdpSocket, end: &AtomicBool, answered: &AtomicU64) -> Outcome {
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    while !end.load(Ordering::Relaxed) {
        if socket.recv(&mut [0; 512]).is_ok() {
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Opens one flow after another; how many.
fn open_until(rig: &Rig, end: &AtomicBool) -> Outcome<u64> {
    let mut opened = 0;
    while !end.load(Ordering::Relaxed) {
        let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
        udp::ask(&socket, b"new")?;
        opened += 1;
    }
    Ok(opened)
}
