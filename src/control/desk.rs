//! Requests whose answer the loop has to help with: one question at a time is out, so the loop has
//! at most one to answer, and everybody who asked has their turn.

use std::collections::VecDeque;
use std::sync::Arc;

use super::protocol::{Answer, Figures, Flow, Page, Reason, Refusal, Server, Service, Status};
use super::question::{FlowQuery, FlowSeen, Found, Id, PLACES, Question, Reply};
use super::socket::ClientId;
use crate::addr::ServerId;
use crate::table::Table;

/// A request that is being worked on.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) client: ClientId,
    pub(super) work: Work,
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
}

/// A page of services, whose figures are being collected.
#[derive(Debug)]
pub(super) struct Services {
    rows: Vec<Service>,
    next: Option<u64>,
    /// Whose figures: each service and then its servers, in the order of `rows`.
    ids: Vec<Id>,
    figures: Vec<Figures>,
}

/// All of them, oldest first.
#[derive(Debug, Default)]
pub(super) struct Desk {
    jobs: VecDeque<Job>,
    asked: bool,
    /// Answers that are true once the loop works with this generation.
    awaited: Vec<(u32, ClientId, Answer)>,
    names: Option<Names>,
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
    pub(super) fn take(&mut self, reply: Reply, table: &Arc<Table>) -> Option<(ClientId, Answer)> {
        self.asked = false;
        let Job { client, work } = self.jobs.pop_front()?;
        let is_flows = matches!(reply.found, Found::Flows(..));
        let names = is_flows.then(|| Names::of(&mut self.names, table));
        match work.take(reply, names) {
            Ok(answer) => Some((client, answer)),
            Err(work) => {
                // Others first.
                self.jobs.push_back(Job { client, work });
                None
            }
        }
    }

    /// Keeps an answer until the loop works with `generation`.
    pub(super) fn wait_for(&mut self, generation: u32, client: ClientId, answer: Answer) {
        self.awaited.push((generation, client, answer));
    }

    /// The answers that are true now.
    pub(super) fn applied(&mut self, generation: u32) -> Vec<(ClientId, Answer)> {
        self.names = None;
        // Generations wrap.
        let is_true = |(wanted, ..): &mut (u32, _, _)| generation.wrapping_sub(*wanted) < 1 << 31;
        self.awaited.extract_if(.., is_true).map(|(_, client, answer)| (client, answer)).collect()
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
        }
    }

    /// The answer, or what is still to be done.
    fn take(
        self,
        Reply { uptime_us, found }: Reply,
        names: Option<&Names>,
    ) -> Result<Answer, Self> {
        let next = |next: Option<usize>| next.and_then(|next| u64::try_from(next).ok());
        Ok(match (self, found) {
            (Self::Status(status), Found::Status(now)) => {
                Answer::Status(Box::new(Status { now: *now, ..*status }))
            }
            (Self::Drops, Found::Drops(drops)) => Answer::Drops(drops),
            (Self::Services(mut services), Found::Figures(figures)) => {
                services.figures.extend(figures);
                if !services.wanted().is_empty() {
                    return Err(Self::Services(services));
                }
                let next = services.next;
                Answer::Services(Page { rows: services.finish(), next, uptime_us })
            }
            (Self::Flows(_), Found::Flows(seen, more)) => {
                Answer::Flows(Page { rows: named(seen, names), next: next(more), uptime_us })
            }
            (Self::Neighbours(_), Found::Neighbours(rows, more)) => {
                Answer::Neighbours(Page { rows, next: next(more), uptime_us })
            }
            (work, found) => {
                debug_assert!(false, "{found:?} is no reply to {work:?}");
                Answer::Error(Refusal::new(Reason::Request, "the router lost the thread: a bug"))
            }
        })
    }
}

impl Services {
    /// `rows`, whose figures are still 0, and whose they are.
    pub(super) fn new(rows: Vec<Service>, ids: Vec<Id>, next: Option<u64>) -> Self {
        let figures = Vec::with_capacity(ids.len());
        Self { rows, next, ids, figures }
    }

    /// Whose figures to ask for next.
    fn wanted(&self) -> &[Id] {
        let rest = self.ids.get(self.figures.len()..).unwrap_or_default();
        &rest[..rest.len().min(PLACES)]
    }

    fn finish(mut self) -> Vec<Service> {
        let mut figures = self.figures.into_iter();
        for service in &mut self.rows {
            service.figures = figures.next().unwrap_or_default();
            for Server { figures: of_server, .. } in &mut service.servers {
                *of_server = figures.next().unwrap_or_default();
            }
        }
        self.rows
    }
}

fn named(seen: Vec<FlowSeen>, names: Option<&Names>) -> Vec<Flow> {
    let row = |flow: FlowSeen| {
        let names = flow.owner.and_then(|(_, server)| names?.find(server));
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
            service: names.map(|(service, _)| service.to_owned()),
            server_name: names.map(|(_, server)| server.to_owned()),
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

/// Servers of one table by id.
#[derive(Debug)]
struct Names {
    table: Arc<Table>,
    /// Positions of service and server, by server id.
    places: Vec<Option<(u32, u32)>>,
}

impl Names {
    fn of<'s>(slot: &'s mut Option<Self>, table: &Arc<Table>) -> &'s Self {
        if slot.as_ref().is_some_and(|names| !Arc::ptr_eq(&names.table, table)) {
            *slot = None;
        }
        slot.get_or_insert_with(|| {
            let (_, limit) = table.id_limits();
            let mut places = vec![None; limit];
            for (at, service) in (0..).zip(table.services()) {
                for (position, server) in (0..).zip(&service.servers) {
                    if let Some(place) = places.get_mut(server.id.index()) {
                        *place = Some((at, position));
                    }
                }
            }
            Self { table: Arc::clone(table), places }
        })
    }

    /// The names of service and server.
    fn find(&self, id: ServerId) -> Option<(&str, &str)> {
        let (service, server) = (*self.places.get(id.index())?)?;
        let service = self.table.services().get(service as usize)?;
        let server = service.servers.get(server as usize)?;
        Some((&service.name, &server.name))
    }
}
