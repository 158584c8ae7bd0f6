//! A Unix socket for the owner's eyes only: a file that appears with its listener and goes with it.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as Probe;
use std::path::{Path, PathBuf};
use std::{error, fmt};

use mio::event::Source;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::fs::Mode;
use rustix::process::umask;

/// Listens at a path; removes the file when dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: whether the file is still this listener's.
    file: Option<(u64, u64)>,
}

impl Listener {
    /// Listens at `path`, mode 0600, in a directory that is made if it is not there. The socket of
    /// a process that has died is replaced. To be called before there are other threads: what they
    /// made meanwhile would be the owner's alone, too.
    ///
    /// # Errors
    /// When somebody listens there already, something else is there, or the system refuses.
    pub fn open(path: &Path) -> Result<Self, ListenError> {
        let refused =
            |what| move |error| ListenError::System { what, path: path.to_owned(), error };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(refused("create the directory of"))?;
        }
        remove_stale(path)?;
        let before = umask(Mode::RWXG | Mode::RWXO);
        let bound = UnixListener::bind(path);
        umask(before);
        let listener = bound.map_err(refused("listen at"))?;
        let own = fs::Permissions::from_mode(0o600);
        fs::set_permissions(path, own).map_err(refused("protect"))?;
        Ok(Self { listener, path: path.to_owned(), file: identity(path) })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection; `None` when nobody waits.
    ///
    /// # Errors
    /// When the system refuses one more descriptor: somebody may still wait.
    pub fn accept(&self) -> io::Result<Option<UnixStream>> {
        match self.listener.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.file.is_some()
            && self.file == identity(&self.path)
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!(path:% = self.path.display(), error:%; "the control socket's file stays");
        }
    }
}

impl Source for Listener {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.listener.register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.listener.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.listener.deregister(registry)
    }
}

/// Clears away a socket that nobody listens at any more, and nothing else.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let refused = |error| ListenError::System { what: "replace", path: path.to_owned(), error };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match Probe::connect(path) {
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(refused)
        }
        // It has gone just now.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(refused(error)),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Why nobody can listen at a path.
#[derive(Debug)]
pub enum ListenError {
    /// Somebody else does.
    InUse(PathBuf),
    /// A file of another kind is there.
    NoSocket(PathBuf),
    /// The operating system refused.
    System {
        /// What was tried, as an infinitive.
        what: &'static str,
        /// The socket.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

impl ListenError {
    /// Whether a right is missing.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::System { error, .. } if error.kind() == ErrorKind::PermissionDenied)
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(
                f,
                "{}: another router listens there; stop it, or set another [router] name or \
                 control_socket",
                path.display()
            ),
            Self::NoSocket(path) => {
                write!(
                    f,
                    "{}: is there and is no socket; set another control_socket",
                    path.display()
                )
            }
            Self::System { what, path, error } => {
                write!(f, "cannot {what} the control socket {}: {error}", path.display())?;
                match error.kind() {
                    ErrorKind::PermissionDenied => f.write_str(
                        "; set a control_socket where this user may create files (or \"none\"), or \
                         make the directory theirs",
                    ),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl error::Error for ListenError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::System { error, .. } => Some(error),
            Self::InUse(_) | Self::NoSocket(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::scratch::Scratch;

    #[test]
    fn it_is_the_owners_alone_and_goes_with_the_listener() {
        let scratch = Scratch::new("listener");
        let path = scratch.path().join("run/tapvs/a.sock");
        let listener = Listener::open(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(listener.accept().unwrap().is_none());
        let _client = Probe::connect(&path).unwrap();
        assert!(listener.accept().unwrap().is_some());
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_refused() {
        let scratch = Scratch::new("stale");
        let path = scratch.path().join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves it behind, as a killed process does");
        let _live = Listener::open(&path).unwrap();
        let error = Listener::open(&path).unwrap_err();
        assert!(matches!(error, ListenError::InUse(_)), "{error}");
        assert!(path.exists(), "the live one keeps it");
    }

    #[test]
    fn what_is_no_socket_stays() {
        let scratch = Scratch::new("no-socket");
        let path = scratch.path().join("notes.txt");
        fs::write(&path, "dear diary").unwrap();
        assert!(matches!(Listener::open(&path), Err(ListenError::NoSocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "dear diary");
    }

    #[test]
    fn a_file_that_is_not_its_own_is_left_alone() {
        let scratch = Scratch::new("not-own");
        let path = scratch.path().join("a.sock");
        let first = Listener::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = Listener::open(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }
}
