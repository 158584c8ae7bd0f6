//! Traces: who watches, and what they are sent of what the loop puts on their reels.
//!
//! A client is sent more when it has taken what it was sent. One that is slow leaves its reel full,
//! and the loop counts what finds no room there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use super::protocol::{Answer, NotShown, Reason, Refusal, TracedLink, Tracing as Begun};
use super::publisher::unknown;
use super::socket::{ClientId, Socket};
use super::thread::Thread;
use super::words::Words;
use super::{Notice, Tracing};
use crate::addr::LinkId;
use crate::links::clock::Clock;
use crate::table::Table;
use crate::time::Instant;
use crate::trace::{Aim, Batch, Filter, FilterError, MOST, Reader, reel};

/// Bytes of a packet whose headers alone are of interest.
const HEADERS: usize = 128;
/// The longest frame.
const LONGEST: u32 = 65_554;
/// Packets written at once, and how often before others have their turn.
const PACKETS: usize = 32;
const PIECES: usize = 4;

/// All of them.
#[derive(Debug)]
pub(super) struct Traces {
    all: Vec<Trace>,
    last_key: u64,
    orders: SyncSender<Tracing>,
    /// What the loop has had no room for yet.
    unsent: VecDeque<Tracing>,
    words: Option<Words>,
    /// Somebody could be sent more.
    more: bool,
}

#[derive(Debug)]
struct Trace {
    key: u64,
    client: ClientId,
    filter: Filter,
    aim: Aim,
    reader: Reader,
    /// What is being sent, and how much of it has been.
    batch: Option<(Batch, usize)>,
    begun: bool,
    /// Whole frames, not only words.
    frames: bool,
}

impl<N: Notice> Thread<N> {
    /// Sends everybody what they wait for and can take.
    pub(super) fn handle_traces(&mut self, clock: &Clock, now: Instant) {
        let Self { traces, socket, publisher, .. } = self;
        if traces.is_off() {
            return;
        }
        let table = publisher.published().load_full();
        if traces.serve(socket, &table, clock.zero_since_1970(), now) {
            // It may have waited for room.
            self.frame_loop.wake();
        }
    }
}

impl Traces {
    pub(super) fn new(orders: SyncSender<Tracing>) -> Self {
        let (all, unsent) = (Vec::new(), VecDeque::new());
        Self { all, last_key: 0, orders, unsent, words: None, more: false }
    }

    fn is_off(&self) -> bool {
        self.all.is_empty() && self.unsent.is_empty()
    }

    /// Begins one, which `client` is sent from then on.
    pub(super) fn begin(
        &mut self,
        client: ClientId,
        filter: &str,
        snap: Option<u32>,
        table: &Table,
    ) -> Result<(), Refusal> {
        let wrong = |error: FilterError| Refusal::new(Reason::Argument, error.to_string());
        let filter: Filter = filter.parse().map_err(wrong)?;
        let aim = Aim::new(&filter, table).map_err(|(what, name)| nobody(what, &name, table))?;
        if self.all.len() == MOST {
            let message = format!("{MOST} packet traces are under way already; end one of them");
            return Err(Refusal::new(Reason::Busy, message));
        }
        self.last_key += 1;
        let key = self.last_key;
        let bytes = snap.map_or(HEADERS, |snap| snap.clamp(1, LONGEST) as usize);
        let (tracer, reader) = reel(key, Box::new(aim.clone()), bytes);
        let (batch, begun, frames) = (None, false, snap.is_some());
        self.all.push(Trace { key, client, filter, aim, reader, batch, begun, frames });
        self.order(Tracing::Start(tracer));
        Ok(())
    }

    /// Another table has other ids for the same names.
    pub(super) fn follow(&mut self, table: &Table) {
        let mut orders = Vec::new();
        for trace in &mut self.all {
            let aim = trace.aim.follow(&trace.filter, table);
            if aim != trace.aim {
                trace.aim = aim.clone();
                orders.push(Tracing::Follow(trace.key, Box::new(aim)));
            }
        }
        orders.into_iter().for_each(|order| self.order(order));
    }

    /// When to serve although nothing happens.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.more.then_some(Instant::ZERO)
    }

    /// Whether the loop has room that it had not before.
    fn serve(&mut self, socket: &mut Socket, table: &Arc<Table>, zero: i64, now: Instant) -> bool {
        self.send_orders();
        self.all.retain(|trace| socket.is_idle(trace.client).is_some());
        let words = self.words.take().filter(|words| Arc::ptr_eq(words.table(), table));
        let words = words.unwrap_or_else(|| Words::new(table));
        let (mut room, mut more) = (false, false);
        for trace in &mut self.all {
            let mut pieces = 0;
            while socket.is_idle(trace.client) == Some(true)
                && let Some(piece) = trace.next_piece(&words, zero, &mut room)
            {
                socket.stream(trace.client, piece, now);
                pieces += 1;
                if pieces == PIECES {
                    more = true;
                    break;
                }
            }
        }
        self.more = more;
        self.words = Some(words).filter(|_| !self.all.is_empty());
        room
    }

    fn order(&mut self, order: Tracing) {
        self.unsent.push_back(order);
        self.send_orders();
    }

    /// What finds no room is tried again when the loop has told something: it does when it has
    /// taken what is before.
    fn send_orders(&mut self) {
        while let Some(order) = self.unsent.pop_front() {
            if let Err(TrySendError::Full(order)) = self.orders.try_send(order) {
                self.unsent.push_front(order);
                return;
            }
        }
    }
}

