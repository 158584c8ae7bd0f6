//! The rules of `[failover]`.

use super::*;

const PAIR: &str = r#"
[[failover.network]]
network = "internet"
virtual_router_id = 51

[[failover.network]]
network = "servers"
virtual_router_id = 52
"#;

/// `RIGHT` with `keys` in `[failover]`, and both networks.
fn with(keys: &str) -> String {
    format!("{RIGHT}\n[failover]\n{keys}\n{PAIR}")
}

fn with_sync(keys: &str) -> String {
    format!("{}\n[failover.sync]\n{keys}\n", with(""))
}

fn failover(text: &str) -> Failover {
    parse(text).unwrap().failover.unwrap()
}

#[test]
fn without_it_there_is_none_and_with_it_the_rest_has_defaults() {
    assert_eq!(parse(RIGHT).unwrap().failover, None);
    let member = |network, virtual_router_id| FailoverNetwork {
        network,
        virtual_router_id,
        track_gateway: false,
        peers: Vec::new(),
    };
    assert_eq!(
        failover(&with("")),
        Failover {
            version: VrrpVersion::V3,
            priority: 100,
            advert_interval: Duration::from_millis(100),
            preempt: true,
            preempt_delay: Duration::ZERO,
            checksum: AdvertChecksum::PseudoHeader,
            networks: vec![member(0, 51), member(1, 52)],
            sync: None,
        }
    );
    assert_eq!(failover(&with("version = 2")).advert_interval, Duration::from_secs(1));
}

#[test]
fn every_key() {
    let all = "version = 3\npriority = 200\nadvert_interval = \"10ms\"\npreempt = false\n\
               preempt_delay = \"60s\"\nchecksum = \"message\"";
    let found = failover(&with(all));
    assert_eq!(found.priority, 200);
    assert_eq!(found.advert_interval, Duration::from_millis(10));
    assert!(!found.preempt);
    assert_eq!(found.preempt_delay, Duration::from_secs(60));
    assert_eq!(found.checksum, AdvertChecksum::Message);
    let tracked = with("").replacen("= 51", "= 51\ntrack_gateway = true", 1);
    assert!(failover(&tracked).networks[0].track_gateway);
    let listed = with("").replacen("= 52", "= 52\npeers = [\"10.0.0.3\", \"10.0.0.4\"]", 1);
    let peers: [std::net::Ipv4Addr; 2] = ["10.0.0.3", "10.0.0.4"].map(|peer| peer.parse().unwrap());
    assert_eq!(failover(&listed).networks[1].peers, peers);
    let digits = "00".repeat(31) + "fF";
    let sync = "network = \"servers\"\npeer = \"10.0.0.3\"\n";
    let found = failover(&with_sync(&format!("{sync}key = \"{digits}\""))).sync.unwrap();
    let mut key = [0; 32];
    key[31] = 0xff;
    assert_eq!(
        found,
        FlowSync {
            network: 1,
            peer: "10.0.0.3".parse().unwrap(),
            port: 8_848,
            key: SyncKey::Bytes(key),
            sync_timeout: Duration::from_secs(30),
            authenticate_adverts: false,
        }
    );
    assert!(!format!("{found:?}").contains("255"), "the key is not shown");
    let rest = "key_file = \"/etc/tapvs/sync.key\"\nport = 9000\nsync_timeout = \"5s\"\n\
                authenticate_adverts = true";
    let found = failover(&with_sync(&format!("{sync}{rest}"))).sync.unwrap();
    assert_eq!(found.key, SyncKey::File("/etc/tapvs/sync.key".into()));
    assert_eq!((found.port, found.sync_timeout), (9_000, Duration::from_secs(5)));
    assert!(found.authenticate_adverts);
}

