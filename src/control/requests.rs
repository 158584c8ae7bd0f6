//! What clients of the control socket ask for, and what comes of it.

use std::net::{IpAddr, SocketAddr};

use log::{error, info};
use mio::Interest;

use super::desk::{Asker, Everything, Finding, Job, Services, Work};
use super::overrides::Override;
use super::protocol::{
    self, Answer, Changed, Figures, Health, Now, Reason, Refusal, Reloaded, Request, Server,
    Service, Status,
};
use super::publisher::{self, unknown};
use super::question::{FlowQuery, Id, Reply, ServerFilter};
use super::thread::{self, Thread};
use super::{Notice, Order, healths};
use crate::addr::Cidr;
use crate::config;
use crate::links::watch::Watch;
use crate::time::Instant;

/// Requests that are looked at before signals and messages have their turn again.
const REQUESTS: usize = 64;
/// Services and servers in one answer: whole services until there are as many.
const ROWS: usize = 512;

/// What a request comes to.
enum Outcome {
    /// The answer is known.
    Now(Answer),
    /// The answer is true once the loop works with the newest table.
    Applied(Answer),
    /// The loop must be asked.
    Work(Work),
    /// It is given later, elsewhere.
    Later,
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        Self::Now(Answer::Error(refusal))
    }
}

impl<N: Notice> Thread<N> {
    /// Serves those who have something to say, and asks the loop on their behalf.
    pub(super) fn handle_clients(&mut self, now: Instant) {
        self.socket.close_silent(now);
        for _ in 0..REQUESTS {
            let Some((client, request)) = self.socket.next(now) else { break };
            match request {
                Ok(request) => self.do_request(Asker::Client(client), request, now),
                Err(refusal) => self.socket.answer(client, &Answer::Error(refusal), now),
            }
        }
        self.ask_loop();
    }

    /// Does what is asked, or begins to.
    pub(super) fn do_request(&mut self, asker: Asker, request: Request, now: Instant) {
        match self.handle_request(asker, request, now).unwrap_or_else(Outcome::from) {
            Outcome::Now(answer) => self.tell(asker, &answer, now),
            Outcome::Applied(answer) => {
                self.desk.wait_for(self.publisher.generation(), asker, answer);
            }
            Outcome::Work(work) => self.desk.add(Job { asker, work }),
            Outcome::Later => {}
        }
    }

    fn tell(&mut self, asker: Asker, answer: &Answer, now: Instant) {
        match asker {
            Asker::Client(client) => self.socket.answer(client, answer, now),
            Asker::Command(id) | Asker::Page(id, _) => self.tell_page(id, answer),
        }
    }

    /// Takes the loop's reply to a question.
    pub(super) fn handle_reply(&mut self, reply: Reply, now: Instant) {
        let table = self.publisher.published().load_full();
        match self.desk.take(reply, &table) {
            Some((Asker::Page(id, view), Finding::Snapshot(snapshot))) => {
                self.show(id, view, &snapshot);
            }
            Some((asker, Finding::Answer(answer))) => self.tell(asker, &answer, now),
            Some((_, Finding::Snapshot(_))) | None => {}
        }
        self.ask_loop();
    }

    /// The loop works with `generation`: whoever waited for that can be answered.
    pub(super) fn handle_applied(&mut self, generation: u32, now: Instant) {
        self.publisher.acknowledged(generation);
        self.tell_news(generation, now);
        self.traces.follow(&self.publisher.published().load());
        for (asker, answer) in self.desk.applied(generation) {
            self.tell(asker, &answer, now);
        }
    }

    /// Reads the file again if it is time to.
    pub(super) fn handle_file(&mut self, now: Instant) {
        match self.watch.as_mut().map(Watch::changed) {
            None | Some(Ok(false)) => {}
            Some(Ok(true)) => self.reloads.note_change(now),
            Some(Err(error)) => {
                let file = self.publisher.file().display();
                error!(file:%, error:%; "the file cannot be watched any more; SIGHUP reloads it");
                self.watch = None;
            }
        }
        let Some(askers) = self.reloads.take_due(now) else { return };
        let answer = self.reload(now);
        for asker in askers {
            match &answer {
                Answer::Reloaded(Reloaded { changed: true, generation, .. }) => {
                    self.desk.wait_for(*generation, asker, answer.clone());
                }
                _ => self.tell(asker, &answer, now),
            }
        }
    }

