//! A flood of SYNs from a million strangers, whose every SYN is answered: connections that are there go on.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netns_tests::harness::{built_trial, say};
use netns_tests::raw::RawSocket;
use netns_tests::tcp::{Client, EchoServer};
use netns_tests::{
    CLIENT, Failure, Outcome, ROUTER_OUTSIDE, Rig, Service, VIP, config, ensure, resident,
    server_address,
};
use tapvs::frame::{TCP, checksum};

/// Flows that fit: the flood fills the table in half a second.
const MOST: u64 = 20_000;
const STRANGERS: u32 = 1_000_000;
/// SYNs at once, and how often: 50,000 a second, which the sender, the router and the servers can do on two
/// processors. What is dropped before the router, for want of time, says nothing of it.
const AT_ONCE: u32 = 500;
const PACE: Duration = Duration::from_millis(10);
const CONNECTIONS: usize = 20;
const TRIES: u32 = 3;
/// How often each says something.
const TURN: Duration = Duration::from_millis(20);
/// Of what is said, so much is answered before the next is due.
const ANSWERED: f64 = 0.99;
/// What memory may grow by meanwhile: the log, and what the allocator has not given back.
const GROWTH: u64 = 4 << 20;

pub(crate) fn trials() -> Vec<Trial> {
    let text = |folder: &std::path::Path| {
        let text = config(folder, &[Service::tcp(80).three(8080)]);
        let addresses = format!("addresses = [\"{ROUTER_OUTSIDE}/24\"]\n");
        // Where the answers to strangers go.
        text.replace("max_flows = 200_000", &format!("max_flows = {MOST}"))
            .replace(&addresses, &format!("{addresses}gateway = \"{CLIENT}\"\n"))
    };
    let rig = move || Rig::configured(text);
    vec![built_trial("connections_go_on_in_a_flood_from_a_million_strangers", rig, flood)]
}

fn flood(rig: &mut Rig) -> Outcome {
    let _servers = (0..3)
        .map(|number| {
            let at = (server_address(number), 8080);
            EchoServer::start(&rig.servers[number], at, &number.to_string())
        })
        .collect::<Outcome<Vec<_>>>()?;
    let mut clients = (0..CONNECTIONS)
        .map(|_| Client::connect(&rig.client, (VIP, 80)))
        .collect::<Outcome<Vec<_>>>()?;
    for client in &mut clients {
        client.echo(b"before")?;
    }
    let quiet = talk(&mut clients, &AtomicBool::new(false), Some(Duration::from_secs(3)))?;
    let mut said = Said::default();
    // A computer that stands still for a moment says nothing of the router.
    for _ in 0..TRIES {
        said = one_flood(rig, &mut clients)?;
        if said.share() >= quiet.share() * ANSWERED {
            break;
        }
    }
    ensure!(
        said.share() >= quiet.share() * ANSWERED,
        "{} of {} turns in time, {} of {} without a flood",
        said.in_time,
        said.all,
        quiet.in_time,
        quiet.all
    );
    for client in &mut clients {
        client.echo(b"still there")?;
    }
    Ok(())
}

/// What the connections say while all strangers come by.
fn one_flood(rig: &Rig, clients: &mut [Client]) -> Outcome<Said> {
    let service = format!("{VIP}:80");
    let before = rig.router.report()?.service("tcp", &service)?.flows;
    let (full, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let socket = RawSocket::ip(&rig.client)?;
    let (said, memory) = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let sent = send(&socket, &full);
            is_over.store(true, Ordering::Relaxed);
            sent
        });
        let talker = scope.spawn(|| talk(clients, &is_over, None));
        while !full.load(Ordering::Relaxed) && !is_over.load(Ordering::Relaxed) {
            thread::sleep(PACE);
        }
        let memory = resident(rig.router.id());
        let panicked = |_| Failure::new("a thread panicked");
        sender.join().map_err(panicked)??;
        let said = talker.join().map_err(panicked)??;
        Outcome::Ok((said, memory?))
    })?;
    let grown = resident(rig.router.id())?.saturating_sub(memory);
    let report = rig.router.report()?;
    let flows = report.figure(&["report: table "], "flows")?;
    let opened = report.service("tcp", &service)?.flows - before;
    say(format_args!(
        "{opened} of {STRANGERS} strangers got as far as the router; {CONNECTIONS} connections: {} of {} turns \
         in time; memory grew by {grown} bytes",
        said.in_time, said.all
    ));
    ensure!(opened > u64::from(STRANGERS) / 2, "no flood: {opened} flows were opened");
    ensure!(flows <= MOST, "{flows} flows, more than {MOST}");
    ensure!(grown <= GROWTH, "memory grew by {grown} bytes");
    Ok(said)
}

/// Turns of all connections, and those of them that were answered before the next was due.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    all: u32,
    in_time: u32,
}

impl Said {
    fn share(self) -> f64 {
        f64::from(self.in_time) / f64::from(self.all.max(1))
    }
}

/// Every connection says something at its pace, until told to stop or for so long.
fn talk(clients: &mut [Client], is_over: &AtomicBool, limit: Option<Duration>) -> Outcome<Said> {
    let start = Instant::now();
    let is_on = || !is_over.load(Ordering::Relaxed) && limit.is_none_or(|l| start.elapsed() < l);
    let one = |client: &mut Client| {
        let mut said = Said::default();
        let mut due = Instant::now();
        while is_on() {
            client.echo(b"and on")?;
            due += TURN;
            let left = due.checked_duration_since(Instant::now());
            said.all += 1;
            said.in_time += u32::from(left.is_some());
            match left {
                Some(left) => thread::sleep(left),
                // What was missed is not made up for.
                None => {
                    let missed = due.elapsed().as_millis() / TURN.as_millis();
                    said.all += u32::try_from(missed).unwrap_or(0);
                    due = Instant::now();
                }
            }
        }
        Outcome::Ok(said)
    };
    thread::scope(|scope| {
        let all: Vec<_> = clients.iter_mut().map(|client| scope.spawn(|| one(client))).collect();
        let mut sum = Said::default();
        for thread in all {
            let said = thread.join().map_err(|_| Failure::new("a client panicked"))??;
            sum = Said { all: sum.all + said.all, in_time: sum.in_time + said.in_time };
        }
        Ok(sum)
    })
}

/// SYNs from as many strangers, no two alike; `full` once the table must be.
fn send(socket: &RawSocket, full: &AtomicBool) -> Outcome {
    let mut due = Instant::now();
    for stranger in 0..STRANGERS {
        socket.send(&syn(stranger), VIP)?;
        if (stranger + 1).is_multiple_of(AT_ONCE) {
            due += PACE;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        if u64::from(stranger) > 3 * MOST {
            full.store(true, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// The SYN of a stranger in 198.18.0.0/15, which is for trials (RFC 2544).
fn syn(stranger: u32) -> [u8; 40] {
    let source = Ipv4Addr::from_bits(0xc612_0000 | stranger & 0x1_ffff);
    let port = u16::try_from(2_000 + (stranger >> 17)).unwrap_or(u16::MAX);
    let mut packet = [0; 40];
    packet[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, TCP]);
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&VIP.octets());
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[22..24].copy_from_slice(&80_u16.to_be_bytes());
    packet[24..28].copy_from_slice(&stranger.to_be_bytes());
    packet[32..36].copy_from_slice(&[0x50, 0x02, 0xff, 0xff]);
    let sum = checksum::of_segment(source.octets(), VIP.octets(), TCP, &packet[20..]);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}
