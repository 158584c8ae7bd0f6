//! FTP as programs speak it: a server with passive and active data connections, and a client that sends
//! several commands at once and compares what comes.

use std::net::Ipv4Addr;

use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};

use crate::program::stream;
use crate::support::VIP;

/// Where the service is.
pub(crate) const CONTROL: u16 = 21;
/// Who was cut off tries again after this long.
const PATIENCE: Duration = Duration::from_millis(250);
/// A file has so many bytes, all the server's number.
const FILE: usize = 5_000;

fn send(tcp: &mut tcp::Socket<'_>, unsent: &mut Vec<u8>) {
    if tcp.can_send() && !unsent.is_empty() {
        let sent = tcp.send_slice(unsent).unwrap();
        unsent.drain(..sent);
    }
}

fn receive(tcp: &mut tcp::Socket<'_>, into: &mut Vec<u8>) {
    while tcp.can_recv() {
        tcp.recv(|bytes| {
            into.extend_from_slice(bytes);
            (bytes.len(), ())
        })
        .unwrap();
    }
}

/// Whole lines, taken off `text`.
fn lines(text: &mut Vec<u8>) -> Vec<String> {
    let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
    let whole: Vec<u8> = text.drain(..=end).collect();
    let whole = String::from_utf8(whole).expect("text is text");
    assert!(whole.ends_with("\r\n"), "{whole:?}");
    whole.split_terminator("\r\n").map(str::to_owned).collect()
}

/// Six numbers of a text, the first of which is its first number.
pub(crate) fn place(text: &str) -> (Ipv4Addr, u16) {
    let numbers: Vec<u8> = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|number| !number.is_empty())
        .map(|number| number.parse().unwrap())
        .collect();
    let [a, b, c, d, high, low] = numbers[..] else { panic!("{text:?}") };
    (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low]))
}

/// One control connection of the server's.
struct Session {
    control: SocketHandle,
    heard: Vec<u8>,
    unsent: Vec<u8>,
    greeted: bool,
    data: Option<SocketHandle>,
    /// What is left to send, once somebody asked.
    file: Option<Vec<u8>>,
}

/// A server that is number `n`.
pub(crate) struct FtpServer {
    n: u8,
    sessions: Vec<Session>,
    /// Data connections that only have to finish.
    closing: Vec<SocketHandle>,
    next_port: u16,
}

impl FtpServer {
    pub(crate) fn new(sockets: &mut SocketSet<'static>, n: u8, sessions: usize) -> Self {
        let session = |_| Session {
            control: sockets.add(stream()),
            heard: Vec::new(),
            unsent: Vec::new(),
            greeted: false,
            data: None,
            file: None,
        };
        let sessions = (0..sessions).map(session).collect();
        // Ports of three and of two numbers, so that lengths differ.
        Self { n, sessions, closing: Vec::new(), next_port: 2_000 }
    }

