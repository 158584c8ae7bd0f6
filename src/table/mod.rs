//! The immutable forwarding table: what a configuration means for the frame path.
//!
//! Compiled as a whole and never changed; what has happened (flows, cursors, counters) lives in
//! the dataplane. A service that did not change is shared with the table before.

mod buckets;
mod checks;
mod difference;
mod ids;
mod lookup;
mod route;
mod service;
mod spread;
mod virtual_ip;

use std::collections::{HashMap, HashSet};
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::addr::{Cidr, Endpoint, LinkId, MacAddr, NetworkId, Ports, Proto, ServerId};
use crate::config::{self, Config};
use crate::health::Plan;

pub use crate::config::{
    Balance, Bridge, Defend, Failover, FlowLimits, Forward, Helper, Lifecycle, Method, OnDown,
    OnRemove, PassiveHealth, Persistence, Scheduler, SchedulerFlags, Timeouts, Unserved,
};
pub use buckets::Buckets;
pub use difference::{Difference, ServiceChange};
pub use ids::Ids;
pub use route::NextHop;
pub use service::{Front, Group, Server, Service, Standing};
pub use virtual_ip::VirtualIp;

pub(crate) use service::gcd;

use lookup::{Answers, Fronts};
use route::Routes;
use spread::BuildSpread;
use virtual_ip::VirtualIps;

/// Everything the frame path looks up. Cheap to share, never changed.
#[derive(Debug)]
pub struct Table {
    generation: u32,
    networks: Vec<Network>,
    links: Vec<(NetworkId, String)>,
    virtual_ips: VirtualIps,
    local: HashMap<Ipv4Addr, Local, BuildSpread>,
    routes: Routes,
    server_prefixes: Vec<Cidr>,
    masquerades: Vec<Masquerade>,
    services: Vec<Arc<Service>>,
    fronts: Fronts,
    answers: Answers,
    direct_servers: HashSet<Ipv4Addr, BuildSpread>,
    forward: Forward,
    unserved: Unserved,
    timeouts: Timeouts,
    checks: Arc<Plan>,
    /// Positions of service and server, by server id; the fallback's is one beyond the others'.
    places: Vec<Option<(u32, u32)>>,
    ids: (usize, usize),
    status_page: Option<Endpoint>,
    failover: Option<Failover>,
    /// Position of the first service with fewer servers up than `min_healthy`.
    starved: Option<usize>,
    difference: Difference,
    kept_hops: usize,
}

/// One broadcast domain.
#[derive(Clone, Debug)]
pub struct Network {
    /// Its position.
    pub id: NetworkId,
    /// Its label.
    pub name: String,
    /// Its TAPs.
    pub links: Vec<LinkId>,
    /// The router's own addresses.
    pub addresses: Vec<Cidr>,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Largest TCP segment to be announced through it, in bytes.
    pub mss_clamp: Option<u16>,
    /// The router's own MAC.
    pub mac: MacAddr,
    /// The MAC of its virtual IPs where it is shared with another router, by virtual router id.
    pub virtual_mac: Option<MacAddr>,
    /// The next hop of the default route, when it lies here.
    pub gateway: Option<Ipv4Addr>,
    /// How several links are bridged.
    pub bridge: Bridge,
    /// Directed broadcast and network addresses of the prefixes here: every packet is held against them.
    broadcasts: Vec<Ipv4Addr>,
}

impl Network {
    /// The MAC that its virtual IPs are answered for with.
    pub fn service_mac(&self) -> MacAddr {
        self.virtual_mac.unwrap_or(self.mac)
    }

    /// The router's first own IPv4 address here: the source of what it sends itself.
    pub fn own_address(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|own| ipv4(own.address()))
    }

    /// The router's own address that a neighbour at `address` is asked from: in its prefix, the
    /// longest one, else the first here.
    pub fn address_beside(&self, address: Ipv4Addr) -> Option<Ipv4Addr> {
        let beside = self.addresses.iter().filter(|own| own.contains(address.into()));
        let nearest = beside.max_by_key(|own| own.prefix());
        nearest.and_then(|own| ipv4(own.address())).or_else(|| self.own_address())
    }

    /// Whether `address` lies inside one of the prefixes here.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|own| own.contains(address.into()))
    }

    /// Whether both addresses lie in one prefix here: their hosts talk to each other directly.
    pub fn joins(&self, a: Ipv4Addr, b: Ipv4Addr) -> bool {
        self.addresses.iter().any(|own| own.contains(a.into()) && own.contains(b.into()))
    }

    /// Whether `address` is a directed broadcast or network address here.
    pub fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        self.broadcasts.contains(&address)
    }

    /// Whether it has several links, with the router as the switch between them.
    pub const fn is_bridged(&self) -> bool {
        self.links.len() > 1
    }

    /// Its first link: the only one where it is not bridged.
    pub fn link(&self) -> LinkId {
        self.links.first().copied().unwrap_or_default()
    }
}

