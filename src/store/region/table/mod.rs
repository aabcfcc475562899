//! The region table: all regions of the device, their generations and their order. Owns which
//! generation each region is in; never does I/O. A change only flags its region; regions are ranked
//! again when somebody asks for an order.

#[cfg(test)]
mod tests;

use crate::store::region::row::Region;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::format::{DeviceSeed, Layout, LogKind, Seed, Sequence, Uuid};
use crate::store::place::{DeviceNumber, Generation};
use crate::store::region::changes::Changes;
use crate::store::region::ranking::Ranking;
use crate::store::region::state::RegionState;

/// All regions of a device.
#[derive(Debug)]
pub struct RegionTable {
    device: DeviceNumber,
    /// Of the device.
    seed: DeviceSeed,
    regions: Box<[Region]>,
    changes: Arc<Changes>,
    /// A leaf lock.
    ranking: Mutex<Ranking>,
    /// Number of walks over all regions so far.
    walks: AtomicU64,
    /// Regions noted as unindexed.
    unindexed: AtomicUsize,
    /// Regions noted as unread.
    unread: AtomicUsize,
    /// The purge floor on the device: everything with a lower sequence is durably dead, in whatever
    /// region.
    dead_below: AtomicU64,
    /// Higher than every sequence of earlier starts.
    start: Sequence,
}

impl RegionTable {
    /// A table for a device that was opened with this epoch and purge floor; nothing is known of its
    /// regions.
    #[must_use]
    pub fn new(
        (device, uuid): (DeviceNumber, Uuid),
        layout: &Layout,
        (opened_epoch, purge_floor): (u32, Sequence),
    ) -> RegionTable {
        let (count, region_size) = (layout.region_count, layout.region_size);
        let changes = Arc::new(Changes::new(count));
        let regions = (0..count).map(|number| Region::unknown(number, &changes, region_size));
        RegionTable {
            device,
            seed: DeviceSeed::new(uuid),
            regions: regions.collect(),
            changes,
            ranking: Mutex::new(Ranking::new(count, region_size)),
            walks: AtomicU64::new(0),
            unindexed: AtomicUsize::new(0),
            unread: AtomicUsize::new(0),
            dead_below: AtomicU64::new(purge_floor.0),
            start: Sequence::first_of(opened_epoch.saturating_add(1)),
        }
    }

    /// The row of a region; `None` for locations beyond the device, which are of entries in RAM only.
    #[must_use]
    pub fn get(&self, region: u32) -> Option<&Region> {
        self.regions.get(region as usize)
    }

    /// The row of a region on the device.
    ///
    /// # Panics
    /// Panics if there is no such region.
    #[must_use]
    pub fn on_device(&self, region: u32) -> &Region {
        &self.regions[region as usize]
    }

