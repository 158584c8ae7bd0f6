//! A client whose connections stay: each says something now and then and wants it back, disguised.

use std::collections::VecDeque;

use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;

use crate::program::stream;
use crate::support::VIP;

#[derive(Default)]
pub(crate) struct Caller {
    pub(crate) calls: Vec<Call>,
}

pub(crate) struct Call {
    /// The service's port.
    pub(crate) to: u16,
    pub(crate) from: u16,
    socket: Option<SocketHandle>,
    /// Who answered: it says so first.
    pub(crate) server: Option<u8>,
    unsent: Vec<u8>,
    expected: VecDeque<u8>,
    /// It may end: its server was removed where removal resets.
    pub(crate) doomed: bool,
    /// It ended, which it never should by itself.
    pub(crate) broke: bool,
}

impl Caller {
    /// One more connection, from a port of its own.
    pub(crate) fn open(&mut self, to: u16) {
        let from = 20_000 + u16::try_from(self.calls.len()).unwrap();
        let (unsent, expected) = Default::default();
        self.calls.push(Call {
            to,
            from,
            socket: None,
            server: None,
            unsent,
            expected,
            doomed: false,
            broke: false,
        });
    }

    pub(crate) fn work(&mut self, interface: &mut Interface, sockets: &mut SocketSet<'static>) {
        for call in self.calls.iter_mut().filter(|call| !call.broke) {
            let socket = *call.socket.get_or_insert_with(|| {
                let mut socket = stream();
                socket.set_ack_delay(None);
                socket.connect(interface.context(), (VIP, call.to), call.from).unwrap();
                sockets.add(socket)
            });
            call.work(sockets.get_mut(socket));
        }
    }
}

impl Call {
    /// Has `words` to say.
    pub(crate) fn say(&mut self, words: &[u8]) {
        self.unsent.extend(words);
    }

    /// Whether it was answered, and everything came back.
    pub(crate) fn is_content(&self) -> bool {
        self.server.is_some() && self.unsent.is_empty() && self.expected.is_empty()
    }

    fn work(&mut self, tcp: &mut tcp::Socket<'static>) {
        if !matches!(tcp.state(), tcp::State::SynSent | tcp::State::Established) {
            self.broke = true;
            return;
        }
        if tcp.can_send() && !self.unsent.is_empty() {
            let sent = tcp.send_slice(&self.unsent).unwrap();
            self.expected.extend(self.unsent.drain(..sent).map(|byte| byte ^ 0x5a));
        }
        while tcp.can_recv() {
            let heard = tcp.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
            for byte in heard {
                match self.server {
                    Some(_) => assert_eq!(Some(byte), self.expected.pop_front(), "{}", self.from),
                    None => self.server = Some(byte),
                }
            }
        }
    }
}
