//! Two routers of the same virtual IPs, of which one tells the other of its flows.

use std::collections::BTreeSet;

use tapvs::addr::LinkId;
use tapvs::config::Config;
use tapvs::dataplane::{FLOW_RECORD, FlowChange, FlowRecord, ImportError, Imported};
use tapvs::time::Duration;

use crate::support::{Ip, Router, line};

pub(crate) type Record = [u8; FLOW_RECORD];

#[derive(Debug)]
pub(crate) struct Pair {
    /// Forwards, and notes what changes.
    pub(crate) one: Router,
    pub(crate) other: Router,
    /// How often all flows had to be told of.
    pub(crate) full_copies: u32,
}

impl Pair {
    pub(crate) fn new(config: Config) -> Self {
        Self::of(Router::new(config.clone()), Router::new(config))
    }

    pub(crate) fn of(mut one: Router, other: Router) -> Self {
        one.dataplane.copy_changes(true);
        Self { one, other, full_copies: 0 }
    }

    pub(crate) fn both(&mut self) -> [&mut Router; 2] {
        [&mut self.one, &mut self.other]
    }

    /// Hands frames to the first router, which drops none.
    pub(crate) fn feed(&mut self, frames: &[(LinkId, Ip)]) {
        for (link, frame) in frames {
            let step = self.one.feed(*link, &frame.frame());
            assert!(!step.out.is_empty(), "{}\n{}", line(&frame.frame()), step.text());
        }
    }

    pub(crate) fn import(&mut self, record: &[u8]) -> Result<Imported, ImportError> {
        let Router { dataplane, table, now, .. } = &mut self.other;
        dataplane.import_flow(table, record, *now)
    }

    /// Tells the second router of everything that waits to be told.
    pub(crate) fn copy(&mut self) {
        let mut record = FlowRecord::default();
        while let Some(change) = self.one.dataplane.next_change(self.one.now, &mut record) {
            match change {
                FlowChange::Record => {
                    self.import(&record).unwrap();
                }
                FlowChange::Lost => self.copy_all(),
            }
        }
        self.other.check();
    }

    fn copy_all(&mut self) {
        self.full_copies += 1;
        self.other.dataplane.begin_full_import();
        for record in whole(&mut self.one) {
            self.import(&record).unwrap();
        }
        self.other.dataplane.end_full_import();
        self.other.advance(Duration::ZERO);
        while self.other.dataplane.is_sweeping() {
            self.other.advance(Duration::ZERO);
        }
    }

    /// Lets time pass at both, with changes told every second.
    pub(crate) fn advance(&mut self, by: Duration) {
        for _ in 0..by.secs() {
            for router in self.both() {
                router.advance(Duration::from_secs(1));
            }
            self.copy();
        }
    }

    /// Both have the same flows, but for those whose time is over and that were not yet taken out.
    pub(crate) fn assert_same(&mut self) {
        let Router { dataplane, now, .. } = &self.one;
        let places = 0..dataplane.flow_places();
        let over: BTreeSet<_> = dataplane
            .flows_in(places, *now)
            .filter(|(_, left)| *left == Duration::ZERO)
            .map(|(flow, _)| {
                let tuple = flow.original;
                (tuple.protocol, tuple.source.octets(), tuple.source_port, tuple.destination_port)
            })
            .collect();
        let [one, other] = self.both().map(|router| {
            let mut records = exported(router);
            records.retain(|record| {
                let source = record[8..12].try_into().unwrap();
                let [from, to] =
                    [16, 18].map(|at| u16::from_be_bytes([record[at], record[at + 1]]));
                !over.contains(&(record[2], source, from, to))
            });
            // Lifetimes are not the same, and need not be.
            records.iter_mut().for_each(|record| record[32..36].fill(0));
            records
        });
        assert_eq!(one, other);
    }
}

/// The records of all flows, in the order of their places.
pub(crate) fn whole(router: &mut Router) -> Vec<Record> {
    let (mut records, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        from = router.dataplane.export_flows(at, router.now, |record| {
            records.push(record[..].try_into().unwrap());
            true
        });
    }
    records
}

/// As [`whole`], sorted by tuple.
pub(crate) fn exported(router: &mut Router) -> Vec<Record> {
    let mut records = whole(router);
    records.sort_by_key(|record| (record[2], record[8..20].to_vec()));
    records
}
