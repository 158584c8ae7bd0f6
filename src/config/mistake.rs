//! What is wrong with a configuration and where: every mistake, in the order of the file.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key as a path, such as `service[0].server[1].weight`; empty for the file as a whole.
    pub key: String,
    /// What is wrong; what would be right.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Every mistake of a configuration, sorted by position; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    mistakes: Vec<Mistake>,
    more: usize,
}

impl Mistakes {
    /// How many are described. A file with more is noise: the rest is only counted.
    pub const DESCRIBED: usize = 10_000;

    /// A file that cannot be read as configuration at all.
    pub(super) fn whole_file(message: String) -> Self {
        Self {
            mistakes: vec![Mistake { line: 1, column: 1, key: String::new(), message }],
            more: 0,
        }
    }

    /// The mistakes, sorted by position.
    pub fn iter(&self) -> std::slice::Iter<'_, Mistake> {
        self.mistakes.iter()
    }

    /// How many there are, those that are only counted included.
    pub fn count(&self) -> usize {
        self.mistakes.len() + self.more
    }

    /// One line each, `FILE:LINE:COLUMN: key: what is wrong; what would be right`.
    pub fn display(&self, file_name: impl fmt::Display) -> impl fmt::Display {
        Listed { mistakes: self, place: format!("{file_name}:") }
    }
}

impl<'a> IntoIterator for &'a Mistakes {
    type Item = &'a Mistake;
    type IntoIter = std::slice::Iter<'a, Mistake>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Listed { mistakes: self, place: String::new() }.fmt(f)
    }
}

impl std::error::Error for Mistakes {}

struct Listed<'m> {
    mistakes: &'m Mistakes,
    place: String,
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mistakes: Mistakes { mistakes, more }, place } = self;
        for (position, mistake) in mistakes.iter().enumerate() {
            let end = if position == 0 { "" } else { "\n" };
            write!(f, "{end}{place}{mistake}")?;
        }
        if *more > 0 {
            write!(f, "\n{place} {more} more mistakes")?;
        }
        Ok(())
    }
}

/// Collects mistakes while a configuration is read, in any order.
#[derive(Debug, Default)]
pub(super) struct Notes {
    notes: RefCell<Vec<Note>>,
    more: Cell<usize>,
    broken: Cell<bool>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Note {
    offset: usize,
    key: String,
    message: String,
    syntax: bool,
}

impl Notes {
    /// The key at byte `offset` is wrong.
    pub(super) fn wrong(&self, offset: usize, key: &str, message: impl fmt::Display) {
        self.push(offset, key, &message, false);
    }

    /// The text at byte `offset` is not TOML.
    pub(super) fn syntax(&self, offset: usize, message: impl fmt::Display) {
        self.broken.set(true);
        self.push(offset, "", &message, true);
    }

    /// Whether the text is not TOML: what seems to be missing may stand in the broken part.
    pub(super) fn broken(&self) -> bool {
        self.broken.get()
    }

    fn push(&self, offset: usize, key: &str, message: &dyn fmt::Display, syntax: bool) {
        let mut notes = self.notes.borrow_mut();
        if notes.len() >= Mistakes::DESCRIBED {
            self.more.set(self.more.get() + 1);
            return;
        }
        let mut line = OneLine(String::new());
        let _ = write!(line, "{message}");
        notes.push(Note { offset, key: key.to_owned(), message: line.0, syntax });
    }

