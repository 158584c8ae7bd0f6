//! The one writer of the table: from the file to the table every reader loads.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::changes::Changes;
use super::file::{self, LoadError};
use super::healths::{Healths, Line};
use super::overrides::{Override, Overrides};
use super::pages::Token;
use super::protocol::{Changed, Reason, Refusal};
use super::refused::Refused;
use super::secret;
use crate::addr::{ServerId, ServiceId};
use crate::config::{Config, Server, Service, SyncKey};
use crate::health::Change;
use crate::table::{Ids, Standing, Table};
use crate::time::Instant;

/// Compiles and publishes tables, and keeps each old one until the loop has let go of it.
#[derive(Debug)]
pub struct Publisher {
    file: PathBuf,
    /// As in the file.
    config: Config,
    overrides: Overrides,
    healths: Healths,
    ids: Ids,
    token: Option<Token>,
    sync_key: Option<[u8; 32]>,
    published: Arc<ArcSwap<Table>>,
    /// Replaced, oldest first, and perhaps still in use: dropping one is not the loop's work.
    kept: VecDeque<Arc<Table>>,
}

/// What became of a reload.
#[derive(Debug)]
pub(super) enum Reloaded {
    /// The file says what is running.
    Unchanged,
    /// A new table is out; what changed, a line each (none: only the order of entries).
    Published(Vec<String>),
    /// Nothing was touched.
    Refused(Refused),
}

impl Publisher {
    /// Reads `file` and compiles the first table.
    ///
    /// # Errors
    /// When the file is no configuration.
    pub fn open(file: &Path) -> Result<Self, LoadError> {
        let config = file::load_here(file)?;
        let token = read_token(&config)?;
        let sync_key = read_sync_key(&config)?;
        Ok(Self { token, sync_key, ..Self::new(file, config) })
    }

    pub(super) fn new(file: &Path, config: Config) -> Self {
        let (overrides, mut healths) = (Overrides::default(), Healths::default());
        healths.prepare(&config, Instant::ZERO);
        let mut ids = Ids::default();
        let table = Table::compile(&config, None, &mut ids, standing(&overrides, &healths));
        healths.follow(&config, &table);
        let published = Arc::new(ArcSwap::from_pointee(table));
        let (file, kept, token) = (file.to_owned(), VecDeque::new(), None);
        Self { file, config, overrides, healths, ids, token, sync_key: None, published, kept }
    }

    /// What the file said when it was last taken over.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Where readers find the current table.
    pub const fn published(&self) -> &Arc<ArcSwap<Table>> {
        &self.published
    }

