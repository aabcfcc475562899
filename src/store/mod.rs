//! One device as a crash-safe store: a log of regions and an index in memory. Owns what is on
//! the device; knows nothing of protocols, and of the RAM tier only that it may be asked.
//!
//! The rules it keeps are numbered in `docs/ARCHITECTURE.md`, "Rules of truth".

mod bodies;
mod changes;
mod chunks;
mod contents;
mod counters;
mod entry;
mod epoch;
mod fills;
mod flusher;
mod footers;
mod formatting;
mod health;
pub mod index;
pub mod inspect;
mod key_hash;
mod large;
mod log;
mod mutate;
mod place;
mod purge_regions;
mod purges;
mod ranges;
mod ranking;
mod read;
mod reclaim;
mod recovery;
mod regions;
mod reinsert;
mod removals;
mod remove;
mod request;
mod resident;
mod room;
mod scrub;
mod sequences;
mod slot;
mod slots;
mod snapshot;
mod sought;
mod stop;
mod timekeeper;
mod touch;
mod unverified;
mod victim;
mod word;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OnceCell, Semaphore};
use tokio::task::JoinHandle;

pub use bodies::ObjectReader;
pub(crate) use bodies::{HeldBody, SliceReader};
pub use counters::CountersSnapshot;
pub use entry::Entry;
pub use fills::Fill;
pub use formatting::{FormatError, FormatOptions};
pub use key_hash::KeyHasher;
pub use log::Ticket;
pub use place::Place;
pub use ranges::{
    BodyShare, RangeOptions, RangeReader, RangeStats, TruncatedBody, ZeroRangeOption,
};
pub use read::Tier;
pub use recovery::{OpenError, RecoveryStats, Superblocks, read_superblocks};
pub use request::{
    Ack, Condition, KEY_LEN_MAX, Lifetime, METADATA_LEN_MAX, StoreError, Stored, Value,
};
pub use resident::{NotResident, Resident};
pub use room::Room;
pub use scrub::{Scrub, ScrubStep};
pub use word::{Location, SizeClass, Word};

use crate::clock::{Clock, Timestamp};
use crate::deadlines::Deadlines;
use crate::device::Device;
use crate::format::{Kind, Layout, Sequence, Uuid};
use counters::Counters;
use fills::Fills;
use health::Health;
use index::Index;
use large::LargeObjects;
use log::Log;
use ranges::{Budget, RangeCounters};
use reclaim::Discard;
use recovery::{Changed, Progress};
use regions::{RegionState, RegionTable};
use sequences::Sequences;
use unverified::Unverified;

/// How long a store waits for room before it is refused.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a removal reads entries that may be the key's before it takes them out unread.
const REMOVAL_LOOK_MAX: Duration = Duration::from_secs(1);
/// How long a purge waits to be durable before its caller is told that it is not yet.
const PURGE_WAIT_MAX: Duration = Duration::from_secs(30);
/// Pause after a failed background step before it is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Locks that order copies into the RAM tier against touches.
const FILL_LOCKS: usize = 64;

/// Bytes that the scrubber reads each second, unless told otherwise: 4 TB in three days and 16 TB in
/// eleven, one to three hundredths of what an NVMe or SATA disk gives, a tenth of a slow hard disk.
pub const SCRUB_BYTES_PER_SEC: u64 = 16 << 20;

/// How a store behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Longest time that an acknowledged change is in memory only.
    pub flush_interval: Duration,
    /// Bytes that are read each second at most to verify what is on the device; 0 does not.
    pub scrub_bytes_per_sec: u64,
    /// Bits of the key hash that are used: all of them, but for tests that want collisions.
    pub hash_mask: u64,
    /// Sequence numbers in one epoch: as many as there are, but for tests that want it to end soon.
    #[doc(hidden)]
    pub sequences_per_epoch: u32,
    /// Bytes of memory that bodies on their way to clients share.
    pub range_buffer_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            flush_interval: Duration::from_millis(100),
            scrub_bytes_per_sec: SCRUB_BYTES_PER_SEC,
            hash_mask: u64::MAX,
            sequences_per_epoch: sequences::PER_EPOCH,
            range_buffer_bytes: 64 << 20,
        }
    }
}

