//! Ports for connections that the servers open themselves (RFC 4787, RFC 5382).
//!
//! One internal address and port keeps one external port, whoever it talks to (REQ-1), and no
//! external port ever serves two (REQ-3).

use std::hash::Hasher;
use std::net::Ipv4Addr;

use siphasher::sip::SipHasher13;

use super::draw::{Draw, Use};
use super::flow::{Index, Tuple};

/// External ports tried for one mapping.
const TRIES: u32 = 128;

/// An address and port of one protocol; for ICMP the port is the query's identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) protocol: u8,
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
}

impl Socket {
    /// The side that opened the flow.
    pub(super) const fn client_of(original: Tuple) -> Self {
        let Tuple { protocol, source: address, source_port: port, .. } = original;
        Self { protocol, address, port }
    }

    /// As who that side is seen and answered.
    pub(super) const fn seen_in(reply: Tuple) -> Self {
        let Tuple { protocol, destination: address, destination_port: port, .. } = reply;
        Self { protocol, address, port }
    }
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    internal: Socket,
    external: Socket,
    /// Flows that use it.
    flows: u32,
}

/// All mappings, found from either side.
#[derive(Debug)]
pub(super) struct Masquerade {
    mappings: Vec<Mapping>,
    free: Vec<u32>,
    capacity: usize,
    by_internal: Index,
    by_external: Index,
    hasher: SipHasher13,
    draw: Draw,
}

impl Masquerade {
    pub(super) fn new(capacity: usize, seed: &[u8; 16]) -> Self {
        Self {
            mappings: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            capacity,
            by_internal: Index::new(capacity),
            by_external: Index::new(capacity),
            hasher: SipHasher13::new_with_key(seed),
            draw: Draw::new(seed, Use::ExternalPorts),
        }
    }

    /// The external port for a flow from `internal` seen as coming from `address`: the mapping's
    /// port if there is one already, else the internal port itself, else a random one of the same
    /// kind. `is_reserved`: ports that are somebody else's, such as a service's.
    pub(super) fn map(
        &mut self,
        internal: Socket,
        address: Ipv4Addr,
        is_reserved: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        if let Some(id) = self.find_internal(internal, address) {
            let mapping = &mut self.mappings[id as usize];
            // A port that has become a service's serves the flows it has, and no more.
            if is_reserved(mapping.external.port) {
                return None;
            }
            mapping.flows += 1;
            return Some(mapping.external.port);
        }
        let is_free = |masquerade: &Self, port| {
            let external = Socket { address, port, ..internal };
            !is_reserved(port) && masquerade.find_external(external).is_none()
        };
        let port = if is_free(self, internal.port) {
            internal.port
        } else {
            (0..TRIES).find_map(|_| {
                let port = self.candidate(internal.port);
                is_free(self, port).then_some(port)
            })?
        };
        self.add(Mapping { internal, external: Socket { address, port, ..internal }, flows: 1 })?;
        Some(port)
    }

    /// A flow from `internal` is seen as coming from `external`, as another router has decided.
    /// `None` when there is no room. It may differ from what this router would do.
    pub(super) fn claim(&mut self, internal: Socket, external: Socket) -> Option<()> {
        match self.find(internal, external) {
            Some(id) => {
                self.mappings[id as usize].flows += 1;
                Some(())
            }
            None => self.add(Mapping { internal, external, flows: 1 }),
        }
    }

    /// A flow from `internal`, seen as coming from `external`, is gone.
    pub(super) fn unmap(&mut self, internal: Socket, external: Socket) {
        let Some(id) = self.find(internal, external) else { return };
        let mapping = &mut self.mappings[id as usize];
        mapping.flows -= 1;
        if mapping.flows == 0 {
            self.by_internal.remove(self.hash(internal), id);
            self.by_external.remove(self.hash(external), id);
            self.free.push(id);
        }
    }

    /// Random, of the same class and parity (REQ-3 a, REQ-4).
    fn candidate(&mut self, like: u16) -> u16 {
        let (first, last) = if like < 1024 { (512, 1023) } else { (1024, u16::MAX) };
        let pair = self.draw.below((last - first) / 2 + 1);
        first + pair * 2 + (like & 1)
    }

