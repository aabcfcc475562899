//! What is known of one region. Owns its account, which changes only by these methods.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::clock::Timestamp;
use crate::format::{LogKind, Sequence, TOMBSTONE_LEN};
use crate::store::region::changes::Changes;
use crate::store::region::ranking::{Facts, MOSTLY_DEAD};
use crate::store::region::state::RegionState;

/// One region's row.
#[derive(Debug)]
pub struct Region {
    number: u32,
    changes: Arc<Changes>,
    /// With fewer live bytes than this the region is ranked by them.
    mostly_dead: u64,
    state: AtomicU8,
    pub(in crate::store) generation: AtomicU64,
    live: AtomicU64,
    pub(in crate::store) keep_until: AtomicU32,
    pub(in crate::store) tombstones: AtomicU64,
    pins: AtomicU32,
    touches: AtomicU32,
    pub(in crate::store) touches_before: AtomicU32,
    pub(in crate::store) touched: AtomicBool,
    in_memory: AtomicBool,
    failures: AtomicU32,
    retry_at: AtomicU32,
    pub(in crate::store) condemned: AtomicBool,
    /// It was being emptied when the last process ended: what is left of it is moved, not evicted.
    pub(in crate::store) interrupted: AtomicBool,
    pub(in crate::store) unindexed: AtomicBool,
    pub(in crate::store) unread: AtomicBool,
    holds_purges: AtomicBool,
    pub(in crate::store) purges_end: AtomicU64,
    spared_until: AtomicU64,
    under_way: AtomicU64,
    claimed: AtomicU64,
}

impl Region {
    pub(in crate::store) fn unknown(
        number: u32,
        changes: &Arc<Changes>,
        region_size: u64,
    ) -> Region {
        Region {
            number,
            changes: Arc::clone(changes),
            mostly_dead: region_size / MOSTLY_DEAD,
            state: AtomicU8::new(RegionState::Unknown as u8),
            generation: AtomicU64::default(),
            live: AtomicU64::default(),
            keep_until: AtomicU32::default(),
            tombstones: AtomicU64::default(),
            pins: AtomicU32::default(),
            touches: AtomicU32::default(),
            touches_before: AtomicU32::default(),
            touched: AtomicBool::default(),
            in_memory: AtomicBool::default(),
            failures: AtomicU32::default(),
            retry_at: AtomicU32::default(),
            condemned: AtomicBool::default(),
            interrupted: AtomicBool::default(),
            unindexed: AtomicBool::default(),
            unread: AtomicBool::default(),
            holds_purges: AtomicBool::default(),
            purges_end: AtomicU64::default(),
            spared_until: AtomicU64::default(),
            under_way: AtomicU64::default(),
            claimed: AtomicU64::default(),
        }
    }

    /// Has the region ranked again.
    fn changed(&self) {
        self.changes.mark(self.number);
    }

    /// The same, unless it is open: an open region changes all the time and is ranked when it is
    /// sealed.
    fn changed_unless_open(&self) {
        if self.state() != RegionState::Open {
            self.changed();
        }
    }

    pub(in crate::store) fn facts(&self) -> Facts {
        Facts {
            state: self.state(),
            generation: self.generation(),
            holds_purges: self.holds_purges(),
            live: self.live.load(Ordering::SeqCst),
            keep_until: Timestamp(self.keep_until.load(Ordering::SeqCst)),
            tombstones: self.tombstone_bytes(),
            failures: self.failures(),
            retry_at: Timestamp(self.retry_at.load(Ordering::Relaxed)),
            is_condemned: self.is_condemned(),
            under_way: self.under_way.load(Ordering::Acquire),
            claimed: self.claimed(),
        }
    }

    /// Its state.
    pub fn state(&self) -> RegionState {
        // SeqCst: ordered with changes to an open region, which do not request a ranking.
        RegionState::from_code(self.state.load(Ordering::SeqCst))
    }

    /// Sets its state.
    pub fn set_state(&self, state: RegionState) {
        self.state.store(state as u8, Ordering::SeqCst);
        self.changed();
    }

    /// Sets its state if it still is `from`; tells whether it was.
    pub fn change_state(&self, from: RegionState, to: RegionState) -> bool {
        let (from, to, ordering) = (from as u8, to as u8, Ordering::SeqCst);
        let changed = self.state.compare_exchange(from, to, ordering, ordering).is_ok();
        self.changed();
        changed
    }

