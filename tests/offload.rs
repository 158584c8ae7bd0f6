//! Frames that leave checksums and segments to be done come to the same as those that leave nothing:
//! held against the same packets made one by one, and sent through a router of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use support::gso::{Super, Train};
use support::random::Random;
use support::*;
use tapvs::addr::LinkId;
use tapvs::config::{Config, Forward, Masquerade};
use tapvs::dataplane::{DropReason, Verdict};
use tapvs::frame::{Frame, Offload, Segments, VirtioHeader};

const CLIENT: &str = "198.51.100.7:6000";
const WEB: &str = "203.0.113.10:80";
const DNS: &str = "203.0.113.10:53";

/// All that left, one by one.
type Out = Vec<(LinkId, Vec<u8>)>;

fn cut(out: &[(LinkId, Super)]) -> Out {
    out.iter().flat_map(|(link, frame)| frame.cut().into_iter().map(|one| (*link, one))).collect()
}

/// Sends `train` through one router at once, and through another one by one.
fn both(routers: &mut [Router; 2], link: LinkId, train: &Train) -> [Out; 2] {
    let [at_once, singly] = routers;
    let (_, out) = at_once.feed_offload(link, &train.all());
    for (_, frame) in &out {
        check_header(frame);
    }
    let expected =
        train.packets().into_iter().flat_map(|packet| singly.feed(link, &packet.frame()).out);
    [cut(&out), expected.collect()]
}

/// What the kernel asks of a frame that is written to a device, and what makes it quick.
fn check_header(frame: &Super) {
    let VirtioHeader { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset } = frame.header;
    if gso_type == 0 && flags & 1 == 0 {
        assert_eq!(frame.header, VirtioHeader::default());
        return;
    }
    let ip = Read::frame(&frame.bytes).unwrap();
    let start = 14 + ip.header.len();
    assert_eq!(usize::from(csum_start), start);
    assert_eq!(csum_offset, if ip.protocol == 6 { 16 } else { 6 });
    let end = start + if ip.protocol == 6 { usize::from(ip.body[12] >> 4) * 4 } else { 8 };
    assert_eq!(usize::from(hdr_len), end, "the true length");
    assert!(gso_type == 0 || gso_size > 0);
    assert!(ip.header_ok());
    let sum = start + usize::from(csum_offset);
    let pseudo = pseudo_sum(ip.source, ip.destination, ip.protocol, ip.body.len());
    assert_eq!(u16::from_be_bytes([frame.bytes[sum], frame.bytes[sum + 1]]), pseudo);
}

/// Two routers alike, each with a connection of the client's; and where its answers come from.
fn pair(config: fn() -> Config) -> ([Router; 2], String) {
    let mut server = String::new();
    let routers = [(); 2].map(|()| {
        let mut router = Router::new(config());
        let out = router.feed(OUT, &tcp(CLIENT, WEB, SYN, 1_000, 0, b"").frame());
        let to = Read::frame(out.only()).unwrap();
        server = format!("{}:8080", to.destination);
        router.feed(IN, &tcp(&server, CLIENT, SYN | ACK, 500, 1_001, b"").frame());
        router.feed(OUT, &tcp(CLIENT, WEB, ACK, 1_001, 501, b"").frame());
        router
    });
    (routers, server)
}

fn direct_config() -> Config {
    direct(config())
}

#[test]
fn segments_are_those_that_a_host_would_have_made() {
    let mut random = Random::new(1);
    for round in 0..2_000 {
        let train = Train::random(&mut random, CLIENT, WEB, round % 3 > 0);
        let expected: Vec<_> = train.packets().iter().map(Ip::frame).collect();
        assert_eq!(train.all().cut(), expected, "{round}");
        let (partial, whole) = train.partial();
        assert_eq!(partial.cut(), [whole.frame()], "{round}");
        let mut frame = partial.frame();
        frame.complete_checksum();
        assert!(frame.is_plain());
        assert_eq!(frame.bytes(), whole.frame());
    }
}

