//! The task that alone writes the log. Owns the order: superblock, data, a flush for the region headers
//! among it, footers, flush. Tells waiters when their change is durable.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::device::{DeviceError, WriteSlice};
use crate::format::{REGION_HEADER_LEN, RegionHeader, Superblock};
use crate::store::counters::count;
use crate::store::log::footers::Footers;
use crate::store::log::room::free_target;
use crate::store::log::write::{Due, PendingWrite, Ticket};
use crate::store::shared::Store;
use crate::store::superblock::write_superblock;

/// Longest time that a written change may stay unflushed.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// When the flusher has to act.
#[derive(Default)]
struct Deadlines {
    /// The tail must be written by then.
    tail: Option<Instant>,
    /// Written changes must be flushed by then.
    sync: Option<Instant>,
    /// When to try a device again that failed.
    retry: Option<Instant>,
}

/// Work of one round.
struct Round {
    writes: Vec<PendingWrite>,
    /// All changes up to this ticket are on the device once `writes` are.
    complete: Ticket,
    superblock: Option<Superblock>,
    /// Something was written and needs a flush.
    wrote: bool,
    sync: bool,
}

/// Writes the log of a store.
pub(in crate::store) struct Flusher {
    store: Store,
    deadlines: Deadlines,
    footers: Footers,
}

impl Flusher {
    pub fn new(store: Store) -> Flusher {
        let footers = Footers::new(free_target(&store.shared.layout) / 2);
        Flusher { store, deadlines: Deadlines::default(), footers }
    }

