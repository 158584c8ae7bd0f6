//! What has happened, counted where it happens.

use super::flow::Direction;
use super::schedule::Load;
use super::verdict::DropReason;
use crate::addr::{ServerId, ServiceId};

/// Frames through the dataplane. In and out balance:
/// `received + originated + copies = forwarded + replied + split + transmitted + to_host + to_ha +
/// consumed + drops + waiting`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Frames handed in.
    pub received: u64,
    /// Frames that the router made itself.
    pub originated: u64,
    /// How many more frames leave than came in, where a bridge copies one to several links.
    pub copies: u64,
    /// Frames that leave as the verdict says, each copy counted.
    pub forwarded: u64,
    /// Frames turned into an answer in place.
    pub replied: u64,
    /// Frames cut into fragments, which count as originated.
    pub split: u64,
    /// Frames handed out by `poll_transmit`.
    pub transmitted: u64,
    /// Frames for the router's own IP stack.
    pub to_host: u64,
    /// Frames for the pair's own affairs.
    pub to_ha: u64,
    /// Frames understood and done with.
    pub consumed: u64,
    /// Frames dropped, by reason.
    pub drops: [u64; DropReason::COUNT],
    /// Answers (ICMP errors, resets) that were not made because there were too many.
    pub suppressed: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            received: 0,
            originated: 0,
            copies: 0,
            forwarded: 0,
            replied: 0,
            split: 0,
            transmitted: 0,
            to_host: 0,
            to_ha: 0,
            consumed: 0,
            drops: [0; DropReason::COUNT],
            suppressed: 0,
        }
    }
}

impl Counters {
    /// Frames dropped for `reason`.
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason.index()]
    }

    /// Frames dropped for any reason.
    pub fn all_drops(&self) -> u64 {
        self.drops.iter().sum()
    }
}

/// What a service or server has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Flows opened.
    pub flows: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Their bytes, IP header on.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Their bytes, IP header on.
    pub bytes_out: u64,
}

impl Traffic {
    /// Some packets, `bytes` bytes in all.
    pub(super) const fn count(&mut self, direction: Direction, packets: u32, bytes: u64) {
        let packets = packets as u64;
        match direction {
            Direction::Original => {
                self.packets_in += packets;
                self.bytes_in += bytes;
            }
            Direction::Reply => {
                self.packets_out += packets;
                self.bytes_out += bytes;
            }
        }
    }
}

/// Per service and per server figures: plain arrays by id, untouched by a reload.
#[derive(Debug, Default)]
pub(super) struct Figures {
    services: Vec<Figure>,
    servers: Vec<Figure>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figure {
    pub(super) traffic: Traffic,
    pub(super) load: Load,
    /// Clients that are remembered.
    pub(super) clients: u32,
    /// Datagrams whose answers are waited for.
    pub(super) datagrams: u32,
}

impl Figure {
    /// Whatever there is that still refers to it.
    pub(super) const fn held(&self) -> u32 {
        self.load.total().saturating_add(self.clients).saturating_add(self.datagrams)
    }
}

impl Figures {
    /// Makes room for service and server ids below the limits.
    pub(super) fn reserve(&mut self, (services, servers): (usize, usize)) {
        self.services.resize(services.max(self.services.len()), Figure::default());
        self.servers.resize(servers.max(self.servers.len()), Figure::default());
    }

    pub(super) fn service(&self, id: ServiceId) -> Figure {
        self.services.get(id.index()).copied().unwrap_or_default()
    }

    pub(super) fn server(&self, id: ServerId) -> Figure {
        self.servers.get(id.index()).copied().unwrap_or_default()
    }

    /// The id starts over with another service.
    pub(super) fn reset_service(&mut self, id: ServiceId) {
        self.services[id.index()] = Figure::default();
    }

    /// The id starts over with another server.
    pub(super) fn reset_server(&mut self, id: ServerId) {
        self.servers[id.index()] = Figure::default();
    }

    /// The figures of a flow's service and server.
    pub(super) fn both(
        &mut self,
        owner: Option<(ServiceId, ServerId)>,
    ) -> impl Iterator<Item = &mut Figure> {
        let pair = owner.map(|(service, server)| {
            [&mut self.services[service.index()], &mut self.servers[server.index()]]
        });
        pair.into_iter().flatten()
    }
}
