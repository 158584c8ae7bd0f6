//! What a configuration means: every value here has already passed every rule.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use super::failover::Failover;
use crate::addr::{Cidr, Endpoint, MacAddr, Ports, Proto};
use crate::time::Duration;

/// A whole, valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[router]`.
    pub router: Router,
    /// `[[network]]`, in file order; a `NetworkId` is a position in it.
    pub networks: Vec<Network>,
    /// `[[route]]`; every `via` lies in the network named by `network`.
    pub routes: Vec<Route>,
    /// `[[virtual_ip]]`.
    pub virtual_ips: Vec<VirtualIp>,
    /// `[[masquerade]]`, in file order; the first that fits is used.
    pub masquerades: Vec<Masquerade>,
    /// `[[service]]`, in file order.
    pub services: Vec<Service>,
    /// `[status]`.
    pub status_page: Option<StatusPage>,
    /// `[failover]`; `None`: always active.
    pub failover: Option<Failover>,
}

/// `[router]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Names the router in logs; part of what its MAC addresses are derived from.
    pub name: String,
    /// Where the operator's commands connect; `None`: nowhere. Default `/run/tapvs/NAME.sock`.
    pub control_socket: Option<PathBuf>,
    /// The file is read again when it changes.
    pub watch: bool,
    /// Flow table size; `None`: a quarter of memory, at most 1,000,000.
    pub max_flows: Option<u32>,
    /// What is routed that is neither a service nor a reply.
    pub forward: Forward,
    /// What a VIP's port without a service answers.
    pub unserved: Unserved,
    /// How long a flow lives in each state.
    pub timeouts: Timeouts,
    /// How frames are moved.
    pub io: Io,
    /// Whether links leave checksums and segments to be done where the kernel can, unless one says
    /// otherwise.
    pub offload: bool,
}

/// How frames are moved between the router and its links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// By io_uring where it is there and allowed.
    Auto,
    /// Many with each system call, or not at all.
    Uring,
    /// One with each system call.
    Syscall,
}

/// `[status]`: what the router tells over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusPage {
    /// One of the router's own addresses, and a port.
    pub listen: Endpoint,
    /// Where the word is that allows changes; `None`: nobody may change anything.
    pub token_file: Option<PathBuf>,
}

/// What is routed that is neither a service nor a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// Nothing.
    None,
    /// What a network that holds real servers sends elsewhere.
    ServersOut,
    /// Everything.
    All,
}

/// What a VIP's port without a service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// TCP: RST; UDP: ICMP port unreachable.
    Reset,
    /// ICMP port unreachable for both.
    Icmp,
    /// Nothing.
    Drop,
}

/// How long a flow lives in each state since its last packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP SYN_SENT.
    pub syn_sent: Duration,
    /// TCP SYN_RECV.
    pub syn_recv: Duration,
    /// TCP ESTABLISHED.
    pub established: Duration,
    /// TCP FIN_WAIT.
    pub fin_wait: Duration,
    /// TCP TIME_WAIT.
    pub time_wait: Duration,
    /// TCP CLOSE.
    pub close: Duration,
    /// TCP CLOSE_WAIT.
    pub close_wait: Duration,
    /// TCP LAST_ACK.
    pub last_ack: Duration,
    /// UDP.
    pub udp: Duration,
}

impl Timeouts {
    /// What Linux IPVS uses (`ip_vs_proto_tcp.c`, `ip_vs_proto_udp.c`).
    pub const IPVS: Self = Self {
        syn_sent: Duration::from_secs(120),
        syn_recv: Duration::from_secs(60),
        established: Duration::from_secs(900),
        fin_wait: Duration::from_secs(120),
        time_wait: Duration::from_secs(120),
        close: Duration::from_secs(10),
        close_wait: Duration::from_secs(60),
        last_ack: Duration::from_secs(30),
        udp: Duration::from_secs(300),
    };

    /// RFC 5382 REQ-5 (established 2 h 4 min, transitory 4 min), RFC 7857 (closing 4 min),
    /// RFC 4787 REQ-5 (UDP 5 min).
    pub const RFC: Self = Self {
        syn_sent: Duration::from_secs(240),
        syn_recv: Duration::from_secs(240),
        established: Duration::from_secs(7_440),
        fin_wait: Duration::from_secs(240),
        time_wait: Duration::from_secs(240),
        close: Duration::from_secs(240),
        close_wait: Duration::from_secs(240),
        last_ack: Duration::from_secs(240),
        udp: Duration::from_secs(300),
    };
}

