//! The loop's side of a pair of routers: brings adverts and copied flows from the dataplane to ha and
//! back, tells ha what is wrong with this router, and carries its decisions out.
//!
//! Who is active is decided in ha, what that means for frames in the dataplane.

mod copying;
mod told;
mod words;

use log::warn;
use mio::{Registry, Token};

use self::copying::Copying;
use super::report::Note;
use crate::addr::{LinkId, NetworkId};
use crate::config::{Failover, FailoverNetwork};
use crate::control::protocol::failover::Wish;
use crate::dataplane::{self, Dataplane, Origin};
use crate::frame::{Frame, lesson};
use crate::ha::signature::Key;
use crate::ha::{Event, Fault, Ha, Member, PROTOCOL, Settings};
use crate::links::carrier::{Carriers, Changed};
use crate::links::{LinkError, Links};
use crate::table::Table;
use crate::time::{Duration, Instant};

/// How often links that are down are tried.
const KNOCK: Duration = Duration::from_millis(50);

/// Both routers, as far as the loop has to do with them.
#[derive(Debug)]
pub(super) struct Pair {
    ha: Ha,
    key: Option<Key>,
    copying: Option<Copying>,
    carriers: Carriers,
    /// By link id: whether the NIC that it is joined with works.
    nics: Vec<bool>,
    /// By position of the network: whether all of its links work.
    networks: Vec<bool>,
    starved: Option<Fault>,
    /// What ha was told of the configuration.
    failover: Failover,
    members: Vec<Member>,
    /// When links that are down are tried again.
    knock_at: Option<Instant>,
    frame: Frame,
    advert: Vec<u8>,
    notes: Vec<Note>,
}

impl Pair {
    /// This router's part, as Backup; `None` without `[failover]`.
    ///
    /// # Errors
    /// When the kernel does not tell how the NICs are.
    pub(super) fn start(
        links: &Links,
        table: &Table,
        key: Option<&[u8; 32]>,
        seed: [u8; 16],
        now: Instant,
    ) -> Result<Option<Self>, LinkError> {
        let Some(failover) = table.failover() else { return Ok(None) };
        let key = key.map(Key::new);
        let copying = key.clone().and_then(|key| Copying::new(key, table, seed, now));
        // One run has one id, whichever way the peer hears of it.
        let run = copying.as_ref().map_or_else(|| u64::from_le_bytes(half(seed)), Copying::run_id);
        let members = members(failover, table);
        let ha = Ha::new(Settings::new(failover, members.clone(), key.clone()), run, now);
        let ids = (0..=u16::MAX).map(LinkId).take(links.len());
        let nics = ids.filter_map(|id| links.nic(id).map(|nic| (id, nic.to_owned())));
        let mut pair = Self {
            ha,
            key,
            copying,
            carriers: Carriers::new(nics)?,
            nics: vec![true; table.link_count()],
            networks: vec![true; table.networks().len()],
            starved: None,
            failover: failover.clone(),
            members,
            knock_at: None,
            frame: Frame::new(),
            advert: Vec::with_capacity(1_500),
            notes: Vec::new(),
        };
        pair.look_for_starved(table, now);
        let down = pair.carriers.look();
        pair.note_nics(down);
        Ok(Some(pair))
    }

    /// Puts the news of NICs into the poll.
    ///
    /// # Errors
    /// When the poll does not take them.
    pub(super) fn register(&self, registry: &Registry, token: Token) -> Result<(), LinkError> {
        self.carriers.register(registry, token)
    }

    /// There is news of NICs.
    pub(super) fn hear_of_nics(&mut self) {
        let changed = self.carriers.changed();
        self.note_nics(changed);
    }

    /// Whether the NIC that `link` is joined with works, if it is with one.
    pub(super) fn nic_works(&self, link: LinkId) -> bool {
        self.nics.get(link.index()).is_none_or(|works| *works)
    }

    /// What the dataplane found to be for the pair; from the IP header on.
    pub(super) fn handle_packet(&mut self, network: NetworkId, packet: &[u8], now: Instant) {
        if packet.get(9) == Some(&PROTOCOL) {
            self.ha.handle_packet(network, packet, now);
        } else if let Some(copying) = &mut self.copying {
            copying.handle_packet(packet, now);
        }
    }

    /// There is another table.
    pub(super) fn handle_table(&mut self, table: &Table, now: Instant) {
        let Some(failover) = table.failover() else { return };
        let members = members(failover, table);
        if *failover != self.failover || members != self.members {
            self.ha.configure(Settings::new(failover, members.clone(), self.key.clone()), now);
            (self.failover, self.members) = (failover.clone(), members);
        }
        self.look_for_starved(table, now);
    }

    /// The dataplane noticed something, perhaps of a gateway.
    pub(super) fn note_event(&mut self, event: &dataplane::Event, table: &Table, now: Instant) {
        let (network, address, is_faulty) = match *event {
            dataplane::Event::NeighbourFailed { network, address } => (network, address, true),
            dataplane::Event::NeighbourBack { network, address } => (network, address, false),
            _ => return,
        };
        let members = table.failover().map_or(&[][..], |failover| &failover.networks);
        let is_tracked =
            |member: &FailoverNetwork| member.network == network.index() && member.track_gateway;
        if members.iter().any(is_tracked) && table.network(network).gateway == Some(address) {
            self.ha.handle_fault(Fault::Gateway(network), is_faulty, now);
        }
    }

