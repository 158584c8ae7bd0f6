//! One link: its TAP, what it is joined with, what it has carried, and what becomes of it when the TAP
//! disappears.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::attach::{self, Attachment};
use super::counters::Counters;
use super::error::LinkError;
use super::io::{self, Engine, Results};
use super::macvtap::{self, Macvtap};
use super::netlink::Netlink;
use super::tap::Tap;
use super::vnet::Offloads;
use super::{LinkSpec, Read};
use crate::addr::LinkId;
use crate::config::AttachMode;
use crate::frame::Frame;
use crate::time::{Duration, Instant};

/// A TAP that disappeared is made again after this long, and each time it fails after twice as
/// long: whoever removed it may still be at work.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// A TAP that lived this long was not removed by the same hand that removed the one before.
const STABLE: Duration = Duration::from_secs(10);
/// Bytes that are read before they are written, about: of more, the first have left the core's cache when it is
/// their turn; with fewer, turns cost more than that.
const AT_ONCE: usize = 1 << 20;
/// Reads that may fail in a row before the link waits for its next event.
const FAILED_READS: u8 = 8;

#[derive(Debug)]
pub(super) struct Link {
    pub(super) spec: LinkSpec,
    // Dropped before the TAP, which is a port of its bridge.
    attachment: Option<Joined>,
    pub(super) device: Device,
    pub(super) counters: Counters,
    /// Frames that the next read will find, by what the last one found.
    expected: usize,
    /// Frames that make [`AT_ONCE`], by their size in the last read.
    fitting: usize,
    failed_reads: u8,
    /// The last write failed because the device is down.
    pub(super) is_down: bool,
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
pub(super) enum Device {
    Present(Tap),
    /// Removed under us; its fd still has to leave the poll.
    Gone(Tap),
    Waiting(Instant),
}

impl Link {
    pub(super) fn open(spec: &LinkSpec) -> Result<Self, LinkError> {
        let (tap, attachment) = connect(spec)?;
        Ok(Self::with(spec.clone(), Device::Present(tap), attachment))
    }

    fn with(spec: LinkSpec, device: Device, attachment: Option<Joined>) -> Self {
        Self {
            spec,
            attachment,
            device,
            counters: Counters::default(),
            expected: 1,
            fitting: usize::MAX,
            failed_reads: 0,
            is_down: false,
            delay: FIRST_RETRY,
            made_at: None,
            last_error: String::new(),
        }
    }

    /// One as if it had been opened.
    #[cfg(test)]
    pub(super) fn of_test(spec: LinkSpec, device: Device) -> Self {
        Self::with(spec, device, None)
    }

    /// The interface name of the NIC that it is joined with, if it is.
    pub(super) fn nic(&self) -> Option<&str> {
        Some(match self.attachment.as_ref()? {
            Joined::Bridge(attachment) => attachment.nic(),
            Joined::Macvtap(macvtap) => macvtap.nic(),
        })
    }

    /// The device, for the engine; `link` is this one's id.
    pub(super) fn device(&self, link: LinkId) -> Option<io::Device> {
        match &self.device {
            Device::Present(tap) => {
                Some(io::Device { link, fd: tap.as_raw_fd(), with_header: tap.offloads().any() })
            }
            Device::Gone(_) | Device::Waiting(_) => None,
        }
    }

    pub(super) const fn offloads(&self) -> Offloads {
        match &self.device {
            Device::Present(tap) | Device::Gone(tap) => tap.offloads(),
            Device::Waiting(_) => Offloads::NONE,
        }
    }

