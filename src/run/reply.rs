//! What the loop says to a question of the control thread: so much at a time that no frame notices.

use std::borrow::Cow;
use std::net::SocketAddrV4;

use super::pair::Pair;
use super::turns::Turns;
use crate::addr::{LinkId, MacAddr, ServerId};
use crate::control::protocol::{
    self, Claim, Drop, Drops, Estimate, Figures, Frames, LastCheck, Link, Neighbour, Now,
};
use crate::control::question::{FlowSeen, Found, Id, PLACES, Question, Reply, Seen};
use crate::dataplane::{
    self, Carried, ClientInfo, Dataplane, DropReason, FlowInfo, FtpCounters, FtpLoad, Load,
    NeighbourInfo, Traffic,
};
use crate::host::Host;
use crate::links::Links;
use crate::table::Table;
use crate::time::{Duration, Instant};

/// What the loop has to look at.
pub(super) struct View<'r> {
    pub(super) table: &'r Table,
    pub(super) dataplane: &'r Dataplane,
    pub(super) links: &'r Links,
    pub(super) host: &'r Host,
    pub(super) pair: Option<&'r Pair>,
    pub(super) turns: Turns,
    pub(super) now: Instant,
}

impl View<'_> {
    pub(super) fn reply(&self, question: &Question) -> Reply {
        let found = match question {
            Question::Status => Found::Status(Box::new(self.status())),
            Question::Drops => Found::Drops(self.drops()),
            Question::Figures(ids) => {
                Found::Figures(ids.iter().take(PLACES).map(|id| self.seen(*id)).collect())
            }
            Question::Flows(query) if query.persistent => {
                let mut seen = Vec::new();
                let next = self.dataplane.clients_from(query.from, PLACES, self.now, |client| {
                    seen.push(client_seen(&client));
                });
                seen.retain(|client| query.admits(client));
                Found::Flows(seen, next)
            }
            Question::Flows(query) => {
                let (places, next) = part(query.from, self.dataplane.flow_places());
                let seen = self.dataplane.flows_in(places, self.now);
                let seen = seen.map(|(flow, left)| flow_seen(&flow, left));
                Found::Flows(seen.filter(|flow| query.admits(flow)).collect(), next)
            }
            Question::Neighbours(from) => {
                let (places, next) = part(*from, self.dataplane.neighbour_places());
                let neighbours = self.dataplane.neighbours_in(places);
                Found::Neighbours(neighbours.map(|known| self.neighbour(&known)).collect(), next)
            }
            // What was to be done has been done.
            Question::Failover(_) => Found::Failover(self.failover()),
        };
        Reply { uptime_us: self.uptime_us(), found }
    }

    fn status(&self) -> Now {
        let host = self.host.counters();
        let ids = (0..=u16::MAX).map(LinkId).take(self.links.len());
        Now {
            uptime_us: self.uptime_us(),
            generation: self.table.generation(),
            flows: self.dataplane.flow_count(),
            max_flows: self.dataplane.max_flows(),
            turns: self.turns.told(),
            io: Cow::Borrowed(self.links.io()),
            frames: self.frames(),
            links: ids.map(|id| self.link(id)).collect(),
            host: protocol::Host { received: host.received, sent: host.sent },
            claims: self.dataplane.claims().map(|claim| self.claim(claim)).collect(),
            failover: self.failover(),
            ftp: self.dataplane.ftp_load().map(|load| ftp(load, self.dataplane.ftp_counters())),
        }
    }

    fn failover(&self) -> Option<Box<protocol::Failover>> {
        self.pair.map(|pair| Box::new(pair.told(self.table, self.dataplane, self.now)))
    }

    fn frames(&self) -> Frames {
        let counters = self.dataplane.counters();
        let ids = (0..=u16::MAX).map(LinkId).take(self.links.len());
        let links = ids.map(|id| self.links.counters(id));
        let (received, sent, cut) = links.fold((0, 0, 0), |(i, o, cut), link| {
            (i + link.frames_in, o + link.frames_out, cut + link.cut)
        });
        Frames {
            received,
            originated: counters.originated,
            copies: counters.copies + cut,
            sent,
            to_host: counters.to_host,
            to_ha: counters.to_ha,
            split: counters.split,
            consumed: counters.consumed,
            dropped: counters.all_drops(),
            held: self.dataplane.waiting(),
        }
    }

    fn link(&self, id: LinkId) -> Link {
        let counters = self.links.counters(id);
        Link {
            tap: self.links.name(id).to_owned(),
            frames_in: counters.frames_in,
            bytes_in: counters.bytes_in,
            frames_out: counters.frames_out,
            bytes_out: counters.bytes_out,
            read_errors: counters.read_errors,
            refused: counters.refused.total(),
            lost: counters.lost,
            offload: Cow::Borrowed(self.links.offloads(id).name()),
            cut: counters.cut,
        }
    }

    fn drops(&self) -> Drops {
        let counters = self.dataplane.counters();
        let reason = |reason: &DropReason| Drop {
            reason: Cow::Borrowed(reason.name()),
            count: counters.dropped(*reason),
            meaning: Cow::Borrowed(reason.help()),
        };
        Drops {
            reasons: DropReason::ALL.iter().map(reason).collect(),
            answers_not_made: counters.suppressed,
            uptime_us: self.uptime_us(),
        }
    }

    fn seen(&self, id: Id) -> Seen {
        match id {
            Id::Service(id) => {
                Seen { figures: figures(self.dataplane.service_figures(id)), ..Seen::default() }
            }
            Id::Server(id) => Seen {
                figures: figures(self.dataplane.server_figures(id)),
                check: self.last_check(id),
                is_full: self.dataplane.is_full(id),
            },
        }
    }

    fn last_check(&self, id: ServerId) -> Option<LastCheck> {
        let last = self.host.last_check(id)?;
        let health = &self.table.checks().of(id)?.health;
        Some(LastCheck {
            ago_ms: (self.now - last.at).total_millis(),
            took_us: last.took.total_micros(),
            failure: last.failure.map(|failure| failure.describe(health)),
        })
    }

    fn neighbour(&self, known: &NeighbourInfo) -> Neighbour {
        Neighbour {
            network: self.table.network(known.network).name.clone(),
            address: known.address.to_string(),
            mac: (known.mac != MacAddr::ZERO).then(|| known.mac.to_string()),
            state: Cow::Borrowed(known.state.name()),
            configured: known.configured,
        }
    }

    fn claim(&self, claim: &dataplane::Claim) -> Claim {
        Claim {
            address: claim.address.to_string(),
            network: self.table.network(claim.network).name.clone(),
            mac: claim.mac.to_string(),
            server: claim.server.map(|server| server.to_string()),
            count: claim.count,
            first_ms: (self.now - claim.since).total_millis(),
            last_ms: (self.now - claim.last).total_millis(),
            suppressed: claim.suppressed,
        }
    }

    fn uptime_us(&self) -> u64 {
        u64::try_from(self.now.total_micros()).unwrap_or(0)
    }
}

