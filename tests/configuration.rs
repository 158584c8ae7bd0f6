//! Configuration files as a whole: every example is valid, and a wrong file lists every mistake.

use std::fs;
use std::path::{Path, PathBuf};

use tapvs::addr::Endpoint;
use tapvs::config::{
    self, Balance, Defend, Forward, Group, Helper, Lifecycle, Method, PassiveHealth, Persistence,
    Scheduler, Server, StatusPage, Timeouts, Unserved,
};
use tapvs::time::Duration;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_example_is_valid() {
    let mut examples = 0;
    for entry in fs::read_dir(path("configs")).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            let text = fs::read_to_string(&file).unwrap();
            if let Err(mistakes) = config::parse(&text) {
                panic!("\n{}", mistakes.display(file.display()));
            }
            examples += 1;
        }
    }
    assert!(examples > 0, "configs/ holds no example");
}

#[test]
fn the_nat_example_says_what_it_means() {
    let config = config::parse(&read("configs/nat.toml")).unwrap();
    let [internet, servers] = &config.networks[..] else { panic!("{:?}", config.networks) };
    assert_eq!(internet.gateway, Some("203.0.113.1".parse().unwrap()));
    assert_eq!((servers.name.as_str(), servers.gateway), ("servers", None));
    assert_eq!((config.routes[0].via, config.routes[0].network), ("10.0.0.9".parse().unwrap(), 1));
    let floats: Vec<_> =
        config.virtual_ips.iter().map(|vip| (vip.address.to_string(), vip.network)).collect();
    assert_eq!(floats, [("203.0.113.10".to_owned(), 0), ("10.0.0.1".to_owned(), 1)]);
    let [web, dns] = &config.services[..] else { panic!("{:?}", config.services) };
    let weights: Vec<_> = web.servers.iter().map(|server| server.weight).collect();
    assert_eq!(weights, [1, 2, 3]);
    let names: Vec<_> = dns.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["10.0.0.21:53", "10.0.0.22:53"]);
}

/// The example claims to show the defaults; so leaving them out must change nothing.
#[test]
fn the_nat_example_shows_the_defaults() {
    let text = read("configs/nat.toml");
    let mut shown = config::parse(&text).unwrap();
    let defaults = [
        "name = \"tapvs\" ",
        "control_socket",
        "watch",
        "forward",
        "unserved",
        "syn_sent ",
        "syn_recv ",
        "established ",
        "fin_wait ",
        "time_wait ",
        "close ",
        "close_wait ",
        "last_ack ",
        "udp ",
        "mtu",
        "method",
        "scheduler = \"wlc\"",
        "scheduler_flags",
        "expire_quiescent",
        "one_packet",
        "on_remove",
        "on_down",
        "weight = 1 ",
        "max_flows = 0 ",
        "min_flows",
    ];
    let mut left_out = Vec::new();
    let bare: String = text
        .split_inclusive('\n')
        .filter(|line| match defaults.iter().find(|key| line.starts_with(**key)) {
            Some(key) => {
                left_out.push(*key);
                false
            }
            None => true,
        })
        .collect();
    assert_eq!(left_out, defaults, "each is in the example, once");
    assert_eq!(config::parse(&bare).unwrap(), shown);
    assert_eq!(shown.router.timeouts, Timeouts::IPVS);
    assert!(!shown.router.watch);
    assert_eq!(shown.router.forward, Forward::ServersOut);
    assert_eq!(shown.router.unserved, Unserved::Reset);
    assert_eq!(shown.services[0].method, Method::Nat);
    assert_eq!(shown.services[0].scheduler, Scheduler::WeightedLeastConnection);

    // What is commented out works as written.
    let uncommented: String = text
        .split_inclusive('\n')
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
                setting
            }
            _ => line,
        })
        .collect();
    let full = config::parse(&uncommented).unwrap();
    shown.router.max_flows = Some(1_000_000);
    shown.networks[0].mss_clamp = Some(1_400);
    shown.networks[0].mac = Some("02:00:5e:00:53:01".parse().unwrap());
    let web = &mut shown.services[0];
    assert_eq!((web.lifecycle, &web.fallback), (Lifecycle::default(), &None));
    web.lifecycle.drain_timeout = Some(Duration::from_secs(600));
    web.lifecycle.helper = Some(Helper::Ftp);
    web.lifecycle.slow_start = Some(Duration::from_secs(30));
    web.lifecycle.passive_health = Some(PassiveHealth::default());
    assert_eq!((web.balance, &web.group), (Balance::default(), &None));
    web.group = Some(Group { name: "site".into(), members: Vec::new() });
    web.balance.persistence = Some(Persistence::default());
    web.balance.timeouts = Some(Timeouts::IPVS);
    // Each key of the check but two is shown with its default.
    let health = uncommented.lines().filter(|line| line.starts_with("health = { kind = \"http\""));
    assert_eq!(health.count(), 1);
    let short: String = uncommented
        .split_inclusive('\n')
        .map(|line| match line.starts_with("health = { kind = \"http\"") {
            true => "health = { kind = \"http\", body = \"ok\" }\n",
            false => line,
        })
        .collect();
    web.health = config::parse(&short).unwrap().services[0].health.clone();
    assert!(web.health.is_some());
    let endpoint = Endpoint { address: "10.0.0.99".parse().unwrap(), port: 8080 };
    web.fallback = Some(Server::new(endpoint.to_string(), endpoint, 1));
    assert_eq!(shown.status_page, None);
    shown.status_page = Some(StatusPage {
        listen: Endpoint { address: "10.0.0.2".parse().unwrap(), port: 9180 },
        token_file: Some("/etc/tapvs/token".into()),
    });
    assert_eq!(full, shown);
}

#[test]
fn the_direct_examples_show_the_defaults_of_their_own_keys() {
    let shown = [
        ("one-network", &["defend", "probe_interval", "#port"][..], 1),
        ("two-networks", &["defend", "probe_interval"], 1),
        ("bridged", &["mac_ageing", "broadcast_limit", "defend"], 2),
    ];
    for (name, keys, links) in shown {
        let text = read(&format!("configs/direct-{name}.toml"));
        let mut config = config::parse(&text).unwrap();
        assert_eq!(config.networks[0].links.len(), links, "{name}");
        assert_eq!(config.services[0].method, Method::Direct, "{name}");
        let is_shown = |line: &&str| keys.iter().any(|key| line.starts_with(&format!("{key} ")));
        assert_eq!(text.lines().filter(is_shown).count(), keys.len(), "{name} shows {keys:?}");
        let bare: Vec<_> = text.lines().filter(|line| !is_shown(line)).collect();
        let full = text.replace("\n#port", "\nport");
        assert_eq!(config::parse(&full).unwrap(), config, "{name}");
        // What is written and what follows from the method are told apart, but mean the same.
        assert_eq!(config.virtual_ips[0].defend.take(), Some(Defend::Unicast), "{name}");
        assert_eq!(config::parse(&bare.join("\n")).unwrap(), config, "{name}");
    }
}

#[test]
fn a_wrong_file_lists_every_mistake() {
    let mistakes = config::parse(&read("tests/data/wrong.toml")).unwrap_err();
    assert_eq!(mistakes.display("wrong.toml").to_string(), read("tests/data/wrong.txt").trim_end());
}

#[test]
fn a_broken_file_lists_what_is_not_toml_and_what_is_wrong_elsewhere() {
    let mistakes = config::parse(&read("tests/data/broken.toml")).unwrap_err();
    assert_eq!(
        mistakes.display("broken.toml").to_string(),
        read("tests/data/broken.txt").trim_end()
    );
}
