//! Checks against a peer that is a smoltcp host too, in virtual time: each kind with a server that is
//! well, refuses, says nothing, the wrong thing, or dies half-way; `crowd` has ten thousand of them.

mod crowd;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use smoltcp::iface::{Config, SocketHandle};
use smoltcp::socket::{tcp, udp};
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Packet, TcpPacket};

use super::*;
use crate::addr::Cidr;
use crate::config::{Health, HttpCheck, StatusCodes, UdpCheck};
use crate::health::Unreachable;
use crate::host::Host;
use crate::host::device::Device;

const ME: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 11), 80);
const ID: ServerId = ServerId(3);

/// A plan of these checks.
pub(super) fn plan_of(checks: impl Iterator<Item = Check>) -> Plan {
    Plan::new(checks.map(Arc::new).collect())
}

/// A TCP check of a server by number, every so many seconds.
pub(super) fn tcp(number: u32, seconds: u64) -> Check {
    let [_, _, high, low] = number.to_be_bytes();
    let interval = Duration::from_secs(seconds);
    Check {
        server: ServerId(number),
        target: SocketAddrV4::new(Ipv4Addr::new(10, 1, high, low), 80),
        phase: Check::phase_of(&[&number.to_be_bytes()], interval),
        ..check(Health { interval, ..health(Inquiry::Tcp) })
    }
}

fn health(inquiry: Inquiry) -> Health {
    Health {
        inquiry,
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        fall: 3,
        rise: 2,
        initially_up: true,
        port: None,
    }
}

fn check(health: Health) -> Check {
    let health = Arc::new(health);
    Check { server: ID, since: 1, source: ME, target: SERVER, phase: Duration::ZERO, health }
}

fn http(body: Option<&str>) -> Inquiry {
    Inquiry::Http(HttpCheck {
        path: "/up".to_owned(),
        host: "www.example.com".to_owned(),
        status: StatusCodes(vec![200..=299]),
        body: body.map(str::to_owned),
    })
}

fn udp(answer: Option<&str>) -> Inquiry {
    let answer = answer.map(|text| text.as_bytes().to_vec());
    Inquiry::Udp(UdpCheck { payload: b"ping".to_vec(), answer })
}

/// What a server does with a connection, so many milliseconds after it was established; the first time
/// in this millisecond, or again.
type Script = fn(&mut tcp::Socket<'static>, u64, bool);

/// A host at every address but the router's.
struct Peer {
    interface: Interface,
    device: Device,
    sockets: SocketSet<'static>,
    script: Script,
    listener: Option<(SocketHandle, Option<Instant>)>,
    accepted: u32,
    /// Nothing reaches it.
    is_gone: bool,
    last_turn: Option<Instant>,
}

impl Peer {
    fn new() -> Self {
        let mut device = Device::new(1500, Instant::ZERO);
        let config = Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut device, Instant::ZERO);
        interface.update_ip_addrs(|list| {
            list.push(IpCidr::new((*SERVER.ip()).into(), 24)).unwrap();
        });
        let sockets = SocketSet::new(Vec::new());
        let (script, accepted, is_gone): (Script, u32, bool) = (|_, _, _| {}, 0, false);
        let (listener, last_turn) = (None, None);
        Self { interface, device, sockets, script, listener, accepted, is_gone, last_turn }
    }

    fn serves(&mut self, script: Script) {
        let buffer = || tcp::SocketBuffer::new(vec![0; 4_096]);
        let handle = self.sockets.add(tcp::Socket::new(buffer(), buffer()));
        (self.listener, self.script) = (Some((handle, None)), script);
    }

    fn answers(&mut self) {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 4_096]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(SERVER.port()).unwrap();
        self.sockets.add(socket);
    }

    fn turn(&mut self, now: Instant) {
        let first = self.last_turn.replace(now) != Some(now);
        if let Some((handle, since)) = &mut self.listener {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(*handle);
            if !socket.is_open() {
                socket.listen(SERVER.port()).unwrap();
                *since = None;
            }
            if socket.is_active() && socket.state() != tcp::State::SynReceived {
                let is_new = since.is_none();
                self.accepted += u32::from(is_new);
                let begun = *since.get_or_insert(now);
                (self.script)(socket, (now - begun).total_millis(), first || is_new);
            }
        }
        for (_, socket) in self.sockets.iter_mut() {
            if let smoltcp::socket::Socket::Udp(socket) = socket
                && let Ok((_, from)) = socket.recv()
            {
                socket.send_slice(b"a pong", from).unwrap();
            }
        }
        let _ = self.interface.poll(now, &mut self.device, &mut self.sockets);
    }
}