    /// Does what is due and what has come of it; afterwards the dataplane has frames to send.
    pub(super) fn turn(
        &mut self,
        table: &Table,
        dataplane: &mut Dataplane,
        links: &mut Links,
        now: Instant,
    ) {
        self.look_at_links(table, links, now);
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if due(self.ha.poll_timeout()) {
            self.ha.handle_timeout(now);
        }
        if let Some(copying) = &mut self.copying {
            // That the peer is there is known before its first record, and that it was its last after.
            copying.tell(&mut self.ha, dataplane, &mut self.notes, now);
            copying.take_in(table, dataplane, now);
            copying.tell(&mut self.ha, dataplane, &mut self.notes, now);
        }
        self.follow_ha(table, dataplane, now);
        if let Some(copying) = &mut self.copying {
            copying.give_out(table, dataplane, now);
        }
    }

    /// When [`Pair::turn`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let copying = self.copying.as_ref().and_then(Copying::poll_timeout);
        [self.ha.poll_timeout(), copying, self.knock_at].into_iter().flatten().min()
    }

    /// The next thing for the log.
    pub(super) fn poll_note(&mut self) -> Option<Note> {
        if self.notes.is_empty() { None } else { Some(self.notes.remove(0)) }
    }

    /// An operator decides.
    pub(super) fn decide(&mut self, wish: Wish, now: Instant) {
        match wish {
            Wish::Yield => self.ha.yield_role(now),
            Wish::Resume => self.ha.resume(now),
        }
    }

    /// Hands over: the last words of a router that stops.
    pub(super) fn shut_down(&mut self, table: &Table, dataplane: &mut Dataplane, now: Instant) {
        if let Some(copying) = &mut self.copying {
            copying.give_out(table, dataplane, now);
        }
        self.ha.shut_down(now);
        self.follow_ha(table, dataplane, now);
    }

    /// Roles that have changed, what else there is to say, and adverts.
    fn follow_ha(&mut self, table: &Table, dataplane: &mut Dataplane, now: Instant) {
        while let Some(event) = self.ha.poll_event() {
            match event {
                Event::Role { role, .. } => {
                    dataplane.handle_role(table, role, now);
                    if let Some(copying) = &mut self.copying {
                        copying.handle_role(role, dataplane, now);
                    }
                }
                Event::ContentionEnded => dataplane.announce_again(table, now),
                _ => {}
            }
            self.notes.push(words::note(&event, table));
        }
        while let Some(network) = self.ha.poll_transmit(&mut self.advert) {
            dataplane.send_packet(table, &self.advert, Origin::Ha(network), now);
        }
    }

    fn look_at_links(&mut self, table: &Table, links: &mut Links, now: Instant) {
        self.knock(table, links, now);
        for (known, network) in self.networks.iter_mut().zip(table.networks()) {
            let works = |link: &LinkId| {
                links.is_working(*link) && self.nics.get(link.index()).is_some_and(|nic| *nic)
            };
            let is_up = network.links.iter().all(works);
            if *known != is_up {
                *known = is_up;
                self.ha.handle_link(network.id, is_up, now);
            }
        }
    }

    /// Tries links that are down with a frame that tells nobody anything: a backup may have nothing
    /// else to send for long, and would not notice that they are up again.
    fn knock(&mut self, table: &Table, links: &mut Links, now: Instant) {
        if self.knock_at.is_some_and(|at| now < at) {
            return;
        }
        self.knock_at = None;
        for network in table.networks() {
            for link in network.links.iter().copied() {
                if links.is_down(link) {
                    lesson(network.mac, &mut self.frame);
                    links.knock(link, &self.frame);
                    self.knock_at = Some(now + KNOCK);
                }
            }
        }
    }

    fn note_nics(&mut self, changed: Vec<Changed>) {
        for change in changed {
            if let Some(nic) = self.nics.get_mut(change.link.index()) {
                *nic = change.is_up;
            }
            let state = if change.is_up { "up" } else { "down" };
            warn!(nic = change.nic.as_str(), state; "a link's NIC has changed its state");
        }
    }

    /// The first service that has too few servers left.
    fn look_for_starved(&mut self, table: &Table, now: Instant) {
        let starved = table.starved_service().map(|service| Fault::Service(service.id));
        if starved == self.starved {
            return;
        }
        // The new one first: a router with one fault after the other has had a fault all the time.
        for (fault, is_faulty) in [(starved, true), (self.starved, false)] {
            if let Some(fault) = fault {
                self.ha.handle_fault(fault, is_faulty, now);
            }
        }
        self.starved = starved;
    }
}

/// The networks that adverts run on, with what both routers share there.
fn members(failover: &Failover, table: &Table) -> Vec<Member> {
    let members = failover.networks.iter().filter_map(|member| {
        let network = table.networks().get(member.network)?;
        let floating = table.virtual_ips().iter().filter(|vip| vip.network == network.id);
        Some(Member {
            network: network.id,
            address: network.own_address()?,
            virtual_router_id: member.virtual_router_id,
            virtual_ips: floating.map(|vip| vip.address).collect(),
            peers: member.peers.clone(),
        })
    });
    members.collect()
}

fn half(seed: [u8; 16]) -> [u8; 8] {
    let [half @ .., _, _, _, _, _, _, _, _] = seed;
    half
}
