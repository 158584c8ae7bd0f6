//! The NICs of the machine: which there are, and all of them up.

use std::fs;
use std::io;
use std::path::Path;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use serde::{Deserialize, Serialize};

const CLASS: &str = "/sys/class/net";

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Nic {
    pub(crate) name: String,
    pub(crate) mac: String,
    /// Where it is plugged in, such as `0000:00:03.0`; empty where there is no PCI.
    pub(crate) pci: String,
    pub(crate) driver: String,
    pub(crate) carrier: bool,
}

/// All NICs with hardware behind them, by name.
pub(crate) fn list() -> Vec<Nic> {
    let entries = fs::read_dir(CLASS).into_iter().flatten().flatten();
    let mut nics: Vec<_> = entries
        .filter(|entry| entry.path().join("device").exists())
        .map(|entry| read(&entry.path(), &entry.file_name().to_string_lossy()))
        .collect();
    nics.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
    nics
}

fn read(path: &Path, name: &str) -> Nic {
    let text =
        |file: &str| fs::read_to_string(path.join(file)).unwrap_or_default().trim().to_owned();
    let device = path.join("device");
    let driver = fs::read_link(device.join("driver")).unwrap_or_default();
    let driver = driver.file_name().map(|name| name.to_string_lossy().into_owned());
    let place = fs::canonicalize(&device).unwrap_or_default();
    Nic {
        name: name.to_owned(),
        mac: text("address"),
        pci: pci_address(&place).unwrap_or_default(),
        driver: driver.unwrap_or_default(),
        carrier: text("carrier") == "1",
    }
}

/// The last PCI address on the way to a device: its own, or that of the one that carries it.
fn pci_address(path: &Path) -> Option<String> {
    let parts = path.components().rev().filter_map(|part| part.as_os_str().to_str());
    parts.into_iter().find(|part| is_pci(part)).map(str::to_owned)
}

/// `DOMAIN:BUS:DEVICE.FUNCTION`, as `lspci -D` writes it.
fn is_pci(text: &str) -> bool {
    let hex = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    match text.split([':', '.']).collect::<Vec<_>>()[..] {
        [domain, bus, device, function] => {
            hex(domain, 8) && domain.len() >= 4 && hex(bus, 2) && hex(device, 2) && hex(function, 1)
        }
        _ => false,
    }
}

/// Brings a device up.
pub(crate) fn set_up(name: &str) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut packet =
        NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::SetLink(message)));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer);
    match answer.map_err(io::Error::other)?.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nic_is_found_by_the_pci_device_that_carries_it() {
        let of = |path: &str| pci_address(Path::new(path));
        let virtio = "/sys/devices/pci0000:00/0000:00:03.0/virtio1";
        assert_eq!(of(virtio).as_deref(), Some("0000:00:03.0"));
        let bridged = "/sys/devices/pci0000:00/0000:00:1c.0/0000:02:00.1";
        assert_eq!(of(bridged).as_deref(), Some("0000:02:00.1"));
        assert_eq!(of("/sys/devices/LNXSYSTM:00/device:07/VMBUS:01/a-b"), None);
        assert_eq!(of("/sys/devices/virtual/net/lo"), None);
    }

    #[test]
    fn the_loopback_can_be_asked_for() {
        // Up already, or no right to do it: either way the kernel has understood.
        match set_up("lo") {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}"),
        }
        let missing = set_up("no-such-nic").unwrap_err();
        assert!(
            [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied].contains(&missing.kind())
                || missing.raw_os_error() == Some(19),
            "{missing}"
        );
    }
}
