//! Records of packets in words, with the names that only the control thread has.

use std::sync::Arc;

use super::protocol::{Out, Traced, TracedFlow};
use crate::addr::{LinkId, ServiceId};
use crate::table::Table;
use crate::trace::{Described, Exit, FlowSeen, Kind, Record, words};

/// What records are put into words with.
#[derive(Debug)]
pub struct Words {
    table: Arc<Table>,
}

impl Words {
    /// For the records of a router that works with `table`, or with one before it.
    pub fn new(table: &Arc<Table>) -> Self {
        Self { table: Arc::clone(table) }
    }

    pub(super) const fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// `record`, with its bytes as it came and as it left; with `frames` they are in it too. `zero`:
    /// microseconds from 1970 to the loop's zero.
    pub fn traced(
        &self,
        record: &Record,
        [came, left]: [&[u8]; 2],
        zero: i64,
        frames: bool,
    ) -> Traced {
        let [length, length_left] = record.lengths;
        let (packet, length) = if length > 0 { (came, length) } else { (left, length_left) };
        let Described { protocol, source, destination, text } = words(packet);
        let (reason, owner) = (record.outcome.reason(), record.flow.and_then(|flow| flow.owner));
        let names = owner.and_then(|(_, server)| self.table.server(server));
        let service = || record.service.and_then(|id| self.service(id));
        let unless_empty = |bytes: &[u8]| if frames { bytes.to_vec() } else { Vec::new() };
        let links = self.links_out(record);
        let out = record.next_hop.filter(|_| !links.is_empty()).map(|mac| {
            let after = words(left);
            let is_same = after.source == source && after.destination == destination;
            let is_answer = record.outcome.kind() == Kind::Reply;
            let ends = after.source.zip(after.destination);
            Out {
                links,
                mac: mac.to_string(),
                translated: ends.filter(|_| !is_same && !is_answer).map(|(from, to)| [from, to]),
                answer: is_answer.then_some(after.text),
                length: length_left,
                frame: unless_empty(left),
            }
        });
        let came_in = record.ingress.is_some();
        Traced {
            time_us: u64::try_from(zero.saturating_add(record.at.total_micros())).unwrap_or(0),
            link: record.ingress.map(|link| self.table().link_name(link).to_owned()),
            protocol,
            source,
            destination,
            packet: text,
            length,
            verdict: record.outcome.kind().name().into(),
            reason: reason.map(|reason| reason.name().into()),
            meaning: reason.map(|reason| reason.help().into()),
            service: names.map(|(service, _)| service.name.clone()).or_else(service),
            server: names.map(|(_, server)| server.name.clone()),
            flow: record.flow.map(|flow| traced_flow(&flow)),
            out,
            generation: record.generation,
            frame: if came_in { unless_empty(came) } else { Vec::new() },
        }
    }

    fn links_out(&self, record: &Record) -> Vec<String> {
        let name = |link: LinkId| self.table().link_name(link).to_owned();
        match (record.exit, record.ingress) {
            (Exit::Nowhere, _) | (Exit::Others, None) => Vec::new(),
            (Exit::Link(link), _) => vec![name(link)],
            (Exit::Others, Some(ingress)) => {
                let network = self.table().network_of(ingress);
                let links = network.map_or(&[][..], |network| &network.links).iter().copied();
                links.filter(|link| *link != ingress).map(name).collect()
            }
        }
    }

    fn service(&self, id: ServiceId) -> Option<String> {
        let found = self.table().services().iter().find(|service| service.id == id);
        found.map(|service| service.name.clone())
    }
}

fn traced_flow(flow: &FlowSeen) -> TracedFlow {
    let FlowSeen { original, reply, state, new, .. } = flow;
    let place = |address: std::net::Ipv4Addr, port: u16| {
        // Queries have an identifier where ports are.
        if original.protocol == 1 { address.to_string() } else { format!("{address}:{port}") }
    };
    TracedFlow {
        client: place(original.source, original.source_port),
        destination: place(original.destination, original.destination_port),
        server: place(reply.source, reply.source_port),
        state: state.name().into(),
        direction: flow.towards().into(),
        new: *new,
    }
}
