//! The state that all parts of a store share, in groups by purpose. Other files say who changes it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OnceCell, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::deadlines::Deadlines;
use crate::device::Device;
use crate::format::{Kind, Layout, Sequence, Superblock, Uuid};
use crate::store::catalog::Catalog;
use crate::store::counters::Counters;
use crate::store::index::key_hash::KeyHasher;
use crate::store::index::limit::IndexLimit;
use crate::store::index::unverified::Unverified;
use crate::store::large::Large;
use crate::store::large::ranges::stats::RangeCounters;
use crate::store::log::core::Log;
use crate::store::log::health::Health;
use crate::store::log::limits::LogLimits;
use crate::store::log::sequences::Sequences;
use crate::store::log::write::Waiter;
use crate::store::lookup::budget::Budget;
use crate::store::mutation::fills::Fills;
use crate::store::mutation::request::StoreError;
use crate::store::options::Options;
use crate::store::place::Place;
use crate::store::purges::{Floors, Purges};
use crate::store::ram_tier::Resident;
use crate::store::recovery::changed::Changed;
use crate::store::recovery::progress::Progress;
use crate::store::region::table::RegionTable;

/// How long a store waits for room before it is refused.
pub(super) const ROOM_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long a removal verifies entries that may be the key's; then it removes them unread.
pub(super) const REMOVAL_LOOK_MAX: Duration = Duration::from_secs(1);

/// How long a purge waits to be durable; then its caller is told that it is not yet.
pub(super) const PURGE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Pause after a failed background step.
pub(super) const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Most bytes that lookups read at one time, counting reads of more than 64 KiB: enough for any device,
/// and what many clients together can demand of it. Half of what their bodies share, if that is less, but
/// room for a slice.
pub(super) fn reading_len_max(options: &Options) -> u32 {
    const ENOUGH: u32 = 32 << 20;
    const LEAST: u32 = 2 << 20;
    u32::try_from(options.range_buffer_bytes / 2).unwrap_or(ENOUGH).clamp(LEAST, ENOUGH)
}

/// Locks that order copies into the RAM tier against touches.
pub(super) const FILL_LOCKS: usize = 64;

/// A handle on an open store. Clones share it.
#[derive(Clone)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("device", &self.shared.device).finish_non_exhaustive()
    }
}

/// One open store.
pub(super) struct Shared {
    pub(super) device: Device,
    pub(super) layout: Layout,
    pub(super) uuid: Uuid,
    pub(super) hasher: KeyHasher,
    pub(super) clock: Clock,
    pub(super) options: Options,
    pub(super) catalog: Catalog,
    pub(super) log: Mutex<Log>,
    pub(super) fills: Arc<Fills>,
    pub(super) fill_locks: Box<[Mutex<()>]>,
    pub(super) deadlines: Arc<Deadlines>,
    pub(super) epoch: OnceCell<()>,
    pub(super) large: Large,
    pub(super) reading: Reading,
    pub(super) durability: Durability,
    pub(super) dead: Dead,
    pub(super) purges: Purges,
    pub(super) ages: Ages,
    pub(super) recovery: RecoveryState,
    pub(super) signals: Signals,
    pub(super) background: Background,
    pub(super) counters: Counters,
}

/// Limits of concurrent reads.
pub(super) struct Reading {
    /// Scans of whole regions run one at a time.
    pub(super) scans: Semaphore,
    /// Bytes that lookups may still begin to read.
    pub(super) lookups: Semaphore,
    pub(super) bodies: Budget,
    pub(super) ranges: RangeCounters,
}

/// What is durable, and whether the device takes writes.
#[derive(Default)]
pub(super) struct Durability {
    pub(super) waiters: Mutex<Vec<Waiter>>,
    /// Changes up to this ticket are durable, unless a write failed.
    pub(super) durable: AtomicU64,
    /// Changes up to this ticket were at risk when a write last failed.
    pub(super) failed: AtomicU64,
    /// What has a lower sequence was there when a write last failed.
    pub(super) in_doubt_below: AtomicU64,
    pub(super) health: Health,
}

/// Records of entries that are dead although the index still has them.
pub(super) struct Dead {
    pub(super) purge_floor: AtomicU64,
    pub(super) unverified: Unverified,
    /// Keys removed before recovery had indexed them, and the sequences of the removals.
    pub(super) removed_unseen: Mutex<Vec<(Box<[u8]>, Sequence)>>,
}

/// Entries of unknown age.
pub(super) struct Ages {
    /// The age of entries of this epoch and earlier ones is unknown.
    pub(super) unknown_age: AtomicU32,
    /// The latest end of an entry whose index entry was dropped because it expired, in seconds.
    pub(super) forgotten_until: AtomicU32,
}

/// How far recovery has come.
pub(super) struct RecoveryState {
    pub(super) changed: Changed,
    pub(super) progress: Progress,
    pub(super) recovered: AtomicBool,
    /// All region headers were read and no snapshot is being read any more: its regions may be reused.
    pub(super) snapshot_settled: AtomicBool,
    /// The epoch on the device at open: entries of this start have a later one.
    pub(super) opened_epoch: u32,
    /// Regions with live versions that got no index entry.
    pub(super) undead: Mutex<BTreeSet<u32>>,
}

/// Wakes background tasks and waiting callers.
#[derive(Default)]
pub(super) struct Signals {
    pub(super) wake_flusher: Notify,
    pub(super) wake_reclaimer: Notify,
    pub(super) stop_scrubber: Notify,
    pub(super) stop_timekeeper: Notify,
    /// Wakes reclaim or the stop, which wait until a region is no longer pinned.
    pub(super) unpinned: Notify,
    /// Wakes all waiting callers after any change: writes done, regions freed, recovery complete. Not a
    /// `watch`, which wakes its waiters in an order drawn by the runtime.
    pub(super) changes: Notify,
}

