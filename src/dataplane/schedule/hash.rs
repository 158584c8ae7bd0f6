//! By an address: `sh`, `dh` and `mh` (`ip_vs_sh.c`, `ip_vs_dh.c`, `ip_vs_mh.c`). The buckets are the
//! table's.

use std::net::Ipv4Addr;

use super::Candidate;
use crate::table::{Server, Service};

/// The server that `address` and `port` lead to; where the service has a fallback and that one does
/// not do, the next that does.
pub(super) fn choose(
    service: &Service,
    address: Ipv4Addr,
    port: u16,
    mut candidate: impl FnMut(&Server) -> Candidate,
) -> Option<&Server> {
    let buckets = service.buckets.as_ref()?;
    let first = service.servers.get(buckets.find(address, port)?)?;
    let mut may = |server: &Server| server.weight > 0 && candidate(server).may_take();
    if may(first) {
        return Some(first);
    }
    // Where none may, a walk over all the buckets finds none either.
    if !service.balance.flags.fallback || !service.servers.iter().any(&mut may) {
        return None;
    }
    let others = buckets.others(address, port).filter_map(|at| service.servers.get(at));
    others.into_iter().find(|server| may(server))
}
