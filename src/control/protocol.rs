//! What goes over the control socket: JSON objects, one per line, a request and its answer.
//!
//! Answers that can be long come in pages: `next` is what the next request says as `from`; without
//! it, this page was the last. Later versions may add fields to an answer, but not to a request
//! without a new name: an unknown field of a request is refused.

pub mod failover;
mod traced;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::failover::Failover;
pub use self::traced::{NotShown, Out, Traced, TracedFlow, TracedLink, Tracing};

/// The longest request, in bytes, its end of line included.
pub const LONGEST_REQUEST: usize = 64 << 10;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the words are those of the command line, explained there")]
pub enum Request {
    Status {},
    Services {
        #[serde(default)]
        from: u64,
    },
    Flows {
        #[serde(default)]
        from: u64,
        /// Address or prefix of the client.
        #[serde(default)]
        client: Option<String>,
        /// Name, address or address and port of the server.
        #[serde(default)]
        server: Option<String>,
        /// Name of the service.
        #[serde(default)]
        service: Option<String>,
        /// Name of the state.
        #[serde(default)]
        state: Option<String>,
        /// The clients that services remember, rather than flows.
        #[serde(default, skip_serializing_if = "is_false")]
        persistent: bool,
    },
    Neighbours {
        #[serde(default)]
        from: u64,
    },
    Drops {},
    Reload {},
    Drain {
        service: String,
        server: String,
    },
    Undrain {
        service: String,
        server: String,
    },
    Weight {
        service: String,
        server: String,
        weight: u16,
    },
    Failover {
        action: failover::Wish,
    },
    Trace {
        #[serde(default)]
        filter: String,
    },
    Capture {
        #[serde(default)]
        filter: String,
        /// Bytes of each frame, at most.
        snaplen: u32,
    },
}

/// What the router says to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To `status`.
    Status(Box<Status>),
    /// To `services`, in file order.
    Services(Page<Service>),
    /// To `flows`, in no meaningful order; one that lives all through the listing is in it once.
    Flows(Page<Flow>),
    /// To `neighbours`, in no meaningful order.
    Neighbours(Page<Neighbour>),
    /// To `drops`.
    Drops(Drops),
    /// To `reload`.
    Reloaded(Reloaded),
    /// To `drain`, `undrain` and `weight`.
    Changed(Changed),
    /// To `failover`: how things are now.
    Failover(Box<Failover>),
    /// To `trace` and `capture`, once it has begun. From then on there are only the two below.
    Tracing(Tracing),
    /// A packet.
    Traced(Box<Traced>),
    /// Packets for which there was no room.
    NotShown(NotShown),
    /// To what cannot be done.
    Error(Refusal),
}

/// Part of a long list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The entries.
    pub rows: Vec<T>,
    /// Where the next page begins; absent in the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Microseconds since the router's start, when the figures were read.
    pub uptime_us: u64,
}

/// The router as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `[router] name`.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// The configuration.
    pub file: String,
    /// Virtual IPs configured.
    pub virtual_ips: usize,
    /// Services configured.
    pub services: usize,
    /// Servers configured, once per service.
    pub servers: usize,
    /// Of those, how many are drained or have another weight than the file gives them.
    pub overridden: usize,
    /// Of those, how many are down.
    #[serde(default)]
    pub down: usize,
    /// What the loop knows.
    #[serde(flatten)]
    pub now: Now,
}

/// What the loop knows about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Microseconds since the start.
    pub uptime_us: u64,
    /// How often the table has changed, from 1.
    pub generation: u32,
    /// Flows tracked.
    pub flows: usize,
    /// Flows that fit.
    pub max_flows: usize,
    /// Its turns.
    pub turns: Turns,
    /// How frames are moved: `uring` or `syscall`.
    #[serde(default)]
    pub io: Cow<'static, str>,
    /// Where every frame went.
    pub frames: Frames,
    /// The links, in file order.
    pub links: Vec<Link>,
    /// The router's own IP stack.
    pub host: Host,
    /// Who else speaks for the router's addresses.
    pub claims: Vec<Claim>,
    /// With `[failover]`, the role and what it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Box<Failover>>,
    /// With `helper = "ftp"` of any service, what the helper does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ftp: Option<Ftp>,
}

