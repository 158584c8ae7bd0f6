//! One router of the pair: dataplane, state machine and sync session, joined as the router's loop
//! joins them.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use tapvs::addr::{LinkId, MacAddr, NetworkId, Proto, Role};
use tapvs::config::{
    AdvertChecksum, Config, Failover, FailoverNetwork, FlowSync, Helper, SyncKey, VrrpVersion,
};
use tapvs::dataplane::{FlowChange, FlowRecord, LONGEST_FLOW_RECORD, Origin};
use tapvs::frame::{ETHERNET, Frame, datagram, payload_of_datagram};
use tapvs::ha::signature::Key;
use tapvs::ha::sync::{self, LARGEST_DATAGRAM, Session, Sizes};
use tapvs::ha::{Event, Ha, Member, PROTOCOL, Reason, Run, Settings};
use tapvs::time::{Duration, Instant};

use crate::ftp::CONTROL;
use crate::support::validity::check_sums;
use crate::support::{INNER_VIP, Router, VIP, bridged, config, server, service};

pub(crate) const ADVERTS: Duration = Duration::from_millis(100);
pub(crate) const PRIORITIES: [u8; 2] = [200, 100];
const KEY: [u8; 32] = [7; 32];
/// The wire has room for every record.
const _: () = assert!(LONGEST_FLOW_RECORD <= sync::LONGEST_RECORD);
const PORT: u16 = 8_848;
const MAX_FLOWS: usize = 300;
/// What waits at a router that does not read.
const QUEUE: usize = 500;
/// Records and datagrams in one turn.
const RECORDS: usize = 256;
const DATAGRAMS: usize = 32;
/// Frames that one may lead to: fragments that waited, stations that a takeover speaks for.
const MOST_ANSWERS: usize = 70;

/// How the routers are between clients and servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Two networks, and NAT between them.
    Nat,
    /// One network, of which each router bridges the halves; direct routing.
    Bridged,
}

impl Shape {
    /// The virtual IPs, with the segment where each is asked for.
    pub(crate) fn shared(self) -> Vec<(usize, Ipv4Addr)> {
        match self {
            Self::Nat => vec![(0, VIP), (1, INNER_VIP)],
            Self::Bridged => vec![(0, VIP)],
        }
    }

    /// Where each virtual IP is, by segment.
    pub(crate) const fn virtual_mac(self, segment: usize) -> MacAddr {
        let id = match (self, segment) {
            (Self::Nat, 1) => 52,
            _ => 51,
        };
        MacAddr([0, 0, 0x5e, 0, 1, id])
    }

    fn config(self, speaks_ftp: bool, number: usize) -> Config {
        let mut config = match self {
            Self::Nat => config(),
            Self::Bridged => bridged(),
        };
        if speaks_ftp {
            let servers = (11..=13).map(|n| server(n, CONTROL, 1)).collect();
            let mut ftp = service(Proto::Tcp, CONTROL, servers);
            ftp.lifecycle.helper = Some(Helper::Ftp);
            config.services.push(ftp);
        }
        let last = 2 + number;
        config.router.name = format!("lvs{number}");
        for (at, network) in config.networks.iter_mut().enumerate() {
            network.gateway = None;
            network.mac = Some(own_mac(number, at));
            network.links.truncate(if self == Self::Nat { 1 } else { 2 });
            // What goes round in a circle is to end soon.
            network.bridge.broadcast_limit = 200;
            for address in &mut network.addresses {
                let text = address.to_string();
                let (prefix, _) = text.rsplit_once('.').unwrap();
                *address = format!("{prefix}.{last}/24").parse().unwrap();
            }
        }
        let (networks, peer) = match self {
            Self::Nat => (2, Ipv4Addr::new(10, 0, 0, 3 - u8::try_from(number).unwrap())),
            Self::Bridged => (1, Ipv4Addr::new(203, 0, 113, 3 - u8::try_from(number).unwrap())),
        };
        let member = |network| FailoverNetwork {
            network,
            virtual_router_id: 51 + u8::try_from(network).unwrap(),
            track_gateway: false,
            peers: Vec::new(),
        };
        config.failover = Some(Failover {
            version: VrrpVersion::V3,
            priority: PRIORITIES[number],
            advert_interval: ADVERTS,
            preempt: true,
            preempt_delay: Duration::ZERO,
            checksum: AdvertChecksum::PseudoHeader,
            networks: (0..networks).map(member).collect(),
            sync: Some(FlowSync {
                network: networks - 1,
                peer,
                port: PORT,
                key: SyncKey::Bytes(KEY),
                sync_timeout: Duration::from_secs(2),
                authenticate_adverts: false,
            }),
        });
        config
    }
}