/// A handle on an open store. Clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    device: Device,
    layout: Layout,
    uuid: Uuid,
    hasher: KeyHasher,
    clock: Clock,
    options: Options,
    resident: Arc<dyn Resident>,
    index: Index,
    regions: Arc<RegionTable>,
    log: Mutex<Log>,
    fills: Fills,
    fill_locks: Box<[Mutex<()>]>,
    /// Large objects are touched one after another: head and slices are many writes.
    touch_locks: Box<[Arc<tokio::sync::Mutex<()>>]>,
    deadlines: Arc<Deadlines>,
    discards: Mutex<VecDeque<Discard>>,
    /// A leaf lock.
    large: Mutex<LargeObjects>,
    /// Readers of sliced objects: what is read is not discarded.
    readers: DashMap<Sequence, usize>,
    /// A scan of a whole region takes its turn.
    scans: Semaphore,
    runtime: Handle,
    epoch: OnceCell<()>,
    purge_floor: AtomicU64,
    /// The latest end of an entry that has no word any more because it expired, in seconds.
    forgotten_until: AtomicU32,
    /// How old entries of this epoch and earlier ones are is not known.
    unknown_age: AtomicU32,
    waiters: Mutex<Vec<flusher::Waiter>>,
    /// Changes up to this ticket are durable, unless a write failed.
    durable: AtomicU64,
    /// Changes up to this ticket were at risk when a write last failed.
    failed: AtomicU64,
    health: Health,
    wake_flusher: Notify,
    wake_reclaimer: Notify,
    stop_scrubber: Notify,
    stop_timekeeper: Notify,
    /// Wakes reclaim, the only one to wait for it, when a pin ends.
    unpinned: Notify,
    /// Tells of everything that may end a wait: writes done, regions freed, recovery complete.
    /// Not a `watch`: that wakes its waiters in an order drawn by the runtime.
    changes: Notify,
    recovered: AtomicBool,
    /// The epoch on the device at open: entries of this start have a later one.
    opened_epoch: u32,
    /// All region headers were looked at, and no snapshot is being read any more: its regions may be used
    /// again.
    snapshot_settled: AtomicBool,
    changed: Changed,
    unverified: Unverified,
    /// Removals that were made before the words were there, and their sequences.
    removed_unseen: Mutex<Vec<(Box<[u8]>, Sequence)>>,
    progress: Progress,
    stopping: AtomicBool,
    closed: AtomicBool,
    counters: Counters,
    ranges: RangeCounters,
    range_budget: Budget,
    /// Bytes that lookups may read at the same time, less those that they do.
    reading: Semaphore,
    tasks: Mutex<Option<Tasks>>,
}

/// The background work of a store.
struct Tasks {
    flusher: JoinHandle<()>,
    reclaimer: JoinHandle<()>,
    recovery: JoinHandle<()>,
    scrubber: JoinHandle<()>,
    timekeeper: JoinHandle<()>,
}

