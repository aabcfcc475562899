//! The region table: all regions of the device, their lives and their order. Owns which life each is in;
//! never does I/O. Who changes what a region is ranked by marks it; it is ranked anew when an order is asked
//! for.

#[cfg(test)]
mod tests;

use crate::store::region::row::Region;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::format::{DeviceSeed, Layout, LogKind, Seed, Sequence, Uuid};
use crate::store::place::{DeviceNumber, Life};
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
    /// Walks over all regions so far.
    walks: AtomicU64,
    /// Regions that are noted as unindexed.
    unindexed: AtomicUsize,
    /// Regions that are noted as unread.
    unread: AtomicUsize,
    /// Everything with a lower sequence is durably dead, whatever region it is in: the purge floor on
    /// the device.
    dead_below: AtomicU64,
    /// Nothing of before this start has a sequence as high.
    start: Sequence,
}

impl RegionTable {
    /// A table of regions of which nothing is known, on a device that had this epoch and this purge floor
    /// when it was opened.
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

    /// The row of a region; `None` for locations beyond the device (entries in the RAM tier only).
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

    /// Every region with its number. There are up to 64 Ki and more of them: not for what is done again
    /// and again.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Region)> {
        self.walks.fetch_add(1, Ordering::Relaxed);
        (0u32..).zip(self.regions.iter())
    }

    /// Walks over all regions so far.
    pub fn walks(&self) -> u64 {
        self.walks.load(Ordering::Relaxed)
    }

    /// Asks for an order of the regions as they are now. Costs as much as changed since the last time.
    pub fn ranked<T>(&self, ask: impl FnOnce(&mut Ranking) -> T) -> T {
        let mut ranking = self.ranking.lock();
        self.changes.take(|region| ranking.update(region, self.on_device(region).facts()));
        ask(&mut ranking)
    }

    /// Begins a life of a region: nothing of an earlier life passes its checks from here on.
    pub fn begin_life(&self, region: u32, generation: Sequence, state: RegionState) {
        let row = self.on_device(region);
        row.generation.store(generation.0, Ordering::Release);
        row.keep_until.store(0, Ordering::Relaxed);
        row.kills.store(0, Ordering::Relaxed);
        row.touched.store(false, Ordering::Release);
        row.condemned.store(false, Ordering::Release);
        // Last: who sees it sees the new generation too.
        row.touches_before.store(row.touches(), Ordering::Release);
        row.set_state(state);
    }

    /// Notes that a region may hold entries that have no index word although their deaths are not
    /// on record: they may be found after the next start. Holds until the region is free, or what is in
    /// it is dead. Called under the append lock, under which changes ask for it.
    pub fn note_unindexed(&self, region: u32) {
        let row = self.on_device(region);
        if row.holds_purges() || self.is_dead(region) {
            return;
        }
        if !row.unindexed.swap(true, Ordering::AcqRel) {
            self.unindexed.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// As [`RegionTable::note_unindexed`], of one life of a region: once that is over, what was written
    /// in it is gone. Who frees a region and fails notes it himself.
    pub(in crate::store) fn note_unindexed_in(&self, life: Life) {
        if self.is_in(life) {
            self.note_unindexed(life.region());
        }
    }

    /// A region holds no such entries (any more).
    pub fn note_indexed(&self, region: u32) {
        if self.on_device(region).unindexed.swap(false, Ordering::AcqRel) {
            self.unindexed.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Notes of every region that is not free that it may hold such entries: tombstones were lost,
    /// and nobody knows of what.
    pub fn note_all_unindexed(&self) {
        for (region, row) in self.iter() {
            if row.state() != RegionState::Free {
                self.note_unindexed(region);
            }
        }
    }

    /// Number of regions that may hold such entries.
    pub fn unindexed_count(&self) -> usize {
        self.unindexed.load(Ordering::Acquire)
    }

    /// A region is durably free: nothing in it comes back. Called under the append lock.
    pub fn set_free(&self, region: u32) {
        self.on_device(region).set_state(RegionState::Free);
        self.note_indexed(region);
    }

    /// The present life of a region on the device.
    ///
    /// # Panics
    /// Panics if there is no such region.
    #[must_use]
    pub(in crate::store) fn life(&self, region: u32) -> Life {
        self.life_of(region, self.on_device(region).generation())
    }

    /// The life of a region whose header has this generation.
    #[must_use]
    pub(in crate::store) fn life_of(&self, region: u32, generation: Sequence) -> Life {
        Life::new(self.device, region, generation)
    }

    /// The device's number.
    #[must_use]
    pub fn device(&self) -> DeviceNumber {
        self.device
    }

    /// Whether a region on the device is in this life still.
    #[must_use]
    pub(in crate::store) fn is_in(&self, life: Life) -> bool {
        self.get(life.region()).is_some_and(|row| row.generation() == life.generation())
    }

    /// The checksum seed of a life. It is stored nowhere: beside a generation that changes it could be
    /// read with another one.
    #[must_use]
    pub(in crate::store) fn seed_of(&self, life: Life) -> Seed {
        life.seed(self.seed)
    }

    /// Number of regions in a state.
    #[must_use]
    pub fn count(&self, state: RegionState) -> usize {
        self.ranked(|ranking| ranking.count(state))
    }

    /// Notes that not all of a region could be read at the start: what it holds, and what the
    /// tombstones in it hide, is not known. One of the log of purges holds no entries, and what its
    /// tombstones hide others hide too; of one that is dead all is hidden.
    pub fn note_unread(&self, region: u32) {
        let row = self.on_device(region);
        let is_harmless = row.holds_purges() || self.is_dead(region);
        if !is_harmless && !row.unread.swap(true, Ordering::AcqRel) {
            self.unread.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// A region was read after all, and the index knows of what was in it; or it is durably free.
    pub fn note_read(&self, region: u32) {
        if self.on_device(region).unread.swap(false, Ordering::AcqRel) {
            self.unread.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Number of regions that were not read whole. Never grows once recovery is complete.
    pub fn unread_count(&self) -> usize {
        self.unread.load(Ordering::Acquire)
    }

    /// Everything with a sequence below `floor` is durably dead: the regions of that time are in doubt no
    /// more. Called under the append lock.
    pub fn forget_below(&self, floor: Sequence) {
        self.dead_below.fetch_max(floor.0, Ordering::AcqRel);
        // Also where the floor is as before: of what is in doubt it may not have been known how old it is.
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

    /// Whether all entries that may be in a region are durably dead. Whatever its tombstones hide is dead
    /// too.
    pub fn is_dead(&self, region: u32) -> bool {
        match self.on_device(region).generation() {
            // Nobody knows how old it is, but it is of before this start.
            Sequence(0) => self.dead_below() >= self.start,
            generation => generation < self.dead_below(),
        }
    }

    /// The regions with dead entries that could not be read.
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

    /// The earliest generation of a region that may hold entries, other than `except`.
    /// No entry outside `except` has a sequence at or below it.
    #[must_use]
    pub fn oldest_generation_but(&self, except: u32) -> Option<Sequence> {
        self.oldest_but(except).map(|(generation, _)| generation)
    }

    /// The earliest generation of a region that may hold entries.
    #[must_use]
    pub fn oldest_generation(&self) -> Option<Sequence> {
        self.oldest_generation_but(u32::MAX)
    }

    /// The region of the earliest generation of those that may hold entries; one whose generation is
    /// not known comes first.
    #[must_use]
    pub fn oldest(&self) -> Option<u32> {
        self.oldest_but(u32::MAX).map(|(_, region)| region)
    }

    /// Whether a region's life is known to have ended before that of any other began that may hold
    /// entries: then its tombstones hide nothing outside of it.
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
