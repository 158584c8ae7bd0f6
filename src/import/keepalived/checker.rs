//! keepalived's checkers: what each asks, and what of it tapvs can ask.

use super::lose;
use super::tree::Statement;
use crate::import::draft::{Health, Question};
use crate::import::remark::{Notes, Place, quote};

/// Settings that a virtual server hands to its real servers, and these to their checkers. Milliseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Timing {
    delay_loop: Option<u64>,
    connect_timeout: Option<u64>,
    retry: Option<u64>,
    is_alpha: Option<bool>,
    virtualhost: Option<String>,
}

impl Timing {
    /// Takes a statement that is one of these; `false` if it is none.
    pub(super) fn take(&mut self, statement: &Statement, notes: &mut Notes) -> bool {
        let word = statement.word(1);
        let place = statement.place;
        match statement.keyword() {
            "delay_loop" => self.delay_loop = seconds(statement, notes),
            "connect_timeout" => self.connect_timeout = seconds(statement, notes),
            "retry" | "nb_get_retry" => match word.parse() {
                Ok(count) => self.retry = Some(count),
                Err(_) => notes.lost(place, statement.shown()),
            },
            "delay_before_retry" => notes.note(
                place,
                format_args!(
                    "{}: a failed check is repeated after the interval",
                    statement.shown()
                ),
            ),
            "warmup" => {
                notes.note(place, format_args!("{}: checks are always spread", statement.shown()))
            }
            "alpha" => match truth(word) {
                Some(is_alpha) => self.is_alpha = Some(is_alpha),
                None => notes.lost(place, statement.shown()),
            },
            "virtualhost" => self.virtualhost = Some(word.to_owned()),
            _ => return false,
        }
        true
    }

    /// What is not set here is as there.
    pub(super) fn or(self, outer: &Self) -> Self {
        Self {
            delay_loop: self.delay_loop.or(outer.delay_loop),
            connect_timeout: self.connect_timeout.or(outer.connect_timeout),
            retry: self.retry.or(outer.retry),
            is_alpha: self.is_alpha.or(outer.is_alpha),
            virtualhost: self.virtualhost.or_else(|| outer.virtualhost.clone()),
        }
    }
}

/// `<BOOL>`; the keyword alone is true.
fn truth(word: &str) -> Option<bool> {
    match word {
        "" | "on" | "true" | "yes" => Some(true),
        "off" | "false" | "no" => Some(false),
        _ => None,
    }
}

/// `<TIMER>`: seconds, perhaps with a fraction, as milliseconds.
pub(super) fn seconds(statement: &Statement, notes: &mut Notes) -> Option<u64> {
    let parsed = milliseconds(statement.word(1));
    if parsed.is_none() {
        notes.lost(statement.place, statement.shown());
    }
    parsed
}

pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + part.len() == 0 || !digits(whole) || !digits(part) || whole.len() > 9 {
        return None;
    }
    let thousandths: String = part.chars().chain("000".chars()).take(3).collect();
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    Some(whole * 1_000 + thousandths.parse::<u64>().ok()?)
}

/// Whether a keyword is a checker's.
pub(super) fn is_checker(keyword: &str) -> bool {
    KINDS.contains(&keyword)
}

const KINDS: [&str; 10] = [
    "HTTP_GET",
    "SSL_GET",
    "TCP_CHECK",
    "SMTP_CHECK",
    "DNS_CHECK",
    "MISC_CHECK",
    "BFD_CHECK",
    "UDP_CHECK",
    "PING_CHECK",
    "FILE_CHECK",
];

