//! Which link a station is behind, learned from the frames that it sends (IEEE 802.1D section 7.8).
//!
//! Of fixed size. Nothing ages by a timer: whoever asks says how old is too old.

use super::flow::Index;
use super::hash::KeyedHash;
use super::limit::TokenBucket;
use crate::addr::{LinkId, MacAddr, NetworkId};
use crate::time::{Duration, Instant};

/// Stations over all bridged networks.
const CAPACITY: usize = 16_384;
/// How many places a newcomer to a full table looks at; it takes that of the one silent longest. Who
/// sends often survives a flood of made-up stations that send once.
const SWEEP: usize = 8;
/// Places that are remembered by the ends of MACs.
const NEAR: usize = 64;
/// While another router bridges, a station is heard where it is and a moment later on the other side:
/// after so long it has moved.
const ECHO: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Station {
    network: NetworkId,
    mac: MacAddr,
    link: LinkId,
    /// What it is filed under: a flood of strangers has no time to work that out twice.
    hash: u32,
    seen: Instant,
    /// When it was found behind this link.
    found: Instant,
    /// It may be behind another link.
    in_doubt: bool,
}

/// How certain it has to be where a station is: found there after `since`, heard of within `ageing`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) since: Option<Instant>,
    pub(super) ageing: Duration,
    pub(super) now: Instant,
}

/// The stations of all bridged networks.
#[derive(Debug)]
pub(super) struct Stations {
    stations: Vec<Station>,
    index: Index,
    /// Where those are who spoke lately, more than once: most frames are theirs, and need no hash.
    near: [u32; NEAR],
    hash: KeyedHash,
    sweep: usize,
    capacity: usize,
}

impl Stations {
    /// `is_needed`: whether any network is bridged; otherwise there is room for none.
    pub(super) fn new(seed: &[u8; 16], is_needed: bool) -> Self {
        Self::sized(seed, if is_needed { CAPACITY } else { 0 })
    }

    fn sized(seed: &[u8; 16], capacity: usize) -> Self {
        Self {
            stations: Vec::with_capacity(capacity),
            index: Index::new(capacity),
            near: [u32::MAX; NEAR],
            hash: KeyedHash::new(seed),
            sweep: 0,
            capacity,
        }
    }

    /// A frame from `mac` came in by `link`. `newcomers`: how many whom that link brings may still
    /// take others' places.
    pub(super) fn learn(
        &mut self,
        network: NetworkId,
        mac: MacAddr,
        link: LinkId,
        newcomers: &mut TokenBucket,
        now: Instant,
    ) {
        let id = match self.seek(network, mac) {
            Ok(id) => id,
            Err(hash) => return self.add((network, mac, hash), link, newcomers, now),
        };
        self.near[end(mac)] = id;
        let station = &mut self.stations[id as usize];
        if station.link != link || station.in_doubt {
            station.found = now;
        }
        (station.link, station.seen, station.in_doubt) = (link, now, false);
    }

    /// As [`Stations::learn`], while another router passes frames from one link to the others: where
    /// a frame is heard first counts. Who moves is in doubt until heard of there a second time: its
    /// first frame may have been lost on the nearer side.
    pub(super) fn overhear(
        &mut self,
        network: NetworkId,
        mac: MacAddr,
        link: LinkId,
        newcomers: &mut TokenBucket,
        now: Instant,
    ) {
        let id = match self.seek(network, mac) {
            Ok(id) => id,
            Err(hash) => return self.add((network, mac, hash), link, newcomers, now),
        };
        self.near[end(mac)] = id;
        let station = &mut self.stations[id as usize];
        let silent = now >= station.seen + ECHO;
        if station.link == link {
            if station.in_doubt && silent {
                (station.in_doubt, station.found) = (false, now);
            }
            station.seen = now;
        } else if silent {
            (station.link, station.seen, station.in_doubt) = (link, now, true);
            station.found = now;
        }
    }

    fn add(
        &mut self,
        (network, mac, hash): (NetworkId, MacAddr, u32),
        link: LinkId,
        newcomers: &mut TokenBucket,
        now: Instant,
    ) {
        if self.capacity == 0 {
            return;
        }
        let station = Station { network, mac, link, hash, seen: now, found: now, in_doubt: false };
        let id = if self.stations.len() < self.capacity {
            self.stations.push(station);
            self.stations.len() - 1
        } else if !newcomers.take(now) {
            return;
        } else {
            let id = self.longest_silent();
            let old = std::mem::replace(&mut self.stations[id], station);
            self.index.remove(u64::from(old.hash), entry(id));
            id
        };
        self.index.insert(u64::from(hash), entry(id));
    }

    /// The link that `mac` is behind, if it was heard of within `ageing` and there is no doubt.
    pub(super) fn find(
        &self,
        network: NetworkId,
        mac: MacAddr,
        ageing: Duration,
        now: Instant,
    ) -> Option<LinkId> {
        let station = self.get(network, mac)?;
        (now < station.seen + ageing && !station.in_doubt).then_some(station.link)
    }

