use std::net::Ipv4Addr;

use proptest::prelude::*;
use proptest::sample::select;

use crate::addr::{LinkId, MacAddr, Role};
use crate::config;
use crate::dataplane::{Dataplane, FlowInfo, FlowRecord, Verdict};
use crate::frame::{
    Arp, ETHER_TYPE_LOOP_PROBE, Frame, IP, Operation, TCP, UDP, VirtioHeader, checksum, set_macs,
};
use crate::table::{Ids, Standing, Table};
use crate::time::{Duration, Instant};

const OUT: LinkId = LinkId(0);
const IN: LinkId = LinkId(1);
const OUT_MAC: MacAddr = MacAddr([2, 0, 0x5e, 0, 0x53, 1]);
const IN_MAC: MacAddr = MacAddr([2, 0, 0x5e, 0, 0x53, 2]);
const VIRTUAL_MAC: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 7]);
const CLIENT_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const START: Instant = Instant::from_micros_const(1_000_000_000);

/// Everything that a flow can be: translated or not, helped, for one datagram, masqueraded.
const CONFIG: &str = r#"
[router.timeouts]
established = "60s"
udp = "20s"

NETWORKS

[[virtual_ip]]
address = "203.0.113.10"
network = "internet"

[[service]]
protocol = "udp"
address = "203.0.113.10"
port = 5000
on_remove = "reset"
persistence = { timeout = "5s" }
[[service.server]]
address = "10.0.0.11"
port = 5001

[[service]]
protocol = "tcp"
address = "203.0.113.10"
port = 21
helper = "ftp"
[[service.server]]
address = "10.0.0.12"

[[service]]
protocol = "udp"
address = "203.0.113.10"
port = 53
one_packet = true
[[service.server]]
address = "10.0.0.12"

[[service]]
protocol = "tcp"
address = "203.0.113.10"
port = 8080
method = "direct"
[[service.server]]
address = "10.0.0.11"
"#;

/// Clients here, servers there.
const TWO: &str = r#"
[[network]]
name = "internet"
links = ["tapvs0"]
addresses = ["203.0.113.2/24"]
gateway = "203.0.113.1"
mac = "02:00:5e:00:53:01"

[[network]]
name = "servers"
links = ["tapvs1"]
addresses = ["10.0.0.2/24"]
mac = "02:00:5e:00:53:02"

[[masquerade]]
from = "10.0.0.0/24"
to = "203.0.113.10"
"#;

/// All in one network, the servers behind another link than the gateway.
const BRIDGED: &str = r#"
[[network]]
name = "internet"
links = ["tapvs0", "tapvs1"]
addresses = ["203.0.113.2/24"]
gateway = "203.0.113.1"
mac = "02:00:5e:00:53:02"
"#;

const PAIR: &str = r#"
[failover]
[[failover.network]]
network = "internet"
virtual_router_id = 7
[[failover.network]]
network = "servers"
virtual_router_id = 7
"#;

const FEW: &str = r#"
[[service]]
protocol = "tcp"
address = "203.0.113.10"
port = 80
on_remove = "reset"
[[service.server]]
address = "10.0.0.11"
"#;

const MORE: &str = r#"
[[service.server]]
address = "10.0.0.12"
"#;

/// The ports that clients ask for.
const PORTS: [(u8, u16); 5] = [(TCP, 80), (UDP, 5_000), (TCP, 21), (UDP, 53), (TCP, 8_080)];

/// What kind of router it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topology {
    Alone,
    OneOfTwo,
    Bridged,
}

impl Topology {
    /// Its configuration, but for the service that changes.
    fn config(self) -> String {
        let networks = if self == Self::Bridged { BRIDGED } else { TWO };
        let pair = if self == Self::OneOfTwo { PAIR } else { "" };
        // Of a pair, servers' own connections are the router's: they leave from another MAC.
        let seen_as = if self == Self::OneOfTwo { "203.0.113.2" } else { "203.0.113.10" };
        let networks = networks.replace("to = \"203.0.113.10\"", &format!("to = \"{seen_as}\""));
        CONFIG.replace("NETWORKS", &networks) + pair
    }

    /// A real server's address.
    const fn server(self, last: u8) -> Ipv4Addr {
        match self {
            Self::Bridged => Ipv4Addr::new(203, 0, 113, last),
            Self::Alone | Self::OneOfTwo => Ipv4Addr::new(10, 0, 0, last),
        }
    }

