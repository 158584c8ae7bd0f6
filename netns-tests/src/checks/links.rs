//! TAPs, bridges and namespaces as the kernel really treats them.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use crate::mode;
use mio::{Events, Poll};
use tapvs::addr::{LinkId, MacAddr};
use tapvs::config::{Attach, AttachMode, Nic};
use tapvs::frame::Frame;
use tapvs::links::attach::Attachment;
use tapvs::links::clock::Clock;
use tapvs::links::tap::Tap;
use tapvs::links::{LinkError, LinkSpec, Links, Namespace, Netlink};
use tapvs::time::Duration;

/// One check.
pub type Check = fn() -> Result<(), String>;

/// All checks of this room, by name.
pub const ALL: &[(&str, Check)] = &[
    ("fresh_tap_is_silent", fresh_tap_is_silent),
    ("tap_is_set_up", tap_is_set_up),
    ("frames_come_in_order_and_none_is_stranded", frames_come_in_order_and_none_is_stranded),
    ("tap_flap_is_counted_and_survived", tap_flap_is_counted_and_survived),
    ("removed_tap_comes_back", removed_tap_comes_back),
    ("moved_tap_still_carries_frames", moved_tap_still_carries_frames),
    ("attach_joins_and_is_undone", attach_joins_and_is_undone),
    ("removed_tap_rejoins_its_bridge", removed_tap_rejoins_its_bridge),
    ("attach_refuses_what_would_hurt", attach_refuses_what_would_hurt),
    ("left_over_bridge_is_recognised", left_over_bridge_is_recognised),
    ("busy_tap_is_named", busy_tap_is_named),
    ("child_dies_with_its_thread", child_dies_with_its_thread),
    ("namespace_goes_with_its_fd", namespace_goes_with_its_fd),
];

const TAP: &str = "tapvs0";
const NIC: &str = "nic0";
const LINK: LinkId = LinkId(0);
const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 254);
const ROUTER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);

/// TAPs are up for three seconds, one of them on a host that forwards IPv6, and the kernel says
/// nothing; a device that is not silenced speaks meanwhile.
pub fn fresh_tap_is_silent() -> Result<(), String> {
    let (host, forwarder) = (Namespace::new().map_err(text)?, Namespace::new().map_err(text)?);
    forwarder.write_sysctl("net/ipv6/conf/all/forwarding", "1").map_err(text)?;
    let mut router = Router::open(&host, None)?;
    let other = Router::open(&forwarder, None)?;
    let netlink = host.run(Netlink::new).map_err(text)?;
    netlink.create_veth("loud0", "loud1", None).map_err(text)?;
    netlink.set_up("loud0").map_err(text)?;
    netlink.set_up("loud1").map_err(text)?;
    let heard = router.listen(Duration::from_secs(3), |_| true)?;
    ensure(heard.is_none(), || format!("heard on a fresh TAP: {heard:?}"))?;
    for namespace in [&host, &forwarder] {
        let netlink = namespace.run(Netlink::new).map_err(text)?;
        let sent = netlink.link(TAP).map_err(text)?.statistics.tx_packets;
        ensure(sent == 0, || format!("the kernel sent {sent} frames on a fresh TAP"))?;
    }
    drop(other);
    let loud = netlink.link("loud1").map_err(text)?.statistics.rx_packets;
    ensure(loud > 0, || "an ordinary device was silent too: this check proves nothing".into())
}

/// MTU, queue and state are what the specification says, and the device goes with its fd.
pub fn tap_is_set_up() -> Result<(), String> {
    let namespace = Namespace::new().map_err(text)?;
    let netlink = namespace.run(Netlink::new).map_err(text)?;
    let tap = namespace.run(|| Tap::open(TAP, 1400)).map_err(text)?;
    let link = netlink.link(TAP).map_err(text)?;
    ensure(
        link.mtu == 1400 && link.txqlen >= 4_096 && link.up && link.carrier && link.kind == "tun",
        || format!("{link:?}"),
    )?;
    drop(tap);
    match netlink.link(TAP) {
        Err(error) if error.is_missing() => Ok(()),
        other => Err(format!("the TAP outlived its fd: {other:?}")),
    }
}

