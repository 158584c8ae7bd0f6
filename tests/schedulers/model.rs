//! What Linux 6.1 IPVS does, written down as plainly as it can be: lists that are walked, marks that
//! are set. Slow, and without a line in common with what it is compared with.

use std::net::{IpAddr, Ipv4Addr};

use siphasher::sip::SipHasher13;
use tapvs::addr::Proto;
use tapvs::config::{FlowLimits, Persistence, Scheduler, SchedulerFlags, Server};

/// A destination, as the kernel knows it.
#[derive(Clone, Debug)]
struct Dest {
    address: Ipv4Addr,
    port: u16,
    weight: i64,
    last_weight: i64,
    upper: u32,
    lower: u32,
    active: i64,
    inactive: i64,
    overload: bool,
    listed: bool,
}

/// A virtual service. `list` is in the order of its list; places in `dests` never change.
#[derive(Debug)]
pub(crate) struct Model {
    scheduler: Scheduler,
    flags: SchedulerFlags,
    persistence: Option<Persistence>,
    dests: Vec<Dest>,
    list: Vec<usize>,
    /// rr and wrr: the last one chosen; none at the head.
    last: Option<usize>,
    level: i64,
    /// lblc and lblcr: the servers of the one address that is called, newest first.
    set: Vec<usize>,
    templates: Vec<(Ipv4Addr, usize)>,
    flows: Vec<(usize, bool)>,
}

impl Model {
    pub(crate) fn new(
        scheduler: Scheduler,
        flags: SchedulerFlags,
        persistence: Option<Persistence>,
        servers: &[Server],
    ) -> Self {
        let mut model = Self {
            scheduler,
            flags,
            persistence,
            dests: Vec::new(),
            list: Vec::new(),
            last: None,
            level: 0,
            set: Vec::new(),
            templates: Vec::new(),
            flows: Vec::new(),
        };
        // One at a time, each before those that are there.
        for server in servers.iter().rev() {
            model.add(server);
        }
        model
    }

    pub(crate) fn add(&mut self, server: &Server) {
        let IpAddr::V4(address) = server.endpoint.address else { panic!("IPv6") };
        let (port, FlowLimits { max, min }) = (server.endpoint.port, server.limits);
        let put_aside = |dest: &Dest| !dest.listed && (dest.address, dest.port) == (address, port);
        let id = self.dests.iter().position(put_aside).unwrap_or_else(|| {
            self.dests.push(Dest {
                address,
                port,
                weight: 0,
                last_weight: 0,
                upper: 0,
                lower: 0,
                active: 0,
                inactive: 0,
                overload: false,
                listed: false,
            });
            self.dests.len() - 1
        });
        let dest = &mut self.dests[id];
        (dest.weight, dest.last_weight) = (server.weight.into(), server.weight.into());
        if max == 0 || max > dest.upper {
            dest.overload = false;
        }
        (dest.upper, dest.lower, dest.listed) = (max, min, true);
        self.list.insert(0, id);
        self.changed();
    }

    pub(crate) fn edit(&mut self, at: usize, weight: u16, limits: FlowLimits) {
        let id = self.list[at];
        let dest = &mut self.dests[id];
        // An edit that changes nothing is none here.
        let same = (dest.weight, dest.upper, dest.lower);
        if same == (weight.into(), limits.max, limits.min) {
            return;
        }
        dest.weight = weight.into();
        if weight != 0 {
            dest.last_weight = weight.into();
        }
        if limits.max == 0 || limits.max > dest.upper {
            dest.overload = false;
        }
        (dest.upper, dest.lower) = (limits.max, limits.min);
        self.changed();
    }

    pub(crate) fn delete(&mut self, at: usize) {
        let id = self.list.remove(at);
        self.dests[id].listed = false;
        if self.scheduler == Scheduler::RoundRobin && self.last == Some(id) {
            self.last = at.checked_sub(1).map(|before| self.list[before]);
        }
        self.changed();
    }

    /// wrr hears of every change.
    fn changed(&mut self) {
        if self.scheduler != Scheduler::WeightedRoundRobin {
            return;
        }
        let (step, top) = (self.step(), self.top());
        self.last = None;
        if self.level > top || self.level == 0 {
            self.level = top;
        } else if step > 1 {
            self.level = self.level / step * step + 1;
        }
    }

    /// Every flow ends.
    pub(crate) fn end(&mut self) {
        for (id, is_active) in std::mem::take(&mut self.flows) {
            let dest = &mut self.dests[id];
            if is_active {
                dest.active -= 1;
            } else {
                dest.inactive -= 1;
            }
            let total = dest.active + dest.inactive;
            let clears = if dest.lower != 0 {
                total < i64::from(dest.lower)
            } else if dest.upper != 0 {
                total * 4 < i64::from(dest.upper) * 3
            } else {
                true
            };
            if clears {
                dest.overload = false;
            }
        }
    }

