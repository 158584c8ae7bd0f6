//! What must hold at every step, seen from the wires.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use tapvs::addr::{MacAddr, Role};
use tapvs::time::{Duration, Instant};

use crate::host::Host;
use crate::node::{Shape, own_mac};
use crate::station::Station;
use crate::support::{INNER_VIP, Read, SYN, VIP, line};

/// Adverts that one router sends by one link in a second, at most: one an interval, and those that
/// others prompt, four an interval.
const ADVERTS_A_SECOND: usize = 60;
/// For what two active routers did to a flow to be over.
const AFTERMATH: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);

type Client = (Ipv4Addr, u16);

pub(crate) struct Watch {
    shape: Shape,
    /// When there were two active routers last, or one took over that had not been told of all flows:
    /// about those from before nothing is said.
    unsure: Option<Instant>,
    /// When each connection was opened.
    opened: BTreeMap<Client, Instant>,
    /// By router and segment: when adverts left lately.
    adverts: BTreeMap<(usize, usize), VecDeque<Instant>>,
    /// Virtual IPs that a router has to announce, and by when.
    owed: Vec<(usize, Ipv4Addr, Instant)>,
    pub(crate) seen: Seen,
}

/// That something happened at all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Segments with data that reached the server of an established flow.
    pub(crate) judged: u64,
    /// Announcements that were owed after two routers had been active.
    pub(crate) announced: u64,
    /// Packets for clients.
    pub(crate) answers: u64,
}

impl Watch {
    pub(crate) const fn new(shape: Shape) -> Self {
        Self {
            shape,
            unsure: None,
            opened: BTreeMap::new(),
            adverts: BTreeMap::new(),
            owed: Vec::new(),
            seen: Seen { judged: 0, announced: 0, answers: 0 },
        }
    }

    pub(crate) fn roles(&mut self, active: usize, now: Instant) {
        if active > 1 {
            self.unsure = Some(now);
        }
    }

    pub(crate) fn flows_lost(&mut self, now: Instant) {
        self.unsure = Some(now);
    }

    pub(crate) fn expect_announcements(&mut self, router: usize, by: Instant) {
        self.owed.extend(self.shape.shared().iter().map(|(_, address)| (router, *address, by)));
    }

    /// D5.
    pub(crate) fn look(&self, now: Instant, story: &str) {
        let late = self.owed.iter().find(|(_, _, by)| *by < now);
        assert!(late.is_none(), "not announced in time: {late:?}, it is {now}\n{story}");
    }

    /// A router's role has changed, or it is gone: it owes nothing.
    pub(crate) fn forgive(&mut self, router: usize) {
        self.owed.retain(|(owes, ..)| *owes != router);
    }

    pub(crate) fn station_sent(&mut self, frame: &[u8], now: Instant) {
        let Some(packet) = Read::frame(frame).filter(|packet| packet.destination == VIP) else {
            return;
        };
        if let Some((from, _)) = packet.ports() {
            self.opened.entry((packet.source, from)).or_insert(now);
        }
    }

    /// D3 and D6: what a router says, and for whom.
    pub(crate) fn node_sent(
        &mut self,
        (number, role): (usize, Role),
        segment: usize,
        frame: &[u8],
        now: Instant,
    ) {
        let from = MacAddr::from_slice(&frame[6..]);
        let virtual_mac = self.shape.virtual_mac(segment);
        let network = if self.shape == Shape::Nat { segment } else { 0 };
        let own = own_mac(number, network);
        let is_advert = frame[..6] == [1, 0, 0x5e, 0, 0, 0x12];
        if is_advert {
            self.count_advert((number, segment), now);
        }
        // The last advert of one that gives way comes from the virtual MAC too.
        assert!(
            role == Role::Active || from == own || is_advert,
            "router {number} is backup and says {}",
            line(frame)
        );
        let is_own = from == own || from == virtual_mac;
        assert!(is_own || self.shape == Shape::Bridged, "as somebody else: {}", line(frame));
        if is_own && frame[12..14] == [8, 6] {
            self.check_arp((number, role), segment, frame);
        }
        let Some(packet) = Read::frame(frame).filter(|_| is_own) else { return };
        let [first, ..] = packet.source.octets();
        match (self.shape, segment) {
            // No private address leaves, and no virtual one goes in.
            (Shape::Nat, 0) => {
                assert_ne!(first, 10, "{}", line(frame));
                if packet.ports().is_some() {
                    assert_eq!(packet.source, VIP, "{}", line(frame));
                    self.seen.answers += 1;
                }
            }
            (Shape::Nat, _) => assert_ne!(packet.source, VIP, "{}", line(frame)),
            // Servers answer past the router.
            (Shape::Bridged, _) => {}
        }
    }

    fn check_arp(&mut self, (number, role): (usize, Role), segment: usize, frame: &[u8]) {
        let sender = Ipv4Addr::from(<[u8; 4]>::try_from(&frame[28..32]).unwrap());
        let target = Ipv4Addr::from(<[u8; 4]>::try_from(&frame[38..42]).unwrap());
        if ![VIP, INNER_VIP].contains(&sender) {
            return;
        }
        assert_eq!(role, Role::Active, "a backup speaks for {sender}: {}", line(frame));
        let virtual_mac = self.shape.virtual_mac(segment);
        assert_eq!(frame[22..28], virtual_mac.0, "{}", line(frame));
        if sender == target {
            let before = self.owed.len();
            self.owed.retain(|(owes, address, _)| (*owes, *address) != (number, sender));
            self.seen.announced += (before - self.owed.len()) as u64;
        }
    }

    fn count_advert(&mut self, place: (usize, usize), now: Instant) {
        let times = self.adverts.entry(place).or_default();
        times.push_back(now);
        while times.front().is_some_and(|at| *at + SECOND <= now) {
            times.pop_front();
        }
        let count = times.len();
        assert!(count <= ADVERTS_A_SECOND, "{count} adverts in a second by {place:?}");
    }

    /// D2: data of an established flow reaches the server that answered the client, whichever router
    /// brings it. Two that are active at once may disagree about a flow, until one has been told.
    pub(crate) fn delivered(
        &mut self,
        frame: &[u8],
        stations: &[Station],
        station: usize,
        story: &str,
    ) {
        let Some(packet) = Read::frame(frame).filter(|packet| packet.protocol == 6) else { return };
        let server = stations[station].address().octets();
        let is_to_server = server[0] == 10 && packet.transport_ok() == Some(true);
        let header = packet.body.get(12).map_or(20, |byte| usize::from(byte >> 4) * 4);
        let has_data = packet.body.len() > header && packet.flags() & SYN == 0;
        let (true, true, Some((from, _))) = (is_to_server, has_data, packet.ports()) else {
            return;
        };
        let client = (packet.source, from);
        let Some(opened) = self.opened.get(&client) else { return };
        if self.unsure.is_some_and(|at| *opened < at + AFTERMATH) {
            return;
        }
        let mut hosts = stations.iter().filter(|station| station.has(client.0));
        let calls = hosts.next().and_then(|station| station.hosts.first()).and_then(Host::calls);
        let call = calls.and_then(|calls| calls.iter().find(|call| call.from == from));
        if let Some(known) = call.and_then(|call| call.server) {
            assert_eq!(known, server[3], "{client:?} is {known}'s: {}\n{story}", line(frame));
            self.seen.judged += 1;
        }
    }
}
