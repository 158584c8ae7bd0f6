mod packet;
mod router;

use std::net::Ipv4Addr;

use proptest::prelude::*;
use proptest::sample::select;

use self::packet::{Kind, Oddity, Offload, header, make_odd, packet};
use self::router::{
    CLIENT_MAC, Change, IN, IN_MAC, OUT, OUT_MAC, Router, START, Topology, VIP, VIRTUAL_MAC,
    server_mac,
};
use crate::addr::{LinkId, MacAddr, Role};
use crate::frame::{Frame, IP, IcmpError, TCP, UDP, icmp_error, set_macs};
use crate::time::{Duration, Instant};

/// The ports that clients ask for.
const PORTS: [(u8, u16); 5] = [(TCP, 80), (UDP, 5_000), (TCP, 21), (UDP, 53), (TCP, 8_080)];

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// Client `client` opens a connection to a service.
    Open { client: u8, service: usize },
    /// A server calls somebody.
    Call { port: u16 },
    /// A server sends a datagram to the other router, from and to the port of its copies.
    CallPeer,
    /// A router near the client complains about a server's packet.
    Complaint { flow: usize },
    /// A packet of one of the flows there are.
    Packet { flow: usize, back: bool, kind: Kind, oddity: Oddity },
    /// Time passes, in milliseconds.
    Wait(u64),
    /// So many other clients ask for a connection.
    Crowd(u16),
    /// Another table comes.
    Reload(Change),
    /// The role changes.
    Role(Role),
    /// The servers fall silent for so many seconds.
    Silence(u8),
    /// What a bridge sent by one link to find loops comes back by the other, which is shut for that.
    Loop,
}

/// The frames of a step, for a router in this state.
fn frames(router: &Router, step: &Step, now: Instant) -> Option<(LinkId, Frame)> {
    let plain = Kind { flags: 0x02, payload: 8, offload: Offload::None };
    // The last one is a neighbour that nobody configured.
    let client = |n: u8| match n {
        5 => Ipv4Addr::new(203, 0, 113, 63),
        n => Ipv4Addr::new(198, 51, 100, n),
    };
    let (link, mut bytes, kind, oddity) = match *step {
        Step::Open { client: n, service } => {
            let (protocol, port) = PORTS[service];
            let from = (client(n), 2_000 + u16::from(n));
            (OUT, packet(from, (VIP, port), protocol, plain), plain, Oddity::Nothing)
        }
        Step::Call { port } => {
            let from = (router.topology.server(11), port);
            (IN, packet(from, (client(200), 443), TCP, plain), plain, Oddity::Nothing)
        }
        Step::CallPeer => {
            let (from, to) = (router.topology.server(11), Ipv4Addr::new(203, 0, 113, 3));
            let bytes = packet((from, 8_848), (to, 8_848), UDP, plain);
            (IN, bytes, plain, Oddity::Nothing)
        }
        Step::Complaint { flow } => {
            let original = router.flow(flow, now)?.original;
            let from = (original.destination, original.destination_port);
            let about =
                packet(from, (original.source, original.source_port), original.protocol, plain);
            let mut frame = Frame::new();
            let ends = (Ipv4Addr::new(198, 51, 100, 254), original.destination);
            icmp_error(IcmpError::PortUnreachable, ends, 7, &about[IP..], &mut frame);
            (OUT, frame.bytes().to_vec(), plain, Oddity::Nothing)
        }
        Step::Packet { flow, back, kind, oddity } => {
            let flow = router.flow(flow, now)?;
            let tuple = if back { flow.reply } else { flow.original };
            let from_client = back != (flow.original.destination == VIP);
            let (from, to) =
                ((tuple.source, tuple.source_port), (tuple.destination, tuple.destination_port));
            let bytes = packet(from, to, tuple.protocol, kind);
            (if from_client { OUT } else { IN }, bytes, kind, oddity)
        }
        Step::Wait(_)
        | Step::Role(_)
        | Step::Crowd(_)
        | Step::Reload(_)
        | Step::Silence(_)
        | Step::Loop => return None,
    };
    let source = Ipv4Addr::new(bytes[26], bytes[27], bytes[28], bytes[29]);
    let from = if link == OUT { CLIENT_MAC } else { server_mac(source) };
    set_macs(&mut bytes, router.mac(link), from);
    let protocol = bytes[IP + 9];
    make_odd(&mut bytes, oddity);
    let link = match (oddity, link) {
        (Oddity::OtherLink, OUT) => IN,
        (Oddity::OtherLink, _) => OUT,
        (_, link) => link,
    };
    let mut frame = Frame::from_bytes(&bytes);
    frame.set_header(header(kind.offload, protocol).to_bytes());
    Some((link, frame))
}

