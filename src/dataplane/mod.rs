//! What happens to each frame: ARP for the virtual IPs, flows, NAT, neighbours, counters.
//!
//! Owns everything that has happened since the start. Has no clock, no descriptors, no randomness of
//! its own: time, bytes and the seed are arguments, decisions are return values. What is configured
//! is the [`Table`]'s.

mod advert;
mod ahead;
mod announce;
mod arp;
mod bridge;
mod claim;
mod copy;
mod counters;
mod defence;
mod deliver;
mod draw;
mod ending;
mod estimate;
mod event;
mod express;
mod flow;
mod forward;
mod fragments;
mod ftp;
mod hash;
mod icmp;
mod ip;
mod late;
mod lifetime;
mod limit;
mod look;
mod loop_guard;
mod masquerade;
mod memory;
mod neighbour;
mod originate;
mod outbox;
mod persistence;
mod piece;
mod report;
mod reset;
mod role;
mod schedule;
mod service;
mod standing;
mod stations;
mod swap;
mod takeover;
mod threshold;
mod verdict;
mod vip_probe;
mod watch;
mod wheel;

use std::net::Ipv4Addr;

use crate::addr::{LinkId, MacAddr, NetworkId, Role};
use crate::frame::{ETHER_TYPE_ARP, ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, Ethernet, Frame, Offload};
use crate::table::{Network, Table};
use crate::time::Instant;

pub use copy::{
    CopyCounters, FLOW_RECORD, FlowChange, FlowRecord, ImportError, Imported, LONGEST_FLOW_RECORD,
};
pub use counters::{Counters, Traffic};
pub use event::Event;
pub use flow::{Direction, State, Tuple};
pub use ftp::{FtpCounters, FtpLoad};
pub use late::LateDrop;
pub use look::Carried;
pub use neighbour::Reachability;
pub use persistence::ClientInfo;
pub use report::{ClaimReport, FlowInfo, NeighbourInfo, Report, ServerReport, ServiceReport};
pub use schedule::Load;
pub use verdict::{Consumed, DropReason, Verdict};
pub use vip_probe::{ProbeError, ProbeOutcome};
pub use watch::Claim;

use announce::Announcer;
use bridge::Limits;
use claim::Questions;
use copy::Copies;
use counters::Figures;
use defence::Defence;
use draw::{Draw, Use};
use ending::Endings;
use estimate::Estimates;
use event::Events;
use flow::FlowTable;
use fragments::Fragments;
use ftp::Ftp;
use late::LateDrops;
use lifetime::Lifetimes;
use limit::TokenBucket;
use loop_guard::LoopGuard;
use masquerade::Masquerade;
use neighbour::Neighbours;
use outbox::Outbox;
use persistence::Clients;
use role::is_router;
use schedule::Schedulers;
use standing::Standings;
use stations::Stations;
use swap::{Progress, Retiring};
use takeover::Takeover;
use threshold::Thresholds;
use vip_probe::Probes;
use watch::Watch;

/// Neighbour timers handled per turn.
const QUESTIONS: u32 = 64;
/// Masqueraded internal ports, at most: the ports of one external address and protocol.
const MAPPINGS: usize = 65_536;
/// ICMP errors and resets: a second, and at once.
const ANSWER_RATE: (u64, u64) = (1_000, 200);
/// Strangers asked back when they ask for the router: a second, and at once.
const MEETING_RATE: (u64, u64) = (100, 256);

/// Who asks [`Dataplane::send_packet`] to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The router's own IP stack.
    Host,
    /// The pair's own affairs, on this network: an advert is sent there at once, to every link; what
    /// goes to one address is routed like the host's.
    Ha(NetworkId),
}

/// A frame, where it came from, and what it is looked at with.
#[derive(Clone, Copy, Debug)]
struct Arrival<'t> {
    table: &'t Table,
    network: &'t Network,
    ingress: LinkId,
    ethernet: Ethernet,
    offload: Offload,
    now: Instant,
}

