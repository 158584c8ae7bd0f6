//! Hosts: smoltcp on Ethernet, with a client or a server on top.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpEndpoint};
use tapvs::addr::{LinkId, MacAddr};

use crate::support::random::Random;
use crate::support::{IN, OUT, VIP, server_ip, server_mac};

/// A NIC: frames in, frames out.
#[derive(Default)]
pub(crate) struct Nic {
    pub(crate) received: VecDeque<Vec<u8>>,
    pub(crate) sent: Vec<Vec<u8>>,
}

pub(crate) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

pub(crate) struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = vec![0; len];
        let result = write(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for Nic {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// What runs on a host.
enum Program {
    Client(Client),
    Server(Server),
}

pub(crate) struct Host {
    pub(crate) link: LinkId,
    pub(crate) mac: MacAddr,
    pub(crate) nic: Nic,
    interface: Interface,
    sockets: SocketSet<'static>,
    program: Program,
}

impl Host {
    /// A client at 203.0.113.`n` with so many transfers and queries to make.
    pub(crate) fn client(n: u8, transfers: usize, queries: usize, random: &mut Random) -> Self {
        let mac = MacAddr([2, 0, 0, 0, 3, n]);
        let address = Ipv4Addr::new(203, 0, 113, n);
        let mut host = Self::new(OUT, mac, address, None, random);
        let socket = udp::Socket::new(datagrams(), datagrams());
        let udp = host.sockets.add(socket);
        let socket: &mut udp::Socket<'_> = host.sockets.get_mut(udp);
        socket.bind(5_000).unwrap();
        let payloads = (0..transfers).map(|_| {
            let len = 1 + random.below(20_000);
            random.bytes(len)
        });
        host.program = Program::Client(Client {
            waiting: payloads.collect(),
            running: Vec::new(),
            complete: 0,
            retries: 0,
            next_port: 20_000 + u16::try_from(random.below(1_000)).unwrap(),
            udp,
            queries_left: queries,
            asked: None,
        });
        host
    }

    /// Real server 10.0.0.`n`.
    pub(crate) fn server(n: u8, random: &mut Random) -> Self {
        let gateway = Some(Ipv4Addr::new(10, 0, 0, 1));
        let mut host = Self::new(IN, server_mac(n), server_ip(n), gateway, random);
        let tcp = (0..6).map(|_| host.sockets.add(stream())).collect();
        let udp = host.sockets.add(udp::Socket::new(datagrams(), datagrams()));
        let socket: &mut udp::Socket<'_> = host.sockets.get_mut(udp);
        socket.bind(53).unwrap();
        host.program = Program::Server(Server { tcp, udp, n });
        host
    }

    fn new(
        link: LinkId,
        mac: MacAddr,
        address: Ipv4Addr,
        gateway: Option<Ipv4Addr>,
        random: &mut Random,
    ) -> Self {
        let mut nic = Nic::default();
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac.0)));
        config.random_seed = random.next();
        let mut interface = Interface::new(config, &mut nic, Instant::ZERO);
        interface.update_ip_addrs(|list| list.push(IpCidr::new(address.into(), 24)).unwrap());
        if let Some(gateway) = gateway {
            interface.routes_mut().add_default_ipv4_route(gateway).unwrap();
        }
        let program =
            Program::Server(Server { tcp: Vec::new(), udp: SocketHandle::default(), n: 0 });
        Self { link, mac, nic, interface, sockets: SocketSet::new(Vec::new()), program }
    }

    /// Reads what came, lets the program work, writes what there is to write.
    pub(crate) fn poll(&mut self, now: Instant) {
        for _ in 0..3 {
            self.interface.poll(now, &mut self.nic, &mut self.sockets);
            match &mut self.program {
                Program::Client(client) => client.work(&mut self.interface, &mut self.sockets, now),
                Program::Server(server) => server.work(&mut self.sockets),
            }
        }
        self.interface.poll(now, &mut self.nic, &mut self.sockets);
    }

    /// When to poll again without a frame.
    pub(crate) fn next_poll(&mut self, now: Instant) -> Option<Instant> {
        let stack = self.interface.poll_at(now, &self.sockets);
        let program = match &self.program {
            Program::Client(client) => client.asked.as_ref().map(|(_, at)| *at + RETRY),
            Program::Server(_) => None,
        };
        stack.into_iter().chain(program).min()
    }

    /// Transfers and queries that are not complete.
    pub(crate) fn left(&self) -> usize {
        match &self.program {
            Program::Client(c) => {
                c.waiting.len() + c.running.len() + c.queries_left + usize::from(c.asked.is_some())
            }
            Program::Server(_) => 0,
        }
    }

    /// Connections that were given up and made again.
    pub(crate) fn retries(&self) -> usize {
        match &self.program {
            Program::Client(client) => client.retries,
            Program::Server(_) => 0,
        }
    }

    /// What the program has done, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.program {
            Program::Client(client) => {
                let running = client.running.iter().map(|t| {
                    let socket: &tcp::Socket<'_> = self.sockets.get(t.socket);
                    format!(
                        "port {} {}, {} of {} sent, {} back",
                        t.port,
                        socket.state(),
                        t.sent,
                        t.payload.len(),
                        t.back.len()
                    )
                });
                format!(
                    "{} complete, running: {:?}, queries left {} asked {:?}",
                    client.complete,
                    running.collect::<Vec<_>>(),
                    client.queries_left,
                    client.asked
                )
            }
            Program::Server(server) => format!("server {}", server.n),
        }
    }
}

const RETRY: Duration = Duration::from_millis(700);

fn stream() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; 8_192]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_timeout(Some(Duration::from_secs(20)));
    socket
}

fn datagrams() -> udp::PacketBuffer<'static> {
    udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 2_048])
}