/// What one checker of a server comes to; `None` if tapvs cannot ask anything like it. `own` is the
/// address and port of the server.
pub(super) fn read(
    block: &Statement,
    outer: &Timing,
    own: (&str, Option<u16>),
    notes: &mut Notes,
) -> Option<(Place, Health)> {
    let kind = block.keyword();
    let why = match kind {
        "MISC_CHECK" => Some("programs are not run as checks"),
        "BFD_CHECK" => Some("BFD is not spoken"),
        "FILE_CHECK" => Some("files are not watched"),
        _ => None,
    };
    if let Some(why) = why {
        notes.lost(block.place, format_args!("{}: {why}", block.shown()));
        return None;
    }
    let mut reader = Reader { kind, own, port: own.1, ..Reader::default() };
    for statement in block.statements() {
        reader.statement(statement, notes);
    }
    let timing = std::mem::take(&mut reader.timing).or(outer);
    let question = reader.question(&timing, block, notes);
    let default_retry = if kind == "DNS_CHECK" { 3 } else { 1 };
    let interval = timing.delay_loop.unwrap_or(60_000);
    let kept = interval.clamp(100, 3_600_000);
    if kept != interval {
        notes.lost(block.place, format_args!("delay_loop of {interval} ms: 100 ms to 1 h"));
    }
    let timeout = timing.connect_timeout.unwrap_or(5_000).clamp(10, 60_000).min(kept);
    let fall = timing.retry.unwrap_or(default_retry).saturating_add(1);
    if fall > 100 {
        notes.lost(block.place, format_args!("retry {}: 99 is the most", fall - 1));
    }
    let health = Health {
        port: if question == Question::Ping { None } else { reader.port },
        question,
        interval: kept,
        timeout,
        fall: fall.min(100),
        rise: 1,
        initially_down: timing.is_alpha.unwrap_or(false),
    };
    Some((block.place, health))
}

#[derive(Default)]
struct Reader<'s> {
    kind: &'s str,
    own: (&'s str, Option<u16>),
    port: Option<u16>,
    timing: Timing,
    urls: Vec<&'s Statement>,
    payload: Vec<u8>,
    reply: Option<&'s Statement>,
    query: (Option<String>, Option<String>),
}

impl<'s> Reader<'s> {
    fn statement(&mut self, statement: &'s Statement, notes: &mut Notes) {
        let (keyword, word, place) = (statement.keyword(), statement.word(1), statement.place);
        if self.timing.take(statement, notes) {
            return;
        }
        match (self.kind, keyword) {
            (_, "connect_port") => match word.parse() {
                Ok(port) => self.port = Some(port),
                Err(_) => notes.lost(place, statement.shown()),
            },
            (_, "connect_ip") if word == self.own.0 => {}
            (_, "connect_ip") => notes.lost(
                place,
                format_args!("{}: servers are asked at their own addresses", statement.shown()),
            ),
            ("HTTP_GET" | "SSL_GET", "url") => self.urls.push(statement),
            ("HTTP_GET" | "SSL_GET", "fast_recovery") => {
                notes.note(place, format_args!("{}: one success is enough", statement.shown()));
            }
            ("SMTP_CHECK", "host") => self.host(statement, notes),
            ("UDP_CHECK", "payload") => match hexadecimal(statement.rest()) {
                Some(bytes) => self.payload = bytes,
                None => notes.lost(place, statement.shown()),
            },
            ("UDP_CHECK", "require_reply") => self.reply = Some(statement),
            ("DNS_CHECK", "type") => self.query.0 = Some(word.to_owned()),
            ("DNS_CHECK", "name") => self.query.1 = Some(word.to_owned()),
            _ => lose(notes, statement),
        }
    }

    /// One of the hosts of an SMTP check: only one that is the server itself says something.
    fn host(&mut self, block: &'s Statement, notes: &mut Notes) {
        let address = block.statements().iter().find(|s| s.keyword() == "connect_ip");
        if address.is_some_and(|statement| statement.word(1) != self.own.0) {
            let shown = block.shown();
            return notes.lost(
                block.place,
                format_args!("{shown}: servers are asked at their own addresses"),
            );
        }
        for statement in block.statements() {
            self.statement(statement, notes);
        }
    }

    fn question(&self, timing: &Timing, block: &Statement, notes: &mut Notes) -> Question {
        let place = block.place;
        match self.kind {
            "HTTP_GET" => self.http(timing, notes),
            "SSL_GET" => {
                for url in &self.urls {
                    notes.lost(url.place, format_args!("{}: checks do not speak TLS", url.shown()));
                }
                notes
                    .lost(place, "SSL_GET: checks do not speak TLS; the port is only connected to");
                Question::Tcp
            }
            "SMTP_CHECK" => {
                notes.lost(
                    place,
                    "SMTP_CHECK: checks do not speak SMTP; the port is only connected to",
                );
                Question::Tcp
            }
            "PING_CHECK" => Question::Ping,
            "UDP_CHECK" => self.udp(notes),
            "DNS_CHECK" => self.dns(place, notes),
            _ => Question::Tcp,
        }
    }

