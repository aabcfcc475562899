//! What the cache and its store count, as metrics.

use super::Page;
use crate::cache::{CacheStats, RangeStats, StoreStats};

/// Writes the RAM tier, the stores in progress and the store on the device.
pub fn write_cache(page: &mut Page, stats: &CacheStats) {
    for (name, help, value) in [
        ("rawcached_ram_bytes", "Bytes in the RAM tier.", stats.ram_bytes),
        (
            "rawcached_ram_max_bytes",
            "Most bytes in the RAM tier; see ram.size.",
            stats.ram_bytes_max,
        ),
        ("rawcached_ram_entries", "Entries in the RAM tier.", stats.ram_entries),
        (
            "rawcached_write_buffer_bytes",
            "Bytes of memory for what was received of stores in progress.",
            stats.write_buffer_bytes,
        ),
        (
            "rawcached_write_buffer_max_bytes",
            "Most bytes of memory for stores in progress, see memory.write_buffers; at the limit the slowest give way.",
            stats.write_buffer_bytes_max,
        ),
        (
            "rawcached_uploads_reserved_bytes",
            "Bytes of the device set aside for large objects being stored.",
            stats.store.reserved_bytes,
        ),
        (
            "rawcached_uploads_reserved_max_bytes",
            "Most bytes set aside for large objects being stored; what is beyond is refused.",
            stats.store.reserved_bytes_max,
        ),
    ] {
        page.gauge(name, help, &[], value);
    }
    write_levels(page, &stats.store);
    write_lookups(page, &stats.store);
    write_reclaim(page, &stats.store);
    write_unreadable(page, &stats.store);
    write_scrub(page, &stats.store);
    page.gauge(
        "rawcached_age_unknown",
        "1 while there may be entries of which the wall clock does not tell how old they are.",
        &[],
        u64::from(stats.store.age_unknown),
    );
    write_ranges(page, &stats.store.ranges);
}

fn write_ranges(page: &mut Page, ranges: &RangeStats) {
    for (name, help, value) in [
        ("rawcached_ranges_total", "Large ranges read in parallel.", ranges.ranges),
        ("rawcached_range_bytes_total", "Body bytes given by parallel reads.", ranges.bytes),
        (
            "rawcached_range_retries_total",
            "Slices read once more by themselves, after a failed read or check.",
            ranges.retries,
        ),
        (
            "rawcached_range_timeouts_total",
            "Ranges given up because a read took longer than range.timeout.",
            ranges.timeouts,
        ),
        ("rawcached_range_cancelled_total", "Ranges dropped before their end.", ranges.cancelled),
    ] {
        page.counter(name, help, &[], value);
    }
    page.gauge(
        "rawcached_range_buffer_bytes",
        "Memory that bodies hold on their way to clients.",
        &[],
        ranges.buffer_bytes,
    );
    page.gauge(
        "rawcached_range_buffer_max_bytes",
        "Memory for bodies on their way to clients; see memory.read_buffers.",
        &[],
        ranges.buffer_bytes_max,
    );
    page.histogram(
        "rawcached_range_read_duration_seconds",
        "How long single parallel reads took.",
        &[],
        &ranges.reads,
    );
    #[expect(clippy::cast_precision_loss, reason = "2^53 us are 285 years")]
    page.counter_float(
        "rawcached_range_wait_seconds_total",
        "Time that readers waited for parallel reads; the bytes over it are the throughput.",
        &[],
        ranges.busy_us as f64 / 1e6,
    );
}

