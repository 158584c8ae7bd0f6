//! The two queues that stand where smoltcp expects a network card. Their slots are allocated once.

use smoltcp::phy::{self, DeviceCapabilities, Medium};

use super::allowance::Allowance;
use crate::time::{Duration, Instant};

/// Packets each queue holds.
const SLOTS: usize = 64;
/// Answers that nobody asked a socket for: at most this often, after a first burst.
const ANSWER_INTERVAL: Duration = Duration::from_millis(1);
const ANSWER_BURST: u32 = 100;

/// Two bounded queues of IP packets, modelled on smoltcp's own loopback device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) incoming: Queue,
    pub(super) outgoing: Queue,
    /// Answers the allowance held back.
    pub(super) limited: u64,
    allowance: Allowance,
    mtu: usize,
}

impl Device {
    pub(super) fn new(mtu: usize, now: Instant) -> Self {
        Self {
            incoming: Queue::new(mtu),
            outgoing: Queue::new(mtu),
            limited: 0,
            allowance: Allowance::new(ANSWER_INTERVAL, ANSWER_BURST, now),
            mtu,
        }
    }
}

impl phy::Device for Device {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, now: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        if self.outgoing.is_full() {
            return None;
        }
        let received = Received(self.incoming.pop()?);
        let outgoing = &mut self.outgoing;
        let (allowance, limited) = (Some(&mut self.allowance), &mut self.limited);
        Some((received, Sending { outgoing, allowance, limited, now }))
    }

    fn transmit(&mut self, now: Instant) -> Option<Sending<'_>> {
        if self.outgoing.is_full() {
            return None;
        }
        let (outgoing, limited) = (&mut self.outgoing, &mut self.limited);
        // What a socket sends of its own accord is nobody's answer, not even a reset.
        Some(Sending { outgoing, allowance: None, limited, now })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// A packet on its way into smoltcp.
#[derive(Debug)]
pub(super) struct Received<'a>(&'a [u8]);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// The right to send one packet out of smoltcp.
#[derive(Debug)]
pub(super) struct Sending<'a> {
    outgoing: &'a mut Queue,
    /// What limits answers, if it may be one.
    allowance: Option<&'a mut Allowance>,
    limited: &'a mut u64,
    now: Instant,
}

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self { outgoing, allowance, limited, now } = self;
        outgoing.push_with(len, f, |packet| {
            let limits = allowance.filter(|_| answers_a_stranger(packet));
            let send = limits.is_none_or(|allowance| allowance.take(now));
            *limited += u64::from(!send);
            send
        })
    }
}

/// ICMP or a TCP reset: what any stranger can make the host send. smoltcp writes no IP options.
fn answers_a_stranger(packet: &[u8]) -> bool {
    const TCP: u8 = 6;
    const RST: u8 = 0x04;
    let (protocol, flags) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => (packet.get(9), packet.get(20 + 13)),
        _ => (packet.get(6), packet.get(40 + 13)),
    };
    match protocol {
        Some(1 | 58) => true,
        Some(&TCP) => flags.is_some_and(|flags| flags & RST != 0),
        _ => false,
    }
}

/// A bounded first-in first-out queue of packets, each copied into a slot that is reused.
#[derive(Debug)]
pub(super) struct Queue {
    slots: Vec<Slot>,
    head: usize,
    used: usize,
}

#[derive(Clone, Debug)]
struct Slot {
    room: Box<[u8]>,
    len: usize,
}

impl Queue {
    fn new(mtu: usize) -> Self {
        let slot = Slot { room: vec![0; mtu].into_boxed_slice(), len: 0 };
        Self { slots: vec![slot; SLOTS], head: 0, used: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.used == 0
    }

    pub(super) const fn is_full(&self) -> bool {
        self.used == self.slots.len()
    }

    /// Appends a copy of `packet`; `false` when the queue is full or the packet exceeds the MTU.
    pub(super) fn push(&mut self, packet: &[u8]) -> bool {
        if self.is_full() {
            return false;
        }
        let slot = self.next_free();
        let Some(room) = slot.room.get_mut(..packet.len()) else { return false };
        room.copy_from_slice(packet);
        slot.len = packet.len();
        self.used += 1;
        true
    }

    /// Lets `write` fill the next slot's first `len` bytes and keeps them if `wanted` says so.
    /// smoltcp sends at most the MTU, and only where a token has seen a free slot.
    fn push_with<R>(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> R,
        wanted: impl FnOnce(&[u8]) -> bool,
    ) -> R {
        let slot = self.next_free();
        let packet = &mut slot.room[..len];
        let result = write(packet);
        if wanted(packet) {
            slot.len = len;
            self.used += 1;
        }
        result
    }

    /// Takes the oldest packet out; its bytes stay until its slot's next turn.
    pub(super) fn pop(&mut self) -> Option<&[u8]> {
        if self.is_empty() {
            return None;
        }
        let slot = &self.slots[self.head];
        self.head = (self.head + 1) % self.slots.len();
        self.used -= 1;
        slot.room.get(..slot.len)
    }

    fn next_free(&mut self) -> &mut Slot {
        let at = (self.head + self.used) % self.slots.len();
        &mut self.slots[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_keeps_order_and_refuses_what_does_not_fit() {
        let mut queue = Queue::new(4);
        assert!(!queue.push(&[0; 5]), "larger than the MTU");
        for round in 0..3_u8 {
            for n in 0..SLOTS {
                assert!(queue.push(&[round, u8::try_from(n).unwrap()]));
            }
            assert!(queue.is_full() && !queue.push(&[9]));
            for n in 0..SLOTS {
                assert_eq!(queue.pop(), Some(&[round, u8::try_from(n).unwrap()][..]));
            }
            assert_eq!(queue.pop(), None);
            assert!(queue.push(&[1]) && queue.pop() == Some(&[1]), "start elsewhere next round");
        }
    }

    #[test]
    fn only_icmp_and_resets_are_limited() {
        let mut packet = [0_u8; 60];
        packet[0] = 0x45;
        packet[9] = 6;
        packet[33] = 0x12;
        assert!(!answers_a_stranger(&packet), "SYN-ACK of a socket");
        packet[33] = 0x14;
        assert!(answers_a_stranger(&packet), "RST");
        packet[9] = 1;
        assert!(answers_a_stranger(&packet), "ICMP");
        packet[9] = 17;
        assert!(!answers_a_stranger(&packet), "UDP of a socket");
        packet[0] = 0x60;
        packet[6] = 58;
        assert!(answers_a_stranger(&packet), "ICMPv6");
        assert!(!answers_a_stranger(&[]));
    }
}
