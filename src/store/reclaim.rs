//! Making room: empties a region and frees it, one region a call. Owns the order in which that
//! is done; which region it is, `victim` says.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Store;
use super::contents::{Contents, Effort};
use super::counters::{add, count};
use super::log::{Appender, KILLS_PER_SLOT_MAX, NoRoom};
use super::place::Place;
use super::ranking::MOSTLY_DEAD;
use super::read::{Extent, Loaded};
use super::regions::RegionState;
use super::reinsert::{Moved, Reason};
use super::request::StoreError;
use super::slot::Slot;
use super::victim::{BATCH, Hand, Victim};
use crate::device::{AlignedBuf, WriteSlice};
use crate::format::{
    Footer, FooterRecord, Kill, Kind, LogKind, RegionHeader, RegionUse, Sequence, SliceKey,
};
use crate::planted::{self, Bug};

/// Deaths of large objects whose slices wait to be dropped; beyond it they stay until their region is reclaimed.
const DISCARDS_MAX: usize = 1024;
/// Shards of the index swept without letting others run: well below a millisecond with 50 million words.
const SWEEP_SHARDS: usize = 16;

/// How long a region that could not be reclaimed is set aside, the first time and at most. It may
/// hold entries that the index has no more: until it is free every change leaves a kill record.
const SET_ASIDE: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(3600)];

/// Slices of an object that nobody can reach any more.
pub(super) struct Discard {
    object: Sequence,
    slice_count: u32,
}

impl Store {
    /// Keeps free regions ahead of the writers until the store is closed.
    pub(super) async fn run_reclaimer(self) {
        let mut hand = Hand::default();
        loop {
            self.shared.wake_reclaimer.notified().await;
            loop {
                if self.shared.is_stopping() {
                    return;
                }
                let reclaimed = match self.reclaim_one(&mut hand).await {
                    Ok(reclaimed) => reclaimed,
                    Err(error) => {
                        self.tell_failure(&error);
                        if !is_unreadable(&error) || !self.has_untried_region() {
                            tokio::time::sleep(super::RETRY_PAUSE).await;
                        }
                        true
                    }
                };
                if !reclaimed && !self.discard_one().await {
                    break;
                }
            }
        }
    }

    /// Says that a region could not be reclaimed, but not of each that a broken disk cannot read.
    fn tell_failure(&self, error: &StoreError) {
        let set_aside = self.set_aside_regions();
        let source = error as &dyn std::error::Error;
        if matches!(error, StoreError::ShuttingDown) {
            tracing::debug!(error = source, "reclaim ends with the store");
        } else if !is_of_device(error) {
            tracing::warn!(error = source, "a region cannot be emptied now: it stays as it is");
        } else if is_unreadable(error) && set_aside > 1 {
            tracing::debug!(error = source, set_aside, "another region cannot be read");
        } else {
            tracing::error!(error = source, set_aside, "reclaim failed: the region is set aside");
        }
    }

    /// Whether a region waits to be emptied of which it is not known that it cannot be.
    fn has_untried_region(&self) -> bool {
        let now = self.shared.clock.now();
        self.shared.regions.ranked(|ranking| ranking.has_untried(now))
    }

    /// Number of regions that could not be read or freed and are left alone: each is tried again after
    /// a while, more and more rarely.
    #[must_use]
    pub fn set_aside_regions(&self) -> u64 {
        self.shared.regions.ranked(|ranking| ranking.stuck()) as u64
    }

    /// Free regions that reclaim keeps ahead: a 32nd of the device, at least 2 and at most 64.
    pub(super) fn free_target(&self) -> usize {
        (self.shared.layout.region_count as usize / 32).clamp(2, 64)
    }

