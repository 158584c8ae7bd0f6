//! The outside world: TAP devices, namespaces, netlink, the clock, signals, the control socket's
//! file, watched files.
//!
//! The only room that talks to the operating system, and the only one with `unsafe`. It decides
//! nothing: what a frame means and where it goes is not known here. This file is all TAPs of the
//! router: batches in and out, and what becomes of a TAP that disappears.

pub mod attach;
mod batch;
pub mod carrier;
pub mod child;
pub mod clock;
mod counters;
pub mod error;
mod io;
mod link;
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
mod vnet;
pub mod watch;

use std::os::fd::AsRawFd;

use mio::Registry;
use mio::unix::SourceFd;

use self::batch::All;
use self::io::{Engine as _, Io};
use self::link::{Device, Link, register};
use crate::addr::LinkId;
use crate::config::{self, Attach};
use crate::frame::Frame;
use crate::time::Instant;

pub use self::counters::{Counters, Refused};
pub use self::error::LinkError;
pub use self::macvtap::nic_mac;
pub use self::namespace::Namespace;
pub use self::netlink::Netlink;
pub use self::privilege::{Privilege, become_root, check_net_admin, check_tun};
pub use self::seed::seed;
pub use self::vnet::Offloads;

/// A TAP that is busy is tried so often, with that pause: for half a second.
const BUSY_TRIES: u32 = 25;
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// What a link is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSpec {
    /// The TAP's interface name.
    pub tap: String,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Whether checksums and segments are left to be done where the kernel can.
    pub offload: bool,
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

/// What `io = "auto"` comes to on this machine, as in the configuration.
pub fn usual_io() -> &'static str {
    Io::choose(config::Io::Auto).map_or("syscall", |io| io.name())
}

/// Opens a link; one that is busy is given the time that the kernel takes, after a run was killed, to take
/// the TAPs from its io_uring.
#[expect(clippy::disallowed_methods, reason = "a set-up step: there is no loop yet")]
fn open_when_free(spec: &LinkSpec) -> Result<Link, LinkError> {
    for _ in 0..BUSY_TRIES {
        match Link::open(spec) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(BUSY_PAUSE);
            }
            opened => return opened,
        }
    }
    Link::open(spec)
}

/// All TAPs of the router; a `LinkId` is a position among them.
#[derive(Debug)]
pub struct Links {
    all: All<Io>,
}

impl Links {
    /// Sets up every link, in the calling thread's namespace. When one fails, what was set up
    /// before it is undone. How frames are moved is decided here; one thread is to move them, any.
    pub fn open(specs: &[LinkSpec], io: config::Io) -> Result<Self, LinkError> {
        let engine = Io::choose(io).map_err(|error| {
            let advice = "kernel.io_uring_disabled, a container's seccomp policy or an old kernel may \
                          forbid it; io = \"auto\" does without";
            LinkError::kernel("use io_uring for", "the links", error).with_detail(advice)
        })?;
        let links = specs.iter().map(open_when_free).collect::<Result<Vec<_>, _>>()?;
        log::info!(io = engine.name(); "how frames are moved");
        for link in &links {
            let (name, offload) = (link.spec.tap.as_str(), link.offloads().name());
            log::info!(link = name, offload; "the link is set up");
        }
        Ok(Self { all: All::new(links, engine) })
    }

