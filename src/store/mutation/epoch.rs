//! Before the first change of a run: the next epoch is made durable. Owns who waits for it; what
//! it is for, rule 5 says.

use std::sync::atomic::Ordering;

use crate::store::counters::count;
use crate::store::mutation::request::StoreError;
use crate::store::shared::{ROOM_WAIT_MAX, Store};

impl Store {
    /// Raises the epoch on the device before the first change after an open.
    pub(in crate::store) async fn begin_mutation(&self) -> Result<(), StoreError> {
        self.shared.epoch.get_or_try_init(|| self.raise_epoch()).await.copied()
    }

    /// As [`Store::begin_mutation`], for changes that are worth nothing on a device that fails;
    /// purges are always tried.
    pub(in crate::store) async fn begin_store(&self) -> Result<(), StoreError> {
        if self.shared.device.is_degraded() {
            return Err(StoreError::Refused);
        }
        if self.shared.epoch.initialized() {
            // The first change saw to the rest, and nothing is waited for.
            return if self.takes_writes() { Ok(()) } else { Err(StoreError::Refused) };
        }
        if !self.shared.recovery.snapshot_settled.load(Ordering::Acquire) {
            // A purge waits as long as it takes; what it is about is not found meanwhile.
            let settled = tokio::time::timeout(ROOM_WAIT_MAX, self.snapshot_settled()).await;
            settled.unwrap_or_else(|_| {
                count(&self.shared.counters.refused);
                Err(StoreError::Busy("the regions of the device are not known yet"))
            })?;
        }
        // However often it is tried, it is the same epoch.
        let begun = tokio::time::timeout(ROOM_WAIT_MAX, self.begin_mutation()).await;
        begun.unwrap_or(Err(StoreError::Busy("the device does not keep up")))
    }

    /// One that fails leaves the epoch to be written, and the next attempt writes the same.
    async fn raise_epoch(&self) -> Result<(), StoreError> {
        self.snapshot_settled().await?;
        let raising = self.shared.log.lock().raise_epoch(self.shared.clock.pair());
        match raising {
            Some(ticket) => self.flush_through(ticket).await,
            // The device was tried meanwhile, and took it.
            None => Ok(()),
        }
    }

    /// Waits until all region headers are known and no snapshot is being read: a later epoch makes its
    /// regions free.
    pub(in crate::store) async fn snapshot_settled(&self) -> Result<(), StoreError> {
        loop {
            // Before the look: a change right after it is not missed.
            let changed = self.shared.signals.changes.notified();
            if self.shared.recovery.snapshot_settled.load(Ordering::Acquire) {
                return Ok(());
            }
            if self.shared.is_stopping() {
                return Err(StoreError::ShuttingDown);
            }
            changed.await;
        }
    }
}