#[test]
fn segments_of_ipv6_have_right_lengths_and_sums() {
    let mut random = Random::new(2);
    for is_tcp in [true, false] {
        for len in [1, 100, 101, 5_000] {
            let frame = ipv6(&random.bytes(len), is_tcp);
            let out = frame.cut();
            assert_eq!(out.len(), len.div_ceil(100));
            let mut data: Vec<u8> = Vec::new();
            for (number, one) in out.iter().enumerate() {
                let body = &one[54..];
                assert_eq!(usize::from(u16::from_be_bytes([one[18], one[19]])), body.len());
                let length = u32::try_from(body.len()).unwrap().to_be_bytes();
                let protocol = [0, 0, 0, one[20]];
                assert_eq!(sum(&[&one[22..54], &length, &protocol, body]), 0xffff);
                let header = if is_tcp { 20 } else { 8 };
                if is_tcp {
                    let seq = u32::from_be_bytes(*body[4..].first_chunk().unwrap());
                    assert_eq!(seq, 9 + 100 * u32::try_from(number).unwrap());
                } else {
                    assert_eq!(usize::from(u16::from_be_bytes([body[4], body[5]])), body.len());
                }
                data.extend(&body[header..]);
            }
            assert_eq!(data, frame.bytes[54 + if is_tcp { 20 } else { 8 }..]);
        }
    }
}

fn ipv6(data: &[u8], is_tcp: bool) -> Super {
    let mut body = vec![0x12, 0x34, 0, 80];
    if is_tcp {
        body.extend([0, 0, 0, 9, 0, 0, 0, 1, 0x50, ACK, 1, 1, 0, 0, 0, 0]);
    } else {
        body.extend([0, 0, 0, 0]);
    }
    body.extend(data);
    let addresses = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]; 2].concat();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let protocol = if is_tcp { 6 } else { 17 };
    let sum_at = if is_tcp { 16 } else { 6 };
    if !is_tcp {
        body[4..6].copy_from_slice(&length);
    }
    let pseudo = sum(&[&addresses, &length, &[0, protocol]]);
    body[sum_at..sum_at + 2].copy_from_slice(&pseudo.to_be_bytes());
    let mut bytes = [&NEAR.0[..], &server_mac(11).0, &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
    bytes.extend(length);
    bytes.extend([protocol, 64]);
    bytes.extend(addresses);
    bytes.extend(body);
    let header = VirtioHeader {
        flags: 1,
        gso_type: if is_tcp { 4 } else { 5 },
        hdr_len: 0,
        gso_size: 100,
        csum_start: 54,
        csum_offset: u16::try_from(sum_at).unwrap(),
    };
    Super { header, bytes }
}

#[test]
fn a_flow_at_once_is_a_flow_singly() {
    for config in [config as fn() -> Config, direct_config] {
        let (mut routers, server) = pair(config);
        let mut random = Random::new(3);
        for round in 0..300 {
            let is_tcp = round % 3 > 0;
            let (from, to, link) = match (random.percent(50), is_tcp) {
                (true, true) => (CLIENT, WEB, OUT),
                (true, false) => (CLIENT, DNS, OUT),
                (false, true) => (&*server, CLIENT, IN),
                (false, false) => ("10.0.0.11:53", CLIENT, IN),
            };
            let mut train = Train::random(&mut random, from, to, is_tcp);
            // It must not end.
            train.flags &= !(FIN | RST);
            let [at_once, singly] = both(&mut routers, link, &train);
            assert_eq!(at_once, singly, "round {round}");
        }
        let [at_once, singly] = routers.map(|router| (router.report().services, router.flows()));
        assert_eq!(
            format!("{at_once:?}"),
            format!("{singly:?}"),
            "packets are counted as on a wire"
        );
    }
}

#[test]
fn the_first_packet_of_a_flow_may_be_many() {
    for config in [config as fn() -> Config, direct_config] {
        let mut routers = [(); 2].map(|()| Router::new(config()));
        let train = Train::udp(CLIENT, DNS, vec![3; 5_000], 1_000);
        let [at_once, singly] = both(&mut routers, OUT, &train);
        assert_eq!(at_once.len(), 5);
        assert_eq!(at_once, singly);
    }
}

