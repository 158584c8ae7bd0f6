//! A flow as one router tells another of it: 40 bytes, big-endian, the same from any two routers
//! that forward it alike. No byte is believed unread, none is left over.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | version, 1 |
//! | 1 | 1: the flow is as follows; 2: it is gone, and all that follows its first tuple is zero; 3 and 4: see below; \
//!     5 and 6, of version 2: see [`ftp`] |
//! | 2 | IP protocol |
//! | 3 | method: 0 routed, 1 NAT, 2 direct, 3 masqueraded |
//! | 4 | state, by its number in Linux IPVS |
//! | 5 | flags: 1 assured, 2 the server's SYN was seen, 4 reset by the client, 8 by the server |
//! | 6-7 | zero |
//! | 8-19 | original tuple: source, destination, ports |
//! | 20-31 | reply tuple: the server, whom it answers, ports |
//! | 32-35 | how long it lives without another packet, in milliseconds |
//! | 36-39 | the sequence number of the server's SYN |
//!
//! The service is where the original tuple goes, the server where the reply tuple comes from.
//!
//! A client that is remembered (3), or is no more (4):
//!
//! | bytes | what |
//! |---|---|
//! | 2 | its service's protocol |
//! | 3 | how many bits of an address make a client |
//! | 4-7 | zero |
//! | 8-19 | the client, its service's address, the last of its ports, the first |
//! | 20-31 | its server's address, zero, its server's port, zero; all zero for one that is no more |
//! | 32-35 | how long it is remembered, in milliseconds; zero for one that is no more |
//! | 36-39 | zero |

mod ftp;

use std::net::Ipv4Addr;
use std::ops::Deref;

use super::super::flow::{Direction, Flow, State, Tuple};
use super::super::is_host;
use super::super::persistence::ServiceKey;
use super::ImportError;
use crate::addr::{Ports, Proto};
use crate::frame::{ICMP, TCP, UDP};

pub(super) use ftp::{Control, Data};

/// How long a record of version 1 is, in bytes.
pub const FLOW_RECORD: usize = 40;
/// How long the longest record is, in bytes.
pub const LONGEST_FLOW_RECORD: usize = ftp::LONGEST;

const VERSION: u8 = 1;
const PRESENT: u8 = 1;
const GONE: u8 = 2;
const REMEMBERED: u8 = 3;
const FORGOTTEN: u8 = 4;
const ASSURED: u8 = 1;
const SERVER_SYN_SEEN: u8 = 2;
const RESET_BY_CLIENT: u8 = 4;
const RESET_BY_SERVER: u8 = 8;
/// Twice the week that a configuration can ask for.
const MOST_REMEMBERED: u32 = 2 * 7 * 24 * 60 * 60 * 1_000;
/// Twice what a configuration can ask for.
const MOST_LEFT: u32 = 2 * 24 * 60 * 60 * 1_000;
/// Linux's numbers of the TCP states, by position (`enum ip_vs_tcp_states`).
const TCP_STATES: [State; 9] = [
    State::None,
    State::Established,
    State::SynSent,
    State::SynRecv,
    State::FinWait,
    State::TimeWait,
    State::Close,
    State::CloseWait,
    State::LastAck,
];

/// What happens to a flow's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Routed,
    Nat,
    Direct,
    Masqueraded,
}

impl Method {
    const ALL: [Self; 4] = [Self::Routed, Self::Nat, Self::Direct, Self::Masqueraded];

    pub(super) const fn of(flow: &Flow) -> Self {
        if flow.is_masqueraded() {
            Self::Masqueraded
        } else if flow.direct {
            Self::Direct
        } else if flow.is_served() {
            Self::Nat
        } else {
            Self::Routed
        }
    }

    /// Whether it is a service's.
    pub(super) const fn is_served(self) -> bool {
        matches!(self, Self::Nat | Self::Direct)
    }
}

/// A flow as it was when it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) original: Tuple,
    pub(super) reply: Tuple,
    pub(super) method: Method,
    pub(super) state: State,
    pub(super) assured: bool,
    pub(super) server_syn_seen: bool,
    pub(super) reset_by: Option<Direction>,
    pub(super) server_syn: u32,
    /// In milliseconds.
    pub(super) left: u32,
}

impl Snapshot {
    pub(super) const fn of(flow: &Flow, left: u32) -> Self {
        Self {
            original: flow.original,
            reply: flow.reply,
            method: Method::of(flow),
            state: flow.state,
            assured: flow.assured,
            server_syn_seen: flow.server_syn_seen,
            reset_by: flow.reset_by,
            server_syn: flow.server_syn,
            left,
        }
    }
}

/// Room for a record, which dereferences to its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    bytes: [u8; LONGEST_FLOW_RECORD],
    len: usize,
}

