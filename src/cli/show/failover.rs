//! `tapvs failover`, and what `tapvs status` says of the pair.

use std::fmt::Write as _;

use crate::cli::ask::Router;
use crate::cli::operate::{Failed, Output, expect};
use crate::cli::paint::Tone;
use crate::cli::units::{count, duration};
use crate::control::protocol::failover::{Discard, Failover, Path, Sync, Transition, Wish};
use crate::control::protocol::{Answer, Request};
use crate::lab::grid::{Grid, Side};

/// Changes of role that are shown; `--json` has all that are remembered.
const TRANSITIONS: usize = 5;

pub(in crate::cli) fn decide(
    router: &mut Router,
    action: Wish,
    output: &mut Output<'_>,
) -> Result<(), Failed> {
    let failover = expect(router, &Request::Failover { action }, |answer| match answer {
        Answer::Failover(failover) => Some(*failover),
        _ => None,
    })?;
    if output.json {
        return Ok(output.json(&failover)?);
    }
    Ok(output.text(&format!("{}\n", role(&failover)))?)
}

/// The part of `tapvs status` that is about the pair.
pub(super) fn show(failover: &Failover, output: &mut Output<'_>) -> Result<(), Failed> {
    output.text("\n")?;
    let tone = if failover.faults.is_empty() { Tone::Plain } else { Tone::Alarm };
    for line in summary(failover).lines() {
        output.text(&output.paint.line(tone, line))?;
    }
    output.text("\n")?;
    let tone = |path: &Path| if path.state == "ok" { Tone::Plain } else { Tone::Alarm };
    let tones: Vec<_> = failover.networks.iter().map(tone).collect();
    output.text(&output.paint.table(&paths(failover).lines(), &tones))?;
    let changes = failover.transitions.iter().take(TRANSITIONS);
    for Transition { ago_ms, role, reason } in changes {
        let ago = duration(ago_ms * 1_000);
        output.text(&format!("{role} {ago} ago: {reason}\n"))?;
    }
    Ok(())
}

fn role(failover: &Failover) -> String {
    let Failover { role, since_ms, reason, yielded, .. } = failover;
    let since = duration(since_ms * 1_000);
    let yielded = if *yielded { "; an operator had it yield" } else { "" };
    format!("{role} for {since}: {reason}{yielded}")
}

fn summary(failover: &Failover) -> String {
    let Failover { priority, configured_priority, faults, adverts, sync, .. } = failover;
    let mut text = format!("role        {}\n", role(failover));
    let _ = write!(text, "priority    {priority}");
    if priority != configured_priority {
        let _ = write!(text, ", configured {configured_priority}");
    }
    text.push('\n');
    for fault in faults {
        let _ = writeln!(text, "fault       {fault}");
    }
    let _ = writeln!(
        text,
        "adverts     {} sent, {} heard{}",
        count(adverts.sent),
        count(adverts.received),
        refused(&adverts.discarded)
    );
    if let Some(sync) = sync {
        text.push_str(&copying(sync));
    }
    text
}

fn copying(sync: &Sync) -> String {
    let Sync { peer, connected, connected_ms, complete, lag_ms, queued, .. } = sync;
    let mut text = String::new();
    let state = match (connected, connected_ms) {
        (true, Some(ms)) => format!("connected for {}", duration(ms * 1_000)),
        (true, None) => "connected".to_owned(),
        (false, _) => "not connected".to_owned(),
    };
    let complete = if *complete { "complete" } else { "not complete" };
    let lag = duration(lag_ms * 1_000);
    let _ =
        writeln!(text, "flow copies {peer} {state}, {complete}, {lag} behind, {queued} waiting");
    let _ = writeln!(
        text,
        "            {} records sent, {} taken in{}; {} datagrams sent, {} again, {} heard{}",
        count(sync.records_sent),
        count(sync.records_received),
        refused(&sync.refused_records),
        count(sync.datagrams_sent),
        count(sync.datagrams_repeated),
        count(sync.datagrams_received),
        refused(&sync.refused_datagrams)
    );
    text
}

fn refused(discarded: &[Discard]) -> String {
    let seen = discarded.iter().filter(|discard| discard.count > 0);
    let each: Vec<_> = seen
        .map(|Discard { reason, count: times }| format!("{} {reason}", count(*times)))
        .collect();
    if each.is_empty() { String::new() } else { format!(", refused: {}", each.join(", ")) }
}

fn paths(failover: &Failover) -> Grid<6> {
    let mut grid = Grid::new([
        ("NETWORK", Side::Left),
        ("ROUTER ID", Side::Right),
        ("STATE", Side::Left),
        ("PEER", Side::Left),
        ("PRIORITY", Side::Right),
        ("LAST ADVERT", Side::Right),
    ]);
    for Path { network, virtual_router_id, state, peer } in &failover.networks {
        let none = || "-".to_owned();
        grid.row([
            network.clone(),
            virtual_router_id.to_string(),
            state.to_string(),
            peer.as_ref().map_or_else(none, |peer| peer.address.clone()),
            peer.as_ref().map_or_else(none, |peer| peer.priority.to_string()),
            peer.as_ref()
                .map_or_else(none, |peer| format!("{} ago", duration(peer.last_ms * 1_000))),
        ]);
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::failover::{Adverts, Peer};

    #[test]
    fn what_is_wrong_is_said_and_what_is_zero_is_not() {
        let path = |network: &str, id, state: &'static str, peer| Path {
            network: network.to_owned(),
            virtual_router_id: id,
            state: state.into(),
            peer,
        };
        let peer = Peer { address: "203.0.113.3".to_owned(), priority: 100, last_ms: 37 };
        let discard = |reason: &'static str, count| Discard { reason: reason.into(), count };
        let failover = Failover {
            role: "active".into(),
            since_ms: 62_000,
            reason: "no adverts on any network".to_owned(),
            priority: 1,
            configured_priority: 200,
            yielded: false,
            faults: vec!["the gateway of internet does not answer".to_owned()],
            networks: vec![
                path("internet", 51, "ok", Some(peer)),
                path("servers", 52, "down", None),
            ],
            adverts: Adverts {
                sent: 12_345,
                received: 7,
                discarded: vec![discard("ttl", 0), discard("checksum", 3)],
                ..Adverts::default()
            },
            transitions: Vec::new(),
            sync: Some(Sync {
                peer: "10.0.0.3:8848".to_owned(),
                connected: true,
                connected_ms: Some(5_000),
                complete: true,
                lag_ms: 2,
                queued: 40,
                records_sent: 1_000,
                ..Sync::default()
            }),
        };
        assert_eq!(
            summary(&failover),
            "\
role        active for 1 m 2 s: no adverts on any network
priority    1, configured 200
fault       the gateway of internet does not answer
adverts     12.3 k sent, 7 heard, refused: 3 checksum
flow copies 10.0.0.3:8848 connected for 5.0 s, complete, 2.0 ms behind, 40 waiting
            1,000 records sent, 0 taken in; 0 datagrams sent, 0 again, 0 heard
"
        );
        assert_eq!(
            paths(&failover).lines().join("\n"),
            "\
NETWORK   ROUTER ID  STATE  PEER         PRIORITY  LAST ADVERT
internet         51  ok     203.0.113.3       100  37.0 ms ago
servers          52  down   -                   -            -"
        );
    }
}
