//! The end of a store. Owns the order in which its work ends, and that a stop says so if what was promised
//! is not on the device.

use std::sync::atomic::Ordering;

use super::request::StoreError;
use super::{Store, Tasks};

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
}