/// `[[network]]`: one broadcast domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its label, unique.
    pub name: String,
    /// Its TAP devices; two or more are bridged.
    pub links: Vec<Link>,
    /// The router's own addresses in it, unique over all networks.
    pub addresses: Vec<Cidr>,
    /// The default route's next hop, inside one of `addresses`' prefixes.
    pub gateway: Option<IpAddr>,
    /// Largest IP packet, in bytes: 576 to 9,000.
    pub mtu: u16,
    /// Largest TCP segment to be announced through this network, in bytes; `None`: as it is.
    pub mss_clamp: Option<u16>,
    /// The router's MAC in this network; `None`: derived from router and network name.
    pub mac: Option<MacAddr>,
    /// How several links are bridged.
    pub bridge: Bridge,
}

/// How the links of one network are bridged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// How long a station that says nothing is remembered: 60 s to 24 h.
    pub mac_ageing: Duration,
    /// Broadcast and multicast frames taken from a link in a second, and as many of unknown
    /// destination: 1 to 1,000,000.
    pub broadcast_limit: u32,
}

impl Default for Bridge {
    /// Ageing as IEEE 802.1D recommends.
    fn default() -> Self {
        Self { mac_ageing: Duration::from_secs(300), broadcast_limit: 1_000 }
    }
}

/// One entry of `links`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The TAP's interface name, 1 to 15 bytes.
    pub tap: String,
    /// Whether checksums and segments are left to be done where the kernel can; `None`: as the router
    /// says.
    pub offload: Option<bool>,
    /// The NIC it is joined with.
    pub attach: Option<Attach>,
}

/// `attach`: the NIC that a TAP is joined with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Which NIC.
    pub nic: Nic,
    /// How they are joined.
    pub mode: AttachMode,
    /// Take the NIC even when it carries the host's address or default route.
    pub force: bool,
}

/// A NIC, by one of its names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Nic {
    /// Its interface name, 1 to 15 bytes.
    Name(String),
    /// Its own Ethernet address.
    Mac(MacAddr),
    /// Where it is plugged in: `DOMAIN:BUS:DEVICE.FUNCTION` as `lspci -D` writes it, in lower case.
    Pci(String),
}

impl fmt::Display for Nic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(text) | Self::Pci(text) => f.write_str(text),
            Self::Mac(mac) => mac.fmt(f),
        }
    }
}

/// How a TAP and a NIC are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// Both are ports of a kernel bridge: the router has MAC addresses of its own.
    #[default]
    Bridge,
    /// The TAP is a macvtap on top of the NIC and has its MAC address, and no other: for networks that
    /// let no other pass.
    Macvtap,
}

/// `[[route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination prefix, host bits cleared.
    pub to: Cidr,
    /// The next hop.
    pub via: IpAddr,
    /// Position of the network that holds `via`.
    pub network: usize,
}

/// `[[virtual_ip]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualIp {
    /// The floating address.
    pub address: IpAddr,
    /// Position of the network where it is answered for.
    pub network: usize,
    /// Who is told when somebody else claims it; `None`: as its services need it.
    pub defend: Option<Defend>,
    /// How often it is asked who else claims it; `None`: never. Asked only where a `direct` service
    /// lets others hold it.
    pub probe_interval: Option<Duration>,
}

impl VirtualIp {
    /// One with every other key at its default.
    pub const fn new(address: IpAddr, network: usize) -> Self {
        let probe_interval = Some(Duration::from_secs(10));
        Self { address, network, defend: None, probe_interval }
    }
}

/// Who is told that a virtual IP is the router's when somebody else has claimed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defend {
    /// The gateway and the hosts that may be misled: servers that watch for conflicts keep it.
    Unicast,
    /// Everybody.
    Broadcast,
}

/// `[[masquerade]]`: connections that the real servers open themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// Whose connections, host bits cleared.
    pub from: Cidr,
    /// The address they are seen to come from: a virtual IP or the router's own.
    pub to: IpAddr,
}

/// `[[service]]`. Unique by protocol, address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// A label, unique. Default `PROTOCOL:ADDRESS:PORT`.
    pub name: String,
    /// What it balances.
    pub protocol: Proto,
    /// A configured virtual IP.
    pub address: IpAddr,
    /// The port clients use, the first one of a range; 0: all ports.
    pub port: u16,
    /// The last port of a range.
    pub last_port: Option<u16>,
    /// Other services that are one with this one.
    pub group: Option<Group>,
    /// How its packets reach the server.
    pub method: Method,
    /// How a server is chosen.
    pub scheduler: Scheduler,
    /// What else decides about new flows.
    pub balance: Balance,
    /// How its servers are asked whether they are well; `None`: they are not.
    pub health: Option<Arc<Health>>,
    /// In file order, unique by endpoint; may be empty.
    pub servers: Vec<Server>,
    /// Takes new flows when none of `servers` may; another endpoint than theirs. Its weight is 1.
    pub fallback: Option<Server>,
    /// What happens as servers come, go and fail.
    pub lifecycle: Lifecycle,
}

