//! What is durable, who waits for it, and the release of the append lock. Owns neither the log nor its
//! writes.

use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use tokio::sync::oneshot;

use crate::device::{AlignedBuf, DeviceError};
use crate::format::Sequence;
use crate::store::log::core::Log;
use crate::store::log::write::{Ticket, Waiter};
use crate::store::mutation::request::StoreError;
use crate::store::shared::Store;

impl Store {
    /// Waits until the change with this ticket, and all before it, are durable.
    ///
    /// # Errors
    /// The device failed meanwhile.
    pub async fn flush_through(&self, ticket: Ticket) -> Result<(), StoreError> {
        let (done, wait) = oneshot::channel();
        {
            let mut waiters = self.shared.durability.waiters.lock();
            if self.shared.is_closed() {
                // The flusher has left or is leaving; nobody would wake this waiter.
                return Err(StoreError::ShuttingDown);
            }
            if ticket <= self.shared.durability.failed.load(Ordering::Acquire) {
                return Err(StoreError::NotDurable);
            }
            waiters.push(Waiter { ticket, done });
        }
        // Who waits for the device shall know now whether it works again.
        self.shared.durability.health.hurry();
        self.shared.signals.wake_flusher.notify_one();
        match wait.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::NotDurable),
            Err(_) => Err(StoreError::ShuttingDown),
        }
    }

    /// Waits until all changes from `first` to `last` are durable.
    ///
    /// # Errors
    /// The device failed meanwhile.
    pub async fn flush_between(&self, first: Ticket, last: Ticket) -> Result<(), StoreError> {
        self.flush_through_if_needed(last).await?;
        if self.has_failed_since(first) { Err(StoreError::NotDurable) } else { Ok(()) }
    }

    /// Whether a write failed that may have been of the change with this ticket, or of a later one.
    pub(crate) fn has_failed_since(&self, first: Ticket) -> bool {
        self.shared.durability.failed.load(Ordering::Acquire) >= first
    }

    /// A write or flush failed: nothing that was seen in memory of what is named so far is known to be on the
    /// device. Call it under the append lock, before anybody is told of the failure.
    pub(super) fn doubt(&self, log: &Log) {
        let named_so_far = log.sequences_end();
        self.shared.durability.in_doubt_below.fetch_max(named_so_far.0, Ordering::SeqCst);
        self.shared.large.granules.forget_all();
    }

    /// Whether a write failed in this run after an entry or a large object got its sequence: it may not be durable,
    /// although it can be read.
    pub(super) fn is_in_doubt(&self, sequence: Sequence) -> bool {
        sequence.0 < self.shared.durability.in_doubt_below.load(Ordering::SeqCst)
    }

    /// The ticket of the latest change.
    pub fn last_ticket(&self) -> Ticket {
        self.shared.log.lock().appended()
    }

    /// Releases the append lock after a change and wakes the flusher if it has to know of it: a
    /// wake-up costs more than the change itself.
    pub(super) fn release(&self, log: MutexGuard<'_, Log>) {
        let wake = log.wants_flusher();
        let spare = log.wants_spare().map(|len| (len, log.memory_alignment()));
        drop(log);
        if wake {
            self.shared.signals.wake_flusher.notify_one();
        }
        if let Some((len, alignment)) = spare {
            let buf = AlignedBuf::zeroed(usize::try_from(len).unwrap_or(usize::MAX), alignment);
            self.shared.log.lock().add_spare(buf);
        }
    }

    /// Counts a failure of the device, and says so where it begins or gets worse.
    pub(super) fn note_failure(&self, error: &DeviceError) {
        let error = error as &dyn std::error::Error;
        match self.shared.durability.health.failed() {
            None => tracing::error!(error, "writing to the device failed"),
            Some(pause) => tracing::error!(
                error,
                retry_secs = pause.as_secs(),
                "the device fails: stores are refused until it takes writes again"
            ),
        }
    }

    /// Data reached the device.
    pub(super) fn note_success(&self) {
        if self.shared.durability.health.succeeded() {
            tracing::info!("the device takes writes again");
            // If it was not the flusher that noticed, it still waits to try, with stores behind it.
            self.shared.signals.wake_flusher.notify_one();
        }
    }

    pub(super) fn settle(&self, ok: bool, durable: Option<Ticket>, at_risk: Ticket) {
        let mut waiters = self.shared.durability.waiters.lock();
        let limit = if ok { durable.unwrap_or(0) } else { at_risk };
        if let (true, Some(durable)) = (ok, durable) {
            self.shared.durability.durable.fetch_max(durable, Ordering::AcqRel);
        }
        if !ok {
            self.shared.durability.failed.fetch_max(at_risk, Ordering::AcqRel);
        }
        let mut n = 0;
        while n < waiters.len() {
            if waiters[n].ticket <= limit {
                let waiter = waiters.swap_remove(n);
                let _ = waiter.done.send(ok);
            } else {
                n += 1;
            }
        }
    }

    /// Whether a change is durable for certain. What was at risk when a write failed is not, however much of
    /// what came later is.
    pub(super) fn is_durable(&self, ticket: Ticket) -> bool {
        let durability = &self.shared.durability;
        // In this order: what failed was noted before any later success.
        ticket <= durability.durable.load(Ordering::Acquire)
            && ticket > durability.failed.load(Ordering::Acquire)
    }

    /// Waits until a version that was found is durable.
    ///
    /// # Errors
    /// The device failed meanwhile, or since the version was stored: it may be lost.
    #[cfg(feature = "daemon")]
    pub(crate) async fn settle_version(&self, version: u64) -> Result<(), StoreError> {
        if self.is_in_doubt(Sequence(version)) {
            return Err(StoreError::NotDurable);
        }
        let ticket = {
            let mut log = self.shared.log.lock();
            // What failed before the version came is no failure of it.
            if self.is_durable(log.appended()) { log.appended() } else { log.note_modified() }
        };
        self.flush_through_if_needed(ticket).await
    }

    pub(super) async fn flush_through_if_needed(&self, ticket: Ticket) -> Result<(), StoreError> {
        if self.is_durable(ticket) { Ok(()) } else { self.flush_through(ticket).await }
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::{Clock, Timestamp};
    use crate::device::SimDevice;
    use crate::store::testing;

    #[tokio::test(start_paused = true)]
    async fn only_what_was_there_when_a_write_failed_is_in_doubt() {
        let (sim, clock) = (SimDevice::new(4 << 20, 4096), Clock::manual(Timestamp(1000)));
        let store = testing::create(&sim, &clock).await;
        store.begin_store().await.unwrap();
        let before = store.draw_object_name().await.unwrap();
        assert!(!store.is_in_doubt(before));
        store.doubt(&store.shared.log.lock());
        let after = store.draw_object_name().await.unwrap();
        assert!(store.is_in_doubt(before) && !store.is_in_doubt(after));
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_not_durable_because_something_later_is() {
        let (sim, clock) = (SimDevice::new(4 << 20, 4096), Clock::manual(Timestamp(1000)));
        let store = testing::create(&sim, &clock).await;
        store.settle(false, None, 1_000_010);
        store.settle(true, Some(1_000_020), 1_000_020);
        assert!(!store.is_durable(1_000_007), "it was lost, and its caller told so");
        assert!(store.flush_through(1_000_007).await.is_err());
        assert!(store.is_durable(1_000_015) && !store.is_durable(1_000_021));
    }
}