    /// Every region with its number. There may be more than 64 Ki: do not use it for frequent work.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Region)> {
        self.walks.fetch_add(1, Ordering::Relaxed);
        (0u32..).zip(self.regions.iter())
    }

    /// Number of walks over all regions so far.
    pub fn walks(&self) -> u64 {
        self.walks.load(Ordering::Relaxed)
    }

    /// Answers a question about the order of the regions. Costs as much as changed since the last one.
    pub fn ranked<T>(&self, ask: impl FnOnce(&mut Ranking) -> T) -> T {
        let mut ranking = self.ranking.lock();
        self.changes.take(|region| ranking.update(region, self.on_device(region).facts()));
        ask(&mut ranking)
    }

    /// Begins a new generation of a region: entries of earlier ones fail its checks from here on.
    pub fn begin_generation(&self, region: u32, generation: Sequence, state: RegionState) {
        let row = self.on_device(region);
        row.generation.store(generation.0, Ordering::Release);
        row.keep_until.store(0, Ordering::Relaxed);
        row.tombstones.store(0, Ordering::Relaxed);
        row.touched.store(false, Ordering::Release);
        row.condemned.store(false, Ordering::Release);
        row.interrupted.store(false, Ordering::Release);
        // Last: whoever sees the state sees the new generation too.
        row.touches_before.store(row.touches(), Ordering::Release);
        row.set_state(state);
    }

    /// Notes that a region may hold entries that have neither an index entry nor a tombstone: the next
    /// start may find them. Ends when the region is free, or everything in it is dead. Called under the
    /// append lock, under which changes ask for it.
    pub fn note_unindexed(&self, region: u32) {
        let row = self.on_device(region);
        if row.holds_purges() || self.is_dead(region) {
            return;
        }
        if !row.unindexed.swap(true, Ordering::AcqRel) {
            self.unindexed.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// As [`RegionTable::note_unindexed`], but nothing if the region has another generation by now: its
    /// old entries are gone then. Whoever fails to free a region notes it itself.
    pub(in crate::store) fn note_unindexed_in(&self, generation: Generation) {
        if self.is_in(generation) {
            self.note_unindexed(generation.region());
        }
    }

    /// Notes that a region holds no unindexed entries (any more).
    pub fn note_indexed(&self, region: u32) {
        if self.on_device(region).unindexed.swap(false, Ordering::AcqRel) {
            self.unindexed.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Notes every region that is not free as unindexed: tombstones were lost, and nobody knows whose.
    pub fn note_all_unindexed(&self) {
        for (region, row) in self.iter() {
            if row.state() != RegionState::Free {
                self.note_unindexed(region);
            }
        }
    }

    /// Number of regions that may hold unindexed entries.
    pub fn unindexed_count(&self) -> usize {
        self.unindexed.load(Ordering::Acquire)
    }

    /// Notes that a region is durably free: nothing in it comes back. Called under the append lock.
    pub fn set_free(&self, region: u32) {
        self.on_device(region).set_state(RegionState::Free);
        self.note_indexed(region);
    }

    /// The present generation of a region on the device.
    ///
    /// # Panics
    /// Panics if there is no such region.
    #[must_use]
    pub(in crate::store) fn generation_of(&self, region: u32) -> Generation {
        self.generation_at(region, self.on_device(region).generation())
    }

    /// The given generation of a region.
    #[must_use]
    pub(in crate::store) fn generation_at(&self, region: u32, generation: Sequence) -> Generation {
        Generation::new(self.device, region, generation)
    }

    /// The device's number.
    #[must_use]
    pub fn device(&self) -> DeviceNumber {
        self.device
    }

    /// Whether a region on the device is still in this generation.
    #[must_use]
    pub(in crate::store) fn is_in(&self, generation: Generation) -> bool {
        self.get(generation.region()).is_some_and(|row| row.generation() == generation.sequence())
    }

    /// The checksum seed of a generation. Computed each time: a stored seed could be read together with
    /// another generation.
    #[must_use]
    pub(in crate::store) fn seed_of(&self, generation: Generation) -> Seed {
        generation.seed(self.seed)
    }

    /// Number of regions in a state.
    #[must_use]
    pub fn count(&self, state: RegionState) -> usize {
        self.ranked(|ranking| ranking.count(state))
    }

    /// Notes that some of a region could not be read at the start: its entries, and what its tombstones
    /// hide, are unknown. Nothing to note for the log of purges, which holds no entries and only second
    /// copies of tombstones, nor for a region in which everything is dead.
    pub fn note_unread(&self, region: u32) {
        let row = self.on_device(region);
        let is_harmless = row.holds_purges() || self.is_dead(region);
        if !is_harmless && !row.unread.swap(true, Ordering::AcqRel) {
            self.unread.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Notes that a region was read after all and indexed, or is durably free.
    pub fn note_read(&self, region: u32) {
        if self.on_device(region).unread.swap(false, Ordering::AcqRel) {
            self.unread.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Number of regions that were not read whole. Does not grow once recovery is complete.
    pub fn unread_count(&self) -> usize {
        self.unread.load(Ordering::Acquire)
    }

    /// Everything with a sequence below `floor` is durably dead: regions from before it are in doubt no
    /// more. Called under the append lock.
    pub fn forget_below(&self, floor: Sequence) {
        self.dead_below.fetch_max(floor.0, Ordering::AcqRel);
        // Even if the floor is unchanged: the age of a region in doubt may have become known.
        if self.unread_count() + self.unindexed_count() == 0 {
            return;
        }
        for (region, row) in self.iter() {
            if !row.holds_purges() && self.is_dead(region) {
                self.note_read(region);
                self.note_indexed(region);
            }
        }
    }

    /// Everything with a lower sequence is durably dead.
    pub fn dead_below(&self) -> Sequence {
        Sequence(self.dead_below.load(Ordering::Acquire))
    }

    /// Whether all entries that a region may hold are durably dead. So is whatever its tombstones hide.
    pub fn is_dead(&self, region: u32) -> bool {
        match self.on_device(region).generation() {
            // Its age is unknown, but it is from before this start.
            Sequence(0) => self.dead_below() >= self.start,
            generation => generation < self.dead_below(),
        }
    }

    /// Unreadable regions in which everything is dead.
    pub fn dead_unreadable(&self) -> Vec<u32> {
        if self.count(RegionState::Unreadable) == 0 {
            return Vec::new();
        }
        let dead_below = self.dead_below();
        let mut found: Vec<u32> =
            self.ranked(|ranking| ranking.unreadable_below(dead_below).collect());
        found.retain(|region| self.is_dead(*region));
        found
    }

    /// The oldest region that may hold entries, other than `except`.
    fn oldest_but(&self, except: u32) -> Option<(Sequence, u32)> {
        let dead_below = self.dead_below();
        let unknown = dead_below < self.start;
        self.ranked(|ranking| {
            let first = if unknown { ranking.first_unknown(except) } else { None };
            first.or_else(|| ranking.oldest_holding(dead_below, except))
        })
    }

    /// The earliest generation of a region that may hold entries, other than `except`. All entries
    /// outside `except` have higher sequences.
    #[must_use]
    pub fn oldest_generation_but(&self, except: u32) -> Option<Sequence> {
        self.oldest_but(except).map(|(generation, _)| generation)
    }

    /// The earliest generation of a region that may hold entries.
    #[must_use]
    pub fn oldest_generation(&self) -> Option<Sequence> {
        self.oldest_generation_but(u32::MAX)
    }

    /// The region with the earliest generation of those that may hold entries; one of unknown
    /// generation comes first.
    #[must_use]
    pub fn oldest(&self) -> Option<u32> {
        self.oldest_but(u32::MAX).map(|(_, region)| region)
    }

    /// Whether all sequences in a region are known to be lower than those in every other region that
    /// may hold entries: then its tombstones hide nothing in other regions.
    #[must_use]
    pub fn is_oldest(&self, region: u32) -> bool {
        let row = self.on_device(region);
        let generation = row.generation();
        let end = match row.log() {
            LogKind::Data => generation,
            LogKind::Purges => Sequence(row.purges_end.load(Ordering::Relaxed)),
        };
        let oldest = self.oldest_generation_but(region);
        generation > Sequence(0) && oldest.is_none_or(|oldest| oldest > end)
    }
}
