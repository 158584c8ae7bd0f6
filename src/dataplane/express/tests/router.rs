//! A router that is held against another, and the network around it.

use std::net::{IpAddr, Ipv4Addr};

use crate::addr::{LinkId, MacAddr, Role};
use crate::config;
use crate::dataplane::{Dataplane, FlowInfo, FlowRecord, Verdict};
use crate::frame::{Arp, ETHER_TYPE_LOOP_PROBE, Frame, Operation};
use crate::table::{Ids, Standing, Table};
use crate::time::{Duration, Instant};

pub(super) const OUT: LinkId = LinkId(0);
pub(super) const IN: LinkId = LinkId(1);
pub(super) const OUT_MAC: MacAddr = MacAddr([2, 0, 0x5e, 0, 0x53, 1]);
pub(super) const IN_MAC: MacAddr = MacAddr([2, 0, 0x5e, 0, 0x53, 2]);
pub(super) const VIRTUAL_MAC: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 7]);
pub(super) const CLIENT_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub(super) const START: Instant = Instant::from_micros_const(1_000_000_000);

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
drain_timeout = "3s"
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
[failover.sync]
network = "internet"
peer = "203.0.113.3"
key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
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

/// What kind of router it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    Alone,
    OneOfTwo,
    Bridged,
}

impl Topology {
    /// Its configuration, but for the service that changes.
    pub(super) fn config(self) -> String {
        let networks = if self == Self::Bridged { BRIDGED } else { TWO };
        let pair = if self == Self::OneOfTwo { PAIR } else { "" };
        // Of a pair, servers' own connections are the router's: they leave from another MAC.
        let seen_as = if self == Self::OneOfTwo { "203.0.113.2" } else { "203.0.113.10" };
        let networks = networks.replace("to = \"203.0.113.10\"", &format!("to = \"{seen_as}\""));
        CONFIG.replace("NETWORKS", &networks) + pair
    }

    /// A real server's address.
    pub(super) const fn server(self, last: u8) -> Ipv4Addr {
        match self {
            Self::Bridged => Ipv4Addr::new(203, 0, 113, last),
            Self::Alone | Self::OneOfTwo => Ipv4Addr::new(10, 0, 0, last),
        }
    }

    fn compile(self, text: &str, old: Option<&Table>, ids: &mut Ids, is_drained: bool) -> Table {
        let text = match self {
            Self::Bridged => text.replace("\"10.0.0.", "\"203.0.113."),
            Self::Alone | Self::OneOfTwo => text.to_owned(),
        };
        let config = config::parse(&text).unwrap_or_else(|m| panic!("{}", m.display("generated")));
        let drained = IpAddr::V4(self.server(11));
        Table::compile(&config, old, ids, |_, server| Standing {
            is_drained: is_drained && server.endpoint.address == drained,
            ..Standing::GOOD
        })
    }
}

/// What is different in another table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// The service has its second server.
    pub(super) more: bool,
    /// The first server is not another one.
    pub(super) first: bool,
    /// Of the network that the servers are in.
    pub(super) mtu: u16,
    /// The last byte of the gateway's address.
    pub(super) gateway: u8,
    /// The first network is smaller.
    pub(super) narrow: bool,
    /// An operator drains the first server.
    pub(super) drained: bool,
}

impl Change {
    /// The table of the start.
    pub(super) const NONE: Self =
        Self { more: false, first: true, mtu: 1_500, gateway: 1, narrow: false, drained: false };
}

/// One router, and whether it may take the short way.
pub(super) struct Router {
    pub(super) table: Table,
    pub(super) ids: Ids,
    pub(super) dataplane: Dataplane,
    pub(super) is_express: bool,
    /// Packets that took it.
    pub(super) express: u32,
    pub(super) silent: bool,
    pub(super) topology: Topology,
    /// The last frame that is to find loops, and where it left.
    pub(super) probe: Option<(LinkId, Vec<u8>)>,
}

