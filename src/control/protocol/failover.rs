//! What `status` and `failover` tell of the pair of routers.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What an operator wants of the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Give it to the other router, and leave it there.
    Yield,
    /// Take part again.
    Resume,
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Yield => "yield",
            Self::Resume => "resume",
        })
    }
}

/// Which role the router has, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// `active` or `backup`.
    pub role: Cow<'static, str>,
    /// Milliseconds since it has it.
    pub since_ms: u64,
    /// Why it has it.
    pub reason: String,
    /// The priority that it claims now: 1 while something is wrong with it.
    pub priority: u8,
    /// As in the file.
    pub configured_priority: u8,
    /// An operator made it give its role up.
    pub yielded: bool,
    /// What is wrong with this router.
    pub faults: Vec<String>,
    /// Where adverts run, in file order.
    pub networks: Vec<Path>,
    /// Of adverts, since the start.
    pub adverts: Adverts,
    /// The last changes of role, the latest first.
    pub transitions: Vec<Transition>,
    /// The copying of flows; absent where they are not copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<Sync>,
}

/// One network that adverts run on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Its name.
    pub network: String,
    /// The virtual router's id there.
    pub virtual_router_id: u8,
    /// `ok`; `degraded`: the other router is heard elsewhere, but not here; `down`: a link of this
    /// router's own.
    pub state: Cow<'static, str>,
    /// Who was last heard there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
}

/// A router that sends adverts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Where they come from.
    pub address: String,
    /// What it claims.
    pub priority: u8,
    /// Milliseconds since the last one.
    pub last_ms: u64,
}

/// Counts of adverts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adverts {
    /// Sent.
    pub sent: u64,
    /// Believed.
    pub received: u64,
    /// Of those by version 3, how many had a checksum over a pseudo-header, as keepalived has it.
    pub pseudo_header_checksums: u64,
    /// Of those by version 3, how many had a checksum over the message alone, as RFC 9568 has it.
    pub message_checksums: u64,
    /// Not believed, by reason.
    pub discarded: Vec<Discard>,
}

/// Adverts that were not believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discard {
    /// Why.
    pub reason: Cow<'static, str>,
    /// How many.
    pub count: u64,
}

/// A change of role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Milliseconds ago.
    pub ago_ms: u64,
    /// `active` or `backup`.
    pub role: Cow<'static, str>,
    /// Why.
    pub reason: String,
}

/// The copying of flows from and to the other router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// The other router's address and port.
    pub peer: String,
    /// Whether it answers.
    pub connected: bool,
    /// Milliseconds since it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_ms: Option<u64>,
    /// Whether this router's copy of the other's flows is complete, or the other way round.
    pub complete: bool,
    /// How old the oldest record is that the other router has not confirmed, in milliseconds.
    pub lag_ms: u64,
    /// Records that wait to be sent or confirmed.
    pub queued: u64,
    /// Records sent, and confirmed or not.
    pub records_sent: u64,
    /// Records taken in.
    pub records_received: u64,
    /// Flows that were kept out of the flow table, by reason.
    pub refused_records: Vec<Discard>,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams sent again.
    pub datagrams_repeated: u64,
    /// Datagrams taken in.
    pub datagrams_received: u64,
    /// Datagrams that were not believed, by reason.
    pub refused_datagrams: Vec<Discard>,
}
