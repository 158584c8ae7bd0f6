//! What the client lives through: connections that must outlive a failover, and new ones all the
//! while; what came of them, as a table and held against what must come.

use std::net::SocketAddr;
use std::time::Duration;

use super::download::Download;
use super::idle::Idle;
use super::prober::Prober;
use crate::lab::crew::Stop;
use crate::lab::grid::{Grid, Side, grouped};
use crate::lab::shares::Millis;
use crate::time::Instant;

/// New connections may fail for so long.
const LONGEST_GAP: Duration = Duration::from_millis(500);
/// So many connections are open and say nothing.
pub(super) const IDLE: usize = 50;
/// So many probes in a row, answered after everything has happened, are enough to tell.
const ENOUGH: usize = 50;

/// A download, idle connections and a prober; dropping it ends them.
#[derive(Debug)]
pub(super) struct Witness {
    pub(super) download: Download,
    idle: Idle,
    prober: Prober,
}

/// What came of it all since a point in time.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// The longest time without a new connection.
    gap: Option<Duration>,
    probes: usize,
    failed: usize,
    /// The longest time without a byte of the download.
    stall: Option<Duration>,
    bytes: u64,
    download: Result<(), String>,
    idle: usize,
    /// What is wrong with each that is.
    idle_broken: Vec<String>,
}

impl Witness {
    /// To be called in the client's network namespace.
    pub(super) fn start(target: SocketAddr) -> Result<Self, Stop> {
        let idle = Idle::open(target, IDLE).map_err(Stop::Failed)?;
        Ok(Self { idle, download: Download::start(target)?, prober: Prober::start(target)? })
    }

    /// Whether enough has happened since then to give account of.
    pub(super) fn has_seen(&self, since: Instant) -> bool {
        let download = &self.download;
        self.prober.answered().count_after(since) >= ENOUGH
            && (download.came().count_after(since) >= ENOUGH || download.end().is_some())
    }

    /// Uses every idle connection, and says what else there was since then.
    pub(super) fn account(&self, since: Instant) -> Account {
        let (answered, failed) = (self.prober.answered(), self.prober.failed());
        let failed = failed.count_after(since);
        let download = self.download.end().unwrap_or(Ok(()));
        let (stall, bytes) = (self.download.came().longest_pause(since), self.download.bytes());
        Account {
            gap: answered.longest_pause(since),
            probes: answered.count_after(since) + failed,
            failed,
            stall,
            bytes,
            download,
            idle: self.idle.count(),
            idle_broken: self.idle.use_again(),
        }
    }
}

impl Account {
    pub(super) fn table(&self) -> Vec<String> {
        let mut grid = Grid::new([
            ("the client has", Side::Left),
            ("longest pause", Side::Right),
            ("in all", Side::Right),
            ("failed", Side::Right),
        ]);
        let row = |name: &str, pause, all, broken: usize| {
            [name.to_owned(), Millis(pause).to_string(), all, broken.to_string()]
        };
        let mib = self.bytes / (1024 * 1024);
        let download = usize::from(self.download.is_err());
        grid.row(row("a new connection every 10 ms", self.gap, grouped(self.probes), self.failed));
        grid.row(row("a download, byte by byte", self.stall, format!("{mib} MiB"), download));
        let (idle, broken) = (self.idle.to_string(), self.idle_broken.len());
        grid.row(row("idle connections, used again", None, idle, broken));
        grid.lines()
    }

    /// Stops the story when something is not as it must be; else says the gap.
    pub(super) fn check(&self) -> Result<Duration, Stop> {
        let complaints = self.complaints();
        match self.gap {
            Some(gap) if complaints.is_empty() => Ok(gap),
            _ => Err(Stop::Failed(complaints.join("; "))),
        }
    }

    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        match self.gap {
            None => complaints.push("no new connection was answered".to_owned()),
            Some(gap) if gap > LONGEST_GAP => complaints.push(format!(
                "new connections failed for {}, longer than {}",
                Millis(Some(gap)),
                Millis(Some(LONGEST_GAP))
            )),
            Some(_) => {}
        }
        if let Err(why) = &self.download {
            complaints.push(format!("the download broke after {} bytes: {why}", self.bytes));
        }
        if let Some(first) = self.idle_broken.first() {
            let (broken, idle) = (self.idle_broken.len(), self.idle);
            complaints.push(format!(
                "{broken} of {idle} idle connections broke, the first of them: {first}"
            ));
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Account {
        Account {
            gap: Some(Duration::from_millis(350)),
            probes: 120,
            failed: 30,
            stall: Some(Duration::from_millis(400)),
            bytes: 5 * 1024 * 1024,
            download: Ok(()),
            idle: 50,
            idle_broken: Vec::new(),
        }
    }

    #[test]
    fn what_may_be_is_not_complained_about() {
        assert_eq!(good().check(), Ok(Duration::from_millis(350)));
        let table = good().table().join("\n");
        assert!(table.contains("350.00 ms     120      30"), "{table}");
        assert!(table.contains("5 MiB       0"), "{table}");
    }

    #[test]
    fn what_must_not_be_is() {
        let late = Account { gap: Some(Duration::from_millis(501)), ..good() };
        let none = Account { gap: None, ..good() };
        let download = Account { download: Err("connection reset".to_owned()), ..good() };
        let idle = Account { idle_broken: vec!["timed out".to_owned()], ..good() };
        for (account, words) in [
            (late, "failed for 501.00 ms"),
            (none, "no new connection"),
            (download, "after 5242880 bytes: connection reset"),
            (idle, "1 of 50 idle connections broke, the first of them: timed out"),
        ] {
            let Err(Stop::Failed(text)) = account.check() else { panic!("no complaint: {words}") };
            assert!(text.contains(words), "{text}");
        }
    }
}