/// Every port, and with it every value that a checksum can have.
#[test]
fn a_partial_checksum_is_completed_right_for_every_port() {
    let mut config = config();
    config.services[1].servers.truncate(1);
    let mut routers = [(); 2].map(|()| Router::sized(config.clone(), 70_000));
    let mut zero = 0;
    for port in 1..=u16::MAX {
        // What comes from the port of FTP data is never scheduled.
        if port == 20 {
            continue;
        }
        let train = Train::udp(&format!("198.51.100.7:{port}"), DNS, b"ab".to_vec(), 100);
        let (partial, whole) = train.partial();
        let [at_once, singly] = &mut routers;
        let (_, out) = at_once.feed_offload(OUT, &partial);
        let expected = singly.feed(OUT, &whole.frame());
        assert_eq!(cut(&out), expected.out, "port {port}");
        let out = &expected.out[0].1;
        zero += usize::from(out[40..42] == [0xff, 0xff]);
        assert_eq!(Read::frame(out).unwrap().transport_ok(), Some(true));
    }
    assert!(zero > 0, "no sum was 0");
}

/// Every value of two bytes of an address, TCP and UDP, by the rule for partial sums.
#[test]
fn a_partial_checksum_is_completed_right_for_every_address() {
    let mut routers = [(); 2].map(|()| Router::sized(config(), 200_000));
    for low in 0..=u16::MAX {
        let [a, b] = low.to_be_bytes();
        for is_tcp in [true, false] {
            let to = if is_tcp { WEB } else { DNS };
            let mut train = Train::udp(&format!("198.51.{a}.{b}:6000"), to, b"ab".to_vec(), 100);
            (train.is_tcp, train.flags) = (is_tcp, SYN);
            let (partial, whole) = train.partial();
            let [at_once, singly] = &mut routers;
            let (_, out) = at_once.feed_offload(OUT, &partial);
            assert_eq!(cut(&out), singly.feed(OUT, &whole.frame()).out, "{a}.{b} {is_tcp}");
        }
    }
}

#[test]
fn a_maximum_segment_size_is_clamped_before_the_sum_is_made() {
    let config = || {
        let mut config = config();
        config.networks[1].mss_clamp = Some(1_000);
        config
    };
    for options in [vec![2, 4, 5, 180], vec![1, 2, 4, 5, 180, 1, 1, 1]] {
        let mut routers = [(); 2].map(|()| Router::new(config()));
        let mut train = Train::tcp(CLIENT, WEB, Vec::new(), 100);
        (train.flags, train.tcp_options) = (SYN, options);
        let (partial, whole) = train.partial();
        let [at_once, singly] = &mut routers;
        let (_, out) = at_once.feed_offload(OUT, &partial);
        let expected = singly.feed(OUT, &whole.frame()).out;
        assert_eq!(cut(&out), expected);
        assert!(expected[0].1.windows(4).any(|bytes| bytes == [2, 4, 3, 232]), "clamped to 1,000");
    }
}

/// The next network takes less than a segment: whoever allows it is cut twice.
#[test]
fn segments_that_do_not_fit_are_cut_into_fragments() {
    let narrow = || {
        let mut config = config();
        config.networks[1].mtu = 600;
        config
    };
    let direct_narrow = || {
        let mut config = direct(config());
        config.networks[1].mtu = 600;
        config
    };
    for config in [narrow as fn() -> Config, direct_narrow] {
        let (mut routers, _) = pair(config);
        for is_tcp in [true, false] {
            let to = if is_tcp { WEB } else { DNS };
            let mut train =
                Train::tcp(CLIENT, to, (0..=u8::MAX).cycle().take(20_000).collect(), 1_400);
            (train.is_tcp, train.fragment, train.ip_options) = (is_tcp, 0, vec![1; 4]);
            let [at_once, singly] = both(&mut routers, OUT, &train);
            assert!(at_once.len() > 40);
            assert_eq!(at_once, singly);
            // What is not cut into segments, but does not fit either.
            train.data.truncate(1_300);
            let (partial, whole) = train.partial();
            let [at_once, singly] = &mut routers;
            let (verdict, out) = at_once.feed_offload(OUT, &partial);
            assert_eq!(verdict, Verdict::Split);
            assert_eq!(cut(&out), singly.feed(OUT, &whole.frame()).out);
        }
        // As many pieces as there can be.
        let mut train = Train::tcp(CLIENT, WEB, vec![1; 64_000], 549);
        train.fragment = 0;
        let [at_once, singly] = both(&mut routers, OUT, &train);
        assert!(at_once.len() > 230);
        assert_eq!(at_once, singly);
    }
}

