//! The loop that introduces the rooms to one another: one thread, one `Poll`, run to completion.
//!
//! A turn reads the clock and the table once, gives every ready link one batch, fires what is due and
//! sleeps until the nearest deadline. It decides nothing itself and allocates nothing per frame.

mod awake;
mod error;
mod pair;
mod ready;
mod reply;
mod report;
mod tracing;
mod turns;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use log::{Level, warn};
use mio::{Events, Poll, Token, Waker};

use self::awake::Awake;
use self::pair::Pair;
use self::ready::Ready;
use self::reply::View;
use self::report::{Note, Report};
use self::turns::Turns;
use crate::addr::LinkId;
use crate::config::Config;
use crate::control::question::Question;
use crate::control::{Control, Entry, Message, Order, Publisher};
use crate::dataplane::{Dataplane, DropReason, Event, Origin, ProbeOutcome, Verdict};
use crate::frame::{ETHERNET, Frame, Segments};
use crate::host::{self, Host, Probe, Probed};
use crate::links::clock::Clock;
use crate::links::listener::Listener;
use crate::links::signals::Signals;
use crate::links::{self, LinkSpec, Links};
use crate::table::Table;
use crate::time::Instant;
use crate::trace::Tracers;

pub use self::error::RunError;

/// Frames per link and turn: enough to share the cost of a turn, few enough that timers and the
/// other links wait well below a millisecond.
const BATCH: usize = 64;
/// Frames of the dataplane's own that are written at once.
const OWN_BATCH: usize = 16;
/// A flow's record with its share of index, timers and queues: 181 bytes at a million flows, and some
/// more where the index, a power of two, has just been doubled.
///
/// Unless configured, flows may take a quarter of memory and half of what is free, but there are at most
/// a million.
const BYTES_PER_FLOW: u64 = 192;
const MOST_FLOWS: u64 = 1_000_000;
/// Memory, in bytes, from which on flows get huge pages: one flow may touch several, and on a smaller
/// machine a few of them are all that is free.
const ROOMY: u64 = 512 << 20;
/// How soon the control thread is given more of what did not fit its queue.
const CATCH_UP: std::time::Duration = std::time::Duration::from_millis(1);
/// Links use the tokens from 0.
const WAKE: Token = Token(usize::MAX);
/// News of NICs.
const NICS: Token = Token(usize::MAX - 1);

/// Runs the router that `file` configures, until SIGTERM or SIGINT.
///
/// # Errors
/// When the file is wrong, the links cannot be set up or the operating system fails the loop.
pub fn run(file: &Path) -> Result<(), RunError> {
    let publisher = Publisher::open(file)?;
    // From here on a signal does not kill: what is set up is also undone.
    let signals = Signals::new().map_err(RunError::system("cannot wait for signals"))?;
    let mut router = Router::start(publisher, signals)?;
    let worked = router.work().map_err(RunError::system("the loop cannot wait for frames"));
    let stopped = router.stop();
    worked.and(stopped)
}

struct Router {
    poll: Poll,
    clock: Clock,
    links: Links,
    ready: Ready,
    frames: Vec<Frame>,
    egress: [Option<LinkId>; BATCH],
    /// Apart from `frames`, so that they can leave in the middle of a batch.
    own_frames: Vec<Frame>,
    /// One of the packets that a frame for the router itself stands for.
    segment: Frame,
    table: Arc<Table>,
    dataplane: Dataplane,
    host: Host,
    control: Control<Note>,
    turns: Turns,
    /// The control thread knows that this table is in use, and all of it.
    settled: bool,
    tracers: Tracers,
    /// Which links frames pass by.
    awake: Awake,
    /// The other router, if there is to be one.
    pair: Option<Pair>,
    /// A question was answered this turn: whatever is ordered next waits for the next one.
    asked: bool,
}

