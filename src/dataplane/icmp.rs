//! ICMP errors about packets of known flows: translated like the packets they quote (RFC 5508
//! section 4), never an end or a refresh of a flow (RFC 4787 REQ-12).

use super::flow::{Direction, Tuple};
use super::ip::Packet;
use super::outbox::Waiting;
use super::{Dataplane, DropReason, Verdict};
use crate::frame::{Frame, Ipv4, Quote, QuotedAs, Transport, set_addresses};
use crate::time::Instant;

impl Dataplane {
    /// The flow that an ICMP error is about, and the direction in which the error goes.
    pub(super) fn flow_of_error(
        &mut self,
        frame: &Frame,
        headers: &Ipv4,
        now: Instant,
    ) -> Option<(u32, Direction, Quote)> {
        let Transport::Icmp(icmp) = headers.transport else { return None };
        // As IPVS: unreachable, source quench, time exceeded.
        if !matches!(icmp.kind, 3 | 4 | 11) || headers.is_fragment() {
            return None;
        }
        let quote = Quote::parse(frame.bytes(), headers)?;
        // An error goes to who sent the packet that it is about.
        if quote.source != headers.destination {
            return None;
        }
        let quoted = Tuple {
            source: quote.source,
            destination: quote.destination,
            source_port: quote.source_port,
            destination_port: quote.destination_port,
            protocol: quote.protocol,
        };
        // The error comes from where the quoted packet went: it goes the other way.
        let (id, direction) = self.live_flow(quoted.reversed(), now)?;
        Some((id, direction, quote))
    }

    /// Translates and forwards an error about a packet of flow `id`.
    pub(super) fn error_packet(
        &mut self,
        packet: &Packet<'_>,
        (id, direction, quote): (u32, Direction, Quote),
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let Packet { table, network, headers, now, .. } = *packet;
        Self::check_source(packet)?;
        self.revalidate(table, id);
        if self.flows.get(id).networks[direction as usize] != network.id {
            return Err(DropReason::WrongNetwork);
        }
        self.check_ttl(packet, headers.destination, frame)?;
        let flow = self.flows.get(id);
        // The quoted packet becomes the one that the receiver of the error has sent.
        let (sent, source, destination) = match direction {
            Direction::Original => {
                let seen_as = flow.is_masqueraded().then_some(flow.reply.destination);
                (flow.reply, seen_as.unwrap_or(headers.source), flow.reply.source)
            }
            // Whoever complains behind the router does so in the virtual IP's name.
            Direction::Reply => {
                let seen_as = flow.is_served().then_some(flow.original.destination);
                (flow.original, seen_as.unwrap_or(headers.source), flow.original.source)
            }
        };
        let neighbour = self.flow_hop(table, id, direction, now)?;
        self.check_way(packet, neighbour, headers.destination, frame)?;
        if self.flows.get(id).direct {
            return self.pass_on(packet, neighbour, frame, Waiting::Own);
        }
        let quoted_as = QuotedAs {
            source: sent.source,
            destination: sent.destination,
            source_port: sent.source_port,
            destination_port: sent.destination_port,
        };
        quote.translate(frame.bytes_mut(), &headers, quoted_as);
        set_addresses(frame.bytes_mut(), source, destination);
        self.leave(packet, neighbour, source, frame, Waiting::Own)
    }
}