    /// Its present generation.
    pub fn generation(&self) -> Sequence {
        Sequence(self.generation.load(Ordering::Acquire))
    }

    /// Sum of the size-class bounds of the entries that the index points to.
    pub fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// Counts an index entry that points here.
    pub fn add_live(&self, bytes: u64) {
        let before = self.live.fetch_add(bytes, Ordering::SeqCst);
        self.live_changed(before);
    }

    /// Uncounts an index entry that pointed here.
    pub fn sub_live(&self, bytes: u64) {
        let before = self.live.fetch_sub(bytes, Ordering::SeqCst);
        assert!(before >= bytes, "a region cannot have less than nothing alive");
        self.live_changed(before - bytes);
    }

    /// Ranks the region again if `least`, the smaller of live bytes before and after a change, is
    /// little.
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

    /// Tombstones in it, entries that supersede older versions included.
    pub fn tombstones(&self) -> u64 {
        self.tombstones.load(Ordering::Relaxed)
    }

    /// Bytes of the tombstones that may have to be carried to another region.
    pub fn tombstone_bytes(&self) -> u64 {
        self.tombstones() * TOMBSTONE_LEN as u64
    }

    /// Counts tombstones.
    pub fn add_tombstones(&self, count: usize) {
        if count > 0 {
            self.tombstones.fetch_add(count as u64, Ordering::Relaxed);
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

    /// Whether no entry of its present generation was touched since this start: then every header on
    /// the device is as it was first read or written.
    pub fn is_untouched(&self) -> bool {
        self.touches() == self.touches_before.load(Ordering::Acquire)
    }

    /// Whether the header on the device says that a touch extended an entry's lifetime.
    pub fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Acquire)
    }

    /// Records that the header on the device says that entries were touched.
    pub fn set_touched(&self) {
        self.touched.store(true, Ordering::Release);
    }

    /// Failed attempts to reclaim it in a row.
    pub fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Counts a failed attempt to reclaim it; reclaim leaves it alone until `until`.
    pub fn set_aside(&self, until: Timestamp) {
        self.retry_at.store(until.0, Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.changed();
    }

    /// Whether reclaim takes other regions first, because an attempt failed lately.
    pub fn is_set_aside(&self, now: Timestamp) -> bool {
        self.failures() > 0 && self.retry_at.load(Ordering::Relaxed) > now.0
    }

    /// Clears the count of failed attempts: it was reclaimed after all.
    pub fn forget_failures(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.changed();
    }

    /// Whether it must be emptied before all others: a structure in it is damaged, or it was being emptied when the
    /// last run ended.
    pub fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::Acquire)
    }

    /// Has it emptied before all others, whatever that costs, because it was being emptied when the last run
    /// ended; ends with its present generation.
    pub fn empty_on(&self) {
        self.interrupted.store(true, Ordering::Release);
        self.condemn();
    }

    /// Whether what is left of it is moved, whatever that costs.
    pub fn is_moved_whole(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    /// Has it emptied before all others; ends with its present generation.
    pub fn condemn(&self) {
        self.condemned.store(true, Ordering::Release);
        self.changed();
    }

    /// Bytes of claimed slices in it: reclaim must move them.
    pub fn claimed(&self) -> u64 {
        self.claimed.load(Ordering::Acquire)
    }

    /// Bytes of these that are of stores under way.
    pub fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Acquire)
    }

    /// Notes the bytes of claimed slices in it: those of stores under way, and of objects just stored.
    pub fn set_claims(&self, under_way: u64, just_stored: u64) {
        self.under_way.store(under_way, Ordering::Release);
        self.claimed.store(under_way + just_stored, Ordering::Release);
        self.changed();
    }

    /// Whether some of it could not be read, neither at the start nor since.
    pub fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Acquire)
    }

    /// The log that its present generation belongs to.
    pub fn log(&self) -> LogKind {
        if self.holds_purges() { LogKind::Purges } else { LogKind::Data }
    }

    /// Whether it holds tombstones of the log of purges, and no entries.
    pub fn holds_purges(&self) -> bool {
        self.holds_purges.load(Ordering::Acquire)
    }

    /// Sets the log that its present generation belongs to; its tombstones have sequences below `end`
    /// so far.
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

    /// Most of its tombstones of purges are needed as long as the oldest region with entries has a
    /// generation below this.
    pub fn spared_until(&self) -> Sequence {
        Sequence(self.spared_until.load(Ordering::Relaxed))
    }

    /// Notes up to which oldest generation most of its tombstones of purges are needed.
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