    async fn reclaim_one(&self, hand: &mut Hand) -> Result<bool, StoreError> {
        if !self.shared.is_recovered()
            // In vain it would drop what can still be read.
            || self.shared.health.is_refusing()
            || self.shared.log.lock().check_epoch(Appender::Reclaim).is_err()
            || (self.shared.log.lock().free_count() >= self.free_target() && !self.has_condemned())
        {
            return Ok(false);
        }
        if self.empty_purge_region().await {
            return Ok(true);
        }
        if self.free_dead().await || self.free_stuck_and_oldest().await {
            return Ok(true);
        }
        if self.is_full_of_tombstones()
            && let Some((region, state)) = self.oldest_if_stuck()
            && !self.is_set_aside(region)
            && self.is_freed(self.give_up(region, state).await)
        {
            return Ok(true);
        }
        let was_in_need = self.is_in_need();
        let Some(victim) = self.pick_victim(hand).await else { return Ok(false) };
        match self.try_to_free(victim, RegionState::Sealed).await {
            // The last free region went for it: the next victim is the one with the least to carry.
            Err(StoreError::Busy(_)) if self.is_in_need() && !was_in_need => {}
            Err(StoreError::Busy(why)) => self.make_room_otherwise(why).await?,
            freed => freed?,
        }
        Ok(true)
    }

    /// Whether no region is free.
    fn is_in_need(&self) -> bool {
        self.shared.log.lock().free_count() == 0
    }

    /// Whether a region is free. If not others may be emptied: what kept it is only told.
    fn is_freed(&self, freed: Result<(), StoreError>) -> bool {
        freed.inspect_err(|error| self.tell_failure(error)).is_ok()
    }

    /// There is no room for the tombstones of the region that is to go: one goes that has none, or else
    /// the one because of which they are needed.
    async fn make_room_otherwise(&self, why: &'static str) -> Result<(), StoreError> {
        if self.shared.log.lock().check_epoch(Appender::Reclaim).is_err() {
            // What sequences are wanted for can wait for the next epoch.
            return Err(StoreError::Busy(why));
        }
        if let Some(region) = self.oldest_without_tombstones() {
            let victim = Victim { region, just_stored_stays: false };
            return self.try_to_free(victim, RegionState::Sealed).await;
        }
        match self.oldest_if_stuck() {
            Some((region, state)) if self.is_in_need() => self.give_up(region, state).await,
            _ => Err(StoreError::Busy(why)),
        }
    }

    fn oldest_without_tombstones(&self) -> Option<u32> {
        let now = self.shared.clock.now();
        let rows = self.shared.regions.iter().filter(|(_, row)| {
            row.state() == RegionState::Sealed
                && !row.holds_purges()
                && row.kills() == 0
                && row.claimed() == 0
                && !row.is_set_aside(now)
        });
        rows.min_by_key(|(_, row)| row.generation()).map(|(region, _)| region)
    }

    /// Frees a region that could not be read and holds nothing that counts; true if one was.
    async fn free_dead(&self) -> bool {
        let mut dead = self.shared.regions.dead_unreadable();
        dead.retain(|region| !self.is_set_aside(*region));
        let Some(region) = dead.first().copied() else { return false };
        self.is_freed(self.try_to_free(Victim::whole(region), RegionState::Unreadable).await)
    }

    /// Frees the oldest region where it could not be read or freed so far; true if it was.
    async fn free_stuck_and_oldest(&self) -> bool {
        let Some((region, state)) = self.stuck_and_oldest() else { return false };
        let freed = self.try_to_free(Victim::whole(region), state).await;
        if let Err(error) = &freed
            && is_of_device(error)
            && !is_unreadable(error)
        {
            self.is_freed(self.bury(region).await);
        }
        self.is_freed(freed)
    }

    /// The oldest region can neither be emptied nor freed, and as long as what is in it may come back all
    /// tombstones are needed: makes it durably dead where it is.
    async fn bury(&self, region: u32) -> Result<(), StoreError> {
        let regions = &self.shared.regions;
        let floor = regions.oldest_generation_but(region);
        match floor.filter(|_| regions.is_oldest(region) && !regions.is_dead(region)) {
            Some(floor) => {
                tracing::warn!(
                    region,
                    "the oldest region cannot be freed: what is in it is dropped"
                );
                self.raise_purge_floor_to(floor).await
            }
            None => Ok(()),
        }
    }

