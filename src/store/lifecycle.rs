//! The start and the end of a store. Owns the order in which its work ends, and that a stop says so if
//! what was promised is not on the device.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::device::Device;
use crate::store::counters::count;
use crate::store::log::flusher::Flusher;
use crate::store::mutation::request::StoreError;
use crate::store::options::Options;
use crate::store::ram_tier::Resident;
use crate::store::reclaim::reclaimer::Reclaimer;
use crate::store::recovery::superblock::{OpenError, open_superblock};
use crate::store::recovery::work::Recovery;
use crate::store::scrub::Scrubber;
use crate::store::shared::{Ending, Shared, Store, Tasks};
use crate::store::timekeeper::{Timekeeper, resume};

impl Store {
    /// Takes no more changes, makes everything accepted durable and ends background work. It goes on, in the
    /// runtime that opened the store, when nobody waits for it any more.
    ///
    /// # Errors
    /// The device failed: what was not durable before may be lost, and what a purge that failed before
    /// removed may be there again after the next start. That runtime is gone.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        let mut ending = self.begin_stop();
        let ended = ending.wait_for(Option::is_some).await;
        let outcome = ended.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or(Err(StoreError::ShuttingDown))
    }

    /// Begins [`Store::shutdown`], unless somebody did; without the runtime that opened the store what is
    /// not durable is lost, as in a crash.
    pub fn close(&self) {
        drop(self.begin_stop());
    }

    /// Begins the stop, once; tells how it has ended.
    fn begin_stop(&self) -> Ending {
        let background = &self.shared.background;
        let mut begun = background.ending.lock();
        if let Some(ending) = &*begun {
            return ending.clone();
        }
        {
            // Under the append lock: each change was published before, or sees the flag. Bytes that are
            // still being copied are waited for with the last ticket.
            let _log = self.shared.log.lock();
            background.stopping.store(true, Ordering::Release);
        }
        let (end, ending) = watch::channel(None);
        *begun = Some(ending.clone());
        let store = self.clone();
        background.runtime.spawn(async move {
            let outcome = store.stop().await;
            let is_waited_for = end.receiver_count() > 1;
            if let Err(error) = &outcome
                && !is_waited_for
            {
                let error = error as &dyn std::error::Error;
                tracing::error!(error, "the cache was not closed well");
            }
            end.send_replace(Some(outcome));
        });
        ending
    }

    async fn stop(&self) -> Result<(), StoreError> {
        let signals = &self.shared.signals;
        signals.stop_scrubber.notify_one();
        signals.stop_timekeeper.notify_one();
        signals.wake_reclaimer.notify_one();
        signals.changes.notify_waiters();
        let tasks = std::mem::take(&mut *self.shared.background.tasks.lock());
        let Some(Tasks { flusher, reclaimer, recovery, scrubber, timekeeper }) = tasks else {
            unreachable!("a store has its tasks once it is open, and ends them once");
        };
        let _ = scrubber.await;
        let _ = timekeeper.await;
        // Reclaim may be waiting for a flush: the flusher ends last.
        let _ = recovery.await;
        let _ = reclaimer.await;
        while self.shared.catalog.regions.iter().any(|(_, row)| row.is_pinned()) {
            signals.unpinned.notified().await;
        }
        let written = self.write_last().await;
        self.shared.background.closed.store(true, Ordering::Release);
        signals.wake_flusher.notify_one();
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
                false if log.is_floor_durable() && log.are_floors_durable() => None,
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
            (log.removals_owed(), log.is_floor_durable() && log.are_floors_durable())
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
        let of_device = (device, superblock, unknown_age);
        let shared = Shared::new(of_device, (options, clock, resident));
        if repaired {
            count(&shared.counters.superblocks_repaired);
        }
        let store = Store { shared: Arc::new(shared) };
        *store.shared.background.tasks.lock() = Some(Tasks {
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
            self.0.recovery.recovered.store(false, Ordering::Release);
            self.0.background.stopping.store(true, Ordering::Release);
            self.0.background.closed.store(true, Ordering::Release);
            self.0.durability.waiters.lock().clear();
            self.0.signals.wake_flusher.notify_one();
            self.0.signals.wake_reclaimer.notify_one();
            self.0.signals.stop_scrubber.notify_one();
            self.0.signals.stop_timekeeper.notify_one();
            self.0.signals.changes.notify_waiters();
        }
    }
}
