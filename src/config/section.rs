//! The TOML tree as sections, keys and values that know their place, so that every reader can say
//! what is wrong where. A key that no reader asked for is unknown. Knows no key of its own.

use std::fmt;
use std::ops::RangeInclusive;

use toml::de::{DeTable, DeValue};

use super::mistake::{Notes, quote};
use super::suggest::nearest;

/// Where something stands: what a mistake about it is noted with.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    notes: &'a Notes,
    offset: usize,
    key: String,
}

impl Place<'_> {
    /// Notes a mistake: what is wrong; what would be right.
    pub(super) fn wrong(&self, message: impl fmt::Display) {
        self.notes.wrong(self.offset, &self.key, message);
    }

    /// Whether a part of the file is not TOML: then anything may seem to be missing or too much.
    pub(super) fn is_broken(&self) -> bool {
        self.notes.broken()
    }

    fn child(&self, key: &str, offset: usize) -> Self {
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let mut path = self.key.clone();
        if !path.is_empty() {
            path.push('.');
        }
        if !key.is_empty() && key.len() <= 60 && key.chars().all(bare) {
            path.push_str(key);
        } else {
            path.push_str(&quote(key));
        }
        Self { notes: self.notes, offset, key: path }
    }

    fn element(&self, position: usize, offset: usize) -> Self {
        Self { notes: self.notes, offset, key: format!("{}[{position}]", self.key) }
    }
}

/// Something read, with its place.
#[derive(Clone, Debug)]
pub(super) struct At<'a, T> {
    pub(super) value: T,
    pub(super) place: Place<'a>,
}

impl<'a, T> At<'a, T> {
    /// The value if `rule` has nothing against it; what the rule says is noted.
    pub(super) fn check(self, rule: impl FnOnce(&T) -> Result<(), String>) -> Option<Self> {
        match rule(&self.value) {
            Ok(()) => Some(self),
            Err(message) => {
                self.place.wrong(message);
                None
            }
        }
    }
}

/// One table of the file, or one that is absent and therefore empty.
#[derive(Debug)]
pub(super) struct Section<'a> {
    pub(super) place: Place<'a>,
    table: Option<&'a DeTable<'a>>,
    known: Vec<&'static str>,
    later: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(notes: &'a Notes, table: &'a DeTable<'a>) -> Self {
        Self::new(Place { notes, offset: 0, key: String::new() }, Some(table))
    }

    fn new(place: Place<'a>, table: Option<&'a DeTable<'a>>) -> Self {
        Self { place, table, known: Vec::new(), later: Vec::new() }
    }

    /// The value of an optional key, which is known from now on.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.known.push(key);
        self.find(key)
    }

    fn find(&self, key: &str) -> Option<Value<'a>> {
        let value = self.table?.get(key)?;
        let place = self.place.child(key, value.span().start);
        Some(Value { place, value: value.get_ref() })
    }

    /// The value of a key that must be there; `what` says what it is.
    pub(super) fn require(&mut self, key: &'static str, what: &str) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            self.missing(key, what);
        }
        value
    }

    /// Notes that `key` is not there; `what` says what it is.
    pub(super) fn missing(&self, key: &str, what: &str) {
        if !self.place.is_broken() {
            self.place.child(key, self.place.offset).wrong(format_args!("is missing; add {what}"));
        }
    }

    /// The table `key`; empty when it is absent.
    pub(super) fn section(&mut self, key: &'static str) -> Self {
        self.get(key)
            .and_then(Value::section)
            .unwrap_or_else(|| Self::new(self.place.child(key, self.place.offset), None))
    }

    /// Every `[[key]]`, in file order.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Self> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(array) = value.value else {
            let path = unindexed(&value.place.key);
            value.place.wrong(format_args!("is {}; write [[{path}]]", describe(value.value)));
            // Its content is read all the same, for the mistakes in it.
            return value.is_table().then(|| value.section()).flatten().into_iter().collect();
        };
        let element = |(position, value): (usize, &'a toml::Spanned<DeValue<'a>>)| {
            let place = self.place.child(key, 0).element(position, value.span().start);
            Value { place, value: value.get_ref() }.section()
        };
        array.iter().enumerate().filter_map(element).collect()
    }

    /// Refuses a key that belongs elsewhere, saying where.
    pub(super) fn stray(&mut self, key: &'static str, why: &str) {
        self.later.push(key);
        if let Some(Value { place, .. }) = self.find(key) {
            place.wrong(format_args!("{why}; leave it out"));
        }
    }

    /// Says nothing about keys that nobody asked for: who should have was not found.
    pub(super) fn abandon(self) {}

    /// Refuses every key that nobody asked for.
    pub(super) fn finish(self) {
        let Some(table) = self.table else { return };
        for key in table.keys() {
            let word: &str = key.get_ref();
            if self.known.iter().chain(&self.later).any(|known| *known == word) {
                continue;
            }
            let known = || self.known.iter().copied();
            self.place.child(word, key.span().start).wrong(fmt_with(|f| {
                match nearest(word, known()) {
                    Some(meant) => write!(f, "unknown key; did you mean `{meant}`?"),
                    None => {
                        f.write_str("unknown key; known here: ")?;
                        f.write_str(&known().collect::<Vec<_>>().join(", "))
                    }
                }
            }));
        }
    }
}

