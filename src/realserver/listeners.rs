//! Which ports are listened at in this network namespace, from `/proc/net`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::Proto;

/// `TCP_LISTEN` of the kernel's `tcp_states.h`.
const LISTEN: u8 = 0x0a;
/// How the kernel shows an unconnected UDP socket: `TCP_CLOSE`.
const UNCONNECTED: u8 = 0x07;

/// Where, of all addresses that take packets for `address`, a socket waits at `port`.
pub(super) fn listener(proto: Proto, address: Ipv4Addr, port: u16) -> Option<IpAddr> {
    let (files, state) = match proto {
        Proto::Tcp => (["tcp", "tcp6"], LISTEN),
        Proto::Udp => (["udp", "udp6"], UNCONNECTED),
    };
    let sockets = files.iter().flat_map(|file| {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        // A kernel without IPv6 has no such file.
        text.unwrap_or_default().lines().filter_map(|line| parse(line, state)).collect::<Vec<_>>()
    });
    find(sockets, address, port)
}

/// An exact address before one that means all.
fn find(
    sockets: impl Iterator<Item = (IpAddr, u16)>,
    address: Ipv4Addr,
    port: u16,
) -> Option<IpAddr> {
    let at_port = sockets.filter(|(_, at)| *at == port).map(|(local, _)| local.to_canonical());
    let takes = at_port.filter(|local| local.is_unspecified() || *local == IpAddr::V4(address));
    takes.min_by_key(IpAddr::is_unspecified)
}

/// The local end of a socket in `state`: `  0: 0100007F:0050 00000000:0000 0A ...`.
fn parse(line: &str, state: u8) -> Option<(IpAddr, u16)> {
    let mut fields = line.split_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let found = fields.nth(1)?;
    if u8::from_str_radix(found, 16).ok()? != state {
        return None;
    }
    // Words of 32 bits in the machine's byte order.
    let words = address.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word).ok()?;
        u32::from_str_radix(word, 16).ok().map(u32::to_ne_bytes)
    });
    let bytes = words.collect::<Option<Vec<_>>>()?.concat();
    let address = match address.len() {
        8 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        32 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_proc_net_are_understood() {
        let line = "   0: 0B00000A:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000";
        assert_eq!(parse(line, LISTEN), Some((Ipv4Addr::new(10, 0, 0, 11).into(), 80)));
        assert_eq!(parse(line, UNCONNECTED), None);
        let six =
            "  1: 0000000000000000FFFF00000B00000A:1F90 00000000000000000000000000000000:0000 07";
        let mapped = Ipv4Addr::new(10, 0, 0, 11).to_ipv6_mapped();
        assert_eq!(parse(six, UNCONNECTED), Some((mapped.into(), 8080)));
        for wrong in ["", "  sl  local_address rem_address   st", "0: 0B:0050 0:0 0A", "0: x"] {
            assert_eq!(parse(wrong, LISTEN), None, "{wrong}");
        }
    }

    #[test]
    fn an_exact_address_is_preferred_and_another_is_none() {
        let own = Ipv4Addr::new(10, 0, 0, 11);
        let other = Ipv4Addr::new(10, 0, 0, 12);
        let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
        let sockets = || [(any, 80), (own.into(), 80), (other.into(), 81)].into_iter();
        assert_eq!(find(sockets(), own, 80), Some(own.into()));
        assert_eq!(find(sockets(), other, 80), Some(any));
        assert_eq!(find(sockets(), own, 81), None);
    }

    #[test]
    fn a_listener_of_this_process_is_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let local = Ipv4Addr::LOCALHOST;
        let port = tcp.local_addr().unwrap().port();
        assert_eq!(listener(Proto::Tcp, local, port), Some(local.into()));
        let port = udp.local_addr().unwrap().port();
        assert_eq!(listener(Proto::Udp, local, port), Some(local.into()));
    }
}
