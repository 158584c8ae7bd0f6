//! A router in memory: table, dataplane, virtual time. Checks the bookkeeping after every step.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use tapvs::addr::{Endpoint, LinkId, MacAddr};
use tapvs::config::Config;
use tapvs::dataplane::{Consumed, Dataplane, Event, FlowInfo, Report, State, Verdict};
use tapvs::frame::Frame;
use tapvs::table::{Ids, Standing, Table};
use tapvs::time::{Duration, Instant};

use super::gso::Super;
use super::network::{FAR_IN, IN, OUT, bridged_owner, owner};
use super::packet::{is_at, line};

/// What one frame led to.
#[derive(Clone, Debug)]
pub struct Step {
    pub verdict: Verdict,
    /// Every frame that left: the one handed in first, if it did.
    pub out: Vec<(LinkId, Vec<u8>)>,
    /// The frame for the router's own IP stack.
    pub host: Option<Vec<u8>>,
    /// The frame for the pair's own affairs.
    pub ha: Option<Vec<u8>>,
}

impl Step {
    /// Verdict and frames as text, a line each.
    pub fn text(&self) -> String {
        let frames =
            self.out.iter().map(|(link, frame)| format!("\n{}: {}", name(*link), line(frame)));
        let host = self.host.iter().map(|frame| format!("\nhost: {}", line(frame)));
        let ha = self.ha.iter().map(|frame| format!("\nha: {}", line(frame)));
        verdict_name(self.verdict) + &frames.chain(host).chain(ha).collect::<String>()
    }

    /// The only frame that left.
    pub fn only(&self) -> &[u8] {
        assert_eq!(self.out.len(), 1, "{}", self.text());
        &self.out[0].1
    }
}

pub fn name(link: LinkId) -> &'static str {
    match link {
        OUT => "out",
        IN => "in",
        FAR_IN => "far in",
        _ => "?",
    }
}

pub fn verdict_name(verdict: Verdict) -> String {
    match verdict {
        Verdict::Forward(link) => format!("forward {}", name(link)),
        Verdict::Flood => "flood".into(),
        Verdict::Reply => "reply".into(),
        Verdict::ToHost => "to host".into(),
        Verdict::ToHa => "to ha".into(),
        Verdict::Split => "split".into(),
        Verdict::Held => "held".into(),
        Verdict::Consumed(Consumed::Neighbour) => "consumed neighbour".into(),
        Verdict::Consumed(Consumed::Question) => "consumed question".into(),
        Verdict::Consumed(Consumed::LoopProbe) => "consumed loop probe".into(),
        Verdict::Consumed(Consumed::ProbeAnswer) => "consumed probe answer".into(),
        Verdict::Drop(reason) => format!("drop {reason}"),
    }
}

#[derive(Debug)]
pub struct Router {
    pub config: Config,
    pub table: Table,
    pub dataplane: Dataplane,
    pub now: Instant,
    /// Answer who-has for everybody whom `owner` knows, and keep both out of what is returned.
    pub answers_arp: bool,
    pub owner: fn(LinkId, Ipv4Addr) -> Option<MacAddr>,
    pub events: Vec<Event>,
    /// The loop guard's frames, kept out of what is returned.
    pub probes: Vec<(LinkId, Vec<u8>)>,
    /// Servers that are down, from the next reload on.
    pub down: BTreeSet<Endpoint>,
    /// Servers that an operator drains, from the next reload on.
    pub drained: BTreeSet<Endpoint>,
    ids: Ids,
    frame: Frame,
}

impl Router {
    /// A router that has just started: nothing announced, nobody resolved.
    pub fn cold(config: Config, max_flows: usize) -> Self {
        Self::cold_at(config, max_flows, Instant::from_secs(1_000))
    }

    /// As [`Router::cold`], started at `now`.
    pub fn cold_at(config: Config, max_flows: usize, now: Instant) -> Self {
        let mut ids = Ids::default();
        let table = Table::compile(&config, None, &mut ids, |_, _| Standing::GOOD);
        let dataplane = Dataplane::new(&table, *b"0123456789abcdef", max_flows, now);
        let frame = Frame::new();
        let bridged = config.networks.iter().any(|network| network.links.len() > 1);
        let owner = if bridged { bridged_owner } else { owner };
        Self {
            config,
            table,
            dataplane,
            now,
            answers_arp: true,
            owner,
            events: Vec::new(),
            probes: Vec::new(),
            down: BTreeSet::new(),
            drained: BTreeSet::new(),
            ids,
            frame,
        }
    }