/// The router's host and its peer, joined.
struct Net {
    host: Host,
    peer: Peer,
    now: Instant,
    events: Vec<(u64, Event)>,
    probes: Vec<Probe>,
    /// Packets of the host, by millisecond.
    sent: Vec<(u64, Vec<u8>)>,
}

impl Net {
    fn new(inquiry: Inquiry) -> Self {
        Self::with(check(health(inquiry)))
    }

    fn with(check: Check) -> Self {
        let own: Vec<Cidr> = vec!["10.0.0.2/24".parse().unwrap()];
        let host = Host::new(&own, 1500, 7, Instant::ZERO);
        let (events, probes, sent) = (Vec::new(), Vec::new(), Vec::new());
        let mut net = Self { host, peer: Peer::new(), now: Instant::ZERO, events, probes, sent };
        net.plan(vec![check]);
        net
    }

    fn plan(&mut self, checks: Vec<Check>) {
        let plan = Arc::new(plan_of(checks.into_iter()));
        self.host.handle_plan(&plan, self.now);
    }

    /// As the loop does it, every millisecond, but the host only when it asks for it.
    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            // Until neither has anything to say.
            for _ in 0..8 {
                if self.host.poll_timeout(self.now).is_some_and(|due| due <= self.now) {
                    self.host.handle_timeout(self.now);
                }
                while let Some(packet) = self.host.poll_transmit() {
                    self.sent.push((self.now.total_millis().unsigned_abs(), packet.to_vec()));
                    if !self.peer.is_gone {
                        self.peer.device.incoming.push(packet);
                    }
                }
                self.probes.extend(std::iter::from_fn(|| self.host.poll_probe()));
                self.peer.turn(self.now);
                while let Some(packet) = self.peer.device.outgoing.pop() {
                    self.host.handle_packet(packet);
                }
            }
            let at = self.now.total_millis().unsigned_abs();
            self.events.extend(std::iter::from_fn(|| self.host.poll_event()).map(|e| (at, e)));
            self.now += Duration::from_millis(1);
        }
    }

    /// The last result, and how long it took in milliseconds.
    fn last(&self) -> Option<(Result<(), Failure>, u64)> {
        let last = self.host.last_check(ID)?;
        Some((last.failure.map_or(Ok(()), Err), last.took.total_millis()))
    }

    /// Of one whole check.
    #[track_caller]
    fn first(&mut self) -> (Result<(), Failure>, u64) {
        self.run(1_900);
        self.last().expect("a check has ended")
    }

    /// Up or down, when.
    fn changes(&self) -> Vec<(u64, Option<Failure>)> {
        let change = |(at, event): &(u64, Event)| match event {
            Event::Changed(change) => Some((*at, change.down)),
            Event::Behind => None,
        };
        self.events.iter().filter_map(change).collect()
    }

    /// Flags of the host's segments so far.
    fn flags(&self) -> Vec<&'static str> {
        let flags = |(_, packet): &(u64, Vec<u8>)| {
            let segment = TcpPacket::new_unchecked(&packet[20..]);
            if segment.rst() {
                "rst"
            } else if segment.syn() {
                "syn"
            } else if segment.fin() {
                "fin"
            } else {
                "ack"
            }
        };
        self.sent.iter().map(flags).collect()
    }
}

