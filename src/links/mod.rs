//! The outside world: TAP devices, namespaces, netlink, the clock, signals, the control socket's
//! file, watched files.
//!
//! The only room that talks to the operating system, and the only one with `unsafe`. It decides
//! nothing: what a frame means and where it goes is not known here. This file is all TAPs of the
//! router: batches in and out, and what becomes of a TAP that disappears.

pub mod attach;
pub mod carrier;
pub mod child;
pub mod clock;
mod counters;
pub mod error;
pub mod listener;
mod macvtap;
pub mod memory;
pub mod namespace;
pub mod netlink;
pub mod notify;
mod privilege;
#[cfg(test)]
pub(crate) mod recorder;
#[cfg(test)]
pub(crate) mod scratch;
mod seed;
pub mod signals;
pub mod tap;
pub mod watch;

use std::io;
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use self::attach::Attachment;
use self::macvtap::Macvtap;
use self::tap::Tap;
use crate::addr::LinkId;
use crate::config::{Attach, AttachMode};
use crate::frame::Frame;
use crate::time::{Duration, Instant};

pub use self::counters::{Counters, Refused};
pub use self::error::LinkError;
pub use self::macvtap::nic_mac;
pub use self::namespace::Namespace;
pub use self::netlink::Netlink;
pub use self::privilege::{Privilege, become_root, check_net_admin, check_tun};
pub use self::seed::seed;

/// A TAP that disappeared is made again after this long, and each time it fails after twice as
/// long: whoever removed it may still be at work.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// A TAP that lived this long was not removed by the same hand that removed the one before.
const STABLE: Duration = Duration::from_secs(10);
/// Reads that may fail in a row before the link waits for its next event.
const FAILED_READS: u8 = 8;

/// What a link is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSpec {
    /// The TAP's interface name.
    pub tap: String,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// The NIC it is joined with.
    pub attach: Option<Attach>,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Read {
    /// How many of the frames, from the first, were filled.
    pub count: usize,
    /// There may be more: no further event will say so.
    pub more: bool,
}

/// All TAPs of the router; a `LinkId` is a position among them.
#[derive(Debug)]
pub struct Links {
    links: Vec<Link>,
}

#[derive(Debug)]
struct Link {
    spec: LinkSpec,
    // Dropped before the TAP, which is a port of its bridge.
    attachment: Option<Joined>,
    device: Device,
    counters: Counters,
    failed_reads: u8,
    /// The last write failed because the device is down.
    is_down: bool,
    delay: Duration,
    made_at: Option<Instant>,
    last_error: String,
}

/// How a link is joined with its NIC.
#[derive(Debug)]
enum Joined {
    Bridge(Attachment),
    Macvtap(Macvtap),
}

#[derive(Debug)]
enum Device {
    Present(Tap),
    /// Removed under us; its fd still has to leave the poll.
    Gone(Tap),
    Waiting(Instant),
}

impl Links {
    /// Sets up every link, in the calling thread's namespace. When one fails, what was set up
    /// before it is undone.
    pub fn open(specs: &[LinkSpec]) -> Result<Self, LinkError> {
        let links = specs.iter().map(Link::open).collect::<Result<_, _>>()?;
        Ok(Self { links })
    }

    /// Puts every link into the poll, its id as the token. Any event of a link, be it an error, is
    /// a reason to read it.
    pub fn register(&mut self, registry: &Registry) -> Result<(), LinkError> {
        for (index, link) in self.links.iter().enumerate() {
            if let Device::Present(tap) = &link.device {
                register(tap, index, registry)
                    .map_err(|error| LinkError::kernel("poll the TAP", tap.name(), error))?;
            }
        }
        Ok(())
    }

    /// How many links there are.
    pub const fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// The TAP's name.
    pub fn name(&self, link: LinkId) -> &str {
        self.links.get(link.index()).map_or("", |link| &link.spec.tap)
    }

    /// The interface name of the NIC that a link is joined with, if it is.
    pub fn nic(&self, link: LinkId) -> Option<&str> {
        match self.links.get(link.index())?.attachment.as_ref()? {
            Joined::Bridge(attachment) => Some(attachment.nic()),
            Joined::Macvtap(macvtap) => Some(macvtap.nic()),
        }
    }

    /// Whether the device is there, and took what it was last given.
    pub fn is_working(&self, link: LinkId) -> bool {
        let working = |link: &Link| matches!(link.device, Device::Present(_)) && !link.is_down;
        self.links.get(link.index()).is_some_and(working)
    }

    /// Whether the device is there, but down.
    pub fn is_down(&self, link: LinkId) -> bool {
        let down = |link: &Link| matches!(link.device, Device::Present(_)) && link.is_down;
        self.links.get(link.index()).is_some_and(down)
    }

