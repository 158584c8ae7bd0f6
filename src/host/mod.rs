//! The router as an IP host, for its own addresses only: answers ping, serves the status page, refuses
//! closed ports, and asks the servers whether they are well.
//!
//! A smoltcp interface on bare IP between two queues. It owns no file descriptor and reads no clock;
//! it knows neither ARP nor routes, because the dataplane resolves and routes what comes out. The
//! virtual IPs are none of its business: the dataplane answers for those itself.

mod allowance;
mod checks;
mod device;
mod pages;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use smoltcp::iface::{Config, Interface, PollIngressSingleResult, SocketSet};
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Packet, Ipv6Packet};

use self::checks::Checks;
use self::device::Device;
use self::pages::Pages;
use crate::addr::{Cidr, Endpoint, ServerId};
use crate::health::Plan;
use crate::http::{ConnectionId, Request, Response};
use crate::time::Instant;

pub use self::checks::{Event, Last, MOST as MOST_CHECKS, Probe, Probed};

/// Packets handled per call of [`Host::handle_timeout`]; what is left makes the next deadline "now".
const BUDGET: usize = 32;

/// The router's own IP stack.
pub struct Host {
    addresses: Vec<IpAddr>,
    interface: Interface,
    device: Device,
    sockets: SocketSet<'static>,
    pages: Pages,
    checks: Checks,
    /// When there is something to do, besides packets that wait.
    due: Option<Instant>,
    counters: Counters,
}

/// What the host has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets taken in.
    pub received: u64,
    /// Packets refused because the queue was full or they exceed the MTU.
    pub refused: u64,
    /// Packets not meant for the host, malformed, or fragments, which it does not reassemble.
    pub ignored: u64,
    /// Packets sent.
    pub sent: u64,
    /// Answers held back by the rate limit.
    pub limited: u64,
}

