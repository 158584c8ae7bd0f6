//! The status page: which paths there are, who may change something, and what they answer.
//!
//! Connections are the host's; what the loop knows comes by way of the desk, as for the control socket.

mod metrics;
mod token;

use std::sync::mpsc::SyncSender;

use log::warn;
use serde::Serialize;

use self::token::{Admission, Door};
use super::Notice;
use super::desk::{Asker, Job, Work};
use super::protocol::{Answer, Drops, Reason, Refusal, Request, Service, Status};
use super::thread::Thread;
use crate::http::{self, ConnectionId, Method, Response};
use crate::time::Instant;

pub(super) use self::token::Token;

/// Everything that is told, as it was at one moment or soon after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Snapshot {
    pub(super) status: Box<Status>,
    pub(super) services: Vec<Service>,
    pub(super) drops: Drops,
}

/// What a snapshot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Metrics,
    Json,
}

/// The way back to the connections, and who has tried to get in.
#[derive(Debug)]
pub(super) struct Pages {
    responses: SyncSender<(ConnectionId, Response)>,
    door: Door,
}

const INDEX: &str = "\
tapvs

GET  /metrics      for Prometheus
GET  /api/status   everything, as JSON
GET  /healthz      ok while the router works
POST /api/reload   reads the configuration again
POST /api/drain    {\"service\": \"web\", \"server\": \"web1\"}
POST /api/undrain  {\"service\": \"web\", \"server\": \"web1\"}
POST /api/weight   {\"service\": \"web\", \"server\": \"web1\", \"weight\": 2}
POST /api/failover {\"action\": \"yield\"} or {\"action\": \"resume\"}

POST needs the token of [status] token_file: Authorization: Bearer TOKEN
";

/// What a path is good for.
enum Page {
    Index,
    Health,
    View(View),
    /// A request of the control socket.
    Command(&'static str),
}

impl Page {
    fn find(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Index,
            "/healthz" => Self::Health,
            "/metrics" => Self::View(View::Metrics),
            "/api/status" => Self::View(View::Json),
            "/api/reload" => Self::Command("reload"),
            "/api/drain" => Self::Command("drain"),
            "/api/undrain" => Self::Command("undrain"),
            "/api/weight" => Self::Command("weight"),
            "/api/failover" => Self::Command("failover"),
            _ => return None,
        })
    }
}

impl Pages {
    pub(super) fn new(responses: SyncSender<(ConnectionId, Response)>) -> Self {
        Self { responses, door: Door::default() }
    }

    /// Sends an answer on its way. It gets lost when nobody takes answers any more; whoever waits
    /// for it is then told so by the host.
    fn respond(&self, id: ConnectionId, response: Response) {
        let _ = self.responses.try_send((id, response));
    }
}

impl<N: Notice> Thread<N> {
    /// Answers a request of the status page, now or when the loop has said what it knows.
    pub(super) fn handle_page(&mut self, id: ConnectionId, request: http::Request, now: Instant) {
        let refuse = |status, why: &str| Some(Response::refusal(status, why));
        let response = match (Page::find(&request.path), request.method) {
            (None, _) => refuse(http::Status::NotFound, "no such page; / lists them"),
            (Some(Page::Command(_)), Method::Get) => {
                refuse(http::Status::OnlyPost, "this page changes something: use POST")
            }
            (Some(Page::Command(command)), Method::Post) => {
                self.handle_post(id, command, &request, now)
            }
            (Some(_), Method::Post) => {
                refuse(http::Status::OnlyGet, "this page changes nothing: use GET")
            }
            (Some(Page::Index), Method::Get) => Some(Response::text(http::Status::Ok, INDEX)),
            (Some(Page::Health), Method::Get) => Some(Response::text(http::Status::Ok, "ok\n")),
            (Some(Page::View(view)), Method::Get) => {
                let work = Work::Everything(Box::new(self.everything(now)));
                self.desk.add(Job { asker: Asker::Page(id, view), work });
                self.ask_loop();
                None
            }
        };
        if let Some(response) = response {
            self.pages.respond(id, response);
            self.frame_loop.wake();
        }
    }

    /// Gives a connection what it has asked for.
    pub(super) fn show(&self, id: ConnectionId, view: View, snapshot: &Snapshot) {
        let response = match view {
            View::Metrics => Response {
                status: http::Status::Ok,
                content_type: metrics::CONTENT_TYPE,
                body: metrics::render(snapshot),
            },
            View::Json => Response::json(http::Status::Ok, json(snapshot)),
        };
        self.pages.respond(id, response);
        self.frame_loop.wake();
    }

    /// Tells a connection what came of its command.
    pub(super) fn tell_page(&self, id: ConnectionId, answer: &Answer) {
        self.pages.respond(id, of_answer(answer));
        self.frame_loop.wake();
    }

    fn handle_post(
        &mut self,
        id: ConnectionId,
        command: &str,
        request: &http::Request,
        now: Instant,
    ) -> Option<Response> {
        let Some(token) = self.publisher.token() else {
            let why = "nothing can be changed here: the configuration has no [status] token_file";
            return Some(Response::refusal(http::Status::Forbidden, why));
        };
        match self.pages.door.admit(token, request.token.as_deref(), id.peer, now) {
            Admission::Granted => {}
            Admission::Denied => {
                warn!(client:% = id.peer, command; "a command for the status page came without the right token");
                let why = "expected the header Authorization: Bearer TOKEN, with the right token";
                return Some(Response::refusal(http::Status::Unauthorized, why));
            }
            Admission::TooOften => {
                let why = "too many wrong tokens from your address; wait ten seconds";
                return Some(Response::refusal(http::Status::TooManyRequests, why));
            }
        }
        match command_of(command, &request.body) {
            Ok(request) => {
                self.do_request(Asker::Command(id), request, now);
                self.ask_loop();
                None
            }
            Err(refusal) => Some(of_answer(&Answer::Error(refusal))),
        }
    }
}

/// A command of the control socket: its fields are the body's.
fn command_of(command: &str, body: &[u8]) -> Result<Request, Refusal> {
    let mut fields = if body.trim_ascii().is_empty() {
        serde_json::Map::new()
    } else {
        serde_json::from_slice(body).map_err(|error| {
            let message = format!("the body is no JSON object: {error}");
            Refusal::new(Reason::Request, message)
        })?
    };
    if fields.contains_key("command") {
        return Err(Refusal::new(Reason::Request, "the command is the path, not a field"));
    }
    fields.insert("command".to_owned(), command.into());
    Request::parse(&json(&fields))
}

fn of_answer(answer: &Answer) -> Response {
    let status = match answer {
        Answer::Error(refusal) => match refusal.reason {
            Reason::Request | Reason::Argument => http::Status::BadRequest,
            Reason::Configuration => http::Status::UnprocessableContent,
            Reason::Busy => http::Status::ServiceUnavailable,
        },
        _ => http::Status::Ok,
    };
    Response::json(status, answer.to_line())
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Only maps with other keys than text cannot be written, and there are none.
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