impl Router {
    fn start(publisher: Publisher, signals: Signals) -> Result<Self, RunError> {
        let clock = Clock::new();
        let now = clock.now();
        let poll = Poll::new().map_err(RunError::system("cannot create a poll"))?;
        let config = publisher.config();
        let max_flows = max_flows(config);
        let mut links = Links::open(&link_specs(config), config.router.io)?;
        links.register(poll.registry())?;
        let listener = config.router.control_socket.as_deref().map(Listener::open).transpose()?;
        let table = publisher.published().load_full();
        let seed = links::seed();
        let dataplane = Dataplane::new(&table, seed, max_flows, now);
        if links::memory::total() >= ROOMY {
            dataplane.flow_memory().for_each(links::memory::prefer_huge_pages);
        }
        let addresses: Vec<_> =
            table.networks().iter().flat_map(|network| network.addresses.iter().copied()).collect();
        let mtu = table.networks().iter().map(|network| network.mtu).max().unwrap_or_default();
        let mut host = Host::new(&addresses, mtu, host_seed(links::seed()), now);
        host.handle_plan(table.checks(), now);
        host.listen(table.status_page(), now);
        let pair = Pair::start(&links, &table, publisher.sync_key(), links::seed(), now)?;
        if let Some(pair) = &pair {
            pair.register(poll.registry(), NICS)?;
        }
        let ready = ready_entry(config, &table);
        let waker = Waker::new(poll.registry(), WAKE).map(Arc::new);
        let control = waker
            .and_then(|waker| Control::start(publisher, signals, listener, clock, waker))
            .map_err(RunError::system("cannot start the control thread"))?;
        ready.write(Level::Info);
        if let Err(error) = links::notify::ready() {
            let path = links::notify::socket().unwrap_or_default();
            warn!(path:% = path.display(), error:%; "the service manager does not hear that it is ready");
        }
        Ok(Self {
            poll,
            clock,
            ready: Ready::new(links.len()),
            awake: Awake::new(links.len()),
            frames: std::iter::repeat_with(Frame::new).take(BATCH).collect(),
            egress: [None; BATCH],
            own_frames: std::iter::repeat_with(Frame::new).take(OWN_BATCH).collect(),
            segment: Frame::new(),
            links,
            table,
            dataplane,
            host,
            control,
            turns: Turns::default(),
            settled: true,
            tracers: Tracers::default(),
            pair,
            asked: false,
        })
    }

