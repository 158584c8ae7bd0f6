//! One client of the control socket: bytes to lines and answers to bytes, never waiting.
//!
//! A client has one request at a time: while its answer is being found or has not been taken, nothing
//! more is read from it. So what it costs is bounded, however fast it asks or slowly it reads.

use std::io::{self, Read, Write};

use super::protocol::{Answer, LONGEST_REQUEST, Reason, Refusal};
use crate::time::{Duration, Instant};

/// A client that neither sends nor takes a byte for so long is closed.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes read before others have their turn.
const READ: usize = 16 << 10;
/// An answer's buffer is kept for the next one unless it is larger.
const KEPT: usize = 64 << 10;

/// A connection and what is in it.
#[derive(Debug)]
pub(super) struct Client<S> {
    stream: S,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    /// Its request is being worked on.
    waiting: bool,
    /// Closed once the output is written.
    last_word: bool,
    ended: bool,
    /// It is sent whatever happens from now on, and asks no more.
    streams: bool,
    progress: Instant,
}

/// What a client's turn came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing to do until the next event.
    Wait,
    /// There may be more; others first.
    More,
    /// A request, without its end of line. Nothing more happens until it is answered.
    Request(Vec<u8>),
    /// It is over.
    Closed,
}

impl<S: Read + Write> Client<S> {
    pub(super) const fn new(stream: S, now: Instant) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            waiting: false,
            last_word: false,
            ended: false,
            streams: false,
            progress: now,
        }
    }

    /// Writes and reads what can be.
    pub(super) fn advance(&mut self, now: Instant) -> Step {
        loop {
            match self.write(now) {
                Ok(true) => {}
                Ok(false) => return Step::Wait,
                Err(_) => return Step::Closed,
            }
            if self.last_word {
                return Step::Closed;
            }
            if self.waiting || self.streams {
                return Step::Wait;
            }
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let rest = self.input.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.input, rest);
                line.truncate(line.trim_ascii_end().len());
                if line.is_empty() {
                    continue;
                }
                self.waiting = true;
                return Step::Request(line);
            }
            if self.input.len() >= LONGEST_REQUEST {
                let message = format!("a request has at most {LONGEST_REQUEST} bytes");
                self.answer(&Answer::Error(Refusal::new(Reason::Request, message)), now);
                self.last_word = true;
                continue;
            }
            if self.ended {
                return Step::Closed;
            }
            match self.read(now) {
                Ok(0) => self.ended = true,
                // A line may be complete now; one that is still not is long, and can wait.
                Ok(READ) if !self.input.contains(&b'\n') => return Step::More,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Wait,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Step::Closed,
            }
        }
    }

    /// Its request is done with; [`Client::advance`] writes the answer.
    pub(super) fn answer(&mut self, answer: &Answer, now: Instant) {
        self.output = answer.to_line();
        self.written = 0;
        self.waiting = false;
        self.progress = now;
    }

    /// The next piece of a stream: to be called when [`Client::is_idle`]. [`Client::advance`] writes.
    pub(super) fn stream(&mut self, bytes: Vec<u8>, now: Instant) {
        self.output = bytes;
        self.written = 0;
        self.waiting = false;
        self.streams = true;
        self.progress = now;
    }

    /// Whether it has taken all there was.
    pub(super) fn is_idle(&self) -> bool {
        self.output.is_empty()
    }

    /// Whether it is sent a stream.
    pub(super) const fn streams(&self) -> bool {
        self.streams
    }

    /// When it is closed unless something happens; never while the router owes it an answer, or a
    /// stream has nothing new.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let silent = if self.streams { !self.is_idle() } else { !self.waiting };
        silent.then(|| self.progress + PATIENCE)
    }

    /// Whether all is written.
    fn write(&mut self, now: Instant) -> io::Result<bool> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.written += count;
                    self.progress = now;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.output.shrink_to(KEPT);
        self.written = 0;
        Ok(true)
    }

    /// Reads as much as a request may have, and no more.
    fn read(&mut self, now: Instant) -> io::Result<usize> {
        let mut buffer = [0; READ];
        let room = (LONGEST_REQUEST - self.input.len()).min(READ);
        let count = self.stream.read(&mut buffer[..room])?;
        self.input.extend_from_slice(&buffer[..count]);
        if count > 0 {
            self.progress = now;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// What the peer sends, in pieces, and how much of the answers it takes.
    #[derive(Debug, Default)]
    struct Peer {
        sends: VecDeque<Vec<u8>>,
        hung_up: bool,
        takes: usize,
        taken: Vec<u8>,
    }

    impl Read for Peer {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(mut piece) = self.sends.pop_front() else {
                return if self.hung_up { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
            };
            let count = piece.len().min(buffer.len());
            buffer[..count].copy_from_slice(&piece[..count]);
            if count < piece.len() {
                self.sends.push_front(piece.split_off(count));
            }
            Ok(count)
        }
    }

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.takes);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.takes -= count;
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const NOW: Instant = Instant::ZERO;

    fn client(pieces: &[&[u8]]) -> Client<Peer> {
        let sends = pieces.iter().map(|piece| piece.to_vec()).collect();
        Client::new(Peer { sends, takes: usize::MAX, ..Peer::default() }, NOW)
    }

    fn no() -> Answer {
        Answer::Error(Refusal::new(Reason::Argument, "no"))
    }

    #[test]
    fn lines_are_put_together_and_taken_one_by_one() {
        let mut client = client(&[b"\n \r\nsta", b"tus\r\nser", b"vices\nhalf"]);
        assert_eq!(client.advance(NOW), Step::Request(b"status".to_vec()));
        assert_eq!(client.advance(NOW), Step::Wait, "the second waits for the first's answer");
        assert!(client.stream.taken.is_empty());
        client.answer(&no(), NOW);
        assert_eq!(client.advance(NOW), Step::Request(b"services".to_vec()));
        client.answer(&no(), NOW);
        assert_eq!(client.advance(NOW), Step::Wait);
        assert_eq!(client.stream.taken, [no().to_line(), no().to_line()].concat());
        client.stream.hung_up = true;
        assert_eq!(client.advance(NOW), Step::Closed, "half a line is no request");
    }

    #[test]
    fn who_hangs_up_after_asking_is_answered() {
        let mut client = client(&[b"status\n"]);
        client.stream.hung_up = true;
        assert_eq!(client.advance(NOW), Step::Request(b"status".to_vec()));
        client.answer(&no(), NOW);
        assert_eq!(client.advance(NOW), Step::Closed);
        assert_eq!(client.stream.taken, no().to_line());
    }

    #[test]
    fn a_line_without_end_is_refused_in_bounded_memory() {
        let mut client = client(&[&vec![b'x'; 10 << 20]]);
        let mut turns = 0;
        while client.advance(NOW) == Step::More {
            turns += 1;
            assert!(client.input.len() <= LONGEST_REQUEST);
        }
        assert!(turns >= 3, "others have their turn in between, {turns} times");
        let told = String::from_utf8(client.stream.taken.clone()).unwrap();
        assert!(told.contains("at most 65536 bytes") && told.ends_with('\n'), "{told}");
        let unread: usize = client.stream.sends.iter().map(Vec::len).sum();
        assert_eq!(unread, (10 << 20) - LONGEST_REQUEST, "the rest is not even read");
    }

    #[test]
    fn the_longest_request_that_is_allowed_is_read() {
        let mut line = vec![b'x'; LONGEST_REQUEST - 1];
        line.push(b'\n');
        let mut client = client(&[&line]);
        let step = loop {
            match client.advance(NOW) {
                Step::More => {}
                step => break step,
            }
        };
        assert_eq!(step, Step::Request(line[..LONGEST_REQUEST - 1].to_vec()));
    }

    #[test]
    fn a_slow_reader_is_not_read_from() {
        let mut client = client(&[b"a\nb\n"]);
        client.stream.takes = 5;
        assert_eq!(client.advance(NOW), Step::Request(b"a".to_vec()));
        client.answer(&no(), NOW);
        for _ in 0..3 {
            assert_eq!(client.advance(NOW), Step::Wait);
        }
        assert_eq!(client.stream.taken.len(), 5);
        client.stream.takes = usize::MAX;
        assert_eq!(client.advance(NOW), Step::Request(b"b".to_vec()));
        assert_eq!(client.stream.taken, no().to_line());
    }

    #[test]
    fn silence_has_a_deadline_but_not_while_the_router_thinks() {
        let at = Instant::from_secs;
        let mut client = client(&[b"a\n"]);
        assert_eq!(client.deadline(), Some(at(60)));
        assert_eq!(client.advance(at(10)), Step::Request(b"a".to_vec()));
        assert_eq!(client.deadline(), None);
        client.stream.takes = 0;
        client.answer(&no(), at(20));
        assert_eq!(client.advance(at(50)), Step::Wait);
        assert_eq!(client.deadline(), Some(at(80)), "it takes nothing");
    }

    #[test]
    fn a_stream_goes_on_without_questions_and_may_be_silent_but_not_be_ignored() {
        let at = Instant::from_secs;
        let mut client = client(&[b"trace\n", b"more\n"]);
        assert_eq!(client.advance(NOW), Step::Request(b"trace".to_vec()));
        assert!(!client.streams());
        client.stream(b"one\n".to_vec(), at(1));
        assert_eq!(client.advance(at(1)), Step::Wait);
        assert!(client.is_idle() && client.streams());
        assert_eq!(client.deadline(), None, "there is nothing new");
        assert_eq!(client.stream.sends.len(), 1, "nothing more is read");
        client.stream.takes = 2;
        client.stream(b"two\n".to_vec(), at(9));
        assert_eq!(client.advance(at(9)), Step::Wait);
        assert!(!client.is_idle());
        assert_eq!(client.deadline(), Some(at(69)), "it takes nothing");
        client.stream.takes = 9;
        assert_eq!(client.advance(at(10)), Step::Wait);
        assert!(client.is_idle());
        assert_eq!(client.stream.taken, b"one\ntwo\n");
    }
}
