//! What is to be seen: the last moment with its rates, the order, how far it is scrolled.

use super::asker::{Heard, Moment};
use super::keys::Wish;
use super::sort::Order;
use crate::cli::show::services::{Row, Sample};
use crate::cli::units::per_second;
use crate::control::protocol::{Drop, Frames, Link, Status};

/// Everything on the screen.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub(super) status: Option<Status>,
    /// In the file's order.
    rows: Vec<Row>,
    pub(super) frames: Option<FrameRates>,
    pub(super) links: Vec<(Link, Option<LinkRates>)>,
    /// Those that have occurred, with how many a second: the fastest first, then the most frequent.
    pub(super) drops: Vec<(Drop, Option<u64>)>,
    /// Why there is nothing new.
    pub(super) lost: Option<String>,
    pub(super) order: Order,
    pub(super) scrolled: usize,
    before: Option<Moment>,
}

/// Frames a second, of the whole router.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameRates {
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) dropped: u64,
}

/// What a link carries a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkRates {
    pub(super) frames_in: u64,
    pub(super) bits_in: u64,
    pub(super) frames_out: u64,
    pub(super) bits_out: u64,
}

impl Picture {
    /// Takes in what was heard.
    pub(super) fn hear(&mut self, heard: Heard) {
        let moment = match heard {
            Heard::Moment(moment) => *moment,
            Heard::Lost(reason) => {
                self.lost = Some(reason);
                return;
            }
        };
        self.lost = None;
        let now = &moment.status.now;
        // A router that was started again counts from the beginning.
        let before = self.before.take().filter(|b| b.status.now.uptime_us < now.uptime_us);
        let since = |then: u64| now.uptime_us - then;
        let earlier = before.as_ref().map(|b| (&b.status.now, since(b.status.now.uptime_us)));
        self.frames = earlier.map(|(b, micros)| FrameRates::between(b.frames, now.frames, micros));
        let links = now.links.iter().map(|link| {
            let rates = earlier.and_then(|(b, micros)| {
                let old = b.links.iter().find(|old| old.tap == link.tap)?;
                Some(LinkRates::between(old, link, micros))
            });
            (link.clone(), rates)
        });
        self.links = links.collect();
        self.drops = drops(before.as_ref(), &moment);
        let nothing = Sample::default();
        let services = before.as_ref().map_or(&nothing, |b| &b.services);
        self.rows = moment.services.clone().since(services);
        self.status = Some(moment.status.clone());
        self.before = Some(moment);
    }

    pub(super) fn follow(&mut self, wish: Wish) {
        match wish {
            Wish::Quit => {}
            Wish::Sort(by) => self.order = Order { by, reversed: false },
            Wish::Reverse => self.order.reversed = !self.order.reversed,
            Wish::Scroll(lines) => {
                self.scrolled = self.scrolled.saturating_add_signed(lines.into());
            }
            Wish::Top => self.scrolled = 0,
        }
    }

    /// Services and servers in the order that is wanted.
    pub(super) fn sorted(&self) -> Vec<Row> {
        let mut rows = self.rows.clone();
        self.order.sort(&mut rows);
        rows
    }
}

impl FrameRates {
    fn between(old: Frames, new: Frames, micros: u64) -> Self {
        let rate = |old, new: u64| per_second(new.saturating_sub(old), micros);
        Self {
            received: rate(old.received, new.received),
            sent: rate(old.sent, new.sent),
            dropped: rate(old.dropped, new.dropped),
        }
    }
}

impl LinkRates {
    fn between(old: &Link, new: &Link, micros: u64) -> Self {
        let rate = |old, new: u64| per_second(new.saturating_sub(old), micros);
        Self {
            frames_in: rate(old.frames_in, new.frames_in),
            bits_in: rate(old.bytes_in, new.bytes_in).saturating_mul(8),
            frames_out: rate(old.frames_out, new.frames_out),
            bits_out: rate(old.bytes_out, new.bytes_out).saturating_mul(8),
        }
    }
}

fn drops(before: Option<&Moment>, moment: &Moment) -> Vec<(Drop, Option<u64>)> {
    let micros = before.map(|b| moment.drops.uptime_us.saturating_sub(b.drops.uptime_us));
    let rate = |drop: &Drop| {
        let old = before?.drops.reasons.iter().find(|old| old.reason == drop.reason)?;
        Some(per_second(drop.count.saturating_sub(old.count), micros?))
    };
    let occurred = moment.drops.reasons.iter().filter(|drop| drop.count > 0);
    let mut drops: Vec<_> = occurred.map(|drop| (drop.clone(), rate(drop))).collect();
    drops.sort_by_key(|(drop, rate)| std::cmp::Reverse((rate.unwrap_or(0), drop.count)));
    drops
}
