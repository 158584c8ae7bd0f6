//! What a session tells: events for whoever decides, numbers for whoever looks.

use crate::addr::Role;
use crate::time::{Duration, Instant};

/// What happened between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session with the peer's run of this id: both have proved that they know the key, now.
    PeerAppeared {
        /// Which start of the peer it is.
        run: u64,
    },
    /// That session is over; what had not been acknowledged may be missing over there.
    PeerLost {
        /// Why.
        why: Loss,
    },
    /// The peer is active, and every flow it has is here.
    Complete,
    /// Every flow was sent to the peer.
    Transferred,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing was heard for [`super::SILENCE`].
    Silent,
    /// The peer has started anew, or had lost the session itself.
    Renewed,
}

/// Why a datagram was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its version is another one.
    Version,
    /// Lengths or fields that cannot be.
    Malformed,
    /// It belongs to no session, or to one that is over.
    OtherSession,
    /// It is one of this router's own.
    Reflected,
    /// It was seen before, or may have been.
    Replayed,
    /// Its sender does not know the key, or it was changed on its way.
    Signature,
}

impl Refusal {
    /// All of them, in the order of [`Counters::refused`].
    pub const ALL: [Self; 6] = [
        Self::Version,
        Self::Malformed,
        Self::OtherSession,
        Self::Reflected,
        Self::Replayed,
        Self::Signature,
    ];

    /// Its name in metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Malformed => "malformed",
            Self::OtherSession => "other_session",
            Self::Reflected => "reflected",
            Self::Replayed => "replayed",
            Self::Signature => "signature",
        }
    }
}

/// How things stand. Counters run from the start of the router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Since when there is a session with the peer.
    pub connected_since: Option<Instant>,
    /// Which start of the peer that is, or was when there was one last.
    pub peer_run: Option<u64>,
    /// What the peer says of itself while there is a session.
    pub peer_role: Option<Role>,
    /// Whether every flow of the active peer is here.
    pub complete: bool,
    /// Whether every flow was sent to the peer since it appeared.
    pub transferred: bool,
    /// How long the oldest record that the peer has not taken out has been waiting.
    pub lag: Duration,
    /// Records that the peer has not taken out.
    pub queued: u64,
    /// The smoothed round trip.
    pub round_trip: Option<Duration>,
    /// What was counted.
    pub counters: Counters,
}

/// What was counted from the start of the router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sessions that came to be.
    pub sessions: u64,
    /// Records that left, each once.
    pub records_sent: u64,
    /// Records handed out.
    pub records_received: u64,
    /// Records that came while this router was active itself: not handed out.
    pub records_ignored: u64,
    /// Datagrams that left, of every kind.
    pub datagrams_sent: u64,
    /// Datagrams that came and were believed.
    pub datagrams_received: u64,
    /// Their UDP payload.
    pub bytes_sent: u64,
    /// Theirs.
    pub bytes_received: u64,
    /// Datagrams with records that left once more.
    pub retransmitted: u64,
    /// Datagrams not believed, in the order of [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
}

impl Counters {
    /// How many were refused for `reason`.
    pub const fn refused(&self, reason: Refusal) -> u64 {
        self.refused[reason as usize]
    }
}

/// Events that have not been asked for yet; the oldest go first when nobody asks.
#[derive(Debug, Default)]
pub(super) struct Events {
    kept: [Option<Event>; 16],
    first: usize,
    len: usize,
}

impl Events {
    pub(super) fn push(&mut self, event: Event) {
        let size = self.kept.len();
        if self.len == size {
            self.pop();
        }
        self.kept[(self.first + self.len) % size] = Some(event);
        self.len += 1;
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        let event = self.kept[self.first].take()?;
        self.first = (self.first + 1) % self.kept.len();
        self.len -= 1;
        Some(event)
    }
}
