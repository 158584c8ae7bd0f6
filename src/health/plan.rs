//! All checks of a table, and when each has its turn.
//!
//! A check's turns are at `phase`, `phase + interval`, ... since the start, whatever else is in the
//! plan: a reload moves none of them, and nothing is stored for it.

use std::hash::Hasher;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::addr::ServerId;
use crate::config::Health;
use crate::time::Duration;

/// How one server of one service is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Which server.
    pub server: ServerId,
    /// The table's generation since when it is asked: what is known of it is older only if it is
    /// about another server that had this id.
    pub since: u32,
    /// The router's own address towards it.
    pub source: Ipv4Addr,
    /// Whom and where to ask.
    pub target: SocketAddrV4,
    /// When, within the interval.
    pub phase: Duration,
    /// What, how often and how long.
    pub health: Arc<Health>,
}

impl Check {
    /// A phase that is the same at every start and spread evenly over all checks: `key` tells them
    /// apart, also from those of other routers.
    pub fn phase_of(key: &[&[u8]], interval: Duration) -> Duration {
        let mut hasher = SipHasher13::new();
        for part in key {
            hasher.write(part);
            hasher.write_u8(0xff);
        }
        // The upper 64 bits of the product: a fraction of the interval.
        let product = u128::from(hasher.finish()) * u128::from(interval.total_micros());
        Duration::from_micros(u64::try_from(product >> 64).unwrap_or(0))
    }
}

/// Every check of a table.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the table's order.
    checks: Vec<Arc<Check>>,
    groups: Vec<Group>,
    /// Positions in `checks` by server id.
    places: Vec<Option<u32>>,
}

/// The checks that share an interval.
#[derive(Debug)]
pub struct Group {
    /// What they share.
    pub interval: Duration,
    /// By phase.
    pub checks: Vec<Arc<Check>>,
}

impl Plan {
    /// A plan of these checks, one per server at the most.
    pub fn new(checks: Vec<Arc<Check>>) -> Self {
        let most = checks.iter().map(|check| check.server.index() + 1).max().unwrap_or(0);
        let mut places = vec![None; most];
        for (place, check) in (0..).zip(&checks) {
            places[check.server.index()] = Some(place);
        }
        let mut sorted = checks.clone();
        sorted.sort_by_key(|check| (check.health.interval, check.phase, check.server));
        let groups = sorted.chunk_by(|a, b| a.health.interval == b.health.interval);
        let group = |checks: &[Arc<Check>]| Group {
            interval: checks.first().map_or(Duration::ZERO, |check| check.health.interval),
            checks: checks.to_vec(),
        };
        Self { groups: groups.map(group).collect(), checks, places }
    }

    /// The check of a server.
    pub fn of(&self, server: ServerId) -> Option<&Arc<Check>> {
        let place = (*self.places.get(server.index())?)?;
        self.checks.get(place as usize)
    }

    /// All of them, in the table's order.
    pub fn checks(&self) -> &[Arc<Check>] {
        &self.checks
    }

    /// By interval.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// One above the highest server id in it.
    pub const fn id_limit(&self) -> usize {
        self.places.len()
    }

    /// The mean time from one check to the next; `None` without checks.
    pub fn pace(&self) -> Option<Duration> {
        // In checks per hour, which no interval exceeds.
        const HOUR: u64 = 3_600_000_000;
        let per_hour: u64 = self
            .groups
            .iter()
            .map(|group| group.checks.len() as u64 * (HOUR / group.interval.total_micros().max(1)))
            .sum();
        (per_hour > 0).then(|| Duration::from_micros((HOUR / per_hour).max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Inquiry;

    fn check(server: u32, interval: u64, phase: u64) -> Arc<Check> {
        let health = Health {
            inquiry: Inquiry::Tcp,
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(interval),
            fall: 3,
            rise: 2,
            initially_up: true,
            port: None,
        };
        Arc::new(Check {
            server: ServerId(server),
            since: 1,
            source: Ipv4Addr::new(10, 0, 0, 2),
            target: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 11), 80),
            phase: Duration::from_millis(phase),
            health: Arc::new(health),
        })
    }

    #[test]
    fn checks_are_found_by_server_and_sorted_by_phase() {
        let plan = Plan::new(vec![check(7, 2_000, 1_500), check(2, 500, 0), check(3, 2_000, 20)]);
        assert_eq!(plan.id_limit(), 8);
        assert_eq!(plan.of(ServerId(7)).unwrap().phase, Duration::from_millis(1_500));
        assert!(plan.of(ServerId(1)).is_none() && plan.of(ServerId(99)).is_none());
        let servers = |group: &Group| group.checks.iter().map(|c| c.server.0).collect::<Vec<_>>();
        let groups: Vec<_> =
            plan.groups().iter().map(|g| (g.interval.total_millis(), servers(g))).collect();
        assert_eq!(groups, [(500, vec![2]), (2_000, vec![3, 7])]);
        assert_eq!(
            plan.pace(),
            Some(Duration::from_micros(333_333)),
            "2 and twice a half a second"
        );
        assert_eq!(Plan::default().pace(), None);
    }

    #[test]
    fn phases_are_spread_and_stay() {
        let interval = Duration::from_secs(2);
        let phase = |n: u32| Check::phase_of(&[b"lvs1", &n.to_be_bytes()], interval);
        let mut tenths = [0; 20];
        for n in 0..10_000 {
            assert!(phase(n) < interval && phase(n) == phase(n));
            tenths[usize::try_from(phase(n).total_millis() / 100).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (400..600).contains(count)), "{tenths:?}");
        assert_ne!(phase(1), Check::phase_of(&[b"lvs2", &1_u32.to_be_bytes()], interval));
    }
}