    /// The link that `mac` was last heard of on, however long ago.
    pub(super) fn last_known(&self, network: NetworkId, mac: MacAddr) -> Option<LinkId> {
        Some(self.get(network, mac)?.link)
    }

    /// The station at the first place from `place` on that is in `network` and behind none of
    /// `links`, and the place after it. Looks at no more than `most` places.
    pub(super) fn next_elsewhere(
        &self,
        place: usize,
        most: usize,
        network: NetworkId,
        links: [LinkId; 2],
    ) -> (Option<MacAddr>, usize) {
        let end = self.stations.len().min(place + most);
        let elsewhere = |at: &usize| {
            let station = &self.stations[*at];
            station.network == network && !links.contains(&station.link)
        };
        let found = (place..end).find(elsewhere);
        (found.map(|at| self.stations[at].mac), found.map_or(end, |at| at + 1))
    }

    /// The station at the first of `most` places from `place` on that is in `network`, and not behind
    /// `link` but certainly, as `known` has it, behind another; and the place after it.
    pub(super) fn next_beyond(
        &self,
        (place, most): (usize, usize),
        network: NetworkId,
        link: LinkId,
        known: Known,
    ) -> (Option<MacAddr>, usize) {
        let end = self.stations.len().min(place + most);
        let beyond = |at: &usize| {
            let station = &self.stations[*at];
            let is_young = known.now < station.seen + known.ageing;
            let is_new = known.since.is_none_or(|since| station.found > since);
            let is_known = is_young && is_new && !station.in_doubt;
            station.network == network && station.link != link && is_known
        };
        let found = (place..end).find(beyond);
        (found.map(|at| self.stations[at].mac), found.map_or(end, |at| at + 1))
    }

    /// How many places are taken.
    pub(super) const fn len(&self) -> usize {
        self.stations.len()
    }

    fn longest_silent(&mut self) -> usize {
        let start = self.sweep;
        self.sweep = (self.sweep + SWEEP) % self.capacity;
        let places = (start..start + SWEEP).map(|at| at % self.capacity);
        places.min_by_key(|id| self.stations[*id].seen).unwrap_or(start)
    }

    fn get(&self, network: NetworkId, mac: MacAddr) -> Option<&Station> {
        self.seek(network, mac).ok().and_then(|id| self.stations.get(id as usize))
    }

    /// Its place, or what it would be filed under.
    fn seek(&self, network: NetworkId, mac: MacAddr) -> Result<u32, u32> {
        let is_it = |station: &Station| station.mac == mac && station.network == network;
        let near = self.near[end(mac)];
        // Somebody else may have its place by now.
        if self.stations.get(near as usize).is_some_and(is_it) {
            return Ok(near);
        }
        let hash = self.hash(network, mac);
        let found = self.index.find(u64::from(hash), |id| is_it(&self.stations[id as usize]));
        found.ok_or(hash)
    }

    /// As much of the hash as the index uses.
    fn hash(&self, network: NetworkId, mac: MacAddr) -> u32 {
        let [a, b, c, d, e, f] = mac.0;
        let [high, low] = network.0.to_be_bytes();
        let hash = self.hash.of_one(u64::from_be_bytes([high, low, a, b, c, d, e, f]));
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the index's tag")]
        let hash = hash as u32;
        hash
    }
}

/// Its place among [`NEAR`].
const fn end(mac: MacAddr) -> usize {
    mac.0[5] as usize % NEAR
}

