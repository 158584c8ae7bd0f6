//! `health = { ... }` of a service: how its servers are asked whether they are well.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::duration;
use super::model::{Health, HttpCheck, Inquiry, Method, StatusCodes, UdpCheck};
use super::section::{At, Section, Value};
use crate::addr::Proto;
use crate::time::Duration;

/// Services may not have more intervals than this among them: each is a schedule of its own.
pub(super) const MOST_INTERVALS: usize = 64;

/// What a check must know of its service; `None`: not known, because of a mistake elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    pub(super) protocol: Option<Proto>,
    pub(super) address: Option<SocketAddr>,
    pub(super) method: Method,
}

/// Reads the table.
pub(super) fn read(value: Value<'_>, service: Service) -> Option<Health> {
    let mut section = value.section()?;
    let kind = section
        .require("kind", "\"tcp\", \"http\", \"ping\", \"udp\" or \"virtual_ip\"")
        .and_then(|value| value.choice(&KINDS, &[]));
    let interval = section.get("interval").map(|value| value.parse(INTERVAL, interval));
    let timeout = section.get("timeout").map(|value| value.parse(TIMEOUT, timeout));
    let fall = section.get("fall").and_then(|value| value.integer(TIMES));
    let rise = section.get("rise").and_then(|value| value.integer(TIMES));
    let initial = section.get("initial").and_then(|value| value.choice(&INITIAL, &[]));
    let Some(kind) = kind else {
        // Without a kind nobody can say which keys belong here.
        return None;
    };
    let has_all_ports = service.address.is_some_and(|address| address.port() == 0);
    let fits = suits(&kind, service);
    let port = match kind.value {
        Kind::Ping | Kind::VirtualIp => None,
        Kind::Tcp | Kind::Http | Kind::Udp => {
            let port = section.get("port");
            if has_all_ports && port.is_none() {
                section.missing("port", "the port to ask at: the service has all of them");
            }
            port.and_then(|value| value.integer(1..=65_535))
        }
    };
    let inquiry = match kind.value {
        Kind::Tcp => Some(Inquiry::Tcp),
        Kind::Http => http(&mut section, service.address).map(Inquiry::Http),
        Kind::Ping => Some(Inquiry::Ping),
        Kind::Udp => udp(&mut section).map(Inquiry::Udp),
        Kind::VirtualIp => Some(Inquiry::VirtualIp),
    };
    for (key, kinds, why) in BELONGS {
        if !kinds.contains(&kind.value) {
            section.stray(key, &format!("{why}, not for kind = \"{}\"", word(kind.value)));
        }
    }
    section.finish();
    // What was written and is wrong has no default.
    let interval = interval.map_or(Some(DEFAULT_INTERVAL), |at| at.map(|at| at.value))?;
    let timeout = match timeout {
        None => DEFAULT_TIMEOUT.min(interval),
        Some(at) => at?.check(|timeout| no_longer(*timeout, interval))?.value,
    };
    fits.then_some(())?;
    Some(Health {
        inquiry: inquiry?,
        interval,
        timeout,
        fall: fall.map_or(3, |at| at.value),
        rise: rise.map_or(2, |at| at.value),
        initially_up: initial.is_none_or(|at| at.value),
        port: port.map(|at| at.value),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Http,
    Ping,
    Udp,
    VirtualIp,
}

const KINDS: [(&str, Kind); 5] = [
    ("tcp", Kind::Tcp),
    ("http", Kind::Http),
    ("ping", Kind::Ping),
    ("udp", Kind::Udp),
    ("virtual_ip", Kind::VirtualIp),
];

const INITIAL: [(&str, bool); 2] = [("up", true), ("down", false)];

/// Keys that only some kinds have, and what they are for.
const BELONGS: [(&str, &[Kind], &str); 7] = [
    ("port", &[Kind::Tcp, Kind::Http, Kind::Udp], "is for kind = \"tcp\", \"http\" and \"udp\""),
    ("path", &[Kind::Http], FOR_HTTP),
    ("host", &[Kind::Http], FOR_HTTP),
    ("status", &[Kind::Http], FOR_HTTP),
    ("body", &[Kind::Http], FOR_HTTP),
    ("payload", &[Kind::Udp], FOR_UDP),
    ("answer", &[Kind::Udp], FOR_UDP),
];
const FOR_HTTP: &str = "is for kind = \"http\"";
const FOR_UDP: &str = "is for kind = \"udp\"";

fn word(kind: Kind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(word, _)| word)
}

/// A probe through the virtual IP is a TCP handshake with a server that holds the address.
fn suits(kind: &At<'_, Kind>, service: Service) -> bool {
    if kind.value != Kind::VirtualIp {
        return true;
    }
    if service.method != Method::Direct {
        kind.place.wrong(
            "\"virtual_ip\" asks a server through the virtual IP, which it holds only with method = \
             \"direct\"; use \"tcp\", or method = \"direct\"",
        );
        return false;
    }
    if service.address.is_some_and(|address| address.port() == 0) {
        kind.place.wrong(
            "\"virtual_ip\" asks at the service's port, and this one has all of them; use \"tcp\" with a \
             port, or \"ping\"",
        );
        return false;
    }
    if service.protocol == Some(Proto::Udp) {
        kind.place.wrong(
            "\"virtual_ip\" is a TCP handshake through the virtual IP, and this service is UDP; use \
             \"udp\" or \"ping\"",
        );
        return false;
    }
    true
}

const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// In a row.
const TIMES: RangeInclusive<i64> = 1..=100;

const INTERVAL: &str = "100ms to 1h as a whole number with a unit, such as \"2s\"";
const TIMEOUT: &str = "10ms to 1m as a whole number with a unit, such as \"1s\"";

fn interval(text: &str) -> Option<Duration> {
    let allowed = Duration::from_millis(100)..=Duration::from_secs(60 * 60);
    duration::parse(text).filter(|interval| allowed.contains(interval))
}

fn timeout(text: &str) -> Option<Duration> {
    let allowed = Duration::from_millis(10)..=Duration::from_secs(60);
    duration::parse(text).filter(|timeout| allowed.contains(timeout))
}

fn no_longer(timeout: Duration, interval: Duration) -> Result<(), String> {
    if timeout <= interval {
        return Ok(());
    }
    let (timeout, interval) = (duration::text(timeout), duration::text(interval));
    Err(format!(
        "{timeout} is longer than the interval, {interval}; one check must end before the next begins"
    ))
}

fn http(section: &mut Section<'_>, service: Option<SocketAddr>) -> Option<HttpCheck> {
    let path = section.get("path").map(|value| value.parse(PATH, path));
    let host = section.get("host").map(|value| value.parse(HOST, host));
    let status = section.get("status").map(status);
    let body = section.get("body").map(|value| value.parse(BODY, body));
    Some(HttpCheck {
        path: path.map_or_else(|| Some("/".to_owned()), |at| at.map(|at| at.value))?,
        host: match host {
            Some(host) => host?.value,
            None => service.map(default_host)?,
        },
        status: status.unwrap_or_else(|| Some(StatusCodes(vec![200..=399])))?,
        body: body.map_or(Some(None), |at| at.map(|at| Some(at.value)))?,
    })
}

/// As a client that was given the virtual IP would say it (RFC 9112 section 3.2).
fn default_host(service: SocketAddr) -> String {
    if matches!(service.port(), 0 | 80) && service.is_ipv4() {
        return service.ip().to_string();
    }
    service.to_string()
}

const PATH: &str = "a path such as \"/health\": it begins with / and has up to 1,024 printable \
                    characters, without spaces";
const HOST: &str = "the value of the Host header, such as \"www.example.com\": up to 255 printable \
                    characters, without spaces";
const BODY: &str = "a text of 1 to 256 bytes that the answer's body contains";

/// Nothing that would end the line it stands on.
fn path(text: &str) -> Option<String> {
    let fits = text.len() <= 1_024 && text.starts_with('/');
    (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.to_owned())
}

fn host(text: &str) -> Option<String> {
    let fits = (1..=255).contains(&text.len());
    (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.to_owned())
}

fn body(text: &str) -> Option<String> {
    (1..=256).contains(&text.len()).then(|| text.to_owned())
}

const STATUS: &str =
    "a status code such as 200, or codes and ranges in a text such as \"200-299,304\"";

fn status(value: Value<'_>) -> Option<StatusCodes> {
    if value.as_text().is_none() {
        let code = value.integer_or(100..=599, STATUS)?.value;
        return Some(StatusCodes(vec![code..=code]));
    }
    value.parse(STATUS, status_codes).map(|at| at.value)
}

fn status_codes(text: &str) -> Option<StatusCodes> {
    let code = |text: &str| {
        let code: u16 = text.trim().parse().ok()?;
        (100..=599).contains(&code).then_some(code)
    };
    let range = |part: &str| -> Option<RangeInclusive<u16>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = code(first)?..=code(last)?;
        (!range.is_empty()).then_some(range)
    };
    const MOST: usize = 32;
    let ranges: Vec<_> = text.split(',').map(range).collect::<Option<_>>()?;
    (ranges.len() <= MOST).then_some(StatusCodes(ranges))
}

