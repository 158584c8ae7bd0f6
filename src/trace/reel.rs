//! The way from the loop to the reader: a few batches of fixed size that go round, full ones there
//! and empty ones back. Neither side waits, and the loop neither allocates nor frees.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::aim::Aim;
use super::record::Record;

/// Batches of a reel.
const BATCHES: usize = 8;
/// Records of a batch.
const RECORDS: usize = 512;
/// Bytes of a batch, or as many as this many of the longest packets need.
const BYTES: usize = 128 << 10;
const LONGEST: usize = 2;

/// Some records and their bytes.
#[derive(Debug)]
pub struct Batch {
    records: Vec<Record>,
    bytes: Vec<u8>,
}

impl Batch {
    fn new(snap: usize) -> Self {
        let bytes = BYTES.max(2 * snap * LONGEST);
        Self { records: Vec::with_capacity(RECORDS), bytes: Vec::with_capacity(bytes) }
    }

    /// The records, each with the bytes as it came and as it left.
    pub fn records(&self) -> impl ExactSizeIterator<Item = (&Record, [&[u8]; 2])> {
        self.records.iter().map(|record| {
            let bytes = self.bytes.get(record.bytes_at..).unwrap_or_default();
            let (came, rest) = bytes.split_at(record.kept[0].min(bytes.len()));
            (record, [came, rest.get(..record.kept[1]).unwrap_or_default()])
        })
    }

    /// Whether there was room for it.
    fn push(&mut self, record: &Record, bytes: [&[u8]; 2]) -> bool {
        let kept = bytes.map(<[u8]>::len);
        let room = self.bytes.capacity() - self.bytes.len();
        if self.records.len() == RECORDS || kept[0] + kept[1] > room {
            return false;
        }
        let bytes_at = self.bytes.len();
        bytes.iter().for_each(|bytes| self.bytes.extend_from_slice(bytes));
        self.records.push(Record { kept, bytes_at, ..*record });
        true
    }

    fn clear(&mut self) {
        self.records.clear();
        self.bytes.clear();
    }
}

/// The loop's end of a reel, and what goes onto it.
#[derive(Debug)]
pub struct Tracer {
    key: u64,
    pub(super) aim: Box<Aim>,
    snap: usize,
    begun: bool,
    current: Option<Batch>,
    stock: Vec<Batch>,
    full: SyncSender<Batch>,
    empty: Receiver<Batch>,
    /// Also says whether the reader is still there.
    lost: Arc<AtomicU64>,
}

/// The reader's end of a reel. Dropped, it ends the tracer.
#[derive(Debug)]
pub struct Reader {
    full: Receiver<Batch>,
    empty: SyncSender<Batch>,
    lost: Arc<AtomicU64>,
}

/// A reel with the name `key` for what `aim` admits, at most `snap` bytes of each packet as it came
/// and as many as it left.
pub fn reel(key: u64, aim: Box<Aim>, snap: usize) -> (Tracer, Reader) {
    let (full, filled) = sync_channel(BATCHES);
    let (empty, emptied) = sync_channel(BATCHES);
    let lost = Arc::new(AtomicU64::new(0));
    let stock = std::iter::repeat_with(|| Batch::new(snap)).take(BATCHES).collect();
    let reader = Reader { full: filled, empty, lost: Arc::clone(&lost) };
    let (begun, current) = (false, None);
    (Tracer { key, aim, snap, begun, current, stock, full, empty: emptied, lost }, reader)
}

impl Tracer {
    /// Its name.
    pub const fn key(&self) -> u64 {
        self.key
    }

    /// Bytes of each packet to keep.
    pub(super) const fn snap(&self) -> usize {
        self.snap
    }

    /// Whether its reader has gone.
    pub(super) fn is_over(&self) -> bool {
        Arc::strong_count(&self.lost) == 1
    }