pub(crate) fn own_mac(number: usize, network: usize) -> MacAddr {
    let (number, network) = (u8::try_from(number).unwrap(), u8::try_from(network).unwrap());
    MacAddr([2, 0, 0, 0, 1, 1 + 2 * number + network])
}

pub(crate) struct Node {
    pub(crate) router: Router,
    pub(crate) ha: Ha,
    session: Session,
    ends: (SocketAddrV4, SocketAddrV4),
    sync_network: NetworkId,
    /// Its clock is ahead of the world's by so much.
    pub(crate) ahead: Duration,
    pub(crate) paused_until: Instant,
    /// How often it was told that it is alone again, lately.
    pub(crate) contentions: VecDeque<Instant>,
    inbox: VecDeque<(usize, Vec<u8>)>,
    /// There was more to do than one turn may take.
    is_behind: bool,
    packet: Vec<u8>,
    frame: Frame,
}

impl Node {
    pub(crate) fn new(
        (shape, speaks_ftp): (Shape, bool),
        number: usize,
        seed: u64,
        now: Instant,
    ) -> Self {
        let config = shape.config(speaks_ftp, number);
        let failover = config.failover.clone().unwrap();
        let mut router = Router::cold_at(config, MAX_FLOWS, now);
        router.answers_arp = false;
        let table = &router.table;
        let members = failover.networks.iter().map(|member| {
            let network = &table.networks()[member.network];
            let vips = table.virtual_ips().iter().filter(|vip| vip.network == network.id);
            Member {
                network: network.id,
                address: network.own_address().unwrap(),
                virtual_router_id: member.virtual_router_id,
                virtual_ips: vips.map(|vip| vip.address).collect(),
                peers: Vec::new(),
            }
        });
        let (own, peer) = table.sync_ends().unwrap();
        let sync = failover.sync.as_ref().unwrap();
        let key = Key::new(&KEY);
        let sizes = Sizes { datagram: 1_472, record: LONGEST_FLOW_RECORD };
        let secret = [seed.to_le_bytes(), (!seed).to_le_bytes()].concat();
        let session = Session::new(key.clone(), secret.try_into().unwrap(), sizes, now);
        let settings = Settings::new(&failover, members.collect(), Some(key));
        let socket = |end: tapvs::addr::Endpoint| match end.address {
            IpAddr::V4(address) => SocketAddrV4::new(address, end.port),
            IpAddr::V6(_) => unreachable!("both are by IPv4"),
        };
        Self {
            ha: Ha::new(settings, session.run_id(), now),
            ends: (socket(own), socket(peer)),
            sync_network: table.networks()[sync.network].id,
            session,
            router,
            ahead: Duration::ZERO,
            paused_until: now,
            contentions: VecDeque::new(),
            inbox: VecDeque::new(),
            is_behind: false,
            packet: Vec::with_capacity(LARGEST_DATAGRAM),
            frame: Frame::new(),
        }
    }

    /// Everything that the active router has is here.
    pub(crate) fn is_complete(&self) -> bool {
        self.session.is_complete()
    }

    /// A frame waits to be read.
    pub(crate) fn receive(&mut self, link: usize, frame: Vec<u8>) {
        if self.inbox.len() < QUEUE {
            self.inbox.push_back((link, frame));
        }
    }

    /// When it has something to do, by the world's clock.
    pub(crate) fn due(&self) -> Option<Instant> {
        let due = [
            self.ha.poll_timeout(),
            self.router.dataplane.poll_timeout(),
            self.session.poll_timeout(),
        ];
        let due = due.into_iter().flatten().min().map(|due| due - self.ahead);
        let at_once = self.is_behind || !self.inbox.is_empty();
        let at_once = at_once.then_some(self.paused_until);
        due.into_iter().chain(at_once).min().map(|due| due.max(self.paused_until))
    }

    /// One turn: what came in, what is due, and all that leaves, as the router's loop does it.
    pub(crate) fn turn(&mut self, now: Instant) -> (Vec<(LinkId, Vec<u8>)>, Option<Reason>) {
        let now = now + self.ahead;
        self.router.now = now;
        let mut out = Vec::new();
        while let Some((link, bytes)) = self.inbox.pop_front() {
            let link = LinkId(u16::try_from(link).unwrap());
            let step = self.router.feed(link, &bytes);
            assert!(step.out.len() <= MOST_ANSWERS, "{} frames for one", step.out.len());
            if let (tapvs::dataplane::Verdict::Forward(_), Some((_, frame))) =
                (step.verdict, step.out.first())
            {
                check_sums(&bytes, frame).unwrap();
            }
            if let Some(frame) = &step.ha {
                self.hear(link, &frame[ETHERNET..], now);
            }
            out.extend(step.out);
        }
        let Router { dataplane, table, .. } = &mut self.router;
        if dataplane.poll_timeout().is_some_and(|due| due <= now) {
            dataplane.handle_timeout(table, now);
        }
        if self.ha.poll_timeout().is_some_and(|due| due <= now) {
            self.ha.handle_timeout(now);
        }
        self.tell(now);
        self.take_in(now);
        self.tell(now);
        let reason = self.follow_ha(now);
        self.give_out(now);
        out.extend(self.router.transmits());
        out.append(&mut self.router.probes);
        self.router.check();
        self.router.events.clear();
        (out, reason)
    }

