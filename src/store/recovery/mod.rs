//! Learns what is on a device after a start: superblocks at open, then region headers, footers, and the
//! slots of unsealed regions. Owns the order of the steps and when recovery is complete. Reads no
//! bodies of sealed regions; writes only to repair superblocks.

pub(in crate::store) mod changed;
mod found_purges;
mod gather;
mod headers;
mod left_out;
pub(in crate::store) mod memory;
mod merge;
pub(super) mod parallel;
mod parts;
pub(in crate::store) mod progress;
mod region_versions;
pub(in crate::store) mod superblock;
mod undead;
mod unread;
mod versions;
pub(super) mod work;

use crate::store::recovery::work::Recovery;
use crate::store::timekeeper::Timekeeper;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clock::Stopwatch;
use crate::planted::{self, Bug};
use crate::store::counters::add;
use crate::store::log::core::Incomplete;
use crate::store::recovery::memory::Shares;
use crate::store::recovery::parallel::threads;
use crate::store::recovery::parts::Parts;

pub use progress::RecoveryStats;
pub use superblock::{OpenError, Superblocks, read_superblocks};
pub(crate) use versions::{Version, settle};

impl Recovery {
    /// Finds out what the device holds and makes it visible.
    pub(in crate::store) async fn run(self) {
        let watch = Stopwatch::start();
        // Flush first: the page cache or the drive may still hold tombstones of a killed run, and a
        // power cut would bring back what they hid. The flusher does it, since a failed flush concerns
        // what was stored since the start too.
        let ticket = self.store.shared.log.lock().note_modified();
        if self.store.flush_through(ticket).await.is_err() {
            self.store.shared.log.lock().note_all_unindexed();
        }
        let vacant = self.read_region_headers().await;
        if self.store.shared.is_stopping() {
            // The store stops: the next start does the work.
            return;
        }
        let threads = threads();
        let loaded = self.store.load_snapshot(&vacant.snapshots, threads).await;
        self.settle_snapshot(vacant.free);
        self.store.take_out_unseen().await;
        if let Some(entries) = loaded {
            // The index has everything, whether all regions can be read or not.
            self.finish_recovery(Incomplete::default());
            return self.tell_recovered(entries, &watch);
        }
        let Some((incomplete, recovered)) = self.recover_from_regions(threads).await else {
            // The store stops: the next start does the work.
            return;
        };
        self.finish_recovery(incomplete);
        self.tell_recovered(recovered, &watch);
        self.read_unread_regions().await;
    }

    /// Fills the index by what regions hold, in as many passes over them as memory requires. Gives what is
    /// to be written, and the number of entries; `None` if the store stops.
    async fn recover_from_regions(&self, threads: usize) -> Option<(Incomplete, u64)> {
        let shared = &*self.store.shared;
        let versions = Shares::of(shared.options.recovery_bytes_max).versions;
        let mut parts = Arc::new(Parts::new(versions, threads));
        let gathered = self.gather(&parts, threads).await;
        let (records, floors) = gathered.purges.take();
        self.store.load_purges(records, floors).await;
        let left_out = match shared.is_stopping() {
            true => return None,
            false => Arc::new(self.choose_left_out(&parts).await?),
        };
        let mut recovered = 0;
        loop {
            add(&shared.counters.recovery_passes, 1);
            recovered += self.merge(&parts, &left_out, threads).await?;
            let Some(next) = parts.next() else { break };
            parts = Arc::new(next);
            let mut regions = &gathered.regions[..];
            if planted::is(Bug::SkipRegionLater) {
                regions = &regions[..regions.len().saturating_sub(1)];
            }
            self.gather_again(regions, &parts, threads).await;
            // Entries may have ended since the first pass, which are not indexed and whose ends it did not note.
            shared.ages.forgotten_until.fetch_max(shared.clock.now().0, Ordering::AcqRel);
            if shared.is_stopping() {
                return None;
            }
        }
        self.free_left_out(&left_out);
        self.empty_on();
        Some((gathered.incomplete, recovered))
    }

    /// Makes the regions of a snapshot free like others.
    fn settle_snapshot(&self, vacant: Vec<u32>) {
        self.store.shared.log.lock().add_vacant(vacant);
        self.store.shared.recovery.snapshot_settled.store(true, Ordering::Release);
        self.store.shared.signals.changes.notify_waiters();
        // Removals may wait for the first epoch.
        self.store.shared.signals.wake_flusher.notify_one();
    }

    fn tell_recovered(&self, entries: u64, watch: &Stopwatch) {
        let took_us = u64::try_from(watch.elapsed().as_micros()).unwrap_or(u64::MAX);
        add(&self.store.shared.counters.recovered, entries);
        add(&self.store.shared.counters.recovery_us, took_us);
        let passes = self.store.counters().recovery_passes;
        tracing::info!(entries, passes, millis = took_us / 1000, "recovery complete");
    }

    fn finish_recovery(&self, incomplete: Incomplete) {
        self.store.shared.log.lock().recovered(incomplete, self.store.shared.clock.now());
        self.store.shared.recovery.changed.close();
        Timekeeper::new(self.store.clone()).compare_with_stamps();
        self.store.shared.set_recovered();
        self.store.shared.signals.wake_flusher.notify_one();
        self.store.shared.signals.wake_reclaimer.notify_one();
        self.store.shared.signals.changes.notify_waiters();
    }
}
