//! All tracers at once: what the loop does for them with each frame.

use super::aim::{Aim, Facts};
use super::packet::Packet;
use super::record::{Exit, FlowSeen, Outcome, Record};
use super::reel::Tracer;
use crate::addr::{LinkId, ServiceId};
use crate::dataplane::{Dataplane, DropReason, LateDrop, Verdict};
use crate::frame::{Ethernet, Frame, Glance};
use crate::table::Table;
use crate::time::Instant;

/// Tracers at a time.
pub const MOST: usize = 4;

/// Nobody, or a few.
#[derive(Debug, Default)]
pub struct Tracers {
    all: Vec<Tracer>,
    /// The frame that is being decided about, as it came.
    arrival: Arrival,
}

/// A frame before its verdict.
#[derive(Debug, Default)]
struct Arrival {
    ingress: LinkId,
    bytes: Vec<u8>,
    length: usize,
    packet: Packet,
    flow: Option<(FlowSeen, u64)>,
    service: Option<ServiceId>,
}

/// What all of a turn's frames are looked at with.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'s> {
    /// What has happened.
    pub dataplane: &'s Dataplane,
    /// What is configured.
    pub table: &'s Table,
    /// When the turn began.
    pub now: Instant,
}

impl Tracers {
    /// Whether anybody traces: the one question that is asked for every frame.
    pub const fn is_on(&self) -> bool {
        !self.all.is_empty()
    }

    /// Begins. One too many is returned.
    pub fn start(&mut self, tracer: Tracer) -> Option<Tracer> {
        if self.all.len() == MOST {
            return Some(tracer);
        }
        self.arrival.bytes.reserve(tracer.snap());
        self.all.push(tracer);
        None
    }

    /// Another table has other ids. The aim before is returned.
    pub fn follow(&mut self, key: u64, aim: Box<Aim>) -> Option<Box<Aim>> {
        let tracer = self.all.iter_mut().find(|tracer| tracer.key() == key)?;
        Some(std::mem::replace(&mut tracer.aim, aim))
    }

    /// A tracer whose reader has gone.
    pub fn next_over(&mut self) -> Option<Tracer> {
        let at = self.all.iter().position(|tracer| tracer.is_over())?;
        Some(self.all.swap_remove(at))
    }

    /// At the end of a turn; whether a reader has something to read.
    pub fn flush(&mut self) -> bool {
        self.all.iter_mut().fold(false, |any, tracer| tracer.flush() | any)
    }

    /// A frame has come in. Whether somebody may want it: [`Tracers::decided`] is to be told then.
    pub fn arrived(&mut self, scene: Scene<'_>, ingress: LinkId, frame: &Frame) -> bool {
        let Scene { dataplane, table, now } = scene;
        let packet = Packet::of(&Glance::at(frame.bytes()));
        let (flow, service) = (packet.flow(dataplane, now), packet.service(table));
        let seen = flow.as_ref().map(|(seen, _)| seen);
        let wanting = self.all.iter().filter(|t| t.aim.may_admit(&packet, seen, service));
        let Some(snap) = wanting.map(|tracer| tracer.snap()).max() else { return false };
        let Arrival { mut bytes, .. } = std::mem::take(&mut self.arrival);
        bytes.clear();
        bytes.extend_from_slice(&frame.bytes()[..snap.min(frame.len())]);
        // What it would say on a wire.
        if let Some((at, sum)) = frame.completed_checksum()
            && let Some(place) = bytes.get_mut(at..at + 2)
        {
            place.copy_from_slice(&sum.to_be_bytes());
        }
        let length = frame.len();
        self.arrival = Arrival { ingress, bytes, length, packet, flow, service };
        true
    }

    /// The frame that has arrived is decided about and, if it left, written: `frame` is as it left.
    /// Where the link, or the host, refused it, that is its verdict.
    pub fn decided(&mut self, scene: Scene<'_>, frame: &Frame, verdict: Verdict) {
        let Arrival { ingress, length, packet, flow: before, service, .. } = self.arrival;
        let after = packet.flow(scene.dataplane, scene.now);
        let flow = after.map(|(flow, packets)| {
            let new = before.is_none_or(|(_, packets_before)| packets < packets_before);
            FlowSeen { new, ..flow }
        });
        let flow = flow.or_else(|| before.map(|(flow, _)| flow));
        let exit = match verdict {
            Verdict::Forward(link) => Exit::Link(link),
            Verdict::Reply => Exit::Link(ingress),
            Verdict::Flood => Exit::Others,
            _ => Exit::Nowhere,
        };
        let left = if exit == Exit::Nowhere { &[][..] } else { frame.bytes() };
        let facts = Facts {
            packet,
            flow,
            service,
            ingress: Some(ingress),
            outcome: Outcome::Decided(verdict),
            exit,
        };
        let bytes = std::mem::take(&mut self.arrival.bytes);
        self.push(scene, &facts, [(&bytes, length), (left, left.len())]);
        self.arrival.bytes = bytes;
    }

    /// The router has sent a frame: its own, or one that had waited.
    pub fn sent(&mut self, scene: Scene<'_>, link: LinkId, frame: &Frame, refused: bool) {
        let outcome = if refused {
            Outcome::Decided(Verdict::Drop(DropReason::WriteRefused))
        } else {
            Outcome::Sent
        };
        let exit = Exit::Link(link);
        self.left(scene, (outcome, exit), frame.bytes(), frame.len());
    }

    /// A frame that had waited, or was the router's own, was dropped.
    pub fn dropped(&mut self, scene: Scene<'_>, drop: &LateDrop) {
        let outcome = Outcome::Decided(Verdict::Drop(drop.reason));
        self.left(scene, (outcome, Exit::Nowhere), drop.bytes(), drop.length);
    }

    fn left(
        &mut self,
        scene: Scene<'_>,
        (outcome, exit): (Outcome, Exit),
        bytes: &[u8],
        length: usize,
    ) {
        let packet = Packet::of(&Glance::at(bytes));
        let flow = packet.flow_left(scene.dataplane, scene.now);
        let service = packet.service(scene.table);
        let facts = Facts { packet, flow, service, ingress: None, outcome, exit };
        self.push(scene, &facts, [(&[], 0), (bytes, length)]);
    }

    fn push(&mut self, scene: Scene<'_>, facts: &Facts, [came, left]: [(&[u8], usize); 2]) {
        let Facts { flow, service, ingress, outcome, exit, .. } = *facts;
        let next_hop = match exit {
            Exit::Nowhere => None,
            Exit::Link(_) | Exit::Others => Ethernet::parse(left.0).map(|e| e.destination),
        };
        let record = Record {
            at: scene.now,
            generation: scene.table.generation(),
            ingress,
            outcome,
            exit,
            next_hop,
            flow,
            service,
            lengths: [came.1, left.1],
            kept: [0; 2],
            bytes_at: 0,
        };
        for tracer in self.all.iter_mut().filter(|tracer| tracer.aim.admits(facts)) {
            tracer.push(&record, [came.0, left.0]);
        }
    }
}
