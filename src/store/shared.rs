//! What all parts of a store share. Owns nothing but that it is there: each part owns what it keeps here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OnceCell, Semaphore};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::deadlines::Deadlines;
use crate::device::Device;
use crate::format::{Kind, Layout, Sequence, Uuid};
use crate::store::counters::Counters;
use crate::store::index::Index;
use crate::store::index::key_hash::KeyHasher;
use crate::store::index::unverified::Unverified;
use crate::store::index::word::{Location, Word};
use crate::store::large::{Discard, LargeObjects};
use crate::store::log::core::Log;
use crate::store::log::health::Health;
use crate::store::log::write::Waiter;
use crate::store::lookup::ranges::budget::Budget;
use crate::store::lookup::ranges::stats::RangeCounters;
use crate::store::mutation::fills::Fills;
use crate::store::options::Options;
use crate::store::place::Place;
use crate::store::ram_tier::Resident;
use crate::store::recovery::changed::Changed;
use crate::store::recovery::progress::Progress;
use crate::store::region::table::RegionTable;

/// How long a store waits for room before it is refused.
pub(super) const ROOM_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long a removal reads entries that may be the key's before it takes them out unread.
pub(super) const REMOVAL_LOOK_MAX: Duration = Duration::from_secs(1);

/// How long a purge waits to be durable before its caller is told that it is not yet.
pub(super) const PURGE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Pause after a failed background step before it is tried again.
pub(super) const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Locks that order copies into the RAM tier against touches.
pub(super) const FILL_LOCKS: usize = 64;

/// A handle on an open store. Clones share it.
#[derive(Clone)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) device: Device,
    pub(super) layout: Layout,
    pub(super) uuid: Uuid,
    pub(super) hasher: KeyHasher,
    pub(super) clock: Clock,
    pub(super) options: Options,
    pub(super) resident: Arc<dyn Resident>,
    pub(super) index: Index,
    pub(super) regions: Arc<RegionTable>,
    pub(super) log: Mutex<Log>,
    pub(super) fills: Fills,
    pub(super) fill_locks: Box<[Mutex<()>]>,
    /// Large objects are touched one after another: head and slices are many writes.
    pub(super) touch_locks: Box<[Arc<tokio::sync::Mutex<()>>]>,
    pub(super) deadlines: Arc<Deadlines>,
    pub(super) discards: Mutex<VecDeque<Discard>>,
    /// A leaf lock.
    pub(super) large: Mutex<LargeObjects>,
    /// Readers of sliced objects: what is read is not discarded.
    pub(super) readers: DashMap<Sequence, usize>,
    /// A scan of a whole region takes its turn.
    pub(super) scans: Semaphore,
    pub(super) runtime: Handle,
    pub(super) epoch: OnceCell<()>,
    pub(super) purge_floor: AtomicU64,
    /// The latest end of an entry that has no word any more because it expired, in seconds.
    pub(super) forgotten_until: AtomicU32,
    /// How old entries of this epoch and earlier ones are is not known.
    pub(super) unknown_age: AtomicU32,
    pub(super) waiters: Mutex<Vec<Waiter>>,
    /// Changes up to this ticket are durable, unless a write failed.
    pub(super) durable: AtomicU64,
    /// Changes up to this ticket were at risk when a write last failed.
    pub(super) failed: AtomicU64,
    pub(super) health: Health,
    pub(super) wake_flusher: Notify,
    pub(super) wake_reclaimer: Notify,
    pub(super) stop_scrubber: Notify,
    pub(super) stop_timekeeper: Notify,
    /// Wakes reclaim, the only one to wait for it, when a pin ends.
    pub(super) unpinned: Notify,
    /// Tells of everything that may end a wait: writes done, regions freed, recovery complete.
    /// Not a `watch`: that wakes its waiters in an order drawn by the runtime.
    pub(super) changes: Notify,
    pub(super) recovered: AtomicBool,
    /// The epoch on the device at open: entries of this start have a later one.
    pub(super) opened_epoch: u32,
    /// All region headers were looked at, and no snapshot is being read any more: its regions may be used
    /// again.
    pub(super) snapshot_settled: AtomicBool,
    pub(super) changed: Changed,
    pub(super) unverified: Unverified,
    /// Removals that were made before the words were there, and their sequences.
    pub(super) removed_unseen: Mutex<Vec<(Box<[u8]>, Sequence)>>,
    pub(super) progress: Progress,
    pub(super) stopping: AtomicBool,
    pub(super) closed: AtomicBool,
    pub(super) counters: Counters,
    pub(super) ranges: RangeCounters,
    pub(super) range_budget: Budget,
    /// Bytes that lookups may read at the same time, less those that they do.
    pub(super) reading: Semaphore,
    pub(super) tasks: Mutex<Option<Tasks>>,
}

