//! The captures: what goes in, by which side, in which order.

use tapvs::addr::LinkId;

use crate::support::udp as datagram;
use crate::support::{ACK, DF, FIN, IN, Ip, MF, OUT, PSH, RST, SYN, icmp, sum, tcp as segment};

/// In what the two may differ.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Differs {
    /// The transport checksum inside a quoted packet.
    QuotedChecksum,
    /// When fragments leave, and where they are cut.
    Reassembled,
}

/// One capture.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) frames: Vec<(LinkId, Vec<u8>)>,
    pub(crate) differs: Option<Differs>,
}

const CLIENT: &str = "198.51.100.7:40000";
const SERVER: &str = "10.0.0.11:8080";
const WEB: &str = "203.0.113.10:80";
const RESOLVER: &str = "10.0.0.11:5353";
const DNS: &str = "203.0.113.10:53";
const CLIENT_IP: &str = "198.51.100.7";
const VIP_IP: &str = "203.0.113.10";
const SERVER_IP: &str = "10.0.0.11";

fn case(name: &'static str, packets: Vec<(LinkId, Ip)>) -> Case {
    let frames = packets.into_iter().map(|(link, packet)| (link, packet.frame())).collect();
    Case { name, frames, differs: None }
}

impl Case {
    fn differing(mut self, differs: Differs) -> Self {
        self.differs = Some(differs);
        self
    }
}

/// With the options of a SYN that a kernel sends: MSS, SACK, timestamps, window scale.
fn with_options(mut packet: Ip) -> Ip {
    let options = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7];
    packet.body.splice(20..20, options);
    packet.body[12] = 0xa0;
    packet.body[16..18].fill(0);
    let length = u16::try_from(packet.body.len()).unwrap().to_be_bytes();
    let pseudo = [0, 6, length[0], length[1]];
    let parts = [&packet.source.octets()[..], &packet.destination.octets(), &pseudo, &packet.body];
    let checksum = !sum(&parts);
    packet.body[16..18].copy_from_slice(&checksum.to_be_bytes());
    packet
}

fn handshake() -> Vec<(LinkId, Ip)> {
    vec![
        (OUT, segment(CLIENT, WEB, SYN, 1_000, 0, b"")),
        (IN, segment(SERVER, CLIENT, SYN | ACK, 5_000, 1_001, b"")),
        (OUT, segment(CLIENT, WEB, ACK, 1_001, 5_001, b"")),
    ]
}

fn after_handshake(more: Vec<(LinkId, Ip)>) -> Vec<(LinkId, Ip)> {
    handshake().into_iter().chain(more).collect()
}

/// TCP from the first segment to the last.
pub(crate) fn tcp() -> Vec<Case> {
    let long = vec![0x5a; 1_459];
    let close = |first: u8| {
        after_handshake(vec![
            (OUT, segment(CLIENT, WEB, PSH | ACK, 1_001, 5_001, b"GET / HTTP/1.0\r\n\r\n")),
            (IN, segment(SERVER, CLIENT, ACK, 5_001, 1_019, b"")),
            (IN, segment(SERVER, CLIENT, PSH | ACK, 5_001, 1_019, b"odd")),
            (OUT, segment(CLIENT, WEB, ACK, 1_019, 5_004, b"")),
            (OUT, segment(CLIENT, WEB, first | ACK, 1_019, 5_004, b"")),
            (IN, segment(SERVER, CLIENT, first | ACK, 5_004, 1_020, b"")),
            (OUT, segment(CLIENT, WEB, ACK, 1_020, 5_005, b"")),
        ])
    };
    vec![
        case("a connection from SYN to the last ACK", close(FIN)),
        case("a connection with options in its SYNs", {
            let mut packets = handshake();
            for (_, packet) in packets.iter_mut().take(2) {
                *packet = with_options(packet.clone());
            }
            packets
        }),
        case(
            "segments of every length from 1 to 9 and nearly full ones",
            after_handshake({
                let mut sequence = 1_001;
                let mut packets = Vec::new();
                let lengths = (1..=9).chain([1_458, 1_459, 1_460]);
                for length in lengths {
                    let data = [&long[..], b"z"].concat();
                    let data = &data[..length];
                    packets.push((OUT, segment(CLIENT, WEB, ACK, sequence, 5_001, data)));
                    sequence += u32::try_from(length).unwrap();
                    packets.push((IN, segment(SERVER, CLIENT, ACK, 5_001, sequence, b"")));
                }
                packets
            }),
        ),
        case(
            "a reset by the server",
            after_handshake(vec![(IN, segment(SERVER, CLIENT, RST | ACK, 5_001, 1_001, b""))]),
        ),
        case(
            "a refused connection",
            handshake()
                .into_iter()
                .take(1)
                .chain([(IN, segment(SERVER, CLIENT, RST | ACK, 0, 1_001, b""))])
                .collect(),
        ),
        case(
            "TTL, TOS, identification and don't-fragment are kept or counted down",
            handshake()
                .into_iter()
                .zip([(64, 0x00, 0x0001, 0), (63, 0x48, 0xffff, DF), (2, 0xb9, 0x1234, DF)])
                .map(|((link, packet), (ttl, tos, id, fragment))| {
                    let changed = packet.with(|ip| {
                        (ip.ttl, ip.tos, ip.id, ip.fragment) = (ttl, tos, id, fragment);
                    });
                    (link, changed)
                })
                .collect(),
        ),
        case(
            "IP options that ask for nothing",
            handshake()
                .into_iter()
                .map(|(link, packet)| (link, packet.with(|ip| ip.options = vec![1, 1, 1, 0])))
                .collect(),
        ),
        padded(),
    ]
}

