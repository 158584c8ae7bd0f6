//! io_uring as a batcher of system calls: many reads or writes handed over at once, all done before the
//! call returns, in order. It never waits: RWF_NOWAIT makes an operation fail that would have to.
#![expect(unsafe_code, reason = "what the ring is given points to buffers")]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use io_uring::{IoUring, Submitter, opcode, squeue, types};

use super::syscall::Syscall;
use super::{Device, Engine, MOST, Results};
use crate::addr::LinkId;
use crate::frame::Frame;

/// Frames that are asked for at least: one, and the news that there is no other.
const LEAST: usize = 2;

/// Devices that the ring keeps, at most; those of further links it looks up each time.
const KEPT: usize = 64;

/// The ring, which belongs to the thread that uses it first.
enum State {
    /// It can be made.
    Untouched,
    Ready(Box<Ring>),
    /// It has failed, and system calls go on without it.
    Failed,
}

struct Ring {
    ring: IoUring,
    /// The devices it keeps, by their links: looking a descriptor up costs two atomic operations. Empty
    /// where the kernel keeps none.
    kept: Vec<Option<RawFd>>,
    /// What is handed over next. Copied to the kernel's queue one by one, each would be read back before it
    /// has left the processor's store buffer.
    entries: Vec<squeue::Entry>,
}

/// How the ring is told of a device: where it keeps it, or by its descriptor.
type Place = Result<types::Fixed, types::Fd>;

pub(in crate::links) struct Uring {
    state: State,
}

impl Uring {
    /// Finds out whether a TAP can be read by a ring without waiting.
    pub(super) fn new() -> io::Result<Self> {
        Self { state: State::Ready(Ring::new()?) }.probe()?;
        Ok(Self { state: State::Untouched })
    }

