//! keepalived.conf as lines of words: included files, `@id` lines, `$NAME=` definitions, `~SEQ` and `~LST`
//! carried out, comments and quotes taken away. Every step is paid from one budget.

use std::collections::HashMap;

use crate::import::remark::{Files, Notes, Place, quote};
use crate::import::{ImportError, LONGEST, MOST_STATEMENTS, Surroundings};

/// A word, and whether it was quoted: a quoted brace is text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) is_quoted: bool,
}

/// The words of a line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) place: Place,
    pub(super) words: Vec<Word>,
}

/// Every line that is not empty, in the order in which keepalived sees them.
pub(super) fn lines(
    text: &str,
    config_id: Option<&str>,
    files: &mut Files,
    surroundings: &mut dyn Surroundings,
    notes: &mut Notes,
) -> Result<Vec<Line>, ImportError> {
    let mut reader = Reader {
        config_id,
        files,
        surroundings,
        notes,
        definitions: HashMap::new(),
        spent: 0,
        lines: Vec::new(),
    };
    let first = Frame::file(text.to_owned(), 0);
    reader.run(first)?;
    Ok(reader.lines)
}

/// Files in files and definitions in definitions.
const DEEPEST: usize = 32;

/// A text that is being read: a file, or the lines that a definition stands for.
struct Frame {
    text: String,
    at: usize,
    file: u16,
    line: u32,
    /// The lines of a definition all stand where it is used.
    is_file: bool,
    /// How many texts it is in.
    depth: usize,
}

impl Frame {
    const fn file(text: String, file: u16) -> Self {
        Self { text, at: 0, file, line: 0, is_file: true, depth: 0 }
    }

    const fn expansion(text: String, place: Place) -> Self {
        Self { text, at: 0, file: place.file, line: place.line, is_file: false, depth: 0 }
    }

    fn next(&mut self) -> Option<(String, Place)> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let (line, used) = match rest.find('\n') {
            Some(end) => (&rest[..end], end + 1),
            None => (rest, rest.len()),
        };
        let line = line.to_owned();
        self.at += used;
        if self.is_file {
            self.line = self.line.saturating_add(1);
        }
        Some((line, Place { file: self.file, line: self.line }))
    }
}

struct Reader<'r> {
    config_id: Option<&'r str>,
    files: &'r mut Files,
    surroundings: &'r mut dyn Surroundings,
    notes: &'r mut Notes,
    definitions: HashMap<String, String>,
    spent: usize,
    lines: Vec<Line>,
}

