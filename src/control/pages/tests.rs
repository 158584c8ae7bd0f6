//! Requests in, answers out; the loop is played by the tests.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, sync_channel};

use mio::Poll;

use super::*;
use crate::control::protocol::{
    Claim, Drop, Figures, Ftp, Health, LastCheck, Link, Now, Server, Turns,
};
use crate::control::question::{Found, Question, Reply, Seen};
use crate::control::tests::Word;
use crate::control::thread::tests::thread;
use crate::control::{Message, Order};
use crate::links::recorder::logged;
use crate::links::scratch::Scratch;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));
const TOKEN: &str = "0123456789abcdef";

struct Bench {
    thread: Thread<Word>,
    responses: Receiver<(ConnectionId, Response)>,
    orders: Receiver<Order>,
    epoch: u64,
}

impl Bench {
    /// A thread that reads its own file, with a token or without one.
    fn new(scratch: &Scratch, token: bool) -> Self {
        let poll = Poll::new().unwrap();
        let (mut thread, _, orders) = thread(&poll);
        let (sender, responses) = sync_channel(8);
        thread.pages = Pages::new(sender);
        if token {
            let path = scratch.path().join("token");
            std::fs::write(&path, TOKEN).unwrap();
            thread.publisher.set_token(Some(Token::read(&path).unwrap()));
        }
        Self { thread, responses, orders, epoch: 0 }
    }

    /// The answer to a request, with the loop's part played.
    fn ask(&mut self, method: Method, path: &str, token: Option<&str>, body: &str) -> Response {
        self.epoch += 1;
        let id = ConnectionId { place: 0, epoch: self.epoch, peer: PEER };
        let (path, token) = (path.to_owned(), token.map(str::to_owned));
        let request = http::Request { method, path, token, body: body.as_bytes().to_vec() };
        let now = Instant::from_secs(self.epoch as i64 * 100);
        self.thread.handle_page(id, request, now);
        loop {
            if let Ok((to, response)) = self.responses.try_recv() {
                assert_eq!(to, id);
                return response;
            }
            match self.orders.try_recv() {
                Ok(Order::Ask(question)) => {
                    let reply = Reply { uptime_us: 1, found: found(&question) };
                    self.thread.handle_reply(reply, now);
                }
                Ok(order) => panic!("{order:?}"),
                Err(_) => {
                    let generation = self.thread.publisher.generation();
                    self.thread.handle_file(now);
                    self.thread.handle_applied(generation, now);
                }
            }
        }
    }

    fn get(&mut self, path: &str) -> Response {
        self.ask(Method::Get, path, None, "")
    }

    fn post(&mut self, path: &str, body: &str) -> Response {
        self.ask(Method::Post, path, Some(TOKEN), body)
    }
}

fn found(question: &Question) -> Found {
    match question {
        Question::Status => Found::Status(Box::new(Now { generation: 4, ..Now::default() })),
        Question::Drops => Found::Drops(Drops::default()),
        Question::Figures(ids) => Found::Figures(vec![Seen::default(); ids.len()]),
        Question::Failover(_) => Found::Failover(Some(Box::default())),
        other => panic!("{other:?}"),
    }
}

fn text(response: &Response) -> &str {
    std::str::from_utf8(&response.body).unwrap()
}

#[test]
fn every_page_is_there_and_nothing_else() {
    let scratch = Scratch::new("pages-every");
    let mut bench = Bench::new(&scratch, true);
    let index = bench.get("/");
    for line in text(&index).lines().filter(|line| line.contains(" /")) {
        let mut words = line.split_whitespace();
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let (right, wrong) =
            if method == "GET" { (Method::Get, Method::Post) } else { (Method::Post, Method::Get) };
        let body = r#"{"service":"web","server":"web1","weight":2}"#;
        let body = match path {
            "/api/weight" => body,
            "/api/failover" => r#"{"action":"yield"}"#,
            "/api/drain" | "/api/undrain" => r#"{"service":"web","server":"web1"}"#,
            _ => "",
        };
        let found = bench.ask(right, path, Some(TOKEN), body);
        // There is no file to be read again.
        let expected = if path == "/api/reload" {
            http::Status::UnprocessableContent
        } else {
            http::Status::Ok
        };
        assert_eq!(found.status, expected, "{line}: {}", text(&found));
        let refused = bench.ask(wrong, path, Some(TOKEN), "").status;
        assert!(matches!(refused, http::Status::OnlyGet | http::Status::OnlyPost), "{line}");
    }
    for path in ["/metrics/", "/api", "//", "", "/etc/passwd", "/../token"] {
        assert_eq!(bench.get(path).status, http::Status::NotFound, "{path}");
    }
    assert_eq!(text(&bench.get("/healthz")), "ok\n");
    let json: serde_json::Value = serde_json::from_slice(&bench.get("/api/status").body).unwrap();
    assert_eq!(json["status"]["generation"], 4);
    assert_eq!(json["services"][0]["servers"][1]["name"], "web2");
}

