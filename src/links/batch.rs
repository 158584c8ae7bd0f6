//! Batches over all links: what each frame needs to leave by its link, and what came of it.

use super::Read;
use super::io::{Engine, MOST, Results};
use super::link::Link;
use crate::addr::LinkId;
use crate::frame::{Frame, Segments};

/// Segments that are cut, and written, at once.
const CUT: usize = 16;

/// They and what moves their frames.
#[derive(Debug)]
pub(super) struct All<E> {
    pub(super) links: Vec<Link>,
    pub(super) engine: E,
    results: Results,
    /// Where frames are cut for a device that takes no segments.
    cut: Vec<Frame>,
}

impl<E: Engine> All<E> {
    pub(super) fn new(links: Vec<Link>, engine: E) -> Self {
        let cut = std::iter::repeat_with(Frame::new).take(CUT).collect();
        Self { links, engine, results: Results::new(), cut }
    }

    pub(super) fn read_batch(&mut self, link: LinkId, frames: &mut [Frame]) -> Read {
        let Self { links, engine, results, .. } = self;
        match links.get_mut(link.index()) {
            Some(of) => of.read_batch(link, engine, frames, results),
            None => Read { count: 0, more: false },
        }
    }

    pub(super) fn write_batch(&mut self, egress: &[Option<LinkId>], frames: &[Frame]) -> u64 {
        let (mut egress, mut frames, mut refused) = (egress, frames, 0);
        while !egress.is_empty() && !frames.is_empty() {
            let most = egress.len().min(frames.len()).min(MOST);
            let whole = (0..most).take_while(|at| self.takes(egress[*at], &frames[*at])).count();
            refused += self.write_whole(&egress[..whole], &frames[..whole]);
            (egress, frames) = (&egress[whole..], &frames[whole..]);
            if whole < most
                && let (Some(Some(link)), Some(frame)) = (egress.first(), frames.first())
            {
                refused += u64::from(!self.write_cut(*link, frame));
                (egress, frames) = (&egress[1..], &frames[1..]);
            }
        }
        refused
    }

    /// Whether the frame can leave by the link as it is.
    fn takes(&self, link: Option<LinkId>, frame: &Frame) -> bool {
        let link = link.and_then(|link| self.links.get(link.index()));
        frame.is_plain() || link.is_none_or(|link| link.offloads().any())
    }

    /// Writes frames that can leave as they are, [`MOST`] at most.
    fn write_whole(&mut self, egress: &[Option<LinkId>], frames: &[Frame]) -> u64 {
        let Self { links, engine, results, .. } = self;
        // By position: whether there was a device when it was tried. A result may say that it is gone.
        let mut tried = 0_u64;
        let writes = egress.iter().zip(frames).enumerate().filter_map(|(at, (link, frame))| {
            let link = (*link)?;
            let device = links.get(link.index())?.device(link)?;
            tried |= 1 << at;
            Some((device, frame.output(device.with_header)))
        });
        engine.write(writes, results);
        let (mut next, mut refused) = (0, 0);
        for (at, (link, frame)) in egress.iter().zip(frames).enumerate() {
            let Some(link) = link else { continue };
            let Some(link) = links.get_mut(link.index()) else {
                refused += 1;
                continue;
            };
            let is_taken = if tried >> at & 1 == 1 {
                next += 1;
                link.wrote(&results.get(next - 1), frame)
            } else {
                link.counters.refused.gone += 1;
                false
            };
            refused += u64::from(!is_taken);
        }
        refused
    }

    /// Writes the frames that `frame` stands for; `false` when one of them was refused.
    fn write_cut(&mut self, link: LinkId, frame: &Frame) -> bool {
        let mut cut = std::mem::take(&mut self.cut);
        let mut segments = Segments::new(frame);
        let (mut sent, mut refused) = (0, 0);
        loop {
            let is_there = |place: &mut Frame| segments.next_into(place);
            let count = cut.iter_mut().map(is_there).take_while(|is_there| *is_there).count();
            let not_taken = self.write_whole(&[Some(link); CUT][..count], &cut[..count]);
            sent += count as u64 - not_taken;
            refused += not_taken;
            if count < cut.len() {
                break;
            }
        }
        self.cut = cut;
        let is_taken = refused == 0;
        if let Some(link) = self.links.get_mut(link.index()) {
            link.counters.cut += sent - u64::from(is_taken).min(sent);
        }
        is_taken
    }
}

#[cfg(test)]
mod tests;
