//! Blocking reads that end by a point in time, however slowly the other side drips.

use std::io::{self, Read as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::time::Instant;

/// A point in time by which a conversation must be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Instant);

impl Deadline {
    pub(super) fn after(time: Duration) -> Self {
        Self(super::now() + time.into())
    }

    /// What is left, never zero: sockets take a zero timeout for none.
    pub(super) fn remaining(self) -> io::Result<Duration> {
        let now = super::now();
        if now >= self.0 { Err(io::ErrorKind::TimedOut.into()) } else { Ok((self.0 - now).into()) }
    }

    /// Like `Read::read`; fails with `TimedOut` once the deadline has passed.
    pub(super) fn read(self, mut stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            stream.set_read_timeout(Some(self.remaining()?))?;
            match stream.read(buffer) {
                // A socket that ran out of time says "would block".
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}
