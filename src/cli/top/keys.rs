//! What keys mean.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::sort::Column;

/// What whoever sits there wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Quit,
    Sort(Column),
    Reverse,
    /// So many lines down; up where negative.
    Scroll(i16),
    Top,
}

/// At the bottom of the screen; no wider than 80 columns.
pub(super) const HELP: &str =
    "q quit  sort: n name w weight a active i inactive c new/s b in o out f file  r reverse";
pub(super) const SHORT_HELP: &str =
    "q quit  sort by n w a i c b o, f file order  r reverse  ↑↓ scroll";

const PAGE: i16 = 10;

pub(super) fn wish(key: KeyEvent) -> Option<Wish> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('c' | 'C') if control => Wish::Quit,
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => Wish::Quit,
        KeyCode::Char('r') => Wish::Reverse,
        KeyCode::Char('j') | KeyCode::Down => Wish::Scroll(1),
        KeyCode::Char('k') | KeyCode::Up => Wish::Scroll(-1),
        KeyCode::Char(' ') | KeyCode::PageDown => Wish::Scroll(PAGE),
        KeyCode::PageUp => Wish::Scroll(-PAGE),
        KeyCode::Char('g') | KeyCode::Home => Wish::Top,
        KeyCode::Char(letter) => Wish::Sort(Column::of_key(letter)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_is_shown_does_something() {
        let key = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::NONE);
        for letter in "qnwaicbofr".chars() {
            assert!(HELP.contains(&format!("{letter} ")), "{letter} is not in the help");
            assert!(wish(key(letter)).is_some(), "{letter} does nothing");
        }
        assert_eq!(wish(key('x')), None);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(wish(interrupt), Some(Wish::Quit));
        assert_eq!(wish(key('c')), Some(Wish::Sort(Column::New)));
        for help in [HELP, SHORT_HELP] {
            assert!(help.chars().count() < 90);
        }
        assert!(SHORT_HELP.chars().count() <= 80);
    }
}