    /// A router at work: addresses announced, configured neighbours resolved.
    pub fn new(config: Config) -> Self {
        Self::sized(config, 1_000)
    }

    pub fn sized(config: Config, max_flows: usize) -> Self {
        let mut router = Self::cold(config, max_flows);
        router.advance(Duration::from_secs(5));
        router
    }

    /// Hands one frame in and everything out.
    pub fn feed(&mut self, link: LinkId, bytes: &[u8]) -> Step {
        self.frame.copy_from(bytes);
        let verdict = self.dataplane.handle_frame(&self.table, link, &mut self.frame, self.now);
        let mut step = Step { verdict, out: Vec::new(), host: None, ha: None };
        match verdict {
            Verdict::Forward(link) => step.out.push((link, self.frame.bytes().to_vec())),
            Verdict::Reply => step.out.push((link, self.frame.bytes().to_vec())),
            Verdict::ToHost => step.host = Some(self.frame.bytes().to_vec()),
            Verdict::ToHa => step.ha = Some(self.frame.bytes().to_vec()),
            Verdict::Flood => {
                let bytes = self.frame.bytes();
                let links = self.dataplane.flood_links(&self.table, link);
                step.out.extend(links.map(|link| (link, bytes.to_vec())));
            }
            Verdict::Split | Verdict::Held | Verdict::Consumed(_) | Verdict::Drop(_) => {}
        }
        step.out.extend(self.transmits());
        self.check();
        step
    }

    /// As [`Router::feed`], with a virtio-net header before the frame, and before all that leave.
    pub fn feed_offload(&mut self, link: LinkId, frame: &Super) -> (Verdict, Vec<(LinkId, Super)>) {
        self.frame.copy_from(&frame.bytes);
        self.frame.set_header(frame.header.to_bytes());
        let verdict = self.dataplane.handle_frame(&self.table, link, &mut self.frame, self.now);
        let mut out = Vec::new();
        match verdict {
            Verdict::Forward(link) => out.push((link, Super::of(&self.frame))),
            Verdict::Reply => out.push((link, Super::of(&self.frame))),
            Verdict::ToHost | Verdict::ToHa => out.push((link, Super::of(&self.frame))),
            Verdict::Flood => {
                let links = self.dataplane.flood_links(&self.table, link);
                out.extend(links.map(|link| (link, Super::of(&self.frame))));
            }
            Verdict::Split | Verdict::Held | Verdict::Consumed(_) | Verdict::Drop(_) => {}
        }
        while let Some(link) = self.dataplane.poll_transmit(&self.table, &mut self.frame, self.now)
        {
            out.push((link, Super::of(&self.frame)));
        }
        self.check();
        (verdict, out)
    }

