//! FTP through NAT (`helper = "ftp"`): watches control connections, lets the data connections that they
//! agree on come in, and makes the text of a server name the virtual IP.
//!
//! Owns what a control connection has said: its changed text with the sequence numbers that follow, how far
//! it was read, and the places where data connections are awaited. What goes by other services never comes
//! here. All memory is taken when a table with the helper is first used.

mod copy;
mod hook;
mod order;
mod shelf;
mod stream;
mod text;

use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;

use siphasher::sip::SipHasher13;

use self::order::Order;
use self::shelf::Shelf;
use super::flow::{FlowRef, Index};
use crate::table::{self, Table};
use crate::time::{Duration, Instant};

pub(super) use self::copy::{Awaited, Told};
pub(super) use self::stream::{KEPT, Stream};
pub(super) use self::text::{Form, Text};

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
const MOST_CONTROLS: u32 = 4_096;
/// Data connections whose control connections are kept alive by them.
const MOST_DATA: u32 = 8_192;
/// Data connections that one control connection awaits at once.
pub(super) const OFFERS_EACH: usize = STRIDE as usize;
/// From one control connection's to the next one's, where all are numbered.
const STRIDE: u32 = 8;
/// How long a data connection is awaited.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// A client or server offers no port below (RFC 2577 section 3: others' services live there).
pub(super) const FIRST_PORT: u16 = 1024;

/// Where somebody is about to open a data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    from: Ipv4Addr,
    to: Ipv4Addr,
    port: u16,
}

/// A data connection that is awaited.
#[derive(Clone, Copy, Debug)]
struct Offer {
    place: Place,
    /// The server's own port, or the client's.
    port: u16,
    until: Instant,
    /// It has come, and is kept for the other router of a pair until that is told of the connection.
    has_come: bool,
}

/// What is known of a data connection.
#[derive(Clone, Copy, Debug)]
struct Link {
    control: FlowRef,
    /// Where it was awaited, until both ends have agreed.
    place: Option<Place>,
}

/// A control connection.
#[derive(Clone, Debug)]
struct Control {
    flow: FlowRef,
    /// What was changed of the server's text.
    stream: Stream,
    /// How far the client was read, and the server.
    order: [Order; 2],
    /// Passive connections that the client has asked for, and the server has not answered.
    asked: u8,
    offers: [Option<Offer>; OFFERS_EACH],
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
    /// Texts that begin like an offer and are none: cut off, wrong numbers.
    pub unreadable: u64,
    /// Offers of another host, of a port below 1024 or of one that belongs to somebody else.
    pub refused: u64,
    /// Answers to what no client has asked.
    pub unasked: u64,
    /// Offers, control and data connections for which there was no room.
    pub full: u64,
}

/// How much there is at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FtpLoad {
    /// Control connections that are watched.
    pub controls: u64,
    /// Data connections that are open.
    pub data: u64,
    /// Data connections that are awaited, or were and did not come.
    pub awaited: u64,
}

/// All that is known of FTP.
#[derive(Debug)]
pub(super) struct Ftp {
    controls: Shelf<Control>,
    /// Data connections with their control connections.
    data: Shelf<Link>,
    /// By place, what is awaited there: the control connection's place and the offer's in it.
    awaited: Index,
    awaiting: usize,
    hasher: SipHasher13,
    counters: FtpCounters,
}

impl Ftp {
    /// One that has no room yet.
    pub(super) fn new(seed: &[u8; 16]) -> Self {
        Self {
            controls: Shelf::default(),
            data: Shelf::default(),
            awaited: Index::new(0),
            awaiting: 0,
            hasher: SipHasher13::new_with_key(seed),
            counters: FtpCounters::default(),
        }
    }

    /// Takes the memory, some two megabytes, if a service of `table` has the helper.
    pub(super) fn install(&mut self, table: &Table) {
        let helps = |service: &table::Service| service.lifecycle.helper == Some(table::Helper::Ftp);
        if self.controls.is_hollow() && table.services().iter().any(|service| helps(service)) {
            self.controls = Shelf::new(MOST_CONTROLS);
            self.data = Shelf::new(MOST_DATA);
            self.awaited = Index::new(MOST_CONTROLS as usize * OFFERS_EACH);
        }
    }

    fn load(&self) -> Option<FtpLoad> {
        (!self.controls.is_hollow()).then(|| FtpLoad {
            controls: self.controls.len() as u64,
            data: self.data.len() as u64,
            awaited: self.awaiting as u64,
        })
    }

    /// Watches a control connection; `false` if there are too many.
    fn begin(&mut self, flow: FlowRef) -> bool {
        let control = Control {
            flow,
            stream: Stream::PLAIN,
            order: [Order::UNKNOWN; 2],
            asked: 0,
            offers: [None; OFFERS_EACH],
        };
        let fits = self.controls.put(flow.id, control);
        self.counters.full += u64::from(!fits);
        fits
    }

