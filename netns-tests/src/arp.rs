//! ARP for IPv4 over Ethernet, written down once more: not by what is tested.

use std::net::Ipv4Addr;

use tapvs::addr::MacAddr;

use crate::wire;

/// What ARP frames say they are.
pub const KIND: u16 = 0x0806;
/// Asks.
pub const REQUEST: u16 = 1;
/// Answers.
pub const REPLY: u16 = 2;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are RFC 826's")]
pub struct Arp {
    pub operation: u16,
    pub sender_mac: MacAddr,
    pub sender: Ipv4Addr,
    pub target_mac: MacAddr,
    pub target: Ipv4Addr,
}

impl Arp {
    /// Who has `target`?
    pub const fn who_has(target: Ipv4Addr, (mac, sender): (MacAddr, Ipv4Addr)) -> Self {
        Self { operation: REQUEST, sender_mac: mac, sender, target_mac: MacAddr::ZERO, target }
    }

    /// `address` is at `mac`, said unasked.
    pub const fn announcement(operation: u16, address: Ipv4Addr, mac: MacAddr) -> Self {
        let target_mac = if operation == REPLY { MacAddr::BROADCAST } else { MacAddr::ZERO };
        Self { operation, sender_mac: mac, sender: address, target_mac, target: address }
    }

    /// What an ARP frame says.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let message = frame.get(14..42).filter(|_| wire::kind(frame) == KIND)?;
        let mac = |at: usize| Some(MacAddr(message[at..at + 6].try_into().ok()?));
        let address = |at: usize| {
            let octets: [u8; 4] = message[at..at + 4].try_into().ok()?;
            Some(Ipv4Addr::from(octets))
        };
        Some(Self {
            operation: u16::from_be_bytes([message[6], message[7]]),
            sender_mac: mac(8)?,
            sender: address(14)?,
            target_mac: mac(18)?,
            target: address(24)?,
        })
    }

    /// The 28 bytes of the message.
    pub fn bytes(&self) -> Vec<u8> {
        let mut message = vec![0, 1, 8, 0, 6, 4];
        message.extend(self.operation.to_be_bytes());
        message.extend(self.sender_mac.0);
        message.extend(self.sender.octets());
        message.extend(self.target_mac.0);
        message.extend(self.target.octets());
        message
    }

    /// A frame from the sender.
    pub fn frame(&self, to: MacAddr) -> Vec<u8> {
        wire::frame(to, self.sender_mac, KIND, &self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mac = MacAddr([2, 0, 0, 0, 0, 7]);
        let vip = Ipv4Addr::new(203, 0, 113, 10);
        let other = Ipv4Addr::new(203, 0, 113, 100);
        for message in [
            Arp::who_has(other, (mac, vip)),
            Arp::announcement(REQUEST, vip, mac),
            Arp::announcement(REPLY, vip, mac),
        ] {
            assert_eq!(Arp::read(&message.frame(MacAddr::BROADCAST)), Some(message));
        }
        assert_eq!(Arp::read(&wire::frame(mac, mac, 0x0800, &[0; 46])), None);
        assert_eq!(Arp::read(&[0; 20]), None);
    }
}
