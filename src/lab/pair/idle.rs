//! Connections that are open and say nothing, until they are used again.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::lab::client::{read_name, sort};
use crate::lab::deadline::Deadline;

/// How long all of them together may take to be answered: two losses in a row are made up for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Open connections, and who is at the other end of each.
#[derive(Debug)]
pub(super) struct Idle {
    all: Vec<(TcpStream, String)>,
    target: SocketAddr,
}

impl Idle {
    /// Opens so many, from the calling thread's network namespace, and has each say who it is with.
    pub(super) fn open(target: SocketAddr, count: usize) -> Result<Self, String> {
        let open = || {
            let deadline = Deadline::after(PATIENCE);
            let stream = TcpStream::connect_timeout(&target, deadline.remaining()?)?;
            stream.set_nodelay(true)?;
            ask(&stream, target)?;
            io::Result::Ok((stream, deadline))
        };
        let mut all = Vec::new();
        for number in 1..=count {
            let failed = |(failure, detail)| format!("connection {number}: {failure} {detail}");
            let (stream, deadline) = open().map_err(|error| failed(sort(&error)))?;
            let server = read_name(&stream, deadline).map_err(failed)?;
            all.push((stream, server));
        }
        Ok(Self { all, target })
    }

    pub(super) const fn count(&self) -> usize {
        self.all.len()
    }

    /// Uses every one of them; what is wrong, in words, for each that is broken. Who is broken stays
    /// so.
    pub(super) fn use_again(&self) -> Vec<String> {
        let deadline = Deadline::after(PATIENCE);
        let asked: Vec<_> = self.all.iter().map(|(stream, _)| ask(stream, self.target)).collect();
        let answers = self.all.iter().zip(asked).map(|((stream, server), asked)| {
            asked.map_err(|error| sort(&error))?;
            let answered = read_name(stream, deadline)?;
            Ok((server, answered))
        });
        let wrong = |answer: Result<(&String, String), _>| match answer {
            Ok((server, answered)) if *server == answered => None,
            Ok((server, answered)) => Some(format!("{answered} answered, not {server}")),
            Err((failure, detail)) => Some(format!("{failure} {detail}").trim_end().to_owned()),
        };
        answers.filter_map(wrong).collect()
    }
}

fn ask(mut stream: &TcpStream, target: SocketAddr) -> io::Result<()> {
    let request = format!("GET / HTTP/1.1\r\nHost: {target}\r\nConnection: keep-alive\r\n\r\n");
    stream.write_all(request.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;
    use std::thread;

    use super::*;
    use crate::lab::responder::Responder;

    #[test]
    fn what_is_open_can_be_used_again_and_what_is_broken_shows() {
        let responder = Responder::bind("s7", "127.0.0.1:0".parse().unwrap()).unwrap();
        let target = responder.address().unwrap();
        thread::spawn(move || responder.serve());
        let mut idle = Idle::open(target, 10).unwrap();
        for _ in 0..3 {
            assert_eq!(idle.use_again(), [""; 0]);
        }
        idle.all[3].0.shutdown(Shutdown::Both).unwrap();
        idle.all[5].1 = "s8".to_owned();
        let wrong = idle.use_again();
        assert_eq!(wrong.len(), 2);
        assert_eq!(wrong[1], "s7 answered, not s8");
    }
}
