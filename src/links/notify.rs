//! Tells the service manager that started the router that it is ready, if that wants to know
//! (sd_notify(3)): one datagram.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The variable that names it.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Says that frames are handled from now on. Without a service manager there is nothing to say.
///
/// # Errors
/// When the manager's socket is not there, or takes no more.
pub fn ready() -> io::Result<()> {
    socket().map_or(Ok(()), |socket| tell(&socket, b"READY=1\n"))
}

/// Where the service manager listens, if there is one.
pub fn socket() -> Option<OsString> {
    std::env::var_os(SOCKET)
}

/// A name that begins with `@` is no file's.
fn tell(socket: &OsStr, message: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(message, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::scratch::Scratch;

    #[test]
    fn files_and_abstract_names_are_told_and_nobody_is_an_error() {
        let scratch = Scratch::new("notify");
        let path = scratch.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        tell(path.as_os_str(), b"READY=1\n").unwrap();
        let mut buffer = [0; 32];
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\n");

        let name = format!("tapvs-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        tell(OsStr::new(&format!("@{name}")), b"READY=1\n").unwrap();
        assert_eq!(manager.recv(&mut buffer).unwrap(), 8);
        assert!(tell(OsStr::new("/nowhere/at/all"), b"").is_err());
    }
}
