//! Which region of the log of purges is emptied, and when: each group commit takes at least a block, so
//! these regions fill with little in them. Owns the choice; `reclaim` empties them like others.

use super::Store;
use super::regions::RegionState;
use super::victim::Victim;
use crate::format::KILL_LEN;

/// A region is emptied out of need if what must be carried on fits into one part in this many of another,
/// footer included.
const NEEDED_SHARE: u64 = 4;
/// Bytes that a tombstone takes, in a slot and in the footer.
const KILL_SPACE: u64 = 2 * KILL_LEN as u64;

impl Store {
    /// Empties a region of the log of purges where that gives room; true if one was. When no region
    /// can take what must be carried on, others are to be emptied first.
    pub(super) async fn empty_purge_region(&self) -> bool {
        let Some((region, state)) = self.purge_region_to_empty().await else { return false };
        match self.try_to_free(Victim::whole(region), state).await {
            Ok(()) => true,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(region, error, "a region of purges could not be emptied");
                false
            }
        }
    }

    async fn purge_region_to_empty(&self) -> Option<(u32, RegionState)> {
        let regions = &self.shared.regions;
        let oldest = regions.oldest_generation().unwrap_or_default();
        let now = self.shared.clock.now();
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
            if row.state() == RegionState::Unreadable || row.is_spared_at(oldest) {
                continue;
            }
            let needed = match self.read_contents(region, row.generation()).await {
                Ok(contents) if contents.hole.is_none() => {
                    let kills = contents.footer.kills.iter();
                    kills.filter(|kill| kill.sequence > oldest).count() as u64
                }
                _ => u64::MAX,
            };
            if needed.saturating_mul(KILL_SPACE) <= self.shared.layout.region_size / NEEDED_SHARE {
                return Some((region, RegionState::Sealed));
            }
            row.spare_at(oldest);
        }
        None
    }
}
