//! Which servers are up: what their checks and their clients' connections have said, for as long as a
//! server is the same. What an operator wants of it is another matter, and touches none of this.

use std::collections::BTreeMap;

use super::Entry;
use super::overrides::{Key, key};
use crate::addr::ServerId;
use crate::config::{Config, Server, Service};
use crate::health::Change;
use crate::table::Table;
use crate::time::{Duration, Instant, in_words};

/// Between two tables that are published for health alone.
const GAP: Duration = Duration::from_millis(10);

/// What is known of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// Whether it takes new flows.
    pub(super) is_up: bool,
    /// Since when.
    pub(super) since: Instant,
    /// Why it is down.
    pub(super) reason: Option<String>,
    /// Whether anything has been said; it is taken for something until then.
    pub(super) is_decided: bool,
    /// Whether it is checked.
    pub(super) is_checked: bool,
}

/// What is to be logged: kinds of lines share a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A server is down.
    Down,
    /// A server is up again.
    Up,
    /// A service has no server left.
    NoneLeft,
    /// Checks come late.
    Behind,
}

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) cause: Cause,
    pub(super) entry: Entry,
}

/// All servers.
#[derive(Debug, Default)]
pub(super) struct Healths {
    states: BTreeMap<Key, Health>,
    /// Positions of service and server in the configuration.
    places: BTreeMap<ServerId, (usize, usize)>,
    /// When those are tried again that nobody checks.
    retries: Vec<(Instant, ServerId)>,
    /// Something is not in the table yet.
    changed: bool,
    published_at: Option<Instant>,
}

impl Healths {
    /// Goes on with another configuration: forgets whom it does not have, and takes whom it adds, or
    /// begins or ceases to check, for what it says. To be called before a table is made of it.
    pub(super) fn prepare(&mut self, config: &Config, now: Instant) {
        let mut states = BTreeMap::new();
        for (service, server) in servers(config) {
            let key = key(service, server);
            let known = self.states.remove(&key);
            let is_checked = service.health.is_some();
            let kept = known.filter(|known| known.is_checked == is_checked);
            states.insert(key, kept.unwrap_or_else(|| Health::initial(service, now)));
        }
        self.states = states;
    }

    /// The table that was made of the configuration.
    pub(super) fn follow(&mut self, config: &Config, table: &Table) {
        self.places.clear();
        let entries = table.services().iter().zip(&config.services).enumerate();
        for (at, (compiled, service)) in entries {
            debug_assert_eq!(compiled.servers.len(), service.servers.len());
            let ids = compiled.servers.iter().map(|server| server.id);
            self.places.extend(ids.enumerate().map(|(position, id)| (id, (at, position))));
        }
        let places = &self.places;
        self.retries.retain(|(_, id)| places.contains_key(id));
    }

    /// What is known of a server; of a fallback nothing ever is.
    pub(super) fn of(&self, service: &Service, server: &Server) -> Option<&Health> {
        self.states.get(&key(service, server))
    }

    /// Whether a server may take new flows.
    pub(super) fn is_up(&self, service: &Service, server: &Server) -> bool {
        self.of(service, server).is_none_or(|health| health.is_up)
    }

    /// How many are down.
    pub(super) fn count_down(&self) -> usize {
        self.states.values().filter(|health| !health.is_up).count()
    }

    /// A server's checks have changed their mind.
    pub(super) fn change(
        &mut self,
        change: &Change,
        config: &Config,
        table: &Table,
        now: Instant,
    ) -> Vec<Line> {
        let check = &change.check;
        // It may be about a server that had the id before.
        let asked = table.checks().of(check.server);
        if asked.is_none_or(|asked| asked.since != check.since) {
            return Vec::new();
        }
        let reason = change.down.map(|failure| {
            let failures = match check.health.fall {
                1 => String::new(),
                fall => format!("{fall} failures in a row, the last: "),
            };
            failures + &failure.describe(&check.health)
        });
        self.set(check.server, reason, config, now)
    }

    /// A server has left clients in a row unanswered. Whoever `is_asked` comes back when its checks
    /// say so, others are tried again.
    pub(super) fn silent(
        &mut self,
        server: ServerId,
        is_asked: bool,
        config: &Config,
        now: Instant,
    ) -> Vec<Line> {
        let Some((service, _)) = self.place(server, config) else { return Vec::new() };
        let passive = service.lifecycle.passive_health.unwrap_or_default();
        if !is_asked {
            self.retries.retain(|(_, id)| *id != server);
            self.retries.push((now + passive.retry, server));
        }
        let reason = match passive.unanswered {
            1 => "a client got no answer".to_owned(),
            clients => format!("{clients} clients in a row got no answer"),
        };
        self.set(server, Some(reason), config, now)
    }

