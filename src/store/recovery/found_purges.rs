//! Purge records as recovery gathers them. Owns that each counts once, and which still say anything.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::format::{PurgeRecord, Selector, Sequence};
use crate::planted::{self, Bug};
use crate::store::counters::{add, count};
use crate::store::log::owed_records::is_below;
use crate::store::purges::Floors;
use crate::store::purges::table::RECORDS_MAX;
use crate::store::shared::Store;

/// Records gathered at most, some 20 MiB: then the oldest half goes into floors. The table of each kind has fewer.
const FOUND_MAX: usize = 4 * RECORDS_MAX;
/// Records added under one lock.
const ADDED_AT_ONCE: usize = 1024;

/// The newest record of each selector and kind.
pub(super) struct FoundPurges {
    found: Mutex<Found>,
    /// What the superblock says anyway.
    floors: Floors,
}

#[derive(Default)]
struct Found {
    last: HashMap<(Selector, bool), Sequence>,
    /// Records that were too many.
    folded: Floors,
    folded_count: usize,
}

impl FoundPurges {
    /// None yet.
    pub fn new(floors: Floors) -> FoundPurges {
        FoundPurges { found: Mutex::default(), floors }
    }

    /// Adds some of a region.
    pub fn add(&self, records: impl Iterator<Item = PurgeRecord>) {
        let mut records = records.filter(|record| !is_below(record, self.floors)).peekable();
        if records.peek().is_none() {
            return;
        }
        let mut found = self.found.lock();
        for PurgeRecord { sequence, what, is_soft } in records {
            let last = found.last.entry((what, is_soft)).or_default();
            *last = sequence.max(*last);
        }
        if found.last.len() > FOUND_MAX {
            found.fold();
        }
    }

    /// All of them, the oldest first, and the floors into which others went, with their number.
    pub fn take(&self) -> (Vec<PurgeRecord>, (Floors, usize)) {
        let Found { last, folded, folded_count } = std::mem::take(&mut *self.found.lock());
        let mut records: Vec<PurgeRecord> = last
            .into_iter()
            .map(|((what, is_soft), sequence)| PurgeRecord { sequence, what, is_soft })
            .collect();
        records.sort_unstable();
        (records, (folded, folded_count))
    }
}

impl Found {
    fn fold(&mut self) {
        let mut sequences: Vec<Sequence> = self.last.values().copied().collect();
        let middle = sequences.len() / 2;
        let (_, &mut until, _) = sequences.select_nth_unstable(middle);
        let before = self.last.len();
        let Found { last, folded, .. } = self;
        last.retain(|(_, is_soft), sequence| {
            let floor = if *is_soft { &mut folded.soft } else { &mut folded.hard };
            if *sequence <= until {
                *floor = (*floor).max(*sequence);
            }
            *sequence > until
        });
        last.shrink_to_fit();
        self.folded_count += before - self.last.len();
    }
}

impl Store {
    /// Has purges count of a region that could not be read at the start, if those in the other log were not
    /// found either.
    pub(in crate::store) fn take_late_purges(&self, records: &[PurgeRecord]) {
        if records.is_empty() {
            return;
        }
        for some in records.chunks(ADDED_AT_ONCE) {
            let mut log = self.shared.log.lock();
            let needed = some.iter().filter(|record| !log.is_below_floor(record));
            let folded = needed.filter_map(|record| self.shared.purges.add_found(record, false));
            if folded.count() > 0 {
                log.raise_floors(self.shared.purges.floors(), self.shared.clock.pair());
            }
        }
    }

    /// Has purges of earlier starts count, and floors into which some went with their number, but for those that can
    /// cover nothing any more: a region of purges may be much older than all entries. Call it before any entry of
    /// an earlier start is found.
    pub(in crate::store) async fn load_purges(
        &self,
        records: Vec<PurgeRecord>,
        (floors, mut folded): (Floors, usize),
    ) {
        let shared = &*self.shared;
        {
            let mut log = shared.log.lock();
            for (is_soft, floor) in [(false, floors.hard), (true, floors.soft)] {
                if floor > Sequence(0) {
                    shared.purges.raise_found_floor(is_soft, floor);
                }
            }
            if folded > 0 {
                log.raise_found_floors(shared.purges.floors(), shared.clock.pair());
            }
        }
        for some in records.chunks(ADDED_AT_ONCE) {
            folded += self.load_some_purges(some);
            tokio::task::yield_now().await;
        }
        if folded > 0 {
            shared.signals.wake_flusher.notify_one();
            count(&shared.counters.purge_folds);
            add(&shared.counters.purge_records_folded, folded as u64);
            tracing::warn!(
                records = folded,
                "too many purges by tag or prefix were found: what is older than the oldest of them is purged too"
            );
        }
    }

    /// Gives how many went into a floor.
    fn load_some_purges(&self, records: &[PurgeRecord]) -> usize {
        let shared = &*self.shared;
        // Under the append lock: purges of this start go on meanwhile.
        let mut log = shared.log.lock();
        let oldest = shared.catalog.regions.oldest_generation().unwrap_or(Sequence(u64::MAX));
        let mut folded = 0;
        for record in records {
            let is_lost = match record.what {
                Selector::Tag(_) => planted::is(Bug::LoseTagRecord) && !record.is_soft,
                Selector::Prefix { .. } => false,
            };
            let is_needed = record.sequence > oldest && !log.is_below_floor(record);
            if !is_needed || is_lost || (record.is_soft && planted::is(Bug::ReviveAtCrash)) {
                continue;
            }
            let more = shared.purges.add_found(record, true);
            folded += more.map_or(0, |more| more.count);
        }
        if folded > 0 {
            log.raise_found_floors(shared.purges.floors(), shared.clock.pair());
        }
        folded
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::device::SimDevice;
    use crate::store::testing;

    #[test]
    fn what_is_gathered_is_bounded_and_the_oldest_become_floors() {
        let floors = Floors { hard: Sequence(100), ..Floors::default() };
        let found = FoundPurges::new(floors);
        let of = |n: u64| PurgeRecord {
            sequence: Sequence(n),
            what: Selector::Tag(n),
            is_soft: n.is_multiple_of(2),
        };
        let count = 2 * FOUND_MAX as u64;
        found.add((1..=count).map(of));
        let (records, (folded, folded_count)) = found.take();
        assert!(records.len() <= FOUND_MAX + 1, "{}", records.len());
        let oldest = records.first().unwrap().sequence;
        assert!(folded.hard < oldest && folded.soft < oldest);
        assert!(folded.hard.max(folded.soft).0 + 1 == oldest.0, "nothing is left out");
        // Of 1 to 100 the hard ones are known.
        assert_eq!((records.len() + folded_count) as u64, count - 50);
    }

    #[tokio::test(start_paused = true)]
    async fn floors_that_a_start_found_are_written_once_this_run_writes() {
        for writes_before in [false, true] {
            let (sim, clock) = (SimDevice::new(4 << 20, 4096), Clock::manual(Timestamp(1000)));
            let store = testing::create(&sim, &clock).await;
            if writes_before {
                store.begin_store().await.unwrap();
            }
            let written = sim.counts().writes;
            store
                .load_purges(Vec::new(), (Floors { hard: Sequence(3), soft: Sequence(0) }, 1))
                .await;
            tokio::time::sleep(Duration::from_secs(10)).await;
            if !writes_before {
                assert_eq!(sim.counts().writes, written, "a start writes nothing");
                store.begin_store().await.unwrap();
            }
            assert!(!store.shared.log.lock().owes_purges(), "{writes_before}");
        }
    }
}
