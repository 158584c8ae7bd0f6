//! A million flows: what they weigh, how fast one of them is found, and what is left of the service
//! when a million strangers open one each.
//!
//! Figures: `cargo test --release --test million -- --nocapture`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::net::Ipv4Addr;

use allocation_counter::measure;
use rustix::time::{ClockId, clock_gettime};
use support::*;
use tapvs::addr::LinkId;
use tapvs::config::Config;
use tapvs::dataplane::{Dataplane, Verdict};
use tapvs::frame::Frame;
use tapvs::links::memory::prefer_huge_pages;
use tapvs::table::{Ids, Standing, Table};
use tapvs::time::{Duration, Instant};

const MILLION: u32 = 1_000_000;
/// All that a flow costs: its record, its places in the index, the wheel and the queues.
const BYTES_PER_FLOW: f64 = 160.0;
/// No step may keep the loop longer, in nanoseconds of processor time.
const LONGEST_STEP: i64 = 1_000_000;

/// A client's place in line gives its address and port; all differ.
fn client(n: u32) -> (Ipv4Addr, u16) {
    (Ipv4Addr::from_bits(0x0b00_0000 + n), 1_024 + u16::try_from(n % 60_000).unwrap())
}

/// TCP segments of one shape, with the client put in.
struct Mould {
    link: LinkId,
    bytes: Vec<u8>,
    /// Where the client's address and port stand in it.
    client: [usize; 2],
}

impl Mould {
    /// What a client sends to the virtual IP.
    fn request(flags: u8) -> Self {
        let bytes = tcp("11.0.0.0:1", "203.0.113.10:80", flags, 1_000, 1, b"").frame();
        Self { link: OUT, bytes, client: [26, 34] }
    }

    /// What a server answers.
    fn answer(server: &str, flags: u8) -> Self {
        let bytes = tcp(&format!("{server}:8080"), "11.0.0.0:1", flags, 0, 1_001, b"").frame();
        Self { link: IN, bytes, client: [30, 36] }
    }

    fn frame(&mut self, n: u32) -> &[u8] {
        let (address, port) = client(n);
        self.bytes[self.client[0]..][..4].copy_from_slice(&address.octets());
        self.bytes[self.client[1]..][..2].copy_from_slice(&port.to_be_bytes());
        self.bytes[24..26].fill(0);
        let header = sum(&[&self.bytes[14..34]]);
        self.bytes[24..26].copy_from_slice(&(!header).to_be_bytes());
        self.bytes[50..52].fill(0);
        let (addresses, length) = (self.bytes[26..34].to_vec(), self.bytes.len() - 34);
        let pseudo = [0, 6, 0, u8::try_from(length).unwrap()];
        let segment = sum(&[&addresses, &pseudo, &self.bytes[34..]]);
        self.bytes[50..52].copy_from_slice(&(!segment).to_be_bytes());
        &self.bytes
    }
}

/// Hands frames to a router and takes the processor time of each.
struct Bench {
    router: Router,
    frame: Frame,
    out: Frame,
    longest: i64,
}

impl Bench {
    fn new(max_flows: u32) -> Self {
        let router = Router::sized(one_service(), max_flows as usize);
        Self { router, frame: Frame::new(), out: Frame::new(), longest: 0 }
    }

    fn feed(&mut self, link: LinkId, bytes: &[u8]) -> Verdict {
        self.frame.copy_from(bytes);
        let before = processor_time();
        let Router { dataplane, table, now, .. } = &mut self.router;
        let verdict = dataplane.handle_frame(table, link, &mut self.frame, *now);
        while dataplane.poll_transmit(table, &mut self.out, *now).is_some() {}
        self.longest = self.longest.max(processor_time() - before);
        verdict
    }

    /// Where the frame that was handed in last went.
    fn receiver(&self) -> [u8; 6] {
        self.frame.bytes()[..6].try_into().unwrap()
    }

    /// Client `n` and its server shake hands, and the client sends: an assured flow.
    fn establish(&mut self, n: u32) {
        let syn = Mould::request(SYN).frame(n).to_vec();
        let verdict = self.feed(OUT, &syn);
        assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}");
        let server = Ipv4Addr::from(<[u8; 4]>::try_from(&self.frame.bytes()[30..34]).unwrap());
        let accept = Mould::answer(&server.to_string(), SYN | ACK).frame(n).to_vec();
        assert!(matches!(self.feed(IN, &accept), Verdict::Forward(_)));
        let acknowledge = Mould::request(ACK).frame(n).to_vec();
        assert!(matches!(self.feed(OUT, &acknowledge), Verdict::Forward(_)));
    }

    /// Does what is due until `end`, turn by turn.
    fn pass(&mut self, by: Duration) {
        let end = self.router.now + by;
        while let Some(due) = self.router.dataplane.poll_timeout().filter(|due| *due <= end) {
            self.router.now = self.router.now.max(due);
            let before = processor_time();
            let Router { dataplane, table, now, .. } = &mut self.router;
            dataplane.handle_timeout(table, *now);
            while dataplane.poll_transmit(table, &mut self.out, *now).is_some() {}
            self.longest = self.longest.max(processor_time() - before);
        }
        self.router.now = end;
    }
}

/// Nanoseconds of processor time that this thread has had.
fn processor_time() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn one_service() -> Config {
    let mut config = config();
    config.services.truncate(1);
    config
}

