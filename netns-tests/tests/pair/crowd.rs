//! Thousands of new connections a second when the active router dies. Clients and servers are raw: they
//! answer ARP and speak as much TCP as it takes, without a descriptor for each connection.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netns_tests::arp::{Arp, REPLY};
use netns_tests::harness::say;
use netns_tests::pair::{NIC, Pair, Terms};
use netns_tests::raw::internet_checksum;
use netns_tests::wire::{self, Wire};
use netns_tests::{Outcome, SERVER_NIC, Service, VIP, ensure};
use tapvs::addr::MacAddr;

use crate::takeover::on_pair;

/// New connections a second, and for how long before the kill.
const RATE: u32 = 5_000;
const RUN: Duration = Duration::from_secs(12);
/// Connections that are older than this at the kill have to live on.
const SETTLED: Duration = Duration::from_secs(1);
/// How fast they are asked afterwards, and how often those that do not answer.
const QUESTIONS: u32 = 20_000;
const ROUNDS: usize = 4;
const PORT: u16 = 81;
const CLIENTS: usize = 4;
const FIRST_PORT: u16 = 10_000;
const PORTS: usize = 16_000;
const VIRTUAL_MAC: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 51]);
/// What a client's first segment has for a number.
const BEGIN: u32 = 1_000;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// A second service, whose servers nobody's kernel knows.
fn second() -> Vec<Service> {
    vec![(10..13).fold(Service::tcp(81), |service, number| service.server(number, 81, 1))]
}

/// One connection: when the server's answer came, in microseconds of the trial, who it was, and whether it
/// has answered since the kill.
#[derive(Default)]
struct Connection {
    opened: AtomicU64,
    /// From 1.
    server: AtomicU8,
    answered: AtomicU8,
}

pub(crate) fn lives_on() -> Outcome {
    let terms = Terms { more_services: second, ..Terms::USUAL };
    on_pair(terms, |pair| {
        let over = AtomicBool::new(false);
        let servers = pair.servers.iter().map(|server| Wire::open(server, SERVER_NIC));
        let servers: Vec<_> = servers.collect::<Outcome<_>>()?;
        let client = Wire::open(&pair.client, NIC)?;
        let connections: Vec<_> = (0..CLIENTS * PORTS).map(|_| Connection::default()).collect();
        let begun = Instant::now();
        thread::scope(|scope| {
            for (number, server) in (1..).zip(&servers) {
                let over = &over;
                scope.spawn(move || server.attend(over, |frame| serve(server, number, frame)));
            }
            scope.spawn(|| {
                client.attend(&over, |frame| hear(&client, &connections, begun, frame));
            });
            let tried = try_it(pair, &client, &connections, begun);
            over.store(true, Ordering::Relaxed);
            tried
        })
    })
}