/// One value of the file.
#[derive(Clone, Debug)]
pub(super) struct Value<'a> {
    pub(super) place: Place<'a>,
    value: &'a DeValue<'a>,
}

impl<'a> Value<'a> {
    /// A string, if it is one.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => None,
        }
    }

    /// A string; `what` is expected of it.
    pub(super) fn text(self, what: &str) -> Option<At<'a, &'a str>> {
        match self.as_text() {
            Some(value) => Some(At { value, place: self.place }),
            None => self.not(what),
        }
    }

    /// A string that `parse` accepts; `what` is expected of it.
    pub(super) fn parse<T>(
        self,
        what: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<At<'a, T>> {
        match self.as_text().and_then(parse) {
            Some(value) => Some(At { value, place: self.place }),
            None => self.not(what),
        }
    }

    /// A whole number in `allowed`.
    pub(super) fn integer<T: TryFrom<i64>>(
        self,
        allowed: RangeInclusive<i64>,
    ) -> Option<At<'a, T>> {
        let (least, most) = (*allowed.start(), *allowed.end());
        self.integer_or(allowed, &format!("a whole number from {least} to {most}"))
    }

    /// A whole number in `allowed`; `what` is expected of it.
    pub(super) fn integer_or<T: TryFrom<i64>>(
        self,
        allowed: RangeInclusive<i64>,
        what: &str,
    ) -> Option<At<'a, T>> {
        let number = match self.value {
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            _ => None,
        };
        match number.filter(|n| allowed.contains(n)).and_then(|n| T::try_from(n).ok()) {
            Some(value) => Some(At { value, place: self.place }),
            None => self.not(what),
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(self) -> Option<At<'a, bool>> {
        match self.value {
            DeValue::Boolean(value) => Some(At { value: *value, place: self.place }),
            _ => self.not("true or false"),
        }
    }

    /// One of a few words; those in `later` are refused as not supported yet.
    pub(super) fn choice<T: Copy>(
        self,
        now: &[(&'static str, T)],
        later: &[&'static str],
    ) -> Option<At<'a, T>> {
        let words = one_of(now.iter().map(|(word, _)| *word));
        let Some(text) = self.as_text() else { return self.not(&words) };
        if let Some((_, value)) = now.iter().find(|(word, _)| *word == text) {
            return Some(At { value: *value, place: self.place });
        }
        if later.contains(&text) {
            self.place.wrong(format_args!("{text:?} is not supported yet; expected {words}"));
            return None;
        }
        self.not(&words)
    }

    /// The values of a short array; `what` is expected of it.
    pub(super) fn list(self, what: &str) -> Option<Vec<Self>> {
        const LONGEST: usize = 1_000;
        let DeValue::Array(array) = self.value else { return self.not(what) };
        if array.len() > LONGEST {
            self.place.wrong(format_args!("has {} entries; expected {what}", array.len()));
            return None;
        }
        let element = |(position, value): (usize, &'a toml::Spanned<DeValue<'a>>)| Value {
            place: self.place.element(position, value.span().start),
            value: value.get_ref(),
        };
        Some(array.iter().enumerate().map(element).collect())
    }

    /// Whether it is a table.
    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// A table.
    pub(super) fn section(self) -> Option<Section<'a>> {
        match self.value {
            DeValue::Table(table) => Some(Section::new(self.place, Some(table))),
            _ => self.not("a table"),
        }
    }

    /// Notes that `what` was expected here.
    pub(super) fn not<T>(self, what: &str) -> Option<T> {
        self.place.wrong(format_args!("found {}; expected {what}", describe(self.value)));
        None
    }
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quote(text),
        DeValue::Integer(digits) => clip(&digits.to_string()),
        DeValue::Float(digits) => clip(digits.as_str()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn clip(digits: &str) -> String {
    digits.chars().take(40).collect()
}

/// `"a", "b" or "c"`.
pub(super) fn one_of<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<_> = words.map(quote).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// `service[3].server` is written `[[service.server]]`.
fn unindexed(key: &str) -> String {
    key.split('.').map(|part| part.split('[').next().unwrap_or(part)).collect::<Vec<_>>().join(".")
}

/// Formats only when the text is needed.
fn fmt_with(write: impl Fn(&mut fmt::Formatter<'_>) -> fmt::Result) -> impl fmt::Display {
    struct With<F>(F);
    impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for With<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            (self.0)(f)
        }
    }
    With(write)
}