    pub(crate) fn arrive(
        &mut self,
        client: Ipv4Addr,
        port: u16,
        vip: Ipv4Addr,
        protocol: Proto,
    ) -> Option<Ipv4Addr> {
        let id = match self.persistence {
            Some(Persistence { prefix, .. }) => {
                let bits = 32 - u32::from(prefix);
                let net = Ipv4Addr::from_bits(client.to_bits() >> bits << bits);
                let known = self.templates.iter().find(|(of, _)| *of == net).map(|(_, id)| *id);
                match known.filter(|id| self.dests[*id].listed) {
                    Some(id) => id,
                    None => {
                        // One whose server is not there any more is of no use, even if it comes back.
                        self.templates.retain(|(of, _)| *of != net);
                        let id = self.schedule(client, port, vip)?;
                        self.templates.push((net, id));
                        self.bound(id);
                        id
                    }
                }
            }
            None => self.schedule(client, port, vip)?,
        };
        let is_active = protocol == Proto::Tcp;
        self.dests[id].inactive += 1;
        self.bound(id);
        if is_active {
            self.dests[id].inactive -= 1;
            self.dests[id].active += 1;
        }
        self.flows.push((id, is_active));
        Some(self.dests[id].address)
    }

    fn bound(&mut self, id: usize) {
        let dest = &mut self.dests[id];
        if dest.upper != 0 && dest.active + dest.inactive >= i64::from(dest.upper) {
            dest.overload = true;
        }
    }

    fn weights(&self) -> impl Iterator<Item = i64> {
        self.list.iter().map(|id| self.dests[*id].weight)
    }

    fn step(&self) -> i64 {
        match self.weights().filter(|weight| *weight > 0).fold(0, gcd) {
            0 => 1,
            step => step,
        }
    }

    fn top(&self) -> i64 {
        self.weights().max().unwrap_or(0) - (self.step() - 1)
    }

    fn able(&self, id: usize) -> bool {
        self.dests[id].weight > 0 && !self.dests[id].overload
    }

    fn schedule(&mut self, client: Ipv4Addr, port: u16, vip: Ipv4Addr) -> Option<usize> {
        let port = if self.flags.port { port } else { 0 };
        match self.scheduler {
            Scheduler::RoundRobin => self.round_robin(),
            Scheduler::WeightedRoundRobin => self.weighted_round_robin(),
            Scheduler::LeastConnection => self.least(&self.list, |dest| (dest.overhead(), 1)),
            Scheduler::WeightedLeastConnection => self.weighted_least(&self.list),
            Scheduler::ShortestExpectedDelay => {
                self.least(&self.list, |dest| (dest.active + 1, dest.weight))
            }
            Scheduler::NeverQueue => {
                let idle = |id: &&usize| self.able(**id) && self.dests[**id].active == 0;
                let idle = self.list.iter().find(idle).copied();
                idle.or_else(|| self.least(&self.list, |dest| (dest.active + 1, dest.weight)))
            }
            Scheduler::SourceHash => self.by_few(client, port, |dest| dest.weight),
            Scheduler::DestinationHash => self.by_few(vip, 0, |_| 1),
            Scheduler::Maglev => self.by_many(client, port),
            Scheduler::Failover => self.heaviest(|_| true),
            Scheduler::Overflow => self.heaviest(|dest| dest.active <= dest.weight),
            Scheduler::Locality => self.locality(),
            Scheduler::LocalityReplicated => self.locality_set(),
            Scheduler::PowerOfTwo => panic!("drawn"),
        }
    }

    fn round_robin(&mut self) -> Option<usize> {
        let from = self.last.map_or(0, |last| self.place(last) + 1);
        let order = (from..self.list.len()).chain(0..from);
        let found = order.map(|at| self.list[at]).find(|id| self.able(*id))?;
        self.last = Some(found);
        Some(found)
    }

    fn place(&self, id: usize) -> usize {
        self.list.iter().position(|listed| *listed == id).unwrap()
    }

    /// Round after round, each from the head, at ever lower levels.
    fn weighted_round_robin(&mut self) -> Option<usize> {
        let (step, top) = (self.step(), self.top());
        if top == 0 {
            return None;
        }
        let (mut last_pass, mut restarted, mut stop) = (false, false, None);
        let last = self.last;
        let mut from = last.map_or(0, |last| self.place(last) + 1);
        loop {
            for at in from..self.list.len() {
                let id = self.list[at];
                if !self.dests[id].overload && self.dests[id].weight >= self.level {
                    self.last = Some(id);
                    return Some(id);
                }
                if stop == Some(id) {
                    self.last = Some(id);
                    return None;
                }
            }
            from = 0;
            self.level -= step;
            if self.level <= 0 {
                self.level = top;
                if last_pass || last.is_none() {
                    self.last = None;
                    return None;
                }
                restarted = true;
            }
            last_pass = self.level <= step;
            if last_pass && restarted {
                stop = last;
            }
        }
    }

