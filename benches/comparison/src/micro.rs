//! Single steps of the dataplane, without sockets: for `cargo bench` and for instruction counts.
//!
//! Seeds, addresses and times are fixed: every run does the same, to the last instruction.

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddrV4};

use tapvs::addr::{LinkId, MacAddr};
use tapvs::config;
use tapvs::dataplane::{Dataplane, Verdict};
use tapvs::frame::{
    Arp, Ethernet, Frame, Ipv4, Operation, Rewrite, checksum::Delta, datagram, decrement_ttl,
    set_macs, translate,
};
use tapvs::table::{Ids, Standing, Table};
use tapvs::time::{Duration, Instant};

const SEED: [u8; 16] = *b"tapvs benchmarks";
const OUT: LinkId = LinkId(0);
const IN: LinkId = LinkId(1);
const OUT_MAC: MacAddr = MacAddr([2, 0, 0x5e, 0, 0x53, 1]);
const CLIENT_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const PORT: u16 = 5_000;
/// Small frames.
const PAYLOAD: [u8; 18] = [0x5a; 18];
/// Long past every timeout of a flow.
const LATER: Duration = Duration::from_secs(100_000);
/// So many packets of a client make a flow one that goes on.
const SETTLED: usize = 3;
/// Schedulers that are timed; those that this tapvs does not have are left out.
const SCHEDULERS: [&str; 6] = ["rr", "wrr", "wlc", "sh", "mh", "twos"];

/// What one step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ethernet and IPv4 headers of a small frame.
    Parse,
    /// New addresses, ports, MACs and TTL of a parsed frame.
    Rewrite,
    /// `handle_frame` of the next of so many known flows, translated.
    Hit(u32),
    /// The same, routed directly.
    HitDirect(u32),
    /// The same, to a server behind another link of one bridged network.
    HitBridged(u32),
    /// `handle_frame` of a flow's first frame, with a scheduler and so many servers.
    New(&'static str, u16),
    /// One flow's end by its timeout.
    Expire,
}

impl Step {
    /// All that this tapvs can take.
    pub fn all() -> Vec<Self> {
        Self::every().into_iter().filter(|step| step.is_known()).collect()
    }

    /// All of them.
    pub(crate) fn every() -> Vec<Self> {
        let mut all = vec![
            Self::Parse,
            Self::Rewrite,
            Self::Hit(1_000),
            Self::HitDirect(1_000),
            Self::HitBridged(1_000),
        ];
        for scheduler in SCHEDULERS {
            for servers in [10, 1_000] {
                all.push(Self::New(scheduler, servers));
            }
        }
        all.push(Self::Expire);
        all
    }

    /// Its name, which says what it is.
    pub fn name(self) -> String {
        match self {
            Self::Parse => "parse".into(),
            Self::Rewrite => "rewrite".into(),
            Self::Hit(flows) => format!("hit, NAT, {flows} flows"),
            Self::HitDirect(flows) => format!("hit, direct, {flows} flows"),
            Self::HitBridged(flows) => format!("hit, bridged, {flows} flows"),
            Self::New(scheduler, servers) => format!("new flow, {scheduler}, {servers} servers"),
            Self::Expire => "expire".into(),
        }
    }

    /// How many steps one [`Prepared`] is good for.
    pub const fn limit(self) -> u32 {
        match self {
            Self::New(..) | Self::Expire => 50_000,
            _ => u32::MAX,
        }
    }

