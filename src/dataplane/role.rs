//! The router's role: what it says and does in the virtual IPs' name only while it is active
//! (RFC 9568 section 6.4).
//!
//! The active router speaks for the virtual IPs with the virtual MAC and for itself with its own. A
//! backup speaks for itself alone: its own addresses, its probes, its neighbours. Who is what is
//! decided elsewhere.

use std::net::{IpAddr, Ipv4Addr};

use super::advert::is_advert;
use super::neighbour::HOLD;
use super::{Arrival, Dataplane, DropReason, Event};
use crate::addr::{LinkId, MacAddr, Role};
use crate::frame::{ETHER_TYPE_ARP, ETHER_TYPE_LOOP_PROBE, Ethernet, Frame, IP};
use crate::table::{Local, Network, Table};
use crate::time::{Duration, Instant};

/// Adverts of another active router count for so many of their intervals: one may get lost.
const CONTENTION: u32 = 3;
/// Servers that are sought have answered by then: they are asked at the next tick of the neighbours' wheel.
const FOUND: Duration = Duration::from_millis(300);

impl Dataplane {
    /// Takes on `role`. The active router announces its virtual IPs, to be polled at once; what a
    /// backup had still to say in their name is dropped. Flows stay.
    pub fn handle_role(&mut self, table: &Table, role: Role, now: Instant) {
        if self.role == role {
            return;
        }
        self.role = role;
        match role {
            Role::Active => {
                self.guard.resume(now);
                self.take_over(now);
                self.seek_neighbours(table, now);
            }
            Role::Backup => self.stand_down(table),
        }
    }

    /// Whether this router speaks for the virtual IPs.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Announces everything once more: another router was active too, and is not any longer. Nothing
    /// while this one is a backup.
    pub fn announce_again(&mut self, table: &Table, now: Instant) {
        if self.is_active() {
            self.take_over(now);
            self.seek_neighbours(table, now);
        }
    }

    /// Frames that another bridge passed on may have told this router, or the switches, that a server is
    /// where it is not; and a server that waits to be spoken to does not set that right. While the other
    /// one may still pass on frames an answer would be no better, so this waits until it does not.
    pub(super) fn seek_neighbours(&mut self, table: &Table, now: Instant) {
        self.seek_due = None;
        let mut bridged = table.networks().iter().filter(|network| network.is_bridged()).peekable();
        if bridged.peek().is_none() || !self.is_active() {
            return;
        }
        if self.is_contended(table, now) {
            self.seek_due = self.contended_until(table);
            return;
        }
        for network in bridged {
            let again = self.neighbours.seek(network.id, now);
            self.seek_due = self.seek_due.into_iter().chain(again).min();
        }
        self.takeover.teach_again(now + FOUND);
    }

    pub(super) const fn is_active(&self) -> bool {
        matches!(self.role, Role::Active)
    }

    /// Nothing that was meant to be said in the virtual IPs' name is said from now on.
    fn stand_down(&mut self, table: &Table) {
        self.takeover.stop();
        self.seek_due = None;
        self.announcer.keep_own(table);
        self.defence.stand_down();
        self.questions.forget_all();
        while let Some(link) = self.guard.pause() {
            self.events.push(Event::LoopOver { link });
        }
        for _ in 0..self.outbox.ordinary() {
            let Some((link, slot)) = self.outbox.take_back() else { break };
            if is_own(table, link, self.outbox.frame_mut(slot)) {
                self.outbox.send(slot, link);
            } else {
                self.count_slot_drop(DropReason::BackupRole, slot);
                self.outbox.release(slot);
            }
        }
        if self.outbox.held() == 0 {
            return;
        }
        for id in 0..u32::try_from(self.neighbours.places()).unwrap_or(0) {
            self.keep_own_held(table, id);
        }
    }

    /// What waits for neighbour `id` is dropped, unless it is the router's own.
    fn keep_own_held(&mut self, table: &Table, id: u32) {
        let held = std::mem::take(&mut self.neighbours.get_mut(id).held);
        let mut kept = [None; HOLD];
        let mut places = kept.iter_mut();
        for slot in held.into_iter().flatten() {
            if is_own_source(table, self.outbox.frame_mut(slot).bytes()) {
                places.next().map(|place| place.insert(slot));
                continue;
            }
            self.outbox.unhold(slot);
            self.count_slot_drop(DropReason::BackupRole, slot);
            self.outbox.release(slot);
        }
        self.neighbours.get_mut(id).held = kept;
    }

