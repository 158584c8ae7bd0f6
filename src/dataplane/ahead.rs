//! Bringing flows near before their packets are looked at: among a million of them, nearly every
//! packet waits for memory, and those of one batch can wait together.

use super::{Dataplane, Tuple};
use crate::frame::{Carries, Frame, Glance};

/// Below so many flows, about what a core's own cache holds, they are near anyway.
const WORTHWHILE: usize = 16_384;
/// Packets that wait together.
const TOGETHER: usize = 64;

impl Dataplane {
    /// Says which frames come next. It costs their reading, changes nothing and believes nothing.
    pub fn look_ahead(&self, frames: &[Frame]) {
        if self.flows.len() < WORTHWHILE {
            return;
        }
        for batch in frames.chunks(TOGETHER) {
            let mut tuples = [None; TOGETHER];
            for (tuple, frame) in tuples.iter_mut().zip(batch) {
                *tuple = at_sight(frame.bytes());
            }
            self.flows.approach(&tuples);
        }
    }
}

/// The tuple of a TCP or UDP packet that shows its ports.
fn at_sight(frame: &[u8]) -> Option<Tuple> {
    let Glance::Ipv4(packet) = Glance::at(frame) else { return None };
    let (Carries::Tcp { ports, .. } | Carries::Udp { ports, .. }) = packet.carries else {
        return None;
    };
    Some(Tuple {
        source: packet.source,
        destination: packet.destination,
        source_port: ports[0],
        destination_port: ports[1],
        protocol: packet.protocol,
    })
}