#[test]
fn a_handshake_is_enough_and_the_server_never_sees_it() {
    let mut net = Net::new(Inquiry::Tcp);
    net.peer.serves(|_, _, _| {});
    assert_eq!(net.first(), (Ok(()), 0));
    assert_eq!(net.flags(), ["syn", "rst"]);
    assert_eq!(net.peer.accepted, 0);
    net.run(10_000);
    assert_eq!(net.flags().len(), 2 * 6, "every two seconds");
    assert_eq!(net.changes(), []);
    let port = |packet: &[u8]| TcpPacket::new_unchecked(&packet[20..]).src_port();
    let ports: Vec<u16> = net.sent.iter().map(|(_, packet)| port(packet)).collect();
    assert!(ports.chunks(2).is_sorted_by(|a, b| a[0] == a[1] && a[0] < b[0]), "{ports:?}");
    assert!(ports.iter().all(|port| crate::addr::OWN_PORTS.contains(port)));
}

#[test]
fn a_refused_connection_fails_at_once_and_silence_in_time() {
    let mut net = Net::new(Inquiry::Tcp);
    assert_eq!(net.first(), (Err(Failure::Refused), 0));
    for inquiry in [Inquiry::Tcp, http(None)] {
        let mut net = Net::new(inquiry);
        net.peer.is_gone = true;
        assert_eq!(net.first(), (Err(Failure::NoHandshake), 1_000));
    }
}

fn answer(socket: &mut tcp::Socket<'static>, text: &str) {
    if socket.can_recv() {
        let request = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
        let request = String::from_utf8(request).unwrap();
        assert!(request.starts_with("GET /up HTTP/1.1\r\nHost: www.example.com\r\n"), "{request}");
        socket.send_slice(text.as_bytes()).unwrap();
        socket.close();
    }
}

#[test]
fn http_is_judged_by_status_and_body() {
    let well: Script =
        |socket, _, _| answer(socket, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let ill: Script = |socket, _, _| answer(socket, "HTTP/1.1 503 Service Unavailable\r\n\r\nok");
    let other: Script = |socket, _, _| answer(socket, "SSH-2.0-x\r\n");
    for (script, body, expected) in [
        (well, None, Ok(())),
        (well, Some("ok"), Ok(())),
        (well, Some("fine"), Err(Failure::Body)),
        (ill, Some("ok"), Err(Failure::Status(503))),
        (other, None, Err(Failure::NotHttp)),
    ] {
        let mut net = Net::new(http(body));
        net.peer.serves(script);
        assert_eq!(net.first(), (expected, 0), "{body:?}");
        assert_eq!(net.flags().last(), Some(&"rst"), "nobody waits in TIME_WAIT");
        // And again, with the same socket.
        net.run(10_000);
        assert_eq!(net.last(), Some((expected, 0)));
        assert_eq!(net.peer.accepted, 6);
    }
}

#[test]
fn a_long_answer_is_read_as_it_comes() {
    let mut net = Net::new(http(Some("the end")));
    net.peer.serves(|socket, _, _| {
        const HEADER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n";
        if socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), ())).unwrap();
            socket.send_slice(HEADER).unwrap();
        } else if socket.may_send() {
            // More than there is room for at once: what does not fit is left out.
            socket.send_slice(&[b'x'; 4_000]).unwrap();
            socket.send_slice(b"the end").unwrap();
        }
    });
    assert!(net.first().0.is_ok(), "{:?}", net.last());
}

#[test]
fn who_accepts_and_says_too_little_runs_out_of_time() {
    let hangs: Script = |_, _, _| {};
    let drips: Script = |socket, age, fresh| {
        let text = b"HTTP/1.1 200 OK\r\n";
        if fresh && age % 100 == 0 {
            let at = usize::try_from(age / 100).unwrap() % text.len();
            let _ = socket.send_slice(&text[at..=at]);
        }
    };
    for script in [hangs, drips] {
        let mut net = Net::new(http(None));
        net.peer.serves(script);
        assert_eq!(net.first(), (Err(Failure::NoAnswer), 1_000));
        assert_eq!(net.flags().last(), Some(&"rst"));
    }
}

