//! The start and the end of a store. Owns the order in which its work ends, and that a stop says so if what was promised
//! is not on the device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OnceCell, Semaphore};

use crate::clock::Clock;
use crate::deadlines::Deadlines;
use crate::device::Device;
use crate::store::counters::{Counters, count};
use crate::store::index::Index;
use crate::store::index::key_hash::KeyHasher;
use crate::store::index::unverified::Unverified;
use crate::store::large::LargeObjects;
use crate::store::log::core::Log;
use crate::store::log::flusher::Flusher;
use crate::store::log::health::Health;
use crate::store::log::sequences::Sequences;
use crate::store::lookup::load::READING_LEN_MAX;
use crate::store::lookup::ranges::budget::Budget;
use crate::store::lookup::ranges::stats::RangeCounters;
use crate::store::mutation::fills::Fills;
use crate::store::mutation::request::StoreError;
use crate::store::options::Options;
use crate::store::ram_tier::Resident;
use crate::store::reclaim::reclaimer::Reclaimer;
use crate::store::recovery::changed::Changed;
use crate::store::recovery::progress::Progress;
use crate::store::recovery::superblock::{OpenError, open_superblock};
use crate::store::recovery::work::Recovery;
use crate::store::region::table::RegionTable;
use crate::store::scrub::Scrubber;
use crate::store::shared::{FILL_LOCKS, Shared, Store, Tasks};
use crate::store::timekeeper::{Timekeeper, resume};

impl Store {
    /// Takes no more changes, makes everything accepted durable and ends background work.
    ///
    /// # Errors
    /// The device failed: what was not durable before may be lost, and what a purge that failed before
    /// removed may be there again after the next start.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        {
            // Under the append lock: each change was published before, or sees the flag. Bytes that are
            // still being copied are waited for with the last ticket.
            let _log = self.shared.log.lock();
            self.shared.stopping.store(true, Ordering::Release);
        }
        self.shared.stop_scrubber.notify_one();
        self.shared.stop_timekeeper.notify_one();
        self.shared.wake_reclaimer.notify_one();
        self.shared.changes.notify_waiters();
        let tasks = std::mem::take(&mut *self.shared.tasks.lock());
        let Some(Tasks { flusher, reclaimer, recovery, scrubber, timekeeper }) = tasks else {
            return self.check_nothing_is_owed();
        };
        let _ = scrubber.await;
        let _ = timekeeper.await;
        // Reclaim may be waiting for a flush: the flusher ends last.
        let _ = recovery.await;
        let _ = reclaimer.await;
        while self.shared.regions.iter().any(|(_, row)| row.is_pinned()) {
            self.shared.unpinned.notified().await;
        }
        let written = self.write_last().await;
        self.shared.closed.store(true, Ordering::Release);
        self.shared.wake_flusher.notify_one();
        let _ = flusher.await;
        written
    }

    /// Makes all durable that was accepted, with a snapshot of the index if there was a change: without
    /// one a snapshot that was there still counts.
    async fn write_last(&self) -> Result<(), StoreError> {
        if self.shared.log.lock().is_epoch_wanted() {
            // A purge waits for it: its caller was told that it failed, but it may work now. If not, it is
            // owed.
            let _ = self.begin_mutation().await;
        }
        let (ticket, has_epoch) = {
            let mut log = self.shared.log.lock();
            let has_epoch = log.has_epoch();
            let ticket = match has_epoch {
                true => Some(log.seal_for_stop(self.shared.clock.now())),
                false if log.is_floor_durable() => None,
                false => Some(log.renew_superblock(self.shared.clock.pair())),
            };
            (ticket, has_epoch)
        };
        let flushed = match ticket {
            Some(ticket) => self.flush_through(ticket).await,
            None => Ok(()),
        };
        if has_epoch && flushed.is_ok() {
            self.save_snapshot().await;
        }
        flushed.and(self.check_nothing_is_owed())
    }

    /// Whether the device has all tombstones and the purge floor.
    fn check_nothing_is_owed(&self) -> Result<(), StoreError> {
        let (removals, floor_durable) = {
            let log = self.shared.log.lock();
            (log.removals_owed(), log.is_floor_durable())
        };
        if removals == 0 && floor_durable {
            return Ok(());
        }
        tracing::error!(
            removals,
            purge_of_all = !floor_durable,
            "purges could not be written: what they removed may be there again after the next start"
        );
        Err(StoreError::NotDurable)
    }

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
        let (mut superblock, repaired) = open_superblock(&device).await?;
        let unknown_age = resume(&clock, &mut superblock);
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
            reading: Semaphore::new(READING_LEN_MAX as usize),
            tasks: Mutex::default(),
        };
        if repaired {
            count(&shared.counters.superblocks_repaired);
        }
        let store = Store { shared: Arc::new(shared) };
        *store.shared.tasks.lock() = Some(Tasks {
            flusher: tokio::spawn(store.watched(Flusher::new(store.clone()).run())),
            reclaimer: tokio::spawn(store.watched(Reclaimer::new(store.clone()).run())),
            recovery: tokio::spawn(store.watched(Recovery::new(store.clone()).run())),
            scrubber: tokio::spawn(store.watched(Scrubber::starting_at(store.clone(), 0).run())),
            timekeeper: tokio::spawn(store.watched(Timekeeper::new(store.clone()).run())),
        });
        Ok(store)
    }

    /// Runs background work; if it panics the store takes no more changes and is not ready.
    pub(super) fn watched<W: Future<Output = ()>>(
        &self,
        work: W,
    ) -> impl Future<Output = ()> + use<W> {
        let shared = Arc::clone(&self.shared);
        async move {
            let _guard = StopOnPanic(shared);
            work.await;
        }
    }
}

/// A bug in background work must not look like a healthy store.
pub(super) struct StopOnPanic(Arc<Shared>);

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