/// Both do the same, and it can be seen in nothing which way a packet took.
fn agree(topology: Topology, steps: &[Step]) -> u32 {
    agree_with(64, topology, steps)
}

/// The same, with tables of so many flows.
fn agree_with(max_flows: usize, topology: Topology, steps: &[Step]) -> u32 {
    let mut routers = [true, false].map(|is_express| Router::new(topology, max_flows, is_express));
    let mut now = START;
    let mut all: Vec<Step> = (0..20).map(|_| Step::Wait(100)).collect();
    all.extend_from_slice(steps);
    for step in &all {
        match *step {
            Step::Wait(millis) => now += Duration::from_millis(millis),
            Step::Reload(change) => {
                routers.iter_mut().for_each(|router| router.reload(change, now));
            }
            Step::Crowd(clients) => {
                let syn = Kind { flags: 0x02, payload: 0, offload: Offload::None };
                for port in 10_000..10_000 + clients {
                    let from = (Ipv4Addr::new(198, 51, 100, 99), port);
                    let mut bytes = packet(from, (VIP, 80), TCP, syn);
                    set_macs(&mut bytes, routers[0].mac(OUT), CLIENT_MAC);
                    for router in &mut routers {
                        router.handle(OUT, &mut Frame::from_bytes(&bytes), now);
                    }
                }
            }
            Step::Role(role) => {
                for Router { dataplane, table, .. } in &mut routers {
                    dataplane.handle_role(table, role, now);
                }
            }
            Step::Loop => {
                for router in &mut routers {
                    let Some((link, probe)) = router.probe.take() else { continue };
                    let back = if link == OUT { IN } else { OUT };
                    router.handle(back, &mut Frame::from_bytes(&probe), now);
                }
            }
            Step::Silence(seconds) => {
                for second in 0..=seconds {
                    now += Duration::from_secs(1);
                    let silent = second < seconds;
                    routers.iter_mut().for_each(|router| router.silent = silent);
                    let [a, b] = routers.each_mut().map(|router| router.tend(now));
                    assert_eq!(a, b);
                }
            }
            Step::Open { .. }
            | Step::Call { .. }
            | Step::CallPeer
            | Step::Complaint { .. }
            | Step::Packet { .. } => {
                let Some((link, frame)) = frames(&routers[1], step, now) else { continue };
                let seen = routers.each_mut().map(|router| {
                    let mut own = Frame::new();
                    own.copy_of(&frame);
                    let verdict = router.handle(link, &mut own, now);
                    (verdict, own.bytes().to_vec(), own.header())
                });
                assert_eq!(seen[0], seen[1], "{step:?}");
            }
        }
        let [a, b] = routers.each_mut().map(|router| (router.tend(now), router.state(now)));
        assert_eq!(a.0, b.0, "what was sent after {step:?}");
        assert_eq!(a.1, b.1, "after {step:?}");
    }
    routers[0].express
}

