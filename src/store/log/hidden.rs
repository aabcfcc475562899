//! Older versions that may lie where the index does not know of them. Owns when a change has to leave a
//! tombstone although nothing of its key is known.

use crate::store::log::core::Log;
use crate::store::log::removals::Removal;
use crate::store::place::Life;

impl Log {
    /// Whether older versions may be on the device of keys that the index does not have:
    /// recovery is still going on, a region is being freed, or one may hold entries that the index
    /// does not have, or the tombstone of this very key is not written yet. Changes then count as
    /// tombstones whether the key matched or not.
    pub fn may_hide_older(&self, key_hash: u64) -> bool {
        self.lacks_words() || self.removals.of(key_hash) == Removal::Waiting
    }

    /// Entries of a region will be dropped from the index before it is durably free.
    pub fn begin_freeing(&mut self) {
        self.freeing = true;
    }

    /// Whether the index may lack entries of a region that is not durably free yet.
    pub fn is_freeing(&self) -> bool {
        self.freeing
    }

    /// The region is durably free, or what it holds will come back with a restart.
    pub fn end_freeing(&mut self, region: u32, freed: bool) {
        if self.freeing && !freed {
            self.regions.note_unindexed(region);
        }
        self.freeing = false;
    }

    /// A region may hold entries that have no index word although their deaths are not on record.
    pub fn note_unindexed(&mut self, region: u32) {
        self.regions.note_unindexed(region);
    }

    /// As [`Log::note_unindexed`], of a life that may have ended meanwhile.
    pub fn note_unindexed_in(&mut self, life: Life) {
        self.regions.note_unindexed_in(life);
    }

    /// Tombstones were lost, or may not be durable although an earlier life wrote them: what they
    /// hid, in whatever region, may turn up after the next start.
    pub fn note_all_unindexed(&mut self) {
        self.regions.note_all_unindexed();
    }
}
