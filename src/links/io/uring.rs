//! io_uring as a batcher of system calls: many reads or writes handed over at once, all done before the
//! call returns, in order. It never waits: RWF_NOWAIT makes an operation fail that would have to.
#![expect(unsafe_code, reason = "what the ring is given points to buffers")]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use io_uring::{IoUring, opcode, squeue, types};

use super::syscall::Syscall;
use super::{Engine, MOST, Results};
use crate::frame::Frame;

/// Frames that are asked for at least: one, and the news that there is no other.
const LEAST: usize = 2;

/// The ring, which belongs to the thread that uses it first.
enum State {
    /// It can be made.
    Untouched,
    Ready(Box<IoUring>),
    /// It has failed, and system calls go on without it.
    Failed,
}

pub(in crate::links) struct Uring {
    state: State,
}

impl Uring {
    /// Finds out whether a TAP can be read by a ring without waiting.
    pub(super) fn new() -> io::Result<Self> {
        Self { state: State::Ready(ring()?) }.probe()?;
        Ok(Self { state: State::Untouched })
    }

    /// A TUN descriptor without a device: reading it without waiting must be known to be impossible for
    /// that reason, and no other. A kernel that might wait says so instead.
    fn probe(&mut self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
        let device = options.open("/dev/net/tun")?;
        let (mut frames, mut results) = ([Frame::new(), Frame::new()], Results::new());
        self.read(device.as_raw_fd(), false, &mut frames, &mut results);
        match results.get(0) {
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) && self.is_usable() => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether there is a ring, made now if need be.
    fn is_usable(&mut self) -> bool {
        if matches!(self.state, State::Untouched) {
            self.state = ring().map_or(State::Failed, State::Ready);
        }
        matches!(self.state, State::Ready(_))
    }

    /// Hands over `entries`, and takes in what came of them. What they point to must live until then.
    fn run(&mut self, entries: impl Iterator<Item = squeue::Entry>, results: &mut Results) {
        results.clear();
        let State::Ready(ring) = &mut self.state else { return };
        let mut count = 0;
        {
            let mut queue = ring.submission();
            for (number, entry) in (0..).zip(entries.take(MOST)) {
                // SAFETY: all operations are over when this function returns, or the ring is gone.
                if unsafe { queue.push(&entry.user_data(number)) }.is_err() {
                    break;
                }
                count += 1;
                results.push(-libc::ECANCELED);
            }
        }
        let mut left = count;
        while left > 0 {
            let waited = ring.submit_and_wait(left);
            for completion in ring.completion() {
                let at = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
                if let Some(code) = results.codes[..results.len].get_mut(at) {
                    *code = completion.result();
                    left -= 1;
                }
            }
            match waited {
                Err(error) if error.raw_os_error() != Some(libc::EINTR) => {
                    // What was not handed over must not be, later: its buffers will be others.
                    log::error!(error:%; "io_uring fails; every frame costs a system call from now on");
                    self.state = State::Failed;
                    return;
                }
                _ => {}
            }
        }
    }
}

impl Engine for Uring {
    fn ask(&self, expected: usize) -> usize {
        let has_failed = matches!(self.state, State::Failed);
        if has_failed { MOST } else { expected.clamp(LEAST, MOST) }
    }

    fn read(&mut self, fd: RawFd, with_header: bool, frames: &mut [Frame], results: &mut Results) {
        if !self.is_usable() {
            return Syscall.read(fd, with_header, frames, results);
        }
        let reads = frames.iter_mut().map(|frame| {
            let buffer = frame.input(with_header);
            let length = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            opcode::Read::new(types::Fd(fd), buffer.as_mut_ptr(), length)
                .rw_flags(libc::RWF_NOWAIT)
                .build()
        });
        self.run(reads, results);
    }

    fn write<'f>(
        &mut self,
        writes: impl Iterator<Item = (RawFd, &'f [u8])>,
        results: &mut Results,
    ) {
        let mut writes = writes.peekable();
        let Some(first) = writes.next() else { return results.clear() };
        // One alone is cheaper by itself.
        if writes.peek().is_none() || !self.is_usable() {
            return Syscall.write(std::iter::once(first).chain(writes), results);
        }
        let entry = |(fd, bytes): (RawFd, &[u8])| {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            opcode::Write::new(types::Fd(fd), bytes.as_ptr(), length)
                .rw_flags(libc::RWF_NOWAIT)
                .build()
        };
        self.run(std::iter::once(first).chain(writes).map(entry), results);
    }
}

/// The quickest ring that this kernel has.
fn ring() -> io::Result<Box<IoUring>> {
    let entries = u32::try_from(MOST).unwrap_or(u32::MAX);
    let build = |setup: fn(&mut io_uring::Builder) -> &mut io_uring::Builder| {
        setup(&mut IoUring::builder()).build(entries).map(Box::new)
    };
    // Linux 6.1 for the first, 5.19 for the second.
    build(|builder| builder.setup_single_issuer().setup_defer_taskrun())
        .or_else(|_| build(|builder| builder.setup_coop_taskrun()))
        .or_else(|_| build(|builder| builder))
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