fn oddities() -> impl Strategy<Value = Oddity> {
    let macs = || {
        select(vec![
            OUT_MAC,
            IN_MAC,
            VIRTUAL_MAC,
            CLIENT_MAC,
            MacAddr::BROADCAST,
            MacAddr::ZERO,
            MacAddr([1, 0, 0x5e, 0, 0, 18]),
        ])
    };
    let sources = vec![[127, 0, 0, 1], [0, 0, 0, 1], [203, 0, 113, 255], [203, 0, 113, 10]];
    prop_oneof![
        12 => Just(Oddity::Nothing),
        1 => (0..4_u8).prop_map(Oddity::Ttl),
        1 => Just(Oddity::Checksum),
        1 => select(vec![0x20, 0x40, 0x80, 0x01]).prop_map(Oddity::Fragment),
        1 => (4..8_u8).prop_map(Oddity::Header),
        1 => (0..80_u16).prop_map(Oddity::TotalLen),
        1 => (0..40_usize).prop_map(Oddity::Padding),
        1 => (0..60_usize).prop_map(Oddity::Cut),
        1 => macs().prop_map(Oddity::To),
        1 => macs().prop_map(Oddity::From),
        1 => Just(Oddity::OtherLink),
        1 => select(sources).prop_map(Oddity::Source),
        1 => Just(Oddity::SamePorts),
    ]
}

fn kinds() -> impl Strategy<Value = Kind> {
    let flags = prop_oneof![6 => Just(0x10), 2 => Just(0x18), 1 => Just(0x12), 1 => any::<u8>()];
    let payload = prop_oneof![4 => 0..60_usize, 1 => 1_300..1_600_usize, 1 => 3_000..9_000_usize];
    let offload = prop_oneof![
        4 => Just(Offload::None),
        1 => Just(Offload::Remark),
        2 => Just(Offload::Partial),
        1 => select(vec![0, 100, 536, 1_460, 0xffff]).prop_map(Offload::Segments),
    ];
    (flags, payload, offload).prop_map(|(flags, payload, offload)| Kind { flags, payload, offload })
}

fn changes() -> impl Strategy<Value = Change> {
    let mtus = select(vec![1_500, 9_000, 576]);
    let rest =
        (any::<bool>(), any::<bool>(), mtus, select(vec![1, 9]), any::<bool>(), any::<bool>());
    rest.prop_map(|(more, first, mtu, gateway, narrow, drained)| Change {
        more,
        first,
        mtu,
        gateway,
        narrow,
        drained,
    })
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..6_u8, 0..PORTS.len()).prop_map(|(client, service)| Step::Open { client, service }),
        1 => (4_000..4_003_u16).prop_map(|port| Step::Call { port }),
        1 => Just(Step::CallPeer),
        1 => (0..12_usize).prop_map(|flow| Step::Complaint { flow }),
        // A flow is opened, answered and gone on with more often than not.
        30 => (0..12_usize, any::<bool>(), kinds(), oddities())
            .prop_map(|(flow, back, kind, oddity)| Step::Packet { flow, back, kind, oddity }),
        2 => prop_oneof![1..50_u64, 900..30_000_u64].prop_map(Step::Wait),
        1 => changes().prop_map(Step::Reload),
        1 => select(vec![Role::Active, Role::Active, Role::Backup]).prop_map(Step::Role),
        1 => (0..8_u8).prop_map(Step::Silence),
        1 => Just(Step::Loop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nobody_can_tell_which_way_a_packet_took(
        topology in select(vec![Topology::Alone, Topology::OneOfTwo, Topology::Bridged]),
        steps in prop::collection::vec(steps(), 1..120),
    ) {
        agree(topology, &steps);
    }
}

fn ordinary(flow: usize, back: bool, flags: u8) -> Step {
    let kind = Kind { flags, payload: 8, offload: Offload::None };
    Step::Packet { flow, back, kind, oddity: Oddity::Nothing }
}

