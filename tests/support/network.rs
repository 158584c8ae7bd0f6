//! The network that most tests run in.
//!
//! internet 203.0.113.0/24 (router .2, gateway .1, virtual IP .10), servers 10.0.0.0/24 (router .2,
//! their gateway 10.0.0.1 a virtual IP, real servers .11 to .13).

use std::net::{IpAddr, Ipv4Addr};

use tapvs::addr::{Endpoint, LinkId, MacAddr, Proto};
use tapvs::config::{
    Balance, Bridge, Config, Forward, Io, Lifecycle, Link, Method, Network, Router, Scheduler,
    Server, Service, Timeouts, Unserved, VirtualIp,
};

/// The internet's link.
pub const OUT: LinkId = LinkId(0);
/// The servers' link.
pub const IN: LinkId = LinkId(1);

/// The servers' second link, where links are bridged.
pub const FAR_IN: LinkId = LinkId(2);

/// The router on the internet.
pub const ROUTER_OUT: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
/// The router among the servers.
pub const ROUTER_IN: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);
/// The way to every client that is not on the link.
pub const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x01]);
/// A client on the link.
pub const NEAR: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x50]);
/// Somebody who has no business here.
pub const STRANGER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x66]);

pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub const OWN_OUT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
pub const OWN_IN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const INNER_VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const GATEWAY_IP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub const NEAR_IP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 50);

/// Real server `n`'s address: 10.0.0.n.
pub const fn server_ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

/// Real server `n`'s MAC.
pub const fn server_mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 2, n])
}

/// What tests call a MAC.
pub fn mac_name(mac: MacAddr) -> String {
    match mac {
        ROUTER_OUT => "router.out".into(),
        ROUTER_IN => "router.in".into(),
        GATEWAY => "gateway".into(),
        NEAR => "near".into(),
        STRANGER => "stranger".into(),
        MacAddr::BROADCAST => "all".into(),
        MacAddr::ZERO => "nobody".into(),
        MacAddr([2, 0, 0, 0, 2, n]) => format!("server{n}"),
        other => other.to_string(),
    }
}

/// Who answers who-has on a link: everybody that the tests know.
pub fn owner(link: LinkId, address: Ipv4Addr) -> Option<MacAddr> {
    match (link, address.octets()) {
        (OUT, [203, 0, 113, 1]) => Some(GATEWAY),
        (OUT, [203, 0, 113, 50]) => Some(NEAR),
        (IN, [10, 0, 0, n @ 3..=99]) => Some(server_mac(n)),
        _ => None,
    }
}

/// Who answers who-has on the links of [`bridged`]: one server is behind a link of its own.
pub fn bridged_owner(link: LinkId, address: Ipv4Addr) -> Option<MacAddr> {
    match (link, address.octets()) {
        (OUT, [203, 0, 113, 1]) => Some(GATEWAY),
        (OUT, [203, 0, 113, 50]) => Some(NEAR),
        (IN, [10, 0, 0, n @ (11 | 12)]) | (FAR_IN, [10, 0, 0, n @ 13]) => Some(server_mac(n)),
        _ => None,
    }
}

/// The standard configuration.
pub fn config() -> Config {
    let server = |n, port| server(n, port, 1);
    Config {
        router: Router {
            name: "lvs1".into(),
            control_socket: Some("/run/tapvs/lvs1.sock".into()),
            watch: false,
            max_flows: None,
            forward: Forward::None,
            unserved: Unserved::Reset,
            timeouts: Timeouts::IPVS,
            io: Io::Auto,
            offload: true,
        },
        networks: vec![
            network("internet", "203.0.113.2/24", Some(GATEWAY_IP), ROUTER_OUT),
            network("servers", "10.0.0.2/24", None, ROUTER_IN),
        ],
        routes: Vec::new(),
        status_page: None,
        failover: None,
        masquerades: Vec::new(),
        virtual_ips: vec![VirtualIp::new(VIP.into(), 0), VirtualIp::new(INNER_VIP.into(), 1)],
        services: vec![
            service(Proto::Tcp, 80, (11..=13).map(|n| server(n, 8080)).collect()),
            service(Proto::Udp, 53, (11..=12).map(|n| server(n, 53)).collect()),
        ],
    }
}

/// `config` with every service routed directly: servers at the services' ports.
pub fn direct(mut config: Config) -> Config {
    for service in &mut config.services {
        service.method = Method::Direct;
        for server in &mut service.servers {
            server.endpoint.port = service.port;
        }
    }
    config
}

/// One network of three links, with everybody in it; direct routing.
pub fn bridged() -> Config {
    let mut config = direct(config());
    let mut lan = network("lan", "203.0.113.2/24", Some(GATEWAY_IP), ROUTER_OUT);
    lan.addresses.push("10.0.0.2/24".parse().unwrap());
    lan.links = ["tap0", "tap1", "tap2"]
        .map(|tap| Link { tap: tap.into(), offload: None, attach: None })
        .into();
    config.networks = vec![lan];
    config.virtual_ips = vec![VirtualIp::new(VIP.into(), 0)];
    config
}

pub fn network(name: &str, own: &str, gateway: Option<Ipv4Addr>, mac: MacAddr) -> Network {
    Network {
        name: name.into(),
        links: vec![Link { tap: format!("tap-{name}"), offload: None, attach: None }],
        addresses: vec![own.parse().unwrap()],
        gateway: gateway.map(IpAddr::V4),
        mtu: 1500,
        mss_clamp: None,
        mac: Some(mac),
        bridge: Bridge::default(),
    }
}

/// A round-robin service of the virtual IP.
pub fn service(protocol: Proto, port: u16, servers: Vec<Server>) -> Service {
    Service {
        name: format!("{protocol}{port}"),
        protocol,
        address: VIP.into(),
        port,
        last_port: None,
        group: None,
        method: Method::Nat,
        scheduler: Scheduler::RoundRobin,
        balance: Balance::default(),
        health: None,
        servers,
        fallback: None,
        lifecycle: Lifecycle::default(),
    }
}

pub fn server(n: u8, port: u16, weight: u16) -> Server {
    let endpoint = Endpoint { address: server_ip(n).into(), port };
    Server::new(format!("server{n}"), endpoint, weight)
}
