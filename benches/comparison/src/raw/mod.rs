//! The raw forwarder: frames from one TAP to another as they are. What a TAP router can reach at most.
//!
//! It is a process of its own (`tapvs-bench forward`), so that its processor time can be told, and shares no
//! code with tapvs: a slow habit of tapvs must not hide in the yardstick.

mod batch;
mod tap;

use std::io;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::args::ForwardArgs;
use batch::Batcher;
use tap::Tap;

/// Frames that one TAP may move before it is the other's turn.
pub(crate) const BUDGET: usize = 64;
/// The largest frame: 64 KiB of IP, Ethernet, a VLAN tag, the header of a vnet_hdr TAP.
pub(crate) const ROOM: usize = 65_536 + 14 + 4 + 10;
/// What the child says once both TAPs are there.
pub(crate) const READY: &str = "ready";

/// Forwards until it is killed.
pub(crate) fn forward(args: &ForwardArgs) -> io::Result<()> {
    let taps = [Tap::open(&args.taps[0], args.vnet)?, Tap::open(&args.taps[1], args.vnet)?];
    let mut way =
        if args.batched { Way::Batched(Box::new(Batcher::new(&taps)?)) } else { Way::one_by_one() };
    let mut poll = Poll::new()?;
    for (number, tap) in taps.iter().enumerate() {
        let fd = tap.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), Token(number), Interest::READABLE)?;
    }
    crate::progress::say(READY);
    let mut events = Events::with_capacity(8);
    let mut ready = [false; 2];
    loop {
        let wait = ready.contains(&true).then_some(Duration::ZERO);
        match poll.poll(&mut events, wait) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Ok(()) | Err(_) => {}
        }
        for event in &events {
            ready[event.token().0] = true;
        }
        for (number, ready) in ready.iter_mut().enumerate() {
            if *ready {
                *ready = way.pass(&taps, number)?;
            }
        }
    }
}

/// How frames are moved.
enum Way {
    /// One system call each to read and to write.
    OneByOne(Vec<u8>),
    Batched(Box<Batcher>),
}

impl Way {
    fn one_by_one() -> Self {
        Self::OneByOne(vec![0; ROOM])
    }

    /// Moves up to [`BUDGET`] frames; whether there may be more.
    fn pass(&mut self, taps: &[Tap; 2], from: usize) -> io::Result<bool> {
        match self {
            Self::OneByOne(buffer) => {
                let (from, to) = (&taps[from], &taps[1 - from]);
                for _ in 0..BUDGET {
                    match from.read(buffer) {
                        Ok(length) => to.write(&buffer[..length]),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            return Ok(false);
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(true)
            }
            Self::Batched(batcher) => batcher.pass(taps, from),
        }
    }
}