/// Far more frames than a batch holds arrive by one event, each once and in order.
pub fn frames_come_in_order_and_none_is_stranded() -> Result<(), String> {
    const COUNT: u32 = 1_000;
    let namespace = Namespace::new().map_err(text)?;
    let mut router = Router::open(&namespace, None)?;
    with_address(&namespace, TAP)?;
    // The address is known, so that nothing but the datagrams is sent.
    router.resolve(KERNEL)?;
    namespace.run(|| send_numbers(COUNT))?;
    let mut next = 0;
    router.listen(Duration::from_secs(2), |frame| {
        if number(frame) == Some(next) {
            next += 1;
        }
        next == COUNT
    })?;
    ensure(next == COUNT, || format!("{next} of {COUNT} datagrams came in order"))
}

/// What is written while the TAP is down is counted, and afterwards it works as before.
pub fn tap_flap_is_counted_and_survived() -> Result<(), String> {
    let namespace = Namespace::new().map_err(text)?;
    let netlink = namespace.run(Netlink::new).map_err(text)?;
    let mut router = Router::open(&namespace, None)?;
    with_address(&namespace, TAP)?;
    router.resolve(KERNEL)?;
    netlink.set_down(TAP).map_err(text)?;
    let taken = router.links.write(LINK, &who_has(KERNEL));
    let refused = router.links.counters(LINK).refused;
    ensure(!taken && refused.down == 1 && refused.total() == 1, || format!("{refused:?}"))?;
    router.listen(Duration::from_millis(200), |_| false)?;
    netlink.set_up(TAP).map_err(text)?;
    router.resolve(KERNEL)?;
    let counters = router.links.counters(LINK);
    ensure(counters.lost == 0 && counters.refused.total() == 1, || format!("{counters:?}"))
}

/// A removed TAP wakes the loop once, costs nothing while it is away, and is made again.
pub fn removed_tap_comes_back() -> Result<(), String> {
    let namespace = Namespace::new().map_err(text)?;
    let netlink = namespace.run(Netlink::new).map_err(text)?;
    let mut router = Router::open(&namespace, None)?;
    for round in 1..=2 {
        with_address(&namespace, TAP)?;
        router.resolve(KERNEL)?;
        netlink.delete_link(TAP).map_err(text)?;
        router.listen_without_retry(Duration::from_millis(500))?;
        let counters = router.links.counters(LINK);
        ensure(counters.lost == round, || format!("removal {round} went unnoticed: {counters:?}"))?;
        ensure(router.turns < 5, || format!("{} turns with nothing to do", router.turns))?;
        let refused = counters.refused.gone;
        ensure(!router.links.write(LINK, &who_has(KERNEL)), || "a write to nothing".into())?;
        ensure(router.links.counters(LINK).refused.gone == refused + 1, || "uncounted".into())?;
        namespace.run(|| router.retry_until_back())?;
    }
    with_address(&namespace, TAP)?;
    router.resolve(KERNEL)
}

/// A TAP that became another namespace's NIC carries that namespace's frames.
pub fn moved_tap_still_carries_frames() -> Result<(), String> {
    let (here, there) = (Namespace::new().map_err(text)?, Namespace::new().map_err(text)?);
    let netlink = here.run(Netlink::new).map_err(text)?;
    let mut router = Router::open(&here, None)?;
    netlink.move_to_namespace(TAP, there.fd()).map_err(text)?;
    there.run(Netlink::new).and_then(|netlink| netlink.set_up(TAP)).map_err(text)?;
    with_address(&there, TAP)?;
    router.resolve(KERNEL)?;
    ensure(router.links.counters(LINK).lost == 0, || "the move counted as a removal".into())
}