    /// Everything that `steps` steps need.
    ///
    /// # Panics
    /// When the dataplane does not do what the step is about, or `steps` is above the limit.
    pub fn prepare(self, steps: u32) -> Prepared {
        assert!(steps <= self.limit(), "{steps} steps of {self:?}");
        let mut router = match self {
            Self::HitDirect(flows) => Router::new("direct", "rr", 10, flows),
            Self::HitBridged(flows) => Router::new("bridged", "rr", 10, flows),
            Self::Hit(flows) => Router::new("nat", "rr", 10, flows),
            Self::Parse | Self::Rewrite => Router::new("nat", "rr", 10, 16),
            Self::New(scheduler, servers) => Router::new("nat", scheduler, servers, steps),
            Self::Expire => Router::new("nat", "rr", 10, steps),
        };
        let clients = match self {
            Self::Parse | Self::Rewrite => 1,
            Self::Hit(flows) | Self::HitDirect(flows) | Self::HitBridged(flows) => flows,
            Self::New(..) | Self::Expire => steps,
        };
        let frames: Vec<Vec<u8>> = (0..clients).map(packet).collect();
        let rounds = match self {
            Self::New(..) => 0,
            Self::Parse | Self::Rewrite | Self::Expire => 1,
            // A flow that has just begun is another matter.
            Self::Hit(_) | Self::HitDirect(_) | Self::HitBridged(_) => SETTLED,
        };
        for frame in std::iter::repeat_n(&frames, rounds).flatten() {
            router.forward(frame);
        }
        Prepared { step: self, router, frames, next: 0 }
    }

    /// Whether this tapvs has its scheduler.
    pub(crate) fn is_known(self) -> bool {
        match self {
            Self::New(scheduler, servers) => {
                config::parse(&text("nat", scheduler, servers)).is_ok()
            }
            _ => true,
        }
    }
}

/// A router and frames, ready for steps.
#[derive(Debug)]
pub struct Prepared {
    step: Step,
    router: Router,
    frames: Vec<Vec<u8>>,
    next: usize,
}

impl Prepared {
    /// Takes that many steps. For [`Step::Expire`], as many as it was prepared for.
    ///
    /// # Panics
    /// When the dataplane does not do what the step is about.
    pub fn run(&mut self, steps: u32) {
        match self.step {
            Step::Parse => {
                for _ in 0..steps {
                    let frame = black_box(&self.frames[0]);
                    black_box((Ethernet::parse(frame), Ipv4::parse(frame).is_ok()));
                }
            }
            Step::Rewrite => self.rewrite(steps),
            Step::Hit(_) | Step::HitDirect(_) | Step::HitBridged(_) | Step::New(..) => {
                for _ in 0..steps {
                    self.router.forward(&self.frames[self.next]);
                    self.next = (self.next + 1) % self.frames.len();
                }
            }
            Step::Expire => self.router.expire(),
        }
    }

    fn rewrite(&mut self, steps: u32) {
        let mut frame = Frame::from_bytes(&self.frames[0]);
        let headers = Ipv4::parse(frame.bytes()).expect("a frame of our own");
        let server = Ipv4Addr::new(10, 0, 1, 1);
        let addresses = Delta::double(VIP.into(), server.into());
        let to = Rewrite {
            source: headers.source,
            destination: server,
            source_port: 2_000,
            destination_port: PORT,
            addresses,
            transport: addresses,
        };
        for _ in 0..steps {
            let frame = black_box(&mut frame);
            translate(frame, &headers, black_box(&to));
            decrement_ttl(frame.bytes_mut());
            set_macs(frame.bytes_mut(), CLIENT_MAC, OUT_MAC);
        }
    }
}

/// A dataplane with its table, and everybody's MAC known to it.
#[derive(Debug)]
struct Router {
    table: Table,
    dataplane: Dataplane,
    now: Instant,
    frame: Frame,
}

impl Router {
    fn new(method: &str, scheduler: &str, servers: u16, flows: u32) -> Self {
        let config = config::parse(&text(method, scheduler, servers))
            .unwrap_or_else(|mistakes| panic!("{}", mistakes.display("generated")));
        let table = Table::compile(&config, None, &mut Ids::default(), |_, _| Standing::GOOD);
        let now = Instant::from_secs(1_000);
        // Eviction is another matter.
        let flows = (flows as usize + 16) * 2;
        let dataplane = Dataplane::new(&table, SEED, flows, now);
        let mut router = Self { table, dataplane, now, frame: Frame::new() };
        router.meet();
        router
    }

    /// Answers whatever the router asks, until it has asked for everybody.
    fn meet(&mut self) {
        let mut out = Frame::new();
        let mut quiet = 0;
        while quiet < 30 {
            let mut asked = false;
            while self.dataplane.poll_transmit(&self.table, &mut out, self.now).is_some() {
                let Some(arp) = Arp::parse(out.bytes()) else { continue };
                if arp.operation == Operation::Request && !arp.is_announcement() {
                    asked = true;
                    self.answer(&arp);
                }
            }
            quiet = if asked { 0 } else { quiet + 1 };
            self.now += Duration::from_millis(100);
            self.dataplane.handle_timeout(&self.table, self.now);
        }
    }

