//! Damaged entries. Owns that each leaves the index with a tombstone, in case it can be read again
//! later.

use crate::store::counters::count;
use crate::store::entries::Candidate;
use crate::store::log::removals::OwedTombstone;
use crate::store::shared::Store;
use crate::store::transaction::Transaction;

impl Store {
    /// Removes the index entry of a damaged entry, with a tombstone in case it can be read again later.
    /// True if this call removed it.
    pub(super) fn drop_damaged(&self, key_hash: u64, candidate: Candidate) -> bool {
        if candidate.place().is_in_ram() {
            self.forget(key_hash, candidate.place());
            return false;
        }
        count(&self.shared.counters.damaged);
        let place = candidate.place();
        let mut transaction = Transaction::begin(self);
        if self.shared.is_stopping() {
            // The index and its snapshot must agree with the region table.
            return false;
        }
        let removed = transaction.change(
            key_hash,
            |_| self.is_present(place),
            |bucket, log| {
                bucket.remove(place.location())?;
                // It may be another key's entry, which then has no tombstone of its own.
                log.note_unindexed(place.region(&self.shared.layout));
                // A lookup begins no epoch: the tombstone waits for the first change.
                Some(log.draw_tombstone(key_hash))
            },
        );
        let tombstone = removed.flatten();
        match tombstone {
            Some(tombstone) => {
                transaction.record(OwedTombstone { tombstone, for_purge: false });
            }
            None => transaction.finish(),
        }
        self.shared.catalog.resident.remove(place);
        tombstone.is_some()
    }
}