fn write_levels(page: &mut Page, store: &StoreStats) {
    for (name, help, value) in [
        ("rawcached_recovered", "1 when recovery is complete.", u64::from(store.recovered)),
        ("rawcached_store_capacity_bytes", "Bytes in regions.", store.capacity_bytes),
        (
            "rawcached_store_live_bytes",
            "Upper bound of the bytes of indexed entries.",
            store.live_bytes,
        ),
        ("rawcached_store_regions", "Regions on the device.", store.regions),
        ("rawcached_store_free_regions", "Regions that hold nothing.", store.regions_free),
        (
            "rawcached_store_set_aside_regions",
            "Regions that could not be read or freed and are left alone for a while.",
            store.regions_set_aside,
        ),
        (
            "rawcached_store_waiting_removals",
            "Removals that hold already but whose tombstones could not be written yet.",
            store.removals_waiting,
        ),
        (
            "rawcached_store_unindexed_regions",
            "Regions that may hold entries that the index does not have, after failures or damage.",
            store.regions_unindexed,
        ),
        (
            "rawcached_store_unreadable_regions",
            "Regions that could not be read whole at the start, nor since.",
            store.regions_unreadable,
        ),
        ("rawcached_index_entries", "Indexed entries, slices one by one.", store.entries),
        ("rawcached_index_bytes", "Memory of the index.", store.index_bytes),
        (
            "rawcached_index_max_bytes",
            "Most memory of the index; see memory.index.",
            store.index_bytes_max,
        ),
        (
            "rawcached_index_max_entries",
            "Entries that the index has room for; regions are freed before there are more.",
            store.entries_max,
        ),
        (
            "rawcached_store_backlog_bytes",
            "Bytes accepted but not yet on the device.",
            store.backlog_bytes,
        ),
        (
            "rawcached_store_backlog_max_bytes",
            "Bytes not yet on the device from which on stores wait; see memory.backlog.",
            store.backlog_bytes_max,
        ),
        (
            "rawcached_purge_max_records",
            "Purges by tags and prefixes of each kind that are kept; the oldest half of more goes into a floor.",
            store.purge_records_max,
        ),
    ] {
        page.gauge(name, help, &[], value);
    }
    for (kind, value) in ["hard", "soft"].into_iter().zip(store.purge_records) {
        let help = "Purges by tags and prefixes that may still cover something.";
        page.gauge("rawcached_purge_records", help, &[("kind", kind)], value);
    }
    for (name, help, value) in [
        (
            "rawcached_recovery_regions",
            "Regions that recovery reads; 0 after a start from a snapshot.",
            store.recovery.regions_total,
        ),
        (
            "rawcached_recovery_regions_done",
            "Regions that recovery has read.",
            store.recovery.regions_done,
        ),
        (
            "rawcached_recovery_found_entries",
            "Versions of entries and tombstones that recovery has found.",
            store.recovery.found,
        ),
        (
            "rawcached_recovery_scratch_peak_bytes",
            "Most memory that recovery took for what it found.",
            store.recovery.scratch_peak_bytes,
        ),
        (
            "rawcached_recovery_passes",
            "Passes over the regions that recovery took; more than one if memory.recovery is small.",
            store.counters.recovery_passes,
        ),
        (
            "rawcached_recovery_left_out_regions",
            "Regions that recovery left out, because the index was at its part of memory.",
            store.counters.regions_left_out,
        ),
    ] {
        page.gauge(name, help, &[], value);
    }
    let help = "The part of recovery that is done, 0 to 1.";
    let ratio = if store.recovered { 1.0 } else { store.recovery.ratio() };
    page.gauge_float("rawcached_recovery_ratio", help, &[], ratio);
    #[expect(clippy::cast_precision_loss, reason = "a recovery takes far less than 2^53 us")]
    page.gauge_float(
        "rawcached_recovery_duration_seconds",
        "How long recovery took.",
        &[],
        store.counters.recovery_us as f64 / 1e6,
    );
}

fn write_lookups(page: &mut Page, store: &StoreStats) {
    let counters = &store.counters;
    for (name, help, value) in [
        (
            "rawcached_index_false_positives_total",
            "Lookups whose fingerprint matched another key's entry.",
            counters.false_positives,
        ),
        (
            "rawcached_index_crowded_total",
            "Lookups and changes of keys that share their fingerprint with more entries than are looked at.",
            counters.crowded,
        ),
        (
            "rawcached_expired_lookups_total",
            "Entries found expired or purged by a lookup.",
            counters.expired,
        ),
        (
            "rawcached_damaged_entries_total",
            "Entries whose bytes on the device were not what was written.",
            counters.damaged,
        ),
        ("rawcached_entry_read_errors_total", "Failed reads of entries.", counters.read_errors),
        (
            "rawcached_log_write_errors_total",
            "Failed writes or flushes of the log.",
            counters.write_errors,
        ),
        (
            "rawcached_superblock_repairs_total",
            "Superblock copies found damaged and repaired.",
            counters.superblocks_repaired,
        ),
        ("rawcached_recovered_entries_total", "Entries found by recovery.", counters.recovered),
        (
            "rawcached_snapshots_written_total",
            "Index snapshots written at a clean stop.",
            counters.snapshots_written,
        ),
        (
            "rawcached_snapshots_skipped_total",
            "Clean stops that wrote no index snapshot; the log says why.",
            counters.snapshots_skipped,
        ),
        (
            "rawcached_snapshots_loaded_total",
            "Starts from an index snapshot.",
            counters.snapshots_loaded,
        ),
        (
            "rawcached_snapshots_refused_total",
            "Index snapshots that were not whole or not believed; footers were read.",
            counters.snapshots_refused,
        ),
    ] {
        page.counter(name, help, &[], value);
    }
}

