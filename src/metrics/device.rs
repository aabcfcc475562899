//! What a device counts, as metrics.

use super::Page;
use crate::device::{ADAPTIVE_CLASSES, DeviceInfo, DeviceStatsSnapshot};

/// Writes the facts and counters of one device.
pub fn write_device(page: &mut Page, info: &DeviceInfo, stats: &DeviceStatsSnapshot) {
    write_info(page, info, stats.direct);
    write_adaptive(page, info, stats);
    let requests = "Requests given to the device, by operation.";
    let errors = "Requests that failed for their caller, by operation.";
    let operations = [
        ("read", stats.reads, stats.read_errors),
        ("write", stats.writes, stats.write_errors),
        ("flush", stats.flushes, stats.flush_errors),
    ];
    for (operation, count, failed) in operations {
        let labels = [("operation", operation)];
        page.counter("rawcached_device_requests_total", requests, &labels, count);
        page.counter("rawcached_device_errors_total", errors, &labels, failed);
    }
    let transferred = "Bytes moved from and to the device.";
    for (direction, bytes) in [("read", stats.bytes_read), ("write", stats.bytes_written)] {
        let labels = [("direction", direction)];
        page.counter("rawcached_device_transferred_bytes_total", transferred, &labels, bytes);
    }
    let transfers = "Read and write requests, by whether they bypass the page cache.";
    let all = stats.reads + stats.writes;
    let (direct, buffered) = if stats.direct {
        (all.saturating_sub(stats.cached_reads), stats.cached_reads)
    } else {
        (0, all)
    };
    for (io, count) in [("direct", direct), ("buffered", buffered)] {
        page.counter("rawcached_device_transfers_total", transfers, &[("io", io)], count);
    }
    page.counter(
        "rawcached_device_read_modify_writes_total",
        "Updates in place that read a block, changed it and wrote it back.",
        &[],
        stats.read_modify_writes,
    );
    page.counter(
        "rawcached_device_continued_transfers_total",
        "Short or interrupted transfers that were continued.",
        &[],
        stats.continued,
    );
    page.counter(
        "rawcached_device_lost_rings_total",
        "Rings of io_uring that the kernel stopped to serve. Threads make their requests since.",
        &[],
        stats.lost_rings,
    );
    write_deadline(page, stats);
    page.gauge(
        "rawcached_device_requests_in_flight",
        "Requests given to the device and waited for.",
        &[],
        stats.in_flight,
    );
}

fn write_deadline(page: &mut Page, stats: &DeviceStatsSnapshot) {
    page.counter(
        "rawcached_device_overdue_reads_total",
        "Reads of lookups that lasted longer than device.read_deadline. Each was a miss.",
        &[],
        stats.overdue_reads,
    );
    page.gauge(
        "rawcached_device_overdue_reads",
        "Overdue reads that are not over. From 128 on the device is not asked by lookups.",
        &[],
        stats.overdue_now,
    );
    page.counter(
        "rawcached_device_refused_reads_total",
        "Reads of lookups that were not made since too many were overdue. Each was a miss.",
        &[],
        stats.refused_reads,
    );
    page.gauge(
        "rawcached_device_degraded",
        "1 while the device is ten times slower than it was, or answers nothing: stores are refused.",
        &[],
        u64::from(stats.degraded),
    );
}

fn write_info(page: &mut Page, info: &DeviceInfo, direct: bool) {
    let path = info.path.to_string_lossy();
    page.gauge(
        "rawcached_device_info",
        "Always 1; path and engine are in the labels.",
        &[("path", &path), ("engine", info.engine)],
        1,
    );
    page.gauge("rawcached_device_size_bytes", "Usable bytes of the device.", &[], info.size);
    page.gauge(
        "rawcached_device_alignment_bytes",
        "Offsets and lengths of transfers are multiples of this.",
        &[],
        u64::from(info.alignment),
    );
    page.gauge(
        "rawcached_device_direct_io",
        "1 where transfers bypass the page cache, 0 where they are buffered.",
        &[],
        u64::from(direct),
    );
    page.gauge(
        "rawcached_device_direct_io_fallback",
        "1 where direct I/O was wanted and is off.",
        &[],
        u64::from(info.fallback.is_some()),
    );
}

