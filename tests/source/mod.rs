//! Just enough of Rust's grammar to find paths: tokens without comments and literals, and the trees
//! of `use`.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// One file of the source tree.
pub(crate) struct Source {
    /// Relative to the repository, such as `src/frame/mod.rs`.
    pub(crate) path: String,
    paths: Vec<FoundPath>,
}

/// One arrow: the room it leads to.
pub(crate) struct Found {
    pub(crate) line: usize,
    pub(crate) room: String,
    pub(crate) in_test: bool,
}

/// A path as written, with the trees of `use` unfolded.
struct FoundPath {
    line: usize,
    segments: Vec<String>,
    /// How many modules deep in the crate it stands; the crate root is 0.
    depth: usize,
    in_test: bool,
}

#[derive(Clone, Debug)]
struct Token {
    line: usize,
    text: String,
}

/// Every `.rs` file below `root/src`, in order of name.
pub(crate) fn read_tree(root: &Path) -> io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(entry.path())?;
                sources.push(Source::new(&path.display().to_string(), &text));
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let parts: Vec<&str> = path.trim_end_matches(".rs").split('/').skip(1).collect();
        let is_root = matches!(parts[..], ["lib" | "main"]);
        let depth = parts.iter().filter(|part| **part != "mod").count() - usize::from(is_root);
        let in_test = parts.contains(&"tests");
        let paths =
            Scanner { tokens: tokenize(text), at: 0, paths: Vec::new() }.scan(depth, in_test);
        Self { path: path.into(), paths }
    }

    /// The room the file belongs to: its first folder, or its own name.
    pub(crate) fn room(&self) -> &str {
        self.path.split('/').nth(1).unwrap_or_default().trim_end_matches(".rs")
    }

    /// Every path that starts at the crate root.
    pub(crate) fn arrows(&self) -> impl Iterator<Item = Found> {
        self.paths.iter().filter_map(|path| {
            let supers = path.segments.iter().take_while(|s| *s == "super").count();
            let room = match path.segments.first()?.as_str() {
                "crate" | "tapvs" => path.segments.get(1)?,
                "super" if supers == path.depth => path.segments.get(supers)?,
                _ => return None,
            };
            (room != "self").then(|| Found {
                line: path.line,
                room: room.clone(),
                in_test: path.in_test,
            })
        })
    }

    /// The lines outside of tests where `path`, or a longer path that holds it, stands.
    pub(crate) fn lines_with(&self, path: &str) -> Vec<usize> {
        let words: Vec<&str> = path.split("::").collect();
        let mut lines: Vec<usize> = self
            .paths
            .iter()
            .filter(|path| !path.in_test && path.segments.windows(words.len()).any(|w| w == words))
            .map(|path| path.line)
            .collect();
        lines.dedup();
        lines
    }
}

/// Walks the tokens once, keeping count of modules.
struct Scanner {
    tokens: Vec<Token>,
    at: usize,
    paths: Vec<FoundPath>,
}

impl Scanner {
    fn scan(mut self, depth: usize, in_test: bool) -> Vec<FoundPath> {
        // One entry per open brace: the module depth and whether it is test code.
        let mut open = vec![(depth, in_test)];
        let mut test_next = false;
        while self.at < self.tokens.len() {
            let (depth, in_test) = open.last().copied().unwrap_or((depth, in_test));
            if self.ahead(&["#", "[", "cfg", "(", "test", ")", "]"]) {
                test_next = true;
                self.at += 7;
                continue;
            }
            match self.text(0) {
                "{" => {
                    let is_module = self.at >= 2 && self.text_before(2) == "mod";
                    open.push((depth + usize::from(is_module), in_test || test_next));
                    test_next = false;
                }
                "}" => {
                    open.pop();
                }
                ";" => test_next = false,
                _ => {}
            }
            if is_word(self.text(0)) {
                self.path(&[], depth, in_test || test_next);
            } else {
                self.at += 1;
            }
        }
        self.paths
    }

    /// A path or a tree of them; leaves `at` behind it.
    fn path(&mut self, prefix: &[String], depth: usize, in_test: bool) {
        let mut segments = prefix.to_vec();
        let line = self.tokens[self.at].line;
        loop {
            segments.push(self.text(0).into());
            self.at += 1;
            if self.text(0) != "::" {
                break;
            }
            if is_word(self.text(1)) {
                self.at += 1;
            } else if self.text(1) == "{" {
                self.at += 2;
                self.tree(&segments, depth, in_test);
                return;
            } else {
                break;
            }
        }
        self.paths.push(FoundPath { line, segments, depth, in_test });
    }

    /// The inside of `{ a, b::c }` after a path, with its closing brace.
    fn tree(&mut self, prefix: &[String], depth: usize, in_test: bool) {
        while self.at < self.tokens.len() && self.text(0) != "}" {
            if is_word(self.text(0)) {
                self.path(prefix, depth, in_test);
                if self.text(0) == "as" {
                    self.at += 2;
                }
            } else {
                self.at += 1;
            }
        }
        self.at += 1;
    }

    fn text(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| &token.text)
    }

    fn text_before(&self, back: usize) -> &str {
        &self.tokens[self.at - back].text
    }

    fn ahead(&self, texts: &[&str]) -> bool {
        texts.iter().enumerate().all(|(i, text)| self.text(i) == *text)
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c == '_' || c.is_alphanumeric())
}

/// Words, `::` and single characters; comments and literals are gone.
fn tokenize(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        let end = match c {
            '/' if next == Some('/') => at + chars[at..].iter().take_while(|c| **c != '\n').count(),
            '/' if next == Some('*') => skip_comment(&chars, at),
            '"' => skip_string(&chars, at),
            '\'' => skip_char_or_lifetime(&chars, at),
            ':' if next == Some(':') => {
                tokens.push(Token { line, text: "::".into() });
                at + 2
            }
            c if is_word(&c.to_string()) => {
                let end = at
                    + chars[at..].iter().take_while(|c| **c == '_' || c.is_alphanumeric()).count();
                let word: String = chars[at..end].iter().collect();
                if matches!(word.as_str(), "r" | "br" | "cr") && raw_hashes(&chars, end).is_some() {
                    skip_raw_string(&chars, end)
                } else if matches!(word.as_str(), "b" | "c")
                    && matches!(chars.get(end), Some('"' | '\''))
                {
                    end // the literal itself follows
                } else {
                    tokens.push(Token { line, text: word });
                    end
                }
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token { line, text: c.into() });
                }
                at + 1
            }
        };
        let end = end.min(chars.len());
        line += chars[at..end].iter().filter(|c| **c == '\n').count();
        at = end;
    }
    tokens
}

fn skip_comment(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn skip_string(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// How many `#` stand before the quote of a raw string; `None` when it is none.
fn raw_hashes(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    (chars.get(at + hashes) == Some(&'"')).then_some(hashes)
}

fn skip_raw_string(chars: &[char], start: usize) -> usize {
    let hashes = raw_hashes(chars, start).unwrap_or(0);
    let mut at = start + hashes + 1;
    while at < chars.len() {
        let closes = chars[at] == '"'
            && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
        at += 1;
        if closes {
            return at + hashes;
        }
    }
    at
}

fn skip_char_or_lifetime(chars: &[char], start: usize) -> usize {
    match (chars.get(start + 1), chars.get(start + 2)) {
        (Some('\\'), _) => {
            let mut at = start + 3;
            while at < chars.len() && chars[at] != '\'' {
                at += 1;
            }
            at + 1
        }
        (Some(_), Some('\'')) => start + 3,
        _ => start + 1, // a lifetime: its name is an ordinary word
    }
}
