//! Many reads in one system call, then all their writes in another, in order, through io_uring.
#![expect(unsafe_code, reason = "io_uring is given pointers to buffers")]

use std::io;
use std::os::fd::AsRawFd as _;

use io_uring::{IoUring, opcode, squeue, types};

use super::tap::Tap;
use super::{BUDGET, ROOM};

/// Reads of the first batch, and at least of every other.
const LEAST: usize = 2;

pub(super) struct Batcher {
    ring: IoUring,
    /// Whether the ring keeps the TAPs, by their numbers.
    registered: bool,
    buffers: Vec<Box<[u8]>>,
    /// Of each buffer, in bytes; 0 where nothing was read.
    lengths: Vec<usize>,
    /// Reads of the next batch: as many as are likely to find a frame.
    batch: usize,
}

impl Batcher {
    pub(super) fn new(taps: &[Tap; 2]) -> io::Result<Self> {
        let entries = u32::try_from(BUDGET).map_err(io::Error::other)?;
        // Completions are run where they are waited for, and by one thread: no locks, no interrupts.
        let fast = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries);
        let ring = fast.or_else(|_| IoUring::new(entries))?;
        // As tapvs does where the kernel can: a descriptor that is looked up for each frame costs two atomic
        // operations.
        let registered =
            ring.submitter().register_files(&taps.each_ref().map(Tap::as_raw_fd)).is_ok();
        let buffers = (0..BUDGET).map(|_| vec![0; ROOM].into_boxed_slice()).collect();
        Ok(Self { ring, registered, buffers, lengths: vec![0; BUDGET], batch: LEAST })
    }

    /// Moves up to [`BUDGET`] frames; whether there may be more.
    pub(super) fn pass(&mut self, taps: &[Tap; 2], from: usize) -> io::Result<bool> {
        let mut left = BUDGET;
        while left > 0 {
            let asked = self.batch.min(left);
            let got = self.read(taps, from, asked)?;
            self.write(taps, 1 - from, asked)?;
            if got < asked {
                self.batch = (got + LEAST).min(BUDGET);
                return Ok(false);
            }
            self.batch = (2 * asked).min(BUDGET);
            left -= asked;
        }
        Ok(true)
    }

    /// How many of `asked` reads found a frame.
    fn read(&mut self, taps: &[Tap; 2], from: usize, asked: usize) -> io::Result<usize> {
        let (kept, fd) = (
            types::Fixed(u32::try_from(from).map_err(io::Error::other)?),
            types::Fd(taps[from].as_raw_fd()),
        );
        let room = u32::try_from(ROOM).map_err(io::Error::other)?;
        for number in 0..asked {
            let buffer = &mut self.buffers[number];
            // Without RWF_NOWAIT a read on an empty TAP would stay outstanding.
            let start = buffer.as_mut_ptr();
            let read = if self.registered {
                opcode::Read::new(kept, start, room)
            } else {
                opcode::Read::new(fd, start, room)
            };
            let read = read.rw_flags(libc::RWF_NOWAIT);
            // SAFETY: the buffer is `room` long and lives and stands still as long as `self`, which
            // waits for every completion before it touches a buffer again.
            unsafe { self.push(&read.build().user_data(number as u64))? };
        }
        self.lengths[..asked].fill(0);
        self.complete(asked)?;
        Ok(self.lengths[..asked].iter().filter(|length| **length > 0).count())
    }

    fn write(&mut self, taps: &[Tap; 2], to: usize, asked: usize) -> io::Result<()> {
        let (kept, fd) = (
            types::Fixed(u32::try_from(to).map_err(io::Error::other)?),
            types::Fd(taps[to].as_raw_fd()),
        );
        let mut pushed = 0;
        for number in 0..asked {
            let length = u32::try_from(self.lengths[number]).map_err(io::Error::other)?;
            if length > 0 {
                let start = self.buffers[number].as_ptr();
                let write = if self.registered {
                    opcode::Write::new(kept, start, length)
                } else {
                    opcode::Write::new(fd, start, length)
                };
                // SAFETY: as in `read`.
                unsafe { self.push(&write.build().user_data(number as u64))? };
                pushed += 1;
            }
        }
        // What the kernel does not take is lost, as on any network.
        if pushed > 0 { self.complete(pushed) } else { Ok(()) }
    }

    /// # Safety
    /// What the entry points to must stand still until its completion has been seen.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: by this function's own contract.
        unsafe { self.ring.submission().push(entry) }.map_err(io::Error::other)
    }

    /// Submits what was pushed and waits for all of it.
    fn complete(&mut self, count: usize) -> io::Result<()> {
        let mut seen = 0;
        while seen < count {
            match self.ring.submit_and_wait(count - seen) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(_) | Err(_) => {}
            }
            for completion in self.ring.completion() {
                seen += 1;
                let number = usize::try_from(completion.user_data()).map_err(io::Error::other)?;
                // Negative is an error, EAGAIN most of all: no frame.
                self.lengths[number] = usize::try_from(completion.result()).unwrap_or(0);
            }
        }
        Ok(())
    }
}
