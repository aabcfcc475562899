//! Entries that leave the index: damaged ones, and the tombstones of all that do. Owns that a tombstone is
//! written now or remembered.

use crate::store::counters::count;
use crate::store::entries::Candidate;
use crate::store::log::core::Log;
use crate::store::log::removals::Tombstone;
use crate::store::log::write::Ticket;
use crate::store::shared::Store;

impl Store {
    /// Drops the word of an entry whose bytes are damaged, with a tombstone in case they can
    /// be read again later. True if the word is gone by this.
    pub(super) fn drop_damaged(&self, key_hash: u64, candidate: Candidate) -> bool {
        if self.is_in_ram_only(candidate.place()) {
            self.forget(key_hash, candidate.place());
            return false;
        }
        count(&self.shared.counters.damaged);
        let mut log = self.shared.log.lock();
        if self.shared.is_stopping() {
            // The index and its snapshot must agree with the region table.
            return false;
        }
        let mut bucket = self.shared.catalog.lock(key_hash);
        let same = self.is_present(candidate.place());
        let removed = same.then(|| bucket.remove(candidate.location())).flatten();
        drop(bucket);
        if removed.is_some() {
            // It may be another key's, which then has no tombstone of its own.
            log.note_unindexed(candidate.place().region(&self.shared.layout));
            // A lookup alone begins no epoch: the record waits for the first change.
            let kill = log.draw_tombstone(key_hash);
            self.record_removal(&mut log, Tombstone { kill, asked: false });
        }
        self.release(log);
        self.shared.catalog.resident.remove(candidate.place());
        removed.is_some()
    }

    /// Appends the tombstone of a key that was just taken out of the index; where that cannot be now,
    /// the flusher does as soon as it can. A device that refuses writes is tried by the flusher only:
    /// each failed attempt costs regions.
    pub(super) fn record_removal(&self, log: &mut Log, tombstone: Tombstone) -> TakenOut {
        let now = self.shared.clock.now();
        if !self.shared.durability.health.is_refusing()
            && let Ok(ticket) = log.append_tombstone(tombstone, now)
        {
            return TakenOut::Logged(ticket);
        }
        let is_remembered = log.removal_waits(tombstone);
        TakenOut::Unrecorded { tombstone, is_remembered }
    }
}

/// How one attempt to take a key out of the index ended.
#[derive(Clone, Copy)]
pub(super) enum TakenOut {
    /// Its tombstone is in the log, durable with the ticket.
    Logged(Ticket),
    /// Its tombstone is not in the log. It is written as soon as that can be if it is remembered, else
    /// who wants it durable has to append it.
    Unrecorded { tombstone: Tombstone, is_remembered: bool },
    /// The words changed since they were verified.
    Changed,
}