/// Short packets in frames of at least 60 bytes.
fn padded() -> Case {
    let mut case = case("short segments in padded frames", handshake());
    for (_, frame) in &mut case.frames {
        frame.resize(60, 0xee);
    }
    case
}

/// A datagram whose checksum, once it comes from or goes to another address, would be 0.
fn becomes_zero(from: &str, to: &str, inner_from: &str, inner_to: &str) -> Ip {
    let mut data = vec![0, 0];
    let inner = datagram(inner_from, inner_to, &data);
    let checksum = u16::from_be_bytes([inner.body[6], inner.body[7]]);
    // The sum over all but the checksum must be 0xffff: this is what is missing to it.
    data.copy_from_slice(&checksum.to_be_bytes());
    datagram(from, to, &data)
}

fn without_checksum(packet: Ip) -> Ip {
    packet.with(|ip| ip.body[6..8].fill(0))
}

/// UDP with and without a checksum, and in pieces.
pub(crate) fn udp() -> Vec<Case> {
    let exchange = |data: &[u8]| {
        vec![
            (OUT, datagram(CLIENT, DNS, data)),
            (IN, datagram(RESOLVER, CLIENT, data)),
            (OUT, datagram(CLIENT, DNS, data)),
        ]
    };
    vec![
        case("a question and its answer", exchange(b"what?")),
        case("datagrams without data", exchange(b"")),
        case("datagrams as long as they can be", exchange(&[0xa5; 1_472])),
        case(
            "datagrams without a checksum",
            exchange(b"unchecked").into_iter().map(|(l, p)| (l, without_checksum(p))).collect(),
        ),
        case(
            "a checksum that becomes 0 is sent as 0xffff",
            vec![
                (OUT, becomes_zero(CLIENT, DNS, CLIENT, RESOLVER)),
                (IN, becomes_zero(RESOLVER, CLIENT, DNS, CLIENT)),
            ],
        ),
        case("every kind of data", {
            let data: Vec<u8> = (0..=u8::MAX).collect();
            (0..64).flat_map(|n| exchange(&data[n..n * 3 + 2])).collect()
        }),
        case("fragments in order", pieces(&[0, 1, 2])).differing(Differs::Reassembled),
        case("fragments in reverse order", pieces(&[2, 1, 0])).differing(Differs::Reassembled),
        case("fragments shuffled", pieces(&[1, 2, 0])).differing(Differs::Reassembled),
    ]
}

/// A datagram in three pieces, there and back, in this order.
fn pieces(order: &[usize]) -> Vec<(LinkId, Ip)> {
    let data: Vec<u8> = (0..=u8::MAX).cycle().take(3_001).collect();
    let mut packets = Vec::new();
    for (link, id, whole) in
        [(OUT, 77, datagram(CLIENT, DNS, &data)), (IN, 78, datagram(RESOLVER, CLIENT, &data))]
    {
        let size = 1_200;
        let count = whole.body.len().div_ceil(size);
        assert_eq!(count, order.len());
        for number in order {
            let piece = &whole.body[number * size..whole.body.len().min((number + 1) * size)];
            let more = if number + 1 < count { MF } else { 0 };
            let offset = u16::try_from(number * size / 8).unwrap();
            let cut = whole.clone().with(|ip| {
                (ip.id, ip.fragment, ip.body) = (id, more | offset, piece.to_vec());
            });
            packets.push((link, cut));
        }
    }
    packets
}

/// The IP packet with only so much of its body as an error quotes.
fn quote(packet: &Ip, bytes: usize) -> Vec<u8> {
    let whole = packet.packet();
    let header = 20 + packet.options.len();
    whole[..whole.len().min(header + bytes)].to_vec()
}

/// As the receiver of a packet has seen it: one hop later.
fn arrived(packet: Ip) -> Ip {
    packet.with(|ip| ip.ttl -= 1)
}

