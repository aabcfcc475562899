//! Empties and frees one region. Owns the order: first its tombstones and entries become durable
//! elsewhere, then the region is freed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::device::{AlignedBuf, DeviceError, WriteSlice};
use crate::format::{Footer, FooterRecord, Kind, LogKind, RegionHeader, RegionUse, Tombstone};
use crate::planted::{self, Bug};
use crate::store::counters::{add, count};
use crate::store::log::appender::Appender;
use crate::store::log::slot::TOMBSTONES_PER_SLOT_MAX;
use crate::store::mutation::request::StoreError;
use crate::store::place::Place;
use crate::store::reclaim::prolonged::End;
use crate::store::reclaim::purge_records::no_room;
use crate::store::reclaim::reclaimer::Reclaimer;
use crate::store::reclaim::reinsert::{Moved, Reason};
use crate::store::reclaim::victim::{BATCH, Victim};
use crate::store::recovery::work::Recovery;
use crate::store::region::contents::ContentsReader;
use crate::store::region::ranking::MOSTLY_DEAD;
use crate::store::region::reader::Effort;
use crate::store::region::state::RegionState;
use crate::store::transaction::Transaction;

/// Whether a region was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Freed {
    Yes,
    /// It had ended by its footer, but live heads name slices in it: it stays, and ends with them.
    Prolonged,
}

impl Reclaimer {
    /// Empties and frees a region in `state`; sets that state again if it stays.
    pub(in crate::store) async fn try_to_free(
        &self,
        victim: Victim,
        state: RegionState,
    ) -> Result<Freed, StoreError> {
        let region = victim.region;
        let row = self.store.shared.catalog.regions.on_device(region);
        if !row.change_state(state, RegionState::Reclaiming) {
            // It is being read again right now.
            return Ok(Freed::Yes);
        }
        let generation = row.generation();
        let freed = if state == RegionState::Unreadable {
            self.store.shared.log.lock().begin_freeing();
            self.free(region).await.map(|()| Freed::Yes)
        } else {
            self.reclaim(victim).await
        };
        if freed.as_ref().is_ok_and(|freed| *freed == Freed::Prolonged) {
            row.set_state(state);
            return freed;
        }
        if let Err(error) = &freed {
            if row.generation() != generation {
                // On the device it keeps its generation: tombstones for it are still needed.
                self.store.shared.catalog.regions.begin_generation(region, generation, state);
            }
            row.set_state(state);
            if is_of_device(error) {
                row.set_aside(self.store.shared.clock.now().plus(pause(row.failures())));
            }
        }
        self.store.shared.log.lock().end_freeing(region, freed.is_ok());
        match &freed {
            Ok(_) => self.store.note_success(),
            Err(StoreError::Device(error)) if error.operation != "read" => {
                self.store.note_failure(error);
                // The flusher does not know of the failure yet, and is the one to try the device again.
                self.store.shared.signals.wake_flusher.notify_one();
            }
            Err(_) => {}
        }
        freed
    }

