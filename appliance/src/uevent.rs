//! What the kernel says about devices that come and go.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_KOBJECT_UEVENT;
use netlink_sys::{Socket, SocketAddr};

/// The kernel's own group; others repeat what udev made of it.
const KERNEL: u32 = 1;

/// A device that came, went or changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) action: String,
    pub(crate) subsystem: String,
    /// What to load a driver by, if it wants one.
    pub(crate) modalias: Option<String>,
}

/// The stream of them.
pub(crate) struct Events {
    socket: Socket,
}

impl Events {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_KOBJECT_UEVENT)?;
        socket.bind(&SocketAddr::new(0, KERNEL))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// All there are now.
    pub(crate) fn read(&self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            match self.socket.recv_from_full() {
                Ok((bytes, _)) => events.extend(parse(&bytes)),
                // Some were lost: whoever looks at everything misses nothing.
                Err(error) if error.raw_os_error() == Some(NO_BUFFERS) => {
                    events.push(Event { action: "change".into(), ..Event::default() });
                }
                Err(_) => return events,
            }
        }
    }
}

const NO_BUFFERS: i32 = rustix::io::Errno::NOBUFS.raw_os_error();

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `ACTION@PATH`, then `KEY=VALUE` fields, each ended by a zero byte.
fn parse(bytes: &[u8]) -> Option<Event> {
    let mut parts = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    parts.next()?.split_once('@')?;
    let mut event = Event::default();
    for part in parts {
        match part.split_once('=') {
            Some(("ACTION", value)) => event.action = value.into(),
            Some(("SUBSYSTEM", value)) => event.subsystem = value.into(),
            Some(("MODALIAS", value)) => event.modalias = Some(value.into()),
            _ => {}
        }
    }
    (!event.action.is_empty()).then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_its_fields() {
        let bytes =
            b"add@/devices/pci0/virtio1\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=virtio\0\
                      MODALIAS=virtio:d00000002v00001AF4\0SEQNUM=7\0";
        let event = parse(bytes).unwrap();
        assert_eq!(event.action, "add");
        assert_eq!(event.subsystem, "virtio");
        assert_eq!(event.modalias.as_deref(), Some("virtio:d00000002v00001AF4"));
        assert_eq!(parse(b"libudev\0\xfe\xed"), None);
        assert_eq!(parse(b""), None);
    }
}