    fn hear(&mut self, link: LinkId, packet: &[u8], now: Instant) {
        if packet[9] == PROTOCOL {
            let network = self.router.table.network_of(link).unwrap().id;
            self.ha.handle_packet(network, packet, now);
        } else {
            let payload = payload_of_datagram(packet).unwrap_or_default();
            self.session.handle_datagram(payload, now);
        }
    }

    fn tell(&mut self, now: Instant) {
        let dataplane = &mut self.router.dataplane;
        while let Some(event) = self.session.poll_event() {
            match event {
                sync::Event::PeerAppeared { run } => {
                    dataplane.begin_full_import();
                    self.ha.handle_peer_run(Some(Run { id: run, sequence: 0 }), now);
                }
                sync::Event::PeerLost { .. } => {
                    self.ha.handle_peer_run(None, now);
                    self.ha.handle_sync(false);
                }
                sync::Event::Complete => {
                    dataplane.end_full_import();
                    self.ha.handle_sync(true);
                }
                sync::Event::Transferred => {}
            }
        }
    }

    fn take_in(&mut self, now: Instant) {
        if self.session.poll_timeout().is_some_and(|due| due <= now) {
            self.session.handle_timeout(now);
        }
        let Router { dataplane, table, .. } = &mut self.router;
        self.is_behind = false;
        for _ in 0..RECORDS {
            let Some(record) = self.session.poll_record() else { return };
            let _ = dataplane.import_flow(table, record, now);
        }
        self.is_behind = true;
    }

    /// Carries out what was decided; why the role changed, if it did.
    fn follow_ha(&mut self, now: Instant) -> Option<Reason> {
        let Router { dataplane, table, .. } = &mut self.router;
        let mut why = None;
        while let Some(event) = self.ha.poll_event() {
            match event {
                Event::Role { role, reason } => {
                    why = Some(reason);
                    dataplane.handle_role(table, role, now);
                    self.session.handle_role(role, now);
                    dataplane.copy_changes(role == Role::Active);
                    if role == Role::Backup {
                        dataplane.begin_full_import();
                    }
                }
                Event::ContentionEnded => {
                    self.contentions.push_back(now);
                    dataplane.announce_again(table, now);
                }
                _ => {}
            }
        }
        while let Some(network) = self.ha.poll_transmit(&mut self.packet) {
            dataplane.send_packet(table, &self.packet, Origin::Ha(network), now);
        }
        why
    }

    fn give_out(&mut self, now: Instant) {
        self.push(now);
        let Router { dataplane, table, .. } = &mut self.router;
        for _ in 0..DATAGRAMS {
            if !self.session.poll_transmit(&mut self.packet, now) {
                return;
            }
            datagram(self.ends.0, self.ends.1, &self.packet, &mut self.frame);
            let packet = &self.frame.bytes()[ETHERNET..];
            dataplane.send_packet(table, packet, Origin::Ha(self.sync_network), now);
        }
        self.is_behind = true;
    }

    fn push(&mut self, now: Instant) {
        let Some(want) = self.session.wants(now) else { return };
        let dataplane = &mut self.router.dataplane;
        let mut record = FlowRecord::default();
        let most = want.records.min(RECORDS);
        for _ in 0..most {
            match dataplane.next_change(now, &mut record) {
                Some(FlowChange::Record) => {
                    self.session.push(&record, now);
                }
                Some(FlowChange::Lost) => self.session.restart_walk(),
                None => break,
            }
        }
        if dataplane.changes_left() > 0 {
            self.is_behind |= most == RECORDS;
            return;
        }
        let Some(step) = self.session.wants(now).and_then(|want| want.walk) else { return };
        let mut left = step.records.min(RECORDS);
        let from = usize::try_from(step.cursor).unwrap();
        let session = &mut self.session;
        let next = dataplane.export_flows(from, now, |record| {
            let taken = left > 0 && session.push(record, now);
            left -= usize::from(taken);
            taken
        });
        session.walked(next.map(|next| next as u64), now);
    }

    /// The last words of one that stops.
    pub(crate) fn shut_down(&mut self, now: Instant) -> Vec<(LinkId, Vec<u8>)> {
        let now = now + self.ahead;
        self.router.now = now;
        self.give_out(now);
        self.ha.shut_down(now);
        self.follow_ha(now);
        self.router.transmits()
    }
}
