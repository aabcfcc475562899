//! The state of a store at one moment. Owns no counter.

use std::sync::atomic::Ordering;

use crate::clock::Timestamp;
use crate::store::counters::CountersSnapshot;
use crate::store::large::ranges::stats::RangeStats;
use crate::store::recovery::progress::RecoveryStats;
use crate::store::region::row::Region;
use crate::store::region::state::RegionState;
use crate::store::shared::Store;

/// Looks at accounts that differ from the index before they count as wrong.
const ACCOUNTING_ATTEMPTS: usize = 100;

/// The state of a store at one moment.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StoreStats {
    /// Counters since it was opened.
    pub counters: CountersSnapshot,
    /// Whether there may be entries of unknown age.
    pub age_unknown: bool,
    /// Whether recovery is complete.
    pub recovered: bool,
    /// Progress of recovery.
    pub recovery: RecoveryStats,
    /// Bytes in regions.
    pub capacity_bytes: u64,
    /// Upper bound of the bytes of indexed entries.
    pub live_bytes: u64,
    /// All regions.
    pub regions: u64,
    /// Regions that hold nothing.
    pub regions_free: u64,
    /// Regions that may hold entries with neither an index entry nor a tombstone: while there are any,
    /// every change leaves a tombstone.
    pub regions_unindexed: u64,
    /// Regions that could not be read whole, neither at the start nor since.
    pub regions_unreadable: u64,
    /// Regions that could not be read or freed and are left alone for a while.
    pub regions_set_aside: u64,
    /// Indexed entries, slices counted one by one.
    pub entries: u64,
    /// Memory of the index in bytes, with the records of the region that is being filled.
    pub index_bytes: u64,
    /// Most of it.
    pub index_bytes_max: u64,
    /// Entries that have room in it for certain: beyond that, regions are freed.
    pub entries_max: u64,
    /// Bytes accepted but not yet on the device.
    pub backlog_bytes: u64,
    /// Bytes from which on stores wait for the device.
    pub backlog_bytes_max: u64,
    /// Removals whose tombstones are not written yet.
    pub removals_waiting: u64,
    /// Records of purges by tags and prefixes that still count: hard and soft ones.
    pub purge_records: [u64; 2],
    /// Most of each.
    pub purge_records_max: u64,
    /// Bytes of the device reserved by large objects being stored.
    pub reserved_bytes: u64,
    /// Most bytes that they may reserve together.
    pub reserved_bytes_max: u64,
    /// Parallel range reads.
    pub ranges: RangeStats,
}

impl Store {
    /// The counters since the store was opened.
    #[must_use]
    pub fn counters(&self) -> CountersSnapshot {
        let mut counters = self.shared.counters.snapshot();
        if counters.scrub_passes > 0 {
            let ended_at = u32::try_from(counters.scrub_pass_at).unwrap_or(u32::MAX);
            let shown = self.shared.clock.wall_at(Timestamp(ended_at));
            counters.scrub_pass_at = u64::try_from(shown).unwrap_or(0);
        }
        counters
    }

    /// Whether there are entries of unknown age: only lookups that accept stale entries find those.
    #[must_use]
    pub fn is_age_unknown(&self) -> bool {
        self.shared.ages.unknown_age.load(Ordering::Acquire) > 0
    }

