//! Ids that survive reloads: kept for what is the same, handed out again only when their last flow
//! is gone.

use crate::addr::{ServerId, ServiceId};

/// Hands out service and server ids. Lives with the one writer of the table.
#[derive(Debug, Default)]
pub struct Ids {
    services: Pool,
    servers: Pool,
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

    /// The dataplane has seen the last of a removed service.
    pub fn free_service(&mut self, id: ServiceId) {
        self.services.free.push(id.0);
    }

    /// The dataplane has seen the last flow of a removed server.
    pub fn free_server(&mut self, id: ServerId) {
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