/// Frames pass between TAP and NIC, and nothing of it is left afterwards.
pub fn attach_joins_and_is_undone() -> Result<(), String> {
    let (host, outside) = (Namespace::new().map_err(text)?, Namespace::new().map_err(text)?);
    let netlink = host_with_nic(&host, &outside)?;
    netlink.set_mtu(NIC, 1300).map_err(text)?;
    let mut router = Router::open(&host, Some(attach(false)))?;
    let bridge = netlink.link("br-tapvs0").map_err(text)?;
    let nic = netlink.link(NIC).map_err(text)?;
    ensure(bridge.up && bridge.mtu == 1500 && nic.mtu == 1500, || format!("{bridge:?} {nic:?}"))?;
    ensure(nic.up && nic.master == Some(bridge.index) && nic.promiscuity > 0, || {
        format!("{nic:?}")
    })?;
    router.resolve(KERNEL)?;
    // The host has an address elsewhere and must not answer for it through the bridge.
    netlink.create_veth("other0", "other1", None).map_err(text)?;
    netlink.add_address("other0", "10.9.0.77/32".parse().map_err(text)?).map_err(text)?;
    let host_answers = router.answers(Ipv4Addr::new(10, 9, 0, 77), Duration::from_millis(500))?;
    ensure(!host_answers, || "the host answers ARP through the bridge".into())?;
    drop(router);
    let nic = netlink.link(NIC).map_err(text)?;
    ensure(nic.master.is_none() && !nic.up && nic.mtu == 1300 && nic.promiscuity == 0, || {
        format!("not as it was found: {nic:?}")
    })?;
    ensure(netlink.link("br-tapvs0").is_err_and(|error| error.is_missing()), || {
        "the bridge is still there".into()
    })
}

/// A TAP that is made again is put into its bridge again, or into a new one.
pub fn removed_tap_rejoins_its_bridge() -> Result<(), String> {
    let (host, outside) = (Namespace::new().map_err(text)?, Namespace::new().map_err(text)?);
    let netlink = host_with_nic(&host, &outside)?;
    let mut router = Router::open(&host, Some(attach(false)))?;
    for victims in [&[TAP][..], &["br-tapvs0", TAP]] {
        for victim in victims {
            netlink.delete_link(victim).map_err(text)?;
        }
        router.listen_without_retry(Duration::from_millis(100))?;
        host.run(|| router.retry_until_back())?;
        router.resolve(KERNEL)?;
    }
    drop(router);
    let nic = netlink.link(NIC).map_err(text)?;
    ensure(nic.master.is_none() && !nic.up, || format!("not as it was found: {nic:?}"))
}