    /// Gives those another chance whose time has come.
    pub(super) fn retry(&mut self, config: &Config, now: Instant) -> Vec<Line> {
        let due: Vec<_> = self.retries.extract_if(.., |(at, _)| *at <= now).collect();
        due.into_iter().flat_map(|(_, server)| self.set(server, None, config, now)).collect()
    }

    /// When somebody is to be tried again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retries.iter().map(|(at, _)| *at).min()
    }

    /// When a table is to be made of what has changed.
    pub(super) fn publish_at(&self) -> Option<Instant> {
        self.changed.then(|| self.published_at.map_or(Instant::ZERO, |at| at + GAP))
    }

    /// Whether a table is to be made now: what has changed since the last one goes together.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let due = self.changed && self.published_at.is_none_or(|at| now >= at + GAP);
        if due {
            self.published_at = Some(now);
        }
        due
    }

    /// A table was made of what is known.
    pub(super) const fn published(&mut self) {
        self.changed = false;
    }

    fn place<'c>(&self, id: ServerId, config: &'c Config) -> Option<(&'c Service, &'c Server)> {
        let (service, server) = *self.places.get(&id)?;
        let service = config.services.get(service)?;
        Some((service, service.servers.get(server)?))
    }

    /// A server is down for a reason, or up; what there is to say about it.
    fn set(
        &mut self,
        id: ServerId,
        reason: Option<String>,
        config: &Config,
        now: Instant,
    ) -> Vec<Line> {
        let Some((service, server)) = self.place(id, config) else { return Vec::new() };
        let Some(health) = self.states.get_mut(&key(service, server)) else { return Vec::new() };
        let is_up = reason.is_none();
        health.is_decided = true;
        if health.is_up == is_up {
            return Vec::new();
        }
        let took = in_words(now - health.since);
        let (since, said) = (now, reason.clone());
        (health.is_up, health.since, health.reason) = (is_up, since, reason);
        self.changed = true;
        let mut fields = vec![("service", service.name.clone()), ("server", server.name.clone())];
        let Some(reason) = said else {
            let tried = "server is up, to be tried again";
            let text = if health.is_checked { "server is up" } else { tried };
            fields.push(("was_down", took));
            return vec![Line { cause: Cause::Up, entry: Entry { text, fields } }];
        };
        fields.extend([("reason", reason), ("was_up", took)]);
        let entry = Entry { text: "server is down", fields };
        let mut lines = vec![Line { cause: Cause::Down, entry }];
        if !service.servers.iter().any(|server| self.is_up(service, server)) {
            lines.push(none_left(service));
        }
        lines
    }
}

impl Health {
    /// What a server is taken for at first.
    fn initial(service: &Service, now: Instant) -> Self {
        let is_up = service.health.as_ref().is_none_or(|health| health.initially_up);
        Self {
            is_up,
            since: now,
            reason: (!is_up).then(|| "not checked yet".to_owned()),
            is_decided: false,
            is_checked: service.health.is_some(),
        }
    }
}

impl Cause {
    pub(super) const fn level(self) -> log::Level {
        match self {
            Self::Down | Self::NoneLeft | Self::Behind => log::Level::Warn,
            Self::Up => log::Level::Info,
        }
    }
}

impl Line {
    /// Checks come late; so many are configured.
    pub(super) fn behind(checks: usize) -> Self {
        let text = "health checks are late: too many servers do not answer; raise the interval or \
                    lower the timeout";
        let fields = vec![("checks", checks.to_string())];
        Self { cause: Cause::Behind, entry: Entry { text, fields } }
    }
}

fn none_left(service: &Service) -> Line {
    let servers = service.servers.len().to_string();
    let mut fields = vec![("service", service.name.clone()), ("servers", servers)];
    let text = match &service.fallback {
        None => "all servers are down: new connections are refused",
        Some(fallback) => {
            fields.push(("fallback", fallback.name.clone()));
            "all servers are down: new connections go to the fallback"
        }
    };
    Line { cause: Cause::NoneLeft, entry: Entry { text, fields } }
}

