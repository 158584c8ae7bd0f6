//! Colour, for terminals only: whole lines, so that columns stay where they are.

use std::io::{self, IsTerminal as _};

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Head,
    /// As somebody wants it, but not as usual.
    Notice,
    /// Somebody should look.
    Alarm,
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(bool);

impl Paint {
    /// For standard output: no colours in a file or pipe, nor where `NO_COLOR` is set.
    pub(super) fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(io::stdout().is_terminal() && !unwanted)
    }

    /// The line with its colour, and its end.
    pub(super) fn line(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Head => "1",
            Tone::Notice => "33",
            Tone::Alarm => "31",
            Tone::Plain => return format!("{text}\n"),
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m\n") } else { format!("{text}\n") }
    }

    /// The lines of a table: the first is its head, the others have their tones.
    pub(super) fn table(self, lines: &[String], tones: &[Tone]) -> String {
        let tones = std::iter::once(Tone::Head).chain(tones.iter().copied());
        let tones = tones.chain(std::iter::repeat(Tone::Plain));
        lines.iter().zip(tones).map(|(line, tone)| self.line(tone, line)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_with_colours_there_are_codes() {
        let lines = ["HEAD", "one", "two"].map(str::to_owned);
        assert_eq!(Paint(false).table(&lines, &[Tone::Alarm]), "HEAD\none\ntwo\n");
        let painted = Paint(true).table(&lines, &[Tone::Alarm]);
        assert_eq!(painted, "\x1b[1mHEAD\x1b[0m\n\x1b[31mone\x1b[0m\ntwo\n");
    }
}
