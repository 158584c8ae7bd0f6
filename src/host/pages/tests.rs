//! Clients with a TCP of their own, at the other end of the host's two queues, on virtual time.

use std::net::Ipv4Addr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::*;
use crate::host::Host;
use crate::host::device::Device;
use crate::http::Method;

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PORT: u16 = 9180;

struct World {
    host: Host,
    interface: Interface,
    device: Device,
    sockets: SocketSet<'static>,
    next_port: u16,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let now = Instant::ZERO;
        let mut host = Host::new(&["10.0.0.2/24".parse().unwrap()], 1500, 7, now);
        host.listen(Some(Endpoint { address: HOST.into(), port: PORT }), now);
        let mut device = Device::new(1500, now);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = 3;
        let mut interface = Interface::new(config, &mut device, now);
        interface.update_ip_addrs(|list| {
            list.push(IpCidr::new(IpAddress::v4(10, 0, 0, 9), 24)).unwrap();
        });
        let sockets = SocketSet::new(Vec::new());
        let mut world = Self { host, interface, device, sockets, next_port: 40_000, now };
        world.turn();
        world
    }

    fn connect(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 64 << 10]);
        let mut socket = Socket::new(buffer(), buffer());
        self.next_port += 1;
        let remote = (IpAddress::from(HOST), PORT);
        socket.connect(self.interface.context(), remote, self.next_port).unwrap();
        let handle = self.sockets.add(socket);
        self.turn();
        handle
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn say(&mut self, handle: SocketHandle, text: &str) {
        let sent = self.socket(handle).send_slice(text.as_bytes()).unwrap();
        assert_eq!(sent, text.len());
        self.turn();
    }

    fn heard(&mut self, handle: SocketHandle) -> String {
        let mut text = String::new();
        while self.socket(handle).can_recv() {
            let part = self.socket(handle).recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
            text.push_str(&String::from_utf8(part).unwrap());
            self.turn();
        }
        text
    }

    /// Both ends do what they have to do, until neither has.
    fn turn(&mut self) {
        for _ in 0..100 {
            self.host.handle_timeout(self.now);
            self.interface.poll(self.now, &mut self.device, &mut self.sockets);
            let mut moved = false;
            while let Some(packet) = self.host.poll_transmit() {
                moved = true;
                assert!(self.device.incoming.push(packet));
            }
            while let Some(packet) = self.device.outgoing.pop() {
                moved = true;
                assert!(self.host.handle_packet(packet));
            }
            if !moved && self.host.poll_timeout(self.now).is_none_or(|at| at > self.now) {
                return;
            }
        }
        panic!("they never come to rest");
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now = (self.now + Duration::from_millis(100)).min(end);
            self.turn();
        }
    }
}

fn ok(body: &str) -> Response {
    Response::text(Status::Ok, body)
}

#[test]
fn a_request_is_answered_and_the_place_is_free_again() {
    let mut world = World::new();
    for round in 0..100 {
        let client = world.connect();
        world.say(client, "GET /metrics HTTP/1.1\r\nHo");
        assert_eq!(world.host.poll_request(), None);
        world.say(client, "st: x\r\n\r\n");
        let Some((id, request)) = world.host.poll_request() else { panic!("round {round}") };
        assert_eq!((request.method, request.path.as_str()), (Method::Get, "/metrics"));
        assert_eq!(id.peer, IpAddr::from([10, 0, 0, 9]));
        world.host.respond(id, ok(&format!("round {round}")), world.now);
        world.turn();
        let heard = world.heard(client);
        assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{heard}");
        assert!(heard.ends_with(&format!("\r\n\r\nround {round}")), "{heard}");
        assert_eq!(world.socket(client).state(), State::CloseWait, "the answer ends it");
        world.socket(client).close();
        world.turn();
        world.host.respond(id, ok("again"), world.now);
        world.turn();
    }
}