    pub(crate) fn work(&mut self, interface: &mut Interface, sockets: &mut SocketSet<'static>) {
        for session in &mut self.sessions {
            let tcp: &mut tcp::Socket<'_> = sockets.get_mut(session.control);
            match tcp.state() {
                tcp::State::Closed | tcp::State::TimeWait => {
                    tcp.abort();
                    *tcp = stream();
                    // An answer may overtake the one before it.
                    tcp.set_nagle_enabled(false);
                    tcp.listen(CONTROL).unwrap();
                    session.heard.clear();
                    session.unsent.clear();
                    session.greeted = false;
                    session.file = None;
                    self.closing.extend(session.data.take());
                    continue;
                }
                tcp::State::Listen | tcp::State::SynReceived => continue,
                _ => {}
            }
            if !std::mem::replace(&mut session.greeted, true) {
                session.unsent.extend(format!("220 server {}\r\n", self.n).bytes());
            }
            receive(tcp, &mut session.heard);
            if !tcp.may_recv() && !tcp.can_recv() {
                tcp.close();
            }
            for line in lines(&mut session.heard) {
                let answer = match line.split_once(' ').unwrap_or((&line, "")) {
                    ("NOOP", _) => "200 Fine.".to_owned(),
                    ("PASV", _) => {
                        self.next_port = 2_000 + (self.next_port - 2_000 + 917) % 5_000;
                        let [high, low] = self.next_port.to_be_bytes();
                        let mut data = stream();
                        data.listen(self.next_port).unwrap();
                        self.closing.extend(session.data.replace(sockets.add(data)));
                        format!("227 Entering Passive Mode (10,0,0,{},{high},{low}).", self.n)
                    }
                    ("PORT", rest) => {
                        let to = place(rest);
                        let mut data = stream();
                        let from = 20;
                        data.connect(interface.context(), to, from).unwrap();
                        self.closing.extend(session.data.replace(sockets.add(data)));
                        "200 PORT command successful.".to_owned()
                    }
                    ("RETR", _) => {
                        session.file = Some(vec![self.n; FILE]);
                        "150 Here it comes.".to_owned()
                    }
                    other => panic!("{other:?} is no command"),
                };
                session.unsent.extend(answer.bytes().chain(*b"\r\n"));
            }
            if let (Some(data), Some(file)) = (session.data, &mut session.file) {
                let data: &mut tcp::Socket<'_> = sockets.get_mut(data);
                send(data, file);
                if file.is_empty() && data.send_queue() == 0 {
                    data.close();
                    self.closing.extend(session.data.take());
                    session.file = None;
                    session.unsent.extend(*b"226 Transfer complete.\r\n");
                }
            }
            send(sockets.get_mut(session.control), &mut session.unsent);
        }
        self.closing.retain(|handle| {
            let tcp: &mut tcp::Socket<'_> = sockets.get_mut(*handle);
            let is_open = matches!(
                tcp.state(),
                tcp::State::FinWait1
                    | tcp::State::FinWait2
                    | tcp::State::Closing
                    | tcp::State::LastAck
            );
            if !is_open {
                tcp.abort();
            }
            let is_over = tcp.state() == tcp::State::Closed;
            if is_over {
                sockets.remove(*handle);
            }
            !is_over
        });
    }
}

/// What a client is about.
enum Step {
    /// Its connection is being made.
    Connects,
    /// What it asked has not been answered yet: so many answers before the one that matters, and after.
    Asks { active: bool, before: usize },
    /// A file is on its way.
    Reads { bytes: Vec<u8>, came: bool },
    /// It has nothing to do.
    Rests,
}

/// A client that fetches files, one after the other over one control connection.
pub(crate) struct FtpClient {
    address: [u8; 4],
    control: Option<SocketHandle>,
    data: Option<SocketHandle>,
    step: Step,
    heard: Vec<u8>,
    unsent: Vec<u8>,
    /// Who answered.
    pub(crate) server: Option<u8>,
    /// Files that are to come, and that came.
    pub(crate) left: usize,
    pub(crate) fetched: usize,
    /// Control connections that were cut off, and data connections.
    pub(crate) cuts: usize,
    pub(crate) data_cuts: usize,
    /// When it goes on.
    again: Instant,
    next_port: u16,
}

impl FtpClient {
    pub(crate) const fn new(address: [u8; 4], files: usize) -> Self {
        Self {
            address,
            control: None,
            data: None,
            step: Step::Rests,
            heard: Vec::new(),
            unsent: Vec::new(),
            server: None,
            left: files,
            fetched: 0,
            cuts: 0,
            data_cuts: 0,
            again: Instant::ZERO,
            next_port: 30_000,
        }
    }

    pub(crate) const fn is_content(&self) -> bool {
        self.left == 0 && matches!(self.step, Step::Rests)
    }

    pub(crate) fn next_work(&self) -> Option<Instant> {
        (self.control.is_none() && !self.is_content()).then_some(self.again)
    }

    fn port(&mut self) -> u16 {
        self.next_port += 1;
        self.next_port
    }

