//! What the loop tells the log: single events, and all counters at once.

use std::mem::{Discriminant, discriminant};

use super::turns::Turns;
use crate::control::{Entry, Notice};
use crate::dataplane::{
    self, ClaimReport, DropReason, Event, FtpCounters, Load, ServiceReport, Traffic,
};
use crate::time::Duration;
use crate::{ha, host, links};

type Fields = Vec<(&'static str, String)>;

/// Something for the log.
#[derive(Debug)]
pub(super) enum Note {
    /// The dataplane noticed something; in words, because only the loop has the table at hand.
    Event(Event, Entry),
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
    pub(super) entry: Entry,
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
            Self::Event(event, _) => Some(Cause::Dataplane(discriminant(event))),
            Self::Pair(note) => note.cause,
            Self::Report(_) => None,
        }
    }

    fn level(&self) -> log::Level {
        match self {
            Self::Event(event, _) => event.level(),
            Self::Pair(note) => note.level,
            Self::Report(_) => log::Level::Info,
        }
    }

    fn entries(&self) -> Vec<Entry> {
        match self {
            Self::Event(_, entry) => vec![entry.clone()],
            Self::Pair(note) => vec![note.entry.clone()],
            Self::Report(report) => report.entries(),
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

impl Report {
    fn entries(&self) -> Vec<Entry> {
        let table = &self.dataplane;
        let mut entries = vec![self.of_loop()];
        entries.extend(self.links.iter().map(|(name, counters)| of_link(name, counters)));
        entries.push(of_host(&self.host));
        let flows = [
            ("generation", table.generation.to_string()),
            ("flows", table.flows.to_string()),
            ("max_flows", table.max_flows.to_string()),
        ];
        entries.push(Entry { text: "report: table", fields: flows.into() });
        table.services.iter().for_each(|service| of_service(service, &mut entries));
        entries.extend(table.claims.iter().map(of_claim));
        let reasons = DropReason::ALL.iter();
        let dropped = reasons.map(|reason| (reason, table.counters.dropped(*reason)));
        entries.extend(dropped.filter(|(_, count)| *count > 0).map(of_drops));
        if table.counters.suppressed > 0 {
            let fields = vec![("count", table.counters.suppressed.to_string())];
            entries.push(Entry { text: "report: too many ICMP errors and resets", fields });
        }
        entries.extend(of_ftp(&table.ftp));
        entries.push(self.balance().entry());
        entries
    }

    fn of_loop(&self) -> Entry {
        let turns = self.turns.told();
        let fields = vec![
            ("uptime", self.uptime.secs().to_string()),
            ("turns", turns.count.to_string()),
            ("longest_us", turns.longest_us.to_string()),
            ("above_1ms", turns.above_1ms.to_string()),
        ];
        Entry { text: "report: loop", fields }
    }

    fn balance(&self) -> Balance {
        let counters = &self.dataplane.counters;
        Balance {
            received: self.links.iter().map(|(_, link)| link.frames_in).sum(),
            originated: counters.originated,
            copied: counters.copies + self.links.iter().map(|(_, link)| link.cut).sum::<u64>(),
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

/// What the FTP helper has done, if it has done anything.
fn of_ftp(counters: &FtpCounters) -> Option<Entry> {
    let FtpCounters { offers, connections, rewritten, unreadable, refused, unasked, full } =
        *counters;
    if *counters == FtpCounters::default() {
        return None;
    }
    let fields = vec![
        ("offers", offers.to_string()),
        ("connections", connections.to_string()),
        ("rewritten", rewritten.to_string()),
        ("unreadable", unreadable.to_string()),
        ("unasked", unasked.to_string()),
        ("refused", refused.to_string()),
        ("full", full.to_string()),
    ];
    Some(Entry { text: "report: ftp", fields })
}

/// Where every frame went. In and out are counted by the links, all else by the dataplane, so the
/// two keep an eye on each other.
#[derive(Clone, Copy, Debug)]
struct Balance {
    received: u64,
    originated: u64,
    /// How many more left than came in, where a bridge sent one to several links or a link took no
    /// segments.
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

impl Balance {
    fn entry(&self) -> Entry {
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
        let known = received + originated + copied;
        let gone = sent + to_host + to_ha + split + consumed + dropped + held;
        let counts = [
            ("in", received),
            ("originated", originated),
            ("copied", copied),
            ("out", sent),
            ("to_host", to_host),
            ("to_ha", to_ha),
            ("split", split),
            ("consumed", consumed),
            ("dropped", dropped),
            ("held", held),
        ];
        let mut fields: Fields = counts.map(|(key, count)| (key, count.to_string())).into();
        let text = match known.abs_diff(gone) {
            0 => "report: balance: every frame is accounted for",
            frames if known > gone => {
                fields.push(("missing", frames.to_string()));
                "report: balance: frames are missing"
            }
            frames => {
                fields.push(("surplus", frames.to_string()));
                "report: balance: there are frames too many"
            }
        };
        Entry { text, fields }
    }
}

fn of_link(name: &str, counters: &links::Counters) -> Entry {
    let links::Counters {
        frames_in,
        bytes_in,
        frames_out,
        bytes_out,
        read_errors,
        refused,
        cut,
        lost,
    } = counters;
    let links::Refused { down, no_memory, invalid, gone, other } = refused;
    let mut fields = vec![("link", name.to_owned())];
    let counts = [
        ("frames_in", *frames_in),
        ("bytes_in", *bytes_in),
        ("frames_out", *frames_out),
        ("bytes_out", *bytes_out),
        ("read_errors", *read_errors),
        ("cut", *cut),
        ("removed", *lost),
        ("refused", refused.total()),
    ];
    fields.extend(counts.map(|(key, count)| (key, count.to_string())));
    let causes = [
        ("refused_down", down),
        ("refused_no_memory", no_memory),
        ("refused_invalid", invalid),
        ("refused_gone", gone),
        ("refused_other", other),
    ];
    let seen = causes.into_iter().filter(|(_, count)| **count > 0);
    fields.extend(seen.map(|(key, count)| (key, count.to_string())));
    Entry { text: "report: link", fields }
}

fn of_host(counters: &host::Counters) -> Entry {
    let host::Counters { received, refused, ignored, sent, limited } = counters;
    let counts = [
        ("received", received),
        ("sent", sent),
        ("refused", refused),
        ("ignored", ignored),
        ("limited", limited),
    ];
    Entry {
        text: "report: host",
        fields: counts.map(|(key, count)| (key, count.to_string())).into(),
    }
}

/// A service, and a line for each of its servers.
fn of_service(service: &ServiceReport, entries: &mut Vec<Entry>) {
    let mut fields = vec![
        ("service", service.name.clone()),
        ("protocol", service.proto.to_string()),
        ("address", service.endpoint.to_string()),
    ];
    add_figures(&mut fields, service.load, &service.traffic);
    entries.push(Entry { text: "report: service", fields });
    for server in &service.servers {
        let mut fields = vec![
            ("service", service.name.clone()),
            ("server", server.name.clone()),
            ("address", server.endpoint.to_string()),
            ("weight", server.weight.to_string()),
        ];
        add_figures(&mut fields, server.load, &server.traffic);
        entries.push(Entry { text: "report: server", fields });
    }
}

fn add_figures(fields: &mut Fields, load: Load, traffic: &Traffic) {
    let Traffic { flows, packets_in, bytes_in, packets_out, bytes_out } = *traffic;
    let counts = [
        ("active", load.active.into()),
        ("inactive", load.inactive.into()),
        ("flows", flows),
        ("packets_in", packets_in),
        ("bytes_in", bytes_in),
        ("packets_out", packets_out),
        ("bytes_out", bytes_out),
    ];
    fields.extend(counts.map(|(key, count): (_, u64)| (key, count.to_string())));
}

fn of_claim(claim: &ClaimReport) -> Entry {
    let ClaimReport { address, network, mac, server, first, last, count, suppressed } = claim;
    let mut fields = vec![
        ("network", network.clone()),
        ("address", address.to_string()),
        ("mac", mac.to_string()),
        ("count", count.to_string()),
        ("first_ago", first.secs().to_string()),
        ("last_ago", last.secs().to_string()),
        ("suppressed", suppressed.to_string()),
    ];
    fields.extend(server.as_ref().map(|server| ("server", server.clone())));
    Entry { text: "report: an address of the router is claimed", fields }
}

fn of_drops((reason, count): (&DropReason, u64)) -> Entry {
    let fields = vec![
        ("reason", reason.name().to_owned()),
        ("count", count.to_string()),
        ("meaning", reason.help().to_owned()),
    ];
    Entry { text: "report: dropped", fields }
}

#[cfg(test)]
mod tests;