    /// Makes everything with a sequence below `floor` dead, durably.
    async fn raise_purge_floor_to(&self, floor: Sequence) -> Result<(), StoreError> {
        let ticket = {
            let mut log = self.shared.log.lock();
            let (floor, ticket) = log.raise_purge_floor_to(floor, self.shared.clock.pair());
            self.shared.set_purge_floor(floor);
            ticket
        };
        self.flush_through(ticket).await
    }

    /// A region that could not be read or freed, if it is the oldest and may be tried. It makes every
    /// tombstone of the others necessary and hides nothing outside of itself, so it goes unread.
    fn stuck_and_oldest(&self) -> Option<(u32, RegionState)> {
        let (region, state) = self.oldest_if_stuck()?;
        let may_go = !self.is_set_aside(region) && self.shared.regions.is_oldest(region);
        may_go.then_some((region, state))
    }

    fn is_set_aside(&self, region: u32) -> bool {
        self.shared.regions.on_device(region).is_set_aside(self.shared.clock.now())
    }

    /// The oldest region and its state, if it could not be read or freed so far.
    fn oldest_if_stuck(&self) -> Option<(u32, RegionState)> {
        let region = self.shared.regions.oldest()?;
        let row = self.shared.regions.on_device(region);
        let state = row.state();
        let is_stuck = state == RegionState::Unreadable
            || (state == RegionState::Sealed && (row.failures() > 0 || row.is_unread()));
        is_stuck.then_some((region, state))
    }

    /// Whether tombstones, with their records in footers, take half of the device. What supersedes an
    /// entry counts too, but of that there is never so much.
    fn is_full_of_tombstones(&self) -> bool {
        let layout = &self.shared.layout;
        let kills = self.shared.regions.ranked(|ranking| ranking.kills());
        kills > u64::from(layout.region_count) * layout.region_size / 4
    }

    /// There is no room for more tombstones, and they are all needed because of a region that cannot
    /// be read: without that one the others can be emptied again.
    async fn give_up(&self, region: u32, state: RegionState) -> Result<(), StoreError> {
        if state == RegionState::Unreadable && self.read_again(region).await {
            return Ok(());
        }
        if !self.shared.regions.is_oldest(region) {
            // Without its header nobody knows how old it is, and what its tombstones hide.
            self.forget_earlier_starts(region).await?;
        }
        self.try_to_free(Victim::whole(region), state).await
    }

    /// Makes everything dead, durably, that was stored before this start: what `lost` holds, and
    /// whatever its tombstones hide.
    async fn forget_earlier_starts(&self, lost: u32) -> Result<(), StoreError> {
        let why =
            "no room but in a region that cannot be read: what earlier starts stored is dropped";
        tracing::error!(region = lost, "{why}");
        let floor = Sequence::first_of(self.shared.opened_epoch.saturating_add(1));
        self.raise_purge_floor_to(floor).await?;
        count(&self.shared.counters.starts_forgotten);
        Ok(())
    }

