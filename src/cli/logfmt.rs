//! Fields behind the text of a log line: `key=value`, in quotes where a value needs them.

use std::io::{self, Write};

use log::kv::{Error, Key, Source, Value, VisitSource};

/// Writes ` key=value` for each field.
pub(super) fn write(to: &mut dyn Write, fields: &dyn Source) -> io::Result<()> {
    let mut fields_of = Fields { to, failed: Ok(()) };
    // Only this visitor fails, and it says how itself.
    drop(fields.visit(&mut fields_of));
    fields_of.failed
}

struct Fields<'w> {
    to: &'w mut dyn Write,
    failed: io::Result<()>,
}

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if self.failed.is_ok() {
            self.failed = write!(self.to, " {key}={}", quoted(&value.to_string()));
        }
        Ok(())
    }
}

/// As JSON has it, if it could be taken for more than one word.
fn quoted(value: &str) -> String {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '=' | '\\');
    if value.is_empty() || value.contains(is_odd) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_one_word_or_in_quotes() {
        let fields = [
            ("service", "web"),
            ("server", "my \"web\" 1"),
            ("address", "10.0.0.11:8080"),
            ("reason", ""),
            ("file", "/a=b\n"),
        ];
        let mut line = b"server is down".to_vec();
        write(&mut line, &&fields[..]).unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "server is down service=web server=\"my \\\"web\\\" 1\" address=10.0.0.11:8080 reason=\"\" \
             file=\"/a=b\\n\""
        );
    }
}
