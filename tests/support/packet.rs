//! Packets made from scratch and read back into one line of text. Shares nothing with `tapvs::frame`.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use tapvs::addr::MacAddr;

use super::network::{
    GATEWAY, GATEWAY_IP, NEAR, NEAR_IP, ROUTER_IN, ROUTER_OUT, mac_name, server_mac,
};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

/// The don't-fragment bit in [`Ip::fragment`].
pub const DF: u16 = 0x4000;
/// The more-fragments bit in [`Ip::fragment`].
pub const MF: u16 = 0x2000;

/// Ones' complement sum, the slow way: 16 bits at a time with the carry brought round at once.
pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut total: u16 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            let (next, carry) = total.overflowing_add(word);
            total = next + u16::from(carry);
        }
    }
    total
}

/// An endpoint from `ADDRESS:PORT`.
pub fn at(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

/// An IPv4 packet in an Ethernet frame, field by field.
#[derive(Clone, Debug)]
pub struct Ip {
    pub to: MacAddr,
    pub from: MacAddr,
    pub tos: u8,
    pub id: u16,
    /// Flags and fragment offset.
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub options: Vec<u8>,
    pub body: Vec<u8>,
}

impl Ip {
    /// A packet between two addresses; the MACs are those of the way it would take to the router.
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, body: Vec<u8>) -> Self {
        let (to, from) = match source.octets() {
            [10, 0, 0, n] => (ROUTER_IN, server_mac(n)),
            _ if source == NEAR_IP => (ROUTER_OUT, NEAR),
            _ => (ROUTER_OUT, GATEWAY),
        };
        Self {
            to,
            from,
            tos: 0,
            id: 1,
            fragment: 0,
            ttl: 64,
            protocol,
            source,
            destination,
            options: Vec::new(),
            body,
        }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// With this time to live.
    pub fn ttl(self, ttl: u8) -> Self {
        self.with(|ip| ip.ttl = ttl)
    }

    /// With the transport checksum wrong by one bit.
    pub fn bad_sum(self) -> Self {
        let at = match self.protocol {
            6 => 17,
            17 => 7,
            _ => 3,
        };
        self.with(|ip| ip.body[at] ^= 0x10)
    }

    /// The whole frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = [&self.to.0[..], &self.from.0, &[8, 0]].concat();
        frame.extend(self.packet());
        frame
    }

    /// From the IP header on.
    pub fn packet(&self) -> Vec<u8> {
        assert_eq!(self.options.len() % 4, 0);
        let words = 5 + self.options.len() / 4;
        let total = u16::try_from(words * 4 + self.body.len()).unwrap();
        let mut header = vec![0x40 | u8::try_from(words).unwrap(), self.tos];
        header.extend(total.to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, self.protocol, 0, 0]);
        header.extend(self.source.octets());
        header.extend(self.destination.octets());
        header.extend(&self.options);
        let sum = !sum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header.extend(&self.body);
        header
    }
}

/// What a checksum that is to be completed starts with: the pseudo-header's sum, not complemented.
pub fn pseudo_sum(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: usize) -> u16 {
    let length = u16::try_from(length).unwrap().to_be_bytes();
    sum(&[&source.octets(), &destination.octets(), &[0, protocol, length[0], length[1]]])
}

fn transport_sum(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, body: &[u8]) -> u16 {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let pseudo = [0, protocol, length[0], length[1]];
    sum(&[&source.octets(), &destination.octets(), &pseudo, body])
}

/// A TCP segment.
pub fn tcp(from: &str, to: &str, flags: u8, seq: u32, ack: u32, data: &[u8]) -> Ip {
    let (from, to) = (at(from), at(to));
    let mut body = from.port().to_be_bytes().to_vec();
    body.extend(to.port().to_be_bytes());
    body.extend(seq.to_be_bytes());
    body.extend(ack.to_be_bytes());
    body.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    body.extend(data);
    let sum = !transport_sum(*from.ip(), *to.ip(), 6, &body);
    body[16..18].copy_from_slice(&sum.to_be_bytes());
    Ip::new(*from.ip(), *to.ip(), 6, body)
}

/// A UDP datagram with its checksum.
pub fn udp(from: &str, to: &str, data: &[u8]) -> Ip {
    let (from, to) = (at(from), at(to));
    let mut body = from.port().to_be_bytes().to_vec();
    body.extend(to.port().to_be_bytes());
    body.extend(u16::try_from(8 + data.len()).unwrap().to_be_bytes());
    body.extend([0, 0]);
    body.extend(data);
    let sum = match !transport_sum(*from.ip(), *to.ip(), 17, &body) {
        0 => 0xffff,
        sum => sum,
    };
    body[6..8].copy_from_slice(&sum.to_be_bytes());
    Ip::new(*from.ip(), *to.ip(), 17, body)
}