    /// What this router and its peer know; as it was at the start.
    pub const fn sync_key(&self) -> Option<&[u8; 32]> {
        self.sync_key.as_ref()
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Who shows this may change something over HTTP; `None`: nobody may.
    pub(super) const fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    #[cfg(test)]
    pub(super) fn set_token(&mut self, token: Option<Token>) {
        self.token = token;
    }

    /// What holds over the file.
    pub(super) const fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// Which servers are up.
    pub(super) const fn healths(&self) -> &Healths {
        &self.healths
    }

    pub(super) fn generation(&self) -> u32 {
        self.published.load().generation()
    }

    /// Reads the file again and publishes what it says, all of it or nothing.
    pub(super) fn reload(&mut self, now: Instant) -> Reloaded {
        let loaded =
            file::load_here(&self.file).and_then(|config| Ok((read_token(&config)?, config)));
        match loaded {
            Ok((token, config)) => {
                let reloaded = self.replace(config, now);
                // The token is no part of the table: it changes also when nothing else does.
                if !matches!(reloaded, Reloaded::Refused(_)) {
                    self.token = token;
                }
                reloaded
            }
            Err(error) => Reloaded::Refused(Refused::Wrong(error)),
        }
    }

    fn replace(&mut self, config: Config, now: Instant) -> Reloaded {
        if config == self.config {
            return Reloaded::Unchanged;
        }
        let changes = Changes::between(&self.config, &config);
        if !changes.needs_restart.is_empty() {
            return Reloaded::Refused(Refused::NeedsRestart(changes.needs_restart));
        }
        self.config = config;
        let mut lines = changes.applied;
        lines.extend(self.overrides.keep_for(&self.config));
        self.healths.prepare(&self.config, now);
        self.publish();
        self.healths.follow(&self.config, &self.published.load());
        Reloaded::Published(lines)
    }

    /// What an operator wants of one server from now on; without a wish the file holds again.
    pub(super) fn wish(
        &mut self,
        service: &str,
        server: &str,
        wish: Option<Override>,
    ) -> Result<Changed, Refusal> {
        let (service, server) = find(&self.config, service, server)?;
        let before = self.overrides.of(service, server);
        if let (Some(Override::Drained), Some(Override::Weight(_))) = (before, wish) {
            let message = format!(
                "server {} of service {} is drained; undrain it first, which brings back its \
                 weight in the file, {}",
                server.name, service.name, server.weight
            );
            return Err(Refusal::new(Reason::Argument, message));
        }
        let before = self.overrides.weight(service, server);
        self.overrides.set(service, server, wish);
        let weight = self.overrides.weight(service, server);
        let mut changed = Changed {
            service: service.name.clone(),
            server: server.name.clone(),
            weight,
            configured_weight: server.weight,
            drained: wish == Some(Override::Drained),
            generation: 0,
            changed: before != weight,
        };
        if changed.changed {
            self.publish();
        }
        changed.generation = self.generation();
        Ok(changed)
    }

    /// A server's checks have changed their mind; what there is to say about it.
    pub(super) fn changed(&mut self, change: &Change, now: Instant) -> Vec<Line> {
        self.healths.change(change, &self.config, &self.published.load(), now)
    }

    /// A server has left its clients unanswered. `is_asked`: it is checked, and comes back so.
    pub(super) fn silent(&mut self, server: ServerId, is_asked: bool, now: Instant) -> Vec<Line> {
        self.healths.silent(server, is_asked, &self.config, now)
    }

    /// When there is something to do for health.
    pub(super) fn health_due_at(&self) -> Option<Instant> {
        let publish = self.healths.publish_at().filter(|_| self.kept.is_empty());
        self.healths.retry_at().into_iter().chain(publish).min()
    }

    /// Servers that have left clients unanswered get another chance after a while.
    pub(super) fn retry_silent(&mut self, now: Instant) -> Vec<Line> {
        self.healths.retry(&self.config, now)
    }

    /// Publishes what has become of servers, if it is time to; whether there is a new table. The loop
    /// is not given one before it has taken the last: passing one over would cost it time.
    pub(super) fn follow_health(&mut self, now: Instant) -> bool {
        let due = self.kept.is_empty() && self.healths.take_due(now);
        if due {
            self.publish();
        }
        due
    }

    /// Compiles what is wanted now.
    fn publish(&mut self) {
        let old = self.published.load_full();
        let config = self.overrides.apply(&self.config);
        let standing = standing(&self.overrides, &self.healths);
        let table = Table::compile(&config, Some(&old), &mut self.ids, standing);
        self.kept.push_back(old);
        self.published.store(Arc::new(table));
        self.healths.published();
    }

    /// The loop works with `generation` and holds nothing older: that is dropped here.
    pub(super) fn acknowledged(&mut self, generation: u32) {
        self.ids.acknowledge(generation);
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

/// What is known of servers besides the file.
fn standing<'k>(
    overrides: &'k Overrides,
    healths: &'k Healths,
) -> impl Fn(&Service, &Server) -> Standing + 'k {
    |service, server| Standing {
        is_up: healths.is_up(service, server),
        is_drained: overrides.of(service, server) == Some(Override::Drained),
    }
}

fn read_token(config: &Config) -> Result<Option<Token>, LoadError> {
    let file = config.status_page.as_ref().and_then(|page| page.token_file.as_ref());
    let read =
        file.map(|file| Token::read(file).map_err(|error| LoadError::Token(file.clone(), error)));
    read.transpose()
}

fn read_sync_key(config: &Config) -> Result<Option<[u8; 32]>, LoadError> {
    let sync = config.failover.as_ref().and_then(|failover| failover.sync.as_ref());
    let file = match sync.map(|sync| &sync.key) {
        None => return Ok(None),
        Some(SyncKey::Bytes(key)) => return Ok(Some(*key)),
        Some(SyncKey::File(file)) => file,
    };
    let read = || {
        SyncKey::parse(&secret::read(file)?).ok_or_else(|| {
            let expected = "expected 64 hex digits, such as `openssl rand -hex 32` prints";
            io::Error::new(io::ErrorKind::InvalidData, expected)
        })
    };
    read().map(Some).map_err(|error| LoadError::Key(file.clone(), error))
}

/// The server that people mean by these names; a server's address and port will do.
fn find<'c>(
    config: &'c Config,
    service: &str,
    server: &str,
) -> Result<(&'c Service, &'c Server), Refusal> {
    let services = &config.services;
    let Some(found) = services.iter().find(|known| known.name == service) else {
        let names = services.iter().map(|known| known.name.as_str());
        return Err(unknown("service", service, names));
    };
    let servers = found.servers.iter();
    let is_meant = |s: &&Server| s.name == server || s.endpoint.to_string() == server;
    match servers.clone().find(is_meant) {
        Some(server) => Ok((found, server)),
        None => {
            let what = format!("server of service {service}:");
            Err(unknown(&what, server, servers.map(|known| known.name.as_str())))
        }
    }
}

