//! Networks of several links: the router is the switch between them (IEEE 802.1D section 7).
//!
//! What is for the router itself, for a virtual IP whatever MAC it was sent to, and all ARP goes its
//! own way; everything else is passed on to where its station is. There is no spanning tree: BPDUs
//! pass, and [`loop_guard`](super::loop_guard) looks after loops.

use super::advert::is_advert;
use super::limit::TokenBucket;
use super::role::is_router;
use super::{Arrival, Consumed, Dataplane, DropReason, Verdict};
use crate::addr::{LinkId, MacAddr};
use crate::frame::{ETHER_TYPE_ARP, ETHER_TYPE_IPV4, ETHER_TYPE_LOOP_PROBE, ETHERNET, Frame, IP};
use crate::table::{Local, Network, Table};
use crate::time::Instant;

/// What IEEE 802.1D keeps for bridges among themselves, but for the last byte: 00 are BPDUs, 01 is
/// flow control.
const RESERVED_GROUP: [u8; 5] = [0x01, 0x80, 0xc2, 0x00, 0x00];
/// LLC and SNAP headers that say ARP: not sent on Ethernet, and not to be smuggled past the policy.
const SNAP_ARP: [u8; 8] = [0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x06];

/// How many stations behind a link take others' places in a full table: a second, and at once. A
/// flood of made-up ones must not drive out those that are there; what is for a station without a
/// place goes everywhere, within `unknown`.
const NEWCOMERS: (u64, u64) = (100, 256);

/// How much of what has to be copied a link may send, and how much it may change.
#[derive(Debug)]
pub(super) struct Limits {
    newcomers: TokenBucket,
    groups: TokenBucket,
    unknown: TokenBucket,
}

impl Limits {
    /// One for each link of `table`.
    pub(super) fn for_links(table: &Table, now: Instant) -> Vec<Self> {
        let of = |network: &Network| {
            let rate = u64::from(network.bridge.broadcast_limit);
            let bucket = || TokenBucket::new(rate, rate, now);
            let newcomers = TokenBucket::new(NEWCOMERS.0, NEWCOMERS.1, now);
            Self { newcomers, groups: bucket(), unknown: bucket() }
        };
        let networks = table.networks().iter();
        networks.flat_map(|network| network.links.iter().map(move |_| of(network))).collect()
    }
}

impl Dataplane {
    /// A frame that came in by one of several links.
    pub(super) fn bridge_frame(
        &mut self,
        arrival: &Arrival<'_>,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let Arrival { table, network, ingress, ethernet, now, .. } = *arrival;
        if !ethernet.source.is_unicast() {
            return Err(DropReason::BadSourceMac);
        }
        let is_lesson = ethernet.ether_type == ETHER_TYPE_LOOP_PROBE;
        if is_lesson && self.is_loop(arrival, frame.bytes()) {
            return Ok(Verdict::Consumed(Consumed::LoopProbe));
        }
        if !self.guard.is_open(ingress) {
            return Err(DropReason::LinkShut);
        }
        if ethernet.source == network.mac {
            // What one of two routers says by one link comes back by the other through its peer.
            if !self.is_active() {
                return Err(DropReason::BackupBridge);
            }
            if !self.is_contended(table, now) {
                self.own_mac_seen(network, now);
            }
            return Err(DropReason::OwnSourceMac);
        }
        check_kind(frame.bytes(), ethernet.ether_type)?;
        self.check_virtual_mac(arrival, frame.bytes())?;
        // Who is taught about by another router is not there; this one may not know yet that it is active.
        if !is_lesson {
            self.learn_station(table, network, ingress, ethernet.source, now);
        }
        if is_advert(arrival, frame.bytes()) {
            return self.frame_for_router(arrival, frame);
        }
        if ethernet.ether_type == ETHER_TYPE_ARP {
            return self.handle_arp(arrival, frame);
        }
        if is_router(network, ethernet.destination) {
            return self.frame_for_router(arrival, frame);
        }
        if is_for_virtual_ip(arrival, frame.bytes()) && self.is_active() {
            return self.frame_for_router(arrival, frame);
        }
        if arrival.offload.longest(frame.len()) > ETHERNET + usize::from(network.mtu) {
            return Err(DropReason::Oversize);
        }
        self.bridge_onward(arrival)
    }

    /// Remembers where the sender is. The virtual MAC is no station's. While another router is active, it
    /// passes frames from link to link too, whatever this one is.
    pub(super) fn learn_station(
        &mut self,
        table: &Table,
        network: &Network,
        ingress: LinkId,
        sender: MacAddr,
        now: Instant,
    ) {
        if Some(sender) == network.virtual_mac {
            return;
        }
        let is_alone = self.is_active() && !self.is_contended(table, now);
        let newcomers = &mut self.limits[ingress.index()].newcomers;
        if is_alone {
            self.stations.learn(network.id, sender, ingress, newcomers, now);
        } else {
            self.stations.overhear(network.id, sender, ingress, newcomers, now);
        }
    }

