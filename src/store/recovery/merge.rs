//! Puts what recovery found into the index. Owns the order against concurrent changes: a key changed
//! since the start keeps what the change gave it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::sync::Semaphore;

use crate::device::release_freed_memory;
use crate::planted::{self, Bug};
use crate::store::index::{Fresh, Index};
use crate::store::recovery::changed::Change;
use crate::store::recovery::left_out::LeftOut;
use crate::store::recovery::parallel::on_thread;
use crate::store::recovery::parts::Parts;
use crate::store::recovery::progress::ProgressLog;
use crate::store::recovery::versions::{PARTS, Version, settle};
use crate::store::recovery::work::Recovery;
use crate::store::shared::Store;

/// Entries put into the index in one go, while changes of their keys wait.
const BATCH: usize = 4096;

/// Shared by all threads that merge.
struct Merging {
    store: Store,
    parts: Arc<Parts>,
    left_out: Arc<LeftOut>,
    next: AtomicUsize,
}

impl Recovery {
    /// Puts the newest version of each key into the index, unless the key was changed since the device
    /// was opened; gives the number of entries, or `None` if the store stopped meanwhile.
    pub(super) async fn merge(
        &self,
        parts: &Arc<Parts>,
        left_out: &Arc<LeftOut>,
        threads: usize,
    ) -> Option<u64> {
        let progress = &self.store.shared.recovery.progress;
        progress.parts_total.store(PARTS as u64, Ordering::Relaxed);
        let few = parts.are_few();
        let merging = Arc::new(Merging {
            store: self.store.clone(),
            parts: Arc::clone(parts),
            left_out: Arc::clone(left_out),
            next: parts.kept().start.into(),
        });
        let limit = Semaphore::new(threads);
        let mut log = ProgressLog::start();
        let mut merged = 0;
        while merging.next.load(Ordering::Relaxed) < parts.kept().end {
            if self.store.shared.is_stopping() {
                return None;
            }
            if few {
                merged += merging.merge_next();
            } else {
                // A few parts for each thread at a time, to check for a stop in between.
                let work = (0..threads).map(|_| {
                    let merging = Arc::clone(&merging);
                    on_thread(&limit, move || (0..4).map(|_| merging.merge_next()).sum::<u64>())
                });
                for done in join_all(work).await {
                    merged += done?;
                }
            }
            log.tell(&progress.snapshot());
            tokio::task::yield_now().await;
        }
        progress.scratch_peak_bytes.fetch_max(parts.peak_bytes(), Ordering::Relaxed);
        if !few {
            // The allocator would keep this memory for ever.
            on_thread(&limit, release_freed_memory).await?;
        }
        Some(merged)
    }
}

impl Merging {
    /// Merges the next part, if there is one.
    fn merge_next(&self) -> u64 {
        let part = self.next.fetch_add(1, Ordering::Relaxed);
        if part >= self.parts.kept().end {
            return 0;
        }
        let merged = self.parts.take(part, |versions| {
            settle(versions, |version| self.store.drop_undead(version));
            let same_shard = |a: &Version, b: &Version| {
                Index::shard_of(a.key_hash) == Index::shard_of(b.key_hash)
            };
            let batches = versions.chunk_by(same_shard).flat_map(|shard| shard.chunks(BATCH));
            batches.map(|batch| self.merge_batch(part, batch)).sum()
        });
        // Later changes find the entries of this part in the index.
        self.store.shared.recovery.changed.forget(part);
        self.store.shared.recovery.progress.parts_done.fetch_add(1, Ordering::Relaxed);
        merged
    }

    /// Merges versions of one shard.
    fn merge_batch(&self, part: usize, batch: &[Version]) -> u64 {
        let Some(shard) = batch.first().map(|version| Index::shard_of(version.key_hash)) else {
            return 0;
        };
        let shared = &*self.store.shared;
        let floor = shared.purge_floor();
        let changed = shared.recovery.changed.part(part);
        let change_of = |key_hash| match changed.as_ref() {
            Some(keys) if !planted::is(Bug::IgnoreChangesDuringRecovery) => keys.find(key_hash),
            _ => Change::No,
        };
        let mut index_entries = Vec::with_capacity(batch.len());
        let mut unindexed = Vec::new();
        for version in batch {
            let Some(location) = version.location() else { continue };
            if version.sequence < floor {
                continue;
            }
            let (region, _) = location.split(&shared.layout);
            match change_of(version.key_hash) {
                Change::Yes => continue,
                // If another key was changed, nothing on the device says that this entry is dead.
                Change::Maybe => {
                    unindexed.push(region);
                    continue;
                }
                Change::No if self.left_out.has(region) => continue,
                Change::No => {}
            }
            let class = version.class();
            shared.catalog.regions.on_device(region).add_live(class.len_max());
            index_entries.push(Fresh { key_hash: version.key_hash, location, class });
        }
        // Changes of this part's keys wait for this lock until the entries are in the index.
        shared.catalog.index.insert_many(shard, &index_entries);
        drop(changed);
        if !unindexed.is_empty() {
            let mut log = shared.log.lock();
            unindexed.into_iter().for_each(|region| log.note_unindexed(region));
        }
        index_entries.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::device::SimDevice;
    use crate::format::{FooterRecord, Kind, Sequence};
    use crate::store::index::index_entry::Location;
    use crate::store::recovery::versions::part_of;
    use crate::store::testing;

    /// Otherwise a purge could find no index entry, and the merge then add the one it purged.
    #[test]
    fn a_change_waits_from_the_look_at_what_is_changed_until_the_words_are_in() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (sim, clock) = (SimDevice::new(4 << 20, 4096), Clock::manual(Timestamp(1_000_000)));
        let store = runtime.block_on(testing::create(&sim, &clock));
        let (key_hash, layout) = (77, store.shared.layout);
        let record = FooterRecord {
            key_hash,
            sequence: Sequence(9),
            offset: 4096,
            slot_len: 64,
            kind: Kind::Object,
            supersedes: false,
            keep_until: Timestamp(2_000_000),
        };
        let parts = Parts::new(u64::MAX, 1);
        let location = Location::new(2, 4096, &layout);
        parts.add([Version::of(&record, location, Timestamp(1_000_000))].into_iter());
        let (part, parts) = (part_of(key_hash), Arc::new(parts));
        let left_out = Arc::default();
        let merging = Merging { store: store.clone(), parts, left_out, next: part.into() };
        thread::scope(|threads| {
            // The merge reaches the index, and blocks.
            let bucket = store.shared.catalog.lock(key_hash);
            threads.spawn(|| assert_eq!(merging.merge_next(), 1));
            while store.shared.catalog.regions.on_device(2).live() == 0 {
                thread::yield_now();
            }
            let (send, receive) = mpsc::channel();
            let shared = &store.shared;
            threads.spawn(move || {
                drop(shared.recovery.changed.part(part));
                send.send(0).unwrap();
                send.send(shared.catalog.lock(key_hash).candidates().len()).unwrap();
            });
            receive.recv_timeout(Duration::from_millis(100)).unwrap_err();
            drop(bucket);
            receive.recv().unwrap();
            assert_eq!(receive.recv().unwrap(), 1, "it finds the index entry");
        });
    }
}