    /// The present state. Walks over all regions and all shards of the index.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let shared = &*self.shared;
        let layout = &shared.layout;
        let (backlog_bytes, removals_waiting, footer_bytes) = {
            let log = shared.log.lock();
            (log.backlog(), log.removals_waiting() as u64, log.footer_bytes())
        };
        let (mut live_bytes, mut regions_unreadable) = (0, 0);
        for (_, row) in shared.catalog.regions.iter() {
            live_bytes += row.live();
            let is_unread = row.is_unread() || row.state() == RegionState::Unreadable;
            regions_unreadable += u64::from(is_unread);
        }
        StoreStats {
            counters: self.counters(),
            age_unknown: self.is_age_unknown(),
            recovered: shared.is_recovered(),
            recovery: shared.recovery.progress.snapshot(),
            capacity_bytes: u64::from(layout.region_count) * layout.region_size,
            live_bytes,
            regions: u64::from(layout.region_count),
            regions_free: shared.catalog.regions.count(RegionState::Free) as u64,
            regions_unindexed: shared.catalog.regions.unindexed_count() as u64,
            regions_unreadable,
            regions_set_aside: self.set_aside_regions(),
            entries: shared.catalog.index.len() as u64,
            index_bytes: shared.catalog.index.bytes() as u64 + footer_bytes,
            index_bytes_max: shared.catalog.limit.bytes(),
            entries_max: shared.catalog.limit.entries as u64,
            backlog_bytes,
            backlog_bytes_max: shared.options.backlog_bytes_max,
            removals_waiting,
            purge_records_max: self.shared.options.knobs.purge_records_max as u64,
            purge_records: self.shared.purges.counts().map(|count| count as u64),
            reserved_bytes: shared.large.claims.lock().reserved(),
            reserved_bytes_max: layout.object_len_max(),
            ranges: RangeStats {
                buffer_bytes: shared.reading.bodies.used(),
                buffer_bytes_max: shared.reading.bodies.limit(),
                ..shared.reading.ranges.snapshot()
            },
        }
    }

    /// Walks over all regions so far: for tests that no frequent work walks.
    #[doc(hidden)]
    #[must_use]
    pub fn region_walks(&self) -> u64 {
        self.shared.catalog.regions.walks()
    }

    /// Checks that the index and the region table agree to the byte.
    ///
    /// # Panics
    /// Panics if they do not. For tests; locks the whole index, shard by shard.
    #[doc(hidden)]
    pub fn check_accounting(&self) {
        let shared = &*self.shared;
        if !shared.recovery.snapshot_settled.load(Ordering::Acquire) {
            // Live bytes of a snapshot are added only after all of it is found sound.
            return;
        }
        // Index entries go without the append lock too: what differs meanwhile agrees again at once.
        for _ in 0..ACCOUNTING_ATTEMPTS {
            if self.unaccounted().is_none() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(self.unaccounted(), None, "region, live bytes in its account and in the index");
    }

    /// A region of which account and index differ: its number, and the live bytes of both.
    fn unaccounted(&self) -> Option<(u32, u64, u64)> {
        let shared = &*self.shared;
        let _log = shared.log.lock();
        let mut live = vec![0; shared.layout.region_count as usize];
        for shard in 0..shared.catalog.index.shard_count() {
            shared.catalog.index.sweep_shard(shard, |index_entry| {
                let (region, _) = index_entry.location().split(&shared.layout);
                if let Some(sum) = live.get_mut(region as usize) {
                    *sum += index_entry.class().len_max();
                }
                false
            });
        }
        let differs = |(region, row): (u32, &Region)| {
            let (account, index) = (row.live(), live[region as usize]);
            let is_free = row.state() == RegionState::Free;
            (account != index || (is_free && account > 0)).then_some((region, account, index))
        };
        shared.catalog.regions.iter().find_map(differs)
    }

    /// Problems with the device while lookups are served, for people; usually none.
    #[must_use]
    pub fn troubles(&self) -> Vec<&'static str> {
        let has_set_aside = self.set_aside_regions() > 0;
        let troubles = [
            (has_set_aside, "regions of it cannot be read or freed: the others are used"),
            (self.shared.device.is_stuck(), "reads do not end: lookups that need one are misses"),
            (
                self.shared.device.is_degraded(),
                "ten times slower than it was, or without an answer, for half a minute: stores are refused",
            ),
        ];
        troubles.into_iter().filter_map(|(is, trouble)| is.then_some(trouble)).collect()
    }

    /// Number of regions that could not be read or freed and are left alone. Each is tried again, at
    /// growing intervals.
    #[must_use]
    pub fn set_aside_regions(&self) -> u64 {
        self.shared.catalog.regions.ranked(|ranking| ranking.stuck()) as u64
    }
}
