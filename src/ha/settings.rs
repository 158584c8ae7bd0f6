//! What the configuration says about the pair, as the state machine needs it.

use std::net::Ipv4Addr;

use super::signature::Key;
use crate::addr::NetworkId;
use crate::config::{AdvertChecksum, Failover, VrrpVersion};
use crate::time::Duration;

/// What the configuration says about the pair.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which adverts are sent and believed.
    pub version: VrrpVersion,
    /// 1 to 255.
    pub priority: u8,
    /// From one advert to the next.
    pub advert_interval: Duration,
    /// Whether it takes over from an active router of lower priority.
    pub preempt: bool,
    /// How long it has to have been well before it does.
    pub preempt_delay: Duration,
    /// What the checksum of an advert by version 3 that is sent covers.
    pub checksum: AdvertChecksum,
    /// Where adverts run; those on the first one break ties.
    pub networks: Vec<Member>,
    /// Adverts are signed with it, and believed only then.
    pub key: Option<Key>,
    /// How long a takeover from a living router waits for its flows; `None`: it does not.
    pub waits_for_sync: Option<Duration>,
}

/// One network that adverts run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which one.
    pub network: NetworkId,
    /// The router's own address there.
    pub address: Ipv4Addr,
    /// 1 to 255.
    pub virtual_router_id: u8,
    /// What both routers share there.
    pub virtual_ips: Vec<Ipv4Addr>,
    /// Whose adverts are believed there; none: anybody's.
    pub peers: Vec<Ipv4Addr>,
}

impl Settings {
    /// What `failover` says. `networks` are its networks in the same order; `key` is that of
    /// `[failover.sync]`, and is needed with `authenticate_adverts`: the caller has it at hand then.
    pub fn new(failover: &Failover, networks: Vec<Member>, key: Option<Key>) -> Self {
        let signs = failover.sync.as_ref().is_some_and(|sync| sync.authenticate_adverts);
        Self {
            version: failover.version,
            priority: failover.priority,
            advert_interval: failover.advert_interval,
            preempt: failover.preempt,
            preempt_delay: failover.preempt_delay,
            checksum: failover.checksum,
            networks,
            key: key.filter(|_| signs),
            waits_for_sync: failover.sync.as_ref().map(|sync| sync.sync_timeout),
        }
    }
}