    /// A TUN descriptor without a device: reading it without waiting must be known to be impossible for
    /// that reason, and no other. A kernel that might wait says so instead.
    fn probe(&mut self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
        let file = options.open("/dev/net/tun")?;
        let device = Device { link: LinkId(0), fd: file.as_raw_fd(), with_header: false };
        let (mut frames, mut results) = ([Frame::new(), Frame::new()], Results::new());
        self.read(device, &mut frames, &mut results);
        match results.get(0) {
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) && self.ring().is_some() => {
                Ok(())
            }
            Err(error) => Err(error),
            Ok(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The ring, made now if need be.
    fn ring(&mut self) -> Option<&mut Ring> {
        if matches!(self.state, State::Untouched) {
            self.state = Ring::new().map_or(State::Failed, State::Ready);
        }
        match &mut self.state {
            State::Ready(ring) => Some(ring),
            State::Untouched | State::Failed => None,
        }
    }

    /// What was not handed over must not be, later: its buffers will be others.
    fn fail(&mut self, error: &io::Error) {
        log::error!(error:%; "io_uring fails; every frame costs a system call from now on");
        self.state = State::Failed;
    }
}

impl Engine for Uring {
    fn ask(&self, expected: usize) -> usize {
        let has_failed = matches!(self.state, State::Failed);
        if has_failed { MOST } else { expected.clamp(LEAST, MOST) }
    }

    fn read(&mut self, device: Device, frames: &mut [Frame], results: &mut Results) {
        let Some(ring) = self.ring() else {
            return Syscall.read(device, frames, results);
        };
        let reads = frames.iter_mut().map(|frame| (device, frame.input(device.with_header)));
        let read = |place: Place, buffer: &mut [u8]| {
            let (start, length) =
                (buffer.as_mut_ptr(), u32::try_from(buffer.len()).unwrap_or(u32::MAX));
            let read = match place {
                Ok(kept) => opcode::Read::new(kept, start, length),
                Err(fd) => opcode::Read::new(fd, start, length),
            };
            read.rw_flags(libc::RWF_NOWAIT).build()
        };
        if let Err(error) = ring.run(reads, read, results) {
            self.fail(&error);
        }
    }

    fn write<'f>(
        &mut self,
        writes: impl Iterator<Item = (Device, &'f [u8])>,
        results: &mut Results,
    ) {
        // One alone is cheaper by itself; of several, few are left over.
        let is_alone = matches!(writes.size_hint(), (_, Some(..=1)));
        let ring = if is_alone { None } else { self.ring() };
        let Some(ring) = ring else { return Syscall.write(writes, results) };
        let write = |place: Place, bytes: &[u8]| {
            let (start, length) = (bytes.as_ptr(), u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            let write = match place {
                Ok(kept) => opcode::Write::new(kept, start, length),
                Err(fd) => opcode::Write::new(fd, start, length),
            };
            write.rw_flags(libc::RWF_NOWAIT).build()
        };
        if let Err(error) = ring.run(writes, write, results) {
            self.fail(&error);
        }
    }

    fn forget(&mut self, link: LinkId) {
        if let State::Ready(ring) = &mut self.state
            && ring.forget(link).is_err()
        {
            // It goes, and with it what it keeps.
            self.state = State::Untouched;
        }
    }
}

impl Ring {
    /// The quickest that this kernel has.
    fn new() -> io::Result<Box<Self>> {
        let entries = u32::try_from(MOST).unwrap_or(u32::MAX);
        let build = |setup: fn(&mut io_uring::Builder) -> &mut io_uring::Builder| {
            setup(&mut IoUring::builder()).build(entries)
        };
        // Linux 6.1 for the first, 5.19 for the second.
        let ring = build(|builder| builder.setup_single_issuer().setup_defer_taskrun())
            .or_else(|_| build(|builder| builder.setup_coop_taskrun()))
            .or_else(|_| build(|builder| builder))?;
        // Linux 5.19.
        let sparse = ring.submitter().register_files_sparse(u32::try_from(KEPT).unwrap_or(0));
        let kept = if sparse.is_ok() { vec![None; KEPT] } else { Vec::new() };
        Ok(Box::new(Self { ring, kept, entries: Vec::with_capacity(MOST) }))
    }

    /// Hands over an operation for each, and takes in what came of them. What they point to must live
    /// until then.
    fn run<B>(
        &mut self,
        operations: impl Iterator<Item = (Device, B)>,
        entry: impl Fn(Place, B) -> squeue::Entry,
        results: &mut Results,
    ) -> io::Result<()> {
        results.clear();
        let (submitter, mut queue, mut completions) = self.ring.split();
        self.entries.clear();
        // The device by its parts: put together, it would be waited for.
        for (number, (Device { link, fd, .. }, buffer)) in (0..).zip(operations.take(MOST)) {
            let place = place(&mut self.kept, &submitter, link, fd);
            self.entries.push(entry(place, buffer).user_data(number));
            results.push(-libc::ECANCELED);
        }
        // SAFETY: all operations are over when this function returns. With RWF_NOWAIT, which `probe` has seen
        // honoured, one is over as soon as it has been submitted; the others go with the ring.
        unsafe { queue.push_multiple(&self.entries) }.map_err(io::Error::other)?;
        queue.sync();
        let mut left = results.len;
        if left == 0 {
            return Ok(());
        }
        // What need not wait is over when it has been handed over, and that is everything.
        let mut entered = submitter.submit();
        loop {
            completions.sync();
            for completion in &mut completions {
                let at = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
                if let Some(code) = results.codes[..results.len].get_mut(at) {
                    *code = completion.result();
                    left -= 1;
                }
            }
            match entered {
                Err(error) if error.raw_os_error() != Some(libc::EINTR) => return Err(error),
                _ if left == 0 => return Ok(()),
                _ => entered = submitter.submit_and_wait(left),
            }
        }
    }

    fn forget(&mut self, link: LinkId) -> io::Result<()> {
        if let Some(place) = self.kept.get_mut(link.index())
            && place.take().is_some()
        {
            self.ring.submitter().register_files_update(u32::from(link.0), &[-1])?;
        }
        Ok(())
    }
}

/// Where the ring keeps the device; kept from now on if it can be.
fn place(kept: &mut [Option<RawFd>], submitter: &Submitter<'_>, link: LinkId, fd: RawFd) -> Place {
    let Some(place) = kept.get_mut(link.index()) else { return Err(types::Fd(fd)) };
    if *place != Some(fd) {
        if submitter.register_files_update(u32::from(link.0), &[fd]).is_err() {
            return Err(types::Fd(fd));
        }
        *place = Some(fd);
    }
    Ok(types::Fixed(u32::from(link.0)))
}

/// The kernel takes its time with a ring that is only closed, and a TAP that it keeps would be busy until then.
impl Drop for Ring {
    fn drop(&mut self) {
        if !self.kept.is_empty()
            && let Err(error) = self.ring.submitter().unregister_files()
        {
            log::debug!(error:%; "io_uring does not let go of its devices");
        }
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.state {
            State::Untouched => "Uring(untouched)",
            State::Ready(_) => "Uring(at work)",
            State::Failed => "Uring(failed)",
        })
    }
}
