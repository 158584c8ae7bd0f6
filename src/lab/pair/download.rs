//! One long answer, read as it comes: every byte is held against what it must be, and the time noted
//! at which it came.

use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::timeline::Timeline;
use crate::lab::client::sort;
use crate::lab::deadline::Deadline;

/// How much: as much as a server of the lab answers.
pub(super) const LENGTH: u64 = 64 * 1024 * 1024;
/// How much of it in a second: in a socket's buffers there is room for no pause worth the name.
const RATE: u64 = 2 * 1024 * 1024;
/// How long connecting may take.
const CONNECTING: Duration = Duration::from_secs(5);
/// How long nothing may come; a TCP that is not answered gives up later.
const PATIENCE: Duration = Duration::from_secs(20);
const LARGEST_HEAD: usize = 4_096;
/// What the server repeats; see the responder.
const PATTERN: u64 = 251;

/// A running download; dropping it breaks it off.
#[derive(Debug)]
pub(super) struct Download {
    stream: TcpStream,
    state: Arc<Mutex<State>>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    bytes: u64,
    came: Timeline,
    end: Option<Result<(), String>>,
}

impl Download {
    /// Begins, from the calling thread's network namespace.
    pub(super) fn start(target: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&target, CONNECTING)?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /bytes/{LENGTH}/at/{RATE} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let state = Arc::<Mutex<State>>::default();
        let (shared, reading) = (Arc::clone(&state), stream.try_clone()?);
        let reader = move || {
            let end = read(&reading, &shared);
            lock(&shared).end = Some(end);
        };
        let reader = thread::Builder::new().name("tapvs-download".into()).spawn(reader)?;
        Ok(Self { stream, state, reader: Some(reader) })
    }

    /// From now on as fast as it can.
    pub(super) fn hurry(&self) -> io::Result<()> {
        (&self.stream).write_all(b"!")
    }

    /// How many bytes have come, all of them right.
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.state).bytes
    }

    /// When bytes came, so far.
    pub(super) fn came(&self) -> Timeline {
        lock(&self.state).came.clone()
    }

    /// What has come of it, once it is over: an error says why it broke.
    pub(super) fn end(&self) -> Option<Result<(), String>> {
        lock(&self.state).end.clone()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // It may be over; then there is nothing to break off.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            // Whoever panicked has said so.
            let _ = reader.join();
        }
    }
}

fn read(stream: &TcpStream, state: &Mutex<State>) -> Result<(), String> {
    let mut part = vec![0; 64 * 1024];
    let next = |part: &mut [u8]| match Deadline::after(PATIENCE).read(stream, part) {
        Ok(0) => Err("the answer is cut short".to_owned()),
        Ok(length) => Ok(length),
        Err(error) => {
            let (failure, detail) = sort(&error);
            Err(format!("{failure} {detail}").trim_end().to_owned())
        }
    };
    let mut head = Vec::new();
    let body = loop {
        let length = next(&mut part)?;
        head.extend_from_slice(&part[..length]);
        if let Some(blank) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break head.split_off(blank + 4);
        }
        if head.len() > LARGEST_HEAD {
            return Err("an answer without a body".to_owned());
        }
    };
    if !head.starts_with(b"HTTP/1.1 200 ") {
        let status = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
        return Err(String::from_utf8_lossy(status).into_owned());
    }
    take(&body, state)?;
    while lock(state).bytes < LENGTH {
        let length = next(&mut part)?;
        take(&part[..length], state)?;
    }
    Ok(())
}

fn take(part: &[u8], state: &Mutex<State>) -> Result<(), String> {
    let now = crate::lab::now();
    let mut state = lock(state);
    for (at, &byte) in (state.bytes..).zip(part) {
        if at >= LENGTH || u64::from(byte) != at % PATTERN {
            return Err(format!("byte {at} is {byte}, not {}", at % PATTERN));
        }
    }
    state.bytes += part.len() as u64;
    state.came.note(now);
    Ok(())
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;
    use crate::lab::responder::Responder;
    use crate::time::Instant;

    fn end(download: &Download) -> Result<(), String> {
        for _ in 0..2_000 {
            if let Some(end) = download.end() {
                return end;
            }
            thread::park_timeout(Duration::from_millis(10));
        }
        panic!("{} bytes in 20 s", download.bytes());
    }

    #[test]
    fn it_is_slow_until_it_hurries_and_every_byte_is_right() {
        let responder = Responder::bind("s7", "127.0.0.1:0".parse().unwrap()).unwrap();
        let target = responder.address().unwrap();
        thread::spawn(move || responder.serve());
        let download = Download::start(target).unwrap();
        thread::park_timeout(Duration::from_millis(300));
        assert!(download.end().is_none() && download.bytes() < LENGTH / 2);
        download.hurry().unwrap();
        assert_eq!(end(&download), Ok(()));
        assert_eq!(download.bytes(), LENGTH);
        assert!(download.came().count_after(Instant::ZERO) > 10);
    }

    #[test]
    fn a_wrong_byte_and_an_early_end_are_told() {
        for (body, words) in
            [(&[0, 1, 2, 3, 3][..], "byte 4 is 3, not 4"), (&[0, 1, 2], "the answer is cut short")]
        {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let download = Download::start(listener.local_addr().unwrap()).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1_024];
            assert!(stream.read(&mut request).unwrap() > 20);
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            stream.write_all(body).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(end(&download), Err(words.to_owned()));
        }
    }
}
