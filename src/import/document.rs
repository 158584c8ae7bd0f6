//! A file of tapvs: tables and keys, each with what is to be said about it.

use super::remark::{Files, Notes, Place, Remark};

/// A file of tapvs.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// What the file says about itself.
    pub(super) head: Vec<String>,
    pub(super) notes: Notes,
    pub(super) items: Vec<Item>,
}

/// A table with its keys.
#[derive(Debug)]
pub(super) struct Item {
    /// As in the file, such as `[[service]]`.
    pub(super) header: &'static str,
    pub(super) place: Place,
    pub(super) notes: Notes,
    pub(super) settings: Vec<Setting>,
    pub(super) children: Vec<Self>,
    /// Written as a comment, with all that belongs to it.
    pub(super) is_off: bool,
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: &'static str,
    /// In TOML.
    pub(super) value: String,
    pub(super) comment: Option<String>,
    /// Without it the whole table makes no sense.
    pub(super) is_required: bool,
    /// Written as a comment.
    pub(super) is_off: bool,
}

impl Item {
    pub(super) fn new(header: &'static str, place: Place) -> Self {
        let (notes, settings, children) = (Notes::default(), Vec::new(), Vec::new());
        Self { header, place, notes, settings, children, is_off: false }
    }

    pub(super) fn required(&mut self, key: &'static str, value: impl Into<String>) {
        self.set(key, value);
        if let Some(setting) = self.settings.last_mut() {
            setting.is_required = true;
        }
    }

    pub(super) fn set(&mut self, key: &'static str, value: impl Into<String>) {
        let (value, comment) = (value.into(), None);
        self.settings.push(Setting { key, value, comment, is_required: false, is_off: false });
    }

    /// A comment beside the last key.
    pub(super) fn say(&mut self, comment: impl Into<String>) {
        if let Some(setting) = self.settings.last_mut() {
            setting.comment = Some(comment.into());
        }
    }

    /// Turns the whole table into a comment.
    pub(super) fn turn_off(&mut self, why: &str) {
        self.notes.lost(self.place, why);
        self.is_off = true;
    }

    /// Turns one key into a comment, or the table if it needs it.
    pub(super) fn turn_off_key(&mut self, key: &str, why: &str) {
        match self.settings.iter_mut().find(|setting| setting.key == key && !setting.is_off) {
            Some(setting) if !setting.is_required => {
                setting.is_off = true;
                self.notes.lost(self.place, format_args!("{key} = {}: {why}", setting.value));
            }
            _ => self.turn_off(why),
        }
    }

    fn collect(&self, files: &Files, into: &mut Vec<(Place, Remark)>) {
        into.extend(self.notes.remarks(files));
        for child in &self.children {
            child.collect(files, into);
        }
    }
}

impl Document {
    /// Every remark of it.
    pub(super) fn remarks(&self, files: &Files) -> Vec<(Place, Remark)> {
        let mut remarks: Vec<_> = self.notes.remarks(files).collect();
        for item in &self.items {
            item.collect(files, &mut remarks);
        }
        remarks
    }
}

/// A duration of TOML.
pub(super) fn milliseconds(millis: u64) -> String {
    if millis.is_multiple_of(1_000) {
        format!("{}s", millis / 1_000)
    } else {
        format!("{millis}ms")
    }
}

/// A string of TOML on one line.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_as_they_were() {
        for text in
            ["", "a\"b\\c", "GET / HTTP/1.0\r\n\r\n", "\u{0}\u{7f}\u{85}é", "'''", "\\u0041"]
        {
            let line = format!("x = {}", quoted(text));
            let table: toml::Table = line.parse().unwrap();
            assert_eq!(table["x"].as_str(), Some(text), "{line}");
        }
    }
}
