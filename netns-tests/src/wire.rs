//! Frames as they are on the wire, past the kernel's own stack.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind,
    recvfrom, recvmsg, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use tapvs::addr::MacAddr;
use tapvs::links::Namespace;

use crate::{Context as _, Failure, Outcome};

/// What an unread burst may take, in bytes.
const ROOM: usize = 32 << 20;
/// `PACKET_OUTGOING`: the host's own frame, on its way out.
const OUTGOING: u8 = 4;
/// How long one look takes.
const BEAT: Duration = Duration::from_millis(20);

/// A NIC's wire: sends frames as they are given, sees everything that arrives.
#[derive(Debug)]
pub struct Wire {
    fd: OwnedFd,
    mac: MacAddr,
}

impl Wire {
    /// Listens from now on, also to what is for others.
    pub fn open(namespace: &Namespace, nic: &str) -> Outcome<Self> {
        namespace.run(|| Self::here(nic)).context(format_args!("cannot listen on {nic}"))
    }

    fn here(nic: &str) -> Outcome<Self> {
        let mut entries = getifaddrs()?.filter(|entry| entry.interface_name == nic);
        let link = entries.find_map(|entry| entry.address?.as_link_addr().copied());
        let link: LinkAddr = link.ok_or_else(|| Failure::new("there is no such device"))?;
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let fd = socket(AddressFamily::Packet, kind, flags, SockProtocol::EthAll)?;
        bind(fd.as_raw_fd(), &link)?;
        set_socket_recv_buffer_size_force(&fd, ROOM)?;
        set_socket_timeout(&fd, Timeout::Recv, Some(BEAT))?;
        let wire = Self { fd, mac: MacAddr(link.addr().unwrap_or_default()) };
        // Before it was bound it heard every device.
        wire.drain();
        Ok(wire)
    }

    /// The NIC's own address.
    pub const fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Sends a frame, from the destination address on.
    pub fn send(&self, frame: &[u8]) -> Outcome {
        let sent = send(self.fd.as_raw_fd(), frame, MsgFlags::empty());
        sent.map(drop).context("cannot send a frame")
    }

    /// The first frame that arrives and `is_wanted`; `None` when none does.
    pub fn receive(&self, limit: Duration, is_wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let end = Instant::now() + limit;
        let mut buffer = vec![0; 70_000];
        while Instant::now() < end {
            match self.next(&mut buffer) {
                Some(length) if is_wanted(&buffer[..length]) => {
                    buffer.truncate(length);
                    return Some(buffer);
                }
                Some(_) | None => {}
            }
        }
        None
    }

    /// As [`Wire::receive`], with when the kernel had it, on a clock of its own: however late this
    /// process is.
    pub fn receive_stamped(
        &self,
        limit: Duration,
        is_wanted: impl Fn(&[u8]) -> bool,
    ) -> Outcome<Option<(Vec<u8>, Duration)>> {
        setsockopt(&self.fd, sockopt::ReceiveTimestampns, &true)?;
        let end = Instant::now() + limit;
        let mut buffer = vec![0; 70_000];
        let mut control = nix::cmsg_space!(TimeSpec);
        while Instant::now() < end {
            let mut room = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::empty();
            let message =
                recvmsg::<LinkAddr>(self.fd.as_raw_fd(), &mut room, Some(&mut control), flags);
            let Ok(message) = message else { continue }; // nothing within a beat
            let stamp = message.cmsgs()?.find_map(|part| match part {
                ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
                _ => None,
            });
            let is_own = message.address.is_some_and(|from| from.pkttype() == OUTGOING);
            let length = message.bytes;
            if !is_own && is_wanted(&buffer[..length]) {
                let stamp = stamp.ok_or_else(|| Failure::new("a frame without a timestamp"))?;
                buffer.truncate(length);
                return Ok(Some((buffer, stamp)));
            }
        }
        Ok(None)
    }

    /// Hands over each frame that arrives until it is `over`.
    pub fn attend(&self, over: &AtomicBool, mut handle: impl FnMut(&[u8])) {
        let mut buffer = vec![0; 70_000];
        while !over.load(Ordering::Relaxed) {
            if let Some(length) = self.next(&mut buffer) {
                handle(&buffer[..length]);
            }
        }
    }

    /// Every wanted frame that has arrived so far.
    pub fn seen(&self, is_wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        let mut buffer = vec![0; 70_000];
        while let Some(length) = self.next(&mut buffer) {
            if is_wanted(&buffer[..length]) {
                seen.push(buffer[..length].to_vec());
            }
        }
        seen
    }

    /// Forgets what has arrived so far.
    pub fn drain(&self) {
        drop(self.seen(|_| false));
    }

    /// The length of the next frame that is not the host's own.
    fn next(&self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            let (length, from) = recvfrom::<LinkAddr>(self.fd.as_raw_fd(), buffer).ok()?;
            if from.is_none_or(|from| from.pkttype() != OUTGOING) {
                return Some(length);
            }
        }
    }
}

/// A frame of that kind, no shorter than Ethernet allows.
pub fn frame(to: MacAddr, from: MacAddr, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &kind.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// Whom it is for.
pub fn destination(frame: &[u8]) -> MacAddr {
    MacAddr(frame[..6].try_into().expect("six bytes"))
}

/// Who sent it, this far.
pub fn source(frame: &[u8]) -> MacAddr {
    MacAddr(frame[6..12].try_into().expect("six bytes"))
}

/// What is in it, or how long it is.
pub fn kind(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[12], frame[13]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_says_who_and_what() {
        let (to, from) = (MacAddr::BROADCAST, MacAddr([2, 0, 0, 0, 0, 1]));
        let made = frame(to, from, 0x0806, b"x");
        assert_eq!((destination(&made), source(&made), kind(&made)), (to, from, 0x0806));
        assert_eq!((made.len(), made[14]), (60, b'x'));
    }
}