/// An ICMP message: type, code, the four bytes that follow the checksum, the rest.
pub fn icmp(from: &str, to: &str, (kind, code): (u8, u8), rest: [u8; 4], data: &[u8]) -> Ip {
    let mut body = vec![kind, code, 0, 0];
    body.extend(rest);
    body.extend(data);
    let sum = !sum(&[&body]);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    Ip::new(from.parse().unwrap(), to.parse().unwrap(), 1, body)
}

/// An ARP message in its frame, padded to 60 bytes.
#[derive(Clone, Debug)]
pub struct ArpMessage {
    pub to: MacAddr,
    pub from: MacAddr,
    /// Hardware type, protocol type, the two lengths.
    pub fixed: [u8; 6],
    pub operation: u16,
    pub sender_mac: MacAddr,
    pub sender: Ipv4Addr,
    pub target_mac: MacAddr,
    pub target: Ipv4Addr,
}

impl ArpMessage {
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn frame(&self) -> Vec<u8> {
        let mut frame = [&self.to.0[..], &self.from.0, &[8, 6], &self.fixed].concat();
        frame.extend(self.operation.to_be_bytes());
        frame.extend([&self.sender_mac.0[..], &self.sender.octets()].concat());
        frame.extend([&self.target_mac.0[..], &self.target.octets()].concat());
        frame.resize(60, 0);
        frame
    }
}

/// Who has `target`? Tell `sender`.
pub fn who_has(target: Ipv4Addr, sender: Ipv4Addr, sender_mac: MacAddr) -> ArpMessage {
    ArpMessage {
        to: MacAddr::BROADCAST,
        from: sender_mac,
        fixed: [0, 1, 8, 0, 6, 4],
        operation: 1,
        sender_mac,
        sender,
        target_mac: MacAddr::ZERO,
        target,
    }
}

/// `sender` is at `sender_mac`, says a reply to the router's question.
pub fn is_at(sender: Ipv4Addr, sender_mac: MacAddr, to: MacAddr, target: Ipv4Addr) -> ArpMessage {
    ArpMessage {
        to,
        from: sender_mac,
        fixed: [0, 1, 8, 0, 6, 4],
        operation: 2,
        sender_mac,
        sender,
        target_mac: to,
        target,
    }
}

/// The gateway's who-has for `target`.
pub fn gateway_asks(target: Ipv4Addr) -> ArpMessage {
    who_has(target, GATEWAY_IP, GATEWAY)
}

/// An IPv4 packet as read back.
#[derive(Clone, Debug)]
pub struct Read {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub ttl: u8,
    pub header: Vec<u8>,
    pub body: Vec<u8>,
}

impl Read {
    /// The IPv4 packet in a frame, if its lengths agree.
    pub fn frame(frame: &[u8]) -> Option<Self> {
        (frame.get(12..14)? == [8, 0]).then(|| Self::packet(&frame[14..]))?
    }

    pub fn packet(bytes: &[u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let len = usize::from(first & 15) * 4;
        let total = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
        if first >> 4 != 4 || len < 20 || total < len {
            return None;
        }
        let header = bytes.get(..len)?.to_vec();
        let body = bytes.get(len..total)?.to_vec();
        let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&header[at..at + 4]).unwrap());
        Some(Self {
            source: address(12),
            destination: address(16),
            protocol: header[9],
            ttl: header[8],
            header,
            body,
        })
    }

    pub fn header_ok(&self) -> bool {
        sum(&[&self.header]) == 0xffff
    }

    pub fn fragment(&self) -> u16 {
        u16::from_be_bytes([self.header[6], self.header[7]])
    }

    pub fn is_fragment(&self) -> bool {
        self.fragment() & !DF & 0x7fff != 0
    }

    /// Source and destination port of TCP and UDP.
    pub fn ports(&self) -> Option<(u16, u16)> {
        if !matches!(self.protocol, 6 | 17) || self.fragment() & 0x1fff != 0 {
            return None;
        }
        let word =
            |at: usize| Some(u16::from_be_bytes([*self.body.get(at)?, *self.body.get(at + 1)?]));
        Some((word(0)?, word(2)?))
    }

    /// The TCP flags.
    pub fn flags(&self) -> u8 {
        self.body.get(13).copied().unwrap_or(0)
    }

    /// The transport header fits into the packet and its own lengths agree.
    pub fn transport_fits(&self) -> bool {
        match self.protocol {
            6 => {
                let offset = self.body.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4);
                (20..=self.body.len()).contains(&offset)
            }
            17 => self.datagram().is_some(),
            1 => self.body.len() >= 8,
            _ => true,
        }
    }

    /// The UDP datagram, without what follows it in the packet.
    fn datagram(&self) -> Option<&[u8]> {
        let length = u16::from_be_bytes([*self.body.get(4)?, *self.body.get(5)?]);
        self.body.get(..usize::from(length)).filter(|datagram| datagram.len() >= 8)
    }

    /// Whether the transport checksum is right; `None` where there is none.
    pub fn transport_ok(&self) -> Option<bool> {
        let (from, to) = (self.source, self.destination);
        match self.protocol {
            _ if self.is_fragment() => None,
            6 => Some(transport_sum(from, to, 6, &self.body) == 0xffff),
            17 => {
                let datagram = self.datagram()?;
                let some = datagram[6..8] != [0, 0];
                some.then(|| transport_sum(from, to, 17, datagram) == 0xffff)
            }
            1 => Some(sum(&[&self.body]) == 0xffff),
            _ => None,
        }
    }
}