fn entry(id: usize) -> u32 {
    u32::try_from(id).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const ON: NetworkId = NetworkId(0);
    const AGEING: Duration = Duration::from_secs(300);

    fn mac(n: u32) -> MacAddr {
        let [a, b, c, d] = n.to_be_bytes();
        MacAddr([2, 0, a, b, c, d])
    }

    fn at(seconds: i64) -> Instant {
        Instant::from_secs(seconds)
    }

    /// Lets everybody in.
    fn any() -> TokenBucket {
        TokenBucket::new(1_000_000, 1_000_000, Instant::ZERO)
    }

    /// Lets nobody take another's place.
    fn none() -> TokenBucket {
        TokenBucket::new(0, 0, Instant::ZERO)
    }

    #[test]
    fn stations_move_age_and_belong_to_one_network() {
        let mut stations = Stations::new(&[7; 16], true);
        stations.learn(ON, mac(1), LinkId(0), &mut any(), at(0));
        assert_eq!(stations.find(ON, mac(1), AGEING, at(299)), Some(LinkId(0)));
        assert_eq!(stations.find(ON, mac(1), AGEING, at(300)), None);
        assert_eq!(stations.last_known(ON, mac(1)), Some(LinkId(0)));
        assert_eq!(stations.find(NetworkId(1), mac(1), AGEING, at(1)), None);
        stations.learn(ON, mac(1), LinkId(2), &mut none(), at(301));
        assert_eq!(stations.find(ON, mac(1), AGEING, at(302)), Some(LinkId(2)));
    }

    #[test]
    fn a_flood_of_strangers_evicts_strangers() {
        let mut stations = Stations::new(&[7; 16], true);
        let known = 100;
        let flood = u32::try_from(CAPACITY).unwrap() * 4;
        let mut newcomers = any();
        for n in 0..flood {
            let now = Instant::from_millis(i64::from(n));
            // Those who talk all the time are heard between the strangers.
            if n % 64 == 0 {
                (0..known).for_each(|k| stations.learn(ON, mac(k), LinkId(1), &mut newcomers, now));
            }
            stations.learn(ON, mac(1_000_000 + n), LinkId(0), &mut newcomers, now);
            assert!(stations.stations.len() <= CAPACITY);
        }
        let end = Instant::from_millis(i64::from(flood));
        let left = (0..known).filter(|k| stations.find(ON, mac(*k), AGEING, end).is_some()).count();
        assert_eq!(left, known as usize);
    }

    #[test]
    fn the_silent_keep_their_places_but_for_a_few_newcomers() {
        let mut stations = Stations::sized(&[7; 16], 64);
        (0..64).for_each(|n| stations.learn(ON, mac(n), LinkId(0), &mut none(), at(0)));
        let mut newcomers = TokenBucket::new(1, 2, at(1));
        for n in 0..100_000 {
            stations.learn(ON, mac(1_000 + n), LinkId(1), &mut newcomers, at(1));
        }
        let left = (0..64).filter(|n| stations.last_known(ON, mac(*n)).is_some()).count();
        assert_eq!(left, 62, "two were let in");
        // Who is known is followed all the same.
        let stays = (0..64).find(|n| stations.last_known(ON, mac(*n)).is_some()).unwrap();
        stations.learn(ON, mac(stays), LinkId(1), &mut newcomers, at(1));
        assert_eq!(stations.last_known(ON, mac(stays)), Some(LinkId(1)));
        // A second later the next one is.
        stations.learn(ON, mac(200_000), LinkId(1), &mut newcomers, at(2));
        assert_eq!(stations.last_known(ON, mac(200_000)), Some(LinkId(1)));
    }

    proptest! {
        /// A map that forgets somebody when it is full: whom, the table says, but it must be one who
        /// has been silent for longer than most.
        #[test]
        fn agrees_with_a_map(
            capacity in prop_oneof![1_usize..=SWEEP, SWEEP..40],
            steps in prop::collection::vec((0_u16..2, 0_u32..48, 0_u16..4, 1_i64..2_000), 1..300),
        ) {
            // Most MACs end alike.
            let mac = |n| mac(16 * n);
            let mut stations = Stations::sized(&[7; 16], capacity);
            let mut model: BTreeMap<(NetworkId, MacAddr), (LinkId, Instant)> = BTreeMap::new();
            let ageing = Duration::from_secs(20);
            let mut now = at(0);
            for (network, n, link, millis) in steps {
                now += Duration::from_millis(millis.unsigned_abs());
                let (network, link) = (NetworkId(network), LinkId(link));
                stations.learn(network, mac(n), link, &mut any(), now);
                let known = model.insert((network, mac(n)), (link, now)).is_some();
                if !known && model.len() > capacity {
                    let is_gone = |(network, mac): (NetworkId, MacAddr)| {
                        stations.last_known(network, mac).is_none()
                    };
                    let gone: Vec<_> = model.keys().copied().filter(|key| is_gone(*key)).collect();
                    prop_assert_eq!(gone.len(), 1, "one makes room");
                    let (_, silent_since) = model.remove(&gone[0]).unwrap();
                    let later = model.values().filter(|(_, seen)| *seen > silent_since).count();
                    prop_assert!(later >= capacity.min(SWEEP), "{} heard of later", later);
                }
                prop_assert_eq!(stations.len(), model.len());
                for (network, n) in (0..2).flat_map(|network| (0..48).map(move |n| (network, n))) {
                    let (network, mac) = (NetworkId(network), mac(n));
                    let expected = model.get(&(network, mac));
                    let young = expected.filter(|(_, seen)| now < *seen + ageing);
                    let link = |known: &(LinkId, Instant)| known.0;
                    prop_assert_eq!(stations.last_known(network, mac), expected.map(link));
                    prop_assert_eq!(stations.find(network, mac, ageing, now), young.map(link));
                }
            }
            // Those elsewhere, found in small strides.
            let links = [LinkId(0), LinkId(3)];
            let (mut place, mut found) = (0, Vec::new());
            while place < stations.len() {
                let (station, next) = stations.next_elsewhere(place, 3, ON, links);
                prop_assert!(next > place && next <= place + 3);
                found.extend(station);
                place = next;
            }
            found.sort();
            let elsewhere = model.iter().filter(|((on, _), (link, _))| *on == ON && !links.contains(link));
            prop_assert_eq!(found, elsewhere.map(|((_, mac), _)| *mac).collect::<Vec<_>>());
        }
    }
}
