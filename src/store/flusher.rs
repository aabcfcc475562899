//! The one task that writes the log. Owns the order superblock, data, flush, and tells
//! waiters when their change is durable.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Store;
use super::counters::count;
use super::log::{PendingWrite, Ticket};
use super::request::StoreError;
use crate::device::{AlignedBuf, DeviceError, WriteSlice};
use crate::format::Superblock;

/// Longest time that a written change may stay unflushed.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Waits for a ticket to be durable.
pub(super) struct Waiter {
    ticket: Ticket,
    done: oneshot::Sender<bool>,
}

/// When the flusher has something to do.
#[derive(Default)]
struct Deadlines {
    /// The tail must be written by then.
    tail: Option<Instant>,
    /// Written changes must be flushed by then.
    sync: Option<Instant>,
}

/// What one round has to do.
struct Round {
    writes: Vec<PendingWrite>,
    /// All changes up to this ticket are on the device once `writes` are.
    complete: Option<Ticket>,
    superblock: Option<Superblock>,
    /// Something was written that needs a flush.
    wrote: bool,
    sync: bool,
}

impl Store {
    /// Waits until the change with this ticket, and all before it, are durable.
    ///
    /// # Errors
    /// The device failed meanwhile.
    pub async fn flush_through(&self, ticket: Ticket) -> Result<(), StoreError> {
        let (done, wait) = oneshot::channel();
        {
            let mut waiters = self.shared.waiters.lock();
            if self.shared.is_closed() {
                // The flusher has left or is leaving; nobody would wake this waiter.
                return Err(StoreError::ShuttingDown);
            }
            if ticket <= self.shared.failed.load(Ordering::Acquire) {
                return Err(StoreError::NotDurable);
            }
            waiters.push(Waiter { ticket, done });
        }
        self.shared.wake_flusher.notify_one();
        match wait.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::NotDurable),
            Err(_) => Err(StoreError::ShuttingDown),
        }
    }

    /// Writes the log until the store is closed.
    pub(super) async fn run_flusher(self) {
        let mut deadlines = Deadlines::default();
        loop {
            let wake = self.shared.wake_flusher.notified();
            match deadlines.next() {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, wake).await;
                }
                None => wake.await,
            }
            if self.shared.is_closed() {
                self.shared.waiters.lock().clear();
                return;
            }
            self.flush_round(&mut deadlines).await;
        }
    }

    async fn flush_round(&self, deadlines: &mut Deadlines) {
        let round = self.begin_round(deadlines);
        let (mut ok, wrote) = (true, round.wrote);
        if let Some(superblock) = &round.superblock {
            ok &= self.write_superblock(superblock).await.is_ok();
        }
        let writes = round.writes.into_iter().map(|write| self.write_piece(write, ok));
        let written = join_all(writes).await;
        ok &= written.iter().all(|(_, ok)| *ok);
        if round.sync && ok {
            ok &= self.shared.device.flush().await.is_ok();
        }
        let mut log = self.shared.log.lock();
        for (write, _) in written {
            log.write_done(write);
        }
        if !ok {
            log.fail();
        }
        let at_risk = log.appended();
        let short_of_regions = log.free_count() < self.free_target();
        drop(log);
        if short_of_regions {
            self.shared.wake_reclaimer.notify_one();
        }
        if ok {
            if round.sync {
                deadlines.sync = None;
            } else if wrote {
                deadlines.sync.get_or_insert_with(|| Instant::now() + SYNC_INTERVAL);
            }
        } else {
            // Not at once again: a device that refuses flushes refuses the next one too.
            deadlines.sync = deadlines.sync.map(|_| Instant::now() + SYNC_INTERVAL);
            count(&self.shared.counters.write_errors);
        }
        self.settle(ok, round.sync.then_some(round.complete).flatten(), at_risk);
        // A round that did nothing ends no wait: who waits for room woke it, and would wake it again.
        if wrote || round.sync {
            self.shared.changes.send_modify(|changes| *changes += 1);
        }
    }

    fn begin_round(&self, deadlines: &mut Deadlines) -> Round {
        let now = Instant::now();
        let wanted = !self.shared.waiters.lock().is_empty();
        let sync = wanted || deadlines.sync.is_some_and(|at| at <= now);
        let tail = sync || deadlines.tail.is_some_and(|at| at <= now);
        let mut log = self.shared.log.lock();
        let (superblock, dirty) = log.superblock();
        let modified = log.take_modified();
        let (writes, complete) = log.take_pending(tail);
        let wrote = modified || dirty || !writes.is_empty();
        deadlines.tail = match (log.is_dirty(), tail) {
            (false, _) => None,
            (true, true) => Some(now + self.shared.options.flush_interval),
            (true, false) => {
                Some(deadlines.tail.unwrap_or(now + self.shared.options.flush_interval))
            }
        };
        Round { writes, complete, superblock: dirty.then_some(superblock), wrote, sync }
    }

    async fn write_piece(&self, write: PendingWrite, go: bool) -> (PendingWrite, bool) {
        if !go {
            return (write, false);
        }
        let offset = self.shared.layout.region_offset(write.region) + write.offset;
        let slices = vec![write.slice.clone()];
        let result = self.shared.device.write(offset, slices).await;
        if let Err(error) = &result {
            tracing::error!(error = error as &dyn std::error::Error, "writing the log failed");
        }
        (write, result.is_ok())
    }

    /// Writes both copies, one durable before the other is begun, so that one is always whole.
    pub(super) async fn write_superblock(
        &self,
        superblock: &Superblock,
    ) -> Result<(), DeviceError> {
        let result = write_superblock(&self.shared.device, superblock).await;
        match &result {
            Ok(()) => self.shared.log.lock().superblock_written(superblock),
            Err(error) => {
                tracing::error!(
                    error = error as &dyn std::error::Error,
                    "writing the superblock failed"
                );
            }
        }
        result
    }

    fn settle(&self, ok: bool, durable: Option<Ticket>, at_risk: Ticket) {
        let mut waiters = self.shared.waiters.lock();
        let limit = if ok { durable.unwrap_or(0) } else { at_risk };
        if let (true, Some(durable)) = (ok, durable) {
            self.shared.durable.fetch_max(durable, Ordering::AcqRel);
        }
        if !ok {
            self.shared.failed.fetch_max(at_risk, Ordering::AcqRel);
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
        if !waiters.is_empty() {
            self.shared.wake_flusher.notify_one();
        }
    }
}

impl Deadlines {
    fn next(&self) -> Option<Instant> {
        match (self.tail, self.sync) {
            (Some(tail), Some(sync)) => Some(tail.min(sync)),
            (tail, sync) => tail.or(sync),
        }
    }
}

/// Writes both superblock copies, each durable before the next.
pub(super) async fn write_superblock(
    device: &crate::device::Device,
    superblock: &Superblock,
) -> Result<(), DeviceError> {
    let encoded = superblock.encode();
    for offset in superblock.layout.superblock_offsets() {
        let len = usize::try_from(superblock.block_len()).unwrap_or(usize::MAX);
        let align = device.geometry().memory_alignment.max(superblock.layout.alignment);
        let mut block = AlignedBuf::zeroed(len, align as usize);
        block[..encoded.len()].copy_from_slice(&encoded);
        device.write(offset, vec![WriteSlice::whole(std::sync::Arc::new(block))]).await?;
        device.flush().await?;
    }
    Ok(())
}