/// Names what there is instead of `name`.
pub(super) fn unknown<'n>(
    what: &str,
    name: &str,
    known: impl ExactSizeIterator<Item = &'n str>,
) -> Refusal {
    const NAMED: usize = 20;
    let name: String = name.chars().take(80).collect();
    let more = known.len().saturating_sub(NAMED);
    let mut names = known.take(NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        names.push_str(&format!(" and {more} more"));
    }
    let names = if names.is_empty() { "none" } else { &names };
    Refusal::new(Reason::Argument, format!("unknown {what} {name}; there are: {names}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::config;

    const NOW: Instant = Instant::ZERO;

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
            assert!(matches!(publisher.replace(config, NOW), Reloaded::Published(_)));
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
    fn a_wish_holds_over_the_file_until_it_is_taken_back() {
        let mut publisher = publisher();
        let weights = |publisher: &Publisher| {
            let table = publisher.published.load_full();
            table.services()[0].servers.iter().map(|server| server.weight).collect::<Vec<_>>()
        };
        let drained = publisher.wish("web", "web2", Some(Override::Drained)).unwrap();
        assert!(drained.changed && drained.drained);
        assert_eq!((drained.weight, drained.configured_weight, drained.generation), (0, 1, 2));
        assert_eq!(weights(&publisher), [1, 0]);
        let again = publisher.wish("web", "10.0.0.12:8080", Some(Override::Drained)).unwrap();
        assert_eq!((again.changed, again.generation), (false, 2), "nothing to publish");

        let refusal = publisher.wish("web", "web2", Some(Override::Weight(3))).unwrap_err();
        assert!(refusal.to_string().starts_with("server web2 of service web is drained"));
        assert_eq!(weights(&publisher), [1, 0]);

        let mut file = config();
        file.services[0].servers[1].weight = 5;
        let lines = [
            "service web: server web2: weight: 5, was 1",
            "service web: server web2: stays drained until `tapvs undrain`",
        ];
        let lines = lines.map(str::to_owned).to_vec();
        let reloaded = publisher.replace(file, NOW);
        let Reloaded::Published(told) = reloaded else { panic!("{reloaded:?}") };
        assert_eq!(told, lines);
        assert_eq!(weights(&publisher), [1, 0], "it holds across a reload");

        let undrained = publisher.wish("web", "web2", None).unwrap();
        assert_eq!((undrained.weight, undrained.drained), (5, false), "the file's");
        assert_eq!(weights(&publisher), [1, 5]);
        publisher.wish("web", "web1", Some(Override::Weight(9))).unwrap();
        assert_eq!(weights(&publisher), [9, 5]);
    }

    #[test]
    fn a_name_that_is_not_there_is_answered_with_those_that_are() {
        let mut publisher = publisher();
        let mut refused =
            |service, server| publisher.wish(service, server, None).unwrap_err().to_string();
        assert_eq!(refused("www", "web1"), "unknown service www; there are: web");
        let servers = "unknown server of service web: web9; there are: web1, web2";
        assert_eq!(refused("web", "web9"), servers);
        assert_eq!(publisher.generation(), 1);
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
        publisher.replace(shorter.clone(), NOW);
        assert_eq!(ids(&publisher), before[1..], "the other server keeps its id");
        publisher.replace(config(), NOW);
        assert_eq!(ids(&publisher), before, "flows of the first one may still live, and are its");
        publisher.replace(shorter.clone(), NOW);
        // Another one in its place is somebody else.
        let mut other = shorter.clone();
        other.services[0].servers.insert(0, gone.clone());
        other.services[0].servers[0].endpoint.port = 9;
        publisher.replace(other, NOW);
        assert!(!before.contains(&ids(&publisher)[0]));
        publisher.replace(shorter.clone(), NOW);
        publisher.acknowledged(publisher.generation());
        publisher.server_gone(before[0]);
        shorter.services[0].servers.insert(0, gone);
        publisher.replace(shorter, NOW);
        assert_eq!(ids(&publisher)[0], before[0], "free again");
    }

    #[test]
    fn the_same_or_a_refused_configuration_publishes_nothing() {
        let mut publisher = publisher();
        assert!(matches!(publisher.replace(config(), NOW), Reloaded::Unchanged));
        let mut other = config();
        other.networks[0].mtu = 9000;
        other.services.clear();
        let reloaded = publisher.replace(other, NOW);
        let Reloaded::Refused(Refused::NeedsRestart(changes)) = reloaded else {
            panic!("{reloaded:?}")
        };
        assert_eq!(changes, ["network internet: mtu: 9000, was 1500"]);
        assert_eq!(publisher.config, config(), "not even the part that could change");
        assert_eq!(publisher.published.load().generation(), 1);
    }

    #[test]
    fn health_and_operators_wishes_do_not_touch_each_other() {
        let mut config = config();
        config.services[0].health = Some(crate::control::tests::health());
        let mut publisher = Publisher::new(Path::new("lvs1.toml"), config);
        let table = publisher.published.load_full();
        let check = |server: usize| {
            let id = table.services()[0].servers[server].id;
            Arc::clone(table.checks().of(id).unwrap())
        };
        let seen = |publisher: &Publisher| {
            let table = publisher.published.load_full();
            let servers = table.services()[0].servers.iter();
            servers.map(|s| (s.is_up, s.weight, s.is_drained)).collect::<Vec<_>>()
        };
        let down = Change { check: check(0), down: Some(crate::health::Failure::Refused) };
        assert_eq!(publisher.changed(&down, NOW).len(), 1);
        assert_eq!(seen(&publisher)[0], (true, 1, false), "not yet");
        assert!(publisher.follow_health(NOW) && !publisher.follow_health(NOW));
        let (other, late) = (Change { check: check(1), ..down.clone() }, Instant::from_secs(1));
        publisher.changed(&other, NOW);
        assert_eq!(publisher.health_due_at(), None, "the loop has yet to take the last table");
        assert!(!publisher.follow_health(late));
        publisher.acknowledged(2);
        assert_eq!(publisher.health_due_at(), Some(Instant::from_millis(10)));
        assert!(publisher.follow_health(late));
        publisher.acknowledged(3);
        publisher.changed(&Change { down: None, ..other }, late);
        assert!(publisher.follow_health(Instant::from_secs(2)));
        assert_eq!(seen(&publisher)[0], (false, 0, false));
        publisher.wish("web", "web1", Some(Override::Drained)).unwrap();
        assert_eq!(seen(&publisher)[0], (false, 0, true));
        let up = Change { down: None, ..down };
        publisher.changed(&up, NOW);
        publisher.wish("web", "web2", Some(Override::Weight(7))).unwrap();
        assert_eq!(seen(&publisher), [(true, 0, true), (true, 7, false)], "with the next table");
        publisher.acknowledged(publisher.generation());
        assert!(!publisher.follow_health(Instant::from_secs(3)), "which had it");
        publisher.wish("web", "web1", None).unwrap();
        assert_eq!(seen(&publisher)[0], (true, 1, false));
        assert!(
            Arc::ptr_eq(table.checks(), publisher.published.load().checks()),
            "asked as before"
        );
    }
}