    /// The first of those with the lowest quotient.
    fn least(&self, among: &[usize], quotient: impl Fn(&Dest) -> (i64, i64)) -> Option<usize> {
        let mut best: Option<usize> = None;
        for id in among.iter().copied().filter(|id| self.able(*id)) {
            let is_better = best.is_none_or(|best| {
                let (a, b) = (quotient(&self.dests[best]), quotient(&self.dests[id]));
                i128::from(a.0) * i128::from(b.1) > i128::from(b.0) * i128::from(a.1)
            });
            if is_better {
                best = Some(id);
            }
        }
        best
    }

    fn weighted_least(&self, among: &[usize]) -> Option<usize> {
        self.least(among, |dest| (dest.overhead(), dest.weight))
    }

    fn heaviest(&self, room: impl Fn(&Dest) -> bool) -> Option<usize> {
        let able = self.list.iter().copied().filter(|id| self.able(*id) && room(&self.dests[*id]));
        able.rev().max_by_key(|id| self.dests[*id].weight)
    }

    fn by_few(&self, address: Ipv4Addr, port: u16, share: fn(&Dest) -> i64) -> Option<usize> {
        let mut table = Vec::new();
        while table.len() < 256 && !self.list.is_empty() {
            for id in &self.list {
                let times = share(&self.dests[*id]).max(1);
                table.extend(std::iter::repeat_n(*id, usize::try_from(times).unwrap()));
            }
        }
        if table.is_empty() {
            return None;
        }
        let key = address.to_bits() + u32::from(port);
        let hash = (key.wrapping_mul(0x61c8_8647) >> 24) as usize;
        let first = table[hash];
        if self.able(first) || !self.flags.fallback {
            return Some(first).filter(|id| self.able(*id));
        }
        let tries = (0..256).map(|step| table[(step + hash + hash) % 256]);
        tries.into_iter().find(|id| self.able(*id))
    }

    fn by_many(&self, address: Ipv4Addr, port: u16) -> Option<usize> {
        let table = self.maglev()?;
        let key = address.to_bits().wrapping_add(u32::from(port));
        let slot = |offset: usize| {
            let key = key.wrapping_add(u32::try_from(offset).unwrap());
            hash(2_654_435_761, key) % 4_093
        };
        let first = slot(0);
        if self.able(table[first]) || !self.flags.fallback {
            return Some(table[first]).filter(|id| self.able(*id));
        }
        (0..4_093).map(|step| table[slot((step + first) % 4_093)]).find(|id| self.able(*id))
    }

    fn maglev(&self) -> Option<Vec<usize>> {
        let weights = || self.list.iter().map(|id| self.dests[*id].last_weight);
        let common = weights().filter(|weight| *weight > 0).fold(0, gcd);
        if common == 0 {
            return None;
        }
        let bits = i64::BITS - (weights().max()? / common).leading_zeros();
        let shift = bits.saturating_sub(6);
        let (mut table, mut left) = (vec![None; 4_093], 4_093);
        let start = |id: &usize| hash(2_654_435_761, self.key(*id)) % 4_093;
        let mut at: Vec<usize> = self.list.iter().map(start).collect();
        loop {
            for (place, id) in self.list.iter().enumerate() {
                let weight = self.dests[*id].last_weight;
                let turns = match (weight / common) >> shift {
                    0 => i64::from(weight != 0),
                    turns => turns,
                };
                let skip = hash(2_654_446_892, self.key(*id)) % 4_092 + 1;
                for _ in 0..turns {
                    while table[at[place]].is_some() {
                        at[place] = (at[place] + skip) % 4_093;
                    }
                    table[at[place]] = Some(*id);
                    left -= 1;
                    if left == 0 {
                        return table.into_iter().collect();
                    }
                }
            }
        }
    }

    fn key(&self, id: usize) -> u32 {
        let Dest { address, port, .. } = self.dests[id];
        address.to_bits().wrapping_add(u32::from(port))
    }

    fn is_overloaded(&self, id: usize) -> bool {
        let has_room = |id: &usize| self.dests[*id].active * 2 < self.dests[*id].weight;
        self.dests[id].active > self.dests[id].weight && self.list.iter().any(has_room)
    }

    fn locality(&mut self) -> Option<usize> {
        if let Some(id) = self.set.first().copied()
            && self.dests[id].listed
            && self.dests[id].weight > 0
            && !self.is_overloaded(id)
        {
            return Some(id);
        }
        let id = self.weighted_least(&self.list)?;
        self.set = vec![id];
        Some(id)
    }

    fn locality_set(&mut self) -> Option<usize> {
        let listed: Vec<_> = self.set.iter().copied().filter(|id| self.dests[*id].listed).collect();
        let least = self.weighted_least(&listed);
        if let Some(id) = least.filter(|id| !self.is_overloaded(*id)) {
            return Some(id);
        }
        let id = self.weighted_least(&self.list)?;
        if !self.set.contains(&id) {
            self.set.insert(0, id);
        }
        Some(id)
    }
}

impl Dest {
    const fn overhead(&self) -> i64 {
        self.active * 256 + self.inactive
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn hash(key: u64, value: u32) -> usize {
    let hash = SipHasher13::new_with_keys(key, key).hash(&value.to_le_bytes());
    (hash & 0xffff_ffff) as usize
}
