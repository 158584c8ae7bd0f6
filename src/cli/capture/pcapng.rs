//! Writing pcapng (draft-ietf-opsawg-pcapng): section header, interfaces, packets with a comment.
//!
//! The libraries that write it bring procedural macros along for these three kinds of blocks.

use std::io::{self, Write};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Tells in which order the bytes of a number come.
const MAGIC: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;

/// Options of every block, and of one kind each (sections 3.5, 4.1, 4.2, 4.3).
const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;
const SECTION_USER_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_DESCRIBED: u16 = 3;
const INTERFACE_TIME_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;

/// Microseconds: 10 to the minus 6.
const MICROSECONDS: u8 = 6;

/// Which way a packet goes, by its flags (section 4.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Inbound = 1,
    Outbound = 2,
}

/// A file, or pipe, that is being written.
#[derive(Debug)]
pub(super) struct Pcapng<W> {
    output: W,
    snaplen: u32,
}

impl<W: Write> Pcapng<W> {
    /// Writes the section header.
    pub(super) fn begin(output: W, snaplen: u32) -> io::Result<Self> {
        let mut block = Block::new(SECTION_HEADER);
        block.number(MAGIC);
        // Version 1.0, length of the section not known.
        block.bytes(&1_u16.to_ne_bytes());
        block.bytes(&0_u16.to_ne_bytes());
        block.bytes(&(-1_i64).to_ne_bytes());
        let program = concat!("tapvs ", env!("CARGO_PKG_VERSION"));
        block.option(SECTION_USER_APPLICATION, program.as_bytes());
        let mut file = Self { output, snaplen };
        file.write(block)?;
        Ok(file)
    }

    /// Adds an interface; the first is number 0.
    pub(super) fn interface(&mut self, name: &str, description: &str) -> io::Result<()> {
        let mut block = Block::new(INTERFACE_DESCRIPTION);
        block.bytes(&LINKTYPE_ETHERNET.to_ne_bytes());
        block.bytes(&[0; 2]);
        block.number(self.snaplen);
        block.option(INTERFACE_NAME, name.as_bytes());
        block.option(INTERFACE_DESCRIBED, description.as_bytes());
        block.option(INTERFACE_TIME_RESOLUTION, &[MICROSECONDS]);
        self.write(block)
    }

    /// Adds a packet: its beginning, and its length on the wire.
    pub(super) fn packet(
        &mut self,
        interface: usize,
        time_us: u64,
        (bytes, length): (&[u8], usize),
        direction: Direction,
        comment: &str,
    ) -> io::Result<()> {
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let mut block = Block::new(ENHANCED_PACKET);
        block.number(small(interface));
        let [high, low] = [time_us >> 32, time_us & 0xffff_ffff];
        [high, low].iter().for_each(|half| block.number(u32::try_from(*half).unwrap_or(0)));
        block.number(small(bytes.len()));
        block.number(small(length));
        block.padded(bytes);
        block.option(PACKET_FLAGS, &(direction as u32).to_ne_bytes());
        block.option(COMMENT, comment.as_bytes());
        self.write(block)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    /// At once, so that there is never half a block where another ends.
    fn write(&mut self, block: Block) -> io::Result<()> {
        self.output.write_all(&block.finish())
    }
}

/// Type, length, content, and the length once more (section 3.1).
struct Block(Vec<u8>);

impl Block {
    fn new(kind: u32) -> Self {
        Self([kind.to_ne_bytes(), [0; 4]].concat())
    }

    fn number(&mut self, number: u32) {
        self.bytes(&number.to_ne_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Up to the next multiple of four.
    fn padded(&mut self, bytes: &[u8]) {
        self.bytes(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
        self.bytes(&code.to_ne_bytes());
        self.bytes(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_ne_bytes());
        self.padded(value);
    }

    fn finish(mut self) -> Vec<u8> {
        self.option(END_OF_OPTIONS, &[]);
        let length = u32::try_from(self.0.len() + 4).unwrap_or(u32::MAX).to_ne_bytes();
        self.0[4..8].copy_from_slice(&length);
        self.bytes(&length);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8], at: usize) -> usize {
        u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    #[test]
    fn blocks_follow_one_another_and_say_twice_how_long_they_are() {
        let mut file = Pcapng::begin(Vec::new(), 96).unwrap();
        file.interface("tapvs0", "network internet").unwrap();
        for length in 0..5 {
            let bytes = vec![7; length];
            file.packet(0, 1 << 32 | 5, (&bytes, 60), Direction::Outbound, "because").unwrap();
        }
        let bytes = file.output;
        let (mut at, mut kinds) = (0, Vec::new());
        while at < bytes.len() {
            let length = number(&bytes, at + 4);
            assert_eq!(length % 4, 0);
            assert_eq!(number(&bytes, at + length - 4), length);
            kinds.push(number(&bytes, at));
            at += length;
        }
        assert_eq!(at, bytes.len());
        assert_eq!(kinds, [0x0a0d_0d0a, 1, 6, 6, 6, 6, 6]);
        // The last one: time, lengths, data with padding, and the options behind.
        let last = &bytes[bytes.len() - number(&bytes, bytes.len() - 4)..];
        let fields = [8, 12, 16, 20, 24].map(|at| number(last, at));
        assert_eq!(fields, [0, 1, 5, 4, 60]);
        assert_eq!(&last[28..32], [7; 4]);
        assert_eq!(number(last, 36), 2, "outbound");
        assert!(last.windows(7).any(|word| word == b"because"));
    }
}
