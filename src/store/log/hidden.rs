//! Older versions on the device that the index does not know of. Owns when a change must leave a
//! tombstone although it found no older version.

use crate::store::log::core::Log;
use crate::store::log::removals::Removal;
use crate::store::place::Generation;

impl Log {
    /// Whether the device may hold older versions of the key that the index does not have: recovery
    /// goes on, a region is being freed or may hold unindexed entries, or the tombstone of this key, or the
    /// record of a purge of many, is not written yet. Every change then leaves a tombstone.
    pub fn may_hide_older(&self, key_hash: u64) -> bool {
        self.lacks_entries() || self.removals.of(key_hash) == Removal::Waiting || self.owes_purges()
    }

    /// Whether the device lacks a record, or a floor, by which entries may be dead that have no index entry
    /// any more.
    pub fn owes_purges(&self) -> bool {
        self.owed_records.waiting_count() > 0 || !self.are_floors_durable()
    }

    /// Entries of a region will be dropped from the index before it is durably free.
    pub fn begin_freeing(&mut self) {
        self.freeing = true;
    }

    /// Whether the index may lack entries of a region that is not durably free yet.
    pub fn is_freeing(&self) -> bool {
        self.freeing
    }

    /// The region is durably free, or freeing failed and its entries come back with a restart.
    pub fn end_freeing(&mut self, region: u32, freed: bool) {
        if self.freeing && !freed {
            self.regions.note_unindexed(region);
        }
        self.freeing = false;
    }

    /// Notes that a region may hold entries that have neither an index entry nor a tombstone.
    pub fn note_unindexed(&mut self, region: u32) {
        self.regions.note_unindexed(region);
    }

    /// As [`Log::note_unindexed`], for a generation that may have ended meanwhile.
    pub fn note_unindexed_in(&mut self, generation: Generation) {
        self.regions.note_unindexed_in(generation);
    }

    /// Tombstones were lost, or may not be durable although an earlier run wrote them: older versions
    /// in any region may turn up after the next start.
    pub fn note_all_unindexed(&mut self) {
        self.regions.note_all_unindexed();
    }
}
