//! Ten thousand servers at once, and packets that nobody asked for.

use super::*;

/// Answers every SYN, without remembering anything; or never.
struct Crowd {
    host: Host,
    now: Instant,
    answers: bool,
    /// Connections that are half open, by port; there is at most one check from each.
    open: BTreeMap<u16, Ipv4Addr>,
    most_open: usize,
    most_at_once: usize,
    /// SYNs, by tenth of a second.
    starts: BTreeMap<i64, u32>,
    behind: u32,
}

impl Crowd {
    fn new(count: u32, answers: bool) -> Self {
        let own: Vec<Cidr> = vec!["10.0.0.2/8".parse().unwrap()];
        let mut host = Host::new(&own, 1500, 7, Instant::ZERO);
        host.handle_plan(&Arc::new(plan_of((0..count).map(|n| tcp(n, 2)))), Instant::ZERO);
        let (open, starts) = (BTreeMap::new(), BTreeMap::new());
        let (now, most_open, most_at_once, behind) = (Instant::ZERO, 0, 0, 0);
        Self { host, now, answers, open, most_open, most_at_once, starts, behind }
    }

    /// A turn every 100 µs, in which the host is called once.
    fn run(&mut self, millis: i64) {
        let end = self.now + Duration::from_millis(millis.unsigned_abs());
        while self.now < end {
            if self.host.poll_timeout(self.now).is_some_and(|due| due <= self.now) {
                self.host.handle_timeout(self.now);
            }
            let mut answers = Vec::new();
            let mut packets = 0;
            while let Some(packet) = self.host.poll_transmit() {
                packets += 1;
                let segment = TcpPacket::new_unchecked(&packet[20..]);
                let server = Ipv4Packet::new_unchecked(packet).dst_addr();
                if segment.rst() {
                    assert_eq!(self.open.remove(&segment.src_port()), Some(server));
                } else {
                    assert!(segment.syn(), "nothing else is said");
                    if self.open.insert(segment.src_port(), server).is_none() {
                        *self.starts.entry(self.now.total_millis() / 100).or_default() += 1;
                    }
                    answers.push(syn_ack(packet));
                }
            }
            self.most_at_once = self.most_at_once.max(packets);
            self.most_open = self.most_open.max(self.open.len());
            for answer in answers.iter().filter(|_| self.answers) {
                self.host.handle_packet(answer);
            }
            while let Some(event) = self.host.poll_event() {
                self.behind += u32::from(event == Event::Behind);
            }
            self.now += Duration::from_micros(100);
        }
    }
}

fn syn_ack(syn: &[u8]) -> Vec<u8> {
    let mut packet = syn[..40].to_vec();
    let (source, destination) = (syn[12..16].to_vec(), syn[16..20].to_vec());
    packet[2..4].copy_from_slice(&40_u16.to_be_bytes());
    packet[12..16].copy_from_slice(&destination);
    packet[16..20].copy_from_slice(&source);
    packet[20..22].copy_from_slice(&syn[22..24]);
    packet[22..24].copy_from_slice(&syn[20..22]);
    let ip = Ipv4Packet::new_unchecked(&packet[..]);
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
    let mut segment = TcpPacket::new_unchecked(&mut packet[20..]);
    segment.set_header_len(20);
    segment.set_ack(true);
    let acknowledged = TcpPacket::new_unchecked(&syn[20..]).seq_number() + 1;
    segment.set_ack_number(acknowledged);
    segment.fill_checksum(&from.into(), &to.into());
    packet
}

#[test]
fn ten_thousand_checks_are_spread_and_none_is_left_out() {
    let mut crowd = Crowd::new(10_000, true);
    crowd.run(6_000);
    assert!(crowd.most_open <= MOST, "{} open at once", crowd.most_open);
    assert!(crowd.most_at_once <= 2 * STARTS + BUDGETED, "{} packets", crowd.most_at_once);
    let total: u32 = crowd.starts.values().sum();
    assert!((29_900..=30_000).contains(&total), "{total}");
    // 500 are the mean.
    let range = crowd.starts.values().fold((u32::MAX, 0), |(l, m), n| (l.min(*n), m.max(*n)));
    assert!(range.0 > 350 && range.1 < 650, "{range:?} begun in 100 ms");
    let known = (0..10_000).filter_map(|n| crowd.host.last_check(ServerId(n)));
    let (ok, latest) = known.fold((0, Duration::ZERO), |(ok, latest), last| {
        (ok + u32::from(last.failure.is_none()), latest.max(last.took))
    });
    assert_eq!(ok, 10_000);
    assert!(latest <= Duration::from_millis(1), "{latest}");
    assert_eq!(crowd.behind, 0);
}

/// Packets handled in one call, each of which may be answered.
const BUDGETED: usize = crate::host::BUDGET;

#[test]
fn ten_thousand_dead_servers_hold_no_more_than_their_places() {
    let mut crowd = Crowd::new(10_000, false);
    crowd.run(6_000);
    assert!(crowd.most_open <= MOST, "{} open at once", crowd.most_open);
    let total: u32 = crowd.starts.values().sum();
    assert!((64 * 5..=64 * 7).contains(&total), "{total} in six seconds");
    assert_eq!(crowd.behind, 1, "it is told, and not all the time");
}

/// Any body in a valid header from the server to the router, for checks that wait for it.
fn feed(inquiry: Inquiry, protocol: u8, body: &[u8]) {
    let mut net = Net::new(inquiry);
    net.peer.is_gone = true;
    net.run(3);
    let port = |packet: &[u8]| packet[20..22].to_vec();
    let ours = net.sent.first().map(|(_, packet)| port(packet));
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 11, 10, 0, 0, 2];
    packet.extend(body);
    // Where it looks like a segment or a datagram it is one to the port that asks.
    if let (Some(ours), 6 | 17, 24..) = (ours, protocol, packet.len()) {
        packet[20..24].copy_from_slice(&[&[0, 80], &ours[..]].concat());
    }
    let length = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
    let (from, to) = ((*SERVER.ip()).into(), ME.into());
    match (protocol, packet.len()) {
        (1, 28..) => {
            smoltcp::wire::Icmpv4Packet::new_unchecked(&mut packet[20..]).fill_checksum();
        }
        (6, 40..) => TcpPacket::new_unchecked(&mut packet[20..]).fill_checksum(&from, &to),
        _ => {}
    }
    net.host.handle_packet(&packet);
    net.run(3);
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(1_000))]

    #[test]
    fn garbage_is_survived_while_checks_wait(
        kind in 0..5_usize,
        protocol in proptest::sample::select(vec![1_u8, 6, 17]),
        mut body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        as_error in proptest::prelude::any::<bool>(),
    ) {
        let kinds = [Inquiry::Tcp, http(Some("ok")), Inquiry::Ping, udp(None), udp(Some("pong"))];
        if as_error && protocol == 1 && body.len() > 8 {
            // An ICMP error, or an echo reply, and after it what may be a header.
            body[0] = if body[1] % 2 == 0 { 3 } else { 0 };
            body[8] = 0x45;
        }
        feed(kinds[kind].clone(), protocol, &body);
    }
}
