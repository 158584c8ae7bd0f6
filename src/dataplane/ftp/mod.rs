//! FTP through NAT (`helper = "ftp"`): watches control connections, lets the data connections that they
//! agree on come in, and makes the text of a server name the virtual IP.
//!
//! Owns what a control connection has said: its changed text with the sequence numbers that follow, and the
//! places where data connections are awaited. What goes by other services never comes here. Not copied to
//! the other router of a pair.

mod hook;
mod stream;
mod text;

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use self::stream::Stream;
use super::flow::FlowRef;
use crate::time::{Duration, Instant};

/// Who has a part in a flow beside the flow path. One at most: a masqueraded flow is no service's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Helper {
    #[default]
    None,
    /// Its client's port is a mapping of the masquerade.
    Masquerade,
    /// An FTP control connection.
    Control,
    /// A data connection that a control connection asked for.
    Data,
}

impl Helper {
    /// Whether the FTP helper has to see its packets.
    pub(super) const fn is_ftp(self) -> bool {
        matches!(self, Self::Control | Self::Data)
    }
}

/// Control connections that are watched at once.
const MOST_CONTROLS: usize = 4_096;
/// Data connections that are awaited at once, by all of them.
const MOST_OFFERS: usize = 8_192;
/// By one of them.
const OFFERS_EACH: usize = 8;
/// How long a data connection is awaited.
const PATIENCE: Duration = Duration::from_secs(60);
/// A client or server offers no port below (RFC 2577 section 3: others' services live there).
const FIRST_PORT: u16 = 1024;

/// Where somebody is about to open a data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    from: Ipv4Addr,
    to: Ipv4Addr,
    port: u16,
}

/// A data connection that is awaited.
#[derive(Clone, Copy, Debug)]
struct Offer {
    control: FlowRef,
    /// The server's own port, or the client's.
    port: u16,
    until: Instant,
}

/// A control connection.
#[derive(Clone, Debug, Default)]
struct Control {
    /// What was changed of the client's text, and of the server's.
    streams: [Stream; 2],
    offers: usize,
}

/// What the helper has done, and what it would not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FtpCounters {
    /// Places for data connections that were agreed on.
    pub offers: u64,
    /// Data connections that came.
    pub connections: u64,
    /// Texts that were changed.
    pub rewritten: u64,
    /// Texts that begin like an offer and are none: cut off, several lines, wrong numbers.
    pub unreadable: u64,
    /// Offers of another host, of a port below 1024 or of one that belongs to somebody else.
    pub refused: u64,
    /// Offers and control connections for which there was no room.
    pub full: u64,
}

/// All that is known of FTP.
#[derive(Debug, Default)]
pub(super) struct Ftp {
    /// By flow id.
    controls: BTreeMap<u32, Control>,
    /// Data connections with their control connections, by flow id.
    data: BTreeMap<u32, FlowRef>,
    offers: BTreeMap<Place, Offer>,
    /// Offers by age; some have been taken or renewed.
    ages: VecDeque<(Instant, Place)>,
    counters: FtpCounters,
}

impl Ftp {
    /// Watches a control connection; `false` if there are too many.
    fn begin(&mut self, id: u32) -> bool {
        if self.controls.len() >= MOST_CONTROLS {
            self.counters.full += 1;
            return false;
        }
        self.controls.insert(id, Control::default());
        true
    }

    /// A flow of the helper's is gone.
    pub(super) fn forget(&mut self, id: u32) {
        // What it offered goes when its time is over: nobody resolves it any more.
        self.controls.remove(&id);
        self.data.remove(&id);
    }

    /// Whether any data connection is awaited.
    pub(super) fn awaits(&self) -> bool {
        !self.offers.is_empty()
    }

    /// Whether `place` is awaited by another control connection, or for another port.
    fn is_taken(&self, place: Place, control: FlowRef, port: u16, now: Instant) -> bool {
        let known = self.offers.get(&place).filter(|offer| now < offer.until);
        known.is_some_and(|offer| offer.control != control || offer.port != port)
    }

    /// Awaits a data connection; `false` if there is no room.
    fn offer(&mut self, place: Place, control: FlowRef, port: u16, now: Instant) -> bool {
        self.drop_old(now);
        let Some(owner) = self.controls.get_mut(&control.id) else { return false };
        let until = now + PATIENCE;
        if let Some(known) = self.offers.get_mut(&place)
            && known.control == control
        {
            (known.port, known.until) = (port, until);
            self.ages.push_back((until, place));
            return true;
        }
        if owner.offers >= OFFERS_EACH || self.ages.len() >= MOST_OFFERS {
            self.counters.full += 1;
            return false;
        }
        owner.offers += 1;
        self.counters.offers += 1;
        if let Some(stale) = self.offers.insert(place, Offer { control, port, until }) {
            self.give_back(stale.control);
        }
        self.ages.push_back((until, place));
        true
    }

    /// The data connection that is awaited there, which is not awaited any more.
    fn take(&mut self, place: Place, now: Instant) -> Option<Offer> {
        let offer = self.offers.get(&place).copied().filter(|offer| now < offer.until)?;
        self.offers.remove(&place);
        self.give_back(offer.control);
        Some(offer)
    }

    fn drop_old(&mut self, now: Instant) {
        while let Some((until, place)) = self.ages.front().copied()
            && (until <= now || !self.offers.contains_key(&place))
        {
            self.ages.pop_front();
            if let Some(offer) = self.offers.get(&place).copied().filter(|offer| offer.until <= now)
            {
                self.offers.remove(&place);
                self.give_back(offer.control);
            }
        }
    }

    fn give_back(&mut self, control: FlowRef) {
        if let Some(control) = self.controls.get_mut(&control.id) {
            control.offers = control.offers.saturating_sub(1);
        }
    }
}
