//! What goes nowhere, each with its own name (R3, S8, S10, S11).

use super::*;
use tapvs::dataplane::{Origin, Verdict};

pub(crate) fn cases() -> Vec<Case> {
    let typed = |kind: u16| {
        let mut frame = syn().frame();
        frame[12..14].copy_from_slice(&kind.to_be_bytes());
        frame
    };
    let bent = |at: usize, value: u8| {
        let mut frame = syn().frame();
        frame[at] = value;
        frame
    };
    // As `bent`, with the header checksum right again.
    let bent_ip = |at: usize, value: u8| {
        let mut frame = bent(14 + at, value);
        frame[24..26].fill(0);
        let sum = !sum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    let from = |source: &str| {
        let source = source.parse().unwrap();
        udp(CLIENT, DNS, b"who?").with(|ip| ip.source = source)
    };
    let to = |destination: &str| {
        let destination = destination.parse().unwrap();
        udp(CLIENT, DNS, b"who?").with(|ip| ip.destination = destination)
    };
    let first_fragment = || query().with(|ip| ip.fragment = MF);
    let offer =
        || tcp("10.0.0.11:8080", CLIENT, PSH | ACK, 501, 1007, b"227 (10,0,0,11,195,80)\r\n");
    let with_ftp = |config: &mut Config| {
        config.services[0].lifecycle.helper = Some(tapvs::config::Helper::Ftp);
    };
    vec![
        case(
            "a broken segment with an FTP text that was changed",
            IN,
            offer().bad_sum(),
            "drop ftp_torn",
        )
        .configured(with_ftp)
        .after(OUT, syn())
        .after(IN, tcp("10.0.0.11:8080", CLIENT, SYN | ACK, 500, 1001, b""))
        .after(OUT, tcp(CLIENT, WEB, PSH | ACK, 1001, 501, b"PASV\r\n"))
        .after(IN, offer()),
        case(
            "an FTP text that overtook what stands before it",
            IN,
            tcp("10.0.0.11:8080", CLIENT, PSH | ACK, 510, 1001, b"226 Done.\r\n"),
            "drop ftp_early",
        )
        .configured(with_ftp)
        .after(OUT, syn())
        .after(IN, tcp("10.0.0.11:8080", CLIENT, SYN | ACK, 500, 1001, b"")),
        case("S10 no frame at all", OUT, vec![], "drop runt"),
        case("S10 13 bytes", OUT, syn().frame()[..13].to_vec(), "drop runt"),
        case("a link that no network has", LinkId(2), syn(), "drop unknown_link"),
        case(
            "S10 nothing behind the Ethernet header",
            OUT,
            syn().frame()[..14].to_vec(),
            "drop ip_malformed",
        ),
        case("S10 a frame longer than the MTU", OUT, udp(CLIENT, DNS, &[0; 1473]), "drop oversize"),
        case(
            "a group address as source MAC",
            OUT,
            syn().with(|ip| ip.from = MacAddr::BROADCAST),
            "drop bad_source_mac",
        ),
        case(
            "zero as source MAC",
            OUT,
            syn().with(|ip| ip.from = MacAddr::ZERO),
            "drop bad_source_mac",
        ),
        case(
            "S12 the router's own MAC as source",
            OUT,
            syn().with(|ip| ip.from = ROUTER_OUT),
            "drop own_source_mac",
        ),
        case(
            "another station's MAC",
            OUT,
            syn().with(|ip| ip.to = STRANGER),
            "drop other_destination_mac",
        ),
        case(
            "the router's MAC of the other network",
            OUT,
            syn().with(|ip| ip.to = ROUTER_IN),
            "drop other_destination_mac",
        ),
        case("S10 a length in place of the type", OUT, typed(0x05ff), "drop llc"),
        case("S11 802.1Q", OUT, typed(0x8100), "drop vlan"),
        case("S11 802.1ad", OUT, typed(0x88a8), "drop vlan"),
        case("flow control", OUT, typed(0x8808), "drop pause_frame"),
        case("an unknown type", OUT, typed(0x88cc), "drop unknown_ether_type"),
        case("the smallest type", OUT, typed(0x0600), "drop unknown_ether_type"),
        case("IPv6", OUT, typed(0x86dd), "drop ipv6"),
        case("R3 version 5", OUT, bent(14, 0x55), "drop ip_malformed"),
        case("R3 header length 4", OUT, bent(14, 0x44), "drop ip_malformed"),
        case("R3 header length beyond the packet", OUT, bent(14, 0x4f), "drop ip_malformed"),
        case("R3 total length beyond the frame", OUT, bent_ip(3, 41), "drop ip_malformed"),
        case("R3 total length below the header's", OUT, bent_ip(3, 19), "drop ip_malformed"),
        case("R3 bad header checksum", OUT, bent(24, 0), "drop ip_checksum"),
        case(
            "R3 loose source route",
            OUT,
            syn().with(|ip| ip.options = vec![131, 7, 4, 1, 2, 3, 4, 0]),
            "drop ip_source_route",
        ),
        case(
            "R3 strict source route behind a no-operation",
            OUT,
            syn().with(|ip| ip.options = vec![1, 137, 7, 4, 1, 2, 3, 4]),
            "drop ip_source_route",
        ),
        case(
            "R3 an option without an end",
            OUT,
            syn().with(|ip| ip.options = vec![7, 40, 4, 0]),
            "drop ip_source_route",
        ),
        case(
            "R3 an option of length 0",
            OUT,
            syn().with(|ip| ip.options = vec![7, 0, 0, 0]),
            "drop ip_source_route",
        ),
        case("R3 source 0.0.0.0", OUT, from("0.0.0.0"), "drop martian_source"),
        case("R3 source 127.0.0.1", OUT, from("127.0.0.1"), "drop martian_source"),
        case("R3 source multicast", OUT, from("224.0.0.1"), "drop martian_source"),
        case("R3 source broadcast", OUT, from("255.255.255.255"), "drop martian_source"),
        case(
            "R3 source the network's broadcast",
            OUT,
            from("203.0.113.255"),
            "drop martian_source",
        ),
        case("R3 source the network's own number", OUT, from("203.0.113.0"), "drop martian_source"),
        case("R3 source class E", OUT, from("240.0.0.1"), "drop martian_source"),
        case("R3 source the router's own address", OUT, from("203.0.113.2"), "drop martian_source"),
        case("S8 source the virtual IP (land)", OUT, from("203.0.113.10"), "drop martian_source"),
        case("R3 destination 0.0.0.0", OUT, to("0.0.0.0"), "drop martian_destination"),
        case("R3 destination 127.0.0.1", OUT, to("127.0.0.1"), "drop martian_destination"),
        case("R3 destination class E", OUT, to("240.0.0.1"), "drop martian_destination"),
        case("destination multicast", OUT, to("224.0.0.18"), "drop broadcast"),
        case("destination broadcast", OUT, to("255.255.255.255"), "drop broadcast"),
        case("destination the network's broadcast", OUT, to("203.0.113.255"), "drop broadcast"),
        case(
            "destination another network's broadcast (directed)",
            OUT,
            to("10.0.0.255"),
            "drop broadcast",
        ),
        case(
            "a unicast packet in a broadcast frame",
            OUT,
            syn().with(|ip| ip.to = MacAddr::BROADCAST),
            "drop link_broadcast",
        ),
        case(
            "a unicast packet in a multicast frame",
            OUT,
            syn().with(|ip| ip.to = MacAddr([1, 0, 0x5e, 0, 0, 1])),
            "drop link_broadcast",
        ),
        case("TCP data offset 4", OUT, syn().with(|ip| ip.body[12] = 0x40), "drop tcp_malformed"),
        case(
            "TCP data offset beyond the segment",
            OUT,
            syn().with(|ip| ip.body[12] = 0x60),
            "drop tcp_malformed",
        ),
        case("TCP of 19 bytes", OUT, syn().with(|ip| ip.body.truncate(19)), "drop tcp_malformed"),
        case("UDP of 7 bytes", OUT, query().with(|ip| ip.body.truncate(7)), "drop udp_malformed"),
        case("UDP length 7", OUT, query().with(|ip| ip.body[5] = 7), "drop udp_malformed"),
        case(
            "UDP length beyond the packet",
            OUT,
            query().with(|ip| ip.body[5] = 13),
            "drop udp_malformed",
        ),
        case(
            "ICMP of 7 bytes",
            OUT,
            icmp("198.51.100.7", "203.0.113.10", (8, 0), [0; 4], b"")
                .with(|ip| ip.body.truncate(7)),
            "drop icmp_malformed",
        ),
        case(
            "S7 a first fragment whose length is no multiple of 8",
            OUT,
            first_fragment(),
            "drop fragment_refused",
        ),
        case(
            "S7 the second fragment of a TCP segment at offset 8 (RFC 3128)",
            OUT,
            syn().with(|ip| ip.fragment = 1),
            "drop fragment_refused",
        ),
        case(
            "S7 a fragment beyond 65,535 bytes",
            OUT,
            query().with(|ip| {
                ip.body = vec![0; 64];
                ip.fragment = 0x1fff;
            }),
            "drop fragment_refused",
        ),
        case(
            "S7 a fragment for the router itself",
            OUT,
            udp(CLIENT, "203.0.113.2:53", &[0; 8]).with(|ip| ip.fragment = MF),
            "drop fragment",
        ),
        case(
            "S7 a fragmented ping of the virtual IP",
            OUT,
            icmp("198.51.100.7", "203.0.113.10", (8, 0), [0, 7, 0, 1], &[0; 8])
                .with(|ip| ip.fragment = MF),
            "drop fragment",
        ),
        case(
            "S7 a later fragment waits for the first",
            OUT,
            query().with(|ip| ip.fragment = 1),
            "held",
        ),
        case(
            "S8 a client's source from among the servers (reverse path)",
            IN,
            query().with(|ip| {
                ip.to = ROUTER_IN;
                ip.from = server_mac(12);
            }),
            "drop reverse_path",
        ),
        case(
            "S8 a server's source from the internet (reverse path)",
            OUT,
            udp("10.0.0.12:9", DNS, b"").with(|ip| {
                ip.to = ROUTER_OUT;
                ip.from = GATEWAY;
            }),
            "drop reverse_path",
        ),
        case("not for the router", OUT, to("198.51.100.99"), "drop not_forwarded"),
        case(
            "S8 a client's packet straight to a server",
            OUT,
            to("10.0.0.11"),
            "drop not_forwarded",
        ),
        case(
            "a server's packet of no flow",
            IN,
            tcp(SERVER11, CLIENT, ACK, 1, 1, b""),
            "drop not_forwarded",
        ),
        case(
            "S8 a server's answer from the internet",
            OUT,
            tcp(SERVER11, CLIENT, SYN | ACK, 1, 1, b"").with(|ip| {
                ip.to = ROUTER_OUT;
                ip.from = GATEWAY;
            }),
            "drop wrong_network",
        )
        .after(OUT, syn()),
        case(
            "S8 a client's packet from among the servers",
            IN,
            tcp(CLIENT, WEB, ACK, 1, 1, b"").with(|ip| {
                ip.to = ROUTER_IN;
                ip.from = server_mac(12);
            }),
            "drop wrong_network",
        )
        .after(OUT, syn()),
        case("no way to the server", OUT, udp("203.0.113.50:7", DNS, b""), "drop no_route")
            .configured(|config| {
                config.networks[0].gateway = None;
                config.services[1].servers[0].endpoint.address = "172.16.0.9".parse().unwrap();
            }),
        case(
            "forward = servers-out: a server's answer of no flow",
            IN,
            udp("10.0.0.11:53", CLIENT, b""),
            "drop no_flow",
        )
        .configured(icmp_cases::masquerading),
    ]
}

/// Nothing is left behind by a packet that goes nowhere.
#[test]
fn a_dropped_first_packet_leaves_no_flow() {
    let drops = cases().into_iter().chain(icmp_cases::cases());
    for case in drops.filter(|case| case.before.is_empty()) {
        let (router, text) = case.run();
        if !text.starts_with("drop") {
            continue;
        }
        assert_eq!(router.dataplane.flow_count(), 0, "{}: {text}", case.name);
    }
}

/// More of the router's own packets than there is room for.
pub(crate) fn outbox_full() -> Router {
    let mut router = Router::new(config());
    let packet = icmp("203.0.113.2", "198.51.100.7", (0, 0), [0; 4], b"").packet();
    for _ in 0..300 {
        router.dataplane.send_packet(&router.table, &packet, Origin::Host, router.now);
    }
    router.check();
    assert_eq!(router.dataplane.counters().dropped(DropReason::OutboxFull), 300 - 256);
    assert_eq!(router.transmits().len(), 256);
    router.dataplane.send_packet(&router.table, &packet, Origin::Host, router.now);
    assert_eq!(router.transmits().len(), 1, "there is room again");
    router
}

#[test]
fn the_outbox_is_bounded() {
    outbox_full();
}

/// Frames whose virtio-net headers ask for what cannot be: tests/offload.rs has all ways to do so.
pub(crate) fn bad_offloads() -> Router {
    let mut router = Router::new(config());
    for (kind, reason) in [(1, DropReason::OffloadMalformed), (0x20, DropReason::OffloadUnknown)] {
        let mut frame = gso::Super::plain(syn().frame());
        frame.header.gso_type = kind;
        assert_eq!(router.feed_offload(OUT, &frame).0, Verdict::Drop(reason));
    }
    router
}

/// Frames that the loop could not get rid of.
pub(crate) fn refused() -> Router {
    let mut router = Router::new(config());
    let ping = icmp("198.51.100.7", "203.0.113.2", (8, 0), [0; 4], b"").frame();
    assert_eq!(router.feed(OUT, &ping).verdict, Verdict::ToHost);
    router.dataplane.count_refused(DropReason::HostQueueFull, 1);
    assert_eq!(router.dataplane.counters().to_host, 0);
    assert!(matches!(router.feed(OUT, &syn().frame()).verdict, Verdict::Forward(_)));
    router.dataplane.count_refused(DropReason::WriteRefused, 1);
    router.check();
    router
}

#[test]
fn refused_frames_are_drops() {
    let router = refused();
    let counters = router.dataplane.counters();
    assert_eq!(counters.dropped(DropReason::HostQueueFull), 1);
    assert_eq!(counters.dropped(DropReason::WriteRefused), 1);
}

/// What the host sends is routed like anything else, and what cannot be is a counted drop.
#[test]
fn the_hosts_own_packets() {
    let mut router = Router::new(config());
    let packet = icmp("203.0.113.2", "198.51.100.7", (0, 0), [0, 7, 0, 1], b"x").packet();
    router.dataplane.send_packet(&router.table, &packet, Origin::Host, router.now);
    let out: Vec<_> = router.transmits().iter().map(|(_, frame)| line(frame)).collect();
    let expect =
        "router.out > gateway 203.0.113.2 > 198.51.100.7 ttl 64 id 1 icmp 0/0 00070001 data 1";
    assert_eq!(out, [expect]);
    for (packet, reason) in [
        (vec![0x45; 19], DropReason::IpMalformed),
        (vec![0; 70_000], DropReason::IpMalformed),
        (udp("203.0.113.2:1", "198.51.100.7:1", &[0; 1500]).packet(), DropReason::TooBig),
    ] {
        let before = router.dataplane.counters().dropped(reason);
        router.dataplane.send_packet(&router.table, &packet, Origin::Host, router.now);
        assert_eq!(router.transmits(), []);
        assert_eq!(router.dataplane.counters().dropped(reason), before + 1, "{reason}");
        router.check();
    }
}