    pub(crate) fn work(
        &mut self,
        interface: &mut Interface,
        sockets: &mut SocketSet<'static>,
        now: Instant,
    ) {
        if self.control.is_none() {
            if now < self.again || self.left == 0 {
                return;
            }
            let mut tcp = stream();
            tcp.connect(interface.context(), (VIP, CONTROL), self.port()).unwrap();
            self.control = Some(sockets.add(tcp));
            (self.step, self.server) = (Step::Connects, None);
            self.heard.clear();
            self.unsent.clear();
        }
        let Some(control) = self.control else { return };
        let tcp: &mut tcp::Socket<'_> = sockets.get_mut(control);
        let is_cut = !matches!(tcp.state(), tcp::State::SynSent | tcp::State::Established);
        let data_is_cut = |sockets: &SocketSet<'static>, data: Option<SocketHandle>| {
            data.is_some_and(|data| {
                sockets.get::<tcp::Socket<'_>>(data).state() == tcp::State::Closed
            })
        };
        receive(tcp, &mut self.heard);
        let reads = matches!(self.step, Step::Asks { .. } | Step::Reads { .. });
        if is_cut || reads && data_is_cut(sockets, self.data) && !self.is_whole() {
            if is_cut {
                self.cuts += 1;
            } else {
                self.data_cuts += 1;
            }
            self.give_up(sockets, now);
            return;
        }
        for line in lines(&mut self.heard) {
            self.hear(&line, interface, sockets);
        }
        self.read(sockets);
        if matches!(self.step, Step::Rests) && self.left > 0 {
            self.ask(sockets);
        }
        if let Some(control) = self.control {
            send(sockets.get_mut(control), &mut self.unsent);
        }
    }

    fn is_whole(&self) -> bool {
        matches!(&self.step, Step::Reads { bytes, .. } if bytes.len() >= FILE)
    }

    fn give_up(&mut self, sockets: &mut SocketSet<'static>, now: Instant) {
        for handle in [self.control.take(), self.data.take()].into_iter().flatten() {
            sockets.get_mut::<tcp::Socket<'_>>(handle).abort();
        }
        self.step = Step::Rests;
        self.again = now + PATIENCE;
    }

    /// Several commands at once, of which the one that matters stands among others.
    fn ask(&mut self, sockets: &mut SocketSet<'static>) {
        let round = self.fetched + self.cuts + self.data_cuts;
        let (active, before, after) = (round % 3 == 2, round % 4, round % 2);
        for _ in 0..before {
            self.unsent.extend(*b"NOOP\r\n");
        }
        if active {
            let port = self.port();
            let mut data = stream();
            data.listen(port).unwrap();
            self.data = Some(sockets.add(data));
            let ([a, b, c, d], [high, low]) = (self.address, port.to_be_bytes());
            self.unsent.extend(format!("PORT {a},{b},{c},{d},{high},{low}\r\n").bytes());
        } else {
            self.unsent.extend(*b"PASV\r\n");
        }
        for _ in 0..after {
            self.unsent.extend(*b"NOOP\r\n");
        }
        self.step = Step::Asks { active, before };
    }

    fn hear(&mut self, line: &str, interface: &mut Interface, sockets: &mut SocketSet<'static>) {
        let (code, rest) = line.split_at(4);
        match (&mut self.step, code) {
            (Step::Connects, "220 ") => {
                self.server = rest.rsplit(' ').next().and_then(|n| n.parse().ok());
                self.step = Step::Rests;
            }
            (Step::Asks { before, .. }, "200 ") if *before > 0 && rest == "Fine." => *before -= 1,
            (Step::Asks { active: true, before: 0 }, "200 ") => self.retrieve(),
            (Step::Asks { active: false, before: 0 }, "227 ") => {
                let to = place(rest);
                assert_eq!(to.0, VIP, "{line}");
                let mut data = stream();
                data.connect(interface.context(), to, self.port()).unwrap();
                self.data = Some(sockets.add(data));
                self.retrieve();
            }
            (Step::Reads { .. }, "200 " | "150 ") => {}
            (Step::Reads { came, .. }, "226 ") => *came = true,
            _ => panic!("{line:?} was not expected"),
        }
    }

    fn retrieve(&mut self) {
        self.unsent.extend(*b"RETR file\r\n");
        self.step = Step::Reads { bytes: Vec::new(), came: false };
    }

    fn read(&mut self, sockets: &mut SocketSet<'static>) {
        let (Step::Reads { bytes, came }, Some(handle)) = (&mut self.step, self.data) else {
            return;
        };
        let data: &mut tcp::Socket<'_> = sockets.get_mut(handle);
        receive(data, bytes);
        if bytes.len() >= FILE && *came {
            let server = self.server.expect("it has greeted");
            assert!(bytes.len() == FILE && bytes.iter().all(|byte| *byte == server));
            // smoltcp may forget to send a lost FIN again, so its coming is not waited for.
            data.abort();
            self.data = None;
            self.left -= 1;
            self.fetched += 1;
            self.step = Step::Rests;
        }
    }
}
