//! The short way of most packets: those of a known connection in which nothing new happens.
//!
//! Takes a packet only where every question that the long way asks (`bridge.rs`, `ip.rs`, `forward.rs`,
//! `deliver.rs`) has the same answer as for the packet before it: the flow goes on and stays what it
//! is, where it leads is known and there, the packet fits. What leaves and what is counted is the same by both ways, which
//! the tests hold against each other; whatever is not certain here is left to the long one.

use super::advert::is_of_sync;
use super::flow::{Direction, Flow, State, Tuple};
use super::role::{is_router, sender};
use super::{Dataplane, is_host};
use crate::addr::LinkId;
use crate::frame::{ETHERNET, Ethernet, Frame, Plain, UDP};
use crate::table::{Network, Table};
use crate::time::Instant;

impl Dataplane {
    /// Forwards the packet in `frame`, to this link. `None`: it has to go the long way, and nothing has
    /// happened that this would not begin with.
    pub(super) fn express(
        &mut self,
        table: &Table,
        ingress: LinkId,
        frame: &mut Frame,
        now: Instant,
    ) -> Option<LinkId> {
        let network = table.network_of(ingress)?;
        let is_bridged = network.is_bridged();
        if !self.is_active() || is_bridged && !self.guard.is_open(ingress) {
            return None;
        }
        let packet = Plain::parse(frame.bytes())?;
        let ethernet = Ethernet::parse(frame.bytes())?;
        if !is_ordinary(network, &ethernet, &packet) {
            return None;
        }
        let tuple = tuple(&packet);
        // A datagram of a server that is being drained goes to another one.
        if tuple.protocol == UDP && !self.endings.is_idle() {
            return None;
        }
        let (id, direction) = self.flows.find(tuple)?;
        let flow = self.flows.get(id);
        // What a tuple and the table alone decide was asked of the packet before: whether its addresses are
        // hosts', whether it is one of the peer's copies.
        let goes_on = is_settled(flow, direction)
            && flow.has_passed(direction)
            && !flow.ending
            && !flow.helper.is_ftp();
        let is_valid = flow.generation == table.generation()
            && flow.networks[direction as usize] == network.id
            && !self.flows.is_expired(id, now);
        if !goes_on || !is_valid {
            return None;
        }
        debug_assert!(is_forwardable(table, network, tuple));
        let hop = self.neighbours.resolve(flow.hops[direction as usize])?;
        let neighbour = self.neighbours.get(hop);
        let egress = table.network(neighbour.network);
        let offload = frame.accept_plain(&packet).ok()?;
        let len = ETHERNET + packet.total_len;
        let longest = offload.longest(len) - ETHERNET;
        if !neighbour.is_usable()
            || !offload.is_transport()
            || longest > usize::from(network.mtu.min(egress.mtu))
        {
            return None;
        }

        let (mac, heard_on) = (neighbour.mac, neighbour.link);
        if is_bridged {
            self.learn_station(table, network, ingress, ethernet.source, now);
        }
        self.neighbours.get_mut(hop).used = true;
        let bytes = (packet.total_len + offload.repeated(len)) as u64;
        self.count(id, direction, offload.segments(len), bytes);
        self.live_on(table, id, now);
        frame.truncate(len);
        let flow = self.flows.get(id);
        let rewrite = (!flow.direct).then(|| flow.rewrite(direction));
        let source = rewrite.map_or(packet.source, |rewrite| rewrite.source);
        packet.forward(frame, rewrite.as_ref(), mac, sender(egress, source));
        self.counters.forwarded += 1;
        Some(self.egress(egress, mac, heard_on))
    }
}

/// Whether one more packet in this direction shows nothing that was not known of the flow: its state stays,
/// and so does whether it is assured.
const fn is_settled(flow: &Flow, direction: Direction) -> bool {
    let has_no_answer = matches!(direction, Direction::Original) && flow.packets[1] == 0;
    match flow.state {
        State::Established => flow.assured,
        State::Udp => flow.assured || has_no_answer && !flow.direct,
        _ => false,
    }
}

/// Whether the packet comes from a station of `network`, is for the router, and has a TTL.
fn is_ordinary(network: &Network, ethernet: &Ethernet, packet: &Plain) -> bool {
    let Ethernet { source, destination, .. } = *ethernet;
    source.is_unicast()
        && !is_router(network, source)
        && is_router(network, destination)
        && packet.ttl > 1
}

/// What the long way asks of a whole packet's tuple before it looks for its flow.
fn is_forwardable(table: &Table, network: &Network, tuple: Tuple) -> bool {
    is_host(tuple.source)
        && is_host(tuple.destination)
        && !network.is_broadcast(tuple.source)
        && !is_of_sync(table, network, tuple)
}

fn tuple(packet: &Plain) -> Tuple {
    let Plain { source, destination, source_port, destination_port, protocol, .. } = *packet;
    Tuple { source, destination, source_port, destination_port, protocol }
}

#[cfg(test)]
mod tests;