    /// `value` when nothing was noted, else everything that was.
    pub(super) fn conclude<T>(self, text: &str, value: T) -> Result<T, Mistakes> {
        let mut notes = self.notes.into_inner();
        if notes.is_empty() {
            return Ok(value);
        }
        notes.sort();
        notes.dedup();
        let mut position = Position { rest: text, offset: 0, line: 1, column: 1 };
        let mut mistakes: Vec<(bool, Mistake)> = Vec::with_capacity(notes.len());
        for Note { offset, key, message, syntax } in notes {
            position.advance(offset);
            let Position { line, column, .. } = position;
            mistakes.push((syntax, Mistake { line, column, key, message }));
        }
        // On a broken line, only the first thing that is not TOML is sure; the rest is a guess.
        let mistakes = mistakes
            .chunk_by(|(_, a), (_, b)| a.line == b.line)
            .flat_map(|line| match line.iter().find(|(syntax, _)| *syntax) {
                Some(broken) => std::slice::from_ref(broken),
                None => line,
            })
            .map(|(_, mistake)| mistake.clone())
            .collect();
        Err(Mistakes { mistakes, more: self.more.get() })
    }
}

/// Line and column of a byte offset, found in one pass over the text.
struct Position<'t> {
    rest: &'t str,
    offset: usize,
    line: usize,
    column: usize,
}

impl Position<'_> {
    fn advance(&mut self, to: usize) {
        let mut chars = self.rest.chars();
        while self.offset < to
            && let Some(c) = chars.next()
        {
            if c == '\n' {
                self.line += 1;
                self.column = 1;
            } else if c != '\u{feff}' || self.offset > 0 {
                self.column += 1;
            }
            self.offset += c.len_utf8();
        }
        self.rest = chars.as_str();
    }
}

/// Text from a file, quoted so that it fits a line of a terminal and cannot control it.
pub(crate) fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

/// Keeps a message on one line, whatever was quoted in it.
struct OneLine(String);

impl fmt::Write for OneLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c.is_control() {
                self.0.extend(c.escape_debug());
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str, offsets: &[usize]) -> Mistakes {
        let notes = Notes::default();
        for offset in offsets {
            notes.wrong(*offset, "key", format_args!("wrong\nat {offset}"));
        }
        notes.conclude(text, ()).unwrap_err()
    }

    #[test]
    fn sorted_by_position_which_counts_characters() {
        let text = "\u{feff}é = 1\nü = 2\r\nx = 3";
        let places: Vec<_> = mistakes(text, &[text.len(), 3, 5, 10, text.len() + 9])
            .iter()
            .map(|mistake| (mistake.line, mistake.column))
            .collect();
        assert_eq!(places, [(1, 1), (1, 2), (2, 1), (3, 6), (3, 6)]);
    }

    #[test]
    fn prints_a_line_each() {
        let found = mistakes("a = 1\nb = 2", &[6, 0]);
        assert_eq!(
            found.display("x.toml").to_string(),
            "x.toml:1:1: key: wrong\\nat 0\nx.toml:2:1: key: wrong\\nat 6"
        );
        assert_eq!(found.to_string(), "1:1: key: wrong\\nat 0\n2:1: key: wrong\\nat 6");
    }

    #[test]
    fn beyond_the_limit_they_are_counted() {
        let offsets: Vec<_> = (0..Mistakes::DESCRIBED + 7).collect();
        let found = mistakes("", &offsets);
        assert_eq!(found.iter().count(), Mistakes::DESCRIBED);
        assert_eq!(found.count(), Mistakes::DESCRIBED + 7);
        assert!(found.display("f").to_string().ends_with("\nf: 7 more mistakes"));
    }

    #[test]
    fn a_broken_line_is_reported_for_its_syntax_alone() {
        let notes = Notes::default();
        notes.wrong(0, "a", "is a guess");
        notes.syntax(3, "is a consequence");
        notes.syntax(2, "is broken");
        notes.wrong(6, "b", "is wrong");
        let found = notes.conclude("a = \nb = 2", ()).unwrap_err();
        assert_eq!(found.to_string(), "1:3: is broken\n2:2: b: is wrong");
    }

    #[test]
    fn quotes_are_short_and_harmless() {
        assert_eq!(quote("a\u{1b}b"), "\"a\\u{1b}b\"");
        assert_eq!(quote(&"é".repeat(99)), format!("\"{}\"...", "é".repeat(60)));
    }
}
