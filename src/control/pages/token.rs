//! The word that allows changes over HTTP, and how often it may be guessed.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use subtle::ConstantTimeEq as _;

use crate::control::secret;
use crate::time::{Duration, Instant};

/// What a token has to be: too much to be guessed, and something that fits a header.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=256;
/// Wrong tokens of one address before none of its is looked at any more, for as long as this.
const GUESSES: u32 = 5;
const WINDOW: Duration = Duration::from_secs(10);
/// Addresses that are remembered.
const GUESSERS: usize = 64;

/// The token. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::control) struct Token(Vec<u8>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// Reads a token file: one line.
    ///
    /// # Errors
    /// When it cannot be read, or holds no token.
    pub(in crate::control) fn read(path: &Path) -> io::Result<Self> {
        let text = secret::read(path)?;
        let fits = LENGTHS.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if !fits {
            let (least, most) = (LENGTHS.start(), LENGTHS.end());
            let expected = format!(
                "expected one line of {least} to {most} visible ASCII characters, such as from \
                 `openssl rand -hex 32`"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, expected));
        }
        Ok(Self(text.as_bytes().to_vec()))
    }

    /// Whether it is this one. The time it takes tells at most its length.
    fn is(&self, guess: &str) -> bool {
        self.0.ct_eq(guess.as_bytes()).into()
    }
}

/// What is to be said to somebody who wants to change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Granted,
    /// There is no token, or it is wrong.
    Denied,
    /// Its address has tried too often; this one was not looked at.
    TooOften,
}

/// Who has guessed wrong of late.
#[derive(Debug, Default)]
pub(super) struct Door {
    guessers: Vec<(IpAddr, Instant, u32)>,
}

impl Door {
    pub(super) fn admit(
        &mut self,
        token: &Token,
        guess: Option<&str>,
        peer: IpAddr,
        now: Instant,
    ) -> Admission {
        self.guessers.retain(|(_, since, _)| now < *since + WINDOW);
        let known = self.guessers.iter_mut().find(|(address, ..)| *address == peer);
        if known.as_ref().is_some_and(|(.., wrong)| *wrong >= GUESSES) {
            return Admission::TooOften;
        }
        if guess.is_some_and(|guess| token.is(guess)) {
            return Admission::Granted;
        }
        match known {
            Some((.., wrong)) => *wrong += 1,
            None => {
                if self.guessers.len() == GUESSERS {
                    self.guessers.remove(0);
                }
                self.guessers.push((peer, now, 1));
            }
        }
        Admission::Denied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::scratch::Scratch;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 10));

    fn token() -> Token {
        Token(b"0123456789abcdef".to_vec())
    }

    #[test]
    fn a_token_is_one_line_that_cannot_be_guessed() {
        let scratch = Scratch::new("token");
        let path = scratch.path().join("token");
        assert_eq!(Token::read(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        for (text, fits) in [
            ("0123456789abcdef\n", true),
            ("  0123456789abcdef", true),
            ("0123456789abcde", false),
            ("0123456789 abcdef", false),
            ("0123456789äbcdef", false),
            ("", false),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Token::read(&path).ok(), fits.then(token), "{text:?}");
        }
        std::fs::write(&path, vec![b'x'; 257]).unwrap();
        assert!(Token::read(&path).unwrap_err().to_string().contains("16 to 256"));
        assert_eq!(format!("{:?}", token()), "Token(…)");
    }

    #[test]
    fn guessing_is_limited_for_the_guesser_alone() {
        let mut door = Door::default();
        let mut at = |ms, peer, guess| door.admit(&token(), guess, peer, Instant::from_millis(ms));
        let right = Some("0123456789abcdef");
        assert_eq!(at(0, PEER, right), Admission::Granted);
        for (n, guess) in
            [None, Some(""), Some("0123456789abcdeF"), Some("x"), None].iter().enumerate()
        {
            assert_eq!(at(n as i64, PEER, *guess), Admission::Denied, "{guess:?}");
        }
        assert_eq!(at(100, PEER, right), Admission::TooOften, "not even the right one");
        assert_eq!(at(100, OTHER, right), Admission::Granted);
        assert_eq!(at(9_999, PEER, right), Admission::TooOften);
        assert_eq!(at(10_000, PEER, right), Admission::Granted);
    }

    #[test]
    fn who_guesses_from_everywhere_is_not_remembered_without_bound() {
        let mut door = Door::default();
        for n in 0..10_000_u32 {
            let peer = IpAddr::V4(std::net::Ipv4Addr::from(n));
            assert_eq!(door.admit(&token(), None, peer, Instant::ZERO), Admission::Denied);
        }
        assert_eq!(door.guessers.len(), GUESSERS);
    }
}
