//! What must hold in every network of direct routing, checked at every step, from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use tapvs::addr::{LinkId, MacAddr, ServerId};
use tapvs::dataplane::{Event, State, Verdict};
use tapvs::time::{Duration, Instant};

use crate::lan::{SERVERS, Sent};
use crate::station::Station;
use crate::support::router::Step;
use crate::support::{
    GATEWAY, OWN_IN, OWN_OUT, ROUTER_OUT, Read, Router, VIP, line, server_ip, server_mac,
};

/// The loop guard's time, and that of what was on the cable.
const CIRCLE: Duration = Duration::from_millis(1_050);
/// How often a host is told about the virtual IP, but for the announcements at the start.
const TOLD: Duration = Duration::from_secs(10);
const START: Duration = Duration::from_secs(6);
/// By then whoever is to be told has been.
const TELLING: Duration = Duration::from_millis(110);
/// The router asks who else has the virtual IP this often: no leak stays unheard for longer.
const PROBING: Duration = Duration::from_secs(10);
/// What is said at once is heard everywhere within this time.
const AT_ONCE: Duration = Duration::from_millis(10);

/// Protocol, client, client port, service port.
type Key = (u8, Ipv4Addr, u16, u16);

pub(crate) struct Watcher {
    start: Instant,
    /// No frame is lost from then on.
    quiet: Instant,
    /// The router stands between clients and servers.
    between: bool,
    /// The last time that links were connected outside.
    circle: Option<Instant>,
    delivered: BTreeSet<(u64, usize)>,
    /// Which server the dataplane says has a flow, and in what state the flow is.
    owners: BTreeMap<Key, Owner>,
    /// Which station gets a flow's packets.
    served: BTreeMap<Key, usize>,
    /// Whom the router told by unicast whose the virtual IP is.
    told: BTreeMap<MacAddr, Instant>,
    /// Who asked the router for the virtual IP.
    askers: BTreeSet<MacAddr>,
    /// When the router last heard somebody else speak for it.
    leak_heard: Option<Instant>,
    /// Who speaks for it.
    claimants: BTreeSet<MacAddr>,
    /// Who has another's MAC for it.
    misled: BTreeMap<MacAddr, Misled>,
    pub(crate) seen: Seen,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    server: ServerId,
    /// It may not be forgotten.
    held: bool,
    /// What looks like a new connection may take its place.
    over: bool,
}

/// Since when, and when the router heard of it.
#[derive(Clone, Copy, Debug)]
struct Misled {
    since: Instant,
    heard: Option<Instant>,
}

/// How often things happened that the checks are about.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) passed_on: u32,
    pub(crate) routed: u32,
    pub(crate) told: u32,
    pub(crate) misled: u32,
    pub(crate) led_back: u32,
    pub(crate) circles: u32,
    pub(crate) leaks_heard: u32,
}

impl Watcher {
    pub(crate) fn new(start: Instant, quiet: Instant, between: bool) -> Self {
        Self {
            start,
            quiet,
            between,
            circle: None,
            delivered: BTreeSet::new(),
            owners: BTreeMap::new(),
            served: BTreeMap::new(),
            told: BTreeMap::new(),
            askers: BTreeSet::new(),
            leak_heard: None,
            claimants: BTreeSet::new(),
            misled: BTreeMap::new(),
            seen: Seen::default(),
        }
    }

    pub(crate) fn circle_closed(&mut self, now: Instant) {
        self.circle = Some(now);
        self.seen.circles += 1;
    }

    /// Before the router is handed a frame.
    pub(crate) fn router_hears(&mut self, frame: &[u8], now: Instant) {
        let is_arp = frame[12..14] == [8, 6] && frame[14..20] == [0, 1, 8, 0, 6, 4];
        if is_arp && frame[20..22] == [0, 1] && frame[38..42] == VIP.octets() {
            self.askers.insert(MacAddr::from_slice(&frame[22..]));
        }
        if is_arp && frame[28..32] == VIP.octets() {
            self.seen.leaks_heard += 1;
            self.claimants.insert(MacAddr::from_slice(&frame[22..]));
            self.leak_heard = Some(now);
            for misled in self.misled.values_mut() {
                misled.heard.get_or_insert(now);
            }
        }
    }