/// A compiled `[[masquerade]]`.
#[derive(Clone, Copy, Debug)]
struct Masquerade {
    from: Cidr,
    to: Ipv4Addr,
}

impl Masquerade {
    fn compile(rule: &config::Masquerade) -> Option<Self> {
        Some(Self { from: rule.from, to: ipv4(rule.to)? })
    }
}

/// An address that is the router's to answer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// The router's own; its packets go to the host.
    Own(NetworkId),
    /// A virtual IP; the dataplane answers.
    Virtual(NetworkId),
}

impl Local {
    /// Where the address is answered for.
    pub const fn network(self) -> NetworkId {
        match self {
            Self::Own(network) | Self::Virtual(network) => network,
        }
    }
}

impl Table {
    /// Compiles `config`. What is the same as in `previous` keeps its ids. `standing` tells what is
    /// known of a server besides: [`Standing::GOOD`] where nothing is.
    pub fn compile(
        config: &Config,
        previous: Option<&Self>,
        ids: &mut Ids,
        standing: impl Fn(&config::Service, &config::Server) -> Standing,
    ) -> Self {
        let networks = compile_networks(config);
        let routes = Routes::compile(config);
        let generation = previous.map_or(1, |p| p.generation.wrapping_add(1));
        let known = previous.map_or(&[][..], |p| &p.services);
        let services = service::compile(config, known, ids, generation, &standing);
        let virtual_ips = VirtualIps::compile(config);
        let with_method = |method| services.iter().filter(move |s| s.method == method);
        let asked = previous.map(|p| &p.checks);
        let checks = checks::compile(config, &services, &networks, &routes, asked, generation);
        let mut table = Self {
            generation,
            links: link_names(config),
            local: compile_local(&networks, &virtual_ips),
            networks,
            virtual_ips,
            routes,
            server_prefixes: server_prefixes(config),
            masquerades: config.masquerades.iter().filter_map(Masquerade::compile).collect(),
            fronts: Fronts::compile(&services),
            answers: Answers::compile(&services),
            direct_servers: with_method(Method::Direct)
                .flat_map(|service| service.all_servers().map(|server| server.address))
                .collect(),
            places: places(&services, ids),
            services,
            forward: config.router.forward,
            unserved: config.router.unserved,
            timeouts: config.router.timeouts,
            checks,
            ids: ids.limits(),
            status_page: config.status_page.as_ref().map(|page| page.listen),
            failover: config.failover.clone(),
            starved: None,
            difference: Difference::default(),
            kept_hops: 0,
        };
        table.starved = table.services.iter().position(|service| service.is_starved());
        table.difference = Difference::between(previous, &table);
        let Difference { hops, removed_hops, .. } = &table.difference;
        let before = previous.map_or(0, |previous| previous.kept_hops);
        table.kept_hops = before + hops.len() - removed_hops.len();
        table
    }

    /// How many next hops are to be kept resolved.
    pub const fn kept_hops(&self) -> usize {
        self.kept_hops
    }

    /// What leads here from the table it was compiled after.
    pub const fn difference(&self) -> &Difference {
        &self.difference
    }

    /// Counts compilations, from 1.
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// All networks; a `NetworkId` is a position.
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// The network `id`.
    ///
    /// # Panics
    /// When `id` is of another configuration; networks do not change while the router runs.
    pub fn network(&self, id: NetworkId) -> &Network {
        &self.networks[id.index()]
    }

    /// The network that `link` belongs to; `None` for a link this table does not know.
    pub fn network_of(&self, link: LinkId) -> Option<&Network> {
        self.links.get(link.index()).map(|(id, _)| self.network(*id))
    }

    /// Where the host serves the status page.
    pub const fn status_page(&self) -> Option<Endpoint> {
        self.status_page
    }

    /// With whom the virtual IPs are shared, and how; `None`: always active.
    pub const fn failover(&self) -> Option<&Failover> {
        self.failover.as_ref()
    }

    /// A service with fewer servers up than its `min_healthy`, the first if there are several.
    pub fn starved_service(&self) -> Option<&Service> {
        self.services.get(self.starved?).map(Arc::as_ref)
    }

    /// The two ends that flows are copied between: this router's, and its peer's.
    pub fn sync_ends(&self) -> Option<(Endpoint, Endpoint)> {
        let sync = self.failover.as_ref()?.sync.as_ref()?;
        let own = self.networks.get(sync.network)?.address_beside(sync.peer)?;
        let end = |address: Ipv4Addr| Endpoint { address: address.into(), port: sync.port };
        Some((end(own), end(sync.peer)))
    }