/// What makes several services one: the first of them in the file is the [`Service`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What they call it.
    pub name: String,
    /// All but the first, in file order.
    pub members: Vec<Member>,
}

/// A service that shares everything but its address with the first one of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// A label, unique among services and members.
    pub name: String,
    /// What it balances.
    pub protocol: Proto,
    /// A configured virtual IP.
    pub address: IpAddr,
    /// The ports clients use.
    pub ports: Ports,
}

/// What decides about a new flow besides the scheduler's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// What the scheduler does differently.
    pub flags: SchedulerFlags,
    /// Clients are given the server that they had.
    pub persistence: Option<Persistence>,
    /// Persistence does not give a server of weight 0.
    pub expire_quiescent: bool,
    /// Every UDP datagram is a connection of its own.
    pub one_packet: bool,
    /// How long a flow lives in each state; `None`: as the router says.
    pub timeouts: Option<Timeouts>,
}

/// `scheduler_flags`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerFlags {
    /// `sh-port`, `mh-port`: the client's port counts as well as its address.
    pub port: bool,
    /// `sh-fallback`, `mh-fallback`: when its server may take no flow, a client has another one.
    pub fallback: bool,
}

/// `persistence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// How long a client is remembered after its last new flow: 1 s to a week.
    pub timeout: Duration,
    /// So many bits of an address make a client: 1 to 32.
    pub prefix: u8,
}

impl Member {
    /// Where clients find it, as people write it.
    pub fn listen(&self) -> String {
        listen(self.address, self.ports)
    }
}

fn listen(address: IpAddr, ports: Ports) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{ports}"),
        IpAddr::V6(address) => format!("[{address}]:{ports}"),
    }
}

impl Default for Persistence {
    /// What `ipvsadm -p` means.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(300), prefix: 32 }
    }
}

impl Service {
    /// The ports clients use at its own address.
    pub const fn ports(&self) -> Ports {
        match self.last_port {
            Some(last) => Ports { first: self.port, last },
            None => Ports::of(self.port),
        }
    }

    /// What the file calls its scheduler's flags.
    pub fn flag_words(&self) -> Vec<String> {
        let SchedulerFlags { port, fallback } = self.balance.flags;
        let words = [(port, "port"), (fallback, "fallback")];
        let words = words.iter().filter(|(on, _)| *on);
        words.map(|(_, word)| format!("{}-{word}", self.scheduler)).collect()
    }

    /// Where clients find it, as people write it: `203.0.113.10:80`, `203.0.113.10:8000-8100`, or with
    /// port 0 for all.
    pub fn listen(&self) -> String {
        listen(self.address, self.ports())
    }

    /// What it is found by: its own address, then those of its group.
    pub fn fronts(&self) -> impl Iterator<Item = (Proto, IpAddr, Ports)> {
        let members = self.group.iter().flat_map(|group| &group.members);
        let members = members.map(|member| (member.protocol, member.address, member.ports));
        std::iter::once((self.protocol, self.address, self.ports())).chain(members)
    }

    /// Its servers in file order, then the fallback.
    pub fn all_servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().chain(&self.fallback)
    }
}

/// `helper`: who reads a service's connections to let related ones come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helper {
    /// FTP, by NAT.
    Ftp,
}

impl fmt::Display for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ftp => f.write_str("ftp"),
        }
    }
}

/// What happens to a service's flows as its servers come, go and fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifecycle {
    /// Who reads along; `None`: nobody.
    pub helper: Option<Helper>,
    /// What becomes of the flows of a server that is removed.
    pub on_remove: OnRemove,
    /// How long the flows of a server that is removed, or drained by an operator, may go on; `None`:
    /// as long as they like. 1 s to 24 h.
    pub drain_timeout: Option<Duration>,
    /// What becomes of the flows of a server that is down.
    pub on_down: OnDown,
    /// How long a server that comes into service takes to get its full share; `None`: none. 1 s to
    /// 1 h, with lc, wlc and sed only.
    pub slow_start: Option<Duration>,
    /// When a server is given up because it leaves connections unanswered; `None`: never. TCP by NAT
    /// only.
    pub passive_health: Option<PassiveHealth>,
    /// With `[failover]`, the router gives its role up while fewer servers are up; `None`: whatever
    /// happens to them. 1 to 65535.
    pub min_healthy: Option<u16>,
}

/// What becomes of the flows of a server that is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRemove {
    /// They go on until they end, or until `drain_timeout`.
    #[default]
    Drain,
    /// They are ended at once: TCP clients are reset.
    Reset,
}