#[test]
fn who_forbids_fragments_is_told_of_the_segment_that_did_not_fit() {
    let narrow = || {
        let mut config = config();
        config.networks[1].mtu = 1_000;
        config
    };
    let (mut routers, _) = pair(narrow);
    let train = Train::tcp(CLIENT, WEB, vec![5; 10_000], 1_400);
    let [at_once, singly] = &mut routers;
    let (verdict, out) = at_once.feed_offload(OUT, &train.all());
    assert_eq!(verdict, Verdict::Drop(DropReason::TooBig));
    let first = singly.feed(OUT, &train.packets()[0].frame());
    let text = |frame: &[u8]| line(frame);
    assert_eq!(out.len(), 1);
    assert_eq!(text(&out[0].1.bytes), text(&first.out[0].1), "the same is quoted");
    assert_eq!(out[0].1.bytes[42..], first.out[0].1[42..], "to the last byte");
    // By the length of a segment, not of all of them.
    let fits = Train::tcp(CLIENT, WEB, vec![5; 60_000], 900);
    assert!(matches!(at_once.feed_offload(OUT, &fits.all()).0, Verdict::Forward(IN)));
    assert_eq!(at_once.dataplane.counters().dropped(DropReason::Oversize), 0);
    let too_long = Train::tcp(CLIENT, WEB, vec![5; 60_000], 1_500);
    let verdict = at_once.feed_offload(OUT, &too_long.all()).0;
    assert_eq!(verdict, Verdict::Drop(DropReason::Oversize), "longer than its own network's MTU");
}

#[test]
fn what_waits_for_a_neighbour_keeps_what_is_left_to_be_done() {
    let mut router = Router::cold(config(), 1_000);
    router.answers_arp = false;
    let train = Train::udp(CLIENT, DNS, vec![9; 9_000], 1_000);
    router.feed(OUT, &who_has(OWN_OUT, GATEWAY_IP, GATEWAY).frame());
    let (verdict, _) = router.feed_offload(OUT, &train.all());
    assert_eq!(verdict, Verdict::Held);
    let server = is_at(server_ip(11), server_mac(11), ROUTER_IN, OWN_IN).frame();
    let (_, out) = router.feed_offload(IN, &Super::plain(server));
    let held: Vec<_> = out.iter().filter(|(_, frame)| frame.bytes.len() > 100).collect();
    let [(IN, held)] = held[..] else { panic!("{out:?}") };
    check_header(held);
    assert_eq!(held.header.gso_size, 1_000);
    let expected = Router::new(config()).feed(OUT, &train.packets()[8].frame());
    assert_eq!(held.cut()[8], expected.out[0].1);
}

#[test]
fn a_client_is_told_in_its_own_words_that_nobody_is_there() {
    let errors: [Vec<_>; 2] = [true, false].map(|at_once| {
        let mut router = Router::cold(config(), 100);
        router.owner = |link, address| (link == OUT).then(|| owner(link, address)).flatten();
        router.feed(OUT, &who_has(OWN_OUT, GATEWAY_IP, GATEWAY).frame());
        let train = Train::udp(CLIENT, DNS, vec![9; 3_000], 1_000);
        if at_once {
            assert_eq!(router.feed_offload(OUT, &train.all()).0, Verdict::Held);
        } else {
            router.feed(OUT, &train.packets()[0].frame());
        }
        let out = router.advance(tapvs::time::Duration::from_secs(5));
        out.into_iter()
            .filter(|(_, bytes)| bytes[23] == 1 && bytes[12..14] == [8, 0])
            .map(|(_, b)| line(&b))
            .collect()
    });
    assert_eq!(errors[0].len(), 1, "{errors:?}");
    assert_eq!(errors[0], errors[1]);
}