    fn add(&mut self, mapping: Mapping) -> Option<()> {
        let id = match self.free.pop() {
            Some(id) => {
                self.mappings[id as usize] = mapping;
                id
            }
            None if self.mappings.len() < self.capacity => {
                self.mappings.push(mapping);
                u32::try_from(self.mappings.len() - 1).ok()?
            }
            None => return None,
        };
        self.by_internal.insert(self.hash(mapping.internal), id);
        self.by_external.insert(self.hash(mapping.external), id);
        Some(())
    }

    fn find(&self, internal: Socket, external: Socket) -> Option<u32> {
        self.by_internal.find(self.hash(internal), |id| {
            let mapping = &self.mappings[id as usize];
            mapping.internal == internal && mapping.external == external
        })
    }

    fn find_internal(&self, socket: Socket, address: Ipv4Addr) -> Option<u32> {
        self.by_internal.find(self.hash(socket), |id| {
            let mapping = &self.mappings[id as usize];
            mapping.internal == socket && mapping.external.address == address
        })
    }

    fn find_external(&self, socket: Socket) -> Option<u32> {
        self.by_external.find(self.hash(socket), |id| self.mappings[id as usize].external == socket)
    }

    fn hash(&self, socket: Socket) -> u64 {
        let mut hasher = self.hasher;
        let ports = u64::from(socket.port) << 8 | u64::from(socket.protocol);
        hasher.write_u64(u64::from(socket.address.to_bits()) << 24 | ports);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn internal(host: u8, port: u16) -> Socket {
        Socket { protocol: 17, address: Ipv4Addr::new(10, 0, 0, host), port }
    }

    const fn external(address: Ipv4Addr, port: u16) -> Socket {
        Socket { protocol: 17, address, port }
    }

    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

    #[test]
    fn one_internal_port_keeps_one_external_port() {
        let mut masquerade = Masquerade::new(16, &[7; 16]);
        let first = masquerade.map(internal(11, 5000), OUTSIDE, |_| false);
        assert_eq!(first, Some(5000), "the port itself while it is free");
        assert_eq!(masquerade.map(internal(11, 5000), OUTSIDE, |_| false), first);
        masquerade.unmap(internal(11, 5000), external(OUTSIDE, 5000));
        assert_ne!(masquerade.map(internal(12, 5000), OUTSIDE, |_| false), first, "still in use");
        masquerade.unmap(internal(11, 5000), external(OUTSIDE, 5000));
        assert_eq!(masquerade.map(internal(13, 5000), OUTSIDE, |_| false), first);
    }

    #[test]
    fn no_port_is_overloaded_and_kinds_are_kept() {
        let mut masquerade = Masquerade::new(256, &[7; 16]);
        let mut taken = BTreeSet::new();
        for host in 1..=100 {
            let port = masquerade.map(internal(host, 999), OUTSIDE, |p| p == 999).unwrap();
            assert!((512..1024).contains(&port) && port % 2 == 1, "{port}");
            assert!(taken.insert(port), "{port} twice");
        }
        let mut full = Masquerade::new(2, &[7; 16]);
        assert!(full.map(internal(1, 1), OUTSIDE, |_| false).is_some());
        assert!(full.map(internal(2, 2), OUTSIDE, |_| false).is_some());
        assert_eq!(full.map(internal(3, 3), OUTSIDE, |_| false), None);
    }

    #[test]
    fn mappings_are_apart_by_address_and_give_way_to_services() {
        let elsewhere = Ipv4Addr::new(203, 0, 113, 11);
        let mut masquerade = Masquerade::new(16, &[7; 16]);
        assert_eq!(masquerade.map(internal(11, 5000), OUTSIDE, |_| false), Some(5000));
        assert_eq!(masquerade.map(internal(11, 5000), elsewhere, |_| false), Some(5000));
        masquerade.unmap(internal(11, 5000), external(elsewhere, 5000));
        let service_now = |port| port == 5000;
        assert_eq!(masquerade.map(internal(11, 5000), OUTSIDE, service_now), None);
        masquerade.unmap(internal(11, 5000), external(OUTSIDE, 5000));
        assert_ne!(masquerade.map(internal(11, 5000), OUTSIDE, service_now), Some(5000));
    }
}