#[test]
fn adverts() {
    let interval = |found: &str| {
        format!(
            "failover.advert_interval: found {found:?}; expected 10ms to 40950ms in steps of 10ms, \
             such as \"100ms\""
        )
    };
    let seconds = |found: &str| {
        format!(
            "failover.advert_interval: found {found:?}; expected 1s to 255s in whole seconds, which \
             is all that version 2 can say"
        )
    };
    for (keys, message) in [
        (
            "version = 4",
            "failover.version: found 4; expected a whole number from 2 to 3".to_owned(),
        ),
        (
            "priority = 0",
            "failover.priority: found 0; expected a whole number from 1 to 255".into(),
        ),
        ("advert_interval = \"9ms\"", interval("9ms")),
        ("advert_interval = \"15ms\"", interval("15ms")),
        ("advert_interval = \"41s\"", interval("41s")),
        ("version = 2\nadvert_interval = \"100ms\"", seconds("100ms")),
        ("version = 2\nadvert_interval = \"1500ms\"", seconds("1500ms")),
        (
            "version = 2\nchecksum = \"message\"",
            "failover.checksum: is for version 3; version 2 has one form; leave it out".into(),
        ),
        ("prioritty = 1", "failover.prioritty: unknown key; did you mean `priority`?".into()),
    ] {
        assert_eq!(wrong(&with(keys)), [message], "{keys}");
    }
}

#[test]
fn networks() {
    for (from, to, messages) in [
        (
            "network = \"servers\"\nvirtual_router_id",
            "network = \"internet\"\nvirtual_router_id",
            &["failover.network[1].network: is listed twice; list each network once"][..],
        ),
        (
            "network = \"servers\"\nvirtual_router_id",
            "network = \"server\"\nvirtual_router_id",
            &[
                "failover.network[1].network: \"server\" is not a network; expected \"internet\" or \"servers\"",
            ],
        ),
        (
            "virtual_router_id = 51",
            "virtual_router_id = 256",
            &[
                "failover.network[0].virtual_router_id: found 256; expected a whole number from 1 to 255",
            ],
        ),
        (
            "virtual_router_id = 51",
            "",
            &[
                "failover.network[0].virtual_router_id: is missing; add a number from 1 to 255 that both routers have",
            ],
        ),
        (
            "virtual_router_id = 52",
            "virtual_router_id = 52\ntrack_gateway = true",
            &[
                "failover.network[1].track_gateway: the network \"servers\" has no gateway; give it one or leave this out",
            ],
        ),
    ] {
        let text = with("");
        assert!(text.contains(from), "{from}");
        assert_eq!(wrong(&text.replacen(from, to, 1)), messages, "{to}");
    }
    assert_eq!(
        wrong(&format!("{RIGHT}\n[failover]\n")),
        ["failover.network: is missing; add a [[failover.network]] section, at least one"]
    );
    let left_out = PAIR.split("[[failover.network]]").nth(2).unwrap();
    let alone = format!("{RIGHT}\n[failover]\n[[failover.network]]{left_out}");
    assert_eq!(
        wrong(&alone),
        ["failover: 203.0.113.10 floats on the network \"internet\", which has no \
          [[failover.network]]; add one"]
    );
}

#[test]
fn copying_flows() {
    let right = format!(
        "network = \"servers\"\npeer = \"10.0.0.3\"\nkey = \"{}\"",
        "0123456789abcdef".repeat(4)
    );
    assert!(parse(&with_sync(&right)).is_ok());
    let key = "failover.sync.key: is not a key; expected 64 hex digits, such as `openssl rand -hex 32` prints";
    for (from, to, message) in [
        (
            "10.0.0.3",
            "10.0.0.2",
            "failover.sync.peer: 10.0.0.2 is the router's own address; name another host",
        ),
        (
            "10.0.0.3",
            "203.0.113.10",
            "failover.sync.peer: 203.0.113.10 is a virtual IP; name another host",
        ),
        (
            "10.0.0.3",
            "203.0.113.3",
            "failover.sync.peer: 203.0.113.3 lies outside the prefixes of the network \"servers\"; name the other router's own address there",
        ),
        ("0123456789abcdef", "0123456789abcdeg", key),
        ("0123456789abcdef", "0123456789abcde", key),
        (
            "key = ",
            "key_file = \"/k\"\nkey = ",
            "failover.sync.key_file: comes beside key; keep one of the two",
        ),
        (
            "key = \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"",
            "",
            "failover.sync.key: is missing; add 64 hex digits that both routers have, or key_file",
        ),
        (
            "network = \"servers\"\npeer",
            "peer",
            "failover.sync.network: is missing; add the name of a network that both routers are in",
        ),
    ] {
        assert!(right.contains(from), "{from}");
        let found = wrong(&with_sync(&right.replacen(from, to, 1)));
        assert_eq!(found, [message], "{to}");
        let secret = "bcdef0123456789";
        assert!(!found.concat().contains(secret), "what may be a secret is not repeated");
    }
}