/// A NIC that the host needs, that belongs to somebody else or is not there is not taken.
pub fn attach_refuses_what_would_hurt() -> Result<(), String> {
    let (host, outside) = (Namespace::new().map_err(text)?, Namespace::new().map_err(text)?);
    let netlink = host_with_nic(&host, &outside)?;
    let open = |force| Router::open(&host, Some(attach(force)));
    let refuses = |wanted: &[&str]| match open(false) {
        Ok(_) => Err(format!("not refused: {wanted:?}")),
        Err(said) if wanted.iter().all(|word| said.contains(word)) => {
            let nic = netlink.link(NIC).map(|nic| nic.master);
            ensure(netlink.link(TAP).is_err() && netlink.link("br-tapvs0").is_err(), || {
                format!("a refusal left something behind, nic0 in {nic:?}")
            })
        }
        Err(said) => Err(format!("{wanted:?} not in: {said}")),
    };
    netlink.add_address(NIC, "2001:db8::9/64".parse().map_err(text)?).map_err(text)?;
    refuses(&[NIC, "2001:db8::9/64", "force"])?;
    netlink.set_up(NIC).map_err(text)?;
    netlink.add_address(NIC, "10.9.0.5/24".parse().map_err(text)?).map_err(text)?;
    netlink.add_route("0.0.0.0/0".parse().map_err(text)?, KERNEL.into()).map_err(text)?;
    refuses(&[NIC, "address"])?;
    let mut forced = open(true)?;
    forced.resolve(KERNEL)?;
    drop(forced);

    netlink.delete_link(NIC).map_err(text)?;
    refuses(&[NIC, "No such device", "lo"])?;
    host_nic(&netlink, &outside)?;
    netlink.create_bridge("mine").map_err(text)?;
    netlink.set_master(NIC, "mine").map_err(text)?;
    refuses(&[NIC, "mine"])?;
    ensure(open(true).is_err(), || "force took a NIC out of somebody's bridge".into())?;
    netlink.clear_master(NIC).map_err(text)?;
    netlink.create_bridge("br-tapvs0").map_err(text)?;
    netlink.set_alias("br-tapvs0", "the administrator's").map_err(text)?;
    match open(false) {
        Err(said) if said.contains("br-tapvs0") => {
            netlink.link("br-tapvs0").map(drop).map_err(|_| "somebody's bridge was removed".into())
        }
        other => Err(format!("somebody's bridge was taken: {other:?}")),
    }
}

/// What a killed run left is removed by the next one, whether or not that attaches.
pub fn left_over_bridge_is_recognised() -> Result<(), String> {
    let (host, outside) = (Namespace::new().map_err(text)?, Namespace::new().map_err(text)?);
    let netlink = host_with_nic(&host, &outside)?;
    let leave_over = || {
        host.run(|| {
            let tap = Tap::open(TAP, 1500)?;
            // As after SIGKILL: the TAP goes with its fd, the bridge stays.
            std::mem::forget(Attachment::join(TAP, &attach(false), 1500)?);
            drop(tap);
            Ok::<_, LinkError>(())
        })
    };
    leave_over().map_err(text)?;
    let mut router = Router::open(&host, Some(attach(false)))?;
    router.resolve(KERNEL)?;
    drop(router);
    let nic = netlink.link(NIC).map_err(text)?;
    ensure(nic.master.is_none() && !nic.up, || format!("not as it was found: {nic:?}"))?;

    leave_over().map_err(text)?;
    let router = Router::open(&host, None)?;
    let nic = netlink.link(NIC).map_err(text)?;
    drop(router);
    ensure(nic.master.is_none() && !nic.up, || format!("still in the old bridge: {nic:?}"))
}

/// A TAP that somebody else has open is an error that says so, and not one of permission.
pub fn busy_tap_is_named() -> Result<(), String> {
    let namespace = Namespace::new().map_err(text)?;
    let netlink = namespace.run(Netlink::new).map_err(text)?;
    let _mine = namespace.run(|| Tap::open(TAP, 1500)).map_err(text)?;
    let busy = namespace.run(|| Tap::open(TAP, 1500)).err().ok_or("opened twice")?;
    ensure(!busy.is_permission() && busy.to_string().contains(TAP), || busy.to_string())?;
    ensure(busy.to_string().contains("another program"), || busy.to_string())?;
    netlink.create_bridge("nottap").map_err(text)?;
    let other = namespace.run(|| Tap::open("nottap", 1500)).err().ok_or("opened a bridge")?;
    ensure(other.to_string().contains("not a TAP"), || other.to_string())?;
    let long = namespace.run(|| Tap::open("a-name-of-17-byte", 1500)).err().ok_or("17 bytes")?;
    ensure(long.to_string().contains("15 bytes"), || long.to_string())
}