    pub(in crate::store) async fn reclaim(&self, victim: Victim) -> Result<Freed, StoreError> {
        let Victim { region, .. } = victim;
        let shared = &*self.store.shared;
        let row = shared.catalog.regions.on_device(region);
        let mut contents = self.contents_to_empty(region).await?;
        // Before anything is carried: it would be again with each attempt.
        let is_over = match self.end_of(region, &mut contents).await {
            End::Later => return Ok(Freed::Prolonged),
            End::Ahead => false,
            End::Passed => true,
        };
        self.check_read(region, contents.end())?;
        contents.restart();
        let (mut carried, mut tombstones) = (false, 0);
        // First: without room for the tombstones the region stays, and its entries are served.
        while let Some(piece) = contents.next().await {
            // Nobody looked for the older versions of what could not be read at the start.
            if row.is_unread() {
                self.store.take_late_purges(&piece.purge_records);
                let recovery = Recovery::new(self.store.clone());
                if !recovery.take_out_older_versions(piece).await {
                    return Err(StoreError::Busy("an older version of an entry may be left"));
                }
            }
            let of_piece: Vec<Tombstone> = piece.all_tombstones().collect();
            tombstones += (of_piece.len() + piece.purge_records.len()) as u64;
            carried |= self.carry_tombstones(region, &of_piece)?;
            carried |= self.carry_purge_records(region, &piece.purge_records)?;
        }
        self.check_read(region, contents.end())?;
        contents.restart();
        if !row.holds_purges() {
            shared.log.lock().begin_freeing();
        }
        if tombstones < row.tombstones() && !shared.catalog.regions.is_oldest(region) {
            // Damage took some tombstones: older versions may turn up after the next start.
            shared.log.lock().note_all_unindexed();
        }
        let moved = self.empty((victim, is_over), contents).await;
        // Everything moved must be durable before the region is gone.
        if carried || moved {
            let ticket = shared.log.lock().appended();
            self.store.flush_through(ticket).await?;
        }
        while row.is_pinned() {
            shared.signals.unpinned.notified().await;
        }
        self.free(region).await.map(|()| Freed::Yes)
    }

    /// Re-inserts the entries of a region that are worth it, and evicts the others; true if any was
    /// re-inserted.
    pub(in crate::store) async fn empty(
        &self,
        (victim, is_over): (Victim, bool),
        mut contents: ContentsReader<'_>,
    ) -> bool {
        let mut moved = false;
        let row = self.store.shared.catalog.regions.on_device(victim.region);
        let keep_all =
            row.is_moved_whole() || row.live() < self.store.shared.layout.region_size / MOSTLY_DEAD;
        while let Some(piece) = contents.next().await {
            moved |= self.empty_piece((victim, keep_all, is_over), piece).await;
        }
        self.sweep_if_left(victim.region).await;
        self.store.shared.large.claims.lock().emptied(victim.region);
        moved
    }

    async fn empty_piece(
        &self,
        (victim, keep_all, is_over): (Victim, bool, bool),
        piece: &Footer,
    ) -> bool {
        let Victim { region, .. } = victim;
        let shared = &*self.store.shared;
        let row = shared.catalog.regions.on_device(region);
        let generation = shared.catalog.regions.generation_of(region);
        // A region that could not be read at the start may hold a newer version of an entry, or its
        // tombstone: re-inserted with a new sequence, the entry would hide those for good.
        let is_doubtful = shared.catalog.regions.unread_count() > 0
            && generation.sequence().epoch() <= shared.recovery.opened_epoch;
        let is_purged = generation.sequence() < shared.purge_floor();
        let has_ended = row.keep_until() <= shared.clock.now();
        let has_claims = row.claimed() > 0;
        let reason = if row.is_moved_whole() { Reason::Interrupted } else { Reason::Worth };
        let mut moved = false;
        // Smallest first: so the credit for re-insertion keeps the most entries.
        let mut records: Vec<&FooterRecord> = piece.records.iter().collect();
        records.sort_unstable_by_key(|record| (record.slot_len, record.offset));
        for (n, record) in records.into_iter().enumerate() {
            if n % BATCH == BATCH - 1 {
                // A region may hold a million entries, and this thread may run the flusher too.
                tokio::task::yield_now().await;
            }
            let place = generation.place(record.offset, &shared.layout);
            let Some(index_entry) = shared.catalog.lock(record.key_hash).get(place.location())
            else {
                continue;
            };
            // A slice ends with the head of its object.
            let has_ended = if record.kind == Kind::Slice { is_over } else { has_ended };
            let all_dead = is_purged || has_ended;
            // With a new sequence, an entry of unknown age would seem to be of this start.
            let may_stay = !all_dead && self.store.knows_age(row.generation());
            let worth = may_stay && (keep_all || index_entry.is_hit());
            if worth && is_doubtful {
                count(&shared.counters.doubtful_evicted);
            }
            let is_claimed = has_claims && matches!(record.kind, Kind::Slice | Kind::Head);
            // If an object loses a slice or its head here, the rest of it is worthless.
            let worth = worth && !is_doubtful && (!is_claimed || victim.just_stored_stays);
            let claimed = Reason::Claimed { just_stored: victim.just_stored_stays };
            let is_moved = is_claimed && self.move_on(record, place, claimed).await
                || worth
                    && match reason {
                        Reason::Interrupted => self.move_on(record, place, reason).await,
                        _ => self.reinsert(record, index_entry, place, reason).await == Moved::Yes,
                    };
            if is_moved {
                moved = true;
            } else if self.evict(record.key_hash, place) && all_dead {
                count(&shared.counters.evicted_ended);
            }
        }
        moved
    }