/// A frame in one line.
pub fn line(frame: &[u8]) -> String {
    if frame.len() < 14 {
        return format!("runt of {} bytes", frame.len());
    }
    let (to, from) = (MacAddr::from_slice(frame), MacAddr::from_slice(&frame[6..]));
    let head = format!("{} > {}", mac_name(from), mac_name(to));
    match u16::from_be_bytes([frame[12], frame[13]]) {
        0x0806 if frame.len() >= 42 => format!("{head} {}", arp_line(frame)),
        0x0800 => format!("{head} {}", ip_line(&frame[14..])),
        other => format!("{head} type {other:04x}, {} bytes", frame.len()),
    }
}

fn arp_line(frame: &[u8]) -> String {
    let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
    let mac = |at: usize| mac_name(MacAddr::from_slice(&frame[at..]));
    let operation = match &frame[14..22] {
        [0, 1, 8, 0, 6, 4, 0, 1] => "request",
        [0, 1, 8, 0, 6, 4, 0, 2] => "reply",
        _ => "?",
    };
    format!(
        "arp {operation} from {} {} to {} {}, {} bytes",
        mac(22),
        address(28),
        mac(32),
        address(38),
        frame.len()
    )
}

/// An IP packet in one line; what is usual (TOS 0, no options, right sums) goes unsaid.
pub fn ip_line(packet: &[u8]) -> String {
    let Some(ip) = Read::packet(packet) else { return format!("ip cut at {}", packet.len()) };
    let mut text = format!("{} > {} ttl {}", ip.source, ip.destination, ip.ttl);
    let id = u16::from_be_bytes([ip.header[4], ip.header[5]]);
    // Errors are numbered one by one; the number says nothing.
    if ip.protocol == 1 && ip.header[1] == 0xc0 && id != 0 {
        text += " id -";
    } else {
        let _ = write!(text, " id {id}");
    }
    if ip.header[1] != 0 {
        let _ = write!(text, " tos {:02x}", ip.header[1]);
    }
    if ip.fragment() == DF {
        text += " df";
    } else if ip.fragment() != 0 {
        let _ = write!(text, " fragment {:04x}", ip.fragment());
    }
    if ip.header.len() > 20 {
        let _ = write!(text, " options {}", hex(&ip.header[20..]));
    }
    if !ip.header_ok() {
        text += " BAD HEADER SUM";
    }
    let body = &ip.body;
    let word = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let long = |at: usize| u32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
    if !ip.transport_fits() || ip.fragment() & 0x1fff != 0 {
        let _ = write!(text, " protocol {} {} bytes", ip.protocol, body.len());
        return text;
    }
    match ip.protocol {
        6 => {
            let names = [(SYN, 'S'), (FIN, 'F'), (RST, 'R'), (PSH, 'P'), (ACK, 'A')];
            let flags: String =
                names.iter().filter(|(bit, _)| body[13] & bit != 0).map(|(_, name)| name).collect();
            let data = body.len() - usize::from(body[12] >> 4) * 4;
            let (seq, ack) = (long(4), long(8));
            let _ = write!(text, " tcp {} > {} {flags}", word(0), word(2));
            let _ = write!(text, " seq {seq} ack {ack} win {} data {data}", word(14));
        }
        17 => {
            let _ = write!(text, " udp {} > {} data {}", word(0), word(2), word(4) - 8);
        }
        1 => {
            let _ = write!(text, " icmp {}/{} {}", body[0], body[1], hex(&body[4..8]));
            if matches!(body[0], 3 | 11) {
                let _ = write!(text, " about [{}]", quote_line(&body[8..]));
            } else {
                let _ = write!(text, " data {}", body.len() - 8);
            }
        }
        _ => {
            let _ = write!(text, " protocol {} {} bytes", ip.protocol, body.len());
        }
    }
    match ip.transport_ok() {
        Some(false) => text += " BAD SUM",
        None if ip.protocol == 17 => text += " no sum",
        Some(true) | None => {}
    }
    text
}

/// A quoted packet, which may be cut short.
fn quote_line(quote: &[u8]) -> String {
    let total = usize::from(u16::from_be_bytes([quote[2], quote[3]]));
    if total <= quote.len() {
        return ip_line(quote);
    }
    let mut whole = quote.to_vec();
    whole.resize(total, 0);
    format!("first {} of {}", quote.len(), ip_line(&whole))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}
