//! `tapvs import` over the samples that come with keepalived: each becomes a file that tapvs accepts, and
//! every line that could not be carried over is named.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use tapvs::config;
use tapvs::import::{Imported, Kind, Options, Surroundings, Weight, import};

/// Where Debian's package puts them.
const SAMPLES: &str = "/usr/share/doc/keepalived/samples";

struct Nothing;

impl Surroundings for Nothing {
    fn include(&mut self, _: &str, _: &str) -> io::Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn host(&mut self, _: &str) -> Option<Ipv4Addr> {
        None
    }

    fn port(&mut self, _: &str) -> Option<u16> {
        None
    }
}

/// Every configuration; there are a few scripts beside them.
fn samples() -> Vec<PathBuf> {
    let entries = fs::read_dir(SAMPLES)
        .unwrap_or_else(|error| panic!("{SAMPLES}: {error}; it comes with Debian's keepalived"));
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_one = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("keepalived.conf"))
    };
    let mut samples: Vec<_> = paths.filter(is_one).collect();
    samples.sort();
    assert!(samples.len() >= 20, "only {samples:?}");
    samples
}

fn read(path: &Path, config_id: Option<&str>) -> (String, Imported) {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    assert_eq!(Kind::detect(&text), Some(Kind::Keepalived), "{}", path.display());
    let options = Options {
        file: path.file_name().unwrap().to_string_lossy().into_owned(),
        kind: Kind::Keepalived,
        config_id: config_id.map(str::to_owned),
        kernel_order: false,
    };
    let imported = import(&text, &options, &mut Nothing).unwrap();
    (text, imported)
}

fn sample(name: &str, config_id: Option<&str>) -> Imported {
    read(&Path::new(SAMPLES).join(name), config_id).1
}

fn config(imported: &Imported) -> config::Config {
    config::parse(&imported.toml).unwrap_or_else(|wrong| panic!("{wrong}\n{}", imported.toml))
}

#[test]
fn every_sample_becomes_a_valid_file() {
    for path in samples() {
        let (_, imported) = read(&path, None);
        let parsed = config::parse(&imported.toml);
        parsed.unwrap_or_else(|wrong| panic!("{}: {wrong}\n{}", path.display(), imported.toml));
    }
}

/// A keyword of no use to tapvs is named by its line, wherever it stands.
#[test]
fn what_is_not_carried_over_is_named() {
    let keywords = [
        "notification_email_from",
        "smtp_server",
        "smtp_alert",
        "notify_master",
        "track_script",
        "digest",
        "virtual_rules",
        "static_rules",
        "quorum_up",
        "omega",
        "misc_path",
        "auth_type",
        "bindto",
    ];
    let mut found = 0;
    for path in samples() {
        let (text, imported) = read(&path, None);
        for (number, line) in text.lines().enumerate() {
            let word = line.split_whitespace().next().unwrap_or_default();
            if !keywords.contains(&word) {
                continue;
            }
            found += 1;
            // By its own line, or by that of the block it stands in.
            let is_near = |said: u32| said as usize <= number + 1 && said as usize + 12 > number;
            let mut lost = imported.remarks.iter().filter(|r| r.weight == Weight::Lost);
            let is_said = lost.any(|remark| is_near(remark.line));
            assert!(is_said, "{}:{}: {line}", path.display(), number + 1);
        }
    }
    assert!(found > 40, "{found}");
}

#[test]
fn the_main_sample_keeps_its_meaning() {
    let config = config(&sample("keepalived.conf.sample", None));
    assert_eq!(config.router.name, "LVS_DEVEL");
    let service = &config.services[0];
    assert_eq!((service.address.to_string(), service.port), ("10.10.10.2".to_owned(), 1358));
    assert_eq!(service.servers[0].endpoint.to_string(), "192.168.200.2:1358");
    let health = service.health.as_ref().unwrap();
    assert_eq!((health.interval.secs(), health.timeout.secs(), health.fall), (6, 3, 4));
    let fallback = service.fallback.as_ref().unwrap();
    assert_eq!(fallback.endpoint.to_string(), "192.168.200.200:1358");
    let failover = config.failover.unwrap();
    assert_eq!((failover.priority, failover.preempt), (100, false));
    assert_eq!(failover.networks[0].virtual_router_id, 50);
    assert!(config.virtual_ips.iter().any(|vip| vip.address.to_string() == "192.168.200.13"));
}

#[test]
fn conditions_follow_the_id() {
    let priority = |id| {
        let config = config(&sample("keepalived.conf.conditional_conf", id));
        config.failover.unwrap().priority
    };
    assert_eq!(priority(Some("high")), 170);
    assert_eq!(priority(Some("low")), 85);
    assert_eq!(priority(None), 100);
}

#[test]
fn a_group_is_one_service_for_each_address() {
    let config = config(&sample("keepalived.conf.virtual_server_group", None));
    // Three single addresses, a range of eight, two marks.
    assert_eq!(config.services.len(), 13);
}

#[test]
fn routes_are_routes() {
    let config = config(&sample("keepalived.conf.vrrp.routes", None));
    let routes: Vec<_> =
        config.routes.iter().map(|route| format!("{} {}", route.to, route.via)).collect();
    assert!(routes.contains(&"192.168.210.0/24 192.168.200.254".to_owned()), "{routes:?}");
    assert!(routes.contains(&"192.168.112.0/24 192.168.100.254".to_owned()), "{routes:?}");
}
