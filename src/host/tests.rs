use proptest::prelude::*;

use super::*;
use crate::time::Duration;

const ME: [u8; 4] = [203, 0, 113, 2];
/// Off every link the host knows.
const STRANGER: [u8; 4] = [198, 51, 100, 7];

#[test]
fn ping_in_pong_out() {
    let mut host = host(&["203.0.113.2/24"]);
    let request = icmp(STRANGER, ME, &[8, 0, 0, 0, 0x12, 0x34, 0, 7], b"tapvs");
    let mut pong = icmp(ME, STRANGER, &[0, 0, 0, 0, 0x12, 0x34, 0, 7], b"tapvs");
    // Don't fragment, no identification (RFC 6864 section 4.1), TTL 64.
    pong[6] = 0x40;
    fix_ipv4_checksum(&mut pong);
    assert_eq!(exchange(&mut host, &request, Instant::ZERO), [pong]);
    assert_eq!(host.poll_timeout(Instant::ZERO), None);
    assert_eq!(host.counters(), Counters { received: 1, sent: 1, ..Counters::default() });
}

#[test]
fn a_closed_tcp_port_resets() {
    let mut host = host(&["203.0.113.2/24"]);
    // SYN, sequence 1000, from 40000 to 22.
    let syn = tcp(STRANGER, ME, 1000, 0, 0x02, 40_000, 22);
    let answers = exchange(&mut host, &syn, Instant::ZERO);
    let [answer] = &answers[..] else { panic!("one answer, not {answers:?}") };
    assert_eq!(answer[12..20], [ME, STRANGER].concat());
    assert_eq!(answer[20..24], [0, 22, 0x9c, 0x40]);
    assert_eq!(answer[28..32], 1001_u32.to_be_bytes());
    assert_eq!(answer[33], 0x14, "RST and ACK");
    assert_eq!(l4_sum(answer), 0xffff, "the TCP checksum is right");

    let reset = tcp(STRANGER, ME, 1000, 0, 0x04, 40_000, 22);
    assert!(exchange(&mut host, &reset, Instant::ZERO).is_empty(), "never a reset for a reset");
}

#[test]
fn a_closed_udp_port_is_unreachable() {
    let mut host = host(&["203.0.113.2/24"]);
    let query = ipv4(STRANGER, ME, 17, &[0x9c, 0x40, 0, 53, 0, 10, 0, 0, b'h', b'i']);
    let answers = exchange(&mut host, &query, Instant::ZERO);
    let [answer] = &answers[..] else { panic!("one answer, not {answers:?}") };
    assert_eq!(answer[20..22], [3, 3], "destination unreachable, port unreachable");
    assert_eq!(answer[28 + 12..28 + 20], [STRANGER, ME].concat(), "quotes the query's header");
    assert_eq!(answer[48..52], [0x9c, 0x40, 0, 53], "and at least its ports");
    assert_eq!(sum(&answer[20..]), 0xffff);
}

#[test]
fn what_is_not_for_the_host_is_ignored() {
    let mut host = host(&["203.0.113.2/24"]);
    let echo = [8, 0, 0, 0, 0, 1, 0, 1];
    let mut fragment = icmp(STRANGER, ME, &echo, b"");
    fragment[6] = 0x20;
    fix_ipv4_checksum(&mut fragment);
    for packet in [
        icmp(STRANGER, [203, 0, 113, 3], &echo, b""),
        icmp(STRANGER, [203, 0, 113, 255], &echo, b""),
        icmp(STRANGER, [255, 255, 255, 255], &echo, b""),
        icmp(STRANGER, [224, 0, 0, 1], &echo, b""),
        icmp(ME, ME, &echo, b""),
        fragment,
        vec![],
        vec![0x45],
        vec![0x60; 39],
    ] {
        assert!(exchange(&mut host, &packet, Instant::ZERO).is_empty(), "{packet:?}");
    }
    assert_eq!(host.counters(), Counters { ignored: 9, ..Counters::default() });
    // Taken, but nobody to answer to.
    for source in [[0, 0, 0, 0], [255, 255, 255, 255], [224, 0, 0, 9], [203, 0, 113, 255]] {
        let packet = icmp(source, ME, &echo, b"");
        assert!(exchange(&mut host, &packet, Instant::ZERO).is_empty(), "{source:?}");
    }
}

#[test]
fn every_one_of_many_addresses_answers() {
    let addresses: Vec<String> = (1..=20).map(|n| format!("10.0.{n}.2/24")).collect();
    let mut host = host(&addresses.iter().map(String::as_str).collect::<Vec<_>>());
    for n in 1..=20 {
        let request = icmp(STRANGER, [10, 0, n, 2], &[8, 0, 0, 0, 0, 1, 0, 1], b"");
        let answers = exchange(&mut host, &request, Instant::ZERO);
        assert_eq!(answers.len(), 1, "10.0.{n}.2");
        assert_eq!(answers[0][12..16], [10, 0, n, 2]);
    }
}

#[test]
fn ipv6_is_pinged_too() {
    let mut host = host(&["2001:db8::2/64"]);
    let me = "2001:db8::2".parse::<Ipv6Addr>().unwrap().octets();
    let stranger = "2001:db8:1::7".parse::<Ipv6Addr>().unwrap().octets();
    let answers = exchange(&mut host, &ping6(stranger, me), Instant::ZERO);
    let [answer] = &answers[..] else { panic!("one answer, not {answers:?}") };
    assert_eq!(answer[8..40], [me, stranger].concat());
    assert_eq!(answer[40..42], [129, 0]);
    // RFC 4291 section 2.5.2: the unspecified address is never a destination.
    assert!(exchange(&mut host, &ping6([0; 16], me), Instant::ZERO).is_empty());
}

