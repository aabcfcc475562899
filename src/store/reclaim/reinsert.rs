//! Re-inserts an entry that outlives its region. Owns the checks, under the locks of its publication,
//! that the entry did not change since it was read.

use crate::format::{FooterRecord, Kind, Records};
use crate::planted::{self, Bug};
use crate::store::catalog::Bucket;
use crate::store::counters::{add, count};
use crate::store::entries::{Candidate, Tier};
use crate::store::entry::Entry;
use crate::store::index::index_entry::IndexEntry;
use crate::store::large::claims::Claim;
use crate::store::large::heads::HeadState;
use crate::store::log::appender::{Appender, NoRoom};
use crate::store::log::core::Log;
use crate::store::log::slot::Slot;
use crate::store::lookup::load::{Extent, Loaded};
use crate::store::mutation::request::Lifetime;
use crate::store::mutation::room::Patience;
use crate::store::place::Place;
use crate::store::purges::Verdict;
use crate::store::reclaim::prolonged::PAUSE;
use crate::store::reclaim::reclaimer::Reclaimer;
use crate::store::transaction::Transaction;

/// Attempts to move an entry that is being changed.
const MOVES_MAX: usize = 64;

/// Why an entry is re-inserted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Reason {
    /// It was hit, or little else is alive: allowed within reclaim's credit.
    Worth,
    /// It is left of a region that was being emptied when the last process ended.
    Interrupted,
    /// It is a claimed slice or head.
    Claimed {
        /// Also if its object was just stored, not only while it is being stored.
        just_stored: bool,
    },
}

/// Result of a re-insertion.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Moved {
    Yes,
    No,
    /// It changed meanwhile.
    Changed,
    /// There is no room for it now.
    NoRoom(NoRoom),
}

impl Reclaimer {
    /// Moves an entry for a reason other than its worth, however often it changes meanwhile; false if the reason
    /// does not hold, or it cannot be moved.
    pub(in crate::store) async fn move_on(
        &self,
        record: &FooterRecord,
        place: Place,
        reason: Reason,
    ) -> bool {
        let row =
            self.store.shared.catalog.regions.on_device(place.region(&self.store.shared.layout));
        let mut patience = Patience::default();
        for _ in 0..MOVES_MAX {
            while row.is_pinned() {
                self.store.shared.signals.unpinned.notified().await;
            }
            let Some(index_entry) =
                self.store.shared.catalog.lock(record.key_hash).get(place.location())
            else {
                return false;
            };
            match self.reinsert(record, index_entry, place, reason).await {
                Moved::Yes => return true,
                Moved::NoRoom(why @ NoRoom::Epoch) => {
                    if self.store.wait_for_room(why, &mut patience).await.is_err() {
                        return false;
                    }
                }
                Moved::No | Moved::NoRoom(_) => return false,
                Moved::Changed => {}
            }
        }
        false
    }

    /// Whether an entry belongs to an object that lost a slice or its head.
    fn is_of_broken(&self, entry: &Entry) -> bool {
        let object = entry.large_object();
        object.is_some_and(|object| self.store.shared.large.claims.lock().is_broken(object))
    }

    /// Whether a slice or head is claimed.
    fn is_claimed(&self, entry: &Entry, just_stored: bool) -> bool {
        let Some(object) = entry.large_object() else { return false };
        match self.store.shared.large.claims.lock().claim(object) {
            // The object may expire before it is whole; that is for its store to find out.
            // Slices that are held stay after a purge of everything too: somebody may follow their store.
            Some(Claim::UnderWay) => {
                let is_followed =
                    entry.kind() == Kind::Slice && self.store.shared.large.is_held(object);
                (is_followed || entry.sequence() >= self.store.shared.purge_floor())
                    && !planted::is(Bug::EvictStoresUnderWay)
            }
            Some(Claim::JustStored) => just_stored && self.store.is_live(entry),
            None => false,
        }
    }