/// The FTP helper: connections that there are, and what has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/operations.md explains them")]
pub struct Ftp {
    pub controls: u64,
    pub data: u64,
    pub awaited: u64,
    pub offers: u64,
    pub connections: u64,
    pub rewritten: u64,
    pub unreadable: u64,
    pub unasked: u64,
    pub refused: u64,
    pub full: u64,
}

/// Somebody else who speaks for one of the router's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The address.
    pub address: String,
    /// Where.
    pub network: String,
    /// Who says that it is theirs.
    pub mac: String,
    /// The address of the real server with this MAC, if it holds the address rightly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// How often it was heard.
    pub count: u64,
    /// Milliseconds since it was first heard.
    pub first_ms: u64,
    /// Milliseconds since it was last heard.
    pub last_ms: u64,
    /// Whether the router kept it from those whom it would mislead.
    pub suppressed: bool,
}

/// Turns of the loop: between two waits, everything else has to wait for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    /// How many there were.
    pub count: u64,
    /// The longest, in microseconds of real time.
    pub longest_us: u64,
    /// How many took longer than a millisecond.
    pub above_1ms: u64,
}

/// Frames since the start: `received + originated + copies` is the sum of the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/operations.md explains them")]
pub struct Frames {
    pub received: u64,
    pub originated: u64,
    pub copies: u64,
    pub sent: u64,
    pub to_host: u64,
    pub to_ha: u64,
    pub split: u64,
    pub consumed: u64,
    pub dropped: u64,
    pub held: u64,
}

/// One link's counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/operations.md explains them")]
pub struct Link {
    pub tap: String,
    pub frames_in: u64,
    pub bytes_in: u64,
    pub frames_out: u64,
    pub bytes_out: u64,
    pub read_errors: u64,
    pub refused: u64,
    pub lost: u64,
    #[serde(default)]
    pub offload: Cow<'static, str>,
    #[serde(default)]
    pub cut: u64,
}

/// Packets of the router's own IP stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/operations.md explains them")]
pub struct Host {
    pub received: u64,
    pub sent: u64,
}

/// What a service or server carries, and has carried since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Flows in an active state now.
    pub active: u32,
    /// All other flows now.
    pub inactive: u32,
    /// Clients that are remembered now.
    #[serde(default)]
    pub persistent: u32,
    /// Flows opened.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes from clients, IP header on.
    pub bytes_in: u64,
    /// Bytes to clients, IP header on.
    pub bytes_out: u64,
    /// The same per second.
    #[serde(default)]
    pub estimate: Estimate,
}

/// What a service or server carries per second, as IPVS estimates it: every two seconds the estimate goes
/// a quarter of the way to what these two seconds were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Flows opened.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes from clients, IP header on.
    pub bytes_in: u64,
    /// Bytes to clients, IP header on.
    pub bytes_out: u64,
}

/// One service with its servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its label.
    pub name: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Where clients find it, with port.
    pub address: String,
    /// How packets reach its servers.
    pub method: String,
    /// How a server is chosen.
    pub scheduler: String,
    /// What the scheduler does differently.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scheduler_flags: Vec<String>,
    /// How its clients are remembered; absent where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// Every UDP datagram is scheduled anew.
    #[serde(default, skip_serializing_if = "is_false")]
    pub one_packet: bool,
    /// The services that are one with it, itself not among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// In file order, then the fallback.
    pub servers: Vec<Server>,
}

/// How clients are remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// Milliseconds since a client's last new flow.
    pub timeout_ms: u64,
    /// So many bits of an address make a client.
    pub prefix: u8,
    /// Not where the server's weight is 0.
    #[serde(default, skip_serializing_if = "is_false")]
    pub expire_quiescent: bool,
}

