//! What parallel range reads count. Plain atomics; the metrics layer gives them names and help.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::histogram::{Histogram, HistogramSnapshot};

/// Counters of parallel range reads, since the store was opened.
#[derive(Debug, Default)]
pub(in crate::store) struct RangeCounters {
    pub ranges: AtomicU64,
    pub bytes: AtomicU64,
    pub retries: AtomicU64,
    pub timeouts: AtomicU64,
    pub cancelled: AtomicU64,
    pub busy_us: AtomicU64,
    pub reads: Histogram,
}

/// What parallel range reads did so far.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct RangeStats {
    /// Ranges begun.
    pub ranges: u64,
    /// Body bytes given to callers.
    pub bytes: u64,
    /// Slices read once more by themselves, after a failed read or a failed check.
    pub retries: u64,
    /// Ranges given up because a read took too long.
    pub timeouts: u64,
    /// Ranges dropped before their end.
    pub cancelled: u64,
    /// Microseconds that callers waited for reads; with `bytes` the throughput.
    pub busy_us: u64,
    /// Bytes of memory that range reads hold now.
    pub buffer_bytes: u64,
    /// Most bytes of memory for range reads, less one piece for each reader.
    pub buffer_bytes_max: u64,
    /// How long single reads took.
    pub reads: HistogramSnapshot,
}

impl RangeCounters {
    /// Adds the time that a caller waited.
    pub fn waited(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.busy_us.fetch_add(micros, Ordering::Relaxed);
    }

    pub fn snapshot(&self) -> RangeStats {
        RangeStats {
            ranges: self.ranges.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            timeouts: self.timeouts.load(Ordering::Relaxed),
            cancelled: self.cancelled.load(Ordering::Relaxed),
            busy_us: self.busy_us.load(Ordering::Relaxed),
            reads: self.reads.snapshot(),
            ..RangeStats::default()
        }
    }
}