impl Router {
    pub(super) fn new(topology: Topology, max_flows: usize, is_express: bool) -> Self {
        let mut ids = Ids::default();
        let table = topology.compile(&(topology.config() + FEW), None, &mut ids, false);
        let dataplane = Dataplane::new(&table, *b"both have the sa", max_flows, START);
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

    pub(super) fn handle(&mut self, link: LinkId, frame: &mut Frame, now: Instant) -> Verdict {
        if !self.is_express {
            self.dataplane.counters.received += 1;
            return self.dataplane.decide(&self.table, link, frame, now);
        }
        let mut copy = Frame::new();
        copy.copy_of(frame);
        // What the long way does first.
        let is_accepted = copy.accept().is_ok();
        let before = self.dataplane.counters.clone();
        if let Some(egress) = self.dataplane.express(&self.table, link, frame, now) {
            self.express += 1;
            self.dataplane.counters.received += 1;
            return Verdict::Forward(egress);
        }
        assert_eq!(frame.bytes(), copy.bytes(), "it was left alone");
        let mut left = Frame::new();
        left.copy_of(frame);
        assert!(!is_accepted || left.accept().is_ok() && left.header() == copy.header());
        assert_eq!(self.dataplane.counters, before);
        self.dataplane.handle_frame(&self.table, link, frame, now)
    }

    /// What it sends by itself; questions are answered by whoever is asked.
    pub(super) fn tend(&mut self, now: Instant) -> Vec<(LinkId, Vec<u8>)> {
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
            let mac = match arp.target.octets() {
                // Another gateway is another station.
                [.., 9] => MacAddr([2, 0, 0, 0, 0, 99]),
                _ if is_client => CLIENT_MAC,
                _ => server_mac(arp.target),
            };
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

    pub(super) fn reload(&mut self, change: Change, now: Instant) {
        let Change { more, first, mtu, gateway, narrow, drained } = change;
        let mtu = format!("mac = \"{IN_MAC}\"\nmtu = {mtu}");
        let text = self.topology.config().replace(&format!("mac = \"{IN_MAC}\""), &mtu);
        let text = text.replace("\"203.0.113.1\"", &format!("\"203.0.113.{gateway}\""));
        let text = if narrow { text.replace("113.2/24", "113.2/26") } else { text };
        let text = text + FEW + if more { MORE } else { "" };
        // Whose connections are ended.
        let text = if first { text } else { text.replace("0.0.11\"", "0.0.13\"") };
        let new = self.topology.compile(&text, Some(&self.table), &mut self.ids, drained);
        self.dataplane.handle_table(&self.table, &new, now);
        self.table = new;
    }

    /// One of its flows.
    pub(super) fn flow(&self, number: usize, now: Instant) -> Option<FlowInfo> {
        let places = 0..self.dataplane.flow_places();
        let mut flows: Vec<_> =
            self.dataplane.flows_in(places, now).map(|(flow, _)| flow).collect();
        flows.sort_by_key(|flow| (flow.original.source, flow.original.source_port));
        let count = flows.len().max(1);
        flows.into_iter().nth(number % count)
    }

    /// Everything that can be seen of it.
    pub(super) fn state(&mut self, now: Instant) -> String {
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

    pub(super) fn is_server(&self, address: Ipv4Addr) -> bool {
        [11, 12, 13].map(|last| self.topology.server(last)).contains(&address)
    }

    pub(super) fn mac(&self, link: LinkId) -> MacAddr {
        match link {
            _ if self.topology == Topology::OneOfTwo => VIRTUAL_MAC,
            OUT if self.topology == Topology::Alone => OUT_MAC,
            _ => IN_MAC,
        }
    }
}

pub(super) fn server_mac(address: Ipv4Addr) -> MacAddr {
    MacAddr([2, 0, 0, 1, 0, address.octets()[3]])
}
