//! Requests whose answer the loop has to help with: one question at a time is out, so the loop has
//! at most one to answer, and everybody who asked has their turn.

use std::collections::VecDeque;

use super::pages::{Snapshot, View};
use super::protocol::failover::Wish;
use super::protocol::{Answer, Drops, Flow, Page, Reason, Refusal, Service, Status};
use super::question::{FlowQuery, FlowSeen, Found, Id, PLACES, Question, Reply, Seen};
use super::socket::ClientId;
use crate::http::ConnectionId;
use crate::table::Table;

/// Who wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A client of the control socket.
    Client(ClientId),
    /// A connection to the status page that gave a command.
    Command(ConnectionId),
    /// A connection to the status page that wants to see it.
    Page(ConnectionId, View),
}

/// A request that is being worked on.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) asker: Asker,
    pub(super) work: Work,
}

/// What came of it.
#[derive(Debug, PartialEq)]
pub(super) enum Finding {
    Answer(Answer),
    Snapshot(Box<Snapshot>),
}

/// What it takes, and what there is of it so far.
#[derive(Debug)]
pub(super) enum Work {
    /// All but what the loop knows.
    Status(Box<Status>),
    Drops,
    Services(Services),
    Flows(FlowQuery),
    Neighbours(usize),
    Failover(Wish),
    /// Status, drops and all services, one after the other.
    Everything(Box<Everything>),
}

/// The parts of a snapshot, as far as they are there.
#[derive(Debug)]
pub(super) struct Everything {
    status: Box<Status>,
    has_status: bool,
    drops: Option<Drops>,
    services: Services,
}

/// A page of services, whose figures are being collected.
#[derive(Debug)]
pub(super) struct Services {
    rows: Vec<Service>,
    next: Option<u64>,
    /// Whose figures: each service and then its servers, in the order of `rows`.
    ids: Vec<Id>,
    seen: Vec<Seen>,
}

/// All of them, oldest first.
#[derive(Debug, Default)]
pub(super) struct Desk {
    jobs: VecDeque<Job>,
    asked: bool,
    /// Answers that are true once the loop works with this generation.
    awaited: Vec<(u32, Asker, Answer)>,
}

impl Desk {
    pub(super) fn add(&mut self, job: Job) {
        self.jobs.push_back(job);
    }

    /// What to ask the loop now; [`Desk::asked`] says that it was.
    pub(super) fn question(&self) -> Option<Question> {
        self.jobs.front().filter(|_| !self.asked).map(|job| job.work.question())
    }

    pub(super) const fn asked(&mut self) {
        self.asked = true;
    }

    /// Takes the loop's reply; perhaps it was the last that somebody's answer needed.
    pub(super) fn take(&mut self, reply: Reply, table: &Table) -> Option<(Asker, Finding)> {
        self.asked = false;
        let Job { asker, work } = self.jobs.pop_front()?;
        match work.take(reply, table) {
            Ok(finding) => Some((asker, finding)),
            Err(work) => {
                // Others first.
                self.jobs.push_back(Job { asker, work });
                None
            }
        }
    }

    /// Keeps an answer until the loop works with `generation`.
    pub(super) fn wait_for(&mut self, generation: u32, asker: Asker, answer: Answer) {
        self.awaited.push((generation, asker, answer));
    }

    /// The answers that are true now.
    pub(super) fn applied(&mut self, generation: u32) -> Vec<(Asker, Answer)> {
        // Generations wrap.
        let is_true = |(wanted, ..): &mut (u32, _, _)| generation.wrapping_sub(*wanted) < 1 << 31;
        self.awaited.extract_if(.., is_true).map(|(_, asker, answer)| (asker, answer)).collect()
    }
}

impl Work {
    fn question(&self) -> Question {
        match self {
            Self::Status(_) => Question::Status,
            Self::Drops => Question::Drops,
            Self::Services(services) => Question::Figures(services.wanted().to_vec()),
            Self::Flows(query) => Question::Flows(query.clone()),
            Self::Neighbours(from) => Question::Neighbours(*from),
            Self::Failover(wish) => Question::Failover(*wish),
            Self::Everything(everything) => everything.question(),
        }
    }

