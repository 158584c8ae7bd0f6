//! Copies flows to the other router, and takes its flows over: what changes at once, and all of them
//! when it appears.

use std::net::{IpAddr, SocketAddrV4};

use super::super::report::Note;
use super::words;
use crate::addr::{Endpoint, NetworkId, Role};
use crate::dataplane::{Dataplane, FlowChange, FlowRecord, LONGEST_FLOW_RECORD, Origin};
use crate::frame::{ETHERNET, Frame, datagram, payload_of_datagram};
use crate::ha::signature::Key;
use crate::ha::sync::{self, Event, Session, Sizes};
use crate::ha::{Ha, Run};
use crate::table::Table;
use crate::time::Instant;

/// Records taken over, and told, in one turn.
const RECORDS: usize = 256;
/// Datagrams sent in one turn: fewer than the dataplane has room for.
const DATAGRAMS: usize = 32;
/// The headers of a datagram.
const IP_AND_UDP: usize = 28;

/// The session with the other router, and where it is.
#[derive(Debug)]
pub(super) struct Copying {
    session: Session,
    network: NetworkId,
    ends: (SocketAddrV4, SocketAddrV4),
    payload: Vec<u8>,
    frame: Frame,
    /// There was more to do than one turn may take.
    is_behind: bool,
}

impl Copying {
    /// `None` without `[failover.sync]`.
    pub(super) fn new(key: Key, table: &Table, seed: [u8; 16], now: Instant) -> Option<Self> {
        let (own, peer) = table.sync_ends()?;
        let sync = table.failover()?.sync.as_ref()?;
        let network = table.networks().get(sync.network)?;
        let sizes = Sizes {
            datagram: usize::from(network.mtu).saturating_sub(IP_AND_UDP),
            record: LONGEST_FLOW_RECORD,
        };
        Some(Self {
            session: Session::new(key, seed, sizes, now),
            network: network.id,
            ends: (socket(own)?, socket(peer)?),
            payload: Vec::with_capacity(sync::LARGEST_DATAGRAM),
            frame: Frame::new(),
            is_behind: false,
        })
    }

    pub(super) fn run_id(&self) -> u64 {
        self.session.run_id()
    }

    pub(super) const fn peer(&self) -> SocketAddrV4 {
        self.ends.1
    }

    pub(super) fn report(&self, now: Instant) -> sync::Report {
        self.session.report(now)
    }

    /// A datagram from the peer's end to this router's. What is wrong with it is counted.
    pub(super) fn handle_packet(&mut self, packet: &[u8], now: Instant) {
        self.session.handle_datagram(payload_of_datagram(packet).unwrap_or_default(), now);
    }

    pub(super) fn handle_role(&mut self, role: Role, dataplane: &mut Dataplane, now: Instant) {
        self.session.handle_role(role, now);
        dataplane.copy_changes(role == Role::Active);
        if role == Role::Backup {
            dataplane.begin_full_import();
        }
    }

    /// Takes over what the peer told.
    pub(super) fn take_in(&mut self, table: &Table, dataplane: &mut Dataplane, now: Instant) {
        if self.session.poll_timeout().is_some_and(|due| due <= now) {
            self.session.handle_timeout(now);
        }
        self.is_behind = false;
        for _ in 0..RECORDS {
            let Some(record) = self.session.poll_record() else { return };
            // Refusals are counted there.
            let _ = dataplane.import_flow(table, record, now);
        }
        self.is_behind = true;
    }

    /// What has happened between the two.
    pub(super) fn tell(
        &mut self,
        ha: &mut Ha,
        dataplane: &mut Dataplane,
        notes: &mut Vec<Note>,
        now: Instant,
    ) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::PeerAppeared { run } => {
                    dataplane.begin_full_import();
                    // How far the peer had come is learned from its adverts.
                    ha.handle_peer_run(Some(Run { id: run, sequence: 0 }), now);
                }
                Event::PeerLost { .. } => {
                    ha.handle_peer_run(None, now);
                    ha.handle_sync(false);
                }
                Event::Complete => {
                    dataplane.end_full_import();
                    ha.handle_sync(true);
                }
                Event::Transferred => {}
            }
            notes.push(words::of_copying(event, self.peer()));
        }
    }

    /// Tells the peer what has changed, and what it has not been told yet.
    pub(super) fn give_out(&mut self, table: &Table, dataplane: &mut Dataplane, now: Instant) {
        self.push(dataplane, now);
        for _ in 0..DATAGRAMS {
            if !self.session.poll_transmit(&mut self.payload, now) {
                return;
            }
            datagram(self.ends.0, self.ends.1, &self.payload, &mut self.frame);
            let packet = self.frame.bytes().get(ETHERNET..).unwrap_or_default();
            dataplane.send_packet(table, packet, Origin::Ha(self.network), now);
        }
        self.is_behind = true;
    }

    fn push(&mut self, dataplane: &mut Dataplane, now: Instant) {
        let Some(want) = self.session.wants(now) else { return };
        let mut record = FlowRecord::default();
        let most = want.records.min(RECORDS);
        for _ in 0..most {
            match dataplane.next_change(now, &mut record) {
                Some(FlowChange::Record) => {
                    self.session.push(&record, now);
                }
                Some(FlowChange::Lost) => self.session.restart_walk(),
                None => break,
            }
        }
        if dataplane.changes_left() > 0 {
            self.is_behind |= most == RECORDS;
            return;
        }
        // What there is room for, and where to go on, may be another matter by now.
        let Some(step) = self.session.wants(now).and_then(|want| want.walk) else { return };
        let Self { session, .. } = self;
        let mut left = step.records.min(RECORDS);
        let from = usize::try_from(step.cursor).unwrap_or(usize::MAX);
        let next = dataplane.export_flows(from, now, |record| {
            let taken = left > 0 && session.push(record, now);
            left -= usize::from(taken);
            taken
        });
        session.walked(next.map(|next| next as u64), now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.is_behind { Some(Instant::ZERO) } else { self.session.poll_timeout() }
    }
}

const fn socket(end: Endpoint) -> Option<SocketAddrV4> {
    match end.address {
        IpAddr::V4(address) => Some(SocketAddrV4::new(address, end.port)),
        IpAddr::V6(_) => None,
    }
}