/// What a store is like at one moment.
#[derive(Clone, Copy, Debug)]
pub struct StoreStats {
    /// Counters since it was opened.
    pub counters: CountersSnapshot,
    /// Whether there may be entries of which it is not known how old they are.
    pub age_unknown: bool,
    /// Whether recovery is complete.
    pub recovered: bool,
    /// How far recovery is.
    pub recovery: RecoveryStats,
    /// Bytes in regions.
    pub capacity_bytes: u64,
    /// Upper bound of the bytes of indexed entries.
    pub live_bytes: u64,
    /// All regions.
    pub regions: u64,
    /// Regions that hold nothing.
    pub regions_free: u64,
    /// Regions that may hold entries that the index does not have, although their deaths are not on
    /// record: while there are any, every change leaves a kill record.
    pub regions_unindexed: u64,
    /// Regions that could not be read whole at the start, nor since.
    pub regions_unreadable: u64,
    /// Regions that could not be read or freed and are left alone for a while.
    pub regions_set_aside: u64,
    /// Indexed entries, slices counted one by one.
    pub entries: u64,
    /// Memory of the index in bytes.
    pub index_bytes: u64,
    /// Bytes accepted but not yet on the device.
    pub backlog_bytes: u64,
    /// Removals whose kill records could not be written yet.
    pub removals_waiting: u64,
    /// Bytes of the device that large objects being stored have set aside.
    pub room_bytes: u64,
    /// Bytes that they may set aside together.
    pub room_bytes_max: u64,
    /// Parallel range reads.
    pub ranges: RangeStats,
}

impl Store {
    /// Opens a formatted device. Recovery goes on in the background of the current tokio
    /// runtime; until it is complete only entries stored since are found.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing is written but the repair of a superblock copy.
    pub async fn open(
        device: Device,
        options: Options,
        clock: Clock,
        resident: Arc<dyn Resident>,
    ) -> Result<Store, OpenError> {
        let (mut superblock, repaired) = recovery::open_superblock(&device).await?;
        let unknown_age = timekeeper::resume(&clock, &mut superblock);
        let earlier = (superblock.epoch, superblock.purge_floor);
        let regions = RegionTable::new(superblock.uuid, &superblock.layout, earlier);
        let regions = Arc::new(regions);
        let index = Index::new();
        let memory_alignment = device.geometry().memory_alignment as usize;
        let sequences = Sequences::new(options.sequences_per_epoch);
        let log = Log::new(superblock, Arc::clone(&regions), (memory_alignment, sequences));
        let shared = Shared {
            layout: superblock.layout,
            uuid: superblock.uuid,
            hasher: KeyHasher::new(superblock.secret),
            clock,
            options,
            resident,
            index,
            log: Mutex::new(log),
            regions: Arc::clone(&regions),
            device,
            fills: Fills::default(),
            fill_locks: (0..FILL_LOCKS).map(|_| Mutex::new(())).collect(),
            touch_locks: (0..FILL_LOCKS).map(|_| Arc::default()).collect(),
            deadlines: Deadlines::new(),
            discards: Mutex::default(),
            large: Mutex::new(LargeObjects::new(&superblock.layout, regions)),
            readers: DashMap::new(),
            scans: Semaphore::new(1),
            runtime: Handle::current(),
            epoch: OnceCell::new(),
            purge_floor: AtomicU64::new(superblock.purge_floor.0),
            forgotten_until: AtomicU32::new(0),
            unknown_age: AtomicU32::new(unknown_age),
            waiters: Mutex::default(),
            durable: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            health: Health::default(),
            wake_flusher: Notify::new(),
            wake_reclaimer: Notify::new(),
            stop_scrubber: Notify::new(),
            stop_timekeeper: Notify::new(),
            unpinned: Notify::new(),
            changes: Notify::new(),
            recovered: AtomicBool::new(false),
            opened_epoch: superblock.epoch,
            snapshot_settled: AtomicBool::new(false),
            changed: Changed::new(),
            unverified: Unverified::default(),
            removed_unseen: Mutex::default(),
            progress: Progress::default(),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            counters: Counters::default(),
            ranges: RangeCounters::default(),
            range_budget: Budget::new(options.range_buffer_bytes),
            reading: Semaphore::new(read::READING_LEN_MAX as usize),
            tasks: Mutex::default(),
        };
        if repaired {
            counters::count(&shared.counters.superblocks_repaired);
        }
        let store = Store { shared: Arc::new(shared) };
        *store.shared.tasks.lock() = Some(Tasks {
            flusher: tokio::spawn(store.watched(store.clone().run_flusher())),
            reclaimer: tokio::spawn(store.watched(store.clone().run_reclaimer())),
            recovery: tokio::spawn(store.watched(store.clone().run_recovery())),
            scrubber: tokio::spawn(store.watched(store.clone().run_scrubber())),
            timekeeper: tokio::spawn(store.watched(store.clone().run_timekeeper())),
        });
        Ok(store)
    }

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