    /// A flow of the helper's is gone.
    pub(super) fn forget(&mut self, id: u32) {
        self.withdraw(id);
        self.controls.take(id);
        self.data.take(id);
    }

    /// Whether any data connection is awaited.
    pub(super) const fn awaits(&self) -> bool {
        self.awaiting > 0
    }

    fn hash(&self, place: Place) -> u64 {
        let mut hasher = self.hasher;
        place.hash(&mut hasher);
        hasher.finish()
    }

    fn offer_at(&self, entry: u32) -> Option<(&Control, &Offer)> {
        let control = self.controls.at(entry / STRIDE)?;
        let offer = control.offers.get(entry as usize % OFFERS_EACH)?.as_ref()?;
        Some((control, offer))
    }

    fn entry_at(&self, place: Place) -> Option<u32> {
        let is_it = |entry| self.offer_at(entry).is_some_and(|(_, offer)| offer.place == place);
        self.awaited.find(self.hash(place), is_it)
    }

    /// What is awaited at `place`, and by which control connection.
    fn find(&self, place: Place, now: Instant) -> Option<(FlowRef, Offer)> {
        self.known(place, now).filter(|(_, offer)| !offer.has_come)
    }

    fn known(&self, place: Place, now: Instant) -> Option<(FlowRef, Offer)> {
        let (control, offer) = self.offer_at(self.entry_at(place)?)?;
        (now < offer.until).then_some((control.flow, *offer))
    }

    /// Whether `place` is awaited by another control connection, or for another port.
    fn is_taken(&self, place: Place, control: FlowRef, port: u16, now: Instant) -> bool {
        let known = self.known(place, now);
        known.is_some_and(|(owner, offer)| owner != control || offer.port != port)
    }

    /// Whether there is room for what is to be awaited at `place`.
    fn has_room(&self, control: FlowRef, place: Place, now: Instant) -> bool {
        let is_free = |offer: &Option<Offer>| {
            offer.is_none_or(|offer| offer.until <= now || offer.place == place)
        };
        self.controls.get(control.id).is_some_and(|control| control.offers.iter().any(is_free))
    }

    /// Awaits a data connection; `false` if there is no room. The place is nobody else's.
    fn offer(&mut self, control: FlowRef, offer: Offer, now: Instant) -> bool {
        if let Some(entry) = self.entry_at(offer.place) {
            self.remove(entry);
        }
        let Some(at) = self.controls.place_of(control.id) else { return false };
        let first = at * STRIDE;
        for entry in first..first + STRIDE {
            let known = self.offer_at(entry).map(|(_, offer)| offer.until);
            if known.is_some_and(|until| now < until) {
                continue;
            }
            self.remove(entry);
            let hash = self.hash(offer.place);
            if let Some(owner) = self.controls.at_mut(at) {
                owner.offers[(entry - first) as usize] = Some(offer);
                self.awaited.insert(hash, entry);
                self.awaiting += 1;
            }
            return true;
        }
        self.counters.full += 1;
        false
    }

    /// The data connection that is awaited there has come.
    fn has_come(&mut self, place: Place) {
        let Some(entry) = self.entry_at(place) else { return };
        if let Some(control) = self.controls.at_mut(entry / STRIDE)
            && let Some(offer) = &mut control.offers[entry as usize % OFFERS_EACH]
        {
            offer.has_come = true;
        }
    }

    /// Both ends of a data connection have agreed: nothing is kept for it any more. Its control
    /// connection, where that is news.
    fn agreed(&mut self, data: u32) -> Option<FlowRef> {
        let link = self.data.get_mut(data)?;
        let (control, place) = (link.control, link.place.take()?);
        let entry = self.entry_at(place)?;
        let is_its = self
            .offer_at(entry)
            .is_some_and(|(owner, offer)| owner.flow == control && offer.has_come);
        is_its.then(|| {
            self.remove(entry);
            control
        })
    }

    fn remove(&mut self, entry: u32) {
        let Some(place) = self.offer_at(entry).map(|(_, offer)| offer.place) else { return };
        self.awaited.remove(self.hash(place), entry);
        self.awaiting -= 1;
        if let Some(control) = self.controls.at_mut(entry / STRIDE) {
            control.offers[entry as usize % OFFERS_EACH] = None;
        }
    }

    /// Nothing is awaited any more by the control connection.
    fn withdraw(&mut self, id: u32) {
        let Some(at) = self.controls.place_of(id) else { return };
        let first = at * STRIDE;
        for entry in first..first + STRIDE {
            self.remove(entry);
        }
    }
}

const fn is_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) >= 1 << 31
}
