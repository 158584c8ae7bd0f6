//! Whose flows are being ended because their server was taken away, and how far the walk over the
//! flow table has come for each. What is done to a flow is [`super::reset`]'s business.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::ops::Range;

use crate::addr::ServerId;
use crate::time::{Duration, Instant};

/// Places of the flow table looked at in one turn.
const PLACES: usize = 512;
/// Deadlines that are kept in one turn.
pub(super) const DEADLINES: usize = 64;
/// When the flows of a server are gone over, since the first time. A client that has not answered by
/// the last one is forgotten.
const ROUNDS: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10)];
/// How long the walk rests when no more clients may be asked for now.
const REST: Duration = Duration::from_millis(1);
const NONE: u32 = u32::MAX;

/// Why a server's flows are ended; what takes it back is of the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It is down.
    Down,
    /// An operator's drain has lasted long enough.
    Drained,
    /// It is configured no more.
    Removed,
}

/// A server whose flows are to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doomed {
    pub(super) server: ServerId,
    pub(super) address: SocketAddrV4,
    pub(super) cause: Cause,
}

/// What is to be done about the flows of a server when the walk comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing, or not now.
    Spared,
    /// They are ended, and clients asked for their sequence numbers.
    Asking,
    /// Those that are left go.
    Last,
}

#[derive(Clone, Copy, Debug)]
struct Sentence {
    doomed: Doomed,
    since: Instant,
    round: usize,
    /// Where the walk was when this round began; none between two rounds.
    began: Option<Position>,
    /// Flows that were ended so far.
    ended: u32,
}

/// How far the walk is; goes on from the first place after the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Position {
    lap: u64,
    place: usize,
}

/// All of them. One walk serves all servers, each for one lap in each of its rounds.
#[derive(Debug, Default)]
pub(super) struct Endings {
    sentences: Vec<Sentence>,
    /// Places in `sentences` by server id.
    by_server: Vec<u32>,
    at: Position,
    /// When the walk goes on, or the next round begins.
    due: Option<Instant>,
    deadlines: BTreeMap<ServerId, (Instant, Doomed)>,
    by_deadline: BTreeSet<(Instant, ServerId)>,
}

impl Endings {
    /// Makes room for server ids below `servers` and for what the deadlines lead to. A set-up step:
    /// it may allocate.
    pub(super) fn reserve(&mut self, servers: usize) {
        self.by_server.resize(servers.max(self.by_server.len()), NONE);
        self.sentences.reserve(self.deadlines.len());
    }

    /// From now on the flows of a server are ended.
    pub(super) fn begin(&mut self, doomed: Doomed, now: Instant) {
        self.cancel(doomed.server);
        if self.is_doomed(doomed.server) {
            return;
        }
        if let Some(place) = self.by_server.get_mut(doomed.server.index()) {
            *place = u32::try_from(self.sentences.len()).unwrap_or(NONE);
            self.sentences.push(Sentence { doomed, since: now, round: 0, began: None, ended: 0 });
            self.due = Some(now);
        }
    }

    /// At `deadline`, or at an earlier one that it has already, the flows that a server has left are
    /// ended.
    pub(super) fn begin_at(&mut self, doomed: Doomed, deadline: Instant) {
        let before = self.deadlines.get(&doomed.server).map(|(at, _)| *at);
        let deadline = before.map_or(deadline, |before| before.min(deadline));
        self.cancel(doomed.server);
        self.deadlines.insert(doomed.server, (deadline, doomed));
        self.by_deadline.insert((deadline, doomed.server));
    }

    /// What was to happen to `server` for this `cause` does not: what is left of its flows goes on.
    pub(super) fn spare(&mut self, server: ServerId, cause: Cause) {
        if self.deadlines.get(&server).is_some_and(|(_, doomed)| doomed.cause == cause) {
            self.cancel(server);
        }
        if self.find(server).is_some_and(|sentence| sentence.doomed.cause == cause) {
            self.remove(server);
        }
    }

    /// The id is another server's from now on.
    pub(super) fn forget(&mut self, server: ServerId) {
        self.cancel(server);
        self.remove(server);
    }

    /// Whether there is anything to do at all.
    pub(super) const fn is_idle(&self) -> bool {
        self.sentences.is_empty()
    }

    /// Whether the flows of `server` are being ended.
    pub(super) fn is_doomed(&self, server: ServerId) -> bool {
        self.find(server).is_some()
    }