fn write_reclaim(page: &mut Page, store: &StoreStats) {
    let counters = &store.counters;
    for (name, help, value) in [
        (
            "rawcached_accepted_body_bytes_total",
            "Body bytes accepted from clients; the device's written bytes over these are the \
             write amplification.",
            counters.body_bytes,
        ),
        ("rawcached_store_stalls_total", "Stores that had to wait for room.", counters.stalls),
        (
            "rawcached_store_stalls_refused_total",
            "Stores refused because the wait for room was too long.",
            counters.refused,
        ),
        ("rawcached_freed_regions_total", "Regions freed.", counters.regions_freed),
        (
            "rawcached_evicted_entries_total",
            "Indexed entries dropped with their region.",
            counters.evicted,
        ),
        (
            "rawcached_reinserted_entries_total",
            "Entries kept when their region was freed because they were hit.",
            counters.reinserted,
        ),
        ("rawcached_reinserted_bytes_total", "Bytes re-inserted.", counters.reinserted_bytes),
        (
            "rawcached_moved_large_bytes_total",
            "Bytes of large objects, being stored or just stored, moved when their region was freed.",
            counters.large_moved_bytes,
        ),
        (
            "rawcached_carried_tombstones_total",
            "Tombstones carried to a newer region.",
            counters.tombstones_carried,
        ),
        (
            "rawcached_carried_purge_records_total",
            "Records of purges by tags and prefixes carried to a newer region.",
            counters.purge_records_carried,
        ),
        (
            "rawcached_selecting_purges_total",
            "Purges by tags and prefixes.",
            counters.purge_records,
        ),
        (
            "rawcached_purge_folds_total",
            "Times that there were too many purges by tags and prefixes: what is older than the oldest \
             half of them was purged whole.",
            counters.purge_folds,
        ),
        (
            "rawcached_purge_folded_records_total",
            "Purges by tags and prefixes that went into a floor.",
            counters.purge_records_folded,
        ),
        (
            "rawcached_selected_lookups_total",
            "Entries found purged by a tag or a prefix by a lookup.",
            counters.purged_by_record,
        ),
        (
            "rawcached_touched_entries_total",
            "Entries given a new lifetime in place.",
            counters.touched,
        ),
        (
            "rawcached_updated_entries_total",
            "Entries given new metadata or a new lifetime over the same body.",
            counters.updated,
        ),
        (
            "rawcached_updated_bytes_total",
            "Bytes written again for new metadata: entries of up to 64 KiB, else heads.",
            counters.updated_bytes,
        ),
        (
            "rawcached_parts_objects_total",
            "Objects begun that are stored part by part.",
            counters.declared,
        ),
        (
            "rawcached_parts_bytes_total",
            "Bytes of slots written for parts of objects.",
            counters.filled_bytes,
        ),
    ] {
        page.counter(name, help, &[], value);
    }
}

/// Writes what happens to regions that cannot be read at the start.
fn write_unreadable(page: &mut Page, store: &StoreStats) {
    let counters = &store.counters;
    for (name, help, value) in [
        (
            "rawcached_doubtful_hits_total",
            "Hits on entries stored before the start while not all regions could be read.",
            counters.doubtful_hits,
        ),
        (
            "rawcached_doubtful_evicted_entries_total",
            "Entries evicted although worth keeping, because not all regions could be read.",
            counters.doubtful_evicted,
        ),
        (
            "rawcached_reread_regions_total",
            "Regions read after all that could not be read at the start.",
            counters.regions_reread,
        ),
        (
            "rawcached_forgotten_starts_total",
            "Times that all that was stored before the start was dropped, for want of room to keep \
             a region that could not be read.",
            counters.starts_forgotten,
        ),
    ] {
        page.counter(name, help, &[], value);
    }
}

fn write_scrub(page: &mut Page, store: &StoreStats) {
    let counters = &store.counters;
    for (name, help, value) in [
        ("rawcached_scrub_read_bytes_total", "Bytes read to verify them.", counters.scrub_bytes),
        (
            "rawcached_scrub_passes_total",
            "Times that everything on the device was verified.",
            counters.scrub_passes,
        ),
        (
            "rawcached_scrub_yields_total",
            "Reads of the scrubber that waited for lookups.",
            counters.scrub_yields,
        ),
        (
            "rawcached_scrub_unreadable_total",
            "Reads of the scrubber that failed.",
            counters.scrub_unreadable,
        ),
        (
            "rawcached_scrub_freed_entries_total",
            "Damaged entries that the scrubber dropped.",
            counters.scrub_freed,
        ),
        (
            "rawcached_scrub_condemned_regions_total",
            "Regions with a damaged structure that the scrubber had emptied.",
            counters.scrub_condemned,
        ),
    ] {
        page.counter(name, help, &[], value);
    }
    for (part, value) in [
        ("superblock", counters.scrub_superblocks),
        ("header", counters.scrub_headers),
        ("footer", counters.scrub_footers),
        ("tombstones", counters.scrub_tombstones),
        ("entry", counters.scrub_entries),
    ] {
        let help = "Damage that the scrubber found, by what is damaged.";
        page.counter("rawcached_scrub_damage_total", help, &[("part", part)], value);
    }
    #[expect(clippy::cast_precision_loss, reason = "a pass takes far less than 2^53 us")]
    page.gauge_float(
        "rawcached_scrub_pass_duration_seconds",
        "How long the last pass took.",
        &[],
        counters.scrub_pass_us as f64 / 1e6,
    );
    page.gauge(
        "rawcached_scrub_pass_end_timestamp_seconds",
        "When the last pass ended, in seconds since 1970; 0 before the first.",
        &[],
        counters.scrub_pass_at,
    );
}