#[test]
fn a_long_answer_arrives_whole_and_a_head_without_a_body() {
    let mut world = World::new();
    let client = world.connect();
    world.say(client, "GET / HTTP/1.1\r\n\r\n");
    let (id, _) = world.host.poll_request().unwrap();
    let body: String = (b'a'..=b'z').cycle().take(200_000).map(char::from).collect();
    world.host.respond(id, ok(&body), world.now);
    let mut heard = String::new();
    while world.socket(client).may_recv() {
        world.wait(Duration::from_millis(10));
        heard.push_str(&world.heard(client));
    }
    assert!(heard.ends_with(&body) && heard.contains("Content-Length: 200000\r\n"));

    let client = world.connect();
    world.say(client, "HEAD / HTTP/1.1\r\n\r\n");
    let (id, request) = world.host.poll_request().unwrap();
    assert_eq!(request.method, Method::Get);
    world.host.respond(id, ok(&body), world.now);
    world.turn();
    let heard = world.heard(client);
    assert!(heard.contains("Content-Length: 200000\r\n") && heard.ends_with("\r\n\r\n"), "{heard}");
}

#[test]
fn the_slow_the_silent_and_the_malformed_are_closed() {
    let mut world = World::new();
    let (silent, dripping, odd) = (world.connect(), world.connect(), world.connect());
    world.say(odd, "\x16\x03\x01 hello\r\n\r\n");
    let heard = world.heard(odd);
    assert!(heard.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{heard}");
    for byte in "GET / HTTP".chars() {
        world.say(dripping, &byte.to_string());
        world.wait(Duration::from_millis(490));
    }
    assert_eq!(world.socket(silent).state(), State::Established);
    world.wait(Duration::from_millis(200));
    assert_eq!(world.socket(silent).state(), State::Closed, "reset: it never said a word");
    let heard = world.heard(dripping);
    assert!(heard.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{heard}");
    world.wait(Duration::from_secs(4));
    assert_eq!(world.socket(dripping).state(), State::Closed, "and it never hung up");
    assert_eq!(world.host.poll_request(), None);
}

#[test]
fn there_are_so_many_places_and_each_is_free_again_after_a_while() {
    let mut world = World::new();
    let clients: Vec<_> = (0..PLACES + 4).map(|_| world.connect()).collect();
    let state = |world: &mut World, n: usize| world.socket(clients[n]).state();
    assert_eq!(state(&mut world, PLACES - 1), State::Established);
    assert_eq!(state(&mut world, PLACES), State::Closed, "refused at once");
    world.wait(Duration::from_secs(6));
    let late = world.connect();
    assert_eq!(world.socket(late).state(), State::Established);
    // Nobody answers it.
    world.say(late, "GET / HTTP/1.1\r\n\r\n");
    let (id, _) = world.host.poll_request().unwrap();
    world.wait(Duration::from_secs(11));
    assert!(world.heard(late).starts_with("HTTP/1.1 503 "));
    world.host.respond(id, ok("too late"), world.now);
    world.turn();
    assert_eq!(world.heard(late), "");
}

#[test]
fn an_answer_is_not_given_to_the_next_one_in_the_same_place() {
    let mut world = World::new();
    let first = world.connect();
    world.say(first, "GET / HTTP/1.1\r\n\r\n");
    let (id, _) = world.host.poll_request().unwrap();
    world.socket(first).abort();
    world.turn();
    let second = world.connect();
    world.say(second, "GET / HTTP/1.1\r\n\r\n");
    let (next, _) = world.host.poll_request().unwrap();
    assert_eq!(next.place, id.place);
    world.host.respond(id, ok("for the first"), world.now);
    world.turn();
    assert_eq!(world.heard(second), "");
}

#[test]
fn another_address_or_none_is_taken_over_at_once() {
    let mut world = World::new();
    let old = world.connect();
    world.host.listen(Some(Endpoint { address: HOST.into(), port: 80 }), world.now);
    world.turn();
    assert_eq!(world.socket(old).state(), State::Closed, "reset");
    let refused = world.connect();
    assert_eq!(world.socket(refused).state(), State::Closed);
    world.host.listen(Some(Endpoint { address: HOST.into(), port: PORT }), world.now);
    world.turn();
    let welcome = world.connect();
    assert_eq!(world.socket(welcome).state(), State::Established);
    world.host.listen(None, world.now);
    world.turn();
    assert_eq!(world.socket(welcome).state(), State::Closed);
    let refused = world.connect();
    assert_eq!(world.socket(refused).state(), State::Closed);
    assert_eq!(world.host.poll_timeout(world.now), None, "it sleeps");
}