    /// A slice that has ended by its own lifetime gets the end of its object's head; a later one than now where
    /// that is not known, as of an object that is read at the moment.
    async fn with_end_of_head(&self, entry: Entry) -> Entry {
        let (lifetime, clock) = (entry.lifetime(), &self.store.shared.clock);
        let asks = entry.kind() == Kind::Slice && lifetime.keep_until <= clock.now();
        if !asks || planted::is(Bug::ReclaimUnderHeads) {
            return entry;
        }
        let keep_until = match self.store.head_of(&entry).await {
            HeadState::Live(keep_until) => keep_until,
            HeadState::Unknown => clock.after(PAUSE),
            HeadState::Dead => return entry,
        };
        entry.with_lifetime(Lifetime { keep_until, ..lifetime })
    }

    /// Writes an entry to the open region.
    pub(in crate::store) async fn reinsert(
        &self,
        record: &FooterRecord,
        index_entry: IndexEntry,
        place: Place,
        reason: Reason,
    ) -> Moved {
        let shared = &*self.store.shared;
        if reason == Reason::Worth && record.slot_len > shared.log.lock().reinsert_credit() {
            return Moved::No;
        }
        let row = shared.catalog.regions.on_device(place.region(&shared.layout));
        let candidate = Candidate::at(place, index_entry.class());
        let touches = row.touches();
        let Loaded::Entry(entry, tier) = self.store.peek(candidate, Extent::Whole).await else {
            return Moved::No;
        };
        let entry = self.with_end_of_head(entry).await;
        let parts = (entry.metadata(), entry.body());
        let slot = Slot::new(entry.kind(), entry.key(), parts, entry.lifetime());
        let verdict = self.store.verdict(&entry);
        // With its new sequence no record of a purge will cover it.
        let is_stale = verdict == Verdict::Stale && !planted::is(Bug::ReviveByReinsertion);
        let slot = slot.with_records(&Records { is_stale, ..entry.kept_records() });
        let transaction = Transaction::begin(&self.store);
        // Under the append lock purges are made.
        if self.store.verdict(&entry) != verdict {
            return Moved::Changed;
        }
        // Under the same lock a purge of everything sets its floor.
        let wanted = match reason {
            Reason::Worth | Reason::Interrupted => {
                self.store.is_live(&entry) && !self.is_of_broken(&entry)
            }
            Reason::Claimed { just_stored } => self.is_claimed(&entry, just_stored),
        };
        if !wanted {
            return Moved::No;
        }
        // A change killed the entry unseen: re-inserted, it would be newer than that change.
        if self.store.is_dead_unseen(record.key_hash, &entry) {
            return Moved::No;
        }
        let of_key = (&slot, record.key_hash);
        let reserved = match transaction.reserve(of_key, Appender::Reclaim) {
            Ok(reserved) => reserved,
            Err(why) => return Moved::NoRoom(why),
        };
        let is_as_read = |bucket: &Bucket<'_>| {
            let changed =
                !bucket.contains(place.location()) || row.is_pinned() || row.touches() != touches;
            !changed || planted::is(Bug::ReinsertUnchecked)
        };
        let pointed = reserved.point(is_as_read, |_, bucket, _| {
            bucket.remove(place.location());
        });
        let Some(pointed) = pointed else { return Moved::Changed };
        let written = pointed.append(record.supersedes, |log, to| {
            self.note_moved(log, &slot, (place, to), reason);
        });
        shared.catalog.resident.remove(place);
        if tier == Tier::Ram {
            self.store.keep_stored(&slot, &written);
        }
        Moved::Yes
    }

    fn note_moved(&self, log: &mut Log, slot: &Slot<'_>, (from, to): (Place, u32), reason: Reason) {
        let counters = &self.store.shared.counters;
        match reason {
            Reason::Worth | Reason::Interrupted => {
                log.spend_reinsert(slot.len());
                count(&counters.reinserted);
                add(&counters.reinserted_bytes, slot.len());
            }
            Reason::Claimed { .. } => add(&counters.large_moved_bytes, slot.len()),
        }
        let of_slice = slot.slice_key().map(|key| key.object);
        if let Some(object) = of_slice.or(slot.object_head().map(|head| head.object)) {
            let from = from.region(&self.store.shared.layout);
            self.store.shared.large.claims.lock().moved(object, (from, to), slot.len());
        }
    }
}