    /// Finds out whether a device that was down is up, with a frame that is not counted.
    pub fn knock(&mut self, link: LinkId, frame: &Frame) {
        if let Some(link) = self.links.get_mut(link.index())
            && let Device::Present(tap) = &link.device
        {
            link.is_down = tap.write(frame.bytes()).is_err();
        }
    }

    /// What a link has carried, over all devices it has had.
    pub fn counters(&self, link: LinkId) -> Counters {
        self.links.get(link.index()).map_or_else(Counters::default, |link| link.counters)
    }

    /// Reads frames until there are none or all of `frames` are used.
    pub fn read_batch(&mut self, link: LinkId, frames: &mut [Frame]) -> Read {
        match self.links.get_mut(link.index()) {
            Some(link) => link.read_batch(frames),
            None => Read { count: 0, more: false },
        }
    }

    /// Writes each frame to the link beside it, in order. Says how many were refused.
    pub fn write_batch(&mut self, egress: &[Option<LinkId>], frames: &[Frame]) -> u64 {
        let mut refused = 0;
        for (link, frame) in egress.iter().zip(frames) {
            if let Some(link) = link
                && !self.write(*link, frame)
            {
                refused += 1;
            }
        }
        refused
    }

    /// Writes one frame; `false` when it was refused.
    pub fn write(&mut self, link: LinkId, frame: &Frame) -> bool {
        self.links.get_mut(link.index()).is_some_and(|link| link.write(frame.bytes()))
    }

    /// When [`Links::retry`] has something to do: at once for a TAP that has just disappeared.
    pub fn retry_at(&self) -> Option<Instant> {
        let due = |link: &Link| match link.device {
            Device::Present(_) => None,
            Device::Gone(_) => Some(Instant::ZERO),
            Device::Waiting(at) => Some(at),
        };
        self.links.iter().filter_map(due).min()
    }

    /// Lets go of TAPs that have disappeared, and makes those anew whose time has come.
    pub fn retry(&mut self, now: Instant, registry: &Registry) {
        for (index, link) in self.links.iter_mut().enumerate() {
            match &link.device {
                Device::Present(_) => {}
                Device::Gone(tap) => {
                    // It is closed next, which takes it out of the poll in any case.
                    if let Err(error) = registry.deregister(&mut SourceFd(&tap.as_raw_fd())) {
                        log::debug!(link = tap.name(), error:%; "the TAP does not leave the poll");
                    }
                    link.let_go(now);
                }
                Device::Waiting(at) if *at <= now => link.make_anew(index, now, registry),
                Device::Waiting(_) => {}
            }
        }
    }
}

impl Link {
    fn open(spec: &LinkSpec) -> Result<Self, LinkError> {
        let (tap, attachment) = connect(spec)?;
        Ok(Self {
            spec: spec.clone(),
            attachment,
            device: Device::Present(tap),
            counters: Counters::default(),
            failed_reads: 0,
            is_down: false,
            delay: FIRST_RETRY,
            made_at: None,
            last_error: String::new(),
        })
    }

    fn read_batch(&mut self, frames: &mut [Frame]) -> Read {
        let Device::Present(tap) = &self.device else { return Read { count: 0, more: false } };
        let mut count = 0;
        for _ in 0..frames.len() {
            let frame = &mut frames[count];
            match tap.read(frame.room_mut()) {
                Ok(0) => self.counters.read_errors += 1,
                Ok(length) => {
                    frame.set_len(length);
                    self.counters.count_in(length);
                    self.is_down = false;
                    self.failed_reads = 0;
                    count += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.failed_reads = 0;
                    return Read { count, more: false };
                }
                Err(_) => {
                    self.counters.read_errors += 1;
                    let gone = tap.is_gone();
                    if gone {
                        self.lose();
                    }
                    // Frames may wait behind a passing error, but it must not keep the loop awake.
                    self.failed_reads = self.failed_reads.saturating_add(1);
                    return Read { count, more: !gone && self.failed_reads < FAILED_READS };
                }
            }
        }
        Read { count, more: true }
    }

    fn write(&mut self, frame: &[u8]) -> bool {
        let Device::Present(tap) = &self.device else {
            self.counters.refused.gone += 1;
            return false;
        };
        match tap.write(frame) {
            Ok(_) => {
                self.counters.count_out(frame.len());
                self.is_down = false;
                true
            }
            Err(error) => {
                self.is_down = error.raw_os_error() == Some(libc::EIO);
                if self.counters.refused.count(&error) {
                    self.lose();
                }
                false
            }
        }
    }

    fn lose(&mut self) {
        let device = std::mem::replace(&mut self.device, Device::Waiting(Instant::ZERO));
        self.device = match device {
            Device::Present(tap) | Device::Gone(tap) => {
                log::warn!(link = tap.name(); "the TAP was removed");
                self.counters.lost += 1;
                Device::Gone(tap)
            }
            waiting @ Device::Waiting(_) => waiting,
        };
    }

