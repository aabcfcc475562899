//! What a store counts. Plain atomics; the metrics layer gives them names and help.

use std::sync::atomic::{AtomicU64, Ordering};

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

/// Adds `n`.
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of a store, since it was opened.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
        }

        /// A store's counters at one moment.
        #[derive(Clone, Copy, Debug, Default)]
        #[non_exhaustive]
        pub struct CountersSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(super) fn snapshot(&self) -> CountersSnapshot {
                CountersSnapshot { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Lookups whose fingerprint matched another key's entry.
    false_positives,
    /// Lookups and changes of keys that share their fingerprint with more entries than are verified.
    crowded,
    /// Entries found expired or purged by a lookup.
    expired,
    /// Of those, entries found purged with everything else.
    flushed,
    /// Of the expired, entries found purged by a tag or a prefix.
    purged_by_record,
    /// Purges by a tag or a prefix.
    purge_records,
    /// Times that the oldest of their records went into a floor, because there were too many.
    purge_folds,
    /// Records that did.
    purge_records_folded,
    /// Purge records carried from region to region.
    purge_records_carried,
    /// Entries whose bytes on the device were not what was written.
    damaged,
    /// Failed reads of entries.
    read_errors,
    /// Failed writes or flushes of the log.
    write_errors,
    /// Body bytes accepted from clients.
    body_bytes,
    /// Stores that waited for room.
    stalls,
    /// Stores refused after waiting too long.
    refused,
    /// Regions freed.
    regions_freed,
    /// Indexed entries dropped with their region.
    evicted,
    /// Of those, entries of regions in which everything had expired or was purged.
    evicted_ended,
    /// Hits on entries stored before the start while not all regions could be read.
    doubtful_hits,
    /// Entries evicted although worth keeping, because not all regions could be read.
    doubtful_evicted,
    /// Regions that could not be read at the start and were read later.
    regions_reread,
    /// Times that everything stored before the start was dropped, because no room was left but in a
    /// region that could not be read.
    starts_forgotten,
    /// Entries re-inserted because they were hit.
    reinserted,
    /// Bytes re-inserted.
    reinserted_bytes,
    /// Bytes of slices of large objects, under way or just stored, moved to a newer region.
    large_moved_bytes,
    /// Tombstones carried to a newer region.
    tombstones_carried,
    /// Entries given a new lifetime in place.
    touched,
    updated,
    updated_bytes,
    /// Objects begun that are stored part by part.
    declared,
    /// Bytes of slots written for parts.
    filled_bytes,
    /// Entries found by recovery.
    recovered,
    /// Passes over the regions that recovery took: more than one if its part of memory is small.
    recovery_passes,
    /// Regions that recovery left out, because the index was at its part of memory.
    regions_left_out,
    /// Microseconds recovery took.
    recovery_us,
    /// Index snapshots written at a clean stop.
    snapshots_written,
    /// Clean stops that wrote no index snapshot.
    snapshots_skipped,
    /// Starts from an index snapshot.
    snapshots_loaded,
    /// Index snapshots of this epoch that were incomplete or rejected.
    snapshots_refused,
    /// Superblock copies found damaged and repaired.
    superblocks_repaired,
    /// Bytes read by the scrubber.
    scrub_bytes,
    /// Passes of the scrubber over the whole device.
    scrub_passes,
    /// Microseconds the last pass took.
    scrub_pass_us,
    /// When the last pass ended, in seconds since 1970; 0 before the first.
    scrub_pass_at,
    /// Reads of the scrubber that waited for lookups.
    scrub_yields,
    /// Superblock copies that the scrubber found damaged.
    scrub_superblocks,
    /// Region headers that the scrubber found damaged.
    scrub_headers,
    /// Footers that the scrubber found damaged.
    scrub_footers,
    /// Regions in which the scrubber found tombstones damaged.
    scrub_tombstones,
    /// Live entries that the scrubber found damaged.
    scrub_entries,
    /// Damaged entries that the scrubber took out of the index.
    scrub_freed,
    /// Damaged regions that the scrubber gave to reclaim.
    scrub_condemned,
    /// Reads of the scrubber that failed.
    scrub_unreadable,
}