    fn compile(self, text: &str, old: Option<&Table>, ids: &mut Ids) -> Table {
        let text = match self {
            Self::Bridged => text.replace("\"10.0.0.", "\"203.0.113."),
            Self::Alone | Self::OneOfTwo => text.to_owned(),
        };
        let config = config::parse(&text).unwrap_or_else(|m| panic!("{}", m.display("generated")));
        Table::compile(&config, old, ids, |_, _| Standing::GOOD)
    }
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// Client `client` opens a connection to a service.
    Open { client: u8, service: usize },
    /// A server calls somebody.
    Call { port: u16 },
    /// A packet of one of the flows there are.
    Packet { flow: usize, back: bool, kind: Kind, oddity: Oddity },
    /// Time passes, in milliseconds.
    Wait(u64),
    /// Another table comes: with or without the second server, with the first one or another, and with
    /// this MTU among the servers.
    Reload { more: bool, first: bool, mtu: u16 },
    /// The role changes.
    Role(Role),
    /// The servers fall silent for so many seconds.
    Silence(u8),
    /// What a bridge sent by one link to find loops comes back by the other, which is shut for that.
    Loop,
}

/// What a packet of a flow is like.
#[derive(Clone, Copy, Debug)]
struct Kind {
    flags: u8,
    payload: usize,
    offload: Offload,
}

#[derive(Clone, Copy, Debug)]
enum Offload {
    None,
    /// The kernel's remark that a checksum was right.
    Remark,
    Partial,
    /// Segments of so many bytes.
    Segments(u16),
}

/// What is odd about it.
#[derive(Clone, Copy, Debug)]
enum Oddity {
    Nothing,
    Ttl(u8),
    Checksum,
    Fragment(u8),
    /// The length of its header, in double words.
    Header(u8),
    TotalLen(u16),
    Padding(usize),
    Cut(usize),
    To(MacAddr),
    From(MacAddr),
    OtherLink,
    Source([u8; 4]),
    SamePorts,
}

/// One router, and whether it may take the short way.
struct Router {
    table: Table,
    ids: Ids,
    dataplane: Dataplane,
    is_express: bool,
    /// Packets that took it.
    express: u32,
    silent: bool,
    topology: Topology,
    /// The last frame that is to find loops, and where it left.
    probe: Option<(LinkId, Vec<u8>)>,
}

impl Router {
    fn new(topology: Topology, is_express: bool) -> Self {
        let mut ids = Ids::default();
        let table = topology.compile(&(topology.config() + FEW), None, &mut ids);
        let dataplane = Dataplane::new(&table, *b"both have the sa", 64, START);
        let mut router = Self {
            table,
            ids,
            dataplane,
            is_express,
            express: 0,
            silent: false,
            topology,
            probe: None,
        };
        router.dataplane.handle_role(&router.table, Role::Active, START);
        router.dataplane.copy_changes(true);
        router
    }

    fn handle(&mut self, link: LinkId, frame: &mut Frame, now: Instant) -> Verdict {
        if !self.is_express {
            self.dataplane.counters.received += 1;
            let verdict = self.dataplane.decide(&self.table, link, frame, now);
            self.dataplane.count_verdict(&self.table, link, verdict);
            return verdict;
        }
        let mut copy = Frame::new();
        copy.copy_of(frame);
        // What the long way does first.
        let is_accepted = copy.accept().is_ok();
        let before = self.dataplane.counters.clone();
        if let Some(verdict) = self.dataplane.express(&self.table, link, frame, now) {
            self.express += 1;
            self.dataplane.counters.received += 1;
            self.dataplane.count_verdict(&self.table, link, verdict);
            return verdict;
        }
        assert_eq!(frame.bytes(), copy.bytes(), "it was left alone");
        let mut left = Frame::new();
        left.copy_of(frame);
        assert!(!is_accepted || left.accept().is_ok() && left.header() == copy.header());
        assert_eq!(self.dataplane.counters, before);
        self.dataplane.handle_frame(&self.table, link, frame, now)
    }

    /// What it sends by itself; questions are answered by whoever is asked.
    fn tend(&mut self, now: Instant) -> Vec<(LinkId, Vec<u8>)> {
        self.dataplane.handle_timeout(&self.table, now);
        let (mut all, mut out) = (Vec::new(), Frame::new());
        while let Some(link) = self.dataplane.poll_transmit(&self.table, &mut out, now) {
            all.push((link, out.bytes().to_vec()));
            if out.bytes()[12..14] == ETHER_TYPE_LOOP_PROBE.to_be_bytes() {
                self.probe = all.last().cloned();
            }
            let Some(arp) = Arp::parse(out.bytes()) else { continue };
            let is_question = arp.operation == Operation::Request && !arp.is_announcement();
            if !is_question || self.silent && self.is_server(arp.target) {
                continue;
            }
            let is_client = link == OUT && !self.is_server(arp.target);
            let mac = if is_client { CLIENT_MAC } else { server_mac(arp.target) };
            let link = if is_client { OUT } else { IN };
            let answer = Arp {
                operation: Operation::Reply,
                sender_mac: mac,
                sender: arp.target,
                target_mac: arp.sender_mac,
                target: arp.sender,
            };
            answer.build(arp.sender_mac, &mut out);
            self.dataplane.handle_frame(&self.table, link, &mut out, now);
        }
        all
    }