fn try_it(pair: &mut Pair, client: &Wire, connections: &[Connection], begun: Instant) -> Outcome {
    meet(client, connections)?;
    let (start, mut sent) = (begun.elapsed(), 0_u32);
    while begun.elapsed() - start < RUN {
        let due = RATE * u32::try_from((begun.elapsed() - start).as_millis())? / 1_000;
        for number in sent..due {
            say_to(client, number as usize, SYN, 0, &[])?;
            // As every client does, who was not answered asks again after a second: a loaded machine's
            // queues overflow.
            if let Some(earlier) = number.checked_sub(RATE)
                && connections[earlier as usize].opened.load(Ordering::Relaxed) == 0
            {
                say_to(client, earlier as usize, SYN, 0, &[])?;
            }
        }
        sent = sent.max(due);
        thread::sleep(Duration::from_millis(1));
    }
    pair.kill(0);
    let killed = begun.elapsed();
    pair.wait_until_active(1, 0)?;
    let is_old = |connection: &&Connection| {
        let opened = Duration::from_micros(connection.opened.load(Ordering::Relaxed));
        !opened.is_zero() && opened + SETTLED <= killed
    };
    let opened = connections.iter().filter(|c| c.opened.load(Ordering::Relaxed) > 0).count();
    let old: Vec<_> =
        (0..).zip(connections).filter(|(_, c)| is_old(c)).map(|(number, _)| number).collect();
    for _ in 0..ROUNDS {
        ask(client, connections, &old)?;
        thread::sleep(Duration::from_millis(500));
    }
    let answers = |number: &usize| connections[*number].answered.load(Ordering::Relaxed);
    let alive = old.iter().filter(|number| answers(number) > 0).count();
    let is_wrong = |number: &&usize| {
        ![0, connections[**number].server.load(Ordering::Relaxed)].contains(&answers(number))
    };
    let wrong = old.iter().filter(is_wrong).count();
    let took = killed - start;
    let rate = opened as f64 / took.as_secs_f64();
    say(format_args!(
        "{rate:.0} connections a second for {took:.1?}; of {} older than a second {alive} live on, \
         {wrong} at another server",
        old.len()
    ));
    ensure!(rate >= f64::from(RATE) * 0.9, "only {rate:.0} connections a second");
    ensure!(wrong == 0, "{wrong} connections are at another server");
    ensure!(alive * 100 >= old.len() * 99, "of {} only {alive} live on", old.len());
    Ok(())
}

/// Waits until the router has found the servers, who were not there when it asked first: connections that
/// are not of the crowd come through to each of them.
fn meet(client: &Wire, connections: &[Connection]) -> Outcome {
    let strangers = connections.len() - 3..connections.len();
    let begun = Instant::now();
    while strangers.clone().any(|n| connections[n].opened.load(Ordering::Relaxed) == 0) {
        ensure!(begun.elapsed() < Duration::from_secs(20), "the servers are not found");
        for number in strangers.clone() {
            say_to(client, number, SYN, 0, &[])?;
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Everybody of `old` who has not answered yet is asked something.
fn ask(client: &Wire, connections: &[Connection], old: &[usize]) -> Outcome {
    let begun = Instant::now();
    for (at, number) in (0_u32..).zip(old) {
        let connection = &connections[*number];
        if connection.answered.load(Ordering::Relaxed) == 0 {
            let server = u32::from(connection.server.load(Ordering::Relaxed));
            say_to(client, *number, PSH | ACK, first_of(server) + 1, b"?")?;
        }
        if at % 20 == 0 {
            let due = Duration::from_secs(1) * at / QUESTIONS;
            thread::sleep(due.saturating_sub(begun.elapsed()));
        }
    }
    Ok(())
}

/// The number of a server's first segment says who it is.
const fn first_of(server: u32) -> u32 {
    server << 28
}

fn address_of(client: usize) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 201 + u8::try_from(client).unwrap_or(0))
}

/// A client's segment on connection `number`.
fn say_to(client: &Wire, number: usize, flags: u8, ack: u32, data: &[u8]) -> Outcome {
    let port = FIRST_PORT + u16::try_from(number % PORTS)?;
    let from = (address_of(number / PORTS), port);
    let seq = if flags & SYN == 0 { BEGIN + 1 } else { BEGIN };
    let packet = segment(from, (VIP, PORT), (flags, seq, ack), data);
    client.send(&wire::frame(VIRTUAL_MAC, client.mac(), 0x0800, &packet))
}

/// What a client does with a frame.
fn hear(client: &Wire, connections: &[Connection], begun: Instant, frame: &[u8]) {
    if let Some(arp) = Arp::read(frame) {
        return answer_arp(client, &arp, |target| (0..CLIENTS).any(|n| address_of(n) == target));
    }
    let Some(heard) = Segment::read(frame).filter(|heard| heard.from == (VIP, PORT)) else {
        return;
    };
    let owner = (0..CLIENTS).find(|n| address_of(*n) == heard.to.0);
    let port = heard.to.1.checked_sub(FIRST_PORT).map(usize::from).filter(|port| *port < PORTS);
    let (Some(owner), Some(port)) = (owner, port) else { return };
    let number = owner * PORTS + port;
    let connection = &connections[number];
    if heard.flags & SYN != 0 {
        let server = u8::try_from(heard.seq >> 28).unwrap_or(0);
        connection.server.store(server, Ordering::Relaxed);
        let opened = u64::try_from(begun.elapsed().as_micros()).unwrap_or(1);
        connection.opened.store(opened, Ordering::Relaxed);
        // What cannot be sent is missed later.
        drop(say_to(client, number, ACK, heard.seq + 1, &[]));
    } else if let Some(server) = heard.data.first() {
        connection.answered.store(*server, Ordering::Relaxed);
    }
}

/// What server `number` does with a frame. It remembers nothing: who is brought here is served here.
fn serve(server: &Wire, number: u8, frame: &[u8]) {
    let own = Ipv4Addr::new(10, 0, 0, 20 + number);
    if let Some(arp) = Arp::read(frame) {
        return answer_arp(server, &arp, |target| target == own);
    }
    let Some(heard) = Segment::read(frame).filter(|heard| heard.to == (own, PORT)) else { return };
    let first = first_of(number.into());
    let (flags, seq, data) = match (heard.flags & SYN != 0, heard.data.is_empty()) {
        (true, _) => (SYN | ACK, first, &[][..]),
        (false, false) => (PSH | ACK, first + 1, &[number][..]),
        (false, true) => return,
    };
    let length = u32::try_from(heard.data.len()).unwrap_or(0) + u32::from(heard.flags & SYN != 0);
    let packet = segment(heard.to, heard.from, (flags, seq, heard.seq + length), data);
    drop(server.send(&wire::frame(wire::source(frame), server.mac(), 0x0800, &packet)));
}

fn answer_arp(wire: &Wire, asked: &Arp, is_ours: impl Fn(Ipv4Addr) -> bool) {
    if asked.sender != asked.target && is_ours(asked.target) {
        let answer = Arp {
            operation: REPLY,
            sender_mac: wire.mac(),
            sender: asked.target,
            target_mac: asked.sender_mac,
            target: asked.sender,
        };
        drop(wire.send(&answer.frame(asked.sender_mac)));
    }
}

/// A TCP segment as it arrives.
struct Segment<'f> {
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    flags: u8,
    seq: u32,
    data: &'f [u8],
}