/// All in, at the most flows there are by default.
#[test]
fn a_flow_weighs_160_bytes_at_most() {
    let config = one_service();
    let table = Table::compile(&config, None, &mut Ids::default(), |_, _| Standing::GOOD);
    // Other tables are of the same size in both, but for the masquerade's at first.
    let [half, whole] = [MILLION / 2, MILLION].map(|flows| {
        let mut dataplane = None;
        let counted = measure(|| {
            let (seed, now) = (*b"0123456789abcdef", Instant::from_secs(1));
            dataplane = Some(Dataplane::new(&table, seed, flows as usize, now));
        });
        drop(dataplane);
        counted.bytes_current.cast_unsigned()
    });
    let bytes = 2.0 * (whole - half) as f64 / f64::from(MILLION);
    println!("{bytes:.1} bytes a flow");
    assert!(bytes <= BYTES_PER_FLOW, "{bytes:.1} bytes a flow");
}

/// More strangers than there is room for, whose connections the servers accept: no flow that both
/// ends use goes, nothing is allocated, and no step takes long, then or when all of them expire.
#[test]
fn a_million_strangers_take_nobodys_place() {
    // Another program on the same core can lengthen a step; a pause of ours would come every time.
    let mut longest = (0..3).map(|_| flood());
    let longest = longest.find(|longest| *longest <= LONGEST_STEP);
    println!("longest step: {longest:?} ns of processor time");
    assert!(longest.is_some(), "each time a step took more than {LONGEST_STEP} ns");
}

/// The longest step, in nanoseconds of processor time.
fn flood() -> i64 {
    const ROOM: u32 = 400_000;
    const AT_WORK: u32 = 50_000;
    let mut bench = Bench::new(ROOM);
    let mut servers = Vec::new();
    for n in 0..AT_WORK {
        bench.establish(n);
        servers.push(bench.receiver());
    }
    let (mut syn, mut data) = (Mould::request(SYN), Mould::request(ACK));
    let mut accepts = [11, 12, 13].map(|n| Mould::answer(&server_ip(n).to_string(), SYN | ACK));
    let counted = measure(|| {
        for n in AT_WORK..AT_WORK + MILLION {
            let verdict = bench.feed(syn.link, syn.frame(n));
            assert!(matches!(verdict, Verdict::Forward(_)), "stranger {n}: {verdict:?}");
            let server = usize::from(bench.frame.bytes()[33] - 11);
            let accept = &mut accepts[server];
            let verdict = bench.feed(accept.link, accept.frame(n));
            assert!(matches!(verdict, Verdict::Forward(_)), "server's answer: {verdict:?}");
            // As long as a flood at 100,000 a second would take.
            bench.router.now += Duration::from_micros(10);
        }
    });
    assert_eq!(bench.router.report().flows, ROOM as usize, "all room is taken, and no more");
    // Sums that a mould makes are the only exception.
    assert_eq!(counted.bytes_current, 0, "nothing is kept");
    for n in 0..AT_WORK {
        let verdict = bench.feed(data.link, data.frame(n));
        assert!(matches!(verdict, Verdict::Forward(_)), "client {n}: {verdict:?}");
        assert_eq!(bench.receiver(), servers[n as usize], "client {n} stays with its server");
    }
    bench.pass(Duration::from_secs(62));
    let left = bench.router.report().flows;
    assert_eq!(left, AT_WORK as usize, "strangers expire, the others do not");
    bench.router.check();
    bench.longest
}

/// A frame of a flow among a million costs little more than one among a thousand.
#[test]
fn a_flow_among_a_million_is_found() {
    let few = nanoseconds(1_000, true, true);
    let many = nanoseconds(MILLION, true, true);
    println!("a frame of a flow among 1,000: {few:.0} ns; among 1,000,000: {many:.0} ns");
    let [small, unseen] = [(false, true), (true, false)].map(|(h, a)| nanoseconds(MILLION, h, a));
    println!("among 1,000,000 in small pages {small:.0} ns, without looking ahead {unseen:.0} ns");
    assert!(many <= 4.0 * few, "among a million {many:.0} ns, among a thousand {few:.0} ns");
}

/// Of processor time per frame, each of another flow than the one before and far from it in memory.
fn nanoseconds(flows: u32, huge_pages: bool, ahead: bool) -> f64 {
    const PROBES: u32 = 64 * 4_000;
    const BATCH: usize = 64;
    let mut bench = Bench::new(flows);
    if huge_pages {
        bench.router.dataplane.flow_memory().for_each(prefer_huge_pages);
    }
    let (mut syn, mut data) = (Mould::request(SYN), Mould::request(ACK));
    for n in 0..flows {
        bench.feed(OUT, syn.frame(n));
        bench.feed(OUT, data.frame(n));
    }
    assert_eq!(bench.router.report().flows, flows as usize);
    let clients: Vec<_> = (0..PROBES).map(|n| n.wrapping_mul(0x9e37_79b1) % flows).collect();
    let mut frames: Vec<_> = std::iter::repeat_with(Frame::new).take(BATCH).collect();
    let mut time = 0;
    let Router { dataplane, table, now, .. } = &mut bench.router;
    for clients in clients.chunks(BATCH) {
        for (frame, client) in frames.iter_mut().zip(clients) {
            frame.copy_from(data.frame(*client));
        }
        let before = processor_time();
        if ahead {
            dataplane.look_ahead(&frames);
        }
        for frame in &mut frames {
            let verdict = dataplane.handle_frame(table, OUT, frame, *now);
            assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}");
        }
        time += processor_time() - before;
    }
    time as f64 / f64::from(PROBES)
}