    /// The answer, or what is still to be done.
    fn take(self, Reply { uptime_us, found }: Reply, table: &Table) -> Result<Finding, Self> {
        let next = |next: Option<usize>| next.and_then(|next| u64::try_from(next).ok());
        Ok(Finding::Answer(match (self, found) {
            (Self::Everything(everything), found) => {
                return match everything.take(found) {
                    Ok(snapshot) => Ok(Finding::Snapshot(snapshot)),
                    Err(everything) => Err(Self::Everything(everything)),
                };
            }
            (Self::Status(status), Found::Status(now)) => {
                Answer::Status(Box::new(Status { now: *now, ..*status }))
            }
            (Self::Drops, Found::Drops(drops)) => Answer::Drops(drops),
            (Self::Services(mut services), Found::Figures(seen)) => {
                services.seen.extend(seen);
                if !services.wanted().is_empty() {
                    return Err(Self::Services(services));
                }
                let next = services.next;
                Answer::Services(Page { rows: services.finish(), next, uptime_us })
            }
            (Self::Flows(_), Found::Flows(seen, more)) => {
                Answer::Flows(Page { rows: named(seen, table), next: next(more), uptime_us })
            }
            (Self::Neighbours(_), Found::Neighbours(rows, more)) => {
                Answer::Neighbours(Page { rows, next: next(more), uptime_us })
            }
            (Self::Failover(_), Found::Failover(Some(failover))) => Answer::Failover(failover),
            (Self::Failover(_), Found::Failover(None)) => {
                let message = "this router has no [failover]: it is always active";
                Answer::Error(Refusal::new(Reason::Argument, message))
            }
            (work, found) => {
                debug_assert!(false, "{found:?} is no reply to {work:?}");
                Answer::Error(Refusal::new(Reason::Request, "the router lost the thread: a bug"))
            }
        }))
    }
}

impl Everything {
    /// Nothing of it is known yet but what the control thread knows.
    pub(super) const fn new(status: Box<Status>, services: Services) -> Self {
        Self { status, has_status: false, drops: None, services }
    }

    fn question(&self) -> Question {
        if !self.has_status {
            Question::Status
        } else if self.drops.is_none() {
            Question::Drops
        } else {
            Question::Figures(self.services.wanted().to_vec())
        }
    }

    /// The whole, or what is still to be done.
    fn take(mut self: Box<Self>, found: Found) -> Result<Box<Snapshot>, Box<Self>> {
        match found {
            Found::Status(now) => {
                self.status.now = *now;
                self.has_status = true;
            }
            Found::Drops(drops) => self.drops = Some(drops),
            Found::Figures(seen) => self.services.seen.extend(seen),
            found => debug_assert!(false, "{found:?} was not asked for"),
        }
        match self.drops.take_if(|_| self.has_status && self.services.wanted().is_empty()) {
            Some(drops) => {
                let services = self.services.finish();
                Ok(Box::new(Snapshot { status: self.status, services, drops }))
            }
            None => Err(self),
        }
    }
}

impl Services {
    /// `rows`, whose figures are still 0, and whose they are.
    pub(super) fn new(rows: Vec<Service>, ids: Vec<Id>, next: Option<u64>) -> Self {
        let seen = Vec::with_capacity(ids.len());
        Self { rows, next, ids, seen }
    }

    /// Whose figures to ask for next.
    fn wanted(&self) -> &[Id] {
        let rest = self.ids.get(self.seen.len()..).unwrap_or_default();
        &rest[..rest.len().min(PLACES)]
    }

    fn finish(mut self) -> Vec<Service> {
        let mut seen = self.seen.into_iter();
        for service in &mut self.rows {
            service.figures = seen.next().unwrap_or_default().figures;
            for server in &mut service.servers {
                let Seen { figures, check, is_full } = seen.next().unwrap_or_default();
                (server.figures, server.overloaded) = (figures, is_full);
                if let Some(health) = &mut server.health {
                    health.checking &= check.is_none();
                    health.last = check;
                }
            }
        }
        self.rows
    }
}