    /// Watches the file, or stops to, as the file itself says.
    pub(super) fn follow_watch(&mut self) {
        if self.publisher.config().router.watch == self.watch.is_some() {
            return;
        }
        if self.watch.take().is_some() {
            return;
        }
        let watch = Watch::new(self.publisher.file()).and_then(|mut watch| {
            self.registry.register(&mut watch, thread::WATCH, Interest::READABLE)?;
            Ok(watch)
        });
        match watch {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => {
                let file = self.publisher.file().display();
                error!(file:%, error:%; "the file cannot be watched; SIGHUP reloads it");
            }
        }
    }

    fn handle_request(
        &mut self,
        asker: Asker,
        request: Request,
        now: Instant,
    ) -> Result<Outcome, Refusal> {
        let place = |from: u64| usize::try_from(from).unwrap_or(usize::MAX);
        Ok(match request {
            Request::Status {} => Outcome::Work(Work::Status(Box::new(self.status()))),
            Request::Drops {} => Outcome::Work(Work::Drops),
            Request::Services { from } => {
                Outcome::Work(Work::Services(self.services(place(from), ROWS, now)))
            }
            Request::Failover { action } => {
                info!(action = action.to_string().as_str(); "an operator decides about the role");
                Outcome::Work(Work::Failover(action))
            }
            Request::Neighbours { from } => Outcome::Work(Work::Neighbours(place(from))),
            Request::Flows { from, client, server, service, state, persistent } => {
                let query = FlowQuery {
                    from: place(from),
                    client: client.as_deref().map(prefix).transpose()?,
                    service: None,
                    server: None,
                    state: state.map(|state| state.to_ascii_uppercase()),
                    persistent,
                };
                Outcome::Work(Work::Flows(self.flow_query(query, service, server)?))
            }
            Request::Reload {} => {
                self.reloads.ask(Some(asker));
                Outcome::Later
            }
            Request::Drain { service, server } => {
                self.wish(&service, &server, Some(Override::Drained))?
            }
            Request::Trace { filter } => self.trace(asker, &filter, None)?,
            Request::Capture { filter, snaplen } => self.trace(asker, &filter, Some(snaplen))?,
            Request::Undrain { service, server } => self.wish(&service, &server, None)?,
            Request::Weight { service, server, weight } => {
                self.wish(&service, &server, Some(Override::Weight(weight)))?
            }
        })
    }

    /// What passes `filter`; with so many bytes of each frame, or in words alone.
    fn trace(&mut self, asker: Asker, filter: &str, snap: Option<u32>) -> Result<Outcome, Refusal> {
        let Asker::Client(client) = asker else {
            let message = "packets are shown at the control socket alone";
            return Err(Refusal::new(Reason::Request, message));
        };
        let table = self.publisher.published().load_full();
        self.traces.begin(client, filter, snap, &table)?;
        self.frame_loop.wake();
        Ok(Outcome::Later)
    }

    pub(super) fn ask_loop(&mut self) {
        let Some(question) = self.desk.question() else { return };
        // When the queue is full there are reports in it, after which this is tried again.
        if self.order(Order::Ask(question)) {
            self.desk.asked();
        }
    }

    fn wish(
        &mut self,
        service: &str,
        server: &str,
        wish: Option<Override>,
    ) -> Result<Outcome, Refusal> {
        let changed = self.publisher.wish(service, server, wish)?;
        let Changed { service, server, weight, drained, generation, .. } = &changed;
        if !changed.changed {
            return Ok(Outcome::Now(Answer::Changed(changed)));
        }
        let text = if *drained { "server is drained" } else { "server's weight is set" };
        info!(service = service.as_str(), server = server.as_str(), weight, generation; "{text}");
        self.frame_loop.wake();
        Ok(Outcome::Applied(Answer::Changed(changed)))
    }

    fn reload(&mut self, now: Instant) -> Answer {
        let reloaded = self.publisher.reload(now);
        let file = self.publisher.file().display().to_string();
        let generation = self.publisher.generation();
        match reloaded {
            publisher::Reloaded::Unchanged => {
                info!(file = file.as_str(), generation; "reload: the file says what is running");
                let (changed, changes) = (false, Vec::new());
                Answer::Reloaded(Reloaded { file, generation, changed, changes })
            }
            publisher::Reloaded::Published(changes) => {
                let count = changes.len();
                info!(file = file.as_str(), generation, changes = count; "reload: the file is in use");
                changes.iter().for_each(|change| info!(generation; "reload: {change}"));
                self.frame_loop.wake();
                self.follow_watch();
                Answer::Reloaded(Reloaded { file, generation, changed: true, changes })
            }
            publisher::Reloaded::Refused(refused) => {
                let messages = refused.messages(&file);
                refused.log(&file);
                error!(file = file.as_str(), generation, mistakes = messages.len(); "reload: the file is refused");
                Answer::Error(Refusal { reason: Reason::Configuration, messages })
            }
        }
    }

