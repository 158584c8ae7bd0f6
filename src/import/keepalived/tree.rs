//! Lines as statements and blocks of statements.

use super::text::Line;
use crate::import::remark::{Notes, Place, quote};

/// Some words, and the block that follows them.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) place: Place,
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Self>>,
}

impl Statement {
    /// Its first word.
    pub(super) fn keyword(&self) -> &str {
        self.word(0)
    }

    /// One of its words; empty if there are not as many.
    pub(super) fn word(&self, position: usize) -> &str {
        self.words.get(position).map_or("", String::as_str)
    }

    /// All but the first.
    pub(super) fn rest(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// The statements of its block; none if it has none.
    pub(super) fn statements(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// As it is shown in remarks.
    pub(super) fn shown(&self) -> String {
        let words = quote(&self.words.join(" "));
        match self.block.as_ref().map(Vec::len) {
            None | Some(0) => words,
            Some(1) => format!("{words} and the line in it"),
            Some(count) => format!("{words} and the {count} statements in it"),
        }
    }
}

/// Deeper than any keyword of keepalived.
const DEEPEST: usize = 8;

pub(super) fn build(lines: Vec<Line>, notes: &mut Notes) -> Vec<Statement> {
    let mut builder = Builder { notes, open: Vec::new(), done: vec![Vec::new()], skipping: 0 };
    for line in lines {
        builder.line(line);
    }
    builder.finish()
}

struct Builder<'n> {
    notes: &'n mut Notes,
    /// The statements whose blocks are open.
    open: Vec<Statement>,
    /// What each open block holds so far; the file itself first.
    done: Vec<Vec<Statement>>,
    /// Blocks that are open below the deepest.
    skipping: u32,
}

impl Builder<'_> {
    fn line(&mut self, line: Line) {
        let place = line.place;
        let mut words = Vec::new();
        for word in line.words {
            match word.text.as_str() {
                "{" if !word.is_quoted => {
                    let words = std::mem::take(&mut words);
                    self.begin(words, place);
                }
                "}" if !word.is_quoted => {
                    self.statement(std::mem::take(&mut words), place);
                    self.end(place);
                }
                _ => words.push(word.text),
            }
        }
        self.statement(words, place);
    }

    fn statement(&mut self, words: Vec<String>, place: Place) {
        if words.is_empty() {
            return;
        }
        if self.skipping > 0 {
            return self
                .notes
                .lost(place, format_args!("{}: nested too deeply", quote(&words.join(" "))));
        }
        if let Some(done) = self.done.last_mut() {
            done.push(Statement { place, words, block: None });
        }
    }

    fn begin(&mut self, words: Vec<String>, place: Place) {
        // A brace on a line of its own belongs to what stands before it.
        let words = if words.is_empty() && self.skipping == 0 {
            let before = self.done.last_mut().and_then(|done| done.pop_if(|s| s.block.is_none()));
            before.map_or_else(Vec::new, |before| before.words)
        } else {
            words
        };
        if self.open.len() >= DEEPEST || self.skipping > 0 {
            self.notes.lost(place, format_args!("{}: nested too deeply", quote(&words.join(" "))));
            self.skipping = self.skipping.saturating_add(1);
            return;
        }
        self.open.push(Statement { place, words, block: None });
        self.done.push(Vec::new());
    }

    fn end(&mut self, place: Place) {
        if self.skipping > 0 {
            self.skipping -= 1;
            return;
        }
        let Some(mut statement) = self.open.pop() else {
            return self.notes.lost(place, "a } without its {");
        };
        statement.block = self.done.pop();
        if let Some(done) = self.done.last_mut() {
            done.push(statement);
        }
    }

    fn finish(mut self) -> Vec<Statement> {
        self.skipping = 0;
        while let Some(open) = self.open.last() {
            let (place, shown) = (open.place, quote(&open.words.join(" ")));
            self.notes.lost(
                place,
                format_args!("the block {shown} is not closed: it ends with the file"),
            );
            self.end(place);
        }
        self.done.pop().unwrap_or_default()
    }
}