    pub(super) fn read_batch(
        &mut self,
        link: LinkId,
        engine: &mut impl Engine,
        frames: &mut [Frame],
        results: &mut Results,
    ) -> Read {
        let Some(device) = self.device(link) else { return Read { count: 0, more: false } };
        let asked = engine.ask(self.expected).min(self.fitting).min(frames.len());
        engine.read(device, &mut frames[..asked], results);
        let (mut count, mut bytes, mut more, mut has_failed) = (0, 0, true, false);
        for at in 0..results.len() {
            let result = results.get(at);
            // Whatever comes after it: only the last one says how things are now.
            more = !matches!(&result, Err(error) if error.kind() == ErrorKind::WouldBlock);
            match result {
                Ok(length) if frames[at].take_input(device.with_header, length) => {
                    let len = frames[at].len();
                    self.counters.count_in(len);
                    bytes += len;
                    if count < at {
                        frames.swap(count, at);
                    }
                    count += 1;
                }
                Ok(_) => self.counters.read_errors += 1,
                Err(_) if !more => {}
                Err(_) => {
                    self.counters.read_errors += 1;
                    has_failed = true;
                }
            }
        }
        self.expected = if count == asked { 2 * asked } else { (count + 1).next_power_of_two() };
        if count > 0 {
            self.fitting = (AT_ONCE * count / bytes.max(1)).max(1);
            self.is_down = false;
        }
        if !has_failed {
            self.failed_reads = 0;
            return Read { count, more };
        }
        let gone = matches!(&self.device, Device::Present(tap) if tap.is_gone());
        if gone {
            self.lose();
        }
        // Frames may wait behind a passing error, but it must not keep the loop awake.
        let before = if count > 0 { 0 } else { self.failed_reads };
        self.failed_reads = before.saturating_add(1);
        Read { count, more: more && !gone && self.failed_reads < FAILED_READS }
    }

    /// Counts what came of writing `frame`; whether the device has taken it.
    pub(super) fn wrote(&mut self, result: &std::io::Result<usize>, frame: &Frame) -> bool {
        match result {
            Ok(length) if *length >= frame.len() => {
                self.counters.count_out(frame.len());
                self.is_down = false;
                true
            }
            Ok(_) => {
                self.counters.refused.other += 1;
                false
            }
            Err(error) => {
                self.is_down = error.raw_os_error() == Some(libc::EIO);
                if self.counters.refused.count(error) {
                    self.lose();
                }
                false
            }
        }
    }

    pub(super) fn lose(&mut self) {
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
    pub(super) fn let_go(&mut self, now: Instant) {
        let stable = self.made_at.is_none_or(|made_at| now >= made_at + STABLE);
        self.delay = if stable { FIRST_RETRY } else { (self.delay * 2).min(LAST_RETRY) };
        self.device = Device::Waiting(now + self.delay);
    }

    pub(super) fn make_anew(&mut self, index: usize, now: Instant, registry: &Registry) {
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
            let tap = open(&self.spec)?;
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
    let LinkSpec { tap: name, mtu, attach, .. } = spec;
    let netlink = Netlink::new()?;
    macvtap::remove_left_over(&netlink, name)?;
    match attach {
        Some(attach) if attach.mode == AttachMode::Macvtap => {
            attach::remove_left_over(&netlink, name)?;
            let (macvtap, tap) = Macvtap::make(name, attach, *mtu)?;
            Ok((tap, Some(Joined::Macvtap(macvtap))))
        }
        Some(attach) => {
            let tap = open(spec)?;
            Ok((tap, Some(Joined::Bridge(Attachment::join(name, attach, *mtu)?))))
        }
        None => {
            let tap = open(spec)?;
            attach::remove_left_over(&netlink, name)?;
            Ok((tap, None))
        }
    }
}

fn open(spec: &LinkSpec) -> Result<Tap, LinkError> {
    let open = if spec.offload { Tap::open_offloading } else { Tap::open };
    open(&spec.tap, spec.mtu)
}

/// Readable only: writes never block, so writability would be news without content.
pub(super) fn register(tap: &Tap, index: usize, registry: &Registry) -> std::io::Result<()> {
    registry.register(&mut SourceFd(&tap.as_raw_fd()), Token(index), Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use mio::Poll;

    use super::*;
    use crate::links::recorder::logged;

    fn link(tap: &str, device: Device) -> Link {
        let spec = LinkSpec { tap: tap.to_owned(), mtu: 1500, offload: false, attach: None };
        Link::of_test(spec, device)
    }

    fn no_tap(name: &str) -> Tap {
        Tap::of_test(name, std::fs::File::open("/dev/null").unwrap(), Offloads::NONE)
    }

    #[test]
    fn a_tap_that_is_removed_is_told_of() {
        let mut link = link("tapvs0", Device::Present(no_tap("tapvs0")));
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
