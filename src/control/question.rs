//! What the control thread asks the loop, and what the loop replies. Each question is bounded work,
//! so that none makes a frame wait: long lists are asked for in parts.

use std::net::{IpAddr, SocketAddrV4};

use super::protocol::failover::Wish;
use super::protocol::{Drops, Failover, Figures, LastCheck, Neighbour, Now};
use crate::addr::{Cidr, ServerId, ServiceId};
use crate::time::Duration;

/// Places of a table that the loop looks at for one question.
pub const PLACES: usize = 1_024;

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Everything that has a fixed size.
    Status,
    /// What was dropped.
    Drops,
    /// The figures of these, [`PLACES`] at the most.
    Figures(Vec<Id>),
    /// The flows among [`PLACES`] places.
    Flows(FlowQuery),
    /// The neighbours among [`PLACES`] places from this one.
    Neighbours(usize),
    /// To give up its role, or to take part again; and how things are then.
    Failover(Wish),
}

/// Whose figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    /// A service's.
    Service(ServiceId),
    /// A server's.
    Server(ServerId),
}

/// Which flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowQuery {
    /// The first place.
    pub from: usize,
    /// Whose client lies here.
    pub client: Option<Cidr>,
    /// Of this service.
    pub service: Option<ServiceId>,
    /// To this server.
    pub server: Option<ServerFilter>,
    /// In this state.
    pub state: Option<String>,
    /// The clients that services remember, rather than flows.
    pub persistent: bool,
}

/// Which server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerFilter {
    /// One of these.
    Ids(Vec<ServerId>),
    /// What answers from here, at any port or this one.
    Address(IpAddr, Option<u16>),
}

/// A flow as the loop sees it: by id, names are the control thread's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowSeen {
    /// IP protocol number.
    pub protocol: u8,
    /// Who opened it.
    pub client: SocketAddrV4,
    /// Where to.
    pub destination: SocketAddrV4,
    /// Who answers.
    pub server: SocketAddrV4,
    /// Whose it is; `None` for what is merely routed.
    pub owner: Option<(ServiceId, ServerId)>,
    /// Its state's name.
    pub state: &'static str,
    /// Both ends have shown that they are there.
    pub assured: bool,
    /// Directly routed: the server's packets are not seen.
    pub direct: bool,
    /// How long it lives without another packet.
    pub expires: Duration,
    /// From and to the client.
    pub packets: [u32; 2],
    /// From and to the client.
    pub bytes: [u64; 2],
}

impl FlowQuery {
    /// Whether `flow` is one of those asked for.
    pub fn admits(&self, flow: &FlowSeen) -> bool {
        let Self { from: _, client, service, server, state, persistent: _ } = self;
        let owner = flow.owner;
        client.is_none_or(|prefix| prefix.contains((*flow.client.ip()).into()))
            && service.is_none_or(|id| owner.is_some_and(|(service, _)| service == id))
            && state.as_ref().is_none_or(|state| state == flow.state)
            && server.as_ref().is_none_or(|filter| match filter {
                ServerFilter::Ids(ids) => owner.is_some_and(|(_, id)| ids.contains(&id)),
                ServerFilter::Address(address, port) => {
                    IpAddr::V4(*flow.server.ip()) == *address
                        && port.is_none_or(|port| port == flow.server.port())
                }
            })
    }
}

/// A reply. Where `next` is none, there are no more places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Microseconds since the start.
    pub uptime_us: u64,
    /// What was found.
    pub found: Found,
}

/// A service or server as the loop sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What it carries.
    pub figures: Figures,
    /// Of a server that is checked.
    pub check: Option<LastCheck>,
    /// Of a server that has as many flows as it may have.
    pub is_full: bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// To [`Question::Status`].
    Status(Box<Now>),
    /// To [`Question::Drops`].
    Drops(Drops),
    /// To [`Question::Figures`], in the same order.
    Figures(Vec<Seen>),
    /// To [`Question::Flows`].
    Flows(Vec<FlowSeen>, Option<usize>),
    /// To [`Question::Neighbours`].
    Neighbours(Vec<Neighbour>, Option<usize>),
    /// To [`Question::Failover`]; `None`: there is no `[failover]`.
    Failover(Option<Box<Failover>>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> FlowSeen {
        FlowSeen {
            protocol: 6,
            client: "198.51.100.7:6000".parse().unwrap(),
            destination: "203.0.113.10:80".parse().unwrap(),
            server: "10.0.0.11:8080".parse().unwrap(),
            owner: Some((ServiceId(1), ServerId(5))),
            state: "ESTABLISHED",
            assured: true,
            direct: false,
            expires: Duration::from_secs(9),
            packets: [1, 1],
            bytes: [40, 40],
        }
    }

    #[test]
    fn filters_are_all_to_be_met() {
        let all = FlowQuery::default();
        assert!(all.admits(&flow()));
        let near = Some("198.51.100.0/24".parse().unwrap());
        let far = Some("198.51.101.0/24".parse().unwrap());
        let address = "10.0.0.11".parse().unwrap();
        let cases = [
            (FlowQuery { client: near, ..all.clone() }, true),
            (FlowQuery { client: far, ..all.clone() }, false),
            (FlowQuery { service: Some(ServiceId(1)), ..all.clone() }, true),
            (FlowQuery { service: Some(ServiceId(2)), ..all.clone() }, false),
            (FlowQuery { state: Some("ESTABLISHED".into()), ..all.clone() }, true),
            (FlowQuery { state: Some("UDP".into()), ..all.clone() }, false),
            (server(ServerFilter::Ids(vec![ServerId(4), ServerId(5)])), true),
            (server(ServerFilter::Ids(vec![])), false),
            (server(ServerFilter::Address(address, None)), true),
            (server(ServerFilter::Address(address, Some(8080))), true),
            (server(ServerFilter::Address(address, Some(80))), false),
            (FlowQuery { client: near, service: Some(ServiceId(2)), ..all }, false),
        ];
        for (query, expected) in cases {
            assert_eq!(query.admits(&flow()), expected, "{query:?}");
        }
        let routed = FlowSeen { owner: None, ..flow() };
        assert!(!server(ServerFilter::Ids(vec![ServerId(5)])).admits(&routed));
        assert!(server(ServerFilter::Address(address, None)).admits(&routed));
    }

    fn server(filter: ServerFilter) -> FlowQuery {
        FlowQuery { server: Some(filter), ..FlowQuery::default() }
    }
}