    /// What is to be done now about a flow of `server`.
    pub(super) fn stage(&self, server: ServerId) -> Stage {
        match self.find(server) {
            Some(Sentence { began: Some(_), round, .. }) if round + 1 == ROUNDS.len() => {
                Stage::Last
            }
            Some(Sentence { began: Some(_), .. }) => Stage::Asking,
            Some(Sentence { began: None, .. }) | None => Stage::Spared,
        }
    }

    /// One more flow of `server` was ended.
    pub(super) fn count(&mut self, server: ServerId) {
        let place = self.by_server.get(server.index()).copied().unwrap_or(NONE);
        if let Some(sentence) = self.sentences.get_mut(place as usize) {
            sentence.ended += 1;
        }
    }

    /// When there is something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadline = self.by_deadline.first().map(|(at, _)| *at);
        deadline.into_iter().chain(self.due).min()
    }

    /// The next server whose deadline has passed.
    pub(super) fn pass_deadline(&mut self, now: Instant) -> Option<Doomed> {
        let (_, server) = self.by_deadline.first().filter(|(at, _)| *at <= now).copied()?;
        self.by_deadline.pop_first();
        self.deadlines.remove(&server).map(|(_, doomed)| doomed)
    }

    /// The next places to look at of so many, if it is time to look at any.
    pub(super) fn step(&mut self, places: usize, now: Instant) -> Option<Range<usize>> {
        self.due.filter(|due| *due <= now)?;
        let at = self.at;
        for sentence in self.sentences.iter_mut().filter(|sentence| sentence.began.is_none()) {
            if sentence.since + ROUNDS[sentence.round] <= now {
                sentence.began = Some(at);
            }
        }
        let from = at.place.min(places);
        Some(from..from.saturating_add(PLACES).min(places))
    }

    /// The walk got as far as `place` of so many, and rests there.
    pub(super) fn pause(&mut self, place: usize, now: Instant) {
        self.at.place = place;
        self.due = Some(now + REST);
    }

    /// The walk got as far as `place` of so many. Rounds that are over are concluded: a server that
    /// has no flows `left`, or has had its last round, is handed to `done` with how many were ended.
    pub(super) fn advance(
        &mut self,
        place: usize,
        places: usize,
        now: Instant,
        left: impl Fn(ServerId) -> bool,
        mut done: impl FnMut(Doomed, u32),
    ) {
        self.at.place = place;
        if place >= places {
            self.at = Position { lap: self.at.lap + 1, place: 0 };
        }
        let mut next = 0;
        while let Some(sentence) = self.sentences.get_mut(next) {
            let lap = |began: Position| Position { lap: began.lap + 1, ..began };
            if sentence.began.is_some_and(|began| self.at >= lap(began)) {
                sentence.began = None;
                sentence.round += 1;
                let Sentence { doomed, round, ended, .. } = *sentence;
                if round == ROUNDS.len() || !left(doomed.server) {
                    done(doomed, ended);
                    self.remove(doomed.server);
                    continue;
                }
            }
            next += 1;
        }
        self.due = self.when_due(now);
    }

    fn when_due(&self, now: Instant) -> Option<Instant> {
        let due = |sentence: &Sentence| match sentence.began {
            Some(_) => now,
            None => sentence.since + ROUNDS[sentence.round],
        };
        self.sentences.iter().map(due).min()
    }

    fn find(&self, server: ServerId) -> Option<&Sentence> {
        let place = self.by_server.get(server.index()).copied().unwrap_or(NONE);
        self.sentences.get(place as usize)
    }

    fn remove(&mut self, server: ServerId) {
        let Some(place) = self.by_server.get_mut(server.index()) else { return };
        let place = std::mem::replace(place, NONE);
        if place == NONE {
            return;
        }
        self.sentences.swap_remove(place as usize);
        if let Some(moved) = self.sentences.get(place as usize) {
            self.by_server[moved.doomed.server.index()] = place;
        }
        if self.sentences.is_empty() {
            self.due = None;
        }
    }

    fn cancel(&mut self, server: ServerId) {
        if let Some((deadline, _)) = self.deadlines.remove(&server) {
            self.by_deadline.remove(&(deadline, server));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doomed(server: u32, cause: Cause) -> Doomed {
        let address = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 80);
        Doomed { server: ServerId(server), address, cause }
    }

    fn at(millis: i64) -> Instant {
        Instant::from_millis(millis)
    }

    /// Turns until nothing is due at `now`; how often each place was seen in each stage.
    fn turns(endings: &mut Endings, places: usize, now: Instant, server: u32) -> Vec<Stage> {
        let mut seen = Vec::new();
        while let Some(part) = endings.step(places, now) {
            assert!(part.len() <= PLACES);
            seen.extend(part.clone().map(|_| endings.stage(ServerId(server))));
            endings.advance(part.end, places, now, |_| true, |_, _| ());
            if endings.next_deadline().is_none_or(|due| due > now) {
                break;
            }
        }
        seen.retain(|stage| *stage != Stage::Spared);
        seen
    }

    #[test]
    fn every_round_sees_every_place_once() {
        const FLOWS: usize = 3 * PLACES + 7;
        let mut endings = Endings::default();
        endings.reserve(2);
        endings.begin(doomed(1, Cause::Removed), at(0));
        assert_eq!(endings.next_deadline(), Some(at(0)));
        for (millis, stage) in [
            (0, Stage::Asking),
            (1_000, Stage::Asking),
            (3_000, Stage::Asking),
            (10_000, Stage::Last),
        ] {
            assert_eq!(turns(&mut endings, FLOWS, at(millis - 1), 1), [], "{millis}");
            assert_eq!(turns(&mut endings, FLOWS, at(millis), 1), vec![stage; FLOWS], "{millis}");
        }
        assert!(endings.is_idle());
        assert_eq!(endings.next_deadline(), None);
    }

    /// Another server joins in the middle: it has its own lap, while the first one's is not repeated.
    #[test]
    fn whoever_comes_later_has_a_whole_lap_too() {
        const FLOWS: usize = 4 * PLACES;
        let mut endings = Endings::default();
        endings.reserve(2);
        endings.begin(doomed(0, Cause::Removed), at(0));
        let mut counts = [0, 0];
        for turn in 0.. {
            if turn == 2 {
                endings.begin(doomed(1, Cause::Down), at(0));
            }
            let Some(part) = endings.step(FLOWS, at(0)) else { break };
            for server in [0, 1] {
                if endings.stage(ServerId(server)) == Stage::Asking {
                    counts[server as usize] += part.len();
                }
            }
            endings.advance(part.end, FLOWS, at(0), |_| true, |_, _| ());
            if endings.next_deadline().is_none_or(|due| due > at(0)) {
                break;
            }
        }
        assert_eq!(counts, [FLOWS, FLOWS]);
    }

    #[test]
    fn a_server_without_flows_is_done_after_one_round() {
        let mut endings = Endings::default();
        endings.reserve(3);
        for server in 0..3 {
            endings.begin(doomed(server, Cause::Removed), at(0));
        }
        endings.count(ServerId(1));
        let part = endings.step(1, at(0)).unwrap();
        let mut told = Vec::new();
        let left = |server| server == ServerId(0);
        endings
            .advance(part.end, 1, at(0), left, |doomed, ended| told.push((doomed.server.0, ended)));
        told.sort_unstable();
        assert_eq!(told, [(1, 1), (2, 0)]);
        assert!(endings.is_doomed(ServerId(0)) && !endings.is_doomed(ServerId(2)));
        assert_eq!(endings.next_deadline(), Some(at(1_000)));
    }

    #[test]
    fn only_the_same_cause_spares() {
        let mut endings = Endings::default();
        endings.reserve(2);
        endings.begin(doomed(0, Cause::Removed), at(0));
        endings.spare(ServerId(0), Cause::Down);
        assert!(endings.is_doomed(ServerId(0)));
        endings.spare(ServerId(0), Cause::Removed);
        assert!(endings.is_idle());
        endings.begin_at(doomed(1, Cause::Drained), at(500));
        endings.spare(ServerId(1), Cause::Down);
        assert_eq!(endings.next_deadline(), Some(at(500)));
        assert!(endings.pass_deadline(at(499)).is_none());
        endings.spare(ServerId(1), Cause::Drained);
        assert_eq!(endings.next_deadline(), None);
        endings.begin_at(doomed(1, Cause::Drained), at(500));
        endings.begin_at(doomed(1, Cause::Removed), at(900));
        assert_eq!(endings.pass_deadline(at(500)).map(|doomed| doomed.server.0), Some(1));
        assert_eq!(endings.next_deadline(), None);
    }
}