#[test]
fn who_dies_half_way_is_told_from_who_is_slow() {
    let reset: Script = |socket, age, fresh| match age {
        0..50 => {}
        50 if fresh => drop(socket.send_slice(b"HTTP/1.1 200 OK\r\n")),
        50..60 => {}
        _ => socket.abort(),
    };
    let closed: Script = |socket, age, fresh| match age {
        10 if fresh => drop(socket.send_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nha")),
        20.. => socket.close(),
        _ => {}
    };
    for (script, body, expected) in
        [(reset, None, Failure::Reset), (closed, Some("half"), Failure::Cut)]
    {
        let mut net = Net::new(http(body));
        net.peer.serves(script);
        let (result, took) = net.first();
        assert_eq!(result, Err(expected));
        assert!(took < 100, "{took} ms");
    }
}

#[test]
fn pings() {
    let mut net = Net::new(Inquiry::Ping);
    assert_eq!(net.first(), (Ok(()), 0));
    assert_eq!(net.sent.len(), 1);
    net.peer.is_gone = true;
    net.run(2_000);
    assert_eq!(net.last(), Some((Err(Failure::NoEcho), 1_000)));
    // Another's echo reply, or a late one, is none.
    let request = net.sent.last().unwrap().1.clone();
    let mut reply = request.clone();
    reply[12..16].copy_from_slice(&request[16..20]);
    reply[16..20].copy_from_slice(&request[12..16]);
    reply[20] = 0;
    Ipv4Packet::new_unchecked(&mut reply[..]).fill_checksum();
    smoltcp::wire::Icmpv4Packet::new_unchecked(&mut reply[20..]).fill_checksum();
    net.host.handle_packet(&reply);
    net.run(100);
    assert_eq!(net.last(), Some((Err(Failure::NoEcho), 1_000)));
}

#[test]
fn datagrams() {
    let closed = Err(Failure::Unreachable(Unreachable::PORT));
    for (answers, gone, wanted, expected) in [
        (true, false, None, (Ok(()), 0)),
        (true, false, Some("pong"), (Ok(()), 0)),
        (true, false, Some("gong"), (Err(Failure::Datagram), 0)),
        (false, false, None, (closed, 0)),
        (false, true, None, (Ok(()), 1_000)),
        (false, true, Some("pong"), (Err(Failure::NoDatagram), 1_000)),
    ] {
        let mut net = Net::new(udp(wanted));
        if answers {
            net.peer.answers();
        }
        net.peer.is_gone = gone;
        assert_eq!(net.first(), expected, "{answers} {gone} {wanted:?}");
    }
}

#[test]
fn an_icmp_error_ends_a_check_that_it_is_about() {
    for inquiry in [Inquiry::Tcp, http(None), Inquiry::Ping, udp(None)] {
        let mut net = Net::new(inquiry.clone());
        net.peer.is_gone = true;
        net.run(200);
        let request = net.sent[0].1.clone();
        let error = |quoted: &[u8]| {
            let mut packet =
                vec![0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 9, 10, 0, 0, 2];
            packet.extend([3, 1, 0, 0, 0, 0, 0, 0]);
            packet.extend(&quoted[..28]);
            Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
            smoltcp::wire::Icmpv4Packet::new_unchecked(&mut packet[20..]).fill_checksum();
            packet
        };
        let mut other = request.clone();
        // Another port, another server.
        other[if inquiry == Inquiry::Ping { 25 } else { 21 }] ^= 1;
        net.host.handle_packet(&error(&other));
        net.run(1);
        let mut other = request.clone();
        other[19] ^= 1;
        net.host.handle_packet(&error(&other));
        net.run(1);
        assert_eq!(net.last(), None);
        net.host.handle_packet(&error(&request));
        net.run(1);
        let (result, took) = net.last().unwrap();
        assert_eq!(result, Err(Failure::Unreachable(Unreachable(1))), "{inquiry}");
        assert_eq!(took, 202);
    }
}

#[test]
fn probes_are_somebody_elses_work() {
    for (probed, expected) in [
        (Probed::Open, Some(Ok(()))),
        (Probed::Refused, Some(Err(Failure::Refused))),
        (Probed::Silent, Some(Err(Failure::NoHandshake))),
        (Probed::NotSent, None),
    ] {
        let mut net = Net::new(Inquiry::VirtualIp);
        net.run(10);
        let [Probe { server: ID, source_port, timeout }] = net.probes[..] else {
            panic!("{:?}", net.probes)
        };
        assert_eq!(timeout, Duration::from_secs(1));
        assert!(net.sent.is_empty());
        net.host.handle_probed(source_port ^ 1, Probed::Open);
        net.host.handle_probed(source_port, probed);
        net.run(10);
        assert_eq!(net.last().map(|(result, _)| result), expected);
        // One whose outcome got lost tells nothing, and holds its place no longer than that.
        net.run(8_000);
        assert_eq!(net.last().map(|(result, _)| result), expected);
        assert!((4..=5).contains(&net.probes.len()), "{:?}", net.probes);
    }
}

#[test]
fn so_many_in_a_row_make_a_change() {
    let mut net = Net::new(Inquiry::Ping);
    net.run(2_500);
    net.peer.is_gone = true;
    // At 4, 6 and 8 s, each a second late.
    net.run(10_000);
    assert_eq!(net.changes(), [(9_000, Some(Failure::NoEcho))]);
    net.peer.is_gone = false;
    net.run(1_000);
    net.peer.is_gone = true;
    net.run(2_000);
    net.peer.is_gone = false;
    net.run(20_000);
    let changes = net.changes();
    assert_eq!(changes.len(), 2, "one success and one failure change nothing: {changes:?}");
    assert_eq!(changes[1], (18_000, None));
}

#[test]
fn who_is_down_at_first_must_rise() {
    let health = Health { initially_up: false, ..health(Inquiry::Ping) };
    let mut net = Net::with(check(health));
    net.run(10_000);
    assert_eq!(net.changes(), [(2_000, None)]);
}

#[test]
fn a_reload_keeps_what_is_known() {
    let mut net = Net::new(Inquiry::Ping);
    net.peer.is_gone = true;
    net.run(3_500);
    // Two failures so far; now it is asked in another way.
    let faster = Health { interval: Duration::from_secs(1), ..health(udp(Some("pong"))) };
    net.plan(vec![check(faster.clone())]);
    net.run(2_500);
    assert_eq!(net.changes(), [(5_000, Some(Failure::NoDatagram))]);
    net.plan(vec![]);
    net.run(3_000);
    assert_eq!((net.last(), net.changes().len()), (None, 1));
    // The same id, and another server: nothing is known of it.
    net.plan(vec![Check { since: 7, ..check(faster) }]);
    net.run(4_500);
    assert_eq!(net.changes().len(), 2, "up at first, and down again: {:?}", net.changes());
}

#[test]
fn what_is_open_when_its_server_goes_counts_for_nobody() {
    let mut net = Net::with(check(Health { fall: 1, ..health(Inquiry::Ping) }));
    net.peer.is_gone = true;
    net.run(500);
    net.plan(vec![Check {
        since: 2,
        phase: Duration::from_millis(1_900),
        ..check(Health { fall: 1, ..health(Inquiry::Ping) })
    }]);
    net.run(1_000);
    assert_eq!((net.last(), net.changes()), (None, vec![]));
    net.run(2_000);
    assert_eq!(net.changes().len(), 1, "of its own check");
}

#[test]
fn a_suspect_must_rise() {
    let mut net = Net::new(Inquiry::Ping);
    net.run(3_000);
    assert!(!net.host.suspect(ServerId(2)), "nobody checks it");
    assert!(net.host.suspect(ID));
    net.run(1_500);
    assert_eq!(net.changes(), [], "one is not enough");
    net.run(2_000);
    assert_eq!(net.changes(), [(6_000, None)]);
}
