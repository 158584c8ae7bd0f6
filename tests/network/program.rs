//! What runs on hosts: a client that sends and compares, a server that sends everything back.

use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpEndpoint;

use crate::caller::Caller;
use crate::ftp::{FtpClient, FtpServer};
use crate::support::VIP;
use crate::support::random::Random;

/// A query is asked again after this long.
const RETRY: Duration = Duration::from_millis(700);
/// Who was refused or gave up tries again after this long.
const PATIENCE: Duration = Duration::from_millis(250);
/// Streams of a server that has not much to do.
pub(crate) const STREAMS: usize = 6;
/// What a transfer sends at once, if it has a pace.
const MORSEL: usize = 600;

/// What runs on a host.
pub(crate) enum Program {
    Client(Client),
    Server(Server),
    Caller(Caller),
    FtpServer(FtpServer),
    FtpClient(FtpClient),
}

impl Program {
    pub(crate) fn work(
        &mut self,
        interface: &mut Interface,
        sockets: &mut SocketSet<'static>,
        now: Instant,
    ) {
        match self {
            Self::Client(client) => client.work(interface, sockets, now),
            Self::Server(server) => server.work(sockets),
            Self::Caller(caller) => caller.work(interface, sockets),
            Self::FtpServer(server) => server.work(interface, sockets),
            Self::FtpClient(client) => client.work(interface, sockets, now),
        }
    }

    /// When it wants to work again without a frame.
    pub(crate) fn next_work(&self) -> Option<Instant> {
        let client = match self {
            Self::Client(client) => client,
            Self::FtpClient(client) => return client.next_work(),
            Self::Server(_) | Self::Caller(_) | Self::FtpServer(_) => return None,
        };
        let retry = client.asked.as_ref().map(|(_, at)| *at + RETRY);
        let unsent = client.running.iter().filter(|t| t.sent < t.payload.len());
        let paced = unsent.map(|transfer| transfer.next).filter(|_| client.pace > Duration::ZERO);
        let again = client.may_connect().then_some(client.again);
        paced.chain(retry).chain(again).min()
    }

    /// Transfers and queries that are not complete.
    pub(crate) fn left(&self) -> usize {
        let c = match self {
            Self::Client(client) => client,
            Self::FtpClient(client) => return usize::from(!client.is_content()),
            Self::Server(_) | Self::Caller(_) | Self::FtpServer(_) => return 0,
        };
        c.waiting.len() + c.running.len() + c.queries_left + usize::from(c.asked.is_some())
    }

    /// Connections that were given up and made again.
    pub(crate) fn retries(&self) -> usize {
        match self {
            Self::Client(client) => client.retries,
            Self::FtpClient(client) => client.cuts + client.data_cuts,
            Self::Server(_) | Self::Caller(_) | Self::FtpServer(_) => 0,
        }
    }

    pub(crate) fn describe(&self, sockets: &SocketSet<'static>) -> String {
        let client = match self {
            Self::Client(client) => client,
            Self::Server(server) => return format!("server {}", server.n),
            Self::Caller(caller) => return format!("{} calls", caller.calls.len()),
            Self::FtpServer(_) => return "FTP server".to_owned(),
            Self::FtpClient(client) => {
                let FtpClient { fetched, left, cuts, data_cuts, .. } = client;
                return format!(
                    "FTP: {fetched} files, {left} left, {cuts} and {data_cuts} cut off"
                );
            }
        };
        let running = client.running.iter().map(|t| {
            let socket: &tcp::Socket<'_> = sockets.get(t.socket);
            let (port, state) = (t.port, socket.state());
            let (sent, len, back) = (t.sent, t.payload.len(), t.back.len());
            format!("port {port} {state}, {sent} of {len} sent, {back} back")
        });
        format!(
            "{} complete, running: {:?}, queries left {} asked {:?}",
            client.complete,
            running.collect::<Vec<_>>(),
            client.queries_left,
            client.asked
        )
    }
}

pub(crate) fn stream() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; 8_192]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_timeout(Some(Duration::from_secs(120)));
    socket
}

fn datagrams() -> udp::PacketBuffer<'static> {
    udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 2_048])
}

/// Sends payloads over connections of their own and wants them back, disguised.
pub(crate) struct Client {
    waiting: Vec<Vec<u8>>,
    running: Vec<Transfer>,
    /// Sockets that only have to finish their close.
    closing: Vec<SocketHandle>,
    /// When the next connection may be made.
    again: Instant,
    complete: usize,
    /// Connections that timed out and were made again.
    retries: usize,
    next_port: u16,
    udp: SocketHandle,
    queries_left: usize,
    /// The query on its way, and since when.
    asked: Option<(String, Instant)>,
    /// How long a transfer pauses between morsels.
    pace: Duration,
}

