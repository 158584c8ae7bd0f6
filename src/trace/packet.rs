//! What a filter and a line need to know of a packet's bytes.

use std::net::Ipv4Addr;

use super::filter::Protocol;
use super::record::FlowSeen;
use crate::addr::{Proto, ServiceId};
use crate::dataplane::{Dataplane, Direction, FlowInfo, Tuple};
use crate::frame::{Carries, Glance, ICMP, Icmp, TCP, UDP};
use crate::table::Table;
use crate::time::Instant;

/// A packet's addresses, as far as it has any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) protocol: Option<Protocol>,
    /// Source and destination.
    pub(super) ends: Option<[Ipv4Addr; 2]>,
    pub(super) ports: Option<[u16; 2]>,
    /// What its flow is found by.
    tuple: Option<Tuple>,
    /// It opens a connection, perhaps in the place of one that is over.
    pub(super) opens: bool,
}

impl Packet {
    pub(super) fn of(glance: &Glance) -> Self {
        match glance {
            Glance::Runt | Glance::Other(_) => Self::default(),
            Glance::Ipv6 { .. } => Self { protocol: Some(Protocol::Ipv6), ..Self::default() },
            Glance::Arp(arp) => Self {
                protocol: Some(Protocol::Arp),
                ends: Some([arp.sender, arp.target]),
                ..Self::default()
            },
            Glance::Ipv4(packet) => {
                let (protocol, source, destination) =
                    (packet.protocol, packet.source, packet.destination);
                let tuple = |[source_port, destination_port]: [u16; 2]| Tuple {
                    source,
                    destination,
                    source_port,
                    destination_port,
                    protocol,
                };
                let tuple = match packet.carries {
                    Carries::Tcp { ports, .. } | Carries::Udp { ports, .. } => Some(tuple(ports)),
                    Carries::Icmp { icmp, quoted, .. } => match (icmp.kind, quoted) {
                        (Icmp::ECHO_REQUEST, _) => Some(tuple([icmp.identifier, 0])),
                        (Icmp::ECHO_REPLY, _) => Some(tuple([0, icmp.identifier])),
                        // An error comes from where the quoted packet went.
                        (_, Some(quoted)) => Some(Tuple {
                            source: quoted.destination,
                            destination: quoted.source,
                            source_port: quoted.ports[1],
                            destination_port: quoted.ports[0],
                            protocol: quoted.protocol,
                        }),
                        (_, None) => None,
                    },
                    Carries::Other => None,
                };
                let flags = match packet.carries {
                    Carries::Tcp { flags, .. } => flags,
                    Carries::Udp { .. } | Carries::Icmp { .. } | Carries::Other => 0,
                };
                Self {
                    protocol: Some(Protocol::Ip(protocol)),
                    ends: Some([source, destination]),
                    ports: packet.ports(),
                    tuple,
                    opens: flags & 0x02 != 0,
                }
            }
        }
    }

    /// The flow of a packet that came in, with how many packets it has had.
    pub(super) fn flow(&self, dataplane: &Dataplane, now: Instant) -> Option<(FlowSeen, u64)> {
        let tuple = self.tuple?;
        let (flow, direction) = dataplane.flow_with(tuple, now)?;
        // A question is no answer: an echo's missing port looks like the identifier 0.
        let reversed = tuple == flow.reply && tuple.protocol == ICMP && tuple.destination_port == 0;
        (!reversed || direction == Direction::Original).then(|| seen(&flow, direction))
    }

    /// The flow of a packet that leaves, translated already.
    pub(super) fn flow_left(&self, dataplane: &Dataplane, now: Instant) -> Option<FlowSeen> {
        let tuple = self.tuple?;
        let found = dataplane.flow_with(tuple.reversed(), now);
        let found = found.map(|(flow, direction)| (flow, opposite(direction)));
        // A directly routed packet leaves as it came.
        let found = found.or_else(|| dataplane.flow_with(tuple, now));
        found.map(|(flow, direction)| seen(&flow, direction).0)
    }

    /// The service at one of its ends.
    pub(super) fn service(&self, table: &Table) -> Option<ServiceId> {
        let tuple = self.tuple?;
        let proto = match tuple.protocol {
            TCP => Proto::Tcp,
            UDP => Proto::Udp,
            _ => return None,
        };
        let to = table.service(proto, tuple.destination, tuple.destination_port);
        let from = || table.service(proto, tuple.source, tuple.source_port);
        to.or_else(from).map(|service| service.id)
    }
}

const fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Original => Direction::Reply,
        Direction::Reply => Direction::Original,
    }
}

fn seen(flow: &FlowInfo, direction: Direction) -> (FlowSeen, u64) {
    let FlowInfo { original, reply, state, direct, owner, packets, .. } = *flow;
    let seen = FlowSeen { original, reply, state, direction, direct, owner, new: false };
    (seen, u64::from(packets[0]) + u64::from(packets[1]))
}
