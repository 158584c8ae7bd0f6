//! A document as text. What is off is there as a comment, so that a hand can turn it on.

use std::fmt::Write as _;

use super::document::{Document, Item, Setting};
use super::remark::{Files, Notes, printable};

pub(super) fn text(document: &Document, files: &Files) -> String {
    let mut out = String::new();
    for line in &document.head {
        comment(&mut out, line);
    }
    if !document.notes.is_empty() {
        out.push_str("#\n");
        notes(&mut out, &document.notes, files);
    }
    for item in &document.items {
        table(&mut out, item, item.is_off, files);
    }
    out
}

fn table(out: &mut String, item: &Item, is_off: bool, files: &Files) {
    out.push('\n');
    notes(out, &item.notes, files);
    line(out, item.header, None, is_off);
    for setting in &item.settings {
        let Setting { key, value, comment, is_off: key_is_off, .. } = setting;
        line(out, &format!("{key} = {value}"), comment.as_deref(), is_off || *key_is_off);
    }
    for child in &item.children {
        table(out, child, is_off || child.is_off, files);
    }
}

fn notes(out: &mut String, notes: &Notes, files: &Files) {
    for (place, remark) in notes.remarks(files) {
        let file = if place.file == 0 { "line ".to_owned() } else { format!("{}:", remark.file) };
        comment(out, &format!("{file}{}: {}{}", remark.line, remark.weight.prefix(), remark.text));
    }
}

fn comment(out: &mut String, text: &str) {
    // Writing into memory does not fail.
    let _ = writeln!(out, "# {}", printable(text));
}

fn line(out: &mut String, text: &str, comment: Option<&str>, is_off: bool) {
    if is_off {
        out.push_str("# ");
    }
    out.push_str(text);
    if let Some(comment) = comment {
        let _ = write!(out, "  # {}", printable(comment));
    }
    out.push('\n');
}