/// Sends payloads over connections of their own and wants them back, disguised.
struct Client {
    waiting: Vec<Vec<u8>>,
    running: Vec<Transfer>,
    complete: usize,
    /// Connections that timed out and were made again.
    retries: usize,
    next_port: u16,
    udp: SocketHandle,
    queries_left: usize,
    /// The query on its way, and since when.
    asked: Option<(String, Instant)>,
}

struct Transfer {
    socket: SocketHandle,
    port: u16,
    payload: Vec<u8>,
    sent: usize,
    back: Vec<u8>,
}

impl Client {
    fn work(&mut self, interface: &mut Interface, sockets: &mut SocketSet<'static>, now: Instant) {
        while self.running.len() < 3 {
            let Some(payload) = self.waiting.pop() else { break };
            let socket = sockets.add(stream());
            let tcp: &mut tcp::Socket<'_> = sockets.get_mut(socket);
            let port = self.next_port;
            self.next_port += 1;
            tcp.connect(interface.context(), (VIP, 80), port).unwrap();
            self.running.push(Transfer { socket, port, payload, sent: 0, back: Vec::new() });
        }
        let mut done = Vec::new();
        for (at, transfer) in self.running.iter_mut().enumerate() {
            let tcp: &mut tcp::Socket<'_> = sockets.get_mut(transfer.socket);
            if tcp.can_send() && transfer.sent < transfer.payload.len() {
                transfer.sent += tcp.send_slice(&transfer.payload[transfer.sent..]).unwrap();
                // Every other client is done talking before it is done listening.
                if transfer.sent == transfer.payload.len() && transfer.port % 2 == 0 {
                    tcp.close();
                }
            }
            while tcp.can_recv() {
                tcp.recv(|bytes| {
                    transfer.back.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
            }
            let lost = tcp.state() == tcp::State::Closed;
            // smoltcp may forget to send a lost FIN again, so its coming is not waited for.
            if transfer.back.len() > transfer.payload.len() {
                tcp.close();
                done.push(at);
            } else if lost {
                // Nor does it always send lost data again: the connection times out.
                done.push(at);
            }
        }
        for at in done.into_iter().rev() {
            let transfer = self.running.remove(at);
            if transfer.back.len() <= transfer.payload.len() {
                self.retries += 1;
                self.waiting.push(transfer.payload);
                continue;
            }
            let expect: Vec<u8> = transfer.payload.iter().map(|byte| byte ^ 0x5a).collect();
            assert!(
                transfer.back.get(1..) == Some(&expect[..]),
                "port {}: {} bytes came back of {}",
                transfer.port,
                transfer.back.len(),
                expect.len() + 1
            );
            // The socket stays to finish the close; its port is not used again.
            self.complete += 1;
        }
        self.query(sockets, now);
    }

    fn query(&mut self, sockets: &mut SocketSet<'static>, now: Instant) {
        let socket: &mut udp::Socket<'_> = sockets.get_mut(self.udp);
        while let Ok((answer, from)) = socket.recv() {
            assert_eq!(from.endpoint, IpEndpoint::from((VIP, 53)), "who answers");
            let answer = std::str::from_utf8(answer).unwrap().to_string();
            if self.asked.as_ref().is_some_and(|(query, _)| answer == format!("re: {query}")) {
                self.asked = None;
            }
        }
        let again = self.asked.as_ref().is_some_and(|(_, at)| now >= *at + RETRY);
        if self.asked.is_none() && self.queries_left > 0 {
            self.asked = Some((format!("query {}", self.queries_left), now));
            self.queries_left -= 1;
        } else if !again {
            return;
        }
        if let Some((query, at)) = &mut self.asked {
            *at = now;
            let _ = socket.send_slice(query.as_bytes(), IpEndpoint::from((VIP, 53)));
        }
    }
}

/// Sends its number, then everything back, disguised.
struct Server {
    tcp: Vec<SocketHandle>,
    udp: SocketHandle,
    n: u8,
}

impl Server {
    fn work(&mut self, sockets: &mut SocketSet<'static>) {
        for handle in &self.tcp {
            let tcp: &mut tcp::Socket<'_> = sockets.get_mut(*handle);
            match tcp.state() {
                tcp::State::Closed | tcp::State::TimeWait => {
                    tcp.abort();
                    *tcp = stream();
                    tcp.listen(8080).unwrap();
                }
                tcp::State::Listen | tcp::State::SynReceived => {}
                _ => Self::echo(tcp, self.n),
            }
        }
        let udp: &mut udp::Socket<'_> = sockets.get_mut(self.udp);
        while let Ok((query, from)) = udp.recv() {
            let answer = [b"re: ", query].concat();
            let _ = udp.send_slice(&answer, from.endpoint);
        }
    }

    fn echo(tcp: &mut tcp::Socket<'static>, n: u8) {
        // `user_data` of a kind: the greeting goes out before the first byte comes back.
        let greeted = tcp.nagle_enabled();
        if greeted && tcp.can_send() {
            tcp.send_slice(&[n]).unwrap();
            tcp.set_nagle_enabled(false);
        }
        while tcp.can_recv() && tcp.send_capacity() > tcp.send_queue() {
            let room = tcp.send_capacity() - tcp.send_queue();
            let bytes = tcp.recv(|bytes| {
                let len = bytes.len().min(room);
                (len, bytes[..len].iter().map(|byte| byte ^ 0x5a).collect::<Vec<_>>())
            });
            let bytes = bytes.unwrap();
            if bytes.is_empty() {
                break;
            }
            tcp.send_slice(&bytes).unwrap();
        }
        if !tcp.may_recv() && !tcp.can_recv() {
            tcp.close();
        }
    }
}