    /// The TAP's name; empty for a link this table does not know.
    pub fn link_name(&self, link: LinkId) -> &str {
        self.links.get(link.index()).map_or("", |(_, name)| name)
    }

    /// How many links there are.
    pub fn link_count(&self) -> usize {
        self.links.len()
    }

    /// What `address` is to this router.
    pub fn local(&self, address: Ipv4Addr) -> Option<Local> {
        self.local.get(&address).copied()
    }

    /// The address that a packet from `source` to `destination` is seen to come from.
    pub fn masquerade(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        let applies = |rule: &&Masquerade| {
            rule.from.contains(source.into()) && !rule.from.contains(destination.into())
        };
        self.masquerades.iter().find(applies).map(|rule| rule.to)
    }

    /// The address that a server is called from on behalf of a neighbour of its, so that its answer
    /// comes back: one that moves with the servers' gateway where there is one.
    pub fn hairpin_address(&self, network: &Network, server: Ipv4Addr) -> Option<Ipv4Addr> {
        let beside = |address: Ipv4Addr| {
            let prefixes = network.addresses.iter();
            prefixes.into_iter().any(|p| p.contains(address.into()) && p.contains(server.into()))
        };
        let floating = self.virtual_ips().iter().filter(|vip| vip.network == network.id);
        let own = network.addresses.iter().filter_map(|own| ipv4(own.address()));
        floating.map(|vip| vip.address).chain(own).find(|address| beside(*address))
    }

    /// Whether `address` lies in a connected prefix that holds real servers.
    pub fn is_server_side(&self, address: Ipv4Addr) -> bool {
        self.server_prefixes.iter().any(|prefix| prefix.contains(address.into()))
    }

    /// The virtual IPs, in file order.
    pub fn virtual_ips(&self) -> &[VirtualIp] {
        self.virtual_ips.all()
    }

    /// The virtual IP with this address.
    pub fn virtual_ip(&self, address: Ipv4Addr) -> Option<&VirtualIp> {
        self.virtual_ips.find(address)
    }

    /// The way to `destination`; `None` without a route.
    pub fn next_hop(&self, destination: Ipv4Addr) -> Option<NextHop> {
        self.routes.next_hop(destination)
    }

    /// The next hops that routes name.
    pub fn route_gateways(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.routes.gateways()
    }

    /// All services, in file order.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// The service for a packet to `address` and `port`.
    pub fn service(&self, proto: Proto, address: Ipv4Addr, port: u16) -> Option<&Service> {
        self.services.get(self.fronts.find(proto, address, port)?).map(Arc::as_ref)
    }

    /// Whether `address` is a real server's that holds a virtual IP, for direct routing.
    pub fn is_direct_server(&self, address: Ipv4Addr) -> bool {
        self.direct_servers.contains(&address)
    }

    /// The service that is found by just this.
    pub fn service_of(&self, key: (Proto, Ipv4Addr, Ports)) -> Option<&Service> {
        let likely = self.service(key.0, key.1, key.2.first).filter(|service| service.key() == key);
        likely.or_else(|| self.services.iter().map(Arc::as_ref).find(|s| s.key() == key))
    }

    /// Whether a service names `port` of `address`, rather than taking all that is left.
    pub fn is_service_port(&self, proto: Proto, address: Ipv4Addr, port: u16) -> bool {
        self.fronts.is_named(proto, address, port)
    }

    /// Whether packets from `address` and `port` are some real server's answers that a service has
    /// to translate. Those of a service for all ports are not told from its servers' own.
    pub fn is_server(&self, proto: Proto, address: Ipv4Addr, port: u16) -> bool {
        self.answers.contains(proto, address, port)
    }

    /// Whether packets from `address` and `port` may be some real server's answers.
    pub fn may_be_server(&self, proto: Proto, address: Ipv4Addr, port: u16) -> bool {
        self.answers.may_contain(proto, address, port)
    }

    /// What is routed that is neither a service nor a reply.
    pub const fn forward(&self) -> Forward {
        self.forward
    }

    /// What a VIP's port without a service answers.
    pub const fn unserved(&self) -> Unserved {
        self.unserved
    }

    /// How long flows live.
    pub const fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// How servers are asked whether they are well. The same as in the table before where nothing
    /// of it has changed.
    pub const fn checks(&self) -> &Arc<Plan> {
        &self.checks
    }

    /// One above the highest service id and server id handed out so far.
    pub const fn id_limits(&self) -> (usize, usize) {
        self.ids
    }