    /// Puts a record onto the reel, or counts it where there is no room.
    pub(super) fn push(&mut self, record: &Record, bytes: [&[u8]; 2]) {
        let bytes = bytes.map(|bytes| bytes.get(..self.snap).unwrap_or(bytes));
        if self.current.as_mut().is_some_and(|batch| batch.push(record, bytes)) {
            return;
        }
        // Full, or there was none: perhaps one has come back.
        self.send();
        self.take_back();
        self.current = self.current.take().or_else(|| self.stock.pop());
        if !self.current.as_mut().is_some_and(|batch| batch.push(record, bytes)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends what there is, unless the reader has much to read already: a batch is filled first
    /// then. Whether there is something new. The first one is sent empty: the reader knows then that the tracer is at work.
    pub(super) fn flush(&mut self) -> bool {
        self.take_back();
        self.current = self.current.take().or_else(|| self.stock.pop());
        let Some(current) = &self.current else { return false };
        let due = !current.records.is_empty() && self.stock.len() >= BATCHES / 2;
        (due || !std::mem::replace(&mut self.begun, true)) && self.send()
    }

    fn send(&mut self) -> bool {
        let Some(batch) = self.current.take() else { return false };
        // There are as many places as batches.
        match self.full.try_send(batch) {
            Ok(()) => true,
            Err(error) => {
                let (std::sync::mpsc::TrySendError::Full(batch)
                | std::sync::mpsc::TrySendError::Disconnected(batch)) = error;
                self.current = Some(batch);
                false
            }
        }
    }

    fn take_back(&mut self) {
        while self.stock.len() < BATCHES
            && let Ok(batch) = self.empty.try_recv()
        {
            self.stock.push(batch);
        }
    }
}

impl Reader {
    /// The next batch; give it back to [`Reader::done`].
    pub fn next_batch(&self) -> Option<Batch> {
        self.full.try_recv().ok()
    }

    /// The batch has been read.
    pub fn done(&self, mut batch: Batch) {
        batch.clear();
        // There are as many places as batches; without a tracer it may go.
        drop(self.empty.try_send(batch));
    }

    /// How many packets passed the filter for which there was no room, since this was asked last.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::{DropReason, Verdict};
    use crate::time::Instant;
    use crate::trace::{Exit, Outcome};

    fn record(number: i64) -> Record {
        Record {
            at: Instant::from_micros(number),
            generation: 1,
            ingress: None,
            outcome: Outcome::Decided(Verdict::Drop(DropReason::Runt)),
            exit: Exit::Nowhere,
            next_hop: None,
            flow: None,
            service: None,
            lengths: [3, 0],
            kept: [0; 2],
            bytes_at: 0,
        }
    }

    fn of(snap: usize) -> (Tracer, Reader) {
        reel(7, Box::default(), snap)
    }

    #[test]
    fn what_goes_on_comes_off_in_order_and_batches_go_round() {
        let (mut tracer, reader) = of(2);
        assert!(tracer.flush(), "the first is empty and says that it has begun");
        let first = reader.next_batch().unwrap();
        assert_eq!(first.records().len(), 0);
        reader.done(first);
        assert!(!tracer.flush() && reader.next_batch().is_none());
        let mut next = 0;
        for turn in 0..1_000 {
            for number in 0..10 {
                tracer.push(&record(turn * 10 + number), [b"abc", b"d"]);
            }
            assert!(tracer.flush());
            let batch = reader.next_batch().unwrap();
            for (record, bytes) in batch.records() {
                assert_eq!((record.at.total_micros(), bytes), (next, [&b"ab"[..], b"d"]));
                next += 1;
            }
            reader.done(batch);
        }
        assert_eq!((next, reader.take_lost()), (10_000, 0));
    }

    #[test]
    fn a_reader_that_sleeps_costs_records_and_nothing_else() {
        let (mut tracer, reader) = of(64);
        for number in 0..100_000 {
            tracer.push(&record(number), [&[7; 64], &[]]);
            if number % 64 == 0 {
                tracer.flush();
            }
        }
        let lost = reader.take_lost();
        assert_eq!(reader.take_lost(), 0, "said once");
        let mut read = 0;
        while let Some(batch) = reader.next_batch() {
            for (record, _) in batch.records() {
                assert_eq!(record.at.total_micros(), read, "the oldest are kept");
                read += 1;
            }
            reader.done(batch);
            tracer.flush();
        }
        assert_eq!(u64::try_from(read).unwrap() + lost, 100_000);
        assert!(read >= 1_500, "{read}: most batches are sent full when the reader is behind");
        tracer.push(&record(0), [&[], &[]]);
        assert!(tracer.flush() && reader.next_batch().is_some(), "it goes on");
    }

    #[test]
    fn the_longest_packet_fits_and_the_tracer_knows_when_nobody_reads() {
        let (mut tracer, reader) = of(65_554);
        tracer.push(&record(0), [&[1; 65_554], &[2; 65_554]]);
        tracer.flush();
        assert_eq!((reader.next_batch().unwrap().records().len(), reader.take_lost()), (1, 0));
        assert!(!tracer.is_over());
        drop(reader);
        assert!(tracer.is_over());
        tracer.push(&record(0), [&[], &[]]);
        assert!(!tracer.flush());
    }
}
