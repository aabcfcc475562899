//! The regions whose entries recovery leaves out of the index because it is at its part of memory. Owns the
//! choice: the oldest ones, whole. They are freed as soon as recovery is complete, and until then every
//! change leaves a tombstone. What their records and tombstones say of older versions counts.

use std::cmp::Reverse;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::planted::{self, Bug};
use crate::store::counters::add;
use crate::store::recovery::parallel::on_thread;
use crate::store::recovery::parts::Parts;
use crate::store::recovery::versions::{PARTS, settle};
use crate::store::recovery::work::Recovery;

/// The index is filled up to one part in this many, so that stores have room before anything is freed.
const ROOM_SHARE: u64 = 8;

/// Regions that get no index entries.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// In ascending order.
    regions: Vec<u32>,
}

impl LeftOut {
    /// Whether the entries of a region are left out.
    pub fn has(&self, region: u32) -> bool {
        !self.regions.is_empty() && self.regions.binary_search(&region).is_ok()
    }
}

impl Recovery {
    /// Chooses regions by what the first pass found: none if all entries fit into the index. `None` if the
    /// runtime ends.
    pub(super) async fn choose_left_out(&self, parts: &Arc<Parts>) -> Option<LeftOut> {
        let catalog = &self.store.shared.catalog;
        let room = catalog.limit.entries.saturating_sub(catalog.index.len()) as u64;
        let room = room - room / ROOM_SHARE;
        let kept = parts.kept().len() as u64;
        // Hashes are uniform: in all parts there is as much as in those that were kept.
        let in_all = |count: u64| count.saturating_mul(PARTS as u64) / kept;
        if in_all(parts.len()) <= room {
            return Some(LeftOut::default());
        }
        let counted = if parts.are_few() {
            self.count_newest(parts)
        } else {
            let (recovery, parts) = (Recovery::new(self.store.clone()), Arc::clone(parts));
            on_thread(&Semaphore::new(1), move || recovery.count_newest(&parts)).await?
        };
        let mut regions: Vec<u32> = (0..).take(counted.len()).collect();
        regions.sort_by_key(|region| Reverse(catalog.regions.on_device(*region).generation()));
        let mut sum = 0;
        let fitting = regions.iter().take_while(|region| {
            sum += in_all(counted[**region as usize]);
            sum <= room
        });
        let mut left_out = regions.split_off(fitting.count());
        left_out.retain(|region| counted[*region as usize] > 0);
        left_out.sort_unstable();
        Some(LeftOut { regions: left_out })
    }

    /// Counts by region the versions that are the newest of their keys.
    fn count_newest(&self, parts: &Parts) -> Vec<u64> {
        let shared = &*self.store.shared;
        let mut counts = vec![0; shared.layout.region_count as usize];
        for part in parts.kept() {
            parts.change(part, |versions| {
                settle(versions, |version| self.store.drop_undead(version));
                for version in versions.iter().filter(|v| v.sequence >= shared.purge_floor()) {
                    if let Some(location) = version.location() {
                        counts[location.split(&shared.layout).0 as usize] += 1;
                    }
                }
            });
        }
        counts
    }

    /// Has the regions emptied next. Call it before recovery is complete: until then every change leaves a
    /// tombstone anyway.
    pub(super) fn free_left_out(&self, left_out: &LeftOut) {
        let count = left_out.regions.len();
        if count == 0 {
            return;
        }
        let shared = &*self.store.shared;
        for region in &left_out.regions {
            if !planted::is(Bug::ForgetLeftOut) {
                shared.log.lock().note_unindexed(*region);
            }
            shared.catalog.regions.on_device(*region).condemn();
        }
        add(&shared.counters.regions_left_out, count as u64);
        let index_bytes = shared.catalog.limit.bytes();
        tracing::warn!(
            regions = count,
            index_bytes,
            "the index's part of memory is too small for what is on the device: the oldest regions are freed"
        );
    }
}
