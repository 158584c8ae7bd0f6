//! What is said about the source: where, and how bad it is.

use std::fmt;

/// One thing to know about an imported file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// What it means for the result.
    pub weight: Weight,
    /// What is to be known.
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}{}", self.file, self.line, self.weight.prefix(), self.text)
    }
}

/// What a remark means for the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Something of the source is not in the result.
    Lost,
    /// It is there, but works differently or was completed by a guess.
    Note,
}

impl Weight {
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Lost => "not carried over: ",
            Self::Note => "note: ",
        }
    }
}

/// A line of one of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: u16,
    pub(super) line: u32,
}

/// The names of the files, printable.
#[derive(Debug)]
pub(super) struct Files(Vec<String>);

impl Files {
    pub(super) fn new(first: &str) -> Self {
        Self(vec![printable(first)])
    }

    /// The number of one more file; `None` when there are too many.
    pub(super) fn add(&mut self, name: &str) -> Option<u16> {
        const MOST: usize = 1_000;
        let number = u16::try_from(self.0.len()).ok().filter(|_| self.0.len() < MOST)?;
        self.0.push(printable(name));
        Some(number)
    }

    pub(super) fn name(&self, place: Place) -> &str {
        self.0.get(usize::from(place.file)).map_or("", String::as_str)
    }
}

/// The remarks on one thing, each with its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes(Vec<(Place, Weight, String)>);

impl Notes {
    /// Something is not in the result.
    pub(super) fn lost(&mut self, place: Place, text: impl fmt::Display) {
        self.0.push((place, Weight::Lost, printable(&text.to_string())));
    }

    /// Something is there, but different.
    pub(super) fn note(&mut self, place: Place, text: impl fmt::Display) {
        self.0.push((place, Weight::Note, printable(&text.to_string())));
    }

    pub(super) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn remarks<'n>(
        &'n self,
        files: &'n Files,
    ) -> impl Iterator<Item = (Place, Remark)> + 'n {
        self.0.iter().map(|(place, weight, text)| {
            let file = files.name(*place).to_owned();
            (*place, Remark { file, line: place.line, weight: *weight, text: text.clone() })
        })
    }
}

/// The text of a source, quoted and cut to a length that a line can hold.
pub(super) fn quote(text: &str) -> String {
    const LONGEST: usize = 100;
    match text.char_indices().nth(LONGEST) {
        None => format!("`{}`", printable(text)),
        Some((end, _)) => format!("`{}`...", printable(&text[..end])),
    }
}

/// Without what would end a comment or move a terminal's cursor.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
