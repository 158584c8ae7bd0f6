//! Reading what a look-up will read, for many tuples at once.

use std::hint::black_box;

use super::{Flow, FlowTable, Tuple, flow_of};

impl FlowTable {
    /// Brings near what look-ups of `tuples` need: first their cells of the index, then the records
    /// that these name. Within one of the two loops no read waits for another.
    pub(in crate::dataplane) fn approach<const N: usize>(&self, tuples: &[Option<Tuple>; N]) {
        let hashes = tuples.map(|tuple| tuple.map(|tuple| self.hash(tuple)));
        let cells = hashes.iter().flatten().fold(0, |all, hash| all ^ self.index.touch(*hash));
        black_box(cells);
        let records = hashes.iter().flatten().fold(0, |all, hash| {
            let first = self.index.find(*hash, |_| true);
            all ^ first.map_or(0, |entry| self.get(flow_of(entry).0).touch())
        });
        black_box(records);
    }
}

impl Flow {
    /// Reads something at both ends of the record, which lies across cache lines.
    const fn touch(&self) -> u64 {
        self.bytes[0] ^ self.expires as u64 ^ self.marks as u64
    }
}
