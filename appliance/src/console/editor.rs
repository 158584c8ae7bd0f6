//! One line being typed: echo, backspace, Ctrl-U, Ctrl-C, and the lines typed before with the arrows.

const PROMPT: &str = "tapvs> ";
/// Of bytes in a line.
const LONGEST: usize = 200;
/// Of lines before.
const KEPT: usize = 50;

/// What a key came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    Nothing,
    /// To be shown.
    Echo(String),
    /// Enter.
    Line(String),
}

/// Where in an escape sequence the input is.
#[derive(Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    No,
    Begun,
    /// After `ESC [` or `ESC O`: an arrow follows, perhaps after figures.
    Inside,
}

#[derive(Debug, Default)]
pub(super) struct Editor {
    line: String,
    before: Vec<String>,
    /// How far back in `before`; 0 is the line being typed.
    back: usize,
    escape: Escape,
    after_return: bool,
}

impl Editor {
    /// The prompt and what has been typed so far.
    pub(super) fn prompt(&self) -> String {
        format!("{PROMPT}{}", self.line)
    }

    pub(super) fn key(&mut self, byte: u8) -> Key {
        // Some terminals send both at Enter.
        let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
        match (&self.escape, byte) {
            (Escape::Begun, b'[' | b'O') => self.escape = Escape::Inside,
            (Escape::Begun, _) => self.escape = Escape::No,
            (Escape::Inside, b'0'..=b'9' | b';') => {}
            (Escape::Inside, arrow) => {
                self.escape = Escape::No;
                return self.arrow(arrow);
            }
            (Escape::No, 0x1b) => self.escape = Escape::Begun,
            (Escape::No, b'\n') if after_return => {}
            (Escape::No, b'\r' | b'\n') => return self.enter(),
            // Backspace, either way.
            (Escape::No, 0x08 | 0x7f) => {
                if self.line.pop().is_some() {
                    return Key::Echo("\x08 \x08".into());
                }
            }
            // Ctrl-C and Ctrl-U: begin again.
            (Escape::No, 0x03 | 0x15) => return self.replace(String::new()),
            (Escape::No, b' '..=b'~') if self.line.len() < LONGEST => {
                self.line.push(char::from(byte));
                return Key::Echo(char::from(byte).to_string());
            }
            (Escape::No, _) => {}
        }
        Key::Nothing
    }

    fn enter(&mut self) -> Key {
        let line = std::mem::take(&mut self.line);
        self.back = 0;
        if !line.trim().is_empty() && self.before.last() != Some(&line) {
            if self.before.len() == KEPT {
                self.before.remove(0);
            }
            self.before.push(line.clone());
        }
        Key::Line(line)
    }

    fn arrow(&mut self, arrow: u8) -> Key {
        let back = match arrow {
            b'A' => (self.back + 1).min(self.before.len()),
            b'B' => self.back.saturating_sub(1),
            _ => return Key::Nothing,
        };
        self.back = back;
        let at = self.before.len() - back;
        self.replace(self.before.get(at).cloned().unwrap_or_default())
    }

    fn replace(&mut self, line: String) -> Key {
        self.line = line;
        Key::Echo(format!("\r{}\x1b[K", self.prompt()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(editor: &mut Editor, typed: &str) -> Option<String> {
        let mut line = None;
        for byte in typed.bytes() {
            if let Key::Line(text) = editor.key(byte) {
                line = Some(text);
            }
        }
        line
    }

    #[test]
    fn a_line_is_what_is_left_of_what_was_typed() {
        let mut editor = Editor::default();
        assert_eq!(line(&mut editor, "statsu\x7f\x7fus\r").as_deref(), Some("status"));
        assert_eq!(line(&mut editor, "rubbish\x15drops\r\n").as_deref(), Some("drops"));
        assert_eq!(line(&mut editor, "\n").as_deref(), Some(""), "not swallowed twice");
        assert_eq!(line(&mut editor, "x\x03\x01äy\r").as_deref(), Some("y"));
        assert_eq!(line(&mut editor, "half"), None);
        assert_eq!(editor.prompt(), "tapvs> half");
    }

    #[test]
    fn arrows_bring_lines_back() {
        let mut editor = Editor::default();
        for typed in ["one\r", "two\r", "two\r", "\r"] {
            line(&mut editor, typed);
        }
        assert_eq!(line(&mut editor, "\x1b[A\x1b[A\r").as_deref(), Some("one"));
        assert_eq!(line(&mut editor, "\x1bOA\x1b[B\r").as_deref(), Some(""), "up and down");
        assert_eq!(
            line(&mut editor, "\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\r").as_deref(),
            Some("one")
        );
        assert_eq!(line(&mut editor, "a\x1b[3~\x1b[Cb\r").as_deref(), Some("ab"), "other keys");
    }

    #[test]
    fn a_line_does_not_grow_for_ever() {
        let mut editor = Editor::default();
        let typed = format!("{}\r", "x".repeat(10_000));
        assert_eq!(line(&mut editor, &typed).map(|line| line.len()), Some(LONGEST));
        for number in 0..1_000 {
            line(&mut editor, &format!("{number}\r"));
        }
        assert_eq!(editor.before.len(), KEPT);
    }
}
