//! The `health` of a service.

use crate::import::document::{milliseconds, quoted};
use crate::import::draft::{Health, Question};

/// `{ kind = "tcp", interval = "6s", ... }`
pub(super) fn value(health: &Health) -> String {
    let mut parts = Vec::new();
    let mut add = |key: &str, value: String| parts.push(format!("{key} = {value}"));
    match &health.question {
        Question::Tcp => add("kind", quoted("tcp")),
        Question::Ping => add("kind", quoted("ping")),
        Question::Http { path, host, status, body } => {
            add("kind", quoted("http"));
            add("path", quoted(path));
            let texts = [("host", host), ("status", status), ("body", body)];
            for (key, text) in texts {
                if let Some(text) = text {
                    add(key, quoted(text));
                }
            }
        }
        Question::Udp { payload, answer } => {
            add("kind", quoted("udp"));
            if !payload.is_empty() {
                add("payload", bytes(payload));
            }
            if let Some(answer) = answer {
                add("answer", bytes(answer));
            }
        }
    }
    if let (Some(port), false) = (health.port, health.question == Question::Ping) {
        add("port", port.to_string());
    }
    add("interval", quoted(&milliseconds(health.interval)));
    add("timeout", quoted(&milliseconds(health.timeout)));
    add("fall", health.fall.to_string());
    add("rise", health.rise.to_string());
    if health.initially_down {
        add("initial", quoted("down"));
    }
    format!("{{ {} }}", parts.join(", "))
}

/// As text where it is one.
fn bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(|c| !c.is_control() || "\r\n\t".contains(c)) => quoted(text),
        _ => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{{ hex = {} }}", quoted(&digits))
        }
    }
}
