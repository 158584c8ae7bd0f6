//! TOML text to a tree, with a note for everything that is not TOML.

use toml::Spanned;
use toml::de::{DeTable, Error};

use super::mistake::{Notes, quote};

/// The tree of what is TOML in `text`.
pub(super) fn parse<'t>(text: &'t str, notes: &Notes) -> Spanned<DeTable<'t>> {
    let (table, errors) = DeTable::parse_recoverable(text);
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