#[test]
fn a_flood_is_bounded_in_memory_work_and_answers() {
    let mut host = host(&["203.0.113.2/24"]);
    let request = icmp(STRANGER, ME, &[8, 0, 0, 0, 0, 1, 0, 1], b"");
    let mut sent = 0;
    for ms in 0..1000 {
        let now = Instant::from_millis(ms);
        for _ in 0..100 {
            host.handle_packet(&request);
        }
        host.handle_timeout(now);
        while host.poll_transmit().is_some() {
            sent += 1;
        }
        assert_eq!(host.poll_timeout(now), Some(now), "more waits than one call may handle");
    }
    assert_eq!(sent, 100 + 999, "the burst, then one per millisecond");
    let counters = host.counters();
    assert_eq!(counters.received + counters.refused, 100_000);
    assert_eq!(counters.limited + sent, 1000 * BUDGET as u64);
    let refused = host.counters().refused;
    let giant = icmp(STRANGER, ME, &[8, 0, 0, 0, 0, 1, 0, 1], &[0; 1473]);
    while host.poll_timeout(Instant::from_secs(9)).is_some() {
        host.handle_timeout(Instant::from_secs(9));
        while host.poll_transmit().is_some() {}
    }
    assert!(!host.handle_packet(&giant), "one byte more than the MTU");
    assert_eq!(host.counters().refused, refused + 1);
}

#[test]
fn undrained_answers_hold_back_instead_of_piling_up() {
    let mut host = host(&["203.0.113.2/24"]);
    let request = icmp(STRANGER, ME, &[8, 0, 0, 0, 0, 1, 0, 1], b"");
    for n in 0..100 {
        host.handle_packet(&request);
        host.handle_timeout(Instant::ZERO + Duration::from_secs(n));
    }
    let now = Instant::from_secs(100);
    assert_eq!(host.poll_timeout(now), None, "nothing to do before the answers are taken");
    let drained = std::iter::from_fn(|| host.poll_transmit().map(<[u8]>::len)).count();
    assert_eq!(drained, 64);
    assert_eq!(host.poll_timeout(now), Some(now));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), now in 0_i64..1 << 40) {
        feed(&bytes, now);
    }

    /// Valid up to the transport header, so that everything behind the address check is reached.
    #[test]
    fn garbage_in_a_valid_header_never_panics(
        protocol in prop_oneof![Just(1_u8), Just(6), Just(17), Just(58), Just(0), any::<u8>()],
        source in any::<[u8; 4]>(),
        mut body in proptest::collection::vec(any::<u8>(), 0..1480),
        repair in any::<bool>(),
    ) {
        if repair && protocol == 1 && body.len() >= 8 {
            body[2..4].fill(0);
            let checksum = !sum(&body);
            body[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        let mut packet = ipv4(source, ME, protocol, &body);
        if repair && matches!(protocol, 6 | 17) && body.len() >= 20 {
            fix_l4_checksum(&mut packet);
        }
        feed(&packet, 0);
        let mut six = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        six[4..6].copy_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        six.extend([source; 4].concat());
        six.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        six.extend(&body);
        feed(&six, 0);
    }
}

fn feed(packet: &[u8], now: i64) {
    let mut host = host(&["203.0.113.2/24", "2001:db8::2/64"]);
    for answer in exchange(&mut host, packet, Instant::from_micros(now)) {
        assert!(answer.len() <= 1500);
    }
}

fn host(addresses: &[&str]) -> Host {
    let addresses: Vec<Cidr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Host::new(&addresses, 1500, 7, Instant::ZERO)
}

fn exchange(host: &mut Host, packet: &[u8], now: Instant) -> Vec<Vec<u8>> {
    host.handle_packet(packet);
    host.handle_timeout(now);
    std::iter::from_fn(|| host.poll_transmit().map(<[u8]>::to_vec)).collect()
}

fn icmp(from: [u8; 4], to: [u8; 4], header: &[u8; 8], data: &[u8]) -> Vec<u8> {
    let mut message = [header, data].concat();
    let checksum = !sum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    ipv4(from, to, 1, &message)
}

fn tcp(
    from: [u8; 4],
    to: [u8; 4],
    seq: u32,
    ack: u32,
    flags: u8,
    source: u16,
    dest: u16,
) -> Vec<u8> {
    let mut segment = [source.to_be_bytes(), dest.to_be_bytes()].concat();
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let mut packet = ipv4(from, to, 6, &segment);
    fix_l4_checksum(&mut packet);
    packet
}

fn ping6(from: [u8; 16], to: [u8; 16]) -> Vec<u8> {
    let mut message = vec![128, 0, 0, 0, 0, 1, 0, 1];
    let pseudo = [&from[..], &to, &[0, 0, 0, 8, 0, 0, 0, 58], &message].concat();
    let checksum = !sum(&pseudo);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    [&[0x60, 0, 0, 0, 0, 8, 58, 64], &from[..], &to, &message].concat()
}

fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0];
    packet.extend([from, to].concat());
    packet.extend(payload);
    fix_ipv4_checksum(&mut packet);
    packet
}

fn fix_ipv4_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let checksum = !sum(&packet[..20]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn fix_l4_checksum(packet: &mut [u8]) {
    let at = if packet[9] == 6 { 36 } else { 26 };
    packet[at..at + 2].fill(0);
    let checksum = !l4_sum(packet);
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Sum over pseudo header and transport part; 0xffff when the checksum in it is right.
fn l4_sum(packet: &[u8]) -> u16 {
    let [high, low] = u16::try_from(packet.len() - 20).unwrap().to_be_bytes();
    sum(&[&packet[12..20], &[0, packet[9], high, low], &packet[20..]].concat())
}

/// RFC 1071, from scratch.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}