    /// The MAC that a packet which is forwarded leaves `network` from.
    pub(super) fn forwards_from(
        &self,
        network: &Network,
        frame: &[u8],
    ) -> Result<MacAddr, DropReason> {
        if !self.is_active() {
            return Err(DropReason::BackupRole);
        }
        Ok(source(frame).map_or_else(|| network.service_mac(), |source| sender(network, source)))
    }

    /// The MAC that a packet of the router's own, or one that has waited, leaves `network` from; a
    /// backup sends nothing but what comes from the router's own addresses.
    pub(super) fn leaves_from(
        &self,
        table: &Table,
        network: &Network,
        frame: &[u8],
    ) -> Result<MacAddr, DropReason> {
        match (self.role, network.virtual_mac) {
            (Role::Active, None) => Ok(network.mac),
            _ if is_own_source(table, frame) => Ok(network.mac),
            (Role::Active, Some(virtual_mac)) => Ok(virtual_mac),
            (Role::Backup, _) => Err(DropReason::BackupRole),
        }
    }

    /// What the virtual MAC means for a frame with it: a backup leaves those for it to the active
    /// router, and the active one hears from no other but to be told that there is one.
    pub(super) fn check_virtual_mac(
        &self,
        arrival: &Arrival<'_>,
        frame: &[u8],
    ) -> Result<(), DropReason> {
        let Arrival { network, ethernet, .. } = arrival;
        let Some(virtual_mac) = network.virtual_mac else { return Ok(()) };
        match self.role {
            Role::Backup if ethernet.destination == virtual_mac => Err(DropReason::BackupRole),
            Role::Active
                if ethernet.source == virtual_mac
                    && ethernet.ether_type != ETHER_TYPE_ARP
                    && !is_advert(arrival, frame) =>
            {
                Err(DropReason::OtherActive)
            }
            Role::Active | Role::Backup => Ok(()),
        }
    }

    /// Whether the router's addresses are announced by `link`. A backup's stations are joined by the
    /// active router's bridge: what it says by one link is heard behind all.
    pub(super) fn may_announce(&self, network: &Network, link: LinkId) -> bool {
        !network.is_bridged()
            || self.guard.is_open(link) && (self.is_active() || link == network.link())
    }

    /// Another router's advert was heard: it is active.
    pub(super) fn note_other_active(&mut self, table: &Table, now: Instant) {
        self.other_active = Some(now);
        self.seek_neighbours(table, now);
    }

    /// Whether another router was active a moment ago. In a bridged network frames then come round by
    /// its links, which is no fault of the cables.
    pub(super) fn is_contended(&self, table: &Table, now: Instant) -> bool {
        self.contended_until(table).is_some_and(|end| now < end)
    }

    fn contended_until(&self, table: &Table) -> Option<Instant> {
        let interval = table.failover().map_or(Duration::ZERO, |failover| failover.advert_interval);
        self.other_active.map(|heard| heard + interval * CONTENTION)
    }
}

/// The MAC that `address`, one of the router's here, is at.
pub(super) fn mac_of(table: &Table, network: &Network, address: Ipv4Addr) -> MacAddr {
    match table.local(address) {
        Some(Local::Own(_)) => network.mac,
        Some(Local::Virtual(_)) | None => network.service_mac(),
    }
}

/// The MAC that a packet from `source` which is forwarded leaves `network` from.
pub(super) fn sender(network: &Network, source: Ipv4Addr) -> MacAddr {
    let Some(virtual_mac) = network.virtual_mac else { return network.mac };
    // What is masqueraded as the router itself comes from itself.
    let source = IpAddr::V4(source);
    let is_own = network.addresses.iter().any(|own| own.address() == source);
    if is_own { network.mac } else { virtual_mac }
}

/// Whether a frame to `mac` is for the router, in whatever role.
pub(super) fn is_router(network: &Network, mac: MacAddr) -> bool {
    mac == network.mac || network.virtual_mac == Some(mac)
}

/// Whether the IP packet in `frame` comes from one of the router's own addresses.
fn is_own_source(table: &Table, frame: &[u8]) -> bool {
    source(frame).is_some_and(|source| matches!(table.local(source), Some(Local::Own(_))))
}

/// The source address of the IP packet in `frame`.
fn source(frame: &[u8]) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = frame.get(IP + 12..IP + 16)?.try_into().ok()?;
    Some(bytes.into())
}

/// Whether a frame that waits to leave by `link` says nothing in anybody else's name.
fn is_own(table: &Table, link: LinkId, frame: &Frame) -> bool {
    let mac = table.network_of(link).map(|network| network.mac);
    Ethernet::parse(frame.bytes()).is_some_and(|ethernet| {
        Some(ethernet.source) == mac && ethernet.ether_type != ETHER_TYPE_LOOP_PROBE
    })
}