    /// The router names exactly those who speak for the virtual IP; servers by name.
    pub(crate) fn assert_named(&self, router: &Router) {
        let claims = router.report().claims;
        let named: BTreeSet<_> = claims.iter().map(|claim| claim.mac).collect();
        assert_eq!(named, self.claimants);
        for claim in &claims {
            let server = (11..14).find(|n| server_mac(*n) == claim.mac).unwrap();
            let name = format!("server{server} ({})", server_ip(server));
            assert_eq!((claim.address, claim.server.as_deref()), (VIP, Some(&*name)), "{claim:?}");
            assert_eq!(claim.suppressed, self.between, "{claim:?}");
        }
        let accused = router.events.iter().filter_map(|event| match event {
            Event::AddressConflict(claim) => Some(claim.mac),
            _ => None,
        });
        let accused: BTreeSet<_> = accused.collect();
        assert_eq!(accused, self.claimants, "all of them were told about");
    }

    /// One frame and what became of it.
    pub(crate) fn follow(&mut self, ingress: LinkId, cause: &[u8], step: &Step, router: &Router) {
        let text = || format!("cause: {}\n{}", line(cause), step.text());
        // The frame itself or its answer, a question or an error; what waited for one neighbour.
        assert!(step.out.len() <= 16, "D6: {} frames for one\n{}", step.out.len(), text());
        let mut neighbours = router.dataplane.neighbours();
        assert!(neighbours.all(|neighbour| neighbour.address != VIP), "cached\n{}", text());
        for (at, (link, frame)) in step.out.iter().enumerate() {
            let own = frame[6..12] == ROUTER_OUT.0;
            if !own {
                assert!(*frame == *cause, "neither passed on nor said\n{}", text());
                assert_ne!(*link, ingress, "passed back\n{}", text());
                self.seen.passed_on += 1;
            } else if at == 0 && matches!(step.verdict, Verdict::Forward(_)) {
                check_routed(cause, frame, &text);
                self.seen.routed += 1;
            }
        }
        self.flows(router);
    }

    /// D2: a flow keeps its server, and is not forgotten while it is in use.
    pub(crate) fn flows(&mut self, router: &Router) {
        let mut owners = BTreeMap::new();
        for flow in router.dataplane.flows() {
            let Some((_, server)) = flow.owner else { continue };
            assert!(flow.direct);
            let from = flow.original;
            let key = (from.protocol, from.source, from.source_port, from.destination_port);
            let held = flow.assured && flow.state == State::Established;
            // A clean close is seen no further than FinWait.
            let over = matches!(flow.state, State::FinWait | State::TimeWait | State::Close);
            if let Some(before) = self.owners.get(&key).filter(|before| before.server != server) {
                assert!(before.over, "flow {key:?} moved from {before:?} to {server}");
                self.served.remove(&key);
            }
            owners.insert(key, Owner { server, held, over });
        }
        for (key, before) in &self.owners {
            if !owners.contains_key(key) {
                assert!(!before.held, "flow {key:?} was forgotten");
                // What comes next may go to another server.
                self.served.remove(key);
            }
        }
        self.owners = owners;
    }