impl Host {
    /// A host with the router's own `addresses`, whatever their number; IP packets up to `mtu` bytes.
    pub fn new(addresses: &[Cidr], mtu: u16, seed: u64, now: Instant) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut device = Device::new(mtu.into(), now);
        let mut interface = Interface::new(config, &mut device, now);
        interface.update_ip_addrs(|list| {
            // The list is short and serves to choose a source address. Which addresses are the
            // host's own is decided below, over all of them, so the interface takes any.
            for address in addresses {
                if list.push(IpCidr::new(address.address().into(), address.prefix())).is_err() {
                    break;
                }
            }
        });
        interface.set_any_ip(true);
        // Everything leaves through the one device; without a route smoltcp would keep it. There is
        // room for two routes, so neither can fail.
        let routes = interface.routes_mut();
        let _ = routes.add_default_ipv4_route(Ipv4Addr::UNSPECIFIED);
        let _ = routes.add_default_ipv6_route(Ipv6Addr::UNSPECIFIED);
        Self {
            addresses: addresses.iter().map(|cidr| cidr.address()).collect(),
            interface,
            device,
            sockets: SocketSet::new(Vec::new()),
            pages: Pages::default(),
            checks: Checks::new(seed),
            due: None,
            counters: Counters::default(),
        }
    }

    /// Takes in one IP packet, to be handled at the next [`Host::handle_timeout`]. `false`, and
    /// counted as refused, when the queue is full or the packet exceeds the MTU.
    pub fn handle_packet(&mut self, packet: &[u8]) -> bool {
        if !self.is_for_me(packet) {
            self.counters.ignored += 1;
            return true;
        }
        if self.checks.handle_packet(packet) {
            self.counters.received += 1;
            self.due = Some(Instant::ZERO);
            return true;
        }
        let taken = self.device.incoming.push(packet);
        self.counters.received += u64::from(taken);
        self.counters.refused += u64::from(!taken);
        taken
    }

    /// From now on, servers are asked as `plan` says.
    pub fn handle_plan(&mut self, plan: &Arc<Plan>, now: Instant) {
        self.checks.install(plan, now);
        self.due = Some(Instant::ZERO);
    }

    /// What came of the probe from `source_port`, which [`Host::poll_probe`] had asked for.
    pub fn handle_probed(&mut self, source_port: u16, probed: Probed) {
        self.checks.handle_probed(source_port, probed);
        self.due = Some(Instant::ZERO);
    }

    /// A server has let its clients down: it is down until its checks say that it has risen. `false`
    /// when nobody checks it.
    pub fn suspect(&mut self, server: ServerId) -> bool {
        self.checks.suspect(server)
    }

    /// Handles waiting packets and due timers; a bounded amount of work.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Self { interface, device, sockets, pages, checks, .. } = self;
        for _ in 0..BUDGET {
            match interface.poll_ingress_single(now, device, sockets) {
                PollIngressSingleResult::None => break,
                PollIngressSingleResult::PacketProcessed
                | PollIngressSingleResult::SocketStateChanged => {}
            }
        }
        pages.step(sockets, now);
        checks.handle_timeout(interface, sockets, &mut device.outgoing, now);
        interface.poll_egress(now, device, sockets);
        interface.poll_maintenance(now);
        let sockets = interface.poll_at(now, sockets);
        let due = [sockets, self.pages.next_deadline(), self.checks.poll_timeout(&self.sockets)];
        self.due = due.into_iter().flatten().min();
    }

    /// When [`Host::handle_timeout`] wants to be called next: now while packets wait.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if !self.device.incoming.is_empty() && !self.device.outgoing.is_full() {
            return Some(now);
        }
        self.due
    }

    /// The next probe through a virtual IP that somebody else is to carry out.
    pub fn poll_probe(&mut self) -> Option<Probe> {
        self.checks.poll_probe()
    }

    /// The next thing that the checks have found.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.checks.poll_event()
    }

    /// The last check of a server.
    pub fn last_check(&self, server: ServerId) -> Option<Last> {
        self.checks.last(server)
    }

    /// Serves the status page there from now on, one of the host's own addresses; or nowhere.
    pub fn listen(&mut self, endpoint: Option<Endpoint>, now: Instant) {
        self.pages.listen(endpoint, &mut self.sockets, now);
        self.due = Some(Instant::ZERO);
    }

    /// The next request to be answered by [`Host::respond`].
    pub fn poll_request(&mut self) -> Option<(ConnectionId, Request)> {
        self.pages.poll_request()
    }

    /// Answers a request; nothing happens when its connection has ended meanwhile.
    pub fn respond(&mut self, id: ConnectionId, response: Response, now: Instant) {
        self.pages.respond(id, response, &mut self.sockets, now);
        self.due = Some(Instant::ZERO);
    }

    /// The next IP packet to send, to be routed and resolved like any other.
    pub fn poll_transmit(&mut self) -> Option<&[u8]> {
        let packet = self.device.outgoing.pop()?;
        self.counters.sent += 1;
        Some(packet)
    }

    /// What the host has seen so far.
    pub const fn counters(&self) -> Counters {
        Counters { limited: self.device.limited, ..self.counters }
    }

    /// To one of the host's own addresses, from somebody else, and whole. A fragment would be read
    /// as if its first bytes were a transport header.
    fn is_for_me(&self, packet: &[u8]) -> bool {
        let (from, to) = match packet.first().map(|byte| byte >> 4) {
            Some(4) => {
                let Ok(ip) = Ipv4Packet::new_checked(packet) else { return false };
                if ip.more_frags() || ip.frag_offset() != 0 {
                    return false;
                }
                (IpAddr::V4(ip.src_addr()), IpAddr::V4(ip.dst_addr()))
            }
            Some(6) => {
                let Ok(ip) = Ipv6Packet::new_checked(packet) else { return false };
                (IpAddr::V6(ip.src_addr()), IpAddr::V6(ip.dst_addr()))
            }
            _ => return false,
        };
        self.addresses.contains(&to) && !self.addresses.contains(&from)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("addresses", &self.addresses)
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