#[test]
fn a_bridge_passes_on_what_is_left_to_be_done() {
    let mut router = Router::new(bridged());
    let mut train = Train::tcp("10.0.0.11:1", "10.0.0.13:2", vec![1; 20_000], 1_400).all();
    train.bytes[..6].copy_from_slice(&server_mac(13).0);
    train.bytes[6..12].copy_from_slice(&server_mac(11).0);
    let (verdict, out) = router.feed_offload(IN, &train);
    assert_eq!(verdict, Verdict::Forward(FAR_IN));
    let VirtioHeader { hdr_len, .. } = out[0].1.header;
    assert_eq!((hdr_len, &out[0].1.bytes), (66, &train.bytes));
    assert_eq!(VirtioHeader { hdr_len: train.header.hdr_len, ..out[0].1.header }, train.header);
    // To a station that nobody knows.
    train.bytes[..6].copy_from_slice(&STRANGER.0);
    let (verdict, out) = router.feed_offload(IN, &train);
    assert_eq!((verdict, out.len()), (Verdict::Flood, 2));
    assert!(
        out.iter().all(|(_, frame)| frame.bytes == train.bytes && frame.header.gso_size == 1_400)
    );
    // IPv6 passes too; what is too long for the network in each of its segments does not.
    let mut other = ipv6(&[7; 3_000], true);
    other.bytes[..6].copy_from_slice(&server_mac(13).0);
    assert_eq!(router.feed_offload(IN, &other).0, Verdict::Forward(FAR_IN));
    other.header.gso_size = 2_000;
    assert_eq!(router.feed_offload(IN, &other).0, Verdict::Drop(DropReason::Oversize));
}

#[test]
fn what_is_for_the_router_itself_is_handed_over_in_whole_packets() {
    let (mut routers, _) = pair(config);
    let train = Train::tcp("10.0.0.11:8080", "10.0.0.2:40000", vec![1; 4_000], 1_000);
    let (verdict, out) = routers[0].feed_offload(IN, &train.all());
    assert_eq!(verdict, Verdict::ToHost);
    let expected: Vec<_> = train.packets().iter().map(Ip::frame).collect();
    assert_eq!(out[0].1.cut(), expected);
    let mut late = train;
    late.size = 1_480;
    assert_eq!(routers[0].feed_offload(IN, &late.all()).0, Verdict::Drop(DropReason::Oversize));
}

#[test]
fn a_stranger_is_reset_though_his_checksum_is_not_complete() {
    let mut routers = [(); 2].map(|()| Router::new(config()));
    let (partial, whole) = Train::tcp(CLIENT, "203.0.113.10:81", vec![1; 100], 1_000).partial();
    let (verdict, out) = routers[0].feed_offload(OUT, &partial);
    assert_eq!(verdict, Verdict::Drop(DropReason::Unserved));
    let expected = routers[1].feed(OUT, &whole.frame()).out;
    assert_eq!((cut(&out), expected.len()), (expected, 1));
}

#[test]
fn servers_own_connections_are_masqueraded_alike() {
    let config = || {
        let mut config = config();
        config.router.forward = Forward::ServersOut;
        config.masquerades =
            vec![Masquerade { from: "10.0.0.0/24".parse().unwrap(), to: VIP.into() }];
        config
    };
    let mut routers = [(); 2].map(|()| Router::new(config()));
    let train = Train::udp("10.0.0.12:5000", "198.51.100.9:9000", vec![4; 9_999], 1_000);
    let [at_once, singly] = both(&mut routers, IN, &train);
    assert_eq!((at_once.len(), &at_once), (10, &singly));
    let back = Train::udp("198.51.100.9:9000", "203.0.113.10:5000", vec![4; 9_999], 1_000);
    let [at_once, singly] = both(&mut routers, OUT, &back);
    assert_eq!((at_once.len(), &at_once), (10, &singly));
}

/// ICMP that leaves its checksum to be completed is like any other.
#[test]
fn a_ping_is_answered_though_its_checksum_is_not_complete() {
    let ping = icmp("203.0.113.50", "203.0.113.10", (8, 0), [0, 1, 0, 1], b"hello");
    let mut bytes = ping.frame();
    bytes[36..38].fill(0);
    let header =
        VirtioHeader { flags: 1, csum_start: 34, csum_offset: 2, ..VirtioHeader::default() };
    let mut router = Router::new(config());
    let (verdict, out) = router.feed_offload(OUT, &Super { header, bytes });
    assert_eq!(verdict, Verdict::Reply);
    assert_eq!(
        out[0].1,
        Super::plain(Router::new(config()).feed(OUT, &ping.frame()).only().to_vec())
    );
}

