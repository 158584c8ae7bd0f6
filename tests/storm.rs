//! Storms of ARP: 10⁵ frames that claim the virtual IP, ask for it or lie about somebody else leave
//! nothing behind that grows, and one of them costs no more than forwarding a frame.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::net::Ipv4Addr;

use allocation_counter::measure;
use support::random::Random;
use support::*;
use tapvs::addr::{LinkId, MacAddr};
use tapvs::config::Config;
use tapvs::dataplane::{DropReason, Verdict};
use tapvs::frame::Frame;
use tapvs::links::clock::Clock;
use tapvs::time::Duration;

const FRAMES: usize = 100_000;
/// A frame every ten microseconds.
const PACE: Duration = Duration::from_micros(10);
/// Frames that are timed together.
const ROUND: usize = 1_000;
const ROUNDS: usize = 51;
const FLOWS: u16 = 1_000;
/// How many times what it costs to forward a frame one of a storm may cost. Measured: 0.5 to 1.0,
/// with the optimizer's whole help and without. `Mixed` over a bridge comes nearest, and was seen at
/// 1.35 while others kept the machine busy.
const MOST: f64 = 1.5;

/// What a storm is made of.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Announcements of the virtual IP, each from a MAC of its own.
    Claims,
    /// Answers about it to the router, likewise.
    Answers,
    /// A server's announcements of it.
    ServerClaims,
    /// Questions in its name by a server, for everybody.
    ServerAsks,
    /// Questions for it by a new host each.
    Questions,
    /// The same host asks again and again.
    OneAsks,
    /// Announcements of addresses that nobody cares about.
    Gratuitous,
    /// Announcements of a server's address by others.
    Usurpers,
    /// All of them, in turns.
    Mixed,
}

const KINDS: [Kind; 9] = [
    Kind::Claims,
    Kind::Answers,
    Kind::ServerClaims,
    Kind::ServerAsks,
    Kind::Questions,
    Kind::OneAsks,
    Kind::Gratuitous,
    Kind::Usurpers,
    Kind::Mixed,
];

impl Kind {
    fn frame(self, n: usize, random: &mut Random) -> Vec<u8> {
        let mac = stranger(random);
        let near = Ipv4Addr::new(203, 0, 113, 20 + random.byte() % 200);
        let asked = Ipv4Addr::new(203, 0, 113, 20 + u8::try_from(n % 200).unwrap());
        match self {
            Self::Claims => {
                who_has(VIP, VIP, mac).with(|arp| arp.operation = 1 + u16::from(n % 2 == 1))
            }
            Self::Answers => is_at(VIP, mac, ROUTER_OUT, OWN_OUT),
            Self::ServerClaims => who_has(VIP, VIP, server_mac(11)),
            Self::ServerAsks => who_has(asked, VIP, server_mac(11)),
            Self::Questions => who_has(VIP, near, mac),
            Self::OneAsks => who_has(VIP, NEAR_IP, NEAR),
            Self::Gratuitous => who_has(near, near, mac),
            Self::Usurpers => who_has(server_ip(12), server_ip(12), mac),
            Self::Mixed => return KINDS[n % (KINDS.len() - 1)].frame(n, random),
        }
        .frame()
    }

    /// By which link it comes in.
    const fn link(self, world: World) -> LinkId {
        match (self, world) {
            (Self::ServerClaims | Self::ServerAsks, World::Bridged) => IN,
            _ => OUT,
        }
    }
}

fn stranger(random: &mut Random) -> MacAddr {
    let [a, b, c, d, ..] = random.next().to_be_bytes();
    MacAddr([2, 1, a, b, c, d])
}

#[derive(Clone, Copy, Debug)]
enum World {
    /// Everybody on one link.
    OneLink,
    /// The router is the switch between three.
    Bridged,
}

impl World {
    fn config(self) -> Config {
        let mut config = bridged();
        if matches!(self, Self::OneLink) {
            config.networks[0].links.truncate(1);
        }
        config
    }

    /// A router at work, everybody known, with flows.
    fn router(self) -> Router {
        let mut router = Router::cold(self.config(), 2 * usize::from(FLOWS));
        router.owner = match self {
            Self::OneLink => |_, address| {
                let links = [OUT, IN, FAR_IN].into_iter();
                links.filter_map(|link| bridged_owner(link, address)).next()
            },
            Self::Bridged => bridged_owner,
        };
        router.advance(Duration::from_secs(5));
        for (_, frame) in requests() {
            router.feed(OUT, &frame);
        }
        // As many hosts as are remembered use the virtual IP.
        for n in 0..=u8::MAX {
            let (mac, address) = (MacAddr([2, 0, 0, 0, 5, n]), Ipv4Addr::new(203, 0, 113, 200));
            router.feed(OUT, &who_has(VIP, address, mac).frame());
        }
        assert_eq!(router.report().flows, usize::from(FLOWS));
        router
    }
}