struct Transfer {
    socket: SocketHandle,
    port: u16,
    payload: Vec<u8>,
    sent: usize,
    back: Vec<u8>,
    /// When it may send more.
    next: Instant,
}

impl Client {
    /// One with so many transfers and queries to make.
    pub(crate) fn new(
        sockets: &mut SocketSet<'static>,
        transfers: usize,
        queries: usize,
        pace: Duration,
        random: &mut Random,
    ) -> Self {
        let udp = sockets.add(udp::Socket::new(datagrams(), datagrams()));
        let socket: &mut udp::Socket<'_> = sockets.get_mut(udp);
        socket.bind(5_000).unwrap();
        let payloads = (0..transfers).map(|_| {
            let len = 1 + random.below(20_000);
            random.bytes(len)
        });
        Self {
            waiting: payloads.collect(),
            running: Vec::new(),
            closing: Vec::new(),
            again: Instant::ZERO,
            complete: 0,
            retries: 0,
            next_port: 20_000 + u16::try_from(random.below(1_000)).unwrap(),
            udp,
            queries_left: queries,
            asked: None,
            pace,
        }
    }

    /// Whether there is something to connect for, and not too much going on.
    fn may_connect(&self) -> bool {
        self.running.len() < 3 && !self.waiting.is_empty()
    }

    fn work(&mut self, interface: &mut Interface, sockets: &mut SocketSet<'static>, now: Instant) {
        while self.may_connect() && self.again <= now {
            let Some(payload) = self.waiting.pop() else { break };
            let socket = sockets.add(stream());
            let tcp: &mut tcp::Socket<'_> = sockets.get_mut(socket);
            let port = self.next_port;
            self.next_port += 1;
            tcp.connect(interface.context(), (VIP, 80), port).unwrap();
            let (sent, back, next) = (0, Vec::new(), now);
            self.running.push(Transfer { socket, port, payload, sent, back, next });
        }
        let mut done = Vec::new();
        for (at, transfer) in self.running.iter_mut().enumerate() {
            let tcp: &mut tcp::Socket<'_> = sockets.get_mut(transfer.socket);
            let paced = self.pace > Duration::ZERO;
            let may = !paced || transfer.next <= now;
            if may {
                transfer.next = now + self.pace;
            }
            if may && tcp.can_send() && transfer.sent < transfer.payload.len() {
                let rest = &transfer.payload[transfer.sent..];
                let most = if paced { MORSEL.min(rest.len()) } else { rest.len() };
                transfer.sent += tcp.send_slice(&rest[..most]).unwrap();
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
            self.closing.push(transfer.socket);
            if transfer.back.len() <= transfer.payload.len() {
                self.retries += 1;
                self.again = now + PATIENCE;
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
        self.closing.retain(|handle| {
            let open = sockets.get::<tcp::Socket<'_>>(*handle).state() != tcp::State::Closed;
            if !open {
                sockets.remove(*handle);
            }
            open
        });
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
pub(crate) struct Server {
    tcp: Vec<SocketHandle>,
    udp: SocketHandle,
    port: u16,
    n: u8,
}

impl Server {
    /// Number `n`, listening at `port` for so many streams.
    pub(crate) fn new(sockets: &mut SocketSet<'static>, port: u16, n: u8, streams: usize) -> Self {
        let tcp = (0..streams).map(|_| sockets.add(stream())).collect();
        let udp = sockets.add(udp::Socket::new(datagrams(), datagrams()));
        let socket: &mut udp::Socket<'_> = sockets.get_mut(udp);
        socket.bind(53).unwrap();
        Self { tcp, udp, port, n }
    }

    fn work(&mut self, sockets: &mut SocketSet<'static>) {
        for handle in &self.tcp {
            let tcp: &mut tcp::Socket<'_> = sockets.get_mut(*handle);
            match tcp.state() {
                tcp::State::Closed | tcp::State::TimeWait => {
                    tcp.abort();
                    *tcp = stream();
                    tcp.listen(self.port).unwrap();
                }
                tcp::State::Listen | tcp::State::SynReceived => {}
                _ => Self::echo(tcp, self.n),
            }
        }
        let udp: &mut udp::Socket<'_> = sockets.get_mut(self.udp);
        while let Ok((query, from)) = udp.recv() {
            let answer = [b"re: ", query].concat();
            // From the address that was asked.
            let _ = udp.send_slice(&answer, from);
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
