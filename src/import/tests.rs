//! Whole files, in and out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::config;

/// Nothing is around: no files, no names.
pub(super) struct Nothing;

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

/// Some files and some names.
#[derive(Default)]
struct Names {
    files: HashMap<&'static str, &'static str>,
}

impl Surroundings for Names {
    fn include(&mut self, pattern: &str, _: &str) -> io::Result<Vec<(String, String)>> {
        let found = self.files.get(pattern).map(|text| (pattern.to_owned(), (*text).to_owned()));
        Ok(found.into_iter().collect())
    }

    fn host(&mut self, name: &str) -> Option<Ipv4Addr> {
        let last = match name.strip_suffix(".example.com")? {
            "www" => [203, 0, 113, 10],
            "ns" => [203, 0, 113, 53],
            "web1" => [10, 0, 0, 11],
            "web2" => [10, 0, 0, 12],
            _ => return None,
        };
        Some(last.into())
    }

    fn port(&mut self, name: &str) -> Option<u16> {
        let known =
            [("http", 80), ("https", 443), ("webcache", 8080), ("domain", 53), ("smtp", 25)];
        known.iter().find(|(known, _)| *known == name).map(|(_, port)| *port)
    }
}

fn options(kind: Kind) -> Options {
    Options {
        file: "x.conf".to_owned(),
        kind,
        config_id: Some("lvs1".to_owned()),
        kernel_order: false,
    }
}

fn imported(text: &str, kind: Kind) -> Imported {
    import(text, &options(kind), &mut Names::default()).unwrap()
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/import").join(name)
}

/// `tests/data/import/NAME` must come out as NAME.toml and NAME.txt, before `config` has seen it; what it
/// leaves must be valid. `BLESS=1` writes the two anew: read what has changed.
fn golden(name: &str, kind: Kind) {
    let text = std::fs::read_to_string(data(name)).unwrap();
    assert_eq!(Kind::detect(&text), Some(kind), "{name}");
    let (document, files) = compose(&text, &options(kind), &mut Names::default()).unwrap();
    let imported = finish(&document, &files);
    assert!(imported.is_partial(), "{name}");
    let remarks: String = imported.remarks.iter().map(|remark| format!("{remark}\n")).collect();
    for (ending, found) in [("toml", &imported.toml), ("txt", &remarks)] {
        let path = data(&format!("{name}.{ending}"));
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, found).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap();
        assert_eq!(*found, expected, "{}", path.display());
    }
    let imported = self::imported(&text, kind);
    config::parse(&imported.toml).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
}

#[test]
fn ipvsadm_with_names() {
    golden("named.ipvsadm", Kind::Ipvsadm);
}

#[test]
fn ipvsadm_with_numbers() {
    golden("numeric.ipvsadm", Kind::Ipvsadm);
}

#[test]
fn keepalived_of_a_pair() {
    golden("pair.keepalived", Kind::Keepalived);
}

#[test]
fn lvs_cf_of_a_pair() {
    golden("web.lvs.cf", Kind::LvsCf);
}

#[test]
fn kinds_are_told_apart() {
    for (text, kind) in [
        ("", None),
        ("hello\nworld\n", None),
        ("# only\n! comments\n", None),
        ("\n# x\n-A -t 192.0.2.1:80\n", Some(Kind::Ipvsadm)),
        ("#!/bin/sh\n/sbin/ipvsadm -C\n", Some(Kind::Ipvsadm)),
        ("ipvsadm -at 192.0.2.1:80 -r 10.0.0.1\n", Some(Kind::Ipvsadm)),
        ("! x\nglobal_defs\n{\n", Some(Kind::Keepalived)),
        ("virtual_server 192.0.2.1 80 {\n", Some(Kind::Keepalived)),
        ("@a include x\n", Some(Kind::Keepalived)),
        ("serial_no = 1\n", Some(Kind::LvsCf)),
        ("virtual x {\n", Some(Kind::LvsCf)),
    ] {
        assert_eq!(Kind::detect(text), kind, "{text:?}");
    }
}

#[test]
fn files_that_are_included_have_their_own_lines() {
    let mut around = Names::default();
    around.files.insert(
        "more.conf",
        "# nothing\nvirtual_server 192.0.2.1 80 {\n  real_server 10.0.0.1 80 {\n  }\n  odd 1\n}\ninclude more.conf\n",
    );
    let text = "include more.conf\ninclude none.conf\n";
    let imported = import(text, &options(Kind::Keepalived), &mut around).unwrap();
    let lines: Vec<_> = imported.remarks.iter().map(ToString::to_string).collect();
    assert!(
        lines.iter().any(|line| line == "more.conf:5: not carried over: `odd 1`"),
        "{lines:#?}"
    );
    assert!(lines.iter().any(|line| line.starts_with("x.conf:2: ") && line.contains("none.conf")));
    assert!(lines.iter().any(|line| line.contains("nested too deeply")), "{lines:#?}");
    assert!(imported.toml.contains("address = \"192.0.2.1\""));
}

