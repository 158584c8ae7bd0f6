//! What the loop tells the log: single events, and all counters at once.

use std::fmt;
use std::mem::{Discriminant, discriminant};

use super::turns::Turns;
use crate::control::Notice;
use crate::dataplane::{self, Event};
use crate::time::Duration;
use crate::{ha, host, links};

/// Something for the log.
#[derive(Debug)]
pub(super) enum Note {
    /// The dataplane noticed something; in words, because only the loop has the table at hand.
    Event(Event, String, Vec<(&'static str, String)>),
    /// Something about the role, or the other router.
    Pair(PairNote),
    /// All counters, asked for by SIGUSR1 or at the end.
    Report(Box<Report>),
}

/// A line about the pair of routers.
#[derive(Debug)]
pub(super) struct PairNote {
    /// `None`: it is said however often it happens.
    pub(super) cause: Option<Cause>,
    pub(super) level: log::Level,
    pub(super) text: &'static str,
    pub(super) fields: Vec<(&'static str, String)>,
}

/// Lines of one kind share a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Dataplane(Discriminant<Event>),
    Pair(Discriminant<ha::Event>),
    Copying(Discriminant<ha::sync::Event>),
}

impl Notice for Note {
    /// The kind of event; a report was asked for and has no limit.
    type Cause = Cause;

    fn cause(&self) -> Option<Self::Cause> {
        match self {
            Self::Event(event, ..) => Some(Cause::Dataplane(discriminant(event))),
            Self::Pair(note) => note.cause,
            Self::Report(_) => None,
        }
    }

    fn level(&self) -> log::Level {
        match self {
            Self::Event(event, ..) => event.level(),
            Self::Pair(note) => note.level,
            Self::Report(_) => log::Level::Info,
        }
    }

    fn fields(&self) -> &[(&'static str, String)] {
        match self {
            Self::Event(_, _, fields) => fields,
            Self::Pair(note) => &note.fields,
            Self::Report(_) => &[],
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(_, text, _) => f.write_str(text),
            Self::Pair(note) => f.write_str(note.text),
            Self::Report(report) => report.fmt(f),
        }
    }
}

/// The counters of every room at one moment; owned, so that the loop need not format them.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) uptime: Duration,
    pub(super) turns: Turns,
    pub(super) links: Vec<(String, links::Counters)>,
    pub(super) dataplane: dataplane::Report,
    pub(super) host: host::Counters,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "up {} s, {}", self.uptime.secs(), self.turns)?;
        for (name, counters) in &self.links {
            writeln!(f, "link {name}: {counters}")?;
        }
        writeln!(f, "host: {}", self.host)?;
        self.dataplane.fmt(f)?;
        self.balance().fmt(f)
    }
}

impl Report {
    fn balance(&self) -> Balance {
        let counters = &self.dataplane.counters;
        Balance {
            received: self.links.iter().map(|(_, link)| link.frames_in).sum(),
            originated: counters.originated,
            copied: counters.copies,
            sent: self.links.iter().map(|(_, link)| link.frames_out).sum(),
            to_host: counters.to_host,
            to_ha: counters.to_ha,
            split: counters.split,
            consumed: counters.consumed,
            dropped: counters.all_drops(),
            held: self.dataplane.waiting,
        }
    }
}

/// Where every frame went. In and out are counted by the links, all else by the dataplane, so the
/// two keep an eye on each other.
#[derive(Clone, Copy, Debug)]
struct Balance {
    received: u64,
    originated: u64,
    /// How many more left than came in, where a bridge sent one to several links.
    copied: u64,
    sent: u64,
    to_host: u64,
    to_ha: u64,
    /// Cut into fragments, which are originated.
    split: u64,
    consumed: u64,
    dropped: u64,
    held: u64,
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            received,
            originated,
            copied,
            sent,
            to_host,
            to_ha,
            split,
            consumed,
            dropped,
            held,
        } = self;
        write!(
            f,
            "balance: {received} in + {originated} originated + {copied} copied = {sent} out + {to_host} to host + \
             {to_ha} to ha + {split} split + {consumed} consumed + {dropped} dropped + {held} held: "
        )?;
        let known = received + originated + copied;
        let gone = sent + to_host + to_ha + split + consumed + dropped + held;
        match known.abs_diff(gone) {
            0 => f.write_str("every frame is accounted for"),
            frames if known > gone => write!(f, "{frames} frames are missing"),
            frames => write!(f, "{frames} frames too many"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_balance_says_whether_it_balances() {
        let mut balance = Balance {
            received: 10,
            originated: 2,
            copied: 4,
            sent: 9,
            to_host: 1,
            to_ha: 1,
            split: 1,
            consumed: 1,
            dropped: 2,
            held: 1,
        };
        assert_eq!(
            balance.to_string(),
            "balance: 10 in + 2 originated + 4 copied = 9 out + 1 to host + 1 to ha + 1 split + 1 consumed + \
             2 dropped + 1 held: every frame is accounted for"
        );
        balance.received = 13;
        assert!(balance.to_string().ends_with(": 3 frames are missing"));
        balance.sent = 19;
        assert!(balance.to_string().ends_with(": 7 frames too many"));
    }
}