#[test]
fn a_command_does_what_the_socket_would() {
    let scratch = Scratch::new("pages-command");
    let mut bench = Bench::new(&scratch, true);
    let drained = bench.post("/api/drain", r#"{"service":"web","server":"web2"}"#);
    assert_eq!(drained.status, http::Status::Ok);
    assert!(
        text(&drained).starts_with(r#"{"changed":{"service":"web","server":"web2","weight":0"#)
    );
    assert_eq!(bench.thread.publisher.generation(), 2);
    for (path, body, why) in [
        ("/api/drain", r#"{"service":"web","server":"web9"}"#, "there are: web1, web2"),
        ("/api/drain", r#"{"service":"web"}"#, "missing field `server`"),
        ("/api/drain", r#"{"service":"web","server":"web1","command":"reload"}"#, "not a field"),
        ("/api/drain", r#"["web","web1"]"#, "no JSON object"),
        ("/api/weight", r#"{"service":"web","server":"web1","weight":-1}"#, "-1"),
        ("/api/reload", r#"{"file":"/etc/passwd"}"#, "unknown field `file`"),
    ] {
        let refused = bench.post(path, body);
        assert_eq!(refused.status, http::Status::BadRequest, "{body}");
        assert!(text(&refused).contains(why), "{body}: {}", text(&refused));
    }
    assert_eq!(bench.thread.publisher.generation(), 2, "nothing else has changed");
}

#[test]
fn nobody_changes_anything_without_the_token() {
    let scratch = Scratch::new("pages-token");
    let body = r#"{"service":"web","server":"web2"}"#;
    let mut closed = Bench::new(&scratch, false);
    let refused = closed.ask(Method::Post, "/api/drain", Some(TOKEN), body);
    assert_eq!(refused.status, http::Status::Forbidden);
    let mut bench = Bench::new(&scratch, true);
    for token in [None, Some(""), Some("0123456789abcdeF"), Some("0123456789abcdef0")] {
        let lines = logged(|| {
            let refused = bench.ask(Method::Post, "/api/drain", token, body);
            assert_eq!(refused.status, http::Status::Unauthorized, "{token:?}");
        });
        let line = "WARN a command for the status page came without the right token client=10.0.0.9 command=drain";
        assert_eq!(lines, [line]);
    }
    assert_eq!(bench.thread.publisher.generation(), 1);
    assert_eq!(bench.post("/api/drain", body).status, http::Status::Ok);
}

/// One of everything, so that every metric has a value.
fn sample() -> Snapshot {
    let figures = Figures { active: 3, connections: 70, bytes_in: 9_000, ..Figures::default() };
    let server = Server {
        name: "we\"b\n1".to_owned(),
        address: "10.0.0.11:8080".to_owned(),
        weight: 2,
        configured_weight: 2,
        drained: false,
        max_flows: 0,
        min_flows: 0,
        overloaded: false,
        fallback: false,
        health: Some(Health {
            up: false,
            checking: false,
            since_ms: 9,
            reason: None,
            last: Some(LastCheck { ago_ms: 3, took_us: 250, failure: None }),
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
    let now = Now {
        uptime_us: 1_500_000,
        turns: Turns { count: 8, longest_us: 250, above_1ms: 0 },
        links: vec![Link {
            tap: "tapvs0".to_owned(),
            frames_in: 11,
            bytes_in: 1,
            frames_out: 1,
            bytes_out: 1,
            read_errors: 0,
            refused: 0,
            lost: 0,
            offload: "tcp+udp".into(),
            cut: 0,
        }],
        claims: vec![Claim {
            address: "203.0.113.10".to_owned(),
            network: "internet".to_owned(),
            mac: "02:00:00:00:00:01".to_owned(),
            server: None,
            count: 5,
            first_ms: 1,
            last_ms: 1,
            suppressed: true,
        }],
        ftp: Some(Ftp { controls: 4, data: 3, offers: 90, refused: 2, ..Ftp::default() }),
        ..Now::default()
    };
    let drop = Drop { reason: "runt".into(), count: 6, meaning: "".into() };
    Snapshot {
        status: Box::new(Status { name: "lvs1".to_owned(), now, ..Status::default() }),
        services: vec![service],
        drops: Drops { reasons: vec![drop], ..Drops::default() },
    }
}

#[test]
fn the_metrics_are_named_by_the_conventions_and_complete() {
    let text = String::from_utf8(metrics::render(&sample())).unwrap();
    for line in [
        r#"tapvs_info{name="lvs1",version=""} 1"#,
        "tapvs_uptime_seconds 1.5",
        "tapvs_loop_longest_turn_seconds 0.00025",
        "# TYPE tapvs_loop_turns_total counter",
        "tapvs_loop_turns_total 8",
        r#"tapvs_drops_total{reason="runt"} 6"#,
        r#"tapvs_link_receive_frames_total{link="tapvs0"} 11"#,
        r#"tapvs_address_claims_total{address="203.0.113.10",network="internet",mac="02:00:00:00:00:01",suppressed="true"} 5"#,
        r#"tapvs_service_active_flows{service="web",protocol="tcp",address="203.0.113.10:80"} 3"#,
        r#"tapvs_server_flows_opened_total{service="web",server="we\"b\n1",address="10.0.0.11:8080"} 70"#,
        r#"tapvs_server_receive_bytes_total{service="web",server="we\"b\n1",address="10.0.0.11:8080"} 9000"#,
        r#"tapvs_server_up{service="web",server="we\"b\n1",address="10.0.0.11:8080"} 0"#,
        r#"tapvs_server_check_duration_seconds{service="web",server="we\"b\n1",address="10.0.0.11:8080"} 0.00025"#,
        r#"tapvs_server_weight{service="web",server="we\"b\n1",address="10.0.0.11:8080"} 2"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    // https://prometheus.io/docs/practices/naming: base units, `_total` for what only grows.
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let [name, kind] = line.split(' ').skip(2).collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
        assert!(
            name.starts_with("tapvs_") && !name.contains("_us") && !name.contains("_ms"),
            "{line}"
        );
        assert!(text.contains(&format!("# HELP {name} ")), "{line}");
        assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{line}");
    }
    assert!(!metrics::render(&Snapshot::default()).is_empty(), "an empty router has metrics");
}

/// Dashboard and alerts are of no use with a name that is not there.
#[test]
fn the_examples_name_metrics_and_labels_that_exist() {
    let text = String::from_utf8(metrics::render(&sample())).unwrap();
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    for example in [
        include_str!("../../../configs/grafana-dashboard.json"),
        include_str!("../../../configs/prometheus.yml"),
    ] {
        let names = example.split(word).filter(|word| word.starts_with("tapvs_"));
        let names: std::collections::BTreeSet<_> = names.collect();
        assert!(names.len() >= 5, "{names:?}");
        for name in names {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }
    let dashboard = include_str!("../../../configs/grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    for expression in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        let legend = expression["legendFormat"].as_str().unwrap();
        let labels = legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap());
        for label in labels.filter(|label| *label != "instance") {
            assert!(text.contains(&format!("{label}=\"")), "{legend}");
        }
    }
}

#[test]
fn a_page_that_nobody_takes_does_not_stop_the_thread() {
    let scratch = Scratch::new("pages-nobody");
    let mut bench = Bench::new(&scratch, false);
    for epoch in 0..100 {
        let id = ConnectionId { place: 0, epoch, peer: PEER };
        let request =
            http::Request { method: Method::Get, path: "/".into(), token: None, body: vec![] };
        bench.thread.handle_message(Message::Page(id, request), Instant::ZERO);
    }
    assert_eq!(bench.responses.try_iter().count(), 8);
}