/// Services that are one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// What they call it.
    pub name: String,
    /// All but the first, in file order.
    pub members: Vec<Member>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its label.
    pub name: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Where clients find it, with port.
    pub address: String,
}

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its label.
    pub name: String,
    /// Where it listens, with port.
    pub address: String,
    /// The weight in use.
    pub weight: u16,
    /// The weight in the file.
    pub configured_weight: u16,
    /// Takes no new flows until `undrain`.
    pub drained: bool,
    /// With so many flows it takes no more; absent where there is no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_flows: u32,
    /// With fewer than so many it takes them again; absent: with fewer than three quarters.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_flows: u32,
    /// It takes no new flows because it has as many as it may have.
    #[serde(default, skip_serializing_if = "is_false")]
    pub overloaded: bool,
    /// Takes new flows when no other server may.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fallback: bool,
    /// Whether it is well; absent when nobody asks it and nothing is known against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Whether a server is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it takes new flows, as far as its health goes.
    pub up: bool,
    /// No check has ended yet: `up` is what the file says of that.
    #[serde(default, skip_serializing_if = "is_false")]
    pub checking: bool,
    /// Milliseconds since it is so.
    pub since_ms: u64,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its last check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastCheck>,
}

/// How the last check of a server went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCheck {
    /// Milliseconds since it ended.
    pub ago_ms: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// Why it failed; absent if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: Cow<'static, str>,
    /// Who opened it.
    pub client: String,
    /// Where to, as the client sees it.
    pub destination: String,
    /// Who answers.
    pub server: String,
    /// The service's name; absent for what is merely routed, and when it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The server's name; absent likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Its service or server is not configured any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub removed: bool,
    /// The TCP state, `UDP` or `ICMP`.
    pub state: Cow<'static, str>,
    /// Both ends have shown that they are there.
    pub assured: bool,
    /// Directly routed: the server's packets are not seen here.
    #[serde(default, skip_serializing_if = "is_false")]
    pub direct: bool,
    /// Milliseconds until it ends, if no packet comes.
    pub expires_ms: u64,
    /// Packets from the client.
    pub packets_in: u64,
    /// Packets to the client.
    pub packets_out: u64,
    /// Bytes from the client, IP header on.
    pub bytes_in: u64,
    /// Bytes to the client, IP header on.
    pub bytes_out: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// One neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The network's name.
    pub network: String,
    /// Its address.
    pub address: String,
    /// Its MAC, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Whether it answers: `incomplete`, `reachable`, `probing` or `failed`.
    pub state: Cow<'static, str>,
    /// A server or gateway of the configuration.
    pub configured: bool,
}

/// Everything that was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// Every reason, in the order of `docs/operations.md`.
    pub reasons: Vec<Drop>,
    /// Answers (ICMP errors, resets) that were not made because there were too many.
    pub answers_not_made: u64,
    /// Microseconds since the router's start.
    pub uptime_us: u64,
}

/// One reason to drop a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    /// Its name.
    pub reason: Cow<'static, str>,
    /// Frames dropped for it.
    pub count: u64,
    /// What it means.
    pub meaning: Cow<'static, str>,
}

/// What became of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The file.
    pub file: String,
    /// The generation in use.
    pub generation: u32,
    /// Whether that is a new one.
    pub changed: bool,
    /// What changed, a line each.
    pub changes: Vec<String>,
}

/// A server whose share was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The service's name.
    pub service: String,
    /// The server's name.
    pub server: String,
    /// The weight now in use.
    pub weight: u16,
    /// The weight in the file.
    pub configured_weight: u16,
    /// Whether it is drained.
    pub drained: bool,
    /// The generation in use.
    pub generation: u32,
    /// Whether that is a new one.
    pub changed: bool,
}