fn write_adaptive(page: &mut Page, info: &DeviceInfo, stats: &DeviceStatsSnapshot) {
    page.gauge(
        "rawcached_device_adaptive",
        "1 where lookups read through the page cache while that is faster, and all else is direct.",
        &[],
        u64::from(info.adaptive),
    );
    page.gauge(
        "rawcached_device_adaptive_fallback",
        "1 where adaptive reads were wanted and all are direct.",
        &[],
        u64::from(info.adaptive_fallback.is_some()),
    );
    page.counter(
        "rawcached_device_adaptive_switches_total",
        "Times that adaptive reads changed their way, of all lengths.",
        &[],
        stats.adaptive.switches,
    );
    page.counter(
        "rawcached_device_adaptive_distrusted_total",
        "Adaptive reads whose bytes were doubted and read again direct.",
        &[],
        stats.distrusted,
    );
    let prefers = "1 where adaptive reads of at most this length go through the page cache.";
    for (length_max, buffered) in ADAPTIVE_CLASSES.into_iter().zip(stats.adaptive.prefers_buffered)
    {
        let labels = [("length_max", length_max)];
        let name = "rawcached_device_adaptive_prefers_buffered";
        page.gauge(name, prefers, &labels, u64::from(buffered));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{AdaptiveSnapshot, DeviceKind};
    use crate::metrics::Metrics;

    #[test]
    fn every_counter_of_a_device_is_on_the_page() {
        let info = DeviceInfo {
            path: "/dev/x".into(),
            kind: DeviceKind::Simulated,
            engine: "threads",
            direct: true,
            engine_fallback: None,
            fallback: None,
            adaptive: true,
            adaptive_fallback: None,
            direct_writes_buffered: false,
            read_only: false,
            size: 1 << 30,
            alignment: 4096,
            memory_alignment: 512,
        };
        let stats = DeviceStatsSnapshot {
            direct: true,
            reads: 1,
            writes: 2,
            flushes: 3,
            read_modify_writes: 4,
            bytes_read: 5,
            bytes_written: 6,
            read_errors: 7,
            write_errors: 8,
            flush_errors: 9,
            continued: 10,
            in_flight: 11,
            reads_in_flight: 3,
            cached_reads: 1,
            distrusted: 12,
            adaptive: AdaptiveSnapshot { prefers_buffered: [false, true, false], switches: 13 },
            lost_rings: 14,
            overdue_reads: 15,
            overdue_now: 16,
            refused_reads: 17,
            degraded: true,
        };
        let metrics = Metrics::new();
        metrics.add(move |page| write_device(page, &info, &stats)).unwrap();
        let text = metrics.render();
        for line in [
            "rawcached_device_info{path=\"/dev/x\",engine=\"threads\"} 1",
            "rawcached_device_direct_io 1",
            "rawcached_device_requests_total{operation=\"read\"} 1",
            "rawcached_device_requests_total{operation=\"write\"} 2",
            "rawcached_device_requests_total{operation=\"flush\"} 3",
            "rawcached_device_transfers_total{io=\"direct\"} 2",
            "rawcached_device_transfers_total{io=\"buffered\"} 1",
            "rawcached_device_adaptive 1",
            "rawcached_device_adaptive_fallback 0",
            "rawcached_device_adaptive_switches_total 13",
            "rawcached_device_adaptive_distrusted_total 12",
            "rawcached_device_adaptive_prefers_buffered{length_max=\"16KiB\"} 0",
            "rawcached_device_adaptive_prefers_buffered{length_max=\"256KiB\"} 1",
            "rawcached_device_adaptive_prefers_buffered{length_max=\"any\"} 0",
            "rawcached_device_read_modify_writes_total 4",
            "rawcached_device_transferred_bytes_total{direction=\"read\"} 5",
            "rawcached_device_transferred_bytes_total{direction=\"write\"} 6",
            "rawcached_device_errors_total{operation=\"read\"} 7",
            "rawcached_device_errors_total{operation=\"write\"} 8",
            "rawcached_device_errors_total{operation=\"flush\"} 9",
            "rawcached_device_continued_transfers_total 10",
            "rawcached_device_requests_in_flight 11",
            "rawcached_device_lost_rings_total 14",
            "rawcached_device_overdue_reads_total 15",
            "rawcached_device_overdue_reads 16",
            "rawcached_device_refused_reads_total 17",
            "rawcached_device_degraded 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