    /// What is wrong with the device although lookups are served, for people: nothing as a rule.
    #[must_use]
    pub fn troubles(&self) -> Vec<&'static str> {
        let has_set_aside = self.set_aside_regions() > 0;
        let troubles = [
            (has_set_aside, "regions of it cannot be read or freed: the others are used"),
            (self.shared.device.is_stuck(), "reads do not end: lookups that need one are misses"),
            (
                self.shared.device.is_degraded(),
                "ten times slower than it was, or without an answer, for half a minute: stores are refused",
            ),
        ];
        troubles.into_iter().filter_map(|(is, trouble)| is.then_some(trouble)).collect()
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

    /// Begins a streamed store of a key; a purge from here on makes its publication fail.
    #[must_use]
    pub fn begin_fill(&self, key: &[u8]) -> Fill {
        self.shared.fills.begin(self.key_hash(key))
    }

    /// Ends a streamed store. What it appended without a head is dropped in the background.
    pub fn end_fill(&self, fill: Fill, orphans: Option<(Sequence, u32)>) {
        self.shared.fills.end(fill);
        if let Some((object, slice_count)) = orphans {
            self.discard(object, slice_count);
        }
    }

    /// What the store counted since it was opened.
    #[must_use]
    pub fn counters(&self) -> CountersSnapshot {
        let mut counters = self.shared.counters.snapshot();
        if counters.scrub_passes > 0 {
            let ended_at = u32::try_from(counters.scrub_pass_at).unwrap_or(u32::MAX);
            let shown = self.shared.clock.wall_at(Timestamp(ended_at));
            counters.scrub_pass_at = u64::try_from(shown).unwrap_or(0);
        }
        counters
    }

    /// Whether there are entries of which nobody knows how old they are: they are given to those only
    /// who ask for stale ones.
    #[must_use]
    pub fn is_age_unknown(&self) -> bool {
        self.shared.unknown_age.load(Ordering::Acquire) > 0
    }