const KINDS: [(u8, u8); 7] = [(3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (4, 0), (11, 0)];

/// Errors about packets of flows, from either side and from routers beyond.
pub(crate) fn errors() -> Vec<Case> {
    let mtu = |kind: (u8, u8)| if kind == (3, 4) { [0, 0, 5, 0] } else { [0; 4] };
    let mut cases = Vec::new();
    for (name, about_tcp, quoted, from_end) in [
        ("errors about TCP that quote eight bytes", true, 8, true),
        ("errors about TCP that quote everything", true, 1_000, true),
        ("errors about TCP from a router beyond", true, 28, false),
        ("errors about UDP that quote eight bytes", false, 8, true),
        ("errors about UDP that quote everything", false, 1_000, true),
        ("errors about UDP that quote an odd number of bytes", false, 13, true),
        ("errors about UDP from a router beyond", false, 28, false),
    ] {
        let mut packets = if about_tcp {
            after_handshake(vec![
                (OUT, segment(CLIENT, WEB, ACK, 1_001, 5_001, b"question")),
                (IN, segment(SERVER, CLIENT, ACK, 5_001, 1_009, b"answer")),
            ])
        } else {
            vec![
                (OUT, datagram(CLIENT, DNS, b"question")),
                (IN, datagram(RESOLVER, CLIENT, b"answer!")),
            ]
        };
        let (to_server, to_client) = if about_tcp {
            (
                segment(CLIENT, SERVER, ACK, 1_001, 5_001, b"question"),
                segment(WEB, CLIENT, ACK, 5_001, 1_009, b"answer"),
            )
        } else {
            (datagram(CLIENT, RESOLVER, b"question"), datagram(DNS, CLIENT, b"answer!"))
        };
        let (inside, outside) =
            if from_end { (SERVER_IP, CLIENT_IP) } else { ("10.0.0.40", "192.0.2.33") };
        for kind in KINDS {
            let about = quote(&arrived(to_server.clone()), quoted);
            packets.push((IN, icmp(inside, CLIENT_IP, kind, mtu(kind), &about)));
            let about = quote(&arrived(to_client.clone()), quoted);
            packets.push((OUT, icmp(outside, VIP_IP, kind, mtu(kind), &about)));
        }
        let case = case(name, packets);
        // Eight bytes of TCP end before the checksum.
        let reaches_it = !about_tcp || quoted > 8;
        cases.push(if reaches_it { case.differing(Differs::QuotedChecksum) } else { case });
    }
    cases
}

/// Connections that a server opens, masqueraded.
pub(crate) fn outgoing() -> Vec<Case> {
    let (server, seen_as) = ("10.0.0.12:50000", "203.0.113.10:50000");
    let there = "198.51.100.9:443";
    let echo = |from, to, kind: u8, sequence: u8| {
        icmp(from, to, (kind, 0), [0x12, 0x34, 0, sequence], b"are you there?")
    };
    vec![
        case(
            "TCP to the outside",
            vec![
                (IN, segment(server, there, SYN, 100, 0, b"")),
                (OUT, segment(there, seen_as, SYN | ACK, 900, 101, b"")),
                (IN, segment(server, there, ACK, 101, 901, b"")),
                (IN, segment(server, there, PSH | ACK, 101, 901, b"hello")),
                (OUT, segment(there, seen_as, PSH | ACK, 901, 106, b"hello?")),
                (IN, segment(server, there, FIN | ACK, 106, 907, b"")),
                (OUT, segment(there, seen_as, FIN | ACK, 907, 107, b"")),
                (IN, segment(server, there, ACK, 107, 908, b"")),
            ],
        ),
        case(
            "UDP to the outside",
            vec![
                (IN, datagram(server, there, b"out")),
                (OUT, datagram(there, seen_as, b"and back")),
                (IN, without_checksum(datagram(server, there, b"unchecked"))),
                (OUT, without_checksum(datagram(there, seen_as, b"unchecked"))),
            ],
        ),
        case(
            "pings to the outside",
            vec![
                (IN, echo("10.0.0.12", "198.51.100.9", 8, 1)),
                (OUT, echo("198.51.100.9", VIP_IP, 0, 1)),
                (IN, echo("10.0.0.12", "198.51.100.9", 8, 2)),
                (OUT, echo("198.51.100.9", VIP_IP, 0, 2)),
            ],
        ),
        case(
            "errors about pings to the outside",
            complained_about(
                echo("10.0.0.12", "198.51.100.9", 8, 1),
                echo(VIP_IP, "198.51.100.9", 8, 1),
            ),
        ),
        case(
            "errors about datagrams to the outside",
            complained_about(datagram(server, there, b"out"), datagram(seen_as, there, b"out")),
        )
        .differing(Differs::QuotedChecksum),
    ]
}

/// A packet from inside, and every error about it as it was seen outside.
fn complained_about(sent: Ip, seen: Ip) -> Vec<(LinkId, Ip)> {
    let quoted = quote(&arrived(seen), 28);
    let error = |kind| (OUT, icmp("192.0.2.33", VIP_IP, kind, [0; 4], &quoted));
    [(IN, sent)].into_iter().chain(KINDS.map(error)).collect()
}
