//! ARP for IPv4 over Ethernet (RFC 826): reading a message and building one.

use std::net::Ipv4Addr;

use super::Frame;
use super::headers::{ETHER_TYPE_ARP, ETHERNET};
use crate::addr::MacAddr;

/// Length of an ARP message for IPv4 over Ethernet.
const LENGTH: usize = 28;
/// Shortest Ethernet frame, check sequence not counted.
const SHORTEST_FRAME: usize = 60;
/// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
const FIXED: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

/// What an ARP message asks or tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// An ARP message for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Request or reply.
    pub operation: Operation,
    /// Sender hardware address.
    pub sender_mac: MacAddr,
    /// Sender protocol address; 0.0.0.0 in a probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// Target hardware address, unset in most requests.
    pub target_mac: MacAddr,
    /// Target protocol address.
    pub target: Ipv4Addr,
}

impl Arp {
    /// The message behind the Ethernet header. `None`: cut short, or not IPv4 over Ethernet, or
    /// neither request nor reply.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let message = frame.get(ETHERNET..ETHERNET + LENGTH)?;
        let (fixed, rest) = message.split_first_chunk::<6>()?;
        let (operation, rest) = rest.split_first_chunk::<2>()?;
        let (sender_mac, rest) = rest.split_first_chunk::<6>()?;
        let (sender, rest) = rest.split_first_chunk::<4>()?;
        let (target_mac, rest) = rest.split_first_chunk::<6>()?;
        let (target, _) = rest.split_first_chunk::<4>()?;
        let operation = match (*fixed, u16::from_be_bytes(*operation)) {
            (FIXED, 1) => Operation::Request,
            (FIXED, 2) => Operation::Reply,
            _ => return None,
        };
        Some(Self {
            operation,
            sender_mac: MacAddr(*sender_mac),
            sender: Ipv4Addr::from(*sender),
            target_mac: MacAddr(*target_mac),
            target: Ipv4Addr::from(*target),
        })
    }

    /// Sender and target are the same address: an announcement (RFC 5227 section 3).
    pub fn is_announcement(&self) -> bool {
        self.sender == self.target
    }

    /// Writes the message to `destination` into `frame`, padded to the shortest Ethernet frame.
    pub fn build(&self, destination: MacAddr, frame: &mut Frame) {
        let operation = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        frame.set_len(SHORTEST_FRAME);
        let bytes = frame.bytes_mut();
        bytes.fill(0);
        bytes[..6].copy_from_slice(&destination.0);
        bytes[6..12].copy_from_slice(&self.sender_mac.0);
        bytes[12..14].copy_from_slice(&ETHER_TYPE_ARP.to_be_bytes());
        bytes[14..20].copy_from_slice(&FIXED);
        bytes[21] = operation;
        bytes[22..28].copy_from_slice(&self.sender_mac.0);
        bytes[28..32].copy_from_slice(&self.sender.octets());
        bytes[32..38].copy_from_slice(&self.target_mac.0);
        bytes[38..42].copy_from_slice(&self.target.octets());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_parses_and_is_padded() {
        let arp = Arp {
            operation: Operation::Reply,
            sender_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            sender: Ipv4Addr::new(203, 0, 113, 10),
            target_mac: MacAddr([2, 0, 0, 0, 0, 9]),
            target: Ipv4Addr::new(203, 0, 113, 1),
        };
        let mut frame = Frame::from_bytes(&[0xff; 1500]);
        arp.build(arp.target_mac, &mut frame);
        assert_eq!(frame.len(), 60);
        assert_eq!(Arp::parse(frame.bytes()), Some(arp));
        assert_eq!(frame.bytes()[42..], [0; 18]);
    }

    #[test]
    fn other_shapes_are_not_arp() {
        let mut frame = Frame::new();
        let arp = Arp {
            operation: Operation::Request,
            sender_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            sender: Ipv4Addr::new(10, 0, 0, 1),
            target_mac: MacAddr::ZERO,
            target: Ipv4Addr::new(10, 0, 0, 2),
        };
        arp.build(MacAddr::BROADCAST, &mut frame);
        assert!(Arp::parse(&frame.bytes()[..41]).is_none(), "27 bytes");
        for (at, value) in [(15, 6), (17, 1), (18, 8), (19, 16), (21, 0), (21, 3), (20, 1)] {
            let mut other = frame.bytes().to_vec();
            other[at] = value;
            assert!(Arp::parse(&other).is_none(), "byte {at} = {value}");
        }
    }
}