/// A child is killed when the thread that started it ends, as it is when a process is killed.
pub fn child_dies_with_its_thread() -> Result<(), String> {
    let namespace = Namespace::new().map_err(text)?;
    let mut child = std::thread::scope(|scope| {
        let start = || namespace.spawn(Command::new("cat").stdin(Stdio::piped()));
        scope.spawn(start).join()
    })
    .map_err(|_| "the thread panicked")?
    .map_err(text)?;
    let mut wait = Wait::new()?;
    for _ in 0..100 {
        if let Some(status) = child.try_wait().map_err(text)? {
            use std::os::unix::process::ExitStatusExt;
            return ensure(status.signal() == Some(9), || format!("it ended by {status}"));
        }
        wait.pass(Duration::from_millis(20))?;
    }
    child.kill().map_err(text)?;
    child.wait().map_err(text)?;
    Err("the child outlived the thread that started it".into())
}

/// A namespace that nobody holds any more goes, and its half of a veth pair with it.
pub fn namespace_goes_with_its_fd() -> Result<(), String> {
    let (kept, dropped) = (Namespace::new().map_err(text)?, Namespace::new().map_err(text)?);
    let netlink = kept.run(Netlink::new).map_err(text)?;
    netlink.create_veth("half0", "half1", Some(dropped.fd())).map_err(text)?;
    drop(dropped);
    let mut wait = Wait::new()?;
    for _ in 0..250 {
        if netlink.link("half0").is_err_and(|error| error.is_missing()) {
            return Ok(());
        }
        wait.pass(Duration::from_millis(20))?;
    }
    Err("five seconds later the namespace is still there".into())
}

/// A miniature of the router's loop around one link.
#[derive(Debug)]
struct Router {
    links: Links,
    poll: Poll,
    clock: Clock,
    frames: Vec<Frame>,
    ready: bool,
    turns: u32,
}

impl Router {
    fn open(namespace: &Namespace, attach: Option<Attach>) -> Result<Self, String> {
        let spec = LinkSpec { tap: TAP.to_owned(), mtu: 1500, offload: mode::offload(), attach };
        let mut links = namespace.run(|| Links::open(&[spec], mode::io())).map_err(text)?;
        let poll = Poll::new().map_err(text)?;
        links.register(poll.registry()).map_err(text)?;
        let frames = std::iter::repeat_with(Frame::new).take(16).collect();
        Ok(Self { links, poll, clock: Clock::new(), frames, ready: false, turns: 0 })
    }

    /// Reads until a frame is the one, or the time is over.
    fn listen(
        &mut self,
        time: Duration,
        mut is_it: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<Frame>, String> {
        let until = self.clock.now() + time;
        let mut events = Events::with_capacity(4);
        self.turns = 0;
        loop {
            let now = self.clock.now();
            if now >= until {
                return Ok(None);
            }
            let wait = if self.ready { Duration::ZERO } else { until - now };
            wait_for(&mut self.poll, &mut events, wait.into())?;
            self.turns += 1;
            self.ready |= !events.is_empty();
            if !self.ready {
                continue;
            }
            let read = self.links.read_batch(LINK, &mut self.frames);
            self.ready = read.more;
            let heard = self.frames.iter().take(read.count).find(|frame| is_it(frame.bytes()));
            if let Some(frame) = heard {
                return Ok(Some(Frame::from_bytes(frame.bytes())));
            }
        }
    }

    fn listen_without_retry(&mut self, time: Duration) -> Result<(), String> {
        self.listen(time, |_| false).map(drop)
    }

    fn answers(&mut self, address: Ipv4Addr, time: Duration) -> Result<bool, String> {
        self.links.write(LINK, &who_has(address));
        self.listen(time, |frame| is_answer(frame, address)).map(|answer| answer.is_some())
    }

    /// Asks the kernel behind the link for an address of its own: both directions work.
    fn resolve(&mut self, address: Ipv4Addr) -> Result<(), String> {
        for _ in 0..3 {
            if self.answers(address, Duration::from_secs(1))? {
                return Ok(());
            }
        }
        Err(format!("no ARP answer for {address}; {:?}", self.links.counters(LINK)))
    }

    /// Follows `retry_at` as the loop does, and waits as long as it says.
    fn retry_until_back(&mut self) -> Result<(), String> {
        let mut wait = Wait::new()?;
        for _ in 0..20 {
            let Some(at) = self.links.retry_at() else { return Ok(()) };
            let now = self.clock.now();
            if at > now {
                wait.pass(at - now)?;
            }
            self.links.retry(self.clock.now(), self.poll.registry());
        }
        Err("twenty retries did not bring the TAP back".into())
    }
}

/// Time that passes, without a busy loop.
struct Wait {
    poll: Poll,
    events: Events,
}

impl Wait {
    fn new() -> Result<Self, String> {
        Ok(Self { poll: Poll::new().map_err(text)?, events: Events::with_capacity(1) })
    }

