//! The rules of `health`.

use super::*;
use crate::time::Duration;

/// The example with this health, which is right.
fn right(health: &str) -> Health {
    right_with("", health)
}

/// As [`right`], with other lines before it.
fn right_with(lines: &str, health: &str) -> Health {
    let config = match parse(&with(lines, health)) {
        Ok(config) => config,
        Err(mistakes) => panic!("{health}\n{mistakes}"),
    };
    Health::clone(config.services[0].health.as_ref().unwrap())
}

fn with(lines: &str, health: &str) -> String {
    let text = changed("port = 80\n", &format!("port = 80\n{lines}\nhealth = {{ {health} }}\n"));
    // Direct routing changes no port.
    if lines.contains("direct") { text.replacen("port = 8080\n", "", 1) } else { text }
}

/// The one mistake of this health, behind its key.
#[track_caller]
fn mistake(lines: &str, health: &str) -> String {
    let found = wrong(&with(lines, health));
    let [line] = &found[..] else { panic!("{health}: {found:#?}") };
    let line = line.strip_prefix("service[0].health").unwrap_or_else(|| panic!("{line}"));
    line.trim_start_matches('.').to_owned()
}

#[test]
fn what_is_left_out_has_its_default() {
    let second = Duration::from_secs(1);
    let tcp = Health {
        inquiry: Inquiry::Tcp,
        interval: second * 2,
        timeout: second,
        fall: 3,
        rise: 2,
        initially_up: true,
        port: None,
    };
    assert_eq!(right("kind = \"tcp\""), tcp);
    assert_eq!(right("kind = \"ping\"").inquiry, Inquiry::Ping);
    let http = HttpCheck {
        path: "/".to_owned(),
        host: "203.0.113.10".to_owned(),
        status: StatusCodes(vec![200..=399]),
        body: None,
    };
    assert_eq!(right("kind = \"http\""), Health { inquiry: Inquiry::Http(http), ..tcp });
    let udp = UdpCheck { payload: Vec::new(), answer: None };
    assert_eq!(right("kind = \"udp\""), Health { inquiry: Inquiry::Udp(udp), ..tcp });
    let probe = right_with("method = \"direct\"", "kind = \"virtual_ip\"");
    assert_eq!(probe.inquiry, Inquiry::VirtualIp);
    let fast = right("kind = \"tcp\", interval = \"200ms\"");
    assert_eq!(fast.timeout, fast.interval, "one check ends before the next begins");
    assert!(parse(RIGHT).unwrap().services[0].health.is_none());
}

#[test]
fn everything_that_can_be_said() {
    let health = right(
        "kind = \"http\", path = \"/up?x=1\", host = \"www.example.com:81\", status = \"200,300-302\", \
         body = \"ok\", interval = \"5s\", timeout = \"500ms\", fall = 1, rise = 100, initial = \"down\", \
         port = 8081",
    );
    assert_eq!(
        health.to_string(),
        "http /up?x=1 of www.example.com:81, status 200,300-302, body \"ok\", port 8081, every 5s, \
         timeout 500ms, fall 1, rise 100, initial down"
    );
    let Inquiry::Http(HttpCheck { status, .. }) = right("kind = \"http\", status = 204").inquiry
    else {
        panic!("not http")
    };
    assert_eq!(status, StatusCodes(vec![204..=204]));
    let udp = right("kind = \"udp\", payload = { hex = \"00 ff\" }, answer = \"pong\"");
    let expected = UdpCheck { payload: vec![0, 255], answer: Some(b"pong".to_vec()) };
    assert_eq!(udp.inquiry, Inquiry::Udp(expected));
    assert_eq!(
        udp.to_string(),
        "udp 2 bytes, an answer that contains 4 bytes, every 2s, timeout 1s, fall 3, rise 2, \
         initial up"
    );
    // As a section of its own, as long as it comes before the servers.
    let text = RIGHT.replacen("port = 80\n", "port = 80\n[service.health]\nkind = \"ping\"\n", 1);
    assert!(parse(&text).unwrap().services[0].health.is_some());
}

#[test]
fn what_is_wrong_with_any_kind() {
    let form = "as a whole number with a unit, such as";
    for (health, expected) in [
        ("", ".kind: is missing; add \"tcp\", \"http\", \"ping\", \"udp\" or \"virtual_ip\"".to_owned()),
        (
            "kind = \"https\"",
            ".kind: found \"https\"; expected \"tcp\", \"http\", \"ping\", \"udp\" or \"virtual_ip\"".into(),
        ),
        (
            "kind = \"tcp\", interval = \"99ms\"",
            format!(".interval: found \"99ms\"; expected 100ms to 1h {form} \"2s\""),
        ),
        (
            "kind = \"tcp\", interval = 2",
            format!(".interval: found 2; expected 100ms to 1h {form} \"2s\""),
        ),
        (
            "kind = \"tcp\", timeout = \"0ms\"",
            format!(".timeout: found \"0ms\"; expected 10ms to 1m {form} \"1s\""),
        ),
        (
            "kind = \"tcp\", timeout = \"3s\"",
            ".timeout: 3s is longer than the interval, 2s; one check must end before the next begins".into(),
        ),
        ("kind = \"tcp\", fall = 0", ".fall: found 0; expected a whole number from 1 to 100".into()),
        ("kind = \"tcp\", rise = 101", ".rise: found 101; expected a whole number from 1 to 100".into()),
        (
            "kind = \"tcp\", initial = true",
            ".initial: found true; expected \"up\" or \"down\"".into(),
        ),
        (
            "kind = \"tcp\", port = 0",
            ".port: found 0; expected a whole number from 1 to 65535".into(),
        ),
        ("kind = \"tcp\", intervall = \"1s\"", ".intervall: unknown key; did you mean `interval`?".into()),
    ] {
        assert_eq!(format!(".{}", mistake("", health)), expected, "{health}");
    }
    let text = changed("port = 80\n", "port = 80\nhealth = \"tcp\"\n");
    assert_eq!(wrong(&text), ["service[0].health: found \"tcp\"; expected a table"]);
}

