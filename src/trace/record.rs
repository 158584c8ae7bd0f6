//! What is kept of a packet that passed a filter.

use crate::addr::{LinkId, MacAddr, ServerId, ServiceId};
use crate::dataplane::{Direction, DropReason, State, Tuple, Verdict};
use crate::time::Instant;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It came in, and this was decided. A refused write is a drop.
    Decided(Verdict),
    /// The router sent it: its own, or one that had waited.
    Sent,
}

impl Outcome {
    /// What it is, whatever it led to.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Sent => Kind::Sent,
            Self::Decided(verdict) => match verdict {
                Verdict::Forward(_) => Kind::Forward,
                Verdict::Flood => Kind::Flood,
                Verdict::Split => Kind::Split,
                Verdict::Reply => Kind::Reply,
                Verdict::ToHost => Kind::ToHost,
                Verdict::ToHa => Kind::ToHa,
                Verdict::Held => Kind::Held,
                Verdict::Consumed(_) => Kind::Consumed,
                Verdict::Drop(_) => Kind::Drop,
            },
        }
    }

    /// Why it was dropped.
    pub const fn reason(self) -> Option<DropReason> {
        match self {
            Self::Decided(Verdict::Drop(reason)) => Some(reason),
            Self::Decided(_) | Self::Sent => None,
        }
    }
}

/// The kinds of outcomes, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of Verdict, and of Outcome::Sent")]
pub enum Kind {
    Forward,
    Flood,
    Split,
    Reply,
    ToHost,
    ToHa,
    Held,
    Consumed,
    Drop,
    Sent,
}

impl Kind {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Forward,
        Self::Flood,
        Self::Split,
        Self::Reply,
        Self::ToHost,
        Self::ToHa,
        Self::Held,
        Self::Consumed,
        Self::Drop,
        Self::Sent,
    ];

    /// Its name in filters and lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Flood => "flood",
            Self::Split => "split",
            Self::Reply => "reply",
            Self::ToHost => "to_host",
            Self::ToHa => "to_ha",
            Self::Held => "held",
            Self::Consumed => "consumed",
            Self::Drop => "drop",
            Self::Sent => "sent",
        }
    }
}

/// Where a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nowhere, or not yet.
    Nowhere,
    /// Out of this link.
    Link(LinkId),
    /// Out of every other link of the network that it came from.
    Others,
}

/// The flow that a packet belongs to, as the packet left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSeen {
    /// As the client's packets arrive.
    pub original: Tuple,
    /// As the server's packets arrive.
    pub reply: Tuple,
    /// Its state.
    pub state: State,
    /// Which way the packet goes.
    pub direction: Direction,
    /// Directly routed: nothing is translated.
    pub direct: bool,
    /// Whose it is; `None` for what is merely routed.
    pub owner: Option<(ServiceId, ServerId)>,
    /// This packet opened it.
    pub new: bool,
}

impl FlowSeen {
    /// Which way the packet goes, in a word.
    pub const fn towards(&self) -> &'static str {
        match self.direction {
            Direction::Original => "to-server",
            Direction::Reply => "to-client",
        }
    }
}

/// A packet, and why it went where it went. Its bytes are in the same batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When the turn began in which it came.
    pub at: Instant,
    /// The table's generation.
    pub generation: u32,
    /// Where it came in; none for what the router sends or drops late.
    pub ingress: Option<LinkId>,
    /// What became of it.
    pub outcome: Outcome,
    /// Where it went.
    pub exit: Exit,
    /// The MAC it was sent to, if it went.
    pub next_hop: Option<MacAddr>,
    /// Its flow.
    pub flow: Option<FlowSeen>,
    /// The service at its address and port, flow or not.
    pub service: Option<ServiceId>,
    /// Its length as it came, and as it left, in bytes; 0 where it did not.
    pub lengths: [usize; 2],
    /// How many bytes of both are kept.
    pub(super) kept: [usize; 2],
    /// Where they are.
    pub(super) bytes_at: usize,
}
