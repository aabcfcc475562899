//! Learning what is on a device after a start: superblocks at open, region headers and footers (and the
//! slots of unsealed regions) after it. Owns the order of the steps and when
//! recovery is complete; reads no bodies of sealed regions and writes nothing but superblock repair.

mod changed;
mod gather;
mod headers;
mod merge;
mod progress;
mod superblock;
mod unread;
mod versions;

use std::sync::atomic::Ordering;

use tokio::sync::Semaphore;

pub(super) use changed::Changed;
pub(super) use progress::Progress;
pub use progress::RecoveryStats;
pub(super) use superblock::open_superblock;
pub use superblock::{OpenError, Superblocks, read_superblocks};
pub(super) use versions::{Target, Version, settle};

use super::Store;
use super::counters::add;
use super::log::Incomplete;
use super::regions::Region as RegionRow;
use crate::clock::Stopwatch;

/// Regions whose footers are read at the same time.
const PARALLEL: usize = 32;
/// Attempts to read what recovery needs before a region is left alone.
const READ_ATTEMPTS: usize = 3;
/// Threads that take footers apart and fill the index; never more than the processor has cores.
const THREADS_MAX: usize = 8;

impl Store {
    /// Finds out what the device holds and makes it visible.
    pub(super) async fn run_recovery(self) {
        let watch = Stopwatch::start();
        // What a killed process wrote may still be lost with the power, and what it hid come back.
        // By the flusher: a failed flush takes what was stored since the start with it.
        let ticket = self.shared.log.lock().note_modified();
        if self.flush_through(ticket).await.is_err() {
            self.shared.log.lock().note_all_unindexed();
        }
        let vacant = self.read_region_headers().await;
        if self.shared.is_stopping() {
            // Cut short: what was not looked at is as it was, for the next start.
            return;
        }
        let threads = threads();
        let loaded = self.load_snapshot(&vacant.snapshots, threads).await;
        self.settle_snapshot(vacant.free);
        self.take_out_unseen().await;
        if let Some(entries) = loaded {
            // The index knows all that the regions hold, whether they can be read or not.
            self.finish_recovery(Incomplete::default());
            return self.tell_recovered(entries, &watch);
        }
        let gathered = self.gather(threads).await;
        if self.shared.is_stopping() {
            // Cut short: what was not looked at is as it was, for the next start.
            return;
        }
        let Some(recovered) = self.merge(gathered.parts, threads).await else { return };
        self.finish_recovery(gathered.incomplete);
        self.tell_recovered(recovered, &watch);
        self.read_unread_regions().await;
    }

    /// From here on the regions of a snapshot are free like others.
    fn settle_snapshot(&self, vacant: Vec<u32>) {
        self.shared.log.lock().add_vacant(vacant);
        self.shared.snapshot_settled.store(true, Ordering::Release);
        self.shared.changes.notify_waiters();
        // Removals may wait for the first epoch.
        self.shared.wake_flusher.notify_one();
    }

    fn tell_recovered(&self, entries: u64, watch: &Stopwatch) {
        let took_us = u64::try_from(watch.elapsed().as_micros()).unwrap_or(u64::MAX);
        add(&self.shared.counters.recovered, entries);
        add(&self.shared.counters.recovery_us, took_us);
        tracing::info!(entries, millis = took_us / 1000, "recovery complete");
    }

    pub(super) fn found_blank(&self, region: u32) {
        self.shared.log.lock().add_free(region);
        self.shared.changes.notify_waiters();
    }

    fn finish_recovery(&self, incomplete: Incomplete) {
        self.shared.log.lock().recovered(incomplete, self.shared.clock.now());
        self.shared.changed.close();
        self.compare_with_stamps();
        self.shared.set_recovered();
        self.shared.wake_flusher.notify_one();
        self.shared.wake_reclaimer.notify_one();
        self.shared.changes.notify_waiters();
    }
}

/// Threads to use, given what the process may run on.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// Does work on a thread of its own, at most as many at a time as `limit` has permits; `None` if
/// the runtime ends. A panic goes on here.
pub(super) async fn on_thread<T: Send + 'static>(
    limit: &Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let _turn = limit.acquire().await;
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Some(done),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None,
        },
    }
}
