//! Purge records as recovery gathers them. Owns that each counts once, and which still say anything.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::format::{PurgeRecord, Selector, Sequence};
use crate::planted::{self, Bug};
use crate::store::counters::{add, count};
use crate::store::recovery::work::Recovery;
use crate::store::shared::Store;

/// The newest record of each selector and kind.
#[derive(Default)]
pub(super) struct FoundPurges {
    last: Mutex<HashMap<(Selector, bool), Sequence>>,
}

impl FoundPurges {
    /// Adds some of a region.
    pub fn add(&self, records: impl Iterator<Item = PurgeRecord>) {
        let mut records = records.peekable();
        if records.peek().is_none() {
            return;
        }
        let mut last = self.last.lock();
        for PurgeRecord { sequence, what, is_soft } in records {
            let last = last.entry((what, is_soft)).or_default();
            *last = sequence.max(*last);
        }
    }

    /// All of them, the oldest first.
    fn take(&self) -> Vec<PurgeRecord> {
        let last = std::mem::take(&mut *self.last.lock());
        let mut records: Vec<PurgeRecord> = last
            .into_iter()
            .map(|((what, is_soft), sequence)| PurgeRecord { sequence, what, is_soft })
            .collect();
        records.sort_unstable();
        records
    }
}

impl Store {
    /// Has purges count of a region that could not be read at the start, if those in the other log were not
    /// found either.
    pub(in crate::store) fn take_late_purges(&self, records: &[PurgeRecord]) {
        if records.is_empty() {
            return;
        }
        let mut log = self.shared.log.lock();
        let needed = records.iter().filter(|record| !log.is_below_floor(record));
        let folded = needed.filter_map(|record| self.shared.purges.add_found(record, false));
        if folded.count() > 0 {
            log.raise_floors(self.shared.purges.floors(), self.shared.clock.pair());
        }
    }

    /// Has purges of earlier starts count.
    pub(in crate::store) fn load_purges(&self, mut records: Vec<PurgeRecord>) {
        let shared = &*self.shared;
        // Under the append lock: purges of this start go on meanwhile.
        let mut log = shared.log.lock();
        let oldest = shared.catalog.regions.oldest_generation().unwrap_or(Sequence(u64::MAX));
        records.retain(|record| record.sequence > oldest && !log.is_below_floor(record));
        let mut folded = 0;
        for record in &records {
            let is_lost = match record.what {
                Selector::Tag(_) => planted::is(Bug::LoseTagRecord) && !record.is_soft,
                Selector::Prefix { .. } => false,
            };
            if is_lost || (record.is_soft && planted::is(Bug::ReviveAtCrash)) {
                continue;
            }
            if let Some(more) = shared.purges.add_found(record, true) {
                folded += more.count;
            }
        }
        if folded > 0 {
            // Written with the next superblock: a start writes nothing.
            log.note_floors(shared.purges.floors());
            count(&shared.counters.purge_folds);
            add(&shared.counters.purge_records_folded, folded as u64);
            tracing::warn!(
                records = folded,
                "too many purges by tag or prefix were found: what is older than the oldest of them is purged too"
            );
        }
    }
}

impl Recovery {
    /// Has the purges that were found count, but for those that can cover nothing any more: a region of
    /// purges may be much older than all entries. Before any entry of an earlier start is found.
    pub(super) fn take_found_purges(&self, found: &FoundPurges) {
        self.store.load_purges(found.take());
    }
}
