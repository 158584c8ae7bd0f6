//! Talking to a running router through its control socket.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{error, fmt, fs};

use crate::control::protocol::{Answer, Page, Reason, Refusal, Request};

/// Where routers listen unless they are told otherwise.
const SOCKETS: &str = "/run/tapvs";
/// A router that has not answered by now is not going to.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a router.
#[derive(Debug)]
pub(super) struct Router {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Router {
    /// Connects to the router at `socket`; without one, to the only router in `/run/tapvs`.
    pub(super) fn connect(socket: Option<&Path>) -> Result<Self, AskError> {
        match socket {
            Some(path) => Self::at(path),
            None => Self::only_one(Path::new(SOCKETS)),
        }
    }

    fn at(path: &Path) -> Result<Self, AskError> {
        let stream =
            UnixStream::connect(path).map_err(|error| AskError::Nobody(path.to_owned(), error))?;
        let patient = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        patient.map_err(|error| AskError::Broken(path.to_owned(), error))?;
        Ok(Self { path: path.to_owned(), stream: BufReader::new(stream) })
    }

    /// Sockets of routers that have died do not count.
    fn only_one(directory: &Path) -> Result<Self, AskError> {
        let mut found = Vec::new();
        let mut refused = None;
        for path in sockets(directory) {
            match Self::at(&path) {
                Ok(router) => found.push(router),
                // It is there, but not for this user.
                Err(denied) if denied.is_permission() => refused = Some(denied),
                Err(_) => {}
            }
        }
        match (found.len(), refused) {
            (0, Some(denied)) => Err(denied),
            (0, None) => Err(AskError::None(directory.to_owned())),
            (1, _) => found.pop().ok_or_else(|| AskError::None(directory.to_owned())),
            _ => Err(AskError::Several(found.into_iter().map(|router| router.path).collect())),
        }
    }

    /// Sends a request and reads its answer; a refusal is an error.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Answer, AskError> {
        match self.exchange(request) {
            Ok(Answer::Error(refusal)) => Err(AskError::Refused(refusal)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(AskError::Broken(self.path.clone(), error)),
        }
    }

    /// All pages of a list, one after the other, until `each` has seen enough.
    pub(super) fn pages<T>(
        &mut self,
        request: impl Fn(u64) -> Request,
        page: impl Fn(Answer) -> Option<Page<T>>,
        mut each: impl FnMut(Page<T>) -> Next,
    ) -> Result<(), AskError> {
        let mut from = 0;
        loop {
            let page = page(self.ask(&request(from))?).ok_or_else(|| self.unexpected())?;
            let next = page.next;
            match (each(page), next) {
                (Next::Go, Some(next)) => from = next,
                (Next::Enough, _) | (Next::Go, None) => return Ok(()),
            }
        }
    }

    /// The router answers what was not asked.
    pub(super) fn unexpected(&self) -> AskError {
        let error = io::Error::new(ErrorKind::InvalidData, "an answer to another question");
        AskError::Broken(self.path.clone(), error)
    }

    /// Its socket.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// For what is read without end.
    pub(super) fn into_parts(self) -> (PathBuf, BufReader<UnixStream>) {
        (self.path, self.stream)
    }

    fn exchange(&mut self, request: &Request) -> io::Result<Answer> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        // A router that has no room for one more client says so and hangs up, perhaps before this.
        let sent = self.stream.get_mut().write_all(&line);
        let mut answer = String::new();
        match self.stream.read_line(&mut answer) {
            Ok(0) => sent.and_then(|()| Err(io::Error::other("it hung up"))),
            Ok(_) => Ok(serde_json::from_str(&answer)?),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let seconds = PATIENCE.as_secs();
                Err(io::Error::new(ErrorKind::TimedOut, format!("no answer in {seconds} s")))
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a page was enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Go,
    Enough,
}

fn sockets(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_socket = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_socket());
    let mut paths: Vec<_> = entries.filter(is_socket).map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum AskError {
    /// No router in the directory.
    None(PathBuf),
    /// More than one.
    Several(Vec<PathBuf>),
    /// Nobody is at this socket, or it is not for this user.
    Nobody(PathBuf, io::Error),
    /// The conversation ended too soon.
    Broken(PathBuf, io::Error),
    /// The router will not do it.
    Refused(Refusal),
}

impl AskError {
    /// Whether a right is missing.
    pub(super) fn is_permission(&self) -> bool {
        matches!(self, Self::Nobody(_, error) if error.kind() == ErrorKind::PermissionDenied)
    }

