//! The region table: what each region of the device is right now. Owns states,
//! generations and live-byte counts; never does I/O. Who changes what a region is ranked by marks it; it
//! is ranked anew when an order is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::changes::Changes;
use super::place::Life;
use super::ranking::{Facts, MOSTLY_DEAD, Ranking};
use crate::clock::Timestamp;
use crate::format::{DeviceSeed, KILL_LEN, Layout, LogKind, Seed, Sequence, Uuid};

/// What may happen to a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionState {
    /// Holds nothing; may be opened.
    Free,
    /// Takes appends, or its last bytes are on their way to the device.
    Open,
    /// Complete on the device; may be reclaimed.
    Sealed,
    /// Is being emptied.
    Reclaiming,
    /// Held something before the restart; recovery will tell.
    Unknown,
    /// Could not be read at the start: not served, tried again, and freed unread only where no
    /// tombstone in it can be missed.
    Unreadable,
}

impl RegionState {
    fn from_code(code: u8) -> RegionState {
        match code {
            0 => RegionState::Free,
            1 => RegionState::Open,
            2 => RegionState::Sealed,
            3 => RegionState::Reclaiming,
            4 => RegionState::Unknown,
            _ => RegionState::Unreadable,
        }
    }
}

/// One region's row.
#[derive(Debug)]
pub struct Region {
    number: u32,
    changes: Arc<Changes>,
    /// Below so many bytes alive it is ranked by them.
    mostly_dead: u64,
    state: AtomicU8,
    generation: AtomicU64,
    live: AtomicU64,
    keep_until: AtomicU32,
    kills: AtomicU64,
    pins: AtomicU32,
    touches: AtomicU32,
    touches_before: AtomicU32,
    touched: AtomicBool,
    in_memory: AtomicBool,
    failures: AtomicU32,
    retry_at: AtomicU32,
    condemned: AtomicBool,
    unindexed: AtomicBool,
    unread: AtomicBool,
    holds_purges: AtomicBool,
    purges_end: AtomicU64,
    spared_until: AtomicU64,
    under_way: AtomicU64,
    claimed: AtomicU64,
}

impl Region {
    fn unknown(number: u32, changes: &Arc<Changes>, region_size: u64) -> Region {
        Region {
            number,
            changes: Arc::clone(changes),
            mostly_dead: region_size / MOSTLY_DEAD,
            state: AtomicU8::new(RegionState::Unknown as u8),
            generation: AtomicU64::default(),
            live: AtomicU64::default(),
            keep_until: AtomicU32::default(),
            kills: AtomicU64::default(),
            pins: AtomicU32::default(),
            touches: AtomicU32::default(),
            touches_before: AtomicU32::default(),
            touched: AtomicBool::default(),
            in_memory: AtomicBool::default(),
            failures: AtomicU32::default(),
            retry_at: AtomicU32::default(),
            condemned: AtomicBool::default(),
            unindexed: AtomicBool::default(),
            unread: AtomicBool::default(),
            holds_purges: AtomicBool::default(),
            purges_end: AtomicU64::default(),
            spared_until: AtomicU64::default(),
            under_way: AtomicU64::default(),
            claimed: AtomicU64::default(),
        }
    }

    /// Has it ranked anew.
    fn changed(&self) {
        self.changes.mark(self.number);
    }

    /// The same, unless it is open: such a region is ranked when it is sealed, and changes all the time.
    fn changed_unless_open(&self) {
        if self.state() != RegionState::Open {
            self.changed();
        }
    }

    fn facts(&self) -> Facts {
        Facts {
            state: self.state(),
            generation: self.generation(),
            holds_purges: self.holds_purges(),
            live: self.live.load(Ordering::SeqCst),
            keep_until: Timestamp(self.keep_until.load(Ordering::SeqCst)),
            kills: self.kill_bytes(),
            failures: self.failures(),
            retry_at: Timestamp(self.retry_at.load(Ordering::Relaxed)),
            is_condemned: self.is_condemned(),
            under_way: self.under_way.load(Ordering::Acquire),
            claimed: self.claimed(),
        }
    }