#[test]
fn keys_of_another_kind_say_whose_they_are() {
    for (lines, health, expected) in [
        (
            "",
            "kind = \"tcp\", path = \"/\"",
            "path: is for kind = \"http\", not for kind = \"tcp\"; leave it out",
        ),
        (
            "",
            "kind = \"udp\", body = \"ok\"",
            "body: is for kind = \"http\", not for kind = \"udp\"; leave it out",
        ),
        (
            "",
            "kind = \"http\", answer = \"ok\"",
            "answer: is for kind = \"udp\", not for kind = \"http\"; leave it out",
        ),
        (
            "",
            "kind = \"ping\", port = 80",
            "port: is for kind = \"tcp\", \"http\" and \"udp\", not for kind = \"ping\"; leave it out",
        ),
        (
            "method = \"direct\"",
            "kind = \"virtual_ip\", port = 80",
            "port: is for kind = \"tcp\", \"http\" and \"udp\", not for kind = \"virtual_ip\"; leave it out",
        ),
        (
            "",
            "kind = \"virtual_ip\"",
            "kind: \"virtual_ip\" asks a server through the virtual IP, which it holds only with method = \
             \"direct\"; use \"tcp\", or method = \"direct\"",
        ),
    ] {
        assert_eq!(mistake(lines, health), expected, "{health}");
    }
    let text = with("method = \"direct\"", "kind = \"virtual_ip\"");
    let udp = text.replacen("protocol = \"tcp\"", "protocol = \"udp\"", 1);
    assert_eq!(
        wrong(&udp),
        [
            "service[0].health.kind: \"virtual_ip\" is a TCP handshake through the virtual IP, and this \
             service is UDP; use \"udp\" or \"ping\""
        ]
    );
}

#[test]
fn what_is_wrong_with_a_request_or_a_datagram() {
    let status = "a status code such as 200, or codes and ranges in a text such as \"200-299,304\"";
    let path = "a path such as \"/health\": it begins with / and has up to 1,024 printable characters, \
                without spaces";
    let host = "the value of the Host header, such as \"www.example.com\": up to 255 printable \
                characters, without spaces";
    for (health, expected) in [
        ("kind = \"http\", path = \"up\"", format!("path: found \"up\"; expected {path}")),
        (
            "kind = \"http\", path = \"/ HTTP/1.1\\r\\nX: y\"",
            format!("path: found \"/ HTTP/1.1\\r\\nX: y\"; expected {path}"),
        ),
        ("kind = \"http\", host = \"a b\"", format!("host: found \"a b\"; expected {host}")),
        ("kind = \"http\", status = 99", format!("status: found 99; expected {status}")),
        ("kind = \"http\", status = \"2xx\"", format!("status: found \"2xx\"; expected {status}")),
        (
            "kind = \"http\", body = \"\"",
            "body: found \"\"; expected a text of 1 to 256 bytes that the answer's body contains"
                .to_owned(),
        ),
        (
            "kind = \"udp\", payload = { hex = \"0\" }",
            "payload.hex: found \"0\"; expected a text or { hex = \"c0ffee\" }, of 0 to 512 bytes"
                .to_owned(),
        ),
        (
            "kind = \"udp\", payload = {}",
            "payload.hex: is missing; add the bytes in hexadecimal, such as \"c0ffee\"".to_owned(),
        ),
        (
            "kind = \"udp\", answer = \"\"",
            "answer: found \"\"; expected a text or { hex = \"c0ffee\" }, of 1 to 512 bytes"
                .to_owned(),
        ),
    ] {
        assert_eq!(mistake("", health), expected, "{health}");
    }
}

#[test]
fn intervals_are_few() {
    let mut text = RIGHT.to_owned();
    for service in 0..65 {
        let health = format!("health = {{ kind = \"ping\", interval = \"{}s\" }}", service + 1);
        let port = service + 1_000;
        text += &format!(
            "[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.10\"\nport = {port}\n{health}\n"
        );
    }
    assert_eq!(
        wrong(&text),
        [
            "service[65].health: has one interval more than the 64 of the services before; use one of theirs"
        ]
    );
    assert!(parse(&text.replace("interval = \"65s\"", "interval = \"64s\"")).is_ok());
}