    /// Writes the log until the store is closed.
    pub async fn run(mut self) {
        loop {
            let wake = self.store.shared.signals.wake_flusher.notified();
            match self.deadlines.next() {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, wake).await;
                }
                None => wake.await,
            }
            if self.store.shared.is_closed() {
                self.store.shared.durability.waiters.lock().clear();
                return;
            }
            if self.may_write().await {
                self.flush_round().await;
            }
            self.deadlines.retry = self.store.shared.durability.health.retry_at();
        }
    }

    /// False while the device fails and the next attempt is not due: writes wait.
    async fn may_write(&mut self) -> bool {
        let Some(retry_at) = self.store.shared.durability.health.retry_at() else { return true };
        if self.store.shared.is_stopping() {
            // The store stops: what waits is written now or lost.
            self.store.shared.durability.health.end_pause();
            return true;
        }
        if retry_at > Instant::now() || !self.try_device().await {
            let at_risk = self.store.shared.log.lock().appended();
            self.store.settle(false, None, at_risk);
            return false;
        }
        true
    }

    /// Rewrites the superblock, which loses nothing, to see whether the device takes writes again.
    async fn try_device(&mut self) -> bool {
        let (superblock, _) = self.store.shared.log.lock().superblock();
        if let Err(error) = write_superblock(&self.store.shared.device, &superblock).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "the device still fails");
            // If the flush failed, earlier writes may be lost too.
            let mut log = self.store.shared.log.lock();
            self.store.doubt(&log);
            log.fail();
            drop(log);
            self.footers.failed();
            self.store.shared.durability.health.still_failing();
            return false;
        }
        self.superblock_written(&superblock);
        self.store.shared.durability.health.accept();
        self.store.shared.signals.wake_reclaimer.notify_one();
        true
    }

    async fn flush_round(&mut self) {
        let round = self.begin_round();
        let must_write = round.wrote;
        let (sync, complete) = (round.sync, round.complete);
        let mut done = Vec::new();
        let failure = self.write_round(round, &mut done).await.err();
        let ok = failure.is_none();
        let wrote_data = ok && !done.is_empty();
        let wrote = must_write || wrote_data;
        if !ok {
            self.footers.failed();
        }
        let mut log = self.store.shared.log.lock();
        for write in done {
            log.write_done(write);
        }
        if !ok {
            self.store.doubt(&log);
            log.fail();
        } else if sync {
            log.removals_flushed(complete);
        }
        let removals_wait = log.removals_waiting() > 0;
        let at_risk = log.appended();
        let is_blocked = log.is_blocked();
        let short_of_regions = log.is_short_of_regions();
        drop(log);
        if short_of_regions || self.store.shared.catalog.is_short() {
            self.store.shared.signals.wake_reclaimer.notify_one();
        }
        if ok {
            // The writes have made room.
            if self.footers.are_many() || (wrote && removals_wait) {
                self.store.shared.signals.wake_flusher.notify_one();
            }
            if sync {
                self.deadlines.sync = None;
            } else if wrote {
                self.deadlines.sync.get_or_insert_with(|| Instant::now() + SYNC_INTERVAL);
            }
        } else {
            // Not at once: a device that refuses one flush refuses the next too.
            self.deadlines.sync = Some(Instant::now() + SYNC_INTERVAL);
            count(&self.store.shared.counters.write_errors);
        }
        match &failure {
            Some(error) => self.store.note_failure(error),
            None if wrote_data => self.store.note_success(),
            None => {}
        }
        self.store.settle(ok, sync.then_some(complete), at_risk);
        if !is_blocked && !self.store.shared.durability.waiters.lock().is_empty() {
            self.store.shared.signals.wake_flusher.notify_one();
        }
        // A round that did nothing must not wake waiters: they woke it, and would wake it again.
        if wrote || sync {
            self.store.shared.signals.changes.notify_waiters();
        }
    }

    /// Writes everything of a round, each step only if the steps before succeeded. Puts into `done`
    /// what was written or given up.
    async fn write_round(
        &mut self,
        round: Round,
        done: &mut Vec<PendingWrite>,
    ) -> Result<(), DeviceError> {
        let doubtful = self.footers.doubtful_headers();
        let writes = self.footers.hold_back(round.writes);
        if let Some(superblock) = &round.superblock
            && let Err(error) = self.write_superblock(superblock).await
        {
            done.extend(writes);
            return Err(error);
        }
        self.write_pieces(writes, done).await?;
        for (region, header) in doubtful {
            self.write_header_again(region, &header).await?;
        }
        self.footers.doubt_ended();
        if round.sync && self.footers.wait_for_flush() {
            self.store.shared.device.flush().await?;
            self.footers.flushed();
        }
        let footers = self.footers.take_ready();
        self.write_pieces(footers, done).await?;
        if round.sync {
            self.store.shared.device.flush().await?;
            self.footers.flushed();
        }
        Ok(())
    }

    /// Writes the header of a region again: its present form, as a touch may have changed it, or the
    /// form that was lost.
    async fn write_header_again(
        &self,
        region: u32,
        header: &WriteSlice,
    ) -> Result<(), DeviceError> {
        let start = self.store.shared.layout.region_offset(region);
        let (uuid, header) = (self.store.shared.uuid, header.bytes()[..REGION_HEADER_LEN].to_vec());
        let rewrite = move |bytes: &mut [u8]| {
            let generation_of = |bytes: &[u8]| {
                RegionHeader::decode(bytes, uuid, region).ok().map(|header| header.generation)
            };
            if generation_of(bytes) != generation_of(&header) {
                bytes.copy_from_slice(&header);
            }
            true
        };
        let range = start..start + REGION_HEADER_LEN as u64;
        self.store.shared.device.modify(range, rewrite).await.map(|_| ())
    }

    fn begin_round(&mut self) -> Round {
        let now = Instant::now();
        let wanted = !self.store.shared.durability.waiters.lock().is_empty();
        let sync =
            wanted || self.footers.are_many() || self.deadlines.sync.is_some_and(|at| at <= now);
        let tail = sync || self.deadlines.tail.is_some_and(|at| at <= now);
        {
            let mut log = self.store.shared.log.lock();
            let is_settled = self.store.shared.recovery.snapshot_settled.load(Ordering::Acquire);
            if is_settled
                && log.is_epoch_wanted()
                && !self.store.shared.durability.health.is_refusing()
            {
                // A purge wanted the epoch; its caller may be gone.
                log.raise_epoch(self.store.shared.clock.pair());
            }
            log.raise_epoch_if_due(self.store.shared.clock.pair());
            if log.begin_epoch_if_due(self.store.shared.clock.now()) {
                self.tell_epoch_began();
            }
        }
        while self.store.shared.log.lock().record_removals(self.store.shared.clock.now()) {}
        while self.store.shared.log.lock().record_purges(self.store.shared.clock.now()) {}
        let mut log = self.store.shared.log.lock();
        let (superblock, dirty) = log.superblock();
        let modified = log.take_modified();
        let Due { mut writes, sealed, complete } =
            log.take_due(tail, self.store.shared.clock.now());
        let alignment = log.memory_alignment();
        let wrote = modified || dirty || !writes.is_empty() || !sealed.is_empty();
        self.deadlines.tail = match (log.is_dirty(), tail) {
            (false, _) => None,
            (true, true) => Some(now + self.store.shared.options.flush_interval),
            (true, false) => {
                Some(self.deadlines.tail.unwrap_or(now + self.store.shared.options.flush_interval))
            }
        };
        log.set_tail_due(self.deadlines.tail.is_some());
        drop(log);
        let layout = &self.store.shared.layout;
        writes.extend(sealed.into_iter().map(|region| region.encode(layout, alignment)));
        Round { writes, complete, superblock: dirty.then_some(superblock), wrote, sync }
    }

    /// Writes pieces in parallel.
    async fn write_pieces(
        &self,
        writes: Vec<PendingWrite>,
        done: &mut Vec<PendingWrite>,
    ) -> Result<(), DeviceError> {
        let written = join_all(writes.iter().map(|write| {
            let offset = self.store.shared.layout.region_offset(write.region) + write.offset;
            self.store.shared.device.write(offset, vec![write.slice.clone()])
        }));
        let written = written.await;
        done.extend(writes);
        written.into_iter().collect()
    }

    /// Writes both copies; the first is durable before the second is begun, so that one is always
    /// whole.
    pub(in crate::store) async fn write_superblock(
        &self,
        superblock: &Superblock,
    ) -> Result<(), DeviceError> {
        let result = write_superblock(&self.store.shared.device, superblock).await;
        if result.is_ok() {
            self.superblock_written(superblock);
        }
        result
    }

    fn superblock_written(&self, superblock: &Superblock) {
        let now = self.store.shared.clock.now();
        if self.store.shared.log.lock().superblock_written(superblock, now) {
            // Now write the footer of the region that ended with the last epoch, and the headers and
            // footers that recovery found missing: until then those regions cannot be reclaimed.
            self.store.shared.signals.wake_flusher.notify_one();
            self.tell_epoch_began();
        }
    }

    fn tell_epoch_began(&self) {
        self.store.shared.signals.wake_reclaimer.notify_one();
        self.store.shared.signals.changes.notify_waiters();
    }
}

impl Deadlines {
    fn next(&self) -> Option<Instant> {
        // Nothing is written before the retry, so nothing else is due.
        self.retry.or([self.tail, self.sync].into_iter().flatten().min())
    }
}