    /// What may happen to it.
    pub fn state(&self) -> RegionState {
        // In one order with what is changed without a mark while it is open.
        RegionState::from_code(self.state.load(Ordering::SeqCst))
    }

    /// Changes what may happen to it.
    pub fn set_state(&self, state: RegionState) {
        self.state.store(state as u8, Ordering::SeqCst);
        self.changed();
    }

    /// As [`Region::set_state`], if it is `from` still; tells whether it was.
    pub fn change_state(&self, from: RegionState, to: RegionState) -> bool {
        let (from, to, ordering) = (from as u8, to as u8, Ordering::SeqCst);
        let changed = self.state.compare_exchange(from, to, ordering, ordering).is_ok();
        self.changed();
        changed
    }

    /// Its present life.
    pub fn generation(&self) -> Sequence {
        Sequence(self.generation.load(Ordering::Acquire))
    }

    /// Sum of the size-class bounds of the entries that the index points to.
    pub fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// Counts an index word that points here.
    pub fn add_live(&self, bytes: u64) {
        let before = self.live.fetch_add(bytes, Ordering::SeqCst);
        self.live_changed(before);
    }

    /// Uncounts an index word that pointed here.
    pub fn sub_live(&self, bytes: u64) {
        let before = self.live.fetch_sub(bytes, Ordering::SeqCst);
        assert!(before >= bytes, "a region cannot have less than nothing alive");
        self.live_changed(before - bytes);
    }

    /// What is alive is `least` before or after a change.
    fn live_changed(&self, least: u64) {
        if least < self.mostly_dead {
            self.changed_unless_open();
        }
    }

    /// When its last entry expires.
    pub fn keep_until(&self) -> Timestamp {
        Timestamp(self.keep_until.load(Ordering::Relaxed))
    }

    /// Raises the time when its last entry expires.
    pub fn raise_keep_until(&self, until: Timestamp) {
        if self.keep_until.fetch_max(until.0, Ordering::SeqCst) < until.0 {
            self.changed_unless_open();
        }
    }

    /// Kill records in it, entries that supersede older versions included.
    pub fn kills(&self) -> u64 {
        self.kills.load(Ordering::Relaxed)
    }

    /// Bytes of the kill records that may have to be carried on from it.
    pub fn kill_bytes(&self) -> u64 {
        self.kills() * KILL_LEN as u64
    }

    /// Counts kill records.
    pub fn add_kills(&self, count: usize) {
        if count > 0 {
            self.kills.fetch_add(count as u64, Ordering::Relaxed);
            self.changed();
        }
    }

    /// Holds off reuse of the region while a block of it is modified in place.
    pub fn pin(&self) {
        self.pins.fetch_add(1, Ordering::AcqRel);
    }