    fn reload(&mut self, more: bool, first: bool, mtu: u16, now: Instant) {
        let mtu = format!("mac = \"{IN_MAC}\"\nmtu = {mtu}");
        let text = self.topology.config().replace(&format!("mac = \"{IN_MAC}\""), &mtu);
        let text = text + FEW + if more { MORE } else { "" };
        // Whose connections are ended.
        let text = if first { text } else { text.replace("0.0.11\"", "0.0.13\"") };
        let new = self.topology.compile(&text, Some(&self.table), &mut self.ids);
        self.dataplane.handle_table(&self.table, &new, now);
        self.table = new;
    }

    /// Everything that can be seen of it.
    fn state(&mut self, now: Instant) -> String {
        let flows: Vec<_> = self.dataplane.flows_in(0..self.dataplane.flow_places(), now).collect();
        let neighbours: Vec<_> =
            self.dataplane.neighbours_in(0..self.dataplane.neighbour_places()).collect();
        let report = self.dataplane.report(&self.table, now);
        let events: Vec<_> = std::iter::from_fn(|| self.dataplane.poll_event()).collect();
        let network = self.table.networks()[0].id;
        let macs = [CLIENT_MAC, server_mac(self.topology.server(11))];
        let ageing = Duration::from_secs(20);
        let stations = macs.map(|mac| self.dataplane.stations.find(network, mac, ageing, now));
        let (due, mut record) = (self.dataplane.poll_timeout(), FlowRecord::default());
        let mut copied = Vec::new();
        while let Some(change) = self.dataplane.next_change(now, &mut record) {
            copied.push((change, format!("{record:?}")));
        }
        format!(
            "{due:?} {copied:?} {stations:?} {flows:#?}\n{neighbours:?}\n{report:?}\n{events:?}"
        )
    }

    fn is_server(&self, address: Ipv4Addr) -> bool {
        [11, 12, 13].map(|last| self.topology.server(last)).contains(&address)
    }

    fn mac(&self, link: LinkId) -> MacAddr {
        match link {
            _ if self.topology == Topology::OneOfTwo => VIRTUAL_MAC,
            OUT if self.topology == Topology::Alone => OUT_MAC,
            _ => IN_MAC,
        }
    }
}

fn server_mac(address: Ipv4Addr) -> MacAddr {
    MacAddr([2, 0, 0, 1, 0, address.octets()[3]])
}

