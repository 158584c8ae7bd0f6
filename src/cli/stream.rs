//! What a router sends without end, until the reader has seen enough or is told to stop.

use std::io::{self, BufRead as _, BufReader, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

use super::ask::{AskError, Router};
use crate::control::protocol::{Answer, NotShown, Request, Traced, TracedLink, Tracing};
use crate::links::clock::Clock;
use crate::time::Instant;

/// How soon a signal, or the end of the time, is noticed.
const LOOK: Duration = Duration::from_millis(100);

/// A trace under way.
#[derive(Debug)]
pub(super) struct Stream {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    line: Vec<u8>,
    /// All links of the router.
    pub(super) links: Vec<TracedLink>,
    clock: Clock,
    end: Option<Instant>,
    stop: Arc<AtomicBool>,
}

/// What a stream brought.
pub(super) enum Next {
    Packet(Box<Traced>),
    /// So many packets were left out.
    NotShown(u64),
    /// Nothing just now: what is still to be written may be.
    Pause,
    /// Time is up, or a signal came.
    End,
}

impl Stream {
    /// Begins what `request` asks for, for so many seconds at most.
    pub(super) fn begin(
        mut router: Router,
        request: &Request,
        seconds: Option<u64>,
    ) -> Result<Self, AskError> {
        let Answer::Tracing(Tracing { links }) = router.ask(request)? else {
            return Err(router.unexpected());
        };
        let (path, stream) = router.into_parts();
        let stop = Arc::new(AtomicBool::new(false));
        let ready = stream.get_ref().set_read_timeout(Some(LOOK)).and_then(|()| {
            signal_hook::flag::register(SIGINT, Arc::clone(&stop))?;
            signal_hook::flag::register(SIGTERM, Arc::clone(&stop))
        });
        ready.map_err(|error| AskError::Broken(path.clone(), error))?;
        let clock = Clock::new();
        let end = seconds.map(|s| clock.now() + crate::time::Duration::from_secs(s));
        Ok(Self { path, stream, line: Vec::new(), links, clock, end, stop })
    }

    /// The next packet, or why there is none.
    pub(super) fn next(&mut self) -> Result<Next, AskError> {
        if self.stop.load(Ordering::Relaxed) || self.end.is_some_and(|end| self.clock.now() >= end)
        {
            return Ok(Next::End);
        }
        let broken = |error| AskError::Broken(self.path.clone(), error);
        // What came of a line before a timeout stays, and the rest follows.
        match self.stream.read_until(b'\n', &mut self.line) {
            Ok(_) if self.line.ends_with(b"\n") => {}
            Ok(_) => return Err(broken(io::Error::other("the router has stopped"))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Pause),
            Err(error) => return Err(broken(error)),
        }
        let answer = serde_json::from_slice(&self.line).map_err(|error| broken(error.into()))?;
        self.line.clear();
        match answer {
            Answer::Traced(traced) => Ok(Next::Packet(traced)),
            Answer::NotShown(NotShown { packets }) => Ok(Next::NotShown(packets)),
            Answer::Error(refusal) => Err(AskError::Refused(refusal)),
            _ => Err(broken(io::Error::new(ErrorKind::InvalidData, "an answer to nothing"))),
        }
    }

    /// Whether the next call would have to wait.
    pub(super) fn is_dry(&self) -> bool {
        !self.stream.buffer().contains(&b'\n')
    }
}