    /// Ends a [`Region::pin`].
    pub fn unpin(&self) {
        self.pins.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether a block is being modified in place.
    pub fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::Acquire) > 0
    }

    /// Number of touches so far; a copy read before a touch must not enter the RAM tier after it.
    pub fn touches(&self) -> u32 {
        self.touches.load(Ordering::Acquire)
    }

    /// Counts a touch.
    pub fn count_touch(&self) {
        self.touches.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether no entry was touched in its present life, as far as this start knows: then the device
    /// has had no other version of any header.
    pub fn is_untouched(&self) -> bool {
        self.touches() == self.touches_before.load(Ordering::Acquire)
    }

    /// Whether the header on the device says that a touch extended an entry's life.
    pub fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Acquire)
    }

    /// Records that the header on the device says so.
    pub fn set_touched(&self) {
        self.touched.store(true, Ordering::Release);
    }

    /// Failed attempts to reclaim it in a row.
    pub fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Counts a failed attempt to reclaim it: until then it is set aside.
    pub fn set_aside(&self, until: Timestamp) {
        self.retry_at.store(until.0, Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.changed();
    }

    /// Whether others are to be reclaimed before it, because that failed lately.
    pub fn is_set_aside(&self, now: Timestamp) -> bool {
        self.failures() > 0 && self.retry_at.load(Ordering::Relaxed) > now.0
    }

    /// It was reclaimed after all.
    pub fn forget_failures(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.changed();
    }

    /// Whether it is to be emptied before all others, because a structure in it is damaged.
    pub fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::Acquire)
    }

    /// Has it emptied before all others; ends with its present life.
    pub fn condemn(&self) {
        self.condemned.store(true, Ordering::Release);
        self.changed();
    }

    /// Bytes of slices that are not to be lost with it.
    pub fn claimed(&self) -> u64 {
        self.claimed.load(Ordering::Acquire)
    }

    /// Notes the bytes of slices that are not to be lost with it: of stores under way, and of objects
    /// just stored.
    pub fn set_claims(&self, under_way: u64, just_stored: u64) {
        self.under_way.store(under_way, Ordering::Release);
        self.claimed.store(under_way + just_stored, Ordering::Release);
        self.changed();
    }

    /// Whether not all of it could be read at the start, nor since.
    pub fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Acquire)
    }

    /// Which log its present life is of.
    pub fn log(&self) -> LogKind {
        if self.holds_purges() { LogKind::Purges } else { LogKind::Data }
    }

    /// Whether it holds tombstones of the log of purges, and no entries.
    pub fn holds_purges(&self) -> bool {
        self.holds_purges.load(Ordering::Acquire)
    }

    /// Sets which log its present life is of; its tombstones, so far, have sequences below `end`.
    pub fn set_log(&self, log: LogKind, end: Sequence) {
        self.holds_purges.store(log == LogKind::Purges, Ordering::Release);
        self.purges_end.store(end.0, Ordering::Relaxed);
        self.spared_until.store(0, Ordering::Relaxed);
        self.changed();
    }

    /// Notes that its tombstones of purges have sequences below `end`.
    pub fn raise_purges_end(&self, end: Sequence) {
        self.purges_end.fetch_max(end.0, Ordering::Relaxed);
    }

    /// Most of its tombstones of purges are needed while the oldest entries are of an earlier life.
    pub fn spared_until(&self) -> Sequence {
        Sequence(self.spared_until.load(Ordering::Relaxed))
    }

    /// Notes how long they are.
    pub fn spare_until(&self, oldest: Sequence) {
        self.spared_until.store(oldest.0, Ordering::Relaxed);
    }

    /// Whether some of its slots may be in memory only.
    pub fn in_memory(&self) -> bool {
        self.in_memory.load(Ordering::Acquire)
    }

    /// Records whether some of its slots may be in memory only.
    pub fn set_in_memory(&self, in_memory: bool) {
        self.in_memory.store(in_memory, Ordering::Release);
    }
}

/// All regions of a device.
#[derive(Debug)]
pub struct RegionTable {
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
        uuid: Uuid,
        layout: &Layout,
        (opened_epoch, purge_floor): (u32, Sequence),
    ) -> RegionTable {
        let (count, region_size) = (layout.region_count, layout.region_size);
        let changes = Arc::new(Changes::new(count));
        let regions = (0..count).map(|number| Region::unknown(number, &changes, region_size));
        RegionTable {
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
    pub(super) fn note_unindexed_in(&self, life: Life) {
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
    pub(super) fn life(&self, region: u32) -> Life {
        Life::new(region, self.on_device(region).generation())
    }

    /// Whether a region on the device is in this life still.
    #[must_use]
    pub(super) fn is_in(&self, life: Life) -> bool {
        self.get(life.region()).is_some_and(|row| row.generation() == life.generation())
    }

    /// The checksum seed of a life. It is stored nowhere: beside a generation that changes it could be
    /// read with another one.
    #[must_use]
    pub(super) fn seed_of(&self, life: Life) -> Seed {
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

#[cfg(test)]
mod tests;
