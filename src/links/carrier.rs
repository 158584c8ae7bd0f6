//! Whether the NICs that links are joined with can carry frames: their operational state, told by the
//! kernel as it changes. A TAP's own carrier says nothing, because its other end is this process.

use std::io;
use std::os::fd::AsRawFd as _;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::error::LinkError;
use super::netlink::{Netlink, device};
use crate::addr::LinkId;

/// `RTNLGRP_LINK`: news of devices.
const NEWS_OF_LINKS: u32 = 1;

/// The NICs of some links, as the kernel last spoke of them.
#[derive(Debug)]
pub struct Carriers {
    news: Socket,
    netlink: Netlink,
    nics: Vec<Nic>,
}

#[derive(Debug)]
struct Nic {
    link: LinkId,
    name: String,
    is_up: bool,
}

/// What has become of a link's NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The link that is joined with it.
    pub link: LinkId,
    /// Its name.
    pub nic: String,
    /// It is up, and so is what it is plugged into.
    pub is_up: bool,
}

impl Carriers {
    /// Listens to news of these NICs, in the calling thread's namespace. [`Carriers::changed`] tells
    /// at first who is not up.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn new(nics: impl IntoIterator<Item = (LinkId, String)>) -> Result<Self, LinkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.add_membership(NEWS_OF_LINKS)?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let news = open().map_err(|cause| LinkError::kernel("listen to", "the NICs", cause))?;
        let nics = nics.into_iter().map(|(link, name)| Nic { link, name, is_up: true }).collect();
        Ok(Self { news, netlink: Netlink::new()?, nics })
    }

    /// Puts itself into the poll: readable when there is news.
    ///
    /// # Errors
    /// When the poll does not take it.
    pub fn register(&self, registry: &Registry, token: Token) -> Result<(), LinkError> {
        let fd = self.news.as_raw_fd();
        registry
            .register(&mut SourceFd(&fd), token, Interest::READABLE)
            .map_err(|cause| LinkError::kernel("poll the news of", "the NICs", cause))
    }

    /// Looks at all of them anew; what is not as it was before.
    pub fn look(&mut self) -> Vec<Changed> {
        let Self { netlink, nics, .. } = self;
        let state = |nic: &Nic| netlink.link(&nic.name).is_ok_and(|now| now.up && now.carrier);
        nics.iter_mut().filter_map(|nic| nic.follow(state(nic))).collect()
    }

    /// Hears all news there are; what is not as it was before.
    pub fn changed(&mut self) -> Vec<Changed> {
        let mut changed = Vec::new();
        loop {
            match self.news.recv_from_full() {
                Ok((datagram, _)) => self.hear(&datagram, &mut changed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return changed,
                // Some were lost (ENOBUFS), and nobody knows which.
                Err(_) => {
                    changed.extend(self.look());
                    return changed;
                }
            }
        }
    }

    fn hear(&mut self, mut datagram: &[u8], changed: &mut Vec<Changed>) {
        while !datagram.is_empty() {
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) else {
                return;
            };
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
            let NetlinkPayload::InnerMessage(news) = message.payload else { continue };
            let (news, is_there) = match news {
                RouteNetlinkMessage::DelLink(gone) => (RouteNetlinkMessage::NewLink(gone), false),
                news => (news, true),
            };
            let Some(device) = device::as_link(news) else { continue };
            // A bridge tells in the same words that it let go of a port, which is still there.
            if !is_there && device.is_of_bridge {
                continue;
            }
            let is_up = is_there && device.up && device.carrier;
            let nics = self.nics.iter_mut().filter(|nic| nic.name == device.name);
            changed.extend(nics.filter_map(|nic| nic.follow(is_up)));
        }
    }
}

impl Nic {
    fn follow(&mut self, is_up: bool) -> Option<Changed> {
        let changed = self.is_up != is_up;
        self.is_up = is_up;
        changed.then(|| Changed { link: self.link, nic: self.name.clone(), is_up })
    }
}