    fn status(&self) -> Status {
        let config = self.publisher.config();
        Status {
            name: config.router.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            file: self.publisher.file().display().to_string(),
            virtual_ips: config.virtual_ips.len(),
            services: config.services.len(),
            servers: config.services.iter().map(|service| service.all_servers().count()).sum(),
            overridden: self.publisher.overrides().len(),
            down: self.publisher.healths().count_down(),
            now: Now::default(),
        }
    }

    /// All that the status page shows.
    pub(super) fn everything(&self, now: Instant) -> Everything {
        Everything::new(Box::new(self.status()), self.services(0, usize::MAX, now))
    }

    /// The services from this position on, whole ones until there are as many rows.
    fn services(&self, from: usize, most: usize, now: Instant) -> Services {
        let table = self.publisher.published().load();
        let (config, overrides) = (self.publisher.config(), self.publisher.overrides());
        let (mut rows, mut ids, mut next) = (Vec::new(), Vec::new(), None);
        // The table is made from the file, entry by entry.
        let entries = table.services().iter().zip(&config.services);
        for (position, (compiled, service)) in entries.enumerate().skip(from) {
            if ids.len() >= most {
                next = u64::try_from(position).ok();
                break;
            }
            ids.push(Id::Service(compiled.id));
            ids.extend(compiled.all_servers().map(|server| Id::Server(server.id)));
            let is_fallback = |server| service.fallback.as_ref().is_some_and(|it| it == server);
            let servers = service.all_servers().map(|server| Server {
                name: server.name.clone(),
                address: server.endpoint.to_string(),
                weight: overrides.weight(service, server),
                configured_weight: server.weight,
                drained: overrides.of(service, server) == Some(Override::Drained),
                max_flows: server.limits.max,
                min_flows: server.limits.min,
                overloaded: false,
                fallback: is_fallback(server),
                health: self.publisher.healths().of(service, server).and_then(|h| health(h, now)),
                figures: Figures::default(),
            });
            rows.push(Service {
                name: service.name.clone(),
                protocol: service.protocol.to_string(),
                address: service.listen(),
                method: service.method.to_string(),
                scheduler: service.scheduler.to_string(),
                scheduler_flags: service.flag_words(),
                persistence: persistence(service),
                one_packet: service.balance.one_packet,
                group: service.group.as_ref().map(group),
                figures: Figures::default(),
                servers: servers.collect(),
            });
        }
        Services::new(rows, ids, next)
    }

    /// Adds service and server to `query`, by their ids.
    fn flow_query(
        &self,
        query: FlowQuery,
        service: Option<String>,
        server: Option<String>,
    ) -> Result<FlowQuery, Refusal> {
        let table = self.publisher.published().load();
        let services = table.services();
        let id = match &service {
            None => None,
            Some(name) => match services.iter().find(|known| known.name == *name) {
                Some(known) => Some(known.id),
                None => {
                    let names = services.iter().map(|known| known.name.as_str());
                    return Err(unknown("service", name, names));
                }
            },
        };
        let filter = server.map(|server| {
            if let Ok(socket) = server.parse::<SocketAddr>() {
                return Ok(ServerFilter::Address(socket.ip(), Some(socket.port())));
            }
            if let Ok(address) = server.parse::<IpAddr>() {
                return Ok(ServerFilter::Address(address, None));
            }
            let among = table.servers().filter(|(of, _)| id.is_none_or(|id| of.id == id));
            let ids: Vec<_> = among.filter(|(_, s)| s.name == server).map(|(_, s)| s.id).collect();
            if ids.is_empty() {
                let message =
                    format!("unknown server {server}; use a name, an address or ADDRESS:PORT");
                return Err(Refusal::new(Reason::Argument, message));
            }
            Ok(ServerFilter::Ids(ids))
        });
        Ok(FlowQuery { service: id, server: filter.transpose()?, ..query })
    }
}