/// A frame of each flow, to be routed directly: the smallest there is.
fn requests() -> Vec<(LinkId, Vec<u8>)> {
    let syn = |port| tcp(&format!("198.51.100.7:{port}"), "203.0.113.10:80", SYN, 1000, 0, b"");
    (0..FLOWS).map(|n| (OUT, syn(10_000 + n).frame())).collect()
}

/// Hands in frames as the loop does, taking out all that they cause; how many frames that were.
fn hand_in(
    router: &mut Router,
    [frame, out]: &mut [Frame; 2],
    frames: &[(LinkId, Vec<u8>)],
) -> usize {
    let mut sent = 0;
    let Router { dataplane, table, now, .. } = router;
    for (link, bytes) in frames {
        frame.copy_from(bytes);
        dataplane.handle_frame(table, *link, frame, *now);
        while dataplane.poll_transmit(table, out, *now).is_some() {
            sent += 1;
        }
        *now += PACE;
        if dataplane.poll_timeout().is_some_and(|due| due <= *now) {
            dataplane.handle_timeout(table, *now);
        }
    }
    sent
}

/// Whatever a storm says: nothing is allocated, nothing grows, little is said, work goes on.
#[test]
fn a_storm_leaves_nothing_behind() {
    for world in [World::OneLink, World::Bridged] {
        for kind in KINDS {
            let mut random = Random::new(7);
            let mut router = world.router();
            let frames: Vec<_> =
                (0..FRAMES).map(|n| (kind.link(world), kind.frame(n, &mut random))).collect();
            let (mut buffers, mut sent) = ([Frame::new(), Frame::new()], 0);
            let counted = measure(|| sent = hand_in(&mut router, &mut buffers, &frames));
            assert_eq!(counted.count_total, 0, "{kind:?} {world:?} allocates");
            // The storm lasts a second: 256 hosts are told, as many strangers and neighbours asked
            // for, a few probes sent, by three links.
            assert!(sent < 2_000, "{kind:?} {world:?} makes the router send {sent} frames");
            router.events.clear();
            router.check();
            let events = router.events.len();
            assert!(events <= 64, "{kind:?} {world:?}: {events} events");
            let report = router.report();
            assert!(report.claims.len() <= 64, "{kind:?} {world:?}");
            let neighbours = router.dataplane.neighbours().count();
            assert!(neighbours < 700, "{kind:?} {world:?}: {neighbours} neighbours");
            // Nobody is believed about the servers, whose flows go on.
            let counters = router.dataplane.counters();
            assert_eq!(counters.dropped(DropReason::OutboxFull), 0);
            for (link, frame) in requests() {
                let step = router.feed(link, &frame);
                assert!(matches!(step.verdict, Verdict::Forward(_)), "{}", step.text());
                assert_eq!(step.out[0].1[..5], server_mac(0).0[..5], "to a server");
            }
        }
    }
}

/// One frame of a storm costs no more than forwarding one, told by the medians of rounds in turns.
#[test]
fn a_storm_costs_no_more_than_forwarding() {
    for world in [World::OneLink, World::Bridged] {
        for kind in KINDS {
            let [forward, storm] = medians(world, kind);
            let ratio = storm / forward;
            println!("{world:?} {kind:?}: {storm} ns, forwarding {forward} ns: {ratio:.2}");
            assert!(ratio <= MOST, "{kind:?} {world:?} costs {ratio:.2} times a forwarded frame");
        }
    }
}

/// Nanoseconds for forwarding a frame, and for one of a storm.
fn medians(world: World, kind: Kind) -> [f64; 2] {
    let mut router = world.router();
    let mut random = Random::new(7);
    let mut buffers = [Frame::new(), Frame::new()];
    let (requests, clock) = (requests(), Clock::new());
    let mut time = |frames: &[_]| {
        let start = clock.now();
        hand_in(&mut router, &mut buffers, frames);
        (clock.now() - start).total_micros()
    };
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        let (link, numbers) = (kind.link(world), round * ROUND..(round + 1) * ROUND);
        let storm: Vec<_> = numbers.map(|n| (link, kind.frame(n, &mut random))).collect();
        times[0].push(time(&requests));
        times[1].push(time(&storm));
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[ROUNDS / 2] as f64 * 1_000.0 / ROUND as f64
    })
}
