//! Signals as wishes, delivered through mio.

use std::fmt;
use std::io;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: stop cleanly.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: log all counters.
    Report,
}

/// Catches the signals from the moment it is made; readable when one has come.
pub struct Signals(signal_hook_mio::v1_0::Signals);

impl Signals {
    /// Takes the signals over from their default actions, for the whole process.
    pub fn new() -> io::Result<Self> {
        signal_hook_mio::v1_0::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1]).map(Self)
    }

    /// What has come since the last call; the same signal twice counts once.
    pub fn pending(&mut self) -> impl Iterator<Item = Signal> {
        self.0.pending().filter_map(meaning)
    }
}

fn meaning(number: i32) -> Option<Signal> {
    match number {
        SIGTERM | SIGINT => Some(Signal::Stop),
        SIGHUP => Some(Signal::Reload),
        SIGUSR1 => Some(Signal::Report),
        _ => None,
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").finish_non_exhaustive()
    }
}

impl Source for Signals {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.0.register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.0.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.0.deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_wakes_the_poll_and_is_told_once() {
        let mut poll = mio::Poll::new().unwrap();
        let mut signals = Signals::new().unwrap();
        poll.registry().register(&mut signals, Token(3), Interest::READABLE).unwrap();
        signal_hook::low_level::raise(SIGHUP).unwrap();
        signal_hook::low_level::raise(SIGHUP).unwrap();
        let mut events = mio::Events::with_capacity(4);
        poll.poll(&mut events, Some(std::time::Duration::from_secs(5))).unwrap();
        assert!(events.iter().any(|event| event.token() == Token(3)));
        assert_eq!(signals.pending().collect::<Vec<_>>(), [Signal::Reload]);
        assert_eq!(signals.pending().count(), 0);
    }

    #[test]
    fn each_signal_has_its_meaning() {
        assert_eq!(meaning(SIGTERM), Some(Signal::Stop));
        assert_eq!(meaning(SIGINT), Some(Signal::Stop));
        assert_eq!(meaning(SIGHUP), Some(Signal::Reload));
        assert_eq!(meaning(SIGUSR1), Some(Signal::Report));
        assert_eq!(meaning(libc::SIGCHLD), None);
    }
}
