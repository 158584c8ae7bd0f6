//! The loop guard's own frame: broadcast by a bridge on each of its links, never to be seen again.

use super::Frame;
use super::headers::ETHERNET;
use crate::addr::MacAddr;

/// EtherType of loop probes: IEEE 802's first for local experiments.
pub const ETHER_TYPE_LOOP_PROBE: u16 = 0x88b5;
/// A locally administered group that no bridge keeps for itself.
const GROUP: MacAddr = MacAddr([0x03, 0x74, 0x61, 0x70, 0x76, 0x73]);
/// Tells the probe from other experiments.
const MAGIC: [u8; 6] = *b"tapvs\x01";
const SHORTEST_FRAME: usize = 60;

/// What a probe says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopProbe {
    /// The link it left by, as its sender numbers them.
    pub link: u16,
    /// Counts the rounds of probes.
    pub round: u32,
    /// What only the sender can have made of the other two.
    pub tag: u64,
}

impl LoopProbe {
    /// The probe behind the Ethernet header; `None` for anything else.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let body = frame.get(ETHERNET..)?.strip_prefix(&MAGIC)?;
        let (link, body) = body.split_first_chunk()?;
        let (round, body) = body.split_first_chunk()?;
        let (tag, _) = body.split_first_chunk()?;
        Some(Self {
            link: u16::from_be_bytes(*link),
            round: u32::from_be_bytes(*round),
            tag: u64::from_be_bytes(*tag),
        })
    }

    /// Writes the probe from `source` into `frame`, padded to the shortest Ethernet frame.
    pub fn build(&self, source: MacAddr, frame: &mut Frame) {
        frame.set_len(SHORTEST_FRAME);
        let bytes = frame.bytes_mut();
        bytes.fill(0);
        bytes[..6].copy_from_slice(&GROUP.0);
        bytes[6..12].copy_from_slice(&source.0);
        bytes[12..14].copy_from_slice(&ETHER_TYPE_LOOP_PROBE.to_be_bytes());
        bytes[14..20].copy_from_slice(&MAGIC);
        bytes[20..22].copy_from_slice(&self.link.to_be_bytes());
        bytes[22..26].copy_from_slice(&self.round.to_be_bytes());
        bytes[26..34].copy_from_slice(&self.tag.to_be_bytes());
    }
}

/// Writes a frame that says nothing but that `station` is where it comes from, for the switches
/// behind a link.
pub fn lesson(station: MacAddr, frame: &mut Frame) {
    frame.set_len(SHORTEST_FRAME);
    let bytes = frame.bytes_mut();
    bytes.fill(0);
    bytes[..6].copy_from_slice(&GROUP.0);
    bytes[6..12].copy_from_slice(&station.0);
    bytes[12..14].copy_from_slice(&ETHER_TYPE_LOOP_PROBE.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_parses_and_nothing_shorter_does() {
        let probe = LoopProbe { link: 3, round: 70_000, tag: u64::MAX - 1 };
        let mut frame = Frame::from_bytes(&[0xff; 1500]);
        probe.build(MacAddr([2, 0, 0, 0, 0, 1]), &mut frame);
        assert_eq!((frame.len(), frame.bytes()[0] & 1), (60, 1));
        assert_eq!(LoopProbe::parse(frame.bytes()), Some(probe));
        assert_eq!(LoopProbe::parse(&frame.bytes()[..33]), None);
        frame.bytes_mut()[19] = 2;
        assert_eq!(LoopProbe::parse(frame.bytes()), None, "another version");
    }
}
