//! Frames that stand for many, and those many made one by one: neither shares anything with
//! `tapvs::frame`, which is held against them.

use std::net::SocketAddrV4;

use tapvs::frame::{Frame, Segments, VirtioHeader};

use super::packet::{ACK, FIN, Ip, PSH, at, pseudo_sum, sum};
use super::random::Random;

const CWR: u8 = 0x80;

/// A frame and its virtio-net header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Super {
    pub header: VirtioHeader,
    pub bytes: Vec<u8>,
}

impl Super {
    /// One to which nothing is left to be done.
    pub fn plain(bytes: Vec<u8>) -> Self {
        Self { header: VirtioHeader::default(), bytes }
    }

    pub fn of(frame: &Frame) -> Self {
        let header = VirtioHeader::from_bytes(frame.header());
        Self { header, bytes: frame.bytes().to_vec() }
    }

    pub fn frame(&self) -> Frame {
        let mut frame = Frame::from_bytes(&self.bytes);
        frame.set_header(self.header.to_bytes());
        frame
    }

    /// What it is on a wire, by the code under test.
    pub fn cut(&self) -> Vec<Vec<u8>> {
        let frame = self.frame();
        let mut segments = Segments::new(&frame);
        let (mut out, mut cut) = (Vec::new(), Frame::new());
        while segments.next_into(&mut cut) {
            assert!(cut.is_plain());
            out.push(cut.bytes().to_vec());
        }
        out
    }
}

/// What somebody sends at once.
#[derive(Clone, Debug)]
pub struct Train {
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    pub is_tcp: bool,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub id: u16,
    pub fragment: u16,
    pub tos: u8,
    pub ttl: u8,
    pub ip_options: Vec<u8>,
    pub tcp_options: Vec<u8>,
    pub data: Vec<u8>,
    /// Payload of a segment.
    pub size: usize,
}

impl Train {
    /// Plain TCP.
    pub fn tcp(from: &str, to: &str, data: Vec<u8>, size: usize) -> Self {
        Self {
            from: at(from),
            to: at(to),
            is_tcp: true,
            flags: ACK | PSH,
            seq: 1_001,
            ack: 501,
            id: 7,
            fragment: 0x4000,
            tos: 0,
            ttl: 64,
            ip_options: Vec::new(),
            tcp_options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            data,
            size,
        }
    }

    /// UDP.
    pub fn udp(from: &str, to: &str, data: Vec<u8>, size: usize) -> Self {
        Self { is_tcp: false, ..Self::tcp(from, to, data, size) }
    }

    /// Anything, between these two.
    pub fn random(random: &mut Random, from: &str, to: &str, is_tcp: bool) -> Self {
        let size = [8, 100, 536, 1_200, 1_400][random.below(5)];
        let count = 1 + random.below(if size < 100 { 20 } else { 44 });
        let whole = size * (count - 1) + 1 + random.below(size);
        let mut data = random.bytes(whole.min(64_000));
        if random.percent(10) {
            data.fill([0, 0xff][random.below(2)]);
        }
        let word = |random: &mut Random| u32::try_from(random.next() >> 32).unwrap();
        let ends = [0, 1, 0x7fff, 0x8000, 0xfff0, 0xffff];
        let id = u16::from_be_bytes([random.byte(), random.byte()]);
        Self {
            from: at(from),
            to: at(to),
            is_tcp,
            flags: ACK | random.byte() & (PSH | FIN | CWR | 0x40),
            seq: if random.percent(30) { u32::MAX - word(random) % 3_000 } else { word(random) },
            ack: word(random),
            id: if random.percent(50) { *random.pick(&ends) } else { id },
            fragment: [0, 0x4000][random.below(2)],
            tos: random.byte(),
            ttl: 2 + random.byte() % 250,
            ip_options: vec![1; [0, 0, 0, 4, 8][random.below(5)]],
            tcp_options: vec![1; 4 * random.below(11)],
            data,
            size,
        }
    }

    /// A packet with some of the data; its checksum as far as the pseudo-header, or all of it.
    fn packet(&self, number: usize, flags: u8, data: &[u8], whole: bool) -> Ip {
        let mut body = self.from.port().to_be_bytes().to_vec();
        body.extend(self.to.port().to_be_bytes());
        let sum_at = if self.is_tcp {
            let seq = self.seq.wrapping_add(u32::try_from(number * self.size).unwrap());
            body.extend(seq.to_be_bytes());
            body.extend(self.ack.to_be_bytes());
            let words = u8::try_from(5 + self.tcp_options.len() / 4).unwrap();
            body.extend([words << 4, flags, 0x20, 0, 0, 0, 0, 0]);
            body.extend(&self.tcp_options);
            16
        } else {
            body.extend(u16::try_from(8 + data.len()).unwrap().to_be_bytes());
            body.extend([0, 0]);
            6
        };
        body.extend(data);
        let protocol = if self.is_tcp { 6 } else { 17 };
        let pseudo = pseudo_sum(*self.from.ip(), *self.to.ip(), protocol, body.len());
        let sum = match !sum(&[&pseudo.to_be_bytes(), &body]) {
            0 if !self.is_tcp => 0xffff,
            sum => sum,
        };
        let sum = if whole { sum } else { pseudo };
        body[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
        Ip::new(*self.from.ip(), *self.to.ip(), protocol, body).with(|ip| {
            (ip.id, ip.fragment) =
                (self.id.wrapping_add(u16::try_from(number).unwrap()), self.fragment);
            (ip.tos, ip.ttl) = (self.tos, self.ttl);
            ip.options.clone_from(&self.ip_options);
        })
    }

    /// One by one, as they come from a host that leaves nothing to be done.
    pub fn packets(&self) -> Vec<Ip> {
        let last = self.data.len().div_ceil(self.size).max(1) - 1;
        let part = |number| {
            let mut flags = self.flags;
            if number < last {
                flags &= !(FIN | PSH);
            }
            if number > 0 {
                flags &= !CWR;
            }
            let data =
                &self.data[number * self.size..self.data.len().min((number + 1) * self.size)];
            self.packet(number, flags, data, true)
        };
        (0..=last).map(part).collect()
    }

    /// In one.
    pub fn all(&self) -> Super {
        let bytes = self.packet(0, self.flags, &self.data, false).frame();
        let start = 34 + self.ip_options.len();
        let end = start + if self.is_tcp { 20 + self.tcp_options.len() } else { 8 };
        let ecn = if self.is_tcp && self.flags & CWR != 0 { 0x80 } else { 0 };
        let header = VirtioHeader {
            flags: 1,
            gso_type: if self.is_tcp { 1 | ecn } else { 5 },
            // A hint, and no more.
            hdr_len: u16::try_from(bytes.len().min(end + 7)).unwrap(),
            gso_size: u16::try_from(self.size).unwrap(),
            csum_start: u16::try_from(start).unwrap(),
            csum_offset: if self.is_tcp { 16 } else { 6 },
        };
        Super { header, bytes }
    }

    /// All of it as one packet whose checksum is to be completed, and with it completed.
    pub fn partial(&self) -> (Super, Ip) {
        let whole = self.packet(0, self.flags, &self.data, true);
        let mut all = self.all();
        (all.header.gso_type, all.header.gso_size) = (0, 0);
        (all, whole)
    }
}