fn named(seen: Vec<FlowSeen>, table: &Table) -> Vec<Flow> {
    let row = |flow: FlowSeen| {
        let names = flow.owner.and_then(|(_, server)| table.server(server));
        // Queries have an identifier where ports are: the same on both sides, and of no interest.
        let icmp = flow.protocol == 1;
        let place = |socket: std::net::SocketAddrV4| {
            if icmp { socket.ip().to_string() } else { socket.to_string() }
        };
        Flow {
            protocol: match flow.protocol {
                1 => "icmp".into(),
                6 => "tcp".into(),
                17 => "udp".into(),
                other => other.to_string().into(),
            },
            client: flow.client.to_string(),
            destination: place(flow.destination),
            server: place(flow.server),
            service: names.map(|(service, _)| service.name.clone()),
            server_name: names.map(|(_, server)| server.name.clone()),
            removed: flow.owner.is_some() && names.is_none(),
            state: flow.state.into(),
            assured: flow.assured,
            direct: flow.direct,
            expires_ms: flow.expires.total_millis(),
            packets_in: flow.packets[0].into(),
            packets_out: flow.packets[1].into(),
            bytes_in: flow.bytes[0],
            bytes_out: flow.bytes[1],
        }
    };
    seen.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{ServerId, ServiceId};
    use crate::control::protocol::{self, Figures, Server};
    use crate::control::tests::config;
    use crate::table::{Ids, Standing};

    const CLIENT: Asker = Asker::Client(ClientId::of_test(0));

    fn table() -> Table {
        Table::compile(&config(), None, &mut Ids::default(), |_, _| Standing::GOOD)
    }

    fn reply(found: Found) -> Reply {
        Reply { uptime_us: 7, found }
    }

    /// A service whose servers are more than one question asks for.
    #[test]
    fn figures_are_collected_in_parts_and_land_where_they_belong() {
        const SERVERS: u32 = 2_500;
        let server = |number: u32| Server {
            name: number.to_string(),
            address: String::new(),
            weight: 1,
            configured_weight: 1,
            drained: false,
            max_flows: 0,
            min_flows: 0,
            overloaded: false,
            fallback: false,
            health: None,
            figures: Figures::default(),
        };
        let row = Service {
            name: "web".to_owned(),
            protocol: "tcp".to_owned(),
            address: String::new(),
            method: String::new(),
            scheduler: String::new(),
            scheduler_flags: Vec::new(),
            persistence: None,
            one_packet: false,
            group: None,
            figures: Figures::default(),
            servers: (0..SERVERS).map(server).collect(),
        };
        let servers = (0..SERVERS).map(|number| Id::Server(ServerId(number)));
        let ids = std::iter::once(Id::Service(ServiceId(9))).chain(servers).collect();
        let mut desk = Desk::default();
        let work = Work::Services(Services::new(vec![row], ids, Some(1)));
        desk.add(Job { asker: CLIENT, work });
        let mut parts = Vec::new();
        let answer = loop {
            let Some(Question::Figures(ids)) = desk.question() else { panic!("{desk:?}") };
            desk.asked();
            assert_eq!(desk.question(), None, "one at a time");
            parts.push(ids.len());
            let seen = ids.iter().map(|id| {
                let active = match id {
                    Id::Service(ServiceId(id)) => 1_000_000 + id,
                    Id::Server(ServerId(id)) => *id,
                };
                Seen {
                    figures: Figures { active, ..Figures::default() },
                    check: None,
                    is_full: false,
                }
            });
            if let Some(answer) = desk.take(reply(Found::Figures(seen.collect())), &table()) {
                break answer;
            }
        };
        assert_eq!(parts, [1_024, 1_024, 453]);
        let (CLIENT, Finding::Answer(Answer::Services(page))) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!((page.next, page.uptime_us), (Some(1), 7));
        assert_eq!(page.rows[0].figures.active, 1_000_009);
        let active: Vec<_> = page.rows[0].servers.iter().map(|s| s.figures.active).collect();
        assert_eq!(active, (0..SERVERS).collect::<Vec<_>>());
        assert_eq!(desk.question(), None);
    }

    #[test]
    fn whoever_asks_for_much_lets_others_in_between() {
        let mut desk = Desk::default();
        let ids = (0..3_000).map(|number| Id::Server(ServerId(number))).collect();
        let work = Work::Services(Services::new(Vec::new(), ids, None));
        desk.add(Job { asker: CLIENT, work });
        let other = Asker::Client(ClientId::of_test(1));
        desk.add(Job { asker: other, work: Work::Drops });
        let figures = || reply(Found::Figures(vec![Seen::default(); PLACES]));
        assert!(desk.take(figures(), &table()).is_none());
        assert_eq!(desk.question(), Some(Question::Drops), "although the first is not done");
        let answered = desk.take(reply(Found::Drops(Drops::default())), &table());
        assert_eq!(answered.map(|(asker, _)| asker), Some(other));
        assert!(matches!(desk.question(), Some(Question::Figures(_))));
    }

    #[test]
    fn flows_get_their_names_or_say_that_they_have_none_any_more() {
        let table = table();
        let server = &table.services()[0].servers[1];
        let flow = |owner| FlowSeen {
            protocol: 6,
            client: "198.51.100.7:6000".parse().unwrap(),
            destination: "203.0.113.10:80".parse().unwrap(),
            server: "10.0.0.12:8080".parse().unwrap(),
            owner,
            state: "ESTABLISHED",
            assured: true,
            direct: false,
            expires: crate::time::Duration::from_millis(1_500),
            packets: [4, 3],
            bytes: [400, 300],
        };
        let service = table.services()[0].id;
        let seen = vec![
            flow(Some((service, server.id))),
            flow(Some((service, ServerId(99)))),
            flow(None),
            FlowSeen { protocol: 1, ..flow(None) },
        ];
        let mut desk = Desk::default();
        desk.add(Job { asker: CLIENT, work: Work::Flows(FlowQuery::default()) });
        let answer = desk.take(reply(Found::Flows(seen, Some(1_024))), &table);
        let Some((CLIENT, Finding::Answer(Answer::Flows(page)))) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(page.next, Some(1_024));
        let names: Vec<_> =
            page.rows.iter().map(|row| (row.server_name.as_deref(), row.removed)).collect();
        assert_eq!(names, [(Some("web2"), false), (None, true), (None, false), (None, false)]);
        assert_eq!(page.rows[0].service.as_deref(), Some("web"));
        assert_eq!((page.rows[0].expires_ms, page.rows[0].bytes_out), (1_500, 300));
        let icmp = &page.rows[3];
        assert_eq!((&*icmp.protocol, &*icmp.server), ("icmp", "10.0.0.12"), "without a port");
    }

    #[test]
    fn a_snapshot_is_put_together_from_all_its_parts() {
        for servers in [0, 2_000_u32] {
            let ids: Vec<_> = (0..servers).map(|number| Id::Server(ServerId(number))).collect();
            let services = Services::new(Vec::new(), ids, None);
            let everything = Everything::new(Box::default(), services);
            let mut desk = Desk::default();
            desk.add(Job { asker: CLIENT, work: Work::Everything(Box::new(everything)) });
            let mut asked = Vec::new();
            let found = loop {
                let question = desk.question().unwrap();
                desk.asked();
                let found = match &question {
                    Question::Status => Found::Status(Box::new(protocol::Now {
                        generation: 5,
                        ..protocol::Now::default()
                    })),
                    Question::Drops => {
                        Found::Drops(Drops { answers_not_made: 3, ..Drops::default() })
                    }
                    Question::Figures(ids) => Found::Figures(vec![Seen::default(); ids.len()]),
                    other => panic!("{other:?}"),
                };
                asked.push(question);
                if let Some(found) = desk.take(reply(found), &table()) {
                    break found;
                }
            };
            let (CLIENT, Finding::Snapshot(snapshot)) = found else { panic!("{found:?}") };
            assert_eq!(snapshot.status.now.generation, 5);
            assert_eq!(snapshot.drops.answers_not_made, 3);
            assert_eq!(asked.len(), if servers == 0 { 2 } else { 4 }, "{servers} servers");
        }
    }

    #[test]
    fn an_answer_waits_for_its_generation_or_a_later_one_also_past_the_end() {
        let mut desk = Desk::default();
        let answer = || Answer::Drops(Drops::default());
        desk.wait_for(u32::MAX, CLIENT, answer());
        desk.wait_for(1, Asker::Client(ClientId::of_test(1)), answer());
        assert_eq!(desk.applied(u32::MAX - 1).len(), 0);
        assert_eq!(desk.applied(0).len(), 1, "0 comes after the largest");
        assert_eq!(desk.applied(3).len(), 1);
        assert_eq!(desk.applied(3).len(), 0);
    }
}
