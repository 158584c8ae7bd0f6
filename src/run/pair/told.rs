//! What is told of the pair to whoever asks.

use super::{Pair, words};
use crate::control::protocol::failover::{
    Adverts, Discard, Failover, Path, Peer, Sync, Transition,
};
use crate::dataplane::{Dataplane, ImportError};
use crate::ha;
use crate::ha::sync::Refusal;
use crate::table::Table;
use crate::time::Instant;

impl Pair {
    /// The role, and what it comes from.
    pub(in crate::run) fn told(
        &self,
        table: &Table,
        dataplane: &Dataplane,
        now: Instant,
    ) -> Failover {
        let report = self.ha.report();
        let ago = |at: Instant| (now - at).total_millis();
        let path = |path: &ha::NetworkReport| Path {
            network: words::network_name(table, path.network),
            virtual_router_id: path.virtual_router_id,
            state: path.state.name().into(),
            peer: path.heard.map(|heard| Peer {
                address: heard.from.to_string(),
                priority: heard.priority,
                last_ms: ago(heard.at),
            }),
        };
        let transition = |transition: &ha::Transition| Transition {
            ago_ms: ago(transition.at),
            role: transition.role.name().into(),
            reason: words::reason(&transition.reason, table),
        };
        let faults = report.faults.iter().map(|fault| words::fault(fault, table));
        let down = report.networks.iter().filter(|path| path.state == ha::PathState::Down);
        let down = down.map(|path| {
            let network = words::network_name(table, path.network);
            format!("a link of {network} is down")
        });
        Failover {
            role: report.role.name().into(),
            since_ms: ago(report.since),
            reason: words::reason(&report.reason, table),
            priority: report.priority,
            configured_priority: table.failover().map_or(0, |failover| failover.priority),
            yielded: report.is_yielded,
            faults: down.chain(faults).collect(),
            networks: report.networks.iter().map(path).collect(),
            adverts: adverts(&report.counters),
            transitions: report.history.iter().rev().map(transition).collect(),
            sync: self.sync(dataplane, now),
        }
    }

    fn sync(&self, dataplane: &Dataplane, now: Instant) -> Option<Sync> {
        let copying = self.copying.as_ref()?;
        let report = copying.report(now);
        let counters = report.counters;
        let copies = dataplane.copy_counters();
        let records = ImportError::ALL.iter().map(|reason| Discard {
            reason: reason.name().into(),
            count: copies.refused[reason.index()],
        });
        let datagrams = Refusal::ALL.iter().map(|reason| Discard {
            reason: reason.name().into(),
            count: counters.refused(*reason),
        });
        Some(Sync {
            peer: copying.peer().to_string(),
            connected: report.connected_since.is_some(),
            connected_ms: report.connected_since.map(|since| (now - since).total_millis()),
            complete: report.complete || report.transferred,
            lag_ms: report.lag.total_millis(),
            queued: report.queued,
            records_sent: counters.records_sent,
            records_received: counters.records_received,
            refused_records: records.collect(),
            datagrams_sent: counters.datagrams_sent,
            datagrams_repeated: counters.retransmitted,
            datagrams_received: counters.datagrams_received,
            refused_datagrams: datagrams.collect(),
        })
    }
}

fn adverts(counters: &ha::Counters) -> Adverts {
    let discards = ha::Discard::ALL
        .iter()
        .map(|reason| Discard { reason: reason.name().into(), count: counters.discarded(*reason) });
    Adverts {
        sent: counters.sent,
        received: counters.accepted(),
        pseudo_header_checksums: counters.accepted_pseudo_header,
        message_checksums: counters.accepted_message,
        discarded: discards.collect(),
    }
}