impl Reader<'_> {
    fn run(&mut self, first: Frame) -> Result<(), ImportError> {
        let mut frames = vec![first];
        while let Some(frame) = frames.last_mut() {
            let Some((mut line, place)) = frame.next() else {
                frames.pop();
                continue;
            };
            self.spend(line.len() + 1)?;
            // A definition goes on as long as its lines end in a backslash.
            if is_definition(&line) && line.trim_end().ends_with('\\') {
                while let Some(begun) = line.trim_end().strip_suffix('\\') {
                    line = format!("{begun}\n");
                    let Some((next, _)) = frame.next() else { break };
                    self.spend(next.len() + 1)?;
                    line.push_str(&next);
                }
                self.define(&line);
                continue;
            }
            let depth = frame.depth + 1;
            let more = self.line(&line, place)?;
            if depth > DEEPEST && !more.is_empty() {
                self.notes.lost(place, format_args!("{}: nested too deeply", quote(&line)));
                continue;
            }
            frames.extend(more.into_iter().rev().map(|frame| Frame { depth, ..frame }));
        }
        Ok(())
    }

    /// Takes one line; gives what is to be read before the next one.
    fn line(&mut self, line: &str, place: Place) -> Result<Vec<Frame>, ImportError> {
        if let Some(pattern) = included(line) {
            return self.include(pattern, place);
        }
        let line = without_comment(line).trim();
        let Some(line) = self.condition(line, place) else { return Ok(Vec::new()) };
        if is_definition(line) {
            self.define(line);
            return Ok(Vec::new());
        }
        if line.starts_with("~SEQ") || line.starts_with("~LST") {
            let Some(text) = repeated(line) else {
                self.notes.lost(place, quote(line));
                return Ok(Vec::new());
            };
            self.spend(text.len())?;
            return Ok(vec![Frame::expansion(text, place)]);
        }
        let replaced = self.substitute(line)?;
        if replaced.contains('\n') || replaced.starts_with('~') && replaced != line {
            return Ok(vec![Frame::expansion(replaced, place)]);
        }
        let Some(line) = self.condition(&replaced, place) else { return Ok(Vec::new()) };
        let words = words(line);
        if !words.is_empty() {
            if self.lines.len() >= MOST_STATEMENTS {
                return Err(ImportError::TooMany { most: MOST_STATEMENTS });
            }
            self.lines.push(Line { place, words });
        }
        Ok(Vec::new())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), ImportError> {
        self.spent = self.spent.saturating_add(bytes);
        if self.spent > LONGEST + MOST_STATEMENTS { Err(ImportError::TooLong) } else { Ok(()) }
    }

    fn include(&mut self, pattern: &str, place: Place) -> Result<Vec<Frame>, ImportError> {
        let from = self.files.name(place).to_owned();
        let found = match self.surroundings.include(pattern, &from) {
            Ok(found) => found,
            Err(error) => {
                self.notes.lost(place, format_args!("include {}: {error}", quote(pattern)));
                return Ok(Vec::new());
            }
        };
        if found.is_empty() {
            self.notes
                .lost(place, format_args!("include {}: there is no such file", quote(pattern)));
        }
        let mut frames = Vec::new();
        for (name, text) in found {
            self.spend(text.len())?;
            match self.files.add(&name) {
                Some(number) => frames.push(Frame::file(text, number)),
                None => self.notes.lost(place, format_args!("include {name}: too many files")),
            }
        }
        Ok(frames)
    }

    /// `@id` lines are for one router, `@^id` lines for every other.
    fn condition<'l>(&mut self, line: &'l str, place: Place) -> Option<&'l str> {
        let mut line = line;
        while let Some(rest) = line.strip_prefix('@') {
            let (is_for_others, rest) = match rest.strip_prefix('^') {
                Some(rest) => (true, rest),
                None => (false, rest),
            };
            let (id, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            if (self.config_id == Some(id)) == is_for_others {
                if self.config_id.is_none() {
                    let text = format!("{}: only for --config-id {id}", quote(after.trim()));
                    self.notes.lost(place, text);
                }
                return None;
            }
            line = after.trim_start();
        }
        Some(line)
    }

    fn define(&mut self, line: &str) {
        if let Some((name, value)) =
            line.trim_start().strip_prefix('$').and_then(|l| l.split_once('='))
        {
            // A value of several lines begins after the first.
            let value = value.trim_start_matches([' ', '\t']);
            let value = value.strip_prefix('\n').unwrap_or(value);
            self.definitions.insert(name.to_owned(), value.trim_end().to_owned());
        }
    }

    /// Replaces `${NAME}`, and `$NAME` before a space, also in what has replaced another.
    fn substitute(&mut self, line: &str) -> Result<String, ImportError> {
        /// One that names itself would never end.
        const MOST: usize = 200;
        const LONGEST_LINE: usize = 64 << 10;
        let mut line = line.to_owned();
        let mut from = 0;
        let mut replaced = 0;
        while let Some(at) = line.get(from..).and_then(|rest| rest.find('$')).map(|at| from + at) {
            let Some((name, end)) = parameter(&line, at) else {
                from = at + 1;
                continue;
            };
            let value = match name {
                "_HASH" => Some("#"),
                "_BANG" => Some("!"),
                _ => self.definitions.get(name).map(String::as_str),
            };
            let Some(value) = value.filter(|_| replaced < MOST && line.len() < LONGEST_LINE) else {
                from = at + 1;
                continue;
            };
            let value = value.to_owned();
            replaced += 1;
            self.spend(value.len())?;
            line.replace_range(at..end, &value);
            if value.contains('\n') {
                // Its lines are read one by one, each with what it names.
                break;
            }
        }
        if replaced > 0 {
            self.spend(line.len())?;
        }
        Ok(line)
    }
}

/// The name that stands at a `$`, and where it ends.
fn parameter(line: &str, at: usize) -> Option<(&str, usize)> {
    let rest = line.get(at + 1..)?;
    if let Some(braced) = rest.strip_prefix('{') {
        let end = braced.find('}')?;
        return Some((&braced[..end], at + 2 + end + 1));
    }
    let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
    let is_ended = rest[end..].chars().next().is_none_or(char::is_whitespace);
    (end > 0 && is_ended).then(|| (&rest[..end], at + 1 + end))
}

const fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// `$NAME=`, with nothing before the `=`.
fn is_definition(line: &str) -> bool {
    let Some(rest) = line.trim_start().strip_prefix('$') else { return false };
    let name = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
    name > 0 && rest[name..].starts_with('=')
}

/// What is included by a line, if it includes something.
fn included(line: &str) -> Option<&str> {
    let (word, pattern) = line.trim().split_once(char::is_whitespace)?;
    let is =
        matches!(word, "include" | "includer" | "includem" | "includew" | "includeb" | "includea");
    let pattern = without_comment(pattern).trim().trim_matches('"');
    (is && !pattern.is_empty()).then_some(pattern)
}

/// A line up to a `#` or `!` that no quotes hold.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (_, '\\') => {
                chars.next();
            }
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '#' | '!') => return &line[..at],
            _ => {}
        }
    }
    line
}

/// A line's words. Braces that stand at a word's end are words of their own.
fn words(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote = None;
    let mut chars = line.chars();
    let add = |word: &mut Option<Word>, c: char, is_quoted: bool| {
        let word = word.get_or_insert_with(|| Word { text: String::new(), is_quoted: false });
        word.is_quoted |= is_quoted;
        word.text.push(c);
    };
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), '\\') => match chars.next() {
                Some('n') => add(&mut word, '\n', true),
                Some('r') => add(&mut word, '\r', true),
                Some('t') => add(&mut word, '\t', true),
                Some(other) => add(&mut word, other, true),
                None => {}
            },
            (Some(_), c) => add(&mut word, c, true),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert(Word { text: String::new(), is_quoted: true }).is_quoted = true;
            }
            (None, c) if c.is_whitespace() => finish(&mut words, word.take()),
            (None, c) => add(&mut word, c, false),
        }
    }
    finish(&mut words, word);
    words
}

fn finish(words: &mut Vec<Word>, word: Option<Word>) {
    let Some(word) = word else { return };
    if word.is_quoted {
        return words.push(word);
    }
    let plain = |text: &str| Word { text: text.to_owned(), is_quoted: false };
    let text = word.text.trim_end_matches(['{', '}']);
    // `${NAME}` that nobody defined is one word; so is a pattern such as `a{2}`.
    if text.contains('{') {
        return words.push(word);
    }
    if !text.is_empty() {
        words.push(plain(text));
    }
    words
        .extend(word.text[text.len()..].chars().map(|brace| plain(brace.encode_utf8(&mut [0; 4]))));
}

/// What a `~SEQ` or `~LST` line stands for: definitions and the rest of the line, again and again.
fn repeated(line: &str) -> Option<String> {
    const MOST: usize = 70_000;
    let (head, rest) = line.split_once('(')?;
    let (inside, rest) = rest.split_once(')')?;
    let rest = rest.trim();
    let mut text = String::new();
    if head == "~LST" {
        let lists = groups(inside)?;
        let (names, values) = lists.split_first()?;
        for value in values.iter().filter(|value| value.len() == names.len()).take(MOST) {
            for (name, value) in names.iter().zip(value) {
                text.push_str(&format!("${name}={value}\n"));
            }
            text.push_str(&format!("{rest}\n"));
            if text.len() > LONGEST {
                break;
            }
        }
        let fits = !values.is_empty() && values.iter().all(|value| value.len() == names.len());
        return fits.then_some(text);
    }
    let is_hex = head == "~SEQx";
    if !is_hex && head != "~SEQ" {
        return None;
    }
    let mut parts = inside.split(',').map(str::trim);
    let name = parts.next()?;
    let numbers: Vec<i64> = parts.map(number).collect::<Option<_>>()?;
    let (start, step, end) = match *numbers.as_slice() {
        [end] => (end.signum(), end.signum(), end),
        [start, end] => (start, if end >= start { 1 } else { -1 }, end),
        [start, step, end] => (start, step, end),
        _ => return None,
    };
    let count = end.checked_sub(start)?.checked_div(step)?;
    let count = usize::try_from(count).ok().filter(|count| *count < MOST)?;
    let mut value = start;
    for _ in 0..=count {
        let shown = if is_hex { format!("{value:x}") } else { value.to_string() };
        text.push_str(&format!("${name}={shown}\n{rest}\n"));
        if text.len() > LONGEST {
            break;
        }
        value = value.checked_add(step)?;
    }
    Some(text)
}

fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `a, b` is two groups of one, `{a, b}, {1, 2}` two groups of two.
fn groups(text: &str) -> Option<Vec<Vec<&str>>> {
    let mut groups = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (group, after) = match rest.strip_prefix('{') {
            Some(inner) => {
                let (group, after) = inner.split_once('}')?;
                (group.split(',').map(str::trim).collect(), after)
            }
            None => {
                let (group, after) = rest.split_once(',').unwrap_or((rest, ""));
                (vec![group.trim()], after)
            }
        };
        groups.push(group);
        rest = after.trim().trim_start_matches(',').trim_start();
    }
    Some(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::tests::Nothing;

    fn read(text: &str, id: Option<&str>) -> Vec<String> {
        let (mut files, mut notes) = (Files::new("k"), Notes::default());
        let lines = lines(text, id, &mut files, &mut Nothing, &mut notes).unwrap();
        let text = |line: &Line| {
            let words: Vec<_> = line.words.iter().map(|word| word.text.as_str()).collect();
            words.join("|")
        };
        lines.iter().map(text).collect()
    }

    #[test]
    fn comments_quotes_and_braces() {
        let text =
            "a b{ # c\n! all of it\n}\nx \"y # z\" 'q w'e\npath /a{2}/b \"{\"\nu ${NONE} v\n";
        let expected = ["a|b|{", "}", "x|y # z|q we", "path|/a{2}/b|{", "u|${NONE}|v"];
        assert_eq!(read(text, None), expected);
    }

    #[test]
    fn conditions() {
        let text = "@main a\n@^main b\n@backup c\n$IF=@main\n$IF d\n";
        assert_eq!(read(text, Some("main")), ["a", "d"]);
        assert_eq!(read(text, Some("backup")), ["b", "c"]);
        assert_eq!(read(text, None), ["b"]);
    }

    /// The examples of keepalived.conf(5).
    #[test]
    fn parameters() {
        let text =
            "$BASE=10.2.${SUB}\n$SUB=0\n${BASE}.100/32\n$SUB=10\n${BASE}.100/32\n$BASE x $BASEx\n";
        let expected = ["10.2.0.100/32", "10.2.10.100/32", "10.2.10|x|$BASEx"];
        assert_eq!(read(text, None), expected);
        let text =
            "$I= \\\n  vrrp_instance V${N} { \\\n    priority 1 \\\n  }\n$N=0\n$I\n$N=1\n$I\n";
        let expected =
            ["vrrp_instance|V0|{", "priority|1", "}", "vrrp_instance|V1|{", "priority|1", "}"];
        assert_eq!(read(text, None), expected);
    }

    #[test]
    fn sequences_and_lists() {
        assert_eq!(
            read("~SEQ(S, 0, 2) ip 10.0.${S}.1\n", None),
            ["ip|10.0.0.1", "ip|10.0.1.1", "ip|10.0.2.1"]
        );
        assert_eq!(read("~SEQx(S, 0x90, 0x10, 0xb0) $S\n", None), ["90", "a0", "b0"]);
        assert_eq!(read("~SEQ(S, 3, -2, 0) $S\n", None), ["3", "1"]);
        let text = "~LST({A, B}, {10,1},{20,4}) ~SEQ(C, 2) 192.${A}.${B}.${C}\n";
        let expected = ["192.10.1.1", "192.10.1.2", "192.20.4.1", "192.20.4.2"];
        assert_eq!(read(text, None), expected);
    }

    #[test]
    fn what_never_ends_is_ended() {
        assert_eq!(read("$A=$B\n$B=$A\nx $A\n", None).len(), 1);
        assert_eq!(read("$A=x${A}\n$A y\n", None).len(), 1);
        let doubling: String =
            (1..40).map(|n| format!("$A{n}=${{A{0}}}${{A{0}}}\n", n - 1)).collect();
        let (mut files, mut notes) = (Files::new("k"), Notes::default());
        let text = format!("$A0=xxxxxxxxxx\n{doubling}$A39\n");
        let _ = lines(&text, None, &mut files, &mut Nothing, &mut notes);
        let text = "$A= \\\n  x \\\n  $A\n$A\n";
        assert!(read(text, None).len() <= 2 * DEEPEST);
    }
}