/// Otherwise the comparison would be of nothing.
#[test]
fn connections_that_go_on_take_it() {
    let mut steps: Vec<_> =
        (0..PORTS.len()).map(|service| Step::Open { client: 1, service }).collect();
    steps.push(Step::Call { port: 4_000 });
    for flow in 0..6 {
        steps.extend([ordinary(flow, true, 0x12), ordinary(flow, false, 0x10)]);
    }
    for _ in 0..10 {
        for flow in 0..6 {
            steps.extend([ordinary(flow, false, 0x10), ordinary(flow, true, 0x18)]);
        }
    }
    for topology in [Topology::Alone, Topology::OneOfTwo, Topology::Bridged] {
        assert_eq!(agree(topology, &steps), 69, "{topology:?}");
    }
}

/// A neighbour that nobody configured is forgotten when nothing has gone to it for a while.
#[test]
fn a_neighbour_that_is_used_is_kept() {
    let mut steps = vec![Step::Open { client: 5, service: 1 }];
    for _ in 0..20 {
        steps.extend([ordinary(0, true, 0), ordinary(0, false, 0), Step::Wait(4_000)]);
    }
    assert!(agree(Topology::Alone, &steps) >= 30);
}

/// A flow whose next packet is the first after a reload goes where the new table has it.
#[test]
fn a_new_table_holds_for_the_next_packet() {
    let mut steps = vec![Step::Open { client: 1, service: 0 }];
    for gateway in [1, 9, 1] {
        steps.push(Step::Reload(Change { gateway, ..Change::NONE }));
        // The new gateway is asked for, and known when the next packet comes.
        steps.extend([ordinary(0, true, 0x12), ordinary(0, false, 0x10), ordinary(0, true, 0x10)]);
    }
    agree(Topology::Alone, &steps);
    // It was known before: nothing but the table tells that it is the one now.
    let all = [1, 9, 1, 9, 1].map(|gateway| Change { gateway, ..Change::NONE });
    let later = all.into_iter().flat_map(|change| [Step::Reload(change), ordinary(0, true, 0x10)]);
    agree(Topology::Alone, &steps.into_iter().chain(later).collect::<Vec<_>>());
}

/// An answer makes the flow one of the new table, by which its client's address is no host's.
#[test]
fn nothing_comes_from_a_broadcast_address() {
    let narrow = Change { narrow: true, ..Change::NONE };
    for topology in [Topology::Alone, Topology::Bridged] {
        let mut steps = vec![Step::Open { client: 5, service: 1 }];
        steps.extend([ordinary(0, true, 0), ordinary(0, false, 0), Step::Reload(narrow)]);
        // So does a complaint, and the way to the server is known from it.
        steps.extend([ordinary(0, true, 0), Step::Complaint { flow: 0 }]);
        steps.extend([ordinary(0, false, 0), ordinary(0, false, 0)]);
        agree(topology, &steps);
    }
}

/// While the flows of a drained server are being ended, which takes several turns, a datagram is free to
/// go to another one.
#[test]
fn a_datagram_stays_with_no_server_that_is_given_up() {
    let drained = Change { drained: true, ..Change::NONE };
    let mut steps = vec![Step::Crowd(1_200), Step::Open { client: 1, service: 1 }];
    // The flow of a lower address than the crowd's comes first.
    steps.extend([ordinary(0, true, 0), ordinary(0, false, 0), Step::Reload(drained)]);
    for _ in 0..40 {
        steps.extend([ordinary(0, true, 0), ordinary(0, false, 0), Step::Wait(100)]);
    }
    assert!(agree_with(4_096, Topology::Alone, &steps) > 40);
}

/// What looks like the peer's copies is of no connection, even where a server has one that looks like it.
#[test]
fn what_the_peer_copies_is_the_routers_own() {
    let fragment = |back| {
        let kind = Kind { flags: 0, payload: 8, offload: Offload::None };
        Step::Packet { flow: 0, back, kind, oddity: Oddity::Fragment(0x20) }
    };
    let mut steps = vec![Step::CallPeer, ordinary(0, false, 0), ordinary(0, true, 0)];
    steps.extend([fragment(true), ordinary(0, true, 0), ordinary(0, true, 0)]);
    agree(Topology::OneOfTwo, &steps);
}
