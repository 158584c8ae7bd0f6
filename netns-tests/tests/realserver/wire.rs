//! The cable between server and client: two TAPs, and a thread that carries frames from one to the
//! other and remembers what the server has sent.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use netns_tests::{Context as _, Outcome};
use tapvs::addr::MacAddr;
use tapvs::links::tap::Tap;

const IDLE: Duration = Duration::from_micros(200);

/// Carries frames until it is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: Tap,
    client: Tap,
    /// ARP from the server.
    said: Mutex<Vec<Arp>>,
    end: AtomicBool,
}

/// ARP over Ethernet for IPv4 (RFC 826).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arp {
    pub(crate) to: MacAddr,
    pub(crate) is_reply: bool,
    pub(crate) sender: (MacAddr, Ipv4Addr),
    pub(crate) target: Ipv4Addr,
}

impl Wire {
    /// Joins two NICs by their TAPs.
    pub(crate) fn new(server: Tap, client: Tap) -> Self {
        let said = Mutex::default();
        let shared = Arc::new(Shared { server, client, said, end: AtomicBool::new(false) });
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.carry()
        });
        Self { shared }
    }

    /// Hands the server a frame that the client did not send.
    pub(crate) fn ask_server(&self, arp: &Arp) -> Outcome {
        self.shared.server.write(&arp.frame()).map(drop).context("the server's NIC")
    }

    /// The ARP that the server has sent since the last call.
    pub(crate) fn said(&self) -> Vec<Arp> {
        std::mem::take(&mut *self.shared.said())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn carry(&self) {
        let mut buffer = vec![0; 4_096];
        while !self.end.load(Ordering::Relaxed) {
            let mut idle = true;
            for (from, to) in [(&self.server, &self.client), (&self.client, &self.server)] {
                let Ok(length) = from.read(&mut buffer) else { continue };
                idle = false;
                if std::ptr::eq(from, &raw const self.server)
                    && let Some(arp) = Arp::parse(&buffer[..length])
                {
                    self.said().push(arp);
                }
                // A NIC that is going takes nothing; the trial notices.
                drop(to.write(&buffer[..length]));
            }
            if idle {
                thread::sleep(IDLE);
            }
        }
    }

    fn said(&self) -> MutexGuard<'_, Vec<Arp>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arp {
    fn parse(frame: &[u8]) -> Option<Self> {
        let address =
            |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
        if frame.get(12..14)? != [8, 6] {
            return None;
        }
        Some(Self {
            to: MacAddr::from_slice(&frame[..6]),
            is_reply: *frame.get(21)? == 2,
            sender: (MacAddr::from_slice(frame.get(22..28)?), address(28)?),
            target: address(38)?,
        })
    }

    fn frame(&self) -> Vec<u8> {
        let operation = if self.is_reply { 2 } else { 1 };
        let mut frame = [self.to.0, self.sender.0.0].concat();
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend(self.sender.0.0);
        frame.extend(self.sender.1.octets());
        frame.extend([0; 6]);
        frame.extend(self.target.octets());
        frame.resize(60, 0);
        frame
    }
}