    fn http(&self, timing: &Timing, notes: &mut Notes) -> Question {
        let (mut path, mut host) = ("/".to_owned(), timing.virtualhost.clone());
        let (mut status, body) = ("200-299".to_owned(), None);
        if let Some((url, others)) = self.urls.split_first() {
            for statement in url.statements() {
                match statement.keyword() {
                    "path" => statement.word(1).clone_into(&mut path),
                    "virtualhost" => host = Some(statement.word(1).to_owned()),
                    "status_code" => {
                        status = statement.rest().join(",");
                    }
                    "digest" => notes.lost(
                        statement.place,
                        format_args!(
                            "{}: the body is not digested; `body` looks for a text in it",
                            statement.shown()
                        ),
                    ),
                    keyword if keyword.starts_with("regex") => notes.lost(
                        statement.place,
                        format_args!("{}: `body` looks for a plain text", statement.shown()),
                    ),
                    _ => lose(notes, statement),
                }
            }
            for other in others {
                notes.lost(
                    other.place,
                    format_args!("{}: a check asks for one path", other.shown()),
                );
            }
        }
        Question::Http { path, host, status: Some(status), body }
    }

    fn udp(&self, notes: &mut Notes) -> Question {
        let mut answer = None;
        if let Some(statement) = self.reply {
            let bytes = hexadecimal(statement.rest()).filter(|bytes| !bytes.is_empty());
            if bytes.is_none() {
                notes.lost(
                    statement.place,
                    format_args!(
                        "{}: an answer is required only if its bytes are known",
                        statement.shown()
                    ),
                );
            }
            answer = bytes;
        }
        Question::Udp { payload: self.payload.clone(), answer }
    }

    /// A query by UDP, whose answer begins with the same number.
    fn dns(&self, place: Place, notes: &mut Notes) -> Question {
        const TYPES: [(&str, u8); 7] =
            [("A", 1), ("NS", 2), ("CNAME", 5), ("SOA", 6), ("MX", 15), ("TXT", 16), ("AAAA", 28)];
        const NUMBER: [u8; 2] = [0x74, 0x76];
        let (kind, name) =
            (self.query.0.as_deref().unwrap_or("SOA"), self.query.1.as_deref().unwrap_or("."));
        let code =
            TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(kind)).map(|(_, code)| *code);
        let Some((code, name)) = code.zip(encoded(name)) else {
            notes.lost(place, format_args!("a query for {} {}", quote(kind), quote(name)));
            return Question::Ping;
        };
        notes.note(place, "DNS_CHECK: any answer to the query is right, whatever its code");
        // RFC 1035 section 4.1: one question, recursion desired.
        let header = [1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let payload = [&NUMBER[..], &header, &name, &[0, code, 0, 1]].concat();
        Question::Udp { payload, answer: Some(NUMBER.to_vec()) }
    }
}

/// A name of the DNS as its labels.
fn encoded(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).ok().filter(|len| *len < 64)?);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    (bytes.len() <= 255 && name.is_ascii()).then_some(bytes)
}

/// keepalived's free form of hexadecimal: an odd digit before a space is a byte of its own.
fn hexadecimal(words: &[String]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for word in words.iter().flat_map(|word| word.split_whitespace()) {
        let digits: Vec<u8> = word
            .chars()
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()?;
        bytes.extend(digits.chunks(2).map(|pair| match pair {
            [high, low] => high << 4 | low,
            pair => pair.iter().sum(),
        }));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_have_fractions() {
        for (text, expected) in [
            ("3", Some(3_000)),
            ("2.71828", Some(2_718)),
            (".5", Some(500)),
            ("1.", Some(1_000)),
            ("", None),
            (".", None),
            ("-1", None),
            ("1e3", None),
            ("99999999999", None),
        ] {
            assert_eq!(milliseconds(text), expected, "{text}");
        }
    }

    /// The example of keepalived.conf(5).
    #[test]
    fn hexadecimal_is_free() {
        let words: Vec<String> = "Ab12f 3 456 546443123".split(' ').map(str::to_owned).collect();
        let expected = [0xab, 0x12, 0x0f, 0x03, 0x45, 0x06, 0x54, 0x64, 0x43, 0x12, 0x03];
        assert_eq!(hexadecimal(&words).unwrap(), expected);
        assert_eq!(hexadecimal(&["0x12".to_owned()]), None);
    }

    #[test]
    fn names_are_labels() {
        assert_eq!(encoded(".").unwrap(), [0]);
        assert_eq!(encoded("a.bc.").unwrap(), [1, b'a', 2, b'b', b'c', 0]);
        assert_eq!(encoded(&"a".repeat(64)), None);
        assert_eq!(encoded(&"a.".repeat(200)), None);
    }
}
