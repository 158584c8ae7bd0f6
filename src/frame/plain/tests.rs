use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::frame::{Ipv4, Transport, VirtioHeader, datagram, decrement_ttl, set_macs, translate};

/// A packet with a TCP header and eight bytes behind it, or a datagram with as many.
fn packet(is_udp: bool, flags: u8) -> Vec<u8> {
    let (client, server) = (Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(203, 0, 113, 10));
    let mut frame = Frame::new();
    let (from, to) =
        (std::net::SocketAddrV4::new(client, 4_711), std::net::SocketAddrV4::new(server, 80));
    datagram(from, to, &[0x5a; 20], &mut frame);
    let mut bytes = frame.bytes().to_vec();
    if !is_udp {
        bytes[IP + 9] = TCP;
        bytes[TRANSPORT + 12..TRANSPORT + 14].copy_from_slice(&[0x50, flags]);
        Delta::word(u16::from(UDP), u16::from(TCP)).patch(&mut bytes, IP_SUM);
    }
    bytes
}

/// Some byte of the headers is another one; sometimes the header's checksum is put right afterwards.
fn damaged(bytes: &mut [u8], damage: &[(usize, u8)], mends: bool) {
    for (at, value) in damage {
        bytes[*at] = *value;
    }
    if mends {
        bytes[IP_SUM..IP_SUM + 2].fill(0);
        let sum = checksum::of(&bytes[IP..TRANSPORT]);
        bytes[IP_SUM..IP_SUM + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// What the other way of parsing says of a packet that this one is for.
fn by_the_long_way(frame: &[u8]) -> Option<Plain> {
    let headers = Ipv4::parse(frame).ok().filter(|_| frame[12..14] == [8, 0])?;
    let (source_port, destination_port, transport_len) = match headers.transport {
        Transport::Udp(udp) => (udp.source, udp.destination, 8),
        Transport::Tcp(tcp) if tcp.ack && !(tcp.syn || tcp.fin || tcp.rst) => {
            (tcp.source, tcp.destination, u16::from(frame[TRANSPORT + 12] >> 4) * 4)
        }
        _ => return None,
    };
    let Ipv4 { source, destination, protocol, ttl, total_len, header_len, .. } = headers;
    (header_len == IP_HEADER && !headers.is_fragment()).then_some(Plain {
        source,
        destination,
        source_port,
        destination_port,
        protocol,
        ttl,
        total_len,
        headers_end: TRANSPORT_AT + transport_len,
    })
}

/// Bytes that say something of lengths and kinds are worth more tries than others.
fn places() -> impl Strategy<Value = usize> {
    prop_oneof![select(vec![12, 13, 14, 16, 17, 20, 21, 22, 23, 38, 39, 46, 47]), 0..TRANSPORT + 20]
}

fn values() -> impl Strategy<Value = u8> {
    prop_oneof![select(vec![0, 1, 5, 6, 8, 0x10, 0x18, 0x20, 0x40, 0x45, 0x46, 0xff]), any::<u8>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn takes_what_the_long_way_takes_and_says_the_same(
        is_udp in any::<bool>(),
        flags in prop_oneof![Just(0x10), Just(0x18), any::<u8>()],
        damage in prop::collection::vec((places(), values()), 0..3),
        mends in any::<bool>(),
        len in 0..=70_usize,
    ) {
        let mut bytes = packet(is_udp, flags);
        damaged(&mut bytes, &damage, mends);
        bytes.resize(len.max(usize::from(damage.is_empty()) * 62), 0);
        prop_assert_eq!(Plain::parse(&bytes), by_the_long_way(&bytes));
    }

    #[test]
    fn accepts_what_the_long_way_accepts(
        is_udp in any::<bool>(),
        fields in (
            select(vec![0_u8, 1, 2, 3, 5]),
            prop_oneof![Just(0_u8), select(vec![1_u8, 4, 5, 0x81, 0x80, 7])],
            select(vec![0_u16, 1, 8, 0xffff]),
            prop_oneof![Just(34_u16), select(vec![14_u16, 33, 35, 54, 60, 0xffff])],
            prop_oneof![select(vec![6_u16, 16]), select(vec![0_u16, 7, 17, 0xffff])],
        ),
        damage in prop::collection::vec((places(), values()), 0..2),
        len in prop_oneof![Just(62_usize), 42..=70_usize],
    ) {
        let mut bytes = packet(is_udp, 0x10);
        damaged(&mut bytes, &damage, true);
        bytes.resize(len, 0);
        let (flags, gso_type, gso_size, csum_start, csum_offset) = fields;
        let header =
            VirtioHeader { flags, gso_type, hdr_len: 3, gso_size, csum_start, csum_offset };
        let mut frames = [Frame::from_bytes(&bytes), Frame::from_bytes(&bytes)];
        frames.iter_mut().for_each(|frame| frame.set_header(header.to_bytes()));
        let [short, long] = &mut frames;
        if let Some(packet) = Plain::parse(&bytes) {
            prop_assert_eq!(short.accept_plain(&packet), long.accept());
            prop_assert_eq!(short.header(), long.header());
        }
    }

    #[test]
    fn leaves_what_the_long_way_leaves(
        is_udp in any::<bool>(),
        is_partial in any::<bool>(),
        is_direct in any::<bool>(),
        checksum in prop_oneof![select(vec![0, 1, 0xfeff, 0xff00, 0xfffe, 0xffff]), any::<u16>()],
        ttl in 2..=u8::MAX,
        to in any::<([u8; 4], [u8; 4], u16, u16)>(),
    ) {
        let mut bytes = packet(is_udp, 0x10);
        let sum_at = if is_udp { UDP_SUM } else { TCP_SUM };
        bytes[sum_at..sum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        damaged(&mut bytes, &[(TTL, ttl)], true);
        let mut frames = [Frame::from_bytes(&bytes), Frame::from_bytes(&bytes)];
        if is_partial {
            let header = VirtioHeader {
                flags: 1,
                csum_start: 34,
                csum_offset: if is_udp { 6 } else { 16 },
                ..VirtioHeader::default()
            };
            frames.iter_mut().for_each(|frame| frame.set_header(header.to_bytes()));
        }
        let plain = Plain::parse(&bytes).expect("a packet of the kind");
        let headers = Ipv4::parse(&bytes).expect("a packet in order");
        let (source, destination) = (Ipv4Addr::from(to.0), Ipv4Addr::from(to.1));
        let addresses = Delta::double(plain.source.to_bits(), source.to_bits())
            .and(Delta::double(plain.destination.to_bits(), destination.to_bits()));
        let ports = Delta::word(plain.source_port, to.2)
            .and(Delta::word(plain.destination_port, to.3));
        let transport = addresses.and(ports);
        let (source_port, destination_port) = (to.2, to.3);
        let rewrite =
            Rewrite { source, destination, source_port, destination_port, addresses, transport };
        let [short, long] = &mut frames;
        let (next, router) = (MacAddr([2; 6]), MacAddr([4; 6]));
        plain.forward(short, (!is_direct).then_some(&rewrite), next, router);
        set_macs(long.bytes_mut(), next, router);
        if !is_direct {
            translate(long, &headers, &rewrite);
        }
        decrement_ttl(long.bytes_mut());
        prop_assert_eq!(short.bytes(), long.bytes());
        prop_assert!(checksum::is_valid(&short.bytes()[IP..TRANSPORT]));
    }
}
