//! Signed adverts: what is put behind the message, and what is new enough to be believed.
//!
//! Behind the message stand the id of the sender's run, a sequence number that only grows within it,
//! and a signature over both, the sender's address and the message.
//!
//! What that is good for: nobody without the key can make or change an advert, repeat one that was
//! heard, or go back to a run that has ended. What it is not good for: an advert that was held back
//! is believed when it comes at last, as multicast has no way to ask whether it is fresh; and a
//! router that knows of no run yet, or has not heard from the one it knows for as long as it takes
//! to take over, believes a recording of another run. A sync session asks, so once it has told the
//! peer's run, no other is believed.

use super::signature::{Key, SIGNATURE};
use crate::time::{Duration, Instant};

/// Bytes behind the message.
pub(super) const TRAILER: usize = 8 + 8 + SIGNATURE;
/// What sets signatures of adverts apart from others with the same key.
pub const PURPOSE: u8 = b'V';

/// One life of a router, and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Drawn at random when the router starts.
    pub id: u64,
    /// Of the last advert; the first one has 1.
    pub sequence: u64,
}

impl Run {
    /// Signs `packet`, an IPv4 packet without options that ends in room for the trailer.
    pub(super) fn sign(self, key: &Key, packet: &mut [u8]) {
        let Some((front, trailer)) = packet.split_last_chunk_mut::<TRAILER>() else { return };
        let (Some(source), Some(message)) = (front.get(12..16), front.get(20..)) else { return };
        let (id, sequence) = (self.id.to_be_bytes(), self.sequence.to_be_bytes());
        let signature = key.sign(PURPOSE, &[source, message, &id, &sequence]);
        trailer[..8].copy_from_slice(&id);
        trailer[8..16].copy_from_slice(&sequence);
        trailer[16..].copy_from_slice(&signature);
    }

    /// The run that `trailer` proves; `None` when it proves nothing.
    pub(super) fn read(key: &Key, source: [u8; 4], message: &[u8], trailer: &[u8]) -> Option<Self> {
        let (id, rest) = trailer.split_first_chunk::<8>()?;
        let (sequence, signature) = rest.split_first_chunk::<8>()?;
        key.is_signed(PURPOSE, &[&source, message, id, sequence], signature)
            .then(|| Self { id: u64::from_be_bytes(*id), sequence: u64::from_be_bytes(*sequence) })
    }
}

/// How many runs that have ended are remembered.
const ENDED: usize = 16;

/// What was believed last on one network.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    latest: Option<(Run, Instant)>,
    ended: [Option<u64>; ENDED],
    oldest: usize,
}

impl Guard {
    /// Whether an advert with `run` is new; it is the latest then. Another run than before has to be
    /// the one that is `confirmed`; when none is, the one before has to have been silent for `silence`.
    pub(super) fn admit(
        &mut self,
        run: Run,
        confirmed: Option<u64>,
        silence: Duration,
        now: Instant,
    ) -> bool {
        let is_new = match (self.latest, confirmed) {
            (_, Some(confirmed)) if confirmed != run.id => false,
            (Some((latest, _)), _) if latest.id == run.id => run.sequence > latest.sequence,
            (_, Some(_)) => true,
            (latest, None) => {
                let is_silent = latest.is_none_or(|(_, at)| now >= at + silence);
                is_silent && !self.ended.contains(&Some(run.id))
            }
        };
        if is_new {
            self.replace(run, now);
        }
        is_new
    }

    /// The peer has proved freshly that this is its run.
    pub(super) fn confirm(&mut self, run: Run, now: Instant) {
        let is_older = self
            .latest
            .is_some_and(|(latest, _)| latest.id == run.id && latest.sequence >= run.sequence);
        if !is_older {
            self.replace(run, now);
        }
    }

    fn replace(&mut self, run: Run, now: Instant) {
        if let Some((before, _)) = self.latest.replace((run, now))
            && before.id != run.id
        {
            self.ended[self.oldest] = Some(before.id);
            self.oldest = (self.oldest + 1) % ENDED;
        }
    }
}

#[cfg(test)]
mod tests;
