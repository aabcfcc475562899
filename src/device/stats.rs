//! Counters of one device. Owns the numbers; never interprets them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::OperationKind;

/// Number of length classes of adaptive reads, each with a choice of its own.
pub(super) const SIZE_CLASSES: usize = 3;

/// Names of the length classes of adaptive reads: the longest read of each.
pub const ADAPTIVE_CLASSES: [&str; SIZE_CLASSES] = ["16KiB", "256KiB", "any"];

/// Live counters of one device, from its opening on.
#[derive(Debug, Default)]
pub struct DeviceStats {
    reads: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
    read_modify_writes: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    read_errors: AtomicU64,
    write_errors: AtomicU64,
    flush_errors: AtomicU64,
    continued: AtomicU64,
    in_flight: AtomicU64,
    reads_in_flight: AtomicU64,
    cached_reads: AtomicU64,
    distrusted: AtomicU64,
    overdue: AtomicU64,
    refused: AtomicU64,
}

/// What adaptive reads decided so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct AdaptiveSnapshot {
    /// Whether the page cache is preferred, by class of lengths.
    pub prefers_buffered: [bool; SIZE_CLASSES],
    /// Changes of preference, of all classes.
    pub switches: u64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DeviceStatsSnapshot {
    /// Whether transfers bypass the page cache.
    pub direct: bool,
    /// Read requests given to the engine.
    pub reads: u64,
    /// Write requests given to the engine.
    pub writes: u64,
    /// Flush requests given to the engine.
    pub flushes: u64,
    /// Read-modify-writes that wrote.
    pub read_modify_writes: u64,
    /// Bytes read from the device.
    pub bytes_read: u64,
    /// Bytes written to the device.
    pub bytes_written: u64,
    /// Reads that failed for the caller.
    pub read_errors: u64,
    /// Writes that failed for the caller.
    pub write_errors: u64,
    /// Flushes that failed for the caller.
    pub flush_errors: u64,
    /// Short or interrupted transfers that were continued.
    pub continued: u64,
    /// Requests given to the engine that somebody waits for.
    pub in_flight: u64,
    /// Those of them that read.
    pub reads_in_flight: u64,
    /// Reads through the page cache of a device opened adaptively.
    pub cached_reads: u64,
    /// Adaptive reads whose bytes failed verification, to be read again direct.
    pub distrusted: u64,
    /// What adaptive reads decided so far.
    pub adaptive: AdaptiveSnapshot,
    /// Rings that the kernel stopped serving; threads make their requests since.
    pub lost_rings: u64,
    /// Reads for clients that lasted longer than the deadline.
    pub overdue_reads: u64,
    /// Those of them that are not over.
    pub overdue_now: u64,
    /// Reads for clients that were refused because too many were overdue.
    pub refused_reads: u64,
    /// Whether the device is much slower than it was.
    pub degraded: bool,
}

impl DeviceStats {
    pub(super) fn snapshot(&self, direct: bool) -> DeviceStatsSnapshot {
        DeviceStatsSnapshot {
            direct,
            reads: self.reads.load(Relaxed),
            writes: self.writes.load(Relaxed),
            flushes: self.flushes.load(Relaxed),
            read_modify_writes: self.read_modify_writes.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
            read_errors: self.read_errors.load(Relaxed),
            write_errors: self.write_errors.load(Relaxed),
            flush_errors: self.flush_errors.load(Relaxed),
            continued: self.continued.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            reads_in_flight: self.reads_in_flight.load(Relaxed),
            cached_reads: self.cached_reads.load(Relaxed),
            distrusted: self.distrusted.load(Relaxed),
            adaptive: AdaptiveSnapshot::default(),
            lost_rings: 0,
            overdue_reads: self.overdue.load(Relaxed),
            overdue_now: 0,
            refused_reads: self.refused.load(Relaxed),
            degraded: false,
        }
    }

    /// Counts a request as submitted, and as in flight until the result is dropped.
    pub(super) fn submitted(&self, kind: OperationKind) -> InFlight<'_> {
        match kind {
            OperationKind::Read => &self.reads,
            OperationKind::Write => &self.writes,
            OperationKind::Flush => &self.flushes,
        }
        .fetch_add(1, Relaxed);
        let under_way = self.in_flight.fetch_add(1, Relaxed) + 1;
        let reads = (kind == OperationKind::Read).then_some(&self.reads_in_flight);
        if let Some(reads) = reads {
            reads.fetch_add(1, Relaxed);
        }
        InFlight { all: &self.in_flight, reads, under_way }
    }

    /// Whether anybody waits for a request.
    pub(super) fn has_in_flight(&self) -> bool {
        self.in_flight.load(Relaxed) > 0
    }

    pub(super) fn transferred(&self, kind: OperationKind, bytes: usize) {
        match kind {
            OperationKind::Read => self.bytes_read.fetch_add(bytes as u64, Relaxed),
            OperationKind::Write => self.bytes_written.fetch_add(bytes as u64, Relaxed),
            OperationKind::Flush => 0,
        };
    }

    pub(super) fn failed(&self, kind: OperationKind) {
        match kind {
            OperationKind::Read => &self.read_errors,
            OperationKind::Write => &self.write_errors,
            OperationKind::Flush => &self.flush_errors,
        }
        .fetch_add(1, Relaxed);
    }

    pub(super) fn continued(&self) {
        self.continued.fetch_add(1, Relaxed);
    }

    pub(super) fn read_cached(&self) {
        self.cached_reads.fetch_add(1, Relaxed);
    }

    pub(super) fn distrusted(&self) {
        self.distrusted.fetch_add(1, Relaxed);
    }

    pub(super) fn overdue(&self) {
        self.overdue.fetch_add(1, Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn modified(&self) {
        self.read_modify_writes.fetch_add(1, Relaxed);
    }
}

/// A request in flight; ends when dropped, so a cancelled wait is not counted for ever.
pub(super) struct InFlight<'a> {
    all: &'a AtomicU64,
    reads: Option<&'a AtomicU64>,
    /// Requests in flight when it was submitted, itself among them.
    pub(super) under_way: u64,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Relaxed);
        if let Some(reads) = self.reads {
            reads.fetch_sub(1, Relaxed);
        }
    }
}