    fn answer(&mut self, arp: &Arp) {
        let (link, mac) = match arp.target.octets() {
            [10, _, high, low] => (IN, MacAddr([2, 0, 0, 1, high, low])),
            _ => (OUT, CLIENT_MAC),
        };
        let answer = Arp {
            operation: Operation::Reply,
            sender_mac: mac,
            sender: arp.target,
            target_mac: arp.sender_mac,
            target: arp.sender,
        };
        answer.build(arp.sender_mac, &mut self.frame);
        self.dataplane.handle_frame(&self.table, link, &mut self.frame, self.now);
    }

    fn forward(&mut self, bytes: &[u8]) {
        self.frame.copy_from(bytes);
        let verdict = self.dataplane.handle_frame(&self.table, OUT, &mut self.frame, self.now);
        assert_eq!(verdict, Verdict::Forward(IN));
    }

    /// Until no flow is left, by the turns of the loop.
    fn expire(&mut self) {
        self.now += LATER;
        while self.dataplane.flows().next().is_some() {
            self.dataplane.handle_timeout(&self.table, self.now);
        }
    }
}

/// The frame of a client.
fn packet(client: u32) -> Vec<u8> {
    let port = u16::try_from(1_024 + client % 60_000).expect("below 61,024");
    let source = SocketAddrV4::new(Ipv4Addr::from(0xc633_0000 + client / 60_000), port);
    let mut frame = Frame::new();
    datagram(source, SocketAddrV4::new(VIP, PORT), &PAYLOAD, &mut frame);
    set_macs(frame.bytes_mut(), OUT_MAC, CLIENT_MAC);
    frame.bytes().to_vec()
}

fn text(method: &str, scheduler: &str, servers: u16) -> String {
    let (outer, inner, method) = match method {
        "bridged" => (r#", "tapvs1""#, r#", "10.0.0.2/16""#, "direct"),
        _ => ("", "", method),
    };
    let servers_network = if inner.is_empty() {
        "[[network]]\nname = \"servers\"\nlinks = [\"tapvs1\"]\naddresses = [\"10.0.0.2/16\"]\n"
    } else {
        ""
    };
    let mut text = format!(
        r#"
[[network]]
name = "internet"
links = ["tapvs0"{outer}]
addresses = ["203.0.113.2/24"{inner}]
gateway = "203.0.113.1"
mac = "{OUT_MAC}"

{servers_network}
[[virtual_ip]]
address = "{VIP}"
network = "internet"

[[service]]
protocol = "udp"
address = "{VIP}"
port = {PORT}
method = "{method}"
scheduler = "{scheduler}"
"#
    );
    for server in 0..servers {
        let (high, low) = (1 + server / 250, 1 + server % 250);
        let _infallible = write!(
            text,
            "\n[[service.server]]\naddress = \"10.0.{high}.{low}\"\nport = {PORT}\nweight = {}\n",
            1 + server % 3
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_can_be_taken() {
        for step in Step::all() {
            let steps = if step == Step::Expire { 100 } else { 30 };
            step.prepare(100).run(steps);
        }
    }

    #[test]
    fn known_flows_stay_known_and_expired_ones_go() {
        let mut hit = Step::Hit(50).prepare(200);
        hit.run(200);
        assert_eq!(hit.router.dataplane.flows().count(), 50);
        let mut new = Step::New("rr", 10).prepare(200);
        assert_eq!(new.router.dataplane.flows().count(), 0);
        new.run(200);
        assert_eq!(new.router.dataplane.flows().count(), 200);
        let mut expire = Step::Expire.prepare(300);
        assert_eq!(expire.router.dataplane.flows().count(), 300);
        expire.run(300);
        assert_eq!(expire.router.dataplane.flows().count(), 0);
    }

    #[test]
    fn names_are_all_different() {
        let all = Step::all();
        let names: std::collections::BTreeSet<_> = all.iter().map(|step| step.name()).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.len() >= 10, "{names:?}");
    }
}