    /// Reads what a victim holds: nothing if it cannot be read and may go unread.
    async fn contents_to_empty(&self, region: u32) -> Result<ContentsReader<'_>, StoreError> {
        let generation = self.store.shared.catalog.regions.on_device(region).generation();
        match self.store.read_contents(region, generation, Effort::Little).await {
            Ok(contents) => Ok(contents),
            Err(error) => {
                self.check_read(region, Err(error))?;
                Ok(ContentsReader::nothing())
            }
        }
    }

    /// Whether a victim may be emptied, by how it was read. Unless all other regions are newer, all of it
    /// must be readable: a lost tombstone would bring back entries in them.
    fn check_read(
        &self,
        region: u32,
        end: Result<Option<DeviceError>, DeviceError>,
    ) -> Result<(), StoreError> {
        let is_oldest = self.store.shared.catalog.regions.is_oldest(region);
        match end {
            Ok(Some(error)) | Err(error) if !is_oldest => Err(error.into()),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(region, error, "the oldest region is freed unread");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// True if the entry still had an index entry.
    pub(in crate::store) fn evict(&self, key_hash: u64, place: Place) -> bool {
        let mut bucket = self.store.shared.catalog.lock(key_hash);
        let was_indexed = bucket.remove(place.location()).is_some();
        if was_indexed {
            count(&self.store.shared.counters.evicted);
        }
        drop(bucket);
        self.store.shared.catalog.resident.remove(place);
        was_indexed
    }

    /// Removes index entries that point to slots that a damaged region no longer names. Searches the
    /// whole index, a few shards at a time. No new ones come: only an append adds an index entry, and
    /// nothing is appended to this region.
    pub(in crate::store) async fn sweep_if_left(&self, region: u32) {
        let shared = &*self.store.shared;
        let row = shared.catalog.regions.on_device(region);
        for shard in 0..shared.catalog.index.shard_count() {
            if row.live() == 0 {
                return;
            }
            let swept = shared.catalog.sweep_shard(shard, region);
            add(&shared.counters.evicted, swept as u64);
            if shard % SWEEP_SHARDS == SWEEP_SHARDS - 1 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(row.live(), 0, "no index entry points into a region that is freed");
    }

    /// Copies the tombstones that may still be needed to the open region; true if there were any.
    pub(in crate::store) fn carry_tombstones(
        &self,
        region: u32,
        tombstones: &[Tombstone],
    ) -> Result<bool, StoreError> {
        let oldest = self.store.shared.catalog.regions.oldest_generation_but(region);
        let oldest = oldest.filter(|_| !planted::is(Bug::DropTombstones));
        let needed: Vec<Tombstone> = tombstones
            .iter()
            .filter(|tombstone| oldest.is_some_and(|oldest| tombstone.sequence > oldest))
            .copied()
            .collect();
        let in_purges = self.store.shared.catalog.regions.on_device(region).holds_purges();
        for batch in needed.chunks(TOMBSTONES_PER_SLOT_MAX) {
            let now = self.store.shared.clock.now();
            let mut transaction = Transaction::begin(&self.store);
            let log = transaction.log();
            if in_purges {
                // Each log keeps its own: the two copies must not meet in one region.
                log.reserve_purges((batch.len(), 0), Appender::Reclaim, now).map_err(no_room)?;
                log.append_purges(batch, &[]);
            } else {
                let at = log.reserve_tombstones(batch.len(), Appender::Reclaim, now);
                log.fill_tombstones(at.map_err(no_room)?, batch, now);
            }
            transaction.finish();
        }
        add(&self.store.shared.counters.tombstones_carried, needed.len() as u64);
        Ok(!needed.is_empty())
    }

    /// Frees a region to which no index entry points; durably, so that nothing in it comes back.
    pub(in crate::store) async fn free(&self, region: u32) -> Result<(), StoreError> {
        let shared = &*self.store.shared;
        let generation = shared.log.lock().draw();
        let row = shared.catalog.regions.on_device(region);
        // First in memory: readers with an old index entry look the key up again.
        shared.catalog.regions.begin_generation(region, generation, RegionState::Reclaiming);
        let header = RegionHeader {
            generation,
            region_use: RegionUse::Free,
            stamp: shared.clock.now(),
            touched: false,
            log: LogKind::Data,
        };
        let start = shared.layout.region_offset(region);
        let (block, begun) = {
            let mut log = shared.log.lock();
            (log.region_header_block(region, &header), log.note_modified())
        };
        shared.device.write(start, vec![block]).await?;
        // Erases the trailer too, so that one damaged block cannot bring the region back.
        let alignment = shared.layout.alignment;
        let align = shared.device.geometry().memory_alignment.max(alignment);
        let blank = AlignedBuf::zeroed(alignment as usize, align as usize);
        let end = start + shared.layout.region_size - u64::from(alignment);
        shared.device.write(end, vec![WriteSlice::whole(Arc::new(blank))]).await?;
        // The flusher does it: if a flush here failed, earlier writes of the flusher might be lost, and
        // its own next flush would not fail.
        let ticket = shared.log.lock().note_modified();
        self.store.flush_through(ticket).await?;
        if shared.durability.failed.load(Ordering::Acquire) >= begun {
            // A flush between the two writes failed, and may have lost the first.
            return Err(StoreError::NotDurable);
        }
        row.forget_failures();
        shared.catalog.regions.note_read(region);
        let is_waited_for = {
            let mut log = shared.log.lock();
            log.add_free(region);
            log.removals_waiting() > 0 || log.is_epoch_held_up()
        };
        if is_waited_for {
            shared.signals.wake_flusher.notify_one();
        }
        count(&shared.counters.regions_freed);
        self.forget_purges().await;
        shared.signals.changes.notify_waiters();
        Ok(())
    }

    pub(in crate::store) fn is_set_aside(&self, region: u32) -> bool {
        self.store
            .shared
            .catalog
            .regions
            .on_device(region)
            .is_set_aside(self.store.shared.clock.now())
    }
}

/// Shards of the index swept before yielding: well below a millisecond with 50 million entries.
pub(in crate::store) const SWEEP_SHARDS: usize = 16;

/// First and longest time for which a region is left alone after a failure. It may hold entries that
/// the index lacks: until it is free, every change leaves a tombstone.
pub(in crate::store) const SET_ASIDE: [Duration; 2] =
    [Duration::from_secs(60), Duration::from_secs(3600)];

/// Whether reclaim failed because the region could not be read: then nothing in it was lost.
pub(in crate::store) fn is_unreadable(error: &StoreError) -> bool {
    matches!(error, StoreError::Device(error) if error.operation == "read")
}

/// Whether the device is to blame. A mere lack of room leaves the region as good as before.
pub(in crate::store) fn is_of_device(error: &StoreError) -> bool {
    matches!(error, StoreError::Device(_) | StoreError::NotDurable)
}

/// How long to leave a region alone after this many earlier failures.
pub(in crate::store) fn pause(failures: u32) -> Duration {
    SET_ASIDE[0].saturating_mul(1 << failures.min(16)).min(SET_ASIDE[1])
}