#[test]
fn a_header_that_does_not_fit_is_a_counted_drop() {
    let (mut routers, _) = pair(config);
    let train = Train::tcp(CLIENT, WEB, vec![1; 3_000], 1_000);
    let good = train.all();
    let with = |change: &dyn Fn(&mut VirtioHeader)| {
        let mut bad = good.clone();
        change(&mut bad.header);
        bad
    };
    let unknown =
        [2, 3, 6, 0x20, 0x40, 0x41, 0x7f].map(|kind| with(&|header| header.gso_type = kind));
    let malformed = [
        with(&|header| header.flags = 0),
        with(&|header| header.gso_size = 0),
        with(&|header| header.gso_size = 0xffff),
        with(&|header| header.gso_type = 4),
        with(&|header| header.gso_type = 5),
        with(&|header| header.gso_type = 0x85),
        with(&|header| header.gso_type = 0x80),
        with(&|header| header.csum_start = 0),
        with(&|header| header.csum_start -= 2),
        with(&|header| header.csum_start += 4),
        with(&|header| header.csum_start = 0xffff),
        with(&|header| header.csum_offset = 6),
        with(&|header| header.csum_offset = 0xffff),
        {
            let mut bad = good.clone();
            bad.bytes[46] = 0x40;
            bad
        },
        {
            let mut bad = good.clone();
            bad.bytes[20] |= 0x20;
            bad
        },
        {
            let mut bad = good.clone();
            bad.bytes.truncate(40);
            bad
        },
    ];
    let router = &mut routers[0];
    for (reason, frames) in
        [(DropReason::OffloadUnknown, &unknown[..]), (DropReason::OffloadMalformed, &malformed)]
    {
        for (number, frame) in frames.iter().enumerate() {
            let before = router.dataplane.counters().dropped(reason);
            let verdict = router.feed_offload(OUT, frame).0;
            assert_eq!((number, verdict), (number, Verdict::Drop(reason)), "{:?}", frame.header);
            assert_eq!(router.dataplane.counters().dropped(reason), before + 1);
        }
    }
    assert!(matches!(router.feed_offload(OUT, &good).0, Verdict::Forward(IN)));
}

/// Whatever header stands before whatever frame: no panic, no byte of another frame, everything counted.
#[test]
fn nothing_in_a_header_is_believed_unchecked() {
    let mut random = Random::new(5);
    let mut routers = [config(), direct(config()), bridged()].map(Router::new);
    let mut cut = Frame::new();
    let seeds: Vec<_> = mutate::seeds().into_iter().map(|(_, bytes)| bytes).collect();
    for _ in 0..60_000 {
        let mut frame = match random.below(4) {
            0 => Super::plain(random.pick(&seeds).clone()),
            1 => ipv6(&[1; 300], random.percent(50)),
            _ => {
                let is_tcp = random.percent(50);
                let to = if is_tcp { WEB } else { DNS };
                Train::random(&mut random, CLIENT, to, is_tcp).all()
            }
        };
        let mut header = frame.header.to_bytes();
        for _ in 0..random.below(3) {
            header[random.below(10)] = random.byte();
        }
        if random.percent(20) {
            let at = random.below(frame.bytes.len().min(80));
            frame.bytes[at] = random.byte();
        }
        if random.percent(10) {
            frame.bytes.truncate(random.below(frame.bytes.len()));
        }
        frame.header = VirtioHeader::from_bytes(header);
        let router = random.below(3);
        let (_, out) = routers[router].feed_offload(*random.pick(&[OUT, IN]), &frame);
        for (_, out) in out {
            let out = out.frame();
            let mut segments = Segments::new(&out);
            let mut payload = 0;
            while segments.next_into(&mut cut) {
                payload += cut.len();
                assert!(payload < 64 << 20, "segments without end");
            }
            // What leaves is what the kernel takes.
            let header = VirtioHeader::from_bytes(out.header());
            assert!(Offload::of(header, out.bytes()).is_ok(), "{header:?}");
            assert!(usize::from(header.hdr_len) <= out.len());
        }
    }
}
