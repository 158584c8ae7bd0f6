//! The one writer of the table: from the file to the table every reader loads.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::changes::Changes;
use super::file::{self, LoadError};
use crate::addr::{ServerId, ServiceId};
use crate::config::Config;
use crate::table::{Ids, Table};

/// Compiles and publishes tables, and keeps each old one until the loop has let go of it.
#[derive(Debug)]
pub struct Publisher {
    file: PathBuf,
    config: Config,
    ids: Ids,
    published: Arc<ArcSwap<Table>>,
    /// Replaced, oldest first, and perhaps still in use: dropping one is not the loop's work.
    kept: VecDeque<Arc<Table>>,
}

/// What became of a reload.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reloaded {
    /// The file says what is running.
    Unchanged,
    /// A new table is out; what changed, a line each (none: only the order of entries).
    Published(Vec<String>),
    /// Nothing was touched; why, a line each.
    Refused(Vec<String>),
}

impl Publisher {
    /// Reads `file` and compiles the first table.
    ///
    /// # Errors
    /// When the file is no configuration.
    pub fn open(file: &Path) -> Result<Self, LoadError> {
        Ok(Self::new(file, file::load(file)?))
    }

    pub(super) fn new(file: &Path, config: Config) -> Self {
        let mut ids = Ids::default();
        let table = Table::compile(&config, None, &mut ids);
        let published = Arc::new(ArcSwap::from_pointee(table));
        Self { file: file.to_owned(), config, ids, published, kept: VecDeque::new() }
    }

    /// What is running.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Where readers find the current table.
    pub const fn published(&self) -> &Arc<ArcSwap<Table>> {
        &self.published
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Reads the file again and publishes what it says, all of it or nothing.
    pub(super) fn reload(&mut self) -> Reloaded {
        match file::load(&self.file) {
            Ok(config) => self.replace(config),
            Err(error) => Reloaded::Refused(error.to_string().lines().map(str::to_owned).collect()),
        }
    }

    fn replace(&mut self, config: Config) -> Reloaded {
        if config == self.config {
            return Reloaded::Unchanged;
        }
        let changes = Changes::between(&self.config, &config);
        if !changes.needs_restart.is_empty() {
            let line = |change| format!("{}: needs a restart: {change}", self.file.display());
            return Reloaded::Refused(changes.needs_restart.iter().map(line).collect());
        }
        let old = self.published.load_full();
        let table = Table::compile(&config, Some(&old), &mut self.ids);
        self.config = config;
        self.kept.push_back(old);
        self.published.store(Arc::new(table));
        Reloaded::Published(changes.applied)
    }

    /// The loop works with `generation` and holds nothing older: that is dropped here.
    pub(super) fn acknowledged(&mut self, generation: u32) {
        while self.kept.front().is_some_and(|table| table.generation() != generation) {
            self.kept.pop_front();
        }
    }

    pub(super) fn service_gone(&mut self, id: ServiceId) {
        self.ids.free_service(id);
    }

    pub(super) fn server_gone(&mut self, id: ServerId) {
        self.ids.free_server(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::config;

    fn publisher() -> Publisher {
        Publisher::new(Path::new("lvs1.toml"), config())
    }

    #[test]
    fn an_old_table_lives_until_it_is_acknowledged() {
        let mut publisher = publisher();
        let first = Arc::downgrade(&publisher.published.load_full());
        let mut weaks = vec![first];
        for weight in 2..4 {
            let mut config = config();
            config.services[0].servers[0].weight = weight;
            assert!(matches!(publisher.replace(config), Reloaded::Published(_)));
            weaks.push(Arc::downgrade(&publisher.published.load_full()));
        }
        let alive = |weaks: &[std::sync::Weak<Table>]| {
            weaks.iter().map(|w| w.strong_count()).collect::<Vec<_>>()
        };
        assert_eq!(publisher.published.load().generation(), 3);
        assert_eq!(alive(&weaks), [1, 1, 1]);
        publisher.acknowledged(1);
        assert_eq!(alive(&weaks), [1, 1, 1], "the loop still works with the first");
        publisher.acknowledged(2);
        assert_eq!(alive(&weaks), [0, 1, 1]);
        publisher.acknowledged(3);
        assert_eq!(alive(&weaks), [0, 0, 1]);
    }

    #[test]
    fn ids_stay_and_come_back_only_when_told() {
        let mut publisher = publisher();
        let ids = |publisher: &Publisher| {
            let table = publisher.published.load_full();
            table.services()[0].servers.iter().map(|server| server.id).collect::<Vec<_>>()
        };
        let before = ids(&publisher);
        let mut shorter = config();
        let gone = shorter.services[0].servers.remove(0);
        publisher.replace(shorter.clone());
        assert_eq!(ids(&publisher), before[1..], "the other server keeps its id");
        publisher.replace(config());
        assert!(!before.contains(&ids(&publisher)[0]), "flows of the first id may still live");
        publisher.replace(shorter.clone());
        publisher.server_gone(before[0]);
        shorter.services[0].servers.insert(0, gone);
        publisher.replace(shorter);
        assert_eq!(ids(&publisher)[0], before[0], "free again");
    }

    #[test]
    fn the_same_or_a_refused_configuration_publishes_nothing() {
        let mut publisher = publisher();
        assert_eq!(publisher.replace(config()), Reloaded::Unchanged);
        let mut other = config();
        other.networks[0].mtu = 9000;
        other.services.clear();
        assert_eq!(
            publisher.replace(other),
            Reloaded::Refused(vec![
                "lvs1.toml: needs a restart: network internet: mtu: 9000, was 1500".to_owned()
            ])
        );
        assert_eq!(publisher.config, config(), "not even the part that could change");
        assert_eq!(publisher.published.load().generation(), 1);
    }
}