    /// Empties and frees a region in `state`, to which it goes back where that fails.
    pub(super) async fn try_to_free(
        &self,
        victim: Victim,
        state: RegionState,
    ) -> Result<(), StoreError> {
        let region = victim.region;
        let row = self.shared.regions.on_device(region);
        if !row.change_state(state, RegionState::Reclaiming) {
            // It is just being read again.
            return Ok(());
        }
        let generation = row.generation();
        let freed = if state == RegionState::Unreadable {
            self.shared.log.lock().begin_freeing();
            self.free(region).await
        } else {
            self.reclaim(victim).await
        };
        if let Err(error) = &freed {
            if row.generation() != generation {
                // On the device its life goes on: kill records for it are still needed.
                self.shared.regions.begin_life(region, generation, state);
            }
            row.set_state(state);
            if is_of_device(error) {
                row.set_aside(self.shared.clock.now().plus(pause(row.failures())));
            }
        }
        self.shared.log.lock().end_freeing(region, freed.is_ok());
        match &freed {
            Ok(()) => self.note_success(),
            Err(StoreError::Device(error)) if error.operation != "read" => {
                self.note_failure(error);
                // It tries the device again when that is due, and does not know of it yet.
                self.shared.wake_flusher.notify_one();
            }
            Err(_) => {}
        }
        freed
    }

    /// Whether a region waits to be emptied because it is damaged. One that cannot be emptied waits
    /// until it is its turn among the others.
    fn has_condemned(&self) -> bool {
        let now = self.shared.clock.now();
        self.shared.regions.ranked(|ranking| ranking.has_condemned(now))
    }

    async fn reclaim(&self, victim: Victim) -> Result<(), StoreError> {
        let Victim { region, .. } = victim;
        let shared = &*self.shared;
        let row = shared.regions.on_device(region);
        let contents = self.contents_to_empty(region).await?;
        let kills: Vec<Kill> = contents.footer.all_kills().collect();
        // First of all: without room for them the region stays as it is, and its entries are served.
        let carried = self.carry_kills(region, &kills)?;
        if !row.holds_purges() {
            shared.log.lock().begin_freeing();
        }
        if (kills.len() as u64) < row.kills() && !shared.regions.is_oldest(region) {
            // Damage took some with it: what they hid may turn up after the next start.
            shared.log.lock().note_all_unindexed();
        }
        let moved = self.empty(victim, &contents.footer).await;
        // What outlives the region must be durable before the region is gone.
        if carried || moved {
            let ticket = shared.log.lock().appended();
            self.flush_through(ticket).await?;
        }
        while row.is_pinned() {
            shared.unpinned.notified().await;
        }
        self.free(region).await
    }

    /// Writes the entries of a region again that outlive it, and takes the others out of the index;
    /// true if any was written.
    async fn empty(&self, victim: Victim, footer: &Footer) -> bool {
        let Victim { region, .. } = victim;
        let shared = &*self.shared;
        let row = shared.regions.on_device(region);
        let life = shared.regions.life(region);
        // What could not be read at the start may hold a newer version of an entry or its death: with
        // a new sequence the entry would prevail over them for good.
        let is_doubtful =
            shared.regions.unread_count() > 0 && life.generation().epoch() <= shared.opened_epoch;
        let all_dead =
            row.keep_until() <= shared.clock.now() || life.generation() < shared.purge_floor();
        let keep_all = row.live() < shared.layout.region_size / MOSTLY_DEAD;
        let has_claims = row.claimed() > 0;
        let mut moved = false;
        // The smallest first: so what may be re-inserted keeps the most entries.
        let mut records: Vec<&FooterRecord> = footer.records.iter().collect();
        records.sort_unstable_by_key(|record| (record.slot_len, record.offset));
        for (n, record) in records.into_iter().enumerate() {
            if n % BATCH == BATCH - 1 {
                // A region may hold a million entries, and the flusher may run in this thread.
                tokio::task::yield_now().await;
            }
            let place = life.place(record.offset, &shared.layout);
            let Some(word) = shared.index.lock(record.key_hash).get(place.location()) else {
                continue;
            };
            // With a new sequence an entry of unknown age would pass for one of this start.
            let may_stay = !all_dead && self.knows_age(row.generation());
            let worth = may_stay && (keep_all || word.is_hit());
            if worth && is_doubtful {
                count(&shared.counters.doubtful_evicted);
            }
            let is_claimed = has_claims && matches!(record.kind, Kind::Slice | Kind::Head);
            // Of an object that loses a slice or its head here nothing else is worth anything.
            let worth = worth && !is_doubtful && (!is_claimed || victim.just_stored_stays);
            if (is_claimed && self.move_claimed(record, place, victim.just_stored_stays).await)
                || (worth && self.reinsert(record, word, place, Reason::Worth).await == Moved::Yes)
            {
                moved = true;
            } else {
                self.evict(record.key_hash, place);
            }
        }
        self.sweep_if_left(region).await;
        shared.large.lock().emptied(region);
        moved
    }

