//! What a flow's segments prove: that both ends are there, and that a reset was not meant.

use super::{Direction, Flow, State};
use crate::frame::Tcp;

/// How far beyond the server's SYN a first acknowledgement may reach: no window scaling applies to
/// what was sent before it (RFC 7323 section 2.2).
const FIRST_WINDOW: u32 = 65_536;

impl Flow {
    /// Notices when the client acknowledges the server's SYN: from then on both are known to be
    /// there, and the flow is assured. A client that cannot have seen the SYN proves nothing.
    pub(in crate::dataplane) fn note_handshake(&mut self, direction: Direction, segment: &Tcp) {
        if self.assured {
            return;
        }
        match direction {
            Direction::Reply if segment.syn && !segment.rst => {
                self.server_syn = segment.sequence;
                self.server_syn_seen = true;
            }
            Direction::Original if self.server_syn_seen && segment.ack && !segment.rst => {
                let ahead = segment.acknowledgement.wrapping_sub(self.server_syn);
                self.assured = (1..=FIRST_WINDOW).contains(&ahead);
            }
            Direction::Original | Direction::Reply => {}
        }
    }

    /// Remembers who reset the flow, and takes it back when that side sends data after all: the
    /// reset was forged (RFC 5961), for who has reset a connection says nothing more on it. Until
    /// then the reset has only shortened the flow's life (RFC 7857 section 2.2).
    pub(in crate::dataplane) fn note_reset(
        &mut self,
        direction: Direction,
        segment: &Tcp,
        has_data: bool,
    ) {
        if segment.rst {
            if self.state == State::Established {
                self.reset_by = Some(direction);
            }
        } else if segment.syn || segment.fin {
            self.reset_by = None;
        } else if has_data && self.state == State::Close && self.reset_by == Some(direction) {
            self.state = State::Established;
            self.reset_by = None;
        }
    }
}
