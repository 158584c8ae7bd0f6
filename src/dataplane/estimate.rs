//! What services and servers carry per second, as Linux IPVS estimates it (`ip_vs_est.c`): every two
//! seconds the estimate goes a quarter of the way to what these two seconds were.

use super::Traffic;
use crate::addr::{ServerId, ServiceId};
use crate::time::{Duration, Instant};

/// How often.
const INTERVAL: Duration = Duration::from_secs(2);
/// How many are estimated per turn.
const PART: usize = 1_024;
/// Connections and packets are kept as multiples of 2^-10, bytes of 2^-5.
const BITS: [u32; 5] = [10, 10, 10, 5, 5];

/// One service's or server's.
#[derive(Clone, Copy, Debug, Default)]
struct Estimate {
    last: [u64; 5],
    scaled: [u64; 5],
}

impl Estimate {
    /// It has carried so much by now.
    fn adjust(&mut self, traffic: Traffic) {
        let now = counts(traffic);
        for (at, bits) in BITS.into_iter().enumerate() {
            let (last, scaled) = (&mut self.last[at], &mut self.scaled[at]);
            let passed = now[at].saturating_sub(std::mem::replace(last, now[at]));
            let rate = passed.checked_shl(bits - 1).unwrap_or(u64::MAX);
            *scaled = scaled.wrapping_add_signed((rate.wrapping_sub(*scaled)).cast_signed() >> 2);
        }
    }

    fn per_second(&self) -> Traffic {
        let [flows, packets_in, packets_out, bytes_in, bytes_out] =
            std::array::from_fn(|at| (self.scaled[at] + (1 << (BITS[at] - 1)) - 1) >> BITS[at]);
        Traffic { flows, packets_in, bytes_in, packets_out, bytes_out }
    }
}

const fn counts(traffic: Traffic) -> [u64; 5] {
    let Traffic { flows, packets_in, bytes_in, packets_out, bytes_out } = traffic;
    [flows, packets_in, packets_out, bytes_in, bytes_out]
}

/// All of them, by id.
#[derive(Debug, Default)]
pub(super) struct Estimates {
    services: Vec<Estimate>,
    servers: Vec<Estimate>,
    due: Option<Instant>,
    /// How many of this round are done, services first; 0 between rounds.
    done: usize,
}

impl Estimates {
    /// Makes room for service and server ids below the limits. A set-up step: it may allocate.
    pub(super) fn reserve(&mut self, (services, servers): (usize, usize), now: Instant) {
        self.services.resize(services.max(self.services.len()), Estimate::default());
        self.servers.resize(servers.max(self.servers.len()), Estimate::default());
        if self.due.is_none() && !self.services.is_empty() {
            self.due = Some(now + INTERVAL);
        }
    }

    /// The id starts over with another service.
    pub(super) fn reset_service(&mut self, id: ServiceId) {
        self.services[id.index()] = Estimate::default();
    }

    /// The id starts over with another server.
    pub(super) fn reset_server(&mut self, id: ServerId) {
        self.servers[id.index()] = Estimate::default();
    }

    /// When [`Estimates::adjust`] has something to do.
    pub(super) const fn next_deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Goes on with a round that is due; a bounded amount of work.
    pub(super) fn adjust(
        &mut self,
        now: Instant,
        service: impl Fn(ServiceId) -> Traffic,
        server: impl Fn(ServerId) -> Traffic,
    ) {
        let Some(due) = self.due.filter(|due| *due <= now) else { return };
        let ids = (0..).map(ServiceId).zip(&mut self.services);
        let services = ids.map(|(id, estimate)| (estimate, Ok(id)));
        let ids = (0..).map(ServerId).zip(&mut self.servers);
        let servers = ids.map(|(id, estimate)| (estimate, Err(id)));
        let mut all = services.chain(servers).skip(self.done);
        for (estimate, of) in all.by_ref().take(PART) {
            estimate.adjust(of.map_or_else(&server, &service));
            self.done += 1;
        }
        if self.done == self.services.len() + self.servers.len() {
            self.done = 0;
            // Rounds that were missed are not made up for.
            let next = due + INTERVAL;
            self.due = Some(if next > now { next } else { now + INTERVAL });
        }
    }

    pub(super) fn service(&self, id: ServiceId) -> Traffic {
        self.services.get(id.index()).map(Estimate::per_second).unwrap_or_default()
    }

    pub(super) fn server(&self, id: ServerId) -> Traffic {
        self.servers.get(id.index()).map(Estimate::per_second).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(flows: u64, bytes_in: u64) -> Traffic {
        Traffic { flows, bytes_in, ..Traffic::default() }
    }

    fn at(seconds: i64) -> Instant {
        Instant::from_secs(seconds)
    }

    /// What the kernel's arithmetic gives for 40 connections and 3,001 bytes in two seconds, then none.
    #[test]
    fn a_quarter_of_the_way_every_two_seconds() {
        let mut estimates = Estimates::default();
        estimates.reserve((1, 0), at(10));
        let total = carried(40, 3_001);
        let mut seen = Vec::new();
        for round in 1..=4 {
            assert_eq!(estimates.next_deadline(), Some(at(10 + 2 * round)));
            estimates.adjust(at(11 + 2 * round - 2), |_| carried(0, 0), |_| Traffic::default());
            estimates.adjust(at(10 + 2 * round), |_| total, |_| Traffic::default());
            let Traffic { flows, bytes_in, .. } = estimates.service(ServiceId(0));
            seen.push((flows, bytes_in));
        }
        // 20 and 1,500.5 per second: a quarter, then three quarters of that each time.
        assert_eq!(seen, [(5, 375), (4, 281), (3, 211), (2, 158)]);
    }

    #[test]
    fn it_comes_to_what_is_steadily_carried() {
        let mut estimates = Estimates::default();
        estimates.reserve((0, 3_000), at(0));
        assert_eq!(estimates.next_deadline(), None, "nothing to estimate");
        estimates.reserve((1, 3_000), at(0));
        for round in 1..40_u64 {
            let now = Instant::from_secs(2 * i64::try_from(round).unwrap());
            // In parts of a bounded size.
            for _ in 0..3 {
                assert!(estimates.next_deadline().is_some_and(|due| due <= now));
                let total = carried(round * 2_000, round * 3_000_000);
                estimates.adjust(now, |_| total, |_| total);
            }
            assert!(estimates.next_deadline().is_some_and(|due| due > now));
        }
        let Traffic { flows, bytes_in, .. } = estimates.server(ServerId(2_999));
        assert_eq!(flows, 1_000);
        assert!(bytes_in.abs_diff(1_500_000) < 100, "{bytes_in}");
    }
}
