//! What the two routers of a pair say to each other: VRRP adverts and copied flows.
//!
//! Only what has to be known to hand them over is looked at; whether an advert is to be believed is
//! judged elsewhere.

use std::net::{IpAddr, Ipv4Addr};

use super::flow::Tuple;
use super::ip::Packet;
use super::{Arrival, Dataplane, DropReason, Verdict, is_host};
use crate::addr::{Endpoint, MacAddr, NetworkId};
use crate::frame::{ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, ETHERNET, Frame, IP, Ipv4, UDP, set_macs};
use crate::table::{Local, Network, Table};

/// The IP protocol of adverts (RFC 9568 section 5.1.1.4).
const VRRP: u8 = 112;
/// Where they are sent (RFC 9568 section 5.1.1.2), and the MAC of that group.
const ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const ROUTERS_MAC: MacAddr = MacAddr([0x01, 0, 0x5e, 0, 0, 0x12]);
/// ff02::12 (RFC 9568 section 5.1.2.2).
const ROUTERS_V6: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12];

impl Dataplane {
    /// An advert that came in, of whatever router.
    pub(super) fn advert_came(
        &mut self,
        arrival: &Arrival<'_>,
        headers: &Ipv4,
        frame: &mut Frame,
    ) -> Result<Verdict, DropReason> {
        let Arrival { table, network, now, .. } = *arrival;
        if headers.protocol != VRRP {
            return Err(DropReason::Broadcast);
        }
        if headers.is_fragment() {
            return Err(DropReason::Fragment);
        }
        if !is_host(headers.source) || network.is_broadcast(headers.source) {
            return Err(DropReason::MartianSource);
        }
        // One of the router's own that came round is for ha to count.
        if !matches!(table.local(headers.source), Some(Local::Own(_))) {
            self.note_other_active(table, now);
        }
        frame.truncate(ETHERNET + headers.total_len);
        Ok(Verdict::ToHa)
    }

    /// Sends the advert `packet` by every open link of `network`, before everything that waits: one
    /// that is late makes the other router take over.
    pub(super) fn send_advert(&mut self, table: &Table, network: NetworkId, packet: &[u8]) {
        let network = table.network(network);
        for link in &network.links {
            if network.is_bridged() && !self.guard.is_open(*link) {
                continue;
            }
            self.counters.originated += 1;
            let Some(slot) = self.outbox.take_reserved() else {
                self.count_no_place(DropReason::OutboxFull);
                continue;
            };
            let frame = self.outbox.frame_mut(slot);
            if !write_packet(packet, frame) {
                self.outbox.release(slot);
                self.count_no_place(DropReason::IpMalformed);
                continue;
            }
            // RFC 9568 section 7.3: from the virtual MAC, so that the switches learn where it is.
            set_macs(frame.bytes_mut(), ROUTERS_MAC, network.service_mac());
            self.outbox.send_first(slot, *link);
        }
    }
}

/// Writes `packet` behind a blank Ethernet header; whether it fits and can be one.
pub(super) fn write_packet(packet: &[u8], frame: &mut Frame) -> bool {
    frame.set_len(ETHERNET + packet.len());
    if frame.len() != ETHERNET + packet.len() || packet.len() < 20 {
        return false;
    }
    let (header, body) = frame.bytes_mut().split_at_mut(ETHERNET);
    header[12..].copy_from_slice(&ETHER_TYPE_IPV4.to_be_bytes());
    body.copy_from_slice(packet);
    true
}

/// Whether an IPv4 packet, IP header on, is sent to where adverts are.
pub(super) fn is_to_routers(packet: &[u8]) -> bool {
    packet.get(16..20) == Some(&ROUTERS.octets())
}

/// Whether a frame is an advert, or goes where adverts go: with another router beside it that shares
/// the virtual IPs, it is never passed on (RFC 9568 section 5.1.1.2).
pub(super) fn is_advert(arrival: &Arrival<'_>, frame: &[u8]) -> bool {
    arrival.table.failover().is_some()
        && match arrival.ethernet.ether_type {
            ETHER_TYPE_IPV4 => is_to_routers(frame.get(IP..).unwrap_or_default()),
            ETHER_TYPE_IPV6 => frame.get(IP + 24..IP + 40) == Some(&ROUTERS_V6),
            _ => false,
        }
}

/// Whether a packet is what the peer copies of its flows.
pub(super) fn is_sync(packet: &Packet<'_>) -> bool {
    let Packet { table, network, headers, .. } = packet;
    !headers.is_fragment() && packet.tuple().is_some_and(|tuple| is_of_sync(table, network, tuple))
}

/// Whether that is what a whole packet with this tuple is that came in from `network`: from the peer's end
/// to this router's, exactly.
pub(super) fn is_of_sync(table: &Table, network: &Network, tuple: Tuple) -> bool {
    let Tuple { source, destination, source_port, destination_port, protocol } = tuple;
    // Both ends have one port: most packets need no second look.
    if protocol != UDP || source_port != destination_port {
        return false;
    }
    let end = |address: Ipv4Addr, port| Endpoint { address: IpAddr::V4(address), port };
    let ends = (end(destination, destination_port), end(source, source_port));
    let sync = table.failover().and_then(|failover| failover.sync.as_ref());
    sync.is_some_and(|sync| sync.network == network.id.index()) && table.sync_ends() == Some(ends)
}