    /// Lets time pass, doing what falls due on the way.
    pub fn advance(&mut self, by: Duration) -> Vec<(LinkId, Vec<u8>)> {
        let end = self.now + by;
        let mut out = self.transmits();
        let mut turns = 0;
        while let Some(due) = self.dataplane.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.dataplane.handle_timeout(&self.table, self.now);
            out.extend(self.transmits());
            turns += 1;
            assert!(turns < 100_000, "timers that never come to rest");
        }
        self.now = end;
        self.check();
        out
    }

    /// Everything the dataplane wants sent now.
    pub fn transmits(&mut self) -> Vec<(LinkId, Vec<u8>)> {
        let mut out = Vec::new();
        while let Some(link) = self.dataplane.poll_transmit(&self.table, &mut self.frame, self.now)
        {
            let bytes = self.frame.bytes().to_vec();
            // The loop guard speaks every second.
            if bytes.get(12..14) == Some(&[0x88, 0xb5]) {
                self.probes.push((link, bytes));
                continue;
            }
            match question(&bytes).filter(|_| self.answers_arp) {
                Some((target, asker)) => self.answer(link, &bytes, target, asker),
                None => out.push((link, bytes)),
            }
            assert!(out.len() < 1_000, "output without end");
        }
        out
    }

    fn answer(&mut self, link: LinkId, question: &[u8], target: Ipv4Addr, asker: Ipv4Addr) {
        let Some(mac) = (self.owner)(link, target) else { return };
        // A question to another station's MAC does not reach the owner.
        if question[..6] != MacAddr::BROADCAST.0 && question[..6] != mac.0 {
            return;
        }
        let to = self.table.network_of(link).unwrap().mac;
        self.frame.copy_from(&is_at(target, mac, to, asker).frame());
        let verdict = self.dataplane.handle_frame(&self.table, link, &mut self.frame, self.now);
        assert_eq!(verdict, Verdict::Consumed(Consumed::Neighbour), "{target}");
    }

    /// Takes another configuration into use, as a reload does.
    pub fn reload(&mut self, config: Config) {
        let Self { down, drained, ids, table: before, .. } = self;
        let standing = |_: &tapvs::config::Service, server: &tapvs::config::Server| Standing {
            is_up: !down.contains(&server.endpoint),
            is_drained: drained.contains(&server.endpoint),
        };
        let table = Table::compile(&config, Some(before), ids, standing);
        self.dataplane.handle_table(&self.table, &table, self.now);
        self.table = table;
        self.config = config;
        self.check();
    }

    /// As [`Router::reload`], from the configuration in use.
    pub fn change(&mut self, change: impl FnOnce(&mut Config)) {
        let mut config = self.config.clone();
        change(&mut config);
        self.reload(config);
    }

    /// What the dataplane says of itself.
    pub fn report(&self) -> Report {
        self.dataplane.report(&self.table, self.now)
    }

    /// All flows, sorted.
    pub fn flows(&self) -> Vec<FlowInfo> {
        let mut flows: Vec<_> = self.dataplane.flows().collect();
        let key = |flow: &FlowInfo| {
            let t = flow.original;
            (t.protocol, t.source, t.source_port, t.destination, t.destination_port)
        };
        flows.sort_by_key(key);
        flows
    }

    /// The state of the flow from `source` port `port`.
    pub fn state(&self, port: u16) -> Option<State> {
        self.dataplane.flows().find(|flow| flow.original.source_port == port).map(|flow| flow.state)
    }

    /// What holds at every moment.
    pub fn check(&mut self) {
        while let Some(event) = self.dataplane.poll_event() {
            match event {
                Event::ServerRetired(id) => self.ids.free_server(id),
                Event::ServiceRetired(id) => self.ids.free_service(id),
                _ => {}
            }
            self.events.push(event);
        }
        let report = self.report();
        assert!(report.balances(), "frames unaccounted for: {report:#?}");
        assert!(report.flows <= report.max_flows);
        assert!(report.waiting <= 288, "more frames wait than there is room for");
        assert_eq!(report.flows, self.dataplane.flow_count());
        if report.flows <= 64 {
            self.check_flows();
        }
    }

    /// Tuples are unique over both directions, and the servers' live counts are what flows say.
    fn check_flows(&self) {
        let mut tuples = BTreeSet::new();
        let mut count = 0;
        for flow in self.dataplane.flows() {
            let tuples_of = [
                Some(flow.original).filter(|_| !flow.one_packet),
                Some(flow.reply).filter(|_| !flow.direct),
            ];
            for tuple in tuples_of.iter().flatten() {
                let key = (
                    tuple.protocol,
                    tuple.source,
                    tuple.source_port,
                    tuple.destination,
                    tuple.destination_port,
                );
                assert!(tuples.insert(key), "two flows share {tuple:?}");
            }
            count += 1;
        }
        assert_eq!(count, self.dataplane.flow_count());
        let report = self.report();
        for (service, seen) in self.table.services().iter().zip(&report.services) {
            for (server, seen) in service.all_servers().zip(&seen.servers) {
                let of = |active| {
                    let mine = self
                        .dataplane
                        .flows()
                        .filter(|flow| !flow.one_packet)
                        .filter(|flow| flow.owner.is_some_and(|(_, id)| id == server.id));
                    mine.filter(|flow| flow.state.is_active() == active).count()
                };
                let live = (seen.load.active as usize, seen.load.inactive as usize);
                assert_eq!(live, (of(true), of(false)), "live counts of {}", server.name);
            }
            let of = self
                .dataplane
                .flows()
                .filter(|flow| !flow.one_packet)
                .filter(|flow| flow.owner.is_some_and(|(id, _)| id == service.id))
                .count();
            assert_eq!((seen.load.active + seen.load.inactive) as usize, of);
        }
    }
}

/// The target and the asker of a who-has that is not an announcement.
fn question(frame: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    if frame.get(12..14)? != [8, 6] || frame.get(20..22)? != [0, 1] {
        return None;
    }
    let address =
        |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
    let (asker, target) = (address(28)?, address(38)?);
    (asker != target && !asker.is_unspecified()).then_some((target, asker))
}