fn figures(carried: Carried) -> Figures {
    let Carried { load, clients: persistent, traffic, per_second } = carried;
    let Load { active, inactive } = load;
    let Traffic { flows: connections, packets_in, bytes_in, packets_out, bytes_out } = traffic;
    let estimate = Estimate {
        connections: per_second.flows,
        packets_in: per_second.packets_in,
        packets_out: per_second.packets_out,
        bytes_in: per_second.bytes_in,
        bytes_out: per_second.bytes_out,
    };
    Figures {
        active,
        inactive,
        persistent,
        connections,
        packets_in,
        packets_out,
        bytes_in,
        bytes_out,
        estimate,
    }
}

/// The next places of so many, and where to go on.
fn part(from: usize, places: usize) -> (std::ops::Range<usize>, Option<usize>) {
    let from = from.min(places);
    let to = from.saturating_add(PLACES).min(places);
    (from..to, (to < places).then_some(to))
}

/// A client that is remembered looks like a flow from port 0, as `ipvsadm -Lc` shows it.
fn client_seen(client: &ClientInfo) -> FlowSeen {
    FlowSeen {
        protocol: client.proto.number(),
        client: SocketAddrV4::new(client.address, 0),
        destination: client.virtual_ip,
        server: client.listens,
        owner: Some((client.service, client.server)),
        state: "PERSISTENT",
        assured: client.assured,
        direct: false,
        expires: client.left,
        packets: [0; 2],
        bytes: [0; 2],
    }
}

fn flow_seen(flow: &FlowInfo, left: Duration) -> FlowSeen {
    let FlowInfo {
        original,
        reply,
        state,
        assured,
        direct,
        one_packet: _,
        copied: _,
        owner,
        packets,
        bytes,
    } = *flow;
    FlowSeen {
        protocol: original.protocol,
        client: SocketAddrV4::new(original.source, original.source_port),
        destination: SocketAddrV4::new(original.destination, original.destination_port),
        server: SocketAddrV4::new(reply.source, reply.source_port),
        owner,
        state: state.name(),
        assured,
        direct,
        expires: left,
        packets,
        bytes,
    }
}

const fn ftp(load: FtpLoad, counters: FtpCounters) -> protocol::Ftp {
    let FtpLoad { controls, data, awaited } = load;
    let FtpCounters { offers, connections, rewritten, unreadable, refused, unasked, full } =
        counters;
    protocol::Ftp {
        controls,
        data,
        awaited,
        offers,
        connections,
        rewritten,
        unreadable,
        unasked,
        refused,
        full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_every_place_once_and_end() {
        for places in [0, 1, PLACES - 1, PLACES, PLACES + 1, 3 * PLACES] {
            let (mut from, mut seen) = (0, 0);
            loop {
                let (part, next) = part(from, places);
                assert_eq!(part.start, seen);
                assert!(part.len() <= PLACES);
                seen = part.end;
                match next {
                    Some(next) => from = next,
                    None => break,
                }
            }
            assert_eq!(seen, places);
        }
        assert_eq!(part(usize::MAX, 5), (5..5, None), "a cursor that nobody gave out");
    }
}
