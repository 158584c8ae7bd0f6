//! The room as a whole: defaults, what is unknown, what is hostile. `networks`, `services` and `health` try
//! every rule, each by one change to a file that is right.

mod balance;
mod failover;
mod health;
mod networks;
mod services;
mod status_page;

use proptest::prelude::*;

use super::*;
use crate::addr::Proto;
use crate::time::Duration;

const EXAMPLE: &str = include_str!("../../../configs/nat.toml");

const RIGHT: &str = r#"
[router]
name = "lvs1"

[[network]]
name = "internet"
links = ["tapvs0"]
addresses = ["203.0.113.2/24"]
gateway = "203.0.113.1"

[[network]]
name = "servers"
links = ["tapvs1"]
addresses = ["10.0.0.2/24"]

[[route]]
to = "198.51.100.0/24"
via = "10.0.0.9"

[[virtual_ip]]
address = "203.0.113.10"
network = "internet"

[[virtual_ip]]
address = "192.0.2.10"
network = "internet"

[[service]]
protocol = "tcp"
address = "203.0.113.10"
port = 80

[[service.server]]
address = "10.0.0.11"

[[service.server]]
address = "10.0.0.12"
port = 8080
weight = 0
"#;

/// The mistakes of a text as `key: message`.
fn wrong(text: &str) -> Vec<String> {
    let mistakes = parse(text).expect_err("the text is right");
    mistakes.iter().map(|mistake| format!("{}: {}", mistake.key, mistake.message)).collect()
}

/// `RIGHT` with one part changed.
fn changed(from: &str, to: &str) -> String {
    assert!(RIGHT.contains(from), "{from}");
    RIGHT.replacen(from, to, 1)
}

/// Each change leads to exactly one mistake.
#[track_caller]
fn each(changes: &[(&str, &str, &str)]) {
    for (from, to, expected) in changes {
        assert_eq!(wrong(&changed(from, to)), [*expected], "{to}");
    }
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = parse(RIGHT).unwrap();
    assert_eq!(config.router.control_socket, Some("/run/tapvs/lvs1.sock".into()));
    assert_eq!(config.router.max_flows, None);
    assert_eq!(config.router.forward, Forward::ServersOut);
    assert_eq!(config.router.unserved, Unserved::Reset);
    assert_eq!(config.router.timeouts, Timeouts::IPVS);
    assert_eq!(config.networks[0].mtu, 1_500);
    assert_eq!(config.networks[0].mac, None);
    assert_eq!(config.routes[0].network, 1);
    let service = &config.services[0];
    assert_eq!(service.name, "tcp:203.0.113.10:80");
    assert_eq!(service.protocol, Proto::Tcp);
    assert_eq!(service.method, Method::Nat);
    assert_eq!(service.scheduler, Scheduler::WeightedLeastConnection);
    let servers: Vec<_> =
        service.servers.iter().map(|server| (server.name.as_str(), server.weight)).collect();
    assert_eq!(servers, [("10.0.0.11:80", 1), ("10.0.0.12:8080", 0)]);

    let bare = RIGHT.replace("[router]\nname = \"lvs1\"", "");
    assert_eq!(parse(&bare).unwrap().router.name, "tapvs");
}

#[test]
fn what_is_unknown_is_refused() {
    for (section, message) in [
        ("[[servise]]\nport = 1", "servise: unknown key; did you mean `service`?"),
        (
            "[\"a\\nb\"]",
            "\"a\\nb\": unknown key; known here: router, network, virtual_ip, route, masquerade, service, status, failover",
        ),
    ] {
        assert_eq!(wrong(&format!("{RIGHT}\n{section}")), [message]);
    }
}

#[test]
fn masquerades() {
    let with = |from: &str, to: &str| {
        format!("{RIGHT}\n[[masquerade]]\nfrom = \"{from}\"\nto = \"{to}\"\n")
    };
    let config = parse(&with("10.0.0.0/24", "203.0.113.10")).unwrap();
    assert_eq!(
        config.masquerades,
        [Masquerade { from: "10.0.0.0/24".parse().unwrap(), to: "203.0.113.10".parse().unwrap() }]
    );
    assert!(parse(&with("10.0.0.0/24", "203.0.113.2")).is_ok(), "the router's own address");
    assert_eq!(
        wrong(&with("10.0.0.9/24", "203.0.113.11")),
        [
            "masquerade[0].from: 10.0.0.9/24 has host bits; a masquerade is for 10.0.0.0/24",
            "masquerade[0].to: 203.0.113.11 is neither a virtual IP nor the router's own address; \
             answers to it would not come back",
        ]
    );
}

