//! Why a check failed.

use std::fmt;

use crate::config::{Health, HttpCheck, Inquiry, UdpCheck, quote};
use crate::time::Duration;

/// What went wrong with one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing answered a SYN in time.
    NoHandshake,
    /// A SYN was answered with a RST.
    Refused,
    /// The connection stood, but no whole answer came in time.
    NoAnswer,
    /// The connection stood, and was reset.
    Reset,
    /// The connection was closed before the answer was whole.
    Cut,
    /// What came is not HTTP.
    NotHttp,
    /// The answer's header is longer than anybody looks at.
    LongHeader,
    /// Another status than one of those that are right.
    Status(u16),
    /// The body lacks what it should contain.
    Body,
    /// No echo reply.
    NoEcho,
    /// No datagram came back.
    NoDatagram,
    /// What came back lacks what it should contain.
    Datagram,
    /// An ICMP error came back.
    Unreachable(Unreachable),
}

/// What an ICMP error says, by its code (RFC 792, RFC 1812 section 5.2.7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable(pub u8);

impl Unreachable {
    /// Port unreachable.
    pub const PORT: Self = Self(3);
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 | 6 | 11 => "network unreachable",
            1 | 7 | 8 | 12 => "host unreachable",
            2 => "protocol unreachable",
            3 => "port unreachable",
            9 | 10 | 13 => "administratively prohibited",
            other => return write!(f, "destination unreachable, code {other}"),
        })
    }
}

impl Failure {
    /// In words, for somebody who knows what was asked.
    pub fn describe(self, health: &Health) -> String {
        let within = in_words(health.timeout);
        match (self, &health.inquiry) {
            (Self::NoHandshake, Inquiry::VirtualIp) => {
                format!("connect: no answer for the virtual IP within {within}")
            }
            (Self::NoHandshake, _) => format!("connect: no answer within {within}"),
            (Self::Refused, Inquiry::VirtualIp) => "connect: refused for the virtual IP".to_owned(),
            (Self::Refused, _) => "connect: refused".to_owned(),
            (Self::NoAnswer, _) => format!("http: no whole answer within {within}"),
            (Self::Reset, _) => "http: connection reset".to_owned(),
            (Self::Cut, _) => "http: connection closed before the answer was whole".to_owned(),
            (Self::NotHttp, _) => "http: what answers is not HTTP".to_owned(),
            (Self::LongHeader, _) => "http: the answer's header is too long".to_owned(),
            (Self::Status(code), Inquiry::Http(HttpCheck { status, .. })) => {
                format!("http: status {code}, expected {status}")
            }
            (Self::Status(code), _) => format!("http: status {code}"),
            (Self::Body, Inquiry::Http(HttpCheck { body: Some(body), .. })) => {
                format!("http: body lacks {}", quote(body))
            }
            (Self::Body, _) => "http: body lacks what is expected".to_owned(),
            (Self::NoEcho, _) => format!("ping: no answer within {within}"),
            (Self::NoDatagram, _) => format!("udp: no answer within {within}"),
            (Self::Datagram, Inquiry::Udp(UdpCheck { answer: Some(answer), .. })) => {
                match std::str::from_utf8(answer) {
                    Ok(text) => format!("udp: answer lacks {}", quote(text)),
                    Err(_) => format!("udp: answer lacks the {} bytes expected", answer.len()),
                }
            }
            (Self::Datagram, _) => "udp: answer lacks what is expected".to_owned(),
            (Self::Unreachable(code), _) => format!("icmp: {code}"),
        }
    }
}

fn in_words(duration: Duration) -> String {
    let millis = duration.total_millis();
    if millis.is_multiple_of(1_000) {
        format!("{} s", millis / 1_000)
    } else {
        format!("{millis} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StatusCodes;

    fn health(inquiry: Inquiry) -> Health {
        Health {
            inquiry,
            interval: Duration::from_secs(2),
            timeout: Duration::from_millis(1_500),
            fall: 3,
            rise: 2,
            initially_up: true,
            port: None,
        }
    }

    #[test]
    fn every_failure_says_what_was_expected() {
        let http = health(Inquiry::Http(HttpCheck {
            path: "/".to_owned(),
            host: "www".to_owned(),
            status: StatusCodes(vec![200..=399]),
            body: Some("o\u{1b}k".to_owned()),
        }));
        let udp = |answer: &[u8]| {
            let answer = Some(answer.to_vec());
            health(Inquiry::Udp(UdpCheck { payload: Vec::new(), answer }))
        };
        let tcp = Health { timeout: Duration::from_secs(1), ..health(Inquiry::Tcp) };
        for (failure, health, expected) in [
            (Failure::NoHandshake, &tcp, "connect: no answer within 1 s"),
            (Failure::NoHandshake, &http, "connect: no answer within 1500 ms"),
            (
                Failure::NoHandshake,
                &health(Inquiry::VirtualIp),
                "connect: no answer for the virtual IP within 1500 ms",
            ),
            (Failure::Status(503), &http, "http: status 503, expected 200-399"),
            (Failure::Body, &http, "http: body lacks \"o\\u{1b}k\""),
            (Failure::Datagram, &udp(b"pong"), "udp: answer lacks \"pong\""),
            (Failure::Datagram, &udp(b"\xff\x00"), "udp: answer lacks the 2 bytes expected"),
            (Failure::Unreachable(Unreachable(1)), &tcp, "icmp: host unreachable"),
            (Failure::Unreachable(Unreachable::PORT), &udp(b"x"), "icmp: port unreachable"),
        ] {
            assert_eq!(failure.describe(health), expected);
        }
    }
}
