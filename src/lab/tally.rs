//! What a run of requests came to: counts, shares and percentiles.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::{Failure, Outcome};

/// The outcomes of one run, by server and by kind of failure.
#[derive(Debug, Default)]
pub(super) struct Tally {
    answered: BTreeMap<String, Latencies>,
    failed: BTreeMap<Failure, Latencies>,
    /// The first failure that says more than its kind.
    detail: Option<String>,
}

impl Tally {
    pub(super) fn record(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Answered { server, micros } => {
                self.answered.entry(server.clone()).or_default().record(*micros);
            }
            Outcome::Failed { failure, micros, detail } => {
                self.failed.entry(*failure).or_default().record(*micros);
                if self.detail.is_none() && !detail.is_empty() {
                    self.detail = Some(format!("{failure}: {detail}"));
                }
            }
        }
    }

    /// What `server` answered; nothing when it never did.
    pub(super) fn of(&self, server: &str) -> Option<&Latencies> {
        self.answered.get(server)
    }

    /// Who answered, in order of name.
    pub(super) fn servers(&self) -> impl Iterator<Item = &str> {
        self.answered.keys().map(String::as_str)
    }

    pub(super) fn failures(&self) -> impl Iterator<Item = (Failure, &Latencies)> {
        self.failed.iter().map(|(failure, latencies)| (*failure, latencies))
    }

    pub(super) fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// All answered requests together.
    pub(super) fn answered(&self) -> Latencies {
        Latencies::together(self.answered.values())
    }

    /// All failed requests together.
    pub(super) fn failed(&self) -> Latencies {
        Latencies::together(self.failed.values())
    }

    /// How many requests have ended.
    pub(super) fn ended(&self) -> usize {
        self.answered.values().chain(self.failed.values()).map(Latencies::count).sum()
    }
}

/// How long requests took.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies {
    micros: Vec<u64>,
}

impl Latencies {
    fn together<'a>(parts: impl Iterator<Item = &'a Self>) -> Self {
        Self { micros: parts.flat_map(|part| part.micros.iter().copied()).collect() }
    }

    fn record(&mut self, micros: u64) {
        self.micros.push(micros);
    }

    pub(super) const fn count(&self) -> usize {
        self.micros.len()
    }

    /// The nearest-rank percentile: the smallest value that `percent` of all do not exceed.
    pub(super) fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).map(|&micros| Duration::from_micros(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(micros: impl IntoIterator<Item = u64>) -> Latencies {
        Latencies { micros: micros.into_iter().collect() }
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let hundred = latencies((1..=100).rev());
        assert_eq!(hundred.percentile(50), Some(Duration::from_micros(50)));
        assert_eq!(hundred.percentile(99), Some(Duration::from_micros(99)));
        assert_eq!(hundred.percentile(100), Some(Duration::from_micros(100)));
        let three = latencies([30, 10, 20]);
        assert_eq!(three.percentile(50), Some(Duration::from_micros(20)));
        assert_eq!(three.percentile(99), Some(Duration::from_micros(30)));
        assert_eq!(three.percentile(0), Some(Duration::from_micros(10)));
        assert_eq!(latencies([]).percentile(50), None);
    }

    #[test]
    fn outcomes_are_counted_by_server_and_by_failure() {
        let mut tally = Tally::default();
        for (server, micros) in [("s2", 5), ("s1", 7), ("s2", 6)] {
            tally.record(&Outcome::Answered { server: server.to_owned(), micros });
        }
        for detail in ["", "an odd answer", "another"] {
            tally.record(&Outcome::Failed {
                failure: Failure::BadAnswer,
                micros: 1,
                detail: detail.to_owned(),
            });
        }
        assert_eq!(tally.servers().collect::<Vec<_>>(), ["s1", "s2"]);
        assert_eq!(tally.of("s2").map(Latencies::count), Some(2));
        assert!(tally.of("s3").is_none());
        assert_eq!(tally.failures().map(|(_, all)| all.count()).collect::<Vec<_>>(), [3]);
        assert_eq!((tally.answered().count(), tally.failed().count(), tally.ended()), (3, 3, 6));
        assert_eq!(tally.detail(), Some("bad answer: an odd answer"));
    }
}
