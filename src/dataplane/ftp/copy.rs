//! What the other router of a pair is told of a control connection, and takes over: changed text with its
//! numbers, and the data connections that are awaited.

use super::order::Order;
use super::{Ftp, Link, OFFERS_EACH, Offer, PATIENCE, Place, Stream};
use crate::dataplane::Dataplane;
use crate::dataplane::flow::{Flow, FlowRef};
use crate::time::{Duration, Instant};

/// A data connection that is awaited, as the routers tell each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Awaited {
    /// The client opens it, not the server.
    pub(in crate::dataplane) is_passive: bool,
    /// The port that it goes to, as whoever opens it sees it.
    pub(in crate::dataplane) seen: u16,
    /// The port that it is for.
    pub(in crate::dataplane) port: u16,
    /// In milliseconds.
    pub(in crate::dataplane) left: u16,
}

/// A control connection as it was when it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Told {
    pub(in crate::dataplane) stream: Stream,
    pub(in crate::dataplane) awaited: [Option<Awaited>; OFFERS_EACH],
}

impl Awaited {
    fn of(flow: &Flow, offer: &Offer, now: Instant) -> Option<Self> {
        if offer.until <= now {
            return None;
        }
        let left = (offer.until - now).min(PATIENCE).total_millis().max(1);
        Some(Self {
            is_passive: offer.place.to == flow.original.destination,
            seen: offer.place.port,
            port: offer.port,
            left: u16::try_from(left).unwrap_or(u16::MAX),
        })
    }

    fn offer(&self, flow: &Flow, now: Instant) -> Offer {
        let (client, server) = (flow.original.source, flow.reply.source);
        let (from, to) = match self.is_passive {
            true => (client, flow.original.destination),
            false => (server, client),
        };
        let until = now + Duration::from_millis(u64::from(self.left));
        Offer {
            place: Place { from, to, port: self.seen },
            port: self.port,
            until,
            has_come: false,
        }
    }
}

impl Ftp {
    /// The flow of the control connection behind a data connection.
    pub(in crate::dataplane) fn control_of(&self, data: u32) -> Option<FlowRef> {
        self.data.get(data).map(|link| link.control)
    }

    /// Notes whose a data connection is; `false` if there are too many.
    pub(in crate::dataplane) fn link(&mut self, data: u32, control: FlowRef) -> bool {
        self.put_link(data, Link { control, place: None })
    }

    pub(super) fn put_link(&mut self, data: u32, link: Link) -> bool {
        let fits = self.data.put(data, link);
        self.counters.full += u64::from(!fits);
        fits
    }

    /// What is to be told of a control connection.
    pub(in crate::dataplane) fn told(&self, flow: &Flow, id: u32, now: Instant) -> Option<Told> {
        let control = self.controls.get(id)?;
        let mut awaited = [None; OFFERS_EACH];
        let told = control.offers.iter().flatten();
        let told = told.filter_map(|offer| Awaited::of(flow, offer, now));
        for (place, offer) in awaited.iter_mut().zip(told) {
            *place = Some(offer);
        }
        Some(Told { stream: control.stream.told(), awaited })
    }
}

impl Dataplane {
    /// Takes over what the peer told of a control connection that is known here; `false` if there is no
    /// room. How far it was read is not told: the next text is a line.
    pub(in crate::dataplane) fn take_over_control(
        &mut self,
        id: u32,
        told: &Told,
        now: Instant,
    ) -> bool {
        let reference = self.flows.reference(id);
        self.ftp.withdraw(id);
        if !self.ftp.begin(reference) {
            return false;
        }
        let flow = self.flows.get_mut(id);
        flow.helper = super::Helper::Control;
        for awaited in told.awaited.iter().flatten() {
            let offer = awaited.offer(flow, now);
            if !self.ftp.is_taken(offer.place, reference, offer.port, now) {
                self.ftp.offer(reference, offer, now);
            }
        }
        if let Some(control) = self.ftp.controls.get_mut(id) {
            control.stream = told.stream;
            control.order = [Order::UNKNOWN; 2];
            // What was asked before is answered after.
            control.asked = 1;
        }
        true
    }
}