/// What becomes of the flows of a server that is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// They stay: the server may come back.
    #[default]
    Keep,
    /// They are ended: TCP clients are reset.
    Reset,
    /// UDP: their next packet goes to another server.
    Reschedule,
}

/// `passive_health`: what clients' connections say about a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassiveHealth {
    /// So many different clients in a row without an answer: 1 to 16.
    pub unanswered: u8,
    /// When it is tried again: 1 s to 1 h.
    pub retry: Duration,
}

impl Default for PassiveHealth {
    fn default() -> Self {
        Self { unanswered: 5, retry: Duration::from_secs(30) }
    }
}

/// How packets reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Addresses and ports are rewritten both ways.
    Nat,
    /// Only the MAC of the client's packets is rewritten; the server answers the client itself.
    Direct,
}

/// How a server is chosen for a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduler {
    /// Round robin.
    RoundRobin,
    /// Weighted round robin, interleaved.
    WeightedRoundRobin,
    /// Least connections.
    LeastConnection,
    /// Weighted least connections.
    WeightedLeastConnection,
    /// Shortest expected delay.
    ShortestExpectedDelay,
    /// Never queue: an idle server, or else the shortest expected delay.
    NeverQueue,
    /// By the client's address.
    SourceHash,
    /// By the address that the client calls.
    DestinationHash,
    /// By the client's address, most clients keeping theirs as servers come and go (Maglev).
    Maglev,
    /// The heaviest.
    Failover,
    /// The heaviest that has no more active flows than its weight says.
    Overflow,
    /// By the address that the client calls: the server that had it last.
    Locality,
    /// By the address that the client calls: one of a set of servers.
    LocalityReplicated,
    /// The less loaded of two that are drawn.
    PowerOfTwo,
}

impl Scheduler {
    /// Whether it compares what servers carry, so that a new one would get all there is at first.
    pub const fn compares_loads(self) -> bool {
        matches!(
            self,
            Self::LeastConnection | Self::WeightedLeastConnection | Self::ShortestExpectedDelay
        )
    }
}

/// `[[service.server]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A label. Default `ADDRESS:PORT`.
    pub name: String,
    /// Where it listens; on a directly connected network or behind a route. Port 0: where the client's
    /// packet goes.
    pub endpoint: Endpoint,
    /// 0 to 65535; 0 takes no new flows.
    pub weight: u16,
    /// How many flows it may have.
    pub limits: FlowLimits,
}

impl Server {
    /// One with every other key at its default.
    pub const fn new(name: String, endpoint: Endpoint, weight: u16) -> Self {
        Self { name, endpoint, weight, limits: FlowLimits { max: 0, min: 0 } }
    }
}

/// `max_flows` and `min_flows`: between which counts of flows a server stops taking new ones, and takes
/// them again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowLimits {
    /// At so many it takes no more; 0: never.
    pub max: u32,
    /// Below so many it takes them again; 0: below three quarters of `max`.
    pub min: u32,
}

/// `health`: how the servers of a service are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What they are asked.
    pub inquiry: Inquiry,
    /// From one check of a server to its next: 100 ms to 1 h.
    pub interval: Duration,
    /// How long one may take: 10 ms to 1 min, at most the interval.
    pub timeout: Duration,
    /// So many failures in a row make a server down: 1 to 100.
    pub fall: u32,
    /// So many successes in a row make it up: 1 to 100.
    pub rise: u32,
    /// What it is taken for until its checks have said.
    pub initially_up: bool,
    /// Where to ask; `None`: at the server's own port.
    pub port: Option<u16>,
}

/// What a server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inquiry {
    /// Whether it takes a TCP connection.
    Tcp,
    /// Whether it answers an HTTP request as expected.
    Http(HttpCheck),
    /// Whether it answers an ICMP echo request.
    Ping,
    /// Whether it takes a datagram, or answers it as expected.
    Udp(UdpCheck),
    /// Whether it takes a TCP connection for the virtual IP.
    VirtualIp,
}

/// The rest of `kind = "http"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// What is asked for, from `/` on; printable ASCII.
    pub path: String,
    /// The `Host` header; printable ASCII. Default the virtual IP.
    pub host: String,
    /// Which answers are right.
    pub status: StatusCodes,
    /// What an answer's body contains.
    pub body: Option<String>,
}

/// A set of HTTP status codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusCodes(pub Vec<RangeInclusive<u16>>);

impl StatusCodes {
    /// Whether `code` is one of them.
    pub fn contains(&self, code: u16) -> bool {
        self.0.iter().any(|range| range.contains(&code))
    }
}

/// The rest of `kind = "udp"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpCheck {
    /// What is sent.
    pub payload: Vec<u8>,
    /// What an answer contains; `None`: no answer is needed.
    pub answer: Option<Vec<u8>>,
}