/// The forwarding engine. See the module's description.
#[derive(Debug)]
pub struct Dataplane {
    role: Role,
    takeover: Takeover,
    /// When another router's advert was last heard.
    other_active: Option<Instant>,
    /// When everybody is asked where the servers behind a bridge are.
    seek_due: Option<Instant>,
    flows: FlowTable,
    neighbours: Neighbours,
    outbox: Outbox,
    fragments: Fragments,
    ftp: Ftp,
    masquerade: Masquerade,
    announcer: Announcer,
    watch: Watch,
    defence: Defence,
    questions: Questions,
    probes: Probes,
    stations: Stations,
    guard: LoopGuard,
    /// By link id.
    limits: Vec<Limits>,
    estimates: Estimates,
    schedulers: Schedulers,
    thresholds: Thresholds,
    lifetimes: Lifetimes,
    clients: Clients,
    standings: Standings,
    figures: Figures,
    counters: Counters,
    events: Events,
    late: LateDrops,
    retiring: Retiring,
    progress: Progress,
    endings: Endings,
    copies: Copies,
    challenges: TokenBucket,
    answers: TokenBucket,
    acquaintances: TokenBucket,
    alarms: TokenBucket,
    /// Last time a table-full event was raised.
    table_full_told: Option<Instant>,
    client_ports: Draw,
    /// Of the last ICMP error.
    identification: u16,
}

impl Dataplane {
    /// An engine for at most `max_flows` flows; `seed` keys its hash tables and must be secret. It is
    /// a backup until it is told otherwise where `table` has a failover, and active where it has none.
    pub fn new(table: &Table, seed: [u8; 16], max_flows: usize, now: Instant) -> Self {
        let role = if table.failover().is_some() { Role::Backup } else { Role::Active };
        let mut dataplane = Self {
            role,
            takeover: Takeover::default(),
            other_active: None,
            seek_due: None,
            flows: FlowTable::new(max_flows, &seed, now),
            neighbours: Neighbours::new(0, &seed, now),
            outbox: Outbox::new(),
            fragments: Fragments::new(&seed),
            ftp: Ftp::new(&seed),
            masquerade: Masquerade::new(max_flows.min(MAPPINGS), &seed),
            announcer: Announcer::new(),
            watch: Watch::new(now),
            defence: Defence::new(&seed, now),
            questions: Questions::new(now),
            probes: Probes::new(&seed),
            stations: Stations::new(&seed, table.networks().iter().any(Network::is_bridged)),
            guard: LoopGuard::new(&seed, role == Role::Active),
            limits: Vec::new(),
            estimates: Estimates::default(),
            schedulers: Schedulers::new(&seed),
            thresholds: Thresholds::default(),
            lifetimes: Lifetimes::default(),
            clients: Clients::new(&seed, max_flows, now),
            standings: Standings::default(),
            figures: Figures::default(),
            counters: Counters::default(),
            events: Events::new(),
            late: LateDrops::default(),
            retiring: Retiring::default(),
            progress: Progress::default(),
            endings: Endings::default(),
            copies: Copies::default(),
            challenges: reset::challenge_pace(now),
            answers: TokenBucket::new(ANSWER_RATE.0, ANSWER_RATE.1, now),
            acquaintances: TokenBucket::new(MEETING_RATE.0, MEETING_RATE.1, now),
            alarms: TokenBucket::new(1, 1, now),
            table_full_told: None,
            client_ports: Draw::new(&seed, Use::ClientPorts),
            identification: Draw::new(&seed, Use::Identification).below(u16::MAX),
        };
        dataplane.install(None, table, now);
        dataplane
    }

    /// Decides about one frame that came in by `ingress`. For `Forward` and `Reply` the frame is what
    /// must leave; for `ToHost` and `ToHa` it is the IP packet behind its Ethernet header, padding
    /// removed.
    pub fn handle_frame(
        &mut self,
        table: &Table,
        ingress: LinkId,
        frame: &mut Frame,
        now: Instant,
    ) -> Verdict {
        self.counters.received += 1;
        let verdict = match self.express(table, ingress, frame, now) {
            Some(egress) => Verdict::Forward(egress),
            None => self.decide(table, ingress, frame, now),
        };
        if log::log_enabled!(log::Level::Trace) {
            trace(ingress, verdict);
        }
        verdict
    }

    /// Replaces the table: what is the same keeps flows, counters and scheduler position.
    pub fn handle_table(&mut self, old: &Table, new: &Table, now: Instant) {
        self.install(Some(old), new, now);
    }