    /// Turns until told to stop.
    fn work(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(64);
        let mut now = self.clock.now();
        loop {
            let timeout = self.timeout(now);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(()) | Err(_) => {}
            }
            now = self.clock.now();
            self.follow_table(now);
            for event in &events {
                match (event.token(), &mut self.pair) {
                    (NICS, Some(pair)) => pair.hear_of_nics(),
                    (token, _) => {
                        if let Ok(link) = u16::try_from(token.0) {
                            self.ready.insert(LinkId(link));
                        }
                    }
                }
            }
            for _ in 0..self.ready.len() {
                self.serve_link(now);
                // At once, so that fragments and answers of one batch do not crowd out the next's.
                self.transmit(now);
            }
            self.look_for_links(now);
            self.fire_timers(now);
            self.tell_events(now);
            if let Some(pair) = &mut self.pair {
                pair.turn(&self.table, &mut self.dataplane, &mut self.links, now);
            }
            self.transmit(now);
            self.tell_traces(now);
            if self.obey(now) {
                return Ok(());
            }
            self.control.flush();
            self.turns.count(now, self.clock.now());
        }
    }

    /// Hands out answers of the status page, takes in new tracers, then does what is ordered, but answers
    /// one question at the most; whether it is to stop.
    fn obey(&mut self, now: Instant) -> bool {
        self.asked = false;
        while let Some((connection, response)) = self.control.response() {
            self.host.respond(connection, response, now);
        }
        self.follow_tracers();
        while !self.asked
            && let Some(order) = self.control.order()
        {
            match order {
                Order::Report => self.tell_report(now),
                Order::Ask(question) => self.tell_reply(&question, now),
                Order::Stop => return true,
            }
        }
        false
    }

    /// The nearest deadline; no wait at all while there is something to do.
    fn timeout(&mut self, now: Instant) -> Option<std::time::Duration> {
        if self.asked || !self.ready.is_empty() {
            return Some(std::time::Duration::ZERO);
        }
        let deadlines = [
            self.dataplane.poll_timeout(),
            self.host.poll_timeout(now),
            self.links.retry_at(),
            self.pair.as_ref().and_then(Pair::poll_timeout),
        ];
        let nearest = deadlines.into_iter().flatten().min().map(|nearest| {
            let micros = u64::try_from(nearest.total_micros() - now.total_micros()).unwrap_or(0);
            std::time::Duration::from_micros(micros)
        });
        let catch_up = self.control.is_behind().then_some(CATCH_UP);
        nearest.into_iter().chain(catch_up).min()
    }

    /// Takes over a new table, if there is one. The control thread holds the old one until it is
    /// told, so nothing is freed here.
    fn follow_table(&mut self, now: Instant) {
        let newest = self.control.table();
        if Arc::ptr_eq(&newest, &self.table) {
            return;
        }
        self.dataplane.handle_table(&self.table, &newest, now);
        self.host.handle_plan(newest.checks(), now);
        self.table = Arc::clone(&newest);
        drop(newest);
        self.host.listen(self.table.status_page(), now);
        if let Some(pair) = &mut self.pair {
            pair.handle_table(&self.table, now);
        }
        self.settled = false;
    }

    /// One batch of the link that has waited longest: read, decide, write.
    fn serve_link(&mut self, now: Instant) {
        let Some(link) = self.ready.pop() else { return };
        let read = self.links.read_batch(link, &mut self.frames);
        if read.more {
            self.ready.insert(link);
        }
        self.dataplane.look_ahead(&self.frames[..read.count]);
        let mut written = 0;
        for at in 0..read.count {
            let traced = self.tracers.is_on() && self.trace_arrival(link, at, now);
            let frame = &mut self.frames[at];
            let mut verdict = self.dataplane.handle_frame(&self.table, link, frame, now);
            self.egress[at] = match verdict {
                Verdict::Forward(to) => Some(to),
                Verdict::Reply => Some(link),
                Verdict::ToHost => {
                    let host = &mut self.host;
                    if !packets(frame, &mut self.segment, |packet| host.handle_packet(packet)) {
                        self.dataplane.count_refused(DropReason::HostQueueFull, 1);
                        verdict = Verdict::Drop(DropReason::HostQueueFull);
                    }
                    None
                }
                Verdict::ToHa => {
                    if let (Some(pair), Some(network)) =
                        (&mut self.pair, self.table.network_of(link))
                    {
                        packets(frame, &mut self.segment, |packet| {
                            pair.handle_packet(network.id, packet, now);
                            true
                        });
                    }
                    None
                }
                Verdict::Flood
                | Verdict::Split
                | Verdict::Held
                | Verdict::Consumed(_)
                | Verdict::Drop(_) => None,
            };
            if verdict == Verdict::Flood {
                self.write(written..at);
                self.flood(link, at);
                written = at + 1;
            }
            if traced {
                self.trace_verdict(written.min(at)..at, at, verdict, now);
                written = at + 1;
            }
            // Fragments, and frames that had waited for a neighbour just heard of, leave before the
            // frames that came after this one, and before there are too many.
            if matches!(verdict, Verdict::Split | Verdict::Consumed(_) | Verdict::Reply) {
                self.write(written..at + 1);
                self.transmit(now);
                written = at + 1;
            }
        }
        self.write(written..read.count);
    }

    /// Copies a frame to every other link of its network.
    fn flood(&mut self, ingress: LinkId, at: usize) {
        let mut refused = 0;
        for link in self.dataplane.flood_links(&self.table, ingress) {
            refused += u64::from(!self.links.write(link, &self.frames[at]));
        }
        self.dataplane.count_refused(DropReason::WriteRefused, refused);
    }

    /// A link that has come up, or alive, has neighbours to be asked for.
    fn look_for_links(&mut self, now: Instant) {
        for id in (0..=u16::MAX).map(LinkId).take(self.links.len()) {
            let nic_works = self.pair.as_ref().is_none_or(|pair| pair.nic_works(id));
            let works = nic_works && self.links.is_working(id);
            if self.awake.wakes(id, works, self.links.counters(id).frames_in) {
                self.dataplane.handle_link_up(&self.table, id, now);
            }
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if due(self.dataplane.poll_timeout()) {
            self.dataplane.handle_timeout(&self.table, now);
        }
        if !self.settled && self.dataplane.is_settled() {
            self.settled = true;
            self.control.tell(Message::Applied(self.table.generation()));
        }
        if due(self.host.poll_timeout(now)) {
            self.host.handle_timeout(now);
            self.probe_servers(now);
            while let Some((connection, request)) = self.host.poll_request() {
                self.control.tell(Message::Page(connection, request));
            }
        }
        while let Some(packet) = self.host.poll_transmit() {
            self.dataplane.send_packet(&self.table, packet, Origin::Host, now);
        }
        if due(self.links.retry_at()) {
            self.links.retry(now, self.poll.registry());
        }
    }

    /// Probes servers through virtual IPs on the host's behalf.
    fn probe_servers(&mut self, now: Instant) {
        while let Some(Probe { server, source_port, timeout }) = self.host.poll_probe() {
            let sent = self.dataplane.probe(&self.table, server, source_port, timeout, now);
            if sent.is_err() {
                self.host.handle_probed(source_port, Probed::NotSent);
            }
        }
    }

    /// Sends what the dataplane itself wants to say: announcements, questions, fragments, held
    /// frames. Its outbox is bounded, and so is this.
    fn transmit(&mut self, now: Instant) {
        loop {
            let mut count = 0;
            let mut egress = [None; OWN_BATCH];
            for (frame, egress) in self.own_frames.iter_mut().zip(&mut egress) {
                *egress = self.dataplane.poll_transmit(&self.table, frame, now);
                if egress.is_none() {
                    break;
                }
                count += 1;
            }
            let refused = if self.tracers.is_on() {
                self.transmit_traced(&egress[..count], now)
            } else {
                self.links.write_batch(&egress[..count], &self.own_frames[..count])
            };
            self.dataplane.count_refused(DropReason::WriteRefused, refused);
            if count < OWN_BATCH {
                return;
            }
        }
    }

    /// Says how many were refused.
    fn write(&mut self, batch: Range<usize>) -> u64 {
        let refused = self.links.write_batch(&self.egress[batch.clone()], &self.frames[batch]);
        self.dataplane.count_refused(DropReason::WriteRefused, refused);
        refused
    }

    fn tell_events(&mut self, now: Instant) {
        while let Some(event) = self.dataplane.poll_event() {
            if let Some(pair) = &mut self.pair {
                pair.note_event(&event, &self.table, now);
            }
            self.control.tell(match event {
                Event::ServiceRetired(id) => Message::ServiceGone(id),
                Event::ServerRetired(id) => Message::ServerGone(id),
                Event::Probed { source_port, outcome, .. } => {
                    self.host.handle_probed(source_port, probed(outcome));
                    continue;
                }
                Event::ServerSilent { server, .. } => {
                    let is_asked = self.host.suspect(server);
                    Message::Silent { server, is_asked }
                }
                event => {
                    let fields = event.fields(&self.table);
                    let entry = Entry { text: event.text(), fields };
                    Message::Notice(Note::Event(event, entry))
                }
            });
        }
        while let Some(event) = self.host.poll_event() {
            self.control.tell(match event {
                host::Event::Changed(change) => Message::Health(change),
                host::Event::Behind => Message::ChecksBehind,
            });
        }
        while let Some(note) = self.pair.as_mut().and_then(Pair::poll_note) {
            self.control.tell(Message::Notice(note));
        }
    }

    fn tell_reply(&mut self, question: &Question, now: Instant) {
        self.asked = true;
        if let (Question::Failover(wish), Some(pair)) = (question, &mut self.pair) {
            pair.decide(*wish, now);
        }
        // It is about a table that may have come out since this turn began.
        self.follow_table(now);
        let view = View {
            table: &self.table,
            dataplane: &self.dataplane,
            links: &self.links,
            host: &self.host,
            pair: self.pair.as_ref(),
            turns: self.turns,
            now,
        };
        self.control.tell(Message::Reply(view.reply(question)));
    }

    fn tell_report(&mut self, now: Instant) {
        let ids = (0..=u16::MAX).map(LinkId).take(self.links.len());
        let link = |id| (self.links.name(id).to_owned(), self.links.counters(id));
        let report = Report {
            uptime: now - Instant::ZERO,
            turns: self.turns,
            links: ids.map(link).collect(),
            dataplane: self.dataplane.report(&self.table, now),
            host: self.host.counters(),
        };
        self.control.tell(Message::Notice(Note::Report(Box::new(report))));
    }

    /// The last words; then the links go, and with them the TAPs and bridges.
    fn stop(mut self) -> Result<(), RunError> {
        let now = self.clock.now();
        if let Some(pair) = &mut self.pair {
            pair.shut_down(&self.table, &mut self.dataplane, now);
        }
        self.transmit(now);
        self.tell_events(now);
        self.tell_report(self.clock.now());
        self.control.finish().map_err(RunError::system("the control thread failed"))
    }
}