impl Trace {
    /// The next lines, if there is anything to say.
    fn next_piece(&mut self, words: &Words, zero: i64, room: &mut bool) -> Option<Vec<u8>> {
        let mut piece = Vec::new();
        if self.batch.is_none() {
            self.batch = self.reader.next_batch().map(|batch| (batch, 0));
        }
        if let Some((batch, mut sent)) = self.batch.take() {
            if !std::mem::replace(&mut self.begun, true) {
                piece.extend(Answer::Tracing(Begun { links: links(words.table()) }).to_line());
            }
            for (record, bytes) in batch.records().skip(sent).take(PACKETS) {
                let traced = words.traced(record, bytes, zero, self.frames);
                piece.extend(Answer::Traced(Box::new(traced)).to_line());
                sent += 1;
            }
            if sent < batch.records().len() {
                self.batch = Some((batch, sent));
            } else {
                self.reader.done(batch);
                *room = true;
            }
        }
        if self.begun && self.batch.is_none() {
            let packets = self.reader.take_lost();
            if packets > 0 {
                piece.extend(Answer::NotShown(NotShown { packets }).to_line());
            }
        }
        (!piece.is_empty()).then_some(piece)
    }
}

fn links(table: &Table) -> Vec<TracedLink> {
    let ids = (0..=u16::MAX).map(LinkId).take(table.link_count());
    let link = |id| TracedLink {
        tap: table.link_name(id).to_owned(),
        network: table.network_of(id).map_or_else(String::new, |network| network.name.clone()),
    };
    ids.map(link).collect()
}

/// What a filter names is not there.
fn nobody(what: &str, name: &str, table: &Table) -> Refusal {
    let services = table.services();
    match what {
        "service" => unknown(what, name, services.iter().map(|service| service.name.as_str())),
        "link" => {
            let links = links(table);
            unknown(what, name, links.iter().map(|link| link.tap.as_str()))
        }
        _ => {
            let names: std::collections::BTreeSet<_> =
                table.servers().map(|(_, server)| server.name.as_str()).collect();
            unknown(what, name, names.into_iter())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;
    use crate::control::tests::config;
    use crate::table::{Ids, Standing};

    fn traces() -> (Traces, Receiver<Tracing>, Arc<Table>) {
        let (sender, orders) = sync_channel(2);
        let table = Table::compile(&config(), None, &mut Ids::default(), |_, _| Standing::GOOD);
        (Traces::new(sender), orders, Arc::new(table))
    }

    #[test]
    fn what_cannot_be_traced_is_refused_and_changes_nothing() {
        let (mut traces, orders, table) = traces();
        let client = ClientId::of_test(0);
        for (filter, reason, why) in [
            ("service=shop", Reason::Argument, "unknown service shop; there are: web"),
            ("server=web9", Reason::Argument, "unknown server web9; there are: "),
            ("link=eth0", Reason::Argument, "unknown link eth0; there are: tapvs0"),
            ("colour=red", Reason::Argument, "unknown key `colour`"),
        ] {
            let refusal = traces.begin(client, filter, None, &table).unwrap_err();
            assert_eq!(refusal.reason, reason);
            assert!(refusal.to_string().contains(why), "{refusal}");
        }
        assert!(traces.is_off() && orders.try_recv().is_err());
        for _ in 0..MOST {
            traces.begin(client, "service=web", Some(u32::MAX), &table).unwrap();
        }
        let refusal = traces.begin(client, "", None, &table).unwrap_err();
        assert_eq!(refusal.reason, Reason::Busy);
    }

    #[test]
    fn orders_wait_for_room_and_come_in_order() {
        let (mut traces, orders, table) = traces();
        let client = ClientId::of_test(0);
        for _ in 0..3 {
            traces.begin(client, "service=web", None, &table).unwrap();
        }
        let mut keys = Vec::new();
        while let Ok(order) = orders.try_recv() {
            let Tracing::Start(tracer) = order else { panic!("{order:?}") };
            keys.push(tracer.key());
            traces.send_orders();
        }
        assert_eq!(keys, [1, 2, 3]);
        traces.follow(&table);
        assert!(orders.try_recv().is_err(), "the same ids");
        let mut ids = Ids::default();
        ids.service();
        let other = Table::compile(&config(), None, &mut ids, |_, _| Standing::GOOD);
        traces.follow(&other);
        assert!(matches!(orders.try_recv(), Ok(Tracing::Follow(1, _))));
    }
}