    /// Does what is due: expires flows, asks for neighbours. Bounded; call again while
    /// [`Dataplane::poll_timeout`] is not in the future.
    pub fn handle_timeout(&mut self, table: &Table, now: Instant) {
        self.go_on_installing(table, now);
        self.expire_flows(now);
        self.expire_clients(now);
        let figures = &self.figures;
        self.estimates.adjust(
            now,
            |id| figures.service(id).traffic,
            |id| figures.server(id).traffic,
        );
        self.end_flows(table, now);
        self.tend_copies(table);
        self.drop_stale_pieces(now);
        self.guard_loops(table, now);
        self.probe_virtual_ips(table, now);
        self.expire_probes(now);
        if self.seek_due.is_some_and(|due| due <= now) {
            self.seek_neighbours(table, now);
        }
        for _ in 0..QUESTIONS {
            let Some(due) = self.neighbours.next_due(now) else { break };
            self.neighbour_due(table, due, now);
        }
    }

    /// `link` is up, or is heard for the first time: whoever is configured behind it and not known is
    /// asked for at once.
    pub fn handle_link_up(&mut self, table: &Table, link: LinkId, now: Instant) {
        if let Some(network) = table.network_of(link) {
            self.neighbours.hurry(network.id, now);
        }
    }

    /// When [`Dataplane::handle_timeout`] wants to be called; `None`: not before the next frame.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = [
            self.progress.next_deadline(),
            self.flows.next_deadline(),
            self.clients.next_deadline(),
            self.estimates.next_deadline(),
            self.endings.next_deadline().filter(|_| self.is_active()),
            self.copies.next_deadline(),
            self.neighbours.next_deadline(),
            self.seek_due,
            self.takeover.next_deadline(),
            self.announcer.next_deadline(),
            self.watch.next_deadline().filter(|_| self.is_active()),
            self.defence.next_deadline(),
            self.probes.next_deadline(),
            self.guard.next_deadline(),
            self.fragments.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The next thing that somebody should know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.retiring.pop().or_else(|| self.events.pop())
    }

    /// The next frame that leaves without being the answer to the one handed in: adverts, announcements,
    /// questions, ICMP errors, frames that waited. Swapped into `out`.
    pub fn poll_transmit(
        &mut self,
        table: &Table,
        out: &mut Frame,
        now: Instant,
    ) -> Option<LinkId> {
        let own = |dataplane: &mut Self, link: Option<LinkId>| {
            dataplane.counters.originated += u64::from(link.is_some());
            link
        };
        let mut link = self.outbox.pop_first(out);
        if link.is_none() {
            let takeover = self.next_of_takeover(table, out, now);
            link = own(self, takeover);
        }
        link = link.or_else(|| self.outbox.pop(out));
        if link.is_none() {
            let announcement = self.next_announcement(table, out, now);
            link = own(self, announcement);
        }
        self.counters.transmitted += u64::from(link.is_some());
        link
    }

    /// Sends an IPv4 packet of the router's own: routed and resolved like any other, unless it is an
    /// advert.
    pub fn send_packet(&mut self, table: &Table, packet: &[u8], origin: Origin, now: Instant) {
        if let Origin::Ha(network) = origin
            && advert::is_to_routers(packet)
        {
            return self.send_advert(table, network, packet);
        }
        self.counters.originated += 1;
        let Some(slot) = self.outbox.take() else {
            self.count_no_place(DropReason::OutboxFull);
            return;
        };
        if !advert::write_packet(packet, self.outbox.frame_mut(slot)) {
            self.outbox.release(slot);
            self.count_no_place(DropReason::IpMalformed);
            return;
        }
        self.send_slot(table, slot, now);
    }

    /// A frame that the dataplane let pass and a later room could not take is a drop after all.
    pub fn count_refused(&mut self, reason: DropReason, frames: u64) {
        self.counters.drops[reason.index()] += frames;
        if reason == DropReason::HostQueueFull {
            self.counters.to_host = self.counters.to_host.saturating_sub(frames);
        }
    }

    /// The frame counters.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many flows are tracked.
    pub const fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// Whatever the frame is; counted.
    fn decide(
        &mut self,
        table: &Table,
        ingress: LinkId,
        frame: &mut Frame,
        now: Instant,
    ) -> Verdict {
        let verdict = self.classify(table, ingress, frame, now).unwrap_or_else(Verdict::Drop);
        self.count_verdict(table, ingress, verdict);
        verdict
    }

    fn count_verdict(&mut self, table: &Table, ingress: LinkId, verdict: Verdict) {
        match verdict {
            Verdict::Forward(_) => self.counters.forwarded += 1,
            Verdict::Flood => {
                let links = self.flood_links(table, ingress).count() as u64;
                self.counters.forwarded += links;
                self.counters.copies += links.saturating_sub(1);
            }
            Verdict::Split => self.counters.split += 1,
            Verdict::Reply => self.counters.replied += 1,
            Verdict::ToHost => self.counters.to_host += 1,
            Verdict::ToHa => self.counters.to_ha += 1,
            Verdict::Consumed(_) => self.counters.consumed += 1,
            Verdict::Drop(reason) => self.counters.drops[reason.index()] += 1,
            Verdict::Held => {}
        }
    }

    fn classify(
        &mut self,
        table: &Table,
        ingress: LinkId,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let network = table.network_of(ingress).ok_or(DropReason::UnknownLink)?;
        let ethernet = Ethernet::parse(frame.bytes()).ok_or(DropReason::Runt)?;
        let offload = frame.accept()?;
        let arrival = Arrival { table, network, ingress, ethernet, offload, now };
        if network.is_bridged() {
            return self.bridge_frame(&arrival, frame);
        }
        if let Err(reason) = self.check_ethernet(&arrival, frame) {
            match reason {
                DropReason::OwnSourceMac => self.own_mac_seen(network, now),
                DropReason::OtherDestinationMac => self.overhear(&arrival, frame)?,
                _ => {}
            }
            return Err(reason);
        }
        self.frame_for_router(&arrival, frame)
    }

    /// Is this frame from a station, and for this one?
    fn check_ethernet(&self, arrival: &Arrival<'_>, frame: &Frame) -> Result<(), DropReason> {
        let Arrival { network, ethernet: Ethernet { source, destination, .. }, .. } = *arrival;
        if !source.is_unicast() {
            Err(DropReason::BadSourceMac)
        } else if source == network.mac {
            Err(DropReason::OwnSourceMac)
        } else if !is_router(network, destination) && !destination.is_multicast() {
            Err(DropReason::OtherDestinationMac)
        } else {
            self.check_virtual_mac(arrival, frame.bytes())
        }
    }

    /// A frame that the router is to look into itself.
    fn frame_for_router(
        &mut self,
        arrival: &Arrival<'_>,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        match arrival.ethernet.ether_type {
            ETHER_TYPE_IPV4 => self.handle_ipv4(arrival, frame),
            ETHER_TYPE_ARP => self.handle_arp(arrival, frame),
            ETHER_TYPE_IPV6 => Err(DropReason::Ipv6),
            0x8100 | 0x88a8 | 0x9100 => Err(DropReason::Vlan),
            0x8808 => Err(DropReason::PauseFrame),
            0..0x0600 => Err(DropReason::Llc),
            _ => Err(DropReason::UnknownEtherType),
        }
    }

    /// A frame from the router's own MAC came in.
    fn own_mac_seen(&mut self, network: &Network, now: Instant) {
        if self.alarms.take(now) {
            self.events.push(Event::OwnMac { network: network.id });
        }
    }

    fn next_announcement(
        &mut self,
        table: &Table,
        out: &mut Frame,
        now: Instant,
    ) -> Option<LinkId> {
        let mut announcer = std::mem::take(&mut self.announcer);
        let is_open = |network: &Network, link| self.may_announce(network, link);
        let gateway = |network: &Network| self.gateway(network);
        let link = announcer.next(table, out, now, is_open, gateway);
        self.announcer = announcer;
        link.or_else(|| self.defence.next(table, out, now))
    }

    fn count_drop(&mut self, reason: DropReason) {
        self.counters.drops[reason.index()] += 1;
    }
}

/// By value, and apart: a verdict that has to lie in memory to be shown is slower to return.
#[cold]
fn trace(ingress: LinkId, verdict: Verdict) {
    log::trace!("link {ingress}: {verdict:?}");
}

/// An address that a packet may come from (RFC 1122 section 3.2.1.3, RFC 1812 section 5.3.7).
const fn is_host(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    !matches!(first, 0 | 127 | 224..=255)
}

/// A sender that ARP may be believed about.
const fn is_station(mac: MacAddr) -> bool {
    !mac.is_multicast() && !matches!(mac.0, [0, 0, 0, 0, 0, 0])
}
