//! TOML text to a tree, with a note for everything that is not TOML.

use toml::Spanned;
use toml::de::{DeTable, Error};

use super::mistake::{Notes, quote};

/// Up to this length every error is listed. Beyond it only the first: the parser keeps each in memory,
/// and a huge file that is not TOML at all must not push a running router out of its own.
const EVERY_ERROR: usize = 1 << 20;

/// The tree of what is TOML in `text`.
pub(super) fn parse<'t>(text: &'t str, notes: &Notes) -> Spanned<DeTable<'t>> {
    let (table, errors) = if text.len() <= EVERY_ERROR {
        DeTable::parse_recoverable(text)
    } else {
        match DeTable::parse(text) {
            Ok(table) => (table, Vec::new()),
            Err(error) => (Spanned::new(0..0, DeTable::new()), vec![error]),
        }
    };
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        notes.syntax(span.start, message(&error, text.get(span).unwrap_or_default()));
    }
    table
}

/// The parser's message in this house's form: what is wrong; what would be right.
fn message(error: &Error, found: &str) -> String {
    let message = error.message();
    match message {
        "duplicate key" => format!("{} is set twice; keep one of them", quote(found)),
        _ if found.is_empty() && message.starts_with("string values must be quoted") => {
            "the value is missing; write it after the `=`".to_owned()
        }
        _ => message.replacen(", expected ", "; expected ", 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_reported_for_its_first_error_alone() {
        let count = |text: &str| {
            let notes = Notes::default();
            parse(text, &notes);
            notes.conclude(text, ()).unwrap_err().count()
        };
        let line = "= 1\n";
        assert_eq!(count(&line.repeat(10)), 10);
        assert_eq!(count(&line.repeat(EVERY_ERROR / line.len() + 1)), 1);
    }
}
