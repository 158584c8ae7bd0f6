//! The TCP state of a flow as Linux IPVS sees it (`ip_vs_proto_tcp.c`): one event per segment, one
//! table per point of view.

use crate::frame::{TCP, Tcp, UDP};
use crate::table::Timeouts;
use crate::time::Duration;

/// The state of a flow; UDP flows and ICMP queries have one of their own each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub enum State {
    None,
    Established,
    SynSent,
    SynRecv,
    FinWait,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Udp,
    Icmp,
}

impl State {
    /// The state of a flow that has not seen a packet.
    pub(in crate::dataplane) const fn initial(protocol: u8) -> Self {
        match protocol {
            TCP => Self::None,
            UDP => Self::Udp,
            _ => Self::Icmp,
        }
    }

    /// The name that `ipvsadm` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Udp => "UDP",
            Self::Icmp => "ICMP",
        }
    }

    /// Counts as an active connection of its server; everything else is inactive.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Established | Self::SynSent | Self::SynRecv)
    }

    /// A SYN from the client starts over (IPVS `conn_reuse_mode=1`).
    pub const fn is_reusable(self) -> bool {
        matches!(self, Self::TimeWait | Self::Close)
    }

    /// On the way out: evicted before flows that live.
    pub const fn is_closing(self) -> bool {
        matches!(self, Self::FinWait | Self::CloseWait | Self::LastAck)
    }

    /// How long a flow in this state lives without a packet.
    pub const fn timeout(self, timeouts: &Timeouts) -> Duration {
        match self {
            Self::None => Duration::from_secs(2),
            Self::Established => timeouts.established,
            Self::SynSent => timeouts.syn_sent,
            Self::SynRecv => timeouts.syn_recv,
            Self::FinWait => timeouts.fin_wait,
            Self::TimeWait => timeouts.time_wait,
            Self::Close => timeouts.close,
            Self::CloseWait => timeouts.close_wait,
            Self::LastAck => timeouts.last_ack,
            Self::Udp => timeouts.udp,
            // RFC 5508 REQ-2.
            Self::Icmp => Duration::from_secs(60),
        }
    }

    /// The state after a segment with `event`, seen from `view`.
    pub(in crate::dataplane) const fn next(self, view: View, event: Event) -> Self {
        match view {
            View::Input => self.next_input(event),
            View::InputOnly => self.next_input_only(event),
            View::Output => self.next_output(event),
        }
    }

    const fn next_input(self, event: Event) -> Self {
        match (event, self) {
            (Event::Syn, Self::Established | Self::SynSent) => Self::Established,
            (Event::Syn, _) => Self::SynRecv,

            (Event::Fin, Self::None) => Self::Close,
            (Event::Fin, Self::Established) => Self::CloseWait,
            (Event::Fin, Self::SynRecv | Self::FinWait) => Self::TimeWait,

            (Event::Ack, Self::None | Self::SynRecv) => Self::Established,
            (Event::Ack, Self::LastAck) => Self::Close,

            // A blind reset does not undo a handshake or a close.
            (Event::Rst, Self::SynRecv | Self::LastAck) => self,
            (Event::Rst | Event::Bare, _) => Self::Close,

            (Event::Fin | Event::Ack, _) => self,
        }
    }

    /// The client's FIN may be the second one, or not: the server's was not seen.
    const fn next_input_only(self, event: Event) -> Self {
        match (event, self) {
            (Event::Fin, Self::Established | Self::FinWait) => Self::FinWait,
            _ => self.next_input(event),
        }
    }

    const fn next_output(self, event: Event) -> Self {
        match (event, self) {
            (Event::Syn, Self::Established | Self::SynRecv) => self,
            (Event::Syn, _) => Self::SynSent,

            (Event::Fin, Self::None | Self::SynRecv | Self::CloseWait) => Self::TimeWait,
            (Event::Fin, Self::Established) => Self::FinWait,

            (Event::Ack, Self::None | Self::SynRecv) => Self::Established,

            (Event::Rst, Self::SynSent | Self::TimeWait) => self,
            (Event::Rst | Event::Bare, _) => Self::Close,

            (Event::Fin | Event::Ack, _) => self,
        }
    }
}

/// Who sent the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum View {
    /// From the client.
    Input,
    /// From the client, where the server's segments go another way.
    InputOnly,
    /// From the server.
    Output,
}

/// What a segment means: the first of its flags in this order counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum Event {
    /// Reset.
    Rst,
    /// Synchronise.
    Syn,
    /// Finish.
    Fin,
    /// Acknowledge.
    Ack,
    /// None of them.
    Bare,
}

impl Event {
    /// The event of `segment`.
    pub(in crate::dataplane) const fn of(segment: &Tcp) -> Self {
        if segment.rst {
            Self::Rst
        } else if segment.syn {
            Self::Syn
        } else if segment.fin {
            Self::Fin
        } else if segment.ack {
            Self::Ack
        } else {
            Self::Bare
        }
    }
}
