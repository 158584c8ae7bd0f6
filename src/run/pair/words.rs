//! What the pair has to say, in words and fields for the log.

use std::mem::discriminant;
use std::net::SocketAddrV4;

use super::super::report::{Cause, Note, PairNote};
use crate::addr::{NetworkId, Role};
use crate::control::Entry;
use crate::ha::sync;
use crate::ha::{Event, Fault, Reason};
use crate::table::Table;

/// A line about the role or the other router.
pub(super) fn note(event: &Event, table: &Table) -> Note {
    let network = |id: &NetworkId| ("network", network_name(table, *id));
    let (level, text, fields) = match event {
        Event::Role { role, reason } => {
            let reason = self::reason(reason, table);
            let text = match role {
                Role::Active => "active: this router speaks for the virtual IPs",
                Role::Backup => "backup: this router keeps silent about the virtual IPs",
            };
            let fields = vec![("role", role.to_string()), ("reason", reason)];
            (log::Level::Info, text, fields)
        }
        Event::Contention { network: id, from, priority } => {
            let fields =
                vec![network(id), ("peer", from.to_string()), ("priority", priority.to_string())];
            (log::Level::Warn, "another router is active too", fields)
        }
        Event::ContentionEnded => {
            (log::Level::Info, "alone again: all virtual IPs are announced anew", Vec::new())
        }
        Event::PathDegraded { network: id } => {
            let text = "the active router is heard elsewhere, but not here";
            (log::Level::Warn, text, vec![network(id)])
        }
        Event::PathRestored { network: id } => {
            (log::Level::Info, "the active router is heard here again", vec![network(id)])
        }
        Event::NetworksMeet { network: id, sent } => {
            let text = "this router's own adverts come back by another network: the two meet in a \
                        switch; use different virtual router ids there";
            let fields = vec![network(id), ("sent", network_name(table, *sent))];
            (log::Level::Warn, text, fields)
        }
        Event::IntervalMismatch { network: id, from, interval } => {
            let text = "the other router's adverts are differently far apart; its word counts";
            let fields =
                vec![network(id), ("peer", from.to_string()), ("interval", interval.to_string())];
            (log::Level::Warn, text, fields)
        }
        Event::AddressesMismatch { network: id, from } => {
            let text = "the other router names other virtual IPs";
            (log::Level::Warn, text, vec![network(id), ("peer", from.to_string())])
        }
        Event::Stranger { network: id, from } => {
            let text =
                "somebody who is not among the peers sends adverts; they are not listened to";
            (log::Level::Warn, text, vec![network(id), ("from", from.to_string())])
        }
        Event::OwnerHeard { network: id, from } => {
            let text = "the other router's priority is 255: it waits for nobody";
            (log::Level::Warn, text, vec![network(id), ("peer", from.to_string())])
        }
        Event::Storm { network: id, from, count } => {
            let text = "many more adverts come in than two routers send";
            let fields =
                vec![network(id), ("from", from.to_string()), ("in_a_second", count.to_string())];
            (log::Level::Warn, text, fields)
        }
    };
    // A role is never left out: it says what all other lines are about.
    let is_role = matches!(event, Event::Role { .. });
    let cause = (!is_role).then(|| Cause::Pair(discriminant(event)));
    Note::Pair(PairNote { cause, level, entry: Entry { text, fields } })
}

/// A line about the copying of flows.
pub(super) fn of_copying(event: sync::Event, peer: SocketAddrV4) -> Note {
    let (level, text) = match event {
        sync::Event::PeerAppeared { .. } => {
            (log::Level::Info, "the other router answers: flows are copied")
        }
        sync::Event::PeerLost { why: sync::Loss::Silent } => {
            (log::Level::Warn, "the other router is silent: flows are not copied")
        }
        sync::Event::PeerLost { why: sync::Loss::Renewed } => {
            (log::Level::Info, "the other router has started anew")
        }
        sync::Event::Complete => (log::Level::Info, "all flows of the active router are here"),
        sync::Event::Transferred => (log::Level::Info, "the other router was told of all flows"),
    };
    let fields = vec![("peer", peer.to_string())];
    let cause = Some(Cause::Copying(discriminant(&event)));
    Note::Pair(PairNote { cause, level, entry: Entry { text, fields } })
}

/// Why a role is as it is.
pub(super) fn reason(reason: &Reason, table: &Table) -> String {
    match reason {
        Reason::LinkDown(network) => {
            format!("a link of {} is down", network_name(table, *network))
        }
        Reason::Fault(fault) => self::fault(fault, table),
        other => other.to_string(),
    }
}

/// What is wrong with this router.
pub(super) fn fault(fault: &Fault, table: &Table) -> String {
    match fault {
        Fault::Gateway(network) => {
            format!("the gateway of {} does not answer", network_name(table, *network))
        }
        Fault::Service(id) => {
            let service = table.services().iter().find(|service| service.id == *id);
            let service = service.map_or("a service", |service| service.name.as_str());
            format!("{service} has fewer servers up than min_healthy")
        }
    }
}

pub(super) fn network_name(table: &Table, id: NetworkId) -> String {
    table.networks().get(id.index()).map_or_else(String::new, |network| network.name.clone())
}