fn udp(section: &mut Section<'_>) -> Option<UdpCheck> {
    let payload = section.get("payload").map(|value| bytes(value, 0));
    let answer = section.get("answer").map(|value| bytes(value, 1));
    Some(UdpCheck {
        payload: payload.unwrap_or_else(|| Some(Vec::new()))?,
        answer: answer.map_or(Some(None), |answer| answer.map(Some))?,
    })
}

/// A text, or bytes as `{ hex = "..." }`; at least `least` and at most 512 of them.
fn bytes(value: Value<'_>, least: usize) -> Option<Vec<u8>> {
    let form = format!("a text or {{ hex = \"c0ffee\" }}, of {least} to 512 bytes");
    let allowed = least..=512;
    if !value.is_table() {
        let fits = |text: &str| allowed.contains(&text.len()).then(|| text.as_bytes().to_vec());
        return value.parse(&form, fits).map(|at| at.value);
    }
    let mut section = value.section()?;
    let hex = section.require("hex", "the bytes in hexadecimal, such as \"c0ffee\"");
    let hex = hex.and_then(|value| {
        value.parse(&form, |text| unhex(text).filter(|bytes| allowed.contains(&bytes.len())))
    });
    section.finish();
    hex.map(|at| at.value)
}

/// Two digits a byte; spaces between bytes are for the eye.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    let digit =
        |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_codes_are_codes_and_ranges() {
        let codes = status_codes("200-299, 304,401-403").unwrap();
        for (code, expected) in [
            (199, false),
            (200, true),
            (299, true),
            (300, false),
            (304, true),
            (402, true),
            (404, false),
        ] {
            assert_eq!(codes.contains(code), expected, "{code}");
        }
        assert_eq!(codes.to_string(), "200-299,304,401-403");
        for wrong in ["", ",", "2xx", "299-200", "99", "600", "200-", "-1", "200;201"] {
            assert_eq!(status_codes(wrong), None, "{wrong}");
        }
        assert_eq!(status_codes(&"200,".repeat(40)), None);
    }

    #[test]
    fn hexadecimal_is_whole_bytes() {
        assert_eq!(unhex("c0 ff EE"), Some(vec![0xc0, 0xff, 0xee]));
        assert_eq!(unhex(""), Some(vec![]));
        for wrong in ["c", "c0f", "0x00", "zz", "é0"] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_host_is_what_a_client_would_say() {
        let host = |text: &str| default_host(text.parse().unwrap());
        assert_eq!(host("203.0.113.10:80"), "203.0.113.10");
        assert_eq!(host("203.0.113.10:8080"), "203.0.113.10:8080");
    }
}