#[test]
fn the_kernels_order_is_the_reverse() {
    let text = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.1 -m\n-a -t 192.0.2.1:80 -r 10.0.0.2 -m\n";
    let order = |kernel_order| {
        let options = Options { kernel_order, ..options(Kind::Ipvsadm) };
        let toml = import(text, &options, &mut Nothing).unwrap().toml;
        let servers = config::parse(&toml).unwrap().services[0].servers.clone();
        servers.iter().map(|server| server.endpoint.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(order(false), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(order(true), ["10.0.0.2:80", "10.0.0.1:80"]);
}

/// A file that has nothing tapvs could not do: code 0.
#[test]
fn what_can_be_carried_over_is() {
    let text = "-A -t 203.0.113.10:80 -s wrr\n-a -t 203.0.113.10:80 -r 10.0.0.1:8080 -m -w 3\n";
    let imported = imported(text, Kind::Ipvsadm);
    assert_eq!(imported.remarks, []);
    let config = config::parse(&imported.toml).unwrap();
    assert_eq!(config.services.len(), 1);
    assert_eq!(config.networks.len(), 2);
}

/// Addresses that no network could have, or that clash, never make a file that is refused.
#[test]
fn addresses_that_clash_are_commented_out() {
    for text in [
        "-A -t 0.0.0.0:80\n-A -t 255.255.255.255:80\n-A -t 127.0.0.1:80\n-A -t 224.0.0.1:80\n",
        "-A -t 10.0.0.255:80\n-A -t 10.0.0.0:80\n-A -t 10.0.0.1:80\n-a -t 10.0.0.1:80 -r 10.0.0.1:80 -m\n",
        "-A -t 10.0.0.1:80\n-a -t 10.0.0.1:80 -r 0.0.0.0 -m\n-a -t 10.0.0.1:80 -r 10.0.0.255 -m\n",
        "-A -t 10.0.0.1:80 -p 0 -s nonsense -b a,b\n-A -t 10.0.0.1:0 -p 99999999999\n-A -t 10.0.0.1:0\n",
        "-A -f 1 -p\n-A -f 4294967295\n-A -f 1 -6\n",
    ] {
        let imported = imported(text, Kind::Ipvsadm);
        config::parse(&imported.toml)
            .unwrap_or_else(|wrong| panic!("{text}\n{wrong}\n{}", imported.toml));
    }
    let mut text = "static_ipaddress {\n10.0.0.1/24 dev eth0\n10.0.0.9/24 dev eth1\n}\n".to_owned();
    text += "static_routes {\n10.0.0.0/24 via 10.0.0.1\n10.1.0.0/16 via 10.0.0.7\n10.1.0.0/16 via 10.0.0.8\n}\n";
    text += "vrrp_instance a {\nvirtual_router_id 0\npriority 0\nadvert_int 0\nvirtual_ipaddress {\n10.0.0.1/24\n}\n}\n";
    let imported = imported(&text, Kind::Keepalived);
    config::parse(&imported.toml).unwrap_or_else(|wrong| panic!("{wrong}\n{}", imported.toml));
}

#[test]
fn what_is_too_much_is_refused_or_said() {
    let long = " ".repeat(LONGEST + 1);
    let refused = import(&long, &options(Kind::LvsCf), &mut Nothing).unwrap_err();
    assert_eq!(refused, ImportError::TooLong);
    let lines = "x\n".repeat(MOST_STATEMENTS + 1);
    for (_, kind) in Kind::WORDS {
        let refused = import(&lines, &options(kind), &mut Nothing).unwrap_err();
        assert_eq!(refused, ImportError::TooMany { most: MOST_STATEMENTS }, "{kind}");
    }
    let deep = "a {\n".repeat(50_000);
    assert!(imported(&deep, Kind::Keepalived).is_partial());
    assert!(imported(&deep, Kind::LvsCf).is_partial());
    let group = "virtual_server_group g {\n10.0.0.0/16 80\n}\n";
    assert!(imported(group, Kind::Keepalived).is_partial());
}

/// Every word of `text` must be found again in the result or in what is said about it.
fn nothing_is_lost(text: &str, kind: Kind) {
    let imported = imported(text, kind);
    let said: String = imported.remarks.iter().map(|remark| format!("{remark}\n")).collect();
    for (number, line) in text.lines().enumerate() {
        if line.contains("unknown") {
            let place = format!("x.conf:{}: not carried over", number + 1);
            assert!(said.contains(&place), "{kind}: {line:?} is not said:\n{said}\n{text}");
        }
    }
    let parsed = config::parse(&imported.toml);
    parsed.unwrap_or_else(|wrong| panic!("{text}\n{wrong}\n{}", imported.toml));
}

fn address() -> impl Strategy<Value = String> {
    prop_oneof![
        (0_u8..4, 0_u8..=255).prop_map(|(net, host)| format!("10.0.{net}.{host}")),
        (0_u8..=255, 0_u8..=255).prop_map(|(a, b)| format!("{a}.0.113.{b}")),
        Just("2001:db8::1".to_owned()),
    ]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), Just(80), Just(443), 0_u16..=65_535]
}

fn ipvsadm_line() -> impl Strategy<Value = String> {
    let service = (address(), port()).prop_map(|(address, port)| match address.contains(':') {
        true => format!("[{address}]:{port}"),
        false => format!("{address}:{port}"),
    });
    let service = service.boxed();
    prop_oneof![
        (service.clone(), "(rr|wlc|sh|mh|sed|none)", 0_u32..9_000).prop_map(
            |(service, scheduler, timeout)| {
                format!("-A -t {service} -s {scheduler} -p {timeout}")
            }
        ),
        (service.clone(), service, "-(g|m|i)", 0_u64..200_000).prop_map(
            |(service, server, method, weight)| format!(
                "-a -t {service} -r {server} {method} -w {weight}"
            )
        ),
        (1_u32..5).prop_map(|mark| format!("-A -f {mark}")),
        (1_u32..5, address()).prop_map(|(mark, server)| format!("-a -f {mark} -r {server} -m")),
        "unknown [ -~]{0,20}".prop_map(|line| line),
    ]
}

fn keepalived_block() -> impl Strategy<Value = String> {
    let server = (address(), port(), "(TCP_CHECK|HTTP_GET|PING_CHECK|UDP_CHECK|DNS_CHECK|unknown)", 0_u32..99_999)
        .prop_map(|(address, port, check, number)| {
            format!("real_server {address} {port} {{\nweight {number}\n{check} {{\ndelay_loop {number}\nretry {number}\n}}\n}}\n")
        });
    let servers = prop::collection::vec(server, 0..4).prop_map(|servers| servers.concat());
    prop_oneof![
        (address(), port(), servers, "(NAT|DR|TUN)", "(TCP|UDP|SCTP)").prop_map(|(address, port, servers, method, protocol)| {
            format!(
                "virtual_server {address} {port} {{\nprotocol {protocol}\nlvs_method {method}\n{servers}unknown 1\n}}\n"
            )
        }),
        (address(), 0_u8..=33, 0_u16..300, 0_u16..300, 0_u32..99_999).prop_map(|(address, length, id, priority, time)| {
            format!(
                "vrrp_instance i{id} {{\ninterface eth{}\nvirtual_router_id {id}\npriority {priority}\nadvert_int {time}\npreempt_delay {time}\nvirtual_ipaddress {{\n{address}/{length}\n}}\nunknown 2\n}}\n",
                id % 3
            )
        }),
        (address(), 0_u8..=33, address()).prop_map(|(to, length, via)| {
            format!("static_routes {{\n{to}/{length} via {via}\n}}\nstatic_ipaddress {{\n{via}/{length} dev eth1\n}}\n")
        }),
        "unknown_[a-z]{0,9} [ -~&&[^{}#!\"'\\\\$@~]]{0,20}".prop_map(|line| format!("{line}\n")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Any text at all: no panic, and a result that is TOML and that `config` accepts.
    #[test]
    fn any_text_is_borne(text in "(?s).{0,400}", words in prop::collection::vec("(-A|-a|-t|-r|-p|\\{|\\}|virtual_server|real_server|url|HTTP_GET|include|\\$A=|\\$A|\\$\\{A\\}|~SEQ\\(A,1,9\\)|~LST\\(A,1\\)|@x|\"|'|\\\\|server|virtual|=|10.0.0.1|10.0.0.1:80|80|\n|\n|\n| )", 0..200)) {
        for text in [text, words.join(" "), words.concat()] {
            for (_, kind) in Kind::WORDS {
                let Ok(imported) = import(&text, &options(kind), &mut Names::default()) else { continue };
                let parsed = config::parse(&imported.toml);
                prop_assert!(parsed.is_ok(), "{:?}\n{}\n{}", text, parsed.unwrap_err(), imported.toml);
            }
        }
    }

    #[test]
    fn ipvsadm_in_any_order(lines in prop::collection::vec(ipvsadm_line(), 0..30)) {
        nothing_is_lost(&lines.join("\n"), Kind::Ipvsadm);
    }

    #[test]
    fn keepalived_in_any_order(blocks in prop::collection::vec(keepalived_block(), 0..12)) {
        nothing_is_lost(&blocks.concat(), Kind::Keepalived);
    }
}