    /// Closes the fd of a TAP that is gone, and waits.
    fn let_go(&mut self, now: Instant) {
        let stable = self.made_at.is_none_or(|made_at| now >= made_at + STABLE);
        self.delay = if stable { FIRST_RETRY } else { (self.delay * 2).min(LAST_RETRY) };
        self.device = Device::Waiting(now + self.delay);
    }

    fn make_anew(&mut self, index: usize, now: Instant, registry: &Registry) {
        match self.try_make_anew(index, registry) {
            Ok(tap) => {
                log::info!(link = tap.name(); "the TAP is back");
                self.device = Device::Present(tap);
                self.made_at = Some(now);
                self.failed_reads = 0;
                self.last_error.clear();
            }
            Err(error) => {
                let error = error.to_string();
                if error != self.last_error {
                    let link = self.spec.tap.as_str();
                    log::warn!(link, error = error.as_str(); "the TAP cannot be made again yet; trying on");
                    self.last_error = error;
                }
                self.delay = (self.delay * 2).min(LAST_RETRY);
                self.device = Device::Waiting(now + self.delay);
            }
        }
    }

    fn reconnect(&mut self) -> Result<Tap, LinkError> {
        if let Some(Joined::Bridge(attachment)) = &self.attachment {
            let tap = Tap::open(&self.spec.tap, self.spec.mtu)?;
            if attachment.rejoin(tap.name()).is_ok() {
                return Ok(tap);
            }
        }
        // What it was joined with went as well. What is left of that is undone before it is made.
        self.attachment = None;
        let (tap, attachment) = connect(&self.spec)?;
        self.attachment = attachment;
        Ok(tap)
    }

    fn try_make_anew(&mut self, index: usize, registry: &Registry) -> Result<Tap, LinkError> {
        let tap = self.reconnect()?;
        register(&tap, index, registry)
            .map_err(|error| LinkError::kernel("poll the TAP", tap.name(), error))?;
        Ok(tap)
    }
}

/// The device, joined with its NIC if it is to be. What a killed run left behind goes first.
fn connect(spec: &LinkSpec) -> Result<(Tap, Option<Joined>), LinkError> {
    let LinkSpec { tap: name, mtu, attach } = spec;
    let netlink = Netlink::new()?;
    macvtap::remove_left_over(&netlink, name)?;
    match attach {
        Some(attach) if attach.mode == AttachMode::Macvtap => {
            attach::remove_left_over(&netlink, name)?;
            let (macvtap, tap) = Macvtap::make(name, attach, *mtu)?;
            Ok((tap, Some(Joined::Macvtap(macvtap))))
        }
        Some(attach) => {
            let tap = Tap::open(name, *mtu)?;
            Ok((tap, Some(Joined::Bridge(Attachment::join(name, attach, *mtu)?))))
        }
        None => {
            let tap = Tap::open(name, *mtu)?;
            attach::remove_left_over(&netlink, name)?;
            Ok((tap, None))
        }
    }
}

/// Readable only: writes never block, so writability would be news without content.
fn register(tap: &Tap, index: usize, registry: &Registry) -> io::Result<()> {
    registry.register(&mut SourceFd(&tap.as_raw_fd()), Token(index), Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use mio::Poll;

    use super::recorder::logged;
    use super::*;

    fn link(tap: &str, device: Device) -> Link {
        Link {
            spec: LinkSpec { tap: tap.to_owned(), mtu: 1500, attach: None },
            attachment: None,
            device,
            counters: Counters::default(),
            failed_reads: 0,
            is_down: false,
            delay: FIRST_RETRY,
            made_at: None,
            last_error: String::new(),
        }
    }

    #[test]
    fn a_tap_that_is_removed_is_told_of() {
        let mut link = link("tapvs0", Device::Present(Tap::of_test("tapvs0")));
        let lines = logged(|| link.lose());
        assert_eq!(lines, ["WARN the TAP was removed link=tapvs0"]);
        assert_eq!(link.counters.lost, 1);
    }

    #[test]
    fn a_tap_that_does_not_come_back_is_told_of_once_with_the_reason() {
        // No kernel takes this name, and without the right to ask, that is the reason.
        let mut link = link("no/tap", Device::Waiting(Instant::ZERO));
        let poll = Poll::new().unwrap();
        let again = |_| link.make_anew(0, Instant::ZERO, poll.registry());
        let lines = logged(|| (0..3).for_each(again));
        let [line] = &lines[..] else { panic!("{lines:?}") };
        let begin = "WARN the TAP cannot be made again yet; trying on link=no/tap error=\"";
        assert!(line.starts_with(begin), "{line}");
    }
}