/// Why something was not done. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of reason it is.
    pub reason: Reason,
    /// In words, a line each.
    pub messages: Vec<String>,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Not a request.
    Request,
    /// It names what is not there, or what the state of things forbids.
    Argument,
    /// The file is wrong.
    Configuration,
    /// Too many clients.
    Busy,
}

impl Refusal {
    /// With one message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, messages: vec![message.into()] }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.messages.join("\n"))
    }
}

impl std::error::Error for Refusal {}

impl Request {
    /// Reads one line.
    ///
    /// # Errors
    /// When it is not a request, saying why.
    pub fn parse(line: &[u8]) -> Result<Self, Refusal> {
        serde_json::from_slice(line).map_err(|error| {
            // What is quoted in it may be as long as the request.
            let error: String = error.to_string().chars().take(200).collect();
            let message = format!("{error}; expected a line such as {{\"command\":\"status\"}}");
            Refusal::new(Reason::Request, message)
        })
    }
}

impl Answer {
    /// As a line.
    pub fn to_line(&self) -> Vec<u8> {
        // Only maps with other keys than text cannot be written, and there are none.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_strictly() {
        let flows = Request::parse(br#"{"command":"flows","client":"10.0.0.0/8"}"#).unwrap();
        let Request::Flows { from: 0, client: Some(client), server: None, .. } = flows else {
            panic!("{flows:?}")
        };
        assert_eq!(client, "10.0.0.0/8");
        for (wrong, why) in [
            (&b"status"[..], "expected value"),
            (b"{}", "missing field `command`"),
            (br#"{"command":"halt"}"#, "unknown variant `halt`"),
            (br#"{"command":"status","now":1}"#, "unknown field `now`"),
            (br#"{"command":"drain","service":"web"}"#, "missing field `server`"),
            (br#"{"command":"services","from":-1}"#, "invalid value"),
            (br#"{"command":"weight","service":"a","server":"b","weight":65536}"#, "65536"),
            (br#"{"command":"status"} {"command":"status"}"#, "trailing characters"),
            (&[&b"{\"x\":"[..], &[b'['; 1000]].concat(), "recursion limit"),
            (&[&b"{\"command\":\""[..], &[b'x'; 60_000], b"\"}"].concat(), "unknown variant"),
            (b"\xff\xfe\x00", "expected value"),
            (b"{\"command\":\"\xff\"}", "unicode"),
        ] {
            let refusal = Request::parse(wrong).unwrap_err();
            assert_eq!(refusal.reason, Reason::Request);
            let text = refusal.to_string();
            assert!(text.contains(why), "{}: {text}", String::from_utf8_lossy(wrong));
            assert!(text.len() < 300, "an answer as long as the request: {text}");
        }
    }

    #[test]
    fn an_answer_is_one_line_and_comes_back_the_same() {
        let figures = Figures { active: 1, connections: u64::MAX, ..Figures::default() };
        let server = Server {
            name: "web\n1".to_owned(),
            address: "10.0.0.11:8080".to_owned(),
            weight: 0,
            configured_weight: 3,
            drained: true,
            max_flows: 0,
            min_flows: 0,
            overloaded: false,
            fallback: false,
            health: Some(Health {
                up: false,
                checking: false,
                since_ms: 1,
                reason: Some("connect: refused".to_owned()),
                last: Some(LastCheck { ago_ms: 1, took_us: 2, failure: None }),
            }),
            figures,
        };
        let service = Service {
            name: "web".to_owned(),
            protocol: "tcp".to_owned(),
            address: "203.0.113.10:80".to_owned(),
            method: "nat".to_owned(),
            scheduler: "wlc".to_owned(),
            scheduler_flags: Vec::new(),
            persistence: None,
            one_packet: false,
            group: None,
            figures,
            servers: vec![server],
        };
        let page = Page { rows: vec![service], next: Some(7), uptime_us: 5 };
        let answer = Answer::Services(page);
        let line = answer.to_line();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let text = String::from_utf8(line).unwrap();
        assert!(text.contains(r#""connections":18446744073709551615"#), "flat and whole: {text}");
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
    }
}