    /// Passes the frame on to where its station is, as it is.
    pub(super) fn bridge_onward(&mut self, arrival: &Arrival<'_>) -> Result<Verdict, DropReason> {
        let Arrival { network, ingress, ethernet, now, .. } = *arrival;
        if !self.is_active() {
            return Err(DropReason::BackupBridge);
        }
        let limits = &mut self.limits[ingress.index()];
        if ethernet.destination.is_multicast() {
            check_group(ethernet.destination)?;
            let may = limits.groups.take(now);
            return if may { self.flood(arrival) } else { Err(DropReason::BroadcastLimit) };
        }
        let ageing = network.bridge.mac_ageing;
        match self.stations.find(network.id, ethernet.destination, ageing, now) {
            Some(link) if link == ingress => Err(DropReason::SameLink),
            Some(link) if self.guard.is_open(link) => Ok(Verdict::Forward(link)),
            Some(_) | None if limits.unknown.take(now) => self.flood(arrival),
            Some(_) | None => Err(DropReason::UnknownLimit),
        }
    }

    /// The links that a frame which came in by `ingress` is copied to.
    pub fn flood_links(&self, table: &Table, ingress: LinkId) -> impl Iterator<Item = LinkId> {
        let links = table.network_of(ingress).map_or(&[][..], |network| &network.links);
        links.iter().copied().filter(move |link| *link != ingress && self.guard.is_open(*link))
    }

    /// The links that a frame of the router's own to everybody leaves by.
    pub(super) fn open_links<'n>(
        &'n self,
        network: &'n Network,
    ) -> impl Iterator<Item = LinkId> + use<'n> {
        let all = !network.is_bridged();
        network.links.iter().copied().filter(move |link| all || self.guard.is_open(*link))
    }

    /// The link towards a neighbour that was last heard of on `heard_on`.
    pub(super) fn egress(&self, network: &Network, mac: MacAddr, heard_on: LinkId) -> LinkId {
        if !network.is_bridged() {
            return network.link();
        }
        let link = self.stations.last_known(network.id, mac).unwrap_or(heard_on);
        if self.guard.is_open(link) && network.links.contains(&link) {
            return link;
        }
        self.open_links(network).next().unwrap_or(link)
    }

    /// The frame in `slot` of the outbox leaves by every link of `network`.
    pub(super) fn send_to_all(&mut self, network: &Network, slot: u16) {
        let mut last = None;
        for at in 0..network.links.len() {
            let link = network.links[at];
            if network.is_bridged() && !self.guard.is_open(link) {
                continue;
            }
            if let Some(before) = last.replace(link)
                && let Some(copy) = self.outbox.copy(slot)
            {
                self.outbox.send(copy, before);
                self.counters.originated += 1;
            }
        }
        match last {
            Some(link) => {
                self.outbox.send(slot, link);
                self.counters.originated += 1;
            }
            None => self.outbox.release(slot),
        }
    }

    fn flood(&self, arrival: &Arrival<'_>) -> Result<Verdict, DropReason> {
        let mut links = self.flood_links(arrival.table, arrival.ingress);
        links.next().map(|_| Verdict::Flood).ok_or(DropReason::LinkShut)
    }
}

/// What a bridge without tags does not pass, whoever it is for.
fn check_kind(frame: &[u8], ether_type: u16) -> Result<(), DropReason> {
    match ether_type {
        0x8100 | 0x88a8 | 0x9100 => Err(DropReason::Vlan),
        0x8808 => Err(DropReason::PauseFrame),
        0..0x0600 if frame.get(ETHERNET..ETHERNET + 8) == Some(&SNAP_ARP) => {
            Err(DropReason::ArpMalformed)
        }
        _ => Ok(()),
    }
}

fn check_group(group: MacAddr) -> Result<(), DropReason> {
    let [start @ .., last] = group.0;
    if start == RESERVED_GROUP && (0x01..=0x0f).contains(&last) {
        return Err(DropReason::LinkLocalGroup);
    }
    Ok(())
}

/// A client that was misled about a virtual IP's MAC is served all the same.
fn is_for_virtual_ip(arrival: &Arrival<'_>, frame: &[u8]) -> bool {
    let destination = frame.get(IP + 16..IP + 20).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    arrival.ethernet.ether_type == ETHER_TYPE_IPV4
        && destination.is_some_and(|destination| {
            let local = arrival.table.local(destination.into());
            local == Some(Local::Virtual(arrival.network.id))
        })
}