    /// What the router lets out, whoever said it.
    pub(crate) fn router_sent(&mut self, frame: &[u8], now: Instant) {
        let own = frame[6..12] == ROUTER_OUT.0;
        match frame[12..14] {
            [8, 6] if own => {
                assert!(
                    frame.len() == 60 && frame[14..20] == [0, 1, 8, 0, 6, 4],
                    "{}",
                    line(frame)
                );
                let routers = [VIP, OWN_OUT, OWN_IN, Ipv4Addr::UNSPECIFIED];
                let speaks = routers.iter().any(|address| frame[28..32] == address.octets());
                assert!(!speaks || frame[22..28] == ROUTER_OUT.0, "{}", line(frame));
            }
            [8, 6] => assert_ne!(frame[28..32], VIP.octets(), "a leak passes: {}", line(frame)),
            _ => {}
        }
        let announces = frame[12..14] == [8, 6] && frame[28..32] == frame[38..42];
        if own && announces && frame[0] & 1 == 0 {
            let host = MacAddr::from_slice(frame);
            let before = self.told.insert(host, now);
            let soon = before.is_some_and(|before| now < before + TOLD);
            let soon = soon && now >= self.start + START + TOLD;
            assert!(!soon, "{host} was told at {before:?} and again at {now}");
            self.seen.told += 1;
        }
    }

    /// A station's NIC took a frame.
    pub(crate) fn delivered(&mut self, sent: &Sent, station: usize, now: Instant) {
        let first = self.delivered.insert((sent.number, station));
        let circles = self.circle.is_some_and(|since| now < since + CIRCLE);
        assert!(first || circles, "station {station} got it twice at {now}: {}", line(&sent.bytes));
        let Some(packet) = Read::frame(&sent.bytes).filter(|_| sent.bytes[6..12] == ROUTER_OUT.0)
        else {
            return;
        };
        let Some((from, to)) = packet.ports().filter(|_| packet.destination == VIP) else { return };
        assert!(station < SERVERS, "{}", line(&sent.bytes));
        let key = (packet.protocol, packet.source, from, to);
        if self.owners.contains_key(&key) {
            let server = *self.served.entry(key).or_insert(station);
            assert_eq!(server, station, "flow {key:?} moved");
        }
    }

    /// Whom a client sends to for the virtual IP.
    pub(crate) fn cache(&mut self, station: &Station, now: Instant) {
        if station.has(VIP) {
            return;
        }
        let cached = station.cached(VIP, now);
        let right = cached.is_none_or(|mac| mac == ROUTER_OUT);
        if right {
            let back = self.misled.remove(&station.mac).is_some() && cached.is_some();
            self.seen.led_back += u32::from(back);
            return;
        }
        assert!(!self.between, "{} sends to {cached:?}", station.mac);
        if !self.misled.contains_key(&station.mac) {
            let heard = self.leak_heard.filter(|heard| now < *heard + AT_ONCE);
            self.misled.insert(station.mac, Misled { since: now, heard });
            self.seen.misled += 1;
        }
    }

    /// Nobody whom the router knows to use the virtual IP is misled for long.
    pub(crate) fn misled(&self, now: Instant) {
        for (host, misled) in &self.misled {
            if !self.askers.contains(host) {
                continue;
            }
            let again = self.told.get(host).map_or(self.start, |told| *told + TOLD);
            let heard = misled.heard.unwrap_or(misled.since + PROBING);
            let by = if heard < self.quiet { self.quiet + PROBING + TOLD } else { heard };
            let by = by.max(misled.since).max(again) + TELLING;
            assert!(now <= by, "{host}: {misled:?}, told {:?}, now {now}", self.told.get(host));
        }
    }
}

/// Direct routing changes the MACs and the TTL.
fn check_routed(cause: &[u8], frame: &[u8], text: &impl Fn() -> String) {
    let (before, after) = (Read::frame(cause).unwrap(), Read::frame(frame).unwrap());
    assert!(after.header_ok() && after.ttl + 1 == before.ttl, "{}", text());
    assert!(before.body == after.body, "{}", text());
    let ends = |packet: &Read| (packet.source, packet.destination);
    assert_eq!(ends(&before), ends(&after), "{}", text());
    assert_ne!(frame[..6], GATEWAY.0, "{}", text());
}
