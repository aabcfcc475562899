//! Which region of the log of purges is emptied, and when: each group commit takes at least a block, so
//! these regions fill with little in them. Owns the choice; `reclaim` empties them like others.

use crate::format::{Sequence, TOMBSTONE_LEN, Tombstone};
use crate::store::mutation::request::StoreError;
use crate::store::reclaim::freeing::pause;
use crate::store::reclaim::reclaimer::Reclaimer;
use crate::store::reclaim::victim::Victim;
use crate::store::region::reader::Effort;
use crate::store::region::state::RegionState;

/// A region is emptied out of need if what must be carried on fits into one part in this many of another,
/// footer included.
const NEEDED_SHARE: u64 = 4;
/// Bytes that a tombstone takes, in a slot and in the footer.
const TOMBSTONE_SPACE: u64 = 2 * TOMBSTONE_LEN as u64;

impl Reclaimer {
    /// Empties a region of the log of purges where that gives room; true if one was. When no region
    /// can take what must be carried on, others are to be emptied first.
    pub(in crate::store) async fn empty_purge_region(&self) -> bool {
        let Some((region, state)) = self.purge_region_to_empty().await else { return false };
        match self.try_to_free(Victim::whole(region), state).await {
            Ok(_) => true,
            Err(StoreError::Busy(why)) => {
                // As long as room is short it is so in each round, until others are emptied.
                tracing::debug!(region, why, "a region of purges cannot be emptied now");
                false
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(region, error, "a region of purges could not be emptied");
                false
            }
        }
    }

    async fn purge_region_to_empty(&self) -> Option<(u32, RegionState)> {
        let regions = &self.store.shared.catalog.regions;
        let oldest = regions.oldest_generation().unwrap_or_default();
        let now = self.store.shared.clock.now();
        let tombstones_max = self.store.shared.layout.region_size / NEEDED_SHARE / TOMBSTONE_SPACE;
        let in_memory_max = self.store.shared.catalog.limit.footer / TOMBSTONE_LEN as u64;
        let tombstones_max = usize::try_from(tombstones_max.min(in_memory_max)).unwrap_or(0);
        let mut waiting: Vec<u32> = regions.ranked(|ranking| ranking.purges().collect());
        waiting.retain(|region| {
            let row = regions.on_device(*region);
            matches!(row.state(), RegionState::Sealed | RegionState::Unreadable)
                && !row.is_set_aside(now)
        });
        waiting.sort_unstable_by_key(|region| {
            let row = regions.on_device(*region);
            (!row.is_condemned(), row.generation())
        });
        for region in waiting {
            let row = regions.on_device(region);
            if regions.is_oldest(region) || row.is_condemned() {
                return Some((region, row.state()));
            }
            if row.state() == RegionState::Unreadable || oldest < row.spared_until() {
                continue;
            }
            match self.read_purges(region, tombstones_max + 1).await {
                Some(mut tombstones) => {
                    let spared_until = spared_until(&mut tombstones, tombstones_max);
                    if spared_until <= oldest {
                        return Some((region, RegionState::Sealed));
                    }
                    row.spare_until(spared_until);
                }
                // It waits until it can be read, or is the oldest and may go unread.
                None => row.set_aside(now.plus(pause(row.failures()))),
            }
        }
        None
    }

    /// The newest `count` tombstones in a region of purges, or some more, if all of it can be read.
    async fn read_purges(&self, region: u32, count: usize) -> Option<Vec<Tombstone>> {
        let generation = self.store.shared.catalog.regions.on_device(region).generation();
        let read = self.store.read_contents(region, generation, Effort::Little).await;
        let mut contents = read.ok()?;
        let mut tombstones = Vec::new();
        while let Some(piece) = contents.next().await {
            tombstones.extend_from_slice(&piece.tombstones);
            // Each as two: a purge record takes no more room than two tombstones.
            let records = piece.purge_records.iter().flat_map(|record| [record.sequence; 2]);
            tombstones.extend(records.map(|sequence| Tombstone { key_hash: 0, sequence }));
            if tombstones.len() > 2 * count {
                let older = tombstones.len() - count;
                tombstones.select_nth_unstable_by_key(older, |tombstone| tombstone.sequence);
                tombstones.drain(..older);
            }
        }
        matches!(contents.end(), Ok(None)).then_some(tombstones)
    }
}

/// How old the oldest entries may be at most, by the generation of their region, for no more than
/// `count` of the tombstones to be needed.
fn spared_until(tombstones: &mut [Tombstone], count: usize) -> Sequence {
    let Some(last) = tombstones.len().checked_sub(count + 1) else { return Sequence(0) };
    let (_, tombstone, _) =
        tombstones.select_nth_unstable_by_key(last, |tombstone| tombstone.sequence);
    tombstone.sequence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_spared_until_few_of_its_tombstones_are_needed() {
        let all = [30, 10, 50, 20, 40].map(|n| Tombstone { key_hash: n, sequence: Sequence(n) });
        for count in 0..6 {
            let until = spared_until(&mut all.clone(), count);
            for oldest in (0..60).map(Sequence) {
                let needed = all.iter().filter(|tombstone| tombstone.sequence > oldest).count();
                assert_eq!(needed <= count, until <= oldest, "{count} of those after {oldest:?}");
            }
        }
    }
}
