//! Raw sockets: pings, datagrams without a checksum, and a look at headers as they arrive.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketType, bind, ipproto, recv, sendto, socket,
};
use tapvs::links::Namespace;

use crate::{Context as _, Failure, Outcome, ensure};

const PATIENCE: Duration = Duration::from_secs(5);

/// An IPv4 packet as a raw socket delivers it.
#[derive(Clone, Debug)]
pub struct Packet(Vec<u8>);

impl Packet {
    fn new(bytes: Vec<u8>) -> Option<Self> {
        let header = usize::from(bytes.first()? & 0xf) * 4;
        (bytes.len() >= header + 8).then_some(Self(bytes))
    }

    /// Time to live.
    pub fn ttl(&self) -> u8 {
        self.0[8]
    }

    /// Who sent it.
    pub fn source(&self) -> Ipv4Addr {
        let [a, b, c, d] = [self.0[12], self.0[13], self.0[14], self.0[15]];
        Ipv4Addr::new(a, b, c, d)
    }

    /// Whom it is for.
    pub fn destination(&self) -> Ipv4Addr {
        let [a, b, c, d] = [self.0[16], self.0[17], self.0[18], self.0[19]];
        Ipv4Addr::new(a, b, c, d)
    }

    /// From the IP header on.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What follows the IP header.
    pub fn payload(&self) -> &[u8] {
        &self.0[usize::from(self.0[0] & 0xf) * 4..]
    }

    /// Two bytes of the payload, big endian.
    pub fn payload_u16(&self, at: usize) -> u16 {
        let payload = self.payload();
        u16::from_be_bytes([payload[at], payload[at + 1]])
    }
}

/// A raw socket for one protocol.
#[derive(Debug)]
pub struct RawSocket(OwnedFd);

impl RawSocket {
    /// For ICMP.
    pub fn icmp(namespace: &Namespace) -> Outcome<Self> {
        Self::open(namespace, ipproto::ICMP)
    }

    /// For UDP: sends datagrams as they are given, sees those that arrive.
    pub fn udp(namespace: &Namespace) -> Outcome<Self> {
        Self::open(namespace, ipproto::UDP)
    }

    /// For TCP: sees segments that arrive.
    pub fn tcp(namespace: &Namespace) -> Outcome<Self> {
        Self::open(namespace, ipproto::TCP)
    }

    /// Sends packets as they are given, their IP header included; sees none.
    pub fn ip(namespace: &Namespace) -> Outcome<Self> {
        Self::open(namespace, ipproto::RAW)
    }

    fn open(namespace: &Namespace, protocol: Protocol) -> Outcome<Self> {
        let fd = namespace
            .run(|| socket(AddressFamily::INET, SocketType::RAW, Some(protocol)))
            .context("cannot open a raw socket")?;
        set_socket_timeout(&fd, Timeout::Recv, Some(Duration::from_millis(100)))?;
        Ok(Self(fd))
    }

    /// With this source address.
    pub fn bind(self, address: Ipv4Addr) -> Outcome<Self> {
        bind(&self.0, &SocketAddrV4::new(address, 0))?;
        Ok(self)
    }

    /// Sends `payload` behind an IP header that the kernel makes.
    pub fn send(&self, payload: &[u8], to: Ipv4Addr) -> Outcome {
        let sent = sendto(&self.0, payload, SendFlags::empty(), &SocketAddrV4::new(to, 0));
        sent.map(drop).context("cannot send a raw packet")
    }

    /// The first packet that `is_wanted`; `None` when none comes.
    pub fn receive(&self, limit: Duration, is_wanted: impl Fn(&Packet) -> bool) -> Option<Packet> {
        let end = Instant::now() + limit;
        let mut buffer = vec![0; 65_536];
        while Instant::now() < end {
            let Ok((length, _)) = recv(&self.0, &mut buffer[..], RecvFlags::empty()) else {
                continue; // the socket's own short time-out
            };
            if let Some(packet) = Packet::new(buffer[..length].to_vec()).filter(&is_wanted) {
                return Some(packet);
            }
        }
        None
    }
}

/// One echo request with `size` bytes of data, and how long its answer took.
pub fn ping(namespace: &Namespace, to: Ipv4Addr, size: usize) -> Outcome<Duration> {
    const ID: u16 = 0x7a70;
    let socket = RawSocket::icmp(namespace)?;
    let data: Vec<u8> = (0..=u8::MAX).cycle().take(size).collect();
    let mut request = vec![8, 0, 0, 0];
    request.extend(ID.to_be_bytes());
    request.extend(1_u16.to_be_bytes());
    request.extend(&data);
    let sum = internet_checksum(&request);
    request[2..4].copy_from_slice(&sum.to_be_bytes());
    let start = Instant::now();
    socket.send(&request, to)?;
    let answer = socket
        .receive(PATIENCE, |packet| {
            packet.source() == to && packet.payload()[0] == 0 && packet.payload_u16(4) == ID
        })
        .ok_or_else(|| Failure::new(format!("{to} does not answer a ping")))?;
    let took = start.elapsed();
    ensure!(answer.payload()[8..] == data, "{to} answered a ping with other data");
    ensure!(internet_checksum(answer.payload()) == 0, "the answer's ICMP checksum is wrong");
    Ok(took)
}

/// A UDP header and `data`, with a checksum of 0: none was computed.
pub fn udp_without_checksum(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + data.len()).unwrap_or(u16::MAX);
    let words = [from, to, length, 0];
    words.into_iter().flat_map(u16::to_be_bytes).chain(data.iter().copied()).collect()
}

/// RFC 1071; over what holds its own right checksum it is 0.
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        let example = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(internet_checksum(&example), !0xddf2);
        assert_eq!(internet_checksum(&[0xff]), 0x00ff);
        assert_eq!(udp_without_checksum(1, 2, b"ab"), [0, 1, 0, 2, 0, 10, 0, 0, b'a', b'b']);
    }
}