impl<'f> Segment<'f> {
    fn read(frame: &'f [u8]) -> Option<Self> {
        let packet = frame.get(14..).filter(|_| wire::kind(frame) == 0x0800)?;
        if packet.first() != Some(&0x45) || packet.get(9) != Some(&6) {
            return None;
        }
        let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let tcp = packet.get(20..total)?;
        let address =
            |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
        let word = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
        let header = usize::from(tcp.get(12)? >> 4) * 4;
        Some(Self {
            from: (address(12), word(0)?),
            to: (address(16), word(2)?),
            flags: *tcp.get(13)?,
            seq: u32::from(word(4)?) << 16 | u32::from(word(6)?),
            data: tcp.get(header..)?,
        })
    }
}

fn segment(
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    (flags, seq, ack): (u8, u32, u32),
    data: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(20 + data.len()).unwrap_or(u16::MAX);
    let mut tcp = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    tcp.extend(seq.to_be_bytes());
    tcp.extend(ack.to_be_bytes());
    tcp.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    tcp.extend(data);
    let pseudo = [&from.0.octets()[..], &to.0.octets(), &[0, 6], &length.to_be_bytes(), &tcp];
    let sum = internet_checksum(&pseudo.concat());
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x45, 0];
    packet.extend((20 + length).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    packet.extend(from.0.octets());
    packet.extend(to.0.octets());
    let sum = internet_checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(tcp);
    packet
}
