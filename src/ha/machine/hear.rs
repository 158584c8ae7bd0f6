//! What an advert of another router changes.

use std::net::Ipv4Addr;

use super::path::{Heard, Outgoing};
use super::{Event, Machine, Reason};
use crate::addr::Role;
use crate::time::{Duration, Instant};

/// An advert that is believed.
#[derive(Clone, Copy, Debug)]
pub(in crate::ha) struct Said {
    /// Who sent it.
    pub(in crate::ha) from: Ipv4Addr,
    /// Its priority; 0: the sender gives up the role.
    pub(in crate::ha) priority: u8,
    /// How long until the next one.
    pub(in crate::ha) interval: Duration,
}

impl Machine {
    /// An advert came in on the network at `position` of the order.
    pub(in crate::ha) fn hear(&mut self, position: usize, said: Said, now: Instant) {
        let Some(path) = self.paths.get_mut(position) else { return };
        path.heard = Some(Heard { from: said.from, priority: said.priority, at: now });
        if self.is_stopped {
            return;
        }
        match self.role {
            Role::Backup => self.hear_as_backup(position, said, now),
            Role::Active => self.hear_as_active(position, said, now),
        }
    }

    /// RFC 9568 section 6.4.2.
    fn hear_as_backup(&mut self, position: usize, said: Said, now: Instant) {
        self.graces = 0;
        let (rules, own) = (self.rules, self.effective_priority());
        let may_preempt = self.may_preempt(now);
        let Some(path) = self.paths.get_mut(position) else { return };
        if said.priority == 0 {
            // The first word counts: one that is repeated puts nothing off.
            let skew = rules.skew(path.interval, own);
            self.resigned.get_or_insert((now + skew, said.from));
            return;
        }
        let down_at = path.down_at;
        path.interval = said.interval;
        path.down_at = now + rules.active_down(said.interval, own);
        if std::mem::take(&mut path.is_silent) {
            self.events.push(Event::PathRestored { network: path.network });
        }
        if said.priority < own && may_preempt {
            // As if it were not heard, but where it is heard alone says whether it will hear this
            // router, and give way.
            if position == 0 {
                self.preempts.get_or_insert((down_at, said.from));
            }
            return;
        }
        self.resigned = None;
        if said.priority >= own {
            (self.preempts, self.owner_at) = (None, None);
        }
    }

    /// RFC 9568 section 6.4.3.
    fn hear_as_active(&mut self, position: usize, said: Said, now: Instant) {
        let own = self.effective_priority();
        let Some(path) = self.paths.get(position) else { return };
        let network = path.network;
        let is_first = position == 0;
        let outranks = (said.priority, said.from) > (own, path.address);
        if outranks && is_first {
            let Said { from: by, priority, interval } = said;
            self.become_backup(Reason::Outranked { by, priority }, now);
            let down_at = now + self.rules.active_down(interval, own);
            for path in &mut self.paths {
                (path.interval, path.down_at) = (interval, down_at);
            }
            // A last one, so that the router that stays knows of this one, and announces everything
            // anew: it may not have heard it before.
            self.send(Outgoing::Advert);
            return;
        }
        if self.contention.is_none() && said.priority > 0 {
            let Said { from, priority, .. } = said;
            self.events.push(Event::Contention { network, from, priority });
        }
        self.contend(is_first && !outranks, now);
        if !outranks {
            self.prompt(now);
        }
    }

    /// Sends adverts at once, but answers no flood of them with another: a quarter of an interval lies
    /// between two of these, but for one more. Who gives way says so right behind the advert that led
    /// to it, and until it is answered the switches have the virtual MAC where nobody is.
    fn prompt(&mut self, now: Instant) {
        let gap = self.rules.interval / 4;
        let until = self.prompted_until.max(now);
        if until > now + gap {
            self.advert_at = self.advert_at.min(until - gap);
            return;
        }
        self.prompted_until = until + gap;
        self.send(Outgoing::Advert);
        self.advert_at = now + self.rules.interval;
    }
}
