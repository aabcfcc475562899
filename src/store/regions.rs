//! The region table: what each region of the device is right now. Owns states,
//! generations and live-byte counts; never does I/O.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::place::Life;
use crate::clock::Timestamp;
use crate::format::{Layout, LogKind, Seed, Sequence, Uuid};

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
#[derive(Debug, Default)]
pub struct Region {
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
    spared_at: AtomicU64,
}

impl Region {
    /// What may happen to it.
    pub fn state(&self) -> RegionState {
        RegionState::from_code(self.state.load(Ordering::Acquire))
    }

    /// Changes what may happen to it.
    pub fn set_state(&self, state: RegionState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// As [`Region::set_state`], if it is `from` still; tells whether it was.
    pub fn change_state(&self, from: RegionState, to: RegionState) -> bool {
        let (from, to, ordering) = (from as u8, to as u8, Ordering::AcqRel);
        self.state.compare_exchange(from, to, ordering, Ordering::Acquire).is_ok()
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
        self.live.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Uncounts an index word that pointed here.
    pub fn sub_live(&self, bytes: u64) {
        let before = self.live.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "a region cannot have less than nothing alive");
    }

    /// When its last entry expires.
    pub fn keep_until(&self) -> Timestamp {
        Timestamp(self.keep_until.load(Ordering::Relaxed))
    }

    /// Raises the time when its last entry expires.
    pub fn raise_keep_until(&self, until: Timestamp) {
        self.keep_until.fetch_max(until.0, Ordering::Relaxed);
    }

    /// Kill records in it, entries that supersede older versions included.
    pub fn kills(&self) -> u64 {
        self.kills.load(Ordering::Relaxed)
    }

    /// Counts kill records.
    pub fn add_kills(&self, count: usize) {
        self.kills.fetch_add(count as u64, Ordering::Relaxed);
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
    }

    /// Whether others are to be reclaimed before it, because that failed lately.
    pub fn is_set_aside(&self, now: Timestamp) -> bool {
        self.failures() > 0 && self.retry_at.load(Ordering::Relaxed) > now.0
    }

    /// It was reclaimed after all.
    pub fn forget_failures(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// Whether it is to be emptied before all others, because a structure in it is damaged.
    pub fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::Acquire)
    }

    /// Has it emptied before all others; ends with its present life.
    pub fn condemn(&self) {
        self.condemned.store(true, Ordering::Release);
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
        self.spared_at.store(u64::MAX, Ordering::Relaxed);
    }

    /// Notes that its tombstones of purges have sequences below `end`.
    pub fn raise_purges_end(&self, end: Sequence) {
        self.purges_end.fetch_max(end.0, Ordering::Relaxed);
    }

    /// Whether its tombstones of purges were mostly needed when the oldest entries were of `oldest`.
    pub fn is_spared_at(&self, oldest: Sequence) -> bool {
        self.spared_at.load(Ordering::Relaxed) == oldest.0
    }

    /// Notes that they were.
    pub fn spare_at(&self, oldest: Sequence) {
        self.spared_at.store(oldest.0, Ordering::Relaxed);
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
    uuid: Uuid,
    regions: Box<[Region]>,
    /// Regions that are noted as unindexed.
    unindexed: AtomicUsize,
    /// Regions that are noted as unread.
    unread: AtomicUsize,
    /// Everything with a lower sequence is durably dead, whatever region it is in.
    dead_below: AtomicU64,
}

impl RegionTable {
    /// A table of free regions.
    #[must_use]
    pub fn new(uuid: Uuid, layout: &Layout) -> RegionTable {
        let regions = (0..layout.region_count).map(|_| Region::default()).collect();
        RegionTable {
            uuid,
            regions,
            unindexed: AtomicUsize::new(0),
            unread: AtomicUsize::new(0),
            dead_below: AtomicU64::new(0),
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

    /// Every region with its number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Region)> {
        (0u32..).zip(self.regions.iter())
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
    /// on record: they may be found after the next start. Holds until the region is free. Called
    /// under the append lock, under which changes ask for it.
    pub fn note_unindexed(&self, region: u32) {
        if !self.on_device(region).unindexed.swap(true, Ordering::AcqRel) {
            self.unindexed.fetch_add(1, Ordering::AcqRel);
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
        let row = self.on_device(region);
        row.set_state(RegionState::Free);
        if row.unindexed.swap(false, Ordering::AcqRel) {
            self.unindexed.fetch_sub(1, Ordering::AcqRel);
        }
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
        life.seed(self.uuid)
    }

    /// Number of regions in a state.
    #[must_use]
    pub fn count(&self, state: RegionState) -> usize {
        self.regions.iter().filter(|region| region.state() == state).count()
    }

    /// Notes that not all of a region could be read at the start: what it holds, and what the
    /// tombstones in it hide, is not known.
    pub fn note_unread(&self, region: u32) {
        if !self.on_device(region).unread.swap(true, Ordering::AcqRel) {
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

    /// Everything with a sequence below `floor` is durably dead.
    pub fn forget_below(&self, floor: Sequence) {
        self.dead_below.fetch_max(floor.0, Ordering::AcqRel);
    }

    /// The regions that may hold entries.
    fn holding(&self) -> impl Iterator<Item = (u32, &Region)> {
        let dead_below = self.dead_below.load(Ordering::Acquire);
        self.iter().filter(move |(_, region)| {
            region.state() != RegionState::Free
                && !region.holds_purges()
                && region.generation().0 >= dead_below
        })
    }

    /// The earliest generation of a region that may hold entries, other than `except`.
    /// No entry outside `except` has a sequence at or below it.
    #[must_use]
    pub fn oldest_generation_but(&self, except: u32) -> Option<Sequence> {
        let others = self.holding().filter(|(number, _)| *number != except);
        others.map(|(_, region)| region.generation()).min()
    }

    /// The earliest generation of a region that may hold entries.
    #[must_use]
    pub fn oldest_generation(&self) -> Option<Sequence> {
        self.holding().map(|(_, region)| region.generation()).min()
    }

    /// The region of the earliest generation of those that may hold entries; one whose generation is
    /// not known comes first.
    #[must_use]
    pub fn oldest(&self) -> Option<u32> {
        self.holding().min_by_key(|(_, region)| region.generation()).map(|(number, _)| number)
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