impl Default for FlowRecord {
    /// No record.
    fn default() -> Self {
        Self { bytes: [0; LONGEST_FLOW_RECORD], len: 0 }
    }
}

impl Deref for FlowRecord {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What one router says to another about a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, on the stack")]
pub(super) enum Record {
    Present(Snapshot),
    Gone(Tuple),
    Remembered(Remembered),
    Forgotten(ClientName),
    /// The flow, which was told of before, is a control connection of FTP.
    Control(Control),
    /// The flow, which was told of before, is a data connection of FTP.
    Data(Data),
}

/// Which client of which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientName {
    pub(super) key: ServiceKey,
    /// Host bits cleared.
    pub(super) address: Ipv4Addr,
    pub(super) prefix: u8,
}

/// What is remembered of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) name: ClientName,
    pub(super) server: Ipv4Addr,
    /// 0: the one that the client's packet goes to.
    pub(super) port: u16,
    /// In milliseconds.
    pub(super) left: u32,
}

impl Record {
    pub(super) fn write(&self, record: &mut FlowRecord) {
        *record = FlowRecord { len: FLOW_RECORD, ..FlowRecord::default() };
        record.bytes[0] = VERSION;
        let Some(to) = record.bytes.first_chunk_mut::<FLOW_RECORD>() else { return };
        match self {
            Self::Control(control) => record.len = control.write(&mut record.bytes),
            Self::Data(data) => record.len = data.write(&mut record.bytes),
            Self::Present(flow) => {
                to[1] = PRESENT;
                to[2] = flow.original.protocol;
                to[3] = flow.method as u8;
                let number = TCP_STATES.iter().position(|state| *state == flow.state);
                // Those of UDP and ICMP have one state each.
                to[4] = number.and_then(|number| u8::try_from(number).ok()).unwrap_or(0);
                to[5] = flags(flow);
                write_tuple(&mut to[8..20], flow.original);
                write_tuple(&mut to[20..32], flow.reply);
                to[32..36].copy_from_slice(&flow.left.clamp(1, MOST_LEFT).to_be_bytes());
                to[36..40].copy_from_slice(&flow.server_syn.to_be_bytes());
            }
            Self::Gone(original) => {
                to[1] = GONE;
                to[2] = original.protocol;
                write_tuple(&mut to[8..20], *original);
            }
            Self::Remembered(client) => {
                to[1] = REMEMBERED;
                write_client(to, &client.name);
                to[20..24].copy_from_slice(&client.server.octets());
                to[28..30].copy_from_slice(&client.port.to_be_bytes());
                to[32..36].copy_from_slice(&client.left.clamp(1, MOST_REMEMBERED).to_be_bytes());
            }
            Self::Forgotten(name) => {
                to[1] = FORGOTTEN;
                write_client(to, name);
            }
        }
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, ImportError> {
        match bytes.first() {
            None => return Err(ImportError::Malformed),
            Some(&VERSION) => {}
            Some(&ftp::VERSION) => return ftp::read(bytes).ok_or(ImportError::Malformed),
            Some(_) => return Err(ImportError::UnknownVersion),
        }
        let record = <&[u8; FLOW_RECORD]>::try_from(bytes).ok().and_then(read);
        record.ok_or(ImportError::Malformed)
    }
}

fn read(bytes: &[u8; FLOW_RECORD]) -> Option<Record> {
    if matches!(bytes[1], REMEMBERED | FORGOTTEN) {
        return read_client(bytes);
    }
    let protocol = bytes[2];
    let original = read_tuple(&bytes[8..20], protocol)?;
    if bytes[6..8] != [0; 2] || original.protocol == ICMP && original.destination_port != 0 {
        return None;
    }
    match bytes[1] {
        PRESENT => {}
        GONE => {
            let rest = bytes[3..8].iter().chain(&bytes[20..]);
            return rest.into_iter().all(|byte| *byte == 0).then_some(Record::Gone(original));
        }
        _ => return None,
    }
    let reply = read_tuple(&bytes[20..32], protocol)?;
    let method = *Method::ALL.get(usize::from(bytes[3]))?;
    let state = match (protocol, bytes[4]) {
        (TCP, number) => *TCP_STATES.get(usize::from(number))?,
        (_, 0) => State::initial(protocol),
        _ => return None,
    };
    let reset_by = match bytes[5] & !(ASSURED | SERVER_SYN_SEEN) {
        0 => None,
        RESET_BY_CLIENT => Some(Direction::Original),
        RESET_BY_SERVER => Some(Direction::Reply),
        _ => return None,
    };
    let [left, server_syn] = [32, 36].map(|at| read_u32(&bytes[at..at + 4]));
    let server_syn_seen = bytes[5] & SERVER_SYN_SEEN != 0;
    let knows_tcp = server_syn_seen || reset_by.is_some() || server_syn? != 0;
    let is_possible = are_one_flow(original, reply, method)
        && (1..=MOST_LEFT).contains(&left?)
        && (protocol == TCP || !knows_tcp);
    is_possible.then_some(Record::Present(Snapshot {
        original,
        reply,
        method,
        state,
        assured: bytes[5] & ASSURED != 0,
        server_syn_seen,
        reset_by,
        server_syn: server_syn?,
        left: left?,
    }))
}

fn write_client(to: &mut [u8; FLOW_RECORD], name: &ClientName) {
    let ClientName { key: (proto, service, ports), address, prefix } = *name;
    to[2] = proto.number();
    to[3] = prefix;
    to[8..12].copy_from_slice(&address.octets());
    to[12..16].copy_from_slice(&service.octets());
    to[16..18].copy_from_slice(&ports.last.to_be_bytes());
    to[18..20].copy_from_slice(&ports.first.to_be_bytes());
}

fn read_client(bytes: &[u8; FLOW_RECORD]) -> Option<Record> {
    let proto = match bytes[2] {
        TCP => Proto::Tcp,
        UDP => Proto::Udp,
        _ => return None,
    };
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let address = |at: usize| read_u32(&bytes[at..at + 4]).map(Ipv4Addr::from_bits);
    let (prefix, ports) = (bytes[3], Ports { first: port(18), last: port(16) });
    let (client, service) = (address(8)?, address(12)?);
    let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    let is_possible = (1..=32).contains(&prefix)
        && client.to_bits() & host_bits == 0
        && is_host(service)
        && ports.first <= ports.last
        && (ports.first > 0 || ports.is_all());
    let rest = [&bytes[4..8], &bytes[24..28], &bytes[30..32], &bytes[36..40]];
    if !is_possible || rest.into_iter().flatten().any(|byte| *byte != 0) {
        return None;
    }
    let name = ClientName { key: (proto, service, ports), address: client, prefix };
    if bytes[1] == FORGOTTEN {
        return bytes[20..36].iter().all(|byte| *byte == 0).then_some(Record::Forgotten(name));
    }
    let (server, left) = (address(20)?, read_u32(&bytes[32..36])?);
    let is_possible = is_host(server) && (1..=MOST_REMEMBERED).contains(&left);
    let remembered = Remembered { name, server, port: port(28), left };
    is_possible.then_some(Record::Remembered(remembered))
}

/// Whether packets with `original` can be answered with `reply`.
fn are_one_flow(original: Tuple, reply: Tuple, method: Method) -> bool {
    let back = original.reversed();
    let from_there = (reply.source, reply.source_port) == (back.source, back.source_port);
    let to_client = reply.destination == back.destination;
    let to_its_port = reply.destination_port == back.destination_port;
    let fits = match method {
        Method::Nat => original.protocol != ICMP,
        Method::Direct => original.protocol != ICMP && to_client && to_its_port,
        Method::Routed => from_there && to_client,
        Method::Masqueraded => from_there,
    };
    // Found by either tuple: they must differ.
    fits && original != reply
}

fn flags(flow: &Snapshot) -> u8 {
    let reset_by = match flow.reset_by {
        None => 0,
        Some(Direction::Original) => RESET_BY_CLIENT,
        Some(Direction::Reply) => RESET_BY_SERVER,
    };
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    flag(flow.assured, ASSURED) | flag(flow.server_syn_seen, SERVER_SYN_SEEN) | reset_by
}

/// Into twelve bytes.
fn write_tuple(to: &mut [u8], tuple: Tuple) {
    to[..4].copy_from_slice(&tuple.source.octets());
    to[4..8].copy_from_slice(&tuple.destination.octets());
    to[8..10].copy_from_slice(&tuple.source_port.to_be_bytes());
    to[10..12].copy_from_slice(&tuple.destination_port.to_be_bytes());
}

fn read_tuple(bytes: &[u8], protocol: u8) -> Option<Tuple> {
    let (source, destination) = (read_u32(bytes.get(..4)?)?, read_u32(bytes.get(4..8)?)?);
    let ports = read_u32(bytes.get(8..12)?)?.to_be_bytes();
    let tuple = Tuple {
        source: Ipv4Addr::from_bits(source),
        destination: Ipv4Addr::from_bits(destination),
        source_port: u16::from_be_bytes([ports[0], ports[1]]),
        destination_port: u16::from_be_bytes([ports[2], ports[3]]),
        protocol,
    };
    let is_tracked = matches!(protocol, TCP | UDP | ICMP)
        && is_host(tuple.source)
        && is_host(tuple.destination)
        && tuple.source != tuple.destination;
    is_tracked.then_some(tuple)
}

fn read_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests;