    /// Whether there is no router to ask.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::None(_) | Self::Nobody(..)) && !self.is_permission()
    }

    /// Whether what was asked for, or the file, is wrong.
    pub(super) fn is_usage(&self) -> bool {
        match self {
            Self::Several(_) => true,
            Self::Refused(refusal) => refusal.reason != Reason::Busy,
            Self::None(_) | Self::Nobody(..) | Self::Broken(..) => false,
        }
    }
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None(directory) => write!(
                f,
                "no router listens in {}; start one, or name its socket with --socket",
                directory.display()
            ),
            Self::Several(paths) => {
                write!(f, "several routers run here; choose one with --socket:")?;
                paths.iter().try_for_each(|path| write!(f, "\n  {}", path.display()))
            }
            Self::Nobody(path, error) => {
                write!(f, "{}: no router to ask: {error}", path.display())?;
                match error.kind() {
                    ErrorKind::PermissionDenied => f.write_str("; only its owner may, and root"),
                    _ => Ok(()),
                }
            }
            Self::Broken(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl error::Error for AskError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Nobody(_, error) | Self::Broken(_, error) => Some(error),
            Self::Refused(refusal) => Some(refusal),
            Self::None(_) | Self::Several(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::links::scratch::Scratch;

    fn listen(scratch: &Scratch, name: &str) -> UnixListener {
        UnixListener::bind(scratch.path().join(name)).unwrap()
    }

    #[test]
    fn the_only_living_router_is_found() {
        let scratch = Scratch::new("ask-only");
        let one = || Router::only_one(scratch.path());
        assert!(matches!(one(), Err(AskError::None(_))));
        fs::write(scratch.path().join("notes"), "").unwrap();
        drop(listen(&scratch, "dead.sock"));
        assert!(one().unwrap_err().is_absence());
        let _b = listen(&scratch, "b.sock");
        assert_eq!(one().unwrap().path, scratch.path().join("b.sock"));
        let _a = listen(&scratch, "a.sock");
        let error = one().unwrap_err();
        assert!(error.is_usage());
        let text = error.to_string();
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].ends_with("/a.sock") && lines[1].ends_with("/b.sock"), "{text}");
    }

    #[test]
    fn refusals_and_hang_ups_are_told_apart() {
        let scratch = Scratch::new("ask-refused");
        let listener = listen(&scratch, "s");
        let router = thread::spawn(move || {
            for answer in
                [&b"{\"error\":{\"reason\":\"busy\",\"messages\":[\"full\"]}}\n"[..], b"", b"?\n"]
            {
                let (mut stream, _) = listener.accept().unwrap();
                BufReader::new(&stream).read_line(&mut String::new()).unwrap();
                stream.write_all(answer).unwrap();
            }
        });
        let path = scratch.path().join("s");
        let ask = || Router::connect(Some(&path)).unwrap().ask(&Request::Drops {}).unwrap_err();
        let full = ask();
        assert!(!full.is_usage() && full.to_string() == "full", "{full}");
        assert!(ask().to_string().ends_with("it hung up"));
        assert!(matches!(ask(), AskError::Broken(..)), "no JSON");
        router.join().unwrap();
        assert!(Router::connect(Some(&path)).unwrap_err().is_absence());
    }
}