/// A packet as `kind` says, with right lengths and checksums.
fn packet(
    (source, source_port): (Ipv4Addr, u16),
    (destination, destination_port): (Ipv4Addr, u16),
    protocol: u8,
    kind: Kind,
) -> Vec<u8> {
    let header_len = if protocol == TCP { 20 } else { 8 };
    let mut segment = vec![0x5a; header_len + kind.payload];
    segment[..2].copy_from_slice(&source_port.to_be_bytes());
    segment[2..4].copy_from_slice(&destination_port.to_be_bytes());
    let sum_at = if protocol == TCP {
        // Whoever gets it has said 9 before.
        segment[4..12].copy_from_slice(&[0, 0, 0, 9, 0, 0, 0, 10]);
        segment[12..14].copy_from_slice(&[0x50, kind.flags]);
        16
    } else {
        let len = u16::try_from(segment.len()).unwrap();
        segment[4..6].copy_from_slice(&len.to_be_bytes());
        6
    };
    segment[sum_at..sum_at + 2].fill(0);
    let (from, to) = (source.octets(), destination.octets());
    let sum = checksum::of_segment(from, to, protocol, &segment);
    segment[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    let mut bytes = vec![0; IP];
    bytes[12] = 8;
    let total_len = u16::try_from(20 + segment.len()).unwrap().to_be_bytes();
    bytes.extend([0x45, 0, total_len[0], total_len[1], 0, 7, 0, 0, 64, protocol, 0, 0]);
    bytes.extend(from);
    bytes.extend(to);
    bytes.extend(segment);
    mend(&mut bytes);
    bytes
}

/// Puts the checksum of the IPv4 header right.
fn mend(bytes: &mut [u8]) {
    bytes[IP + 10..IP + 12].fill(0);
    let sum = checksum::of(&bytes[IP..IP + 20]);
    bytes[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
}

fn make_odd(bytes: &mut Vec<u8>, oddity: Oddity) {
    match oddity {
        Oddity::Ttl(ttl) => bytes[IP + 8] = ttl,
        Oddity::Checksum => {}
        Oddity::Fragment(high) => bytes[IP + 6] = high,
        Oddity::Header(len) => bytes[IP] = 0x40 | len,
        Oddity::TotalLen(len) => bytes[IP + 2..IP + 4].copy_from_slice(&len.to_be_bytes()),
        Oddity::Source(source) => bytes[IP + 12..IP + 16].copy_from_slice(&source),
        Oddity::SamePorts => bytes.copy_within(IP + 20..IP + 22, IP + 22),
        Oddity::Padding(len) => return bytes.resize(bytes.len() + len, 0xaa),
        Oddity::Cut(len) => return bytes.truncate(bytes.len().saturating_sub(len)),
        Oddity::To(mac) => bytes[..6].copy_from_slice(&mac.0),
        Oddity::From(mac) => bytes[6..12].copy_from_slice(&mac.0),
        Oddity::Nothing | Oddity::OtherLink => {}
    }
    mend(bytes);
    if matches!(oddity, Oddity::Checksum) {
        bytes[IP + 10] ^= 0x40;
    }
}

/// The virtio-net header that goes with it.
fn header(offload: Offload, protocol: u8) -> VirtioHeader {
    let csum_offset = if protocol == TCP { 16 } else { 6 };
    let partial = VirtioHeader { flags: 1, csum_start: 34, csum_offset, ..VirtioHeader::default() };
    match offload {
        Offload::None => VirtioHeader::default(),
        Offload::Remark => VirtioHeader { flags: 2, hdr_len: 54, ..VirtioHeader::default() },
        Offload::Partial => partial,
        Offload::Segments(gso_size) => {
            let gso_type = if protocol == TCP { 1 } else { 5 };
            VirtioHeader { gso_type, gso_size, hdr_len: 99, ..partial }
        }
    }
}

/// The frames of a step, for a router in this state.
fn frames(router: &Router, step: &Step, now: Instant) -> Option<(LinkId, Frame)> {
    let plain = Kind { flags: 0x02, payload: 8, offload: Offload::None };
    // The last one is a neighbour that nobody configured.
    let client = |n: u8| match n {
        5 => Ipv4Addr::new(203, 0, 113, 50),
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
        Step::Packet { flow, back, kind, oddity } => {
            let mut flows: Vec<FlowInfo> = router
                .dataplane
                .flows_in(0..router.dataplane.flow_places(), now)
                .map(|(flow, _)| flow)
                .collect();
            flows.sort_by_key(|flow| (flow.original.source, flow.original.source_port));
            let flow = flows.get(flow % flows.len().max(1))?;
            let tuple = if back { flow.reply } else { flow.original };
            let from_client = back != (flow.original.destination == VIP);
            let (from, to) =
                ((tuple.source, tuple.source_port), (tuple.destination, tuple.destination_port));
            let bytes = packet(from, to, tuple.protocol, kind);
            (if from_client { OUT } else { IN }, bytes, kind, oddity)
        }
        Step::Wait(_) | Step::Role(_) | Step::Reload { .. } | Step::Silence(_) | Step::Loop => {
            return None;
        }
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
    let mut routers = [true, false].map(|is_express| Router::new(topology, is_express));
    let mut now = START;
    let mut all: Vec<Step> = (0..20).map(|_| Step::Wait(100)).collect();
    all.extend_from_slice(steps);
    for step in &all {
        match *step {
            Step::Wait(millis) => now += Duration::from_millis(millis),
            Step::Reload { more, first, mtu } => {
                routers.iter_mut().for_each(|router| router.reload(more, first, mtu, now));
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
            Step::Open { .. } | Step::Call { .. } | Step::Packet { .. } => {
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

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..6_u8, 0..PORTS.len()).prop_map(|(client, service)| Step::Open { client, service }),
        1 => (4_000..4_003_u16).prop_map(|port| Step::Call { port }),
        // A flow is opened, answered and gone on with more often than not.
        30 => (0..12_usize, any::<bool>(), kinds(), oddities())
            .prop_map(|(flow, back, kind, oddity)| Step::Packet { flow, back, kind, oddity }),
        2 => prop_oneof![1..50_u64, 900..30_000_u64].prop_map(Step::Wait),
        1 => (any::<bool>(), any::<bool>(), select(vec![1_500, 9_000, 576]))
            .prop_map(|(more, first, mtu)| Step::Reload { more, first, mtu }),
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