/// The background work of a store.
pub(super) struct Tasks {
    pub(super) flusher: JoinHandle<()>,
    pub(super) reclaimer: JoinHandle<()>,
    pub(super) recovery: JoinHandle<()>,
    pub(super) scrubber: JoinHandle<()>,
    pub(super) timekeeper: JoinHandle<()>,
}

impl Store {
    /// Whether recovery is complete.
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        self.shared.is_recovered()
    }

    /// Waits until recovery is complete, or the store stops.
    pub async fn recovered(&self) {
        loop {
            // Before the look: a change right after it is not missed.
            let changed = self.shared.changes.notified();
            if self.is_recovered() || self.shared.is_stopping() {
                return;
            }
            changed.await;
        }
    }

    /// Whether the device takes writes, as far as is known. While it does not, changes are refused
    /// and it is tried again every few seconds.
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        !self.shared.health.is_refusing()
    }

    /// How the device is divided.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.shared.layout
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.shared.device
    }

    pub(super) fn key_hash(&self, key: &[u8]) -> u64 {
        self.shared.hasher.object(key) & self.shared.options.hash_mask
    }

    pub(super) fn slice_hash(&self, key: &[u8]) -> u64 {
        self.shared.hasher.slice(key) & self.shared.options.hash_mask
    }

    pub(super) fn hash_of(&self, kind: Kind, key: &[u8]) -> u64 {
        if kind == Kind::Slice { self.slice_hash(key) } else { self.key_hash(key) }
    }

    pub(super) fn found_blank(&self, region: u32) {
        self.shared.log.lock().add_free(region);
        self.shared.changes.notify_waiters();
    }
}

impl Shared {
    pub(super) fn is_recovered(&self) -> bool {
        self.recovered.load(Ordering::Acquire)
    }

    pub(super) fn set_recovered(&self) {
        self.recovered.store(true, Ordering::Release);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn purge_floor(&self) -> Sequence {
        Sequence(self.purge_floor.load(Ordering::Acquire))
    }

    pub(super) fn set_purge_floor(&self, floor: Sequence) {
        self.purge_floor.store(floor.0, Ordering::Release);
    }

    /// A word left the index: its region has less alive.
    pub(super) fn uncount(&self, word: Word) {
        let (region, _) = word.location().split(&self.layout);
        if let Some(row) = self.regions.get(region) {
            row.sub_live(word.class().len_max());
        }
    }

    /// The place of the `number`th entry that is in RAM only.
    pub(super) fn ram_place(&self, number: u64) -> Place {
        Place::in_ram(Location::beyond(number, &self.layout))
    }

    pub(super) fn touch_lock(&self, key_hash: u64) -> &Arc<tokio::sync::Mutex<()>> {
        let n = usize::try_from(key_hash % self.touch_locks.len() as u64).unwrap_or(0);
        &self.touch_locks[n]
    }

    pub(super) fn fill_lock(&self, place: Place) -> &Mutex<()> {
        let n = usize::try_from(place.location().0).unwrap_or(0) % self.fill_locks.len();
        &self.fill_locks[n]
    }
}