/// Background tasks and their end.
pub(super) struct Background {
    pub(super) stopping: AtomicBool,
    pub(super) closed: AtomicBool,
    pub(super) tasks: Mutex<Option<Tasks>>,
    /// Tells how the stop has ended, once one has begun.
    pub(super) ending: Mutex<Option<Ending>>,
    pub(super) runtime: Handle,
}

/// How the stop of a store ended, once it has.
pub(super) type Ending = watch::Receiver<Option<Result<(), StoreError>>>;

/// Handles of the background tasks.
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
            // Before the check, so that no change after it is missed.
            let changed = self.shared.signals.changes.notified();
            if self.is_recovered() || self.shared.is_stopping() {
                return;
            }
            changed.await;
        }
    }

    /// Whether the device takes writes, as far as is known. While it does not, changes are refused and
    /// the device is tried again every few seconds.
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        !self.shared.durability.health.is_refusing()
    }

    /// How the device is divided.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.shared.layout
    }

    /// What the format of the device was given, to be known by.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.shared.uuid
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.shared.device
    }

    pub(super) fn key_hash(&self, key: &[u8]) -> u64 {
        self.shared.hasher.object(key) & self.shared.options.knobs.hash_mask
    }

    pub(super) fn slice_hash(&self, key: &[u8]) -> u64 {
        self.shared.hasher.slice(key) & self.shared.options.knobs.hash_mask
    }

    pub(super) fn hash_of(&self, kind: Kind, key: &[u8]) -> u64 {
        if kind == Kind::Slice { self.slice_hash(key) } else { self.key_hash(key) }
    }

    pub(super) fn found_blank(&self, region: u32) {
        self.shared.log.lock().add_free(region);
        self.shared.signals.changes.notify_waiters();
    }
}

impl Shared {
    /// The state for a device with this superblock, of which nothing else is known yet. Entries of
    /// epochs up to `unknown_age` are of unknown age.
    pub(super) fn new(
        (device, superblock, unknown_age): (Device, Superblock, u32),
        (options, clock, resident): (Options, Clock, Arc<dyn Resident>),
    ) -> Shared {
        let layout = superblock.layout;
        let earlier = (superblock.epoch, superblock.purge_floor);
        let regions =
            Arc::new(RegionTable::new((options.device_number, superblock.uuid), &layout, earlier));
        let memory_alignment = device.geometry().memory_alignment as usize;
        let sequences = Sequences::new(options.knobs.sequences_per_epoch);
        let index_limit = IndexLimit::of(options.index_bytes_max);
        let limits = LogLimits {
            backlog: options.backlog_bytes_max,
            footer: index_limit.footer,
            records: index_limit.records,
        };
        let log = Log::new(superblock, Arc::clone(&regions), (memory_alignment, sequences, limits));
        let hasher = KeyHasher::new(superblock.secret);
        let floors = Floors { hard: superblock.record_floor, soft: superblock.soft_floor };
        Shared {
            device,
            layout,
            uuid: superblock.uuid,
            hasher,
            purges: Purges::new(floors, options.knobs.purge_records_max, hasher.prefixes()),
            clock,
            options,
            log: Mutex::new(log),
            fills: Arc::default(),
            fill_locks: (0..FILL_LOCKS).map(|_| Mutex::new(())).collect(),
            deadlines: Deadlines::new(),
            epoch: OnceCell::new(),
            large: Large::new(&layout, Arc::clone(&regions)),
            catalog: Catalog::new(regions, resident, (layout, index_limit)),
            reading: Reading {
                scans: Semaphore::new(1),
                lookups: Semaphore::new(reading_len_max(&options) as usize),
                bodies: Budget::new(options.range_buffer_bytes),
                ranges: RangeCounters::default(),
            },
            durability: Durability::default(),
            dead: Dead {
                purge_floor: AtomicU64::new(superblock.purge_floor.0),
                unverified: Unverified::default(),
                removed_unseen: Mutex::default(),
            },
            ages: Ages {
                unknown_age: AtomicU32::new(unknown_age),
                forgotten_until: AtomicU32::new(0),
            },
            recovery: RecoveryState {
                changed: Changed::new(options.recovery_bytes_max),
                progress: Progress::default(),
                recovered: AtomicBool::new(false),
                snapshot_settled: AtomicBool::new(false),
                opened_epoch: superblock.epoch,
                undead: Mutex::default(),
            },
            signals: Signals::default(),
            background: Background {
                stopping: AtomicBool::new(false),
                closed: AtomicBool::new(false),
                tasks: Mutex::default(),
                ending: Mutex::default(),
                runtime: Handle::current(),
            },
            counters: Counters::default(),
        }
    }

    pub(super) fn is_recovered(&self) -> bool {
        self.recovery.recovered.load(Ordering::Acquire)
    }

    pub(super) fn set_recovered(&self) {
        self.recovery.recovered.store(true, Ordering::Release);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.background.stopping.load(Ordering::Acquire)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.background.closed.load(Ordering::Acquire)
    }

    pub(super) fn purge_floor(&self) -> Sequence {
        Sequence(self.dead.purge_floor.load(Ordering::Acquire))
    }

    pub(super) fn set_purge_floor(&self, floor: Sequence) {
        self.dead.purge_floor.store(floor.0, Ordering::Release);
    }

    pub(super) fn fill_lock(&self, place: Place) -> &Mutex<()> {
        let n = usize::try_from(place.location().0).unwrap_or(0) % self.fill_locks.len();
        &self.fill_locks[n]
    }
}