    fn pass(&mut self, time: Duration) -> Result<(), String> {
        wait_for(&mut self.poll, &mut self.events, time.into())
    }
}

/// As the router's loop does: a ring's news may interrupt a wait.
fn wait_for(poll: &mut Poll, events: &mut Events, time: std::time::Duration) -> Result<(), String> {
    match poll.poll(events, Some(time)) {
        Err(error) if error.kind() != std::io::ErrorKind::Interrupted => Err(text(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn attach(force: bool) -> Attach {
    Attach { nic: Nic::Name(NIC.to_owned()), mode: AttachMode::Bridge, force }
}

fn with_address(namespace: &Namespace, name: &str) -> Result<(), String> {
    let netlink = namespace.run(Netlink::new).map_err(text)?;
    netlink.add_address(name, format!("{KERNEL}/24").parse().map_err(text)?).map_err(text)
}

/// A host with a NIC, down, whose other end is a machine at `KERNEL`.
fn host_with_nic(host: &Namespace, outside: &Namespace) -> Result<Netlink, String> {
    let netlink = host.run(Netlink::new).map_err(text)?;
    host_nic(&netlink, outside)?;
    Ok(netlink)
}

fn host_nic(netlink: &Netlink, outside: &Namespace) -> Result<(), String> {
    netlink.create_veth(NIC, "far0", Some(outside.fd())).map_err(text)?;
    with_address(outside, "far0")?;
    outside.run(Netlink::new).and_then(|netlink| netlink.set_up("far0")).map_err(text)
}

/// Sends numbered datagrams to the router's address.
fn send_numbers(count: u32) -> Result<(), String> {
    let socket = std::net::UdpSocket::bind((KERNEL, 0)).map_err(text)?;
    // The kernel learned the router's MAC from its question, so none of them waits for ARP.
    for number in 0..count {
        socket.send_to(&number.to_be_bytes(), (IpAddr::from(ROUTER), 9)).map_err(text)?;
    }
    Ok(())
}

/// The number in such a datagram: behind Ethernet, IPv4 and UDP headers.
fn number(frame: &[u8]) -> Option<u32> {
    let is_udp = frame.get(12..14)? == [8, 0] && frame.get(23)? == &17;
    is_udp.then(|| frame.get(42..46)?.try_into().ok().map(u32::from_be_bytes))?
}

/// An ARP request (RFC 826) of the router's.
fn who_has(address: Ipv4Addr) -> Frame {
    let mut bytes = Vec::with_capacity(42);
    bytes.extend(MacAddr::BROADCAST.0);
    bytes.extend(ROUTER_MAC.0);
    bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    bytes.extend(ROUTER_MAC.0);
    bytes.extend(ROUTER.octets());
    bytes.extend([0; 6]);
    bytes.extend(address.octets());
    Frame::from_bytes(&bytes)
}

fn is_answer(frame: &[u8], from: Ipv4Addr) -> bool {
    frame.get(..6) == Some(&ROUTER_MAC.0)
        && frame.get(12..14) == Some(&[8, 6])
        && frame.get(20..22) == Some(&[0, 2])
        && frame.get(28..32) == Some(&from.octets())
}