    /// What a region holds that is to be emptied. Unless the others are all younger, all of it must be
    /// read: a tombstone that is lost with it would bring back what it hides in them.
    async fn contents_to_empty(&self, region: u32) -> Result<Contents, StoreError> {
        let generation = self.shared.regions.on_device(region).generation();
        let read = self.read_contents(region, generation, Effort::Little).await;
        let is_oldest = self.shared.regions.is_oldest(region);
        match read {
            Ok(Contents { hole: Some(error), .. }) if !is_oldest => Err(error.into()),
            Err(error) if is_oldest => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(region, error, "the oldest region is freed unread");
                Ok(Contents::default())
            }
            read => Ok(read?),
        }
    }

    fn evict(&self, key_hash: u64, place: Place) {
        let mut bucket = self.shared.index.lock(key_hash);
        if let Some(word) = bucket.remove(place.location()) {
            self.shared.uncount(word);
            count(&self.shared.counters.evicted);
        }
        drop(bucket);
        self.shared.resident.remove(place);
    }

    /// Words may point to slots that a damaged region no longer names: find them the long way, a few
    /// shards at a time, since the index may be large. No word into the region comes meanwhile:
    /// nothing is written to it, and only what is written gets a word.
    async fn sweep_if_left(&self, region: u32) {
        let shared = &*self.shared;
        let row = shared.regions.on_device(region);
        for shard in 0..shared.index.shard_count() {
            if row.live() == 0 {
                return;
            }
            shared.index.sweep_shard(shard, |word| {
                let here = word.location().split(&shared.layout).0 == region;
                if here {
                    shared.uncount(word);
                    count(&shared.counters.evicted);
                }
                here
            });
            if shard % SWEEP_SHARDS == SWEEP_SHARDS - 1 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(row.live(), 0, "no index word points into a region that is freed");
    }

    /// Copies the kill records whose victims may still be on the device to the open region; true
    /// if there were any.
    fn carry_kills(&self, region: u32, kills: &[Kill]) -> Result<bool, StoreError> {
        let oldest = self.shared.regions.oldest_generation_but(region);
        let oldest = oldest.filter(|_| !planted::is(Bug::DropKillRecords));
        let needed: Vec<Kill> = kills
            .iter()
            .filter(|kill| oldest.is_some_and(|oldest| kill.sequence > oldest))
            .copied()
            .collect();
        let in_purges = self.shared.regions.on_device(region).holds_purges();
        for batch in needed.chunks(KILLS_PER_SLOT_MAX) {
            if in_purges {
                // Never to the other log: the two copies must not meet in one region.
                let mut log = self.shared.log.lock();
                log.reserve_purges(batch.len(), Appender::Reclaim, self.shared.clock.now())
                    .map_err(no_room)?;
                log.append_purges(batch);
                self.release(log);
                continue;
            }
            let encoded = Slot::encode_kills(batch);
            let slot = Slot::of_kills(&encoded, self.shared.clock.now());
            let mut log = self.shared.log.lock();
            let at =
                log.reserve(&slot, Appender::Reclaim, self.shared.clock.now()).map_err(no_room)?;
            self.fill_kills(&mut log, at, batch);
        }
        add(&self.shared.counters.kills_carried, needed.len() as u64);
        Ok(!needed.is_empty())
    }

    /// Frees a region that nothing points into: durably, so that nothing in it comes back.
    async fn free(&self, region: u32) -> Result<(), StoreError> {
        let shared = &*self.shared;
        let generation = shared.log.lock().draw();
        let row = shared.regions.on_device(region);
        // The life ends in memory first: readers with an old word look the key up again.
        shared.regions.begin_life(region, generation, RegionState::Reclaiming);
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
        // The trailer goes too, so that one damaged block cannot bring the region back.
        let alignment = shared.layout.alignment;
        let align = shared.device.geometry().memory_alignment.max(alignment);
        let blank = AlignedBuf::zeroed(alignment as usize, align as usize);
        let end = start + shared.layout.region_size - u64::from(alignment);
        shared.device.write(end, vec![WriteSlice::whole(Arc::new(blank))]).await?;
        // By the flusher: were a flush of reclaim's own to fail, what the flusher wrote before it
        // would be lost too, and its next flush would not tell.
        let ticket = shared.log.lock().note_modified();
        self.flush_through(ticket).await?;
        if shared.failed.load(Ordering::Acquire) >= begun {
            // A flush between the two writes failed, and may have lost the first.
            return Err(StoreError::NotDurable);
        }
        row.forget_failures();
        shared.regions.note_read(region);
        let is_waited_for = {
            let mut log = shared.log.lock();
            log.add_free(region);
            log.removals_waiting() > 0 || log.is_epoch_held_up()
        };
        if is_waited_for {
            shared.wake_flusher.notify_one();
        }
        count(&shared.counters.regions_freed);
        shared.changes.notify_waiters();
        Ok(())
    }

    /// Queues the slices of a dead object to be dropped.
    pub(super) fn discard(&self, object: Sequence, slice_count: u32) {
        self.shared.large.lock().forget(object);
        let mut discards = self.shared.discards.lock();
        if discards.len() < DISCARDS_MAX {
            discards.push_back(Discard { object, slice_count });
        }
        drop(discards);
        self.shared.wake_reclaimer.notify_one();
    }

    async fn discard_one(&self) -> bool {
        let next = {
            let mut discards = self.shared.discards.lock();
            let idle = |discard: &Discard| !self.shared.readers.contains_key(&discard.object);
            discards.iter().position(idle).and_then(|n| discards.remove(n))
        };
        let Some(Discard { object, slice_count }) = next else { return false };
        for number in 0..slice_count {
            if (number as usize).is_multiple_of(BATCH) {
                // There may be millions of them, of which the index has none any more.
                tokio::task::yield_now().await;
            }
            let key = SliceKey { object, number }.encode();
            let key_hash = self.slice_hash(&key);
            for candidate in self.candidates(key_hash) {
                let extent = Extent::Key { key_len: SliceKey::LEN };
                if let Loaded::Entry(entry, _) = self.load(candidate, extent).await
                    && entry.kind() == Kind::Slice
                    && entry.key() == key
                {
                    self.forget(key_hash, entry.place());
                }
            }
        }
        true
    }
}

/// Whether a region could not be reclaimed because it could not be read, and nothing in it was lost by
/// the attempt.
fn is_unreadable(error: &StoreError) -> bool {
    matches!(error, StoreError::Device(error) if error.operation == "read")
}

/// Why kill records could not be carried on.
fn no_room(why: NoRoom) -> StoreError {
    match why {
        NoRoom::Epoch => StoreError::Busy("no sequences until the next epoch is durable"),
        _ => StoreError::Busy("no region for kill records"),
    }
}

/// Whether the device is to blame. What only has no room now is as good as before.
fn is_of_device(error: &StoreError) -> bool {
    matches!(error, StoreError::Device(_) | StoreError::NotDurable)
}

/// How long a region is set aside after so many failures before this one.
pub(super) fn pause(failures: u32) -> Duration {
    SET_ASIDE[0].saturating_mul(1 << failures.min(16)).min(SET_ASIDE[1])
}

#[cfg(test)]
mod tests;