fn servers(config: &Config) -> impl Iterator<Item = (&Service, &Server)> {
    config.services.iter().flat_map(|service| service.servers.iter().map(move |s| (service, s)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{self, PassiveHealth};
    use crate::control::tests::{config, health};
    use crate::health::{Check, Failure};
    use crate::links::recorder::logged;
    use crate::table::{Ids, Standing};

    /// Configuration, table and what is known, as the publisher keeps them.
    struct Desk {
        config: Config,
        ids: Ids,
        table: Table,
        healths: Healths,
    }

    impl Desk {
        fn new(edit: impl FnOnce(&mut Service)) -> Self {
            let mut config = config();
            config.services[0].health = Some(health());
            edit(&mut config.services[0]);
            let (mut ids, mut healths) = (Ids::default(), Healths::default());
            healths.prepare(&config, Instant::ZERO);
            let table = compile(&config, None, &mut ids, &healths);
            healths.follow(&config, &table);
            Self { config, ids, table, healths }
        }

        fn reload(&mut self, edit: impl FnOnce(&mut Service), now: Instant) {
            edit(&mut self.config.services[0]);
            self.healths.prepare(&self.config, now);
            self.table = compile(&self.config, Some(&self.table), &mut self.ids, &self.healths);
            self.healths.follow(&self.config, &self.table);
        }

        fn check(&self, server: usize) -> Arc<Check> {
            let id = self.table.services()[0].servers[server].id;
            Arc::clone(self.table.checks().of(id).unwrap())
        }

        fn tell(&mut self, check: Arc<Check>, down: Option<Failure>, secs: i64) -> Vec<String> {
            let change = Change { check, down };
            let now = Instant::from_secs(secs);
            texts(self.healths.change(&change, &self.config, &self.table, now))
        }

        fn up(&self) -> Vec<bool> {
            let service = &self.config.services[0];
            service.servers.iter().map(|s| self.healths.is_up(service, s)).collect()
        }
    }

    fn compile(config: &Config, old: Option<&Table>, ids: &mut Ids, healths: &Healths) -> Table {
        let standing = |service: &Service, server: &Server| Standing {
            is_up: healths.is_up(service, server),
            ..Standing::GOOD
        };
        Table::compile(config, old, ids, standing)
    }

    fn texts(lines: Vec<Line>) -> Vec<String> {
        logged(|| lines.iter().for_each(|line| line.entry.write(line.cause.level())))
    }

    #[test]
    fn every_change_is_told_with_what_it_ended() {
        let mut desk = Desk::new(|_| {});
        let (first, second) = (desk.check(0), desk.check(1));
        assert_eq!(
            desk.tell(Arc::clone(&first), Some(Failure::Refused), 65),
            ["WARN server is down service=web server=web1 \
                 reason=\"3 failures in a row, the last: connect: refused\" was_up=\"1 m 5 s\""]
        );
        assert_eq!(desk.tell(Arc::clone(&first), Some(Failure::Refused), 66), [""; 0], "known");
        assert_eq!(
            desk.tell(second, Some(Failure::NoHandshake), 70),
            [
                "WARN server is down service=web server=web2 reason=\"3 failures in a row, the last: connect: \
                 no answer within 1 s\" was_up=\"1 m 10 s\"",
                "WARN all servers are down: new connections are refused service=web servers=2",
            ]
        );
        assert_eq!((desk.up(), desk.healths.count_down()), (vec![false, false], 2));
        assert_eq!(
            desk.tell(first, None, 75),
            ["INFO server is up service=web server=web1 was_down=\"10.0 s\""]
        );
        assert_eq!(desk.up(), [true, false]);
    }

    #[test]
    fn changes_are_published_together() {
        let mut desk = Desk::new(|_| {});
        assert_eq!(desk.healths.publish_at(), None);
        let at = Instant::from_millis;
        desk.tell(desk.check(0), Some(Failure::Refused), 5);
        assert_eq!(desk.healths.publish_at(), Some(Instant::ZERO), "the first one at once");
        assert!(desk.healths.take_due(at(5_000)));
        desk.healths.published();
        assert_eq!(desk.healths.publish_at(), None);
        desk.tell(desk.check(1), Some(Failure::Refused), 5);
        assert_eq!(desk.healths.publish_at(), Some(at(5_010)));
        assert!(!desk.healths.take_due(at(5_009)));
        desk.tell(desk.check(0), None, 5);
        assert!(desk.healths.take_due(at(5_010)));
        desk.healths.published();
        assert!(!desk.healths.take_due(at(9_000)), "nothing new");
        // A reload in between has it in its table.
        desk.tell(desk.check(1), None, 6);
        desk.healths.published();
        assert_eq!(desk.healths.publish_at(), None);
    }

    #[test]
    fn a_reload_keeps_what_is_the_same() {
        let mut desk = Desk::new(|_| {});
        desk.tell(desk.check(0), Some(Failure::Refused), 5);
        let old = desk.check(0);
        let now = Instant::from_secs(60);
        desk.reload(
            |service| {
                service.name = "www".to_owned();
                service.servers[0].weight = 9;
                let faster = Duration::from_millis(500);
                let health =
                    config::Health { interval: faster, timeout: faster, ..(*health()).clone() };
                service.health = Some(Arc::new(health));
            },
            now,
        );
        assert_eq!(desk.up(), [false, true]);
        assert!(!desk.table.services()[0].servers[0].is_up, "nor is it in the table");
        let lines = desk.tell(old, None, 65);
        assert_eq!(lines, ["INFO server is up service=www server=web1 was_down=\"1 m 0 s\""]);
    }

    #[test]
    fn what_is_another_begins_anew() {
        let mut desk = Desk::new(|_| {});
        desk.tell(desk.check(0), Some(Failure::Refused), 5);
        let old = desk.check(0);
        // Gone, and back: another server as far as anybody can tell.
        let mut gone = None;
        desk.reload(|service| gone = Some(service.servers.remove(0)), Instant::from_secs(6));
        assert_eq!(desk.tell(Arc::clone(&old), None, 7), [""; 0]);
        desk.reload(|service| service.servers.insert(0, gone.unwrap()), Instant::from_secs(8));
        assert_eq!(desk.up(), [true, true]);
        assert_eq!(desk.tell(old, Some(Failure::Refused), 9), [""; 0], "it was about the old one");
        assert_eq!(desk.up(), [true, true]);

        // Down, and no longer checked: nobody could bring it back.
        desk.tell(desk.check(1), Some(Failure::Refused), 10);
        desk.reload(|service| service.health = None, Instant::from_secs(11));
        assert_eq!(desk.up(), [true, true]);
        // Checked again, and to be proved well first.
        let health = config::Health { initially_up: false, ..(*health()).clone() };
        desk.reload(|service| service.health = Some(Arc::new(health)), Instant::from_secs(12));
        assert_eq!(desk.up(), [false, false]);
        let lines = desk.tell(desk.check(1), None, 13);
        assert_eq!(lines, ["INFO server is up service=web server=web2 was_down=\"1.0 s\""]);
    }

    #[test]
    fn silence_lasts_until_the_checks_say_otherwise_or_for_a_while() {
        let mut desk = Desk::new(|service| {
            let retry = Duration::from_secs(20);
            service.lifecycle.passive_health = Some(PassiveHealth { unanswered: 4, retry });
        });
        let id = desk.check(0).server;
        let told = desk.healths.silent(id, true, &desk.config, Instant::from_secs(9));
        assert_eq!(
            texts(told),
            [
                "WARN server is down service=web server=web1 reason=\"4 clients in a row got no answer\" \
                 was_up=\"9.0 s\""
            ]
        );
        assert!(desk.healths.retries.is_empty(), "its checks will say");
        assert!(desk.healths.silent(id, true, &desk.config, Instant::from_secs(10)).is_empty());
        assert_eq!(desk.tell(desk.check(0), None, 12).len(), 1);

        desk.reload(|service| service.health = None, Instant::from_secs(13));
        let told = desk.healths.silent(id, false, &desk.config, Instant::from_secs(14));
        assert_eq!(told.len(), 1);
        desk.healths.published();
        assert_eq!(desk.healths.retry_at(), Some(Instant::from_secs(34)));
        assert!(desk.healths.retry(&desk.config, Instant::from_secs(33)).is_empty());
        let told = desk.healths.retry(&desk.config, Instant::from_secs(34));
        assert_eq!(
            texts(told),
            ["INFO server is up, to be tried again service=web server=web1 was_down=\"20.0 s\""]
        );
        assert_eq!(desk.up(), [true, true]);
        let gone = ServerId(99);
        assert!(desk.healths.silent(gone, false, &desk.config, Instant::ZERO).is_empty());
    }

    #[test]
    fn a_fallback_is_nobodys_to_judge() {
        let mut desk = Desk::new(|service| {
            let mut sorry = service.servers[0].clone();
            (sorry.name, sorry.endpoint.port) = ("sorry".to_owned(), 9);
            service.fallback = Some(sorry);
        });
        assert_eq!(desk.table.checks().checks().len(), 2, "it is not asked");
        desk.tell(desk.check(0), Some(Failure::Refused), 5);
        let lines = desk.tell(desk.check(1), Some(Failure::Refused), 5);
        assert_eq!(
            lines[1],
            "WARN all servers are down: new connections go to the fallback service=web servers=2 fallback=sorry"
        );
    }
}
