//! Ids that survive reloads: kept for what is the same, handed out again only when their last flow
//! is gone.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::addr::{Ports, Proto, ServerId, ServiceId};

/// What makes a server the same: its service, and where it listens.
pub(super) type ServerKey = ((Proto, Ipv4Addr, Ports), Ipv4Addr, u16);

/// Hands out service and server ids. Lives with the one writer of the table.
#[derive(Debug, Default)]
pub struct Ids {
    services: Pool,
    servers: Pool,
    /// Servers that are not configured any more and may have flows: who adds one again gets its id, and
    /// so its flows and its counters.
    removed: HashMap<ServerKey, ServerId>,
    keys: HashMap<ServerId, ServerKey>,
    /// Those that are back, by the first generation that has them. Until the dataplane works with it,
    /// what it says of their end is about the time before.
    back: Vec<(ServerId, u32)>,
}

impl Ids {
    /// An id that no service and no flow uses.
    pub fn service(&mut self) -> ServiceId {
        ServiceId(self.services.take())
    }

    /// An id that no server and no flow uses.
    pub fn server(&mut self) -> ServerId {
        ServerId(self.servers.take())
    }

    /// The server is not configured any more, by a table that its service is still in.
    pub(super) fn remove_server(&mut self, key: ServerKey, id: ServerId) {
        self.removed.insert(key, id);
        self.keys.insert(id, key);
    }

    /// The id of a server that `generation` adds: its old one, if something of it is left.
    pub(super) fn add_server(&mut self, key: ServerKey, generation: u32) -> ServerId {
        let Some(id) = self.removed.remove(&key) else { return self.server() };
        self.keys.remove(&id);
        self.back.push((id, generation));
        id
    }

    /// The dataplane works with `generation`.
    pub fn acknowledge(&mut self, generation: u32) {
        // Generations wrap.
        self.back.retain(|(_, since)| generation.wrapping_sub(*since) >= 1 << 31);
    }

    /// The dataplane has seen the last of a removed service.
    pub fn free_service(&mut self, id: ServiceId) {
        self.services.free.push(id.0);
    }

    /// The dataplane has seen the last flow of a removed server.
    pub fn free_server(&mut self, id: ServerId) {
        if self.back.iter().any(|(back, _)| *back == id) {
            return;
        }
        if let Some(key) = self.keys.remove(&id) {
            self.removed.remove(&key);
        }
        self.servers.free.push(id.0);
    }

    /// One above the highest service id and server id handed out.
    pub fn limits(&self) -> (usize, usize) {
        (ServiceId(self.services.next).index(), ServerId(self.servers.next).index())
    }
}

#[derive(Debug, Default)]
struct Pool {
    next: u32,
    free: Vec<u32>,
}

impl Pool {
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_added_again_gets_its_id_while_something_of_it_is_left() {
        let service = (Proto::Tcp, Ipv4Addr::LOCALHOST, Ports::of(80));
        let key = (service, Ipv4Addr::new(10, 0, 0, 1), 80);
        let mut ids = Ids::default();
        let first = ids.add_server(key, 1);
        ids.remove_server(key, first);
        assert_eq!(ids.add_server(key, 3), first);
        // What the dataplane said before it heard of that.
        ids.free_server(first);
        assert_ne!(ids.server(), first);
        ids.acknowledge(3);
        ids.remove_server(key, first);
        ids.free_server(first);
        assert_eq!(ids.server(), first, "nothing was left");
        assert_ne!(ids.add_server(key, 5), first, "it is somebody else's");
    }
}
