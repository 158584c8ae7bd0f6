//! What the loop does for whoever traces: nothing at all while there is nobody.

use std::ops::Range;

use super::Router;
use crate::addr::LinkId;
use crate::control::{Message, Tracing};
use crate::dataplane::{DropReason, Verdict};
use crate::time::Instant;
use crate::trace::Scene;

impl Router {
    /// New tracers, new aims of those there are, and an end to those whose reader has gone.
    pub(super) fn follow_tracers(&mut self) {
        let was_on = self.tracers.is_on();
        // Freed by the control thread, as it was made there.
        while let Some(tracer) = self.tracers.next_over() {
            self.control.tell(Message::TraceOver(tracer));
        }
        while let Some(order) = self.control.tracing() {
            let over = match order {
                Tracing::Start(tracer) => self.tracers.start(tracer),
                Tracing::Follow(key, aim) => {
                    self.tracers.follow(key, aim);
                    None
                }
            };
            if let Some(tracer) = over {
                self.control.tell(Message::TraceOver(tracer));
            }
        }
        if self.tracers.is_on() != was_on {
            self.dataplane.watch_late_drops(self.tracers.is_on());
        }
        if self.tracers.is_on() && self.tracers.flush() {
            self.control.nudge();
        }
    }

    /// Whether somebody may want the frame that is about to be decided about.
    #[cold]
    pub(super) fn trace_arrival(&mut self, link: LinkId, at: usize, now: Instant) -> bool {
        let scene = Scene { dataplane: &self.dataplane, table: &self.table, now };
        self.tracers.arrived(scene, link, &self.frames[at])
    }

    /// Writes the frames of `before` and then frame `at`, if it leaves, alone: only so is it known
    /// whether its link takes it. A flooded one has left already.
    #[cold]
    pub(super) fn trace_verdict(
        &mut self,
        before: Range<usize>,
        at: usize,
        verdict: Verdict,
        now: Instant,
    ) {
        self.write(before);
        let refused = verdict != Verdict::Flood && self.write(at..at + 1) > 0;
        let verdict = if refused { Verdict::Drop(DropReason::WriteRefused) } else { verdict };
        // It has left. What is shown is what it says on a wire.
        self.frames[at].complete_checksum();
        let scene = Scene { dataplane: &self.dataplane, table: &self.table, now };
        self.tracers.decided(scene, &self.frames[at], verdict);
    }

    /// Writes the router's own frames one by one. Says how many were refused.
    #[cold]
    pub(super) fn transmit_traced(&mut self, egress: &[Option<LinkId>], now: Instant) -> u64 {
        let mut all_refused = 0;
        for (frame, link) in self.own_frames.iter_mut().zip(egress) {
            let Some(link) = *link else { continue };
            let refused = !self.links.write(link, frame);
            all_refused += u64::from(refused);
            frame.complete_checksum();
            let scene = Scene { dataplane: &self.dataplane, table: &self.table, now };
            self.tracers.sent(scene, link, frame, refused);
        }
        all_refused
    }

    /// At the end of a turn.
    pub(super) fn tell_traces(&mut self, now: Instant) {
        if !self.tracers.is_on() {
            return;
        }
        while let Some(drop) = self.dataplane.poll_late_drop() {
            let scene = Scene { dataplane: &self.dataplane, table: &self.table, now };
            self.tracers.dropped(scene, &drop);
        }
        if self.tracers.flush() {
            self.control.nudge();
        }
    }
}