    /// How frames are moved, as in the configuration: `uring` or `syscall`.
    pub const fn io(&self) -> &'static str {
        self.all.engine.name()
    }

    /// What the frames of a link may leave to be done.
    pub fn offloads(&self, link: LinkId) -> Offloads {
        self.links().get(link.index()).map_or(Offloads::NONE, Link::offloads)
    }

    /// Puts every link into the poll, its id as the token. Any event of a link, be it an error, is
    /// a reason to read it.
    pub fn register(&mut self, registry: &Registry) -> Result<(), LinkError> {
        for (index, link) in self.links().iter().enumerate() {
            if let Device::Present(tap) = &link.device {
                register(tap, index, registry)
                    .map_err(|error| LinkError::kernel("poll the TAP", tap.name(), error))?;
            }
        }
        Ok(())
    }

    /// How many links there are.
    pub const fn len(&self) -> usize {
        self.all.links.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.all.links.is_empty()
    }

    /// The TAP's name.
    pub fn name(&self, link: LinkId) -> &str {
        self.links().get(link.index()).map_or("", |link| &link.spec.tap)
    }

    /// The interface name of the NIC that a link is joined with, if it is.
    pub fn nic(&self, link: LinkId) -> Option<&str> {
        self.links().get(link.index())?.nic()
    }

    /// Whether the device is there, and took what it was last given.
    pub fn is_working(&self, link: LinkId) -> bool {
        let working = |link: &Link| matches!(link.device, Device::Present(_)) && !link.is_down;
        self.links().get(link.index()).is_some_and(working)
    }

    /// Whether the device is there, but down.
    pub fn is_down(&self, link: LinkId) -> bool {
        let down = |link: &Link| matches!(link.device, Device::Present(_)) && link.is_down;
        self.links().get(link.index()).is_some_and(down)
    }

    /// Finds out whether a device that was down is up, with a frame that is not counted.
    pub fn knock(&mut self, link: LinkId, frame: &Frame) {
        if let Some(link) = self.all.links.get_mut(link.index())
            && let Device::Present(tap) = &link.device
        {
            link.is_down = tap.write_frame(frame).is_err();
        }
    }

    /// What a link has carried, over all devices it has had.
    pub fn counters(&self, link: LinkId) -> Counters {
        self.links().get(link.index()).map_or_else(Counters::default, |link| link.counters)
    }

    /// Reads frames until there are none, or all of `frames` are used, or as many as were expected have
    /// come. What is left to be done to them is in their virtio-net headers, not checked.
    pub fn read_batch(&mut self, link: LinkId, frames: &mut [Frame]) -> Read {
        self.all.read_batch(link, frames)
    }

    /// Writes each frame to the link beside it, in order. Says how many were refused.
    pub fn write_batch(&mut self, egress: &[Option<LinkId>], frames: &[Frame]) -> u64 {
        self.all.write_batch(egress, frames)
    }

    /// Writes one frame; `false` when it was refused.
    pub fn write(&mut self, link: LinkId, frame: &Frame) -> bool {
        self.all.write_batch(&[Some(link)], std::slice::from_ref(frame)) == 0
    }

    /// When [`Links::retry`] has something to do: at once for a TAP that has just disappeared.
    pub fn retry_at(&self) -> Option<Instant> {
        let due = |link: &Link| match link.device {
            Device::Present(_) => None,
            Device::Gone(_) => Some(Instant::ZERO),
            Device::Waiting(at) => Some(at),
        };
        self.links().iter().filter_map(due).min()
    }

    /// Lets go of TAPs that have disappeared, and makes those anew whose time has come.
    pub fn retry(&mut self, now: Instant, registry: &Registry) {
        let All { links, engine, .. } = &mut self.all;
        for (index, link) in links.iter_mut().enumerate() {
            match &link.device {
                Device::Present(_) => {}
                Device::Gone(tap) => {
                    // It is closed next, which takes it out of the poll in any case.
                    if let Err(error) = registry.deregister(&mut SourceFd(&tap.as_raw_fd())) {
                        log::debug!(link = tap.name(), error:%; "the TAP does not leave the poll");
                    }
                    engine.forget(LinkId(u16::try_from(index).unwrap_or(u16::MAX)));
                    link.let_go(now);
                }
                Device::Waiting(at) if *at <= now => link.make_anew(index, now, registry),
                Device::Waiting(_) => {}
            }
        }
    }

    fn links(&self) -> &[Link] {
        &self.all.links
    }
}