    /// Every server with its service, in file order, fallbacks included.
    pub fn servers(&self) -> impl Iterator<Item = (&Service, &Server)> {
        self.services.iter().flat_map(|service| service.all_servers().map(|s| (&**service, s)))
    }

    /// What to call the real server at `address`: its name with the address, or the address alone.
    pub fn server_label(&self, address: Ipv4Addr) -> String {
        let named = self.servers().map(|(_, server)| server).find(|s| s.address == address);
        named
            .filter(|server| {
                server.name != format!("{address}:{}", server.port)
                    && server.name != address.to_string()
            })
            .map_or_else(|| address.to_string(), |server| format!("{} ({address})", server.name))
    }

    /// The server `id` with its service; `None` when it is not configured.
    pub fn server(&self, id: ServerId) -> Option<(&Service, &Server)> {
        let (service, server) = (*self.places.get(id.index())?)?;
        let service = self.services.get(service as usize)?;
        let server = service.servers.get(server as usize).or(service.fallback.as_ref())?;
        Some((service, server))
    }
}

fn places(services: &[Arc<Service>], ids: &Ids) -> Vec<Option<(u32, u32)>> {
    let mut places = vec![None; ids.limits().1];
    for (at, service) in (0..).zip(services) {
        for (position, server) in (0..).zip(service.all_servers()) {
            places[server.id.index()] = Some((at, position));
        }
    }
    places
}

fn compile_networks(config: &Config) -> Vec<Network> {
    let mut links = (0..=u16::MAX).map(LinkId);
    (0..=u16::MAX)
        .map(NetworkId)
        .zip(&config.networks)
        .map(|(id, network)| Network {
            id,
            name: network.name.clone(),
            links: links.by_ref().take(network.links.len()).collect(),
            addresses: network.addresses.clone(),
            mtu: network.mtu,
            mss_clamp: network.mss_clamp,
            mac: network.mac.unwrap_or_else(|| derived_mac(&config.router.name, &network.name)),
            virtual_mac: virtual_mac(config, id.index()),
            gateway: network.gateway.and_then(ipv4),
            bridge: network.bridge,
            broadcasts: network.addresses.iter().flat_map(broadcasts).collect(),
        })
        .collect()
}

/// The directed broadcast and the network address of a prefix, where it has them.
fn broadcasts(own: &Cidr) -> impl Iterator<Item = Ipv4Addr> {
    let directed = own.broadcast();
    let network = directed.and_then(|_| ipv4(own.network().address()));
    directed.into_iter().chain(network)
}

fn virtual_mac(config: &Config, network: usize) -> Option<MacAddr> {
    let failover = config.failover.as_ref()?;
    let member = failover.networks.iter().find(|member| member.network == network)?;
    Some(config::virtual_mac(member.virtual_router_id))
}

/// Stable over restarts and machines: equal names give equal addresses. Locally administered.
fn derived_mac(router: &str, network: &str) -> MacAddr {
    let mut hasher = SipHasher13::new();
    hasher.write(router.as_bytes());
    hasher.write_u8(0xff);
    hasher.write(network.as_bytes());
    let mut mac = MacAddr::from_slice(&hasher.finish().to_be_bytes());
    mac.0[0] = mac.0[0] & 0xfc | 0x02;
    mac
}

/// The connected prefixes that some server lies in.
fn server_prefixes(config: &Config) -> Vec<Cidr> {
    let servers = || config.services.iter().flat_map(config::Service::all_servers);
    let connected = config.networks.iter().flat_map(|network| &network.addresses);
    let holds_servers = |own: &&Cidr| servers().any(|s| own.contains(s.endpoint.address));
    connected.filter(holds_servers).map(|own| own.network()).collect()
}

/// Every link's network and TAP, in the order of the ids.
fn link_names(config: &Config) -> Vec<(NetworkId, String)> {
    let networks = (0..=u16::MAX).map(NetworkId).zip(&config.networks);
    networks
        .flat_map(|(id, network)| network.links.iter().map(move |link| (id, link.tap.clone())))
        .collect()
}

fn compile_local(
    networks: &[Network],
    virtual_ips: &VirtualIps,
) -> HashMap<Ipv4Addr, Local, BuildSpread> {
    let own = networks.iter().flat_map(|network| {
        let addresses = network.addresses.iter().filter_map(|own| ipv4(own.address()));
        addresses.map(|address| (address, Local::Own(network.id)))
    });
    let virtual_ips = virtual_ips.all().iter();
    let virtual_ips = virtual_ips.map(|vip| (vip.address, Local::Virtual(vip.network)));
    own.chain(virtual_ips).collect()
}

const fn ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn network_id(position: usize) -> NetworkId {
    NetworkId(u16::try_from(position).unwrap_or(u16::MAX))
}