    /// What the store is like now. Walks over all regions and all shards of the index.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let shared = &*self.shared;
        let layout = &shared.layout;
        let (backlog_bytes, removals_waiting) = {
            let log = shared.log.lock();
            (log.backlog(), log.removals_waiting() as u64)
        };
        let (mut live_bytes, mut regions_unreadable) = (0, 0);
        for (_, row) in shared.regions.iter() {
            live_bytes += row.live();
            let is_unread = row.is_unread() || row.state() == RegionState::Unreadable;
            regions_unreadable += u64::from(is_unread);
        }
        StoreStats {
            counters: self.counters(),
            age_unknown: self.is_age_unknown(),
            recovered: shared.is_recovered(),
            recovery: shared.progress.snapshot(),
            capacity_bytes: u64::from(layout.region_count) * layout.region_size,
            live_bytes,
            regions: u64::from(layout.region_count),
            regions_free: shared.regions.count(RegionState::Free) as u64,
            regions_unindexed: shared.regions.unindexed_count() as u64,
            regions_unreadable,
            regions_set_aside: self.set_aside_regions(),
            entries: shared.index.len() as u64,
            index_bytes: shared.index.bytes() as u64,
            backlog_bytes,
            removals_waiting,
            room_bytes: shared.large.lock().reserved(),
            room_bytes_max: layout.object_len_max(),
            ranges: RangeStats {
                buffer_bytes: shared.range_budget.used(),
                buffer_bytes_max: shared.range_budget.limit(),
                ..shared.ranges.snapshot()
            },
        }
    }

    /// Walks over all regions so far: for tests that none is made again and again.
    #[doc(hidden)]
    #[must_use]
    pub fn region_walks(&self) -> u64 {
        self.shared.regions.walks()
    }

    /// Checks that the index and the region table agree to the byte.
    ///
    /// # Panics
    /// Panics where they do not. For tests; it locks the whole index shard by shard.
    pub fn check_accounting(&self) {
        let shared = &*self.shared;
        if !shared.snapshot_settled.load(Ordering::Acquire) {
            // The words of a snapshot are counted once all of it is found sound.
            return;
        }
        let _log = shared.log.lock();
        let mut live = vec![0; shared.layout.region_count as usize];
        for shard in 0..shared.index.shard_count() {
            shared.index.sweep_shard(shard, |word| {
                let (region, _) = word.location().split(&shared.layout);
                if let Some(sum) = live.get_mut(region as usize) {
                    *sum += word.class().len_max();
                }
                false
            });
        }
        for (region, row) in shared.regions.iter() {
            assert_eq!(row.live(), live[region as usize], "live bytes of region {region}");
            if row.state() == RegionState::Free {
                assert_eq!(row.live(), 0, "free region {region} holds nothing");
            }
        }
    }

    /// Runs background work; if it panics the store takes no more changes and is not ready.
    fn watched<W: Future<Output = ()>>(&self, work: W) -> impl Future<Output = ()> + use<W> {
        let shared = Arc::clone(&self.shared);
        async move {
            let _guard = StopOnPanic(shared);
            work.await;
        }
    }

    fn key_hash(&self, key: &[u8]) -> u64 {
        self.shared.hasher.object(key) & self.shared.options.hash_mask
    }

    fn slice_hash(&self, key: &[u8]) -> u64 {
        self.shared.hasher.slice(key) & self.shared.options.hash_mask
    }

    fn hash_of(&self, kind: Kind, key: &[u8]) -> u64 {
        if kind == Kind::Slice { self.slice_hash(key) } else { self.key_hash(key) }
    }
}

/// A bug in background work must not look like a healthy store.
struct StopOnPanic(Arc<Shared>);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("background work of the store panicked: no more changes are taken");
            self.0.recovered.store(false, Ordering::Release);
            self.0.stopping.store(true, Ordering::Release);
            self.0.closed.store(true, Ordering::Release);
            self.0.waiters.lock().clear();
            self.0.wake_flusher.notify_one();
            self.0.wake_reclaimer.notify_one();
            self.0.stop_scrubber.notify_one();
            self.0.stop_timekeeper.notify_one();
            self.0.changes.notify_waiters();
        }
    }
}

impl Shared {
    fn is_recovered(&self) -> bool {
        self.recovered.load(Ordering::Acquire)
    }

    fn set_recovered(&self) {
        self.recovered.store(true, Ordering::Release);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn purge_floor(&self) -> Sequence {
        Sequence(self.purge_floor.load(Ordering::Acquire))
    }

    fn set_purge_floor(&self, floor: Sequence) {
        self.purge_floor.store(floor.0, Ordering::Release);
    }

    /// A word left the index: its region has less alive.
    fn uncount(&self, word: Word) {
        let (region, _) = word.location().split(&self.layout);
        if let Some(row) = self.regions.get(region) {
            row.sub_live(word.class().len_max());
        }
    }

    /// The place of the `number`th entry that is in RAM only.
    fn ram_place(&self, number: u64) -> Place {
        Place::in_ram(Location::beyond(number, &self.layout))
    }

    fn touch_lock(&self, key_hash: u64) -> &Arc<tokio::sync::Mutex<()>> {
        let n = usize::try_from(key_hash % self.touch_locks.len() as u64).unwrap_or(0);
        &self.touch_locks[n]
    }

    fn fill_lock(&self, place: Place) -> &Mutex<()> {
        let n = usize::try_from(place.location().0).unwrap_or(0) % self.fill_locks.len();
        &self.fill_locks[n]
    }
}