/// What there is to tell of a server's health: of one that nobody asks, only that it is down.
fn health(known: &healths::Health, now: Instant) -> Option<Health> {
    (known.is_checked || !known.is_up).then(|| Health {
        up: known.is_up,
        checking: known.is_checked && !known.is_decided,
        since_ms: (now - known.since).total_millis(),
        reason: known.reason.clone(),
        last: None,
    })
}

/// A prefix, or an address alone.
fn prefix(text: &str) -> Result<Cidr, Refusal> {
    let alone = || {
        let address: IpAddr = text.parse().ok()?;
        Cidr::new(address, if address.is_ipv4() { 32 } else { 128 })
    };
    text.parse().ok().or_else(alone).ok_or_else(|| {
        let message = format!("client {text}: use an address or a prefix such as 198.51.100.0/24");
        Refusal::new(Reason::Argument, message)
    })
}

fn persistence(service: &config::Service) -> Option<protocol::Persistence> {
    let config::Persistence { timeout, prefix } = service.balance.persistence?;
    let expire_quiescent = service.balance.expire_quiescent;
    Some(protocol::Persistence { timeout_ms: timeout.total_millis(), prefix, expire_quiescent })
}

fn group(group: &config::Group) -> protocol::Group {
    let member = |member: &config::Member| protocol::Member {
        name: member.name.clone(),
        protocol: member.protocol.to_string(),
        address: member.listen(),
    };
    protocol::Group {
        name: group.name.clone(),
        members: group.members.iter().map(member).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mio::Poll;

    use super::*;
    use crate::config;
    use crate::control::Publisher;
    use crate::control::protocol::Request;
    use crate::control::thread::tests::thread;
    use crate::links::recorder::logged;

    const FILE: &str = "configs/nat.toml";

    #[test]
    fn a_reload_says_what_it_did() {
        let poll = Poll::new().unwrap();
        let (mut thread, _sender, _ordered) = thread(&poll);
        let mut reload = |publisher, secs| {
            thread.publisher = publisher;
            thread.reloads.ask(None);
            logged(|| thread.handle_file(Instant::from_secs(secs)))
        };
        let path = Path::new(FILE);
        let same = reload(Publisher::open(path).unwrap(), 0);
        let line = "INFO reload: the file says what is running file=configs/nat.toml generation=1";
        assert_eq!(same, [line]);

        let mut config = config::parse(&std::fs::read_to_string(FILE).unwrap()).unwrap();
        config.services[0].servers[0].weight += 7;
        let (service, server) = (&config.services[0], &config.services[0].servers[0]);
        let change = format!("service {}: server {}: weight: ", service.name, server.name);
        let changed = reload(Publisher::new(path, config.clone()), 10);
        let line = "INFO reload: the file is in use file=configs/nat.toml generation=2 changes=1";
        assert_eq!(changed[0], line);
        assert!(
            changed[1].contains(&change) && changed[1].ends_with(" generation=2"),
            "{changed:?}"
        );
        assert_eq!(changed.len(), 2);

        config.networks[0].mtu += 1;
        let refused = reload(Publisher::new(path, config), 20);
        assert!(refused[0].starts_with("ERROR reload: needs a restart: network "), "{refused:?}");
        let line =
            "ERROR reload: the file is refused file=configs/nat.toml generation=1 mistakes=1";
        assert_eq!(refused[1..], [line]);
    }

    #[test]
    fn an_operators_wish_says_what_came_of_it() {
        let poll = Poll::new().unwrap();
        let (mut thread, _sender, _ordered) = thread(&poll);
        let mut ask = |command: &str, more: &str| {
            let line = format!(
                "{{\"command\":\"{command}\",\"service\":\"web\",\"server\":\"web2\"{more}}}"
            );
            let request = Request::parse(line.as_bytes()).unwrap();
            let asker = Asker::Client(crate::control::socket::ClientId::of_test(0));
            logged(|| thread.do_request(asker, request, Instant::ZERO))
        };
        let web2 = |text: &str| format!("INFO {text} service=web server=web2");
        assert_eq!(
            ask("weight", ",\"weight\":3"),
            [web2("server's weight is set") + " weight=3 generation=2"]
        );
        assert!(ask("weight", ",\"weight\":3").is_empty(), "nothing has changed");
        assert_eq!(ask("drain", ""), [web2("server is drained") + " weight=0 generation=3"]);
        assert_eq!(ask("undrain", ""), [web2("server's weight is set") + " weight=1 generation=4"]);
    }
}