/// Hands out the IP packets that a frame stands for; whether all of them were taken.
fn packets(frame: &Frame, segment: &mut Frame, mut take: impl FnMut(&[u8]) -> bool) -> bool {
    if frame.is_plain() {
        return take(frame.bytes().get(ETHERNET..).unwrap_or_default());
    }
    let mut segments = Segments::new(frame);
    let mut all = true;
    while segments.next_into(segment) {
        all &= take(segment.bytes().get(ETHERNET..).unwrap_or_default());
    }
    all
}

/// What came of a probe, in the host's words.
const fn probed(outcome: ProbeOutcome) -> Probed {
    match outcome {
        ProbeOutcome::Open => Probed::Open,
        ProbeOutcome::Refused => Probed::Refused,
        ProbeOutcome::Silent => Probed::Silent,
    }
}

/// In the order of the table's link ids: over all networks, as in the file.
fn link_specs(config: &Config) -> Vec<LinkSpec> {
    let networks = config.networks.iter();
    let links = networks.flat_map(|network| network.links.iter().map(move |link| (network, link)));
    links
        .map(|(network, link)| LinkSpec {
            tap: link.tap.clone(),
            mtu: network.mtu,
            offload: link.offload.unwrap_or(config.router.offload),
            attach: link.attach.clone(),
        })
        .collect()
}

fn max_flows(config: &Config) -> usize {
    // On a small machine a quarter may be more than there is.
    let bytes = || (links::memory::total() / 4).min(links::memory::available() / 2);
    let by_memory = || (bytes() / BYTES_PER_FLOW).min(MOST_FLOWS);
    let flows = config.router.max_flows.map_or_else(by_memory, u64::from);
    usize::try_from(flows).unwrap_or(usize::MAX)
}

/// A secret of its own: what the host draws from it shows on the wire.
fn host_seed(seed: [u8; 16]) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = seed;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn ready_entry(config: &Config, table: &Table) -> Entry {
    let servers = config.services.iter().map(|service| service.all_servers().count()).sum();
    let counts = [
        ("networks", config.networks.len()),
        ("virtual_ips", config.virtual_ips.len()),
        ("services", config.services.len()),
        ("servers", servers),
    ];
    let mut fields = vec![
        ("router", config.router.name.clone()),
        ("generation", table.generation().to_string()),
    ];
    fields.extend(counts.map(|(key, count): (_, usize)| (key, count.to_string())));
    Entry { text: "ready", fields }
}