#[test]
fn what_one_mistake_hides_is_not_reported_as_another() {
    // Without the prefix, nobody can say whether the servers, the next hop and the gateway are right.
    assert_eq!(wrong(&changed("\"10.0.0.2/24\"", "\"10.0.0.2/2x\"")).len(), 1);
    assert_eq!(wrong(&changed("\"203.0.113.2/24\"", "\"203.0.113.2\"")).len(), 1);
    assert_eq!(wrong(&changed("address = \"203.0.113.10\"", "address = \"203.0.113\"")).len(), 1);
    assert_eq!(wrong(&changed("name = \"internet\"", "name = 1")).len(), 1);
}

#[test]
fn nothing_at_all() {
    assert_eq!(
        parse("").unwrap_err().display("f").to_string(),
        "f:1:1: network: is missing; add a [[network]] section, at least one"
    );
    let empty = "network = []";
    assert_eq!(wrong(empty), ["network: is missing; add a [[network]] section, at least one"]);
}

#[test]
fn a_text_beyond_the_limit_is_refused_unread() {
    let text = "#".repeat(LONGEST + 1);
    assert_eq!(wrong(&text), [": has 16777217 bytes; a configuration has at most 16777216"]);
}

#[test]
fn deep_and_dense_texts_are_survived() {
    let count = 20_000;
    for text in [
        "a.".repeat(count) + "a = 1",
        format!("[{}a]", "a.".repeat(count)),
        "a = ".to_owned() + &"[".repeat(count),
        "a = ".to_owned() + &"{a = ".repeat(count),
        "]".repeat(count),
        "\"".repeat(count),
        "a = 1\n".repeat(count),
        "[[network]]\n".repeat(count),
        "[[network]]\nname = \"a\"\nlinks = [".to_owned() + &"1,".repeat(count) + "]",
        (0..count).fold(String::new(), |text, key| text + &format!("key{key} = 1\n")),
    ] {
        let mistakes = parse(&text).unwrap_err();
        assert!(mistakes.count() > 0);
        assert!(mistakes.iter().count() <= Mistakes::DESCRIBED);
    }
}

#[test]
fn ten_thousand_services() {
    let mut text = RIGHT.replace("10.0.0.2/24", "10.0.0.2/8");
    for service in 0..10_000 {
        text += "[[service]]\nprotocol = \"udp\"\naddress = \"192.0.2.10\"\n";
        text += &format!("port = {}\n", service + 1);
        for server in 1..=3 {
            let [high, low] = u16::to_be_bytes(service);
            text += &format!("[[service.server]]\naddress = \"10.{server}.{high}.{low}\"\n");
        }
    }
    let config = parse(&text).unwrap();
    assert_eq!(config.services.len(), 10_001);
    assert!(config.services[1..].iter().all(|service| service.servers.len() == 3));
}

/// Whatever the text: no panic, and mistakes that are sorted, placed in the text and a line each.
fn judge(text: &str) {
    let Err(mistakes) = parse(text) else { return };
    assert!(mistakes.count() > 0);
    let places: Vec<_> = mistakes.iter().map(|m| (m.line, m.column)).collect();
    assert!(places.is_sorted());
    let lines = text.split('\n').count();
    assert!(places.iter().all(|(line, column)| (1..=lines).contains(line) && *column > 0));
    let printed = mistakes.display("f").to_string();
    assert_eq!(printed.lines().count(), mistakes.iter().count(), "{printed:?}");
}

/// A piece to put into a file: some are nearly right.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        proptest::sample::select(EXAMPLE.lines().collect::<Vec<_>>()).prop_map(str::to_owned),
        proptest::sample::select(vec![
            "=",
            "\"",
            "[",
            "]]",
            "{",
            "\n",
            "\r",
            "'''",
            "-1",
            "1e999",
            "nan",
            "1979-05-27",
            "10.0.0.1",
            "\"::1\"",
            "\"0.0.0.0/0\"",
            "\"255.255.255.255/32\"",
            "99999999999999999999999",
            "#",
            "\u{0}",
            "[[service]]\n",
            "[[network]]\n",
            "[[service.server]]\n",
            "[router]\n",
            "\u{feff}",
            "é",
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn any_text_is_survived(text in any::<String>()) {
        judge(&text);
    }

    #[test]
    fn any_change_to_a_right_file_is_survived(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0..40_usize, piece()), 1..6),
    ) {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        for (at, removed, put) in changes {
            let start = at.index(text.len() + 1);
            let end = (start + removed).min(text.len());
            text.splice(start..end, put.chars());
        }
        judge(&text.into_iter().collect::<String>());
    }
}
